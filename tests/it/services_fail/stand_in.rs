//! Who stands in for a service that fails, in whole calls: the caller hears an answer and no apology, and
//! the log and the metrics say what it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{bot, two_utterances};
use crate::world::hearing::assert_only;
use crate::world::{Bot, Fake, Gateway, MediaStream, Server, call, free_port, tone, until, voice};

const QUIET: &str = "apology = \"\"";

#[test]
fn the_caller_hears_no_more_than_another_voice() {
    let server = Server::start("misbehaving");
    let good = bot().tts;
    let tts = format!(
        "upstream = \"down\"\npath = \"/hang\"\nfallback_after = \"300ms\"\ncache_mib = 0\n\
         [[dialogue.tts.fallback]]\n{good}\n\
         [upstreams.down]\nservers = [\"127.0.0.1:{}\"]\nbreaker_failures = 1\nbreaker_cooldown = \"1h\"",
        server.port
    );
    let gateway = Gateway::start(&Bot { tts, dialogue: QUIET.into(), ..bot() }.config());
    let call = call(&gateway, two_utterances());
    let answer = voice(&["This is the answer."]);
    assert_only(&call.heard, &[&answer, &answer], "both answers, and no apology");
    assert!(gateway.events("UPSTREAM_FAILED").is_empty());
    let fallbacks = gateway.events("FALLBACK");
    assert_eq!(fallbacks.len(), 2);
    for (line, kind) in fallbacks.iter().zip(["timeout", "breaker_open"]) {
        assert_eq!(
            (&line["service"], &line["from"], &line["kind"]),
            (&"tts".into(), &"down".into(), &kind.into())
        );
        assert_eq!(
            (&line["call_sid"], line["to"] == "down"),
            (&call.call_sid.clone().into(), false),
            "{line}"
        );
        assert!(line["why"].as_str().unwrap().contains("the service: nothing of use within"), "{line}");
    }
    let opened = gateway.events("BREAKER_OPEN");
    assert_eq!(opened.len(), 1, "told of once");
    assert_eq!(opened[0]["upstream"], "down");
    // Nobody waited for it a second time.
    assert_eq!(server.log().iter().filter(|entry| entry["path"] == "/hang").count(), 1);
    assert_eq!(gateway.metric("voxgate_fallbacks_total{kind=\"tts\"}"), 2.0);
    assert_eq!(gateway.metric("voxgate_breaker_state{upstream=\"down\"}"), 2.0);
    assert_eq!(gateway.metric("voxgate_upstream_healthy{upstream=\"down\"}"), 0.0);
}

#[test]
fn a_health_check_brings_a_service_back() {
    let sick = Arc::new(AtomicBool::new(true));
    let is_sick = Arc::clone(&sick);
    let agent = Fake::start(move |_, asked, reply| {
        let status = if is_sick.load(Ordering::SeqCst) { 503 } else { 200 };
        assert!(matches!(&*asked.path, "/health" | "/agent"));
        reply.whole(status, "text/plain", b"This is the answer.");
    });
    let keys = format!(
        "upstream = \"mind\"\npath = \"/agent\"\n\
         [upstreams.mind]\nservers = [\"127.0.0.1:{}\"]\nbreaker_failures = 2\nbreaker_cooldown = \"1h\"\n\
         health_check = \"/health\"\nhealth_interval = \"100ms\"",
        agent.port
    );
    let gateway = Bot { agent: keys, ..bot() }.start();
    let state = || gateway.metric("voxgate_breaker_state{upstream=\"mind\"}");
    until("the breaker to open", || (state() == 2.0).then_some(()));
    call(&gateway, two_utterances());
    let failed = gateway.events("UPSTREAM_FAILED");
    assert_eq!(failed[0]["kind"], "breaker_open");
    assert!(
        failed[0]["why"].as_str().unwrap().contains("health_check /health answered 503"),
        "{}",
        failed[0]
    );
    assert!(agent.asked().iter().all(|asked| asked.path == "/health"), "no caller waited for it");
    sick.store(false, Ordering::SeqCst);
    until("the breaker to be half open", || (state() == 1.0).then_some(()));
    let call = call(&gateway, two_utterances());
    let answer = voice(&["This is the answer."]);
    assert_only(&call.heard, &[&answer, &answer], "it answers again");
    assert_eq!((gateway.events("BREAKER_OPEN").len(), gateway.events("BREAKER_CLOSED").len()), (1, 1));
    assert_eq!(state(), 0.0);
}

/// One after the other they would wait for the first voice to come back.
#[test]
fn every_phrase_is_there_in_another_voice_while_the_first_is_away() {
    let good = bot().tts;
    let tts = format!("url = \"http://127.0.0.1:{}/\"\n[[dialogue.tts.fallback]]\n{good}", free_port());
    let more = "[turn]\ngreeting = \"Hello.\"".to_owned();
    let dialogue = "apology = \"Sorry.\"\nfiller = \"One moment.\"".to_owned();
    let gateway = Gateway::start(&Bot { tts, dialogue, more, ..bot() }.config());
    let rendered = [0, 1, 2].map(|nth| gateway.event("PHRASE_RENDERED", nth));
    for (line, phrase) in rendered.iter().zip(["greeting", "apology", "filler"]) {
        assert_eq!((&line["phrase"], &line["first_voice"]), (&phrase.into(), &false.into()), "{line}");
    }
}

/// The cure of an open breaker is another service: the alert is to end with it.
#[test]
fn a_service_that_a_reload_has_replaced_is_neither_ill_nor_well() {
    let tts = format!(
        "upstream = \"voice\"\npath = \"/\"\n\
         [upstreams.voice]\nservers = [\"127.0.0.1:{}\"]\nbreaker_failures = 1",
        free_port()
    );
    let gateway = Gateway::start(&Bot { tts: tts.clone(), dialogue: QUIET.into(), ..bot() }.config());
    call(&gateway, two_utterances());
    let told =
        ["breaker_state", "upstream_healthy"].map(|name| format!("voxgate_{name}{{upstream=\"voice\"}}"));
    assert_eq!(told.each_ref().map(|series| gateway.metric(series)), [2.0, 0.0]);
    let config = gateway.config_file();
    let mended = std::fs::read_to_string(&config).unwrap().replace(&tts, &bot().tts);
    std::fs::write(&config, mended).unwrap();
    gateway.event("CONFIG_RELOADED", 0);
    assert!(told.iter().all(|series| gateway.metric(series).is_nan()), "no series is left");
}

/// It goes on with the services that it began with, for hours perhaps.
#[test]
fn a_call_of_before_a_reload_tells_nothing_of_services_that_are_gone() {
    let tts = format!(
        "upstream = \"voice\"\npath = \"/\"\n\
         [upstreams.voice]\nservers = [\"127.0.0.1:{}\"]\nbreaker_failures = 1\nhealth_interval = \"0s\"",
        free_port()
    );
    let gateway = Gateway::start(&Bot { tts: tts.clone(), dialogue: QUIET.into(), ..bot() }.config());
    let mut caller = MediaStream::start(&gateway);
    gateway.event("WS_START", 0);
    let state = || gateway.metric("voxgate_breaker_state{upstream=\"voice\"}");
    assert_eq!(state(), 0.0);
    let config = gateway.config_file();
    let mended = std::fs::read_to_string(&config).unwrap().replace(&tts, &bot().tts);
    std::fs::write(&config, mended).unwrap();
    gateway.event("CONFIG_RELOADED", 0);
    caller.say(&tone(400));
    gateway.event("UPSTREAM_FAILED", 0);
    assert_eq!(gateway.events("BREAKER_OPEN").len(), 1, "for the call it is open");
    assert!(state().is_nan(), "{}", state());
}

#[test]
fn what_was_said_before_is_not_asked_for_again() {
    let tts = Fake::start(|_, _, reply| reply.whole(200, "audio/basic", &tone(700)));
    let keys = format!("url = \"{}\"", tts.url("/"));
    let gateway = Gateway::start(&Bot { tts: keys, dialogue: QUIET.into(), ..bot() }.config());
    let call = call(&gateway, two_utterances());
    assert_only(&call.heard, &[&tone(700), &tone(700)], "the same twice");
    assert_eq!(tts.asked().len(), 1);
    assert_eq!(gateway.metric("voxgate_speech_cache_total{result=\"hit\"}"), 1.0);
    assert_eq!(gateway.metric("voxgate_speech_cache_total{result=\"miss\"}"), 1.0);
}
