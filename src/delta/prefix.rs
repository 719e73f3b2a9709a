//! A whole content of up to 16 MiB, compressed as what follows on the contents of its basis.
//!
//! Never frames the result and never checks a root. The bytes are in `docs/PROTOCOL.md`, "Against the
//! basis". Invariant: a [`PrefixDecoder`] gives exactly the announced number of bytes, or a named error.
//!
//! 1. The encoder is a zstd compressor with the basis as its prefix and a window over both. Of the frame
//!    that it makes, the header stays behind.
//! 2. The decoder makes a header of its own, of a frame that holds the basis and the content. It puts the
//!    basis into it as stored blocks: then every reference of the blocks that came leads to what it
//!    would have in the prefix. So it never holds on to the basis, the size is known to zstd
//!    (which refuses any other), and the peer has no say in the window.
//!
//! Awkward cases: a basis or a content without bytes. Memory of an encoder: the basis, the content, and
//! tables; of a decoder: basis and content.

use super::codec::{PrefixPacker, Unpacker};
use crate::model::limits::MEDIUM_BYTES_MAX;

/// Bytes of the largest piece that comes out, and of a stored block.
pub const PIECE_BYTES: usize = 128 * 1024;
/// Of the frame that the encoder makes: magic, descriptor without any flag, window.
const FRAME_HEADER_BYTES: usize = 6;
const MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();
/// Frame descriptor: a single segment, four bytes of length, neither checksum nor dictionary id.
const SINGLE_SEGMENT: u8 = 0b1010_0000;
/// Covers a basis and a content.
const WINDOW_LOG_MAX: u32 = 25;
/// Level for a basis of up to [`SMALL_BASIS_BYTES_MAX`], and above. The basis is read in one go, at 5 ms per
/// MB with 7 and 2 with 4: neither holds up others for more than 40 ms. Two versions of a source tar of 5 MB
/// make 108 KB and 130 KB; level 12 makes 101 KB in 27 ms per MB, 19 makes 85 KB in 692.
const LEVELS: [i32; 2] = [7, 4];
const SMALL_BASIS_BYTES_MAX: usize = 6 << 20;

const _: () = assert!(2 * MEDIUM_BYTES_MAX == 1 << WINDOW_LOG_MAX);

/// The sending end.
pub struct PrefixEncoder {
    packer: PrefixPacker,
    header_left: usize,
    left: u64,
}

/// A content that cannot be compressed or restored against its basis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The basis or the content is larger than 16 MiB.
    #[error("a file is too large to be compressed against its basis")]
    Limit,
    /// Other bytes of the basis or content were given than were announced.
    #[error("the length of a basis or its file changed meanwhile")]
    Length,
    /// What came is damaged, too long or too short.
    #[error("a file that was compressed against its basis cannot be restored")]
    Damaged,
    /// Bytes follow on the end.
    #[error("bytes follow on a file that was compressed against its basis")]
    Trailing,
    /// No zstd in this build, or no memory for it.
    #[error("compression is not available")]
    Unavailable,
}

impl PrefixEncoder {
    /// For a content of `length` bytes that is much like `basis`, at the default level.
    ///
    /// # Errors
    /// [`PrefixError::Limit`] over 16 MiB, [`PrefixError::Unavailable`].
    pub fn new(basis: Vec<u8>, length: u64) -> Result<PrefixEncoder, PrefixError> {
        let level = LEVELS[usize::from(basis.len() > SMALL_BASIS_BYTES_MAX)];
        PrefixEncoder::with_level(basis, length, level)
    }

    /// As [`PrefixEncoder::new`], at a zstd level of 1 to 19.
    ///
    /// # Errors
    /// As there.
    pub fn with_level(basis: Vec<u8>, length: u64, level: i32) -> Result<PrefixEncoder, PrefixError> {
        check_limits(basis.len() as u64, length)?;
        let both = basis.len() as u64 + length;
        let window_log = both.max(1 << 10).next_power_of_two().trailing_zeros();
        let packer = PrefixPacker::new(basis, length, window_log, level).ok_or(PrefixError::Unavailable)?;
        Ok(PrefixEncoder {
            packer,
            header_left: FRAME_HEADER_BYTES,
            left: length,
        })
    }

    /// Takes more of the content and appends what is ready to `out`. The first call also reads the basis.
    ///
    /// # Errors
    /// [`PrefixError::Length`] when this is more than was announced.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), PrefixError> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(PrefixError::Length)?;
        let start = out.len();
        let pushed = self.packer.push(bytes, out);
        pushed.ok_or(PrefixError::Unavailable)?;
        drop_header(&mut self.header_left, start, out);
        Ok(())
    }

    /// Appends the rest to `out`.
    ///
    /// # Errors
    /// [`PrefixError::Length`] when less was given than was announced.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), PrefixError> {
        if self.left > 0 {
            return Err(PrefixError::Length);
        }
        let start = out.len();
        self.packer.finish(out).ok_or(PrefixError::Unavailable)?;
        drop_header(&mut self.header_left, start, out);
        Ok(())
    }
}

fn drop_header(left: &mut usize, start: usize, out: &mut Vec<u8>) {
    let count = (*left).min(out.len() - start);
    out.drain(start..start + count);
    *left -= count;
}

fn check_limits(basis: u64, length: u64) -> Result<(), PrefixError> {
    match basis <= MEDIUM_BYTES_MAX && length <= MEDIUM_BYTES_MAX {
        true => Ok(()),
        false => Err(PrefixError::Limit),
    }
}

/// The receiving end.
pub struct PrefixDecoder {
    unpacker: Unpacker,
    basis_left: u64,
    left: u64,
    ended: bool,
    /// Nothing more comes without more input.
    dry: bool,
    out: Vec<u8>,
}

impl PrefixDecoder {
    /// For a content of `length` bytes against a basis of `basis_length`.
    ///
    /// # Errors
    /// [`PrefixError::Limit`] over 16 MiB, [`PrefixError::Unavailable`].
    pub fn new(basis_length: u64, length: u64) -> Result<PrefixDecoder, PrefixError> {
        check_limits(basis_length, length)?;
        let unpacker = Unpacker::new(WINDOW_LOG_MAX).ok_or(PrefixError::Unavailable)?;
        let mut decoder = PrefixDecoder {
            unpacker,
            basis_left: basis_length,
            left: length,
            ended: false,
            dry: false,
            out: vec![0; PIECE_BYTES],
        };
        let mut header = MAGIC.to_vec();
        header.push(SINGLE_SEGMENT);
        header.extend_from_slice(&((basis_length + length) as u32).to_le_bytes());
        decoder.store(&header, 0)?;
        Ok(decoder)
    }

    /// Takes the next bytes of the basis; all of them before the first [`PrefixDecoder::next`].
    ///
    /// # Errors
    /// [`PrefixError::Length`] when these are more than were announced.
    pub fn prime(&mut self, basis: &[u8]) -> Result<(), PrefixError> {
        let length = basis.len() as u64;
        self.basis_left = self.basis_left.checked_sub(length).ok_or(PrefixError::Length)?;
        for block in basis.chunks(PIECE_BYTES) {
            // A stored block: not the last one, type 0, length.
            let header = (block.len() as u32) << 3;
            self.store(&header.to_le_bytes()[..3], 0)?;
            self.store(block, block.len())?;
        }
        Ok(())
    }

    /// Feeds bytes of our own, of which `expected` come out again.
    fn store(&mut self, mut bytes: &[u8], expected: usize) -> Result<(), PrefixError> {
        let mut written = 0;
        while !bytes.is_empty() || written < expected {
            let unpacked = self.unpacker.unpack(&mut bytes, &mut self.out);
            // Only memory can be short: the bytes are ours.
            let unpacked = unpacked.ok_or(PrefixError::Unavailable)?;
            written += unpacked.written;
            debug_assert!(!unpacked.ended && written <= expected);
        }
        Ok(())
    }

    /// The next piece (1 to [`PIECE_BYTES`] bytes) of the content; takes from the front of `input` what it
    /// needs, and says `None` when that is used up.
    ///
    /// # Errors
    /// [`PrefixError`]; after it, this is of no more use.
    pub fn next<'a>(&'a mut self, input: &mut &[u8]) -> Result<Option<&'a [u8]>, PrefixError> {
        if self.basis_left > 0 {
            return Err(PrefixError::Length);
        }
        if self.ended {
            return match input.is_empty() {
                true => Ok(None),
                false => Err(PrefixError::Trailing),
            };
        }
        if self.dry && input.is_empty() {
            // zstd takes a few calls that bring nothing for an error.
            return Ok(None);
        }
        let unpacked = self.unpacker.unpack(input, &mut self.out).ok_or(PrefixError::Damaged)?;
        let written = unpacked.written;
        self.dry = input.is_empty() && written == 0;
        self.left = self.left.checked_sub(written as u64).ok_or(PrefixError::Damaged)?;
        self.ended = unpacked.ended;
        if written == 0 && !self.ended && !input.is_empty() {
            return Err(PrefixError::Damaged);
        }
        if self.ended && self.left > 0 {
            return Err(PrefixError::Damaged);
        }
        if self.ended && !input.is_empty() {
            return Err(PrefixError::Trailing);
        }
        Ok((written > 0).then_some(&self.out[..written]))
    }

    /// Whether the content is complete.
    ///
    /// # Errors
    /// [`PrefixError::Damaged`] when it is not.
    pub fn finish(&self) -> Result<(), PrefixError> {
        match self.ended && self.left == 0 {
            true => Ok(()),
            false => Err(PrefixError::Damaged),
        }
    }
}

#[cfg(test)]
#[cfg(feature = "zstd")]
mod tests {
    use super::super::noise::random;
    use super::*;

    // A plan that is long in coming is waited for: however often one looks whether there is more.
    #[test]
    fn looking_for_more_in_vain_is_no_damage() {
        let basis = random(1, 300_000);
        let mut new = basis.clone();
        new[100_000] ^= 1;
        let mut encoder = PrefixEncoder::new(basis.clone(), new.len() as u64).unwrap();
        let mut plan = Vec::new();
        encoder.push(&new, &mut plan).unwrap();
        encoder.finish(&mut plan).unwrap();
        let mut decoder = PrefixDecoder::new(basis.len() as u64, new.len() as u64).unwrap();
        decoder.prime(&basis).unwrap();
        let mut made = Vec::new();
        for part in plan.chunks(plan.len() / 3) {
            for _ in 0..40 {
                assert!(decoder.next(&mut &[][..]).unwrap().is_none());
            }
            let mut input = part;
            loop {
                match decoder.next(&mut input).unwrap() {
                    Some(bytes) => made.extend_from_slice(bytes),
                    None if input.is_empty() => break,
                    None => {}
                }
            }
        }
        assert!(made == new);
    }

    /// Text-like: words of a small vocabulary.
    fn text(seed: u64, length: usize) -> Vec<u8> {
        let picks = random(seed, length);
        let words = picks.iter().flat_map(|pick| format!("word{} ", pick % 97).into_bytes());
        words.take(length).collect()
    }

    fn encode(basis: &[u8], new: &[u8], step: usize) -> Vec<u8> {
        let mut encoder = PrefixEncoder::new(basis.to_vec(), new.len() as u64).unwrap();
        let mut out = Vec::new();
        for part in new.chunks(step) {
            encoder.push(part, &mut out).unwrap();
        }
        encoder.finish(&mut out).unwrap();
        out
    }

    fn decode(basis: &[u8], length: u64, encoded: &[u8], step: usize) -> Result<Vec<u8>, PrefixError> {
        let mut decoder = PrefixDecoder::new(basis.len() as u64, length)?;
        for part in basis.chunks(step) {
            decoder.prime(part)?;
        }
        let mut out = Vec::new();
        for mut input in encoded.chunks(step) {
            while let Some(piece) = decoder.next(&mut input)? {
                assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES);
                out.extend_from_slice(piece);
            }
            assert!(input.is_empty());
        }
        decoder.finish()?;
        Ok(out)
    }

    /// Also without a basis or a content, of one byte, and over the edges of blocks.
    #[test]
    fn a_content_comes_back_whatever_its_basis() {
        let sizes = [0, 1, 7, 1_000, 131_071, 131_072, 131_073, 700_000];
        for basis in sizes {
            for length in sizes {
                for new in [random(length as u64, length), text(length as u64, length)] {
                    let basis = text(3, basis);
                    let encoded = encode(&basis, &new, 70_000);
                    let got = decode(&basis, new.len() as u64, &encoded, 50_001).unwrap();
                    assert!(got == new, "{} to {length}", basis.len());
                    assert!(encoded.len() <= new.len() + new.len() / 100 + 16);
                }
            }
        }
        let new = random(1, 3_000);
        assert_eq!(decode(b"ab", 3_000, &encode(b"ab", &new, 3_000), 1), Ok(new));
    }

    /// The point of it: what the basis has costs next to nothing, wherever it is in it.
    #[test]
    fn what_the_basis_has_is_not_sent() {
        let basis = random(5, 3_000_000);
        let new = [&basis[1_500_000..], b"something new", &basis[..1_000_000]].concat();
        let encoded = encode(&basis, &new, 1 << 20);
        assert!(encoded.len() < 1_500, "{}", encoded.len());
        assert!(decode(&basis, new.len() as u64, &encoded, 1 << 20).unwrap() == new);
    }

    /// Rows 10 to 12 of the threats: damage, truncation, other lengths, bombs; always a named error or
    /// other bytes (which the root finds), never more than was announced.
    #[test]
    fn damage_has_a_name() {
        let (basis, new) = (text(1, 50_000), text(2, 60_000));
        let encoded = encode(&basis, &new, 60_000);
        for length in 0..encoded.len() {
            assert!(
                decode(&basis, 60_000, &encoded[..length], 40_000).is_err(),
                "cut at {length}"
            );
        }
        for length in [0, 59_999, 60_001, MEDIUM_BYTES_MAX] {
            assert_eq!(
                decode(&basis, length, &encoded, 40_000),
                Err(PrefixError::Damaged),
                "{length}"
            );
        }
        let trailing = [&encoded[..], b"x"].concat();
        assert_eq!(decode(&basis, 60_000, &trailing, 1 << 20), Err(PrefixError::Trailing));
        assert_eq!(
            decode(&basis, 60_000, &trailing, encoded.len()),
            Err(PrefixError::Trailing)
        );
        for at in 0..encoded.len() {
            let mut damaged = encoded.clone();
            damaged[at] ^= 0x21;
            if let Ok(got) = decode(&basis, 60_000, &damaged, 1 << 20) {
                assert_eq!(got.len(), 60_000);
            }
        }
        // Blocks of one byte, repeated 128 KiB times: 16 TiB from 4 MB.
        let bomb = [0x02, 0x00, 0x10, 0].repeat(1 << 20);
        assert_eq!(decode(&basis, 60_000, &bomb, 1 << 20), Err(PrefixError::Damaged));
        assert_eq!(
            decode(&basis, MEDIUM_BYTES_MAX, &bomb, 1 << 20),
            Err(PrefixError::Damaged)
        );
    }

    #[test]
    fn lengths_are_kept() {
        let over = MEDIUM_BYTES_MAX + 1;
        assert!(matches!(PrefixDecoder::new(over, 0), Err(PrefixError::Limit)));
        assert!(matches!(PrefixEncoder::new(Vec::new(), over), Err(PrefixError::Limit)));
        let mut encoder = PrefixEncoder::new(Vec::new(), 3).unwrap();
        let mut out = Vec::new();
        assert_eq!(encoder.push(b"four", &mut out), Err(PrefixError::Length));
        let encoder = PrefixEncoder::new(Vec::new(), 3).unwrap();
        assert_eq!(encoder.finish(&mut out), Err(PrefixError::Length));
        let mut decoder = PrefixDecoder::new(3, 3).unwrap();
        assert_eq!(decoder.prime(b"four"), Err(PrefixError::Length));
        decoder.prime(b"ab").unwrap();
        assert_eq!(decoder.next(&mut &b"x"[..]).unwrap_err(), PrefixError::Length);
    }

    /// Stated in the head: a decoder takes the basis, the content, and little else.
    #[test]
    fn a_decoder_takes_both_lengths() {
        let (basis, new) = (text(1, 2_000_000), random(2, 1_000_000));
        let encoded = encode(&basis, &new, 1 << 20);
        let mut decoder = PrefixDecoder::new(2_000_000, 1_000_000).unwrap();
        decoder.prime(&basis).unwrap();
        let mut input = &encoded[..];
        while decoder.next(&mut input).unwrap().is_some() {}
        let taken = decoder.unpacker.memory_bytes();
        assert!(taken < 3_000_000 + 600_000, "{taken}");
    }
}
