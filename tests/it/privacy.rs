//! Personal data stays out of the log, whatever is asked of it: with everything told (`RUST_LOG` at trace)
//! no line of a whole call holds who called whom, what was said, which keys were pressed, or what the
//! app was told about the caller.

use std::time::Duration;

use voxgate::cli::call::{CallOptions, Step};

use crate::conversation::ask;
use crate::world::{Bot, Gateway, Wire, app, call_with, of_call, until};

#[test]
fn no_line_of_the_log_says_who_called_or_what_was_said() {
    let config = format!("[limits]\nmax_calls_per_number = 3\n{}", Bot::real().config());
    let gateway = Gateway::discreet(&config);
    gateway.event("PHRASE_RENDERED", 0);
    let form = "CallSid=CA1&From=%2B15557654321&To=%2B15559990000&CallerName=Philippa&FromCity=Wilmersdorf";
    let length = form.len();
    for request in [
        format!(
            "POST /webhook/incoming_call HTTP/1.1\r\nHost: x\r\nCookie: session=cafebabe\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{form}"
        ),
        format!("GET /webhook/incoming_call?{form} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /customers?{form} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer deadbeef\r\n\r\n"),
        format!("GET /webhook/stream_status?StreamEvent=stream-started&{form} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /webhook/stream_ended?{form} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        Wire::ask(gateway.port, &request);
    }
    let parameters =
        [("From", "+15557654321"), ("name", "Philippa Featherstone"), ("account", "DE89370400440532")];
    let parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let mut script = ask("what are your opening hours tomorrow").to_vec();
    script.extend("5550123#".chars().map(Step::Dtmf));
    script.push(Step::Pause(Duration::from_secs(2)));
    let call = call_with(CallOptions { parameters, ..CallOptions::new(gateway.media()) }, script);
    gateway.event("WS_STOP", 0);
    until("all requests to be told", || (gateway.events("HTTP").len() >= 6).then_some(()));
    // It was all there to be told.
    let asked = of_call(app().agent_log(), &call);
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0]["body"]["parameters"]["name"], "Philippa Featherstone");
    let log = gateway.log();
    assert!(log.iter().any(|line| line["message"] == "STT_FINAL" && line["chars"] == 36), "{log:?}");
    assert!(log.iter().any(|line| line["level"] == "DEBUG"), "everything is told");
    for line in &log {
        let text = line.to_string().to_lowercase();
        for word in [
            "15557654321",
            "15559990000",
            "philippa",
            "featherstone",
            "wilmersdorf",
            "de8937",
            "cafebabe",
            "deadbeef",
            "opening",
            "tomorrow",
            "nine to five",
            "5550123",
            "you said",
        ] {
            assert!(!text.contains(word), "{word} is in {text}");
        }
    }
}
