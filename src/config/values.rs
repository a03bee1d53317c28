//! What a string in the configuration may mean: durations, addresses, paths, URLs.
//!
//! A parser says why it refuses as a predicate ("is not a duration"), without the value: whether
//! that may be shown is for the reader to decide.

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::{Authority, Uri};

pub(super) type Refusal = &'static str;

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `1h30m`, `15m`, `10s`, `250ms`: whole numbers, largest unit first.
pub(super) fn duration(text: &str) -> Result<Duration, Refusal> {
    let mut rest = text;
    let mut total_ms = 0_u64;
    let mut largest = u64::MAX;
    while !rest.is_empty() || largest == u64::MAX {
        let (digits, after) = rest.split_at(end_of(rest, |c| c.is_ascii_digit()));
        let (unit, after) = after.split_at(end_of(after, |c| c.is_ascii_alphabetic()));
        rest = after;
        if unit.is_empty() && after.is_empty() && !digits.is_empty() {
            return Err("has no unit");
        }
        let Some((_, unit_ms)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err("is not a duration");
        };
        if digits.is_empty() || *unit_ms >= largest {
            return Err("is not a duration");
        }
        largest = *unit_ms;
        let part = digits.parse().ok().and_then(|count: u64| count.checked_mul(*unit_ms));
        total_ms = part.and_then(|part| total_ms.checked_add(part)).ok_or("is too large")?;
    }
    Ok(Duration::from_millis(total_ms))
}

/// The way back, for messages: `1h30m`, `250ms`, `0s`.
pub(super) fn show(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut shown = String::new();
    for (unit, unit_ms) in UNITS {
        if rest >= unit_ms {
            shown += &format!("{}{unit}", rest / unit_ms);
            rest %= unit_ms;
        }
    }
    if shown.is_empty() { "0s".to_owned() } else { shown }
}

fn end_of(text: &str, of: impl Fn(char) -> bool) -> usize {
    text.find(|c| !of(c)).unwrap_or(text.len())
}

pub(super) fn flag(text: &str) -> Result<bool, Refusal> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "on" | "yes" => Ok(true),
        "false" | "0" | "off" | "no" => Ok(false),
        _ => Err("is neither true nor false"),
    }
}

/// A key of a telephone; none, where that is written.
pub(super) fn key(text: &str) -> Result<Option<char>, Refusal> {
    let mut keys = text.chars();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) if key.is_ascii_digit() || "*#ABCD".contains(key) => Ok(Some(key)),
        _ => Err("is not a key"),
    }
}

pub(super) fn listen(text: &str) -> Result<SocketAddr, Refusal> {
    text.parse().map_err(|_| "is not an IP address with a port")
}

/// A name that an authority certifies by a look at its port 80.
pub(super) fn certified_name(text: &str) -> Result<String, Refusal> {
    let label = |label: &str| {
        let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(sound)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    match text {
        _ if text.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() => Err("is an IP address"),
        _ if text.contains('*') => Err("is a wildcard, which needs a proof by DNS"),
        _ if text.contains([':', '/']) => Err("is more than a name"),
        _ if !text.split('.').all(label) || text.len() > 253 => Err("is not a host name"),
        _ if !text.contains('.') => Err("has no dot: no authority knows it"),
        _ => Ok(text.to_ascii_lowercase()),
    }
}

/// `host:port` of a server. A name is looked up when it is used, not now.
pub(super) fn server(text: &str) -> Result<String, Refusal> {
    if text.contains("://") {
        return Err("is a URL");
    }
    let authority: Authority = text.parse().map_err(|_| "is not host:port")?;
    match authority.port_u16() {
        _ if text.contains('@') || authority.host().is_empty() => Err("is not host:port"),
        None | Some(0) => Err("has no port"),
        Some(_) => Ok(text.to_owned()),
    }
}

/// The path of a request, as the gateway compares it.
pub(super) fn path(text: &str) -> Result<String, Refusal> {
    if text.contains(['?', '#']) {
        return Err("has a query or a fragment");
    }
    path_and_query(text)
}

pub(super) fn path_and_query(text: &str) -> Result<String, Refusal> {
    if !text.starts_with('/') {
        return Err("does not start with /");
    }
    let sound = !text.contains('#') && text.parse::<http::uri::PathAndQuery>().is_ok();
    if sound { Ok(text.to_owned()) } else { Err("is not a path") }
}

/// `https://bot.example.com`; nothing at all is fine, and is `None`.
pub(super) fn public_url(text: &str) -> Result<Option<String>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let url = url(text)?;
    if url.path_and_query != "/" {
        return Err("has a path");
    }
    Ok(Some(text.trim_end_matches('/').to_owned()))
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    /// `host:port`, the port always said.
    pub(super) server: String,
    pub(super) path_and_query: String,
}

pub(super) fn url(text: &str) -> Result<Url, Refusal> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("does not start with http:// or https://"),
    };
    let authority = uri.authority().ok_or("has no host")?;
    if authority.as_str().contains('@') {
        return Err("has a user or a password in it");
    }
    let has_port = authority.as_str().len() > authority.host().len();
    let port = match authority.port_u16() {
        Some(port) if port > 0 => port,
        None if !has_port => {
            if tls {
                443
            } else {
                80
            }
        }
        _ => return Err("has no sound port"),
    };
    if authority.host().is_empty() {
        return Err("has no host");
    }
    let path_and_query = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(Url { tls, server: format!("{}:{port}", authority.host()), path_and_query: path_and_query.to_owned() })
}

/// The same for a WebSocket, which begins as a request: `ws://` is `http://`, and may be written so.
pub(super) fn ws_url(text: &str) -> Result<Url, Refusal> {
    let as_http = match text.split_once("://") {
        Some(("ws", rest)) => format!("http://{rest}"),
        Some(("wss", rest)) => format!("https://{rest}"),
        Some(("http" | "https", _)) => text.to_owned(),
        _ => return Err("does not start with ws:// or wss://"),
    };
    url(&as_http)
}

/// What may stand in a header that every answer carries.
pub(super) fn header_word(text: &str) -> Result<String, Refusal> {
    match text {
        "" => Err("is empty"),
        _ if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err("has spaces or letters outside ASCII"),
    }
}

/// TwiML: sound XML with the root `<Response>`. Nothing at all is fine, and is nothing.
pub(super) fn twiml(text: &str) -> Result<String, Refusal> {
    use quick_xml::events::Event;
    let text = text.trim();
    let mut reader = quick_xml::Reader::from_str(text);
    let (mut depth, mut roots) = (0_usize, 0);
    loop {
        match reader.read_event().map_err(|_| "is not sound XML")? {
            Event::Eof if depth > 0 => return Err("is not sound XML"),
            Event::Eof if roots == 1 || text.is_empty() => return Ok(text.to_owned()),
            Event::Eof => return Err("is not one <Response>"),
            Event::Start(tag) | Event::Empty(tag) if depth == 0 && tag.name().as_ref() != "Response" => {
                return Err("is not one <Response>");
            }
            Event::Empty(_) => roots += usize::from(depth == 0),
            Event::Start(_) => {
                roots += usize::from(depth == 0);
                depth += 1;
            }
            Event::End(_) => depth = depth.saturating_sub(1),
            Event::Text(words) if depth == 0 && !words.trim().is_empty() => {
                return Err("is not one <Response>");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twiml_is_one_response() {
        for sound in ["", "<Response/>", " <?xml version=\"1.0\"?>\n<Response><Say>a</Say></Response>\n"] {
            assert_eq!(twiml(sound), Ok(sound.trim().to_owned()));
        }
        for (text, why) in [
            ("Sorry", "is not one <Response>"),
            ("<Say>Sorry</Say>", "is not one <Response>"),
            ("<Response/><Response/>", "is not one <Response>"),
            ("<Response>", "is not sound XML"),
            ("<Response></Say>", "is not sound XML"),
        ] {
            assert_eq!(twiml(text), Err(why), "{text}");
        }
    }

    #[test]
    fn durations_are_whole_numbers_with_units() {
        let ms = Duration::from_millis;
        for (text, meant) in [
            ("15m", Ok(ms(900_000))),
            ("10s", Ok(ms(10_000))),
            ("250ms", Ok(ms(250))),
            ("1h30m", Ok(ms(5_400_000))),
            ("1s500ms", Ok(ms(1_500))),
            ("0s", Ok(ms(0))),
            ("10", Err("has no unit")),
            ("1h30", Err("has no unit")),
            ("", Err("is not a duration")),
            ("s", Err("is not a duration")),
            ("1.5s", Err("is not a duration")),
            ("-1s", Err("is not a duration")),
            ("10 s", Err("is not a duration")),
            ("1s1s", Err("is not a duration")),
            ("1m1h", Err("is not a duration")),
            ("2d", Err("is not a duration")),
            ("99999999999999999h", Err("is too large")),
            ("99999999999999999999999s", Err("is too large")),
        ] {
            assert_eq!(duration(text), meant, "{text}");
            if let Ok(meant) = meant {
                assert_eq!(duration(&show(meant)), Ok(meant), "shown as {}", show(meant));
            }
        }
    }

    #[test]
    fn a_key_is_one_of_a_telephone() {
        for (text, meant) in
            [("#", Ok(Some('#'))), ("7", Ok(Some('7'))), ("A", Ok(Some('A'))), ("", Ok(None))]
        {
            assert_eq!(key(text), meant, "{text}");
        }
        for bad in ["##", "a", "w", " ", "é"] {
            assert_eq!(key(bad), Err("is not a key"), "{bad}");
        }
    }

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for good in ["127.0.0.1:5000", "app:80", "[::1]:5000", "speech.example.com:443"] {
            assert_eq!(server(good), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("http://app:5000", "is a URL"),
            ("app", "has no port"),
            ("app:0", "has no port"),
            ("app:x", "has no port"),
            (":5000", "is not host:port"),
            ("me@app:5000", "is not host:port"),
            ("app:5000/x", "is not host:port"),
            ("", "is not host:port"),
        ] {
            assert_eq!(server(bad), Err(why), "{bad}");
        }
    }

    #[test]
    fn a_url_says_where_and_what() {
        let of = |tls, server: &str, path: &str| {
            Ok(Url { tls, server: server.to_owned(), path_and_query: path.to_owned() })
        };
        for (text, meant) in [
            ("http://app:5000/stt?x=1", of(false, "app:5000", "/stt?x=1")),
            ("https://api.example.com/v1", of(true, "api.example.com:443", "/v1")),
            ("http://app", of(false, "app:80", "/")),
            ("http://[::1]:9/x", of(false, "[::1]:9", "/x")),
            ("app:5000", Err("does not start with http:// or https://")),
            ("/stt", Err("does not start with http:// or https://")),
            ("ftp://app/", Err("does not start with http:// or https://")),
            ("http://me:pw@app/", Err("has a user or a password in it")),
            ("http://app:99999/", Err("has no sound port")),
            ("http:// app/", Err("is not a URL")),
        ] {
            assert_eq!(url(text), meant, "{text}");
        }
    }

    #[test]
    fn a_websocket_has_a_url_of_its_own() {
        let of = |tls, server: &str| {
            Ok(Url { tls, server: server.to_owned(), path_and_query: "/ws?x=1".to_owned() })
        };
        assert_eq!(ws_url("ws://app:5000/ws?x=1"), of(false, "app:5000"));
        assert_eq!(ws_url("wss://app/ws?x=1"), of(true, "app:443"));
        assert_eq!(ws_url("ftp://app/"), Err("does not start with ws:// or wss://"));
        assert_eq!(ws_url("ws://me@app/"), Err("has a user or a password in it"));
    }

    #[test]
    fn a_public_url_is_a_host_and_no_more() {
        let https = Ok(Some("https://bot.example.com".to_owned()));
        assert_eq!(public_url(""), Ok(None));
        assert_eq!(public_url("https://bot.example.com"), https);
        assert_eq!(public_url("https://bot.example.com/"), https);
        assert_eq!(public_url("https://bot.example.com/voice"), Err("has a path"));
        assert_eq!(public_url("wss://bot.example.com"), Err("does not start with http:// or https://"));
    }

    #[test]
    fn a_path_starts_with_a_slash() {
        assert_eq!(path("/ws"), Ok("/ws".to_owned()));
        assert_eq!(path("ws"), Err("does not start with /"));
        assert_eq!(path("/ws?a=b"), Err("has a query or a fragment"));
        assert_eq!(path("/w s"), Err("is not a path"));
        assert_eq!(path_and_query("/stt?a=b"), Ok("/stt?a=b".to_owned()));
        assert_eq!(path_and_query("/stt#a"), Err("is not a path"));
    }
}
