//! What a path means to a server that decodes it, cleans it up or does not mind its case. Some app
//! behind us is such a server: another spelling of a path of ours must not be a way around the gateway.

use std::borrow::Cow;

/// How often a path may have been encoded: beyond that no server goes along.
const MOST_TIMES: usize = 3;

/// A path as such a server has it: its segments, with a slash before each. Most paths are written so, and
/// are only borrowed.
#[derive(Debug, PartialEq, Eq)]
pub struct Spelling<'p>(Cow<'p, str>);

impl Spelling<'_> {
    pub fn of(path: &str) -> Spelling<'_> {
        Spelling(if is_plain(path) { Cow::Borrowed(path) } else { Cow::Owned(cleaned(path)) })
    }

    /// One to be kept.
    pub fn kept(path: &str) -> Spelling<'static> {
        Spelling(Cow::Owned(cleaned(path)))
    }

    /// Whether it is a way to write the same path.
    pub fn means(&self, own: &Spelling) -> bool {
        self == own
    }

    /// Whether it is `own` with one more segment.
    pub fn is_below(&self, own: &Spelling) -> bool {
        self.0.rsplit_once('/').is_some_and(|(above, _)| above == own.0)
    }
}

/// Whether there is nothing to clean up. In doubt there is.
fn is_plain(path: &str) -> bool {
    let mut before = 0;
    let plain = path.bytes().all(|byte| {
        let special = matches!(byte, b'%' | b'\\' | b';') || byte.is_ascii_uppercase();
        let empty_or_dots = before == b'/' && matches!(byte, b'/' | b'.');
        before = byte;
        !special && !empty_or_dots
    });
    plain && path.starts_with('/') && before != b'/'
}

fn cleaned(path: &str) -> String {
    let mut path = Cow::Borrowed(path);
    for _ in 0..MOST_TIMES {
        if !path.contains('%') {
            break;
        }
        path = Cow::Owned(decoded(&path));
    }
    let mut clean = String::with_capacity(path.len() + 1);
    // RFC 3986, section 5.2.4, but for what stands behind a semicolon, which some servers leave out.
    for segment in path.split(['/', '\\']).map(|segment| segment.split(';').next().unwrap_or_default()) {
        match segment {
            "" | "." => {}
            ".." => clean.truncate(clean.rfind('/').unwrap_or(0)),
            segment => {
                clean.push('/');
                clean.extend(segment.chars().map(|c| c.to_ascii_lowercase()));
            }
        }
    }
    clean
}

fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[2..]);
            }
            None => {
                bytes.push(b'%');
                bytes.extend_from_slice(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_a_path() {
        let own = Spelling::kept("/ws/twilio-media");
        let means_it = |path| Spelling::of(path).means(&own);
        for path in [
            "/ws/twilio-media",
            "//ws/twilio-media",
            "/ws/%74wilio-media/",
            "/ws%2Ftwilio-media",
            "/ws%5ctwilio-media",
            "/x/../ws/./twilio-media",
            "/x/%2e%2E/ws/twilio-media",
            "/ws/%2574wilio-media",
            "/WS/Twilio-Media",
            "/ws;a=b/twilio-media;c",
        ] {
            assert!(means_it(path), "{path}");
        }
        for path in ["/", "", "/ws", "/ws/twilio-media/../x", "/ws/twilio-media/x", "/%", "/ws/twilio-media%"]
        {
            assert!(!means_it(path), "{path}");
        }
    }

    #[test]
    fn one_segment_more() {
        let own = Spelling::kept("/ws/Twilio-Media/");
        let below = |path| Spelling::of(path).is_below(&own);
        assert!(below("/ws//twilio-media/token") && below("/WS/twilio-media/x/"));
        assert!(!below("/ws/twilio-media/") && !below("/ws/twilio-media/a/b") && !below("/ws/other/x"));
    }

    proptest! {
        #[test]
        fn any_path_can_be_read(path in "(/|%|2|e|E|[.]|;|é|x){0,30}") {
            prop_assert_eq!(Spelling::of(&path), Spelling::kept(&path));
        }

        #[test]
        fn a_plain_path_is_as_if_it_had_been_cleaned(path in "(/|/a|/[.]|[.]|b|A|[\\\\]){0,8}") {
            prop_assert_eq!(Spelling::of(&path), Spelling::kept(&path));
        }
    }
}
