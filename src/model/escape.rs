//! Showing names from outside to people: one name is one line and can never steer a terminal.

use std::fmt;

/// Displays bytes with everything escaped that a terminal or a log could take as an instruction:
/// control characters (C0, C1, DEL), bidirectional marks, line separators, invalid UTF-8 (`\xNN`),
/// and the backslash itself, so that the text is unambiguous.
pub struct Escaped<'a>(pub &'a [u8]);

/// The escaped form of `bytes` as a string.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    Escaped(bytes).to_string()
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                show(f, character)?;
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

fn show(f: &mut fmt::Formatter<'_>, character: char) -> fmt::Result {
    match character {
        '\\' => f.write_str("\\\\"),
        '\n' => f.write_str("\\n"),
        '\t' => f.write_str("\\t"),
        '\r' => f.write_str("\\r"),
        _ if steers(character) => {
            write!(f, "\\u{{{:x}}}", u32::from(character))
        }
        _ => fmt::Write::write_char(f, character),
    }
}

/// Whether a terminal or a log could take the character as an instruction.
#[must_use]
pub fn steers(character: char) -> bool {
    character.is_control() || steers_text(character)
}

/// Marks that change the direction or the line of the text around them (Unicode bidi controls,
/// line and paragraph separators, zero-width characters, the byte-order mark).
fn steers_text(character: char) -> bool {
    matches!(character,
        '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_harmless_line() {
        assert_eq!(escape("grüße.txt".as_bytes()), "grüße.txt");
        assert_eq!(escape(b"a\nb\x1b[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(escape(b"\xff\\"), "\\xff\\\\");
        assert_eq!(escape("exe.\u{202e}gpj\u{9b}".as_bytes()), "exe.\\u{202e}gpj\\u{9b}");
    }
}
