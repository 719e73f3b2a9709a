//! Cuts Rust source into words and signs, without comments, strings and character literals.
//!
//! Never complains: what it does not understand becomes a sign. Enough to find paths and braces.

/// A word or one sign, with its line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// The tokens of `source`, in order.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let length = length_of(rest, first);
        let text = &rest[..length];
        let is_word = first == '_' || first.is_alphanumeric();
        let is_sign = length == first.len_utf8() && !first.is_whitespace() && first != '"';
        if (is_word && !text.ends_with(['"', '#', '\''])) || is_sign {
            tokens.push(Token {
                text: text.to_owned(),
                line,
            });
        }
        line += text.matches('\n').count();
        rest = &rest[length..];
    }
    tokens
}

/// Bytes of the comment, literal, word or sign that `rest` starts with.
fn length_of(rest: &str, first: char) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return comment_length(rest);
    }
    let word: usize = rest
        .chars()
        .take_while(|&c| c == '_' || c.is_alphanumeric())
        .map(char::len_utf8)
        .sum();
    let after = &rest[word..];
    if matches!(&rest[..word], "r" | "br" | "cr") && after.starts_with(['"', '#']) {
        let hashes = after.len() - after.trim_start_matches('#').len();
        if after[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let inside = &after[hashes + 1..];
            let close = inside.find(&end).map_or(inside.len(), |at| at + end.len());
            return word + hashes + 1 + close;
        }
    }
    if matches!(&rest[..word], "" | "b" | "c") && after.starts_with('"') {
        return word + quoted_length(after, '"');
    }
    if matches!(&rest[..word], "" | "b") && is_character(after) {
        return word + quoted_length(after, '\'');
    }
    if word > 0 { word } else { first.len_utf8() }
}

/// Whether a quote starts a character literal (a lifetime has no closing quote).
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars();
    if chars.next() != Some('\'') {
        return false;
    }
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

fn comment_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut depth = 0;
    let mut at = 0;
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protects the checks from text that only looks like code.
    #[test]
    fn comments_and_literals_are_left_out_and_lines_are_counted() {
        let source = "a // unsafe\n/* b /* c */ d */ e\n\"f \\\" g\" br#\"h \" \"# 'i' '\\'' b'j' 'k: l\nm";
        let seen: Vec<(String, usize)> = tokens(source)
            .into_iter()
            .map(|token| (token.text, token.line))
            .collect();
        let want = [("a", 1), ("e", 2), ("'", 3), ("k", 3), (":", 3), ("l", 3), ("m", 4)];
        assert_eq!(seen, want.map(|(text, line)| (text.to_owned(), line)));
    }
}
