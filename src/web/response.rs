//! Owns an answer and how it is written. It never decides what the answer is.
//!
//! Invariant: what is written is framed by `Content-Length`, whatever the body holds.

use super::request::Method;
use std::io::Write;

/// The status of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// It is as asked.
    Ok = 200,
    /// The request cannot be understood.
    BadRequest = 400,
    /// Nothing of that name is served.
    NotFound = 404,
    /// Only GET and HEAD are understood.
    MethodNotAllowed = 405,
    /// A body was announced.
    ContentTooLarge = 413,
    /// The request is meant for another host.
    Misdirected = 421,
    /// Too many headers, or too long ones.
    HeadersTooLarge = 431,
    /// Another version than HTTP/1.
    VersionNotSupported = 505,
    /// Not now.
    Unavailable = 503,
}

impl Status {
    /// The number, and the phrase that goes with it.
    #[must_use]
    pub fn line(self) -> (u16, &'static str) {
        let phrase = match self {
            Status::Ok => "OK",
            Status::BadRequest => "Bad Request",
            Status::NotFound => "Not Found",
            Status::MethodNotAllowed => "Method Not Allowed",
            Status::ContentTooLarge => "Content Too Large",
            Status::Misdirected => "Misdirected Request",
            Status::HeadersTooLarge => "Request Header Fields Too Large",
            Status::VersionNotSupported => "HTTP Version Not Supported",
            Status::Unavailable => "Service Unavailable",
        };
        (self as u16, phrase)
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: Status,
    content_type: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

/// Whether the connection stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    Keep,
    Close,
}

impl Response {
    /// An answer with a body of this type.
    #[must_use]
    pub fn new(status: Status, content_type: &'static str, body: Vec<u8>) -> Response {
        Response {
            status,
            content_type,
            headers: Vec::new(),
            body,
        }
    }

    /// A text for people.
    #[must_use]
    pub fn text(status: Status, text: &str) -> Response {
        Response::new(status, "text/plain; charset=utf-8", text.as_bytes().to_vec())
    }

    /// The same answer with one more header; name and value are ours, so they need no escaping.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &'static str) -> Response {
        self.headers.push((name, value));
        self
    }

    pub(super) fn write(&self, method: Method, afterwards: Afterwards, out: &mut Vec<u8>) {
        let (number, phrase) = self.status.line();
        let length = self.body.len();
        let content_type = self.content_type;
        // Writing to memory cannot fail.
        let _ = write!(
            out,
            "HTTP/1.1 {number} {phrase}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        );
        for (name, value) in &self.headers {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        if afterwards == Afterwards::Close {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if method == Method::Get {
            out.extend_from_slice(&self.body);
        }
    }
}
