//! How fast the delta index is made: anchors by kernel, the parts of a chunk, and all of them in one pass.
//!
//! Never touches files. Every figure is bytes of content per second, of 64 MiB that are in memory.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use syncline::delta::content_id;
use syncline::delta::index::{
    Anchor, BLOCK_BYTES, CHUNK_BYTES, ChunkIndex, IndexView, build, leaves_of, scan_anchors, scan_anchors_portable,
};
use syncline::model::limits::LEAF_BYTES;
use xxhash_rust::xxh3::xxh3_128_with_seed;

const CONTENT_BYTES: usize = 64 << 20;
const SEED: u64 = 7;
const BITS: u32 = 12;

fn content() -> Vec<u8> {
    let mut state = 1u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..CONTENT_BYTES).map(step).collect()
}

type Scan = fn(&[u8], &[u8], u64, u32, &mut Vec<Anchor>);

fn count_anchors(scan: Scan, content: &[u8]) -> usize {
    let mut found = Vec::with_capacity(content.len() / 2048);
    scan(&[], content, 0, BITS, &mut found);
    found.len()
}

fn parts(criterion: &mut Criterion) {
    let content = content();
    let mut group = criterion.benchmark_group("index of 64 MiB");
    group.throughput(Throughput::Bytes(CONTENT_BYTES as u64));
    group.sample_size(10);
    group.bench_function("anchors", |b| {
        b.iter(|| count_anchors(scan_anchors, black_box(&content)));
    });
    group.bench_function("anchors, portable", |b| {
        b.iter(|| count_anchors(scan_anchors_portable, black_box(&content)));
    });
    group.bench_function("xxh3 of leaves", |b| {
        b.iter(|| {
            let leaves = black_box(&content).chunks(LEAF_BYTES);
            leaves.fold(0, |sum, leaf| sum ^ xxh3_128_with_seed(leaf, SEED))
        });
    });
    group.bench_function("CRC of blocks", |b| {
        b.iter(|| {
            let blocks = black_box(&content).chunks(BLOCK_BYTES);
            blocks.fold(0, |sum, block| sum ^ crc32fast::hash(block))
        });
    });
    group.bench_function("xxh3 and CRC", |b| {
        b.iter(|| {
            let leaves = black_box(&content).chunks(LEAF_BYTES);
            leaves.fold(0, |sum, leaf| {
                let blocks = leaf.chunks(BLOCK_BYTES);
                let crcs = blocks.fold(0, |sum, block| sum ^ crc32fast::hash(block));
                sum ^ xxh3_128_with_seed(leaf, SEED) ^ u128::from(crcs)
            })
        });
    });
    group.bench_function("leaves", |b| {
        let chunks = || black_box(&content).chunks(CHUNK_BYTES);
        b.iter(|| chunks().map(|chunk| leaves_of(chunk).len()).sum::<usize>());
    });
    group.bench_function("content id alone", |b| b.iter(|| content_id(black_box(&content))));
    group.bench_function("chunks", |b| {
        b.iter(|| {
            let chunks = black_box(&content).chunks(CHUNK_BYTES).enumerate();
            let index = |(number, chunk)| {
                let offset = number * CHUNK_BYTES;
                ChunkIndex::build(&content[..offset], chunk, offset as u64, SEED, BITS)
            };
            chunks.map(index).map(|index| index.anchors.len()).sum::<usize>()
        });
    });
    group.bench_function("whole sidecar", |b| b.iter(|| build(black_box(&content), SEED)));
    let sidecar = build(&content, SEED);
    group.bench_function("parse and verify", |b| {
        b.iter(|| IndexView::parse(black_box(&sidecar)).and_then(|view| view.verify()));
    });
    group.finish();
}

criterion_group!(benches, parts);
criterion_main!(benches);
