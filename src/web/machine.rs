//! Owns the bytes of one HTTP/1.1 connection: heads in, answers out. No I/O, no clock, no body of a request.
//!
//! 1. Bytes gather until a head is whole, at most [`HTTP_HEAD_BYTES_MAX`] of them. Lines end with CR LF and
//!    nothing else: two readers that disagree about the end of a line can be played off against each other.
//! 2. The host is checked before anything else, then the method, then that no body is announced.
//! 3. Whoever drives it answers; only then the next head is looked at. So answers come in the order of requests.
//! 4. What is refused is told why, and is the last of its connection: nothing behind it is read, so nobody has to
//!    agree with us on where it ends.
//!
//! Invariant: of what a peer sends at most one head is kept, and every byte is looked at once.
//! Source: RFC 9112; THREATS of local servers: DNS rebinding, request smuggling.

use super::hosts::Hosts;
use super::request::{Method, Request};
use super::response::{Afterwards, Response, Status};
use crate::model::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX, HTTP_REQUESTS_MAX};

/// The protocol of one HTTP connection, without its socket.
#[derive(Debug)]
pub struct Machine {
    hosts: Hosts,
    /// The bytes of a head that is not complete.
    head: Vec<u8>,
    state: State,
    /// Requests so far.
    requests: u32,
    out: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// A request waits for its answer.
    Answering {
        method: Method,
        afterwards: Afterwards,
    },
    /// Nothing more is read.
    Over,
}

/// Why a request is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal {
    status: Status,
    text: &'static str,
}

const fn refusal(status: Status, text: &'static str) -> Refusal {
    Refusal { status, text }
}

const MALFORMED: Refusal = refusal(Status::BadRequest, "this is no request of HTTP/1.1\n");
const TOO_LONG: Refusal = refusal(Status::HeadersTooLarge, "the headers are too long\n");
const TOO_MANY: Refusal = refusal(Status::HeadersTooLarge, "there are too many headers\n");
const VERSION: Refusal = refusal(Status::VersionNotSupported, "only HTTP/1.1 is understood\n");
const NO_HOST: Refusal = refusal(Status::BadRequest, "a request names one host\n");
const OTHER_HOST: Refusal = refusal(
    Status::Misdirected,
    "this server is not known by that name; use its address, or localhost\n",
);
const METHOD: Refusal = refusal(Status::MethodNotAllowed, "only GET and HEAD are understood\n");
const TARGET: Refusal = refusal(Status::BadRequest, "a target begins with a slash\n");
const FRAMING: Refusal = refusal(Status::BadRequest, "the length of the body is not clear\n");
const BODY: Refusal = refusal(Status::ContentTooLarge, "a request may have no body\n");

impl Machine {
    /// A connection to a listener that may be addressed as `hosts` says.
    #[must_use]
    pub fn new(hosts: Hosts) -> Machine {
        Machine {
            hosts,
            head: Vec::new(),
            state: State::Reading,
            requests: 0,
            out: Vec::new(),
        }
    }

    /// Takes bytes from the front of `input` until a request is complete. It has to be answered, then this goes
    /// on with the rest. `None`: all of `input` is taken, or the last request is not answered yet.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Request> {
        while self.state == State::Reading {
            let found = match self.take_head(input) {
                Ok(false) => return None,
                Ok(true) => self.parse(),
                Err(refused) => Err((Method::Get, refused)),
            };
            self.head = Vec::new();
            match found {
                Ok((request, afterwards)) => {
                    let method = request.method();
                    self.state = State::Answering { method, afterwards };
                    return Some(request);
                }
                Err((method, refused)) => self.refuse(method, refused),
            }
        }
        if self.state == State::Over {
            *input = &[];
        }
        None
    }

    /// Answers the request that [`Machine::next`] gave; without one, nothing happens.
    pub fn respond(&mut self, response: &Response) {
        let State::Answering { method, afterwards } = self.state else {
            debug_assert!(false, "an answer follows a request");
            return;
        };
        response.write(method, afterwards, &mut self.out);
        self.state = match afterwards {
            Afterwards::Keep => State::Reading,
            Afterwards::Close => State::Over,
        };
    }

    /// Reads no more requests: one that waits for its answer still gets it, and is told that it is the last.
    pub fn wind_up(&mut self) {
        self.state = match self.state {
            State::Answering { method, .. } => State::Answering {
                method,
                afterwards: Afterwards::Close,
            },
            State::Reading | State::Over => State::Over,
        };
    }

    /// What is to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Whether the connection is to be closed once all is sent.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether a head has begun and is not complete: its peer owes the rest.
    #[must_use]
    pub fn is_amid_head(&self) -> bool {
        !self.head.is_empty()
    }

    /// Takes bytes up to the end of the head; whether it is there.
    fn take_head(&mut self, input: &mut &[u8]) -> Result<bool, Refusal> {
        for (at, &byte) in input.iter().enumerate() {
            let follows_cr = self.head.last() == Some(&b'\r');
            if (byte == b'\n') != follows_cr || byte == 0 {
                return Err(MALFORMED);
            }
            if self.head.len() == HTTP_HEAD_BYTES_MAX {
                return Err(TOO_LONG);
            }
            self.head.push(byte);
            if self.head.ends_with(b"\r\n\r\n") {
                *input = &input[at + 1..];
                return Ok(true);
            }
        }
        *input = &[];
        Ok(false)
    }

    fn parse(&mut self) -> Result<(Request, Afterwards), (Method, Refusal)> {
        self.requests += 1;
        let mut headers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut headers);
        match parsed.parse(&self.head) {
            Ok(httparse::Status::Complete(length)) if length == self.head.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err((Method::Get, TOO_MANY)),
            Err(httparse::Error::Version) => return Err((Method::Get, VERSION)),
            _ => return Err((Method::Get, MALFORMED)),
        }
        let method = match parsed.method {
            Some("GET") => Some(Method::Get),
            Some("HEAD") => Some(Method::Head),
            _ => None,
        };
        let header = |header: &httparse::Header<'_>| (header.name.to_ascii_lowercase(), header.value.to_vec());
        let request = Request {
            method: method.unwrap_or(Method::Get),
            target: parsed.path.unwrap_or_default().to_owned(),
            headers: parsed.headers.iter().map(header).collect(),
        };
        check(&request, method, self.hosts).map_err(|refused| (request.method, refused))?;
        let is_last = parsed.version != Some(1) || asks_to_close(&request) || self.requests >= HTTP_REQUESTS_MAX;
        let afterwards = if is_last { Afterwards::Close } else { Afterwards::Keep };
        Ok((request, afterwards))
    }

    fn refuse(&mut self, method: Method, refused: Refusal) {
        let mut response = Response::text(refused.status, refused.text);
        if refused.status == Status::MethodNotAllowed {
            response = response.with("Allow", "GET, HEAD");
        }
        response.write(method, Afterwards::Close, &mut self.out);
        self.state = State::Over;
    }
}

/// What every request has to pass, the host before all else.
fn check(request: &Request, method: Option<Method>, hosts: Hosts) -> Result<(), Refusal> {
    let host = request.header("host").ok_or(NO_HOST)?;
    if !hosts.allow(host) {
        return Err(OTHER_HOST);
    }
    if method.is_none() {
        return Err(METHOD);
    }
    if !request.target.starts_with('/') {
        return Err(TARGET);
    }
    if request.has_header("transfer-encoding") {
        return Err(FRAMING);
    }
    if request.has_header("content-length") {
        return match request.header("content-length") {
            Some(b"0") => Ok(()),
            Some(length) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => Err(BODY),
            _ => Err(FRAMING),
        };
    }
    Ok(())
}

fn asks_to_close(request: &Request) -> bool {
    let values = request.headers.iter().filter(|(name, _)| name == "connection");
    let mut options = values.flat_map(|(_, value)| value.split(|&byte| byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
