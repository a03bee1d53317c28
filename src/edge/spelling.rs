//! What a path means to a server that decodes it, cleans it up or does not mind its case. Some app
//! behind us is such a server: another spelling of a path of ours must not be a way around the gateway.

/// How often a path may have been encoded: beyond that no server goes along.
const MOST_TIMES: usize = 3;

/// A path's segments as such a server has them.
#[derive(Debug, PartialEq, Eq)]
pub struct Spelling(Vec<String>);

impl Spelling {
    pub fn of(path: &str) -> Spelling {
        let mut path = path.to_owned();
        for _ in 0..MOST_TIMES {
            if !path.contains('%') {
                break;
            }
            path = decoded(&path);
        }
        // RFC 3986, section 5.2.4, but for what stands behind a semicolon, which some servers leave out.
        let segments = path.split(['/', '\\']).map(|segment| segment.split(';').next().unwrap_or_default());
        Spelling(segments.fold(Vec::new(), |mut segments, segment| {
            match segment {
                "" | "." => {}
                ".." => drop(segments.pop()),
                segment => segments.push(segment.to_ascii_lowercase()),
            }
            segments
        }))
    }

    /// Whether it is a way to write the path `own`.
    pub fn means(&self, own: &str) -> bool {
        *self == Spelling::of(own)
    }

    /// Whether it is `own` with one more segment.
    pub fn is_below(&self, own: &str) -> bool {
        self.0.split_last().is_some_and(|(_, above)| *above == Spelling::of(own).0)
    }
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
        let means_it = |path| Spelling::of(path).means("/ws/twilio-media");
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
        let below = |path| Spelling::of(path).is_below("/ws/twilio-media");
        assert!(below("/ws//twilio-media/token") && below("/WS/twilio-media/x/"));
        assert!(!below("/ws/twilio-media/") && !below("/ws/twilio-media/a/b") && !below("/ws/other/x"));
    }

    proptest! {
        #[test]
        fn any_path_can_be_read(path in "(/|%|2|e|E|[.]|;|é|x){0,30}") {
            Spelling::of(&path);
        }
    }
}
