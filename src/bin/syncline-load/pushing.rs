//! Owns the sending end of one sync: offers a client's folder, sends what the server wants of it. It never
//! opens a file; content comes from the shared pool.
//!
//! Invariant: a patch is sent only against the very basis that the server named.

use crate::content::{Content, Part, Pool};
use crate::scenario::Work;
use syncline::conn::{Machine, Origin, ReadStep, Sender, Settlement};
use syncline::model::limits::{INLINE_BYTES_MAX, TURN_BYTES};
use syncline::model::{Entry, ItemCode, Kind, Meta, RelPath, Timestamp};
use syncline::reactor::{Activity, Context};
use syncline::wire::{EndOutcome, PatchForm};

/// Bytes of content in one frame, as real clients send them.
const FRAME_BYTES: u64 = 512 * 1024;
/// When all the files were last changed, in seconds since 1970; each version is a little later.
const EPOCH_SECONDS: i64 = 1_750_000_000;

/// A push in its course.
#[derive(Default)]
pub(crate) struct Pushing {
    /// Entries offered: the folder, then its files.
    offered: u32,
    listed: bool,
    /// The plan of the started patch, and how much of it has gone.
    plan: Vec<u8>,
    planned: usize,
    /// What the server said about the first file that failed.
    pub(crate) failed: Option<ItemCode>,
    /// Whether what was edited may go as a patch.
    patches: bool,
    /// Content is not sent here: somebody sends it a byte at a time.
    pub(crate) trickles: bool,
}

/// The folder of a client in the share.
pub(crate) fn folder(actor: u32) -> RelPath {
    RelPath::parse(format!("c{actor:05}").as_bytes()).expect("the name is a legal one")
}

/// One of its files.
pub(crate) fn file_path(actor: u32, file: u32) -> RelPath {
    RelPath::parse(format!("c{actor:05}/f{file:04}").as_bytes()).expect("the name is a legal one")
}

/// Mode and time of a file; each version has its own time.
pub(crate) fn meta_of(content: &Content) -> Meta {
    let (generation, edits) = content.version();
    Meta {
        mode: 0o644,
        mtime: Timestamp {
            seconds: EPOCH_SECONDS + i64::from(generation),
            nanos: edits % 1_000_000_000,
        },
    }
}

impl Pushing {
    /// A push of a client's folder.
    pub(crate) fn new(work: Work, trickles: bool) -> Pushing {
        Pushing {
            patches: work == Work::Delta,
            trickles,
            ..Pushing::default()
        }
    }

    /// Does a bounded amount of work for the server.
    pub(crate) fn step(
        &mut self,
        cx: &mut Context<'_>,
        machine: &mut Machine,
        actor: u32,
        contents: &[Content],
        pool: &Pool,
    ) -> Activity {
        let before = cx.bytes_sent() + cx.outbound_bytes() as u64;
        loop {
            let Some(sender) = machine.sender() else {
                return Activity::Idle;
            };
            self.settle(sender);
            self.list(sender, actor, contents);
            let step = sender.next_read();
            let is_left = self.trickles && matches!(step, Some(ReadStep::Content { .. }));
            if step.is_none() || is_left || cx.room() == 0 {
                cx.send_owned(machine.take_output());
                return Activity::Idle;
            }
            if cx.bytes_sent() + cx.outbound_bytes() as u64 - before >= TURN_BYTES as u64 {
                cx.send_owned(machine.take_output());
                return Activity::More;
            }
            match step {
                Some(ReadStep::Open { file, basis, .. }) => {
                    let content = &contents[file as usize - 1];
                    let named = basis.map(|id| id.root);
                    let fits = self.patches && named.is_some() && named == content.root_before();
                    self.open(sender, content, pool, fits);
                }
                Some(ReadStep::Plan { credit, .. }) => self.send_plan(cx, machine, contents, credit),
                Some(ReadStep::Content {
                    file, offset, credit, ..
                }) => send_content(cx, machine, &contents[file as usize - 1], pool, offset, credit),
                None => {}
            }
        }
    }

    /// Enters what the server settled.
    pub(crate) fn settle(&mut self, sender: &mut Sender) {
        while let Some(report) = sender.poll_report() {
            if let Settlement::Failed(code) = report.settlement {
                self.failed.get_or_insert(code);
            }
        }
    }

    fn list(&mut self, sender: &mut Sender, actor: u32, contents: &[Content]) {
        while !self.listed && sender.offer_room() > 0 {
            let (path, kind, meta) = match (self.offered as usize).checked_sub(1) {
                None => (folder(actor), Kind::Directory, folder_meta()),
                Some(file) => {
                    let Some(content) = contents.get(file) else {
                        self.listed = true;
                        return sender.list_end(true, None);
                    };
                    let size = content.size();
                    (file_path(actor, file as u32), Kind::File { size }, meta_of(content))
                }
            };
            let origin = Origin {
                source: 0,
                path: path.clone(),
            };
            sender.offer(&Entry { path, kind, meta }, None, origin);
            self.offered += 1;
        }
        sender.flush_offers();
    }

    fn open(&mut self, sender: &mut Sender, content: &Content, pool: &Pool, patch: bool) {
        let meta = meta_of(content);
        if patch {
            self.plan = content.plan(pool);
            self.planned = 0;
            return sender.patch(content.size(), &meta, PatchForm::Plan);
        }
        if content.size() > INLINE_BYTES_MAX {
            return sender.start(content.size(), false, &meta);
        }
        let mut bytes = Vec::with_capacity(content.size() as usize);
        while (bytes.len() as u64) < content.size() {
            match content.part(pool, bytes.len() as u64, INLINE_BYTES_MAX) {
                Part::Pool(range) => bytes.extend_from_slice(pool.slice(range)),
                Part::Own(own) => bytes.extend_from_slice(&own),
            }
        }
        sender.inline(&meta, content.root(), &bytes);
    }

    fn send_plan(&mut self, cx: &mut Context<'_>, machine: &mut Machine, contents: &[Content], credit: u64) {
        cx.send_owned(machine.take_output());
        let Some(sender) = machine.sender() else { return };
        let rest = &self.plan[self.planned..];
        let length = rest.len().min(credit.min(FRAME_BYTES) as usize);
        if length > 0 {
            cx.send(&sender.data(length));
            cx.send(&rest[..length]);
            self.planned += length;
        } else if let Some(file) = sender.current_file() {
            self.plan = Vec::new();
            sender.end(EndOutcome::Complete(contents[file as usize - 1].root()));
        }
    }
}

/// The next frame of a file that goes whole, or its end.
fn send_content(cx: &mut Context<'_>, machine: &mut Machine, content: &Content, pool: &Pool, offset: u64, credit: u64) {
    cx.send_owned(machine.take_output());
    let Some(sender) = machine.sender() else { return };
    if offset == content.size() {
        return sender.end(EndOutcome::Complete(content.root()));
    }
    match content.part(pool, offset, credit.min(FRAME_BYTES)) {
        Part::Pool(range) => {
            cx.send(&sender.data(range.len()));
            cx.send_shared(pool.shared(), range);
        }
        Part::Own(bytes) => {
            cx.send(&sender.data(bytes.len()));
            cx.send_owned(bytes);
        }
    }
}

fn folder_meta() -> Meta {
    Meta {
        mode: 0o755,
        mtime: Timestamp {
            seconds: EPOCH_SECONDS,
            nanos: 0,
        },
    }
}
