//! Connection machines: hello, session, one sender, one receiver, flow, faults. Both roles.
//!
//! Pure: no I/O and no clock. Frames go in ([`Machine::handle`]), bytes come out
//! ([`Machine::take_output`]), and what has to be done outside is returned as data ([`Event`],
//! [`ReadStep`], [`Check`]). The same code runs under the reactor and under the simulator.

mod machine;
mod receiver;
mod sender;

pub use machine::{Event, Machine};
pub use receiver::{Check, Receiver};
pub use sender::{Asked, Origin, ReadStep, Report, Sender, Settlement};

#[cfg(test)]
mod asking_tests;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod receiver_tests;
#[cfg(test)]
mod resuming_tests;
#[cfg(test)]
mod sender_tests;
