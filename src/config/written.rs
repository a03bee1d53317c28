//! The configuration as written: a parsed document, read key by key.
//!
//! A getter takes the file's value and the environment's, notes a problem for each that is wrong,
//! and answers with the one that counts, or `None` where the default does. Every key that a getter
//! asks for is known from then on; what is left unasked at the end is an unknown key.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::meant::Secret;
use super::problem::{Place, Problem, nearest};
use super::{Env, values};

/// Keys that the environment may set, by table and key, and under which names.
const FROM_ENVIRONMENT: [(&str, &str, &[&str]); 5] = [
    ("server", "deploy_id", &["DEPLOY_ID"]),
    ("turn", "eou_ms", &["EOU_MS", "EoU_MS"]),
    ("turn", "barge_in", &["BARGE_IN"]),
    ("turn", "vad_rms", &["VAD_RMS"]),
    ("turn", "dedup_window_sec", &["DEDUP_WINDOW_SEC"]),
];

pub(super) struct Document<'a> {
    file: &'a str,
    text: &'a str,
    /// Where `file:` paths start.
    folder: &'a Path,
    env: &'a Env,
    tables: Vec<Asked<'a>>,
    problems: Vec<Problem>,
}

/// A table, and the keys of it that were asked for.
struct Asked<'a> {
    /// As in its header: `dialogue.stt`; empty for the document itself.
    name: String,
    header: Option<Range<usize>>,
    entries: Option<&'a DeTable<'a>>,
    keys: Vec<Cow<'a, str>>,
}

pub(super) struct Table<'d, 'a> {
    doc: &'d mut Document<'a>,
    index: usize,
}

/// A value, and who gave it.
#[derive(Clone, Copy)]
enum Given<'a> {
    Written(&'a Spanned<DeValue<'a>>),
    Environment(&'a str, &'a str),
}

/// Why a value was refused: a predicate, and what to do if that is not what the getter says anyway.
pub(super) struct Refused {
    why: String,
    help: Option<String>,
    /// Of an `env:` or `file:` string: the reference is at fault, not what it leads to.
    reference: bool,
}

impl From<&str> for Refused {
    fn from(why: &str) -> Refused {
        Refused { why: why.to_owned(), help: None, reference: false }
    }
}

impl Refused {
    pub(super) fn because(why: &str, help: String) -> Refused {
        Refused { help: Some(help), ..Refused::from(why) }
    }
}

impl<'a> Document<'a> {
    pub(super) fn new(
        file: &'a str,
        text: &'a str,
        folder: &'a Path,
        env: &'a Env,
        root: &'a DeTable<'a>,
    ) -> Self {
        let root = Asked { name: String::new(), header: None, entries: Some(root), keys: Vec::new() };
        Document { file, text, folder, env, tables: vec![root], problems: Vec::new() }
    }

    pub(super) fn root(&mut self) -> Table<'_, 'a> {
        Table { doc: self, index: 0 }
    }

    /// What was wrong, the keys that nobody asked for included.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        for table in &self.tables {
            for (key, value) in table.entries.into_iter().flatten() {
                if !table.keys.iter().any(|known| known == key.get_ref()) {
                    let (why, help) = self.unknown(table, key.get_ref(), value.get_ref());
                    let place = Place::in_text(self.file, self.text, key.span());
                    let text = Some(excerpt(self.text, key.span()));
                    self.problems.push(Problem { place, text, why, help });
                }
            }
        }
        self.problems
    }

    /// Every key asked for, as (table, key).
    #[cfg(test)]
    pub(super) fn known(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tables.iter().flat_map(|table| table.keys.iter().map(|key| (table.name.as_str(), key.as_ref())))
    }

    fn unknown(&self, table: &Asked<'a>, key: &str, value: &DeValue<'_>) -> (String, String) {
        let near = nearest(key, table.keys.iter().map(AsRef::as_ref));
        let shown = |key: &str| key.escape_debug().take(60).collect::<String>();
        if value.is_table() {
            let why = format!("unknown table [{}]", shown(&join(&table.name, key)));
            return match near {
                Some(near) => (why, format!("did you mean [{}]?", join(&table.name, near))),
                None => (why, known_keys("this level has", &table.keys)),
            };
        }
        let why = match table.name.as_str() {
            "" => format!("unknown key `{}` outside any table", shown(key)),
            name => format!("unknown key `{}` in [{name}]", shown(key)),
        };
        let elsewhere =
            || self.tables.iter().find(|other| !other.name.is_empty() && other.keys.iter().any(|k| k == key));
        let help = match (near, elsewhere()) {
            (_, Some(other)) if near.is_none() || table.name.is_empty() => {
                format!("it belongs in [{}]", other.name)
            }
            (Some(near), _) => format!("did you mean `{near}`?"),
            _ => known_keys("known here:", &table.keys),
        };
        (why, help)
    }

    /// The string that is meant: itself, or what its `env:` or `file:` leads to.
    fn string(&self, given: Given<'a>) -> Result<Cow<'a, str>, Refused> {
        let written = match given {
            Given::Environment(_, text) => return Ok(Cow::Borrowed(text)),
            Given::Written(value) => value.get_ref().as_str().ok_or_else(|| type_of(value.get_ref()))?,
        };
        let dangling = |why: String, help: String| Err(Refused { why, help: Some(help), reference: true });
        if let Some(name) = written.strip_prefix("env:") {
            match self.env.get(name).map(String::as_str) {
                None => dangling(format!("needs {name}, which is not set"), format!("set {name}")),
                Some("") => dangling(format!("needs {name}, which is empty"), format!("set {name}")),
                Some(value) => Ok(Cow::Borrowed(value)),
            }
        } else if let Some(path) = written.strip_prefix("file:") {
            let path = self.folder.join(path);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Cow::Owned(text.trim_end_matches(['\r', '\n']).to_owned())),
                Err(e) => dangling(
                    format!("needs {}, which cannot be read: {e}", path.display()),
                    "a path is relative to the folder of the configuration".to_owned(),
                ),
            }
        } else {
            Ok(Cow::Borrowed(written))
        }
    }
}

impl<'a> Table<'_, 'a> {
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.get(key, "true or false", |given| match given {
            Given::Environment(_, text) => values::flag(text).map_err(Refused::from),
            Given::Written(value) => value.get_ref().as_bool().ok_or_else(|| type_of(value.get_ref())),
        })
    }

    pub(super) fn whole(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.get(key, &wanted, |given| within(whole(given)?, &range))
    }

    /// A whole number that counts or measures something, and so is not negative.
    pub(super) fn count(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<usize> {
        let count = self.whole(key, i64::from(*range.start())..=i64::from(*range.end()));
        count.and_then(|count| usize::try_from(count).ok())
    }

    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        self.get(key, &wanted, |given| within(number(given)?, &range))
    }

    pub(super) fn millis(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<Duration> {
        let wanted = format!("a whole number of milliseconds from {} to {}", range.start(), range.end());
        let range = i64::from(*range.start())..=i64::from(*range.end());
        let ms = self.get(key, &wanted, |given| within(whole(given)?, &range))?;
        u64::try_from(ms).ok().map(Duration::from_millis)
    }

    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let (from, to) = (values::show(*range.start()), values::show(*range.end()));
        let wanted = format!("a duration from \"{from}\" to \"{to}\"");
        self.parsed(key, &wanted, |text| within(values::duration(text)?, &range))
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        self.parsed(key, "a string", |text| Ok(text.to_owned()))
    }

    /// One of a closed set of words; `later` ones are good words, but not in this version.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
        later: &[&str],
    ) -> Option<T> {
        let listed: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.parsed(key, &listed.join(" or "), |text| match words.iter().find(|(word, _)| *word == text) {
            Some((_, meant)) => Ok(*meant),
            None if later.contains(&text) => Err(Refused::from("is not in this version yet")),
            None => Err(Refused::from("is not one of its words")),
        })
    }

    /// A string that means something, which `parse` finds out.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        let given = self.given(key);
        self.judge_all(key, given, wanted, false, |doc, given| parse(&doc.string(given)?))
    }

    /// The same, for what is or may hold a secret: a problem does not show it.
    pub(super) fn hidden<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        let given = self.given(key);
        self.judge_all(key, given, wanted, true, |doc, given| parse(&doc.string(given)?))
    }

    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        self.hidden(key, "a string that is not empty", |text| match text {
            "" => Err(Refused::from("is empty")),
            text => Ok(Secret(text.to_owned())),
        })
    }

    /// A list of strings. One that is wrong is left out, and noted.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<Vec<T>> {
        let items = self.get(key, &format!("a list: [{wanted}, …]"), |given| match given {
            Given::Written(value) => value.get_ref().as_array().ok_or_else(|| type_of(value.get_ref())),
            Given::Environment(..) => Err(Refused::from("cannot be a list")),
        })?;
        let items = items.iter().filter_map(|item| {
            self.judge_all(key, vec![Given::Written(item)], wanted, false, |doc, given| {
                parse(&doc.string(given)?)
            })
        });
        Some(items.collect())
    }

    /// A table in this one, `[name.key]`; an absent one reads as empty.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Table<'_, 'a>) -> T) -> T {
        let given = self.given(key);
        read(&mut self.open(Cow::Borrowed(key), given))
    }

    /// Every table in `[name.key]`, whatever it is called.
    pub(super) fn sections(&mut self, key: &'static str, mut read: impl FnMut(&str, &mut Table<'_, 'a>)) {
        self.section(key, |table| {
            for (name, value) in table.asked().entries.into_iter().flatten() {
                let mut section = table.open(name.get_ref().clone(), vec![Given::Written(value)]);
                read(name.get_ref(), &mut section);
            }
        });
    }

    /// Every entry of `[name.key]`: free names, secret values. `check` looks at both.
    pub(super) fn secrets(
        &mut self,
        key: &'static str,
        wanted: &str,
        check: impl Fn(&str, &str) -> Result<(), Refused>,
    ) -> Vec<(String, Secret)> {
        self.section(key, |table| {
            let entries = table.asked().entries.into_iter().flatten();
            let secrets = entries.filter_map(|(name, value)| {
                table.asked().keys.push(name.get_ref().clone());
                table.judge_all(name.get_ref(), vec![Given::Written(value)], wanted, true, |doc, given| {
                    let text = doc.string(given)?;
                    check(name.get_ref(), &text)?;
                    Ok((name.get_ref().clone().into_owned(), Secret(text.into_owned())))
                })
            });
            secrets.collect()
        })
    }

    /// A variable that is no key's namesake.
    pub(super) fn variable<T>(
        &mut self,
        name: &'a str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        let text = self.doc.env.get(name).filter(|text| !text.is_empty())?;
        let given = vec![Given::Environment(name, text)];
        self.judge_all("", given, wanted, false, |doc, given| parse(&doc.string(given)?))
    }

    /// The string of a key as it stands in the file.
    pub(super) fn as_written(&mut self, key: &'static str) -> Option<&'a str> {
        self.given(key);
        self.asked().entries?.get(key)?.get_ref().as_str()
    }

    pub(super) fn has(&mut self, key: &str) -> bool {
        self.asked().entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// Is this table in the file at all?
    pub(super) fn is_written(&mut self) -> bool {
        self.asked().entries.is_some()
    }

    /// Notes a problem between several keys, at the first of these that the file has: the value of
    /// `key`, the header of this table, the file as a whole.
    pub(super) fn complain(&mut self, key: &str, why: String, help: String) {
        let table = &self.doc.tables[self.index];
        let value = table.entries.and_then(|entries| entries.get(key)).map(Spanned::span);
        let place = match value.or(table.header.clone()) {
            Some(span) => Place::in_text(self.doc.file, self.doc.text, span),
            None => Place::File { file: self.doc.file.to_owned() },
        };
        self.doc.problems.push(Problem { place, text: None, why, help });
    }

    fn asked(&mut self) -> &mut Asked<'a> {
        &mut self.doc.tables[self.index]
    }

    fn open(&mut self, key: Cow<'a, str>, given: Vec<Given<'a>>) -> Table<'_, 'a> {
        let name = join(&self.asked().name, &key);
        let header =
            self.asked().entries.and_then(|entries| entries.get_key_value(&*key)).map(|(key, _)| key.span());
        self.asked().keys.push(key.clone());
        let entries =
            self.judge_all(&key, given, &format!("a table, [{name}]"), false, |_, given| match given {
                Given::Written(value) => value.get_ref().as_table().ok_or_else(|| type_of(value.get_ref())),
                Given::Environment(..) => Err(Refused::from("cannot be a table")),
            });
        let index = self.doc.tables.len();
        self.doc.tables.push(Asked { name, header, entries, keys: Vec::new() });
        Table { doc: self.doc, index }
    }

    fn get<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(Given<'a>) -> Result<T, Refused>,
    ) -> Option<T> {
        let given = self.given(key);
        self.judge_all(key, given, wanted, false, |_, given| parse(given))
    }

    /// What there is for a key, the one that counts last.
    fn given(&mut self, key: &'static str) -> Vec<Given<'a>> {
        let env = self.doc.env;
        let table = self.asked();
        table.keys.push(Cow::Borrowed(key));
        let written = table.entries.and_then(|entries| entries.get(key)).map(Given::Written);
        let names = FROM_ENVIRONMENT.iter().find(|(name, of, _)| *name == table.name && *of == key);
        let named = names.and_then(|(_, _, names)| {
            // Set but empty is how a compose file says "not set".
            let set = names.iter().filter_map(|name| Some((*name, env.get(*name)?)));
            set.map(|(name, text)| Given::Environment(name, text)).find(|given| !given.is_empty())
        });
        written.into_iter().chain(named).collect()
    }

    fn judge_all<T>(
        &mut self,
        key: &str,
        given: Vec<Given<'a>>,
        wanted: &str,
        hide: bool,
        parse: impl Fn(&Document<'a>, Given<'a>) -> Result<T, Refused>,
    ) -> Option<T> {
        let mut counts = None;
        for given in given {
            match parse(self.doc, given) {
                Ok(value) => counts = Some(value),
                Err(refused) => self.refuse(key, given, wanted, hide, refused),
            }
        }
        counts
    }

    fn refuse(&mut self, key: &str, given: Given<'a>, wanted: &str, hide: bool, refused: Refused) {
        let doc = &mut *self.doc;
        let (place, text, refers) = match given {
            Given::Environment(name, text) => {
                (Place::Environment { name: name.to_owned() }, excerpt(text, 0..text.len()), false)
            }
            Given::Written(value) => {
                let refers =
                    value.get_ref().as_str().is_some_and(|s| s.starts_with("env:") || s.starts_with("file:"));
                (Place::in_text(doc.file, doc.text, value.span()), excerpt(doc.text, value.span()), refers)
            }
        };
        let text = (refers || !hide).then_some(text);
        let subject = match (&text, refers && !refused.reference) {
            (None, _) => "the value".to_owned(),
            (Some(text), true) => format!("the value of `{text}`"),
            (Some(text), false) => format!("`{text}`"),
        };
        let why = match (given, doc.tables[self.index].name.as_str()) {
            (Given::Environment(..), _) => format!("{subject} {}", refused.why),
            (_, "") => format!("`{key}`: {subject} {}", refused.why),
            (_, table) => format!("`{key}` in [{table}]: {subject} {}", refused.why),
        };
        let help = refused.help.unwrap_or_else(|| format!("write {wanted}"));
        doc.problems.push(Problem { place, text, why, help });
    }
}

impl Given<'_> {
    fn is_empty(&self) -> bool {
        matches!(self, Given::Environment(_, ""))
    }
}

fn whole(given: Given<'_>) -> Result<i64, Refused> {
    let parsed = match given {
        Given::Environment(_, text) => text.trim().parse(),
        Given::Written(value) => match value.get_ref() {
            DeValue::Integer(i) => i64::from_str_radix(i.as_str(), i.radix()),
            other => return Err(type_of(other)),
        },
    };
    parsed.map_err(|_| Refused::from("is not a whole number"))
}

fn number(given: Given<'_>) -> Result<f64, Refused> {
    let parsed = match given {
        Given::Environment(_, text) => text.trim().parse(),
        Given::Written(value) => match value.get_ref() {
            #[expect(clippy::cast_precision_loss, reason = "what gets imprecise is out of range")]
            DeValue::Integer(_) => return Ok(whole(given)? as f64),
            DeValue::Float(f) => f.as_str().parse(),
            other => return Err(type_of(other)),
        },
    };
    parsed.map_err(|_| Refused::from("is not a number"))
}

fn within<T: PartialOrd>(value: T, range: &RangeInclusive<T>) -> Result<T, Refused> {
    if range.contains(&value) {
        Ok(value)
    } else if value < *range.start() {
        Err(Refused::from("is too small"))
    } else if value > *range.end() {
        Err(Refused::from("is too large"))
    } else {
        Err(Refused::from("is not a number"))
    }
}

fn type_of(value: &DeValue<'_>) -> Refused {
    Refused::from(match value {
        DeValue::String(_) => "is a string",
        DeValue::Integer(_) => "is a whole number",
        DeValue::Float(_) => "is a number with a point",
        DeValue::Boolean(_) => "is true or false",
        DeValue::Datetime(_) => "is a date or a time",
        DeValue::Array(_) => "is a list",
        DeValue::Table(_) => "is a table",
    })
}

fn join(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

fn known_keys(what: &str, keys: &[Cow<'_, str>]) -> String {
    let mut keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
    keys.sort_unstable();
    keys.dedup();
    format!("{what} {}", keys.join(", "))
}

/// A piece of a text for a message: one line, not too long, nothing that moves a cursor.
fn excerpt(text: &str, span: Range<usize>) -> String {
    let whole = text.get(span).unwrap_or_default();
    let line = whole.lines().next().unwrap_or_default();
    let mut shown: String =
        line.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if shown.len() < whole.len() {
        shown.push('…');
    }
    shown
}
