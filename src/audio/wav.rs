//! WAV files: written for recognisers that want one, read from services that send one.
//!
//! The reader takes what streaming services really write: chunks in any order before the data, data
//! lengths of 0, 0xFFFFFFFF or simply wrong, because the length was not known when the header left.

use super::format::{Coding, Format, RATES};
use super::{NotSpeech, SAMPLE_RATE, mulaw};

/// Longest stretch before the data that is skipped: cover art, not speech, is larger.
const HEADER_MAX: u64 = 64 * 1024;
/// A `fmt ` chunk, of which no more is of use.
const FMT_MAX: usize = 40;
const EXTENSIBLE: u16 = 0xFFFE;

/// The 44 bytes before `data_len` bytes of PCM, 16 bits, 8 kHz, mono.
pub fn header(data_len: u32) -> [u8; 44] {
    let mut h = *b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\0\0\0\0\0\0\0\0\x02\0\x10\0data\0\0\0\0";
    h[4..8].copy_from_slice(&data_len.saturating_add(36).to_le_bytes());
    h[24..28].copy_from_slice(&SAMPLE_RATE.to_le_bytes());
    h[28..32].copy_from_slice(&(SAMPLE_RATE * 2).to_le_bytes());
    h[40..44].copy_from_slice(&data_len.to_le_bytes());
    h
}

/// A whole file, PCM 16 bits, of an utterance in μ-law: what every recogniser takes.
pub fn wav_pcm16(mulaw: &[u8]) -> Vec<u8> {
    let data_len = u32::try_from(mulaw.len().saturating_mul(2)).unwrap_or(u32::MAX);
    let mut file = Vec::with_capacity(44 + mulaw.len() * 2);
    file.extend_from_slice(&header(data_len));
    file.extend(mulaw.iter().flat_map(|&b| mulaw::decode(b).to_le_bytes()));
    file
}

/// What follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data {
    pub format: Format,
    /// Bytes of sound; what comes after them is not sound. `None`: until the stream ends.
    pub len: Option<u64>,
}

/// Reads a header that arrives in pieces.
#[derive(Clone, Debug, Default)]
pub struct HeaderReader {
    held: Vec<u8>,
    next: Next,
    seen: u64,
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Riff,
    Chunk,
    /// The useful part of `fmt `, and what to skip after it.
    Fmt(usize, u64),
    Skip(u64),
}

impl HeaderReader {
    /// Takes from the front of `bytes` what belongs to the header. `Some`: the rest is data.
    pub fn push(&mut self, bytes: &mut &[u8]) -> Result<Option<Data>, NotSpeech> {
        loop {
            let want = match self.next {
                Next::Riff => 12,
                Next::Chunk => 8,
                Next::Fmt(len, _) => len,
                Next::Skip(left) => {
                    let skip = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    *bytes = &bytes[skip..];
                    self.next = match left - skip as u64 {
                        0 => Next::Chunk,
                        left => Next::Skip(left),
                    };
                    if bytes.is_empty() {
                        return Ok(None);
                    }
                    continue;
                }
            };
            let (now, later) = bytes.split_at(bytes.len().min(want - self.held.len()));
            self.held.extend_from_slice(now);
            *bytes = later;
            if self.held.len() < want {
                return Ok(None);
            }
            let held = std::mem::take(&mut self.held);
            if let Some(data) = self.part(&held)? {
                return Ok(Some(data));
            }
        }
    }

    fn part(&mut self, held: &[u8]) -> Result<Option<Data>, NotSpeech> {
        match self.next {
            Next::Riff => match (held.get(..4), held.get(8..12)) {
                // RF64 is RIFF with the lengths elsewhere, and none of them is needed.
                (Some(b"RIFF" | b"RF64"), Some(b"WAVE")) => self.next = Next::Chunk,
                (Some(b"RIFX"), _) => return Err(NotSpeech::WavBroken("big-endian (RIFX)")),
                _ => return Err(NotSpeech::WavBroken("no RIFF header")),
            },
            Next::Chunk => {
                let len = u32_at(held, 4);
                self.seen += 8 + u64::from(len);
                match held.get(..4) {
                    Some(b"data") => {
                        let format =
                            self.format.ok_or(NotSpeech::WavBroken("its data comes before its format"))?;
                        let len = (len != 0 && len != u32::MAX).then_some(u64::from(len));
                        return Ok(Some(Data { format, len }));
                    }
                    _ if self.seen > HEADER_MAX => {
                        return Err(NotSpeech::WavBroken("no audio in the first 64 KiB"));
                    }
                    Some(b"fmt ") if len < 16 => return Err(NotSpeech::WavBroken("its format is cut short")),
                    Some(b"fmt ") => {
                        let useful = (len as usize).min(FMT_MAX);
                        self.next = Next::Fmt(useful, padded(len) - useful as u64);
                    }
                    _ => self.next = Next::Skip(padded(len)),
                }
            }
            Next::Fmt(_, rest) => {
                self.format = Some(format(held)?);
                self.next = Next::Skip(rest);
            }
            Next::Skip(_) => {}
        }
        Ok(None)
    }
}

/// Chunks begin at even places.
fn padded(len: u32) -> u64 {
    u64::from(len) + u64::from(len & 1)
}

fn format(fmt: &[u8]) -> Result<Format, NotSpeech> {
    let (channels, rate) = (u16_at(fmt, 2), u32_at(fmt, 4));
    let (block, bits) = (u16_at(fmt, 12), u16_at(fmt, 14));
    let codec = match u16_at(fmt, 0) {
        // The codec proper opens the GUID at the end.
        EXTENSIBLE if fmt.len() >= 26 => u16_at(fmt, 24),
        codec => codec,
    };
    if channels == 0 {
        return Err(NotSpeech::WavBroken("it has no channels"));
    }
    if !RATES.contains(&rate) {
        return Err(NotSpeech::WavRate(rate));
    }
    // 24 bits may sit in four bytes: the block tells, where it is plausible, and the sample is
    // always at the high end of its bytes.
    let by_bits = bits.div_ceil(8);
    let width = if block % channels == 0 && block / channels >= by_bits { block / channels } else { by_bits };
    let coding = match (codec, width) {
        (1, 1) => Coding::Pcm8,
        (1, 2) => Coding::Pcm16Le,
        (1, 3) => Coding::Pcm24Le,
        (1, 4) => Coding::Pcm32Le,
        (3, 4) => Coding::Float32Le,
        (3, 8) => Coding::Float64Le,
        (6, 1) => Coding::ALaw,
        (7, 1) => Coding::MuLaw,
        (1 | 3 | 6 | 7, _) => return Err(NotSpeech::WavBits(bits)),
        _ => return Err(NotSpeech::WavCodec(codec)),
    };
    Ok(Format { coding, rate, channels })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fmt(codec: u16, channels: u16, rate: u32, block: u16, bits: u16) -> Vec<u8> {
        let mut f = b"fmt \x10\0\0\0".to_vec();
        f.extend(codec.to_le_bytes());
        f.extend(channels.to_le_bytes());
        f.extend(rate.to_le_bytes());
        f.extend((rate * u32::from(block)).to_le_bytes());
        f.extend(block.to_le_bytes());
        f.extend(bits.to_le_bytes());
        f
    }

    fn file(chunks: &[&[u8]], data_len: u32) -> Vec<u8> {
        let mut f = b"RIFF\0\0\0\0WAVE".to_vec();
        chunks.iter().for_each(|c| f.extend_from_slice(c));
        f.extend(b"data");
        f.extend(data_len.to_le_bytes());
        f
    }

    /// The result for every chunking tried must be the same: whole, and one byte at a time.
    fn read(bytes: &[u8]) -> Result<Option<Data>, NotSpeech> {
        let mut rest = bytes;
        let whole = HeaderReader::default().push(&mut rest);
        let mut reader = HeaderReader::default();
        let mut by_one = Ok(None);
        for b in bytes {
            by_one = reader.push(&mut &[*b][..]);
            if by_one != Ok(None) {
                break;
            }
        }
        assert_eq!(whole, by_one);
        whole
    }

    fn coding(chunks: &[&[u8]]) -> Result<Coding, NotSpeech> {
        read(&file(chunks, 100)).map(|d| d.expect("a whole header").format.coding)
    }

    #[test]
    fn what_is_written_can_be_read() {
        let file = wav_pcm16(&[0x80, 0xFF, 0x00]);
        assert_eq!(file.len(), 50);
        assert_eq!(&file[44..], [0x7C, 0x7D, 0, 0, 0x84, 0x82]);
        let format = Format { coding: Coding::Pcm16Le, rate: 8_000, channels: 1 };
        assert_eq!(read(&file), Ok(Some(Data { format, len: Some(6) })));
        let reader = hound::WavReader::new(&file[..]).expect("another reader takes it");
        let samples: Vec<i16> = reader.into_samples().map(|s| s.expect("sample")).collect();
        assert_eq!(samples, [32_124, 0, -32_124]);
    }

    #[test]
    fn every_codec() {
        assert_eq!(coding(&[&fmt(1, 2, 44_100, 2, 8)]), Ok(Coding::Pcm8));
        assert_eq!(coding(&[&fmt(1, 1, 24_000, 2, 16)]), Ok(Coding::Pcm16Le));
        assert_eq!(coding(&[&fmt(1, 1, 24_000, 3, 24)]), Ok(Coding::Pcm24Le));
        assert_eq!(coding(&[&fmt(1, 2, 24_000, 8, 24)]), Ok(Coding::Pcm32Le), "24 bits in 4 bytes");
        assert_eq!(coding(&[&fmt(1, 1, 24_000, 0, 16)]), Ok(Coding::Pcm16Le), "no block length");
        assert_eq!(coding(&[&fmt(3, 1, 48_000, 4, 32)]), Ok(Coding::Float32Le));
        assert_eq!(coding(&[&fmt(6, 1, 8_000, 1, 8)]), Ok(Coding::ALaw));
        assert_eq!(coding(&[&fmt(7, 1, 8_000, 1, 8)]), Ok(Coding::MuLaw));
        assert_eq!(coding(&[&fmt(17, 1, 8_000, 256, 4)]), Err(NotSpeech::WavCodec(17)));
        assert_eq!(coding(&[&fmt(1, 1, 8_000, 5, 40)]), Err(NotSpeech::WavBits(40)));
        assert_eq!(coding(&[&fmt(1, 1, 3_999, 2, 16)]), Err(NotSpeech::WavRate(3_999)));
        assert_eq!(coding(&[&fmt(1, 0, 8_000, 2, 16)]), Err(NotSpeech::WavBroken("it has no channels")));
    }

    #[test]
    fn the_codec_of_an_extensible_format_is_in_its_guid() {
        let mut f = fmt(EXTENSIBLE, 1, 16_000, 2, 16);
        f[4] = 40;
        f.extend([22, 0, 16, 0, 4, 0, 0, 0, 1, 0]);
        f.extend(b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
        assert_eq!(coding(&[&f]), Ok(Coding::Pcm16Le));
    }

    #[test]
    fn other_chunks_are_skipped_with_their_padding() {
        let f = fmt(1, 1, 24_000, 2, 16);
        let odd = b"LIST\x03\0\0\0abc\0";
        let fact = b"fact\x04\0\0\0\0\0\0\0";
        assert_eq!(coding(&[odd, &f, fact, odd, b"bext\0\0\0\0"]), Ok(Coding::Pcm16Le));
        assert_eq!(coding(&[odd]), Err(NotSpeech::WavBroken("its data comes before its format")));
        assert_eq!(
            coding(&[&f, b"id3 \0\0\x02\0"]),
            Err(NotSpeech::WavBroken("no audio in the first 64 KiB"))
        );
    }

    #[test]
    fn a_length_that_was_not_known_means_until_the_end() {
        let f = fmt(1, 1, 24_000, 2, 16);
        let len = |n| read(&file(&[&f], n)).map(|d| d.expect("a whole header").len);
        assert_eq!(len(0), Ok(None));
        assert_eq!(len(u32::MAX), Ok(None));
        assert_eq!(len(7), Ok(Some(7)));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(tail in prop::collection::vec(any::<u8>(), 0..200),
                                  len in any::<u32>(), id in prop::sample::select(vec![*b"fmt ", *b"LIST", *b"data"])) {
            let mut bytes = b"RIFF\0\0\0\0WAVE".to_vec();
            bytes.extend(id);
            bytes.extend((len >> (len & 31)).to_le_bytes());
            bytes.extend(tail);
            let _ = read(&bytes);
        }
    }
}
