//! Rows 10, 12, 13, 16, 19, 23 and 25 of the threats, as far as deltas go: plans, bases and questions of a
//! peer that does not keep to the rules.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::edits::noise;
use harness::guard::{Guarded, holds};
use harness::offers::{META, file, list_end, offer};
use harness::push_job;
use harness::raw::{Frame, RawClient, STREAM, push_begin};
use std::fs;
use syncline::delta::{PlanEncoder, content_id};
use syncline::model::limits::ASKED_MAX;
use syncline::model::{CloseCode, ContentId, Fault, ItemCode};
use syncline::node::{Client, TransferOptions};
use syncline::wire::{
    Ask, Basis, End, EndOutcome, Finish, FrameType, Message, Patch, PatchForm, SettledReader, SettledResult, Tell,
    Topic, data_header,
};

const BASIS_BYTES: usize = 100_000;
const NEW_BYTES: u64 = 90_000;

/// A client that has offered another version of `f`, which the server wants and has named the basis of.
fn offered(address: std::net::SocketAddr) -> (RawClient, ContentId) {
    let mut client = RawClient::open(address);
    client.begin(&push_begin());
    client.send(&offer(0, &[file("f", NEW_BYTES)]));
    let basis = client.expect(FrameType::Basis);
    let id = Basis::decode(&basis.payload).unwrap().id;
    client.expect(FrameType::Answer);
    (client, id)
}

fn patch(basis: ContentId, form: PatchForm) -> Patch {
    Patch {
        file: 0,
        size: NEW_BYTES,
        meta: META,
        basis,
        form,
    }
}

fn data(bytes: &[u8]) -> Vec<u8> {
    [&data_header(STREAM, 0, bytes.len())[..], bytes].concat()
}

fn end(root: [u8; 32]) -> Vec<u8> {
    let mut out = Vec::new();
    let outcome = EndOutcome::Complete(root);
    End { file: 0, outcome }.encode(STREAM, &mut out);
    out
}

fn world() -> Guarded {
    let world = Guarded::new();
    fs::write(world.share().join("f"), noise(BASIS_BYTES, 1)).unwrap();
    world
}

/// What the server says of file 0.
fn settled(frame: &Frame) -> SettledResult {
    let mut results = SettledReader::new(&frame.payload);
    results.next_result().unwrap().unwrap().1
}

/// Sends a patch with `plan`, and waits for the end of the connection.
fn refused(world: &mut Guarded, form: PatchForm, plan: &[u8]) -> Fault {
    let fault = world.serve_while(|address| {
        let (mut client, id) = offered(address);
        client.send_message(&patch(id, form));
        plan.chunks(1 << 20).for_each(|part| client.send(&data(part)));
        client.send(&end([0; 32]));
        client.expect_close()
    });
    assert!(
        fs::read(world.share().join("f")).unwrap() == noise(BASIS_BYTES, 1),
        "the old version is gone"
    );
    fault
}

/// Row 10: plans that copy from beyond the basis, make more or less than was announced, or are garbage.
#[test]
fn row_10_plans_that_cannot_be_followed_are_refused() {
    let mut world = world();
    let plan = |ops: &dyn Fn(&mut PlanEncoder)| {
        let mut encoder = PlanEncoder::new();
        ops(&mut encoder);
        encoder.finish();
        encoder.take_output()
    };
    let plans = [
        plan(&|plan| plan.copy(BASIS_BYTES as u64 - 10, 20)),
        plan(&|plan| plan.copy(u64::MAX - 5, 3)),
        plan(&|plan| plan.copy(0, NEW_BYTES + 1)),
        plan(&|plan| plan.copy(0, NEW_BYTES - 1)),
        plan(&|plan| {
            plan.copy(0, NEW_BYTES);
            plan.literal(b"x");
        }),
        noise(5_000, 3),
        vec![0; 100],
        vec![0xff; 100],
    ];
    for (number, plan) in plans.iter().enumerate() {
        for form in [PatchForm::Plan, PatchForm::Squeezed, PatchForm::Prefix] {
            let fault = refused(&mut world, form, plan);
            assert_eq!(fault.code, CloseCode::Protocol, "plan {number} as {form:?}: {fault:?}");
        }
    }
    assert!(
        !world.share().join(".syncline/staging").exists(),
        "something is left in staging"
    );
    world.check();
}

/// Row 12: a plan that unfolds beyond what was announced is refused, and costs no memory.
#[cfg(feature = "zstd")]
#[test]
fn row_12_a_compressed_bomb_is_refused() {
    use harness::guard::resident_bytes;
    let mut world = world();
    let mut squeezer = syncline::delta::squeeze::Squeezer::new(1 << 30);
    let mut bomb = Vec::new();
    for _ in 0..512 {
        squeezer.push(&vec![0; 1 << 20], &mut bomb);
    }
    squeezer.flush(&mut bomb);
    assert!(bomb.len() < 1 << 20, "{} bytes are no bomb", bomb.len());
    let before = resident_bytes();
    let fault = refused(&mut world, PatchForm::Squeezed, &bomb[..bomb.len().min(120_000)]);
    assert!(
        matches!(fault.code, CloseCode::Protocol | CloseCode::Limit),
        "{fault:?}"
    );
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for a bomb");
    world.check();
}

/// Rows 10 and 11: more plan than a file of that size can need.
#[test]
fn row_11_a_plan_without_end_is_cut() {
    let mut world = world();
    let fault = refused(&mut world, PatchForm::Plan, &vec![7; 400_000]);
    assert!(
        matches!(fault.code, CloseCode::Limit | CloseCode::Protocol),
        "{fault:?}"
    );
    world.check();
}

/// I8, row 23: a patch that leads to something else than the announced root is not published, and the
/// file is asked for again.
#[test]
fn row_23_a_patch_with_another_root_is_not_published() {
    let mut world = world();
    let result = world.serve_while(|address| {
        let (mut client, id) = offered(address);
        client.send_message(&patch(id, PatchForm::Plan));
        let mut encoder = PlanEncoder::new();
        encoder.copy(0, NEW_BYTES);
        encoder.finish();
        client.send(&data(&encoder.take_output()));
        client.send(&end([9; 32]));
        settled(&client.expect(FrameType::Settled))
    });
    assert_eq!(result, SettledResult::Resend);
    assert!(fs::read(world.share().join("f")).unwrap() == noise(BASIS_BYTES, 1));
    world.check();
}

/// Row 55: the server's file is replaced between the naming and the patch. The patch is not applied to
/// what it was not made for.
#[test]
fn row_55_a_basis_that_changed_is_not_patched() {
    let mut world = world();
    let target = world.share().join("f");
    let other = noise(BASIS_BYTES, 2);
    let result = world.serve_while(|address| {
        let (mut client, id) = offered(address);
        fs::write(&target, &other).unwrap();
        client.send_message(&patch(id, PatchForm::Plan));
        let mut encoder = PlanEncoder::new();
        encoder.copy(0, NEW_BYTES);
        encoder.finish();
        client.send(&data(&encoder.take_output()));
        let expected = &noise(BASIS_BYTES, 1)[..NEW_BYTES as usize];
        client.send(&end(content_id(expected).root));
        settled(&client.expect(FrameType::Settled))
    });
    assert_ne!(result, SettledResult::Committed);
    assert!(
        fs::read(world.share().join("f")).unwrap() == other,
        "what was edited meanwhile is gone"
    );
    world.check();
}

/// Rows 16, 25: nothing is told of a file that is not wanted, of another content, or of more files at a
/// time than agreed.
#[test]
fn row_25_only_the_bases_of_wanted_files_are_told_about() {
    let mut world = world();
    fs::write(world.share().join("secret"), b"the other file of the share").unwrap();
    let ask = |file, topic| Ask {
        file,
        topic,
        body: &[0; 8],
    };
    for (file, topic) in [(1, Topic::Signature), (7, Topic::Index), (u32::MAX, Topic::Tree)] {
        let fault = world.serve_while(|address| {
            let (mut client, _) = offered(address);
            client.send_message(&ask(file, topic));
            client.expect_close()
        });
        assert_eq!(fault.code, CloseCode::Protocol, "{file} {topic:?}");
    }
    // A patch of a content that was not named.
    let fault = world.serve_while(|address| {
        let (mut client, _) = offered(address);
        client.send_message(&patch(content_id(b"what else?"), PatchForm::Plan));
        client.expect_close()
    });
    assert_eq!(fault.code, CloseCode::Protocol);
    // The same question twice, while the first is open.
    let fault = world.serve_while(|address| {
        let (mut client, _) = offered(address);
        for _ in 0..=ASKED_MAX {
            client.send_message(&ask(0, Topic::Signature));
        }
        client.expect_close()
    });
    assert_eq!(fault.code, CloseCode::Protocol);
    world.check();
}

/// A question is answered about the file as it was named, in order, and the signature is a signature.
#[test]
fn a_question_is_answered_and_the_file_may_still_come_whole() {
    let mut world = world();
    world.serve_while(|address| {
        let (mut client, id) = offered(address);
        assert_eq!(id, content_id(&noise(BASIS_BYTES, 1)));
        let body = &77u64.to_le_bytes();
        client.send_message(&Ask {
            file: 0,
            topic: Topic::Signature,
            body,
        });
        let mut told = Vec::new();
        loop {
            let frame = client.expect(FrameType::Tell);
            let tell = Tell::decode(&frame.payload).unwrap();
            assert_eq!((tell.file, tell.topic), (0, Topic::Signature));
            told.extend_from_slice(tell.body);
            if tell.last {
                break;
            }
        }
        let signature = syncline::delta::signature::Signature::parse(&told).unwrap();
        assert_eq!(signature.length(), BASIS_BYTES as u64);
        let mut failed = Vec::new();
        let outcome = EndOutcome::Failed(ItemCode::Vanished);
        End { file: 0, outcome }.encode(STREAM, &mut failed);
        client.send(&failed);
        client.send(&list_end(1));
        let frame = client.expect(FrameType::Finish);
        assert_eq!(Finish::decode(&frame.payload).unwrap(), Finish::Done { deleted: 0 });
    });
    assert!(!holds(&world.share().join(".syncline"), b"CANARY"));
    world.check();
}

/// I12: a file that has nothing in common with its basis is sent as a plan of its size, and what was sent
/// of that is not kept.
#[test]
fn row_11_a_long_plan_takes_no_memory() {
    const BYTES: usize = 40 << 20;
    let mut world = Guarded::new();
    let source = world.path("long");
    let link = world.link("");
    fs::write(&source, noise(BYTES, 21)).unwrap();
    world.push(&[&source], &link, TransferOptions::default()).assert_clean();
    fs::write(&source, noise(BYTES, 22)).unwrap();
    let time = std::time::SystemTime::now() + std::time::Duration::from_secs(2);
    fs::File::options()
        .write(true)
        .open(&source)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let client = Client::start(
        world.client_options("client-home"),
        push_job(&[&source], &link),
        TransferOptions::default(),
    );
    let before = harness::guard::resident_bytes();
    let mut peak = 0;
    let run = world.drive(client.unwrap(), |_, _| {
        peak = peak.max(harness::guard::resident_bytes());
    });
    run.assert_clean();
    let grown = peak.saturating_sub(before);
    assert!(grown < BYTES as u64 / 2, "{grown} bytes for {BYTES}");
    world.check();
}
