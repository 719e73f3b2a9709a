//! One line of an activity log: what it says, and its bytes in version 1.
//!
//! Knows no files. Invariant: whatever names and texts come from outside, a line has no line break and no character
//! that steers a terminal, and each of its fields is one that this file wrote.

use crate::model::{DeviceId, ItemCode, RelPath, escape, steers};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityLine<'a> {
    /// Milliseconds since 1970, by this machine's clock.
    pub at_ms: u64,
    /// Whose doing it was.
    pub who: &'a Who,
    /// What it was.
    pub happened: Happened<'a>,
}

/// Whose doing something was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// What it is called: a device's name, an address, or `here` for this machine.
    pub name: String,
    /// Its device id, if it has a key.
    pub device: Option<DeviceId>,
}

impl Who {
    /// This machine, and whoever works at it.
    #[must_use]
    pub fn here() -> Who {
        Who {
            name: "here".to_owned(),
            device: None,
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened<'a> {
    /// An entry got another state.
    Item {
        /// Which way.
        change: Change<'a>,
        /// Where.
        path: &'a RelPath,
        /// Bytes of its content now; `None` for what has none.
        size: Option<u64>,
        /// In a synced folder, from which side it came.
        side: Option<Side>,
    },
    /// Two versions of a file: one gave way.
    Conflict {
        /// Where.
        path: &'a RelPath,
        /// Where that one is now; `None`: among the versions.
        copy: Option<&'a RelPath>,
    },
    /// An entry could not be transferred.
    Failed {
        /// Which, escaped: it need not be a legal path.
        path: &'a str,
        /// Why.
        code: ItemCode,
    },
    /// A push, a pull or a sync is over.
    Run(RunFigures),
    /// A device spent an invite.
    Paired {
        /// What it may do: `read`, `write`.
        rights: &'a str,
    },
    /// Rights of a device were taken back.
    Revoked,
    /// Somebody was not let in.
    Refused {
        /// Why.
        reason: &'a str,
        /// How many others there were since the last line of this kind, of whom none was written.
        unlisted: u64,
    },
    /// More was changed than is listed.
    Unlisted {
        /// Entries.
        entries: u64,
    },
}

/// How an entry changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// A file or link that was not there before.
    Created,
    /// A directory that was not there before.
    Made,
    /// Another content.
    Replaced,
    /// Another content, written into the file itself.
    ChangedInPlace,
    /// Only mode or time.
    Touched,
    /// It is gone.
    Deleted,
    /// It has another name.
    Moved {
        /// What it was called, if that is known.
        from: Option<&'a RelPath>,
    },
}

/// In a synced folder: which side followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The folder follows its share.
    Received,
    /// The share follows the folder.
    Sent,
}

/// What ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// A client sent.
    Push,
    /// A client fetched.
    Pull,
    /// A folder was synced.
    Sync,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFigures {
    /// What it was.
    pub kind: RunKind,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
    /// Files whose content travelled.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Entries with which something was done.
    pub changes: u64,
    /// Entries that failed.
    pub failed: u64,
    /// Entries with which something was done or which failed, of which no line tells.
    pub unlisted: u64,
    /// TCP payload bytes.
    pub wire_sent: u64,
    /// TCP payload bytes.
    pub wire_received: u64,
    /// The exit code of the command; on a server it is not known.
    pub exit_code: Option<u8>,
    /// Why it did not come to its end.
    pub reason: Option<String>,
}

impl RunFigures {
    /// A run that has done nothing.
    #[must_use]
    pub fn new(kind: RunKind, began_ms: u64) -> RunFigures {
        RunFigures {
            kind,
            began_ms,
            files: 0,
            bytes: 0,
            changes: 0,
            failed: 0,
            unlisted: 0,
            wire_sent: 0,
            wire_received: 0,
            exit_code: None,
            reason: None,
        }
    }
}

/// Bytes of a text from elsewhere that are written, about.
const TEXT_BYTES_MAX: usize = 1024;

impl ActivityLine<'_> {
    /// Appends the line, with its line break.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut object = Object(out);
        object.0.extend_from_slice(b"{\"v\":1");
        object.number("at_ms", self.at_ms);
        object.text("event", self.happened.event());
        object.text("who", &self.who.name);
        if let Some(device) = &self.who.device {
            object.text("device", &device.to_string());
        }
        self.happened.encode(&mut object);
        object.0.extend_from_slice(b"}\n");
    }
}

impl Happened<'_> {
    fn event(&self) -> &'static str {
        match self {
            Happened::Item { .. } => "item",
            Happened::Conflict { .. } => "conflict",
            Happened::Failed { .. } => "error",
            Happened::Run(_) => "run",
            Happened::Paired { .. } => "paired",
            Happened::Revoked => "revoked",
            Happened::Refused { .. } => "refused",
            Happened::Unlisted { .. } => "unlisted",
        }
    }

    fn encode(&self, object: &mut Object<'_>) {
        match self {
            Happened::Item {
                change,
                path,
                size,
                side,
            } => {
                object.text("action", change.name());
                object.path("path", path.as_bytes());
                if let Change::Moved { from: Some(from) } = change {
                    object.path("from", from.as_bytes());
                }
                if let Some(size) = size {
                    object.number("size", *size);
                }
                if let Some(side) = side {
                    object.text("side", side.name());
                }
            }
            Happened::Conflict { path, copy } => {
                object.path("path", path.as_bytes());
                if let Some(copy) = copy {
                    object.path("copy", copy.as_bytes());
                }
            }
            Happened::Failed { path, code } => {
                object.key("path");
                object.string(path);
                object.text("code", code.name());
                object.text("reason", code.reason());
            }
            Happened::Run(figures) => figures.encode(object),
            Happened::Paired { rights } => object.text("rights", rights),
            Happened::Revoked => {}
            Happened::Refused { reason, unlisted } => {
                object.text("reason", reason);
                if *unlisted > 0 {
                    object.number("unlisted", *unlisted);
                }
            }
            Happened::Unlisted { entries } => object.number("entries", *entries),
        }
    }
}

impl Change<'_> {
    fn name(self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Made => "made",
            Change::Replaced => "replaced",
            Change::ChangedInPlace => "in_place",
            Change::Touched => "touched",
            Change::Deleted => "deleted",
            Change::Moved { .. } => "moved",
        }
    }
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Received => "received",
            Side::Sent => "sent",
        }
    }
}

impl RunFigures {
    fn encode(&self, object: &mut Object<'_>) {
        let kind = match self.kind {
            RunKind::Push => "push",
            RunKind::Pull => "pull",
            RunKind::Sync => "sync",
        };
        object.text("run", kind);
        let figures = [
            ("began_ms", self.began_ms),
            ("files", self.files),
            ("bytes", self.bytes),
            ("changes", self.changes),
            ("failed", self.failed),
            ("unlisted", self.unlisted),
            ("wire_sent", self.wire_sent),
            ("wire_received", self.wire_received),
        ];
        figures.iter().for_each(|(key, value)| object.number(key, *value));
        if let Some(code) = self.exit_code {
            object.number("exit_code", code.into());
        }
        if let Some(reason) = &self.reason {
            object.text("reason", reason);
        }
    }
}

/// A JSON object that is being written behind its first field.
struct Object<'a>(&'a mut Vec<u8>);

impl Object<'_> {
    fn key(&mut self, key: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        self.0.extend_from_slice(value.to_string().as_bytes());
    }

    /// A name, escaped as it is shown.
    fn path(&mut self, key: &str, path: &[u8]) {
        self.key(key);
        self.string(&escape(path));
    }

    /// A text, cut where it is too long.
    fn text(&mut self, key: &str, text: &str) {
        self.key(key);
        let cut = text.char_indices().map(|(at, _)| at).find(|at| *at >= TEXT_BYTES_MAX);
        self.string(&text[..cut.unwrap_or(text.len())]);
    }

    fn string(&mut self, text: &str) {
        self.0.push(b'"');
        for character in text.chars() {
            match character {
                '"' | '\\' => self.0.extend_from_slice(&[b'\\', character as u8]),
                _ if steers(character) => {
                    let mut units = [0; 2];
                    for unit in character.encode_utf16(&mut units) {
                        self.0.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
                    }
                }
                _ => self.0.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        self.0.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn path(bytes: &[u8]) -> RelPath {
        RelPath::parse(bytes).unwrap()
    }

    fn encoded(who: &Who, happened: Happened<'_>) -> String {
        let mut out = Vec::new();
        let line = ActivityLine {
            at_ms: 1_795_211_251_004,
            who,
            happened,
        };
        line.encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    // Protects whoever reads logs of version 1: these bytes stay as they are.
    #[test]
    fn version_one_is_frozen() {
        let laptop = Who {
            name: "laptop".to_owned(),
            device: Some(DeviceId([0xa7; 32])),
        };
        let device = "a7".repeat(32);
        let (to, from) = (path(b"docs/b"), path(b"a"));
        let head = format!(r#"{{"v":1,"at_ms":1795211251004,"event":"item","who":"laptop","device":"{device}""#);
        let item = |change, size, side| Happened::Item {
            change,
            path: &to,
            size,
            side,
        };
        assert_eq!(
            encoded(&laptop, item(Change::Created, Some(12), None)),
            format!("{head},\"action\":\"created\",\"path\":\"docs/b\",\"size\":12}}\n")
        );
        let moved = item(Change::Moved { from: Some(&from) }, None, Some(Side::Received));
        assert_eq!(
            encoded(&laptop, moved),
            format!("{head},\"action\":\"moved\",\"path\":\"docs/b\",\"from\":\"a\",\"side\":\"received\"}}\n")
        );
        let here = Who::here();
        let begins = |event: &str| format!(r#"{{"v":1,"at_ms":1795211251004,"event":"{event}","who":"here""#);
        let failed = Happened::Failed {
            path: "x",
            code: ItemCode::DiskFull,
        };
        assert_eq!(
            encoded(&here, failed),
            begins("error") + r#","path":"x","code":"disk_full","reason":"the disk is full"}"# + "\n"
        );
        let copy = Some(&to);
        assert_eq!(
            encoded(&here, Happened::Conflict { path: &from, copy }),
            begins("conflict") + r#","path":"a","copy":"docs/b"}"# + "\n"
        );
        let run = RunFigures {
            files: 3,
            changes: 4,
            exit_code: Some(5),
            reason: Some("gone".to_owned()),
            ..RunFigures::new(RunKind::Sync, 7)
        };
        assert_eq!(
            encoded(&here, Happened::Run(run)),
            begins("run")
                + r#","run":"sync","began_ms":7,"files":3,"bytes":0,"changes":4,"failed":0,"unlisted":0,"wire_sent":0,"#
                + r#""wire_received":0,"exit_code":5,"reason":"gone"}"#
                + "\n"
        );
    }

    // Row 7 of the threats: a name from outside is one field of one line, and nothing in it steers a terminal.
    #[test]
    fn no_name_can_forge_a_line_or_a_field() {
        let nasty = "x\",\"who\":\"root\"}\n{\"v\":1}\u{1b}[31m\u{9b}\u{202e}\u{2028}\\";
        let who = Who {
            name: nasty.to_owned(),
            device: None,
        };
        let named = path(&[nasty.as_bytes(), b"\xff"].concat());
        let item = Happened::Item {
            change: Change::Deleted,
            path: &named,
            size: None,
            side: None,
        };
        let text = encoded(&who, item);
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(!text.trim_end().chars().any(steers), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["who"], nasty);
        assert_eq!(value["path"], escape(named.as_bytes()));
        assert_eq!(value.as_object().unwrap().len(), 6);
        let long = Who {
            name: "ü".repeat(5000),
            device: None,
        };
        assert!(encoded(&long, Happened::Revoked).len() < TEXT_BYTES_MAX + 100);
    }
}
