//! What a streaming recogniser has understood since its last transcript: final pieces, the guess at
//! what follows them, and whether it takes the caller to have finished.

use super::tape::Position;

/// A transcript is a few sentences; a recogniser that never stops talking is cut.
const LONGEST: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Words {
    finals: String,
    interim: String,
    /// What the call has been told last.
    told: String,
    /// Where the caller's audio was when the recogniser took the caller to have finished, if no word
    /// has come since.
    pub(super) ended_at: Option<Position>,
}

impl Words {
    /// A guess, in place of the one before.
    pub(super) fn guess(&mut self, text: &str) {
        self.interim.clear();
        self.interim.push_str(text.trim());
        if !self.interim.is_empty() {
            self.ended_at = None;
        }
    }

    /// A piece that will not change any more.
    pub(super) fn settle(&mut self, text: &str) {
        self.interim.clear();
        let text = text.trim();
        if !text.is_empty() && self.finals.len() + text.len() < LONGEST {
            self.ended_at = None;
            self.finals = joined(&self.finals, text);
        }
    }

    /// There is no text at all.
    pub(super) fn is_empty(&self) -> bool {
        self.finals.is_empty() && self.interim.is_empty()
    }

    pub(super) fn has_guess(&self) -> bool {
        !self.interim.is_empty()
    }

    /// The text so far, if it is another one than the call knows.
    pub(super) fn news(&mut self) -> Option<String> {
        let text = joined(&self.finals, &self.interim);
        if text == self.told || text.is_empty() {
            return None;
        }
        self.told.clone_from(&text);
        Some(text)
    }

    /// All there is; from here on nothing is.
    pub(super) fn take(&mut self) -> String {
        let Words { finals, interim, .. } = std::mem::take(self);
        joined(&finals, &interim)
    }
}

fn joined(one: &str, other: &str) -> String {
    match (one, other) {
        ("", text) | (text, "") => text.to_owned(),
        (one, other) => format!("{one} {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_its_final_pieces_and_the_latest_guess() {
        let mut words = Words::default();
        assert_eq!(words.news(), None);
        words.guess("book");
        assert_eq!(words.news().as_deref(), Some("book"));
        words.guess(" book ");
        assert_eq!(words.news(), None, "nothing new");
        words.settle("Book a table");
        words.guess("for");
        assert_eq!(words.news().as_deref(), Some("Book a table for"));
        words.settle("for two.");
        words.settle("");
        assert!(!words.has_guess());
        assert_eq!(words.take(), "Book a table for two.");
        assert!(words.is_empty() && words.news().is_none());
    }

    #[test]
    fn a_word_takes_back_the_end() {
        let mut words = Words::default();
        words.settle("stop");
        words.ended_at = Some(7);
        words.guess("");
        words.settle(" ");
        assert_eq!(words.ended_at, Some(7));
        words.guess("or");
        assert_eq!(words.ended_at, None);
    }
}
