//! Which part a folder has that two devices keep the same between them: one of the two gives the changes their
//! numbers, the other follows, for as long as they are peers.
//!
//! Never connects. Invariant: an index of a share is never taken for a base, nor the other way round; what a folder
//! holds decides, and what is noted only adds whose peer it is.

use super::introduction::is_pair_share;
use super::syncing::{FolderError, lock_of};
use crate::model::{DeviceId, Link, escape};
use crate::store::{FileError, Root, folder_link, forget_sync, is_index_of_a_share, peer_note, set_peer_note};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The part of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerPart {
    /// It has none yet.
    Undecided,
    /// It is the share: this device listens. The other one, as far as it is known.
    Listens(Option<DeviceId>),
    /// It follows the share of this device.
    Connects(DeviceId),
}

const LISTENS: &str = "listens";
const CONNECTS: &str = "connects";

/// The part that the folder at `path` has. What is left of an attempt to get one that led to nothing is removed.
///
/// # Errors
/// [`FolderError::Linked`] when it is synced with the share of a server, [`FolderError::Locked`] while another process
/// works on it; or it cannot be read.
pub fn peer_part(path: &Path) -> Result<PeerPart, FolderError> {
    let shown = escape(path.as_os_str().as_bytes());
    let unusable = |error: FileError| unusable(&shown, &error);
    let root = Root::open(path).map_err(unusable)?;
    let _lock = lock_of(&root, &shown)?;
    let note = peer_note(&root).map_err(unusable)?;
    let (part, other) = match note.as_deref().and_then(|note| note.split_once(' ')) {
        Some((part, other)) => (part, other.parse().ok()),
        None => ("", None),
    };
    if is_index_of_a_share(&root).map_err(unusable)? {
        return Ok(PeerPart::Listens(other.filter(|_| part == LISTENS)));
    }
    let link = folder_link(&root).map_err(unusable)?;
    let link = link.and_then(|text| text.parse::<Link>().ok());
    match (link, other) {
        (Some(link), _) if !is_pair_share(&link.share) => Err(FolderError::Linked {
            path: shown,
            share: format!("{}/{}", link.authority(), link.share),
        }),
        (Some(_), Some(other)) if part == CONNECTS => Ok(PeerPart::Connects(other)),
        (Some(_), _) => {
            forget_sync(&root).map_err(unusable)?;
            Ok(PeerPart::Undecided)
        }
        // It was to listen, and nobody came.
        (None, other) if part == LISTENS => Ok(PeerPart::Listens(other)),
        (None, _) => Ok(PeerPart::Undecided),
    }
}

/// Notes the part that a folder has from now on.
///
/// # Errors
/// When it cannot be written.
pub fn note_peer(path: &Path, part: PeerPart) -> Result<(), FolderError> {
    let shown = escape(path.as_os_str().as_bytes());
    let line = match part {
        PeerPart::Listens(Some(other)) => format!("{LISTENS} {other}"),
        PeerPart::Connects(other) => format!("{CONNECTS} {other}"),
        PeerPart::Undecided | PeerPart::Listens(None) => return Ok(()),
    };
    let noted = Root::open(path).and_then(|root| set_peer_note(&root, &line));
    noted.map_err(|error| unusable(&shown, &error))
}

fn unusable(shown: &str, error: &FileError) -> FolderError {
    FolderError::Unusable {
        path: shown.to_owned(),
        reason: error.reason(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::pair_share;
    use crate::store::{Index, IndexOptions, set_folder_link};

    // Protects both folders: what is there decides over what is noted, an attempt that led nowhere leaves nothing, and
    // a folder that is synced with a server is not taken.
    #[test]
    fn what_a_folder_holds_decides_its_part() {
        let (own, other) = (DeviceId([1; 32]), DeviceId([2; 32]));
        let link = format!("syncline://h:1/{}", pair_share(&own, &other));
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            (Root::open(&path).unwrap(), path)
        };
        let (_, fresh) = at("fresh");
        assert_eq!(peer_part(&fresh), Ok(PeerPart::Undecided));
        note_peer(&fresh, PeerPart::Listens(Some(other))).unwrap();
        assert_eq!(peer_part(&fresh), Ok(PeerPart::Listens(Some(other))));

        let (root, share) = at("share");
        drop(Index::open(&root, IndexOptions::default()).unwrap());
        assert_eq!(peer_part(&share), Ok(PeerPart::Listens(None)));
        note_peer(&share, PeerPart::Connects(other)).unwrap();
        assert_eq!(peer_part(&share), Ok(PeerPart::Listens(None)));

        let (root, follower) = at("follower");
        set_folder_link(&root, &link).unwrap();
        note_peer(&follower, PeerPart::Connects(other)).unwrap();
        assert_eq!(peer_part(&follower), Ok(PeerPart::Connects(other)));

        let (root, tried) = at("tried");
        set_folder_link(&root, &link).unwrap();
        drop(Index::open(&root, IndexOptions::default()).unwrap());
        assert_eq!(peer_part(&tried), Ok(PeerPart::Undecided));
        assert!(!tried.join(".syncline").exists());

        let (root, synced) = at("synced");
        set_folder_link(&root, "syncline://h:1/Share").unwrap();
        assert!(matches!(peer_part(&synced), Err(FolderError::Linked { .. })));
        assert!(synced.join(".syncline/link").exists());
    }
}
