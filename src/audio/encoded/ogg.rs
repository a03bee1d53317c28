//! Ogg: pages to packets, and the samples at the end dropped that the last page does not count.
//!
//! Packets are passed on as they are complete, without waiting for the page to be: a page may be a
//! second of speech. For the same reason its checksum is left alone; what came over TLS is as it was
//! sent. Of several streams side by side the first Vorbis one is played, and of several one after the
//! other each.

use super::codec::{Codec, Fault};
use super::{Faults, Output, Step, TAG_MAX, vorbis};
use crate::audio::NotSpeech;

const NAME: &str = "Ogg Vorbis";
const HEADER: usize = 27;
/// Most of one packet. A setup of 8 KiB is large, sound is smaller.
const PACKET_MAX: usize = 64 * 1024;
/// Where a page ends no packet, it counts no samples.
const UNCOUNTED: u64 = u64::MAX;

#[derive(Default)]
pub(super) struct Ogg {
    page: Page,
    serial: Option<u32>,
    stream: Stream,
    /// Packets of this stream, and the bytes of the one that is not complete.
    packets: u64,
    packet: Vec<u8>,
    packet_len: u64,
    faults: Faults,
}

/// What is left of a page.
#[derive(Default)]
struct Page {
    segments: Vec<u8>,
    at: usize,
    ours: bool,
    last: bool,
    samples: u64,
}

#[derive(Default)]
enum Stream {
    #[default]
    None,
    /// The first header.
    Identified(Vec<u8>),
    Sound(Box<Sound>),
    Ended,
}

struct Sound {
    codec: Codec,
    decoded: u64,
    /// What the pages count before the first sample, in a stream that was cut from a longer one.
    start: Option<u64>,
}

impl Ogg {
    pub(super) fn step(
        &mut self,
        bytes: &[u8],
        complete: bool,
        out: &mut Output<'_>,
    ) -> Result<Step, NotSpeech> {
        let mut taken = 0;
        if self.page.at == self.page.segments.len() {
            match self.header(bytes, complete)? {
                Step::Take(len) if len < bytes.len() as u64 => return Ok(Step::Take(len)),
                Step::Take(_) => taken = bytes.len(),
                Step::More => return Ok(Step::More),
            }
        }
        // As many segments as there are: one of no bytes ends a packet even where nothing follows.
        let before = self.page.at;
        while let Some(&lacing) = self.page.segments.get(self.page.at) {
            let Some(segment) = bytes.get(taken..taken + usize::from(lacing)) else { break };
            taken += segment.len();
            self.page.at += 1;
            if self.page.ours {
                self.segment(segment, out)?;
                if self.page.at == self.page.segments.len() {
                    self.page_ends();
                }
            }
        }
        match taken > 0 || self.page.at > before {
            true => Ok(Step::Take(taken as u64)),
            false => Ok(Step::More),
        }
    }

    fn header(&mut self, bytes: &[u8], complete: bool) -> Result<Step, NotSpeech> {
        if bytes.len() >= 4 && !bytes.starts_with(b"OggS") {
            return match self.stream {
                // Something else that was put at the end of the file.
                Stream::Ended => {
                    let next = bytes.iter().skip(1).position(|b| *b == b'O');
                    Ok(Step::Take(next.map_or(bytes.len(), |at| at + 1) as u64))
                }
                _ => Err(NotSpeech::Broken(NAME, "a page does not follow the last one")),
            };
        }
        let segments = bytes.get(26).and_then(|n| bytes.get(HEADER..HEADER + usize::from(*n)));
        let Some(segments) = segments else {
            return Ok(if complete { Step::Take(bytes.len() as u64) } else { Step::More });
        };
        let (version, flags) = (bytes[4], bytes[5]);
        if version != 0 {
            return Err(NotSpeech::Broken(NAME, "its pages are of an unknown version"));
        }
        let (continued, first, last) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        let samples = bytes[6..14].iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let serial = bytes[14..18].iter().rev().fold(0u32, |n, b| n << 8 | u32::from(*b));
        match (&self.stream, first) {
            // Another one begins beside the one that was chosen.
            (Stream::Identified(_), true) => {}
            (_, true) => {
                (self.serial, self.stream, self.packets) = (Some(serial), Stream::None, 0);
                self.drop_packet();
            }
            (Stream::None, false) if self.serial.is_none() => {
                return Err(NotSpeech::Encoded("Ogg without Vorbis"));
            }
            _ => {}
        }
        let ours = self.serial == Some(serial) && !matches!(self.stream, Stream::Ended);
        if ours && !continued {
            self.drop_packet();
        }
        self.page = Page { segments: segments.to_vec(), at: 0, ours, last, samples };
        if ours && segments.is_empty() {
            self.page_ends();
        }
        Ok(Step::Take((HEADER + segments.len()) as u64))
    }

    fn segment(&mut self, segment: &[u8], out: &mut Output<'_>) -> Result<(), NotSpeech> {
        self.packet_len += segment.len() as u64;
        // The comments may hold a picture, and hold nothing that is needed.
        if self.packets == 1 {
            if self.packet_len > TAG_MAX {
                return Err(NotSpeech::Broken(NAME, "comments of more than 16 MiB"));
            }
        } else {
            self.packet.extend_from_slice(segment);
            if self.packet.len() > PACKET_MAX {
                return Err(NotSpeech::Broken(NAME, "a packet of more than 64 KiB"));
            }
        }
        // Exactly 255 bytes: the packet goes on.
        if segment.len() == 255 {
            return Ok(());
        }
        let packet = std::mem::take(&mut self.packet);
        let result = self.packet(&packet, out);
        self.packet = packet;
        self.drop_packet();
        self.packets += 1;
        result
    }

    fn packet(&mut self, packet: &[u8], out: &mut Output<'_>) -> Result<(), NotSpeech> {
        match (&mut self.stream, self.packets) {
            (Stream::None, _) => match packet {
                p if p.starts_with(b"\x01vorbis") => self.stream = Stream::Identified(p.to_vec()),
                p if p.starts_with(b"OpusHead") => return Err(NotSpeech::Encoded("Ogg Opus")),
                p if p.starts_with(b"\x7FFLAC") => return Err(NotSpeech::Encoded("FLAC in Ogg")),
                p if p.starts_with(b"Speex   ") => return Err(NotSpeech::Encoded("Ogg Speex")),
                // An index, a picture that moves: sound may come beside it.
                _ => self.serial = None,
            },
            (Stream::Identified(_), 1) => {}
            (Stream::Identified(headers), _) => {
                let sane = vorbis::playable(headers) && vorbis::modest(packet);
                headers.extend_from_slice(packet);
                let codec = sane.then(|| Codec::vorbis(headers)).flatten();
                let codec = codec.ok_or(NotSpeech::Broken(NAME, "its headers make no sense"))?;
                let sound = Sound { codec, decoded: 0, start: None };
                self.stream = Stream::Sound(Box::new(sound));
            }
            (Stream::Sound(sound), _) if !packet.is_empty() => {
                // The last page counts all samples of the stream, which is to say: how many of the
                // last packet are meant to be heard. Some leave it at zero.
                let limit = match self.page.last && !matches!(self.page.samples, 0 | UNCOUNTED) {
                    true => (self.page.samples.saturating_sub(sound.start.unwrap_or(0)))
                        .saturating_sub(sound.decoded),
                    false => u64::MAX,
                };
                match sound.codec.decode(packet) {
                    Ok(s) => {
                        self.faults.good();
                        sound.decoded += s.mono.len() as u64;
                        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                        out.play(s.rate, s.channels, &s.mono[..s.mono.len().min(limit)]);
                    }
                    Err(Fault::Packet) => self.faults.bad(NAME)?,
                    Err(Fault::Decoder) => return Err(NotSpeech::Broken(NAME, "its decoder gave up")),
                }
            }
            (Stream::Sound(_) | Stream::Ended, _) => {}
        }
        Ok(())
    }

    fn page_ends(&mut self) {
        let Page { last, samples, .. } = self.page;
        if let Stream::Sound(sound) = &mut self.stream {
            if sound.start.is_none() && sound.decoded > 0 && samples != UNCOUNTED {
                sound.start = Some(samples.saturating_sub(sound.decoded));
            }
            if last {
                self.stream = Stream::Ended;
            }
        }
    }

    fn drop_packet(&mut self) {
        self.packet.clear();
        self.packet_len = 0;
    }
}
