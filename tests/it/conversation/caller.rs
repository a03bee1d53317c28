//! What the caller brings along reaches those that it is for, whole; and nobody else.

use std::time::Duration;

use voxgate::audio::{FRAME_BYTES, SILENCE, level};
use voxgate::cli::call::carrier::AUDIBLE_RMS;
use voxgate::cli::call::{CallOptions, Step};

use super::{PATIENCE, ask, assert_sound};
use crate::world::hearing::{MS, assert_alike, find, reply, sound};
use crate::world::{Bot, Fake, app, call, call_with, of_call, say, stt, voice};

#[test]
fn keys_and_parameters_reach_the_agent() {
    let gateway = Bot { more: "[turn]\ndtmf_timeout = \"500ms\"".into(), ..Bot::real() }.start();
    let parameters = [("tenant", "blue"), ("name", "Zoë \"Z\" O'Hara")];
    let parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let options = CallOptions { parameters, ..CallOptions::new(gateway.media()) };
    let keys = "4711#".chars().flat_map(|key| [Step::Dtmf(key), Step::Pause(Duration::from_millis(80))]);
    let mut script = ask("hello is anybody there").to_vec();
    script.extend(keys);
    script.push(Step::Pause(Duration::from_secs(4)));
    // Without a #, keys are complete after a pause; * is a key like any other.
    script.extend("12*".chars().map(Step::Dtmf));
    script.push(Step::Pause(Duration::from_secs(4)));
    let call = call_with(options, script);
    assert_sound(&call);
    let asked = of_call(app().agent_log(), &call);
    let [spoken, keyed, paused] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(spoken["body"]["text"], "hello is anybody there");
    assert!(spoken["body"].get("dtmf").is_none());
    assert_eq!((&keyed["body"]["dtmf"], &keyed["body"]["text"]), (&"4711".into(), &"4711".into()));
    assert_eq!(paused["body"]["dtmf"], "12*");
    for (number, line) in (1..).zip(&asked) {
        let parameters = &line["body"]["parameters"];
        assert_eq!(
            (&parameters["tenant"], &parameters["name"]),
            (&"blue".into(), &"Zoë \"Z\" O'Hara".into())
        );
        assert_eq!(line["idempotency_key"], format!("{}/{number}", call.call_sid));
        assert_eq!((&line["body"]["turn"], &line["repeat"]), (&number.into(), &false.into()));
        let deadline = line["body"]["deadline_ms"].as_u64().unwrap();
        assert!((3_000..=6_000).contains(&deadline), "{deadline}");
    }
    let after = sound(&call.heard[call.heard.len() / 2..]);
    assert!(!after.is_empty(), "keys are answered too");
}

#[test]
fn a_recogniser_that_wants_raw_mulaw_gets_it() {
    let bot = Bot { stt: format!("url = \"{}\"\nformat = \"mulaw\"", stt().url("/stt")), ..Bot::real() };
    let gateway = bot.start();
    let call = call(&gateway, ask("hello is anybody there").to_vec());
    assert_sound(&call);
    let heard = of_call(stt().log(), &call);
    assert_eq!(
        (&heard[0]["content_type"], &heard[0]["text"]),
        (&"audio/basic".into(), &"hello is anybody there".into())
    );
    assert_alike(&reply(&call, 0), &voice(&["Yes, I am here."]), "the answer");
}

#[test]
fn not_a_sound_of_an_utterance_is_lost() {
    std::thread::scope(|scope| {
        scope.spawn(|| assert_whole("mulaw", one_zero));
        scope.spawn(|| assert_whole("wav", from_wav));
    });
}

/// A recogniser that wants this format gets every sample of an utterance, and some of what was before.
fn assert_whole(format: &str, decoded: fn(&[u8]) -> Vec<u8>) {
    let recogniser = Fake::stt("hello is anybody there");
    let stt = format!("url = \"{}\"\nformat = \"{format}\"", recogniser.url("/stt?model=small"));
    let gateway = Bot { stt, ..Bot::real() }.start();
    // The line is quiet for a while, so that there is something to roll back to.
    let utterance = say("hello is anybody there");
    let script = [vec![Step::Pause(Duration::from_secs(1))], ask("hello is anybody there").to_vec()];
    assert_sound(&call(&gateway, script.concat()));
    let asked = recogniser.asked().pop().unwrap();
    assert_eq!(asked.path, "/stt?model=small");
    let got = decoded(&asked.body);
    let voiced = one_zero(sound(&utterance));
    let at = find(&got, &voiced).expect("the whole utterance, sample for sample");
    let first = got.chunks(FRAME_BYTES).position(|frame| level::rms(frame) > AUDIBLE_RMS).unwrap();
    assert!(first * FRAME_BYTES >= 150 * MS, "{} ms before the first sound", first * 20);
    assert!((150 * MS..600 * MS).contains(&at), "{} ms before the utterance", at / MS);
    let behind = got.len() - at - voiced.len();
    assert!(behind <= 700 * MS, "{} ms of silence behind the utterance", behind / MS);
}

/// μ-law has two zeros, which are one in PCM.
fn one_zero(audio: &[u8]) -> Vec<u8> {
    audio.iter().map(|byte| if *byte == 0x7f { SILENCE } else { *byte }).collect()
}

/// The samples of an 8 kHz, 16-bit WAV, as μ-law again.
fn from_wav(wav: &[u8]) -> Vec<u8> {
    assert_eq!((&wav[..4], &wav[36..40]), (&b"RIFF"[..], &b"data"[..]));
    let samples = wav[44..].as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair));
    samples.map(voxgate::audio::mulaw::encode).collect()
}

#[test]
fn noise_that_says_nothing_is_not_answered() {
    let gateway = Bot { tones: true, ..Bot::real() }.start();
    let script = [
        vec![Step::Say(crate::world::tone(600)), Step::Pause(Duration::from_secs(3))],
        ask("hello is anybody there").to_vec(),
        vec![Step::WaitForSilence { quiet: Duration::from_millis(500), timeout: PATIENCE }],
    ];
    let call = call(&gateway, script.concat());
    assert_eq!(call.turns[0].reply_at, None);
    let asked = of_call(app().agent_log(), &call);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_alike(&reply(&call, 1), &voice(&["Yes, I am here."]), "the answer");
    assert_eq!(gateway.events("STT_FINAL")[0]["chars"], 0);
}
