//! Owns the bytes queued for one peer: owned segments for control, shared ones for file content that
//! goes out straight from mapped memory. It never knows a socket; it writes to what it is given.
//!
//! Invariant: bytes leave in the order they came, each once; `len` is what has not left yet.
//!
//! Awkward: the kernel answers EFAULT when a mapped file was truncated under us. Then the bytes are
//! copied here: that access faults in user space, where the mapping's guard puts zeros in place (the
//! reader of the file has noticed the change by then, or will), and sending goes on.

use crate::model::SharedBytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::ops::Range;

/// Control bytes are appended to the last owned segment up to this size.
const COALESCE_BYTES: usize = 16 * 1024;
/// Slices per system call; the kernel takes 1,024, but 64 frames fill any socket buffer.
const SLICES_MAX: usize = 64;
/// Bytes copied at a time when shared memory faults.
const RESCUE_BYTES: usize = 256 * 1024;
/// Shared bytes that weigh as much as one owned byte.
const SHARED_PER_BYTE: usize = 8;
/// Segments whose room is kept while the queue is empty; an idle connection holds no more.
const KEPT_SEGMENTS: usize = 8;

enum Segment {
    Owned { bytes: Vec<u8>, start: usize },
    Shared { bytes: SharedBytes, range: Range<usize> },
}

impl Segment {
    fn as_slice(&self) -> &[u8] {
        match self {
            Segment::Owned { bytes, start } => &bytes[*start..],
            Segment::Shared { bytes, range } => &(**bytes).as_ref()[range.clone()],
        }
    }

    fn len(&self) -> usize {
        match self {
            Segment::Owned { bytes, start } => bytes.len() - start,
            Segment::Shared { range, .. } => range.len(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Segment::Owned { start, .. } => *start += count,
            Segment::Shared { range, .. } => range.start += count,
        }
    }
}

#[derive(Default)]
pub(super) struct Outbound {
    segments: VecDeque<Segment>,
    len: usize,
    /// How many of them lie in owned segments.
    owned: usize,
}

impl Outbound {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the queue costs, in bytes, to compare with the mark: owned bytes are memory of ours; shared
    /// ones are pages of the file that the system can take back. More of those keeps the sender hashing
    /// while the socket is full.
    pub(super) fn cost(&self) -> usize {
        self.owned + (self.len - self.owned) / SHARED_PER_BYTE
    }

    /// Copies bytes to the end.
    pub(super) fn push(&mut self, more: &[u8]) {
        self.len += more.len();
        self.owned += more.len();
        match self.segments.back_mut() {
            Some(Segment::Owned { bytes, .. }) if bytes.len() + more.len() <= COALESCE_BYTES => {
                bytes.extend_from_slice(more);
            }
            _ if more.is_empty() => {}
            _ => self.segments.push_back(Segment::Owned {
                bytes: more.to_vec(),
                start: 0,
            }),
        }
    }

    /// Appends bytes without copying them, unless they are few.
    pub(super) fn push_owned(&mut self, bytes: Vec<u8>) {
        if bytes.len() < COALESCE_BYTES / 4 {
            return self.push(&bytes);
        }
        self.len += bytes.len();
        self.owned += bytes.len();
        self.segments.push_back(Segment::Owned { bytes, start: 0 });
    }

    /// Appends a part of shared bytes without copying them.
    pub(super) fn push_shared(&mut self, bytes: SharedBytes, range: Range<usize>) {
        assert!(
            range.end <= (*bytes).as_ref().len(),
            "the range lies within the shared bytes"
        );
        if range.is_empty() {
            return;
        }
        self.len += range.len();
        self.segments.push_back(Segment::Shared { bytes, range });
    }

    /// The first contiguous bytes; empty when nothing waits.
    #[cfg(feature = "tls")]
    pub(super) fn front(&self) -> &[u8] {
        self.segments.front().map_or(&[], Segment::as_slice)
    }

    /// Copies the first bytes, as many as fit, without taking them; says how many.
    #[cfg(feature = "tls")]
    pub(super) fn peek(&self, target: &mut [u8]) -> usize {
        let mut filled = 0;
        for segment in &self.segments {
            let slice = segment.as_slice();
            let count = slice.len().min(target.len() - filled);
            target[filled..filled + count].copy_from_slice(&slice[..count]);
            filled += count;
            if filled == target.len() {
                break;
            }
        }
        filled
    }

    /// Drops the first `count` bytes: they have left.
    pub(super) fn consume(&mut self, mut count: usize) {
        debug_assert!(count <= self.len);
        self.len -= count;
        while let Some(front) = self.segments.front_mut() {
            let taken = front.len().min(count);
            if let Segment::Owned { .. } = front {
                self.owned -= taken;
            }
            count -= taken;
            if front.len() > taken {
                front.advance(taken);
                break;
            }
            self.segments.pop_front();
        }
        if self.segments.is_empty() && self.segments.capacity() > KEPT_SEGMENTS {
            self.segments.shrink_to(KEPT_SEGMENTS);
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Outbound::default();
    }

    /// Writes at most about `limit` bytes in one call; 0 only when nothing waits.
    ///
    /// # Errors
    /// What the writer answers, except EFAULT.
    pub(super) fn write_to(&mut self, writer: &mut impl Write, limit: usize) -> io::Result<usize> {
        loop {
            match self.write_once(writer, limit) {
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                    if !self.rescue() {
                        return Err(error);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_once(&mut self, writer: &mut impl Write, limit: usize) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let (mut used, mut bytes) = (0, 0);
        for (slot, segment) in slices.iter_mut().zip(&self.segments) {
            let slice = segment.as_slice();
            let slice = &slice[..slice.len().min(limit - bytes)];
            *slot = IoSlice::new(slice);
            (used, bytes) = (used + 1, bytes + slice.len());
            if bytes == limit {
                break;
            }
        }
        if bytes == 0 {
            return Ok(0);
        }
        let written = writer.write_vectored(&slices[..used])?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.consume(written);
        Ok(written)
    }

    /// Copies the start of the first shared segment; `false` when no segment is shared.
    fn rescue(&mut self) -> bool {
        let is_shared = |segment: &Segment| matches!(segment, Segment::Shared { .. });
        let Some(index) = self.segments.iter().take(SLICES_MAX).position(is_shared) else {
            return false;
        };
        let segment = &mut self.segments[index];
        let slice = segment.as_slice();
        let copy = slice[..slice.len().min(RESCUE_BYTES)].to_vec();
        segment.advance(copy.len());
        self.owned += copy.len();
        let rest_is_empty = segment.len() == 0;
        if rest_is_empty {
            self.segments.remove(index);
        }
        self.segments.insert(index, Segment::Owned { bytes: copy, start: 0 });
        true
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbound({} bytes in {} segments)", self.len, self.segments.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    /// A socket that takes a few bytes at a time and faults now and then, as over a torn mapping.
    struct Moody {
        taken: Vec<u8>,
        seed: u64,
        faults: u32,
    }

    impl Moody {
        fn random(&mut self, below: u64) -> u64 {
            self.seed = self
                .seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.seed >> 33) % below
        }
    }

    impl Write for Moody {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            if self.random(8) == 0 {
                self.faults += 1;
                return Err(io::Error::from_raw_os_error(libc::EFAULT));
            }
            let mut left = usize::try_from(1 + self.random(40_000)).unwrap();
            let before = self.taken.len();
            for slice in slices {
                let count = slice.len().min(left);
                self.taken.extend_from_slice(&slice[..count]);
                left -= count;
            }
            Ok(self.taken.len() - before)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bytes_leave_in_order_through_partial_writes_and_faults() {
        let seed = 7;
        println!("seed {seed}");
        let mut socket = Moody {
            taken: Vec::new(),
            seed,
            faults: 0,
        };
        let content: Vec<u8> = (0..900_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
        let shared: SharedBytes = Rc::new(content.clone());
        let (mut outbound, mut expected) = (Outbound::default(), Vec::new());
        for round in 0..60usize {
            let range = round * 1_000..round * 15_000 + 1;
            outbound.push(&content[..round * 7]);
            outbound.push_owned(content[5..5 + round * 100].to_vec());
            if range.start < range.end {
                outbound.push_shared(shared.clone(), range.clone());
            }
            expected.extend_from_slice(&content[..round * 7]);
            expected.extend_from_slice(&content[5..5 + round * 100]);
            expected.extend_from_slice(content.get(range).unwrap_or_default());
        }
        assert_eq!(outbound.len(), expected.len());
        while !outbound.is_empty() {
            let before = outbound.len();
            match outbound.write_to(&mut socket, 100_000) {
                Ok(count) => assert_eq!(outbound.len(), before - count),
                // Nothing shared was left in reach: a real socket has no such fault.
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EFAULT)),
            }
        }
        assert!(socket.faults > 0, "the test had faults");
        assert!(socket.taken == expected, "the bytes are those that were queued");
    }

    #[test]
    fn a_fault_over_a_mapping_does_not_reach_the_connection() {
        struct FaultsOver<'a>(&'a [u8], Vec<u8>);
        impl Write for FaultsOver<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.write_vectored(&[IoSlice::new(bytes)])
            }
            fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
                if slices
                    .iter()
                    .any(|slice| self.0.as_ptr_range().contains(&slice.as_ptr()))
                {
                    return Err(io::Error::from_raw_os_error(libc::EFAULT));
                }
                slices.iter().for_each(|slice| self.1.extend_from_slice(slice));
                Ok(slices.iter().map(|slice| slice.len()).sum())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let torn = Rc::new(vec![9; 1 << 20]);
        let mut socket = FaultsOver(&torn, Vec::new());
        let mut outbound = Outbound::default();
        outbound.push(b"header");
        outbound.push_shared(torn.clone(), 0..1 << 20);
        outbound.push(b"tail");
        while !outbound.is_empty() {
            outbound
                .write_to(&mut socket, usize::MAX)
                .expect("the fault is dealt with inside");
        }
        assert_eq!(socket.1, [&b"header"[..], &torn, b"tail"].concat());
    }

    #[test]
    fn small_control_bytes_share_a_segment_and_an_idle_queue_holds_little() {
        let mut outbound = Outbound::default();
        (0..1_000).for_each(|_| outbound.push(b"sixteen bytes...."));
        assert_eq!(outbound.segments.len(), 2, "17,000 bytes in segments of 16 KiB");
        let shared: SharedBytes = Rc::new(vec![0; 10]);
        (0..1_000).for_each(|_| outbound.push_shared(shared.clone(), 0..10));
        outbound.consume(outbound.len());
        assert!(outbound.segments.capacity() <= 2 * KEPT_SEGMENTS);
    }
}
