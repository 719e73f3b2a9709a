//! The delta plan: a new file in terms of a basis, as a compact stream of bytes, and back.
//!
//! Never sees a file, and never compresses. Its byte table is in `docs/PROTOCOL.md`. Invariant: a
//! decoder gives out instructions that stay within the basis and describe no more than the new length,
//! whatever bytes it is given, and holds no more than what was pushed last.

/// A stretch of the new file, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Bytes of the basis.
    Copy {
        /// Where they stand in the basis.
        from: u64,
        /// How many.
        length: u64,
    },
    /// New bytes.
    Literal {
        /// How many.
        length: u64,
    },
    /// New bytes that stand for as many of the basis: the basis cursor moves along.
    Edit {
        /// How many.
        length: u64,
    },
}

impl Op {
    /// Bytes of the new file.
    #[must_use]
    pub fn length(&self) -> u64 {
        match *self {
            Op::Copy { length, .. } | Op::Literal { length } | Op::Edit { length } => length,
        }
    }
}

/// What to do next to make the new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction<'a> {
    /// Take bytes of the basis.
    Copy {
        /// Where they stand; with `length` within the basis.
        from: u64,
        /// How many; not zero.
        length: u64,
    },
    /// Take these; a long literal comes in pieces, none of them empty.
    Literal(&'a [u8]),
}

/// A plan that cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A number that is too large, or not in its shortest form.
    #[error("a delta plan with a malformed number")]
    Number,
    /// An instruction for no bytes.
    #[error("a delta plan with an empty instruction")]
    Empty,
    /// A copy or an edit outside the basis.
    #[error("a delta plan that points outside its basis")]
    BeyondBasis,
    /// More bytes than the new file has.
    #[error("a delta plan for more bytes than the file has")]
    BeyondFile,
    /// Bytes after the last instruction.
    #[error("a delta plan that goes on after its end")]
    Trailing,
    /// It ends before the new file does.
    #[error("a delta plan that ends too early")]
    Short,
}

/// Kinds in the three low bits of a header whose lowest bit is zero.
const LITERAL: u64 = 0;
const COPY_ON: u64 = 2;
const COPY_FROM: u64 = 4;
const EDIT: u64 = 6;
/// Longest length in one header, so that it fits with its kind; a longer copy is cut.
const LENGTH_MAX: u64 = 1 << 60;
/// New bytes that wait for more of their kind: with 4 bytes of header, 4 in a million.
const WAITING_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fresh {
    Literal,
    Edit,
}

/// Writes a plan; joins what is adjacent.
#[derive(Debug)]
pub struct PlanEncoder {
    out: Vec<u8>,
    /// Where the next copy starts if it does not say so.
    cursor: u64,
    /// A copy that may go on: from, length.
    copy: Option<(u64, u64)>,
    /// New bytes after that copy, which may go on, at most [`WAITING_BYTES_MAX`].
    fresh: Vec<u8>,
    kind: Fresh,
}

impl Default for PlanEncoder {
    fn default() -> PlanEncoder {
        PlanEncoder::new()
    }
}

impl PlanEncoder {
    /// A plan for nothing so far.
    #[must_use]
    pub fn new() -> PlanEncoder {
        PlanEncoder {
            out: Vec::new(),
            cursor: 0,
            copy: None,
            fresh: Vec::new(),
            kind: Fresh::Literal,
        }
    }

    /// Goes on with `length` bytes of the basis, which stand at `from`.
    pub fn copy(&mut self, from: u64, length: u64) {
        if length == 0 {
            return;
        }
        match &mut self.copy {
            Some((start, before)) if self.fresh.is_empty() && *start + *before == from => *before += length,
            _ => {
                self.flush(&[]);
                self.copy = Some((from, length));
            }
        }
    }

    /// Goes on with new bytes. They may come in pieces.
    pub fn literal(&mut self, bytes: &[u8]) {
        self.add(Fresh::Literal, bytes);
    }

    /// Goes on with `length` new bytes that are not given: they come right behind the output that is ready then.
    pub fn literal_behind(&mut self, length: u64) {
        if length > 0 {
            self.turn_to(Fresh::Literal);
            self.flush_before(length);
        }
    }

    /// Goes on with new bytes for as many of the basis at the cursor. They may come in pieces.
    pub fn edit(&mut self, bytes: &[u8]) {
        self.add(Fresh::Edit, bytes);
    }

    /// Writes out what waited for a neighbour. The plan is complete when all of the file was described.
    pub fn finish(&mut self) {
        self.flush(&[]);
    }

    /// The bytes that are ready.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// How many bytes are ready.
    #[must_use]
    pub fn output_bytes(&self) -> usize {
        self.out.len()
    }

    fn add(&mut self, kind: Fresh, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.turn_to(kind);
        if self.fresh.len() + bytes.len() < WAITING_BYTES_MAX {
            self.fresh.extend_from_slice(bytes);
        } else {
            self.flush(bytes);
        }
    }

    /// New bytes of another kind than those that wait do not join them.
    fn turn_to(&mut self, kind: Fresh) {
        if self.kind != kind && !self.fresh.is_empty() {
            self.flush(&[]);
        }
        self.kind = kind;
    }

    /// Writes the waiting copy, and the waiting new bytes with `more` after them.
    fn flush(&mut self, more: &[u8]) {
        self.flush_before(more.len() as u64);
        self.out.extend_from_slice(more);
    }

    /// As [`flush`](Self::flush), without the bytes that come after the waiting ones.
    fn flush_before(&mut self, more: u64) {
        let length = self.fresh.len() as u64 + more;
        let edit = self.kind == Fresh::Edit;
        match self.copy.take() {
            Some((from, copied)) if from == self.cursor && edit && length == 1 => {
                put(&mut self.out, copied << 1 | 1);
                self.cursor += copied;
            }
            copy => {
                if let Some((from, copied)) = copy {
                    self.put_copy(from, copied);
                }
                if length > 0 {
                    put(&mut self.out, length << 3 | if edit { EDIT } else { LITERAL });
                }
            }
        }
        if edit {
            self.cursor += length;
        }
        self.out.append(&mut self.fresh);
    }

    fn put_copy(&mut self, from: u64, length: u64) {
        let mut left = length;
        let mut from = from;
        while left > 0 {
            let part = left.min(LENGTH_MAX);
            if from == self.cursor {
                put(&mut self.out, part << 3 | COPY_ON);
            } else {
                put(&mut self.out, part << 3 | COPY_FROM);
                put(&mut self.out, zigzag(from.wrapping_sub(self.cursor) as i64));
            }
            from += part;
            self.cursor = from;
            left -= part;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Seek { length: u64 },
    Bytes { left: u64 },
    Failed(PlanError),
}

/// Reads a plan from bytes as they arrive.
#[derive(Debug)]
pub struct PlanDecoder {
    base_length: u64,
    new_length: u64,
    /// Bytes of the new file that instructions so far are for.
    described: u64,
    cursor: u64,
    buffer: Vec<u8>,
    at: usize,
    state: State,
}

impl PlanDecoder {
    /// For a plan that makes `new_length` bytes from a basis of `base_length`.
    #[must_use]
    pub fn new(base_length: u64, new_length: u64) -> PlanDecoder {
        PlanDecoder {
            base_length,
            new_length,
            described: 0,
            cursor: 0,
            buffer: Vec::new(),
            at: 0,
            state: State::Header,
        }
    }

    /// Takes more of the plan. Call [`next`](Self::next) until there is nothing, then push again: so no
    /// more is held than one push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next instruction; `None` when more bytes are needed, or there is no more to say.
    ///
    /// # Errors
    /// [`PlanError`], from then on always the same.
    #[allow(clippy::should_implement_trait, reason = "it lends from itself")]
    pub fn next(&mut self) -> Result<Option<Instruction<'_>>, PlanError> {
        match self.advance() {
            Ok(None) => Ok(None),
            Ok(Some(Found::Copy { from, length })) => Ok(Some(Instruction::Copy { from, length })),
            Ok(Some(Found::Bytes(count))) => {
                let bytes = &self.buffer[self.at..self.at + count];
                self.at += count;
                Ok(Some(Instruction::Literal(bytes)))
            }
            Err(error) => {
                self.state = State::Failed(error);
                Err(error)
            }
        }
    }

    /// Checks that the plan described the whole file, and nothing after it.
    ///
    /// # Errors
    /// [`PlanError::Short`], [`PlanError::Trailing`], or what went wrong before.
    pub fn finish(&self) -> Result<(), PlanError> {
        match self.state {
            State::Failed(error) => Err(error),
            State::Header if self.described == self.new_length && self.at == self.buffer.len() => Ok(()),
            State::Header if self.described == self.new_length => Err(PlanError::Trailing),
            _ => Err(PlanError::Short),
        }
    }

    fn advance(&mut self) -> Result<Option<Found>, PlanError> {
        loop {
            let ready = self.buffer.len() - self.at;
            if ready == 0 && !matches!(self.state, State::Failed(_)) {
                return Ok(None);
            }
            match self.state {
                State::Failed(error) => return Err(error),
                State::Bytes { left } => {
                    let count = left.min(ready as u64);
                    self.state = match left - count {
                        0 => State::Header,
                        left => State::Bytes { left },
                    };
                    return Ok(Some(Found::Bytes(count as usize)));
                }
                State::Seek { length } => {
                    let Some(number) = self.number()? else { return Ok(None) };
                    let distance = (number >> 1) as i64 ^ -((number & 1) as i64);
                    let from = self.cursor.checked_add_signed(distance);
                    self.cursor = from.ok_or(PlanError::BeyondBasis)?;
                    self.state = State::Header;
                    return self.copy(length).map(Some);
                }
                State::Header => {
                    if self.described == self.new_length {
                        return Err(PlanError::Trailing);
                    }
                    let Some(header) = self.number()? else { return Ok(None) };
                    if let Some(found) = self.header(header)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
    }

    fn header(&mut self, header: u64) -> Result<Option<Found>, PlanError> {
        if header & 1 == 1 {
            let length = header >> 1;
            self.describe(length)?;
            let found = self.copy(length)?;
            self.edit(1)?;
            return Ok(Some(found));
        }
        let length = header >> 3;
        self.describe(length)?;
        match header & 7 {
            COPY_ON => return self.copy(length).map(Some),
            COPY_FROM => self.state = State::Seek { length },
            EDIT => {
                self.described -= length;
                self.edit(length)?;
            }
            _ => self.state = State::Bytes { left: length },
        }
        Ok(None)
    }

    fn describe(&mut self, length: u64) -> Result<(), PlanError> {
        if length == 0 {
            return Err(PlanError::Empty);
        }
        if length > self.new_length - self.described {
            return Err(PlanError::BeyondFile);
        }
        self.described += length;
        Ok(())
    }

    fn move_cursor(&mut self, length: u64) -> Result<(), PlanError> {
        let end = self.cursor.checked_add(length).filter(|end| *end <= self.base_length);
        self.cursor = end.ok_or(PlanError::BeyondBasis)?;
        Ok(())
    }

    fn copy(&mut self, length: u64) -> Result<Found, PlanError> {
        let from = self.cursor;
        self.move_cursor(length)?;
        Ok(Found::Copy { from, length })
    }

    fn edit(&mut self, length: u64) -> Result<(), PlanError> {
        self.describe(length)?;
        self.move_cursor(length)?;
        self.state = State::Bytes { left: length };
        Ok(())
    }

    /// A varint, or `None` when it has not come yet.
    fn number(&mut self) -> Result<Option<u64>, PlanError> {
        let mut value = 0u64;
        for (place, byte) in self.buffer[self.at..].iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            if place == 9 && *byte > 1 || place > 0 && *byte == 0 {
                return Err(PlanError::Number);
            }
            value |= bits << (7 * place);
            if byte & 0x80 == 0 {
                self.at += place + 1;
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

enum Found {
    Copy { from: u64, length: u64 },
    Bytes(usize),
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(base: &[u8], plan: &[u8], new_length: u64, cut: usize) -> Result<Vec<u8>, PlanError> {
        let mut decoder = PlanDecoder::new(base.len() as u64, new_length);
        let mut made = Vec::new();
        for part in plan.chunks(cut) {
            decoder.push(part);
            while let Some(instruction) = decoder.next()? {
                match instruction {
                    Instruction::Copy { from, length } => {
                        made.extend_from_slice(&base[from as usize..][..length as usize]);
                    }
                    Instruction::Literal(bytes) => made.extend_from_slice(bytes),
                }
            }
        }
        decoder.finish()?;
        Ok(made)
    }

    fn encoded(write: impl FnOnce(&mut PlanEncoder)) -> Vec<u8> {
        let mut encoder = PlanEncoder::new();
        write(&mut encoder);
        encoder.finish();
        encoder.take_output()
    }

    // Adjacent pieces become one instruction, and the result does not depend on how the bytes arrive.
    #[test]
    fn a_plan_is_joined_and_read_from_any_cut() {
        let base: Vec<u8> = (0..=255).collect();
        let plan = encoded(|plan| {
            plan.copy(0, 10);
            plan.copy(10, 10);
            plan.edit(b"x");
            plan.copy(21, 9);
            plan.literal(b"hello ");
            plan.literal(b"world");
            plan.copy(5, 200);
            plan.edit(b"ab");
            plan.edit(b"c");
        });
        let mut new = base[..20].to_vec();
        new.push(b'x');
        new.extend(&base[21..30]);
        new.extend(b"hello world");
        new.extend(&base[5..205]);
        new.extend(b"abc");
        for cut in 1..=plan.len() {
            assert_eq!(
                decode(&base, &plan, new.len() as u64, cut).as_deref(),
                Ok(&new[..]),
                "{cut}"
            );
        }
        assert_eq!(plan.len(), 2 + 1 + 1 + 11 + 2 + 1 + 1 + 3, "{plan:?}");
    }

    // What is given behind the output is what would have been given to the encoder, whatever waits before it.
    #[test]
    fn new_bytes_may_follow_on_the_output() {
        let base: Vec<u8> = (0..=255).collect();
        for before in [&b""[..], b"new"] {
            for is_edit in [false, true] {
                let mut encoder = PlanEncoder::new();
                encoder.copy(3, 30);
                match is_edit {
                    true => encoder.edit(before),
                    false => encoder.literal(before),
                }
                encoder.literal_behind(0);
                encoder.literal_behind(8);
                let mut plan = encoder.take_output();
                plan.extend_from_slice(b"brought ");
                encoder.literal(b"behind");
                encoder.copy(9, 40);
                encoder.finish();
                plan.extend(encoder.take_output());
                let new = [&base[3..33], before, b"brought behind", &base[9..49]].concat();
                assert_eq!(decode(&base, &plan, new.len() as u64, 7), Ok(new));
            }
        }
    }

    // A thousand edits of a byte in 1 GiB fit in 5 KB; a literal costs next to nothing on top.
    #[test]
    fn a_plan_is_compact() {
        let plan = encoded(|plan| {
            let mut state = 1u64;
            let mut at = 0;
            for _ in 0..1000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let gap = 1 + (state >> 33) % (2 << 20);
                plan.copy(at, gap);
                plan.edit(b"e");
                at += gap + 1;
            }
        });
        assert!(plan.len() <= 5000, "{}", plan.len());
        let content = vec![7; 16 << 20];
        let plan = encoded(|plan| content.chunks(5000).for_each(|bytes| plan.literal(bytes)));
        assert!(plan.len() <= content.len() + 80, "{}", plan.len() - content.len());
    }

    // THREATS row 10: what lies outside the basis or the file is refused by name, before it is done.
    #[test]
    fn row_10_a_plan_stays_within_its_bounds() {
        let decode = |bytes: &[u8]| decode(&[0; 100], bytes, 50, 1);
        let seek = |length: u64, distance: i64| {
            let mut bytes = Vec::new();
            put(&mut bytes, length << 3 | COPY_FROM);
            put(&mut bytes, zigzag(distance));
            bytes
        };
        assert_eq!(decode(&seek(50, 50)).map(|made| made.len()), Ok(50));
        assert_eq!(decode(&seek(50, 51)), Err(PlanError::BeyondBasis));
        assert_eq!(decode(&seek(50, -1)), Err(PlanError::BeyondBasis));
        assert_eq!(decode(&seek(50, i64::MAX)), Err(PlanError::BeyondBasis));
        assert_eq!(decode(&seek(51, 0)), Err(PlanError::BeyondFile));
        assert_eq!(decode(&seek(0, 0)), Err(PlanError::Empty));
        assert_eq!(decode(&[1, 7]), Err(PlanError::Empty));
        assert_eq!(decode(&[50 << 1 | 1, 7]), Err(PlanError::BeyondFile));
        assert_eq!(decode(&[10 << 3 | COPY_ON as u8]), Err(PlanError::Short));
        assert_eq!(decode(&[3 << 3, 1, 2]), Err(PlanError::Short));
        assert_eq!(decode(&[0x80, 0]), Err(PlanError::Number));
        assert_eq!(decode(&[0xff; 10]), Err(PlanError::Number));
        let more = [seek(50, 0), vec![8]].concat();
        assert_eq!(decode(&more), Err(PlanError::Trailing));
    }
}
