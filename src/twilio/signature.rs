//! `X-Twilio-Signature`: the HMAC by which a request shows that it comes from the account's Twilio. It is
//! over the URL *as Twilio was told it*, whose host the gateway can only know from `[server] public_url`; the
//! places where Twilio itself is not of one mind (the port, a slash at the end of a WebSocket's path, its
//! scheme) make a small set of candidates, and the one that matched is told.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// A request that is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// Where the public reaches this gateway: scheme, host, and a port if it was told one.
    pub public_url: &'a str,
    /// The port that the request asks for in its `Host`, if it names one. The host that it names says nothing:
    /// whoever has one signature for a host of his own could name that.
    pub port: Option<u16>,
    /// Path and query, as they came.
    pub target: &'a str,
    /// The header, if there was one.
    pub signature: Option<&'a [u8]>,
}

/// Why a request is not taken for Twilio's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    #[error("there is no X-Twilio-Signature")]
    Missing,
    #[error(
        "X-Twilio-Signature matches no token: compare [twilio] auth_token with the account's, and [server] \
         public_url with the URL that Twilio was given"
    )]
    Wrong,
    #[error("the body is not the one that was signed (bodySHA256)")]
    Body,
}

impl Unsigned {
    pub const ALL: [Unsigned; 3] = [Unsigned::Missing, Unsigned::Wrong, Unsigned::Body];

    pub fn as_str(self) -> &'static str {
        match self {
            Unsigned::Missing => "missing",
            Unsigned::Wrong => "wrong",
            Unsigned::Body => "body",
        }
    }
}

/// Judges a WebSocket handshake; answers with the URL that was signed.
pub fn handshake(signed: Signed<'_>, tokens: &[impl AsRef<[u8]>]) -> Result<String, Unsigned> {
    let (scheme, authority) = split(signed.public_url);
    // Twilio streams to wss:// only, whatever is written here.
    let schemes = if scheme == "http" { &["wss", "https", "ws", "http"][..] } else { &["wss", "https"] };
    let (path, query) = match signed.target.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (signed.target, String::new()),
    };
    // Twilio's own advice where the signature of a WebSocket does not match: a slash more.
    let slash = if path.ends_with('/') { path.trim_end_matches('/').to_owned() } else { format!("{path}/") };
    let mut urls = Vec::new();
    for path in [path, &slash] {
        for scheme in schemes {
            urls.extend(
                authorities(scheme, authority, signed.port)
                    .map(|authority| format!("{scheme}://{authority}{path}{query}")),
            );
        }
    }
    matching(signed, tokens, urls, "")
}

/// Judges a webhook, with the fields of its form (none for a GET, whose fields are in its query) or,
/// where the query says `bodySHA256`, with its body; answers with the URL that was signed.
pub fn webhook(
    signed: Signed<'_>,
    tokens: &[impl AsRef<[u8]>],
    body: &[u8],
    is_form: bool,
) -> Result<String, Unsigned> {
    let (scheme, authority) = split(signed.public_url);
    let urls = authorities(scheme, authority, signed.port)
        .map(|authority| format!("{scheme}://{authority}{}", signed.target))
        .collect();
    let hash = query_value(signed.target, "bodySHA256");
    let fields = if is_form && hash.is_none() { fields(body) } else { String::new() };
    let url = matching(signed, tokens, urls, &fields)?;
    match hash {
        Some(hash) if !hex(&Sha256::digest(body)).eq_ignore_ascii_case(&hash) => Err(Unsigned::Body),
        _ => Ok(url),
    }
}

/// The header of a request for this URL, as Twilio would write it: with the fields of its form, if it
/// posts one.
pub fn sign(token: &[u8], url: &str, form: Option<&[u8]>) -> Option<String> {
    let fields = form.map(fields).unwrap_or_default();
    Some(STANDARD.encode(code(token, url, &fields)?.finalize().into_bytes()))
}

/// What Twilio signs with this token, for this URL and these fields in their order.
fn code(token: &[u8], url: &str, fields: &str) -> Option<Hmac<Sha1>> {
    let mut code = Hmac::<Sha1>::new_from_slice(token).ok()?;
    code.update(url.as_bytes());
    code.update(fields.as_bytes());
    Some(code)
}

fn matching(
    signed: Signed<'_>,
    tokens: &[impl AsRef<[u8]>],
    urls: Vec<String>,
    fields: &str,
) -> Result<String, Unsigned> {
    let signature = signed.signature.ok_or(Unsigned::Missing)?;
    let signature = STANDARD.decode(signature).map_err(|_| Unsigned::Wrong)?;
    let is_signed = |url: &String| {
        // The comparison takes the same time wherever the difference is.
        let by = |token: &&_| {
            let code = code(AsRef::as_ref(*token), url, fields);
            code.is_some_and(|code| code.verify_slice(&signature).is_ok())
        };
        tokens.iter().any(|token| by(&token))
    };
    urls.into_iter().find(is_signed).ok_or(Unsigned::Wrong)
}

/// Scheme and authority of a URL, whose path is not ours to say.
fn split(url: &str) -> (&str, &str) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    (scheme, rest.split('/').next().unwrap_or_default())
}

/// The authority as written, without its port, with the port that the scheme has by itself, and with the one that
/// was asked for.
fn authorities<'a>(
    scheme: &str,
    written: &'a str,
    asked: Option<u16>,
) -> impl Iterator<Item = Cow<'a, str>> + use<'a> {
    // The port is behind the last colon, unless that is inside an IPv6 address.
    let bare = match written.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => written,
    };
    let port = if matches!(scheme, "https" | "wss") { 443 } else { 80 };
    let mut known = BTreeSet::new();
    let ports = [Some(port), asked].into_iter().flatten();
    [Cow::Borrowed(written), Cow::Borrowed(bare)]
        .into_iter()
        .chain(ports.map(move |port| Cow::Owned(format!("{bare}:{port}"))))
        .filter(move |authority| known.insert(authority.clone()))
}

/// The fields of a form as they are signed: by name, each value of a name once and in order.
fn fields(body: &[u8]) -> String {
    let mut by_name = BTreeMap::<_, BTreeSet<_>>::new();
    for (name, value) in form_urlencoded::parse(body) {
        by_name.entry(name).or_default().insert(value);
    }
    let mut signed = String::with_capacity(body.len());
    for (name, values) in &by_name {
        for value in values {
            signed.push_str(name);
            signed.push_str(value);
        }
    }
    signed
}

fn query_value<'a>(target: &'a str, wanted: &str) -> Option<Cow<'a, str>> {
    let (_, query) = target.split_once('?')?;
    form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted).map(|(_, value)| value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: [&str; 2] = ["retired", "12345"];

    fn signed<'a>(public_url: &'a str, target: &'a str, signature: &'a str) -> Signed<'a> {
        Signed { public_url, port: None, target, signature: Some(signature.as_bytes()) }
    }

    /// What Twilio's documentation and its libraries' tests give as signatures of the token 12345.
    #[test]
    fn webhooks_as_twilio_signs_them() {
        let call = "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";
        let page = call.replace("5309", "5310");
        let status = "AccountSid=AC00000000000000000000000000000001&CallSid=CA00000000000000000000000000000002\
                      &StreamSid=MZ00000000000000000000000000000003&StreamName=MZ00000000000000000000000000000003\
                      &StreamEvent=stream-started&Timestamp=2026-01-02T03%3A04%3A05.678Z";
        let path = "/myapp.php?foo=1&bar=2";
        for (public_url, target, form, signature) in [
            ("https://example.com", path, page.as_str(), "L/OH5YylLD5NRKLltdqwSvS0BnU="),
            ("https://mycompany.com", path, call, "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
            ("https://mycompany.com:443", path, call, "kvajT1Ptam85bY51eRf/AJRuM3w="),
            ("http://mycompany.com:80", path, call, "0ZXoZLH/DfblKGATFgpif+LLRf4="),
            ("http://mycompany.com:1234", path, call, "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
            (
                "https://mycompany.com",
                path,
                "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234",
                "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
            ),
            ("https://voice.example.com", "/stream_status", status, "m5BEGk1TVBXc5knBkzgvueK/m7Y="),
        ] {
            let url = webhook(signed(public_url, target, signature), &TOKENS, form.as_bytes(), true);
            assert_eq!(url, Ok(format!("{public_url}{target}")), "{signature}");
            let more = format!("{form}&Extra=1");
            let url = webhook(signed(public_url, target, signature), &TOKENS, more.as_bytes(), true);
            assert_eq!(url, Err(Unsigned::Wrong), "a field that was not signed");
        }
    }

    #[test]
    fn with_a_port_or_without_it_is_the_same_server() {
        let body = b"CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";
        let path = "/myapp.php?foo=1&bar=2";
        for (public_url, signature, url) in [
            ("https://mycompany.com", "kvajT1Ptam85bY51eRf/AJRuM3w=", "https://mycompany.com:443"),
            ("https://mycompany.com:8443", "RSOYDt4T1cUTdK1PDd93/VVr8B8=", "https://mycompany.com"),
            ("http://mycompany.com", "0ZXoZLH/DfblKGATFgpif+LLRf4=", "http://mycompany.com:80"),
        ] {
            let seen = webhook(signed(public_url, path, signature), &TOKENS, body, true);
            assert_eq!(seen, Ok(format!("{url}{path}")));
        }
        let ipv6: Vec<_> = authorities("wss", "[::1]", None).collect();
        assert_eq!(ipv6, ["[::1]", "[::1]:443"]);
        let known: Vec<_> = authorities("wss", "[::1]:443", Some(443)).collect();
        assert_eq!(known, ["[::1]:443", "[::1]"], "each once");
    }

    /// What the request says itself is believed of the port, never of the host.
    #[test]
    fn the_port_may_be_the_one_that_was_asked_for() {
        let body = b"CallSid=CA1";
        let (target, asked) = ("/ws/twilio-media", "https://bot.example.com:8443/ws/twilio-media");
        let wss = asked.replace("https", "wss");
        for (public_url, port, is_signed) in [
            ("https://bot.example.com", Some(8443), true),
            ("https://bot.example.com:443", Some(8443), true),
            ("https://bot.example.com:8443", None, true),
            ("https://bot.example.com", Some(8444), false),
            ("https://bot.example.com", None, false),
            ("https://bot.example.org", Some(8443), false),
        ] {
            let header = sign(b"12345", asked, Some(body)).unwrap();
            let request = Signed { port, ..signed(public_url, target, &header) };
            assert_eq!(webhook(request, &TOKENS, body, true).is_ok(), is_signed, "{public_url} {port:?}");
            for url in [asked, &wss] {
                let header = sign(b"12345", url, None).unwrap();
                let request = Signed { port, ..signed(public_url, target, &header) };
                let seen = handshake(request, &TOKENS);
                assert_eq!(seen, if is_signed { Ok(url.to_owned()) } else { Err(Unsigned::Wrong) });
            }
        }
    }

    #[test]
    fn a_body_that_is_no_form_is_signed_by_its_hash() {
        let body = br#"{"property": "value", "boolean": true}"#;
        let target = "/myapp.php?foo=1&bar=2&bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
        let request = signed("https://mycompany.com", target, "a9nBmqA0ju/hNViExpshrM61xv4=");
        assert!(webhook(request, &TOKENS, body, false).is_ok());
        assert_eq!(webhook(request, &TOKENS, b"{}", false), Err(Unsigned::Body));
    }

    #[test]
    fn a_websocket_is_signed_in_one_of_a_few_spellings() {
        for (signature, url) in [
            ("hRFXM6Yh5a7xGgLP/QOeNolPex8=", "wss://voice.example.com/ws/twilio-media"),
            ("kB0fSY6MTOoUFStB02tgsctaIjo=", "wss://voice.example.com/ws/twilio-media/"),
            ("zSTAtIlUuDOvCRJ6aC2zzs6/7FI=", "wss://voice.example.com:443/ws/twilio-media"),
            ("MpU6t5Y6iFj4DurFKcU7zZiT8uk=", "https://voice.example.com/ws/twilio-media"),
        ] {
            for target in ["/ws/twilio-media", "/ws/twilio-media/"] {
                let request = signed("https://voice.example.com", target, signature);
                assert_eq!(handshake(request, &TOKENS), Ok(url.to_owned()), "{target}");
            }
            // TLS may well be terminated where a public_url of http:// says nothing of it.
            let request = signed("http://voice.example.com", "/ws/twilio-media", signature);
            assert_eq!(handshake(request, &TOKENS), Ok(url.to_owned()));
            let elsewhere = signed("https://voice.example.org", "/ws/twilio-media", signature);
            assert_eq!(handshake(elsewhere, &TOKENS), Err(Unsigned::Wrong));
        }
    }

    #[test]
    fn what_is_no_signature_is_refused() {
        let target = "/ws/twilio-media";
        for (signature, why) in [
            (None, Unsigned::Missing),
            (Some(""), Unsigned::Wrong),
            (Some("hRFXM6Yh5a7xGgLP/QOeNolPex8"), Unsigned::Wrong),
            (Some("hRFXM6Yh5a7xGgLP/QOeNolPex9="), Unsigned::Wrong),
            (Some("\u{e9}"), Unsigned::Wrong),
        ] {
            let signature = signature.map(str::as_bytes);
            let request = Signed { public_url: "https://voice.example.com", port: None, target, signature };
            assert_eq!(handshake(request, &TOKENS), Err(why), "{signature:?}");
        }
        let right = signed("https://voice.example.com", target, "hRFXM6Yh5a7xGgLP/QOeNolPex8=");
        assert_eq!(handshake(right, &["54321"]), Err(Unsigned::Wrong));
        assert_eq!(handshake(right, &[] as &[&str]), Err(Unsigned::Wrong));
    }
}
