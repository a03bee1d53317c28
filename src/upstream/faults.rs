//! Tests: what a service can do wrong with a connection, and what it costs. Each fault is shown on
//! the job where it is plainest; the wire is the same for all three.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::fake::{Fake, dialogue, failed, heard, nowhere};
use super::tests::ids;
use super::{Observation, Services};
use crate::call::{Failure, FailureKind, Input, Service};
use crate::config::{Mode, Secret, Stt, Upstream};

const SOON: Duration = Duration::from_millis(80);

/// `SOON` on a busy machine, and well below the time-outs that no test waits for.
const STILL_SOON: Duration = Duration::from_secs(4);

/// A whole transcript, over a connection that is kept.
const TEXT: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi";

async fn transcribe(services: Services) -> Vec<Input<'static>> {
    heard(|to| services.for_call(ids(), to).transcribe(7, vec![0xff; 160])).await
}

#[track_caller]
fn check_understood(inputs: &[Input<'static>]) {
    assert!(matches!(inputs, [Input::Transcript { text, .. }] if text == "hi"), "{inputs:?}");
}

/// The failure of a transcription by this server, whose address is left out of the sentence.
async fn failure(fake: &mut Fake, change: impl Fn(&mut Upstream)) -> (FailureKind, String) {
    let services = fake.services_with(change);
    let since = Instant::now();
    let Failure { upstream, kind, why } = failed(&transcribe(services).await);
    assert!(since.elapsed() < STILL_SOON, "{:?}", since.elapsed());
    assert_eq!(upstream, "bot");
    let observation = fake.observation().await;
    assert_eq!((observation.service, observation.result), (Service::Stt, kind.as_str()));
    (kind, why.replace(&fake.server(), "BOT"))
}

#[tokio::test]
async fn an_address_that_refuses_is_given_to_nobody_else() {
    assert!(tokio::net::TcpListener::bind(nowhere()).await.is_err());
}

#[tokio::test]
async fn a_service_that_never_answers() {
    let mut fake = Fake::serving(|_, mut peer| async move {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let failure = failure(&mut fake, |upstream| upstream.first_byte_timeout = SOON).await;
    let why = "the service: POST http://BOT/stt: no answer within 80 ms".to_owned();
    assert_eq!(failure, (FailureKind::Timeout, why));
    assert_eq!(fake.more_requests(), 1, "it may be at work on it: not asked again");
}

#[tokio::test]
async fn a_service_that_falls_silent() {
    for (body, came) in [("", "no body"), ("h", "1 byte"), ("hel", "3 bytes")] {
        let mut fake = Fake::serving(move |_, mut peer| async move {
            peer.request().await;
            peer.send(TEXT.replace(": 2", ": 9").replace("hi", body)).await;
            peer.closed().await;
        })
        .await;
        let failure = failure(&mut fake, |upstream| upstream.stall_timeout = SOON).await;
        let why = format!(
            "the service: POST http://BOT/stt answered 200 with {came}, then nothing more within 80 ms"
        );
        assert_eq!(fake.more_requests(), 1, "an answer that was begun is not asked for again");
        assert_eq!(failure, (FailureKind::Timeout, why));
    }
}

#[tokio::test]
async fn a_service_that_answers_with_an_error() {
    for (status, body, kind, owner, why) in [
        (
            "500 Oops",
            "<h1>Internal\r\n Error</h1>",
            FailureKind::Http5xx,
            "the service failed",
            "500: <h1>Internal Error</h1>",
        ),
        ("503 Full", "", FailureKind::Http5xx, "the service failed", "503: (no body)"),
        ("404 Not Found", "no such route", FailureKind::Http4xx, "your config: url", "404: no such route"),
        (
            "401 Who",
            "{\"error\": \"key\"}",
            FailureKind::Http4xx,
            "your config: headers",
            "401: {\"error\": \"key\"}",
        ),
        ("429 Slow", "", FailureKind::Http4xx, "the service refused", "429: (no body)"),
        (
            "302 Found\r\nLocation: /login",
            "",
            FailureKind::Protocol,
            "the service",
            "302 with a redirect to /login, which is not followed",
        ),
        (
            "200 OK\r\nContent-Encoding: gzip",
            "x",
            FailureKind::Protocol,
            "the service",
            "200 with a compressed body (gzip)",
        ),
    ] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let mut fake = Fake::answering(answer).await;
        let expected = (kind, format!("{owner}: POST http://BOT/stt answered {why}"));
        assert_eq!(failure(&mut fake, |_| {}).await, expected);
        assert_eq!(fake.request().await.connection, 0);
        assert_eq!(fake.more_requests(), 0, "an answer is an answer: not asked again");
    }
}

#[tokio::test]
async fn an_error_is_told_of_even_if_its_body_never_ends() {
    let mut fake = Fake::serving(|_, mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 500 Oops\r\nContent-Length: 9999\r\n\r\nTraceback").await;
        peer.closed().await;
    })
    .await;
    let failure = failure(&mut fake, |upstream| upstream.stall_timeout = SOON).await;
    let why = "the service failed: POST http://BOT/stt answered 500: Traceback".to_owned();
    assert_eq!(failure, (FailureKind::Http5xx, why));
}

#[tokio::test]
async fn a_service_that_is_not_there() {
    let server = nowhere();
    let services = Services::new(&dialogue(std::slice::from_ref(&server)), |_| {}).unwrap();
    let failure = failed(&transcribe(services).await);
    assert_eq!(failure.kind, FailureKind::Connect);
    assert_eq!(
        failure.why,
        format!("the service: POST http://{server}/stt: connection refused: is it running?")
    );
}

#[tokio::test]
async fn a_service_whose_name_means_nothing() {
    let services = Services::new(&dialogue(&["bot.invalid:80".to_owned()]), |_| {}).unwrap();
    let failure = failed(&transcribe(services).await);
    assert_eq!(failure.kind, FailureKind::Connect);
    assert!(failure.why.contains("the name of the server could not be resolved"), "{}", failure.why);
}

#[tokio::test]
async fn the_next_server_is_tried_once() {
    let fake = Fake::answering(TEXT).await;
    let servers = [nowhere(), fake.server()];
    let services = Services::new(&dialogue(&servers), |_| {}).unwrap();
    for _ in 0..4 {
        check_understood(&transcribe(services.clone()).await);
    }
    let servers = [nowhere(), nowhere(), fake.server()];
    let services = Services::new(&dialogue(&servers), |_| {}).unwrap();
    let failure = failed(&transcribe(services).await);
    let why = format!("the service: POST http://{}/stt: connection refused: is it running?", servers[1]);
    assert_eq!(failure.why, why);
}

#[tokio::test]
async fn servers_take_turns() {
    let (mut one, mut two) = (Fake::answering(TEXT).await, Fake::answering(TEXT).await);
    let services = Services::new(&dialogue(&[one.server(), two.server()]), |_| {}).unwrap();
    for _ in 0..6 {
        check_understood(&transcribe(services.clone()).await);
    }
    assert_eq!((one.more_requests(), two.more_requests()), (3, 3));
}

#[tokio::test]
async fn a_service_that_breaks_off() {
    for reset in [false, true] {
        let mut fake = Fake::serving(move |_, mut peer| async move {
            peer.request().await;
            peer.send(TEXT.replace(": 2", ": 9")).await;
            if reset {
                peer.reset();
            }
        })
        .await;
        let (kind, why) = failure(&mut fake, |_| {}).await;
        assert_eq!(kind, FailureKind::Protocol);
        assert!(reset || fake.more_requests() == 1, "an answer that was begun is not asked for again");
        // A reset may overtake the two bytes, and even the head.
        assert!(why.contains(" and broke off: ") || reset && why.contains("no HTTP answer"), "{why}");
    }
}

#[tokio::test]
async fn a_service_that_speaks_something_else() {
    let mut fake = Fake::serving(|_, mut peer| async move {
        peer.request().await;
        peer.send("SSH-2.0-OpenSSH_9.2\r\n").await;
        peer.closed().await;
    })
    .await;
    let (kind, why) = failure(&mut fake, |_| {}).await;
    assert_eq!(kind, FailureKind::Protocol);
    assert!(
        why.starts_with("the service: POST http://BOT/stt: no HTTP answer, though asked twice: "),
        "{why}"
    );
    assert_eq!(fake.more_requests(), 2);
}

#[tokio::test]
async fn connections_are_kept() {
    let mut fake = Fake::answering(TEXT).await;
    let services = fake.services();
    for _ in 0..3 {
        check_understood(&transcribe(services.clone()).await);
        assert_eq!(fake.request().await.connection, 0);
    }
}

#[tokio::test]
async fn connections_are_not_kept_for_longer_than_allowed() {
    let mut fake = Fake::answering(TEXT).await;
    let services = fake.services_with(|upstream| upstream.idle_timeout = Duration::ZERO);
    for connection in 0..3 {
        check_understood(&transcribe(services.clone()).await);
        assert_eq!(fake.request().await.connection, connection);
    }
}

#[tokio::test]
async fn a_stale_connection_costs_nothing() {
    for reset in [false, true] {
        // The first two connections die at their second request; both are in the pool by then.
        let together = Arc::new(tokio::sync::Barrier::new(2));
        let mut fake = Fake::serving(move |connection, mut peer| {
            let together = Arc::clone(&together);
            async move {
                peer.request().await;
                if connection < 2 {
                    together.wait().await;
                    peer.send(TEXT).await;
                    peer.try_request().await;
                    if reset {
                        peer.reset();
                    }
                } else {
                    peer.send(TEXT).await;
                    peer.closed().await;
                }
            }
        })
        .await;
        let services = fake.services();
        let (one, two) = tokio::join!(transcribe(services.clone()), transcribe(services.clone()));
        check_understood(&one);
        check_understood(&two);
        check_understood(&transcribe(services).await);
        for _ in 0..2 {
            assert!(fake.request().await.connection < 2);
        }
        assert!(fake.request().await.connection < 2, "the stale connection was tried");
        assert_eq!(fake.request().await.connection, 2, "and then a fresh one");
        assert_eq!(fake.more_requests(), 0);
    }
}

#[tokio::test]
async fn a_request_that_kills_the_service_is_not_sent_a_third_time() {
    let mut fake = Fake::serving(|_, mut peer| async move { peer.request().await }).await;
    let (kind, why) = failure(&mut fake, |_| {}).await;
    assert_eq!(kind, FailureKind::Protocol);
    assert!(why.contains("no HTTP answer, though asked twice: connection closed"), "{why}");
    assert_eq!(fake.more_requests(), 2);
}

#[tokio::test]
async fn all_slots_taken() {
    let mut fake = Fake::serving(|connection, mut peer| async move {
        peer.request().await;
        if connection == 0 {
            // Under way until its body ends, not only until its head.
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n").await;
            peer.closed().await;
        }
        peer.send(TEXT).await;
    })
    .await;
    let services = fake.services_with(|upstream| {
        upstream.max_in_flight = 1;
        upstream.connect_timeout = SOON;
    });
    let (to, _inputs) = mpsc::channel(1);
    let first = tokio::spawn(services.for_call(ids(), to).transcribe(1, Vec::new()));
    assert_eq!(fake.request().await.connection, 0);
    let since = Instant::now();
    let failure = failed(&transcribe(services.clone()).await);
    assert!(since.elapsed() < STILL_SOON, "{:?}", since.elapsed());
    assert_eq!(failure.kind, FailureKind::Busy);
    assert_eq!(
        failure.why,
        "your config: max_in_flight: all 1 requests that max_in_flight allows are under way; none ended within 80 ms"
    );
    assert_eq!(fake.observation().await.result, "busy");
    // A dropped job gives its slot back.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    check_understood(&transcribe(services).await);
}

/// A service that sends this and then waits; notified once its client has closed the connection.
async fn waiting(answer: &'static str) -> (Fake, Arc<Notify>) {
    let closed = Arc::new(Notify::new());
    let told = Arc::clone(&closed);
    let fake = Fake::serving(move |_, mut peer| {
        let told = Arc::clone(&told);
        async move {
            peer.request().await;
            peer.send(answer).await;
            peer.closed().await;
            told.notify_one();
        }
    })
    .await;
    (fake, closed)
}

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: {\"delta\":\"Hi\"}\n\n";

fn question() -> crate::call::Question {
    crate::call::Question {
        turn: 1,
        text: "hi".to_owned(),
        dtmf: None,
        interrupted: false,
        heard: String::new(),
        action_failed: None,
        deadline_ms: 1,
    }
}

#[tokio::test]
async fn cancelling_closes_the_connection() {
    for answer in ["", EVENTS] {
        let (mut fake, closed) = waiting(answer).await;
        let (to, mut inputs) = mpsc::channel(1);
        let job = tokio::spawn(fake.services().for_call(ids(), to).ask(question()));
        fake.request().await;
        if !answer.is_empty() {
            assert!(matches!(inputs.recv().await.as_deref(), Some(Input::ReplyText { .. })));
        }
        job.abort();
        closed.notified().await;
        let Observation { result, seconds_to_first_byte, .. } = fake.observation().await;
        assert_eq!((result, seconds_to_first_byte.is_some()), ("cancelled", !answer.is_empty()));
    }
}

#[tokio::test]
async fn a_job_that_nobody_hears_ends_silently() {
    let (mut fake, closed) = waiting(EVENTS).await;
    let (to, inputs) = mpsc::channel(1);
    drop(inputs);
    fake.services().for_call(ids(), to).ask(question()).await;
    closed.notified().await;
    assert_eq!(fake.observation().await.result, "cancelled");
}

#[tokio::test]
async fn a_full_channel_stops_the_service() {
    const MUCH: usize = 256 << 20;
    let (blocked, mut sent) = mpsc::channel(1);
    let mut fake = Fake::serving(move |_, mut peer| {
        let blocked = blocked.clone();
        async move {
            peer.request().await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: audio/basic\r\n\r\n").await;
            let mut sent = 0;
            let piece = [0x7f; 1 << 16];
            while sent < MUCH
                && let Ok(true) = tokio::time::timeout(4 * SOON, peer.try_send(&piece)).await
            {
                sent += piece.len();
            }
            blocked.send(sent).await.unwrap();
        }
    })
    .await;
    let (to, _full) = mpsc::channel(1);
    let job = tokio::spawn(fake.services().for_call(ids(), to).say(1, "hi".to_owned()));
    let sent = sent.recv().await.unwrap();
    assert!(sent < MUCH / 4, "{sent} bytes were taken that nobody heard");
    job.abort();
}

#[tokio::test]
async fn what_is_told_of_a_request_that_went_well() {
    let mut fake = Fake::answering(TEXT).await;
    check_understood(&transcribe(fake.services()).await);
    let Observation { upstream, service, result, seconds_to_first_byte } = fake.observation().await;
    assert_eq!((&*upstream, service, result), ("bot", Service::Stt, "ok"));
    assert!(seconds_to_first_byte.is_some_and(|s| (0.0..20.0).contains(&s)));
}

#[tokio::test]
async fn without_a_dialogue_there_are_no_services() {
    let mut echo = dialogue(&[]);
    echo.mode = Mode::Echo;
    let services = Services::new(&echo, |_| {}).unwrap();
    let failure = failed(&transcribe(services).await);
    assert_eq!(failure.why, "[dialogue] mode = \"echo\" has no stt service");
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_at_start() {
    let with = |change: &dyn Fn(&mut crate::config::Endpoint)| {
        let mut dialogue = dialogue(&["127.0.0.1:1".to_owned()]);
        if let Mode::Dialogue { stt: Stt::Webhook { endpoint, .. }, .. } = &mut dialogue.mode {
            change(endpoint);
        }
        Services::new(&dialogue, |_| {}).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(with(&|e| e.upstream.servers.clear()), "upstream bot: no servers");
    assert_eq!(
        with(&|e| e.path = "stt".to_owned()),
        "upstream bot: the path of http://127.0.0.1:1stt must begin with a slash"
    );
    assert!(with(&|e| e.upstream.servers[0] = "a b".to_owned()).contains("http://a b/stt is no address"));
    assert_eq!(
        with(&|e| e.headers[0].0 = "a b".to_owned()),
        "upstream bot: \"a b\" cannot be the name of a header"
    );
    assert_eq!(
        with(&|e| e.headers[0].1 = Secret("hush\n".to_owned())),
        "upstream bot: the value of header Authorization cannot be sent"
    );
}
