//! What a peer said, where failures and the log tell of it. It may be about the caller: a service repeats
//! what it was sent, and an app says what it knows. So the gateway gives its length only, unless the
//! operator wants texts in the log; the commands, which write no log, show what was said.

use std::sync::atomic::{AtomicBool, Ordering};

/// How much is quoted, in characters.
pub(super) const QUOTED: usize = 120;

/// One for the process, as the log is.
static WORDS_ARE_TOLD: AtomicBool = AtomicBool::new(true);

/// Whether `[log] transcripts` lets what peers say into the log.
pub fn tell_words(tell: bool) {
    WORDS_ARE_TOLD.store(tell, Ordering::Relaxed);
}

/// What came, fit for a log: its words if these may be told, else how many bytes.
pub fn quote(bytes: &[u8]) -> String {
    quoted(bytes, WORDS_ARE_TOLD.load(Ordering::Relaxed))
}

/// The same, of a peer that may repeat the secret which it was sent.
pub(super) fn quote_without(secret: Option<&str>, bytes: &[u8]) -> String {
    match secret.filter(|secret| !secret.is_empty()) {
        Some(secret) => quote(String::from_utf8_lossy(bytes).replace(secret, "***").as_bytes()),
        None => quote(bytes),
    }
}

fn quoted(bytes: &[u8], told: bool) -> String {
    let said = words(bytes);
    if told || said.is_empty() { said } else { format!("({} bytes, not logged)", bytes.len()) }
}

/// A code for programs, such as `invalid_api_key`; quoted if it is none.
pub(super) fn code(text: &str) -> String {
    let is_code = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if is_code { text.to_owned() } else { quote(text.as_bytes()) }
}

/// The beginning of what came, on one line and without control characters. Not for the log, unless it
/// cannot be about the caller.
pub(super) fn words(bytes: &[u8]) -> String {
    let beginning = &bytes[..bytes.len().min(16 * QUOTED)];
    let text = String::from_utf8_lossy(beginning.strip_prefix("\u{feff}".as_bytes()).unwrap_or(beginning));
    let mut quoted = text.split_whitespace().collect::<Vec<_>>().join(" ");
    quoted.retain(|c| !c.is_control());
    if let Some((end, _)) = quoted.char_indices().nth(QUOTED) {
        quoted.truncate(end);
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_is_one_short_line() {
        assert_eq!(words(b" <h1>Oops</h1>\r\n\t<p>a\x1b[31mb\0</p>\n"), "<h1>Oops</h1> <p>a[31mb</p>");
        assert_eq!(words(b""), "");
        assert_eq!(words(&[0xff, b'a']), "\u{fffd}a");
        assert_eq!(words("ü".repeat(QUOTED).as_bytes()), "ü".repeat(QUOTED));
        let long = words("ü".repeat(9999).as_bytes());
        assert_eq!(long, "ü".repeat(QUOTED) + "…");
    }

    #[test]
    fn what_is_not_to_be_told_has_its_length() {
        assert_eq!(quoted(b"Philippa called", true), "Philippa called");
        assert_eq!(quoted(b"Philippa called", false), "(15 bytes, not logged)");
        assert_eq!(quoted(b" \n", false), "");
    }
}
