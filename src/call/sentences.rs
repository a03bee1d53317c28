//! Cuts the agent's text, arriving in pieces of any length, into sentences that can be spoken while
//! the next are still being written.

/// A sentence longer than this is cut at a space, so that speech can start.
const LONGEST: usize = 300;

/// Words whose full stop does not end a sentence.
const ABBREVIATIONS: [&str; 14] =
    ["mr", "mrs", "ms", "dr", "st", "prof", "no", "nr", "vs", "etc", "e.g", "i.e", "approx", "ca"];

#[derive(Clone, Debug, Default)]
pub(super) struct Sentences {
    text: String,
    /// So much of it was given out.
    given: usize,
}

impl Sentences {
    pub(super) fn push(&mut self, piece: &str) {
        self.text.drain(..std::mem::take(&mut self.given));
        self.text.push_str(piece);
    }

    /// The next whole sentence, once it is certain that it has ended.
    pub(super) fn next(&mut self) -> Option<String> {
        loop {
            let left = &self.text[self.given..];
            let end = boundary(left)?;
            self.given += end;
            let sentence = left[..end].trim();
            if is_speakable(sentence) {
                return Some(sentence.to_owned());
            }
        }
    }

    /// What is left when no more text will come.
    pub(super) fn rest(&mut self) -> Option<String> {
        let Sentences { text, given } = std::mem::take(self);
        let left = text[given..].trim();
        is_speakable(left).then(|| left.to_owned())
    }
}

/// The byte behind the first sentence of a text, white space included.
fn boundary(text: &str) -> Option<usize> {
    let mut last_space = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|(_, c)| *c);
        let behind = at + c.len_utf8();
        match c {
            '\n' if !text[..at].trim().is_empty() => return Some(behind),
            '.' | '!' | '?' | '…' | ':' | ';' if next.is_some_and(char::is_whitespace) => {
                let ends = match c {
                    '.' => !is_abbreviation(&text[..at]),
                    ':' | ';' => false,
                    _ => true,
                };
                if ends {
                    return Some(behind);
                }
            }
            // A full stop of these scripts needs no space behind it.
            '。' | '！' | '？' => return Some(behind),
            c if c.is_whitespace() => last_space = Some(behind),
            _ => {}
        }
        if behind > LONGEST {
            return Some(last_space.unwrap_or(behind));
        }
    }
    None
}

fn is_abbreviation(before: &str) -> bool {
    let word = before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
    let initial = word.chars().count() == 1 && word.chars().all(char::is_alphabetic) && word != "I";
    initial || ABBREVIATIONS.iter().any(|a| a.eq_ignore_ascii_case(word))
}

/// Text without a letter or digit would make a speech service say nothing, or fail.
fn is_speakable(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(pieces: &[&str]) -> Vec<String> {
        let mut sentences = Sentences::default();
        let mut told = Vec::new();
        for piece in pieces {
            sentences.push(piece);
            while let Some(sentence) = sentences.next() {
                told.push(sentence);
            }
        }
        told.extend(sentences.rest());
        told
    }

    #[test]
    fn sentences() {
        for (text, expected) in [
            ("We are open. Come in!", vec!["We are open.", "Come in!"]),
            ("It costs 3.50 today. Yes?  Good", vec!["It costs 3.50 today.", "Yes?", "Good"]),
            ("Ask Dr. Miller, e.g. today. Or J. Doe.", vec!["Ask Dr. Miller, e.g. today.", "Or J. Doe."]),
            ("One\nTwo\n\n- Three", vec!["One", "Two", "- Three"]),
            ("Wait... what? ... !", vec!["Wait...", "what?"]),
            ("您好。请讲", vec!["您好。", "请讲"]),
            ("  \n ", vec![]),
        ] {
            assert_eq!(cut(&[text]), expected, "{text}");
        }
    }

    #[test]
    fn a_sentence_is_given_out_as_soon_as_it_has_certainly_ended() {
        let mut sentences = Sentences::default();
        sentences.push("We are open from nine to five.");
        assert_eq!(sentences.next(), None, "5.30 may follow");
        sentences.push(" And");
        assert_eq!(sentences.next().as_deref(), Some("We are open from nine to five."));
        assert_eq!(sentences.next(), None);
        assert_eq!(sentences.rest().as_deref(), Some("And"));
    }

    #[test]
    fn text_without_an_end_is_cut_at_a_space() {
        let told = cut(&[&"word ".repeat(200)]);
        assert!(told.len() > 3 && told.iter().all(|s| s.len() <= LONGEST && !s.ends_with("wor")), "{told:?}");
    }

    #[test]
    fn a_quarter_of_a_megabyte_without_a_word_is_nothing_to_say() {
        for punctuation in ["! ", "-\n", "。"] {
            assert_eq!(cut(&[&punctuation.repeat(90_000)]), [""; 0], "{punctuation:?}");
        }
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_sentences_and_loses_no_word(
            text in "([a-zé]{1,9}[.!?]{0,2}[ \n]){0,60}", size in 1usize..20) {
            let pieces: Vec<String> = text.chars().collect::<Vec<_>>().chunks(size)
                .map(|c| c.iter().collect()).collect();
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            let told = cut(&pieces);
            prop_assert_eq!(&told, &cut(&[&text]));
            let words = told.join(" ");
            prop_assert_eq!(words.split_whitespace().collect::<Vec<_>>(), text.split_whitespace().collect::<Vec<_>>());
        }
    }
}
