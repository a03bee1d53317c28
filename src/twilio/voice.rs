//! The voice webhook: what Twilio asks when a call comes in, and TwiML that answers it with a stream.

use quick_xml::escape::escape;

use super::lint::LONGEST_PARAMETER;
use super::message::RESUMED;

/// A voice webhook's form: who calls whom. Empty where it did not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoiceRequest {
    pub call_sid: String,
    pub from: String,
    pub to: String,
    pub call_status: String,
    /// How many streams the call has had, where the TwiML that was served says so.
    pub resumed: u64,
}

/// What stands in the place of a number that is withheld or not known: words, and the same words keyed.
const WITHHELD: [&str; 10] = [
    "anonymous",
    "restricted",
    "unknown",
    "unavailable",
    "blocked",
    "+266696687",
    "+7378742833",
    "+8656696",
    "+86282452253",
    "+2562533",
];

/// The caller's number, or whatever else tells it from others; `None` where it is withheld.
pub fn caller(from: &str) -> Option<&str> {
    let from = from.trim();
    let withheld = from.is_empty() || WITHHELD.iter().any(|word| word.eq_ignore_ascii_case(from));
    (!withheld).then_some(from)
}

impl VoiceRequest {
    /// Who calls; `None` where that is withheld.
    pub fn caller(&self) -> Option<&str> {
        caller(&self.from)
    }

    /// Reads an `application/x-www-form-urlencoded` body or query; never fails.
    pub fn read(form: &[u8]) -> VoiceRequest {
        let mut request = VoiceRequest::default();
        for (name, value) in form_urlencoded::parse(form) {
            let field = match name.as_ref() {
                "CallSid" => &mut request.call_sid,
                "From" => &mut request.from,
                "To" => &mut request.to,
                "CallStatus" => &mut request.call_status,
                RESUMED => {
                    request.resumed = value.parse().unwrap_or_default();
                    continue;
                }
                _ => continue,
            };
            *field = value.chars().filter(|c| !c.is_control()).take(300).collect();
        }
        request
    }
}

/// What becomes of a call whose stream has ended.
#[derive(Clone, Copy, Debug)]
pub enum Then<'a> {
    /// This is asked at once, and the call is over if nothing answers.
    Ask(&'a str),
    /// This is asked in a while: a gateway that went down under the call has come back by then.
    AskLater(&'a str),
}

/// A call that is to be connected to a stream. All URLs are absolute.
#[derive(Clone, Debug)]
pub struct ConnectStream<'a> {
    pub url: &'a str,
    pub then: Then<'a>,
    pub status_callback: &'a str,
    pub parameters: &'a [(&'a str, &'a str)],
}

impl ConnectStream<'_> {
    /// The TwiML. A parameter that is longer than Twilio takes is left out.
    pub fn twiml(&self) -> String {
        let fits = |(name, value): &&(&str, &str)| {
            name.chars().count() + value.chars().count() <= LONGEST_PARAMETER && !value.is_empty()
        };
        let parameters: String = self
            .parameters
            .iter()
            .filter(fits)
            .map(|(name, value)| {
                format!("      <Parameter name=\"{}\" value=\"{}\"/>\n", escape(*name), escape(*value))
            })
            .collect();
        let (action, next) = match self.then {
            Then::Ask(url) => {
                (format!(" action=\"{}\" method=\"POST\"", escape(url)), "<Hangup/>".to_owned())
            }
            Then::AskLater(url) => {
                let redirect = format!("<Redirect method=\"POST\">{}</Redirect>", escape(url));
                (String::new(), format!("<Pause length=\"{RESTART_SECONDS}\"/>\n  {redirect}"))
            }
        };
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response>\n  <Connect{action}>\n    \
             <Stream url=\"{}\" statusCallback=\"{}\" statusCallbackMethod=\"POST\">\n{parameters}    \
             </Stream>\n  </Connect>\n  {next}\n</Response>\n",
            escape(self.url),
            escape(self.status_callback),
        )
    }
}

/// How long a gateway that was killed takes to be there again, or a balancer to see that it is gone.
const RESTART_SECONDS: u64 = 2;

/// The end of a call.
pub const HANG_UP: &str =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response>\n  <Hangup/>\n</Response>\n";

#[cfg(test)]
mod tests {
    use super::super::lint::{Site, lint};
    use super::*;

    const SITE: Site<'_> = Site { public_url: None, media_path: "/ws", stream_status: "/status" };

    fn stream<'a>(parameters: &'a [(&'a str, &'a str)]) -> String {
        let (url, status_callback) = ("wss://bot/ws", "https://bot/status");
        ConnectStream { url, then: Then::Ask("https://bot/ended"), status_callback, parameters }.twiml()
    }

    #[test]
    fn a_form_as_twilio_posts_it() {
        let form =
            b"AccountSid=AC1&CallSid=CA2&From=%2B14158675310&To=%2b18005551212&CallStatus=ringing&X=%00";
        let read = VoiceRequest::read(form);
        let text = str::to_owned;
        let (from, to) = (text("+14158675310"), text("+18005551212"));
        let call_status = text("ringing");
        assert_eq!(read, VoiceRequest { call_sid: text("CA2"), from, to, call_status, resumed: 0 });
        assert_eq!(VoiceRequest::read(b"resumed=3&CallSid=CA2").resumed, 3);
        assert_eq!(VoiceRequest::read(b"\xff{}=%zz&&&="), VoiceRequest::default());
    }

    #[test]
    fn a_withheld_number_is_nobodys() {
        for withheld in ["", " ", "anonymous", "Anonymous", "+266696687", "RESTRICTED"] {
            assert_eq!(caller(withheld), None, "{withheld}");
        }
        assert_eq!((caller("+15550001"), caller(" sip:a@b ")), (Some("+15550001"), Some("sip:a@b")));
    }

    #[test]
    fn what_is_served_is_sound_whoever_calls() {
        let hostile = "sip:\"a\"<b>&'c'@d]]>é";
        let twiml = stream(&[("call_sid", "CA1"), ("From", hostile), ("To", "")]);
        let linted = lint(twiml.as_bytes(), &SITE);
        assert_eq!(linted.findings, [], "{twiml}");
        let [stream] = linted.streams.as_slice() else { panic!("{twiml}") };
        assert_eq!(stream.url, "wss://bot/ws");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(stream.parameters, [pair("call_sid", "CA1"), pair("From", hostile)]);
        assert_eq!(lint(HANG_UP.as_bytes(), &SITE).findings, []);
    }

    #[test]
    fn a_call_that_comes_back_asks_once_a_gateway_is_there_again() {
        let then = Then::AskLater("https://bot/ended?resumed=1");
        let twiml = ConnectStream {
            url: "wss://bot/ws",
            then,
            status_callback: "https://bot/status",
            parameters: &[("call_sid", "CA1")],
        }
        .twiml();
        assert_eq!(lint(twiml.as_bytes(), &SITE).findings, [], "{twiml}");
        let end = "  </Connect>\n  <Pause length=\"2\"/>\n  \
                   <Redirect method=\"POST\">https://bot/ended?resumed=1</Redirect>\n</Response>\n";
        assert!(twiml.contains("<Connect>\n") && twiml.ends_with(end), "{twiml}");
    }

    #[test]
    fn a_parameter_that_is_too_long_is_left_out() {
        let twiml = stream(&[("call_sid", "CA1"), ("From", &"x".repeat(497))]);
        assert_eq!(lint(twiml.as_bytes(), &SITE).findings, []);
        assert!(!twiml.contains("From"));
    }
}
