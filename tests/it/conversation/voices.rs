//! Whatever a voice service returns, the caller hears the same speech.

use super::{ask, assert_sound};
use crate::world::hearing::{assert_alike, find, reply, sound};
use crate::world::{Bot, Fake, call, tts, voice};

/// Formats of tts_server, and ways to send them.
const QUERIES: [&str; 13] = [
    "",
    "?format=wav22",
    "?format=wav16",
    "?format=wav8",
    "?format=wav44stereo",
    "?format=wavmulaw",
    "?format=mulaw",
    "?format=pcm16",
    "?format=pcm16&rate=8000",
    "?format=pcm16&rate=24000",
    "?format=wav22&chunk=333&pace_ms=1",
    "?format=pcm16&rate=24000&chunk=1001",
    "?format=mulaw&chunk=77&pace_ms=1",
];

#[test]
fn every_format_comes_out_as_the_same_speech() {
    let stt = Fake::stt("what are your opening hours tomorrow");
    let expected = voice(&["We are open from nine to five."]);
    let heard_with = |query: &str| {
        let bot = Bot {
            stt: format!("url = \"{}\"", stt.url("/")),
            tts: format!("url = \"{}\"", tts().url(&format!("/tts{query}"))),
            ..Bot::real()
        };
        let gateway = bot.start();
        let call = call(&gateway, ask("yes that is correct").to_vec());
        assert_sound(&call);
        assert_eq!(gateway.noise(), [""; 0]);
        let ms = gateway.events("TTS_LEN_ms")[0]["ms"].as_u64().unwrap();
        let ought = expected.len() as u64 / 8;
        assert!(ms.abs_diff(ought) <= 20, "{query}: {ms} ms of {ought} ms");
        (reply(&call, 0), call.heard)
    };
    std::thread::scope(|scope| {
        let calls = QUERIES.map(|query| (query, scope.spawn(move || heard_with(query))));
        for (query, call) in calls {
            let (reply, whole) = call.join().unwrap();
            assert_alike(&reply, &expected, query);
            if query.contains("mulaw") {
                // What is μ-law already passes untouched.
                assert!(find(&whole, sound(&expected)).is_some(), "{query}: not the same samples");
            }
        }
    });
}

#[test]
fn another_sentence_is_not_taken_for_the_same() {
    let one = voice(&["We are open from nine to five."]);
    let other = voice(&["Your second order is cancelled."]);
    let alike = crate::world::hearing::likeness(sound(&one), sound(&other));
    assert!(alike < 0.7, "the comparison of these tests is blind: {alike:.2}");
}
