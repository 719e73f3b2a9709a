//! HTTP: a machine that turns bytes into requests and answers into bytes, and the text of metrics.
//!
//! Layer 2. No I/O, no clock and no knowledge of what is served: `node` brings requests and answers together.
//!
//! | file | owns |
//! |---|---|
//! | `machine` | one connection: heads, limits, keep-alive |
//! | `request` | a request whose host, method and framing were checked |
//! | `response` | an answer, and its bytes |
//! | `hosts` | which `Host` headers are ours |
//! | `exposition` | the text format of Prometheus |

mod exposition;
mod hosts;
mod machine;
mod request;
mod response;

pub use exposition::{EXPOSITION_CONTENT_TYPE, Exposition, MetricKind};
pub use hosts::Hosts;
pub use machine::Machine;
pub use request::{Method, Request};
pub use response::{Response, Status};
