//! What must hold for any bytes at all, for compressed streams and signatures.
//!
//! As `bodies.rs`, for what the delta engine decodes.

use syncline::delta::Op;
use syncline::delta::prefix::{PrefixDecoder, PrefixEncoder};
use syncline::delta::signature::{Matching, Signature, SignatureBuilder, SignatureMatcher};
use syncline::delta::squeeze::{SqueezeError, Squeezer, Unsqueezer};

/// A compressed stream: nothing beyond the announced length comes out, and pieces do not depend on how it
/// is cut. The bytes themselves survive being squeezed.
pub fn squeezed(data: &[u8]) {
    let (&[total, step, ..], stream) = data.split_at(data.len().min(2)) else {
        return;
    };
    let total = 1 << (total % 24);
    let restore = |total: u64, step: usize, stream: &[u8]| -> Result<Vec<u8>, SqueezeError> {
        let mut unsqueezer = Unsqueezer::new(total);
        let mut out = Vec::new();
        for mut part in stream.chunks(step) {
            while let Some(piece) = unsqueezer.next(&mut part)? {
                out.extend_from_slice(piece);
                assert!(out.len() as u64 <= total);
            }
        }
        unsqueezer.finish().map(|()| out)
    };
    let whole = restore(total, usize::MAX, stream);
    assert_eq!(whole, restore(total, usize::from(step) + 1, stream));
    let mut squeezer = Squeezer::new(stream.len() as u64);
    let mut out = Vec::new();
    squeezer.push(stream, &mut out);
    squeezer.flush(&mut out);
    assert_eq!(
        restore(stream.len() as u64, usize::from(step) + 1, &out).as_deref(),
        Ok(stream)
    );
}

/// A content against its basis: the same promises.
pub fn prefixed(data: &[u8]) {
    let (&[cut, total, ..], rest) = data.split_at(data.len().min(2)) else {
        return;
    };
    let (basis, stream) = rest.split_at(usize::from(cut).min(rest.len()));
    let restore = |length: u64, stream: &[u8]| {
        let mut decoder = PrefixDecoder::new(basis.len() as u64, length)?;
        decoder.prime(basis)?;
        let mut out = Vec::new();
        let mut input = stream;
        while let Some(piece) = decoder.next(&mut input)? {
            out.extend_from_slice(piece);
            assert!(out.len() as u64 <= length);
        }
        decoder.finish().map(|()| out)
    };
    let length = 1 << (total % 24);
    if let Ok(out) = restore(length, stream) {
        assert_eq!(out.len() as u64, length);
    }
    let Ok(mut encoder) = PrefixEncoder::new(basis.to_vec(), stream.len() as u64) else {
        return;
    };
    let mut out = Vec::new();
    encoder.push(stream, &mut out).expect("the announced length");
    encoder.finish(&mut out).expect("the announced length");
    assert_eq!(restore(stream.len() as u64, &out).as_deref(), Ok(stream));
}

/// A signature from anywhere, matched against the bytes after it: the operations cover them, in order.
pub fn signature(data: &[u8]) {
    let (&[cut, ..], rest) = data.split_at(data.len().min(1)) else {
        return;
    };
    let (head, content) = rest.split_at(usize::from(cut).min(rest.len()));
    let covered = |encoded: &[u8]| {
        let signature = match Signature::parse(encoded) {
            Ok(signature) => signature,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return None;
            }
        };
        let length = signature.length();
        let mut matcher = SignatureMatcher::new(signature);
        let mut ops = Vec::new();
        while matcher.step(content, 1000, &mut |op| ops.push(op)) == Matching::More {}
        let bytes = ops.iter().map(|op| match *op {
            Op::Copy { from, length: copied } => {
                assert!(from + copied <= length);
                copied
            }
            Op::Literal { length } | Op::Edit { length } => length,
        });
        assert_eq!(bytes.sum::<u64>(), content.len() as u64);
        Some(ops.len())
    };
    covered(head);
    let mut builder = SignatureBuilder::new(u64::from(cut));
    builder.push(content);
    assert_eq!(covered(&builder.finish()), Some(usize::from(!content.is_empty())));
}
