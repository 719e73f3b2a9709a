//! Errors of the system as the end of a sentence. Never decides what they mean.

use std::io;

/// `permission denied`: without the number, the capital and what the standard library puts before it.
#[must_use]
pub fn system_reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let text = text
        .strip_prefix("failed to lookup address information: ")
        .unwrap_or(text);
    let mut letters = text.chars();
    // Only the first letter: "Is a directory" reads on, "I/O error" stays.
    match letters.next() {
        Some(first) if letters.clone().next().is_some_and(char::is_lowercase) || letters.as_str().starts_with(' ') => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_errors_lose_their_number_and_read_on() {
        assert_eq!(system_reason(&io::Error::from_raw_os_error(13)), "permission denied");
        assert_eq!(
            system_reason(&io::Error::from_raw_os_error(2)),
            "no such file or directory"
        );
        let unknown = io::Error::other("failed to lookup address information: Name or service not known");
        assert_eq!(system_reason(&unknown), "name or service not known");
    }
}
