//! Rows 16 to 18 of the threats: what a peer may ask for, learn, and delete.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::guard::Guarded;
use harness::offers::{delete, exclude, file, inline, link_of, offer, path};
use harness::raw::{RawClient, STREAM, Step, against, push_begin};
use harness::{push_job, snapshot};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use syncline::conn::Event;
use syncline::model::ItemCode;
use syncline::node::{Client, ClientEvent, JobError, MaxDelete, TransferOptions};
use syncline::wire::{
    Answers, BeginFlags, Brake, FrameType, ListEnd, Message, PullSource, SettledReader, SettledResult, TargetKind,
    Verdict,
};

/// Row 16: a server cannot ask for anything that was not offered to it.
#[test]
fn row_16_a_server_gets_only_files_of_the_session() {
    let world = Guarded::new();
    let source = world.path("source");
    fs::create_dir_all(source.join("dir")).unwrap();
    fs::write(source.join("file"), b"public").unwrap();
    let verdicts = |list: &[Verdict]| {
        let mut answers = Answers::default();
        list.iter().for_each(|verdict| answers.push(*verdict));
        let mut out = Vec::new();
        answers.flush(STREAM, &mut out);
        out
    };
    let replies = [
        // More answers than offers: files that were never listed.
        verdicts(&[Verdict::WantNew; 40]),
        // The content of a directory.
        verdicts(&[Verdict::Have, Verdict::WantNew, Verdict::Have]),
        settled(3, SettledResult::Resend),
        settled(2, SettledResult::Committed),
    ];
    for (number, reply) in replies.into_iter().enumerate() {
        let (outcome, _) = against(
            world.client_options("client-home"),
            |address| push_job(&[&source], &link_of(address, "")),
            TransferOptions::default(),
            TargetKind::Directory,
            Box::new(move |_, step| match step {
                Step::Event(Event::Offered) => reply.clone(),
                _ => Vec::new(),
            }),
        );
        assert!(
            matches!(outcome.result, Err(JobError::Protocol { .. })),
            "case {number}: {:?}",
            outcome.result
        );
        assert_eq!(outcome.summary.files_transferred, 0, "case {number}");
    }
    world.check();
}

fn settled(file: u32, result: SettledResult) -> Vec<u8> {
    let mut writer = syncline::wire::SettledWriter::default();
    writer.push(file, result);
    let mut out = Vec::new();
    writer.flush(STREAM, &mut out);
    out
}

/// Row 16: what was offered as a file and has become a link since is not read through.
#[test]
fn row_16_an_offered_file_that_became_a_link_is_not_read() {
    let world = Guarded::new();
    let source = world.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), b"public").unwrap();
    let (victim, secret) = (source.join("file"), world.canary().join("secret"));
    let (outcome, events) = against(
        world.client_options("client-home"),
        |address| push_job(&[&world.path("source/")], &link_of(address, "")),
        TransferOptions::default(),
        TargetKind::Directory,
        Box::new(move |machine, step| {
            match step {
                Step::Event(Event::Offered) => {
                    fs::remove_file(&victim).unwrap();
                    symlink(&secret, &victim).unwrap();
                    machine.receiver().unwrap().answer(Verdict::WantNew);
                }
                Step::Event(Event::Inline(inline)) => panic!("sent {} bytes", inline.bytes.len()),
                Step::Event(Event::Start(_)) => panic!("sent through the link"),
                _ => {}
            }
            if let Some(receiver) = machine.receiver()
                && receiver.is_complete()
            {
                receiver.finish(syncline::wire::Finish::Done { deleted: 0 });
            }
            Vec::new()
        }),
    );
    assert_eq!(outcome.result, Ok(()));
    assert_eq!(outcome.summary.failed, 1, "{events:?}");
    world.check();
}

/// Row 17: what a server says of failures holds codes and the peer's own paths, never contents or
/// paths of its own.
#[test]
fn row_17_error_texts_hold_a_code_and_the_peers_own_path_only() {
    let mut world = Guarded::new();
    let share = world.share();
    fs::create_dir_all(share.join("full/of-secrets-inside")).unwrap();
    fs::write(share.join("kept"), b"SERVER-SIDE-CONTENT").unwrap();
    let (heard, faults) = world.serve_while(|address| {
        let mut heard = Vec::new();
        let mut faults = Vec::new();
        // A directory in the way, and content that is not what it claims to be.
        let mut client = RawClient::open(address);
        client.begin(&push_begin());
        client.send(&offer(0, &[file("full", 9), file("kept", 9)]));
        client.expect(FrameType::Answer);
        let mut forged = inline(1, b"PEER-DATA");
        let last = forged.len() - 1;
        forged[last] ^= 1;
        client.send(&forged);
        let frame = client.expect(FrameType::Settled);
        let result = SettledReader::new(&frame.payload).next_result().unwrap();
        assert_eq!(result, Some((1, SettledResult::Resend)));
        client.send(&inline(99, b"PEER-DATA"));
        faults.push(client.expect_close());
        heard.extend(client.heard);
        for wanted in ["missing", "kept/below"] {
            let mut client = RawClient::open(address);
            let mut begin = push_begin();
            begin.direction = syncline::wire::Direction::Pull;
            begin.sources = vec![PullSource {
                path: Some(path(wanted)),
                contents_only: false,
            }];
            client.send_message(&begin);
            faults.push(client.expect_close());
            heard.extend(client.heard);
        }
        (heard, faults)
    });
    let own = share.display().to_string();
    for secret in ["SERVER-SIDE", "of-secrets", "PEER-DATA", own.as_str()] {
        let found = heard.windows(secret.len()).any(|part| part == secret.as_bytes());
        assert!(!found, "{secret} was told: {faults:?}");
    }
    assert_eq!(fs::read(share.join("kept")).unwrap(), b"SERVER-SIDE-CONTENT");
    world.check();
}

/// Row 18: a source that could not be listed completely deletes nothing.
#[test]
fn row_18_an_incomplete_list_deletes_nothing() {
    let mut world = Guarded::new();
    let share = world.share();
    fs::write(share.join("precious"), b"x").unwrap();
    let finish = world.serve_while(|address| {
        let mut client = RawClient::open(address);
        let mut begin = push_begin();
        begin.flags = BeginFlags {
            delete: true,
            ..BeginFlags::default()
        };
        begin.brake = Brake::Unlimited;
        begin.scopes = vec![None];
        client.begin(&begin);
        client.send_message(&ListEnd {
            entries: 0,
            complete: false,
            top: None,
        });
        let frame = client.expect(FrameType::Finish);
        syncline::wire::Finish::decode(&frame.payload).unwrap()
    });
    assert_eq!(finish, syncline::wire::Finish::Incomplete);
    // A directory that cannot be read, as a user who is not root has it.
    let source = world.path("source");
    fs::create_dir_all(source.join("closed")).unwrap();
    fs::set_permissions(source.join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
    if fs::read_dir(source.join("closed")).is_err() {
        let contents = world.path("source/");
        let pushed = world.push(&[&contents], &world.link(""), delete());
        assert_eq!(pushed.outcome.result, Err(JobError::IncompleteSource));
        assert_eq!(pushed.failures(), ["closed Permission"]);
    } else {
        eprintln!("row_18, unreadable directory: skipped, this user may read everything");
    }
    assert_eq!(fs::read(share.join("precious")).unwrap(), b"x");
    world.check();
}

/// Row 18: a source that is gone by the time it is read is an error, not an empty source.
#[test]
fn row_18_a_vanished_source_deletes_nothing() {
    let mut world = Guarded::new();
    fs::write(world.share().join("precious"), b"x").unwrap();
    let (source, contents) = (world.path("source"), world.path("source/"));
    let start = |world: &Guarded| {
        fs::create_dir(&source).unwrap();
        fs::write(source.join("f"), b"f").unwrap();
        let job = push_job(&[&contents], &world.link(""));
        Client::start(world.client_options("client-home"), job, delete()).unwrap()
    };
    // Before the server is ready.
    let client = start(&world);
    fs::remove_dir_all(&source).unwrap();
    let run = world.drive(client, |_, _| {});
    assert!(
        matches!(run.outcome.result, Err(JobError::Source { .. })),
        "{:?}",
        run.outcome
    );
    // At every moment of the session: what can be removed at most is what was in the source.
    for turn in 0..12 {
        let client = start(&world);
        let mut turns = 0;
        let run = world.drive(client, |_, _| {
            if turns == turn {
                let _ = fs::remove_dir_all(&source);
            }
            turns += 1;
        });
        let _ = fs::remove_dir_all(&source);
        let left = fs::read(world.share().join("precious"));
        if left.is_err() {
            // The list was complete before the source went: that is an ordinary deletion.
            let listed = run.failures() == ["f Vanished"] || world.share().join("f").exists();
            assert!(listed, "turn {turn}: deleted on an empty list");
        }
        fs::write(world.share().join("precious"), b"x").unwrap();
        let _ = fs::remove_file(world.share().join("f"));
    }
    world.check();
}

/// Row 18: the brake stops an empty source from emptying the share, and stops nothing else.
#[test]
fn row_18_the_brake_stops_an_empty_source() {
    let mut world = Guarded::new();
    let share = world.share();
    for number in 0..40 {
        fs::write(share.join(format!("f{number}")), b"x").unwrap();
    }
    fs::create_dir(world.path("empty")).unwrap();
    let contents = world.path("empty/");
    let link = world.link("");
    let refused = |world: &mut Guarded, brake: MaxDelete| {
        let options = TransferOptions {
            max_delete: brake,
            ..delete()
        };
        let run = world.push(&[&contents], &link, options);
        assert_eq!(
            run.outcome.result,
            Err(JobError::MassDelete {
                deletions: 40,
                existing: 40
            })
        );
        assert_eq!(run.outcome.summary.deleted, 0);
    };
    refused(&mut world, MaxDelete::Default);
    refused(&mut world, MaxDelete::Count(39));
    refused(&mut world, MaxDelete::Percent(99));
    assert_eq!(snapshot(&share).len(), 40);
    // The same brake guards a pull into a full folder.
    let target = world.path("target");
    world
        .pull(&world.link("/"), &target, TransferOptions::default())
        .assert_clean();
    for number in 0..40 {
        fs::remove_file(share.join(format!("f{number}"))).unwrap();
    }
    let pulled = world.pull(&world.link("/"), &target, delete());
    assert!(matches!(pulled.outcome.result, Err(JobError::MassDelete { .. })));
    assert_eq!(snapshot(&target).len(), 40);
    let options = TransferOptions {
        max_delete: MaxDelete::Percent(100),
        ..delete()
    };
    let pulled = world.pull(&world.link("/"), &target, options);
    pulled.assert_clean();
    assert_eq!(pulled.outcome.summary.deleted, 40);
    assert!(snapshot(&target).is_empty());
    world.check();
}

/// Row 18: what the user's rules leave out is not deleted either, in both directions, whether the
/// source is a directory or its contents.
#[test]
fn row_18_excluded_files_are_protected_from_deletion() {
    let mut world = Guarded::new();
    let source = world.path("docs");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("text"), b"x").unwrap();
    fs::write(source.join("anchored"), b"local").unwrap();
    let rules = |anchored: &str| TransferOptions {
        delete: true,
        ..exclude(&["*.key", "cache/", anchored])
    };
    let fill = |root: &Path| {
        fs::create_dir_all(root.join("cache/deep")).unwrap();
        fs::write(root.join("cache/deep/c"), b"c").unwrap();
        fs::write(root.join("my.key"), b"key").unwrap();
        fs::write(root.join("anchored"), b"theirs").unwrap();
        fs::write(root.join("stale"), b"goes").unwrap();
    };
    let protected = |root: &Path, what: &str| {
        assert!(!root.join("stale").exists(), "{what}: stale is still there");
        assert!(root.join("my.key").exists(), "{what}: my.key is gone");
        assert!(root.join("cache/deep/c").exists(), "{what}: cache is gone");
        assert_eq!(fs::read(root.join("anchored")).unwrap(), b"theirs", "{what}");
    };
    // The whole directory: rules are anchored at what is named, as in rsync.
    let there = world.share().join("docs");
    fill(&there);
    world
        .push(&[&source], &world.link(""), rules("/docs/anchored"))
        .assert_clean();
    protected(&there, "push of a directory");
    // Its contents.
    fill(&there);
    let contents = world.path("docs/");
    world
        .push(&[&contents], &world.link("/docs"), rules("/anchored"))
        .assert_clean();
    protected(&there, "push of contents");
    for (link, target, anchored, place) in [
        ("/docs", "here", "/docs/anchored", "here/docs"),
        ("/docs/", "there", "/anchored", "there"),
    ] {
        fill(&world.path(place));
        let (link, target) = (world.link(link), world.path(target));
        world.pull(&link, &target, rules(anchored)).assert_clean();
        protected(&world.path(place), link.to_string().as_str());
    }
    world.check();
}

/// Row 17, for the user: a failure names the entry and a code.
#[test]
fn row_17_a_failure_of_a_pull_names_the_entry_and_a_code() {
    let mut world = Guarded::new();
    fs::write(world.share().join("name"), b"SERVER-SIDE-CONTENT").unwrap();
    let target = world.path("target");
    fs::create_dir_all(target.join("name/full")).unwrap();
    let pulled = world.pull(&world.link("/"), &target, TransferOptions::default());
    let failed: Vec<_> = pulled
        .events
        .iter()
        .filter(|event| matches!(event, ClientEvent::Failed { .. }))
        .collect();
    assert!(
        matches!(&failed[..], [ClientEvent::Failed { path, code: ItemCode::InTheWay, warning: false }] if path == "name"),
        "{failed:?}"
    );
    world.check();
}
