//! Whom a call may be put through to, and which keys may be sent down the line: what an agent says of
//! either is parsed once, and told what is wrong with it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest address and the longest identity that a carrier takes.
const LONGEST: usize = 256;
/// More keys than anybody needs for a menu.
const MOST_KEYS: usize = 32;

/// The other end of a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Destination {
    /// E.164: `+15550100`.
    Number(String),
    /// `sip:anna@pbx.example.com`, whole.
    Sip(String),
    /// The identity behind `client:`.
    Client(String),
}

impl Destination {
    /// Or what is wrong with it, as the end of a sentence. Numbers may be written with spaces, dots,
    /// dashes and brackets.
    pub fn parse(text: &str) -> Result<Destination, &'static str> {
        let text = text.trim();
        let plain = |c: char| c.is_ascii_graphic() && !"<>\"'&{}|\\^`".contains(c);
        if text.len() > LONGEST {
            return Err("\"to\" is too long");
        }
        if let Some(identity) = text.strip_prefix("client:") {
            let sound = |c: char| c.is_ascii_alphanumeric() || "_-.@+".contains(c);
            let is_identity = !identity.is_empty() && identity.chars().all(sound);
            return is_identity
                .then(|| Destination::Client(identity.to_owned()))
                .ok_or("\"to\" is no client: letters, digits and _-.@+ may follow client:");
        }
        if let Some(address) = text.strip_prefix("sip:").or(text.strip_prefix("sips:")) {
            return (!address.is_empty() && !address.starts_with('@') && address.chars().all(plain))
                .then(|| Destination::Sip(text.to_owned()))
                .ok_or("\"to\" is no SIP address, such as sip:anna@pbx.example.com");
        }
        let number: String = text.chars().filter(|c| !" -.()".contains(*c)).collect();
        let digits = number.strip_prefix('+').unwrap_or_default();
        let is_e164 = (2..=15).contains(&digits.len())
            && !digits.starts_with('0')
            && digits.bytes().all(|b| b.is_ascii_digit());
        is_e164.then_some(Destination::Number(number)).ok_or(
            "\"to\" must be a number with its country, such as +15551234567, or begin with sip: or client:",
        )
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Destination::Number(number) => f.write_str(number),
            Destination::Sip(address) => f.write_str(address),
            Destination::Client(identity) => write!(f, "client:{identity}"),
        }
    }
}

/// Keys, and pauses between them: `w` is half a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys(String);

impl Keys {
    /// Or what is wrong with them. `W`, a whole second, becomes two of the half ones, which every
    /// carrier knows.
    pub fn parse(text: &str) -> Result<Keys, &'static str> {
        let text = text.trim();
        if !(1..=MOST_KEYS).contains(&text.len()) {
            return Err("\"digits\" must be 1 to 32 keys");
        }
        if !text.chars().all(|c| c.is_ascii_digit() || "*#ABCDwW".contains(c)) {
            return Err("\"digits\" may be 0-9, *, #, A-D, and w for a pause of half a second");
        }
        Ok(Keys(text.replace('W', "ww")))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_can_be_reached() {
        let said = |text: &str| Destination::parse(text).map(|to| to.to_string());
        for (text, to) in [
            ("+15551234567", "+15551234567"),
            (" +1 (555) 123-45.67 ", "+15551234567"),
            ("sip:anna@pbx.example.com;transport=tls?x=1", "sip:anna@pbx.example.com;transport=tls?x=1"),
            ("sips:pbx.example.com", "sips:pbx.example.com"),
            ("client:anna_1@example.com", "client:anna_1@example.com"),
        ] {
            assert_eq!(said(text).as_deref(), Ok(to));
        }
        for text in [
            "",
            "5551234567",
            "+0555",
            "+",
            "+1",
            "+1555123456789012",
            "+1555x",
            "+١٢٣٤٥",
            "anna",
            "tel:+15551234567",
            "sip:",
            "sip:@host",
            "sip:anna@pbx.example.com</Sip><Number>+900",
            "sip:anna bob@host",
            "client:",
            "client:a<b",
            &format!("client:{}", "a".repeat(256)),
        ] {
            assert!(said(text).is_err(), "{text}");
        }
    }

    #[test]
    fn which_keys_there_are() {
        let said = |text: &str| Keys::parse(text).map(|keys| keys.as_str().to_owned());
        assert_eq!(said(" 1w2W*#ABCD ").as_deref(), Ok("1w2ww*#ABCD"));
        for text in ["", "one", "1 2", "1;2", "E", &"1".repeat(33)] {
            assert!(said(text).is_err(), "{text}");
        }
    }
}
