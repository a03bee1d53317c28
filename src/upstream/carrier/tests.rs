//! What is posted to the carrier, and what becomes of whatever it answers.

use std::time::Duration;

use tokio::sync::mpsc::channel;

use super::super::fake::Fake;
use super::*;
use crate::call::Keys;
use crate::config::Secret;

const JSON: &str = "Content-Type: application/json\r\n";
const CALL: &str = r#"{"sid": "CA1", "status": "completed", "price": null}"#;

/// An answer with this status and these headers.
fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn config(fake: &Fake) -> Config {
    let mut config = Config::default();
    config.server.public_url = Some("https://bot.example.com".to_owned());
    config.twilio.api.url = format!("http://{}", fake.server());
    config.twilio.api.credentials = Some(Credentials::AuthToken(Secret("t0ken".to_owned())));
    config.twilio.api.timeout = Duration::from_secs(20);
    config
}

fn ids() -> CallIds {
    CallIds {
        parameters: [("a".to_owned(), "1 & 2".to_owned())].into(),
        ..(*super::super::tests::ids()).clone()
    }
}

/// What the call is told, with `IT` for the address of the server.
async fn told(config: &Config, ids: &CallIds, control: Control) -> Result<(), (FailureKind, String)> {
    let carrier = Carrier::new(config, |_| {}).unwrap().expect("credentials");
    let (to, mut inbox) = channel(1);
    carrier.control(ids, 7, &control, "/ws/twilio-media", &to).await;
    match inbox.recv().await.map(|input| *input) {
        Some(Input::Controlled { number: 7 }) => Ok(()),
        Some(Input::Failed { job: Job::Control { number: 7 }, failure }) => {
            assert_eq!(failure.upstream, "twilio");
            let path = "/2010-04-01/Accounts/AC1/Calls/CA1.json";
            Err((failure.kind, failure.why.replace(&format!("{}{path}", config.twilio.api.url), "IT")))
        }
        other => panic!("{other:?}"),
    }
}

fn transfer() -> Control {
    Control::Transfer { to: Destination::Number("+15550100".to_owned()) }
}

fn send_digits() -> Control {
    Control::SendDigits { digits: Keys::parse("1W2#").unwrap() }
}

#[tokio::test]
async fn what_is_posted() {
    let mut fake = Fake::answering(answer("200 OK", JSON, CALL)).await;
    let mut config = config(&fake);
    let form = |body: &[u8]| {
        let pairs = form_urlencoded::parse(body).into_owned().collect::<Vec<_>>();
        let [(name, value)] = &pairs[..] else { panic!("{pairs:?}") };
        format!("{name}={value}")
    };
    for (control, posted) in [
        (Control::Hangup, "Status=completed"),
        (transfer(), "Twiml=<Response><Dial timeout=\"30\"><Number>+15550100</Number></Dial></Response>"),
        (
            send_digits(),
            "Twiml=<Response><Play digits=\"1ww2#\"/><Connect>\
             <Stream url=\"wss://bot.example.com/ws/twilio-media\" \
             statusCallback=\"https://bot.example.com/webhook/stream_status\">\
             <Parameter name=\"a\" value=\"1 &amp; 2\"/></Stream></Connect></Response>",
        ),
    ] {
        assert_eq!(told(&config, &ids(), control).await, Ok(()));
        let request = fake.request().await;
        assert!(
            request.head.starts_with("post /2010-04-01/accounts/ac1/calls/ca1.json http/1.1"),
            "{}",
            request.head
        );
        assert!(request.has("content-type: application/x-www-form-urlencoded"), "{}", request.head);
        // AC1:t0ken, in lower case.
        assert!(request.has("authorization: basic qumxonqwa2vu"), "{}", request.head);
        assert_eq!(form(&request.body), posted);
    }

    // A sub-account's call, by the name of the account above it; and by a key.
    config.twilio.api.account_sid = Some("AC0".to_owned());
    assert_eq!(told(&config, &ids(), Control::Hangup).await, Ok(()));
    let request = fake.request().await;
    assert!(request.head.starts_with("post /2010-04-01/accounts/ac1/"), "{}", request.head);
    assert!(request.has("authorization: basic qumwonqwa2vu"), "{}", request.head);
    let key = Credentials::ApiKey { sid: "SK1".to_owned(), secret: Secret("s".to_owned()) };
    config.twilio.api.credentials = Some(key);
    assert_eq!(told(&config, &ids(), Control::Hangup).await, Ok(()));
    assert!(fake.request().await.has("authorization: basic u0sxonm="));

    // Where a call whose stream breaks is taken up again: also behind the keys.
    config.twilio.resume = true;
    for (before, then) in [(None, 1), (Some("1"), 2)] {
        let parameters = before.map(|before| ("resumed".to_owned(), before.to_owned()));
        let ids = CallIds { parameters: parameters.into_iter().collect(), ..ids() };
        assert_eq!(told(&config, &ids, send_digits()).await, Ok(()));
        let posted = form(&fake.request().await.body);
        let redirect = format!(
            "</Connect><Redirect method=\"POST\">\
             https://bot.example.com/webhook/stream_ended?resumed={then}</Redirect></Response>"
        );
        assert!(posted.ends_with(&redirect), "{posted}");
    }

    // A call that does not say whose it is.
    let nobodys = CallIds { account_sid: String::new(), ..ids() };
    assert_eq!(told(&config, &nobodys, Control::Hangup).await, Ok(()));
    assert!(fake.request().await.head.starts_with("post /2010-04-01/accounts/ac0/"));
}

#[tokio::test]
async fn what_cannot_be_asked_is_not() {
    let mut fake = Fake::answering(answer("200 OK", JSON, CALL)).await;
    let config = config(&fake);
    for (account_sid, call_sid) in [("AC1", "../../x"), ("AC1?", "CA1"), ("", "CA1"), ("AC1", "")] {
        let ids = CallIds { account_sid: account_sid.to_owned(), call_sid: call_sid.to_owned(), ..ids() };
        let (kind, why) = told(&config, &ids, Control::Hangup).await.unwrap_err();
        assert_eq!((kind, why.contains("names no call")), (FailureKind::Protocol, true), "{why}");
    }
    let mut nowhere = config.clone();
    nowhere.server.public_url = None;
    let (_, why) = told(&nowhere, &ids(), send_digits()).await.unwrap_err();
    assert!(why.starts_with("your config: [server] public_url: not set"), "{why}");
    let many = CallIds { parameters: [("a".to_owned(), "x".repeat(4000))].into(), ..ids() };
    let (_, why) = told(&config, &many, send_digits()).await.unwrap_err();
    assert!(why.contains("(32018)"), "{why}");
    assert_eq!(fake.more_requests(), 0);
    assert!(Carrier::new(&Config::default(), |_| {}).unwrap().is_none(), "nobody to ask as");
}

#[tokio::test]
async fn a_refusal_is_told_with_its_owner() {
    let not_found = r#"{"code": 20404, "message": "The requested resource was not found", "status": 404}"#;
    let over = r#"{"code": 21220, "message": "Call is not in-progress. Cannot redirect.", "status": 400}"#;
    let there = "; the call is over, or of another account_sid or region (api_url)";
    for (status, headers, body, kind, why) in [
        (
            "401 Unauthorized",
            JSON,
            r#"{"code": 20003, "message": "Authenticate", "status": 401}"#,
            FailureKind::Http4xx,
            "your config: auth_token: POST IT answered 401: Authenticate (20003)".to_owned(),
        ),
        (
            "404 Not Found",
            JSON,
            not_found,
            FailureKind::Http4xx,
            format!("the vendor refused: POST IT answered 404: The requested resource was not found (20404){there}"),
        ),
        (
            "400 Bad Request",
            JSON,
            over,
            FailureKind::Http4xx,
            format!("the vendor refused: POST IT answered 400: Call is not in-progress. Cannot redirect. (21220){there}"),
        ),
        (
            "400 Bad Request",
            JSON,
            r#"{"code": 21218, "message": "Invalid TwiML", "status": 400}"#,
            FailureKind::Http4xx,
            "the vendor refused: POST IT answered 400: Invalid TwiML (21218)".to_owned(),
        ),
        (
            "429 Too Many Requests",
            "Retry-After: 2\r\n",
            r#"{"code": 20429, "message": "Too Many Requests", "status": 429}"#,
            FailureKind::Http4xx,
            "the vendor refused: POST IT answered 429: Too Many Requests (20429); it asks to wait 2 s".to_owned(),
        ),
        (
            "500 Oops",
            "",
            "",
            FailureKind::Http5xx,
            "the vendor failed: POST IT answered 500: (no body)".to_owned(),
        ),
        (
            "404 Not Found",
            "",
            "<h1>Not Found</h1>",
            FailureKind::Http4xx,
            "your config: api_url: POST IT answered 404: <h1>Not Found</h1>".to_owned(),
        ),
        (
            "302 Found",
            "Location: https://elsewhere/\r\n",
            "",
            FailureKind::Protocol,
            "your config: api_url: POST IT answered 302: a redirect to https://elsewhere/, which is not followed"
                .to_owned(),
        ),
        (
            "200 OK",
            "Content-Type: text/html\r\n",
            "<html>Please log in</html>",
            FailureKind::Protocol,
            "your config: api_url: POST IT answered 200: where a call was expected: <html>Please log in</html>"
                .to_owned(),
        ),
    ] {
        let fake = Fake::answering(answer(status, headers, body)).await;
        let config = config(&fake);
        assert_eq!(told(&config, &ids(), transfer()).await, Err((kind, why)), "{status}");
    }
    for body in [not_found, over] {
        let status = if body == over { "400 Bad" } else { "404 Not Found" };
        let fake = Fake::answering(answer(status, JSON, body)).await;
        assert_eq!(told(&config(&fake), &ids(), Control::Hangup).await, Ok(()), "it is over: {body}");
    }
    let fake = Fake::answering(answer("404 Not Found", "", "<h1>Not Found</h1>")).await;
    assert!(told(&config(&fake), &ids(), Control::Hangup).await.is_err(), "some other server's");
}

#[tokio::test]
async fn whatever_happens_there_is_an_answer_in_time() {
    let soon = Duration::from_millis(300);
    let hangs = Fake::serving(|_, mut peer| async move {
        peer.request().await;
        peer.closed().await;
    })
    .await;
    let mut config = config(&hangs);
    config.twilio.api.timeout = soon;
    let late = (FailureKind::Timeout, "the vendor: POST IT no answer within 300 ms".to_owned());
    assert_eq!(told(&config, &ids(), transfer()).await, Err(late.clone()));

    let trickles = Fake::serving(|_, mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{").await;
        while peer.try_send(b" ").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    config.twilio.api.url = format!("http://{}", trickles.server());
    assert_eq!(told(&config, &ids(), transfer()).await, Err(late));

    config.twilio.api.timeout = Duration::from_secs(20);
    let endless = Fake::serving(|_, mut peer| async move {
        peer.request().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n").await;
        while peer.try_send(&[b'x'; 4096]).await {}
    })
    .await;
    config.twilio.api.url = format!("http://{}", endless.server());
    assert_eq!(told(&config, &ids(), transfer()).await.unwrap_err().0, FailureKind::Protocol);

    let resets = Fake::serving(|_, mut peer| async move {
        peer.request().await;
        peer.reset();
    })
    .await;
    let mut resets = resets;
    config.twilio.api.url = format!("http://{}", resets.server());
    let (kind, why) = told(&config, &ids(), transfer()).await.unwrap_err();
    assert!(why.starts_with("the network: POST IT no HTTP answer: "), "{why}");
    assert_eq!(kind, FailureKind::Protocol);
    assert_eq!((resets.request().await.connection, resets.more_requests()), (0, 0), "asked once");

    config.twilio.api.url = "http://127.0.0.1:1".to_owned();
    let (kind, why) = told(&config, &ids(), transfer()).await.unwrap_err();
    assert_eq!(kind, FailureKind::Connect);
    assert!(why.starts_with("the vendor: POST IT connection refused"), "{why}");
}
