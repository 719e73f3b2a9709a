//! A file as the delta engine reads it: through mapped windows.
//!
//! Never writes. Invariant: bytes of a window that lost a part of its file are never given out as good.

use crate::delta::{Content, STRETCH_BYTES_MAX, Torn};
use crate::store::{SourceFile, Window};

/// A file and the window that was looked through last.
#[derive(Debug)]
pub(super) struct MappedContent {
    file: SourceFile,
    view: View,
}

/// What of the file is in memory.
#[derive(Debug)]
enum View {
    Nothing,
    Mapped {
        start: u64,
        window: Window,
    },
    /// Where nothing can be mapped.
    Read {
        start: u64,
        bytes: Vec<u8>,
    },
}

/// Bytes mapped at a time: a stretch can begin anywhere in the first half.
const WINDOW_BYTES: u64 = 4 * STRETCH_BYTES_MAX as u64;

impl MappedContent {
    pub(super) fn new(file: SourceFile) -> MappedContent {
        let view = View::Nothing;
        MappedContent { file, view }
    }

    /// The file.
    pub(super) fn file(&self) -> &SourceFile {
        &self.file
    }

    /// The file, when nothing is read any more.
    pub(super) fn into_file(self) -> SourceFile {
        self.file
    }

    /// Whether `range` is in the view.
    fn holds(&self, offset: u64, length: usize) -> bool {
        let (start, held) = match &self.view {
            View::Nothing => return false,
            View::Mapped { start, window } => (*start, window.as_ref().len()),
            View::Read { start, bytes } => (*start, bytes.len()),
        };
        offset >= start && offset + length as u64 <= start + held as u64
    }

    fn look_at(&mut self, offset: u64, length: usize) -> Result<(), Torn> {
        let end = self.file.size().min(offset + WINDOW_BYTES.max(length as u64));
        let wanted = (end - offset) as usize;
        self.view = match Window::open(self.file.file(), offset, wanted) {
            Ok(window) => View::Mapped { start: offset, window },
            Err(error) => {
                log::debug!("a file is read and not mapped: {error}");
                let mut bytes = vec![0; length];
                match self.file.read_at(offset, &mut bytes) {
                    Ok(read) if read == length => View::Read { start: offset, bytes },
                    _ => return Err(Torn),
                }
            }
        };
        Ok(())
    }
}

impl Content for MappedContent {
    fn length(&self) -> u64 {
        self.file.size()
    }

    fn bytes(&mut self, offset: u64, length: usize) -> Result<&[u8], Torn> {
        if !self.holds(offset, length) {
            self.look_at(offset, length)?;
        }
        match &self.view {
            View::Mapped { start, window } if !window.is_torn() => {
                Ok(&window.as_ref()[(offset - start) as usize..][..length])
            }
            View::Read { start, bytes } => Ok(&bytes[(offset - start) as usize..][..length]),
            View::Mapped { .. } | View::Nothing => Err(Torn),
        }
    }
}
