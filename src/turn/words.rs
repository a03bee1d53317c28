//! What words mean for a turn: some only say "go on" and some say "stop", in each language; some leave
//! a sentence open; and some are the bot's own, come back.

use serde::{Deserialize, Serialize};

/// Words of one language.
struct Language {
    code: &'static str,
    /// Said while listening: they ask for nothing.
    backchannels: &'static [&'static str],
    /// One of these is enough to stop the bot.
    stop: &'static [&'static str],
    /// A sentence does not end with these: something is to follow.
    open: &'static [&'static str],
}

const LANGUAGES: [Language; 6] = [
    Language {
        code: "en",
        backchannels: &[
            "uh huh",
            "mm hmm",
            "mhm",
            "mm",
            "hmm",
            "hm",
            "uh",
            "um",
            "ah",
            "oh",
            "yeah",
            "yep",
            "yes",
            "ok",
            "okay",
            "right",
            "sure",
            "i see",
            "got it",
            "great",
            "good",
            "cool",
            "of course",
        ],
        stop: &[
            "stop",
            "wait",
            "hold on",
            "hang on",
            "no",
            "pause",
            "cancel",
            "excuse me",
            "quiet",
            "enough",
            "one moment",
            "just a second",
            "operator",
        ],
        open: &[
            "a", "an", "the", "and", "or", "but", "so", "because", "if", "that", "of", "to", "for", "with",
            "at", "in", "on", "from", "by", "about", "my", "your", "his", "her", "our", "their", "is", "are",
            "was", "i", "we", "um", "uh", "er", "like", "well", "then", "number",
        ],
    },
    Language {
        code: "he",
        backchannels: &[
            "אהה",
            "אה",
            "אהמ",
            "כן",
            "בסדר",
            "אוקיי",
            "אוקי",
            "הבנתי",
            "נכון",
            "טוב",
            "יופי",
            "סבבה",
        ],
        stop: &["עצור", "עצרי", "רגע", "חכה", "חכי", "לא", "די", "תפסיק", "תפסיקי", "סליחה", "שנייה"],
        open: &[
            "של",
            "את",
            "עם",
            "על",
            "אל",
            "או",
            "אבל",
            "כי",
            "אם",
            "גם",
            "אני",
            "אנחנו",
            "זה",
            "אז",
            "כאילו",
            "מספר",
        ],
    },
    Language {
        code: "es",
        backchannels: &[
            "ajá",
            "mm",
            "mhm",
            "sí",
            "si",
            "ya",
            "vale",
            "claro",
            "ok",
            "bueno",
            "bien",
            "de acuerdo",
            "entiendo",
            "perfecto",
        ],
        stop: &[
            "para",
            "pare",
            "espera",
            "espere",
            "no",
            "alto",
            "un momento",
            "basta",
            "perdón",
            "perdone",
            "cancelar",
        ],
        open: &[
            "el", "la", "los", "las", "un", "una", "y", "o", "pero", "porque", "de", "del", "a", "al", "en",
            "con", "por", "mi", "su", "que", "es", "eh", "este", "pues", "número",
        ],
    },
    Language {
        code: "de",
        backchannels: &[
            "mhm",
            "hm",
            "aha",
            "ja",
            "ja ja",
            "ok",
            "okay",
            "genau",
            "gut",
            "alles klar",
            "verstehe",
            "ach so",
            "stimmt",
            "klar",
        ],
        stop: &[
            "stopp",
            "stop",
            "halt",
            "warte",
            "warten sie",
            "moment",
            "nein",
            "einen moment",
            "entschuldigung",
            "genug",
            "abbrechen",
        ],
        open: &[
            "der", "die", "das", "den", "dem", "ein", "eine", "einen", "und", "oder", "aber", "weil", "dass",
            "wenn", "von", "zu", "für", "mit", "auf", "in", "im", "mein", "meine", "ist", "ich", "wir", "äh",
            "ähm", "also", "nummer",
        ],
    },
    Language {
        code: "fr",
        backchannels: &[
            "mm",
            "mhm",
            "hum",
            "ouais",
            "oui",
            "d accord",
            "ok",
            "bien",
            "très bien",
            "ah",
            "je vois",
            "voilà",
            "entendu",
            "parfait",
        ],
        stop: &[
            "stop",
            "arrêtez",
            "arrête",
            "attendez",
            "attends",
            "non",
            "un instant",
            "une seconde",
            "pardon",
            "excusez moi",
            "annuler",
        ],
        open: &[
            "le", "la", "les", "un", "une", "des", "du", "de", "et", "ou", "mais", "parce", "que", "pour",
            "avec", "à", "au", "en", "mon", "ma", "mes", "je", "c est", "euh", "alors", "donc", "numéro",
        ],
    },
    Language {
        code: "ru",
        backchannels: &[
            "угу",
            "ага",
            "да",
            "так",
            "хорошо",
            "понятно",
            "ясно",
            "ок",
            "окей",
            "ладно",
            "конечно",
            "м",
        ],
        stop: &[
            "стоп",
            "подождите",
            "подожди",
            "стойте",
            "нет",
            "хватит",
            "секунду",
            "минуту",
            "извините",
            "простите",
            "погодите",
            "отмена",
        ],
        open: &[
            "и",
            "или",
            "но",
            "а",
            "в",
            "на",
            "с",
            "к",
            "по",
            "за",
            "из",
            "у",
            "что",
            "если",
            "мой",
            "моя",
            "я",
            "мы",
            "ну",
            "э",
            "номер",
        ],
    },
];

/// Numbers said as words are told by these; digits tell themselves.
const DIGITS: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];

/// So many words in a row are the bot's own when they are the same; fewer may be an answer.
const OWN_WORDS: usize = 3;

/// What the caller's words say to a bot that is speaking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Said {
    /// Nothing is known.
    #[default]
    Nothing,
    /// Go on.
    Backchannel,
    /// One word that may mean something.
    Word,
    /// Stop.
    Interrupts,
}

/// The words that turn-taking knows. Written down, they are what they were made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Lists", into = "Lists")]
pub struct Words {
    lists: Lists,
    /// Longest first, so that "uh huh" is not taken for "uh" and something.
    backchannels: Vec<Vec<String>>,
    stop: Vec<Vec<String>>,
    open: Vec<String>,
}

/// Codes of languages, and the operator's own words.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Lists {
    languages: Vec<String>,
    backchannels: Vec<String>,
    stop: Vec<String>,
}

impl From<Lists> for Words {
    fn from(lists: Lists) -> Words {
        Words::new(&lists.languages, &lists.backchannels, &lists.stop)
    }
}

impl From<Words> for Lists {
    fn from(words: Words) -> Lists {
        words.lists
    }
}

impl Words {
    /// The languages that are shipped.
    pub fn languages() -> impl Iterator<Item = &'static str> {
        LANGUAGES.iter().map(|language| language.code)
    }

    /// Words of these languages, and more.
    pub fn new(languages: &[String], backchannels: &[String], stop: &[String]) -> Words {
        let spoken = || LANGUAGES.iter().filter(|known| languages.iter().any(|code| code == known.code));
        let phrases = |shipped: Vec<&str>, more: &[String]| {
            let more = more.iter().map(String::as_str);
            let mut phrases: Vec<Vec<String>> = shipped.into_iter().chain(more).map(words_of).collect();
            phrases.retain(|phrase| !phrase.is_empty());
            phrases.sort_by_key(|phrase| std::cmp::Reverse(phrase.len()));
            phrases
        };
        Words {
            lists: Lists {
                languages: languages.to_vec(),
                backchannels: backchannels.to_vec(),
                stop: stop.to_vec(),
            },
            backchannels: phrases(spoken().flat_map(|l| l.backchannels).copied().collect(), backchannels),
            stop: phrases(spoken().flat_map(|l| l.stop).copied().collect(), stop),
            open: spoken().flat_map(|l| l.open).map(|word| (*word).to_owned()).collect(),
        }
    }

    /// What a text says to a bot that is speaking.
    pub fn said(&self, text: &str) -> Said {
        let words = words_of(text);
        let mut rest = &words[..];
        let mut others = 0;
        while let [_, behind @ ..] = rest {
            if self.stop.iter().any(|phrase| rest.starts_with(phrase)) {
                return Said::Interrupts;
            }
            match self.backchannels.iter().find(|phrase| rest.starts_with(phrase)) {
                Some(phrase) => rest = &rest[phrase.len()..],
                // "I", of "I see".
                None if self.backchannels.iter().any(|phrase| phrase.starts_with(rest)) => rest = &[],
                None => {
                    others += 1;
                    rest = behind;
                }
            }
        }
        match (others, words.is_empty()) {
            (0, true) => Said::Nothing,
            (0, false) => Said::Backchannel,
            (1, _) => Said::Word,
            (_, _) => Said::Interrupts,
        }
    }

    /// A word that is an answer by itself: "yes", "no".
    pub fn is_an_answer(&self, text: &str) -> bool {
        match self.said(text) {
            Said::Backchannel => true,
            Said::Interrupts => words_of(text).len() == 1,
            Said::Word | Said::Nothing => false,
        }
    }

    /// More is to come: the text ends in a word that something follows, or in a number that may go on.
    pub fn is_open(&self, text: &str) -> bool {
        let words = words_of(text);
        let Some(last) = words.last() else { return false };
        // One number may be all there is; two in a row are being read out.
        let numbers = words.iter().rev().take_while(|word| is_number(word)).count();
        numbers > 1 || self.open.contains(last)
    }

    /// The text looks like a whole sentence. That a recogniser sets a full stop is not enough.
    pub fn is_complete(&self, text: &str) -> bool {
        text.trim_end().ends_with(['.', '!', '?', '。', '？', '！']) && !self.is_open(text)
    }
}

/// These words are a part of what the bot has just said: its echo was taken for a caller.
pub fn are_own(text: &str, said_by_bot: &str) -> bool {
    let (words, own) = (words_of(text), words_of(said_by_bot));
    words.len() >= OWN_WORDS && own.windows(words.len()).any(|part| part == words)
}

/// Text as it compares: letters and digits in lower case, single spaces.
pub fn normalised(text: &str) -> String {
    words_of(text).join(" ")
}

fn is_number(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_digit()) || DIGITS.contains(&word)
}

fn words_of(text: &str) -> Vec<String> {
    let plain: String = text.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' }).collect();
    plain.split_whitespace().map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Words {
        Words::new(&Words::languages().map(str::to_owned).collect::<Vec<_>>(), &[], &[])
    }

    #[test]
    fn texts_compare_by_their_words() {
        assert_eq!(normalised("  Yes,  that's  RIGHT! "), "yes that s right");
        assert_eq!(normalised("...?"), "");
    }

    #[test]
    fn go_on_and_stop_in_six_languages() {
        for (text, said) in [
            ("", Said::Nothing),
            ("Uh-huh.", Said::Backchannel),
            ("mm hmm yeah okay", Said::Backchannel),
            ("D'accord, oui", Said::Backchannel),
            ("כן, בסדר", Said::Backchannel),
            ("Ja, genau.", Said::Backchannel),
            ("okay I", Said::Backchannel),
            ("I want", Said::Interrupts),
            ("угу, понятно", Said::Backchannel),
            ("sí, claro", Said::Backchannel),
            ("Tuesday", Said::Word),
            ("yes Tuesday", Said::Word),
            ("on Tuesday", Said::Interrupts),
            ("Stop!", Said::Interrupts),
            ("yeah hold on", Said::Interrupts),
            ("רגע", Said::Interrupts),
            ("Warten Sie", Said::Interrupts),
            ("Подождите", Said::Interrupts),
            ("Espere", Said::Interrupts),
            ("Attendez", Said::Interrupts),
        ] {
            assert_eq!(all().said(text), said, "{text}");
        }
    }

    #[test]
    fn the_operators_words_count_too_and_other_languages_do_not() {
        let words = Words::new(&["en".into()], &["roger that".into()], &["mayday".into()]);
        assert_eq!(words.said("Roger that"), Said::Backchannel);
        assert_eq!(words.said("mayday"), Said::Interrupts);
        assert_eq!(words.said("genau"), Said::Word);
    }

    #[test]
    fn what_is_open_and_what_is_complete() {
        for (text, open, complete) in [
            ("I want to book a table for.", true, false),
            ("I want to book a table for two people.", false, true),
            ("book a table", false, false),
            ("a table for two", false, false),
            ("my number is 5 5 5.", true, false),
            ("five five one", true, false),
            ("ich möchte einen Tisch für", true, false),
            ("Wann haben Sie offen?", false, true),
            ("um", true, false),
            ("", false, false),
        ] {
            assert_eq!((all().is_open(text), all().is_complete(text)), (open, complete), "{text}");
        }
    }

    #[test]
    fn the_bots_own_words_are_known_when_they_come_back() {
        let said = "We are open from nine to five. Shall I book a table?";
        assert!(are_own("open from nine", said));
        assert!(are_own("shall I book a TABLE", said));
        assert!(!are_own("nine", said), "an answer");
        assert!(!are_own("a table", said));
        assert!(!are_own("open from ten to five", said));
    }
}
