//! A configuration's text as it may be shown: strings are masked, since any of them may be a secret,
//! but for the piece that a problem is about and may name. Every byte keeps its place.

use std::ops::Range;

/// The text with its strings masked; not those in `shown`. With `strict`, as for a text that is no
/// TOML, whatever stands behind a `=` is masked.
pub fn masked(text: &str, shown: Option<Range<usize>>, strict: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut state = State::Plain;
    let mut value = false;
    let mut skip = 0;
    for (at, c) in text.char_indices() {
        if c == '\n' {
            value = false;
            if matches!(state, State::Comment | State::Quoted(_, 1)) {
                state = State::Plain;
            }
        }
        let begins = |quote: char, count: usize| {
            text[at..].chars().take(count).filter(|c| *c == quote).count() == count
        };
        let was = state;
        if skip > 0 {
            skip -= 1;
        } else {
            match state {
                State::Plain => match c {
                    '#' => state = State::Comment,
                    '"' | '\'' => {
                        let quotes = if begins(c, 3) { 3 } else { 1 };
                        state = State::Quoted(c, quotes);
                        skip = quotes - 1;
                    }
                    '=' => value = true,
                    _ => {}
                },
                State::Quoted('"', _) if c == '\\' => skip = 1,
                State::Quoted(quote, quotes) if begins(quote, quotes) => {
                    state = State::Plain;
                    skip = quotes - 1;
                }
                State::Quoted(..) | State::Comment => {}
            }
        }
        let is_shown = shown.as_ref().is_some_and(|shown| shown.contains(&at));
        let hide = match was {
            // Quotes show where it begins and ends.
            State::Quoted(..) => !matches!(c, '"' | '\''),
            State::Comment => true,
            State::Plain => strict && value && c.is_alphanumeric(),
        };
        match c {
            '\n' | '\r' => out.push(c),
            c if c.is_control() => fill(&mut out, c, ' '),
            c if hide && !is_shown && c != ' ' => fill(&mut out, c, '*'),
            c => out.push(c),
        }
    }
    out
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Plain,
    Comment,
    /// Which quote, and how many of them end it.
    Quoted(char, usize),
}

/// Something as long as the letter.
fn fill(out: &mut String, letter: char, with: char) {
    match letter.len_utf8() {
        1 => out.push(with),
        2 => out.push('·'),
        3 => out.push('•'),
        _ => out.push('𝚡'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_are_masked_and_what_is_meant_is_not() {
        for (text, wanted) in [
            ("token = \"hunter2\"", "token = \"*******\""),
            ("a = 'it''s' # note", "a = '**''*' # ****"),
            ("a = \"x\\\"y\"\nb = 5", "a = \"****\"\nb = 5"),
            ("a = \"\"\"x\n\"y\"\n\"\"\"\nb = 'z'", "a = \"\"\"*\n***\n\"\"\"\nb = '*'"),
            ("a = { b = \"c\", d = 1 }", "a = { b = \"*\", d = 1 }"),
            ("a = \"open\nb = 1", "a = \"****\nb = 1"),
        ] {
            let seen = masked(text, None, false);
            let letters = |text: &str| text.replace(['"', '\''], "*");
            assert_eq!(letters(&seen), letters(wanted), "{text}: {seen}");
            assert_eq!(seen.len(), text.len());
        }
        let text = "a = \"one\", b = \"two\"";
        let at = text.find("one").unwrap();
        assert_eq!(masked(text, Some(at..at + 3), false), "a = \"one\", b = \"***\"");
        assert_eq!(masked("token = hunter2", None, true), "token = *******");
    }

    proptest! {
        #[test]
        fn every_byte_keeps_its_place(text in r#"([a-z]|"|'|\\|=|#|\n|é|€|𝄞|\x1b| ){0,40}"#, strict in any::<bool>()) {
            let seen = masked(&text, None, strict);
            prop_assert_eq!(seen.len(), text.len());
            let ends = |text: &str| text.char_indices().map(|(at, _)| at).collect::<Vec<_>>();
            prop_assert_eq!(ends(&seen), ends(&text));
        }
    }
}
