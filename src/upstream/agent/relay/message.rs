//! ConversationRelay's wire, from Twilio's side: what an app is told, and what it may say.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize};

use super::super::super::CallIds;
use crate::twilio::json_fault;

/// To the app.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum ToApp<'a> {
    Setup {
        session_id: String,
        account_sid: &'a str,
        parent_call_sid: &'a str,
        call_sid: &'a str,
        from: &'a str,
        to: &'a str,
        forwarded_from: &'a str,
        caller_name: &'a str,
        direction: &'a str,
        call_type: &'a str,
        call_status: &'a str,
        custom_parameters: &'a BTreeMap<String, String>,
    },
    Prompt {
        voice_prompt: &'a str,
        lang: &'a str,
        last: bool,
    },
    Dtmf {
        digit: char,
    },
    Interrupt {
        utterance_until_interrupt: &'a str,
        duration_until_interrupt_ms: u64,
    },
    Error {
        description: String,
    },
}

/// From the app. Fields that are nobody's business here are not looked at.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum FromApp {
    Text {
        token: String,
        #[serde(default)]
        last: bool,
    },
    Play {
        source: String,
    },
    SendDigits {
        digits: String,
    },
    Language {
        tts_language: Option<String>,
        transcription_language: Option<String>,
    },
    End {
        handoff_data: Option<String>,
    },
}

impl<'a> ToApp<'a> {
    /// The stream's parameters are all that is known of the call's numbers.
    pub(super) fn setup(ids: &'a CallIds) -> Self {
        let named = |names: [&str; 2]| {
            let found = names.iter().find_map(|name| ids.parameters.get(*name));
            found.map_or("", String::as_str)
        };
        ToApp::Setup {
            session_id: session_id(),
            account_sid: &ids.account_sid,
            parent_call_sid: named(["parentCallSid", "ParentCallSid"]),
            call_sid: &ids.call_sid,
            from: named(["from", "From"]),
            to: named(["to", "To"]),
            forwarded_from: named(["forwardedFrom", "ForwardedFrom"]),
            caller_name: named(["callerName", "CallerName"]),
            direction: "inbound",
            call_type: "PSTN",
            call_status: "RINGING",
            custom_parameters: &ids.parameters,
        }
    }

    pub(super) fn to_json(&self) -> String {
        // Strings and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl FromApp {
    /// Or what is wrong with it, for the app and the log.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| json_fault(&error))
    }
}

/// One that nobody else has, as Twilio writes them: `VX` and 32 digits.
fn session_id() -> String {
    let random = || RandomState::new().hash_one(0);
    format!("VX{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn setup_has_the_fields_that_apps_read() {
        let parameters = [("from", "+1"), ("To", "+2"), ("ref", "bar")];
        let ids = CallIds {
            call_sid: "CA1".to_owned(),
            stream_sid: "MZ1".to_owned(),
            account_sid: "AC1".to_owned(),
            parameters: parameters.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            trace: None,
        };
        let mut setup: Value = serde_json::from_str(&ToApp::setup(&ids).to_json()).unwrap();
        let session = setup["sessionId"].take();
        let session = session.as_str().unwrap().strip_prefix("VX").unwrap();
        assert!(session.len() == 32 && session.bytes().all(|b| b.is_ascii_hexdigit()), "{session}");
        let expected = json!({
            "type": "setup", "sessionId": null, "accountSid": "AC1", "parentCallSid": "", "callSid": "CA1",
            "from": "+1", "to": "+2", "forwardedFrom": "", "callerName": "", "direction": "inbound",
            "callType": "PSTN", "callStatus": "RINGING",
            "customParameters": {"from": "+1", "To": "+2", "ref": "bar"},
        });
        assert_eq!(setup, expected);
        assert_ne!(session_id(), session_id());
    }

    #[test]
    fn what_an_app_is_told() {
        for (message, text) in [
            (
                ToApp::Prompt { voice_prompt: "hi \"you\"", lang: "en-US", last: true },
                r#"{"type":"prompt","voicePrompt":"hi \"you\"","lang":"en-US","last":true}"#,
            ),
            (ToApp::Dtmf { digit: '#' }, r##"{"type":"dtmf","digit":"#"}"##),
            (
                ToApp::Interrupt { utterance_until_interrupt: "Life is", duration_until_interrupt_ms: 460 },
                r#"{"type":"interrupt","utteranceUntilInterrupt":"Life is","durationUntilInterruptMs":460}"#,
            ),
            (ToApp::Error { description: "x".to_owned() }, r#"{"type":"error","description":"x"}"#),
        ] {
            assert_eq!(message.to_json(), text);
        }
    }

    #[test]
    fn what_an_app_may_say() {
        let text = |token: &str, last| FromApp::Text { token: token.to_owned(), last };
        for (said, meant) in [
            (
                r#"{"type":"text","token":"Hi ","last":false,"lang":"en-US","interruptible":true}"#,
                text("Hi ", false),
            ),
            (r#"{"token":"Hi","type":"text"}"#, text("Hi", false)),
            (r#"{"type":"text","token":"","last":true}"#, text("", true)),
            (
                r#"{"type":"play","source":"https://x/a.mp3","loop":1}"#,
                FromApp::Play { source: "https://x/a.mp3".to_owned() },
            ),
            (r#"{"type":"sendDigits","digits":"9w1"}"#, FromApp::SendDigits { digits: "9w1".to_owned() }),
            (
                r#"{"type":"language","ttsLanguage":"sv-SE"}"#,
                FromApp::Language { tts_language: Some("sv-SE".to_owned()), transcription_language: None },
            ),
            (r#"{"type":"end","handoffData":"{}"}"#, FromApp::End { handoff_data: Some("{}".to_owned()) }),
            (r#"{"type":"end"}"#, FromApp::End { handoff_data: None }),
        ] {
            assert_eq!(FromApp::read(said), Ok(meant), "{said}");
        }
        for bad in [r#"{"type":"text"}"#, r#"{"type":"dance"}"#, r#"{"token":"Hi"}"#, "Hi", "[]", ""] {
            assert!(FromApp::read(bad).is_err(), "{bad}");
        }
    }
}
