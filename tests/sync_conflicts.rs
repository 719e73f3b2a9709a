//! Two sides change the same: what stays, what is kept aside, and that nothing is lost on the way.
#![cfg(feature = "sync")]
#![allow(clippy::unwrap_used)]

mod harness;

use harness::syncing::{copies, is_kept, options, put, put_noise, texts};
use harness::{Run, World};
use std::fs;
use syncline::node::ClientEvent;

fn pair(files: &[(&str, &str)]) -> World {
    let mut world = World::new();
    world.make("a", files);
    world.make("b", &[]);
    world.sync_all(&["a", "b"]);
    world
}

fn conflicts(run: &Run) -> Vec<(String, Option<String>)> {
    let told = run.events.iter().filter_map(|event| match event {
        ClientEvent::Conflict { path, copy } => Some((path.to_string(), copy.as_ref().map(ToString::to_string))),
        _ => None,
    });
    told.collect()
}

// Row 54: both contents stay, the server's under the name; the copy has one name everywhere.
#[test]
fn edits_of_two_devices_are_both_kept() {
    let mut world = pair(&[("d/report.docx", "first")]);
    put(&world.folder("a"), "d/report.docx", "edit of a");
    put(&world.folder("b"), "d/report.docx", "edit of b!");
    let run = world.sync("a");
    assert_eq!(conflicts(&run), []);
    let run = world.sync("b");
    assert_eq!(run.outcome.result, Ok(()));
    let told = conflicts(&run);
    let copy = copies(&world.share())[0].clone();
    assert_eq!(told, [("d/report.docx".to_owned(), Some(copy.clone()))]);
    assert!(
        copy.starts_with("d/report.sync-conflict-20") && copy.ends_with(".docx"),
        "{copy}"
    );
    let run = world.sync("a");
    assert_eq!(conflicts(&run), [], "it is no conflict of a");
    world.assert_same(&["a", "b"]);
    let found = texts(&world.folder("a"));
    assert_eq!(found["d/report.docx"], "edit of a");
    assert_eq!(found[&copy], "edit of b!");
    assert_eq!(found.len(), 2);
}

// Row 54: an edit beats a deletion, whichever side it is on.
#[test]
fn an_edit_beats_a_deletion() {
    let mut world = pair(&[("x", "x old"), ("y", "y old"), ("d/z", "z old")]);
    let (a, b) = (world.folder("a"), world.folder("b"));
    put(&a, "x", "x edited");
    fs::remove_file(b.join("x")).unwrap();
    fs::remove_file(a.join("y")).unwrap();
    put(&b, "y", "y edited");
    fs::remove_dir_all(a.join("d")).unwrap();
    put(&b, "d/z", "z edited");
    world.sync_all(&["a", "b", "a"]);
    world.assert_same(&["a", "b"]);
    let found: Vec<String> = texts(&a).into_values().collect();
    assert_eq!(found, ["z edited", "x edited", "y edited"]);
}

// Row 54: the same content on both sides is agreed upon, whatever the clocks say; nothing travels.
#[test]
fn the_same_content_is_no_conflict() {
    let mut world = pair(&[("old", "old")]);
    for name in ["a", "b"] {
        put(&world.folder(name), "new", "the same");
        put(&world.folder(name), "old", "changed alike");
    }
    let old = fs::File::options()
        .write(true)
        .open(world.folder("b").join("new"))
        .unwrap();
    old.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    world.sync_all(&["a"]);
    let run = world.sync("b");
    run.assert_clean();
    assert_eq!((conflicts(&run), run.outcome.summary.literal_bytes), (vec![], 0));
    world.sync_all(&["a"]);
    world.assert_same(&["a", "b"]);
    assert_eq!(texts(&world.share()).len(), 2);
}

// A file of one side, a directory of the other, under one new name.
#[test]
fn a_file_against_a_directory_loses_neither() {
    let mut world = pair(&[]);
    put(&world.folder("a"), "x", "a file");
    put(&world.folder("b"), "x/in", "in a directory");
    world.sync("a");
    world.sync("b");
    world.sync_all(&["a", "b", "a"]);
    world.assert_same(&["a", "b"]);
    let mut found: Vec<String> = texts(&world.share()).into_values().collect();
    found.sort();
    assert_eq!(found, ["a file", "in a directory"]);
}

// A rename on one side, an edit on the other: the edit is not lost.
#[test]
fn a_rename_and_an_edit_lose_nothing() {
    let mut world = pair(&[("x", "old")]);
    fs::rename(world.folder("a").join("x"), world.folder("a").join("y")).unwrap();
    put(&world.folder("b"), "x", "edited by b");
    world.sync_all(&["a", "b", "a"]);
    world.assert_same(&["a", "b"]);
    let found: Vec<String> = texts(&world.share()).into_values().collect();
    assert_eq!(found, ["edited by b", "old"]);
}

/// Drives a sync of `name` and edits its folder before each turn of it, from the first one that `when` says so on.
fn edited_between(world: &mut World, name: &str, mut edit: impl FnMut(u32)) -> Run {
    let client = world.sync_client(name, options());
    let mut turn = 0;
    world.drive(client, |_, _| {
        edit(turn);
        turn += 1;
    })
}

// Row 55: a user writes the file again and again while its new version arrives: each moment is tried.
#[test]
fn an_edit_while_a_download_lands_is_kept() {
    for moment in 0..14 {
        let mut world = pair(&[("x", "old")]);
        put(&world.folder("a"), "x", "new of a");
        world.sync_all(&["a"]);
        let b = world.folder("b");
        edited_between(&mut world, "b", |turn| {
            if turn == moment {
                put(&b, "x", "edit of b in between");
            }
        });
        // What was too late for that run is there for the next one.
        world.sync("b");
        world.sync("a");
        world.sync_all(&["b", "a"]);
        world.assert_same(&["a", "b"]);
        let found = texts(&world.share());
        let has = |text: &str| found.values().any(|found| found == text);
        let a_is_there = has("new of a") || is_kept(&world.share(), "new of a");
        assert!(has("edit of b in between") && a_is_there, "moment {moment}: {found:?}");
    }
}

// Row 55: the file is deleted, or moved, while its new version arrives.
#[test]
fn a_deletion_while_a_download_lands_is_no_loss() {
    for moment in 0..12 {
        let mut world = pair(&[("x", "old")]);
        put(&world.folder("a"), "x", "new of a");
        world.sync_all(&["a"]);
        let b = world.folder("b");
        edited_between(&mut world, "b", |turn| {
            if turn == moment {
                let _ = fs::rename(b.join("x"), b.join("moved"));
            }
        });
        world.sync("b");
        world.sync_all(&["a", "b", "a"]);
        world.assert_same(&["a", "b"]);
        let has = |text: &str| texts(&world.share()).values().any(|found| found == text);
        assert!(has("new of a"), "moment {moment}: {:?}", texts(&world.share()));
    }
}

// A file that is sent is changed, moved away and deleted meanwhile.
#[test]
fn an_edit_while_an_upload_runs_is_sent_next() {
    for moment in 0..14 {
        let mut world = pair(&[("x", "old"), ("y", "old y"), ("z", "old z")]);
        let a = world.folder("a");
        for name in ["x", "y", "z"] {
            put(&a, name, &format!("new of {name}"));
        }
        edited_between(&mut world, "a", |turn| {
            if turn == moment {
                put(&a, "x", "edited in between");
                fs::rename(a.join("y"), a.join("w")).unwrap();
                fs::remove_file(a.join("z")).unwrap();
            }
        });
        world.sync("a");
        world.sync_all(&["a", "b"]);
        world.assert_same(&["a", "b"]);
        let found = texts(&world.share());
        let expected = [("w", "new of y"), ("x", "edited in between")].map(|(p, t)| (p.to_owned(), t.to_owned()));
        assert_eq!(found, expected.into(), "moment {moment}");
    }
}

// The server's user edits while a device sends the same file: both are kept.
#[test]
fn an_edit_on_the_server_while_an_upload_runs_is_kept() {
    for moment in 0..12 {
        let mut world = pair(&[("x", "old")]);
        let (a, share) = (world.folder("a"), world.share());
        put(&a, "x", "new of a");
        edited_between(&mut world, "a", |turn| {
            if turn == moment {
                put(&share, "x", "edit on the server");
            }
        });
        let (mut c, is_done) = (world.sync_client("a", harness::syncing::watching()), {
            let (a, share) = (a.clone(), share.clone());
            move || harness::syncing::tree(&a) == harness::syncing::tree(&share)
        });
        let mut quiet = 0;
        world.poll_until(&mut [&mut c], |_| {
            quiet = if is_done() { quiet + 1 } else { 0 };
            quiet > 60
        });
        drop(c);
        world.sync("a");
        world.sync_all(&["b", "a"]);
        world.assert_same(&["a", "b"]);
        for text in ["new of a", "edit on the server"] {
            let is_there = texts(&share).values().any(|found| found == text);
            let is_known = is_there || is_kept(&share, text) || is_kept(&a, text);
            assert!(is_known, "moment {moment}: {text} is lost: {:?}", texts(&share));
        }
    }
}

// Two devices that sync at the same time, each turn by turn, edit the same and different files.
#[test]
fn two_devices_sync_at_the_same_time() {
    let mut world = pair(&[("both", "old"), ("a", "old a"), ("b", "old b")]);
    for name in ["a", "b"] {
        put(&world.folder(name), name, &format!("edited by {name}"));
        put(&world.folder(name), "both", &format!("{name} edited both"));
        put_noise(&world.folder(name), &format!("large-{name}"), 600_000, 7);
    }
    let mut other = world.sync_client("b", options());
    let client = world.sync_client("a", options());
    let mut told = Vec::new();
    let run = world.drive(client, |_, _| {
        told.extend(other.poll(Some(std::time::Duration::ZERO)).unwrap());
    });
    run.assert_clean();
    match told.iter().any(|event| matches!(event, ClientEvent::Finished(_))) {
        // It lets go of its folder.
        true => drop(other),
        false => world.drive(other, |_, _| {}).assert_clean(),
    }
    world.sync_all(&["a", "b", "a", "b"]);
    world.assert_same(&["a", "b"]);
    let found = texts(&world.share());
    assert_eq!(
        (found["a"].as_str(), found["b"].as_str()),
        ("edited by a", "edited by b")
    );
    let both: Vec<&String> = found.values().filter(|text| text.ends_with("edited both")).collect();
    assert_eq!(both.len(), 2, "{found:?}");
    assert_eq!(copies(&world.share()).len(), 1);
}

// What is fetched becomes a directory meanwhile, or a link: no fault of anybody, and the run goes on.
#[test]
fn a_file_that_changes_its_kind_while_it_is_fetched_is_fetched_next() {
    for moment in 0..14 {
        let mut world = pair(&[("d/x", "old"), ("y", "old")]);
        let (share, a) = (world.share(), world.folder("a"));
        put(&a, "d/x", "new x");
        put(&a, "y", "new y");
        world.sync_all(&["a"]);
        let run = edited_between(&mut world, "b", |turn| {
            if turn == moment {
                fs::remove_file(share.join("d/x")).unwrap();
                put(&share, "d/x/in/deep", "in it");
                fs::remove_file(share.join("y")).unwrap();
                std::os::unix::fs::symlink("elsewhere", share.join("y")).unwrap();
            }
        });
        assert_eq!(run.outcome.result, Ok(()), "moment {moment}");
        assert_eq!(run.failures(), [""; 0], "moment {moment}");
        assert_eq!(run.outcome.summary.failed, 0, "moment {moment}");
        // What was edited at the server is found when it is quiet.
        let mut client = world.sync_client("b", harness::syncing::watching());
        let b = world.folder("b");
        world.poll_until(&mut [&mut client], |_| {
            b.join("d/x/in/deep").exists() && b.join("y").is_symlink()
        });
        drop(client);
        world.sync_all(&["b", "a"]);
        world.assert_same(&["a", "b"]);
        assert_eq!(copies(&share), [""; 0], "moment {moment}");
    }
}
