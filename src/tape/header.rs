//! The first record of a tape: whose call it was, and the settings that it was conducted with.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::call::Settings;
use crate::call::realtime::Manner;

/// Of the format. A reader refuses what is newer than itself. Since 2 the caller's audio stands beside
/// what was measured of it; since 3 others than this side may have conducted the call.
pub(super) const VERSION: u32 = 3;

/// JSON, so that it can be read with nothing but `strings`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    pub version: u32,
    /// The version and commit that recorded it.
    pub voxgate: String,
    /// When `start` came: UTC, RFC 3339.
    pub started: String,
    pub call_sid: String,
    pub stream_sid: String,
    pub account_sid: String,
    /// The `<Parameter>`s of the TwiML, without what looks like a secret.
    pub parameters: BTreeMap<String, String>,
    /// Whose decisions stand on the tape.
    #[serde(default)]
    pub conductor: Conductor,
    /// [`Settings`], as they were then: long, and looked into only where somebody asks for them.
    settings: Box<RawValue>,
}

/// Who conducts a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum Conductor {
    /// This side: an echo, or a dialogue with services that answer.
    #[default]
    Ours,
    /// A model that hears and speaks; what this side does about it.
    Model(Manner),
    /// A bot of the operator's own.
    Bot,
}

/// The ids of a call, as its carrier told them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallIds {
    pub call_sid: String,
    pub stream_sid: String,
    pub account_sid: String,
    pub parameters: BTreeMap<String, String>,
}

impl Header {
    pub fn new(ids: CallIds, settings: &Settings, now: SystemTime) -> Header {
        let parameters = ids.parameters.into_iter().map(|(name, value)| {
            let value = if is_secret(&name, &value) { REDACTED.to_owned() } else { value };
            (name, value)
        });
        Header {
            version: VERSION,
            voxgate: format!("{} ({})", crate::VERSION, crate::COMMIT),
            started: humantime::format_rfc3339_millis(now).to_string(),
            call_sid: ids.call_sid,
            stream_sid: ids.stream_sid,
            account_sid: ids.account_sid,
            parameters: parameters.collect(),
            conductor: Conductor::Ours,
            settings: serde_json::to_value(settings)
                .and_then(|settings| to_raw_value(&settings))
                .unwrap_or_else(|_| RawValue::NULL.to_owned()),
        }
    }

    pub fn conducted_by(self, conductor: Conductor) -> Header {
        Header { conductor, ..self }
    }

    /// Whether both calls were conducted with the same settings.
    pub fn has_settings_of(&self, other: &Header) -> bool {
        self.settings.get() == other.settings.get()
    }

    /// The settings of the call. What an older version did not know yet is as in `otherwise`.
    pub fn settings(&self, otherwise: &Settings) -> Result<Settings, serde_json::Error> {
        let mut settings = serde_json::to_value(otherwise)?;
        overlay(&mut settings, &serde_json::from_str(self.settings.get())?);
        serde_json::from_value(settings)
    }
}

fn overlay(below: &mut Value, above: &Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                match below.get_mut(key) {
                    Some(there) => overlay(there, value),
                    None => drop(below.insert(key.clone(), value.clone())),
                }
            }
        }
        (below, above) => *below = above.clone(),
    }
}

const REDACTED: &str = "[redacted]";

/// Parts of names whose values are nobody's business.
const SECRET_NAMES: [&str; 10] =
    ["token", "secret", "password", "passwd", "auth", "key", "signature", "credential", "cookie", "pin"];
/// How values begin that are secrets whatever their name.
const SECRET_VALUES: [&str; 4] = ["bearer ", "basic ", "eyj", "sk-"];
/// A word this long with letters and digits is no name of anything.
const LONG_WORD: usize = 24;

/// Whether a parameter looks like a token. The carrier's own ids do not count as such.
fn is_secret(name: &str, value: &str) -> bool {
    let (name, lower) = (name.to_lowercase(), value.to_lowercase());
    let id = value.get(..2).is_some_and(|kind| kind.bytes().all(|b| b.is_ascii_uppercase()))
        && value.len() == 34
        && value.bytes().skip(2).all(|b| b.is_ascii_hexdigit());
    let word = value.len() >= LONG_WORD
        && !value.contains(char::is_whitespace)
        && !value.contains("://")
        && value.bytes().any(|b| b.is_ascii_digit())
        && value.bytes().any(|b| b.is_ascii_alphabetic());
    SECRET_NAMES.iter().any(|part| name.contains(part))
        || SECRET_VALUES.iter().any(|start| lower.starts_with(start))
        || (word && !id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_one() {
        for (name, value, secret) in [
            ("call_sid", "CA0123456789abcdef0123456789abcdef", false),
            ("language", "en-US", false),
            ("customer", "Acme Bakery, 12 Main Street, Springfield", false),
            ("back", "https://bot.example.com/return/2026/11/26", false),
            ("session_token", "x", true),
            ("PIN", "1234", true),
            ("x", "Bearer abc", true),
            ("x", "eyJhbGciOiJI", true),
            ("id", "9f86d081884c7d659a2feaa0c55ad015", true),
        ] {
            assert_eq!(is_secret(name, value), secret, "{name}={value}");
        }
    }

    #[test]
    fn an_older_header_has_the_settings_that_it_did_not_know() {
        let mut below = serde_json::json!({"a": 1, "b": {"c": 2, "d": 3}, "e": [1]});
        overlay(&mut below, &serde_json::json!({"b": {"c": 5}, "e": [], "f": 7}));
        assert_eq!(below, serde_json::json!({"a": 1, "b": {"c": 5, "d": 3}, "e": [], "f": 7}));
    }
}
