//! MP3: tags passed over, frames cut by the lengths in their headers, and the samples dropped that the
//! encoder added at both ends.

use super::codec::{Codec, Fault};
use super::mpeg::{Head, Layer, Tag};
use super::{ASTRAY_MAX, Faults, Output, Step, TAG_MAX};
use crate::audio::NotSpeech;

const NAME: &str = "MP3";
const ID3V2: &[u8] = b"ID3";

#[derive(Default)]
pub(super) struct Mp3 {
    stream: Option<Stream>,
    /// Whether the last bytes taken were a frame, so that the next one is expected to follow.
    in_step: bool,
    /// Bytes passed over since the last frame.
    astray: u64,
    faults: Faults,
    trim: Trim,
}

struct Stream {
    head: Head,
    codec: Codec,
}

impl Mp3 {
    pub(super) fn step(
        &mut self,
        bytes: &[u8],
        complete: bool,
        out: &mut Output<'_>,
    ) -> Result<Step, NotSpeech> {
        if let Some(step) = id3v2(bytes, complete)? {
            return Ok(step);
        }
        let head = match Head::read(bytes) {
            Some(head) => head,
            None if bytes.len() < 4 && !complete => return Ok(Step::More),
            None => return self.pass(bytes),
        };
        // A frame that does not follow another one is believed when one follows it.
        let expected = self.in_step && self.stream.as_ref().is_some_and(|s| s.head.goes_with(&head));
        if head.len == 0 {
            return match self.stream {
                None => Err(NotSpeech::Encoded("free-format MP3")),
                Some(_) => self.pass(bytes),
            };
        }
        if !expected {
            match bytes.get(head.len..head.len + 4).map(Head::read) {
                Some(Some(next)) if next.goes_with(&head) => {}
                None if !complete => return Ok(Step::More),
                None if bytes.len() == head.len => {}
                _ => return self.pass(bytes),
            }
        }
        let Some(frame) = bytes.get(..head.len) else {
            // Half a frame at the end of all: half of it would be noise.
            return Ok(if complete { Step::Take(bytes.len() as u64) } else { Step::More });
        };
        if head.layer == Layer::Two {
            return Err(NotSpeech::Encoded("MPEG layer II"));
        }
        self.frame(frame, head, out)?;
        self.in_step = true;
        self.astray = 0;
        Ok(Step::Take(head.len as u64))
    }

    fn frame(&mut self, frame: &[u8], head: Head, out: &mut Output<'_>) -> Result<(), NotSpeech> {
        let dead = || NotSpeech::Broken(NAME, "its decoder gave up");
        // An encoder that writes to a pipe cannot come back to fill in what it left room for.
        let empty = self.stream.is_none() && frame[4..].iter().all(|b| *b == 0);
        let stream = match &mut self.stream {
            Some(stream) if stream.head.goes_with(&head) => {
                // What was lost holds bits of the frames to come, and others would be taken for them.
                if !self.in_step {
                    stream.codec.reset();
                }
                stream
            }
            other => other.insert(Stream { head, codec: Codec::mp3().ok_or_else(dead)? }),
        };
        if empty {
            return Ok(());
        }
        if let Some(tag) = Tag::read(frame, &head) {
            stream.codec.reset();
            self.trim = Trim::new(tag);
            return Ok(());
        }
        match stream.codec.decode(frame) {
            Ok(sound) => {
                self.faults.good();
                self.trim.play(sound.mono, |mono| out.play(sound.rate, sound.channels, mono));
            }
            Err(Fault::Packet) => {
                self.faults.bad(NAME)?;
                let silence = vec![0.0; head.samples];
                self.trim.play(&silence, |mono| out.play(head.rate, head.channels, mono));
            }
            Err(Fault::Decoder) => return Err(dead()),
        }
        Ok(())
    }

    /// Passes over what is no frame, up to where the next one may begin.
    fn pass(&mut self, bytes: &[u8]) -> Result<Step, NotSpeech> {
        let begins = |b: &u8| *b == 0xFF || *b == ID3V2[0];
        let len = bytes.iter().skip(1).position(begins).map_or(bytes.len(), |at| at + 1) as u64;
        self.in_step = false;
        self.astray += len;
        if self.astray > ASTRAY_MAX {
            return Err(NotSpeech::Broken(NAME, "64 KiB without a frame"));
        }
        Ok(Step::Take(len))
    }
}

/// A tag before the sound, or between two files.
fn id3v2(bytes: &[u8], complete: bool) -> Result<Option<Step>, NotSpeech> {
    if !bytes.starts_with(&ID3V2[..bytes.len().min(3)]) {
        return Ok(None);
    }
    let Some(&[_, _, _, version, _, flags, a, b, c, d]) = bytes.get(..10) else {
        return Ok((!complete).then_some(Step::More));
    };
    if version >= 0x10 || (a | b | c | d) >= 0x80 {
        return Ok(None);
    }
    let len = [a, b, c, d].iter().fold(0u64, |n, b| n << 7 | u64::from(*b));
    let footer = if flags & 0x10 != 0 { 10 } else { 0 };
    match 10 + len + footer {
        len if len > TAG_MAX => Err(NotSpeech::Broken(NAME, "a tag of more than 16 MiB")),
        len => Ok(Some(Step::Take(len))),
    }
}

/// Drops what the encoder added.
#[derive(Default)]
struct Trim {
    delay: usize,
    /// Frames and samples to come, where the file says so.
    length: Option<(u64, u64)>,
    /// Samples beyond the length: padding, unless more frames come than there should.
    tail: Vec<f32>,
}

impl Trim {
    fn new(tag: Tag) -> Trim {
        Trim { delay: tag.delay, length: tag.length, tail: Vec::new() }
    }

    /// One frame.
    fn play(&mut self, samples: &[f32], mut play: impl FnMut(&[f32])) {
        if self.length.is_some_and(|(frames, _)| frames == 0) {
            // The length was wrong, as in a file that was written while it grew.
            self.length = None;
            play(&std::mem::take(&mut self.tail));
        }
        let (added, samples) = samples.split_at(self.delay.min(samples.len()));
        self.delay -= added.len();
        match &mut self.length {
            None => play(samples),
            Some((frames, left)) => {
                let now = samples.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                let (proper, padding) = samples.split_at(now);
                *left -= now as u64;
                *frames -= 1;
                self.tail.extend_from_slice(padding);
                play(proper);
            }
        }
    }
}
