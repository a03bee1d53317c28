//! The agent's faults.

use super::{Fault, NOTHING, REFUSED, bot, fault, meet};
use crate::world::{Bot, voice};

const FAULTS: [Fault; 16] = [
    fault("/hang", "timeout", NOTHING),
    fault("/slow-headers", "timeout", NOTHING),
    fault("/500", "http_5xx", &["POST http://127.0.0.1:", "/500", "answered 500", "Internal Server Error"]),
    fault("/html", "protocol", &["text/html", "502 Bad Gateway", "was expected"]),
    fault("/json", "protocol", &["an error", "quota_exceeded"]),
    fault("/wav-silence", "protocol", &["audio/wav", "text was expected"]),
    fault("/wav-header-hang", "protocol", &["audio/wav", "text was expected"]),
    fault("/trickle", "protocol", &["audio/wav", "text was expected"]),
    fault("/trickle?as=text", "timeout", NOTHING),
    fault("/trickle?as=json", "timeout", NOTHING),
    fault("/reset", "protocol", &["audio/wav", "text was expected"]),
    fault("/reset?as=head", "protocol", &["no HTTP answer, though asked twice"]),
    fault("/garbage", "protocol", &["audio/wav", "text was expected"]),
    fault("/mp3", "protocol", &["audio/mpeg", "text was expected"]),
    fault("/huge?as=json", "protocol", &["more than 262144 bytes"]),
    fault(REFUSED, "connect", &["connection refused", "is it running?"]),
];

#[test]
fn the_agent_fails() {
    let apology = voice(&["Please say that again."]);
    meet(&FAULTS, "agent", |agent| Bot { agent, ..bot() }, &apology);
}
