//! Large files whose old version only the other side knows, and patches that came out wrong.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::edits::noise;
use harness::raw::{self, RawClient};
use harness::{Run, World, offers, push_job};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use syncline::delta::PlanEncoder;
use syncline::delta::content_id;
use syncline::delta::index::{ChunkIndex, HEAD_BYTES, IndexView, Parts, Placed, Sidecar, Sums, build};
use syncline::model::Rights;
use syncline::node::{Client, TransferOptions};
use syncline::wire::{
    Ask, Basis, Decoder, End, EndOutcome, FrameType, Hello, Message, Patch, PatchForm, Piece, Start, Tell, Topic,
    data_header, features,
};

const MIB: usize = 1 << 20;
/// Bytes of a file in these tests; `SYNCLINE_COLD_MIB` sets another, to measure.
fn length() -> usize {
    let mebibytes = std::env::var("SYNCLINE_COLD_MIB");
    mebibytes.map_or(64, |text| text.parse().unwrap()) * MIB
}

fn with_times(path: &Path, bytes: &[u8], seconds: u64) {
    fs::write(path, bytes).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds))
        .unwrap();
}

/// A world whose share has `old`, pushed by a client that nobody will ask again.
fn seeded(old: &[u8]) -> (World, PathBuf) {
    let mut world = World::new();
    let path = world.path("file");
    with_times(&path, old, 1);
    let link = world.link("/");
    world.push(&[&path], &link, TransferOptions::default()).assert_clean();
    (world, path)
}

fn push_from(world: &mut World, home: &str, path: &Path) -> Run {
    let options = world.client_options(home);
    let job = push_job(&[path], &world.link("/"));
    let client = Client::start(options, job, TransferOptions::default()).unwrap();
    world.drive(client, |_, _| {})
}

fn wire(run: &Run) -> u64 {
    run.outcome.summary.wire_sent + run.outcome.summary.wire_received
}

/// Pushes `new` over `old` from a fresh home; gives the bytes on the wire.
fn cold_push(old: &[u8], new: &[u8]) -> u64 {
    let (mut world, path) = seeded(old);
    with_times(&path, new, 2);
    let run = push_from(&mut world, "another-home", &path);
    run.assert_clean();
    assert!(fs::read(world.share().join("file")).unwrap() == new);
    println!("cold push of {} bytes: {} on the wire", new.len(), wire(&run));
    wire(&run)
}

/// Pulls `new`, which the server has never sent or got, over `old` in a directory.
fn cold_pull(old: &[u8], new: &[u8]) -> u64 {
    let mut world = World::new();
    let target = world.path("target");
    fs::create_dir(&target).unwrap();
    with_times(&target.join("file"), old, 1);
    with_times(&world.share().join("file"), new, 2);
    let link = world.link("/file");
    let run = world.pull(&link, &target, TransferOptions::default());
    run.assert_clean();
    assert!(fs::read(target.join("file")).unwrap() == new);
    println!("cold pull of {} bytes: {} on the wire", new.len(), wire(&run));
    wire(&run)
}

fn overwritten(old: &[u8]) -> Vec<u8> {
    let mut new = old.to_vec();
    let at = old.len() / 3;
    new[at..at + 4096].copy_from_slice(&noise(4096, 99));
    new
}

fn inserted(old: &[u8]) -> Vec<u8> {
    [noise(100, 98), old.to_vec()].concat()
}

fn scattered(old: &[u8], count: usize) -> Vec<u8> {
    let mut new = old.to_vec();
    let mut state = 7u64;
    for _ in 0..count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let at = (state >> 16) as usize % new.len();
        new[at] ^= 1;
    }
    new
}

// The budgets of a cold compare, for 64 MiB.
#[test]
fn a_cold_push_costs_little() {
    let old = noise(length(), 1);
    let overwritten = cold_push(&old, &overwritten(&old));
    let inserted = cold_push(&old, &inserted(&old));
    let scattered = cold_push(&old, &scattered(&old, 1000 * length() / (1024 * MIB)));
    if length() == 64 * MIB {
        assert!(overwritten <= 9_000, "{overwritten}");
        assert!(inserted <= 5_000, "{inserted}");
        assert!(scattered <= 40_000, "{scattered}");
    } else {
        assert!(overwritten <= 12_000 && inserted <= 24_000 && scattered <= 600_000);
    }
}

#[test]
fn a_cold_pull_costs_as_little() {
    let old = noise(length(), 2);
    let overwritten = cold_pull(&old, &overwritten(&old));
    assert!(overwritten <= 12_000, "{overwritten}");
    let inserted = cold_pull(&old, &inserted(&old));
    assert!(inserted <= 8_000, "{inserted}");
}

// What has moved in many ways is found with the whole index; what is strange goes whole at once.
#[test]
fn scattered_and_strange_content_is_told_apart() {
    let old = noise(40 * MIB, 3);
    let mut parts: Vec<&[u8]> = old.chunks(777_777).collect();
    parts.reverse();
    let moved = cold_push(&old, &parts.concat());
    assert!(moved <= 600_000, "{moved}");
    let strange = cold_push(&old, &noise(40 * MIB, 4));
    assert!(strange <= 40 * MIB as u64 + 20_000, "{strange}");
}

/// A sidecar of `old` whose CRCs say that half of an 8 KiB change is not there: self-consistent, under the
/// right root, and wrong.
fn forged(old: &[u8], new: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = build(old, 5);
    let view = IndexView::parse(&bytes).unwrap();
    let sidecar = Sidecar::new(old.len() as u64, Parts::Full, 5);
    let mut sums = Sums::new(sidecar);
    let mut placed_all = Vec::new();
    for number in 0..sidecar.chunk_count() {
        let mut chunk: ChunkIndex = view.chunk(number);
        let first = number as usize * 4096;
        for block in at / 1024..at / 1024 + 4 {
            if (first..first + chunk.crcs.len()).contains(&block) {
                chunk.crcs[block - first] = crc32fast::hash(&new[block * 1024..][..1024]);
            }
        }
        let placed = sidecar.place(number, &chunk, sums.anchor_count());
        sums.add(number, &chunk, &placed).unwrap();
        placed_all.extend(placed);
    }
    for Placed { offset, bytes: part } in placed_all {
        bytes[offset as usize..][..part.len()].copy_from_slice(&part);
    }
    let (id, header) = sums.finish().unwrap();
    assert_eq!(id, content_id(old));
    bytes[..HEAD_BYTES].copy_from_slice(&header);
    bytes
}

// A wrong root: what was pieced together is repaired with few bytes, not sent again.
#[test]
fn a_wrong_root_is_repaired() {
    let old = noise(24 * MIB, 6);
    let (mut world, path) = seeded(&old);
    let mut new = old.clone();
    let at = 10 * MIB + 4096;
    new[at..at + 8192].copy_from_slice(&noise(8192, 7));
    let home = world.path("liar");
    fs::create_dir_all(home.join("sidecars")).unwrap();
    fs::write(
        home.join("sidecars").join(content_id(&old).to_string()),
        forged(&old, &new, at),
    )
    .unwrap();
    with_times(&path, &new, 2);
    let run = push_from(&mut world, "liar", &path);
    run.assert_clean();
    assert!(fs::read(world.share().join("file")).unwrap() == new);
    println!("repaired with {} on the wire", wire(&run));
    assert!(wire(&run) < 16_000, "{}", wire(&run));
    let mut pieced = old.clone();
    pieced[at + 4096..at + 8192].copy_from_slice(&new[at + 4096..at + 8192]);
    let pieced = home.join("sidecars").join(content_id(&pieced).to_string());
    assert!(pieced.exists(), "the lie was believed, and what came of it compared");
    assert_eq!(harness::edits::staged(&world.share()), 0, "nothing is left in staging");
}

/// Starts a transfer in which `name`, of so many bytes, is offered.
fn offering(address: SocketAddr, features: u64, name: &str, size: u64) -> RawClient {
    let mut client = RawClient::connect(address);
    let mut out = Vec::new();
    Hello {
        features,
        ..raw::hello("raw")
    }
    .encode(0, &mut out);
    client.send(&out);
    assert_eq!(client.next().unwrap().kind, FrameType::Hello);
    assert_eq!(client.ask("Share", None, Rights::READ_WRITE).kind, FrameType::Opened);
    client.begin(&raw::push_begin());
    client.send(&offers::offer(0, &[offers::file(name, size)]));
    client
}

// A peer from before deltas hears nothing of them, and what it sends is taken.
#[test]
fn a_peer_without_deltas_is_served() {
    let mut world = World::new();
    with_times(&world.share().join("file"), &noise(100_000, 1), 1);
    let new = noise(10_000, 2);
    let sent = new.clone();
    world.serve_while(move |address| {
        let mut client = offering(address, features::HOLES, "file", 10_000);
        client.expect(FrameType::Answer);
        client.send(&offers::inline(0, &sent));
        client.send(&offers::list_end(1));
        client.expect(FrameType::Finish);
        let mut rest = &client.heard[..];
        let mut decoder = Decoder::new(0);
        decoder.lift_limits();
        while let Some(piece) = decoder.next(&mut rest).unwrap() {
            assert!(!matches!(
                piece,
                Piece::Control {
                    kind: FrameType::Basis,
                    ..
                }
            ));
        }
    });
    assert!(fs::read(world.share().join("file")).unwrap() == new);
}

// A whole file that arrives damaged: what came is the basis of the next attempt, and can be asked about.
#[test]
fn a_damaged_file_is_repaired_from_what_came() {
    let mut world = World::new();
    let right = noise(200_000, 3);
    let mut damaged = right.clone();
    damaged[150_000] ^= 1;
    let expected = right.clone();
    world.serve_while(move |address| {
        let mut client = offering(address, features::ALL, "file", right.len() as u64);
        client.expect(FrameType::Answer);
        client.send_message(&Start {
            file: 0,
            size: right.len() as u64,
            sparse: false,
            meta: offers::META,
        });
        client.send(&data(&damaged));
        let root = content_id(&right).root;
        let end = End {
            file: 0,
            outcome: EndOutcome::Complete(root),
        };
        client.send_message(&end);
        let basis = client.expect(FrameType::Basis);
        let basis = Basis::decode(&basis.payload).unwrap();
        assert_eq!((basis.file, basis.id), (0, content_id(&damaged)));
        client.expect(FrameType::Settled);
        client.send_message(&Ask {
            file: 0,
            topic: Topic::Signature,
            body: &[7; 8],
        });
        let tell = client.expect(FrameType::Tell);
        assert!(
            Tell::decode(&tell.payload).unwrap().body.len() > 3_000,
            "of the staged file"
        );
        client.send_message(&Patch {
            file: 0,
            size: right.len() as u64,
            meta: offers::META,
            basis: basis.id,
            form: PatchForm::Plan,
        });
        let mut plan = PlanEncoder::new();
        plan.copy(0, 150_000);
        plan.edit(&right[150_000..150_001]);
        plan.copy(150_001, 49_999);
        plan.finish();
        client.send(&data(&plan.take_output()));
        client.send_message(&end);
        client.send(&offers::list_end(1));
        client.expect(FrameType::Finish);
    });
    assert!(fs::read(world.share().join("file")).unwrap() == expected);
    assert_eq!(harness::edits::staged(&world.share()), 0, "nothing is left in staging");
}

fn data(bytes: &[u8]) -> Vec<u8> {
    [&data_header(raw::STREAM, 0, bytes.len())[..], bytes].concat()
}

// The same when the server makes the plan.
#[test]
fn a_wrong_root_of_a_pull_is_repaired() {
    let old = noise(24 * MIB, 16);
    let mut world = World::new();
    let target = world.path("target");
    fs::create_dir(&target).unwrap();
    let mut new = old.clone();
    let at = 12 * MIB + 8192;
    new[at..at + 8192].copy_from_slice(&noise(8192, 17));
    with_times(&target.join("file"), &old, 1);
    with_times(&world.share().join("file"), &new, 2);
    let sidecars = world.share().join(".syncline/sidecars");
    let mut private = fs::DirBuilder::new();
    private.recursive(true).mode(0o700).create(&sidecars).unwrap();
    fs::write(sidecars.join(content_id(&old).to_string()), forged(&old, &new, at)).unwrap();
    let link = world.link("/file");
    let run = world.pull(&link, &target, TransferOptions::default());
    run.assert_clean();
    assert!(fs::read(target.join("file")).unwrap() == new);
    assert!(wire(&run) < 16_000, "{}", wire(&run));
    let mut pieced = old;
    pieced[at + 4096..at + 8192].copy_from_slice(&new[at + 4096..at + 8192]);
    assert!(
        sidecars.join(content_id(&pieced).to_string()).exists(),
        "the lie was believed, and what came of it compared"
    );
}

// A basis that is edited after it was named: the file arrives all the same, and the edit is kept.
#[test]
fn a_basis_that_changes_is_noticed() {
    let old = noise(40 * MIB, 8);
    let (mut world, path) = seeded(&old);
    with_times(&path, &overwritten(&old), 2);
    let share = world.share();
    let options = world.client_options("another-home");
    // The first that is written there: with the answer to the first question.
    let surveyed = world.path("another-home").join("sidecars");
    let job = push_job(&[&path], &world.link("/"));
    let client = Client::start(options, job, TransferOptions::default()).unwrap();
    let mut edited = false;
    let run = world.drive(client, |_, _| {
        if !edited && surveyed.exists() {
            edited = true;
            with_times(&share.join("file"), b"edited here meanwhile", 3);
        }
    });
    run.assert_clean();
    assert!(edited, "the basis was asked about");
    assert!(fs::read(share.join("file")).unwrap() == overwritten(&old));
    let names = || fs::read_dir(&share).unwrap().map(|entry| entry.unwrap().path());
    let kept = names().filter(|path| fs::read(path).is_ok_and(|bytes| bytes == b"edited here meanwhile"));
    assert_eq!(kept.count(), 1, "as a conflict copy");
}
