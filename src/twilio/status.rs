//! The stream status callback: a form that the carrier posts (or sends as a query) when a stream
//! starts, stops or fails. It annotates a call; it never drives one.

/// What a status callback said. Empty where it said nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamStatus {
    pub call_sid: String,
    pub stream_sid: String,
    /// `stream-started`, `stream-stopped` or `stream-error`.
    pub event: String,
    pub error: String,
}

impl StreamStatus {
    /// Reads an `application/x-www-form-urlencoded` body or query; never fails.
    pub fn read(form: &[u8]) -> StreamStatus {
        let mut status = StreamStatus::default();
        for (name, value) in form_urlencoded::parse(form) {
            let field = match name.as_ref() {
                "CallSid" => &mut status.call_sid,
                "StreamSid" => &mut status.stream_sid,
                "StreamEvent" => &mut status.event,
                "StreamError" => &mut status.error,
                _ => continue,
            };
            *field = value.chars().filter(|c| !c.is_control()).take(300).collect();
        }
        status
    }

    /// The 319xx code that the error text names, if it names one.
    pub fn code(&self) -> Option<u16> {
        self.error
            .split(|c: char| !c.is_ascii_digit())
            .find(|word| word.len() == 5 && word.starts_with("319"))
            .and_then(|word| word.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_as_twilio_posts_it() {
        let form = b"AccountSid=AC1&CallSid=CA2&StreamSid=MZ3&StreamName=MZ3&StreamEvent=stream-error\
                     &StreamError=Stream+failed+%2831920%29%0d%0a&Timestamp=2026-01-02T03%3A04%3A05.678Z";
        let status = StreamStatus::read(form);
        assert_eq!(status.call_sid, "CA2");
        assert_eq!(status.stream_sid, "MZ3");
        assert_eq!(status.event, "stream-error");
        assert_eq!(status.error, "Stream failed (31920)");
        assert_eq!(status.code(), Some(31920));
    }

    #[test]
    fn nonsense_says_nothing() {
        assert_eq!(StreamStatus::read(b"\xff\xfe{}=%zz&&&="), StreamStatus::default());
        assert_eq!(StreamStatus::read(b"").code(), None);
    }
}
