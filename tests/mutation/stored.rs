//! Damaged forms of what lies on disks and in the files that users hand over.

use super::generate::any_text;
use super::rng::Rng;
use super::{mutate, patch_files, sample, stored};
use std::path::PathBuf;
use syncline::delta::index::build;
use syncline::delta::signature::SignatureBuilder;
use syncline::model::{ContentId, DeviceId, RelPath, conflict_path};
use syncline::node::delta_file::{Patch, Signature, diff, diff_files, sign};
use syncline::store::{ActivityLine, Change, Happened, Who, rewriting};
use syncline::wire::Writer;

/// One to three kinds of damage, one time in eight none.
fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    if rng.once_in(8) {
        return;
    }
    for _ in 0..=rng.below(3) {
        mutate(rng, bytes);
    }
}

fn sealed(content: &[u8]) -> Vec<u8> {
    [content, &crc32fast::hash(content).to_le_bytes()].concat()
}

/// The table of `docs/FORMAT.md`, "undo/NAME".
pub(super) fn undo(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut header = Writer::after(b"SYNCUNDO".to_vec());
    header.u32(1);
    header.u32(3);
    header.u64(rng.next());
    header.u64(1_000_000_000);
    header.u32(rng.pick(&[7, u32::MAX]));
    header.u32(0o644);
    header.u64(100_000);
    header.u64(rng.below(200_000));
    header.u64(rng.next());
    header.u32(rng.pick(&[0, 999_999_999]));
    header.raw(b"a/b");
    let mut record = sealed(&header.into_bytes());
    let (mut offset, count) = (0, rng.below(5));
    for _ in 0..count {
        offset += rng.below(1000);
        let length = 1 + rng.index(500);
        let bytes = if rng.once_in(3) { Vec::new() } else { rng.bytes(length) };
        let mut range = Writer::new();
        range.u64(offset);
        range.u32(length as u32);
        range.u32(u32::from(!bytes.is_empty()));
        let range = range.into_bytes();
        let sum = crc32fast::hash(&[&range[..], &bytes].concat());
        record.extend([&range[..], &sum.to_le_bytes(), &bytes].concat());
        offset += length as u64;
    }
    record.extend([0xff; 8]);
    record.extend(count.to_le_bytes());
    let mut record = sealed(&record);
    assert!(rewriting::undo_record(&record).is_some());
    damage(&mut rng, &mut record);
    stored::undo(&record);
}

/// The tables of `docs/FORMAT.md`, "journal".
pub(super) fn journal(seed: u64) {
    let mut rng = Rng::new(seed);
    let epoch = rng.below(3) as u32;
    let mut header = Writer::after(b"SYNCJRNL".to_vec());
    header.u32(1);
    header.u32(epoch);
    header.raw(&[rng.pick(&[0, 0xb0]); 16]);
    header.u64(rng.below(2));
    let mut journal = sealed(&header.into_bytes());
    let mut is_gapless = true;
    for sequence in 1..=rng.below(12) {
        let kind = rng.pick(&[1, 1, 2, 2, 2, 3]);
        let mut record = Writer::new();
        record.u16(0);
        record.u32(epoch);
        record.u64(sequence);
        record.u8(kind);
        record.u64(1 + rng.below(3));
        match kind {
            1 => journal_begin(&mut rng, &mut record),
            2 => journal_reach(&mut rng, &mut record),
            _ => {}
        }
        let mut record = record.into_bytes();
        let length = record.len() as u16 + 4;
        record[..2].copy_from_slice(&length.to_le_bytes());
        journal.extend(sealed(&record));
        let legal = rewriting::journal_record(&journal[journal.len() - usize::from(length)..]);
        assert!(legal.is_some(), "{kind}");
        if rng.once_in(10) {
            is_gapless = false;
            // A page that a power cut took.
            let end = journal.len().next_multiple_of(4096) + 4096;
            journal.resize(end, 0);
        }
    }
    if rng.once_in(3) {
        let zeros = rng.index(5000);
        journal.extend(vec![0; zeros]);
    }
    assert!(rewriting::journal(&journal).is_some() || !is_gapless);
    damage(&mut rng, &mut journal);
    stored::journal(&journal);
}

fn journal_begin(rng: &mut Rng, record: &mut Writer) {
    record.varint(1_795_224_710);
    let unproven = rng.pick(&[0, 128]);
    if rng.once_in(3) {
        record.u8(1 | unproven);
        return record.raw(&rng.bytes(48));
    }
    let flags = rng.pick(&[0, 2, 4, 6, 12, 14]);
    record.u8(flags | unproven);
    record.varint(1 << rng.below(40));
    record.u64(rng.next());
    record.u32(rng.below(1_000_000_000) as u32);
    if flags & 2 != 0 {
        record.raw(&[3; 32]);
    }
    if flags & 4 != 0 {
        record.varint(70_000);
        record.raw(&[0xcc; 32]);
        record.raw(&rng.bytes(48));
    }
    record.raw(rng.pick(&[&b"a/b"[..], b"some/file \xff", b"x"]));
}

fn journal_reach(rng: &mut Rng, record: &mut Writer) {
    record.varint(rng.below(1 << 40));
    record.u8(rng.pick(&[0, 128]));
    let bits = rng.below(20);
    let leaves = rng.below(1 << bits);
    record.varint(leaves);
    (0..leaves.count_ones()).for_each(|_| record.raw(&[9; 32]));
    let runs = rng.below(4);
    record.varint(runs);
    for _ in 0..runs {
        record.varint(rng.below(200));
        record.varint(1 + rng.below(200));
    }
}

/// The table of `docs/FORMAT.md`, "shadows/"; what binds sums to their places is put right by the body.
pub(super) fn shadows(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut segment = b"SYNCSHD1".to_vec();
    segment.extend(rng.bytes(16));
    for _ in 0..rng.below(5) {
        let length = rng.index(300);
        segment.extend(b"SHAD");
        segment.extend((length as u32).to_le_bytes());
        segment.extend(rng.bytes(4 + length + 40));
    }
    damage(&mut rng, &mut segment);
    stored::shadows(&segment);
}

/// The files of a state directory, and lines of an activity log.
pub(super) fn state(seed: u64) {
    let mut rng = Rng::new(seed);
    let (id, name) = ("02".repeat(32), rng.pick(&["laptop", "\u{e9}\\n", ""]));
    let right = rng.pick(&["", "\"read\"", "\"write\",\"read\""]);
    let seen = rng.pick(&["null", "1500", "18446744073709551615"]);
    let trust = format!(
        r#"{{"version":1,"invites":[{{"secret_sha256":"{id}","share":"My Share","rights":[{right}],"created":1000,"expires":1600}}],"devices":[{{"id":"{id}","name":"{name}","paired_at":1100,"last_seen":{seen},"shares":[{{"name":"A","rights":[{right}]}}]}}],"servers":[{{"authority":"nas:7171","id":"{id}","name":"{name}"}}]}}"#
    );
    let path = rng.pick(&["\"/srv\"", "[47,255]"]);
    let devices = ["null".to_owned(), format!("{id:?}")];
    let device = &devices[rng.index(2)];
    let run = format!(
        r#"{{"version":1,"pid":7,"listen":["127.0.0.1:7171","[::1]:7171"],"plain":true,"device":{device},"shares":[{{"name":"S","path":{path}}}],"control":"{}"}}"#,
        "ab".repeat(16)
    );
    assert!(rewriting::trust(trust.as_bytes()).is_ok() && rewriting::run_file(run.as_bytes()).is_some());
    let mut content = rng.pick(&[&trust, &run]).clone().into_bytes();
    damage(&mut rng, &mut content);
    stored::state(&content);
    let mut log = activity(&mut rng);
    damage(&mut rng, &mut log);
    stored::activity(&log);
}

fn activity(rng: &mut Rng) -> Vec<u8> {
    let (path, from) = (RelPath::parse(b"docs/b\n\xff").unwrap(), RelPath::parse(b"a").unwrap());
    let who = Who {
        name: rng.pick(&["laptop", "here", "a\"b"]).to_owned(),
        device: rng.once_in(2).then_some(DeviceId([0xa7; 32])),
    };
    let mut log = Vec::new();
    for _ in 0..rng.below(4) {
        let happened = match rng.below(3) {
            0 => Happened::Item {
                change: Change::Moved { from: Some(&from) },
                path: &path,
                size: Some(rng.next()),
                side: None,
            },
            1 => Happened::Conflict {
                path: &path,
                copy: Some(&from),
            },
            _ => Happened::Refused {
                reason: "no",
                unlisted: rng.below(2),
            },
        };
        ActivityLine {
            at_ms: rng.next(),
            who: &who,
            happened,
        }
        .encode(&mut log);
    }
    log.extend(rng.pick(&[&b"docs"[..], b"*.[a-c]", b"d?cs/**", b"", b"a7a7", b"here"]));
    log
}

/// Rules of a `.synclineignore`, and names that mean something.
pub(super) fn names(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut rules = vec![rng.next() as u8];
    for _ in 0..rng.below(3) {
        let line_end = rng.pick(&["\n", "\r\n", "  \n", "\\ \n", "\n\n# x\n", "\n\u{feff}!"]);
        rules.extend(sample(&any_text(), rng.next()).into_bytes());
        rules.extend(line_end.as_bytes());
    }
    rules.extend(b"\na/b");
    damage(&mut rng, &mut rules);
    stored::ignore(&rules);
    let copy = |author: &str, number| {
        let path = RelPath::parse(b"d/report.docx").unwrap();
        let copy = conflict_path(&path, "20261120-214731", author, number).unwrap();
        String::from_utf8(copy.as_bytes().to_vec()).unwrap()
    };
    let name = match rng.below(8) {
        0 => "20261120-214731-000000007-r-AAAAAAAA-abc-1000-ffffffffffffffff-3b9ac9ff".to_owned(),
        1 => "99991231-235959-999999999-u-anyone-0-ffffffffffffffff-0-0".to_owned(),
        2 => "19700101-000000-000000000-d-local".to_owned(),
        3 => format!("{:016x}", rng.next()),
        4 => "a7".repeat(32),
        5 => copy(rng.pick(&["local", "a.b", "\u{e9}"]), rng.below(3) as u32),
        6 => "2026-11-20 21:47:31".to_owned(),
        _ => "My Share".to_owned(),
    };
    let mut name = name.into_bytes();
    damage(&mut rng, &mut name);
    stored::names(&name);
}

/// Patches and signatures as the commands make them.
pub(super) fn delta_files(seed: u64) {
    let mut rng = Rng::new(seed);
    let place = tempfile::tempdir().unwrap();
    let written = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = place.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let basis = patch_files::basis();
    let mut new = basis.clone();
    for _ in 0..rng.below(4) {
        mutate(&mut rng, &mut new);
    }
    let (old, new) = (written("old", &basis), written("new", &new));
    let (mut patch, mut signature) = (vec![rng.next() as u8], vec![rng.next() as u8 & 0xfe]);
    if rng.once_in(2) {
        diff_files(&old, &new, &mut patch).unwrap();
    } else {
        let mut signed = Vec::new();
        sign(&old, &mut signed).unwrap();
        diff(Signature::read(&mut &signed[..]).unwrap(), &new, &mut patch).unwrap();
    }
    let made = Patch::open(&old, &mut &patch[1..]).and_then(|patch| patch.apply(&mut std::io::sink()));
    made.unwrap();
    // Mostly under the form that it has.
    if rng.once_in(2) {
        patch[0] = patch[9];
    }
    sign(&old, &mut signature).unwrap();
    if rng.once_in(2) {
        signature = index_signature(&mut rng, &basis);
    }
    assert!(Signature::read(&mut &signature[1..]).is_ok());
    damage(&mut rng, &mut patch);
    damage(&mut rng, &mut signature);
    patch_files::patch(&patch);
    patch_files::signature_file(&signature);
}

/// What is made of files of more than 16 MiB, of a small one.
fn index_signature(rng: &mut Rng, basis: &[u8]) -> Vec<u8> {
    let ContentId { length, root } = syncline::delta::content_id(basis);
    let mut head = b"SYNCSIG\x01\x01\0\0\0".to_vec();
    head.extend(length.to_le_bytes());
    head.extend(root);
    head.extend([0; 8]);
    [&[1][..], &sealed(&head), &build(basis, rng.next())].concat()
}

/// What any of these makes of bytes that nobody wrote.
pub(super) fn noise(seed: u64) {
    let mut rng = Rng::new(seed);
    let bits = rng.below(10);
    let length = rng.index(1 << bits);
    let bytes = rng.bytes(length);
    stored::undo(&bytes);
    stored::journal(&bytes);
    stored::shadows(&bytes);
    stored::state(&bytes);
    stored::activity(&bytes);
    stored::ignore(&bytes);
    stored::names(&bytes);
    patch_files::patch(&bytes);
    let mut signature = SignatureBuilder::new(seed);
    signature.push(&bytes);
    let signature = [&bytes[..bytes.len().min(65)], &signature.finish()].concat();
    patch_files::signature_file(&signature);
}
