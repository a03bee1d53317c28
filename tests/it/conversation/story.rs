//! One call from the first word to the last: a question, its answer, a long answer, an interruption.

use std::time::Duration;

use serde_json::Value;
use voxgate::cli::call::report::What;
use voxgate::cli::call::{CallReport, Step};

use super::{PATIENCE, ask, assert_sound};
use crate::world::hearing::{MS, assert_alike, heard, reply, sound};
use crate::world::{Bot, app, call, of_call, say, stt, voice};

const HOURS: &str = "what are your opening hours tomorrow";
const BOOK: &str = "book a table for two people";
const WAIT: &str = "wait i have another question";
const LONG: &str = "Of course, I can book a table for two people. \
    We have a quiet table by the window at seven, and another one near the bar at half past eight. \
    The kitchen closes at ten, and the terrace is open until eleven if the weather is good. \
    Children are welcome, and there is a small car park behind the house. \
    Which of the two would you like?";

#[test]
fn a_caller_asks_is_answered_and_interrupts() {
    let gateway = Bot { lead_ms: 100, ..Bot::real() }.start();
    let script = vec![
        Step::Say(say(HOURS)),
        Step::wait_for_reply_end(PATIENCE),
        Step::Say(say(BOOK)),
        Step::Interrupt { after: Duration::from_millis(1_500), audio: say(WAIT), timeout: PATIENCE },
        Step::wait_for_reply_end(PATIENCE),
        Step::Hangup,
    ];
    let call = call(&gateway, script);
    gateway.event("WS_STOP", 0);
    assert_sound(&call);
    assert_eq!(gateway.noise(), [""; 0]);
    // The gateway keeps 100 ms ahead. What it sent while this caller was short of processor time
    // looks as if it were more.
    let own = Duration::from_micros(call.own_lateness.max());
    let lead = call.max_lead;
    assert!(lead <= Duration::from_millis(120) + own, "{lead:?} ahead, this caller {own:?} late");
    println!("latencies: {:?}", call.turns.iter().map(|turn| turn.latency()).collect::<Vec<_>>());
    println!("audible:   {:?}", call.turns.iter().map(|turn| turn.audible_latency()).collect::<Vec<_>>());
    println!("barge-in:  {:?}, lead {:?}", call.barge_ins, call.max_lead);

    // The words, as the gateway, the recogniser and the agent have them.
    let words = |lines: Vec<Value>, text: fn(&Value) -> &Value| -> Vec<String> {
        lines.iter().map(|line| text(line).as_str().unwrap().to_owned()).collect()
    };
    let asked = of_call(app().agent_log(), &call);
    assert_eq!(words(gateway.events("STT_FINAL"), |line| &line["text"]), [HOURS, BOOK, WAIT]);
    assert_eq!(words(of_call(stt().log(), &call), |line| &line["text"]), [HOURS, BOOK, WAIT]);
    assert_eq!(words(asked.clone(), |line| &line["body"]["text"]), [HOURS, BOOK, WAIT]);

    // The voice, as the caller heard it.
    assert_alike(&reply(&call, 0), &voice(&["We are open from nine to five."]), "the opening hours");
    assert_alike(&reply(&call, 2), &voice(&["Please go ahead."]), "the reply to the interruption");
    let long = voice(&["Of course, I can book a table for two people."]);
    let begun = heard(&call, call.turns[1].reply_at.unwrap(), call.turns[2].said_at);
    let begun = sound(&begun);
    assert!(begun.len() > 1_300 * MS, "{} ms of the long reply were heard", begun.len() / MS);
    let length = begun.len().min(sound(&long).len());
    assert_alike(&begun[..length], &sound(&long)[..length], "the beginning of the long reply");
    for turn in &call.turns {
        let latency = turn.latency().unwrap();
        assert!((Duration::from_millis(430)..Duration::from_secs(6)).contains(&latency), "{latency:?}");
        assert!(!turn.early);
    }

    assert_interrupted(&call, &asked);
    assert_eq!(gateway.events("UNDERRUN"), [Value::Null; 0]);
    assert_eq!(gateway.events("BARGE_IN").len(), 1);
    assert_timeline(&call);
    assert_log(&gateway.log());
}

/// The bot fell silent at once, and the agent was told what the caller had heard until then.
fn assert_interrupted(call: &CallReport, asked: &[Value]) {
    let [barge_in] = &call.barge_ins[..] else { panic!("{:?}", call.barge_ins) };
    let (clear, after) = (barge_in.clear.unwrap(), barge_in.heard_after.unwrap());
    assert!(clear < Duration::from_secs(1), "`clear` came after {clear:?}");
    assert!(after < Duration::from_secs(1), "{after:?} were heard after the interruption");

    let bodies: Vec<&Value> = asked.iter().map(|line| &line["body"]).collect();
    assert_eq!(bodies.iter().map(|body| &body["turn"]).collect::<Vec<_>>(), [1, 2, 3]);
    let interrupted: Vec<_> = bodies.iter().map(|body| body["interrupted"].as_bool().unwrap()).collect();
    assert_eq!(interrupted, [false, false, true]);
    assert_eq!(bodies[0]["heard"], "");
    assert_eq!(bodies[1]["heard"], "We are open from nine to five.");
    let told: Vec<&str> = bodies[2]["heard"].as_str().unwrap().split(' ').collect();
    let whole: Vec<&str> = LONG.split_whitespace().collect();
    assert!(whole.starts_with(&told) && (2..20).contains(&told.len()), "heard: {told:?}");
}

/// What the caller met, in order.
fn assert_timeline(call: &CallReport) {
    let told: Vec<&str> = call
        .timeline
        .iter()
        .filter_map(|moment| match &moment.what {
            What::SaidStart => Some("speaks"),
            What::SaidEnd => Some("has spoken"),
            What::ReplyStart { latency: Some(_) } => Some("is answered"),
            What::ClearReceived { since_barge_in: Some(_), .. } => Some("clear"),
            What::ClearReceived { .. } => Some("a clear out of the blue"),
            What::MarkReturned(name) if name.ends_with(".end") => Some("has heard all"),
            What::HungUp => Some("hangs up"),
            _ => None,
        })
        .collect();
    // The `clear` comes while the caller speaks; all else has its place.
    let order = |clear: usize| {
        let mut order = vec!["speaks", "has spoken", "is answered", "has heard all"];
        order.extend(["speaks", "has spoken", "is answered", "speaks", "has spoken"]);
        order.extend(["is answered", "has heard all", "hangs up"]);
        order.insert(clear, "clear");
        order
    };
    assert!(told == order(8) || told == order(9), "{told:?}");
}

/// What the operator reads, in order.
fn assert_log(log: &[Value]) {
    let told: Vec<String> = log
        .iter()
        .filter(|line| line["call_sid"].is_string())
        .map(|line| match line["message"].as_str().unwrap() {
            "STATE" => format!("{} {}", line["to"].as_str().unwrap(), line["why"].as_str().unwrap()),
            "TURN" => format!("TURN {} {}", line["turn"], line["result"].as_str().unwrap()),
            name => name.to_owned(),
        })
        // Sentences of the long reply are given a voice while the one before is heard; pings have a
        // clock of their own.
        .filter(|name| name != "TTS_LEN_ms" && !name.starts_with("PNG_PONG"))
        .collect();
    let expected = [
        "WS_START",
        "THINKING end_of_utterance",
        "STT_FINAL",
        "SPEAKING first_frame",
        "TURN 1 answered",
        "MEDIA_TX",
        "LISTENING played",
        "THINKING end_of_utterance",
        "STT_FINAL",
        "SPEAKING first_frame",
        "BARGE_IN_HELD",
        "MEDIA_TX",
        "BARGE_IN",
        "TURN 2 interrupted",
        "LISTENING barge_in",
        "THINKING end_of_utterance",
        "STT_FINAL",
        "SPEAKING first_frame",
        "TURN 3 answered",
        "MEDIA_TX",
        "LISTENING played",
        "ENDED stopped",
        "WS_STOP",
    ];
    assert_eq!(told, expected);
}

#[test]
fn two_calls_at_once_do_not_mix() {
    let gateway = Bot::real().start();
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let script = [ask(HOURS), ask("yes that is correct")].concat();
            call(&gateway, script)
        });
        let second = scope.spawn(|| {
            let script = [ask("hello is anybody there"), ask("please cancel my second order")].concat();
            call(&gateway, script)
        });
        (first.join().unwrap(), second.join().unwrap())
    });
    assert_ne!(first.call_sid, second.call_sid);
    for (call, said, replies) in [
        (
            &first,
            [HOURS, "yes that is correct"],
            [&["We are open from nine to five."][..], &["Good.", "Then it is settled."]],
        ),
        (
            &second,
            ["hello is anybody there", "please cancel my second order"],
            [&["Yes, I am here."][..], &["Your second order is cancelled."]],
        ),
    ] {
        assert_sound(call);
        let asked = of_call(app().agent_log(), call);
        assert_eq!(asked.iter().map(|line| &line["body"]["text"]).collect::<Vec<_>>(), said);
        assert_eq!(asked.iter().map(|line| &line["body"]["turn"]).collect::<Vec<_>>(), [1, 2]);
        assert!(asked.iter().all(|line| line["body"]["stream_sid"] == *call.stream_sid));
        for (turn, sentences) in replies.iter().enumerate() {
            assert_alike(&reply(call, turn), &voice(sentences), said[turn]);
        }
    }
    assert_eq!(gateway.events("UPSTREAM_FAILED"), [Value::Null; 0]);
}
