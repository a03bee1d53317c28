//! A gateway that holds a dialogue, and the services that it holds it with: real ones, shared by all
//! tests of a run, wherever a test does not put another in their place.

use std::sync::OnceLock;

use serde_json::{Value, json};
use voxgate::cli::call::{CallOptions, CallReport, Step, run_call};

use super::{Gateway, LegacyApp, Server, block_on};

/// The legacy Flask app, which is the agent.
pub fn app() -> &'static LegacyApp {
    static APP: OnceLock<LegacyApp> = OnceLock::new();
    APP.get_or_init(LegacyApp::start)
}

/// The recogniser.
pub fn stt() -> &'static Server {
    static STT: OnceLock<Server> = OnceLock::new();
    STT.get_or_init(|| Server::start("stt_server"))
}

/// The voice.
pub fn tts() -> &'static Server {
    static TTS: OnceLock<Server> = OnceLock::new();
    TTS.get_or_init(|| Server::start("tts_server"))
}

/// The voice's own μ-law of these sentences, one after the other.
pub fn voice(sentences: &[&str]) -> Vec<u8> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    block_on(async {
        let client = reqwest::Client::new();
        let mut audio = Vec::new();
        for text in sentences {
            let request = client.post(tts().url("/tts?format=mulaw")).body(json!({"text": text}).to_string());
            audio.extend_from_slice(&request.send().await.unwrap().bytes().await.unwrap());
        }
        audio
    })
}

/// The sections of a configuration.
pub struct Bot {
    pub app: u16,
    pub dialogue: String,
    pub stt: String,
    pub agent: String,
    pub tts: String,
    /// Audio kept ahead at the carrier. So much by default that what is heard is what was sent, byte for
    /// byte, however busy the machine; a test of interruptions wants less.
    pub lead_ms: u32,
    /// The callers are tones, and no voices.
    pub tones: bool,
    /// Other sections.
    pub more: String,
}

impl Bot {
    /// Everything real; the agent is a route of the proxied app.
    pub fn real() -> Bot {
        Bot {
            stt: format!("url = \"{}\"", stt().url("/stt")),
            tts: format!("url = \"{}\"", tts().url("/tts")),
            tones: false,
            ..Bot::at(app().port)
        }
    }

    /// The agent is a route of the app at that port; the speech services are still to be said.
    pub fn at(app: u16) -> Bot {
        Bot {
            app,
            dialogue: String::new(),
            stt: String::new(),
            agent: "upstream = \"app\"\npath = \"/agent\"".into(),
            tts: String::new(),
            lead_ms: 2_000,
            tones: true,
            more: String::new(),
        }
    }

    pub fn config(&self) -> String {
        let Bot { app, dialogue, stt, agent, tts, lead_ms, more, tones: _ } = self;
        format!(
            "{more}\n[playout]\nlead_ms = {lead_ms}\n[dialogue]\nmode = \"dialogue\"\n{dialogue}\n\
             [dialogue.stt]\n{stt}\n\
             [dialogue.agent]\nkind = \"webhook\"\n{agent}\n\
             [dialogue.tts]\nkind = \"webhook\"\n{tts}\n\
             [upstreams.app]\nservers = [\"127.0.0.1:{app}\"]\n"
        )
    }

    /// Starts the gateway, and waits until its voice has spoken the apology.
    pub fn start(&self) -> Gateway {
        self.start_with(&[])
    }

    pub fn start_with(&self, env: &[(&str, &str)]) -> Gateway {
        let config = self.config();
        let gateway = match self.tones {
            true => Gateway::start_with(&config, "", env),
            false => Gateway::hearing_voices(&config, env),
        };
        gateway.event("PHRASE_RENDERED", 0);
        gateway
    }
}

/// Makes a call of this script.
pub fn call(gateway: &Gateway, script: Vec<Step>) -> CallReport {
    call_with(CallOptions::new(gateway.media()), script)
}

pub fn call_with(options: CallOptions, script: Vec<Step>) -> CallReport {
    block_on(run_call(options, script)).unwrap()
}

/// The lines of a log that are about this call.
pub fn of_call(lines: Vec<Value>, call: &CallReport) -> Vec<Value> {
    let is_of = |line: &Value| {
        line["call_sid"] == *call.call_sid
            || line["body"]["call_sid"] == *call.call_sid
            || line["headers"]["x-call-sid"] == *call.call_sid
    };
    lines.into_iter().filter(is_of).collect()
}
