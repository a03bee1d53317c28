//! What kind of bytes did a speech service send? A file format, a text that explains an error, or
//! headerless sound. Single magic bytes prove little here: `{` and the MP3 sync word are everyday
//! μ-law, so each suspicion is checked against more of the stream.

use super::encoded::mpeg::{Head, Layer};

/// The kinds that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Wav,
    Mp3,
    Ogg,
    Flac,
    /// A format that is recognised in order to be refused by name.
    Encoded(&'static str),
    Json,
    Markup,
    Text,
    /// Headerless sound, as far as can be seen.
    Raw,
}

/// Enough for every magic number, and where a decoder looks first.
pub(super) const MAGIC: usize = 12;
/// How much of a text is looked at before it is called one: 40 ms of μ-law are never all letters.
const TEXT: usize = 320;

/// `Err(n)`: that cannot be told before there are `n` bytes. `complete`: there will be no more.
pub(super) fn sniff(bytes: &[u8], complete: bool, mp3_announced: bool) -> Result<Content, usize> {
    if bytes.len() < MAGIC && !complete {
        return Err(MAGIC);
    }
    if let Some(content) = magic(bytes) {
        return Ok(content);
    }
    if let Some(mp3) = mpeg(bytes, complete, mp3_announced) {
        return mp3;
    }
    let beginning = &bytes[..bytes.len().min(TEXT)];
    match text(beginning) {
        Some(_) if bytes.len() < TEXT && !complete => Err(TEXT),
        Some(content) => Ok(content),
        None => Ok(Content::Raw),
    }
}

fn magic(bytes: &[u8]) -> Option<Content> {
    let at = |from: usize, magic: &[u8]| bytes.get(from..).is_some_and(|b| b.starts_with(magic));
    Some(match () {
        // Without `WAVE` as well, so that a file cut short is reported as what it was.
        () if at(0, b"RIFF") || at(0, b"RIFX") || at(0, b"RF64") => Content::Wav,
        () if at(0, b"ID3") && bytes.get(3).is_some_and(|v| *v < 0x10) => Content::Mp3,
        () if at(0, b"OggS") => Content::Ogg,
        () if at(0, b"fLaC") => Content::Flac,
        () if at(0, b"\x1A\x45\xDF\xA3") => Content::Encoded("WebM"),
        () if at(4, b"ftyp") => Content::Encoded("MP4"),
        () if at(0, b"FORM") && at(8, b"AIF") => Content::Encoded("AIFF"),
        () if at(0, b".snd\0\0\0") => Content::Encoded("AU"),
        () if at(0, b"\x1F\x8B\x08") => Content::Encoded("gzip"),
        () => return None,
    })
}

/// MPEG audio without a tag: `Some(Ok)` if frame follows frame, `Some(Err(n))` if `n` bytes would
/// tell, `None` if it is something else. Two frames after the first must fit, since quiet μ-law
/// often has one such header and sometimes two; one is enough where MP3 was announced.
fn mpeg(bytes: &[u8], complete: bool, announced: bool) -> Option<Result<Content, usize>> {
    let first = Head::read(bytes)?;
    let found = Some(Ok(match (first.layer, first.len) {
        // Its frames do not say how long they are, so that nothing can be checked.
        (_, 0) if !announced => return None,
        (_, 0) => Content::Encoded("free-format MP3"),
        (Layer::Two, _) => Content::Encoded("MPEG layer II"),
        (Layer::Three, _) => Content::Mp3,
    }));
    let mut len = first.len;
    let mut at = 0;
    for _ in 0..if announced { 1 } else { 2 } {
        at += len;
        match bytes.get(at..at + 4) {
            Some(next) => match Head::read(next) {
                Some(same) if same.goes_with(&first) => len = same.len,
                _ => return None,
            },
            None if complete => return found.filter(|_| announced || bytes.len() == at),
            None => return Some(Err(at + 4)),
        }
    }
    found
}

/// Looks textual: no control characters, and more of letters and spaces than quiet sound has, whose
/// bytes are mostly `{`, `|`, `}` and `~`.
fn text(bytes: &[u8]) -> Option<Content> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    if bytes.iter().any(|b| matches!(b, 0..=8 | 11 | 12 | 14..=31 | 127)) {
        return None;
    }
    let first = *bytes.iter().find(|b| !b.is_ascii_whitespace())?;
    let content = match first {
        b'{' | b'[' => Content::Json,
        b'<' => Content::Markup,
        _ => Content::Text,
    };
    let (valid, broken) = match std::str::from_utf8(bytes) {
        Ok(text) => (text, false),
        // Cut within a character.
        Err(e) if e.error_len().is_none() => {
            (std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default(), false)
        }
        Err(_) => ("", true),
    };
    let (wordy, all) = if broken {
        // An error page in some older encoding is mostly ASCII still.
        let ascii = bytes.iter().filter(|b| b.is_ascii()).count();
        if content == Content::Text || ascii * 10 < bytes.len() * 9 {
            return None;
        }
        (bytes.iter().filter(|b| b.is_ascii_alphanumeric() || b.is_ascii_whitespace()).count(), bytes.len())
    } else {
        (valid.chars().filter(|c| c.is_alphanumeric() || c.is_whitespace()).count(), valid.chars().count())
    };
    let enough = match content {
        Content::Text => wordy * 2 >= all,
        Content::Json => wordy * 4 >= all || matches!(bytes.trim_ascii(), b"{}" | b"[]"),
        Content::Markup => wordy * 4 >= all,
        Content::Wav | Content::Mp3 | Content::Ogg | Content::Flac | Content::Encoded(_) | Content::Raw => {
            false
        }
    };
    enough.then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Content {
        sniff(bytes, true, false).expect("complete input is always told")
    }

    #[test]
    fn formats_by_their_magic() {
        assert_eq!(all(b"RIFF\x24\0\0\0WAVEfmt "), Content::Wav);
        assert_eq!(all(b"ID3\x04\0\0\0\0\0\x23TSSE"), Content::Mp3);
        assert_eq!(all(b"OggS\0\x02\0\0\0\0\0\0\0\0"), Content::Ogg);
        assert_eq!(all(b"fLaC\0\0\0\x22\x10\0"), Content::Flac);
        assert_eq!(all(b"\0\0\0\x20ftypM4A \0"), Content::Encoded("MP4"));
        assert_eq!(sniff(b"RIFF", false, false), Err(MAGIC));
    }

    #[test]
    fn mp3_is_frames_that_follow_each_other() {
        // MPEG 1 layer III, 128 kbit/s, 44.1 kHz: 417 bytes a frame.
        let mut frame = vec![0u8; 417];
        frame[..4].copy_from_slice(&[0xFF, 0xFB, 0x90, 0x44]);
        let three = frame.repeat(3);
        assert_eq!(all(&three), Content::Mp3);
        assert_eq!(sniff(&three[..12], false, false), Err(421));
        assert_eq!(sniff(&three[..421], false, false), Err(838));
        assert_eq!(sniff(&three[..421], false, true), Ok(Content::Mp3));
        assert_eq!(sniff(&three[..838], false, false), Ok(Content::Mp3));
        // MPEG 2 layer III, 48 kbit/s, 24 kHz: what OpenAI sends, 144 bytes a frame.
        let mut frame = [0x55u8; 144];
        frame[..4].copy_from_slice(&[0xFF, 0xF3, 0x64, 0xC4]);
        assert_eq!(all(&frame.repeat(3)), Content::Mp3);
        // What is refused by name; without an announcement the second proves nothing.
        frame[..2].copy_from_slice(&[0xFF, 0xF5]);
        let two = mpeg(&frame.repeat(9), true, true);
        assert_eq!(two, Some(Ok(Content::Encoded("MPEG layer II"))));
        let free = [0xFF, 0xFB, 0x00, 0xC4, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55];
        assert_eq!(sniff(&free, true, true), Ok(Content::Encoded("free-format MP3")));
        assert_eq!(sniff(&free, true, false), Ok(Content::Raw));
        // A quiet beginning of μ-law.
        let mut quiet: Vec<u8> = (0..900).map(|i| [0xFF, 0xFB, 0x7D, 0xFE, 0x7B][i % 5]).collect();
        assert_eq!(all(&quiet), Content::Raw);
        quiet[0..4].copy_from_slice(&[0xFF, 0xFB, 0x90, 0xFD]);
        assert_eq!(all(&quiet), Content::Raw);
    }

    #[test]
    fn texts() {
        assert_eq!(all(br#"{"error":{"message":"invalid api key"}}"#), Content::Json);
        assert_eq!(all(b" \r\n [1, 2, 3]"), Content::Json);
        assert_eq!(all(b"{}"), Content::Json);
        assert_eq!(all(b"\xEF\xBB\xBF{\"detail\":\"quota\"}"), Content::Json);
        assert_eq!(all(b"<!DOCTYPE html><html><head><title>502"), Content::Markup);
        assert_eq!(all(b"<html><body>D\xE9sol\xE9, une erreur est survenue</body></html>"), Content::Markup);
        assert_eq!(all(b"Unauthorized"), Content::Text);
        assert_eq!(all("Превышена квота".as_bytes()), Content::Text);
        let long = "ошибка ".repeat(60);
        assert_eq!(sniff(&long.as_bytes()[..319], false, false), Err(TEXT));
        assert_eq!(sniff(&long.as_bytes()[..321], false, false), Ok(Content::Text));
    }

    #[test]
    fn quiet_sound_below_zero_is_no_text() {
        let quiet: Vec<u8> = (0..600).map(|i| b"{|}~"[(i * i + i / 3) % 4]).collect();
        assert_eq!(all(&quiet), Content::Raw);
        assert_eq!(all(&[0xFF; 400]), Content::Raw);
        assert_eq!(all(&[0; 400]), Content::Raw);
        assert_eq!(all(b""), Content::Raw);
    }
}
