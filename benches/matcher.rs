//! How fast a new file is matched against the index of its basis.
//!
//! Never touches files. Every figure is bytes of the new file per second, of bytes that are in memory.
//! `SYNCLINE_BENCH_MIB=n` sets the size, 64 by default.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use syncline::delta::index::{IndexView, build};
use syncline::delta::{Comparison, Matcher, Op, PlanEncoder, Progress};

const STEP_BYTES: usize = 1 << 20;
const DEFAULT_MIB: usize = 64;

fn noise(mut state: u64, length: usize) -> Vec<u8> {
    let step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        ((state >> 32) as u32).to_le_bytes()
    };
    std::iter::repeat_with(step).take(length / 4).flatten().collect()
}

fn run(view: &IndexView<'_>, new: &[u8], comparison: Comparison) -> Vec<Op> {
    let mut matcher = Matcher::new(new.len() as u64, comparison);
    let mut ops = Vec::new();
    loop {
        let progress = matcher.step(view, &mut &new[..], STEP_BYTES, &mut ops);
        if progress.expect("bytes in memory are not torn") == Progress::Done {
            return ops;
        }
    }
}

fn matching(criterion: &mut Criterion) {
    let mib = std::env::var("SYNCLINE_BENCH_MIB").ok();
    let mib = mib.and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_MIB);
    let base = noise(1, mib << 20);
    let sidecar = build(&base, 7);
    let view = IndexView::parse(&sidecar).expect("it was just built");
    let mut group = criterion.benchmark_group("matcher");
    group.throughput(Throughput::Bytes(base.len() as u64));
    group.sample_size(10);
    let mut case = |name: &str, new: &[u8], comparison: Comparison| {
        let id = BenchmarkId::new(name, format!("{mib} MiB"));
        group.bench_function(id, |b| b.iter(|| run(&view, black_box(new), comparison)));
    };
    case("in place, identical", &base, Comparison::Fast);
    case("in place, by SHA-256", &base, Comparison::Checksum);
    let mut edited = base.clone();
    edited.chunks_mut(base.len() / 1000).for_each(|part| part[0] ^= 1);
    case("in place, 1,000 edits", &edited, Comparison::Fast);
    drop(edited);
    let mut inserted = noise(2, 100);
    inserted.extend_from_slice(&base);
    case("100 B inserted", &inserted, Comparison::Fast);
    drop(inserted);
    case("nothing in common", &noise(3, base.len()), Comparison::Fast);
    group.finish();
}

fn encoding(criterion: &mut Criterion) {
    let content = noise(4, 16 << 20);
    let mut group = criterion.benchmark_group("plan");
    group.throughput(Throughput::Bytes(content.len() as u64));
    group.bench_function("all literal", |b| {
        let write = |mut encoder: PlanEncoder| {
            content.chunks(64 * 1024).for_each(|bytes| encoder.literal(bytes));
            encoder.finish();
            encoder.take_output()
        };
        b.iter_batched(PlanEncoder::new, write, BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, matching, encoding);
criterion_main!(benches);
