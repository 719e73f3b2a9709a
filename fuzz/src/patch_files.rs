//! What must hold for any bytes at all in a patch file or a signature file; see `bodies.rs`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use syncline::delta::content_id;
use syncline::model::ContentId;
use syncline::node::delta_file::{DeltaFileError, Patch, Patched, Signature, diff, diff_files};

/// Bytes that a patch may make here; a legal one may say that it makes many more.
const RESULT_BYTES_MAX: u64 = 4 << 20;

/// The file that patches apply to.
pub fn basis() -> Vec<u8> {
    (0..20_000u32).map(|at| ((at * at) >> 7) as u8).collect()
}

/// A patch, as it stands and with a head and a sum that fit: what it makes is what it announces and can be made
/// by a patch of our own; nothing beyond it is written. The first byte is its form.
pub fn patch(data: &[u8]) {
    let Some((&form, patch)) = data.split_first() else {
        return;
    };
    let basis = basis();
    let old = Scratch::new(&basis);
    follow(&old, patch);
    let mut patch = patch.to_vec();
    if patch.len() < 68 {
        return;
    }
    let id = content_id(&basis);
    patch[..8].copy_from_slice(b"SYNCPAT\x01");
    patch[8..12].copy_from_slice(&[form % 4, 0, 0, 0]);
    patch[12..20].copy_from_slice(&id.length.to_le_bytes());
    patch[20..52].copy_from_slice(&id.root);
    seal(&mut patch, 60);
    let end = patch.len() - 4;
    seal(&mut patch, end);
    follow(&old, &patch);
}

fn follow(old: &Scratch, patch: &[u8]) {
    let announced = patch.get(52..).and_then(|rest| rest.first_chunk());
    let announced = announced.map_or(0, |length| u64::from_le_bytes(*length));
    let (result, made) = apply(old, patch, announced.min(RESULT_BYTES_MAX));
    let Some(patched) = named(result) else {
        return;
    };
    assert_eq!((patched.bytes, patched.result), (patch.len() as u64, content_id(&made)));
    assert_eq!(patched.result.length, announced);
    let (new, mut again) = (Scratch::new(&made), Vec::new());
    diff_files(&old.0, &new.0, &mut again).expect("both are there");
    let (result, made_again) = apply(old, &again, announced);
    assert_eq!(result.map(|patched| patched.result).ok(), Some(patched.result));
    assert_eq!(made_again, made);
}

fn apply(old: &Scratch, mut patch: &[u8], bytes_max: u64) -> (Result<Patched, DeltaFileError>, Vec<u8>) {
    let mut out = Bounded {
        bytes: Vec::new(),
        bytes_max,
    };
    let result = Patch::open(&old.0, &mut patch).and_then(|patch| patch.apply(&mut out));
    (result, out.bytes)
}

/// A signature, as it stands and with a head and a sum that fit: a patch is made against it, or it is refused. The
/// first byte is its form.
pub fn signature_file(data: &[u8]) {
    let Some((&form, signature)) = data.split_first() else {
        return;
    };
    let new = Scratch::new(&basis()[..10_000]);
    against(signature, &new);
    let mut signature = signature.to_vec();
    if signature.len() < 68 {
        return;
    }
    signature[..8].copy_from_slice(b"SYNCSIG\x01");
    signature[8..12].copy_from_slice(&[form % 2, 0, 0, 0]);
    signature[52..60].fill(0);
    seal(&mut signature, 60);
    let end = signature.len() - 4;
    if form % 2 == 0 {
        seal(&mut signature, end);
    }
    against(&signature, &new);
}

fn against(mut signature: &[u8], new: &Scratch) {
    let id = signature
        .get(12..20)
        .zip(signature.get(20..52))
        .map(|(length, root)| ContentId {
            length: u64::from_le_bytes(length.try_into().expect("eight bytes")),
            root: root.try_into().expect("32 bytes"),
        });
    let Some(read) = named(Signature::read(&mut signature)) else {
        return;
    };
    assert!(signature.is_empty());
    let mut out = Vec::new();
    let made = diff(read, &new.0, &mut out).expect("the new file is there");
    assert_eq!((Some(made.basis), made.bytes), (id, out.len() as u64));
    assert_eq!(made.result, content_id(&basis()[..10_000]));
}

fn named<T>(result: Result<T, DeltaFileError>) -> Option<T> {
    result.inspect_err(|error| assert!(!error.to_string().is_empty())).ok()
}

/// The sum of all before `place`, put there.
fn seal(bytes: &mut [u8], place: usize) {
    let sum = crc32fast::hash(&bytes[..place]);
    bytes[place..place + 4].copy_from_slice(&sum.to_le_bytes());
}

/// A file for as long as it is needed.
struct Scratch(PathBuf);

impl Scratch {
    fn new(bytes: &[u8]) -> Scratch {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("syncline-fuzz-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).expect("the directory for temporary files takes it");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Bounded {
    bytes: Vec<u8>,
    bytes_max: u64,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + bytes.len()) as u64 > RESULT_BYTES_MAX {
            return Err(io::Error::other("more than is wanted"));
        }
        assert!((self.bytes.len() + bytes.len()) as u64 <= self.bytes_max);
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
