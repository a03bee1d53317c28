//! Tests: who is asked when a service fails, in time, and what of an answer makes it too late for that;
//! and what is said again without asking anybody.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fake::{Fake, dialogue, failed, heard, hum, nowhere, openai_agent, spoken};
use super::tests::ids;
use super::{Notice, Services};
use crate::call::{FailureKind, Input, Question, Service};
use crate::config::{Agent, Dialogue, Endpoint, Mode, Stt, Tts};

/// A busy machine is quicker than this, and no test waits so long for anything else.
const LONG: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(80);

const OOPS: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno";
const HI: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nHi.";

fn sound(samples: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: audio/basic\r\nContent-Length: {samples}\r\n\r\n");
    [head.into_bytes(), hum(samples)].concat()
}

/// A service at this server, which is called `first`, and one at that, called `second`.
fn dialogue_of(first: &str, second: &str) -> Dialogue {
    let mut both = dialogue(&[first.to_owned()]);
    let mut other = dialogue(&[second.to_owned()]);
    for (dialogue, name) in [(&mut both, "first"), (&mut other, "second")] {
        let Mode::Dialogue {
            stt: Stt::Webhook { endpoint: stt, .. },
            agent: Agent::Webhook { endpoint: agent },
            tts: Tts::Webhook { endpoint: tts, .. },
        } = &mut dialogue.mode
        else {
            panic!()
        };
        [stt, agent, tts].into_iter().for_each(|endpoint| endpoint.upstream.name = name.to_owned());
    }
    let Mode::Dialogue { stt, agent, tts } = other.mode else { panic!() };
    let fallbacks = &mut both.fallbacks;
    (fallbacks.stt, fallbacks.agent, fallbacks.tts) = (vec![stt], vec![agent], vec![tts]);
    (fallbacks.stt_after, fallbacks.agent_after, fallbacks.tts_after) = (LONG, LONG, LONG);
    both
}

/// The services, and all that they tell.
fn services(dialogue: &Dialogue) -> (Services, Arc<Mutex<Vec<Notice>>>) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&told);
    let services = Services::new(dialogue, move |notice| kept.lock().unwrap().push(notice.clone()));
    (services.unwrap(), told)
}

/// What was told of, in a word each: how requests ended, by upstream, and who fell back.
fn words(told: &Mutex<Vec<Notice>>) -> Vec<String> {
    let told = std::mem::take(&mut *told.lock().unwrap());
    let word = |notice| match notice {
        Notice::Done(done) => Some(format!("{} {}", done.upstream, done.result)),
        Notice::FellBack { service } => Some(format!("{} falls back", service.as_str())),
        Notice::Cache { hit } => Some(if hit { "hit" } else { "miss" }.to_owned()),
        Notice::Health { .. } => None,
    };
    told.into_iter().filter_map(word).collect()
}

async fn transcribe(services: &Services) -> Vec<Input<'static>> {
    heard(|to| services.for_call(ids(), to).transcribe(7, vec![0xff; 160])).await
}

async fn say(services: &Services, text: &str) -> Vec<Input<'static>> {
    heard(|to| services.for_call(ids(), to).say(3, text.to_owned())).await
}

fn question(turn: u64, text: &str) -> Question {
    let text = text.to_owned();
    Question { turn, text, deadline_ms: 1, ..Question::default() }
}

async fn ask(services: &Services) -> Vec<Input<'static>> {
    heard(|to| services.for_call(ids(), to).ask(question(1, "hello"))).await
}

#[tokio::test]
async fn the_next_is_asked_at_once() {
    for refuses in [true, false] {
        let first = match refuses {
            true => nowhere(),
            false => Fake::answering(OOPS).await.server(),
        };
        let second = Fake::answering(HI).await;
        let (services, told) = services(&dialogue_of(&first, &second.server()));
        let heard = transcribe(&services).await;
        assert!(matches!(&*heard, [Input::Transcript { text, .. }] if text == "Hi."), "{heard:?}");
        let why = if refuses { "connect" } else { "http_5xx" };
        assert_eq!(
            words(&told),
            [format!("first {why}"), "stt falls back".to_owned(), "second ok".to_owned()]
        );
        let heard = ask(&services).await;
        assert!(
            matches!(&*heard, [Input::ReplyText { text, .. }, Input::ReplyEnd { .. }] if text == "Hi."),
            "{heard:?}"
        );
        assert_eq!(words(&told)[1], "agent falls back");
    }
    let (first, second) = (Fake::answering(OOPS).await, Fake::answering(sound(4000)).await);
    let (services, told) = services(&dialogue_of(&first.server(), &second.server()));
    assert_eq!(spoken(&say(&services, "Hello.").await), hum(4000));
    assert_eq!(words(&told), ["first http_5xx", "tts falls back", "second ok"]);
}

#[tokio::test]
async fn one_that_is_slow_is_not_waited_for() {
    // Hangs before and after the head, and with what is no sound yet.
    for begun in ["", "HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nRIFF"] {
        let first = Fake::serving(move |_, mut peer| async move {
            peer.request().await;
            peer.send(begun).await;
            peer.closed().await;
        })
        .await;
        let second = Fake::answering(sound(4000)).await;
        let mut dialogue = dialogue_of(&first.server(), &second.server());
        dialogue.fallbacks.tts_after = SOON;
        let (services, told) = services(&dialogue);
        let since = Instant::now();
        assert_eq!(spoken(&say(&services, "Hello.").await), hum(4000));
        assert!(since.elapsed() < LONG / 2);
        assert_eq!(words(&told), ["first timeout", "tts falls back", "second ok"]);
    }
}

#[tokio::test]
async fn what_has_been_heard_in_part_is_not_said_again() {
    // A busy machine has the first piece there by then.
    let waits = Duration::from_secs(3);
    let first = Fake::serving(move |_, mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: audio/basic\r\nContent-Length: 99999\r\n\r\n").await;
        peer.send(hum(4000)).await;
        // Longer than the other would have been waited for.
        tokio::time::sleep(waits + SOON).await;
        peer.send(hum(4000)).await;
    })
    .await;
    let mut second = Fake::answering(sound(4000)).await;
    let mut dialogue = dialogue_of(&first.server(), &second.server());
    dialogue.fallbacks.tts_after = waits;
    let (services, told) = services(&dialogue);
    let heard = say(&services, "Hello.").await;
    assert_eq!(failed(&heard).kind, FailureKind::Protocol);
    let pieces = heard.iter().filter_map(|input| match input {
        Input::Speech { audio, .. } => Some(audio.len()),
        _ => None,
    });
    assert!(pieces.sum::<usize>() > 4000, "what came after the limit too");
    assert_eq!((words(&told), second.more_requests()), (vec!["first protocol".to_owned()], 0));

    let first = Fake::serving(|_, mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: 999\r\n\r\n")
            .await;
        peer.send("{\"delta\":\"We are \"}\n").await;
    })
    .await;
    let (services, told) = self::services(&dialogue_of(&first.server(), &second.server()));
    let heard = ask(&services).await;
    assert!(matches!(&*heard, [Input::ReplyText { .. }, Input::Failed { .. }]), "{heard:?}");
    assert_eq!((words(&told), second.more_requests()), (vec!["first protocol".to_owned()], 0));
}

#[tokio::test]
async fn when_all_have_failed_the_last_is_told() {
    let (first, second) = (Fake::answering(OOPS).await, Fake::answering(HI).await);
    let (services, told) = services(&dialogue_of(&first.server(), &second.server()));
    let failure = failed(&say(&services, "Hello.").await);
    assert_eq!((&*failure.upstream, failure.kind), ("second", FailureKind::Protocol));
    assert_eq!(words(&told), ["first http_5xx", "tts falls back", "second protocol"]);
}

#[tokio::test]
async fn a_job_that_is_dropped_asks_nobody_else() {
    let mut first = Fake::serving(|_, mut peer| async move {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let mut second = Fake::answering(HI).await;
    let (services, told) = services(&dialogue_of(&first.server(), &second.server()));
    let (to, _inputs) = tokio::sync::mpsc::channel(1);
    let job = tokio::spawn(services.for_call(ids(), to).ask(question(1, "hello")));
    first.request().await;
    job.abort();
    assert!(job.await.unwrap_err().is_cancelled());
    assert_eq!((words(&told), second.more_requests()), (vec!["first cancelled".to_owned()], 0));
}

#[tokio::test]
async fn who_is_known_to_be_down_costs_no_time() {
    let first = Fake::serving(|_, mut peer| async move {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let second = Fake::answering(HI).await;
    let mut dialogue = dialogue_of(&first.server(), &second.server());
    dialogue.fallbacks.stt_after = SOON;
    if let Mode::Dialogue { stt: Stt::Webhook { endpoint, .. }, .. } = &mut dialogue.mode {
        endpoint.upstream.breaker.failures = std::num::NonZeroU32::new(1);
        endpoint.upstream.breaker.cooldown = LONG;
    }
    let (services, told) = services(&dialogue);
    transcribe(&services).await;
    assert_eq!(words(&told)[0], "first timeout");
    transcribe(&services).await;
    assert_eq!(words(&told), ["first breaker_open", "stt falls back", "second ok"]);
}

#[tokio::test]
async fn a_model_that_stands_in_knows_what_was_said() {
    let first = Fake::serving(|connection, mut peer| async move {
        while peer.try_request().await {
            peer.send(if connection == 0 { HI } else { OOPS }).await;
        }
    })
    .await;
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"Nine.\"},\"finish_reason\":\"stop\"}]}\n\n";
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n",
        chunk.len()
    );
    let mut second = Fake::answering(head + chunk).await;
    let mut dialogue = dialogue_of(&first.server(), &second.server());
    let endpoint = Endpoint { path: "/v1".to_owned(), ..dialogue.fallbacks.agent[0].endpoint().clone() };
    dialogue.fallbacks.agent = vec![openai_agent(endpoint)];
    // The first connection, which works, is not kept.
    if let Mode::Dialogue { agent: Agent::Webhook { endpoint }, .. } = &mut dialogue.mode {
        endpoint.upstream.idle_timeout = Duration::ZERO;
    }
    let (services, told) = services(&dialogue);
    let (to, mut inputs) = tokio::sync::mpsc::channel(9);
    let call = services.for_call(ids(), to);
    call.ask(question(1, "hello")).await;
    let text = "Hi.".to_owned();
    call.heard(crate::call::ReplyHeard { turn: 1, text, after: SOON, ..Default::default() });
    call.ask(question(2, "when do you open")).await;
    assert_eq!(words(&told), ["first ok", "first http_5xx", "agent falls back", "second ok"]);
    let body: Value = serde_json::from_slice(&second.request().await.body).unwrap();
    let said: Vec<_> =
        body["messages"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["hello", "Hi.", "when do you open"]);
    let mut texts = Vec::new();
    while let Ok(input) = inputs.try_recv() {
        if let Input::ReplyText { text, .. } = *input {
            texts.push(text);
        }
    }
    assert_eq!(texts, ["Hi.", "Nine."]);
}

#[tokio::test]
async fn a_phrase_is_rendered_in_another_voice_for_the_time_being() {
    let (first, second) = (Fake::answering(OOPS).await, Fake::answering(sound(4000)).await);
    let (services, _) = services(&dialogue_of(&first.server(), &second.server()));
    assert_eq!(services.render("Hello.", true).await.unwrap(), (hum(4000), false));
    assert_eq!(services.render("Hello.", false).await.unwrap_err().upstream, "first");
}

// ---- what was said before -------------------------------------------------------------------------

#[tokio::test]
async fn what_was_said_before_is_said_again_without_asking() {
    let mut voice = Fake::answering(sound(20_000)).await;
    let mut dialogue = dialogue_of(&voice.server(), &voice.server());
    dialogue.speech_cache = 1 << 20;
    let (services, told) = services(&dialogue);
    for _ in 0..3 {
        assert_eq!(spoken(&say(&services, "Hello.").await), hum(20_000));
    }
    assert_eq!(words(&told), ["miss", "first ok", "hit", "hit"]);
    assert_eq!(voice.more_requests(), 1);
    say(&services, "Hello!").await;
    assert_eq!(voice.more_requests(), 1, "in other words");
}

#[tokio::test]
async fn only_what_was_whole_and_loud_is_kept() {
    let silence = "HTTP/1.1 200 OK\r\nContent-Type: audio/basic\r\nContent-Length: 4000\r\n\r\n";
    let silence = [silence.as_bytes(), &[0xff; 4000]].concat();
    let mut broken = sound(8000);
    broken.truncate(4000);
    for answer in [silence, broken, OOPS.into(), sound(31 * 8000)] {
        let mut voice = Fake::serving(move |_, mut peer| {
            let answer = answer.clone();
            async move {
                peer.request().await;
                peer.send(answer).await;
            }
        })
        .await;
        let mut dialogue = dialogue_of(&voice.server(), "127.0.0.1:1");
        dialogue.fallbacks.tts.clear();
        dialogue.speech_cache = 1 << 20;
        let (services, told) = services(&dialogue);
        for _ in 0..2 {
            say(&services, "Hello.").await;
        }
        assert!(!words(&told).contains(&"hit".to_owned()));
        assert_eq!(voice.more_requests(), 2);
    }
}

#[tokio::test]
async fn a_voice_that_stands_in_is_not_taken_for_the_first() {
    let (first, second) = (Fake::answering(OOPS).await, Fake::answering(sound(4000)).await);
    let mut dialogue = dialogue_of(&first.server(), &second.server());
    dialogue.speech_cache = 1 << 20;
    let (services, told) = services(&dialogue);
    for _ in 0..2 {
        assert_eq!(spoken(&say(&services, "Hello.").await), hum(4000));
    }
    let (one, other) = (["miss", "first http_5xx", "tts falls back", "miss", "second ok"], "hit");
    assert_eq!(words(&told), [&one[..], &one[..3], &[other]].concat());
    assert_eq!(services.upstream(Service::Tts), "first");
}

#[tokio::test]
async fn the_cache_has_a_bound() {
    let mut voice = Fake::answering(sound(20_000)).await;
    let mut dialogue = dialogue_of(&voice.server(), &voice.server());
    dialogue.speech_cache = 100_000;
    let (services, told) = services(&dialogue);
    for number in 0..20 {
        say(&services, &format!("Number {number}.")).await;
    }
    words(&told);
    for number in 0..20 {
        say(&services, &format!("Number {number}.")).await;
    }
    let hits = words(&told).iter().filter(|word| *word == "hit").count();
    assert!(hits <= 4, "{hits} sentences of 20,000 bytes are in 100,000");
    assert!(voice.more_requests() >= 36);
}
