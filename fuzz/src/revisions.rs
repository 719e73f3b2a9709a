//! What must hold for any bytes that claim to be a page of changes.

use super::{named, path};
use syncline::model::limits::BATCH_ENTRIES_MAX;
use syncline::wire::{Change, ChangesHead, ChangesReader, ChangesWriter, FRAME_HEADER_BYTES, WireError};

/// A page of changes: legal paths, and revisions that grow up to that of the page.
pub fn changes(payload: &[u8]) {
    let Ok((head, list)) = read_changes(payload).map_err(named) else {
        return;
    };
    assert!(list.len() <= BATCH_ENTRIES_MAX.min(payload.len()));
    assert!(list.is_sorted_by_key(|change| change.revision));
    assert!(list.iter().all(|change| change.revision <= head.known.revision));
    let mut writer = ChangesWriter::default();
    list.iter()
        .for_each(|change| writer.push(&change.path, change.revision, change.state.as_ref()));
    let mut frame = Vec::new();
    writer.finish(&head, &mut frame);
    assert_eq!(read_changes(&frame[FRAME_HEADER_BYTES..]), Ok((head, list)));
}

fn read_changes(payload: &[u8]) -> Result<(ChangesHead, Vec<Change>), WireError> {
    let mut reader = ChangesReader::new(payload)?;
    let mut list = Vec::new();
    while let Some(change) = reader.next_change()? {
        path(change.path.as_bytes());
        list.push(change);
    }
    Ok((reader.head(), list))
}
