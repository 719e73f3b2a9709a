//! Renames that change nothing but the case of letters, or how letters with marks are put together: they arrive as
//! renames, of files and of directories, whoever folds.
#![allow(unreachable_pub)]

use super::*;

/// Renames `from` to `to` by way of another name, as it works anywhere.
fn respell(root: &Path, from: &str, to: &str) {
    let between = root.join("between");
    fs::rename(root.join(from), &between).unwrap();
    fs::rename(between, root.join(to)).unwrap();
}

fn renames(world: &mut World, doer: &str, others: &[&str]) {
    let folder = world.folder(doer);
    for number in 0..10 {
        put(&folder, &format!("docs/inner/{number}"), &format!("text {number}"));
    }
    put(&folder, "a", "a file");
    put(&folder, "docs/one", "one");
    clean(world, doer);
    for other in others {
        clean(world, other);
    }
    respell(&folder, "a", "A");
    respell(&folder, "docs", "Docs");
    respell(&folder, "Docs/inner", "Docs/INNER");
    fs::remove_file(folder.join("Docs/INNER/3")).unwrap();
    put(&folder, "Docs/INNER/4", "edited");
    put(&folder, "Docs/new", "new");
    let run = clean(world, doer);
    assert!(run.outcome.summary.literal_bytes < 20, "{:?}", run.outcome.summary);
    let wanted = shown(&folder);
    assert_eq!(shown(&world.share()), wanted, "the share and {doer}");
    for other in others {
        let run = clean(world, other);
        assert_eq!(collisions(&run), [] as [&str; 0]);
        assert!(run.outcome.summary.literal_bytes < 20, "{:?}", run.outcome.summary);
        assert_eq!(shown(&world.folder(other)), wanted, "{other}");
        assert!(moved(&run).len() >= 2, "{:?}", run.items());
    }
    clean(world, doer);
    let run = clean(world, doer);
    assert_eq!(run.items(), [] as [&str; 0]);
    assert_eq!((shown(&folder), shown(&world.share())), (wanted.clone(), wanted));
}

// Renames that change the case alone arrive as renames, of files and of directories, whoever folds.
#[test]
fn respelled_on_a_device_that_does_not_fold() {
    in_child("respelling::respelled_on_a_device_that_does_not_fold", || {
        let mut world = World::new();
        world.make("a", &[]);
        world.make("c", &[]);
        let (_b, _mounted) = folding(&world, "b");
        renames(&mut world, "a", &["b", "c"]);
    });
}

#[test]
fn respelled_on_a_device_that_folds() {
    in_child("respelling::respelled_on_a_device_that_folds", || {
        let mut world = World::new();
        world.make("a", &[]);
        let (_b, _mounted) = folding(&world, "b");
        renames(&mut world, "b", &["a"]);
    });
}

#[test]
fn respelled_with_a_share_that_folds() {
    in_child("respelling::respelled_with_a_share_that_folds", || {
        let (mut world, _share) = folding_share();
        world.make("a", &[]);
        world.make("c", &[]);
        let (_b, _mounted) = folding(&world, "b");
        renames(&mut world, "a", &["b", "c"]);
    });
}

#[test]
fn respelled_by_hand_in_a_share_that_folds() {
    in_child("respelling::respelled_by_hand_in_a_share_that_folds", || {
        let (mut world, _share) = folding_share();
        world.make("a", &[("a", "a"), ("docs/x", "x"), ("docs/y", "y")]);
        let (b, _mounted) = folding(&world, "b");
        world.sync_all(&["a", "b"]);
        respell(&world.share(), "a", "A");
        respell(&world.share(), "docs", "Docs");
        let wanted = ["A: a", "Docs/x: x", "Docs/y: y"];
        let mut client = world.sync_client("b", watching());
        world.poll_until(&mut [&mut client], |_| shown(&b) == wanted);
        drop(client);
        for name in ["a", "b"] {
            let run = clean(&mut world, name);
            assert_eq!(run.outcome.summary.literal_bytes, 0);
        }
        world.assert_same(&["a", "b"]);
    });
}

// A directory that was deleted and made anew between two runs, and then respelled: that is a rename like any other.
#[test]
fn a_directory_that_was_made_anew_is_respelled_as_well() {
    in_child(
        "respelling::a_directory_that_was_made_anew_is_respelled_as_well",
        || {
            let (mut world, _mounted) = folding_share();
            let a = world.make("a", &[("docs/x", "x"), ("docs/in/y", "y")]);
            clean(&mut world, "a");
            fs::rename(a.join("docs"), a.join("old")).unwrap();
            fs::create_dir_all(a.join("docs/in")).unwrap();
            for file in ["x", "in/y"] {
                fs::rename(a.join("old").join(file), a.join("docs").join(file)).unwrap();
            }
            fs::remove_dir_all(a.join("old")).unwrap();
            let run = clean(&mut world, "a");
            assert_eq!(run.items(), [] as [&str; 0]);
            fs::rename(a.join("docs"), a.join("Docs")).unwrap();
            let run = clean(&mut world, "a");
            assert_eq!((moved(&run), collisions(&run)), (vec!["Docs".to_owned()], vec![]));
            assert_eq!(shown(&world.share()), ["Docs/in/y: y", "Docs/x: x"]);
        },
    );
}
