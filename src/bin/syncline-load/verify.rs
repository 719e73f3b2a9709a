//! Owns the comparison of a share's folder with what the seed says, after a run. It never writes.
//!
//! Invariant: only files whose last push ended well must be there; of those whose push failed either version
//! will do, but no mixture of both.

use crate::complaint::Complaint;
use crate::content::{Content, Part, Pool};
use crate::fleet::Fleet;
use crate::pushing::file_path;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use syncline::model::limits::LEAF_BYTES;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Files that are what they should be.
    pub(crate) same: u64,
    /// Files that are not, or are not there.
    pub(crate) different: u64,
    /// The first few of those.
    pub(crate) examples: Vec<String>,
}

/// Names of different files that are kept.
const EXAMPLES_MAX: usize = 5;

/// Compares all files that were pushed.
///
/// # Errors
/// When there is no such folder.
pub(crate) fn verify(share: &Path, fleet: &Fleet) -> Result<Checked, Complaint> {
    if !share.is_dir() {
        let what = format!("{} is not a folder", share.display());
        return Err(Complaint::error(
            what,
            "give --verify the folder that the server serves as the share",
        ));
    }
    let mut checked = Checked::default();
    for (number, actor) in fleet.actors.iter().enumerate() {
        if !actor.is_known {
            continue;
        }
        for (file, content) in actor.contents.iter().enumerate() {
            let path = file_path(number as u32, file as u32);
            let on_disk = share.join(std::ffi::OsStr::from_bytes(path.as_bytes()));
            let earlier = content.unedited(&fleet.pool);
            // A push that was under way when the run ended may have got through or not.
            let may_be_earlier = actor.is_uncertain || actor.current.is_some();
            let same = is(&on_disk, content, &fleet.pool) || may_be_earlier && is(&on_disk, &earlier, &fleet.pool);
            checked.same += u64::from(same);
            checked.different += u64::from(!same);
            if !same && checked.examples.len() < EXAMPLES_MAX {
                checked.examples.push(path.to_string());
            }
        }
    }
    Ok(checked)
}

/// Whether a file is there and has this content.
fn is(path: &Path, content: &Content, pool: &Pool) -> bool {
    let Ok(mut file) = File::open(path) else {
        return false;
    };
    let mut found = vec![0; LEAF_BYTES];
    let mut offset = 0;
    while offset < content.size() {
        let part = content.part(pool, offset, LEAF_BYTES as u64);
        let expected = match &part {
            Part::Pool(range) => pool.slice(range.clone()),
            Part::Own(own) => own,
        };
        let found = &mut found[..expected.len()];
        if file.read_exact(found).is_err() || found != expected {
            return false;
        }
        offset += expected.len() as u64;
    }
    file.read(&mut found).is_ok_and(|more| more == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protects the verdict: one changed, missing or added byte is seen.
    #[test]
    fn a_byte_makes_the_difference() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let pool = Pool::new(1);
        let content = Content::new(&pool, 0, 0, 40_000, 10);
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < content.size() {
            match content.part(&pool, bytes.len() as u64, u64::MAX) {
                Part::Pool(range) => bytes.extend_from_slice(pool.slice(range)),
                Part::Own(own) => bytes.extend_from_slice(&own),
            }
        }
        assert!(!is(&path, &content, &pool), "it is not there");
        let check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            is(&path, &content, &pool)
        };
        assert!(check(&bytes));
        assert!(!check(&bytes[1..]));
        assert!(!check(&bytes[..39_999]));
        assert!(!check(&[&bytes[..], &[0]].concat()));
        bytes[39_999] ^= 1;
        assert!(!check(&bytes));
    }
}
