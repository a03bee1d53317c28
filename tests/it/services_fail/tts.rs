//! The voice's faults. With it down, the apology is the recording that voxgate ships.

use voxgate::audio::APOLOGY;

use super::{Fault, NOTHING, REFUSED, bot, fault, meet};
use crate::world::Bot;

const FAULTS: [Fault; 15] = [
    fault("/hang", "timeout", NOTHING),
    fault("/slow-headers", "timeout", NOTHING),
    fault("/500", "http_5xx", &["POST http://127.0.0.1:", "/500", "answered 500", "Internal Server Error"]),
    fault("/html", "protocol", &["HTML", "instead of audio", "502 Bad Gateway"]),
    fault("/json", "protocol", &["JSON instead of audio", "quota_exceeded"]),
    fault("/wav-silence", "protocol", &["nothing but silence"]),
    fault("/wav-header-hang", "timeout", NOTHING),
    fault("/trickle", "timeout", NOTHING),
    fault("/reset", "protocol", &["broke off"]),
    fault("/reset?as=head", "protocol", &["no HTTP answer, though asked twice"]),
    fault("/short", "protocol", &["broke off"]),
    fault("/empty", "protocol", &["no audio"]),
    fault("/garbage", "protocol", &["noise"]),
    // MP3 is played; these frames hold nothing.
    fault("/mp3", "protocol", &["nothing but silence"]),
    fault(REFUSED, "connect", &["connection refused", "is it running?"]),
];

#[test]
fn the_voice_fails() {
    meet(&FAULTS, "tts", |tts| Bot { tts, ..bot() }, APOLOGY);
}
