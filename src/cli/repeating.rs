//! A push or pull that runs again and again (`--interval`): when the server says, or else as often as asked.
//! Never gives up for what may pass; stops for what a person has to mend, and when it is interrupted.

use super::complaint::Complaint;
use super::exit::Exit;
use super::quantity;
use super::report;
use super::session::{Ending, Session};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{SigId, flag, low_level};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Remembers an interrupt of the whole series. A client hears of signals only while it lives, and one that has
/// finished pays no heed: what comes then would be lost.
#[derive(Default)]
pub(crate) struct Interrupts {
    /// The signal that came; 0 for none.
    signal: Arc<AtomicUsize>,
    /// Readable once one came.
    came: Option<UnixStream>,
    handlers: Vec<SigId>,
}

impl Interrupts {
    /// Watches until it is dropped.
    pub(crate) fn watch() -> io::Result<Interrupts> {
        let mut interrupts = Interrupts::default();
        let (came, comes) = UnixStream::pair()?;
        for (signal, number) in [(SIGINT, 2), (SIGTERM, 15)] {
            debug_assert_eq!(usize::try_from(signal), Ok(number));
            let handler = flag::register_usize(signal, Arc::clone(&interrupts.signal), number)?;
            interrupts.handlers.push(handler);
            // After the number, so that whoever is woken finds it.
            interrupts
                .handlers
                .push(low_level::pipe::register(signal, comes.try_clone()?)?);
        }
        interrupts.came = Some(came);
        Ok(interrupts)
    }

    /// Waits, unless one came or comes: then this is it.
    #[cfg_attr(
        not(feature = "sync"),
        allow(dead_code, reason = "only a watch waits without a client")
    )]
    pub(crate) fn wait(&self, time: Duration) -> io::Result<Option<i32>> {
        let until = Instant::now() + time;
        while self.seen().is_none() {
            let left = until.saturating_duration_since(Instant::now());
            let Some(came) = self.came.as_ref().filter(|_| !left.is_zero()) else {
                break;
            };
            let left = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(came, PollFlags::IN)], left.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(self.seen())
    }

    /// The signal that came since the beginning, if one did.
    pub(crate) fn seen(&self) -> Option<i32> {
        let signal = i32::try_from(self.signal.load(Ordering::SeqCst)).ok();
        signal.filter(|signal| *signal != 0)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
    }
}

/// How one run ended, and when the server wants the next one.
pub(crate) struct Ran {
    pub(crate) ending: Result<Ending, Complaint>,
    pub(crate) come_back: Option<Duration>,
}

/// Runs `run`, which is told how long to wait before it, until it is over for good.
pub(crate) fn run(
    session: &Session,
    every: Duration,
    mut run: impl FnMut(Duration) -> Ran,
) -> Result<Ending, Complaint> {
    let console = &session.console;
    let mut delay = Duration::ZERO;
    loop {
        let Ran { ending, come_back } = run(delay);
        let exit = match &ending {
            Ok(ending) => ending.exit,
            Err(complaint) => complaint.exit,
        };
        if !may_pass(exit) {
            return ending;
        }
        let summary = match &ending {
            Ok(ending) => ending.summary.clone(),
            Err(complaint) => {
                console.error(&complaint.what, &complaint.advice, complaint.exit.code());
                (*complaint.summary).clone()
            }
        };
        delay = come_back.unwrap_or(every);
        let mut object = report::summary_object(&summary, exit.code());
        object["event"] = json!("run");
        object["next_seconds"] = json!(delay.as_secs_f64());
        console.object(&object);
        let whose = if come_back.is_some() {
            ", as the server asks"
        } else {
            ""
        };
        console.note(&format!("next run in {}{whose}", quantity::duration(delay)));
    }
}

/// Whether the next run may go better, or had nothing to better.
fn may_pass(exit: Exit) -> bool {
    matches!(
        exit,
        Exit::Done | Exit::NothingToDo | Exit::Partial | Exit::Temporary | Exit::Conflicts
    )
}
