//! Owns a request: what was asked for, after all checks that every request has to pass. It never reads bytes.
//!
//! Invariant: the target begins with a slash, and the host is one of ours.

/// What is to be done with the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Say it.
    Get,
    /// Say only what would be said of it.
    Head,
}

/// A request, as [`Machine::next`](super::Machine::next) gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
}

impl Request {
    /// GET or HEAD. The machine leaves the body of an answer to HEAD out by itself.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The path as it was sent, undecoded, without the query; begins with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// What follows the first question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }

    /// The value of a header by its name in lower case; `None` when it is missing, or there more than once.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.headers.iter().filter(|(other, _)| other == name);
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value)
    }

    pub(super) fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(other, _)| other == name)
    }
}
