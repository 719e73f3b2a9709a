//! Names that are one to a file system that folds case or normalises Unicode: kept apart without loss, whichever
//! side folds; and renames that change nothing but the case.
//!
//! The file system is one in memory, over FUSE, in a mount namespace of a child process, so that it is gone with the
//! child whatever happens.
#![cfg(feature = "sync")]
#![allow(clippy::unwrap_used)]

mod binary;
mod folding;
mod harness;
#[path = "sync_names/respelling.rs"]
mod respelling;
#[path = "sync_names/story.rs"]
mod story;

use binary::Sandbox;
use folding::Folding;
use harness::syncing::{copies, options, put, texts, watching};
use harness::{Run, World, WorldOptions, child};
use std::fs;
use std::path::{Path, PathBuf};
use syncline::node::{Action, ClientEvent, TransferOptions};

const NAMESPACE: [&str; 2] = ["unshare", "-m"];

/// Whether such a file system can be mounted; says so if not.
fn may_mount(test: &str) -> bool {
    let works = Path::new("/dev/fuse").exists()
        && std::process::Command::new("unshare")
            .args(["-m", "true"])
            .status()
            .is_ok_and(|status| status.success());
    if !works {
        println!("SKIPPED {test}: there is no /dev/fuse, or nobody but root may mount here");
    }
    works
}

fn in_child(test: &str, scenario: fn()) {
    if child::is(test) {
        return scenario();
    }
    if may_mount(test) {
        let output = child::run(&NAMESPACE, test, test);
        let text = child::text(&output);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}

#[test]
fn the_file_system_of_these_tests_folds() {
    in_child("the_file_system_of_these_tests_folds", || {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("m");
        let _mounted = Folding::mount(&at).unwrap();
        fs::write(at.join("Report.txt"), "one").unwrap();
        assert_eq!(fs::read(at.join("report.TXT")).unwrap(), b"one");
        assert_eq!(fs::read_dir(&at).unwrap().count(), 1);
        fs::rename(at.join("Report.txt"), at.join("report.txt")).unwrap();
        let name = fs::read_dir(&at).unwrap().next().unwrap().unwrap().file_name();
        assert_eq!(name, "Report.txt", "a rename to another spelling does nothing");
        fs::create_dir(at.join("d\u{e9}")).unwrap();
        fs::write(at.join("de\u{301}/x"), vec![7; 300_000]).unwrap();
        assert_eq!(fs::read(at.join("D\u{c9}/X")).unwrap(), vec![7; 300_000]);
        let root = syncline::store::Root::open(&at).unwrap();
        let folding = root.learn_folding();
        assert!(folding.case && folding.marks);
    });
}

/// A folder of a device, or the share, on a file system that folds.
fn folding(world: &World, name: &str) -> (PathBuf, Folding) {
    let folder = world.folder(name);
    let mounted = Folding::mount(&folder).unwrap();
    (folder, mounted)
}

/// A world whose share is on such a file system.
fn folding_share() -> (World, Folding) {
    let mut mounted = None;
    let world = World::prepared(&WorldOptions::default(), |dir| {
        mounted = Some(Folding::mount(&dir.join("share")).unwrap());
    });
    (world, mounted.unwrap())
}

/// `path < what has its place`, or `path > ?` for what the server has no place for.
fn collisions(run: &Run) -> Vec<String> {
    let told = run.events.iter().filter_map(|event| match event {
        ClientEvent::Collision { path, with, is_here } => {
            let with = with.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
            Some(format!("{path} {} {with}", if *is_here { '<' } else { '>' }))
        }
        _ => None,
    });
    told.collect()
}

fn moved(run: &Run) -> Vec<String> {
    let moved = run.events.iter().filter_map(|event| match event {
        ClientEvent::Item {
            path,
            action: Action::Moved,
            ..
        } => Some(path.to_string()),
        _ => None,
    });
    moved.collect()
}

#[track_caller]
fn clean(world: &mut World, name: &str) -> Run {
    let run = world.sync(name);
    run.assert_clean();
    run
}

fn shown(root: &Path) -> Vec<String> {
    texts(root)
        .into_iter()
        .map(|(path, text)| format!("{path}: {text}"))
        .collect()
}

const E_WHOLE: &str = "caf\u{e9}";
const E_PARTS: &str = "cafe\u{301}";

/// What a share has that does not fold.
fn pairs(world: &World) -> Vec<String> {
    let share = world.share();
    for (path, text) in [
        ("Report.txt", "one"),
        ("report.txt", "two"),
        (E_WHOLE, "whole"),
        (E_PARTS, "parts"),
        ("Docs/a", "Docs a"),
        ("Docs/both", "Docs both"),
        ("docs/b", "docs b"),
        ("docs/both", "docs both"),
        ("docs/deep/c", "docs deep c"),
        ("plain", "plain"),
    ] {
        put(&share, path, text);
    }
    shown(&share)
}

// Row 8: a device that folds gets the first of each two; the share keeps all, whatever happens on the device.
#[test]
fn a_device_that_folds_has_the_first_and_loses_none() {
    in_child("a_device_that_folds_has_the_first_and_loses_none", || {
        let mut world = World::new();
        let all = pairs(&world);
        let (b, _mounted) = folding(&world, "b");
        let run = clean(&mut world, "b");
        let told = [
            format!("{E_WHOLE} < {E_PARTS}"),
            "docs < Docs".to_owned(),
            "report.txt < Report.txt".to_owned(),
        ];
        let mut found = collisions(&run);
        found.sort();
        assert_eq!(found, told);
        let first = [
            "Docs/a: Docs a",
            "Docs/both: Docs both",
            "Report.txt: one",
            &format!("{E_PARTS}: parts"),
            "plain: plain",
        ];
        assert_eq!(shown(&b), first);
        assert_eq!(shown(&world.share()), all);
        // Nothing has changed: it is told once more, since nothing is settled, and little travels for that.
        let run = clean(&mut world, "b");
        assert_eq!(collisions(&run).len(), 3);
        assert!(run.outcome.summary.wire_received < 1024, "{:?}", run.outcome.summary);
        assert_eq!((shown(&b).len(), shown(&world.share())), (5, all.clone()));
        // An edit of the first is one of the first; a deletion, too.
        put(&b, "Report.txt", "one, edited on b");
        fs::remove_file(b.join("Docs/both")).unwrap();
        clean(&mut world, "b");
        let share = texts(&world.share());
        assert_eq!(
            (&*share["Report.txt"], &*share["report.txt"]),
            ("one, edited on b", "two")
        );
        assert!(!share.contains_key("Docs/both") && share["docs/both"] == "docs both");
        assert_eq!(share.len(), all.len() - 1);
    });
}

// What had no place comes by itself when it gets a name of its own, or when the other one goes.
#[test]
fn what_had_no_place_comes_when_there_is_one() {
    in_child("what_had_no_place_comes_when_there_is_one", || {
        let mut world = World::new();
        pairs(&world);
        let (b, _mounted) = folding(&world, "b");
        clean(&mut world, "b");
        let share = world.share();
        fs::rename(share.join("report.txt"), share.join("report 2.txt")).unwrap();
        fs::remove_file(share.join(E_PARTS)).unwrap();
        fs::remove_dir_all(share.join("Docs")).unwrap();
        let mut client = world.sync_client("b", watching());
        world.poll_until(&mut [&mut client], |world| shown(&b) == shown(&world.share()));
        drop(client);
        let run = clean(&mut world, "b");
        assert_eq!(collisions(&run), [] as [&str; 0]);
        assert_eq!(texts(&b)["docs/deep/c"], "docs deep c");
        let run = clean(&mut world, "b");
        assert_eq!(run.items(), [] as [&str; 0]);
        world.assert_same(&["b"]);
    });
}

// Row 8: a share on a file system that folds has the first; a device that does not fold keeps both.
#[test]
fn a_share_that_folds_has_the_first_and_the_device_keeps_both() {
    in_child("a_share_that_folds_has_the_first_and_the_device_keeps_both", || {
        let (mut world, _mounted) = folding_share();
        let a = world.make("a", &[("Report.txt", "one"), ("Docs/x", "Docs x"), ("z", "z")]);
        clean(&mut world, "a");
        put(&a, "report.txt", "two");
        put(&a, "docs/x", "docs x");
        put(&a, "docs/y", "docs y");
        fs::rename(a.join("z"), a.join("REPORT.TXT")).unwrap();
        let all = shown(&a);
        for _ in 0..2 {
            let run = clean(&mut world, "a");
            let mut found = collisions(&run);
            found.sort();
            assert_eq!(found, ["REPORT.TXT > ?", "docs > ?", "report.txt > ?"]);
            assert_eq!(shown(&a), all);
            let share = ["Docs/x: Docs x", "Report.txt: one", "z: z"];
            assert_eq!(
                shown(&world.share()),
                share,
                "what z became has no place: z is not deleted"
            );
        }
        // Another device gets what the share has, and what it does to that is done to that.
        world.make("c", &[]);
        clean(&mut world, "c");
        put(&world.folder("c"), "Report.txt", "one of c");
        clean(&mut world, "c");
        clean(&mut world, "a");
        assert_eq!(
            (&*texts(&a)["Report.txt"], &*texts(&a)["report.txt"]),
            ("one of c", "two")
        );
        // Names of their own.
        fs::rename(a.join("docs"), a.join("docs 2")).unwrap();
        fs::rename(a.join("report.txt"), a.join("report 2.txt")).unwrap();
        fs::rename(a.join("REPORT.TXT"), a.join("report 3.txt")).unwrap();
        let run = clean(&mut world, "a");
        assert_eq!(collisions(&run), [] as [&str; 0]);
        clean(&mut world, "c");
        world.assert_same(&["a", "c"]);
        assert_eq!(shown(&a).len(), 6);
    });
}

// Row 8: what is new in a directory that another device made anew in another spelling: it would take the directory
// along, which has no place there any more. Both stay here, and that is told.
#[test]
fn a_directory_that_cannot_come_back_to_a_share_that_folds_is_told() {
    in_child(
        "a_directory_that_cannot_come_back_to_a_share_that_folds_is_told",
        || {
            let (mut world, _mounted) = folding_share();
            let a = world.make("a", &[("d/e/old", "old")]);
            clean(&mut world, "a");
            let c = world.folder("c");
            clean(&mut world, "c");
            fs::remove_dir_all(c.join("d")).unwrap();
            clean(&mut world, "c");
            put(&c, "D/x", "x of c");
            clean(&mut world, "c");
            put(&a, "d/e/new", "new");
            for _ in 0..2 {
                let run = clean(&mut world, "a");
                assert_eq!(collisions(&run), ["d > ?"]);
                assert_eq!(shown(&a), ["D/x: x of c", "d/e/new: new"]);
                assert_eq!(shown(&world.share()), ["D/x: x of c"]);
            }
            fs::rename(a.join("d"), a.join("other")).unwrap();
            clean(&mut world, "a");
            clean(&mut world, "c");
            world.assert_same(&["a", "c"]);
            assert_eq!(shown(&c), ["D/x: x of c", "other/e/new: new"]);
        },
    );
}

// I3: the name of a conflict copy may be that of another one, in another spelling: then it gets the next one.
#[test]
fn a_conflict_copy_whose_name_is_taken_in_another_spelling_gets_another() {
    in_child(
        "a_conflict_copy_whose_name_is_taken_in_another_spelling_gets_another",
        || {
            let mut world = World::new();
            let (b, _mounted) = folding(&world, "b");
            let conflict = |world: &mut World, path: &str| {
                put(&world.share(), path, "of the server");
                put(&b, path, "of b");
                clean(world, "b");
                copies(&b)
            };
            let copy = conflict(&mut world, "plain").remove(0);
            let (date, rest) = copy
                .strip_prefix("plain.sync-conflict-")
                .unwrap()
                .split_at("20261120-2147".len());
            // Every second of this minute; in the next one there is nothing to be seen.
            for second in 0..60 {
                let author = &rest[2..];
                put(
                    &b,
                    &format!("{E_WHOLE}.sync-conflict-{date}{second:02}{author}"),
                    "another",
                );
            }
            conflict(&mut world, E_PARTS);
            let found = texts(&b);
            assert_eq!(found[E_PARTS], "of the server");
            let is_copy = |(path, text): &(&String, &String)| path.starts_with(E_PARTS) && *text == "of b";
            assert_eq!(found.iter().filter(is_copy).count(), 1, "{found:?}");
            assert_eq!(found.len(), 64);
            assert_eq!(shown(&world.share()), shown(&b));
        },
    );
}

// Row 8: what a replica could never have is not missing in it.
#[test]
fn a_replica_that_folds_leaves_the_second_on_the_share() {
    in_child("a_replica_that_folds_leaves_the_second_on_the_share", || {
        let mut world = World::new();
        let all = pairs(&world);
        let (b, _mounted) = folding(&world, "b");
        for path in ["Report.txt", "plain", "Docs/a", "Docs/both", E_PARTS] {
            put(&b, path, &texts(&world.share())[path]);
        }
        put(&b, "Report.txt", "one, of b");
        let replica = || syncline::node::SyncOptions {
            mode: syncline::sync::Mode::OneWayReplica,
            ..options()
        };
        for _ in 0..3 {
            let run = world.sync_with("b", replica());
            run.assert_clean();
            assert_eq!(collisions(&run).len(), 3, "{:?}", collisions(&run));
            let share = texts(&world.share());
            assert_eq!((share.len(), &*share["Report.txt"]), (all.len(), "one, of b"));
        }
        assert_eq!(texts(&b).len(), 5);
        fs::remove_dir_all(b.join("Docs")).unwrap();
        fs::rename(b.join("Report.txt"), b.join("other")).unwrap();
        world.sync_with("b", replica()).assert_clean();
        let run = world.sync_with("b", replica());
        assert_eq!(collisions(&run), [format!("{E_WHOLE} < {E_PARTS}")]);
        let wanted = [
            "caf\u{e9}: whole",
            "cafe\u{301}: parts",
            "other: one, of b",
            "plain: plain",
        ];
        let mut found = shown(&world.share());
        found.sort_by_key(|line| wanted.iter().position(|one| one == line));
        assert_eq!(found, wanted);
    });
}

// Row 8: a folder that is carried to a file system that folds, with what it remembers, has lost a name on the way.
// That was no deletion.
#[test]
fn what_a_copy_of_the_folder_lost_is_not_deleted() {
    in_child("what_a_copy_of_the_folder_lost_is_not_deleted", || {
        let mut world = World::new();
        let all = pairs(&world);
        clean(&mut world, "a");
        let (a, b) = (world.folder("a"), world.folder("b"));
        let (_b, _mounted) = folding(&world, "b");
        let copied = std::process::Command::new("cp")
            .arg("-an")
            .arg(a.join("."))
            .arg(&b)
            .status();
        copied.unwrap();
        clean(&mut world, "b");
        let run = clean(&mut world, "b");
        assert_eq!(collisions(&run).len(), 3, "each is remembered: {:?}", collisions(&run));
        // What the copy brought together in one directory is new there; all that was there is there.
        let found = shown(&world.share());
        assert!(all.iter().all(|one| found.contains(one)), "{found:?}");
    });
}

// Row 8: no spelling that only the file system knows leads into our own directory.
#[test]
fn our_own_directory_is_out_of_reach_under_any_spelling() {
    in_child("our_own_directory_is_out_of_reach_under_any_spelling", || {
        let mut world = World::new();
        put(&world.share(), ".\u{17f}yncline/link", "syncline://evil/Share");
        let (b, _mounted) = folding(&world, "b");
        let run = world.sync("b");
        let link = fs::read_to_string(b.join(".syncline/link")).unwrap();
        assert!(link.contains("127.0.0.1"), "{link}");
        assert!(run.outcome.result.is_ok());
        assert!(world.share().join(".\u{17f}yncline/link").exists());
    });
}

// Protects who looks at the folder and not at the run: what has no place is listed until that is settled.
#[test]
fn collisions_are_told_listed_and_settled() {
    in_child("collisions_are_told_listed_and_settled", || {
        let sandbox = Sandbox::new();
        let _mounted = Folding::mount(&sandbox.path("here")).unwrap();
        for (path, text) in [("Docs/x", "1"), ("docs/x", "2"), ("docs/y", "3"), ("one", "4")] {
            sandbox.file(&format!("share/{path}"), text.as_bytes());
        }
        let served = sandbox.serve(&[]);
        let line = "docs stays on the server only: to this file system its name and Docs are one; rename one of them";
        let run = sandbox.run(&["sync", "here", &served.invite()]);
        assert_eq!(run.code, 4, "{}", run.err);
        assert!(run.err.contains(&format!("collision: {line}\n")), "{}", run.err);
        assert!(run.err.contains("1 name collision · "), "{}", run.err);
        let status = sandbox.run(&["status", "here"]);
        assert!(status.out.contains(&format!("collision  {line}")), "{}", status.out);
        let conflicts = sandbox.run(&["conflicts", "here"]);
        assert_eq!((conflicts.code, &*conflicts.out), (4, &*format!("{line}\n")));
        let object = &sandbox.run(&["conflicts", "here", "--json"]).objects()[0];
        assert_eq!((&object["path"], &object["with"]), (&"docs".into(), &"Docs".into()));
        let doctor = sandbox.run(&["doctor", "here", "--listen", "127.0.0.1:0"]);
        assert!(
            doctor.out.contains("takes names for one that differ only in case"),
            "{}",
            doctor.out
        );
        fs::rename(sandbox.path("here/Docs"), sandbox.path("here/Other")).unwrap();
        sandbox.run(&["sync", "here"]).expect(0);
        assert_eq!(fs::read(sandbox.path("here/docs/y")).unwrap(), b"3");
        assert_eq!(fs::read(sandbox.path("share/Other/x")).unwrap(), b"1");
        let status = sandbox.run(&["status", "here"]);
        assert!(!status.out.contains("collision"), "{}", status.out);
    });
}

// A watch tells of the name that a program used, which need not be the one in the folder.
#[test]
fn a_watch_sees_a_change_under_another_spelling() {
    in_child("a_watch_sees_a_change_under_another_spelling", || {
        let mut world = World::new();
        put(&world.share(), "Docs/Report.txt", "one");
        let (b, _mounted) = folding(&world, "b");
        clean(&mut world, "b");
        let mut client = world.sync_client("b", watching());
        put(&world.share(), "sign", "it watches");
        world.poll_until(&mut [&mut client], |_| b.join("sign").exists());
        put(&b, "docs/REPORT.TXT", "edited");
        let wanted = ["Docs/Report.txt: edited", "sign: it watches"];
        world.poll_until(&mut [&mut client], |world| shown(&world.share()) == wanted);
        fs::remove_file(b.join("DOCS/report.txt")).unwrap();
        world.poll_until(&mut [&mut client], |world| shown(&world.share()) == wanted[1..]);
    });
}

// Row 8: a plain pull or push overwrites nothing either: the second of two names fails, and says why.
#[test]
fn a_pull_and_a_push_overwrite_nothing() {
    in_child("a_pull_and_a_push_overwrite_nothing", || {
        let mut world = World::new();
        pairs(&world);
        let (b, _mounted) = folding(&world, "b");
        let link = world.link("/");
        let wanted = [
            "café",
            "docs",
            "docs/b",
            "docs/both",
            "docs/deep",
            "docs/deep/c",
            "report.txt",
        ];
        for _ in 0..2 {
            let run = world.pull(&link, &b, TransferOptions::default());
            let failed = run.failures();
            assert_eq!(failed.len(), wanted.len(), "{failed:?}");
            assert!(
                wanted.iter().all(|path| failed.iter().any(|line| line.contains(path))),
                "{failed:?}"
            );
            let found = texts(&b);
            assert_eq!(
                (found.len(), &*found["Report.txt"], &*found["Docs/both"]),
                (5, "one", "Docs both")
            );
        }
        let source = world.share();
        let (mut world, _share) = folding_share();
        let link = world.link("/");
        for _ in 0..2 {
            let run = world.push(&[&source.join("")], &link, TransferOptions::default());
            assert_eq!(run.failures().len(), wanted.len(), "{:?}", run.failures());
            let found = texts(&world.share());
            assert_eq!(
                (found.len(), &*found["Report.txt"], &*found["Docs/both"]),
                (5, "one", "Docs both")
            );
        }
    });
}

// I3, I13: random users, one of them on a file system that folds. SYNCLINE_NAMES_SEED replays one story,
// SYNCLINE_NAMES_STORIES tells more of them.
#[test]
fn random_users_lose_nothing() {
    in_child("random_users_lose_nothing", || {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        if let Some(seed) = number("SYNCLINE_NAMES_SEED") {
            return story::tell(seed);
        }
        for seed in 0..number("SYNCLINE_NAMES_STORIES").unwrap_or(8) {
            println!("seed {seed}");
            story::tell(seed);
        }
    });
}
