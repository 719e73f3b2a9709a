//! The shape of the source: who may import whom, how long files and functions get, where `unsafe` is.
//!
//! Reads the sources as text and never builds them. Every complaint names file and line, and says
//! what to do. The table of layers is below; DESIGN is where it comes from.

use std::fmt::Write;
use std::path::{Path, PathBuf};

#[path = "layers/lexer.rs"]
mod lexer;

use lexer::{Token, tokens};

/// The rooms, layer by layer. A room imports only from layers above its own line; rooms of one layer
/// do not import each other (they meet in `node`).
const LAYERS: [&[&str]; 5] = [
    // L0: words of the domain.
    &["model"],
    // L1: bytes <-> messages; the delta engine.
    &["wire", "delta"],
    // L2: connection machines, planning, swarm, web; files; the loop.
    &["conn", "sync", "swarm", "web", "store", "reactor"],
    // L3: where the layers meet.
    &["node"],
    // L4: commands.
    &["cli"],
];

/// Rooms without I/O and without a clock: bytes, time and effects go in and out as values.
const PURE: [&str; 7] = ["model", "wire", "delta", "conn", "sync", "swarm", "web"];
/// What a pure room never names.
const IMPURE: [&[&str]; 7] = [
    &["std", "fs"],
    &["std", "thread"],
    &["Instant", "now"],
    &["SystemTime", "now"],
    &["TcpStream"],
    &["TcpListener"],
    &["UdpSocket"],
];
/// The only room that names mio.
const LOOP_ROOM: &str = "reactor";
/// The only files with `unsafe`.
const UNSAFE_FILES: [&str; 5] = [
    "src/store/map.rs",
    "src/delta/sha_x86.rs",
    "src/delta/sha_avx512.rs",
    "src/delta/index/anchors_x86.rs",
    "src/delta/index/leaf_sums_x86.rs",
];
/// Names that say nothing about what a file owns.
const FORBIDDEN_NAMES: [&str; 8] = [
    "util", "utils", "common", "helper", "helpers", "manager", "types", "misc",
];
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

fn layer_of(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

/// A source file, with its path relative to the crate.
struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    fn shown(&self) -> String {
        self.path.to_string_lossy().replace('\\', "/")
    }

    /// The modules that lead to this file: `src/store/trust.rs` is `store`, `trust`.
    fn modules(&self) -> Vec<String> {
        let below = self.path.strip_prefix("src").unwrap_or(&self.path);
        let mut modules: Vec<String> = below
            .with_extension("")
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        // `trust_tests.rs` is the module `tests` of `trust`, moved out of it.
        let tested = modules
            .last()
            .and_then(|name| name.strip_suffix("_tests"))
            .map(str::to_owned);
        if let Some(tested) = tested {
            modules.pop();
            modules.extend([tested, "tests".to_owned()]);
        }
        if matches!(modules.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            modules.pop();
        }
        modules
    }

    /// The room; `None` for the files at the top and in `bin`, which may use everything.
    fn room(&self) -> Option<String> {
        let below = self.path.strip_prefix("src").ok()?;
        let first = below.iter().next()?.to_string_lossy().into_owned();
        let room = first.trim_end_matches(".rs");
        (!matches!(room, "lib" | "main" | "bin")).then(|| room.to_owned())
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut directories: Vec<PathBuf> = ["src", "tests", "benches", "fuzz", "examples"]
        .map(|name| root.join(name))
        .to_vec();
    while let Some(directory) = directories.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a directory of the crate can be listed").path();
            if path.is_dir() && !path.ends_with("target") {
                directories.push(path);
            } else if path.extension() == Some("rs".as_ref()) {
                let text = std::fs::read_to_string(&path).expect("a source file is readable UTF-8");
                sources.push(Source {
                    path: path.strip_prefix(root).expect("it was found below the root").to_owned(),
                    text,
                });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 5, "the sources are not where this test looks for them");
    sources
}

fn check(rule: fn(&Source) -> Vec<String>) {
    let complaints: Vec<String> = sources().iter().flat_map(rule).collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

/// Items at the top of the crate that a source names, with their lines: `crate::a`, `crate::{a, b}`,
/// and `super::super::a` where that leads to the top.
fn names_at_top(source: &Source) -> Vec<(String, usize)> {
    let tokens = tokens(&source.text);
    let mut modules = source.modules();
    let mut inline: Vec<usize> = Vec::new();
    let mut depth = 0;
    let mut names = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let word = |offset: usize| tokens.get(at + offset).map_or("", |token| token.text.as_str());
        match word(0) {
            "mod" if word(2) == "{" => {
                modules.push(word(1).to_owned());
                inline.push(depth);
            }
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last() == Some(&depth) {
                    inline.pop();
                    modules.pop();
                }
            }
            "crate" if word(1) == ":" => collect_names(&tokens[at + 3..], &mut names),
            "super" if word(1) == ":" => {
                let mut ups = 1;
                while word(3 * ups) == "super" {
                    ups += 1;
                }
                at += 3 * ups - 1;
                if ups >= modules.len() && source.room().is_some() {
                    collect_names(&tokens[at + 1..], &mut names);
                }
            }
            _ => {}
        }
        at += 1;
    }
    names
}

/// The first names of a path or of a group of paths.
fn collect_names(path: &[Token], names: &mut Vec<(String, usize)>) {
    let Some(first) = path.first() else {
        return;
    };
    if first.text != "{" {
        names.push((first.text.clone(), first.line));
        return;
    }
    let mut depth = 0;
    let mut starts = false;
    for token in path {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ if starts && depth == 1 => names.push((token.text.clone(), token.line)),
            _ => {}
        }
        if depth == 0 {
            return;
        }
        starts = matches!(token.text.as_str(), "{" | ",") && depth == 1;
    }
}

fn wrong_imports(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else {
        return Vec::new();
    };
    let Some(layer) = layer_of(&room) else {
        return vec![format!(
            "{}: the room {room} is not in the table of layers",
            source.shown()
        )];
    };
    let complaint = |(name, line): (String, usize)| {
        let reason = match layer_of(&name) {
            _ if name == room || name == "self" => return None,
            Some(other) if other < layer => return None,
            Some(other) if other == layer => format!("{name} is a sibling; they meet in node"),
            Some(other) => format!("{name} is layer {other}, above {room} (layer {layer})"),
            None => format!("{name} is no room; import it from the room that owns it"),
        };
        Some(format!("{}:{line}: {reason}", source.shown()))
    };
    names_at_top(source).into_iter().filter_map(complaint).collect()
}

fn wrong_purity(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else {
        return Vec::new();
    };
    let tokens = tokens(&source.text);
    let mut complaints = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let names = |path: &[&str]| {
            let word = |index: usize| tokens.get(at + 3 * index).map_or("", |t| t.text.as_str());
            path.iter().enumerate().all(|(index, want)| word(index) == *want)
        };
        if PURE.contains(&room.as_str())
            && let Some(path) = IMPURE.into_iter().find(|path| names(path))
        {
            let path = path.join("::");
            let text = format!("{room} is pure, {path} is not; take it as an argument");
            complaints.push(format!("{}:{}: {text}", source.shown(), token.line));
        }
        if room != LOOP_ROOM && matches!(token.text.as_str(), "mio" | "signal_hook_mio") {
            let text = format!("only {LOOP_ROOM} names mio");
            complaints.push(format!("{}:{}: {text}", source.shown(), token.line));
        }
    }
    complaints
}

fn wrong_unsafe(source: &Source) -> Vec<String> {
    let shown = source.shown();
    if UNSAFE_FILES.contains(&shown.as_str()) {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    let tokens = tokens(&source.text);
    for (at, token) in tokens.iter().enumerate() {
        let allows = token.text == "unsafe_code" && at >= 2 && tokens[at - 2].text == "allow";
        if token.text == "unsafe" || allows {
            let files = UNSAFE_FILES.join(" and ");
            complaints.push(format!("{shown}:{}: unsafe belongs into {files} only", token.line));
        }
    }
    complaints
}

fn wrong_size(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        let text = format!("{lines} lines, at most {FILE_LINES_MAX}; split it by nouns");
        complaints.push(format!("{}:{lines}: {text}", source.shown()));
    }
    for (name, first, last) in functions(&tokens(&source.text)) {
        let lines = last - first + 1;
        if lines > FUNCTION_LINES_MAX {
            let text = format!("fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}");
            complaints.push(format!("{}:{first}: {text}", source.shown()));
        }
    }
    complaints
}

/// Name, first and last line of each function with a body.
fn functions(tokens: &[Token]) -> Vec<(String, usize, usize)> {
    let mut functions = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let is_name = |token: &&Token| token.text.starts_with(|c: char| c == '_' || c.is_alphabetic());
        let Some(name) = tokens.get(at + 1).filter(is_name).filter(|_| token.text == "fn") else {
            continue;
        };
        // The body is the first brace outside of parentheses and brackets; `;` means there is none.
        let mut nesting = 0i32;
        let mut braces = 0;
        for token in &tokens[at + 2..] {
            match token.text.as_str() {
                "(" | "[" => nesting += 1,
                ")" | "]" => nesting -= 1,
                ";" if nesting == 0 && braces == 0 => break,
                "{" if nesting == 0 || braces > 0 => braces += 1,
                "}" if braces == 1 => {
                    functions.push((name.text.clone(), tokens[at].line, token.line));
                    break;
                }
                "}" => braces -= 1,
                _ => {}
            }
        }
    }
    functions
}

fn wrong_name_or_head(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for part in &source.path.with_extension("") {
        let part = part.to_string_lossy();
        if FORBIDDEN_NAMES.contains(&part.as_ref()) {
            let text = format!("{part} says nothing; name it by the noun that it owns");
            complaints.push(format!("{}:1: {text}", source.shown()));
        }
    }
    let head = source.text.lines().next().unwrap_or_default();
    // A fuzz target starts with an attribute of its own.
    if !head.starts_with("//!") && !head.starts_with("#![no_main]") {
        let text = "line one is //! and says what this file owns";
        complaints.push(format!("{}:1: {text}", source.shown()));
    }
    complaints
}

// Protects the architecture: a module imports from the layers below it and from nowhere else.
#[test]
fn modules_import_only_from_the_layers_below() {
    check(wrong_imports);
}

// Protects simulation and replay: the core reads no clock, opens nothing and knows no loop.
#[test]
fn the_core_is_pure_and_only_the_reactor_names_mio() {
    check(wrong_purity);
}

// Protects memory safety: there are few places to look at.
#[test]
fn unsafe_code_is_in_few_files() {
    check(wrong_unsafe);
}

// Protects readers: files and functions stay small.
#[test]
fn files_and_functions_stay_small() {
    check(wrong_size);
}

// Protects readers: a file's name and first line say what it owns.
#[test]
fn files_say_what_they_own() {
    check(wrong_name_or_head);
}

fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.into(),
        text: text.to_owned(),
    }
}

// Protects this test from passing because it sees nothing.
#[test]
fn violations_are_found() {
    let text = "//! x\nuse crate::{model::{A, B}, conn::C};\nuse crate::node::D;\n\
        mod tests {\n use super::super::super::reactor::E;\n use super::super::home;\n}\n\
        use super::super::{cli, wire};\n// crate::conn\nconst S: &str = \"crate::conn\";\n\
        fn f() { crate::wire::g(); crate::store::h(); crate::Server; }\n";
    let complaints = wrong_imports(&source("src/store/trust.rs", text));
    let lines: Vec<&str> = complaints.iter().map(|line| line.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["2", "3", "5", "8", "11"], "{complaints:#?}");
    assert_eq!(wrong_imports(&source("src/attic/mod.rs", "")).len(), 1);
    assert_eq!(wrong_imports(&source("src/lib.rs", "use crate::node::X;")), [""; 0]);

    let clock = "fn f() {\n let x = std::time::Instant::now();\n std::fs::read(x); }";
    assert_eq!(wrong_purity(&source("src/wire/mod.rs", clock)).len(), 2);
    assert_eq!(wrong_purity(&source("src/store/mod.rs", clock)).len(), 0);
    assert_eq!(wrong_purity(&source("src/node/mod.rs", "use mio::Poll;")).len(), 1);

    let block = "fn f() { unsafe { g() } }\n#![allow(unsafe_code)]\n// unsafe";
    assert_eq!(wrong_unsafe(&source("src/store/root.rs", block)).len(), 2);
    assert_eq!(wrong_unsafe(&source("src/store/map.rs", block)).len(), 0);

    let mut long = String::from("//! x\nfn short(x: [u8; 3]) -> bool { x == [0; 3] }\nfn long() {\n");
    (0..70).for_each(|n| writeln!(long, "let x{n} = '}}';").unwrap());
    long.push_str("}\ntrait T { fn none(); }\n");
    let complaints = wrong_size(&source("src/wire/a.rs", &long));
    assert_eq!(complaints, ["src/wire/a.rs:3: fn long has 72 lines, at most 70"]);
    assert_eq!(wrong_size(&source("src/wire/a.rs", &"\n".repeat(601))).len(), 1);

    assert_eq!(wrong_name_or_head(&source("src/wire/utils.rs", "//! x")).len(), 1);
    assert_eq!(wrong_name_or_head(&source("src/wire/frame.rs", "use x;")).len(), 1);
}
