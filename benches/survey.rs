//! What a look at a folder costs in which nothing has changed, and what its index costs.
//!
//! Never reads a file, and flushes only to memory (`/dev/shm`, where it is). `SYNCLINE_SURVEY_FILES` sets
//! the number of files, 100,000 without it, `SYNCLINE_SURVEY_DIRECTORY` how many are in one directory, 100
//! without it. Sizes, memory and processor time are printed.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;
use syncline::model::{DeviceId, RelPath, Revision, State};
use syncline::store::{Batch, Difference, Index, IndexOptions, Keep, Record, Root, Survey};
use tempfile::TempDir;

const FILES: usize = 100_000;
const FILES_PER_DIRECTORY: usize = 100;
const BATCH: usize = 10_000;
/// Entries that a loop looks at in one turn.
const STEP: usize = 256;

fn variable(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn folder() -> TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    dir.expect("a temporary directory")
}

fn tree(top: &Path, files: usize) {
    let each = variable("SYNCLINE_SURVEY_DIRECTORY", FILES_PER_DIRECTORY);
    for number in 0..files {
        let directory = number / each;
        let inner = top.join(format!("project {:02}/directory {directory:05}", directory % 50));
        if number % each == 0 {
            fs::create_dir_all(&inner).expect("room for a directory");
        }
        File::create(inner.join(format!("a usual name {number:07}.txt"))).expect("room for a file");
    }
}

/// Walks to the end. Returns what was told and how many entries were seen.
fn survey(root: &Root, index: &Index, mut tell: impl FnMut(Vec<Difference>)) -> u64 {
    let mut survey = Survey::new(None);
    let snapshot = index.snapshot().expect("it was just opened");
    loop {
        let mut out = Vec::new();
        let more = survey.step(root, &snapshot, &mut |_, _| Keep::Yes, STEP, &mut out);
        tell(out);
        if !more.expect("the index is whole") {
            break;
        }
    }
    assert!(survey.complete());
    survey.seen()
}

/// The record of what was told, as a server keeps it: with author and root.
fn record(difference: Difference, revision: Revision) -> (RelPath, Record) {
    let Difference::Changed { entry, identity, .. } = difference else {
        panic!("{difference:?}")
    };
    let root = Some([revision.0 as u8; 32]);
    let state = State {
        root,
        ..State::of(&entry)
    };
    let record = Record {
        state: Some(state),
        revision,
        author: Some(DeviceId([7; 32])),
        identity: Some(identity),
        at: entry.meta.mtime,
    };
    (entry.path, record)
}

fn fill(root: &Root, index: &Index) {
    let mut batch = Batch::new();
    let mut revision = Revision::NONE;
    survey(root, index, |told| {
        for difference in told {
            revision = revision.next();
            let (path, record) = record(difference, revision);
            batch.put(&path, &record);
        }
        if batch.len() >= BATCH {
            let full = std::mem::take(&mut batch);
            index.write(&full).expect("room for a batch");
        }
    });
    index.write(&batch).expect("room for a batch");
}

fn open(root: &Root) -> Index {
    let opened = Index::open(root, IndexOptions::default());
    opened.expect("nobody else has it").index
}

/// Memory of this process that no file stands behind: now, as the kernel says it.
fn anonymous() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon"));
    line.unwrap_or("RssAnon: unknown").to_owned()
}

/// The most that `anonymous` has been, sampled between steps, and the time on a processor, of one survey.
fn once(root: &Root, index: &Index) -> String {
    let on_processor = || {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let first = text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        first.unwrap_or(0) / 1_000_000
    };
    let before = on_processor();
    survey(root, index, |_| {});
    let ms = on_processor() - before;
    let (mut steps, mut most) = (0, String::new());
    survey(root, index, |_| {
        if steps % 64 == 0 {
            let now = anonymous();
            most = most.clone().max(now);
        }
        steps += 1;
    });
    format!("{ms} ms of processor time, at most {most}")
}

fn surveys(criterion: &mut Criterion) {
    let files = variable("SYNCLINE_SURVEY_FILES", FILES);
    let dir = folder();
    tree(dir.path(), files);
    let root = Root::open(dir.path()).expect("it was just made");
    let mut index = open(&root);
    fill(&root, &index);
    let length = fs::metadata(dir.path().join(".syncline/index.redb")).map_or(0, |found| found.len());
    println!(
        "{files} files: {length} bytes, {} each; {}",
        length / files as u64,
        anonymous()
    );
    drop(index);
    index = open(&root);
    println!("opened: {}; one survey: {}", anonymous(), once(&root, &index));
    let mut group = criterion.benchmark_group("survey");
    group.sample_size(10).throughput(Throughput::Elements(files as u64));
    let id = BenchmarkId::new("no difference", format!("{files} files"));
    group.bench_function(id, |b| {
        b.iter(|| survey(&root, &index, |told| assert!(told.is_empty())));
    });
    drop(index);
    group.bench_function(BenchmarkId::new("open", format!("{files} files")), |b| {
        b.iter(|| black_box(open(&root)));
    });
    group.finish();
}

fn writes(criterion: &mut Criterion) {
    let dir = folder();
    tree(dir.path(), FILES);
    let root = Root::open(dir.path()).expect("it was just made");
    let index = open(&root);
    fill(&root, &index);
    let mut records = Vec::new();
    let snapshot = index.snapshot().expect("it is open");
    for row in snapshot.walk(None).expect("it is whole").step_by(FILES / BATCH) {
        records.push(row.expect("it is whole"));
    }
    drop(snapshot);
    let mut revision = index.revision();
    let mut changed = |records: &mut [(RelPath, Record)]| {
        let mut batch = Batch::new();
        for (path, record) in records {
            revision = revision.next();
            record.revision = revision;
            batch.put(path, record);
        }
        batch
    };
    let mut group = criterion.benchmark_group("index");
    group.sample_size(10);
    for count in [1, 100, BATCH] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("write", format!("{count} of 100,000")), |b| {
            let some = |records: &mut [(RelPath, Record)]| changed(&mut records[..count]);
            let mut some = some;
            b.iter_batched(
                || some(&mut records),
                |batch| index.write(&batch).expect("room for a batch"),
                BatchSize::PerIteration,
            );
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("snapshot", |b| {
        b.iter(|| black_box(index.snapshot().expect("it is open")));
    });
    group.finish();
}

criterion_group!(benches, surveys, writes);
criterion_main!(benches);
