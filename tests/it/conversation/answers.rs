//! The ways in which an agent answers, and what the caller hears of each.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;
use voxgate::cli::call::report::What;
use voxgate::cli::call::{CallOptions, Step};

use super::{PATIENCE, ask, assert_sound};
use crate::world::hearing::{assert_alike, heard, reply, sound};
use crate::world::{Bot, Fake, LegacyApp, app, call, call_with, free_port, of_call, say, voice};

/// The texts that the agent was asked in a call.
fn texts(lines: Vec<Value>) -> Vec<String> {
    lines.iter().map(|line| line["body"]["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn streams_json_and_plain_text_are_all_spoken() {
    let pizza =
        ["The large pizza costs twelve euros.", "With extra cheese it is thirteen.", "Shall I order one?"];
    let answers: [(&str, &[&str]); 5] = [
        ("how much does the large pizza cost", &pizza),
        (
            "send me the invoice by email",
            &["I am sending you the invoice now.", "It will be there in a minute."],
        ),
        ("please cancel my second order", &["Your second order is cancelled."]),
        ("i want to speak to a person", &["I am putting you through."]),
        ("yes that is correct", &["Good.", "Then it is settled."]),
    ];
    let gateway = Bot::real().start();
    std::thread::scope(|scope| {
        for (said, sentences) in answers {
            let gateway = &gateway;
            scope.spawn(move || {
                let call = call(gateway, ask(said).to_vec());
                assert_sound(&call);
                assert_alike(&reply(&call, 0), &voice(sentences), said);
                assert_eq!(texts(of_call(app().agent_log(), &call)), [said]);
            });
        }
    });
    assert_eq!(gateway.event("ACTION_IGNORED", 0)["action"], "transfer");
    assert_eq!(gateway.events("UPSTREAM_FAILED"), [Value::Null; 0]);
}

#[test]
fn the_first_sentence_is_heard_before_the_last_is_written() {
    type Form = fn(&str) -> String;
    let forms: [(&str, Form); 3] = [
        ("text/event-stream", |piece| format!("data: {{\"delta\": \"{piece}\"}}\n\n")),
        ("application/x-ndjson", |piece| format!("{{\"delta\": \"{piece}\"}}\n")),
        ("text/plain", str::to_owned),
    ];
    std::thread::scope(|scope| {
        for (content_type, piece) in forms {
            scope.spawn(move || {
                // The agent goes on when the caller hears it.
                let (heard, hears) = mpsc::channel();
                let hears = std::sync::Mutex::new(hears);
                let agent = Fake::start(move |_, _, reply| {
                    reply.head(200, content_type);
                    reply.write(piece("This is the first sentence. And").as_bytes());
                    hears.lock().unwrap().recv().unwrap();
                    reply.write(piece(" this is the last.").as_bytes());
                });
                let stt = Fake::stt("hello");
                let bot = Bot {
                    stt: format!("url = \"{}\"", stt.url("/")),
                    agent: format!("url = \"{}\"", agent.url("/")),
                    ..Bot::real()
                };
                let gateway = bot.start();
                std::thread::scope(|scope| {
                    let talk = scope.spawn(|| call(&gateway, ask("yes that is correct").to_vec()));
                    // LISTENING → THINKING → SPEAKING
                    assert_eq!(gateway.event("STATE", 1)["to"], "SPEAKING", "{content_type}");
                    heard.send(()).unwrap();
                    let call = talk.join().unwrap();
                    let both = voice(&["This is the first sentence.", "And this is the last."]);
                    // The second sentence was written late: the pause before it is not the voice's.
                    let heard = reply(&call, 0);
                    assert!(heard.len() > sound(&both).len() - 400 * 8, "{content_type}: cut short");
                    assert_eq!(gateway.events("TTS_LEN_ms").len(), 2, "{content_type}");
                });
            });
        }
    });
}

#[test]
fn a_goodbye_is_heard_to_its_end_before_the_bot_hangs_up() {
    let gateway = Bot::real().start();
    let script = vec![
        Step::Say(say("thank you very much goodbye")),
        Step::WaitForReplyStart { timeout: PATIENCE },
        Step::Pause(Duration::from_secs(30)),
    ];
    let call = call(&gateway, script);
    assert_eq!(call.violations, []);
    let close = call.close.clone().unwrap();
    assert!(close.by_server && close.code == 1000, "{close:?}");
    assert_alike(&reply(&call, 0), &voice(&["Thank you for calling.", "Goodbye."]), "the goodbye");
    // Not when the last frame had been sent, but when the carrier said that it was heard.
    assert!(
        matches!(&call.timeline[call.timeline.len() - 2].what, What::MarkReturned(name) if name.ends_with(".end"))
    );
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["close_code"]), (&"bot_end".into(), &1000.into()));
    assert_eq!(stop["code"], 31921, "{stop}");
    assert!(stop["look_at"].as_str().unwrap().starts_with("normal when the gateway ends the call"), "{stop}");
}

#[test]
fn an_agent_with_nothing_to_say_leaves_silence_and_the_call_goes_on() {
    let gateway = Bot::real().start();
    let script = [
        vec![Step::Say(say("can you repeat that please")), Step::Pause(Duration::from_secs(2))],
        ask("hello is anybody there").to_vec(),
    ];
    let call = call(&gateway, script.concat());
    assert_sound(&call);
    let [nothing, answered] = &call.turns[..] else { panic!("{:?}", call.turns) };
    assert_eq!(nothing.reply_at, None);
    assert!(sound(&heard(&call, Duration::ZERO, answered.said_at)).is_empty());
    assert_alike(&reply(&call, 1), &voice(&["Yes, I am here."]), "the next answer");
    gateway.event("WS_STOP", 0);
    let results: Vec<Value> = gateway.events("TURN").iter().map(|line| line["result"].clone()).collect();
    assert_eq!(results, ["empty", "answered"]);
    assert!(gateway.events("STATE").iter().any(|line| line["why"] == "empty_reply"));
    assert_eq!(gateway.events("UPSTREAM_FAILED"), [Value::Null; 0]);
}

#[test]
fn a_caller_is_greeted_once_however_many_streams_the_call_has() {
    let greeting = "Welcome to the restaurant. How can I help you?";
    let bot = Bot { more: format!("[turn]\ngreeting = \"{greeting}\""), ..Bot::real() };
    let gateway = bot.start();
    gateway.event("PHRASE_RENDERED", 1);
    let sid = "CA0123456789abcdef0123456789abcdef";
    let options = || CallOptions { call_sid: Some(sid.into()), ..CallOptions::new(gateway.media()) };
    let script = [vec![Step::wait_for_reply_end(PATIENCE)], ask("hello is anybody there").to_vec()];
    let first = call_with(options(), script.concat());
    assert_sound(&first);
    let before = heard(&first, Duration::ZERO, first.turns[0].said_at);
    assert_alike(&before, &voice(&[greeting]), "the greeting");
    assert_alike(&reply(&first, 0), &voice(&["Yes, I am here."]), "the answer after it");

    let again = call_with(
        options(),
        [vec![Step::Pause(Duration::from_millis(500))], ask("hello is anybody there").to_vec()].concat(),
    );
    assert_sound(&again);
    assert!(sound(&heard(&again, Duration::ZERO, again.turns[0].said_at)).is_empty());
    assert_alike(&reply(&again, 0), &voice(&["Yes, I am here."]), "the second stream's answer");
    let asked = of_call(app().agent_log(), &again);
    let keys: Vec<&str> = asked.iter().filter_map(|line| line["idempotency_key"].as_str()).collect();
    assert_eq!(keys, [format!("{sid}/1"), format!("{sid}/2")], "a turn of the call, not of the stream");

    let other = call(&gateway, vec![Step::wait_for_reply_end(PATIENCE)]);
    assert_alike(sound(&other.heard), &voice(&[greeting]), "another caller's greeting");
}

#[test]
fn a_bot_that_may_not_be_interrupted_finishes_and_then_answers() {
    let gateway = Bot::real().start_with(&[("BARGE_IN", "false")]);
    let script = vec![
        Step::Say(say("yes that is correct")),
        Step::Interrupt {
            after: Duration::from_millis(200),
            audio: say("hello is anybody there"),
            timeout: PATIENCE,
        },
        Step::wait_for_reply_end(PATIENCE),
        Step::Hangup,
    ];
    let call = call(&gateway, script);
    assert_eq!((call.clears, &call.violations[..]), (0, &[][..]));
    gateway.event("WS_STOP", 0);
    assert_eq!(gateway.events("BARGE_IN"), [Value::Null; 0]);
    assert_eq!(texts(of_call(app().agent_log(), &call)), ["yes that is correct", "hello is anybody there"]);
    let asked = of_call(app().agent_log(), &call);
    assert_eq!(asked[1]["body"]["interrupted"], false);
    assert_eq!(asked[1]["body"]["heard"], "Good. Then it is settled.");
    // Everything, one after the other.
    let heard = heard(&call, call.turns[0].reply_at.unwrap(), call.duration);
    let first = voice(&["Good.", "Then it is settled."]);
    let heard = sound(&heard);
    let first = sound(&first);
    assert_alike(&heard[..first.len()], first, "the reply that could not be interrupted");
    let second = voice(&["Yes, I am here."]);
    let second = sound(&second);
    assert_alike(&heard[heard.len() - second.len()..], second, "the answer to the interruption");
}

#[test]
fn an_app_that_restarts_in_mid_call_costs_one_apology() {
    let port = free_port();
    let mut flask = Some(LegacyApp::start_at(port));
    let bot = Bot { app: port, dialogue: "apology = \"Please say that again.\"".into(), ..Bot::real() };
    let gateway = bot.start();
    let (hello, apology) = (voice(&["Yes, I am here."]), voice(&["Please say that again."]));
    let call = std::thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let question = || ask("hello is anybody there").to_vec();
            let between = || vec![Step::Pause(Duration::from_secs(4))];
            call(&gateway, [question(), between(), question(), between(), question()].concat())
        });
        let played = |nth: usize| {
            let mut seen = 0;
            crate::world::until("a reply to be heard", || {
                seen = gateway.events("STATE").iter().filter(|line| line["why"] == "played").count();
                (seen > nth).then_some(Instant::now())
            })
        };
        played(0);
        flask.take();
        played(1);
        flask = Some(LegacyApp::start_at(port));
        talk.join().unwrap()
    });
    assert_sound(&call);
    assert_alike(&reply(&call, 0), &hello, "before");
    assert_alike(&reply(&call, 1), &apology, "meanwhile");
    assert_alike(&reply(&call, 2), &hello, "afterwards");
    let failed = gateway.events("UPSTREAM_FAILED");
    assert_eq!(failed.len(), 1);
    assert_eq!((&failed[0]["service"], &failed[0]["upstream"]), (&"agent".into(), &"app".into()));
    let asked = of_call(flask.unwrap().agent_log(), &call);
    assert_eq!(asked[0]["body"]["turn"], 3, "the new app meets the third turn first");
}
