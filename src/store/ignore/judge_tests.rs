//! Tests of `Ignore` on real trees, and against git.

use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn write(dir: &Path, name: &str, text: &str) {
    let file = dir.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// What leaves `name` out, or nothing. A slash at its end makes it a directory.
fn why(ignore: &mut Ignore, root: &Root, name: &str) -> Option<String> {
    let (name, shape) = match name.strip_suffix('/') {
        Some(name) => (name, Shape::Directory),
        None => (name, Shape::Other),
    };
    let verdict = ignore.judge(root, &path(name), shape);
    assert_eq!(
        ignore.keep(root, &path(name), shape) == Keep::Yes,
        verdict == Verdict::Kept
    );
    match verdict {
        Verdict::Kept => None,
        Verdict::Left { at, reason } if at == path(name) => Some(reason.to_string()),
        Verdict::Left { at, reason } => Some(format!("{at} by {reason}")),
    }
}

// Protects users' habits: deeper files win, later rules win, and a directory that is left out stays so.
#[test]
fn rules_nest_as_in_git_and_the_reason_names_the_rule() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".synclineignore", "# all logs\n*.log\n/build/\n!keep.log\n");
    write(dir.path(), "sub/.synclineignore", "!*.log\nsecret\n/only-here\n");
    write(dir.path(), "build/.synclineignore", "!x.log\n");
    let root = Root::open(dir.path()).unwrap();
    let mut ignore = Ignore::new();
    for (name, want) in [
        ("a.log", Some(".synclineignore:2: *.log")),
        ("keep.log", None),
        ("deep/er/a.log", Some(".synclineignore:2: *.log")),
        ("sub/a.log", None),
        ("sub/deep/a.log", None),
        ("sub/secret/", Some("sub/.synclineignore:2: secret")),
        ("sub/secret/x/y", Some("sub/secret by sub/.synclineignore:2: secret")),
        ("secret", None),
        ("sub/only-here", Some("sub/.synclineignore:3: /only-here")),
        ("sub/deep/only-here", None),
        ("build", None),
        ("build/", Some(".synclineignore:3: /build/")),
        ("build/x.log", Some("build by .synclineignore:3: /build/")),
        ("sub/build/", None),
    ] {
        assert_eq!(why(&mut ignore, &root, name).as_deref(), want, "{name}");
    }
    assert_eq!(ignore.take_problems(), []);
}

// Protects what users made by intention from the built-in rules, and lets them have their way.
#[test]
fn litter_is_left_out_unless_a_rule_brings_it_back() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "mine/.synclineignore", "!Thumbs.db\n");
    let root = Root::open(dir.path()).unwrap();
    let mut ignore = Ignore::new();
    for name in [
        ".DS_Store",
        "a/.DS_Store",
        "x/Thumbs.db",
        "desktop.ini",
        ".nfs000000000123",
        "~$report.docx",
        ".a.txt.swp",
        ".~lock.a.odt#",
        "lost+found/",
        ".Trash-1000/",
        "$RECYCLE.BIN/",
    ] {
        let why = why(&mut ignore, &root, name);
        assert!(
            why.as_deref().is_some_and(|why| why.starts_with("built-in rule: ")),
            "{name}: {why:?}"
        );
    }
    for name in [
        "mine/Thumbs.db",
        "a~",
        "a.bak",
        "a.tmp",
        "a.part",
        "a.swp",
        "._a",
        ".Trash-1000",
        "a/lost+found/",
        ".nfs",
        "core",
        "node_modules/",
        ".git/",
        "~$note",
        ".hidden",
        "CVS/",
    ] {
        assert_eq!(why(&mut ignore, &root, name), None);
    }
}

// Protects the rules themselves: whoever ignores everything still has the rules on all devices.
#[test]
fn files_of_rules_always_take_part() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), ".synclineignore", "*\n!/a/\n");
    write(dir.path(), "a/.synclineignore", "x\n");
    let root = Root::open(dir.path()).unwrap();
    let mut ignore = Ignore::new();
    assert_eq!(why(&mut ignore, &root, ".synclineignore"), None);
    assert_eq!(why(&mut ignore, &root, "a/.synclineignore"), None);
    assert!(why(&mut ignore, &root, "b/.synclineignore").is_some());
    assert!(
        why(&mut ignore, &root, ".synclineignore/").is_some(),
        "a directory is a directory"
    );
}

// Protects what a user wanted to keep here: rules that cannot be read, or lie behind a link, leave all out.
#[test]
fn rules_that_cannot_be_known_leave_out_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("rules"), "nothing\n").unwrap();
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    symlink(outside.path().join("rules"), dir.path().join("a/.synclineignore")).unwrap();
    fs::create_dir_all(dir.path().join("c/.synclineignore")).unwrap();
    let root = Root::open(dir.path()).unwrap();
    let mut ignore = Ignore::new();
    let want = Some("a/.synclineignore cannot be used".to_owned());
    assert_eq!(why(&mut ignore, &root, "a/x"), want);
    assert_eq!(why(&mut ignore, &root, "a/b/"), want);
    assert_eq!(why(&mut ignore, &root, "a/"), None);
    assert_eq!(
        why(&mut ignore, &root, "c/x"),
        None,
        "a directory of that name has no rules"
    );
    let problems: Vec<String> = ignore.take_problems().iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("a/.synclineignore cannot be read ("),
        "{problems:?}"
    );
}

// Protects from stale rules: they are remembered until they are to be forgotten.
#[test]
fn changed_rules_hold_after_forgetting() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a/.synclineignore", "x\n");
    let root = Root::open(dir.path()).unwrap();
    let mut ignore = Ignore::new();
    assert!(why(&mut ignore, &root, "a/x").is_some());
    write(dir.path(), "a/.synclineignore", "y\n");
    assert!(why(&mut ignore, &root, "b/x").is_none());
    assert!(
        why(&mut ignore, &root, "a/x").is_some(),
        "remembered, though it was not on the stack"
    );
    assert!(Ignore::is_rules(&path("a/.synclineignore")) && !Ignore::is_rules(&path("a/synclineignore")));
    ignore.forget();
    assert!(why(&mut ignore, &root, "a/x").is_none());
    assert!(why(&mut ignore, &root, "a/y").is_some());
}

// Row 14. Protects the loop and memory from rules that a peer sent, in one file or in many above each other.
#[test]
fn row_14_rules_along_a_path_and_in_memory_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let rule = format!("{}\n", "*a".repeat(400));
    let file = rule.repeat(70);
    assert!(file.len() < IGNORE_FILE_BYTES_MAX);
    for level in ["", "d/", "d/d/", "d/d/d/"] {
        write(dir.path(), &format!("{level}.synclineignore"), &file);
    }
    for number in 0..40 {
        write(dir.path(), &format!("many/{number}/.synclineignore"), &file);
    }
    let root = Root::open(dir.path()).unwrap();
    let mut ignore = Ignore::new();
    assert_eq!(why(&mut ignore, &root, "d/x"), None);
    let why_deep = why(&mut ignore, &root, "d/d/x").unwrap();
    assert_eq!(why_deep, "d/d/.synclineignore cannot be used");
    assert!(ignore.take_problems()[0].to_string().contains("the rules above it"));
    for number in 0..40 {
        why(&mut ignore, &root, &format!("many/{number}/x"));
        assert!(ignore.cached_bytes <= IGNORE_CACHED_BYTES_MAX);
        assert!(ignore.levels.iter().map(|level| level.rules.bytes()).sum::<usize>() <= IGNORE_ACTIVE_BYTES_MAX);
    }
}

/// Git compares the bytes before the first wildcard by themselves, so that to it `ab**/c` is `ab` and then `**/c`,
/// against its own manual, where such stars are one. No such pattern is asked for.
fn without_quirk(mut pattern: String) -> String {
    let start = usize::from(pattern.starts_with('!'));
    if let Some(first) = pattern[start..].find(['*', '?', '[', '\\']).map(|at| start + at)
        && first > start
        && pattern.as_bytes()[first - 1] != b'/'
    {
        while pattern[first..].starts_with("**") {
            pattern.remove(first);
        }
    }
    pattern
}

/// Numbers from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len() as u64) as usize]
    }

    fn pattern(&mut self) -> String {
        let mut text = String::new();
        text.push_str(self.pick(&["", "", "", "!", "!", "#", "\\!", " "]));
        text.push_str(self.pick(&["", "", "", "/", "**/", "*/"]));
        for part in 0..=self.below(3) {
            if part > 0 {
                text.push_str(self.pick(&["/", "/", "/**/"]));
            }
            for _ in 0..=self.below(2) {
                text.push_str(self.pick(&[
                    "a",
                    "b",
                    "a",
                    "b",
                    "ab",
                    "*",
                    "?",
                    "[ab]",
                    "[!a]",
                    "**",
                    "\\a",
                    "\\*",
                    ".",
                    "[[:alpha:]]",
                ]));
            }
        }
        text.push_str(self.pick(&[
            "", "", "", "/", "/", "/**", "/*", " ", "\\ ", "  ", "\r", "[", "//", "\\",
        ]));
        without_quirk(text)
    }

    fn rules(&mut self) -> String {
        let lines: Vec<String> = (0..=self.below(6)).map(|_| self.pattern()).collect();
        lines.join("\n") + self.pick(&["", "\n"])
    }

    /// Makes a tree and returns its paths, directories with a slash at their end.
    fn tree(&mut self, top: &Path) -> Vec<String> {
        let mut directories = vec![String::new()];
        let mut paths = Vec::new();
        for _ in 0..4 + self.below(24) {
            let parent = directories[self.below(directories.len() as u64) as usize].clone();
            let name = self.pick(&["a", "b", "ab", "ba", "a.b", "*", "a ", " a", "!a", "#a", "abab", ".b"]);
            let path = format!("{parent}{name}");
            if fs::symlink_metadata(top.join(&path)).is_ok() {
                continue;
            }
            match self.below(5) {
                0 | 1 => fs::write(top.join(&path), b"").unwrap(),
                2 => symlink("a", top.join(&path)).unwrap(),
                _ => {
                    fs::create_dir(top.join(&path)).unwrap();
                    directories.push(format!("{path}/"));
                    paths.push(format!("{path}/"));
                    continue;
                }
            }
            paths.push(path);
        }
        for directory in directories {
            if directory.is_empty() || self.below(3) == 0 {
                let rules = self.rules();
                for name in [".gitignore", ".synclineignore"] {
                    fs::write(top.join(&directory).join(name), &rules).unwrap();
                }
            }
        }
        paths
    }
}

/// What git says of all paths: by path, file and line of the rule that leaves it out.
fn ask_git(dir: &Path, paths: &[String]) -> Vec<Option<(String, u32)>> {
    let mut input = Vec::new();
    for path in paths {
        input.extend_from_slice(path.trim_end_matches('/').as_bytes());
        input.push(0);
    }
    let file = dir.join(".paths");
    fs::write(&file, input).unwrap();
    let output = git(dir)
        .args(["check-ignore", "--no-index", "-v", "-n", "-z", "--stdin"])
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let fields: Vec<&str> = output.split('\0').collect();
    let answer = |fields: &[&str]| {
        let is_left = !fields[2].is_empty() && !fields[2].starts_with('!');
        is_left.then(|| (fields[0].to_owned(), fields[1].parse().unwrap()))
    };
    let answers: Vec<_> = fields.chunks_exact(4).map(answer).collect();
    assert_eq!(answers.len(), paths.len(), "git answered for every path");
    answers
}

fn git(dir: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("HOME", dir)
        .stderr(Stdio::null());
    git
}

// Protects users' habits, beyond what we thought of: on random trees and rules git and we leave out the same, for
// the same reason. Every case is a directory in one repository, so that git runs once.
#[test]
fn random_rules_mean_what_they_mean_to_git() {
    const CASES: usize = 500;
    let dir = tempfile::tempdir().unwrap();
    let has_git = git(dir.path())
        .args(["init", "-q"])
        .status()
        .is_ok_and(|status| status.success());
    if !has_git {
        eprintln!("skipped: git is not installed");
        return;
    }
    let seed = std::env::var("SYNCLINE_SEED").map_or(0x619, |text| text.parse().unwrap());
    println!("SYNCLINE_SEED={seed}");
    let mut random = Random(seed);
    let mut paths = Vec::new();
    for case in 0..CASES {
        let top = dir.path().join(format!("case{case}"));
        fs::create_dir(&top).unwrap();
        paths.extend(random.tree(&top).into_iter().map(|path| format!("case{case}/{path}")));
    }
    let want = ask_git(dir.path(), &paths);
    let mut ignores: Vec<(Root, Ignore)> = Vec::new();
    let (mut left, mut brought_back) = (0, 0);
    for (name, want) in paths.iter().zip(want) {
        let (case, name) = name.split_once('/').unwrap();
        let case: usize = case.strip_prefix("case").unwrap().parse().unwrap();
        while ignores.len() <= case {
            let top = dir.path().join(format!("case{}", ignores.len()));
            ignores.push((Root::open(&top).unwrap(), Ignore::with_built_in(&[])));
        }
        let (root, ignore) = &mut ignores[case];
        let (name, shape) = match name.strip_suffix('/') {
            Some(name) => (name, Shape::Directory),
            None => (name, Shape::Other),
        };
        let got = match ignore.judge(root, &path(name), shape) {
            Verdict::Left {
                reason: Reason::Rule { file, line, .. },
                ..
            } => {
                let file = file.to_string().replace(".synclineignore", ".gitignore");
                Some((format!("case{case}/{file}"), line))
            }
            Verdict::Kept => None,
            Verdict::Left { reason, .. } => panic!("{reason}"),
        };
        left += usize::from(got.is_some());
        brought_back += usize::from(got.is_none());
        assert_eq!(got, want, "case{case}: {name:?} in {:?}", rules_of(root.path()));
    }
    assert!(
        left > CASES && brought_back > CASES,
        "{left} left out, {brought_back} kept"
    );
}

fn rules_of(top: &Path) -> Vec<(String, String)> {
    let mut rules = Vec::new();
    let mut directories = vec![top.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else if entry.file_name() == ".gitignore" {
                let text = fs::read_to_string(entry.path()).unwrap();
                rules.push((entry.path().strip_prefix(top).unwrap().display().to_string(), text));
            }
        }
    }
    rules
}
