//! The dashboards ask only for series that the gateway has, by the labels that they have.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::world::{Gateway, free_port, project};

/// Names of series with the labels that each has, as `/metrics` prints them.
fn series(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(['{', ' ']).unwrap();
        let labels = rest.split('}').next().unwrap_or_default().split(',');
        let labels = labels.filter_map(|label| label.split_once("=\"").map(|(name, _)| name.to_owned()));
        found.entry(name.to_owned()).or_default().extend(labels);
    }
    found
}

/// The words of a query that begin with one of our prefixes.
fn asked(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("voxgate_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// The labels that a query groups by.
fn grouped(query: &str) -> BTreeSet<String> {
    let groups = query.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    groups.flat_map(|group| group.split(',')).map(|label| label.trim().to_owned()).collect()
}

#[test]
fn every_panel_asks_for_what_is_there() {
    // A dialogue, so that the series of the speech services are there; nobody answers, none is asked.
    let service =
        |name: &str| format!("[dialogue.{name}]\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9/{name}\"\n");
    let config =
        format!("[dialogue]\nmode = \"dialogue\"\n{}", ["stt", "agent", "tts"].map(service).concat());
    let app = format!("{config}[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", free_port());
    let gateway = Gateway::start(&app);
    let known = series(&gateway.admin_get("/metrics").1);
    let mut panels = 0;
    for file in fs::read_dir(project().join("grafana/dashboards")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let mut ids = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
            assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title}: no unit");
            for target in panel["targets"].as_array().unwrap() {
                let query = target["expr"].as_str().unwrap();
                let names = asked(query);
                assert!(!names.is_empty(), "{title}: {query}");
                for name in names {
                    let labels = known.get(&name).unwrap_or_else(|| panic!("{title}: there is no {name}"));
                    for label in grouped(query) {
                        assert!(labels.contains(&label), "{title}: {name} has no label {label}");
                    }
                }
                panels += 1;
            }
        }
    }
    assert!(panels > 10, "{panels} queries");
}
