//! What a request asks for: one path, for whoever reads it. The dispatch judges the path as Pingora has read
//! it, and the app reads the bytes of the request line: a target in which those two could be different
//! paths is refused, and a whole URL is passed on as its path.

use http::{Method, Version, header};
use pingora::http::RequestHeader;
use pingora::http::authority::{RawTargetAuthority, raw_target_authority};

const NO_PATH: &str = "a request asks for a path, or for a whole http:// or https:// URL\n";
const NO_TEXT: &str = "a path is written in UTF-8\n";

/// Has the request ask for a path; or says why it is refused.
pub(super) fn settle(request: &mut RequestHeader) -> Result<(), &'static str> {
    let target = request.raw_path();
    if target == b"*" && request.method == Method::OPTIONS {
        return Ok(());
    }
    if target.first() != Some(&b'/') {
        from_url(request)?;
    }
    // Where bytes are no text, Pingora has replaced them in what is judged, but not in what is sent.
    match request.raw_path_is_utf8() || path_of(request.raw_path()) == request.uri.path().as_bytes() {
        true => Ok(()),
        false => Err(NO_TEXT),
    }
}

/// Leaves the path of a URL. Its host is the one in `Host`, or Pingora would have refused it.
fn from_url(request: &mut RequestHeader) -> Result<(), &'static str> {
    let RawTargetAuthority::Absolute { scheme, authority, path_and_query } =
        raw_target_authority(request.raw_path())
    else {
        return Err(NO_PATH);
    };
    // HTTP/2 has a field of its own for each part.
    if request.version > Version::HTTP_11
        || ![b"http".as_slice(), b"https"].iter().any(|it| scheme.eq_ignore_ascii_case(it))
    {
        return Err(NO_PATH);
    }
    let mut path = path_and_query.to_vec();
    if path.first() != Some(&b'/') {
        path.insert(0, b'/');
    }
    let host = authority.to_vec();
    if !request.headers.contains_key(header::HOST) {
        request.insert_header(header::HOST, host).map_err(|_| NO_PATH)?;
    }
    request.set_raw_path(&path).map_err(|_| NO_PATH)
}

fn path_of(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is judged, and what the app gets, if anything.
    fn settled(method: Method, target: &[u8]) -> Option<(String, Vec<u8>)> {
        let mut request = RequestHeader::build(method, target, None).ok()?;
        request.set_version(Version::HTTP_11);
        settle(&mut request).ok()?;
        Some((request.uri.path().to_owned(), request.raw_path().to_vec()))
    }

    #[test]
    fn what_is_judged_is_what_the_app_gets() {
        for (target, path, sent) in [
            ("/", "/", "/"),
            ("/a/b?c=://d", "/a/b", "/a/b?c=://d"),
            ("//a/b", "//a/b", "//a/b"),
            ("/a:/b", "/a:/b", "/a:/b"),
            ("/a#b", "/a", "/a"),
            ("/caf\u{e9}", "/caf\u{e9}", "/caf\u{e9}"),
            ("http://x/a/b?c", "/a/b", "/a/b?c"),
            ("HTTPS://x:1/a", "/a", "/a"),
            ("http://x", "/", "/"),
            ("http://x?c", "/", "/?c"),
            ("http://x//a/b", "//a/b", "//a/b"),
        ] {
            let (judged, got) = settled(Method::POST, target.as_bytes()).unwrap();
            assert_eq!((judged.as_str(), got.as_slice()), (path, sent.as_bytes()), "{target}");
        }
        assert_eq!(settled(Method::OPTIONS, b"*").unwrap().1, b"*");
        // A query is for the app alone.
        assert_eq!(settled(Method::GET, b"/a?b=\xff").unwrap(), ("/a".to_owned(), b"/a?b=\xff".to_vec()));
    }

    #[test]
    fn what_the_app_could_read_as_another_path_is_refused() {
        for target in [
            b"x:/webhook/incoming_call?a=://".as_slice(),
            b"webhook/incoming_call?y=:&x=a://b",
            b"webhook/incoming_call",
            b"?/webhook/incoming_call",
            b"*",
            b"*/webhook/incoming_call",
            b"x://y/webhook/incoming_call",
            b"ws://y/webhook/incoming_call",
            b"http:/webhook/incoming_call",
            b"http:///webhook/incoming_call",
            b"http:webhook/incoming_call",
            b"http://y\\webhook/incoming_call",
            b"://y/webhook/incoming_call",
            b":/webhook/incoming_call",
            b"bot.example.com:443",
            b"/webhook/\xffincoming_call",
            b"/webhook/\xef\xbf\xbd\xffincoming_call?x",
            b"http://y/webhook/\xffincoming_call",
        ] {
            let settled = settled(Method::POST, target);
            assert_eq!(settled, None, "{}", String::from_utf8_lossy(target));
        }
    }

    #[test]
    fn a_url_says_the_host_where_nothing_else_does() {
        for (host, told) in [(None, "x:1"), (Some("x"), "x")] {
            let mut request = RequestHeader::build(Method::GET, b"http://x:1/a", None).unwrap();
            request.set_version(Version::HTTP_10);
            if let Some(host) = host {
                request.insert_header(header::HOST, host).unwrap();
            }
            settle(&mut request).unwrap();
            assert_eq!(request.headers[header::HOST], told);
        }
    }
}
