//! Frames and options that several tests of hostile peers build.

use super::raw::STREAM;
use std::net::SocketAddr;
use syncline::model::{Entry, Kind, Link, Meta, RelPath, Timestamp};
use syncline::node::{FilterRule, TransferOptions};
use syncline::wire::{EntriesWriter, Inline, ListEnd, Message};

/// Metadata of made-up entries.
pub const META: Meta = Meta {
    mode: 0o644,
    mtime: Timestamp {
        seconds: 1_000_000_000,
        nanos: 0,
    },
};

/// A legal path.
pub fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

/// A file of `size` bytes.
pub fn file(text: &str, size: u64) -> Entry {
    Entry {
        path: path(text),
        kind: Kind::File { size },
        meta: META,
    }
}

/// A symbolic link.
pub fn link_to(text: &str, target: &str) -> Entry {
    Entry {
        path: path(text),
        kind: Kind::Symlink {
            target: target.as_bytes().into(),
        },
        meta: META,
    }
}

/// An offer of `entries`, the first with the number `first`.
pub fn offer(first: u32, entries: &[Entry]) -> Vec<u8> {
    let mut writer = EntriesWriter::default();
    entries.iter().for_each(|entry| writer.push(entry, None, None));
    let mut out = Vec::new();
    writer.flush(STREAM, first, &mut out);
    out
}

/// A small file, whole.
pub fn inline(file: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Inline {
        file,
        meta: META,
        root: syncline::delta::content_id(bytes).root,
        bytes,
    }
    .encode(STREAM, &mut out);
    out
}

/// The end of a list without failures.
pub fn list_end(entries: u32) -> Vec<u8> {
    let mut out = Vec::new();
    ListEnd {
        entries,
        complete: true,
        top: None,
    }
    .encode(STREAM, &mut out);
    out
}

/// A transfer that deletes.
pub fn delete() -> TransferOptions {
    TransferOptions {
        delete: true,
        ..TransferOptions::default()
    }
}

/// A transfer that leaves something out.
pub fn exclude(rules: &[&str]) -> TransferOptions {
    TransferOptions {
        filters: rules
            .iter()
            .map(|rule| FilterRule::Exclude((*rule).to_owned()))
            .collect(),
        ..TransferOptions::default()
    }
}

/// A link to the share at `address`.
pub fn link_of(address: SocketAddr, path: &str) -> Link {
    format!("syncline://{address}/Share{path}").parse().unwrap()
}
