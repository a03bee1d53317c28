//! A JSON Schema of the configuration, for editors. It is read off the same walk that reads a file, so
//! that it knows every key; what a key means and defaults to comes from the shipped file.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::document::Shape;
use super::{Env, SHIPPED, SHIPPED_NAME, origin, resolve};

/// The schema, draft 2020-12.
pub fn schema() -> Value {
    let shapes =
        resolve::examine(SHIPPED_NAME, SHIPPED, Path::new(""), &Env::new(), |_, doc| doc.shapes.clone());
    let (defaults, notes) = (origin::defaults(), notes());
    let mut root = table();
    for (name, key, shape) in shapes.unwrap_or_default() {
        let place = (name.clone(), key.to_string());
        let mut property = of_shape(&shape);
        if let Some(note) = notes.get(&place) {
            property.insert("description".to_owned(), note.as_str().into());
        }
        let default = defaults
            .get(&place)
            .and_then(|text| toml::from_str::<Map<String, Value>>(&format!("v = {text}")).ok());
        if let Some(default) = default.and_then(|mut table| table.remove("v")) {
            property.insert("default".to_owned(), default);
        }
        let into = descend(&mut root, &name);
        if let Some(properties) = into.get_mut("properties").and_then(Value::as_object_mut) {
            merge(properties, key, property);
        }
    }
    root.insert("$schema".to_owned(), "https://json-schema.org/draft/2020-12/schema".into());
    root.insert("title".to_owned(), "voxgate's gateway.toml".into());
    Value::Object(root)
}

fn table() -> Map<String, Value> {
    let table = json!({"type": "object", "additionalProperties": false, "properties": {}});
    table.as_object().cloned().unwrap_or_default()
}

/// The table of this name, made where it is not there yet.
fn descend<'m>(root: &'m mut Map<String, Value>, name: &str) -> &'m mut Map<String, Value> {
    let mut at = root;
    for part in name.split('.').filter(|part| !part.is_empty()) {
        // `[upstreams.app]` stands for a pool of any name.
        let free = name.starts_with("upstreams.") && part == "app";
        let inner = if free {
            let inner = at.entry("additionalProperties").or_insert(Value::Null);
            if !inner.is_object() {
                *inner = Value::Object(table());
            }
            inner
        } else {
            let properties = at.entry("properties").or_insert_with(|| json!({}));
            if !properties.is_object() {
                *properties = json!({});
            }
            let Value::Object(properties) = properties else { unreachable!("made an object above") };
            properties.entry(part).or_insert_with(|| Value::Object(table()))
        };
        if !inner.is_object() {
            *inner = Value::Object(table());
        }
        let Value::Object(inner) = inner else { unreachable!("made an object above") };
        at = inner;
    }
    at
}

/// Tables that are of several kinds have some keys in several shapes: each may be meant.
fn merge(properties: &mut Map<String, Value>, key: &str, property: Map<String, Value>) {
    let property = Value::Object(property);
    match properties.get_mut(key) {
        None => drop(properties.insert(key.to_owned(), property)),
        Some(known) if *known == property => {}
        Some(Value::Object(known)) if known.contains_key("anyOf") && !known.contains_key("type") => {
            if let Some(Value::Array(all)) = known.get_mut("anyOf")
                && !all.contains(&property)
            {
                all.push(property);
            }
        }
        Some(known) => *known = json!({"anyOf": [known.clone(), property]}),
    }
}

/// Any string may be elsewhere.
const REFERENCE: &str = "^(env|file):.";

fn of_shape(shape: &Shape) -> Map<String, Value> {
    let value = match shape {
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Whole(from, to) => json!({"type": "integer", "minimum": from, "maximum": to}),
        Shape::Number(from, to) => json!({"type": "number", "minimum": from, "maximum": to}),
        Shape::Duration => json!({"type": "string", "pattern": format!("^([0-9]+(h|m|s|ms))+$|{REFERENCE}")}),
        Shape::Text => json!({"type": "string"}),
        Shape::Words(words) => json!({"type": "string", "anyOf": [{"enum": words}, {"pattern": REFERENCE}]}),
        Shape::List => json!({"type": "array", "items": {"type": "string"}}),
        Shape::Secrets => json!({"type": "object", "additionalProperties": {"type": "string"}}),
    };
    value.as_object().cloned().unwrap_or_default()
}

/// What the shipped file says about its keys: the words behind the value.
fn notes() -> BTreeMap<(String, String), String> {
    let mut name = String::new();
    let mut notes = BTreeMap::new();
    for line in SHIPPED.lines().map(|line| line.trim_start_matches("# ")) {
        if let Some((header, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            name = header.to_owned();
        } else if let Some((key, rest)) = line.split_once('=')
            && let Some((_, note)) = rest.rsplit_once(" # ")
        {
            notes.entry((name.clone(), key.trim().to_owned())).or_insert_with(|| note.trim().to_owned());
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_knows_every_key_and_refuses_others() {
        let schema = schema();
        let of = |path: &str| schema.pointer(path).unwrap_or_else(|| panic!("no {path}"));
        let eou = of("/properties/turn/properties/eou_ms");
        assert_eq!(
            (&eou["type"], &eou["minimum"], &eou["default"]),
            (&json!("integer"), &json!(100), &json!(450))
        );
        assert!(eou["description"].as_str().is_some_and(|text| text.contains("silence")), "{eou}");
        assert_eq!(of("/properties/server/properties/drain")["default"], "15m");
        assert_eq!(of("/additionalProperties"), false);
        assert_eq!(of("/properties/turn/additionalProperties"), false);
        assert_eq!(of("/properties/upstreams/additionalProperties/properties/tls/type"), "boolean");
        let kinds = of("/properties/dialogue/properties/tts/properties/kind/anyOf/0/enum");
        assert_eq!(kinds, &json!(["webhook", "openai", "elevenlabs", "deepgram"]));
        of("/properties/dialogue/properties/tts/properties/voice_settings/properties/style");
        of("/properties/dialogue/properties/agent/properties/headers/additionalProperties");
        for ((table, key), _) in origin::defaults() {
            let table =
                table.replace("upstreams.app", "upstreams/additionalProperties").replace('.', "/properties/");
            of(&format!("/properties/{table}/properties/{key}"));
        }
    }
}
