//! What must hold for any bytes at all that come to the HTTP machine.
//!
//! As `bodies.rs`, for the listener of metrics.

use syncline::model::limits::{HTTP_HEAD_BYTES_MAX, HTTP_REQUESTS_MAX};
use syncline::web::{Hosts, Machine, Method, Request, Response, Status};

/// A connection that says anything, cut at the size that the first byte says: what is passed on is sound, answers
/// do not depend on the cut, and nothing is read behind a refusal.
pub fn http(data: &[u8]) {
    let Some((&step, stream)) = data.split_first() else {
        return;
    };
    let whole = converse(stream, usize::MAX);
    assert_eq!(whole, converse(stream, usize::from(step) + 1));
    let (requests, out) = whole;
    for request in &requests {
        assert!(request.path().starts_with('/') && request.path().len() <= HTTP_HEAD_BYTES_MAX);
        assert!(request.header("host").is_some() && request.header("transfer-encoding").is_none());
        assert!(matches!(request.method(), Method::Get | Method::Head));
    }
    assert!(requests.len() <= HTTP_REQUESTS_MAX as usize);
    // Of a refusal there is at most one, and it comes last.
    assert!(out.len() <= (requests.len() + 1) * 400, "{} bytes", out.len());
}

fn converse(stream: &[u8], step: usize) -> (Vec<Request>, Vec<u8>) {
    let mut machine = Machine::new(Hosts::of(([127, 0, 0, 1], 7180).into()));
    let (mut requests, mut out) = (Vec::new(), Vec::new());
    for mut piece in stream.chunks(step) {
        while let Some(request) = machine.next(&mut piece) {
            machine.respond(&Response::text(Status::Ok, "ok"));
            requests.push(request);
        }
        assert!(piece.is_empty());
        out.extend(machine.take_output());
    }
    (requests, out)
}
