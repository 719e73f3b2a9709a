//! The zstd contexts, and nothing else: bytes in, bytes out, bounded windows.
//!
//! Never frames a stream and never decides what is worth compressing. Invariant: no decoder takes more
//! memory than the window that it was made for. `codec_absent.rs` has the same surface without zstd.

use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, DParameter, InBuffer, OutBuffer};

/// Compresses blocks that share one history.
pub(super) struct Packer(CCtx<'static>);

impl Packer {
    /// `window_log`: log2 of the bytes that are looked back upon. `None` without zstd or memory.
    pub(super) fn new(window_log: u32, level: i32) -> Option<Packer> {
        let mut context = CCtx::try_create()?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::WindowLog(window_log),
            CParameter::ContentSizeFlag(false),
        ] {
            context.set_parameter(parameter).ok()?;
        }
        Some(Packer(context))
    }

    /// Appends `block` to `out` so that a decoder can restore all of it from what it has got by then;
    /// `None` when zstd fails: then this is of no more use.
    pub(super) fn pack(&mut self, block: &[u8], out: &mut Vec<u8>) -> Option<()> {
        drive(&mut self.0, block, ZSTD_EndDirective::ZSTD_e_flush, out)
    }
}

/// Appends all that the directive asks for.
fn drive(context: &mut CCtx<'_>, bytes: &[u8], directive: ZSTD_EndDirective, out: &mut Vec<u8>) -> Option<()> {
    let mut input = InBuffer::around(bytes);
    loop {
        out.reserve(OUT_STEP_BYTES.min(bytes.len() + 512));
        let start = out.len();
        let mut output = OutBuffer::around_pos(out, start);
        let left = context.compress_stream2(&mut output, &mut input, directive).ok()?;
        let all_read = input.pos() == bytes.len();
        if all_read && (left == 0 || directive == ZSTD_EndDirective::ZSTD_e_continue) {
            return Some(());
        }
    }
}

const OUT_STEP_BYTES: usize = 132 * 1024;

type Context<'a> = CCtx<'a>;

self_cell::self_cell!(
    /// A context and the bytes that it refers to.
    struct Prefixed {
        owner: Vec<u8>,
        #[covariant]
        dependent: Context,
    }
);

/// Compresses one content as what follows on a basis.
pub(super) struct PrefixPacker(Prefixed);

impl PrefixPacker {
    /// Content of `length` bytes to follow on `basis`; `None` without zstd or memory.
    pub(super) fn new(basis: Vec<u8>, length: u64, window_log: u32, level: i32) -> Option<PrefixPacker> {
        let made = Prefixed::try_new(basis, |basis| {
            let mut context = CCtx::try_create().ok_or(())?;
            for parameter in [
                CParameter::CompressionLevel(level),
                CParameter::WindowLog(window_log),
                CParameter::EnableLongDistanceMatching(true),
                CParameter::ContentSizeFlag(false),
            ] {
                context.set_parameter(parameter).map_err(|_| ())?;
            }
            context.set_pledged_src_size(Some(length)).map_err(|_| ())?;
            context.ref_prefix(basis).map_err(|_| ())?;
            Ok::<_, ()>(context)
        });
        made.ok().map(PrefixPacker)
    }

    /// Takes more of the content; what is ready is appended to `out`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
        self.0
            .with_dependent_mut(|_, context| drive(context, bytes, ZSTD_EndDirective::ZSTD_e_continue, out))
    }

    /// The rest.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) -> Option<()> {
        self.0
            .with_dependent_mut(|_, context| drive(context, &[], ZSTD_EndDirective::ZSTD_e_end, out))
    }
}

/// Restores what a packer made.
pub(super) struct Unpacker(DCtx<'static>);

/// What one call of [`Unpacker::unpack`] did.
pub(super) struct Unpacked {
    /// Bytes that were written.
    pub(super) written: usize,
    /// Whether the frame is over.
    pub(super) ended: bool,
}

impl Unpacker {
    /// Takes streams with windows of up to `1 << window_log` bytes; `None` without zstd or memory.
    pub(super) fn new(window_log: u32) -> Option<Unpacker> {
        let mut context = DCtx::try_create()?;
        context.set_parameter(DParameter::WindowLogMax(window_log)).ok()?;
        Some(Unpacker(context))
    }

    /// Reads from `input` and writes into `out` until one of them is used up or the frame is over;
    /// `None` when this is no frame, or one with a larger window.
    pub(super) fn unpack(&mut self, input: &mut &[u8], out: &mut [u8]) -> Option<Unpacked> {
        let mut source = InBuffer::around(input);
        let mut target = OutBuffer::around(out);
        let mut stuck_at = None;
        let ended = loop {
            let left = self.0.decompress_stream(&mut target, &mut source).ok()?;
            let at = (source.pos(), target.pos());
            let all_read = source.pos() == input.len() && target.pos() < target.capacity();
            if left == 0 || all_read || target.pos() == target.capacity() || stuck_at == Some(at) {
                break left == 0;
            }
            stuck_at = Some(at);
        };
        let (read, written) = (source.pos(), target.pos());
        *input = &input[read..];
        Some(Unpacked { written, ended })
    }

    /// Bytes that the context takes now.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        self.0.sizeof()
    }
}
