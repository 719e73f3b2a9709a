//! A temporary directory that goes away with its value, also when a command fails.
//! Never follows a link when it removes, and never removes anything that it did not make.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// A directory of our own, readable by nobody else.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// Makes a directory in `parent` whose name begins with `prefix`.
    pub(crate) fn create(parent: &Path, prefix: &str) -> io::Result<Scratch> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let path = parent.join(format!("{prefix}{:016x}", u64::from_le_bytes(random)));
        // Fails when the name is taken, so nobody can have prepared it.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Scratch(path))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about a failure here but to leave the directory behind.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_away_with_everything_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(parent.path(), "x-").unwrap();
        let path = scratch.path().to_owned();
        fs::create_dir(path.join("sub")).unwrap();
        fs::write(path.join("sub/file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
        assert!(parent.path().exists());
    }
}
