//! The recogniser's faults.

use super::{Fault, NOTHING, REFUSED, bot, fault, meet};
use crate::world::{Bot, voice};

const FAULTS: [Fault; 18] = [
    fault("/hang", "timeout", NOTHING),
    fault("/slow-headers", "timeout", NOTHING),
    fault("/500", "http_5xx", &["POST http://127.0.0.1:", "/500", "answered 500", "Internal Server Error"]),
    fault("/html", "protocol", &["text/html", "502 Bad Gateway", "was expected"]),
    fault("/json", "protocol", &["an error", "quota_exceeded", "was expected"]),
    fault("/wav-silence", "protocol", &["audio/wav", "was expected"]),
    fault("/wav-header-hang", "timeout", NOTHING),
    fault("/trickle", "timeout", NOTHING),
    fault("/trickle?as=json", "timeout", NOTHING),
    fault("/reset", "protocol", &["broke off"]),
    fault("/reset?as=head", "protocol", &["no HTTP answer, though asked twice"]),
    fault("/short", "protocol", &["broke off"]),
    fault("/empty", "protocol", &["audio/wav", "(no body)"]),
    fault("/garbage", "protocol", &["audio/wav", "was expected"]),
    fault("/mp3", "protocol", &["audio/mpeg", "was expected"]),
    fault("/huge", "protocol", &["more than 65536 bytes"]),
    fault("/huge?as=json", "protocol", &["more than 65536 bytes"]),
    fault(REFUSED, "connect", &["connection refused", "is it running?"]),
];

#[test]
fn the_recogniser_fails() {
    let apology = voice(&["Please say that again."]);
    meet(&FAULTS, "stt", |stt| Bot { stt, ..bot() }, &apology);
}
