//! The 319xx codes that Twilio reports for a stream, in words: what it means and where to look.

/// What a code means and what usually causes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub code: u16,
    pub meaning: &'static str,
    pub look_at: &'static str,
}

/// The explanation of a 319xx code, if there is one.
pub fn explain(code: u16) -> Option<&'static Explanation> {
    CODES.binary_search_by_key(&code, |e| e.code).ok().map(|i| &CODES[i])
}

const fn code(code: u16, meaning: &'static str, look_at: &'static str) -> Explanation {
    Explanation { code, meaning, look_at }
}

/// In ascending order.
static CODES: [Explanation; 21] = [
    code(31900, "unknown stream error", "the log lines around it"),
    code(31901, "connecting took too long", "firewall, address, tunnel"),
    code(31902, "connection refused", "port; is the process up, or restarting?"),
    code(31903, "connection broken", "proxy or load balancer idle time-out, crash in mid-call"),
    code(31904, "host unreachable", "DNS, private address"),
    code(31910, "TLS failed", "self-signed or expired certificate, missing intermediate, name mismatch"),
    code(31920, "the upgrade was not answered with 101", "path, query string in the url, 403 before accept"),
    code(
        31921,
        "the server closed the socket",
        "normal when the gateway ends the call; else crash, restart or idle time-out",
    ),
    code(31922, "the url is not wss", "ws:// or https:// in the TwiML"),
    code(31923, "malformed url", "a template variable that was not filled"),
    code(31924, "WebSocket protocol error", "a proxy that corrupts frames, sending on a one-way stream"),
    code(31930, "Twilio's audio is read too slowly", "CPU; a blocked process"),
    code(31931, "more than 10 minutes of audio queued", "a bot that sends without pacing"),
    code(31940, "invalid connectorName", "TwiML"),
    code(31941, "invalid track", "a track other than inbound_track under <Connect>"),
    code(31942, "connector configuration", "TwiML"),
    code(31950, "a binary frame was received", "send text"),
    code(31951, "an invalid message was received", "extra or missing fields in what the server sends"),
    code(31952, "stream extension not found", "TwiML"),
    code(31953, "the caller's audio stopped", "the caller's network, or the carrier's"),
    code(31960, "the quota of Dialogflow is used up", "Dialogflow's account; voxgate does not use it"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found() {
        for e in &CODES {
            assert_eq!(explain(e.code), Some(e));
        }
        assert_eq!(explain(31911), None);
        assert!(
            explain(31921).is_some_and(|e| e.look_at.starts_with("normal when the gateway ends the call"))
        );
        assert!(explain(31960).is_some_and(|e| e.meaning.contains("Dialogflow")));
    }
}
