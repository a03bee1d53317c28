//! What is said to a model, as the API's client events.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::call::realtime::{About, Request, Role};
use crate::config::Dialect;

/// The names of our events, by which a refusal says what it is about.
pub(super) const SESSION: &str = "voxgate-session";
const RESPOND: &str = "voxgate-respond";
const CANCEL: &str = "voxgate-cancel";
const OTHER: &str = "voxgate-other";

/// What an event of this name was about; `None` if it is none of ours.
pub(super) fn about(event: &str) -> Option<About> {
    match event {
        SESSION => Some(About::Session),
        RESPOND => Some(About::Response { busy: false }),
        CANCEL | OTHER => Some(About::Other),
        _ => None,
    }
}

pub(super) fn message(request: &Request, dialect: Dialect) -> Option<String> {
    let ga = dialect == Dialect::Ga;
    Some(match request {
        Request::Hear(audio) => {
            // Fifty times a second: base64 needs no escapes.
            let mut message = String::with_capacity(64 + audio.len() * 4 / 3);
            message.push_str("{\"type\":\"input_audio_buffer.append\",\"audio\":\"");
            STANDARD.encode_string(audio, &mut message);
            message.push_str("\"}");
            message
        }
        Request::Forget => event("input_audio_buffer.clear", OTHER, json!({})),
        Request::Commit => event("input_audio_buffer.commit", OTHER, json!({})),
        Request::Respond { say: None } => event("response.create", RESPOND, json!({})),
        Request::Respond { say: Some(words) } => {
            let instructions = format!("Say this to the caller, word for word, and nothing else: {words}");
            event("response.create", RESPOND, json!({"response": {"instructions": instructions}}))
        }
        Request::Cancel { response } if ga && !response.is_empty() => {
            event("response.cancel", CANCEL, json!({"response_id": response}))
        }
        Request::Cancel { .. } => event("response.cancel", CANCEL, json!({})),
        Request::Truncate { item, content, heard } => {
            let heard = heard.as_millis() as u64;
            let cut = json!({"item_id": item, "content_index": content, "audio_end_ms": heard});
            event("conversation.item.truncate", OTHER, cut)
        }
        Request::Remember { role, text } => {
            let (role, kind) = match role {
                Role::Caller => ("user", "input_text"),
                Role::Model => ("assistant", if ga { "output_text" } else { "text" }),
            };
            let content = json!([{"type": kind, "text": text}]);
            item(json!({"type": "message", "role": role, "content": content}))
        }
        Request::Answer { call, output } => {
            item(json!({"type": "function_call_output", "call_id": call, "output": output}))
        }
        Request::Dial | Request::Function { .. } | Request::DropFunction { .. } => return None,
    })
}

fn item(item: Value) -> String {
    event("conversation.item.create", OTHER, json!({"item": item}))
}

fn event(kind: &str, name: &str, mut more: Value) -> String {
    more["type"] = kind.into();
    more["event_id"] = name.into();
    more.to_string()
}
