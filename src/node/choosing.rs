//! How a changed file is sent: whole, or as a patch, and of what.
//!
//! 1. Against the contents of its basis, when those were sent from here before.
//! 2. Against the index of its basis, when that is kept here.
//! 3. Else the receiver is asked: for a signature of a smaller basis, or in the steps of a cold compare,
//!    at whose end the index of the basis is kept here.
//! 4. Whole, when all of that leads nowhere.
//!
//! Never sends anything. Invariant: what leads nowhere for a basis is not tried again for it.

use super::changing::Changing;
use super::comparing::{Comparing, Step};
use super::deltas::Deltas;
use crate::delta::Comparison;
use crate::delta::signature::Signature;
use crate::model::ContentId;
use crate::model::limits::MEDIUM_BYTES_MAX;
use crate::store::SourceFile;
use crate::wire::{Topic, features};

/// What to do with a file.
pub(super) enum Choice {
    Whole(SourceFile),
    Patch(Box<Changing>),
    /// Ask; with the answer, or what comes of it, the choice is made again.
    Ask(Told, Topic, Vec<u8>),
    /// Choose again: there is more to compare.
    Later(Told),
}

/// What is known of a basis so far.
pub(super) enum Told {
    /// The answer that is a signature, as far as it came.
    Signature(Vec<u8>),
    Compare(Box<Comparing>),
}

/// Bytes of a comparison, as a rule.
const COMPARE_BYTES: usize = 64 * 1024;
/// A file of up to this length is matched against a signature: it is mapped as a whole.
const SIGNED_BYTES_MAX: u64 = 4 * MEDIUM_BYTES_MAX;

impl Told {
    /// Bytes of memory that it takes, about.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Told::Signature(bytes) => bytes.capacity(),
            Told::Compare(_) => COMPARE_BYTES,
        }
    }

    /// The next bytes; the machine has checked how many may come.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        match self {
            Told::Signature(signature) => signature.extend_from_slice(bytes),
            Told::Compare(comparing) => comparing.push(bytes),
        }
    }

    /// Whether it is about this basis, as far as that is known.
    pub(super) fn is_about(&self, basis: &ContentId) -> bool {
        match self {
            Told::Signature(_) => true,
            Told::Compare(comparing) => comparing.is_about(basis),
        }
    }
}

/// Chooses for `file`, which is to replace `basis` at the receiver.
pub(super) fn choose(
    file: SourceFile,
    basis: &ContentId,
    told: Option<Told>,
    common: u64,
    checksum: bool,
    deltas: &Deltas,
) -> Choice {
    let squeezes = common & features::ZSTD != 0;
    let squeeze = |changing: Changing| match squeezes {
        true => Choice::Patch(Box::new(changing.squeezed())),
        false => Choice::Patch(Box::new(changing)),
    };
    let comparison = match checksum {
        true => Comparison::Checksum,
        false => Comparison::Fast,
    };
    let is_medium = file.size() <= MEDIUM_BYTES_MAX && basis.length <= MEDIUM_BYTES_MAX;
    let mut file = file;
    let step = match told {
        Some(Told::Signature(bytes)) => {
            return match Signature::parse(&bytes) {
                // It may have grown since the question.
                Ok(signature) if file.size() <= SIGNED_BYTES_MAX => {
                    squeeze(Changing::against_signature(file, signature, deltas))
                }
                _ => Choice::Whole(file),
            };
        }
        Some(Told::Compare(comparing)) => comparing.step(deltas),
        None => {
            if is_medium
                && squeezes
                && let Some(contents) = deltas.shadow(basis)
            {
                match Changing::against_contents(file, contents, deltas) {
                    Ok(changing) => return Choice::Patch(Box::new(changing)),
                    Err(back) => file = *back,
                }
            }
            if basis.length <= MEDIUM_BYTES_MAX {
                return ask_for_signature(file);
            }
            match deltas.open_full(basis) {
                Some(sidecar) => return squeeze(Changing::against_index(file, sidecar, comparison, deltas)),
                None if file.size() <= MEDIUM_BYTES_MAX => Step::Useless(file),
                None => Comparing::begin(file, basis, deltas),
            }
        }
    };
    match step {
        Step::More(comparing) => Choice::Later(Told::Compare(Box::new(comparing))),
        Step::Ask(comparing, topic, body) => Choice::Ask(Told::Compare(Box::new(comparing)), topic, body),
        Step::Useless(file) => Choice::Whole(file),
        Step::Found(file) => match deltas.open_full(basis) {
            Some(sidecar) => squeeze(Changing::against_index(file, sidecar, comparison, deltas)),
            None => Choice::Whole(file),
        },
    }
}

fn ask_for_signature(file: SourceFile) -> Choice {
    let mut seed = [0; 8];
    if file.size() > SIGNED_BYTES_MAX || getrandom::fill(&mut seed).is_err() {
        return Choice::Whole(file);
    }
    Choice::Ask(Told::Signature(Vec::new()), Topic::Signature, seed.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::content_id;
    use crate::delta::signature::SignatureBuilder;
    use crate::model::RelPath;
    use crate::store::Root;

    /// A file that grows while the signature of its basis is on its way is not mapped as a whole.
    #[test]
    fn a_file_that_grew_since_the_question_goes_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let deltas = Deltas::nowhere(&root);
        let path = RelPath::parse(b"f").unwrap();
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        let content = [7; 40_000];
        let basis = content_id(&content);
        let chosen = |told| {
            let file = root.open_file(&path).unwrap();
            choose(file, &basis, told, features::ALL, false, &deltas)
        };
        for (length, is_patch) in [(SIGNED_BYTES_MAX, true), (SIGNED_BYTES_MAX + 1, false)] {
            file.set_len(20_000).unwrap();
            let Choice::Ask(mut told, Topic::Signature, seed) = chosen(None) else {
                panic!("it is asked about");
            };
            let mut builder = SignatureBuilder::new(u64::from_le_bytes(seed.try_into().unwrap()));
            builder.push(&content);
            told.push(&builder.finish());
            file.set_len(length).unwrap();
            match chosen(Some(told)) {
                Choice::Patch(_) => assert!(is_patch, "{length} bytes"),
                Choice::Whole(_) => assert!(!is_patch, "{length} bytes"),
                _ => panic!("nothing more is asked"),
            }
        }
    }
}
