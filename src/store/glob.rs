//! `Glob`: one gitignore pattern, matched against the bytes of a path.
//!
//! Never touches a file and never allocates while it matches. Key invariant: a match costs at most
//! (pattern bytes) x (path bytes) steps, whatever both hold; there is no recursion.
//!
//! 1. A pattern is cut at its slashes into segments; a segment `**` stands for any directories.
//! 2. Segments meet components from the left. After a mismatch only the last `**` takes one more
//!    component: what an earlier one could take instead, the last one can take as well.
//! 3. Within a segment the same holds for `*` and bytes.
//!
//! Awkward cases: a pattern without a slash, other than at its end, meets the last component only; a
//! final `**` needs something below; `*`, `?` and classes work on bytes and never meet a slash.

use crate::model::RelPath;

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    segments: Vec<Segment>,
    reach: Reach,
    directories_only: bool,
}

/// What a pattern is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The whole path.
    Path,
    /// The last component, at any depth.
    Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// `**`: any number of components.
    AnyDepth,
    Name(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    AnyByte,
    AnyBytes,
    Class(Box<ByteSet>),
}

/// A set of bytes, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct ByteSet([u64; 4]);

/// Why text is not a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Nothing, or nothing between two slashes.
    #[error("it has an empty name; write one slash between names")]
    Empty,
    /// A name `.` or `..`.
    #[error("it has a name \".\" or \"..\", which never matches; start it with / to mean the top")]
    Dots,
    /// A `[` without its `]` (a class cannot hold a slash).
    #[error("a [ has no ]; write \\[ to mean the character")]
    OpenClass,
    /// A range whose end is before its start, or an unknown class name.
    #[error("a class in [ ] makes no sense")]
    Class,
    /// A backslash with nothing behind it in its name.
    #[error("a \\ has no character to escape; write \\\\ to mean the character")]
    Escape,
}

impl Glob {
    /// Compiles a pattern in gitignore syntax; `!` and `#` at its start are not special.
    pub(super) fn parse(pattern: &[u8]) -> Result<Glob, GlobError> {
        let (pattern, directories_only) = match pattern.strip_suffix(b"/") {
            Some(pattern) => (pattern, true),
            None => (pattern, false),
        };
        if !pattern.contains(&b'/') {
            let segments = vec![Segment::Name(parse_name(pattern)?)];
            return Ok(Glob {
                segments,
                reach: Reach::Name,
                directories_only,
            });
        }
        let pattern = pattern.strip_prefix(b"/").unwrap_or(pattern);
        let mut segments = Vec::new();
        for segment in pattern.split(|&byte| byte == b'/') {
            segments.push(match segment {
                // As git has it, three stars are two.
                [b'*', b'*', rest @ ..] if rest.iter().all(|&byte| byte == b'*') => Segment::AnyDepth,
                name => Segment::Name(parse_name(name)?),
            });
        }
        if segments.last() == Some(&Segment::AnyDepth) {
            segments.push(Segment::Name(vec![Token::AnyBytes]));
        }
        Ok(Glob {
            segments,
            reach: Reach::Path,
            directories_only,
        })
    }

    /// Whether the pattern ended in a slash.
    pub(super) fn directories_only(&self) -> bool {
        self.directories_only
    }

    /// Whether the pattern matches `path`.
    pub(super) fn matches(&self, path: &RelPath) -> bool {
        self.matches_counting(path.as_bytes(), &mut 0)
    }

    /// As [`Glob::matches`], for the rest of a path from some directory on.
    pub(super) fn matches_bytes(&self, path: &[u8]) -> bool {
        self.matches_counting(path, &mut 0)
    }

    fn matches_counting(&self, path: &[u8], steps: &mut u64) -> bool {
        let mut rest = match self.reach {
            Reach::Path => Some(path),
            Reach::Name => path.rsplit(|&byte| byte == b'/').next(),
        };
        let mut segment = 0;
        let mut retry = None;
        while let Some(here) = rest {
            *steps += 1;
            match self.segments.get(segment) {
                Some(Segment::AnyDepth) => {
                    segment += 1;
                    retry = Some((segment, here));
                    continue;
                }
                Some(Segment::Name(name)) => {
                    let (component, after) = split_component(here);
                    if name_matches(name, component, steps) {
                        segment += 1;
                        rest = after;
                        continue;
                    }
                }
                None => {}
            }
            let Some((at, start)) = retry else {
                return false;
            };
            let Some(start) = split_component(start).1 else {
                return false;
            };
            segment = at;
            retry = Some((at, start));
            rest = Some(start);
        }
        segment == self.segments.len()
    }
}

fn split_component(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|&byte| byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

fn name_matches(tokens: &[Token], name: &[u8], steps: &mut u64) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut retry = None;
    while at < name.len() {
        *steps += 1;
        let matched = match tokens.get(token) {
            Some(Token::AnyBytes) => {
                token += 1;
                if token == tokens.len() {
                    return true;
                }
                retry = Some((token, at));
                continue;
            }
            Some(Token::Byte(byte)) => *byte == name[at],
            Some(Token::AnyByte) => true,
            Some(Token::Class(set)) => set.contains(name[at]),
            None => false,
        };
        if matched {
            token += 1;
            at += 1;
            continue;
        }
        let Some((start, from)) = retry else {
            return false;
        };
        token = start;
        at = from + 1;
        retry = Some((start, at));
    }
    tokens[token..].iter().all(|token| *token == Token::AnyBytes)
}

fn parse_name(segment: &[u8]) -> Result<Vec<Token>, GlobError> {
    match segment {
        b"" => return Err(GlobError::Empty),
        b"." | b".." => return Err(GlobError::Dots),
        _ => {}
    }
    let mut tokens = Vec::new();
    let mut rest = segment;
    while let Some((&first, mut after)) = rest.split_first() {
        match first {
            b'*' if tokens.last() == Some(&Token::AnyBytes) => {}
            b'*' => tokens.push(Token::AnyBytes),
            b'?' => tokens.push(Token::AnyByte),
            b'[' => {
                let set;
                (set, after) = parse_class(after)?;
                tokens.push(Token::Class(Box::new(set)));
            }
            b'\\' => {
                let byte;
                (byte, after) = after.split_first().ok_or(GlobError::Escape)?;
                tokens.push(Token::Byte(*byte));
            }
            byte => tokens.push(Token::Byte(byte)),
        }
        rest = after;
    }
    Ok(tokens)
}

/// The class whose text starts behind a `[`, and what follows its `]`.
fn parse_class(text: &[u8]) -> Result<(ByteSet, &[u8]), GlobError> {
    let (mut rest, negated) = match text.first() {
        Some(b'!' | b'^') => (&text[1..], true),
        _ => (text, false),
    };
    let mut set = ByteSet::default();
    // A `]` right at the start stands for itself.
    let mut first = true;
    loop {
        match rest {
            [] => return Err(GlobError::OpenClass),
            [b']', after @ ..] if !first => {
                return Ok((if negated { set.inverted() } else { set }, after));
            }
            [b'[', b':', after @ ..] => {
                let end = after.windows(2).position(|pair| pair == b":]");
                let end = end.ok_or(GlobError::OpenClass)?;
                let test = named_class(&after[..end]).ok_or(GlobError::Class)?;
                (0..=255).filter(test).for_each(|byte| set.insert(byte));
                rest = &after[end + 2..];
            }
            _ => {
                let (low, after) = class_byte(rest)?;
                let (high, after) = match after {
                    [b'-', b']', ..] | [] => (low, after),
                    [b'-', after @ ..] => class_byte(after)?,
                    _ => (low, after),
                };
                if high < low {
                    return Err(GlobError::Class);
                }
                (low..=high).for_each(|byte| set.insert(byte));
                rest = after;
            }
        }
        first = false;
    }
}

fn class_byte(text: &[u8]) -> Result<(u8, &[u8]), GlobError> {
    match text {
        [b'\\', byte, after @ ..] => Ok((*byte, after)),
        [b'\\'] | [] => Err(GlobError::OpenClass),
        [byte, after @ ..] => Ok((*byte, after)),
    }
}

fn named_class(name: &[u8]) -> Option<fn(&u8) -> bool> {
    Some(match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return None,
    })
}

impl ByteSet {
    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    fn inverted(self) -> ByteSet {
        ByteSet(self.0.map(|bits| !bits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let path = RelPath::parse(path.as_bytes()).unwrap();
        Glob::parse(pattern.as_bytes()).unwrap().matches(&path)
    }

    // Protects users' habits: the cases of gitignore(5), checked against `git check-ignore`.
    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        for (pattern, hits, misses) in [
            (
                "foo",
                &["foo", "a/foo", "a/b/foo"][..],
                &["foo.c", "afoo", "foo/bar"][..],
            ),
            ("*.o", &["a.o", ".o", "x/y.o"], &["a.oo", "o"]),
            ("/foo", &["foo"], &["a/foo"]),
            ("a/b", &["a/b"], &["x/a/b", "a/b/c", "a/x/b", "ab"]),
            ("a/*.c", &["a/x.c"], &["a/b/x.c", "x/a/x.c"]),
            ("**/foo", &["foo", "a/foo", "a/b/foo"], &["foo/a", "xfoo"]),
            ("**/a/b", &["a/b", "x/a/b", "x/y/a/b", "a/a/b"], &["a/x/b"]),
            ("a/**", &["a/b", "a/b/c"], &["a", "x/a/b"]),
            ("/**", &["a", "a/b"], &[]),
            (
                "a/**/b",
                &["a/b", "a/x/b", "a/x/y/b", "a/b/b"],
                &["ab", "x/a/b", "a/x/bc"],
            ),
            ("a/**/b/**/c", &["a/b/c", "a/b/b/x/c", "a/b/c/c"], &["a/c", "a/b"]),
            ("a/***/b", &["a/b", "a/x/y/b"], &["ab", "x/a/b"]),
            ("a**b", &["ab", "axxb", "x/ab"], &["a/b"]),
            ("**", &["a", "a/b"], &[]),
            ("f?o", &["foo", "a/f.o"], &["fo", "fooo"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x", "-x"]),
            ("[!a-c]x", &["dx"], &["ax", "x"]),
            ("[^a]x", &["bx"], &["ax"]),
            ("[]a]x", &["]x", "ax"], &["bx"]),
            ("[a-]x", &["-x", "ax"], &["bx"]),
            ("[\\]a]x", &["]x", "ax"], &["\\x"]),
            ("[[:digit:][:upper:]_]x", &["1x", "Ax", "_x"], &["ax", ":x"]),
            ("a/[!b]c", &["a/dc"], &["a/bc", "a/c"]),
            ("a[!b]c", &["adc"], &["a/c"]),
            ("\\*", &["*", "a/*"], &["a"]),
            ("\\!a", &["!a"], &["a"]),
            ("!a", &["!a"], &["a"]),
            ("#a", &["#a"], &["a"]),
            ("{a,b}", &["{a,b}"], &["a", "b"]),
            ("a b ", &["a b "], &["a b"]),
            ("*a*b*c", &["abc", "xaybzc", "abcabc"], &["acb", "abcx"]),
        ] {
            for path in hits {
                assert!(matches(pattern, path), "{pattern} misses {path}");
            }
            for path in misses {
                assert!(!matches(pattern, path), "{pattern} hits {path}");
            }
        }
    }

    // Protects from rules that silently never match.
    #[test]
    fn patterns_that_make_no_sense_are_refused() {
        for (pattern, want) in [
            ("", GlobError::Empty),
            ("/", GlobError::Empty),
            ("a//b", GlobError::Empty),
            ("//", GlobError::Empty),
            ("./a", GlobError::Dots),
            ("a/..", GlobError::Dots),
            ("[a", GlobError::OpenClass),
            ("[]", GlobError::OpenClass),
            ("[a/b]", GlobError::OpenClass),
            ("[a\\", GlobError::OpenClass),
            ("[[:digit", GlobError::OpenClass),
            ("[[:word:]]", GlobError::Class),
            ("[z-a]", GlobError::Class),
            ("a\\", GlobError::Escape),
            ("a\\/b", GlobError::Escape),
        ] {
            assert_eq!(Glob::parse(pattern.as_bytes()), Err(want), "{pattern}");
        }
    }

    // Protects names that are not UTF-8: they are bytes like any other.
    #[test]
    fn names_that_are_not_utf8_match_as_bytes() {
        let path = RelPath::parse(b"dir/\xff\xfe.bin").unwrap();
        for pattern in [&b"*.bin"[..], b"\xff*", b"dir/??.bin", b"[\xf0-\xff]*"] {
            assert!(
                Glob::parse(pattern).unwrap().matches(&path),
                "{}",
                crate::model::escape(pattern)
            );
        }
        assert!(!Glob::parse(b"\xfe*").unwrap().matches(&path));
    }

    // Protects the loop: the worst pattern costs no more than its length times the path's.
    #[test]
    fn row_14_pathological_patterns_do_bounded_work() {
        let deep = "aaaaaaaaaaaaaaa/".repeat(255) + "a";
        let wide = "a".repeat(255);
        let mixed = ("a".repeat(250) + "/").repeat(15) + &"a".repeat(250);
        for pattern in [
            format!("{}b", "*a".repeat(500)),
            format!("*{}b", "a".repeat(127)),
            format!("**/{}b", "**/a*/".repeat(160)),
            format!("**/{}b", "*a*/".repeat(250)),
            format!("**/{}b", "a/".repeat(128)),
            format!("**/{}*{}b", format!("*{}/", "a".repeat(60)).repeat(8), "a".repeat(125)),
            "*".repeat(1024),
            "[!b]".repeat(250),
        ] {
            let glob = Glob::parse(pattern.as_bytes()).unwrap();
            for path in [&deep, &wide, &mixed] {
                let mut steps = 0;
                glob.matches_counting(path.as_bytes(), &mut steps);
                let bound = (pattern.len() * path.len()) as u64;
                assert!(steps <= bound, "{steps} steps for {pattern}, at most {bound}");
            }
        }
    }

    /// The definition of a match, by trying everything.
    fn segments_match(segments: &[Segment], components: &[&[u8]]) -> bool {
        match segments.split_first() {
            None => components.is_empty(),
            Some((Segment::AnyDepth, rest)) => {
                (0..=components.len()).any(|taken| segments_match(rest, &components[taken..]))
            }
            Some((Segment::Name(tokens), rest)) => components
                .split_first()
                .is_some_and(|(first, others)| tokens_match(tokens, first) && segments_match(rest, others)),
        }
    }

    fn tokens_match(tokens: &[Token], name: &[u8]) -> bool {
        match tokens.split_first() {
            None => name.is_empty(),
            Some((Token::AnyBytes, rest)) => (0..=name.len()).any(|taken| tokens_match(rest, &name[taken..])),
            Some((token, rest)) => name.split_first().is_some_and(|(byte, others)| {
                let hit = match token {
                    Token::Byte(want) => want == byte,
                    Token::Class(set) => set.contains(*byte),
                    Token::AnyByte | Token::AnyBytes => true,
                };
                hit && tokens_match(rest, others)
            }),
        }
    }

    proptest! {
        // Protects the one-retry rule of the matcher: it finds every match that exists.
        #[test]
        fn the_matcher_agrees_with_the_definition(
            pattern in "(\\*\\*/)?[ab*?]{1,4}(/(\\*\\*|[ab*?]{1,3}|\\[!a\\]b?)){0,5}",
            path in "[ab]{1,4}(/[ab]{1,4}){0,6}",
        ) {
            let glob = Glob::parse(pattern.as_bytes()).unwrap();
            let mut components: Vec<&[u8]> = path.as_bytes().split(|&byte| byte == b'/').collect();
            if glob.reach == Reach::Name {
                components.drain(..components.len() - 1);
            }
            let want = segments_match(&glob.segments, &components);
            prop_assert_eq!(glob.matches_counting(path.as_bytes(), &mut 0), want, "{} on {}", pattern, path);
        }
    }
}
