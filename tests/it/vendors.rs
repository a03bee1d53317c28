//! The vendors' APIs end to end: a spoken conversation through each kind, against servers that are as
//! strict as the vendors and that the vendors' own clients have judged.

use std::time::Duration;

use serde_json::Value;
use voxgate::audio::mulaw;
use voxgate::cli::call::{CallOptions, CallReport, Step, run_call};

use crate::world::{Gateway, LegacyApp, Server, block_on, run, say};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Spoken by the voice under test at the start of a call, in words that the recogniser knows.
const GREETING: &str = "thank you very much goodbye";
const QUESTION: &str = "what are your opening hours tomorrow";
const REPLY: &str = "We are open from nine to five.";

const KEYS: [(&str, &str); 3] =
    [("OPENAI_API_KEY", "sk-test"), ("ELEVENLABS_API_KEY", "el-test"), ("DEEPGRAM_API_KEY", "dg-test")];

/// Vendors, an app and a gateway before them.
struct World {
    vendors: Server,
    app: LegacyApp,
    gateway: Gateway,
}

impl World {
    /// Services with these keys, in which `VENDORS` is where the vendors are.
    fn new(greeting: &str, stt: &str, tts: &str, env: &[(&str, &str)]) -> World {
        let (vendors, app) = (Server::start("vendors"), LegacyApp::start());
        let config = format!(
            "[turn]\ngreeting = {greeting:?}\n[dialogue]\nmode = \"dialogue\"\n[dialogue.stt]\n{stt}\n\
             [dialogue.agent]\nurl = {:?}\n[dialogue.tts]\n{tts}\n\
             [upstreams.vendors]\nservers = [\"VENDORS\"]\n",
            app.url("/agent")
        );
        let config = config.replace("VENDORS", &format!("127.0.0.1:{}", vendors.port));
        let gateway = Gateway::hearing_voices(&config, env);
        World { vendors, app, gateway }
    }

    /// What the vendors were asked at this path.
    fn asked(&self, path: &str) -> Vec<Value> {
        let log = self.vendors.log();
        log.into_iter().filter(|entry| entry["path"].as_str().unwrap().starts_with(path)).collect()
    }

    /// Every reason why a service failed, as logged.
    fn failures(&self) -> Vec<String> {
        let lines = self.gateway.events("UPSTREAM_FAILED");
        lines.iter().map(|line| line["why"].as_str().unwrap().to_owned()).collect()
    }
}

fn call(gateway: &Gateway, script: Vec<Step>) -> CallReport {
    block_on(run_call(CallOptions::new(gateway.media()), script)).unwrap()
}

/// What was heard between two moments of a call.
fn heard(report: &CallReport, from: Duration, to: Duration) -> &[u8] {
    let at = |time: Duration| usize::try_from(time.as_millis()).unwrap() * 8;
    &report.heard[at(from)..at(to).min(report.heard.len())]
}

/// The words of this μ-law, to a recogniser that is no part of the call.
fn words(ear: &Server, audio: &[u8]) -> String {
    let request = reqwest::Client::new().post(ear.url("/stt")).header("content-type", "audio/basic");
    let answer = block_on(async { request.body(audio.to_vec()).send().await.unwrap().text().await.unwrap() });
    serde_json::from_str::<Value>(&answer).unwrap()["text"].as_str().unwrap().to_owned()
}

fn rms(audio: &[u8]) -> f64 {
    let sum: f64 = audio.iter().map(|byte| f64::from(mulaw::decode(*byte)).powi(2)).sum();
    (sum / audio.len().max(1) as f64).sqrt()
}

/// One conversation. Speech comes from `path`, whose bytes are that many to a millisecond.
fn converse(stt: &str, tts: &str, path: &str, bytes_per_ms: u64) -> World {
    let ear = Server::start("stt_server");
    let world = World::new(GREETING, stt, tts, &KEYS);
    let (ask, listen) = (Step::Say(say(QUESTION)), Step::wait_for_reply_end(TIMEOUT));
    let report = call(&world.gateway, vec![listen.clone(), ask, listen]);
    assert_eq!(report.problem(), None, "{:?}", world.failures());
    assert_eq!(world.failures(), Vec::<String>::new());

    // The caller's words came through the recogniser to the app.
    assert_eq!(world.gateway.event("STT_FINAL", 0)["text"], QUESTION);
    let turns = world.app.agent_log();
    assert_eq!(turns.len(), 1, "{turns:?}");
    assert_eq!(turns[0]["body"]["text"], QUESTION);

    // The voice was asked for the greeting and the reply, and each is what the caller heard.
    let [greeting, reply] = report.spurts[..] else { panic!("{:?}", report.spurts) };
    assert_eq!(words(&ear, heard(&report, greeting.start, greeting.end)), GREETING);
    let spoken = world.asked(path);
    for (text, spurt) in [(GREETING, greeting), (REPLY, reply)] {
        let asked = spoken.iter().find(|entry| entry["text"] == text);
        let asked = asked.unwrap_or_else(|| panic!("{text} in {spoken:?}"));
        let ms = asked["bytes"].as_u64().unwrap() / bytes_per_ms;
        let took = u64::try_from((spurt.end - spurt.start).as_millis()).unwrap();
        assert!(took.abs_diff(ms) <= 40, "{text}: {took} ms were heard of {ms} ms");
        let level = rms(heard(&report, spurt.start, spurt.end));
        assert!((500.0..12_000.0).contains(&level), "{text}: a level of {level}");
    }
    assert_eq!(world.gateway.noise(), Vec::<String>::new());
    world
}

const OPENAI_STT: &str = "kind = \"openai\"\nurl = \"http://VENDORS/v1\"\napi_key = \"env:OPENAI_API_KEY\"\n\
                          model = \"gpt-transcribe\"\nlanguage = \"en\"\nprompt = \"Orders.\"\ntemperature = 0";

#[test]
fn a_conversation_through_openais_api() {
    let tts = "kind = \"openai\"\nupstream = \"vendors\"\napi_key = \"env:OPENAI_API_KEY\"\n\
               model = \"gpt-4o-mini-tts\"\nvoice = \"alloy\"\ninstructions = \"Calmly.\"\nspeed = 1.0";
    let world = converse(OPENAI_STT, tts, "/v1/audio/speech", 48);
    let heard = world.asked("/v1/audio/transcriptions");
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0]["asked"]["file"], "utterance.wav");
    assert_eq!(heard[0]["asked"]["language"], "en");
    assert_eq!(heard[0]["text"], QUESTION);
}

#[test]
fn a_conversation_in_a_voice_of_elevenlabs() {
    let tts = "kind = \"elevenlabs\"\nurl = \"http://VENDORS\"\napi_key = \"env:ELEVENLABS_API_KEY\"\n\
               language_code = \"en\"\nvoice_settings = { stability = 0.4, use_speaker_boost = false }\n\
               optimize_streaming_latency = 2";
    converse(OPENAI_STT, tts, "/v1/text-to-speech/JBFqnCBsd6RMkjVDRZzb/stream", 8);
}

#[test]
fn a_conversation_in_a_voice_of_deepgram() {
    let tts =
        "kind = \"deepgram\"\nurl = \"http://VENDORS\"\napi_key = \"env:DEEPGRAM_API_KEY\"\nspeed = 1.0";
    converse(OPENAI_STT, tts, "/v1/speak", 8);
}

/// A call on which these services fail. Why is told with its owner, never with a key in it, and the
/// caller hears something all the same.
fn fails(stt: &str, tts: &str, key: &str, owner: &str, said: &str) {
    let world = World::new("", stt, tts, &[("KEY", key)]);
    let report = call(&world.gateway, vec![Step::Say(say(QUESTION)), Step::wait_for_reply_end(TIMEOUT)]);
    assert_eq!(report.problem(), None);
    assert!(!report.spurts.is_empty(), "the caller heard nothing");
    let failures = world.failures();
    assert!(!failures.is_empty());
    for why in &failures {
        assert!(why.starts_with(&format!("{owner}: POST http://127.0.0.1:")), "{why}");
        assert!(why.ends_with(said), "{why}");
    }
    assert!(!format!("{:?}", world.gateway.log()).contains(key), "{key} was logged");
}

const HEARING: &str =
    "kind = \"openai\"\nurl = \"http://VENDORS\"\napi_key = \"env:KEY\"\nmodel = \"gpt-transcribe\"";
const SPEAKING: &str = "kind = \"deepgram\"\nurl = \"http://VENDORS\"\napi_key = \"dg-test\"";

#[test]
fn a_recogniser_that_refuses_the_key_is_the_configurations_fault() {
    let said = "answered 401: Not a key of ours: ***. (invalid_api_key)";
    fails(HEARING, SPEAKING, "sk-wrong", "your config: api_key", said);
}

#[test]
fn a_recogniser_that_is_asked_too_often_says_how_long_to_wait() {
    let said = "answered 429: The rate limit of your organisation is reached. Try again in 20s. \
                (rate_limit_exceeded); it asks to wait 20 s";
    fails(HEARING, SPEAKING, "sk-limited", "the vendor refused", said);
}

#[test]
fn a_model_that_is_not_there_is_the_configurations_fault() {
    let stt = HEARING.replace("gpt-transcribe", "nova-3");
    let said = "answered 404: The model `nova-3` does not exist, or is not yours. (model_not_found)";
    fails(&stt, SPEAKING, "sk-test", "your config: model", said);
}

#[test]
fn a_voice_without_credit_is_the_vendors_refusal() {
    let stt = HEARING.replace("env:KEY", "sk-test");
    let tts = "kind = \"elevenlabs\"\nurl = \"http://VENDORS\"\napi_key = \"env:KEY\"";
    let said = "answered 401: 0 credits are left, and this needs 12. (quota_exceeded)";
    fails(&stt, tts, "el-broke", "the vendor refused", said);
}

#[test]
fn a_voice_that_is_out_of_order_is_the_vendors_failure() {
    let stt = HEARING.replace("env:KEY", "sk-test");
    let tts = SPEAKING.replace("dg-test", "env:KEY");
    fails(&stt, &tts, "dg-down", "the vendor failed", "answered 503: Out of order. (UNAVAILABLE)");
}

#[test]
fn the_vendors_own_clients_take_the_fakes_for_the_vendors() {
    let vendors = Server::start("vendors");
    let judged = run("python", &["tests/services/judge_vendors.py", &vendors.url("")]);
    let said = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
    assert!(said.lines().count() > 40, "{said}");
}
