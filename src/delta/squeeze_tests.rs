//! What is squeezed comes back; what pays is compressed, what does not costs little; hostile streams.

use super::super::noise::random;
use super::*;

#[cfg(feature = "zstd")]
fn text(seed: u64, length: usize) -> Vec<u8> {
    let picks = random(seed, length);
    let words = picks.iter().flat_map(|pick| format!("word{} ", pick % 97).into_bytes());
    words.take(length).collect()
}

#[cfg(not(feature = "zstd"))]
fn text(_seed: u64, length: usize) -> Vec<u8> {
    vec![b'a'; length]
}

fn squeeze(bytes: &[u8], step: usize) -> Vec<u8> {
    let mut squeezer = Squeezer::new(bytes.len() as u64);
    let mut out = Vec::new();
    for part in bytes.chunks(step) {
        squeezer.push(part, &mut out);
    }
    squeezer.flush(&mut out);
    out
}

fn unsqueeze(total: u64, stream: &[u8], step: usize) -> Result<Vec<u8>, SqueezeError> {
    let mut unsqueezer = Unsqueezer::new(total);
    let mut out = Vec::new();
    for mut input in stream.chunks(step) {
        while let Some(piece) = unsqueezer.next(&mut input)? {
            assert!(!piece.is_empty() && piece.len() <= BLOCK_BYTES);
            out.extend_from_slice(piece);
            assert!(out.len() as u64 <= total);
        }
        assert!(input.is_empty());
    }
    unsqueezer.finish()?;
    Ok(out)
}

/// Kinds of blocks of a stream, and their lengths.
fn blocks(mut stream: &[u8]) -> Vec<(bool, usize)> {
    let mut blocks = Vec::new();
    while let [a, b, c, ..] = *stream {
        let number = u32::from_le_bytes([a, b, c, 0]);
        let length = (number & !PACKED) as usize;
        blocks.push((number & PACKED != 0, length));
        stream = &stream[HEADER_BYTES + length..];
    }
    blocks
}

/// Whatever is in it, and however both sides cut it.
#[test]
fn a_stream_comes_back() {
    let mixed = [text(1, 300_000), random(2, 900_000), text(1, 500_000), random(3, 100)].concat();
    for bytes in [&[][..], b"x", &mixed, &mixed[..BLOCK_BYTES], &mixed[..BLOCK_BYTES + 1]] {
        for step in [1 << 20, 65_537, 3_000] {
            let stream = squeeze(bytes, step);
            assert!(unsqueeze(bytes.len() as u64, &stream, step).unwrap() == *bytes);
            assert!(unsqueeze(bytes.len() as u64, &stream, 1 + step / 7).unwrap() == *bytes);
        }
    }
    let mut squeezer = Squeezer::raw();
    let mut out = Vec::new();
    squeezer.push(&mixed, &mut out);
    squeezer.flush(&mut out);
    assert!(blocks(&out).iter().all(|(packed, _)| !packed));
    assert!(unsqueeze(mixed.len() as u64, &out, 9_999).unwrap() == mixed);
}

/// Later blocks refer to earlier ones: the second half costs nearly nothing.
#[cfg(feature = "zstd")]
#[test]
fn blocks_share_one_history() {
    let half = random(1, 100_000);
    let once = squeeze(&[text(1, 400_000), half.clone()].concat(), 1 << 20).len();
    let twice = squeeze(
        &[text(1, 400_000), half.clone(), text(1, 400_000), half].concat(),
        1 << 20,
    )
    .len();
    assert!(twice < once + once / 10, "{once}, {twice}");
}

/// Of random bytes ever fewer are tried, and hardly any are added; text after them is found again.
#[cfg(feature = "zstd")]
#[test]
fn random_bytes_are_left_alone() {
    let bytes = [random(1, 40 << 20), text(2, 30 << 20)].concat();
    let stream = squeeze(&bytes, 1 << 20);
    let blocks = blocks(&stream);
    let tried = blocks[..320].iter().filter(|(packed, _)| *packed).count();
    assert!(tried <= 12, "{tried} of 320");
    assert!(stream.len() < (48 << 20) + (10 << 20), "{}", stream.len());
    let random_part: usize = blocks[..320].iter().map(|(_, length)| length + HEADER_BYTES).sum();
    assert!(random_part <= (40 << 20) + 320 * 17, "{random_part}");
    assert!(unsqueeze(bytes.len() as u64, &stream, 1 << 20).unwrap() == bytes);
}

/// Rows 10 to 12 of the threats, of the framing.
#[test]
fn impossible_headers_are_refused() {
    let table: [(&[u8], u64, SqueezeError); 7] = [
        (&[0, 0, 0], 10, SqueezeError::Header),
        (&[0, 0, 0x80], 10, SqueezeError::Header),
        (&[1, 0, 2, 0], 1 << 30, SqueezeError::Header),
        (&[0xff, 0xff, 0xff], 1 << 30, SqueezeError::Header),
        (&[1, 0, 0x40], 10, SqueezeError::Header),
        (&[11, 0, 0, 1], 10, SqueezeError::TooLong),
        (&[1, 0, 0], 0, SqueezeError::TooLong),
    ];
    for (stream, total, error) in table {
        assert_eq!(unsqueeze(total, stream, 10), Err(error), "{stream:?}");
    }
    for stream in [&[][..], &[2], &[2, 0, 0, 1], &[1, 0, 0, 1, 1]] {
        assert_eq!(unsqueeze(2, stream, 10), Err(SqueezeError::TooShort), "{stream:?}");
    }
}

/// Row 12 of the threats: bombs, windows over the cap, frames that end, damage, other lengths.
#[cfg(feature = "zstd")]
#[test]
fn hostile_blocks_are_refused() {
    let block = |packed: &[u8]| [&header(packed.len(), PACKED)[..], packed].concat();
    let magic = [0x28, 0xB5, 0x2F, 0xFD];
    // A repeated byte, 128 KiB of it, in a window of 128 KiB.
    let repeated = [0x02, 0, 0x10, 7];
    let window = |descriptor: u8| [&magic[..], &[0, descriptor]].concat();
    let bomb = block(&[window(7 << 3), repeated.repeat(1_000)].concat());
    assert_eq!(unsqueeze(1 << 40, &bomb, 1 << 20), Err(SqueezeError::TooLong));
    let whole = block(&[window(7 << 3), repeated.to_vec()].concat());
    assert_eq!(unsqueeze(BLOCK_BYTES as u64, &whole, 9), Ok(vec![7; BLOCK_BYTES]));
    assert_eq!(unsqueeze(BLOCK_BYTES as u64 - 1, &whole, 9), Err(SqueezeError::TooLong));
    assert_eq!(
        unsqueeze(BLOCK_BYTES as u64 + 1, &whole, 9),
        Err(SqueezeError::TooShort)
    );
    for (descriptor, result) in [(12 << 3, true), (13 << 3, false), (21 << 3, false), (0xff, false)] {
        let stream = block(&[window(descriptor), repeated.to_vec()].concat());
        assert_eq!(
            unsqueeze(BLOCK_BYTES as u64, &stream, 1 << 20).is_ok(),
            result,
            "{descriptor}"
        );
    }
    let ended = block(&[window(7 << 3), vec![0x03, 0, 0x10, 7]].concat());
    assert_eq!(
        unsqueeze(BLOCK_BYTES as u64, &ended, 1 << 20),
        Err(SqueezeError::Damaged)
    );
    for garbage in [&b"garbage"[..], &magic, &[0x50, 0x2A, 0x4D, 0x18, 1, 0, 0, 0, 0]] {
        assert_eq!(unsqueeze(100, &block(garbage), 1 << 20), Err(SqueezeError::Damaged));
    }
}

/// Damage anywhere ends in a named error or in as many other bytes, which the root finds.
#[cfg(feature = "zstd")]
#[test]
fn damage_stays_within_the_announced_length() {
    let bytes = [text(1, 20_000), random(2, 500)].concat();
    let stream = squeeze(&bytes, 1 << 20);
    for at in 0..stream.len() {
        for mask in [1, 0x80, 0xff] {
            let mut damaged = stream.clone();
            damaged[at] ^= mask;
            if let Ok(got) = unsqueeze(bytes.len() as u64, &damaged, 777) {
                assert_eq!(got.len(), bytes.len());
            }
        }
        assert!(unsqueeze(bytes.len() as u64, &stream[..at], 777).is_err());
    }
}

/// The bound of a receiver holds for the largest window, and nothing is made before it is needed.
#[cfg(feature = "zstd")]
#[test]
fn memory_is_bounded() {
    let bytes = text(1, 24 << 20);
    let stream = squeeze(&bytes, 1 << 20);
    let mut unsqueezer = Unsqueezer::new(bytes.len() as u64);
    for mut input in stream.chunks(50_000) {
        while unsqueezer.next(&mut input).unwrap().is_some() {}
    }
    let context = unsqueezer.unpacker.as_ref().unwrap().memory_bytes();
    let own = unsqueezer.held.capacity() + unsqueezer.out.capacity();
    assert!(context + own < UNSQUEEZE_MEMORY_BYTES_MAX, "{context} + {own}");
    let mut raw = Unsqueezer::new(3);
    assert!(raw.next(&mut &[3, 0, 0, 1, 2, 3][..]).unwrap().is_some());
    assert!(raw.unpacker.is_none() && raw.out.capacity() == 0);
}

/// Without zstd nothing is packed, and what is packed has a name.
#[cfg(not(feature = "zstd"))]
#[test]
fn without_zstd_blocks_are_raw() {
    assert!(
        blocks(&squeeze(&text(1, 500_000), 9_999))
            .iter()
            .all(|(packed, _)| !packed)
    );
    assert_eq!(unsqueeze(5, &[1, 0, 0x80, 0], 10), Err(SqueezeError::NotAgreed));
}

/// While nothing pays, what is given whole goes on whole: what waited before it is a block of its own, and blocks are
/// tried as often as ever.
#[test]
fn raw_blocks_are_not_put_together_again() {
    let bytes = random(9, 8 << 20);
    let mut squeezer = Squeezer::new(bytes.len() as u64);
    let mut out = Vec::new();
    for part in bytes.chunks(2 * BLOCK_BYTES + 5) {
        let (head, rest) = part.split_at(5);
        squeezer.push(head, &mut out);
        squeezer.push(rest, &mut out);
    }
    squeezer.flush(&mut out);
    assert_eq!(unsqueeze(bytes.len() as u64, &out, 9_999).as_deref(), Ok(&bytes[..]));
    assert!(
        out.len() < bytes.len() + bytes.len() / 5_000,
        "{}",
        out.len() - bytes.len()
    );
    let blocks = blocks(&out);
    assert!(
        blocks.iter().filter(|(_, length)| *length == 5).count() > 20,
        "{blocks:?}"
    );
    let packed = blocks.iter().filter(|(packed, _)| *packed).count();
    assert!(packed <= 8, "{packed} of {}", blocks.len());
}
