//! Where things go: rsync's rules for slashes, several sources, new names, in both directions.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{World, push_job};
use std::fs;
use std::path::Path;
use syncline::model::CloseCode;
use syncline::node::{Client, ClientEvent, Job, JobError, MaxDelete, TransferOptions};

/// All files below `root`, by their relative paths, sorted.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let inner = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path());
            waiting.extend(inner.filter(|path| !path.ends_with(".syncline")));
        } else if path.exists() {
            found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

/// `f`, `d/a`, `d/s/b` and `e/c` below `root`, with contents that tell them apart.
fn make_sources(root: &Path) {
    fs::create_dir_all(root.join("d/s")).unwrap();
    fs::create_dir_all(root.join("e")).unwrap();
    for name in ["f", "d/a", "d/s/b", "e/c"] {
        fs::write(root.join(name), name).unwrap();
    }
}

/// What lies at the target before: an old file, and a directory with something in it.
fn make_old(root: &Path) {
    fs::create_dir_all(root.join("dir")).unwrap();
    fs::write(root.join("dir/kept"), "kept").unwrap();
    fs::write(root.join("old"), "old").unwrap();
}

const OLD: [&str; 2] = ["dir/kept", "old"];

/// Sources, target, and what is there afterwards besides [`OLD`].
const CASES: [(&[&str], &str, &[&str]); 14] = [
    (&["f"], "", &["f"]),
    (&["f"], "/new", &["new"]),
    (&["f"], "/new/", &["new/f"]),
    (&["f"], "/dir", &["dir/f"]),
    (&["f"], "/old", &[]),
    (&["d"], "", &["d/a", "d/s/b"]),
    (&["d/"], "", &["a", "s/b"]),
    (&["d"], "/new", &["new/d/a", "new/d/s/b"]),
    (&["d/"], "/new", &["new/a", "new/s/b"]),
    (&["d/"], "/dir", &["dir/a", "dir/s/b"]),
    (&["d/s"], "/dir/", &["dir/s/b"]),
    (&["f", "d"], "/new", &["new/d/a", "new/d/s/b", "new/f"]),
    (&["f", "d", "e/"], "/new/", &["new/c", "new/d/a", "new/d/s/b", "new/f"]),
    (&["d/a", "d/s/"], "/dir", &["dir/a", "dir/b"]),
];

fn expected(more: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = OLD.iter().chain(more).map(|name| (*name).to_owned()).collect();
    all.sort();
    all
}

#[test]
fn a_push_puts_things_where_rsync_would() {
    for (sources, target, more) in CASES {
        let mut world = World::new();
        make_sources(&world.path("from"));
        make_old(&world.share());
        let given: Vec<_> = sources.iter().map(|name| world.path("from/").join(name)).collect();
        let given: Vec<&Path> = given.iter().map(std::path::PathBuf::as_path).collect();
        let run = world.push(&given, &world.link(target), TransferOptions::default());
        run.assert_clean();
        assert_eq!(files(&world.share()), expected(more), "{sources:?} to {target:?}");
        if target == "/old" {
            assert_eq!(fs::read(world.share().join("old")).unwrap(), b"f");
        }
        let mapped = run
            .events
            .iter()
            .filter(|event| matches!(event, ClientEvent::Mapped(_)));
        assert_eq!(mapped.count(), sources.len());
        let again = world.push(&given, &world.link(target), TransferOptions::default());
        again.assert_clean();
        assert_eq!(again.outcome.summary.files_transferred, 0, "{sources:?} to {target:?}");
    }
}

#[test]
fn a_pull_puts_things_where_rsync_would() {
    for (sources, target, more) in CASES {
        let mut world = World::new();
        make_sources(&world.share());
        let here = world.path("here");
        make_old(&here);
        let links = sources.iter().map(|name| world.link(&format!("/{name}"))).collect();
        let target_path = here.join(target.trim_start_matches('/'));
        let job = Job::Pull {
            links,
            target: target_path,
            target_is_directory: target.ends_with('/'),
        };
        let run = world.run(job.clone(), TransferOptions::default());
        run.assert_clean();
        assert_eq!(files(&here), expected(more), "{sources:?} to {target:?}");
        if target == "/old" {
            assert_eq!(fs::read(here.join("old")).unwrap(), b"f");
        }
        let again = world.run(job, TransferOptions::default());
        again.assert_clean();
        assert_eq!(again.outcome.summary.files_transferred, 0, "{sources:?} to {target:?}");
        assert!(!here.join(".syncline").exists());
    }
}

#[test]
fn a_directory_cannot_go_to_a_file() {
    let mut world = World::new();
    make_sources(&world.path("from"));
    make_old(&world.share());
    let source = world.path("from/d");
    for target in ["/old", "/old/"] {
        let run = world.push(&[&source], &world.link(target), TransferOptions::default());
        assert!(
            matches!(run.outcome.result, Err(JobError::Target { .. })),
            "{:?}",
            run.outcome
        );
    }
    make_old(&world.path("here"));
    let target = world.path("here/old");
    let run = world.pull(&world.link("/dir"), &target, TransferOptions::default());
    assert!(
        matches!(run.outcome.result, Err(JobError::Target { .. })),
        "{:?}",
        run.outcome
    );
    assert_eq!(fs::read(world.share().join("old")).unwrap(), b"old");
    assert_eq!(fs::read(target).unwrap(), b"old");
}

#[test]
fn what_does_not_exist_is_said_and_nothing_is_made() {
    let mut world = World::new();
    let run = world.pull(
        &world.link("/none/such"),
        &world.path("here"),
        TransferOptions::default(),
    );
    assert_eq!(
        run.outcome.result,
        Err(JobError::NotFound {
            path: "none/such".to_owned()
        })
    );
    assert!(!world.path("here").exists());
    let job = push_job(&[&world.path("absent")], &world.link(""));
    let started = Client::start(world.client_options("home"), job, TransferOptions::default());
    assert!(matches!(started.err(), Some(JobError::Source { .. })));
}

/// Row 18 of the threats: a share whose folder went away is not an empty share.
#[test]
fn a_share_that_is_gone_deletes_nothing_and_says_so() {
    let mut world = World::new();
    make_old(&world.share());
    make_old(&world.path("here"));
    fs::remove_dir_all(world.share()).unwrap();
    let here = world.path("here/");
    let delete = || TransferOptions {
        delete: true,
        max_delete: MaxDelete::Unlimited,
        ..TransferOptions::default()
    };
    let pull = world.pull(&world.link("/"), &here, delete());
    let named = world.pull(&world.link("/dir"), &here, delete());
    let push = world.push(&[&here], &world.link("/"), delete());
    for run in [pull, named, push] {
        let result = run.outcome.result;
        assert!(
            matches!(
                result,
                Err(JobError::Closed {
                    code: CloseCode::Gone,
                    ..
                })
            ),
            "{result:?}"
        );
    }
    assert_eq!(files(&here), OLD);
}

#[test]
fn a_link_that_the_user_names_is_what_it_leads_to() {
    let mut world = World::new();
    make_sources(&world.path("from"));
    let link = world.path("latest");
    std::os::unix::fs::symlink(world.path("from/f"), &link).unwrap();
    world
        .push(&[&link], &world.link(""), TransferOptions::default())
        .assert_clean();
    assert_eq!(fs::read(world.share().join("latest")).unwrap(), b"f");
    assert!(!fs::symlink_metadata(world.share().join("latest")).unwrap().is_symlink());
}

/// One of several sources that is not there fails alone; nothing is deleted on the word of the rest.
#[test]
fn a_missing_source_does_not_stop_the_others() {
    let mut world = World::new();
    make_sources(&world.path("from"));
    let (absent, file) = (world.path("from/absent"), world.path("from/f"));
    let push = world.push(&[&absent, &file], &world.link("/new"), TransferOptions::default());
    assert_eq!(push.outcome.result, Ok(()));
    assert_eq!(push.failures(), [format!("{} Vanished", absent.display())]);
    assert_eq!(push.outcome.summary.failed, 1);
    assert_eq!(files(&world.share()), ["new/f"]);
    let job = Job::Pull {
        links: vec![world.link("/absent"), world.link("/new/f")],
        target: world.path("here"),
        target_is_directory: false,
    };
    let pull = world.run(job, TransferOptions::default());
    assert_eq!(pull.outcome.result, Ok(()));
    assert_eq!(pull.failures(), ["absent Vanished"]);
    assert_eq!(files(&world.path("here")), ["f"]);
    let delete = TransferOptions {
        delete: true,
        ..TransferOptions::default()
    };
    let stopped = world.push(&[&absent, &world.path("from/d")], &world.link("/new"), delete);
    assert_eq!(stopped.outcome.result, Err(JobError::IncompleteSource));
}

/// Two sources of one name would silently become a file and a conflict copy of it.
#[test]
fn two_sources_of_one_name_are_refused() {
    let world = World::new();
    for directory in ["a", "b"] {
        fs::create_dir(world.path(directory)).unwrap();
        fs::write(world.path(directory).join("f"), directory).unwrap();
    }
    let push = push_job(&[&world.path("a/f"), &world.path("b/f")], &world.link("/dup/"));
    let pull = Job::Pull {
        links: vec![world.link("/a/f"), world.link("/b/f")],
        target: world.path("here"),
        target_is_directory: true,
    };
    for job in [push, pull] {
        let started = Client::start(world.client_options("home"), job, TransferOptions::default());
        let name = "f".to_owned();
        assert_eq!(started.err(), Some(JobError::SameName { name }));
    }
}
