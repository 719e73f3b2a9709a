//! Damaged forms of what a synced folder keeps.

use super::rng::Rng;
use super::{mutate, synced};
use syncline::model::{Kind, Meta, RelPath, Revision, State, Timestamp};
use syncline::store::rewriting;
use syncline::wire::{ChangesHead, ChangesWriter, Known};

/// The frozen records of `src/store/index/record_tests.rs`.
const RECORDS: [&str; 4] = [
    "013dac0201ffc99a3ba40180ee89ab0d15cd5b07c096b102\
     bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\
     aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa80860487ad4b82ee89ab0d05000000",
    "011bac0201ffc99a3ba40180ee89ab0d15cd5b07042e2e2f61\
     aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa80860487ad4b82ee89ab0d05000000\
     802080ee89ab0d15cd5b07",
    "0105ac0201ffc99a3ba40180ee89ab0d15cd5b07c096b102\
     bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
    "0100000000000000",
];

/// Records and keys of an index, lists of paths, notes.
pub(super) fn folder(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut record = match rng.below(6) {
        0 => b"some\0where\0deep".to_vec(),
        _ => from_hex(rng.pick(&RECORDS)),
    };
    let kind = rng.below(4);
    let mut list = match kind {
        3 => b"here\0d/\xffb\n\0d/B\0there\0a\0\0".to_vec(),
        numbers => pages(&mut rng, numbers as usize),
    };
    assert!(
        [rewriting::index_record, rewriting::index_key]
            .iter()
            .any(|read| read(&record).is_some())
    );
    for _ in 0..rng.below(4) {
        mutate(&mut rng, &mut record);
        mutate(&mut rng, &mut list);
    }
    synced::index(&record);
    synced::lists(&[&[kind as u8][..], &list].concat());
    synced::lists(&[&[rng.next() as u8][..], &record].concat());
}

fn pages(rng: &mut Rng, numbers: usize) -> Vec<u8> {
    let head = ChangesHead {
        known: Known {
            revision: Revision(u64::MAX),
            ..Known::default()
        },
        more: false,
        anew: false,
        folds: false,
    };
    let mut out = Vec::new();
    for page in 0..rng.below(4) {
        let mut writer = ChangesWriter::default();
        let count = rng.below(6);
        for number in 0..count {
            let path = RelPath::parse(format!("a{page}/{number}").as_bytes()).unwrap();
            let state = (!rng.once_in(4)).then(|| state(rng));
            writer.push(&path, Revision(2 * number + 2 + rng.below(2)), state.as_ref());
        }
        writer.finish(&head, &mut out);
        out.extend(rng.bytes(8 * numbers * count as usize));
    }
    out
}

fn state(rng: &mut Rng) -> State {
    let kind = match rng.below(3) {
        0 => Kind::Directory,
        1 => Kind::File { size: rng.next() >> 1 },
        _ => Kind::Symlink {
            target: b"x/y"[..].into(),
        },
    };
    let is_file = matches!(kind, Kind::File { .. });
    State {
        kind,
        meta: Meta {
            mode: 0o640,
            mtime: Timestamp { seconds: 5, nanos: 6 },
        },
        root: (is_file && rng.once_in(2)).then_some([9; 32]),
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}
