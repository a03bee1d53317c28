//! What is wrong with a configuration: where, why, and what to do about it.
//!
//! A problem never holds the value of a secret. Its span may: whoever prints source lines has to
//! mask the strings in them.

use std::fmt;
use std::io;
use std::ops::Range;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// The offending text as written, cut to one line; `None` where it is or may hold a secret, or
    /// where something is missing.
    pub text: Option<String>,
    pub why: String,
    pub help: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Somewhere in a file: line and column count characters from 1, the span bytes from 0.
    Text {
        file: String,
        line: usize,
        column: usize,
        span: Range<usize>,
    },
    /// A file as a whole.
    File {
        file: String,
    },
    Environment {
        name: String,
    },
}

/// All that is wrong, in the order of the file, the environment last. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub(super) fn unreadable(file: &str, error: &io::Error) -> Problems {
        Problems(vec![Problem {
            place: Place::File { file: file.to_owned() },
            text: None,
            why: format!("cannot be read: {error}"),
            help: "check --config and VOXGATE_CONFIG".to_owned(),
        }])
    }

    pub(super) fn sorted(mut list: Vec<Problem>) -> Problems {
        list.sort_by_key(|problem| match &problem.place {
            Place::File { .. } => 0,
            Place::Text { span, .. } => span.start,
            Place::Environment { .. } => usize::MAX,
        });
        Problems(list)
    }
}

impl Place {
    pub(super) fn in_text(file: &str, text: &str, span: Range<usize>) -> Place {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::Text {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            span,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Text { file, line, column, .. } => write!(f, "{file}:{line}:{column}"),
            Place::File { file } => f.write_str(file),
            Place::Environment { name } => write!(f, "{name} (environment)"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.place, self.why, self.help)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// The candidate that was most likely meant, if any is near: a third of the letters may differ.
pub(super) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    let allowed = word.chars().count().max(3) / 3;
    candidates
        .map(|candidate| (strsim::osa_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters_and_lines_from_one() {
        let text = "a = 1\nä = \"é\" x\n";
        let at = |what: &str| {
            let start = text.find(what).unwrap();
            Place::in_text("f", text, start..start + what.len()).to_string()
        };
        assert_eq!([at("a"), at("ä"), at("x")], ["f:1:1", "f:2:1", "f:2:9"]);
        assert_eq!(Place::in_text("f", text, 999..999).to_string(), "f:3:1", "past the end is the end");
    }

    #[test]
    fn the_nearest_word_is_one_that_a_slip_of_the_pen_explains() {
        let keys = ["eou_ms", "barge_in", "vad", "vad_rms"];
        for (word, near) in [
            ("eou_msec", Some("eou_ms")),
            ("EOU-MS", Some("eou_ms")),
            ("bargein", Some("barge_in")),
            ("vda", Some("vad")),
            ("voice", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, keys.into_iter()), near, "{word}");
        }
    }
}
