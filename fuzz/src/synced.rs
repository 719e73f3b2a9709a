//! What must hold for any bytes at all that a synced folder keeps; see `stored.rs`.

use syncline::node::rewritten_list;
use syncline::store::rewriting;

/// A record of the index, or a key.
pub fn index(data: &[u8]) {
    for rewritten in [rewriting::index_record, rewriting::index_key] {
        if let Some(again) = rewritten(data) {
            assert_eq!(again, data);
        }
    }
}

/// A list of paths: with none, one or two numbers each, or the note of names without a place.
pub fn lists(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    let rewritten = match kind % 4 {
        0 => rewritten_list::<0>,
        1 => rewritten_list::<1>,
        2 => rewritten_list::<2>,
        _ => rewriting::collisions,
    };
    let again = rewritten(data);
    assert_eq!(rewritten(&again), again);
}
