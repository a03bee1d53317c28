//! MP3, Ogg Vorbis and FLAC, decoded while they arrive.
//!
//! `symphonia` decodes the packets; finding them is done here. Its container readers pull from a
//! source that must answer or be at its end, look ahead by pages, and would have to be wound back
//! and asked again after every chunk. A frame of MP3 says its own length, a page of Ogg and a frame
//! of FLAC are as easily cut, and what is cut here is bounded here: nothing is held but the one
//! frame, packet or header that is not complete yet, and tags with their pictures are not held at all.
//!
//! Each container is a `step`: shown all bytes that have not been taken, it takes some off the front
//! or asks for more. What it decides never depends on how many bytes there are beyond those it needs,
//! so that chunks make no difference to the sound.

mod codec;
mod flac;
mod mp3;
pub(super) mod mpeg;
mod ogg;
mod vorbis;

#[cfg(test)]
mod tests;

use super::sound::Line;
use super::{Container, NotSpeech};

/// Most of a stream that is passed over in search of sound, or of its continuation.
const ASTRAY_MAX: u64 = 64 * 1024;
/// Most of one tag: a large picture. The caller waits meanwhile.
const TAG_MAX: u64 = 16 * 1024 * 1024;
/// Bytes worked on in one go, to bound what is held whatever the size of a chunk.
const STRIDE: usize = 16 * 1024;
/// Frames that cannot be decoded are silence; this many more of them than of good ones are no speech.
const FAULTS_MAX: u32 = 16;

/// What a container did with the bytes it was shown.
enum Step {
    /// They are done with; may be more than there are yet.
    Take(u64),
    /// It needs more of them, or ends here.
    More,
}

enum Reader {
    Mp3(mp3::Mp3),
    Ogg(ogg::Ogg),
    Flac(flac::Flac),
}

/// One stream, on its way to what the carrier plays.
pub(super) struct Encoded {
    container: Container,
    reader: Reader,
    held: Vec<u8>,
    /// Bytes still to come that are done with already.
    skip: u64,
    speaker: Speaker,
}

impl Encoded {
    pub(super) fn mp3() -> Encoded {
        Encoded::new(Container::Mp3, Reader::Mp3(mp3::Mp3::default()))
    }

    pub(super) fn ogg() -> Encoded {
        Encoded::new(Container::OggVorbis, Reader::Ogg(ogg::Ogg::default()))
    }

    pub(super) fn flac() -> Encoded {
        Encoded::new(Container::Flac, Reader::Flac(flac::Flac::default()))
    }

    fn new(container: Container, reader: Reader) -> Encoded {
        Encoded { container, reader, held: Vec::new(), skip: 0, speaker: Speaker::default() }
    }

    pub(super) fn container(&self) -> Container {
        self.container
    }

    /// Rate and channels, as soon as the first frame has been decoded.
    pub(super) fn shape(&self) -> Option<(u32, u16)> {
        self.speaker.shape
    }

    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), NotSpeech> {
        bytes.chunks(STRIDE).try_for_each(|stride| {
            self.held.extend_from_slice(stride);
            self.advance(false, out)
        })
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), NotSpeech> {
        self.advance(true, out)?;
        if let Some(line) = &mut self.speaker.line {
            line.finish(out);
        }
        if self.speaker.heard { Ok(()) } else { Err(NotSpeech::NoAudio(self.container.name())) }
    }

    fn advance(&mut self, complete: bool, out: &mut Vec<u8>) -> Result<(), NotSpeech> {
        let mut at = 0;
        loop {
            let now = usize::try_from(self.skip).unwrap_or(usize::MAX).min(self.held.len() - at);
            at += now;
            self.skip -= now as u64;
            let bytes = &self.held[at..];
            if bytes.is_empty() {
                break;
            }
            let mut to = Output { speaker: &mut self.speaker, bytes: out };
            let step = match &mut self.reader {
                Reader::Mp3(mp3) => mp3.step(bytes, complete, &mut to)?,
                Reader::Ogg(ogg) => ogg.step(bytes, complete, &mut to)?,
                Reader::Flac(flac) => flac.step(bytes, complete, &mut to)?,
            };
            match step {
                Step::Take(n) => self.skip = n,
                Step::More => break,
            }
        }
        self.held.drain(..at);
        Ok(())
    }
}

/// Where samples go. The rate may change in mid-stream: files are joined by those who do not know
/// what is in them.
#[derive(Default)]
struct Speaker {
    shape: Option<(u32, u16)>,
    line: Option<Line>,
    heard: bool,
}

struct Output<'a> {
    speaker: &'a mut Speaker,
    bytes: &'a mut Vec<u8>,
}

impl Output<'_> {
    fn play(&mut self, rate: u32, channels: u16, mono: &[f32]) {
        let speaker = &mut *self.speaker;
        speaker.shape.get_or_insert((rate, channels));
        if let Some(line) = speaker.line.take_if(|line| line.rate() != rate).as_mut() {
            line.finish(self.bytes);
        }
        speaker.line.get_or_insert_with(|| Line::new(rate)).push(mono, self.bytes);
        speaker.heard |= !mono.is_empty();
    }
}

/// Counts frames that could not be decoded.
#[derive(Default)]
struct Faults(u32);

impl Faults {
    fn good(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    fn bad(&mut self, container: &'static str) -> Result<(), NotSpeech> {
        self.0 += 1;
        match self.0 > FAULTS_MAX {
            true => Err(NotSpeech::Broken(container, "its frames cannot be decoded")),
            false => Ok(()),
        }
    }
}
