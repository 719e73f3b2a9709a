//! Owns the delivery of SIGINT and SIGTERM as events of the loop. It never acts on them.
//!
//! Invariant: while it lives, neither signal ends the process by itself.

use mio::Registry;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals as Pipe;
use std::io;

use super::source::Source;

pub(super) struct Signals(Pipe);

impl Signals {
    pub(super) fn register(registry: &Registry) -> io::Result<Signals> {
        let mut pipe = Pipe::new([SIGINT, SIGTERM])?;
        registry.register(&mut pipe, Source::Signals.token(), mio::Interest::READABLE)?;
        Ok(Signals(pipe))
    }

    /// The signals since the last call, each at most once.
    pub(super) fn pending(&mut self) -> Vec<i32> {
        self.0.pending().collect()
    }
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signals")
    }
}
