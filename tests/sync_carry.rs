//! What a sync carries from one folder to the others: every kind of entry, every kind of change.
#![cfg(feature = "sync")]
#![allow(clippy::unwrap_used)]

mod harness;

use harness::breaks::{broken_off, restart};
use harness::edits::noise;
use harness::syncing::{copies, counting_relay, is_kept, options, put, put_noise, texts, tree};
use harness::{World, push_job};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use syncline::node::{Action, ClientEvent, Job, TransferOptions};

/// Two devices that have the same `files`.
fn pair(files: &[(&str, &str)]) -> World {
    let mut world = World::new();
    world.make("a", files);
    world.make("b", &[]);
    world.sync_all(&["a", "b"]);
    world.assert_same(&["a", "b"]);
    world
}

/// From `a` to everybody, without a conflict or a failure.
#[track_caller]
fn carried(world: &mut World) {
    world.sync_all(&["a", "b"]);
    world.assert_same(&["a", "b"]);
    assert_eq!(copies(&world.share()), [""; 0]);
}

// The first sync is a union: nothing of either side is missing afterwards.
#[test]
fn a_first_sync_unites_both_sides() {
    let mut world = World::new();
    put(&world.share(), "there/s", "of the server");
    world.make("a", &[("here/a", "of a"), ("same", "same")]);
    world.make("b", &[("b", "of b"), ("same", "same")]);
    world.sync_all(&["a", "b", "a"]);
    world.assert_same(&["a", "b"]);
    let found = texts(&world.share());
    let found: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(found, ["b", "here/a", "same", "there/s"]);
}

// Edits, deletions and moves of files arrive, and what gave way is kept on both sides.
#[test]
fn edits_deletions_and_moves_of_files_travel() {
    let mut world = pair(&[
        ("edit", "old"),
        ("delete", "gone"),
        ("d/move", "moved"),
        ("stay", "stays"),
    ]);
    let a = world.folder("a");
    put(&a, "edit", "new text");
    fs::remove_file(a.join("delete")).unwrap();
    fs::create_dir(a.join("e")).unwrap();
    fs::rename(a.join("d/move"), a.join("e/moved")).unwrap();
    carried(&mut world);
    let expected = [("e/moved", "moved"), ("edit", "new text"), ("stay", "stays")];
    let expected = expected.map(|(path, text)| (path.to_owned(), text.to_owned()));
    assert_eq!(texts(&world.folder("b")), expected.into());
    for place in [world.share(), world.folder("b")] {
        assert!(is_kept(&place, "old") && is_kept(&place, "gone"), "{place:?}");
    }
}

// A server's own user counts as anybody else: what is edited, made and deleted in the share travels.
#[test]
fn edits_on_the_server_travel() {
    let mut world = pair(&[("x", "1"), ("y", "2")]);
    put(&world.share(), "x", "edited there");
    put(&world.share(), "new/z", "made there");
    fs::remove_file(world.share().join("y")).unwrap();
    let mut client = world.sync_client("a", harness::syncing::watching());
    let folder = world.folder("a");
    world.poll_until(&mut [&mut client], |_| {
        texts(&folder).len() == 2 && folder.join("new/z").exists() && texts(&folder)["x"] == "edited there"
    });
    drop(client);
    carried(&mut world);
}

// What a plain push brings to a share that others sync has a revision like all else.
#[test]
fn a_plain_push_reaches_those_who_sync() {
    let mut world = pair(&[("x", "1")]);
    put(world.dir.path(), "pushed", "by hand");
    let (source, link) = (world.path("pushed"), world.link("/"));
    let run = world.run(push_job(&[&source], &link), TransferOptions::default());
    run.assert_clean();
    carried(&mut world);
    assert_eq!(texts(&world.folder("b"))["pushed"], "by hand");
}

// A file becomes a directory, a directory a file, a link either.
#[test]
fn entries_change_their_kinds() {
    let mut world = pair(&[
        ("f2d", "file"),
        ("d2f/in", "in it"),
        ("f2l", "file"),
        ("d2l/in/deep", "deep"),
    ]);
    let a = world.folder("a");
    symlink("somewhere", a.join("l2f")).unwrap();
    symlink("elsewhere", a.join("l2d")).unwrap();
    carried(&mut world);
    fs::remove_file(a.join("f2d")).unwrap();
    put(&a, "f2d/in", "now in it");
    fs::remove_dir_all(a.join("d2f")).unwrap();
    put(&a, "d2f", "now a file");
    fs::remove_file(a.join("f2l")).unwrap();
    symlink("x", a.join("f2l")).unwrap();
    fs::remove_dir_all(a.join("d2l")).unwrap();
    symlink("y", a.join("d2l")).unwrap();
    fs::remove_file(a.join("l2f")).unwrap();
    put(&a, "l2f", "a file");
    fs::remove_file(a.join("l2d")).unwrap();
    put(&a, "l2d/in", "of a directory");
    carried(&mut world);
    assert!(is_kept(&world.share(), "in it") && is_kept(&world.folder("b"), "deep"));
}

// A directory that was removed and made again here is as good as the one that was agreed on: it gives way.
#[test]
fn a_directory_that_was_made_anew_gives_way() {
    let mut world = pair(&[("x", "1")]);
    let (a, b) = (world.folder("a"), world.folder("b"));
    fs::create_dir(a.join("d")).unwrap();
    carried(&mut world);
    fs::create_dir(b.join("other")).unwrap();
    fs::rename(b.join("d"), world.path("aside")).unwrap();
    fs::rename(b.join("other"), b.join("d")).unwrap();
    fs::remove_dir(a.join("d")).unwrap();
    put(&a, "d", "a file now");
    carried(&mut world);
    assert_eq!(texts(&b)["d"], "a file now");
}

// Mode and time alone travel, and no content for them.
#[test]
fn a_mode_and_a_time_travel_alone() {
    let mut world = pair(&[("f", "content"), ("d/in", "x")]);
    let a = world.folder("a");
    fs::set_permissions(a.join("f"), Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(a.join("d"), Permissions::from_mode(0o700)).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    fs::File::options()
        .write(true)
        .open(a.join("d/in"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    let run = world.sync("a");
    run.assert_clean();
    assert_eq!(run.outcome.summary.literal_bytes, 0);
    let run = world.sync("b");
    run.assert_clean();
    assert_eq!(run.outcome.summary.literal_bytes, 0, "{:?}", run.events);
    world.assert_same(&["a", "b"]);
    assert_eq!(
        fs::metadata(world.folder("b").join("d/in"))
            .unwrap()
            .modified()
            .unwrap(),
        time
    );
}

// Empty directories, empty files, and names that are no text.
#[test]
fn empty_entries_and_odd_names_travel() {
    let mut world = pair(&[]);
    let a = world.folder("a");
    fs::create_dir_all(a.join("empty/inner")).unwrap();
    for name in [
        &b"n\xff\xfe"[..],
        b"line\nbreak",
        b" lead",
        b"back\\slash",
        "\u{202e}abc".as_bytes(),
    ] {
        fs::write(a.join(OsStr::from_bytes(name)), "x").unwrap();
    }
    fs::write(a.join("nothing"), "").unwrap();
    carried(&mut world);
    assert_eq!(tree(&world.folder("b")).len(), 8);
    fs::remove_dir_all(a.join("empty")).unwrap();
    fs::rename(
        a.join(OsStr::from_bytes(b"n\xff\xfe")),
        a.join(OsStr::from_bytes(b"\xfe")),
    )
    .unwrap();
    carried(&mut world);
}

// Only the case of a name changes: no content travels, and nothing is a conflict.
#[test]
fn a_rename_of_case_is_a_move() {
    let mut world = pair(&[("Report.txt", "text of the report")]);
    let a = world.folder("a");
    fs::rename(a.join("Report.txt"), a.join("report.txt")).unwrap();
    let runs = [world.sync("a"), world.sync("b")];
    for run in &runs {
        run.assert_clean();
        assert_eq!(run.outcome.summary.literal_bytes, 0, "{:?}", run.events);
        assert_eq!(run.items(), ["report.txt Moved"]);
    }
    carried(&mut world);
}

// A swap of two names, and a chain of moves: all of it at once.
#[test]
fn names_change_places() {
    let mut world = pair(&[("1", "one"), ("2", "two!"), ("3", "three"), ("4", "four?!")]);
    let a = world.folder("a");
    fs::rename(a.join("1"), a.join("t")).unwrap();
    fs::rename(a.join("2"), a.join("1")).unwrap();
    fs::rename(a.join("t"), a.join("2")).unwrap();
    fs::rename(a.join("4"), a.join("5")).unwrap();
    fs::rename(a.join("3"), a.join("4")).unwrap();
    carried(&mut world);
    let found: Vec<String> = texts(&world.folder("b")).into_values().collect();
    assert_eq!(found, ["two!", "one", "three", "four?!"]);
}

// A directory of many files gets another name: their content stays where it is, on all sides.
#[test]
fn a_renamed_directory_sends_no_content() {
    const FILES: usize = 10_000;
    let mut world = World::in_memory(&harness::WorldOptions::default());
    let a = world.make("a", &[]);
    world.make("b", &[]);
    fs::create_dir(a.join("old")).unwrap();
    for number in 0..FILES {
        fs::write(a.join(format!("old/file-{number}")), format!("{number:0>200}")).unwrap();
    }
    world.sync_all(&["a", "b"]);
    fs::rename(a.join("old"), a.join("new")).unwrap();
    let mut moved = std::collections::HashMap::from([("a", 0), ("b", 0)]);
    // The server may still be numbering the moves when the other one asks: then the rest comes with its next run.
    for name in std::iter::once("a").chain(std::iter::repeat_n("b", 50)) {
        if moved[name] == FILES {
            break;
        }
        let run = world.sync(name);
        run.assert_clean();
        let summary = &run.outcome.summary;
        assert_eq!((summary.literal_bytes, summary.files_transferred), (0, 0), "{name}");
        let wire = summary.wire_sent + summary.wire_received;
        assert!(wire < 200 * FILES as u64, "{name}: {wire} bytes for {FILES} moves");
        let is_moved = |event: &&ClientEvent| {
            matches!(
                event,
                ClientEvent::Item {
                    action: Action::Moved,
                    ..
                }
            )
        };
        // Each move is two changes, and each change has one revision; a few are seen before they are told of.
        let told = run.events.iter().find_map(|event| match event {
            ClientEvent::InSync { revision, .. } => Some(revision.0),
            _ => None,
        });
        assert!(
            told.is_none_or(|revision| revision < 32 * FILES as u64 / 10),
            "{name}: {told:?}"
        );
        *moved.get_mut(name).unwrap() += run.events.iter().filter(is_moved).count();
    }
    assert_eq!((moved["a"], moved["b"]), (FILES, FILES));
    assert_eq!(fs::read_dir(world.folder("b").join("new")).unwrap().count(), FILES);
    assert!(!world.folder("b").join("old").exists() && !world.share().join("old").exists());
}

// Of a large file that changed a little, little travels, in both directions.
#[test]
fn a_large_file_travels_as_a_delta() {
    let mut world = pair(&[]);
    let a = world.folder("a");
    put_noise(&a, "large", 4 << 20, 1);
    carried(&mut world);
    let mut content = noise(4 << 20, 1);
    content[2_000_000..2_000_100].fill(7);
    fs::write(a.join("large"), &content).unwrap();
    for name in ["a", "b"] {
        let run = world.sync(name);
        run.assert_clean();
        let wire = run.outcome.summary.wire_sent + run.outcome.summary.wire_received;
        assert!(wire < 400_000, "{name}: {wire}");
    }
    world.assert_same(&["a", "b"]);
}

// A large file whose transfer breaks off goes on where it was.
#[test]
fn a_large_file_goes_on_after_a_break() {
    let mut world = World::new();
    let a = world.make("a", &[]);
    put_noise(&a, "large", 24 << 20, 2);
    let job = Job::Sync {
        folder: a,
        link: Some(world.link("")),
        options: options(),
    };
    let (relay, _) = counting_relay(world.address, 16 << 20);
    let Job::Sync { folder, link, options } = job else {
        unreachable!()
    };
    let through = link
        .unwrap()
        .to_string()
        .replace(&world.address.to_string(), &relay.to_string());
    let client = world.sync_by("a", through.parse().unwrap(), options);
    let run = world.drive(client, |_, _| {});
    assert!(run.outcome.result.is_err(), "{:?}", run.outcome);
    assert!(folder.join("large").exists());
    let run = world.sync("a");
    run.assert_clean();
    assert!(run.outcome.summary.resumed_bytes > 4 << 20, "{:?}", run.outcome.summary);
    world.assert_same(&["a"]);
}

// Row 11 of the invariants: where nothing changed nothing is said, nothing is read, and nothing is done.
#[test]
fn nothing_to_do_is_next_to_nothing() {
    let mut world = World::new();
    let a = world.make("a", &[]);
    for number in 0..2000 {
        put(&a, &format!("d{}/f{number}", number % 20), "x");
    }
    world.sync_all(&["a"]);
    let read = |path: &std::path::Path| fs::metadata(path).unwrap().accessed().unwrap();
    let before: Vec<SystemTime> = (0..2000).map(|n| read(&a.join(format!("d{}/f{n}", n % 20)))).collect();
    let (relay, counted) = counting_relay(world.address, u64::MAX);
    let link = world
        .link("")
        .to_string()
        .replace(&world.address.to_string(), &relay.to_string());
    let client = world.sync_by("a", link.parse().unwrap(), options());
    let run = world.drive(client, |_, _| {});
    run.assert_clean();
    assert_eq!(run.items(), [""; 0]);
    assert!(
        counted.load(Ordering::Relaxed) <= 1024,
        "{}",
        counted.load(Ordering::Relaxed)
    );
    let after: Vec<SystemTime> = (0..2000).map(|n| read(&a.join(format!("d{}/f{n}", n % 20)))).collect();
    assert_eq!(before, after, "a file was read");
}

// What the rules leave out stays where it is, on each side for itself, and so does litter.
#[test]
fn what_is_ignored_stays_where_it_is() {
    let mut world = pair(&[(".synclineignore", "*.tmp\n/cache/\n"), ("kept", "k")]);
    let a = world.folder("a");
    put(&a, "x.tmp", "ignored");
    put(&a, "cache/deep/file", "ignored");
    put(&a, "sub/cache", "not ignored: another place");
    put(&a, ".DS_Store", "litter");
    put(&world.share(), "server.tmp", "ignored there");
    carried_but(
        &mut world,
        &[
            "x.tmp",
            "cache",
            "cache/deep",
            "cache/deep/file",
            ".DS_Store",
            "server.tmp",
        ],
    );
    let found: Vec<String> = texts(&world.folder("b")).into_keys().collect();
    assert_eq!(found, [".synclineignore", "kept", "sub/cache"]);
    // A file that was synced and becomes ignored is deleted nowhere.
    put(&a, ".synclineignore", "*.tmp\n/cache/\nkept\n");
    fs::remove_file(a.join("kept")).unwrap();
    world.sync_all(&["a", "b"]);
    assert!(world.folder("b").join("kept").exists() && world.share().join("kept").exists());
}

// A deletion does not reach what is ignored: its directory stays, for this device alone, and fails no run.
#[test]
fn a_deleted_directory_stays_for_what_is_ignored_in_it() {
    let mut world = pair(&[(".synclineignore", "*.tmp\n"), ("d/sub/1", "1"), ("d/2", "2")]);
    let (a, b) = (world.folder("a"), world.folder("b"));
    world.sync_all(&["a", "b"]);
    put(&b, "d/sub/own.tmp", "of b alone");
    fs::remove_dir_all(a.join("d")).unwrap();
    // Run after run.
    world.sync_all(&["a", "b", "b", "a", "b"]);
    assert!(!world.share().join("d").exists() && !a.join("d").exists());
    let found: Vec<String> = texts(&b).into_keys().collect();
    assert_eq!(found, [".synclineignore", "d/sub/own.tmp"]);
    // Once something in it takes part, so does the directory.
    put(&b, "d/3", "3");
    world.sync_all(&["b", "a"]);
    assert_eq!(texts(&a)["d/3"], "3");
    assert!(!a.join("d/sub").exists());
    // It comes back from elsewhere as well, and goes again.
    put(&a, "d/sub/4", "4");
    world.sync_all(&["a", "b"]);
    assert_eq!(texts(&b)["d/sub/4"], "4");
    fs::remove_dir_all(a.join("d")).unwrap();
    fs::remove_file(b.join("d/sub/own.tmp")).unwrap();
    world.sync_all(&["a", "b"]);
    assert!(!b.join("d").exists() && !world.share().join("d").exists());
}

#[track_caller]
fn carried_but(world: &mut World, left_out: &[&str]) {
    world.sync_all(&["a", "b"]);
    let is_kept = |line: &String| !left_out.iter().any(|path| line.starts_with(&format!("{path:?} ")));
    let tree = |root: &std::path::Path| -> Vec<String> { tree(root).into_iter().filter(is_kept).collect() };
    for name in ["a", "b"] {
        assert_eq!(tree(&world.folder(name)), tree(&world.share()), "{name}");
    }
}

// A FIFO is told of and left alone; the rest is synced.
#[test]
fn what_is_no_file_is_left_out() {
    let mut world = pair(&[("x", "1")]);
    let fifo = world.folder("a").join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    put(&world.folder("a"), "y", "2");
    let run = world.sync("a");
    assert_eq!(run.outcome.result, Ok(()));
    assert_eq!(run.warnings(), ["fifo Special"]);
    assert_eq!(texts(&world.share()).len(), 2);
    assert!(fs::symlink_metadata(&fifo).is_ok());
}

// The first sync with a share of very many files: bounded rounds on both sides.
#[test]
fn a_share_of_twenty_thousand_files_arrives() {
    const FILES: usize = 20_000;
    let mut world = World::in_memory(&harness::WorldOptions::default());
    for directory in 0..20 {
        let directory = world.share().join(format!("d{directory}"));
        fs::create_dir(&directory).unwrap();
        for number in 0..FILES / 20 {
            fs::write(directory.join(format!("f{number}")), format!("{number}")).unwrap();
        }
    }
    world.make("a", &[("own", "x")]);
    let run = world.sync("a");
    run.assert_clean();
    assert_eq!(run.outcome.summary.files_transferred, FILES as u64 + 1);
    assert_eq!(texts(&world.folder("a")).len(), FILES + 1);
    let run = world.sync("a");
    assert_eq!(run.items(), [""; 0]);
}

// A large pull by hand from a share that is synced is no sync, and breaks like any other.
#[test]
fn a_pull_beside_a_sync_is_what_it_was() {
    let mut world = pair(&[("x", "1")]);
    put_noise(&world.share(), "large", 3 << 20, 3);
    world.sync_all(&["a"]);
    let target = world.path("target");
    fs::create_dir(&target).unwrap();
    let job = harness::pull_job(&world.link("/large"), &target);
    broken_off(&mut world, "other", &job, TransferOptions::default(), 1 << 20);
    let run = world.run(job, TransferOptions::default());
    run.assert_clean();
    assert_eq!(fs::read(target.join("large")).unwrap(), noise(3 << 20, 3));
}

// The same on the server's disk: what is ignored there holds its directory there, and nobody else hears of that.
#[test]
fn a_deleted_directory_stays_on_the_server_for_what_is_ignored_in_it() {
    let mut world = pair(&[
        (".synclineignore", "*.tmp\n"),
        ("d/sub/1", "1"),
        ("d/2", "2"),
        ("e/3", "3"),
    ]);
    let (a, b, share) = (world.folder("a"), world.folder("b"), world.share());
    world.sync_all(&["a", "b"]);
    put(&share, "d/sub/own.tmp", "of the server alone");
    put(&share, "e/.DS_Store", "litter");
    for top in ["d", "e"] {
        fs::remove_dir_all(a.join(top)).unwrap();
    }
    world.sync_all(&["a"]);
    for name in ["a", "b", "a", "b"] {
        let run = world.sync(name);
        run.assert_clean();
        let is_deletion = |item: &String| item.ends_with("Deleted");
        assert!(run.items().iter().all(is_deletion), "{name}: {:?}", run.items());
        assert!(!a.join("d").exists() && !share.join("e").exists());
    }
    assert!(!b.join("d").exists() && !b.join("e").exists());
    let there: Vec<String> = texts(&share).into_keys().collect();
    assert_eq!(there, [".synclineignore", "d/sub/own.tmp"]);
    // Also when the server looks through everything anew.
    restart(&mut world);
    for name in ["a", "b"] {
        assert_eq!(world.sync(name).items(), [] as [&str; 0], "{name}");
    }
    assert!(!a.join("d").exists() && !b.join("d").exists());
    // It comes back with whatever takes part in it, from any side: an empty directory, too.
    fs::create_dir(a.join("d")).unwrap();
    world.sync_all(&["a", "b", "a"]);
    assert!(b.join("d").exists() && !b.join("d/sub").exists());
    put(&share, "d/sub/4", "4");
    world.sync_all(&["a", "b"]);
    assert_eq!((&*texts(&a)["d/sub/4"], &*texts(&b)["d/sub/4"]), ("4", "4"));
    fs::remove_dir_all(b.join("d")).unwrap();
    world.sync_all(&["b", "a"]);
    assert!(!a.join("d").exists());
    assert_eq!(texts(&share)["d/sub/own.tmp"], "of the server alone");
}
