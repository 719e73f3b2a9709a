//! Rows 50, 52 and 53 of the threats: files that change while they are sent, sizes that are only said.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::edits::{drive_and, noise, staged};
use harness::guard::{Guarded, resident_bytes};
use harness::offers::{META, file, offer};
use harness::raw::{RawClient, push_begin};
use harness::{pull_job, push_job, snapshot};
use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use syncline::delta::content_id;
use syncline::model::limits::OFFER_WINDOW;
use syncline::model::{CloseCode, ContentId, Entry, ItemCode};
use syncline::node::{Client, TransferOptions};
use syncline::wire::{End, EndOutcome, FrameType, Hole, SettledReader, SettledResult, Start};

/// Row 50: a file is cut short under its mapping while it is sent, in both directions.
#[test]
fn row_50_a_file_truncated_under_its_mapping_is_read_again() {
    const LENGTH: usize = 20 << 20;
    let mut world = Guarded::new();
    let content = noise(LENGTH, 1);
    let (source, share) = (world.path("file"), world.share());
    for (round, cut) in [(2, 5_000_000), (6, 4_096), (9, 0), (14, 17_000_001)] {
        for direction in ["push", "pull"] {
            let (from, to) = match direction {
                "push" => (source.clone(), share.join("file")),
                _ => (share.join("file"), source.clone()),
            };
            let _ = fs::remove_file(&to);
            fs::write(&from, &content).unwrap();
            let job = match direction {
                "push" => push_job(&[&from], &world.link("/")),
                _ => pull_job(&world.link("/file"), &to),
            };
            let client = Client::start(world.client_options("home"), job, TransferOptions::default()).unwrap();
            let run = drive_and(&mut world, client, |turn| {
                if turn == round {
                    File::options().write(true).open(&from).unwrap().set_len(cut).unwrap();
                }
            });
            assert_eq!(run.outcome.result, Ok(()), "{direction} {round}");
            match fs::read(&to) {
                Ok(arrived) => assert!(
                    arrived == content || arrived == content[..cut as usize],
                    "{direction} {round}: {} bytes of neither version",
                    arrived.len()
                ),
                Err(_) => assert_eq!(run.failures(), ["file Changing"], "{direction} {round}"),
            }
        }
    }
    world.check();
}

/// Row 52: sizes that are only declared cost nothing, and what cannot be stored fails by name.
#[test]
fn row_52_declared_sizes_take_no_memory_and_no_room() {
    const HUGE: u64 = i64::MAX as u64;
    let mut world = Guarded::new();
    let before = resident_bytes();
    let results = world.world.serve_while(|address| {
        let mut client = RawClient::open(address);
        client.begin(&push_begin());
        client.send(&offer(0, &[file("whole", HUGE), file("sparse", HUGE)]));
        client.expect(FrameType::Answer);
        let start = |file, sparse| Start {
            file,
            size: HUGE,
            sparse,
            meta: META,
        };
        client.send_message(&start(0, false));
        let mut results = vec![client.expect(FrameType::Settled).payload];
        client.send_message(&End {
            file: 0,
            outcome: EndOutcome::Failed(ItemCode::DiskFull),
        });
        client.send_message(&start(1, true));
        client.send_message(&Hole { file: 1, length: HUGE });
        let mut zeros = syncline::delta::TreeHasher::new();
        zeros.update_zeros(HUGE);
        let outcome = EndOutcome::Complete(zeros.finish().root);
        client.send_message(&End { file: 1, outcome });
        results.push(client.expect(FrameType::Settled).payload);
        results
    });
    for (file, payload) in results.iter().enumerate() {
        let result = SettledReader::new(payload).next_result().unwrap();
        let Some((number, SettledResult::Failed(code))) = result else {
            panic!("{file}: {result:?}");
        };
        assert_eq!(number as usize, file);
        assert!(matches!(code, ItemCode::TooLarge | ItemCode::DiskFull), "{code:?}");
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more");
    assert_eq!(snapshot(&world.share()), Vec::<String>::new());
    world.check();
}

/// Row 52: a sender that does not wait for answers is stopped at the window.
#[test]
fn row_52_more_offers_than_the_window_are_refused() {
    let mut world = Guarded::new();
    let fault = world.world.serve_while(|address| {
        let mut client = RawClient::open(address);
        client.begin(&push_begin());
        // All of them are wanted, and none is ever sent.
        let entries: Vec<Entry> = (0..=OFFER_WINDOW)
            .map(|number| file(&format!("f{number}"), 10))
            .collect();
        for (part, entries) in entries.chunks(1_000).enumerate() {
            client.send(&offer(u32::try_from(part * 1_000).unwrap(), entries));
        }
        client.expect_close()
    });
    assert_eq!(fault.code, CloseCode::Limit);
    world.check();
}

/// Row 53: a file is edited between the steps of its transfer. Whatever is published is one of the
/// states that the file had at some moment, and what keeps changing is given up by name.
#[test]
fn row_53_mixed_content_is_never_published() {
    const LENGTH: u64 = 6 << 20;
    let mut world = Guarded::new();
    let share = world.share();
    let mut given_up = 0;
    for (round, edits) in [(0, 1u32), (1, 2), (2, 5), (3, 1_000)] {
        for direction in ["push", "pull"] {
            let (from, to) = match direction {
                "push" => (world.path("file"), share.join("file")),
                _ => (share.join("file"), world.path("file")),
            };
            fs::write(&from, noise(LENGTH as usize, round)).unwrap();
            let _ = fs::remove_file(&to);
            let job = match direction {
                "push" => push_job(&[&from], &world.link("/")),
                _ => pull_job(&world.link("/file"), &to),
            };
            let client = Client::start(world.client_options("home"), job, TransferOptions::default()).unwrap();
            let file = File::options().write(true).open(&from).unwrap();
            let mut states: HashSet<ContentId> = HashSet::from([content_id(&fs::read(&from).unwrap())]);
            let mut left = edits;
            let run = drive_and(&mut world, client, |turn| {
                if turn >= 3 && left > 0 {
                    left -= 1;
                    // Before and after what has been sent already; the size stays.
                    for at in [0, LENGTH / 2, LENGTH - 8] {
                        file.write_all_at(&[turn as u8; 8], at).unwrap();
                    }
                    states.insert(content_id(&fs::read(&from).unwrap()));
                }
            });
            assert_eq!(run.outcome.result, Ok(()));
            match fs::read(&to) {
                Ok(arrived) => assert!(states.contains(&content_id(&arrived)), "{direction}: a mixture"),
                Err(_) => {
                    given_up += 1;
                    assert_eq!(run.failures(), ["file Changing"]);
                }
            }
            assert_eq!(staged(&share), 0);
        }
    }
    assert!(given_up >= 1, "a file that changes all the time is given up");
    world.check();
}

/// Row 53: an editor that replaces the file by rename, from another thread, while it is pushed again
/// and again.
#[test]
fn row_53_a_file_replaced_by_rename_is_always_one_version() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let mut world = Guarded::new();
    let (source, fresh) = (world.path("file"), world.path("fresh"));
    let version = |number: u8| vec![number; 300_000 + usize::from(number) * 1_000];
    fs::write(&source, version(0)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..200).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                fs::write(&fresh, version(number)).unwrap();
                fs::rename(&fresh, &source).unwrap();
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..15 {
                let run = world.push(&[&source], &world.link("/"), TransferOptions::default());
                assert_eq!(run.outcome.result, Ok(()));
                if let Ok(arrived) = fs::read(world.share().join("file")) {
                    assert_eq!(arrived, version(arrived[0]));
                }
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    world.check();
}

/// Row 50: holes stay holes, at the start, in the middle and at the end.
#[test]
fn row_50_holes_arrive_as_holes() {
    let mut world = Guarded::new();
    let source = world.path("sparse");
    let file = File::create(&source).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(&noise(100_000, 1), 10 << 20).unwrap();
    file.write_all_at(&noise(5_000, 2), 40 << 20).unwrap();
    drop(file);
    let run = world.push(&[&source], &world.link("/"), TransferOptions::default());
    run.assert_clean();
    let arrived = world.share().join("sparse");
    assert_eq!(fs::read(&source).unwrap(), fs::read(&arrived).unwrap());
    let stored = fs::metadata(&arrived).unwrap().blocks() * 512;
    assert!(stored < 1 << 20, "{stored} bytes on disk");
    assert!(run.outcome.summary.wire_sent < 1 << 20);
    world.check();
}
