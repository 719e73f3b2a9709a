//! How fast bytes become frames and entries, and the reverse: the cost of the protocol itself.
//!
//! Never touches a file or a socket. Figures are reads of a socket, or entries, per second in memory.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use syncline::model::limits::{BATCH_ENTRIES_MAX, PREAUTH_FRAME_BYTES_MAX};
use syncline::model::{Entry, Kind, Meta, RelPath, Timestamp};
use syncline::wire::{
    Answers, Decoder, EntriesReader, EntriesWriter, FRAME_HEADER_BYTES, Inline, Message, Piece, Verdict, data_header,
};

/// What a sender puts into one data frame.
const CONTENT_BYTES: usize = 512 * 1024;
const FRAMES: usize = 16;

/// Data frames, cut as a socket delivers them. The decoder copies no content: what it costs is a matter
/// of reads and frames, not of bytes.
fn data_frames(criterion: &mut Criterion) {
    let mut stream = Vec::new();
    for file in 0..FRAMES as u32 {
        stream.extend_from_slice(&data_header(1, file, CONTENT_BYTES));
        stream.resize(stream.len() + CONTENT_BYTES, 7);
    }
    let mut group = criterion.benchmark_group("decode data frames of 512 KiB");
    for read in [1_460, 16_384, 262_144] {
        group.throughput(Throughput::Elements(stream.len().div_ceil(read) as u64));
        group.bench_with_input(BenchmarkId::new("reads of", read), &read, |b, read| {
            b.iter(|| decode_content(&stream, *read));
        });
    }
    group.finish();
}

fn decode_content(stream: &[u8], read: usize) -> usize {
    let mut decoder = Decoder::new(PREAUTH_FRAME_BYTES_MAX);
    decoder.lift_limits();
    let mut content = 0;
    for mut input in stream.chunks(read) {
        while let Some(piece) = decoder.next(&mut input).expect("the frames are legal") {
            if let Piece::Data { bytes, .. } = piece {
                content += black_box(bytes).len();
            }
        }
    }
    assert_eq!(content, FRAMES * CONTENT_BYTES);
    content
}

const SMALL_FILES: u32 = 1_000;
const SMALL_BYTES: usize = 1_024;

/// Small files, each a frame with its root: what thousands of them cost before anything is done with them.
fn small_frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1,000 files of 1 KiB in frames of their own");
    group.throughput(Throughput::Elements(SMALL_FILES.into()));
    group.bench_function("encode", |b| b.iter(|| small_files(black_box(&[7; SMALL_BYTES]))));
    let stream = small_files(&[7; SMALL_BYTES]);
    for read in [1_460, 262_144] {
        group.bench_with_input(BenchmarkId::new("decode, reads of", read), &read, |b, read| {
            b.iter(|| read_small_files(&stream, *read));
        });
    }
    group.finish();
}

fn small_files(content: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for file in 0..SMALL_FILES {
        let meta = Meta {
            mode: 0o644,
            mtime: Timestamp { seconds: 1, nanos: 2 },
        };
        let (root, bytes) = ([7; 32], content);
        Inline {
            file,
            meta,
            root,
            bytes,
        }
        .encode(1, &mut stream);
    }
    stream
}

fn read_small_files(stream: &[u8], read: usize) -> u32 {
    let mut decoder = Decoder::new(PREAUTH_FRAME_BYTES_MAX);
    decoder.lift_limits();
    let mut files = 0;
    for mut input in stream.chunks(read) {
        while let Some(piece) = decoder.next(&mut input).expect("the frames are legal") {
            if let Piece::Control { payload, .. } = piece {
                let inline = Inline::decode(payload).expect("the file is legal");
                files += u32::from(black_box(inline).bytes.len() == SMALL_BYTES);
            }
        }
    }
    assert_eq!(files, SMALL_FILES);
    files
}

/// A full offer of 4,096 files, and the answer to it.
fn batches(criterion: &mut Criterion) {
    let entries = entries();
    let mut group = criterion.benchmark_group("4,096 entries");
    group.throughput(Throughput::Elements(entries.len() as u64));
    group.bench_function("encode offer", |b| b.iter(|| offer(black_box(&entries))));
    let frame = offer(&entries);
    let payload = &frame[FRAME_HEADER_BYTES..];
    group.bench_function("decode offer", |b| b.iter(|| read_offer(black_box(payload))));
    for (name, verdict) in [
        ("all alike", all_alike as fn(usize) -> Verdict),
        ("alternating", alternating),
    ] {
        group.bench_function(BenchmarkId::new("encode answer", name), |b| {
            b.iter(|| answer(black_box(verdict)));
        });
        let frame = answer(verdict);
        group.bench_function(BenchmarkId::new("decode answer", name), |b| {
            b.iter(|| Answers::decode(black_box(&frame[FRAME_HEADER_BYTES..])).expect("it is legal"));
        });
    }
    group.finish();
}

fn entries() -> Vec<Entry> {
    let meta = |number: usize| Meta {
        mode: 0o644,
        mtime: Timestamp {
            seconds: 1_700_000_000 + number as i64,
            nanos: 123_456_789,
        },
    };
    let entry = |number: usize| Entry {
        path: RelPath::parse(format!("project/src/module-{:02}/file-{number:04}.rs", number / 64).as_bytes())
            .expect("a legal path"),
        kind: Kind::File {
            size: 1_000 + number as u64,
        },
        meta: meta(number),
    };
    (0..BATCH_ENTRIES_MAX).map(entry).collect()
}

fn offer(entries: &[Entry]) -> Vec<u8> {
    let mut writer = EntriesWriter::default();
    for entry in entries {
        writer.push(entry, None, None);
    }
    let mut frame = Vec::new();
    writer.flush(1, 0, &mut frame);
    frame
}

fn read_offer(payload: &[u8]) -> usize {
    let mut reader = EntriesReader::new(payload).expect("the offer is legal");
    let mut count = 0;
    while let Some(entry) = reader.next_entry().expect("the entry is legal") {
        black_box(entry);
        count += 1;
    }
    assert_eq!(count, BATCH_ENTRIES_MAX);
    count
}

fn answer(verdict: fn(usize) -> Verdict) -> Vec<u8> {
    let mut answers = Answers::default();
    for number in 0..BATCH_ENTRIES_MAX {
        answers.push(verdict(number));
    }
    let mut frame = Vec::new();
    answers.flush(1, &mut frame);
    frame
}

fn all_alike(_: usize) -> Verdict {
    Verdict::Have
}

fn alternating(number: usize) -> Verdict {
    if number.is_multiple_of(2) {
        Verdict::Have
    } else {
        Verdict::WantNew
    }
}

criterion_group!(benches, data_frames, small_frames, batches);
criterion_main!(benches);
