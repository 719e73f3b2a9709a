//! Rows 1 to 4 of the threats, paths and links, against a real server and a real client.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::guard::{Guarded, holds};
use harness::offers::{META, delete, exclude, file, inline, link_of, link_to, list_end, offer};
use harness::raw::{RawClient, STREAM, Step, against, forge, push_begin};
use harness::{pull_job, push_job, snapshot};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use syncline::conn::Origin;
use syncline::model::{CloseCode, Entry, Kind, RelPath};
use syncline::node::{Client, JobError, MaxDelete, TransferOptions};
use syncline::wire::{Answers, FrameType, Message, PullSource, RemovedWriter, TargetKind};

const BAD_PATHS: [&[u8]; 12] = [
    b"..",
    b"../x",
    b"a/../../x",
    b"/etc/x",
    b"a/./b",
    b"a//b",
    b"a/",
    b"a\0b",
    b".",
    b".syncline",
    b"a/.SYNCLINE/x",
    b".syncline/staging/x",
];

/// Row 1: whatever field an illegal path stands in, the server closes with a named error.
#[test]
fn row_01_illegal_paths_are_refused_by_the_server_in_every_field() {
    let mut world = Guarded::new();
    for bad in BAD_PATHS {
        let offered = forge(bad, |path| {
            offer(
                0,
                &[Entry {
                    path: path.clone(),
                    ..file("x", 1)
                }],
            )
        });
        let begun = |edit: &dyn Fn(&mut syncline::wire::Begin, &RelPath)| {
            forge(bad, |path| {
                let mut begin = push_begin();
                edit(&mut begin, path);
                let mut out = Vec::new();
                begin.encode(STREAM, &mut out);
                out
            })
        };
        let target = begun(&|begin, path| begin.target = Some(path.clone()));
        let scope = begun(&|begin, path| {
            begin.flags.delete = true;
            begin.scopes = vec![Some(path.clone())];
        });
        let source = begun(&|begin, path| {
            begin.direction = syncline::wire::Direction::Pull;
            begin.sources = vec![PullSource {
                path: Some(path.clone()),
                contents_only: false,
            }];
        });
        let faults = world.serve_while(move |address| {
            let mut faults = Vec::new();
            let mut client = RawClient::open(address);
            client.begin(&push_begin());
            client.send(&offered);
            faults.push(client.expect_close());
            for begin in [target, scope, source] {
                let mut client = RawClient::open(address);
                client.send(&begin);
                faults.push(client.expect_close());
            }
            faults
        });
        for fault in faults {
            assert_eq!(fault.code, CloseCode::Protocol, "{bad:?}: {fault}");
        }
    }
    assert_eq!(
        fs::read_dir(world.share()).unwrap().count(),
        1,
        "only our own directory"
    );
    world.check();
}

/// Row 1, the other way: a server's illegal path ends the pull and touches nothing.
#[test]
fn row_01_illegal_paths_are_refused_by_the_client() {
    let world = Guarded::new();
    for (number, bad) in BAD_PATHS.iter().enumerate() {
        let target = world.path(&format!("target-{number}"));
        let offered = forge(bad, |path| {
            offer(
                0,
                &[Entry {
                    path: path.clone(),
                    ..file("x", 1)
                }],
            )
        });
        let (outcome, _) = against(
            world.client_options("client-home"),
            |address| pull_job(&link_of(address, "/"), &target),
            TransferOptions::default(),
            TargetKind::Directory,
            Box::new(move |_, step| match step {
                Step::Began(_) => offered.clone(),
                Step::Event(_) => Vec::new(),
            }),
        );
        assert!(
            matches!(outcome.result, Err(JobError::Protocol { .. })),
            "{:?}",
            outcome.result
        );
        assert!(snapshot(&target).is_empty());
    }
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    let removed = forge(b"../x", |path| {
        let mut writer = RemovedWriter::default();
        writer.push(path);
        let mut out = Vec::new();
        writer.flush(STREAM, &mut out);
        out
    });
    let (outcome, _) = against(
        world.client_options("client-home"),
        |address| push_job(&[&source], &link_of(address, "")),
        delete(),
        TargetKind::Directory,
        Box::new(move |_, step| match step {
            Step::Began(_) => removed.clone(),
            Step::Event(_) => Vec::new(),
        }),
    );
    assert!(matches!(outcome.result, Err(JobError::Protocol { .. })));
    world.check();
}

/// Runs a pull of `wanted` against a server that offers `entries` and sends everything it is asked for.
fn pull_from_liar(
    world: &Guarded,
    wanted: &str,
    target: &Path,
    transfer: TransferOptions,
    kind: TargetKind,
    entries: Vec<Entry>,
) -> Result<(), JobError> {
    let (outcome, _) = against(
        world.client_options("client-home"),
        |address| pull_job(&link_of(address, wanted), target),
        transfer,
        kind,
        Box::new(move |machine, step| {
            let Some(sender) = machine.sender() else {
                return Vec::new();
            };
            if let Step::Began(_) = step {
                for entry in &entries {
                    let origin = Origin {
                        source: 0,
                        path: entry.path.clone(),
                    };
                    sender.offer(entry, None, origin);
                }
                sender.list_end(true, None);
            }
            while sender.next_read().is_some() {
                let bytes = b"from the liar";
                sender.inline(&META, syncline::delta::content_id(bytes).root, bytes);
            }
            Vec::new()
        }),
    );
    outcome.result
}

/// Row 2: what was not asked for is a fault of the server, and nothing of it is written.
#[test]
fn row_02_a_server_sends_what_nobody_asked_for() {
    let world = Guarded::new();
    let directory = |text: &str| Entry {
        kind: Kind::Directory,
        ..file(text, 0)
    };
    let cases: [(&str, TargetKind, TransferOptions, Vec<Entry>); 7] = [
        (
            "/docs",
            TargetKind::Directory,
            TransferOptions::default(),
            vec![file(".bashrc", 13)],
        ),
        (
            "/docs",
            TargetKind::Directory,
            TransferOptions::default(),
            vec![file("docs2/x", 13)],
        ),
        (
            "/a/docs",
            TargetKind::Directory,
            TransferOptions::default(),
            vec![file("a/docs/x", 13)],
        ),
        (
            "/file",
            TargetKind::File,
            TransferOptions::default(),
            vec![directory("file")],
        ),
        (
            "/file",
            TargetKind::File,
            TransferOptions::default(),
            vec![file("other", 13)],
        ),
        (
            "/",
            TargetKind::Directory,
            exclude(&["*.key"]),
            vec![file("sub/my.key", 13)],
        ),
        (
            "/docs",
            TargetKind::Directory,
            exclude(&["private/"]),
            vec![file("docs/private/deep/x", 13)],
        ),
    ];
    for (number, (wanted, kind, transfer, entries)) in cases.into_iter().enumerate() {
        let target = world.path(&format!("target-{number}"));
        let result = pull_from_liar(&world, wanted, &target, transfer, kind, entries);
        assert!(
            matches!(result, Err(JobError::Protocol { .. })),
            "case {number}: {result:?}"
        );
        let clean = !target.exists() || snapshot(&target).is_empty();
        assert!(clean, "case {number}: {:?}", snapshot(&target));
    }
    // The same liar with what was asked for: the test would notice if nothing ever worked.
    let target = world.path("target");
    let honest = vec![directory("docs"), file("docs/x", 13)];
    let options = exclude(&["docs", "*.key"]);
    pull_from_liar(&world, "/docs", &target, options, TargetKind::Directory, honest).unwrap();
    assert_eq!(fs::read(target.join("docs/x")).unwrap(), b"from the liar");
    world.check();
}

/// Row 2: content that was never wanted is refused by both ends.
#[test]
fn row_02_content_without_a_wish_is_refused() {
    let mut world = Guarded::new();
    fs::write(world.share().join("same"), b"1234567890123").unwrap();
    let fault = world.serve_while(|address| {
        let mut client = RawClient::open(address);
        client.begin(&push_begin());
        client.send(&inline(0, b"never offered"));
        client.expect_close()
    });
    assert_eq!(fault.code, CloseCode::Protocol);
    let target = world.path("target");
    let (outcome, _) = against(
        world.client_options("client-home"),
        |address| pull_job(&link_of(address, "/"), &target),
        TransferOptions::default(),
        TargetKind::Directory,
        Box::new(|_, step| match step {
            Step::Began(_) => inline(7, b"never offered"),
            Step::Event(_) => Vec::new(),
        }),
    );
    assert!(matches!(outcome.result, Err(JobError::Protocol { .. })));
    assert!(snapshot(&target).is_empty());
    world.check();
}

/// Row 3: a link that somebody planted in the share is not written through, read through, or
/// deleted through.
#[test]
fn row_03_a_symlink_planted_in_the_share_is_never_followed() {
    let mut world = Guarded::new();
    let (share, canary) = (world.share(), world.canary());
    symlink(&canary, share.join("trap")).unwrap();
    symlink(canary.join("secret"), share.join("file-trap")).unwrap();
    let source = world.path("source");
    fs::create_dir_all(source.join("trap")).unwrap();
    fs::write(source.join("trap/secret"), b"overwritten").unwrap();
    fs::write(source.join("trap/new"), b"new").unwrap();
    fs::write(source.join("fine"), b"fine").unwrap();
    let contents = world.path("source/");
    let pushed = world.push(&[&contents], &world.link(""), TransferOptions::default());
    assert_eq!(pushed.outcome.result, Ok(()));
    assert_eq!(
        pushed.failures(),
        ["trap InTheWay", "trap/new InTheWay", "trap/secret InTheWay"]
    );
    assert_eq!(fs::read(share.join("fine")).unwrap(), b"fine");
    for behind in ["/trap/secret", "/trap/", "/trap/sub/f0"] {
        let target = world.path("pulled");
        let pulled = world.pull(&world.link(behind), &target, TransferOptions::default());
        assert!(
            pulled.outcome.result.is_err() || pulled.outcome.summary.files_transferred == 0,
            "{behind}: {:?}",
            pulled.outcome
        );
        assert!(!holds(&target, b"CANARY"), "{behind}");
        let _ = fs::remove_dir_all(&target);
    }
    let target = world.path("pulled");
    world
        .pull(&world.link("/"), &target, TransferOptions::default())
        .assert_clean();
    assert_eq!(fs::read_link(target.join("trap")).unwrap(), canary);
    assert!(!holds(&target, b"CANARY"));
    fs::remove_dir_all(source.join("trap")).unwrap();
    world.push(&[&contents], &world.link(""), delete()).assert_clean();
    assert!(
        fs::symlink_metadata(share.join("trap")).is_err(),
        "the link itself goes"
    );
    world.check();
}

/// Row 3: a peer that first makes a link and then writes through it in the same transfer.
#[test]
fn row_03_a_link_and_a_file_behind_it_in_one_transfer() {
    let mut world = Guarded::new();
    let canary = world.canary().display().to_string();
    let entries = vec![
        link_to("d", &canary),
        file("d/planted", 13),
        link_to("up", ".."),
        file("up/planted", 13),
    ];
    let offered = offer(0, &entries);
    let settled = world.serve_while(move |address| {
        let mut client = RawClient::open(address);
        client.begin(&push_begin());
        client.send(&offered);
        client.send(&list_end(4));
        let mut wants = 0;
        loop {
            let frame = client.next().expect("the server goes on");
            match frame.kind {
                FrameType::Answer => {
                    let runs = Answers::decode(&frame.payload).unwrap();
                    wants += runs.iter().filter(|run| run.verdict.is_want()).count();
                }
                FrameType::Finish => return wants,
                FrameType::Close => panic!("closed"),
                _ => {}
            }
        }
    });
    assert_eq!(settled, 0, "files behind the links are refused at once");
    assert!(!world.path("planted").exists());
    let target = world.path("target");
    let entries = vec![link_to("d", &canary), file("d/planted", 13)];
    pull_from_liar(
        &world,
        "/",
        &target,
        TransferOptions::default(),
        TargetKind::Directory,
        entries,
    )
    .unwrap();
    world.check();
}

/// Leaves the transfer some turns in which it gets on, and many in which it is caught.
const SWAP_PAUSE: std::time::Duration = std::time::Duration::from_micros(150);

/// Swaps `directory` for a link to `canary` and back until told to stop.
fn swap_until(stop: &AtomicBool, directory: &Path, away: &Path, canary: &Path) {
    while !stop.load(Ordering::Relaxed) {
        if fs::rename(directory, away).is_err() {
            // The transfer under test may have made or removed a name; start over.
            continue;
        }
        let _ = symlink(canary, directory);
        std::thread::sleep(SWAP_PAUSE);
        if fs::symlink_metadata(directory).is_ok_and(|found| found.is_symlink()) {
            let _ = fs::remove_file(directory);
        }
        let _ = fs::rename(away, directory);
        std::thread::sleep(SWAP_PAUSE);
    }
}

/// Row 4: while pushes, pulls and deletions run, a directory is swapped for a link to the canary.
#[test]
fn row_04_a_parent_swapped_for_a_symlink_never_leads_outside() {
    const ROUNDS: usize = 10;
    const FILES: usize = 40;
    let mut world = Guarded::in_memory();
    let (share, canary) = (world.share(), world.canary());
    let (source, empty) = (world.path("source"), world.path("empty"));
    fs::create_dir_all(source.join("d/sub")).unwrap();
    fs::create_dir_all(empty.join("d/sub")).unwrap();
    let contents = |root: &Path| root.join("");
    fs::create_dir_all(share.join("d/sub")).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (directory, away) = (share.join("d"), share.join("away"));
        scope.spawn(|| {
            let (directory, away, canary) = (directory, away, canary.clone());
            swap_until(&stop, &directory, &away, &canary);
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..ROUNDS {
                for number in 0..FILES {
                    let text = format!("content {round} {number}");
                    fs::write(source.join(format!("d/f{number}")), &text).unwrap();
                    fs::write(source.join(format!("d/sub/f{number}")), &text).unwrap();
                }
                world.push(&[&contents(&source)], &world.link(""), TransferOptions::default());
                let target = world.path(&format!("pulled-{round}"));
                world.pull(&world.link("/"), &target, TransferOptions::default());
                assert!(!holds(&target, b"CANARY"), "round {round}: read through the link");
                let options = TransferOptions {
                    max_delete: MaxDelete::Unlimited,
                    ..delete()
                };
                world.push(&[&contents(&empty)], &world.link(""), options);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    assert!(!holds(&share, b"CANARY"));
    world.check();
}

/// Row 4: a directory that is moved out of the tree while a transfer works in it gets nothing more.
#[test]
fn row_04_a_directory_moved_away_is_not_worked_in() {
    const LINKS: usize = 2_500;
    let mut world = Guarded::in_memory();
    let entries = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
    let source = world.path("source");
    fs::create_dir_all(source.join("d")).unwrap();
    for number in 0..LINKS {
        symlink("nowhere", source.join(format!("d/l{number}"))).unwrap();
    }
    let (share, target) = (world.share(), world.path("target"));
    for direction in ["push", "pull"] {
        let (job, top) = match direction {
            "push" => (push_job(&[&world.path("source/")], &world.link("")), &share),
            _ => (pull_job(&world.link("/"), &target), &target),
        };
        let moved = world.path(&format!("moved-{direction}"));
        let mut then = 0;
        let options = TransferOptions::default();
        let client = Client::start(world.client_options("client-home"), job, options).unwrap();
        world.world.drive(client, |_, _| {
            if then == 0 && entries(&top.join("d")) > 100 {
                fs::rename(top.join("d"), &moved).unwrap();
                then = entries(&moved);
            }
        });
        assert!(
            (100..LINKS).contains(&then),
            "{direction}: moved in the middle, at {then}"
        );
        assert_eq!(entries(&moved), then, "{direction}");
        let _ = fs::remove_dir_all(share.join("d"));
        fs::create_dir_all(share.join("d")).unwrap();
        for number in 0..LINKS {
            symlink("nowhere", share.join(format!("d/l{number}"))).unwrap();
        }
    }
    world.check();
}
