//! What takes part and what is compared: dry runs, checksums, deletions, filter rules.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{Way, World, snapshot};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use syncline::node::{FilterRule, JobError, MaxDelete, TransferOptions};

fn delete(max_delete: MaxDelete) -> TransferOptions {
    TransferOptions {
        delete: true,
        max_delete,
        ..TransferOptions::default()
    }
}

fn write_all(root: &Path, names: &[&str]) {
    for name in names {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), name).unwrap();
    }
}

/// A source and a target that differ in every way.
fn make_different(source: &Path, target: &Path) {
    write_all(source, &["new", "sub/new", "changed", "same", "touched"]);
    fs::write(source.join("large"), vec![1; 300_000]).unwrap();
    fs::create_dir(source.join("empty")).unwrap();
    std::os::unix::fs::symlink("new", source.join("link")).unwrap();
    write_all(target, &["stale", "sub/stale", "gone/deep/x"]);
    fs::write(target.join("changed"), "something else").unwrap();
    for name in ["same", "touched"] {
        fs::write(target.join(name), name).unwrap();
        let time = fs::metadata(source.join(name)).unwrap().modified().unwrap();
        File::options()
            .write(true)
            .open(target.join(name))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(target.join("touched"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_dry_run_changes_nothing_and_tells_what_the_real_one_does() {
    for way in Way::BOTH {
        let mut world = World::new();
        let (mine, share) = (world.path("mine"), world.share());
        fs::create_dir(&mine).unwrap();
        let (source, target) = way.ends(&mine, &share);
        make_different(source, target);
        let dry = TransferOptions {
            dry_run: true,
            ..delete(MaxDelete::Unlimited)
        };
        let mut run = |options| world.carry(way, &mine, options);
        let before = (snapshot(source), snapshot(target));
        let planned = run(dry);
        planned.assert_clean();
        assert_eq!((snapshot(source), snapshot(target)), before, "{way:?}");
        assert!(planned.outcome.summary.wire_sent + planned.outcome.summary.wire_received < 4_000);
        let done = run(delete(MaxDelete::Unlimited));
        done.assert_clean();
        assert_eq!(planned.items(), done.items(), "{way:?}");
        let figures = |run: &harness::Run| {
            let summary = &run.outcome.summary;
            (summary.files, summary.files_transferred, summary.deleted, summary.bytes)
        };
        assert_eq!(figures(&planned), figures(&done), "{way:?}");
        assert_eq!(snapshot(source), snapshot(target), "{way:?}");
        assert!(done.items().contains(&"touched Touched".to_owned()));
        assert!(done.items().contains(&"gone/deep/x Deleted".to_owned()));
    }
}

#[test]
fn a_dry_run_does_not_make_the_target() {
    let mut world = World::new();
    write_all(&world.share(), &["d/x"]);
    write_all(&world.path("mine"), &["y"]);
    let dry = TransferOptions {
        dry_run: true,
        ..TransferOptions::default()
    };
    let here = world.path("here");
    let pulled = world.pull(&world.link("/d"), &here, dry.clone());
    pulled.assert_clean();
    assert_eq!(pulled.items(), ["d Created", "d/x Created"]);
    assert!(!here.exists());
    let pulled = world.pull(&world.link("/d/x"), &here, dry.clone());
    pulled.assert_clean();
    assert!(!here.exists());
    let pushed = world.push(&[&world.path("mine")], &world.link("/deep/er/"), dry);
    pushed.assert_clean();
    assert!(!world.share().join("deep").exists());
}

#[test]
fn checksum_finds_an_edit_that_keeps_size_and_time() {
    let mut world = World::new();
    let mine = world.path("mine");
    write_all(&mine, &["small", "other"]);
    fs::write(mine.join("large"), vec![1; 2_500_000]).unwrap();
    let contents = world.path("mine/");
    world
        .push(&[&contents], &world.link(""), TransferOptions::default())
        .assert_clean();
    let tamper = |path: PathBuf| {
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    let checksum = || TransferOptions {
        checksum: true,
        ..TransferOptions::default()
    };
    tamper(world.share().join("small"));
    tamper(world.share().join("large"));
    let quick = world.push(&[&contents], &world.link(""), TransferOptions::default());
    assert_eq!(
        quick.items(),
        Vec::<String>::new(),
        "size and time are trusted by default"
    );
    let careful = world.push(&[&contents], &world.link(""), checksum());
    careful.assert_clean();
    assert_eq!(careful.items(), ["large Replaced", "small Replaced"]);
    assert_eq!(snapshot(&mine), snapshot(&world.share()));
    tamper(mine.join("large"));
    let careful = world.pull(&world.link("/"), &mine, checksum());
    careful.assert_clean();
    assert_eq!(careful.items(), ["large Replaced"]);
    assert_eq!(snapshot(&mine), snapshot(&world.share()));
    // Another time with the same content is corrected without moving the content.
    File::options()
        .write(true)
        .open(mine.join("large"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    let careful = world.push(&[&contents], &world.link(""), checksum());
    assert_eq!(careful.items(), ["large Touched"]);
    assert_eq!(careful.outcome.summary.files_transferred, 0);
}

#[test]
fn deletions_stop_at_a_count_and_at_a_percentage() {
    let mut world = World::new();
    let mine = world.path("mine");
    let names: Vec<String> = (0..100).map(|number| format!("f{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    write_all(&mine, &names[..70]);
    write_all(&world.share(), &names);
    let contents = world.path("mine/");
    for (brake, allowed) in [
        (MaxDelete::Count(29), false),
        (MaxDelete::Percent(29), false),
        (MaxDelete::Count(0), false),
        (MaxDelete::Percent(30), true),
        (MaxDelete::Count(0), true),
    ] {
        let run = world.push(&[&contents], &world.link(""), delete(brake));
        if allowed {
            assert_eq!(run.outcome.result, Ok(()), "{brake:?}");
        } else {
            let refused = JobError::MassDelete {
                deletions: 30,
                existing: 100,
            };
            assert_eq!(run.outcome.result, Err(refused), "{brake:?}");
            assert_eq!(snapshot(&world.share()).len(), 100, "{brake:?}");
        }
    }
    assert_eq!(snapshot(&world.share()).len(), 70);
}

#[test]
fn a_deletion_stays_within_what_was_named() {
    let mut world = World::new();
    write_all(&world.path("mine"), &["a/x", "b/y", "single"]);
    write_all(&world.share(), &["a/stale", "b/stale", "c/other", "other"]);
    let sources = [world.path("mine/a"), world.path("mine/b"), world.path("mine/single")];
    let sources: Vec<&Path> = sources.iter().map(PathBuf::as_path).collect();
    let run = world.push(&sources, &world.link(""), delete(MaxDelete::Default));
    run.assert_clean();
    assert_eq!(run.outcome.summary.deleted, 2);
    for kept in ["a/x", "b/y", "single", "c/other", "other"] {
        assert!(world.share().join(kept).exists(), "{kept}");
    }
    let here = world.path("here");
    write_all(&here, &["a/stale", "mine-alone"]);
    world
        .pull(&world.link("/a"), &here, delete(MaxDelete::Default))
        .assert_clean();
    assert!(here.join("mine-alone").exists() && here.join("a/x").exists());
    assert!(!here.join("a/stale").exists());
}

#[test]
fn rules_choose_the_same_files_in_both_directions() {
    let names = [
        "keep.o",
        "x.o",
        "sub/x.o",
        "sub/keep.o",
        "target/out",
        "sub/target/out",
        "text",
        "tmp/a/b",
        "tmp/keep",
    ];
    let rules = vec![
        FilterRule::Include("keep*".to_owned()),
        FilterRule::Exclude("*.o".to_owned()),
        FilterRule::Exclude("/target/".to_owned()),
        FilterRule::Exclude("tmp/a".to_owned()),
    ];
    let chosen = ["keep.o", "sub/keep.o", "sub/target/out", "text", "tmp/keep"];
    let options = || TransferOptions {
        filters: rules.clone(),
        ..TransferOptions::default()
    };
    let mut world = World::new();
    write_all(&world.path("mine"), &names);
    write_all(&world.share(), &[]);
    world
        .push(&[&world.path("mine/")], &world.link("/there/"), options())
        .assert_clean();
    write_all(&world.share().join("full"), &names);
    let here = world.path("here");
    world.pull(&world.link("/full/"), &here, options()).assert_clean();
    for root in [world.share().join("there"), here] {
        for name in names {
            assert_eq!(root.join(name).exists(), chosen.contains(&name), "{name} in {root:?}");
        }
    }
}

/// Where a directory has become a file or link: an empty one gives way, one with content fails and is
/// left whole, also by a deletion.
#[test]
fn a_directory_gives_way_to_a_file_only_when_it_is_empty() {
    let mut world = World::new();
    let (source, share) = (world.path("source"), world.share());
    fs::create_dir(&source).unwrap();
    for name in ["empty", "full"] {
        fs::write(source.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("empty", source.join("link")).unwrap();
    for name in ["empty", "link", "full/inner"] {
        fs::create_dir_all(share.join(name)).unwrap();
    }
    fs::write(share.join("full/inner/file"), b"kept").unwrap();
    fs::write(share.join("old"), b"goes").unwrap();
    let run = world.push(
        &[&world.path("source/")],
        &world.link("/"),
        delete(MaxDelete::Unlimited),
    );
    assert_eq!(run.failures(), ["full InTheWay"]);
    assert_eq!(run.items(), ["empty Replaced", "link Replaced", "old Deleted"]);
    assert_eq!(fs::read(share.join("empty")).unwrap(), b"empty");
    assert!(share.join("link").is_symlink() && !share.join("old").exists());
    assert_eq!(fs::read(share.join("full/inner/file")).unwrap(), b"kept");
}

/// What is below a directory that cannot be made does not travel for nothing.
#[test]
fn nothing_below_a_directory_that_failed_is_wanted() {
    let mut world = World::new();
    let source = world.path("source");
    fs::create_dir_all(source.join("d/e")).unwrap();
    for name in ["d/e/f", "d/g", "d.txt"] {
        fs::write(source.join(name), vec![7; 100_000]).unwrap();
    }
    fs::write(world.share().join("d"), b"in the way").unwrap();
    let run = world.push(
        &[&world.path("source/")],
        &world.link("/"),
        delete(MaxDelete::Unlimited),
    );
    let failures = ["d InTheWay", "d/e InTheWay", "d/e/f InTheWay", "d/g InTheWay"];
    assert_eq!(run.failures(), failures);
    assert_eq!(run.outcome.summary.literal_bytes, 100_000);
    assert_eq!(fs::read(world.share().join("d")).unwrap(), b"in the way");
}
