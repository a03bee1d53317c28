//! Tests: what a breaker does to requests over real sockets, and what a probe does to a breaker.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::super::fake::{Fake, dialogue, failed, heard, nowhere};
use super::super::tests::ids;
use super::super::{Services, observed::Notice};
use super::*;
use crate::call::Input;
use crate::config::{BreakerLimits, HealthCheck, Mode, Stt};

const TEXT: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi";
const ERROR: &str = "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nno";
const LONG: Duration = Duration::from_secs(600);

/// A recogniser at these servers, whose breakers open at the second failure, and what is told of it.
fn services(
    servers: &[String],
    cooldown: Duration,
    check: Option<&str>,
) -> (Services, UnboundedReceiver<Notice>) {
    let mut dialogue = dialogue(servers);
    let Mode::Dialogue { stt: Stt::Webhook { endpoint, .. }, .. } = &mut dialogue.mode else { panic!() };
    endpoint.upstream.name = "ears".to_owned();
    endpoint.upstream.breaker = BreakerLimits { failures: NonZeroU32::new(2), cooldown };
    let interval = Duration::from_millis(if check.is_some() { 20 } else { 0 });
    endpoint.upstream.health = HealthCheck { path: check.map(str::to_owned), interval };
    let (tx, told) = unbounded_channel();
    let services = Services::new(&dialogue, move |notice| {
        let _ = tx.send(notice.clone());
    });
    (services.unwrap(), told)
}

async fn transcribe(services: &Services) -> Vec<Input<'static>> {
    heard(|to| services.for_call(ids(), to).transcribe(7, vec![0xff; 160])).await
}

/// The next state that is told of `ears`.
async fn state(told: &mut UnboundedReceiver<Notice>) -> (i64, f64) {
    loop {
        let notice = timeout(Duration::from_secs(20), told.recv()).await.expect("a state").unwrap();
        if let Notice::Health { upstream, breaker_state, healthy } = notice
            && upstream == "ears"
        {
            return (breaker_state, healthy);
        }
    }
}

#[tokio::test]
async fn who_fails_too_often_is_not_asked() {
    let mut fake = Fake::answering(ERROR).await;
    let (services, mut told) = services(&[fake.server()], LONG, None);
    for _ in 0..2 {
        assert_eq!(failed(&transcribe(&services).await).kind, FailureKind::Http5xx);
    }
    assert_eq!(state(&mut told).await, (2, 0.0));
    let failure = failed(&transcribe(&services).await);
    assert_eq!((failure.kind, &*failure.upstream), (FailureKind::BreakerOpen, "ears"));
    let why = failure.why.replace(&fake.server(), "EARS");
    assert_eq!(
        why,
        "EARS was not asked: its breaker opened 0 s ago; 2 failures in a row, the last: \
         the service failed: POST http://EARS/stt answered 500: no"
    );
    assert_eq!(fake.more_requests(), 2);
}

/// A call may outlive the configuration that it began with by hours.
#[tokio::test]
async fn services_that_are_replaced_do_not_tell_how_their_servers_are() {
    let fake = Fake::answering(ERROR).await;
    let (services, mut told) = services(&[fake.server()], LONG, None);
    assert_eq!(failed(&transcribe(&services).await).kind, FailureKind::Http5xx);
    let call = services.clone();
    services.retire();
    assert_eq!(failed(&transcribe(&call).await).kind, FailureKind::Http5xx);
    assert_eq!(failed(&transcribe(&call).await).kind, FailureKind::BreakerOpen, "for the call it is open");
    let mut requests = 0;
    while let Ok(notice) = told.try_recv() {
        assert!(!matches!(notice, Notice::Health { .. }), "{notice:?}");
        requests += usize::from(matches!(notice, Notice::Done(_)));
    }
    assert_eq!(requests, 3, "what became of them is told all the same");
}

#[tokio::test]
async fn a_refusal_of_our_request_is_no_failure_of_the_server() {
    let mut fake = Fake::answering("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n").await;
    let (services, _told) = services(&[fake.server()], LONG, None);
    for _ in 0..5 {
        assert_eq!(failed(&transcribe(&services).await).kind, FailureKind::Http4xx);
    }
    assert_eq!(fake.more_requests(), 5);
}

#[tokio::test]
async fn a_server_that_fails_is_left_out_while_another_works() {
    let (mut bad, mut good) = (Fake::answering(ERROR).await, Fake::answering(TEXT).await);
    let servers = [bad.server(), good.server(), nowhere()];
    let (services, mut told) = services(&servers, LONG, None);
    let mut failures = 0;
    for _ in 0..12 {
        failures += usize::from(matches!(&*transcribe(&services).await, [Input::Failed { .. }]));
    }
    assert_eq!((failures, bad.more_requests()), (2, 2), "a connection that cannot be had costs nobody");
    assert_eq!(good.more_requests(), 10);
    assert_eq!(state(&mut told).await, (0, 2.0 / 3.0));
    assert_eq!(state(&mut told).await, (0, 1.0 / 3.0));
}

#[tokio::test]
async fn after_the_cool_down_a_request_finds_out() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let fake = Fake::serving(move |_, mut peer| {
        let is_broken = Arc::clone(&is_broken);
        async move {
            while peer.try_request().await {
                peer.send(if is_broken.load(Ordering::SeqCst) { ERROR } else { TEXT }).await;
            }
        }
    })
    .await;
    let (services, mut told) = services(&[fake.server()], Duration::from_millis(1), None);
    for _ in 0..2 {
        transcribe(&services).await;
    }
    assert_eq!(state(&mut told).await, (2, 0.0));
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(failed(&transcribe(&services).await).kind, FailureKind::Http5xx, "asked again");
    broken.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(matches!(&*transcribe(&services).await, [Input::Transcript { .. }]));
    while state(&mut told).await != (0, 1.0) {}
}

#[tokio::test]
async fn a_request_that_was_waited_for_in_vain_counts() {
    let fake = Fake::serving(|_, mut peer| async move {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let tell: Tell = Arc::new(|_| {});
    let mut upstream = Upstream::new("ears", vec![fake.server()]);
    upstream.breaker.failures = NonZeroU32::new(1);
    for (patience, opens) in [(LONG, false), (Duration::ZERO, true)] {
        let health = Health::new(&upstream, &tell);
        let mut watch =
            super::super::observed::Watch::new(&tell, "ears", crate::call::Service::Stt, patience);
        watch.asks(health.turn().unwrap());
        drop(watch);
        assert_eq!(health.turn().is_err(), opens);
    }
}

#[tokio::test]
async fn a_health_check_opens_and_closes_the_way() {
    let sick = Arc::new(AtomicBool::new(true));
    let is_sick = Arc::clone(&sick);
    // Well enough for requests, says the check or not.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let is_sick = Arc::clone(&is_sick);
            tokio::spawn(async move {
                let mut head = vec![0; 8192];
                let read = stream.read(&mut head).await.unwrap_or_default();
                let is_check = head[..read].starts_with(b"GET /health?x=1 HTTP/1.1\r\n");
                let answer = match (is_check, is_sick.load(Ordering::SeqCst)) {
                    (true, true) => {
                        "HTTP/1.1 503 Sick\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
                    }
                    (true, false) => "HTTP/1.1 204 Well\r\nConnection: close\r\n\r\n".to_owned(),
                    (false, _) => TEXT.replacen("OK\r\n", "OK\r\nConnection: close\r\n", 1),
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    let (services, mut told) = services(std::slice::from_ref(&server), LONG, Some("/health?x=1"));
    let probing = services.clone();
    let probing = tokio::spawn(async move { probing.probe().await });
    assert_eq!(state(&mut told).await, (2, 0.0));
    let failure = failed(&transcribe(&services).await);
    assert_eq!(failure.kind, FailureKind::BreakerOpen);
    assert!(failure.why.ends_with("the last: health_check /health answered 503"), "{}", failure.why);
    sick.store(false, Ordering::SeqCst);
    assert_eq!(state(&mut told).await, (1, 0.0), "half-open at once, and not after the cool-down");
    assert!(matches!(&*transcribe(&services).await, [Input::Transcript { .. }]));
    while state(&mut told).await != (0, 1.0) {}
    // With nobody to ask, the next check closes it.
    sick.store(true, Ordering::SeqCst);
    while state(&mut told).await != (2, 0.0) {}
    sick.store(false, Ordering::SeqCst);
    while state(&mut told).await != (0, 1.0) {}
    probing.abort();
}
