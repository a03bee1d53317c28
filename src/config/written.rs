//! The configuration as written: a parsed document, read key by key.
//!
//! A getter takes the file's value and the environment's, notes a problem for each that is wrong,
//! and answers with the one that counts, or `None` where the default does. Every key that a getter
//! asks for is known from then on; what is left unasked at the end is an unknown key.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::document::{Asked, Document, Given, Kind, Refused, Shape, join, type_of};
use super::meant::Secret;
use super::problem::nearest;
use super::values;

/// Keys that the environment may set, by table and key, and under which names.
pub(super) const FROM_ENVIRONMENT: [(&str, &str, &[&str]); 5] = [
    ("server", "deploy_id", &["DEPLOY_ID"]),
    ("turn", "eou_ms", &["EOU_MS", "EoU_MS"]),
    ("turn", "barge_in", &["BARGE_IN"]),
    ("turn", "vad_rms", &["VAD_RMS"]),
    ("turn", "dedup_window_sec", &["DEDUP_WINDOW_SEC"]),
];

/// What reads the keys of one kind of a table.
pub(super) type Reader<'r, 'a, T> = &'r dyn Fn(&mut Table<'_, 'a>) -> T;

pub(super) struct Table<'d, 'a> {
    doc: &'d mut Document<'a>,
    index: usize,
}

impl<'d, 'a> Table<'d, 'a> {
    /// The document itself, as a table.
    pub(super) fn root(doc: &'d mut Document<'a>) -> Self {
        Table { doc, index: 0 }
    }
}

impl<'a> Table<'_, 'a> {
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        self.shape(key, Shape::Flag);
        self.get(key, "true or false", |given| match given {
            Given::Environment(_, text) => values::flag(text).map_err(Refused::from),
            Given::Written(value) => value.get_ref().as_bool().ok_or_else(|| type_of(value.get_ref())),
        })
    }

    pub(super) fn whole(&mut self, key: &'static str, range: RangeInclusive<i64>) -> Option<i64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        self.shape(key, Shape::Whole(*range.start(), *range.end()));
        self.get(key, &wanted, |given| within(whole(given)?, &range))
    }

    /// A whole number that counts or measures something, and so is not negative.
    pub(super) fn count(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<usize> {
        let count = self.whole(key, i64::from(*range.start())..=i64::from(*range.end()));
        count.and_then(|count| usize::try_from(count).ok())
    }

    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<f64>) -> Option<f64> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        self.shape(key, Shape::Number(*range.start(), *range.end()));
        self.get(key, &wanted, |given| within(number(given)?, &range))
    }

    pub(super) fn millis(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<Duration> {
        let wanted = format!("a whole number of milliseconds from {} to {}", range.start(), range.end());
        let range = i64::from(*range.start())..=i64::from(*range.end());
        self.shape(key, Shape::Whole(*range.start(), *range.end()));
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
        self.shape(key, Shape::Duration);
        self.parsed_as(key, &wanted, |text| within(values::duration(text)?, &range))
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
        self.shape(key, Shape::Words(words.iter().map(|(word, _)| (*word).to_owned()).collect()));
        let wanted = listed.join(" or ");
        self.parsed_as(key, &wanted, |text| match words.iter().find(|(word, _)| *word == text) {
            Some((_, meant)) => Ok(*meant),
            None if later.contains(&text) => Err(Refused::from("is not in this version yet")),
            None => match nearest(text, words.iter().map(|(word, _)| *word)) {
                Some(near) => {
                    let help = format!("did you mean {near:?}? write {wanted}");
                    Err(Refused::because("is not one of its words", help))
                }
                None => Err(Refused::from("is not one of its words")),
            },
        })
    }

    /// A table whose `kind` says what else is in it, the first kind where it does not say. The keys of
    /// the other kinds are learnt from their readers, so that one in the wrong place is told by name.
    pub(super) fn kinds<T>(
        &mut self,
        kinds: &[(&'static str, Reader<'_, 'a, T>)],
        later: &[&str],
    ) -> Option<T> {
        let words: Vec<_> = kinds.iter().enumerate().map(|(n, (word, _))| (*word, n)).collect();
        let given = self.has("kind");
        let chosen = self.choice("kind", &words, later).or((!given).then_some(0));
        let name = self.asked().name.clone();
        let others = kinds.iter().enumerate().filter(|(n, _)| Some(*n) != chosen);
        let others = others.map(|(_, (word, read))| {
            let keys = self.doc.rehearse(name.clone(), |doc, index| {
                read(&mut Table { doc, index });
            });
            (*word, keys)
        });
        let others = others.collect();
        let Some((word, read)) = chosen.and_then(|n| kinds.get(n)) else {
            self.asked().kind = Kind::Unclear(others);
            return None;
        };
        self.asked().kind = Kind::Of(word, others);
        Some(read(self))
    }

    /// A string that means something, which `parse` finds out.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        self.shape(key, Shape::Text);
        self.parsed_as(key, wanted, parse)
    }

    fn parsed_as<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        let given = self.given(key);
        self.doc.judge(self.index, key, given, wanted, false, |doc, given| parse(&doc.string(given)?))
    }

    /// The same, for what is or may hold a secret: a problem does not show it.
    pub(super) fn hidden<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        self.shape(key, Shape::Text);
        let given = self.given(key);
        self.doc.judge(self.index, key, given, wanted, true, |doc, given| parse(&doc.string(given)?))
    }

    /// The same for what is a secret, and is never shown: a token may begin as a path does.
    pub(super) fn secret_as<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<T> {
        self.asked().secret.push(key.to_owned());
        self.hidden(key, wanted, parse)
    }

    /// A file that is there; relative paths start in the configuration's own folder.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let folder = self.doc.folder;
        self.parsed(key, "the path of a file", |text| {
            let path = folder.join(text);
            match std::fs::metadata(&path) {
                Ok(found) if found.is_file() => Ok(path),
                Ok(_) => Err(Refused::from("is not a file")),
                Err(_) => {
                    let help = "a path is relative to the folder of the configuration".to_owned();
                    Err(Refused::because("cannot be read", help))
                }
            }
        })
    }

    /// The same for a file that may come, go and change: whoever uses it looks.
    pub(super) fn place(&mut self, key: &'static str) -> Option<PathBuf> {
        let folder = self.doc.folder;
        self.parsed(key, "the path of a file", |text| match text {
            "" => Err(Refused::from("is empty")),
            text => Ok(folder.join(text)),
        })
    }

    /// A path as it is meant in this configuration.
    pub(super) fn in_folder(&self, path: &str) -> PathBuf {
        self.doc.folder.join(path)
    }

    /// A folder that need not be there yet, as a path like [`Table::path`]'s; empty for none.
    pub(super) fn folder(&mut self, key: &'static str) -> Option<Option<PathBuf>> {
        let folder = self.doc.folder;
        self.parsed(key, "the path of a folder", |text| Ok((!text.is_empty()).then(|| folder.join(text))))
    }

    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        self.secret_as(key, "a string that is not empty", |text| match text {
            "" => Err(Refused::from("is empty")),
            text => Ok(Secret(text.to_owned())),
        })
    }

    /// A secret that a variable holds, or else the file. The variable may be unset, even where the file names
    /// it: the file that ships does.
    pub(super) fn secret_in(&mut self, key: &'static str, variable: &'static str) -> Option<Secret> {
        let named = self.as_written(key).and_then(|said| said.strip_prefix("env:")) == Some(variable);
        let secret = self.doc.env.get(variable).filter(|secret| !secret.is_empty());
        if secret.is_none() && self.has(key) && !named {
            return self.secret(key);
        }
        self.shape(key, Shape::Text);
        self.asked().hidden.push(key.to_owned());
        self.asked().secret.push(key.to_owned());
        let secret = secret?;
        if !named {
            self.replaced(key, "\"***\"".to_owned(), variable);
        }
        Some(Secret(secret.clone()))
    }

    /// A list of secrets.
    pub(super) fn secret_list(&mut self, key: &'static str, wanted: &str) -> Option<Vec<Secret>> {
        self.asked().secret.push(key.to_owned());
        self.list_as(key, wanted, true, |text| match text {
            "" => Err(Refused::from("is empty")),
            text => Ok(Secret(text.to_owned())),
        })
    }

    /// A list of strings, each noted by itself if it is wrong.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<Vec<T>> {
        self.list_as(key, wanted, false, parse)
    }

    /// With `hide`, neither what stands in the list's place nor an item of it is shown.
    fn list_as<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        hide: bool,
        parse: impl Fn(&str) -> Result<T, Refused>,
    ) -> Option<Vec<T>> {
        self.shape(key, Shape::List);
        let given = self.given(key);
        let of_them = format!("a list: [{wanted}, …]");
        let items = self.doc.judge(self.index, key, given, &of_them, hide, |_, given| match given {
            Given::Written(value) => value.get_ref().as_array().ok_or_else(|| type_of(value.get_ref())),
            Given::Environment(..) => Err(Refused::from("cannot be a list")),
        })?;
        let one = |item| {
            let given = [Given::Written(item)];
            self.doc.judge(self.index, key, given, wanted, hide, |doc, given| parse(&doc.string(given)?))
        };
        // All are looked at before one that is wrong spoils the list.
        let items: Vec<Option<T>> = items.iter().map(one).collect();
        items.into_iter().collect()
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

    /// Every table in the list `[[name.key]]`, in its order.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Table<'_, 'a>) -> Option<T>,
    ) -> Vec<T> {
        let header = format!("[[{}]]", join(&self.asked().name, key));
        let list = self.get(key, &format!("tables, each with the header {header}"), |given| match given {
            Given::Written(value) => value.get_ref().as_array().ok_or_else(|| type_of(value.get_ref())),
            Given::Environment(..) => Err(Refused::from("cannot be a list")),
        });
        let items = list.into_iter().flatten();
        items
            .filter_map(|item| read(&mut self.open(Cow::Borrowed(key), vec![Given::Written(item)])))
            .collect()
    }

    /// Every entry of `[name.key]`: free names, secret values. `check` looks at both.
    pub(super) fn secrets(
        &mut self,
        key: &'static str,
        wanted: &str,
        check: impl Fn(&str, &str) -> Result<(), Refused>,
    ) -> Vec<(String, Secret)> {
        self.shape(key, Shape::Secrets);
        self.section(key, |table| {
            let entries = table.asked().entries.into_iter().flatten();
            let secrets = entries.filter_map(|(name, value)| {
                table.asked().keys.push(name.get_ref().clone());
                table.asked().secret.push(name.get_ref().clone().into_owned());
                table.doc.judge(
                    table.index,
                    name.get_ref(),
                    vec![Given::Written(value)],
                    wanted,
                    true,
                    |doc, given| {
                        let text = doc.string(given)?;
                        check(name.get_ref(), &text)?;
                        Ok((name.get_ref().clone().into_owned(), Secret(text.into_owned())))
                    },
                )
            });
            secrets.collect()
        })
    }

    /// Headers of requests, `[name.headers]`: what they say is secret.
    pub(super) fn headers(&mut self) -> Vec<(String, Secret)> {
        self.secrets("headers", "the name of a header, and what it says", |name, value| {
            let no_name = |_| "is for a name that no header can have";
            http::HeaderName::from_bytes(name.as_bytes()).map_err(no_name)?;
            http::HeaderValue::from_str(value).map_err(|_| "cannot be sent in a header")?;
            Ok(())
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
        self.doc.judge(self.index, "", given, wanted, false, |doc, given| parse(&doc.string(given)?))
    }

    /// Notes that a key has this value, whatever the file says, and who gave it.
    pub(super) fn replaced(&mut self, key: &'static str, value: String, by: &'static str) {
        self.asked().replaced.push((key, value, by));
    }

    /// The string of a key as it stands in the file.
    pub(super) fn as_written(&mut self, key: &'static str) -> Option<&'a str> {
        self.given(key);
        self.asked().entries?.get(key)?.get_ref().as_str()
    }

    pub(super) fn has(&mut self, key: &str) -> bool {
        self.asked().entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// `[dialogue.stt]`: this table, as messages name it.
    pub(super) fn label(&mut self) -> String {
        format!("[{}]", self.asked().name)
    }

    /// Is this table in the file at all?
    pub(super) fn is_written(&mut self) -> bool {
        self.asked().entries.is_some()
    }

    /// Notes a problem between several keys, at the value of `key` if it has one.
    pub(super) fn complain(&mut self, key: &str, why: String, help: String) {
        self.doc.complain(self.index, key, why, help);
    }

    fn asked(&mut self) -> &mut Asked<'a> {
        &mut self.doc.tables[self.index]
    }

    fn shape(&mut self, key: &'static str, shape: Shape) {
        let name = self.asked().name.clone();
        self.doc.shapes.push((name, key, shape));
    }

    fn open(&mut self, key: Cow<'a, str>, given: Vec<Given<'a>>) -> Table<'_, 'a> {
        let name = join(&self.asked().name, &key);
        let header =
            self.asked().entries.and_then(|entries| entries.get_key_value(&*key)).map(|(key, _)| key.span());
        // One table of a list stands where it stands.
        let own = given.iter().find_map(|given| match given {
            Given::Written(value) if value.get_ref().is_table() => Some(value.span()),
            Given::Written(_) | Given::Environment(..) => None,
        });
        let header = if self.is_list(&key) { own } else { header };
        self.asked().keys.push(key.clone());
        let entries =
            self.doc.judge(self.index, &key, given, &format!("a table, [{name}]"), true, |_, given| {
                match given {
                    Given::Written(value) => {
                        value.get_ref().as_table().ok_or_else(|| type_of(value.get_ref()))
                    }
                    Given::Environment(..) => Err(Refused::from("cannot be a table")),
                }
            });
        let index = self.doc.tables.len();
        self.doc.tables.push(Asked { header, entries, ..Asked::new(name) });
        Table { doc: self.doc, index }
    }

    fn is_list(&mut self, key: &str) -> bool {
        let value = self.asked().entries.and_then(|entries| entries.get(key));
        value.is_some_and(|value| value.get_ref().is_array())
    }

    fn get<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        parse: impl Fn(Given<'a>) -> Result<T, Refused>,
    ) -> Option<T> {
        let given = self.given(key);
        self.doc.judge(self.index, key, given, wanted, false, |_, given| parse(given))
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
            let mut set = names.iter().filter_map(|name| Some((*name, env.get(*name)?)));
            set.find(|(_, text)| !text.is_empty()).map(|(name, text)| Given::Environment(name, text))
        });
        written.into_iter().chain(named).collect()
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
