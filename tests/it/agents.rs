//! Agents end to end: spoken conversations with a model behind OpenAI's chat completions, and with an
//! app that was written for Twilio's ConversationRelay, both with a real recogniser and a real voice.

use std::time::Duration;

use serde_json::{Value, json};
use voxgate::cli::call::{CallOptions, CallReport, Step, run_call};

use crate::world::{Gateway, Server, block_on, run, say, until};

const TIMEOUT: Duration = Duration::from_secs(30);

const GREETING: &str = "hello is anybody there";
const QUESTION: &str = "what are your opening hours tomorrow";
const TABLE: &str = "book a table for two people";
const ANOTHER: &str = "wait i have another question";
const GOODBYE: &str = "thank you very much goodbye";

/// Speech services, an agent, and a gateway before them.
struct World {
    stt: Server,
    tts: Server,
    agent: Server,
    gateway: Gateway,
}

impl World {
    /// With this greeting, and an agent with these keys, in which `AGENT` is where it is.
    fn new(greeting: &str, agent: &str, keys: &str) -> World {
        let (stt, tts) = (Server::start("stt_server"), Server::start("tts_server"));
        let agent = Server::start(agent);
        let config = format!(
            "[turn]\ngreeting = {greeting:?}\n[dialogue]\nmode = \"dialogue\"\nreply_deadline = \"20s\"\n\
             [dialogue.stt]\nurl = {:?}\n[dialogue.tts]\nurl = {:?}\nvoice = \"rms\"\n\
             [dialogue.agent]\n{}\n",
            stt.url("/stt"),
            tts.url("/tts"),
            keys.replace("AGENT", &format!("127.0.0.1:{}", agent.port))
        );
        let gateway = Gateway::hearing_voices(&config, &[("KEY", "sk-test")]);
        World { stt, tts, agent, gateway }
    }

    fn call(&self, script: Vec<Step>) -> CallReport {
        let mut options = CallOptions::new(self.gateway.media());
        options.parameters = [("from", "+15550111"), ("to", "+15550100"), ("plan", "gold")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let report = block_on(run_call(options, script)).unwrap();
        assert_eq!(report.problem(), None, "{:?}", self.gateway.log());
        assert_eq!(self.gateway.noise(), Vec::<String>::new());
        report
    }

    /// The words that were heard in one stretch of sound, by a recogniser that is no part of the call.
    fn words(&self, report: &CallReport, spurt: usize) -> String {
        let spurt = report.spurts[spurt];
        let at = |time: Duration| usize::try_from(time.as_millis()).unwrap() * 8;
        let audio = report.heard[at(spurt.start)..at(spurt.end).min(report.heard.len())].to_vec();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let request = reqwest::Client::new().post(self.stt.url("/stt")).header("content-type", "audio/basic");
        let answer = block_on(async { request.body(audio).send().await.unwrap().text().await.unwrap() });
        serde_json::from_str::<Value>(&answer).unwrap()["text"].as_str().unwrap().to_owned()
    }

    /// Every sentence that the voice was asked for, once the call has begun.
    fn spoken(&self) -> Vec<String> {
        self.tts.log().iter().map(|entry| entry["text"].as_str().unwrap().to_owned()).collect()
    }

    /// What the agent was told that is of this type, or all with its `type`.
    fn told(&self, kind: &str) -> Vec<Value> {
        self.agent.log().into_iter().filter(|told| told["type"] == kind).collect()
    }

    /// The messages of each request to the model.
    fn messages(&self) -> Vec<Vec<Value>> {
        let log = self.agent.log();
        assert!(log.iter().all(|entry| entry["status"] == 200), "{log:?}");
        log.iter().map(|entry| entry["asked"]["messages"].as_array().unwrap().clone()).collect()
    }
}

fn says(text: &str) -> [Step; 2] {
    [Step::Say(say(text)), Step::wait_for_reply_end(TIMEOUT)]
}

/// Speaks `into` the reply once it has been heard for three seconds.
fn interrupts(text: &str, into: &str) -> [Step; 3] {
    let after = Duration::from_secs(3);
    [
        Step::Say(say(text)),
        Step::Interrupt { after, audio: say(into), timeout: TIMEOUT },
        Step::wait_for_reply_end(TIMEOUT),
    ]
}

/// A voice says about three words a second: the caller has heard most of the first sentence when
/// interrupting, perhaps all of it, and nothing of the third.
fn check_three_seconds(heard: &str) {
    let reply = "Of course, I can book a table for two people. We have a quiet table by the window at seven";
    assert!(reply.starts_with(heard), "{heard}");
    assert!((7..=16).contains(&heard.split_whitespace().count()), "{heard}");
}

const MODEL: &str = "kind = \"openai\"\nurl = \"http://AGENT/v1\"\napi_key = \"env:KEY\"\n\
                     model = \"gpt-4.1-mini\"\ninstructions = \"Be brief.\"\ntemperature = 0.5\nmax_tokens = 200";

fn message(role: &str, content: &str) -> Value {
    json!({"role": role, "content": content})
}

#[test]
fn a_conversation_with_a_model() {
    let world = World::new(GREETING, "chat_server", MODEL);
    let greeted = Step::wait_for_reply_end(TIMEOUT);
    let report = world.call([vec![greeted], says(QUESTION).to_vec(), says(ANOTHER).to_vec()].concat());
    assert_eq!(world.gateway.event("STT_FINAL", 0)["text"], QUESTION);
    assert_eq!(report.spurts.len(), 3, "{:?}", report.spurts);
    assert_eq!(world.words(&report, 0), GREETING);
    assert_eq!(world.words(&report, 1), "yes that is correct");
    let all = [
        message("system", "Be brief."),
        message("assistant", GREETING),
        message("user", QUESTION),
        message("assistant", "Yes, that is correct."),
        message("user", ANOTHER),
    ];
    assert_eq!(world.messages(), [&all[..3], &all[..]]);
}

#[test]
fn a_model_is_told_only_what_the_caller_heard() {
    let world = World::new("", "chat_server", MODEL);
    let report = world.call([interrupts(TABLE, ANOTHER).to_vec(), says(QUESTION).to_vec()].concat());
    assert_eq!(report.barge_ins.len(), 1);
    let requests = world.messages();
    assert_eq!(requests.len(), 3, "{requests:?}");
    let roles: Vec<&str> = requests[2].iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant", "user"]);
    let cut = requests[2][2]["content"].as_str().unwrap();
    let heard = cut.strip_suffix("… [interrupted by the caller]").unwrap_or_else(|| panic!("{cut}"));
    check_three_seconds(heard);
    assert_eq!(requests[2][4], message("assistant", "Please go ahead."));
}

#[test]
fn a_model_says_goodbye_before_it_hangs_up() {
    // Once with a text before the call of the function, once with none at all.
    for (said, goodbye, rounds) in
        [(GOODBYE, "Thank you for calling. Goodbye.", 1), ("please cancel my second order", "Goodbye.", 2)]
    {
        let world = World::new("", "chat_server", MODEL);
        let report = world.call([says(said).to_vec(), vec![Step::Pause(TIMEOUT)]].concat());
        let stopped = world.gateway.event("WS_STOP", 0);
        assert_eq!(stopped["reason"], "bot_end", "{stopped}");
        assert_eq!(world.messages().len(), rounds);
        assert_eq!(world.spoken().join(" ").split_once(goodbye).map(|(_, rest)| rest), Some(""));
        // All of it was heard: the voice's own length, to a frame or two.
        let spoken: u64 = world.gateway.events("TTS_LEN_ms").iter().map(|e| e["ms"].as_u64().unwrap()).sum();
        let heard: Duration = report.spurts.iter().map(|spurt| spurt.end - spurt.start).sum();
        assert!(u64::try_from(heard.as_millis()).unwrap().abs_diff(spoken) <= 60, "{heard:?} of {spoken} ms");
        assert!(report.duration < TIMEOUT, "{:?}", report.duration);
    }
}

#[test]
fn a_model_may_want_what_this_gateway_cannot_do() {
    let world = World::new("", "chat_server", MODEL);
    world.call(
        [
            says("i want to speak to a person").to_vec(),
            says("move my appointment to monday morning").to_vec(),
        ]
        .concat(),
    );
    assert_eq!(world.gateway.event("ACTION_IGNORED", 0)["action"], "transfer");
    assert_eq!(world.gateway.event("AGENT_CALL_IGNORED", 0)["name"], "move_appointment");
    let spoken = world.spoken();
    for sentence in ["I am putting you through.", "One moment.", "That did not work."] {
        assert!(spoken.iter().any(|text| text == sentence), "{sentence} in {spoken:?}");
    }
}

#[test]
fn a_model_that_refuses_is_told_of_with_its_owner() {
    let world = World::new("", "chat_server", &MODEL.replace("gpt-4.1-mini", "gpt-0"));
    world.call(says(QUESTION).to_vec());
    let failed = world.gateway.event("UPSTREAM_FAILED", 0);
    let why = failed["why"].as_str().unwrap();
    assert!(why.starts_with("your config: model: POST http://127.0.0.1:"), "{why}");
    assert!(why.ends_with("The model `gpt-0` does not exist, or is not yours. (model_not_found)"), "{why}");
}

#[test]
fn openais_own_client_takes_the_fake_for_openai() {
    let chat = Server::start("chat_server");
    let judged = run("python", &["tests/services/judge_chat.py", &chat.url("")]);
    let said = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
    assert!(said.lines().count() > 25, "{said}");
}

const RELAY: &str = "kind = \"conversation_relay\"\nurl = \"ws://AGENT/ws\"";

/// Nothing that the app was told was wrong.
fn content(world: &World) {
    let wrong: Vec<Value> = world.agent.log().into_iter().filter(|told| !told["wrong"].is_null()).collect();
    assert_eq!(wrong, Vec::<Value>::new());
}

#[test]
fn a_conversation_with_a_conversation_relay_app() {
    let world = World::new("", "relay_app", RELAY);
    let welcomed = Step::wait_for_reply_end(TIMEOUT);
    let report = world.call([vec![welcomed], says(QUESTION).to_vec()].concat());
    assert_eq!(report.spurts.len(), 2, "{:?}", report.spurts);
    assert_eq!(world.words(&report, 0), GREETING, "the app speaks first");
    assert_eq!(world.words(&report, 1), "yes that is correct");
    let setup = &world.told("setup")[0];
    assert_eq!((&setup["from"], &setup["to"]), (&json!("+15550111"), &json!("+15550100")));
    assert_eq!(setup["callSid"], report.call_sid);
    assert_eq!(setup["customParameters"]["plan"], "gold");
    assert_eq!(world.told("prompt")[0]["voicePrompt"], QUESTION);
    until("the app's socket to be closed", || {
        let closed = world.told("closed");
        closed.first().map(|closed| assert_eq!(closed["code"], 1000))
    });
    content(&world);
}

#[test]
fn a_conversation_relay_app_is_told_at_once_that_it_was_interrupted() {
    let world = World::new("", "relay_app", RELAY);
    let welcomed = Step::wait_for_reply_end(TIMEOUT);
    let report = world.call([vec![welcomed], interrupts(TABLE, ANOTHER).to_vec()].concat());
    assert_eq!(report.barge_ins.len(), 1);
    let log = world.agent.log();
    let kinds: Vec<&str> = log.iter().map(|told| told["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[..4], ["setup", "prompt", "interrupt", "prompt"], "{log:?}");
    check_three_seconds(log[2]["utteranceUntilInterrupt"].as_str().unwrap());
    let heard_ms = log[2]["durationUntilInterruptMs"].as_u64().unwrap();
    assert!((3000..6000).contains(&heard_ms), "{heard_ms}");
    // Well before the words of the interruption were known.
    let before = log[3]["at"].as_f64().unwrap() - log[2]["at"].as_f64().unwrap();
    assert!(before > 0.4, "{before} s");
    assert_eq!(log[3]["voicePrompt"], ANOTHER);
    assert!(world.spoken().iter().any(|text| text == "Please go ahead."));
    content(&world);
}

#[test]
fn a_conversation_relay_app_ends_the_call_after_its_last_word() {
    let world = World::new("", "relay_app", RELAY);
    let welcomed = Step::wait_for_reply_end(TIMEOUT);
    world.call([vec![welcomed], says(GOODBYE).to_vec(), vec![Step::Pause(TIMEOUT)]].concat());
    assert_eq!(world.gateway.event("WS_STOP", 0)["reason"], "bot_end");
    assert_eq!(world.gateway.event("AGENT_ENDED_CALL", 0)["handoff_data"], r#"{"reason":"done"}"#);
    assert_eq!(world.spoken().last().map(String::as_str), Some("Goodbye."));
    content(&world);
}

#[test]
fn a_conversation_relay_app_that_drops_its_socket_is_called_again() {
    let world = World::new("", "relay_app", RELAY);
    let welcomed = Step::wait_for_reply_end(TIMEOUT);
    let script = [vec![welcomed], says("my internet is not working").to_vec(), says(QUESTION).to_vec()];
    world.call(script.concat());
    let why = world.gateway.event("UPSTREAM_FAILED", 0)["why"].as_str().unwrap().to_owned();
    assert!(why.starts_with("the vendor: the app "), "{why}");
    assert_eq!(world.told("setup").len(), 2);
    let prompts = world.told("prompt");
    assert_eq!((&prompts[1]["voicePrompt"], &prompts[1]["socket"]), (&json!(QUESTION), &json!(2)));
    content(&world);
}

#[test]
fn keys_reach_a_conversation_relay_app_and_its_answer_the_caller() {
    let world = World::new("", "relay_app", RELAY);
    let welcomed = Step::wait_for_reply_end(TIMEOUT);
    let report = world.call(vec![
        welcomed,
        Step::Dtmf('7'),
        Step::WaitForSilence { quiet: Duration::from_secs(4), timeout: TIMEOUT },
    ]);
    assert_eq!(world.told("dtmf")[0]["digit"], "7");
    assert!(world.spoken().iter().any(|text| text == "You pressed 7."), "{:?}", world.spoken());
    assert_eq!(report.spurts.len(), 2, "{:?}", report.spurts);
    content(&world);
}
