//! In place of `codec.rs` without the feature `zstd`: nothing can be made, so nothing is compressed.
//!
//! Invariant: no value of these types exists.

/// See `codec.rs`.
pub(super) enum Packer {}

impl Packer {
    pub(super) fn new(_window_log: u32, _level: i32) -> Option<Packer> {
        None
    }

    pub(super) fn pack(&mut self, _block: &[u8], _out: &mut Vec<u8>) -> Option<()> {
        match *self {}
    }
}

/// See `codec.rs`.
pub(super) enum PrefixPacker {}

impl PrefixPacker {
    pub(super) fn new(_basis: Vec<u8>, _length: u64, _window_log: u32, _level: i32) -> Option<PrefixPacker> {
        None
    }

    pub(super) fn push(&mut self, _bytes: &[u8], _out: &mut Vec<u8>) -> Option<()> {
        match *self {}
    }

    pub(super) fn finish(self, _out: &mut Vec<u8>) -> Option<()> {
        match self {}
    }
}

/// See `codec.rs`.
pub(super) enum Unpacker {}

/// See `codec.rs`.
pub(super) struct Unpacked {
    pub(super) written: usize,
    pub(super) ended: bool,
}

impl Unpacker {
    pub(super) fn new(_window_log: u32) -> Option<Unpacker> {
        None
    }

    pub(super) fn unpack(&mut self, _input: &mut &[u8], _out: &mut [u8]) -> Option<Unpacked> {
        match *self {}
    }
}
