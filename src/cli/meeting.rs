//! How two devices find each other, agree that they are the ones their users mean, and who of them has the share.
//! Never lets a stranger in: until both users have agreed, what each of them serves has a name that nobody knows.
//!
//! 1. A look: does the other one listen, and let this device in? Then this one connects.
//! 2. Else this one listens as well, and looks again now and then. Each look that is turned away tells both who the
//!    other is. Who does not know the other asks its user to compare words.
//! 3. Two that listen and let each other in: the one with the greater id connects. The other waits for that, and
//!    connects itself when it does not come about, since then the way there is open in one direction only.
//! 4. Whoever is asked for changes has the share from then on, and looks no more.
//!
//! Awkward cases: both connect at once, so that nobody listens: both fail, and begin again at 1. Somebody else than
//! the other device comes from its address first: the words differ. Invariant: nobody has the share and connects.

use super::complaint::Complaint;
use super::exit::Exit;
use super::peer::Peering;
use super::report::plain;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant, SystemTime};
use syncline::model::{CloseCode, DeviceId, Rights, ShareName, system_reason};
use syncline::node::{
    Client, ClientEvent, ClientOptions, Job, JobError, Outcome, PeerPart, Server, ServerEvent, TransferOptions,
    comparison_words, pair_share,
};
use syncline::store::StateError;

/// How two devices met.
pub(super) enum Met {
    /// The other one follows this one already.
    Listens {
        server: Box<Server>,
        other: DeviceId,
        /// What happened since.
        events: Vec<ServerEvent>,
    },
    /// The other one listens.
    Connects(DeviceId),
}

/// Two devices on their way to each other.
pub(super) struct Meeting<'a> {
    peering: &'a Peering<'a>,
    /// Where the other one may come from.
    addresses: Vec<IpAddr>,
    /// The other one, once the user knows it.
    other: Option<DeviceId>,
    /// Who the user is asked about.
    asked: Option<(DeviceId, String)>,
    server: Option<Server>,
    listen: SocketAddr,
    /// This folder is a share already: it has to listen.
    only_listens: bool,
    look: Option<Client>,
    next_look: Instant,
    /// Milliseconds between two looks.
    pause_ms: u64,
    /// How often in a row the other one let this one in.
    let_in: u32,
    said: Option<Said>,
}

/// What the user was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Away,
    KeptOut,
}

/// Milliseconds between two looks; they double while nobody is there.
const PAUSE_MS_MIN: u64 = 400;
const PAUSE_MS_MAX: u64 = 10_000;
/// A look that takes longer is given up.
const LOOK_TIMEOUT: Duration = Duration::from_secs(8);
/// Looks in a row that find the other one listening, after which the one with the lesser id goes there itself.
const PATIENCE_LOOKS: u32 = 20;
const TURN: Duration = Duration::from_millis(50);

impl<'a> Meeting<'a> {
    /// Of the device and the one at its host, which `part` of a folder begins.
    pub(super) fn new(peering: &'a Peering<'a>, part: PeerPart) -> Result<Meeting<'a>, Complaint> {
        let mut meeting = Meeting {
            peering,
            addresses: resolve(peering.host())?,
            other: None,
            asked: None,
            server: None,
            listen: peering.listen(),
            only_listens: matches!(part, PeerPart::Listens(_)),
            look: None,
            next_look: Instant::now(),
            pause_ms: PAUSE_MS_MIN,
            let_in: 0,
            said: None,
        };
        let pinned = peering.home.trust().known_server(&peering.authority())?;
        if let Some(device) = pinned
            && meeting.is_known(&device)?
        {
            meeting.other = Some(device);
        }
        if meeting.other.is_none() && !peering.yes && !io::stdin().is_terminal() {
            return Err(Complaint::new(
                Exit::Refused,
                format!(
                    "this device has not met {} yet, and here is nobody to ask",
                    plain(&peering.authority())
                ),
                "run it once in a terminal on both devices, or add --yes to take whoever is there for the other one",
            ));
        }
        Ok(meeting)
    }

    /// Until both have found each other.
    pub(super) fn run(mut self) -> Result<Met, Complaint> {
        loop {
            self.peering.check_interrupted()?;
            let mut events = VecDeque::from(self.poll()?);
            while let Some(event) = events.pop_front() {
                if self.is_followed(&event)
                    && let (Some(server), Some(other)) = (self.server.take(), self.other)
                {
                    events.push_front(event);
                    return Ok(Met::Listens {
                        server: Box::new(server),
                        other,
                        events: events.into(),
                    });
                }
                self.handle(event)?;
            }
            if let Some(found) = self.look()?
                && let Some(other) = self.weigh(found)?
            {
                return Ok(Met::Connects(other));
            }
            self.hear_answer()?;
        }
    }

    /// Lets the server work, or waits a moment.
    fn poll(&mut self) -> Result<Vec<ServerEvent>, Complaint> {
        match &mut self.server {
            Some(server) => server
                .poll(Some(TURN))
                .map_err(|error| Complaint::io("wait for connections", &error)),
            None => Ok(Vec::new()),
        }
    }

    /// The other one asks for changes: this one has the share.
    fn is_followed(&self, event: &ServerEvent) -> bool {
        matches!(event, ServerEvent::SyncBegun { device, .. } if device.is_some() && *device == self.other)
    }

    fn handle(&mut self, event: ServerEvent) -> Result<(), Complaint> {
        let ServerEvent::Refused {
            device: Some(device),
            name,
            peer,
            code: CloseCode::Refused,
            ..
        } = event
        else {
            return Ok(());
        };
        if !self.addresses.contains(&peer.ip().to_canonical()) {
            log::info!("{} came from {peer}, where the other device is not", device.short());
            return Ok(());
        }
        self.next_look = self.next_look.min(Instant::now() + Duration::from_millis(PAUSE_MS_MIN));
        self.pause_ms = PAUSE_MS_MIN;
        self.meet(device, &name)
    }

    /// Somebody is at the other end who has this key.
    fn meet(&mut self, device: DeviceId, name: &str) -> Result<(), Complaint> {
        if device == self.peering.own {
            let what = format!("{} is this device itself", plain(&self.peering.authority()));
            return Err(Complaint::usage(what, "name the other device: --with HOST[:PORT]"));
        }
        if self.other.is_some() || self.asked.is_some() {
            return Ok(());
        }
        if self.is_known(&device)? {
            return self.accept(device, name);
        }
        let words = comparison_words(&self.peering.own, &device);
        let console = &self.peering.session.console;
        console.clear();
        console.note(&format!(
            "{} is met for the first time. Both devices show the same words:\n    {words}",
            plain(&self.peering.authority())
        ));
        console.object(&json!({
            "event": "status", "state": "compare", "words": words, "device": device.to_string(), "name": plain(name),
        }));
        if self.peering.yes {
            console.note("taken for the other device without asking, as --yes says");
            return self.accept(device, name);
        }
        console.note("Is that what the other device shows? [y/N]");
        self.asked = Some((device, name.to_owned()));
        Ok(())
    }

    /// Whether it was let in before.
    fn is_known(&self, device: &DeviceId) -> Result<bool, StateError> {
        let share = pair_share(&self.peering.own, device);
        let rights = self.peering.home.trust().rights(device, &share)?;
        Ok(rights == Rights::READ_WRITE)
    }

    /// From now on it may come in, and is expected at its host.
    fn accept(&mut self, device: DeviceId, name: &str) -> Result<(), Complaint> {
        let share = pair_share(&self.peering.own, &device);
        let name = if name.is_empty() { self.peering.host().0 } else { name };
        let trust = self.peering.home.trust();
        trust.grant(&device, name, &share, Rights::READ_WRITE, SystemTime::now())?;
        trust.remember_server(&self.peering.authority(), &device, name)?;
        self.other = Some(device);
        self.look = None;
        self.next_look = Instant::now();
        if let Some(server) = self.server.take() {
            self.listen = server.listen_addrs()[0];
            drop(server);
            self.begin_listening()?;
        }
        Ok(())
    }

    fn begin_listening(&mut self) -> Result<(), Complaint> {
        let share = match self.other {
            Some(other) => pair_share(&self.peering.own, &other),
            // Nobody has rights to it, and nobody can name it.
            None => nameless()?,
        };
        let server = self.peering.bind(&share, self.listen)?;
        self.peering.session.console.object(&json!({
            "event": "ready", "listen": server.listen_addrs()[0].to_string(), "device": self.peering.own.to_string(),
        }));
        self.server = Some(server);
        Ok(())
    }

    /// Looks whether the other one is there; what was found, once it was.
    fn look(&mut self) -> Result<Option<Found>, Complaint> {
        if self.look.is_none() && Instant::now() >= self.next_look {
            let share = match self.other {
                Some(other) => pair_share(&self.peering.own, &other),
                None => nameless()?,
            };
            let options = ClientOptions {
                timeout: LOOK_TIMEOUT,
                retries: 0,
                handle_signals: false,
                ..self.peering.client_options()
            };
            let link = self.peering.link(&share, self.other);
            self.look = Some(Client::start(
                options,
                Job::Status { link },
                TransferOptions::default(),
            )?);
        }
        let Some(client) = &mut self.look else {
            if self.server.is_none() {
                self.peering.wait(TURN)?;
            }
            return Ok(None);
        };
        let wait = if self.server.is_some() { Duration::ZERO } else { TURN };
        let events = client
            .poll(Some(wait))
            .map_err(|error| Complaint::io("wait for the network", &error))?;
        let ended = events.into_iter().find_map(|event| match event {
            ClientEvent::Finished(outcome) => Some(outcome),
            _ => None,
        });
        let Some(outcome) = ended else { return Ok(None) };
        let answered = client.answered_by();
        self.look = None;
        found(outcome, answered).map(Some)
    }

    /// What follows from a look; the other one, if this one is to connect.
    fn weigh(&mut self, found: Found) -> Result<Option<DeviceId>, Complaint> {
        let was_listening = self.server.is_some();
        let mut pause_ms = PAUSE_MS_MIN;
        match found {
            Found::LetsIn(device) if Some(device) == self.other => {
                self.let_in += 1;
                // The other one would have come by now, if it could follow.
                if self.only_listens && self.let_in >= 3 * PATIENCE_LOOKS {
                    return Err(both_are_shares(self.peering));
                }
                let is_next = !was_listening || self.peering.own > device || self.let_in >= PATIENCE_LOOKS;
                if is_next && !self.only_listens {
                    return Ok(Some(device));
                }
            }
            // It has rights of another kind: whoever that is, it is met like anybody else.
            Found::LetsIn(device) => self.meet(device, "")?,
            Found::KeepsOut(device) => {
                self.let_in = 0;
                let is_met = self.other == Some(device);
                self.meet(device, "")?;
                if is_met {
                    self.say(Said::KeptOut, "", "waits until the other device has accepted this one");
                }
            }
            Found::Away(reason) => {
                self.let_in = 0;
                pause_ms = (self.pause_ms * 2).min(PAUSE_MS_MAX);
                self.say(Said::Away, &reason, "waits for the other device");
            }
        }
        self.pause_ms = pause_ms;
        // Two that begin together do not go on together for ever.
        let jitter = u64::from(std::process::id()) * 37 % (pause_ms / 2);
        self.next_look = Instant::now() + Duration::from_millis(pause_ms + jitter);
        if self.server.is_none() {
            self.begin_listening()?;
        }
        Ok(None)
    }

    /// Tells a user what is waited for, once.
    fn say(&mut self, said: Said, reason: &str, what: &str) {
        if self.said.replace(said) == Some(said) {
            return;
        }
        let console = &self.peering.session.console;
        let because = if reason.is_empty() {
            String::new()
        } else {
            format!(" ({})", plain(reason))
        };
        console.clear();
        console.note(&format!("{}: {what}{because}", plain(&self.peering.authority())));
        let state = match said {
            Said::Away => "waiting",
            Said::KeptOut => "unaccepted",
        };
        console.object(&json!({"event": "status", "state": state, "reason": plain(reason)}));
    }

    /// What the user says to the question, if there is one and an answer has come.
    fn hear_answer(&mut self) -> Result<(), Complaint> {
        if self.asked.is_none() || !has_line() {
            return Ok(());
        }
        let mut line = String::new();
        let read = io::stdin().read_line(&mut line);
        read.map_err(|error| Complaint::io("read the answer", &error))?;
        let Some((device, name)) = self.asked.take() else {
            return Ok(());
        };
        if matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return self.accept(device, &name);
        }
        Err(Complaint::new(
            Exit::Refused,
            format!(
                "the device at {} was not accepted, so nothing was shared with it",
                plain(&self.peering.authority())
            ),
            "if the words differ, somebody else is at that address: check HOST on both devices, then run it again",
        ))
    }
}

/// What a look found.
enum Found {
    /// Nobody who listens.
    Away(String),
    /// A device that lets this one in.
    LetsIn(DeviceId),
    /// A device that does not.
    KeepsOut(DeviceId),
}

fn found(outcome: Outcome, answered: Option<DeviceId>) -> Result<Found, Complaint> {
    match (outcome.result, answered) {
        (Ok(()), Some(device)) => Ok(Found::LetsIn(device)),
        (
            Err(JobError::Closed {
                code: CloseCode::Refused,
                ..
            }),
            Some(device),
        ) => Ok(Found::KeepsOut(device)),
        (Err(error), _) if Exit::of_job(&error) == Exit::Temporary => Ok(Found::Away(error.to_string())),
        (Err(error @ JobError::WrongServer { .. }), _) => Err(Complaint::new(
            Exit::Refused,
            plain(&error.to_string()).replace("server", "device"),
            "check HOST; if that device was set up anew, use another name or address of it, such as its IP address",
        )),
        (Err(error), _) => Err(error.into()),
        (Ok(()), None) => Ok(Found::Away("it did not say who it is".to_owned())),
    }
}

fn both_are_shares(peering: &Peering<'_>) -> Complaint {
    Complaint::new(
        Exit::Safety,
        format!(
            "{} and the folder of the other device were both served before, so neither can follow",
            plain(&peering.dir.to_string_lossy())
        ),
        "let one of the two begin anew: move the .syncline/index.redb of it elsewhere, then run this again on both",
    )
}

fn resolve((host, port): (&str, u16)) -> Result<Vec<IpAddr>, Complaint> {
    let broken = |reason: String| {
        let host = host.to_owned();
        let what = JobError::Resolve { host, reason }.to_string();
        Complaint::new(
            Exit::Error,
            plain(&what),
            "check the name in --with, or use the address of that device",
        )
    };
    let found = (host, port).to_socket_addrs();
    let addresses: Vec<IpAddr> = found
        .map_err(|error| broken(system_reason(&error)))?
        .map(|address| address.ip().to_canonical())
        .collect();
    if addresses.is_empty() {
        return Err(broken("it has no address".to_owned()));
    }
    Ok(addresses)
}

/// The name of a share that nobody can know.
fn nameless() -> Result<ShareName, Complaint> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Complaint::io("draw randomness", &io::Error::other(error.to_string())))?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(ShareName::parse(&format!("meeting-{hex}")).expect("hexadecimal digits name a share"))
}

/// Whether a line can be read without waiting for it.
fn has_line() -> bool {
    let stdin = io::stdin();
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(&stdin, PollFlags::IN)], Some(&now)), Ok(count) if count > 0)
}
