//! Which settings of a call are not as they were, by name.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::call::Settings;

/// A setting that has another value now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Change {
    pub(in crate::cli) setting: String,
    pub(in crate::cli) from: String,
    pub(in crate::cli) to: String,
}

pub(in crate::cli) fn changes(from: &Settings, to: &Settings) -> Vec<Change> {
    let (from, to) = (named(from), named(to));
    let names: std::collections::BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let value = |of: &BTreeMap<String, String>, name| of.get(name).cloned().unwrap_or_else(|| "-".to_owned());
    let all = names.into_iter().map(|name| Change {
        setting: name.clone(),
        from: value(&from, name),
        to: value(&to, name),
    });
    all.filter(|change| change.from != change.to).collect()
}

/// All settings by name, as text.
pub(in crate::cli) fn named(settings: &Settings) -> BTreeMap<String, String> {
    let mut named = BTreeMap::new();
    flatten("", &serde_json::to_value(settings).unwrap_or_default(), &mut named);
    named
}

fn flatten(name: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let Value::Object(entries) = value else {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_lowercase);
        into.insert(name.to_owned(), text);
        return;
    };
    // A duration, as serde writes it.
    if let (2, Some(secs), Some(nanos)) = (
        entries.len(),
        entries.get("secs").and_then(Value::as_u64),
        entries.get("nanos").and_then(Value::as_u64),
    ) {
        into.insert(name.to_owned(), format!("{} ms", secs * 1_000 + nanos / 1_000_000));
        return;
    }
    for (key, value) in entries {
        let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        flatten(&name, value, into);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::usual;
    use super::*;

    #[test]
    fn settings_have_names_and_units() {
        let mut other = usual().clone();
        other.endpointing.eou = Duration::from_millis(900);
        other.barge_in = false;
        let told: Vec<String> = changes(usual(), &other)
            .iter()
            .map(|change| format!("{}: {} → {}", change.setting, change.from, change.to))
            .collect();
        assert_eq!(told, ["barge_in: true → false", "endpointing.eou: 450 ms → 900 ms"]);
        assert_eq!(changes(&other, &other), []);
    }
}
