//! A parsed document with what was asked of it and what was wrong: the ground under `written`.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Env;
use super::problem::{Place, Problem, nearest};

pub(super) struct Document<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
    /// Where `file:` paths start.
    pub(super) folder: &'a Path,
    pub(super) env: &'a Env,
    pub(super) tables: Vec<Asked<'a>>,
    /// What each key takes, by table and key, other kinds of a table included.
    pub(super) shapes: Vec<(String, &'static str, Shape)>,
    problems: Vec<Problem>,
}

/// What a key takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    Flag,
    Whole(i64, i64),
    Number(f64, f64),
    Duration,
    Text,
    Words(Vec<String>),
    List,
    /// Free names with secret values.
    Secrets,
}

/// A table, and the keys of it that were asked for.
pub(super) struct Asked<'a> {
    /// As in its header: `dialogue.stt`; empty for the document itself.
    pub(super) name: String,
    pub(super) header: Option<Range<usize>>,
    pub(super) entries: Option<&'a DeTable<'a>>,
    pub(super) keys: Vec<Cow<'a, str>>,
    /// Keys that are or may hold secrets.
    pub(super) hidden: Vec<String>,
    /// Those of them whose values are secret whatever they look like.
    pub(super) secret: Vec<String>,
    /// Values that came neither from the file nor under a key's own name: key, value, who gave it.
    pub(super) replaced: Vec<(&'static str, String, &'static str)>,
    pub(super) kind: Kind<'a>,
}

/// Which of several kinds of a thing a table describes.
pub(super) enum Kind<'a> {
    /// There is only one.
    Only,
    /// This one, and the keys that each of the others would have.
    Of(&'static str, Vec<(&'static str, Vec<Cow<'a, str>>)>),
    /// A wrong word: no key that any kind has is wrong beside it.
    Unclear(Vec<(&'static str, Vec<Cow<'a, str>>)>),
}

impl<'a> Asked<'a> {
    pub(super) fn new(name: String) -> Self {
        let (keys, hidden, secret, replaced) = Default::default();
        Asked { name, header: None, entries: None, keys, hidden, secret, replaced, kind: Kind::Only }
    }

    fn knows(&self, key: &str) -> bool {
        let mut known = self.keys.iter();
        known.any(|known| known == key)
            || matches!(&self.kind, Kind::Unclear(kinds) if kinds.iter().any(|(_, keys)| keys.iter().any(|k| k == key)))
    }
}

/// A value, and who gave it.
#[derive(Clone, Copy)]
pub(super) enum Given<'a> {
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
        let root = Asked { entries: Some(root), ..Asked::new(String::new()) };
        Document { file, text, folder, env, tables: vec![root], shapes: Vec::new(), problems: Vec::new() }
    }

    /// Takes each of the values given and answers with the last that is sound; notes the others.
    /// With `hide`, a problem does not show the value.
    pub(super) fn judge<T>(
        &mut self,
        table: usize,
        key: &str,
        given: impl IntoIterator<Item = Given<'a>>,
        wanted: &str,
        hide: bool,
        parse: impl Fn(&Document<'a>, Given<'a>) -> Result<T, Refused>,
    ) -> Option<T> {
        let mut counts = None;
        if hide {
            self.tables[table].hidden.push(key.to_owned());
        }
        for given in given {
            match parse(self, given) {
                Ok(value) => counts = Some(value),
                Err(refused) => self.refuse(table, key, given, wanted, hide, refused),
            }
        }
        counts
    }

    /// Notes a problem between several keys, at the first of these that the file has: the value of
    /// `key`, the header of the table, the file as a whole.
    pub(super) fn complain(&mut self, table: usize, key: &str, why: String, help: String) {
        let table = &self.tables[table];
        let value = table.entries.and_then(|entries| entries.get(key)).map(Spanned::span);
        let hidden = table.hidden.iter().any(|hidden| hidden == key);
        let text = value.clone().filter(|_| !hidden).map(|span| excerpt(self.text, span));
        let place = match value.or(table.header.clone()) {
            Some(span) => Place::in_text(self.file, self.text, span),
            None => Place::File { file: self.file.to_owned() },
        };
        self.problems.push(Problem {
            place,
            text: text.filter(|text| !text.contains(['@', '?'])),
            why,
            help,
        });
    }

    /// The keys that a table would be asked for by this reader, who finds it empty.
    pub(super) fn rehearse(
        &mut self,
        name: String,
        read: impl FnOnce(&mut Self, usize),
    ) -> Vec<Cow<'a, str>> {
        let (tables, problems) = (self.tables.len(), self.problems.len());
        self.tables.push(Asked::new(name));
        read(self, tables);
        // What is missing there is no matter.
        self.problems.truncate(problems);
        self.tables.drain(tables..).next().map(|table| table.keys).unwrap_or_default()
    }

    /// What was wrong with what was asked for.
    pub(super) fn noted(self) -> Vec<Problem> {
        self.problems
    }

    /// What was wrong, the keys that nobody asked for included.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        for table in &self.tables {
            for (key, value) in table.entries.into_iter().flatten() {
                if !table.knows(key.get_ref()) {
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
        self.tables.iter().flat_map(|table| {
            let others = match &table.kind {
                Kind::Only => [].as_slice(),
                Kind::Of(_, others) | Kind::Unclear(others) => others,
            };
            let keys = table.keys.iter().chain(others.iter().flat_map(|(_, keys)| keys));
            keys.map(|key| (table.name.as_str(), key.as_ref()))
        })
    }

    fn refuse(
        &mut self,
        table: usize,
        key: &str,
        given: Given<'a>,
        wanted: &str,
        hide: bool,
        refused: Refused,
    ) {
        let (place, text, refers) = match given {
            Given::Environment(name, text) => {
                (Place::Environment { name: name.to_owned() }, excerpt(text, 0..text.len()), false)
            }
            Given::Written(value) => {
                let refers =
                    value.get_ref().as_str().is_some_and(|s| s.starts_with("env:") || s.starts_with("file:"));
                (Place::in_text(self.file, self.text, value.span()), excerpt(self.text, value.span()), refers)
            }
        };
        // A URL in the wrong place may have a password before its `@`, or a key behind its `?`.
        let hide = hide || text.contains(['@', '?']);
        let text = (refers || !hide).then_some(text);
        let subject = match (&text, refers && !refused.reference) {
            (None, _) => "the value".to_owned(),
            (Some(text), true) => format!("the value of `{text}`"),
            (Some(text), false) => format!("`{text}`"),
        };
        let key = key.escape_debug();
        let why = match (given, self.tables[table].name.as_str()) {
            (Given::Environment(..), _) => format!("{subject} {}", refused.why),
            (_, "") => format!("`{key}`: {subject} {}", refused.why),
            (_, table) => format!("`{key}` in [{table}]: {subject} {}", refused.why),
        };
        let help = refused.help.unwrap_or_else(|| format!("write {wanted}"));
        self.problems.push(Problem { place, text, why, help });
    }

    fn unknown(&self, table: &Asked<'a>, key: &str, value: &DeValue<'_>) -> (String, String) {
        let near = nearest(key, table.keys.iter().map(AsRef::as_ref));
        if let Kind::Of(kind, others) = &table.kind {
            let others = others.iter().filter(|(_, keys)| keys.iter().any(|k| k == key));
            let others: Vec<String> = others.map(|(kind, _)| format!("{kind:?}")).collect();
            if !others.is_empty() {
                let why = format!("`{key}` in [{}] is not a key of kind = {kind:?}", table.name);
                let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                return (why, format!("it belongs to kind = {}{near}", others.join(" or ")));
            }
        }
        if value.is_table() {
            let why = format!("unknown table [{}]", join(&table.name, key));
            return match near {
                Some(near) => (why, format!("did you mean [{}]?", join(&table.name, near))),
                None => (why, known_keys("this level has", &table.keys)),
            };
        }
        let why = match table.name.as_str() {
            "" => format!("unknown key `{}` outside any table", key.escape_debug()),
            name => format!("unknown key `{}` in [{name}]", key.escape_debug()),
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
    pub(super) fn string(&self, given: Given<'a>) -> Result<Cow<'a, str>, Refused> {
        let written = match given {
            Given::Environment(_, text) => return Ok(Cow::Borrowed(text)),
            Given::Written(value) => value.get_ref().as_str().ok_or_else(|| type_of(value.get_ref()))?,
        };
        let dangling = |why: String, help: String| Err(Refused { why, help: Some(help), reference: true });
        if let Some(name) = written.strip_prefix("env:") {
            let value = self.env.get(name);
            let name = name.escape_debug();
            match value.map(String::as_str) {
                None => dangling(format!("needs {name}, which is not set"), format!("set {name}")),
                Some("") => dangling(format!("needs {name}, which is empty"), format!("set {name}")),
                Some(value) => Ok(Cow::Borrowed(value)),
            }
        } else if let Some(path) = written.strip_prefix("file:") {
            let path = self.folder.join(path);
            match read(&path) {
                Ok(text) => Ok(Cow::Owned(text.trim_end_matches(['\r', '\n']).to_owned())),
                Err(e) => dangling(
                    format!("needs {}, which cannot be read: {e}", path.display().to_string().escape_debug()),
                    "a path is relative to the folder of the configuration".to_owned(),
                ),
            }
        } else {
            Ok(Cow::Borrowed(written))
        }
    }
}

/// No file that is meant is as long.
const LONGEST_FILE: u64 = 1024 * 1024;

/// What a file says; one without an end is not read to it.
pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(io::Error::other(format!("it is longer than {LONGEST_FILE} bytes")));
    }
    Ok(text)
}

pub(super) fn type_of(value: &DeValue<'_>) -> Refused {
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

/// The name of a table in a table.
pub(super) fn join(table: &str, key: &str) -> String {
    let key = key.escape_debug();
    if table.is_empty() { key.to_string() } else { format!("{table}.{key}") }
}

fn known_keys(what: &str, keys: &[Cow<'_, str>]) -> String {
    let mut keys: Vec<&str> = keys.iter().map(AsRef::as_ref).collect();
    keys.sort_unstable();
    keys.dedup();
    format!("{what} {}", keys.join(", "))
}

/// A piece of a text for a message: one line, not too long, nothing that moves a cursor.
pub(super) fn excerpt(text: &str, span: Range<usize>) -> String {
    let whole = text.get(span).unwrap_or_default();
    let line = whole.lines().next().unwrap_or_default();
    let mut shown: String =
        line.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if shown.len() < whole.len() {
        shown.push('…');
    }
    shown
}
