//! How fast a journal is opened with many unfinished transfers, and how fast it takes a record.
//!
//! Never flushes: the journal does not. Times per open, and per record of a transfer half way through 2 GiB.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;
use syncline::model::{DeviceId, RelPath, Timestamp};
use syncline::store::{Incoming, Journal, Reached, Root, Subject, TransferId};

/// 1 GiB, but for one leaf: the most roots that so much can have.
const LEAVES: u64 = (1 << 16) - 1;

fn subject(number: usize) -> Subject {
    let name = format!("a folder/and another one/a file of usual length {number}.tar");
    Subject::Incoming(Incoming {
        path: RelPath::parse(name.as_bytes()).expect("a plain path"),
        peer: Some(DeviceId([number as u8; 32])),
        size: 2 << 30,
        mtime: Timestamp { seconds: 1, nanos: 2 },
        basis: None,
    })
}

fn reached(leaves: u64) -> Reached {
    Reached {
        offset: leaves * 16_384,
        frontier: vec![[7; 32]; leaves.count_ones() as usize],
        changed: Vec::new(),
    }
}

fn open(directory: &Path) -> Journal {
    let root = Root::open(directory).expect("it was just made");
    Journal::open(&root).expect("nobody else has it")
}

fn filled(directory: &Path, count: usize) -> Vec<TransferId> {
    let mut journal = open(directory);
    let position = reached(LEAVES);
    let enter = |number| {
        let id = journal.begin(&subject(number)).expect("below the bounds");
        journal.reach(id, &position);
        id
    };
    (0..count).map(enter).collect()
}

fn opening(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal");
    group.sample_size(20);
    for count in [1_000, 16_000] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        filled(directory.path(), count);
        let length = std::fs::metadata(directory.path().join(".syncline/journal")).map_or(0, |found| found.len());
        println!("{count} transfers: {length} bytes");
        let id = BenchmarkId::new("open", format!("{count} transfers"));
        group.bench_function(id, |b| {
            b.iter_batched(|| (), |()| black_box(open(directory.path())), BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn appending(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ids = filled(directory.path(), 1_000);
    let mut journal = open(directory.path());
    let positions = [reached(LEAVES), reached(LEAVES / 2)];
    let mut group = criterion.benchmark_group("journal");
    group.throughput(Throughput::Elements(1));
    let mut turn = 0;
    group.bench_function("reach, among 1,000 transfers", |b| {
        b.iter(|| {
            turn += 1;
            journal.reach(ids[turn % ids.len()], &positions[turn % 2]);
        });
    });
    group.bench_function("begin and end", |b| {
        let subject = subject(1_000_000);
        b.iter(|| {
            let id = journal.begin(&subject).expect("below the bounds");
            journal.end(id);
        });
    });
    group.bench_function("look one up", |b| {
        let Subject::Incoming(incoming) = subject(500) else {
            unreachable!("it arrives")
        };
        b.iter(|| black_box(journal.incoming(&incoming.path, incoming.peer.as_ref()).is_some()));
    });
    group.finish();
}

criterion_group!(benches, opening, appending);
criterion_main!(benches);
