//! What a session shall be: `session.update`, in both forms that the API has had.

use serde_json::{Map, Value, json};

use super::super::agent::tools;
use super::write::SESSION;
use crate::config::{Dialect, Realtime, Transcription, TurnDetection};

pub(super) fn update(realtime: &Realtime) -> Value {
    let session = match realtime.dialect {
        Dialect::Ga => ga(realtime),
        Dialect::Beta => beta(realtime),
    };
    json!({"type": "session.update", "event_id": SESSION, "session": session})
}

fn ga(realtime: &Realtime) -> Value {
    let format = json!({"type": "audio/pcmu"});
    let mut input = object(json!({"format": format, "turn_detection": turn_detection(realtime)}));
    set(&mut input, "transcription", realtime.transcription.as_ref().map(transcription));
    set(&mut input, "noise_reduction", realtime.noise_reduction.map(|kind| json!({"type": kind})));
    let mut output = object(json!({"format": format}));
    set(&mut output, "voice", realtime.voice.as_deref());
    set(&mut output, "speed", realtime.speed);
    let mut session = object(json!({
        "type": "realtime",
        "output_modalities": ["audio"],
        "audio": {"input": input, "output": output},
    }));
    common(&mut session, realtime);
    set(&mut session, "max_output_tokens", realtime.max_output_tokens);
    Value::Object(session)
}

fn beta(realtime: &Realtime) -> Value {
    let mut session = object(json!({
        "modalities": ["audio", "text"],
        "input_audio_format": "g711_ulaw",
        "output_audio_format": "g711_ulaw",
        "turn_detection": turn_detection(realtime),
    }));
    common(&mut session, realtime);
    set(&mut session, "voice", realtime.voice.as_deref());
    set(&mut session, "temperature", realtime.temperature);
    set(&mut session, "max_response_output_tokens", realtime.max_output_tokens);
    set(&mut session, "input_audio_transcription", realtime.transcription.as_ref().map(transcription));
    let noise_reduction = realtime.noise_reduction.map(|kind| json!({"type": kind}));
    set(&mut session, "input_audio_noise_reduction", noise_reduction);
    Value::Object(session)
}

/// What both forms have by the same names.
fn common(session: &mut Map<String, Value>, realtime: &Realtime) {
    set(session, "instructions", realtime.instructions.as_deref());
    let tools = tools(realtime);
    if !tools.is_empty() {
        session.insert("tools".to_owned(), tools.into());
        session.insert("tool_choice".to_owned(), "auto".into());
    }
}

/// `null` is nobody's ear but ours.
fn turn_detection(realtime: &Realtime) -> Value {
    match &realtime.turn_detection {
        TurnDetection::None { .. } => Value::Null,
        TurnDetection::ServerVad {
            threshold,
            prefix_padding_ms,
            silence_duration_ms,
            idle_timeout_ms,
            interrupt_response,
        } => {
            let mut vad = object(json!({
                "type": "server_vad",
                "create_response": true,
                "interrupt_response": interrupt_response,
            }));
            set(&mut vad, "threshold", *threshold);
            set(&mut vad, "prefix_padding_ms", *prefix_padding_ms);
            set(&mut vad, "silence_duration_ms", *silence_duration_ms);
            set(&mut vad, "idle_timeout_ms", *idle_timeout_ms);
            Value::Object(vad)
        }
        TurnDetection::SemanticVad { eagerness, interrupt_response } => {
            let mut vad = object(json!({
                "type": "semantic_vad",
                "create_response": true,
                "interrupt_response": interrupt_response,
            }));
            set(&mut vad, "eagerness", *eagerness);
            Value::Object(vad)
        }
    }
}

fn transcription(transcription: &Transcription) -> Value {
    let mut object = object(json!({"model": transcription.model}));
    set(&mut object, "language", transcription.language.as_deref());
    set(&mut object, "prompt", transcription.prompt.as_deref());
    Value::Object(object)
}

/// As the chat API offers them, but without its wrapping.
fn tools(realtime: &Realtime) -> Vec<Value> {
    let ours = tools::offered(&realtime.tools).into_iter().map(|mut tool| {
        let mut function = object(tool["function"].take());
        function.insert("type".to_owned(), "function".into());
        Value::Object(function)
    });
    let apps = realtime.functions.iter().map(|function| {
        // The configuration has made sure that it is JSON.
        let parameters: Value = serde_json::from_str(&function.parameters).unwrap_or_default();
        let mut tool = object(json!({"type": "function", "name": function.name, "parameters": parameters}));
        set(&mut tool, "description", function.description.as_deref());
        Value::Object(tool)
    });
    ours.chain(apps).collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

fn set(object: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), value.into());
    }
}
