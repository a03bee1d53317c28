//! Where each value comes from: what `voxgate config print` shows.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::document::{Document, Shape, join};
use super::problem::Place;
use super::written::FROM_ENVIRONMENT;
use super::{SHIPPED, SHIPPED_NAME, values};

/// One key with the value that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As in its header: `dialogue.stt`.
    pub table: String,
    pub key: String,
    /// As TOML; a secret is masked.
    pub value: String,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `gateway.toml:12`
    File(String),
    Environment(String),
    Default,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(line) => f.write_str(line),
            Origin::Environment(name) => write!(f, "{name} (environment)"),
            Origin::Default => f.write_str("default"),
        }
    }
}

const MASK: &str = "\"***\"";

/// Every key that was asked for and has a value.
pub(super) fn entries(doc: &Document<'_>) -> Vec<Entry> {
    let defaults = defaults();
    let mut entries: Vec<Entry> = Vec::new();
    for table in &doc.tables {
        for key in &table.keys {
            let name = join(&table.name, key);
            let is_table = doc.tables.iter().any(|other| other.name == name);
            if is_table || entries.iter().any(|entry| entry.table == table.name && entry.key == *key) {
                continue;
            }
            let hidden = table.hidden.iter().any(|hidden| hidden == key);
            let secret = table.secret.iter().any(|secret| secret == key);
            // A URL or a path is hidden for what may be in it. A secret may look like either.
            let is_plain = |value: &str| {
                let begins = ["\"\"", "\"/", "\"http", "\"ws"].iter().any(|with| value.starts_with(with));
                begins && !value.contains('?')
            };
            let mask = |value: String| match secret || (hidden && !is_plain(&value)) || value.contains('@') {
                true => MASK.to_owned(),
                false => value,
            };
            let variable = FROM_ENVIRONMENT.iter().find(|(of, known, _)| *of == table.name && known == key);
            let variable = variable.and_then(|(_, _, names)| {
                let mut set = names.iter().filter_map(|name| Some((*name, doc.env.get(*name)?)));
                set.find(|(_, value)| !value.is_empty())
            });
            let replaced = table.replaced.iter().find(|(of, ..)| of == key);
            let written = table.entries.and_then(|entries| entries.get(key.as_ref()));
            let (value, origin) = match (replaced, variable, written) {
                (Some((_, value, name)), ..) => (value.clone(), Origin::Environment((*name).to_owned())),
                (None, Some((name, value)), _) => {
                    let mut shapes =
                        doc.shapes.iter().filter(|(of, known, _)| *of == table.name && known == key);
                    let value = match shapes.next() {
                        Some((_, _, Shape::Flag)) => values::flag(value).unwrap_or_default().to_string(),
                        Some((_, _, Shape::Whole(..) | Shape::Number(..))) => value.trim().to_owned(),
                        _ => format!("{value:?}"),
                    };
                    (mask(value), Origin::Environment(name.to_owned()))
                }
                (None, None, Some(value)) => {
                    let shown = doc.text.get(value.span()).unwrap_or_default().to_owned();
                    // What is elsewhere is not shown, but where it is.
                    let refers = value
                        .get_ref()
                        .as_str()
                        .is_some_and(|s| s.starts_with("env:") || s.starts_with("file:"));
                    let shown = if refers { shown } else { mask(shown) };
                    if doc.file == SHIPPED_NAME {
                        (shown, Origin::Default)
                    } else {
                        let line = match Place::in_text(doc.file, doc.text, value.span()) {
                            Place::Text { file, line, .. } => format!("{file}:{line}"),
                            Place::File { file } => file,
                            Place::Environment { name } => name,
                        };
                        (shown, Origin::File(line))
                    }
                }
                (None, None, None) => match defaults.get(&(table.name.clone(), key.to_string())) {
                    Some(value) => (value.clone(), Origin::Default),
                    // Off, or the service's own business.
                    None => continue,
                },
            };
            entries.push(Entry { table: table.name.clone(), key: key.to_string(), value, origin });
        }
    }
    entries
}

/// The values of the shipped file, as written there.
pub(super) fn defaults() -> BTreeMap<(String, String), String> {
    fn walk(name: &str, table: &DeTable<'_>, into: &mut BTreeMap<(String, String), String>) {
        for (key, value) in table {
            match value.get_ref().as_table() {
                Some(inner) => walk(&join(name, key.get_ref()), inner, into),
                None => {
                    let text = SHIPPED.get(value.span()).unwrap_or_default();
                    into.insert((name.to_owned(), key.get_ref().to_string()), text.to_owned());
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    if let Ok(root) = DeTable::parse(SHIPPED) {
        walk("", root.get_ref(), &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{Env, Source, print};
    use super::*;

    fn printed(text: &str, env: &[(&str, &str)]) -> Vec<String> {
        let env: Env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let source = Source::Text { name: "gateway.toml".to_owned(), text: text.to_owned() };
        let lines = print(&source, &env).unwrap().into_iter();
        lines.map(|e| format!("{}.{} = {} # {}", e.table, e.key, e.value, e.origin)).collect()
    }

    #[test]
    fn every_value_says_where_it_comes_from() {
        let text = "[server]\nlisten = \"127.0.0.1:1\"\n[turn]\neou_ms = 500\nvad_rms = 300\n\
                    [admin]\ntoken = \"env:TOKEN\"\n[dialogue.stt]\nurl = \"http://a/?key=s3cret\"\n\
                    headers = { X-Key = \"s3cret\" }\n[upstreams.more]\nservers = [\"a:1\"]\n";
        let lines = printed(
            text,
            &[
                ("PORT", "2"),
                ("EOU_MS", "600"),
                ("BARGE_IN", "Off"),
                ("DEPLOY_ID", "7"),
                ("TOKEN", "s3cret"),
                ("TWILIO_AUTH_TOKEN", "s3cret"),
            ],
        );
        for wanted in [
            "server.listen = \"127.0.0.1:2\" # PORT (environment)",
            "server.drain = \"15m\" # default",
            "turn.eou_ms = 600 # EOU_MS (environment)",
            "turn.barge_in = false # BARGE_IN (environment)",
            "server.deploy_id = \"7\" # DEPLOY_ID (environment)",
            "turn.vad_rms = 300 # gateway.toml:5",
            "admin.token = \"env:TOKEN\" # gateway.toml:7",
            "dialogue.stt.url = \"***\" # gateway.toml:9",
            "dialogue.stt.headers.X-Key = \"***\" # gateway.toml:10",
            "upstreams.more.servers = [\"a:1\"] # gateway.toml:12",
            "twilio.auth_token = \"***\" # TWILIO_AUTH_TOKEN (environment)",
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{wanted} is not in\n{}", lines.join("\n"));
        }
        assert!(!lines.join("").contains("s3cret"));
    }

    /// One token in 64 begins as a path does.
    #[test]
    fn a_secret_is_masked_whatever_it_looks_like() {
        for like in
            ["'/s3cret'", "\"/s3cret\"", "\"https://s3cret\"", "\"wss://s3cret\"", "\"\"\"s3cret\"\"\""]
        {
            let text = format!(
                "[admin]\ntoken = {like}\n[twilio]\nauth_token = {like}\n\
                 more_auth_tokens = [{like}]\napi_key_sid = \"SK0123456789abcdef0123456789abcdef\"\n\
                 api_key_secret = {like}\naccount_sid = \"AC0123456789abcdef0123456789abcdef\"\n\
                 [dialogue]\nmode = \"dialogue\"\n\
                 [dialogue.stt]\nurl = \"http://a/\"\nheaders = {{ X-Key = {like} }}\n\
                 [dialogue.agent]\nurl = \"http://a/\"\n\
                 [dialogue.tts]\nkind = \"elevenlabs\"\napi_key = {like}\n\
                 [traces]\nendpoint = \"http://a/\"\nheaders = {{ X-Key = {like} }}\n"
            );
            let lines = printed(&text, &[]);
            let masked = lines.iter().filter(|line| line.contains(" = \"***\" # gateway.toml:")).count();
            assert!(!lines.join("").contains("s3cret"), "{}", lines.join("\n"));
            assert_eq!(masked, 7, "{}", lines.join("\n"));
            let shown = "dialogue.stt.url = \"http://a/\" # gateway.toml:12";
            assert!(lines.iter().any(|line| line == shown), "{}", lines.join("\n"));
        }
    }

    #[test]
    fn without_a_file_all_are_defaults() {
        let entries = print(&Source::Default, &Env::new()).unwrap();
        assert!(entries.iter().all(|entry| entry.origin == Origin::Default), "{entries:?}");
        let defaults: usize = defaults().len();
        assert_eq!(entries.len(), defaults);
    }
}
