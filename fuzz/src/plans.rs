//! What must hold for any bytes at all as a delta plan; see `bodies.rs`.

use syncline::delta::{Instruction, PlanDecoder, PlanEncoder, PlanError};

const BASE_BYTES: usize = 1 << 16;

/// A plan: instructions do not depend on how it is cut and stay within the basis and the new file; what
/// is legal is written back as a plan for the same file.
pub fn plan(data: &[u8]) {
    let (&[cut, low, high, ..], stream) = data.split_at(data.len().min(3)) else {
        return;
    };
    let new_length = u64::from(u16::from_le_bytes([low, high]));
    let whole = decode(stream, usize::MAX, new_length);
    assert_eq!(
        whole,
        decode(stream, usize::from(cut) + 1, new_length),
        "pieces of {cut}"
    );
    let Ok(pieces) = whole else {
        return;
    };
    let mut encoder = PlanEncoder::new();
    for piece in &pieces {
        match piece {
            Piece::Copy(from, length) => encoder.copy(*from, *length),
            Piece::Bytes(bytes) => encoder.literal(bytes),
        }
    }
    encoder.finish();
    let again = decode(&encoder.take_output(), usize::MAX, new_length);
    assert_eq!(again.map(|pieces| joined(&pieces)), Ok(joined(&pieces)));
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Copy(u64, u64),
    Bytes(Vec<u8>),
}

fn decode(stream: &[u8], cut: usize, new_length: u64) -> Result<Vec<Piece>, PlanError> {
    let mut decoder = PlanDecoder::new(BASE_BYTES as u64, new_length);
    let mut pieces: Vec<Piece> = Vec::new();
    let mut described = 0;
    for part in stream.chunks(cut) {
        decoder.push(part);
        while let Some(instruction) = named(decoder.next())? {
            match instruction {
                Instruction::Copy { from, length } => {
                    assert!(length > 0 && from + length <= BASE_BYTES as u64);
                    described += length;
                    pieces.push(Piece::Copy(from, length));
                }
                Instruction::Literal(bytes) => {
                    assert!(!bytes.is_empty());
                    described += bytes.len() as u64;
                    match pieces.last_mut() {
                        Some(Piece::Bytes(before)) => before.extend_from_slice(bytes),
                        _ => pieces.push(Piece::Bytes(bytes.to_vec())),
                    }
                }
            }
            assert!(described <= new_length);
        }
    }
    named(decoder.finish())?;
    assert_eq!(described, new_length);
    Ok(pieces)
}

fn named<T>(result: Result<T, PlanError>) -> Result<T, PlanError> {
    result.inspect_err(|error| assert!(!error.to_string().is_empty()))
}

/// Neighbouring copies as one.
fn joined(pieces: &[Piece]) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (all.last_mut(), piece) {
            (Some(Piece::Copy(start, length)), Piece::Copy(from, more)) if *start + *length == *from => *length += more,
            _ => all.push(piece.clone()),
        }
    }
    all
}
