//! The session of one connection: hello, open, then one transfer at a time. Both roles.
//!
//! Invariant: before a share is opened nothing but hello, open and close is accepted, and nothing is
//! asked of the outside but to decide on the open. Every message in a state that does not expect it
//! is a fault of the peer.

mod syncing;
mod transferring;

use super::receiver::Receiver;
use super::sender::{Sender, fault_of};
use crate::model::limits::DEVICE_NAME_BYTES_MAX;
use crate::model::{CloseCode, Fault, Right, Rights};
use crate::wire::{
    Alter, Altered, Ask, Begin, BeginFlags, ChangesReader, ComeBack, Direction, End, Finish, FrameType, Hello, Hole,
    Inline, ListEnd, Message, News, Open, Opened, Patch, Piece, Queued, Reader, Since, SourceFailed, Start,
    TargetFailed, TargetKind, Tell, VERSION_MAX, VERSION_MIN, control_header, encode_number, features,
};

/// One connection, without its socket.
#[derive(Debug)]
pub struct Machine {
    role: Role,
    state: State,
    out: Vec<u8>,
    name: String,
    peer_name: String,
    /// What this end offers.
    offered: u64,
    /// What both ends can do, once the peer has greeted.
    features: u64,
    rights: Rights,
    /// The latest ping that has no answer yet; a flood of pings gets one answer at a time.
    ping: Option<u64>,
    /// A status query was passed on since output was last taken; until then others are dropped, so
    /// that a flood of them gets one answer at a time as well.
    status_asked: bool,
    /// A question about changes has no answer yet.
    since_open: bool,
}

#[derive(Debug)]
enum Role {
    /// Holds what it will ask for once the server has greeted.
    Client {
        open: Open,
    },
    Server,
}

#[derive(Debug)]
enum State {
    /// Until the peer's hello.
    Greeting,
    /// Server: until the client's open.
    Unopened,
    /// Server: the outside decides on an open. Client: the server does.
    Opening,
    /// Open, no transfer.
    Idle,
    /// A begin was sent or received and waits for ready.
    Beginning {
        stream: u16,
        direction: Direction,
        flags: BeginFlags,
    },
    /// Things are moved and removed.
    Altering,
    /// Content flows from here.
    Sending(Box<Sender>),
    /// Content flows to here.
    Receiving(Box<Receiver>),
    /// A close was sent or received.
    Closed,
}

/// What a frame means to the outside.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Nothing to do, apart from sending what [`Machine::take_output`] holds.
    Nothing,
    /// Server: decide, then call [`Machine::grant`] or [`Machine::close`].
    Open(Open),
    /// Client: the share is open.
    Opened(Opened),
    /// Server: look at the target, then call [`Machine::ready`] or [`Machine::close`].
    Begin(Begin),
    /// Client: the server is ready; for a push, sending may begin.
    Ready(TargetKind),
    /// Client: the transfer waits for others at the server.
    Queued(Queued),
    /// Client: the server said when to come again.
    ComeBack(ComeBack),
    /// Server: call [`Machine::status_reply`].
    StatusQuery,
    /// Client: the server's answer, JSON.
    StatusReply(&'a [u8]),
    /// Server: what changed since? Answer with [`Machine::changes`].
    Since(Since),
    /// Server: moves and removals to make; answer with [`Machine::altered`].
    Alter(Alter),
    /// Client: a page of changes.
    Changes(ChangesReader<'a>),
    /// Client: what became of the moves and removals.
    Altered(Altered),
    /// Client: the share has a newer revision.
    News(News),
    /// Receiver: look at [`Receiver::next_check`].
    Offered,
    /// Receiver: a file starts.
    Start(Start),
    /// Receiver: a file starts behind what was named of it with [`Receiver::partial`].
    Resume(Start),
    /// Receiver: content of the started file.
    Content {
        /// Its number.
        file: u32,
        /// The next bytes.
        bytes: &'a [u8],
    },
    /// Receiver: a hole in the started file.
    Hole(Hole),
    /// Receiver: the started file is complete, void or failed.
    End(End),
    /// Receiver: a small file, whole.
    Inline(Inline<'a>),
    /// Receiver: the list is complete.
    ListEnd(ListEnd),
    /// Receiver: the sender cannot read an entry.
    SourceFailed(SourceFailed<'a>),
    /// Receiver: a question about the basis of a wanted file; answer with [`Receiver::tell`].
    Ask(Ask<'a>),
    /// Receiver: a file starts as a patch; its plan comes as content.
    Patch(Patch),
    /// Receiver: a file starts as a patch, behind what was named of it with [`Receiver::partial`].
    ResumePatch(Patch),
    /// Sender: a piece of an answer about a basis.
    Tell(Tell<'a>),
    /// Sender: answers, results or credit came; look at [`Sender::next_read`] and
    /// [`Sender::poll_report`].
    Progress,
    /// Sender: the payload of a frame that lists deleted entries.
    Removed(&'a [u8]),
    /// Sender: the receiver could not do something, beside the files that it wanted.
    TargetFailed(TargetFailed<'a>),
    /// Sender: the transfer is over.
    Finished(Finish),
    /// The peer closed, with a reason.
    Closed(Fault),
}

impl Machine {
    /// The client's end: greets and asks for `open` at once.
    #[must_use]
    pub fn client(name: &str, open: Open) -> Machine {
        Machine::client_with(name, open, features::ALL)
    }

    /// The client's end with only these [`features`].
    #[must_use]
    pub fn client_with(name: &str, open: Open, offered: u64) -> Machine {
        let mut machine = Machine::new(Role::Client { open }, name);
        machine.offered = offered & features::ALL;
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features: machine.offered,
            name: &machine.name,
        };
        hello.encode(0, &mut machine.out);
        machine
    }

    /// The server's end: waits for a greeting.
    #[must_use]
    pub fn server(name: &str) -> Machine {
        Machine::server_with(name, features::ALL)
    }

    /// The server's end with only these [`features`].
    #[must_use]
    pub fn server_with(name: &str, offered: u64) -> Machine {
        let mut machine = Machine::new(Role::Server, name);
        machine.offered = offered & features::ALL;
        machine
    }

    fn new(role: Role, name: &str) -> Machine {
        let mut end = name.len().min(DEVICE_NAME_BYTES_MAX);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        Machine {
            role,
            state: State::Greeting,
            out: Vec::new(),
            name: name[..end].to_owned(),
            peer_name: String::new(),
            offered: features::ALL,
            features: 0,
            rights: Rights::NONE,
            ping: None,
            status_asked: false,
            since_open: false,
        }
    }

    /// What the peer calls itself; empty before its hello.
    #[must_use]
    pub fn peer_name(&self) -> &str {
        &self.peer_name
    }

    /// Bits of [`features`] that both sides have.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// What was granted on the open share.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// The sending half of the running transfer.
    pub fn sender(&mut self) -> Option<&mut Sender> {
        match &mut self.state {
            State::Sending(sender) => Some(sender),
            _ => None,
        }
    }

    /// The receiving half of the running transfer.
    pub fn receiver(&mut self) -> Option<&mut Receiver> {
        match &mut self.state {
            State::Receiving(receiver) => Some(receiver),
            _ => None,
        }
    }

    /// Whether the share is open (the peer is authenticated).
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(
            self.state,
            State::Greeting | State::Unopened | State::Opening | State::Closed
        )
    }

    /// Bytes of memory that it takes beside itself, about.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let transfer = match &self.state {
            State::Sending(sender) => sender.held_bytes(),
            State::Receiving(receiver) => receiver.held_bytes(),
            _ => 0,
        };
        self.out.capacity() + transfer
    }

    /// Whether a close was sent or received.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether a transfer runs or is about to.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        matches!(
            self.state,
            State::Beginning { .. } | State::Sending(_) | State::Receiving(_)
        )
    }

    /// Bytes to send, in order. Content of data frames is not among them (see [`Sender::data`]).
    pub fn take_output(&mut self) -> Vec<u8> {
        if let Some(number) = self.ping.take() {
            encode_number(FrameType::Pong, 0, number, &mut self.out);
        }
        self.status_asked = false;
        let mut out = std::mem::take(&mut self.out);
        let more = match &mut self.state {
            State::Sending(sender) => sender.output(),
            State::Receiving(receiver) => receiver.output(),
            _ => return out,
        };
        if out.is_empty() {
            return std::mem::take(more);
        }
        out.append(more);
        out
    }

    /// Deals with one piece from the decoder.
    ///
    /// # Errors
    /// A [`Fault`] of the peer: pass it to [`Machine::close`], flush, and drop the connection.
    pub fn handle<'a>(&mut self, piece: Piece<'a>) -> Result<Event<'a>, Fault> {
        if self.is_closed() {
            return Ok(Event::Nothing);
        }
        let (kind, stream, payload) = match piece {
            Piece::Data { stream, file, bytes } => {
                self.check_stream(stream)?;
                return self.receiving()?.handle_data(file, bytes);
            }
            Piece::Control { kind, stream, payload } => (kind, stream, payload),
        };
        match kind {
            FrameType::Close => {
                self.state = State::Closed;
                Ok(Event::Closed(decode(payload)?))
            }
            FrameType::Hello => self.handle_hello(&decode(payload)?),
            FrameType::Open => self.handle_open(decode(payload)?),
            FrameType::Opened => self.handle_opened(decode(payload)?),
            _ if !self.is_open() => Err(Fault::protocol("a message before the share is open")),
            FrameType::Ping => {
                self.ping = Some(number(payload)?);
                Ok(Event::Nothing)
            }
            FrameType::Pong => number(payload).map(|_| Event::Nothing),
            FrameType::StatusQuery | FrameType::StatusReply => self.handle_status(kind, payload),
            FrameType::Since | FrameType::Changes | FrameType::News | FrameType::Alter | FrameType::Altered => {
                self.handle_syncing(kind, payload)
            }
            FrameType::Begin => self.handle_begin(stream, decode(payload)?),
            FrameType::Ready => self.handle_ready(stream, decode(payload)?),
            FrameType::Queued | FrameType::ComeBack => self.handle_waiting(kind, stream, payload),
            _ => {
                self.check_stream(stream)?;
                self.handle_transfer(kind, payload)
            }
        }
    }

    fn handle_hello<'a>(&mut self, hello: &Hello<'_>) -> Result<Event<'a>, Fault> {
        if !matches!(self.state, State::Greeting) {
            return Err(Fault::protocol("a second hello"));
        }
        let version = hello.version_max.min(VERSION_MAX);
        if version < hello.version_min || version < VERSION_MIN {
            let (low, high) = (hello.version_min, hello.version_max);
            let text = format!("this side speaks protocol {VERSION_MIN} to {VERSION_MAX}, the other {low} to {high}");
            return Err(Fault::new(CloseCode::Version, text));
        }
        if matches!(self.role, Role::Client { .. }) && hello.version_min != hello.version_max {
            return Err(Fault::protocol("a greeting that chooses no version"));
        }
        self.features = hello.features & self.offered;
        hello.name.clone_into(&mut self.peer_name);
        match &self.role {
            Role::Client { open } => {
                open.encode(0, &mut self.out);
                self.state = State::Opening;
            }
            Role::Server => {
                let name = self.name.as_str();
                let answer = Hello {
                    version_min: version,
                    version_max: version,
                    features: self.features,
                    name,
                };
                answer.encode(0, &mut self.out);
                self.state = State::Unopened;
            }
        }
        Ok(Event::Nothing)
    }

    fn handle_open<'a>(&mut self, open: Open) -> Result<Event<'a>, Fault> {
        if !matches!(self.state, State::Unopened) {
            return Err(Fault::protocol("an open out of place"));
        }
        self.state = State::Opening;
        Ok(Event::Open(open))
    }

    fn handle_opened<'a>(&mut self, opened: Opened) -> Result<Event<'a>, Fault> {
        if !matches!((&self.role, &self.state), (Role::Client { .. }, State::Opening)) {
            return Err(Fault::protocol("an unexpected grant"));
        }
        self.rights = opened.rights;
        self.state = State::Idle;
        Ok(Event::Opened(opened))
    }

    fn handle_status<'a>(&mut self, kind: FrameType, payload: &'a [u8]) -> Result<Event<'a>, Fault> {
        match (kind, &self.role) {
            (FrameType::StatusQuery, Role::Server) => {
                Reader::new(payload).finish().map_err(fault_of)?;
                let again = std::mem::replace(&mut self.status_asked, true);
                Ok(if again { Event::Nothing } else { Event::StatusQuery })
            }
            (FrameType::StatusReply, Role::Client { .. }) => Ok(Event::StatusReply(payload)),
            _ => Err(Fault::protocol("a message of the other role")),
        }
    }

    fn handle_begin<'a>(&mut self, stream: u16, begin: Begin) -> Result<Event<'a>, Fault> {
        if !matches!((&self.role, &self.state), (Role::Server, State::Idle)) {
            return Err(Fault::protocol("a transfer out of place"));
        }
        self.check_stream(stream)?;
        let needed = match begin.direction {
            Direction::Push => Right::Write,
            Direction::Pull => Right::Read,
        };
        if !self.rights.allow(needed) {
            let text = format!("this device may not {} this share", verb(begin.direction));
            return Err(Fault::new(CloseCode::Forbidden, text));
        }
        self.state = State::beginning(stream, &begin);
        Ok(Event::Begin(begin))
    }

    fn handle_ready<'a>(&mut self, stream: u16, kind: TargetKind) -> Result<Event<'a>, Fault> {
        match (&self.role, &self.state) {
            (
                Role::Client { .. },
                &State::Beginning {
                    stream: own,
                    direction,
                    flags,
                },
            ) if own == stream => {
                self.state = match direction {
                    Direction::Push => State::sending(stream, flags),
                    Direction::Pull => State::receiving(stream, flags),
                };
                Ok(Event::Ready(kind))
            }
            _ => Err(Fault::protocol("an unexpected ready")),
        }
    }

    fn handle_waiting<'a>(&mut self, kind: FrameType, stream: u16, payload: &[u8]) -> Result<Event<'a>, Fault> {
        if self.features & features::WAITING == 0 {
            return Err(Fault::protocol("a line that was not negotiated"));
        }
        match (kind, &self.role, &self.state) {
            (FrameType::ComeBack, Role::Client { .. }, _) => Ok(Event::ComeBack(decode(payload)?)),
            (FrameType::Queued, Role::Client { .. }, State::Beginning { stream: own, .. }) if *own == stream => {
                Ok(Event::Queued(decode(payload)?))
            }
            _ => Err(Fault::protocol("a message about waiting out of place")),
        }
    }

    /// Server: lets the client in.
    pub fn grant(&mut self, opened: Opened) {
        debug_assert!(matches!((&self.role, &self.state), (Role::Server, State::Opening)));
        self.rights = opened.rights;
        self.state = State::Idle;
        opened.encode(0, &mut self.out);
    }

    /// Client: starts a transfer on the open share.
    pub fn begin(&mut self, begin: &Begin) {
        debug_assert!(matches!((&self.role, &self.state), (Role::Client { .. }, State::Idle)));
        begin.encode(TRANSFER_STREAM, &mut self.out);
        self.state = State::beginning(TRANSFER_STREAM, begin);
    }

    /// Server: the transfer can go; `kind` is what stands at its target (or only source).
    pub fn ready(&mut self, kind: TargetKind) {
        let State::Beginning {
            stream,
            direction,
            flags,
        } = self.state
        else {
            debug_assert!(false, "ready answers a begin");
            return;
        };
        kind.encode(stream, &mut self.out);
        self.state = match direction {
            Direction::Push => State::receiving(stream, flags),
            Direction::Pull => State::sending(stream, flags),
        };
    }

    /// Server: the transfer that was begun waits for others; it is ready later.
    pub fn queued(&mut self, queued: Queued) {
        let State::Beginning { stream, .. } = self.state else {
            debug_assert!(false, "only what was begun waits");
            return;
        };
        if self.features & features::WAITING != 0 {
            queued.encode(stream, &mut self.out);
        }
    }

    /// Server: says when the client is to come again.
    pub fn come_back(&mut self, after_ms: u64) {
        if self.features & features::WAITING != 0 && self.is_open() {
            ComeBack { after_ms }.encode(0, &mut self.out);
        }
    }

    /// The transfer is over on this side; the share stays open.
    pub fn end_transfer(&mut self) {
        self.out = self.take_output();
        self.state = State::Idle;
    }

    /// Client: asks how the server is.
    pub fn status_query(&mut self) {
        self.out
            .extend_from_slice(&control_header(FrameType::StatusQuery, 0, 0));
    }

    /// Server: answers [`Event::StatusQuery`] with JSON of at most a control frame.
    pub fn status_reply(&mut self, json: &[u8]) {
        self.out
            .extend_from_slice(&control_header(FrameType::StatusReply, 0, json.len()));
        self.out.extend_from_slice(json);
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&mut self, number: u64) {
        if self.is_open() {
            encode_number(FrameType::Ping, 0, number, &mut self.out);
        }
    }

    /// Says why and stops listening. Flush, then drop the connection.
    pub fn close(&mut self, fault: &Fault) {
        if !self.is_closed() {
            self.out = self.take_output();
            fault.encode(0, &mut self.out);
            self.state = State::Closed;
        }
    }

    fn check_stream(&self, stream: u16) -> Result<(), Fault> {
        match stream {
            TRANSFER_STREAM => Ok(()),
            _ => Err(Fault::protocol("an unknown stream")),
        }
    }
}

impl State {
    fn beginning(stream: u16, begin: &Begin) -> State {
        State::Beginning {
            stream,
            direction: begin.direction,
            flags: begin.flags,
        }
    }

    fn sending(stream: u16, flags: BeginFlags) -> State {
        State::Sending(Box::new(Sender::new(stream, flags.dry_run)))
    }

    fn receiving(stream: u16, flags: BeginFlags) -> State {
        State::Receiving(Box::new(Receiver::new(stream, flags.dry_run)))
    }
}

/// The only transfer of a connection; the number is on the wire so that there can be more one day.
const TRANSFER_STREAM: u16 = 1;

fn verb(direction: Direction) -> &'static str {
    match direction {
        Direction::Push => "write to",
        Direction::Pull => "read from",
    }
}

fn decode<'a, M: Message<'a>>(payload: &'a [u8]) -> Result<M, Fault> {
    M::decode(payload).map_err(fault_of)
}

fn number(payload: &[u8]) -> Result<u64, Fault> {
    let mut reader = Reader::new(payload);
    let value = reader.u64().map_err(fault_of)?;
    reader.finish().map_err(fault_of)?;
    Ok(value)
}
