//! Services that fail now and then, and answers of which only a part can be had.

use voxgate::cli::call::Step;

use super::{PATIENCE, bot, two_utterances};
use crate::world::hearing::assert_only;
use crate::world::{Bot, Fake, Gateway, call, tone, voice};

const APOLOGY: &str = "Please say that again.";

#[test]
fn a_recogniser_that_fails_once_costs_one_turn() {
    let stt = Fake::start(|number, _, reply| match number {
        0 => reply.whole(503, "text/plain", b"warming up"),
        _ => reply.whole(200, "text/plain", b"hello"),
    });
    let gateway = Bot { stt: format!("url = \"{}\"", stt.url("/")), ..bot() }.start();
    let call = call(&gateway, two_utterances());
    let (apology, answer) = (voice(&[APOLOGY]), voice(&["This is the answer."]));
    assert_only(&call.heard, &[&apology, &answer], "an apology, then the answer");
    let [failed] = &gateway.events("UPSTREAM_FAILED")[..] else { panic!("once") };
    assert!(failed["why"].as_str().unwrap().ends_with("answered 503: warming up"), "{failed}");
    let results: Vec<_> = gateway.events("TURN").iter().map(|line| line["result"].clone()).collect();
    assert_eq!(results, ["failed", "answered"]);
}

#[test]
fn what_can_be_said_of_an_answer_is_said() {
    let agent = Fake::start(|number, _, reply| {
        let sentences = ["One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten"];
        let sentences = if number == 0 { &sentences[..] } else { &["Eleven"] };
        let text: Vec<String> = sentences.iter().map(|n| format!("Sentence {n}.")).collect();
        reply.whole(200, "text/plain", text.join(" ").as_bytes());
    });
    // Each sentence sounds different: its length is that of its request.
    let sound = |text: &str| tone(300 + 7 * text.len());
    let body = |text: &str| format!("\"text\":\"{text}\"");
    let tts = Fake::start(move |_, asked, reply| {
        let asked = String::from_utf8_lossy(&asked.body);
        let known = ["Sentence One.", "Sentence Two.", "Sentence Eleven.", APOLOGY];
        match known.into_iter().find(|text| asked.contains(&body(text))) {
            Some(text) => reply.whole(200, "audio/basic", &sound(text)),
            None => reply.whole(500, "text/plain", b"out of breath"),
        }
    });
    let keys = |fake: &Fake| format!("url = \"{}\"", fake.url("/"));
    let gateway = Bot { agent: keys(&agent), tts: keys(&tts), ..bot() }.start();
    let call = call(&gateway, two_utterances());
    let texts = ["Sentence One.", "Sentence Two.", APOLOGY, "Sentence Eleven."];
    let pieces = texts.map(sound);
    assert_only(&call.heard, &pieces.each_ref().map(|piece| &piece[..]), "two sentences, then the apology");
    assert!(!tts.asked().iter().any(|asked| String::from_utf8_lossy(&asked.body).contains("Four")));
    // The next turn is told what was heard.
    let told = String::from_utf8_lossy(&agent.asked()[1].body).into_owned();
    assert!(told.contains("\"heard\":\"Sentence One. Sentence Two. Please say that again.\""), "{told}");
}

#[test]
fn a_voice_that_breaks_off_in_mid_sentence_is_followed_by_the_apology() {
    let speech = tone(1_000);
    let half = speech.clone();
    let tts = Fake::start(move |_, asked, reply| {
        let asked = String::from_utf8_lossy(&asked.body);
        if asked.contains(APOLOGY) {
            return reply.whole(200, "audio/basic", &tone(640));
        }
        reply.head_of(200, "audio/basic", 16_000);
        reply.write(&half);
    });
    let gateway = Bot { tts: format!("url = \"{}\"", tts.url("/")), ..bot() }.start();
    let script = vec![Step::Say(tone(400)), Step::wait_for_reply_end(PATIENCE)];
    let call = call(&gateway, script);
    assert_only(&call.heard, &[&speech, &tone(640)], "half a sentence, then the apology");
    assert_eq!(gateway.events("UPSTREAM_FAILED").len(), 1);
}

#[test]
fn without_an_apology_a_failure_is_silence_and_the_call_goes_on() {
    let agent = Fake::start(|number, _, reply| match number {
        0 => reply.whole(500, "text/plain", b""),
        _ => reply.whole(200, "text/plain", b"This is the answer."),
    });
    let bot =
        Bot { agent: format!("url = \"{}\"", agent.url("/")), dialogue: "apology = \"\"".into(), ..bot() };
    let gateway = Gateway::start(&bot.config());
    let pause = Step::Pause(std::time::Duration::from_secs(3));
    let script = vec![Step::Say(tone(400)), pause, Step::Say(tone(400)), Step::wait_for_reply_end(PATIENCE)];
    let call = call(&gateway, script);
    assert_only(&call.heard, &[&voice(&["This is the answer."])], "only the answer");
    assert_eq!(call.turns[0].reply_at, None);
}
