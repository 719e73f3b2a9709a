//! Names that some file systems take for one: how to guess that two are, without asking one.
//!
//! Touches no file. Which names a file system takes for one only it can say: tables differ between kinds and
//! years. What is here serves to expect it, never to be sure of it. Invariant: equal bytes have equal keys.

/// What names have in common that differ in nothing but the case of their letters; of a path likewise. Names that
/// are no UTF-8 are themselves.
///
/// A file system that folds may tell more names apart than this, or fewer: by canonical equivalence
/// (Unicode Standard Annex 15) é has two spellings, which have two keys here.
#[must_use]
pub fn folded(name: &[u8]) -> Vec<u8> {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    match std::str::from_utf8(name) {
        // Up and down again: some small letters have one capital, such as σ and ς, or s and ſ.
        Ok(text) => text.to_uppercase().to_lowercase().into_bytes(),
        Err(_) => name.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_case_alone_have_one_key() {
        for (one, other) in [
            ("Report.TXT", "report.txt"),
            ("Docs/É", "docs/é"),
            ("ΣΑΣ", "σας"),
            (".ſyncline", ".SYNCLINE"),
            ("straße", "STRASSE"),
        ] {
            assert_eq!(folded(one.as_bytes()), folded(other.as_bytes()), "{one} {other}");
        }
        assert_ne!(folded(b"a"), folded(b"b"));
        assert_eq!(folded(b"\xffA"), b"\xffA");
    }
}
