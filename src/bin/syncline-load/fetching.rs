//! Owns the receiving end of one sync: takes a client's folder back and compares it with what the seed says.
//! It never writes a file.
//!
//! Invariant: content is compared byte by byte as it comes and is held nowhere.

use crate::content::{Content, Part, Pool};
use crate::scenario::Work;
use syncline::conn::{Event, Machine};
use syncline::model::{Fault, ItemCode, Kind, RelPath};
use syncline::wire::{EndOutcome, Finish, SettledResult, Verdict};

/// A pull in its course.
#[derive(Default)]
pub(crate) struct Fetching {
    /// Answer that all of it is here.
    has_all: bool,
    /// Which file an entry is, for those that are wanted.
    wanted: Vec<(u32, usize)>,
    /// The file that is arriving, and how much of it has come.
    current: Option<(u32, u64)>,
    /// Something came that is not what was pushed, or nothing at all.
    pub(crate) differs: bool,
    seen: usize,
    /// The server could not send something.
    pub(crate) failed: Option<ItemCode>,
}

impl Fetching {
    /// A pull of a client's folder.
    pub(crate) fn new(work: Work) -> Fetching {
        Fetching {
            has_all: work == Work::FetchNothing,
            ..Fetching::default()
        }
    }

    /// Takes an event of the transfer. `true`: the transfer is over.
    ///
    /// # Errors
    /// When the server sends what a receiver that has no basis cannot take.
    pub(crate) fn handle(
        &mut self,
        event: &Event<'_>,
        machine: &mut Machine,
        contents: &[Content],
        pool: &Pool,
    ) -> Result<bool, Fault> {
        match event {
            Event::Offered => self.judge(machine, contents),
            Event::Start(start) => self.current = Some((start.file, 0)),
            Event::Content { bytes, .. } => {
                self.compare(bytes, contents, pool);
                if let Some(receiver) = machine.receiver() {
                    receiver.consumed(bytes.len() as u64);
                }
            }
            Event::End(end) => self.end(end.file, end.outcome, machine, contents),
            Event::Inline(inline) => {
                self.current = Some((inline.file, 0));
                self.compare(inline.bytes, contents, pool);
                if let Some(receiver) = machine.receiver() {
                    receiver.consumed(inline.bytes.len() as u64);
                }
                self.end(inline.file, EndOutcome::Complete(inline.root), machine, contents);
            }
            Event::SourceFailed(failed) => self.failed = self.failed.or(Some(failed.code)),
            Event::Hole(_) | Event::Patch(_) | Event::Resume(_) | Event::ResumePatch(_) | Event::Ask(_) => {
                return Err(Fault::protocol("a form of content that was not asked for"));
            }
            _ => {}
        }
        Ok(self.conclude(machine, contents))
    }

    fn judge(&mut self, machine: &mut Machine, contents: &[Content]) {
        let Some(receiver) = machine.receiver() else { return };
        while let Some(check) = receiver.next_check() {
            let (file, kind) = (check.file, &check.entry.kind);
            let verdict = match kind {
                Kind::File { size } => {
                    // Others are of an earlier run with more files.
                    let index = number_of(&check.entry.path).filter(|&index| index < contents.len());
                    let fits = index.is_some_and(|index| contents[index].size() == *size);
                    self.differs |= index.is_some() && !fits;
                    self.seen += usize::from(index.is_some());
                    match index {
                        Some(index) if fits && !self.has_all => {
                            self.wanted.push((file, index));
                            Verdict::WantNew
                        }
                        _ => Verdict::Have,
                    }
                }
                _ => Verdict::Have,
            };
            receiver.answer(verdict);
        }
    }

    fn index_of(&self, file: u32) -> Option<usize> {
        self.wanted
            .iter()
            .find(|(wanted, _)| *wanted == file)
            .map(|(_, index)| *index)
    }

    fn compare(&mut self, bytes: &[u8], contents: &[Content], pool: &Pool) {
        let Some((file, offset)) = self.current else {
            self.differs = true;
            return;
        };
        let content = self.index_of(file).map(|index| &contents[index]);
        let mut rest = bytes;
        let mut at = offset;
        while let (false, Some(content)) = (rest.is_empty(), content) {
            if at >= content.size() {
                self.differs = true;
                break;
            }
            let part = content.part(pool, at, rest.len() as u64);
            let expected = match &part {
                Part::Pool(range) => pool.slice(range.clone()),
                Part::Own(own) => own,
            };
            self.differs |= rest[..expected.len()] != *expected;
            rest = &rest[expected.len()..];
            at += expected.len() as u64;
        }
        self.current = Some((file, offset + bytes.len() as u64));
    }

    fn end(&mut self, file: u32, outcome: EndOutcome, machine: &mut Machine, contents: &[Content]) {
        let current = self.current.take();
        let Some(receiver) = machine.receiver() else { return };
        match outcome {
            EndOutcome::Complete(root) => {
                let content = self.index_of(file).map(|index| &contents[index]);
                let whole = content.is_some_and(|content| {
                    root == content.root() && current.is_some_and(|(_, length)| length == content.size())
                });
                self.differs |= !whole;
                receiver.settle(file, SettledResult::Committed);
            }
            EndOutcome::Changed => {}
            EndOutcome::Failed(code) => {
                self.failed = self.failed.or(Some(code));
                receiver.settle(file, SettledResult::Failed(code));
            }
        }
    }

    fn conclude(&mut self, machine: &mut Machine, contents: &[Content]) -> bool {
        let Some(receiver) = machine.receiver() else {
            return false;
        };
        if !receiver.is_complete() {
            return false;
        }
        self.differs |= self.seen != contents.len();
        receiver.finish(Finish::Done { deleted: 0 });
        true
    }
}

/// Which of a client's files a path names.
fn number_of(path: &RelPath) -> Option<usize> {
    let name = path.as_bytes().rsplit(|&byte| byte == b'/').next()?;
    std::str::from_utf8(name).ok()?.strip_prefix('f')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pushing::{file_path, folder};

    // Protects the comparison of what comes back: each file is compared with itself.
    #[test]
    fn files_are_known_by_their_names() {
        assert_eq!(number_of(&file_path(42, 7)), Some(7));
        assert_eq!(number_of(&file_path(42, 12_345)), Some(12_345));
        assert_eq!(number_of(&folder(42)), None);
    }
}
