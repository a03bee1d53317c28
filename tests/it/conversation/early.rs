//! Speech begins with the first sentence, whatever the rest of the answer takes; and an agent that takes
//! too long is bridged by a filler, and given up by an apology.

use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;
use voxgate::audio::{FRAME_BYTES, SILENCE};
use voxgate::cli::call::report::{Moment, What};
use voxgate::cli::call::{CallOptions, Step, run_call_watched};

use super::{PATIENCE, ask, assert_sound};
use crate::world::hearing::{assert_alike, heard, reply, sound};
use crate::world::{Bot, app, block_on, call, run, say, tts, until, voice};

const TEN: [&str; 10] = [
    "Number one.",
    "Number two.",
    "Number three.",
    "Number four.",
    "Number five.",
    "Number six.",
    "Number seven.",
    "Number eight.",
    "Number nine.",
    "Number ten.",
];

/// How many sentences Flask has written, or how many it has once it is let go on.
fn written(path: &str) -> usize {
    let answer = run("curl", &["-sf", &app().url(path)]);
    String::from_utf8_lossy(&answer.stdout).trim().parse().unwrap()
}

/// Which of the ten the voice has been asked for, in order.
fn spoken() -> Vec<usize> {
    let asked = tts().log();
    asked.iter().filter_map(|entry| TEN.iter().position(|text| entry["text"] == *text)).collect()
}

#[test]
fn of_ten_sentences_the_first_is_heard_before_the_second_is_written() {
    let mut bot = Bot::real();
    bot.agent = "upstream = \"app\"\npath = \"/agent/ten\"".into();
    // What is heard is to be known as it is heard: hardly anything is kept at the carrier.
    bot.lead_ms = 100;
    let gateway = bot.start();
    let (played, marks) = mpsc::channel();
    let call = std::thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let mut watch = |moment: &Moment| {
                if let What::MarkReturned(_) = moment.what {
                    played.send(()).unwrap();
                }
            };
            let options = CallOptions::new(gateway.media());
            // On a machine that is busy the other nine may be asked for late.
            let end = Step::WaitForReplyEnd { quiet: Duration::from_secs(5), timeout: PATIENCE * 2 };
            let script = vec![Step::Say(say("yes that is correct")), end];
            block_on(run_call_watched(options, script, &mut watch)).unwrap()
        });
        // The carrier has played the beginning, and then the whole, of the first sentence.
        let next_mark = || marks.recv_timeout(PATIENCE * 2).unwrap();
        next_mark();
        next_mark();
        assert_eq!(written("/agent/ten/written"), 1);
        assert_eq!(spoken(), [0]);
        // Flask writes the other nine. The voice has spoken them long before they have been heard.
        assert_eq!(written("/agent/ten/go"), 1);
        until("all to be spoken", || (spoken().len() == 10).then_some(()));
        let heard_meanwhile = marks.try_iter().count();
        assert!(heard_meanwhile < 5, "{heard_meanwhile} sentences had been heard");
        talk.join().unwrap()
    });
    assert_sound(&call);
    assert_eq!(spoken(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    // The pause before the second was Flask's: what comes behind it is the nine, in order, each in whole
    // frames.
    let heard = reply(&call, 0);
    let whole = |text: &&str| {
        let mut audio = voice(&[*text]);
        audio.resize(audio.len().next_multiple_of(FRAME_BYTES), SILENCE);
        audio
    };
    let nine: Vec<u8> = TEN[1..].iter().flat_map(whole).collect();
    let nine = sound(&nine);
    assert_alike(&heard[heard.len() - nine.len()..], nine, "the other nine");
    assert_eq!(gateway.events("UPSTREAM_FAILED"), [Value::Null; 0]);
}

#[test]
fn a_slow_agent_is_bridged_by_a_filler_and_given_up_by_an_apology() {
    let (filler, apology) = ("One moment please.", "That did not work.");
    let dialogue =
        format!("filler = {filler:?}\nfiller_after = \"1s\"\nreply_deadline = \"5s\"\napology = {apology:?}");
    let gateway = Bot { dialogue, lead_ms: 100, ..Bot::real() }.start();
    gateway.event("PHRASE_RENDERED", 1);
    let mut script = ask("i need help with my bill").to_vec();
    script.push(Step::Pause(Duration::from_secs(5)));
    let call = call(&gateway, script);
    assert_sound(&call);
    let said = call.turns[0].said_until.unwrap();
    let [first, second] = call.spurts[..] else { panic!("{:?}", call.spurts) };
    assert_alike(&heard(&call, first.start, first.end), &voice(&[filler]), "the filler");
    assert_alike(&heard(&call, second.start, second.end), &voice(&[apology]), "the apology");
    // Both are counted from the end of the caller's words, as it is heard: to three frames. Neither is
    // earlier, and a busy machine is late.
    for (spurt, due) in [(first, 1.0), (second, 5.0)] {
        let after = (spurt.start - said).as_secs_f64();
        assert!((due - 0.06..due + 1.5).contains(&after), "{after} s, not {due} s");
    }
    assert_eq!(gateway.event("UPSTREAM_FAILED", 0)["kind"], "timeout");
}
