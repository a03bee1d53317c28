//! The TwiML that voxgate itself gives to a call: through to somebody else, or keys and then back to
//! the media stream. Written by hand, since it is three verbs; what is foreign in it is escaped here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// More is refused where TwiML comes with the request (32018).
pub const LONGEST: usize = 4000;

/// Whom a call is put through to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party<'a> {
    /// E.164.
    Number(&'a str),
    /// A whole `sip:` or `sips:` address.
    Sip(&'a str),
    /// The identity of a client of Twilio's SDKs.
    Client(&'a str),
}

/// Puts the call through.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    pub to: Party<'a>,
    /// Whom the other side sees; the caller where nobody is said.
    pub caller_id: Option<&'a str>,
    /// How long it may ring, in seconds.
    pub timeout: Option<u64>,
    /// Asked for what comes next once the other side has hung up, or was not reached.
    pub action: Option<&'a str>,
    /// Told how the other side's call goes on.
    pub status_callback: Option<&'a str>,
}

/// Sends keys down the line, and connects the media stream again.
#[derive(Clone, Copy, Debug)]
pub struct SendDigits<'a> {
    pub digits: &'a str,
    /// `wss://…`.
    pub stream: &'a str,
    pub status_callback: &'a str,
    pub parameters: &'a BTreeMap<String, String>,
    /// Asked for what comes next once that stream has ended.
    pub then: Option<&'a str>,
}

impl Dial<'_> {
    pub fn to_xml(self) -> String {
        let timeout = self.timeout.map(|seconds| seconds.to_string());
        let dial = [("callerId", self.caller_id), ("timeout", timeout.as_deref()), ("action", self.action)];
        let events = self.status_callback.map(|_| "initiated ringing answered completed");
        let noun = [("statusCallback", self.status_callback), ("statusCallbackEvent", events)];
        let (name, to) = match self.to {
            Party::Number(number) => ("Number", number),
            Party::Sip(address) => ("Sip", address),
            Party::Client(identity) => ("Client", identity),
        };
        let mut xml = String::from("<Response>");
        open(&mut xml, "Dial", &dial, ">");
        open(&mut xml, name, &noun, ">");
        escape(&mut xml, to);
        let _ = write!(xml, "</{name}></Dial></Response>");
        xml
    }
}

impl SendDigits<'_> {
    pub fn to_xml(self) -> String {
        let mut xml = String::from("<Response>");
        open(&mut xml, "Play", &[("digits", Some(self.digits))], "/>");
        xml.push_str("<Connect>");
        let stream = [("url", Some(self.stream)), ("statusCallback", Some(self.status_callback))];
        open(&mut xml, "Stream", &stream, ">");
        for (name, value) in self.parameters {
            open(&mut xml, "Parameter", &[("name", Some(name)), ("value", Some(value))], "/>");
        }
        xml.push_str("</Stream></Connect>");
        if let Some(then) = self.then {
            open(&mut xml, "Redirect", &[("method", Some("POST"))], ">");
            escape(&mut xml, then);
            xml.push_str("</Redirect>");
        }
        xml.push_str("</Response>");
        xml
    }
}

fn open(xml: &mut String, name: &str, attributes: &[(&str, Option<&str>)], end: &str) {
    let _ = write!(xml, "<{name}");
    for (attribute, value) in attributes {
        if let Some(value) = value {
            let _ = write!(xml, " {attribute}=\"");
            escape(xml, value);
            xml.push('"');
        }
    }
    xml.push_str(end);
}

/// What XML cannot hold at all is left out; white space in an attribute would come out as a blank.
fn escape(xml: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            '&' => xml.push_str("&amp;"),
            '"' => xml.push_str("&quot;"),
            '\'' => xml.push_str("&apos;"),
            '\t' | '\n' | '\r' => {
                let _ = write!(xml, "&#{};", u32::from(c));
            }
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            other => xml.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Dial<'_> = Dial {
        to: Party::Number("+15550100"),
        caller_id: None,
        timeout: None,
        action: None,
        status_callback: None,
    };

    #[test]
    fn a_call_is_put_through() {
        assert_eq!(PLAIN.to_xml(), "<Response><Dial><Number>+15550100</Number></Dial></Response>");
        let all = Dial {
            to: Party::Sip("sip:anna@pbx.example.com;transport=tls"),
            caller_id: Some("+15550123"),
            timeout: Some(20),
            action: Some("https://bot.example.com/dialled?a=1&b=2"),
            status_callback: Some("https://bot.example.com/leg"),
        };
        assert_eq!(
            all.to_xml(),
            "<Response><Dial callerId=\"+15550123\" timeout=\"20\" \
             action=\"https://bot.example.com/dialled?a=1&amp;b=2\">\
             <Sip statusCallback=\"https://bot.example.com/leg\" \
             statusCallbackEvent=\"initiated ringing answered completed\">\
             sip:anna@pbx.example.com;transport=tls</Sip></Dial></Response>"
        );
        let client = Dial { to: Party::Client("anna"), ..PLAIN };
        assert_eq!(client.to_xml(), "<Response><Dial><Client>anna</Client></Dial></Response>");
    }

    #[test]
    fn keys_are_sent_and_the_stream_comes_back_with_all_it_had() {
        let parameters = [("call_sid", "CA1"), ("name", "Zoë \"Z\" O'Hara <&>\n\u{1}")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let digits = SendDigits {
            digits: "1w2#",
            stream: "wss://bot.example.com/ws",
            status_callback: "https://bot.example.com/status",
            parameters: &parameters,
            then: None,
        };
        let broken = SendDigits { then: Some("https://bot.example.com/ended?a=1&b"), ..digits };
        assert!(broken.to_xml().ends_with(
            "</Connect><Redirect method=\"POST\">https://bot.example.com/ended?a=1&amp;b</Redirect></Response>"
        ));
        assert_eq!(
            digits.to_xml(),
            "<Response><Play digits=\"1w2#\"/><Connect><Stream url=\"wss://bot.example.com/ws\" \
             statusCallback=\"https://bot.example.com/status\">\
             <Parameter name=\"call_sid\" value=\"CA1\"/>\
             <Parameter name=\"name\" value=\"Zoë &quot;Z&quot; O&apos;Hara &lt;&amp;&gt;&#10;\"/>\
             </Stream></Connect></Response>"
        );
    }
}
