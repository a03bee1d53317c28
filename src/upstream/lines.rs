//! A streamed answer, cut into records: one a line (NDJSON) or one an event (server-sent events).
//! Bytes come in pieces cut anywhere, also within a character or a line end; what comes out does not
//! depend on where they were cut. No line and no event may be longer than `LONGEST`.

/// The longest line, and the most data of one event, in bytes.
pub(super) const LONGEST: usize = 64 * 1024;

/// A line or an event had more than `LONGEST` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Every line that is not blank is a record.
    Ndjson,
    /// The `data` of every event is a record; its name, id and retry time mean nothing to us.
    Sse,
}

/// Cuts bytes into records.
#[derive(Debug)]
pub(super) struct Records {
    framing: Framing,
    lines: Lines,
    /// The data of the event under way; several `data` lines are joined by line feeds.
    data: Option<String>,
}

impl Records {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, lines: Lines::default(), data: None }
    }

    /// Takes the next bytes and appends the records that they complete.
    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<String>) -> Result<(), TooLong> {
        while let Some(line) = self.lines.next(&mut bytes)? {
            self.line(&line, out)?;
        }
        Ok(())
    }

    /// The answer is complete. A last record that lacks its line end (or blank line) counts: many
    /// servers forget it, and a record that was cut short does not parse anyway.
    pub(super) fn finish(&mut self, out: &mut Vec<String>) -> Result<(), TooLong> {
        if let Some(line) = self.lines.rest() {
            self.line(&line, out)?;
        }
        out.extend(self.data.take());
        Ok(())
    }

    fn line(&mut self, line: &str, out: &mut Vec<String>) -> Result<(), TooLong> {
        match self.framing {
            Framing::Ndjson => {
                if !line.trim().is_empty() {
                    out.push(line.to_owned());
                }
            }
            Framing::Sse if line.is_empty() => out.extend(self.data.take()),
            Framing::Sse => {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                // Anything else is a comment (an empty name) or a field that we have no use for.
                if field == "data" {
                    let value = value.strip_prefix(' ').unwrap_or(value);
                    match &mut self.data {
                        None => self.data = Some(value.to_owned()),
                        Some(data) if data.len() + 1 + value.len() > LONGEST => return Err(TooLong),
                        Some(data) => {
                            data.push('\n');
                            data.push_str(value);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Cuts bytes into lines, which end with LF, CR LF or CR.
#[derive(Debug, Default)]
struct Lines {
    /// The line under way.
    held: Vec<u8>,
    /// The last line ended with a CR: a LF that follows belongs to it.
    after_cr: bool,
    /// A first line was seen: a byte order mark may no longer come.
    begun: bool,
}

impl Lines {
    /// The next complete line, taken from the front of `bytes`; `None` once all of them are held.
    fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<String>, TooLong> {
        if self.after_cr && !bytes.is_empty() {
            self.after_cr = false;
            *bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        let end = bytes.iter().position(|&b| b == b'\n' || b == b'\r');
        let (piece, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        if self.held.len() + piece.len() > LONGEST {
            return Err(TooLong);
        }
        self.held.extend_from_slice(piece);
        let Some((&line_end, rest)) = rest.split_first() else {
            *bytes = &[];
            return Ok(None);
        };
        *bytes = rest;
        self.after_cr = line_end == b'\r';
        Ok(Some(self.take()))
    }

    /// A last line without its end.
    fn rest(&mut self) -> Option<String> {
        (!self.held.is_empty()).then(|| self.take())
    }

    /// Only a whole line is made text, so that no character is ever cut.
    fn take(&mut self) -> String {
        let held = std::mem::take(&mut self.held);
        let line = match held.strip_prefix("\u{feff}".as_bytes()) {
            Some(line) if !self.begun => line,
            _ => &held,
        };
        self.begun = true;
        String::from_utf8_lossy(line).into_owned()
    }
}

/// Text from bytes cut anywhere: an unfinished character waits for its rest. What is not UTF-8
/// becomes U+FFFD.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    held: Vec<u8>,
}

impl Utf8 {
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut whole = self.held.len();
        // The longest character has four bytes: an unfinished one is among the last three.
        for back in 1..=self.held.len().min(3) {
            let start = self.held.len() - back;
            let wants = match self.held[start] {
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                0x80..=0xbf => continue,
                _ => 1,
            };
            if wants > back {
                whole = start;
            }
            break;
        }
        let rest = self.held.split_off(whole);
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held = rest;
        text
    }

    /// The text is complete: a character that never was becomes U+FFFD.
    pub(super) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The records of an answer that comes in these pieces, up to a failure.
    fn records<'a>(
        framing: Framing,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<String>, Result<(), TooLong>) {
        let (mut records, mut out) = (Records::new(framing), Vec::new());
        for piece in pieces {
            if let Err(error) = records.push(piece, &mut out) {
                return (out, Err(error));
            }
        }
        let end = records.finish(&mut out);
        (out, end)
    }

    #[track_caller]
    fn check(framing: Framing, answer: &str, expected: &[&str]) {
        let expected = (expected.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), Ok(()));
        assert_eq!(records(framing, [answer.as_bytes()]), expected, "in one piece");
        assert_eq!(records(framing, answer.as_bytes().chunks(1)), expected, "byte by byte");
    }

    #[test]
    fn lines_end_in_three_ways_and_blank_ones_say_nothing() {
        check(Framing::Ndjson, "a\nb\r\nc\rd", &["a", "b", "c", "d"]);
        check(Framing::Ndjson, "\n \r\n\r\ra\n\n", &["a"]);
        check(Framing::Ndjson, "", &[]);
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        check(Framing::Ndjson, "\u{feff}a\n\u{feff}b", &["a", "\u{feff}b"]);
        check(Framing::Sse, "\u{feff}data: a\n\n", &["a"]);
    }

    #[test]
    fn an_event_is_its_data() {
        check(Framing::Sse, "data: a\n\ndata:b\r\n\r\ndata:  c\r\r", &["a", "b", " c"]);
        check(Framing::Sse, "data: a\ndata: b\n\n", &["a\nb"]);
        check(Framing::Sse, "data: a\r\ndata: b\r\n\r\n", &["a\nb"]);
        check(Framing::Sse, "event: delta\nid: 7\nretry: 10\n: hello\ndata: a\n\n", &["a"]);
    }

    #[test]
    fn an_event_without_data_is_none() {
        check(Framing::Sse, ": ping\n\nevent: end\n\n\n\ndatabase: x\n\n", &[]);
        check(Framing::Sse, "data\n\n", &[""]);
    }

    #[test]
    fn the_last_event_may_lack_its_blank_line() {
        check(Framing::Sse, "data: a\n\ndata: [DONE]", &["a", "[DONE]"]);
    }

    #[test]
    fn a_character_may_come_in_two_pieces() {
        check(Framing::Ndjson, "\"öffnen 🎉\"\n", &["\"öffnen 🎉\""]);
    }

    #[test]
    fn a_line_has_a_bound_with_and_without_its_end() {
        let most = "x".repeat(LONGEST);
        check(Framing::Ndjson, &format!("{most}\na"), &[&most, "a"]);
        for end in ["", "\n"] {
            let answer = format!("a\n{most}x{end}");
            for size in [1, 1000, answer.len()] {
                let got = records(Framing::Ndjson, answer.as_bytes().chunks(size));
                assert_eq!(got, (vec!["a".to_owned()], Err(TooLong)));
            }
        }
    }

    #[test]
    fn an_event_has_a_bound_over_its_lines() {
        let line = format!("data: {}\n", "x".repeat(LONGEST / 4));
        assert_eq!(records(Framing::Sse, [line.repeat(5).as_bytes()]), (Vec::new(), Err(TooLong)));
    }

    #[test]
    fn text_is_given_out_as_soon_as_its_characters_are_whole() {
        let mut utf8 = Utf8::default();
        let bytes = "aü🎉".as_bytes();
        let got: Vec<String> = bytes.chunks(1).map(|b| utf8.push(b)).collect();
        assert_eq!(got, ["a", "", "ü", "", "", "", "🎉"]);
        assert_eq!(utf8.push(&[b'a', 0xe2, 0x82]), "a");
        assert_eq!(utf8.finish(), "\u{fffd}");
        assert_eq!(utf8.push(&[0xff, b'b', 0x80]), "\u{fffd}b\u{fffd}");
    }

    /// Bytes that look like a stream, and where to cut them.
    fn cut_stream() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
        let part = prop_oneof![
            Just("data: ".as_bytes().to_vec()),
            Just(b"data".to_vec()),
            Just(b":".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n\n".to_vec()),
            Just("\u{feff}".as_bytes().to_vec()),
            Just("{\"delta\":\"grüß 🎉\"}".as_bytes().to_vec()),
            Just(vec![0xf0, 0x9f]),
            Just(vec![0xff]),
            Just(vec![b'x'; LONGEST / 2]),
        ];
        proptest::collection::vec(part, 0..24)
            .prop_map(|parts| parts.concat())
            .prop_flat_map(|bytes| {
                let cuts = proptest::collection::vec(0..=bytes.len(), 0..12);
                (Just(bytes), cuts)
            })
            .prop_map(|(bytes, mut cuts)| {
                cuts.sort_unstable();
                (bytes, cuts)
            })
    }

    fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut from = 0;
        let mut pieces: Vec<&[u8]> = Vec::new();
        for &cut in cuts.iter().chain([&bytes.len()]) {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        pieces
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_cut_makes_no_difference((bytes, cuts) in cut_stream()) {
            for framing in [Framing::Sse, Framing::Ndjson] {
                let whole = records(framing, [&bytes[..]]);
                prop_assert_eq!(records(framing, pieces(&bytes, &cuts)), whole);
            }
            let mut utf8 = Utf8::default();
            let mut text: String = pieces(&bytes, &cuts).into_iter().map(|p| utf8.push(p)).collect();
            text.push_str(&utf8.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }
    }
}
