//! How fast content becomes a content id: the reference, the pair kernel, and the tree over them.
//!
//! Never touches files. Every figure is bytes of content per second, of bytes that are in memory.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use syncline::delta::{TreeHasher, digest, hash_pair};
use syncline::model::limits::LEAF_BYTES;

const TREE_BYTES: usize = 16 << 20;

fn bytes(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(step).collect()
}

fn leaves(criterion: &mut Criterion) {
    let content = bytes(2 * LEAF_BYTES);
    let (first, second) = content.split_at(LEAF_BYTES);
    let mut group = criterion.benchmark_group("two leaves");
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function("reference", |b| {
        b.iter(|| (digest(black_box(first)), digest(black_box(second))));
    });
    group.bench_function("pair", |b| {
        b.iter(|| hash_pair(black_box(first), black_box(second)));
    });
    group.finish();
}

fn tree(criterion: &mut Criterion) {
    let content = bytes(TREE_BYTES);
    let mut group = criterion.benchmark_group("tree of 16 MiB");
    group.throughput(Throughput::Bytes(TREE_BYTES as u64));
    group.sample_size(20);
    // 1,460 is a TCP segment; the odd sizes cut inside leaves and inside blocks.
    for slice in [1_460, 65_536, 65_000, 262_144, 1 << 20, TREE_BYTES] {
        group.bench_with_input(BenchmarkId::new("slices", slice), &slice, |b, slice| {
            b.iter(|| hash_slices(&content, 0, *slice));
        });
    }
    for start in [5_000, 5_003] {
        group.bench_with_input(BenchmarkId::new("64 KiB after", start), &start, |b, start| {
            b.iter(|| hash_slices(&content, *start, 65_536));
        });
    }
    group.finish();
}

fn hash_slices(content: &[u8], start: usize, slice: usize) -> [u8; 32] {
    let mut hasher = TreeHasher::new();
    let (head, rest) = content.split_at(start);
    hasher.update(head);
    rest.chunks(slice).for_each(|slice| hasher.update(slice));
    hasher.finish().root
}

fn hole(criterion: &mut Criterion) {
    criterion.bench_function("hole of 1 PiB", |b| {
        b.iter(|| {
            let mut hasher = TreeHasher::new();
            hasher.update_zeros(black_box(1 << 50));
            hasher.finish()
        });
    });
}

criterion_group!(benches, leaves, tree, hole);
criterion_main!(benches);
