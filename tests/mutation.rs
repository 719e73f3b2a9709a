//! Damaged encodings of everything that is decoded, from a seed: no panic, errors with a name, little
//! memory; and what is encoded is decoded the same.
//!
//! `SYNCLINE_MUTATION_SEED=n` replays one case, `SYNCLINE_MUTATION_RUNS=n` sets how many there are.
//! The bodies are those of the fuzz targets.

#![allow(clippy::unwrap_used)]

#[path = "../fuzz/src/bodies.rs"]
#[allow(unreachable_pub, dead_code)]
mod bodies;
#[path = "../fuzz/src/compares.rs"]
#[allow(unreachable_pub)]
mod compares;
#[path = "mutation/generate.rs"]
mod generate;
#[path = "../fuzz/src/http.rs"]
#[allow(unreachable_pub)]
mod http;
#[path = "../fuzz/src/patch_files.rs"]
#[allow(unreachable_pub)]
mod patch_files;
#[path = "../fuzz/src/plans.rs"]
#[allow(unreachable_pub)]
mod plans;
#[path = "sim/rng.rs"]
#[allow(dead_code)]
mod rng;
#[path = "../fuzz/src/stored.rs"]
#[allow(unreachable_pub)]
mod stored;
#[path = "mutation/stored.rs"]
mod stored_cases;
#[path = "../fuzz/src/streams.rs"]
#[allow(unreachable_pub)]
mod streams;
#[cfg(feature = "sync")]
#[path = "../fuzz/src/synced.rs"]
#[allow(unreachable_pub)]
mod synced;
#[cfg(feature = "sync")]
#[path = "mutation/synced.rs"]
mod synced_cases;

use generate::{any_frame, any_text};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rng::Rng;
use syncline::delta::PlanEncoder;
use syncline::delta::compare::{RangesQuestion, TreeQuestion};
use syncline::delta::prefix::PrefixEncoder;
use syncline::delta::signature::SignatureBuilder;
use syncline::delta::squeeze::Squeezer;
use syncline::wire::{Decoder, FRAME_HEADER_BYTES, FrameType, Piece};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    // Every message survives its own encoding; `any_frame` compares the values, this the bytes.
    #[test]
    fn what_is_encoded_is_decoded_the_same(frame in any_frame()) {
        let mut decoder = Decoder::new(0);
        decoder.lift_limits();
        match decoder.next(&mut &frame[..]) {
            Ok(Some(Piece::Control { kind, payload, .. })) => bodies::payload_of(kind, payload),
            Ok(Some(Piece::Data { bytes, .. })) => prop_assert!(frame.ends_with(bytes)),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

/// One value of a strategy, from a seed.
fn sample<T: std::fmt::Debug>(strategy: &impl Strategy<Value = T>, seed: u64) -> T {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    strategy.new_tree(&mut runner).unwrap().current()
}

/// Flips, cuts, inserts, repeats, or sets a number to one of its ends.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return bytes.push(rng.next() as u8);
    }
    let at = rng.index(bytes.len());
    let length = 1 + rng.index((bytes.len() - at).min(40));
    match rng.below(8) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = rng.next() as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..at + length)),
        4 => {
            let part = bytes[at..at + length].to_vec();
            bytes.splice(at..at, part);
        }
        5 => {
            let inserted = rng.bytes(length);
            bytes.splice(at..at, inserted);
        }
        6 => {
            let value = rng.pick(&[0, 0xff, 0x7f, 0x80]);
            bytes[at..at + length.min(8)].fill(value);
        }
        _ => {
            let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
            bytes.splice(at..at + 1, huge);
        }
    }
}

fn damaged_frames(seed: u64) {
    let mut rng = Rng::new(seed);
    let frames = any_frame();
    let mut stream = Vec::new();
    for _ in 0..=rng.below(4) {
        let mut frame = sample(&frames, rng.next());
        let kind = FrameType::from_wire(frame[4]).unwrap();
        let mut payload = frame[FRAME_HEADER_BYTES..].to_vec();
        for _ in 0..=rng.below(3) {
            mutate(&mut rng, &mut payload);
        }
        bodies::payload_of(kind, &payload);
        bodies::payload_of(rng.pick(&FrameType::ALL), &payload);
        if rng.once_in(2) {
            // Damage within a frame whose header still fits it reaches the machine.
            frame.truncate(FRAME_HEADER_BYTES);
            frame[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
            frame.extend(payload);
        }
        stream.extend(frame);
    }
    if rng.once_in(2) {
        mutate(&mut rng, &mut stream);
    }
    let case = [&[rng.next() as u8, rng.next() as u8][..], &stream].concat();
    bodies::frames(&case);
    bodies::machine(&case);
    bodies::any(&case);
}

fn damaged_texts(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut text = sample(&any_text(), rng.next()).into_bytes();
    for _ in 0..rng.below(3) {
        mutate(&mut rng, &mut text);
    }
    bodies::path(&text);
    bodies::link(&text);
    bodies::content_id(&text);
    bodies::filter(&text);
}

/// Damaged forms of what a few kilobytes of repetitive bytes are compressed to, and of a signature of them.
fn damaged_streams(seed: u64) {
    let mut rng = Rng::new(seed);
    let words: Vec<Vec<u8>> = (0..8).map(|length| rng.bytes(length + 1)).collect();
    let content: Vec<u8> = (0..rng.below(2_000))
        .flat_map(|_| words[rng.index(8)].clone())
        .collect();
    let basis = &content[..content.len().min(200)];
    let mut squeezed = Vec::new();
    let mut squeezer = Squeezer::new(content.len() as u64);
    squeezer.push(&content, &mut squeezed);
    squeezer.flush(&mut squeezed);
    let mut prefixed = Vec::new();
    if let Ok(mut encoder) = PrefixEncoder::new(basis.to_vec(), content.len() as u64) {
        encoder.push(&content, &mut prefixed).unwrap();
        encoder.finish(&mut prefixed).unwrap();
    }
    let mut builder = SignatureBuilder::new(seed);
    builder.push(&content);
    let mut signature = builder.finish();
    for _ in 0..=rng.below(3) {
        mutate(&mut rng, &mut squeezed);
        mutate(&mut rng, &mut prefixed);
        mutate(&mut rng, &mut signature);
    }
    let head = [rng.next() as u8, rng.next() as u8];
    streams::squeezed(&[&head[..], &squeezed].concat());
    streams::prefixed(&[&[basis.len() as u8, head[1]][..], basis, &prefixed].concat());
    streams::signature(&[&[signature.len().min(255) as u8][..], &signature, &content].concat());
}

fn damaged_sidecars(seed: u64) {
    let mut rng = Rng::new(seed);
    let length = rng.index(50_000);
    let mut sidecar = syncline::delta::index::build(&rng.bytes(length), rng.next());
    for _ in 0..=rng.below(3) {
        mutate(&mut rng, &mut sidecar);
    }
    bodies::sidecar(&sidecar);
    if sidecar.len() > HEADER_BYTES && rng.once_in(2) {
        // Under a right checksum damage of the header reaches what is behind it.
        let sum = crc32fast::hash(&sidecar[..HEADER_BYTES - 4]);
        sidecar[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        bodies::sidecar(&sidecar);
    }
}

/// Bytes of a sidecar's header, its checksum last.
const HEADER_BYTES: usize = 128;

fn damaged_plans(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut encoder = PlanEncoder::new();
    let mut length = 0;
    for _ in 0..rng.below(12) {
        let size = rng.pick(&[1, 2, 50, 1000]);
        match rng.below(4) {
            0 => encoder.literal(&rng.bytes(size)),
            1 => encoder.edit(&rng.bytes(size)),
            _ => encoder.copy(rng.below(60_000), size as u64),
        }
        length += size as u16;
    }
    encoder.finish();
    let [low, high] = length.to_le_bytes();
    let mut case = vec![rng.next() as u8, low, high];
    case.extend(encoder.take_output());
    for _ in 0..rng.below(4) {
        mutate(&mut rng, &mut case);
    }
    plans::plan(&case);
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn for_seeds(runs: u64, case: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let runs = variable("SYNCLINE_MUTATION_RUNS").unwrap_or(runs);
    let seeds = match variable("SYNCLINE_MUTATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..runs,
    };
    for seed in seeds {
        if let Err(cause) = std::panic::catch_unwind(|| case(seed)) {
            eprintln!("replay with SYNCLINE_MUTATION_SEED={seed}");
            std::panic::resume_unwind(cause);
        }
    }
}

// I12, row 10: whatever bytes come, decoders and machines end in a named error or in a legal value.
#[test]
fn row_10_damaged_frames_end_in_named_errors() {
    for_seeds(10_000, damaged_frames);
}

// Row 1: the same for what people paste: paths, links, content ids, filter rules.
#[test]
fn row_1_damaged_texts_end_in_named_errors() {
    for_seeds(10_000, damaged_texts);
}

// Rows 10 to 13: compressed streams and signatures.
#[test]
fn row_12_damaged_streams_stay_within_their_bounds() {
    for_seeds(2_000, damaged_streams);
}

// I12, row 10: the same for sidecars that a crash, or anyone, has damaged.
#[test]
fn row_10_damaged_sidecars_end_in_named_errors() {
    for_seeds(1_000, damaged_sidecars);
}

fn damaged_compares(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut case = vec![rng.next() as u8, rng.next() as u8];
    match case[0] % 4 {
        0 => case.extend(TreeQuestion::new(390_001, rng.next(), 12).encode()),
        1 | 2 => {
            let start = rng.below(20);
            let ranges = vec![start..start + 1, start + 2..start + 4];
            let height = 0;
            let seed = rng.next();
            case.extend(RangesQuestion { seed, height, ranges }.encode());
        }
        _ => {
            let length = rng.index(60);
            case.extend(rng.bytes(length));
        }
    }
    for _ in 0..rng.below(3) {
        mutate(&mut rng, &mut case);
    }
    compares::compare(&case);
}

fn damaged_requests(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut case = vec![rng.next() as u8];
    for _ in 0..=rng.below(3) {
        let line = rng.pick(&["GET /metrics HTTP/1.1", "HEAD /healthz?a HTTP/1.1", "POST / HTTP/1.0"]);
        let host = rng.pick(&["localhost", "127.0.0.1:7180", "[::1]", "evil.example"]);
        let more = rng.pick(&[
            "",
            "Connection: close\r\n",
            "Content-Length: 0\r\n",
            "Transfer-Encoding: chunked\r\n",
        ]);
        case.extend(format!("{line}\r\nHost: {host}\r\n{more}\r\n").into_bytes());
    }
    for _ in 0..rng.below(3) {
        mutate(&mut rng, &mut case);
    }
    http::http(&case);
}

// Row 35: requests of HTTP, damaged and cut anywhere.
#[test]
fn row_35_damaged_requests_are_refused_wherever_they_are_cut() {
    for_seeds(10_000, damaged_requests);
}

// Rows 10 and 13: questions and answers of a cold compare; forged ones cost bounded work.
#[test]
fn row_13_damaged_compares_end_in_named_errors() {
    for_seeds(1_000, damaged_compares);
}

// Row 10: a delta plan stays within its basis and its file, whatever bytes come.
#[test]
fn row_10_damaged_plans_end_in_named_errors() {
    for_seeds(20_000, damaged_plans);
}

// Row 10, and I3: an undo record is rolled back as it was written, or not at all.
#[test]
fn row_10_damaged_undo_records_are_refused_whole() {
    for_seeds(1_500, stored_cases::undo);
}

// Row 10, I6 and I7: a journal claims nothing that was not written.
#[test]
fn row_10_damaged_journals_claim_nothing_else() {
    for_seeds(2_000, stored_cases::journal);
}

// Row 10: shadows, whatever a disk makes of them.
#[test]
fn row_10_damaged_shadows_stay_within_their_segment() {
    for_seeds(1_500, stored_cases::shadows);
}

// Row 10: whom a device trusts, which servers run, what the activity log tells.
#[test]
fn row_10_damaged_state_ends_in_named_errors() {
    for_seeds(3_000, stored_cases::state);
}

// Row 1: files of rules, and names that are read for what they say.
#[test]
fn row_1_damaged_names_and_rules_mean_what_they_say() {
    for_seeds(10_000, stored_cases::names);
}

// Row 10: patch files and signature files, which anyone may have made.
#[test]
fn row_10_damaged_delta_files_make_what_they_announce() {
    for_seeds(150, stored_cases::delta_files);
}

// Row 10: the same decoders, and bytes that nobody wrote.
#[test]
fn row_10_noise_on_a_disk_is_refused() {
    for_seeds(500, stored_cases::noise);
}

// Row 10: what a folder in sync keeps beside its index, and the records of that.
#[cfg(feature = "sync")]
#[test]
fn row_10_damaged_records_of_a_folder_are_no_orders() {
    for_seeds(10_000, synced_cases::folder);
}
