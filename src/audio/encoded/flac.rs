//! FLAC: what comes before the sound passed over but for the one block that describes it, and frames
//! cut where the next one begins. A frame does not say how long it is; its checksum does.

use symphonia::core::checksum::{Crc8Ccitt, Crc16Ansi};
use symphonia::core::io::Monitor;

use super::codec::{Codec, Fault};
use super::{ASTRAY_MAX, Faults, Output, Step, TAG_MAX};
use crate::audio::NotSpeech;
use crate::audio::format::RATES;

const NAME: &str = "FLAC";
const MAGIC: &[u8] = b"fLaC";
/// Most of one frame; 4,096 moments of 24 bits stereo are 24 KiB.
const FRAME_MAX: usize = 256 * 1024;
/// Most moments in a frame: what the format's streamable subset allows.
const BLOCK_MAX: u16 = 16_384;
/// The shortest frame: header, one constant, checksum.
const FRAME_MIN: usize = 9;

pub(super) struct Flac {
    stage: Stage,
    /// Bytes of descriptions passed over.
    tags: u64,
    /// Bytes passed over in search of a frame.
    astray: u64,
    codec: Option<Codec>,
    faults: Faults,
    /// How far the current frame has been looked through, and the checksum so far.
    seen: usize,
    crc: Crc16Ansi,
}

enum Stage {
    Magic,
    Blocks,
    Frames,
}

impl Default for Flac {
    fn default() -> Flac {
        let crc = Crc16Ansi::new(0);
        Flac { stage: Stage::Magic, tags: 0, astray: 0, codec: None, faults: Faults::default(), seen: 0, crc }
    }
}

impl Flac {
    pub(super) fn step(
        &mut self,
        bytes: &[u8],
        complete: bool,
        out: &mut Output<'_>,
    ) -> Result<Step, NotSpeech> {
        match self.stage {
            Stage::Magic if bytes.len() < MAGIC.len() => Ok(Step::More),
            Stage::Magic if !bytes.starts_with(MAGIC) => {
                Err(NotSpeech::Broken(NAME, "it does not begin as one"))
            }
            Stage::Magic => {
                self.stage = Stage::Blocks;
                self.codec = None;
                Ok(Step::Take(MAGIC.len() as u64))
            }
            Stage::Blocks => self.block(bytes),
            Stage::Frames => self.frames(bytes, complete, out),
        }
    }

    fn block(&mut self, bytes: &[u8]) -> Result<Step, NotSpeech> {
        const STREAM_INFO: usize = 34;
        let Some(&[kind, a, b, c]) = bytes.get(..4) else { return Ok(Step::More) };
        let len = u64::from(u32::from_be_bytes([0, a, b, c]));
        if self.tags + len > TAG_MAX {
            return Err(NotSpeech::Broken(NAME, "more than 16 MiB before the sound"));
        }
        if self.codec.is_none() {
            if kind & 0x7F != 0 || len != STREAM_INFO as u64 {
                return Err(NotSpeech::Broken(NAME, "it does not say what it holds"));
            }
            let Some(info) = bytes.get(4..4 + STREAM_INFO) else { return Ok(Step::More) };
            self.codec = Some(describe(info)?);
        }
        self.tags += len;
        if kind & 0x80 != 0 {
            self.stage = Stage::Frames;
            self.restart();
        }
        Ok(Step::Take(4 + len))
    }

    fn frames(&mut self, bytes: &[u8], complete: bool, out: &mut Output<'_>) -> Result<Step, NotSpeech> {
        match header(bytes) {
            Header::Frame => {}
            // Two files joined.
            _ if bytes.starts_with(MAGIC) => {
                self.stage = Stage::Magic;
                return Ok(Step::Take(0));
            }
            Header::Unclear if !complete => return Ok(Step::More),
            Header::None if !complete && MAGIC.starts_with(bytes) => return Ok(Step::More),
            Header::Unclear | Header::None => {
                self.astray += 1;
                return match self.astray > ASTRAY_MAX {
                    true => Err(NotSpeech::Broken(NAME, "64 KiB without a frame")),
                    false => Ok(Step::Take(1)),
                };
            }
        }
        loop {
            // Over a whole frame with the checksum at its end the checksum is zero.
            if self.seen >= FRAME_MIN && self.crc.crc() == 0 {
                let after = &bytes[self.seen..];
                let ends = match header(after) {
                    Header::Frame => true,
                    Header::Unclear if !complete => return Ok(Step::More),
                    Header::None if !complete && after.len() < MAGIC.len() => return Ok(Step::More),
                    Header::None | Header::Unclear => ends_all(after),
                };
                if ends {
                    break;
                }
            }
            let Some(byte) = bytes.get(self.seen) else {
                if self.seen > FRAME_MAX {
                    return Err(NotSpeech::Broken(NAME, "a frame of more than 256 KiB"));
                }
                // Half a frame at the end of all.
                return Ok(if complete { Step::Take(bytes.len() as u64) } else { Step::More });
            };
            self.crc.process_byte(*byte);
            self.seen += 1;
        }
        let len = self.seen;
        self.restart();
        self.astray = 0;
        let Some(codec) = &mut self.codec else { return Ok(Step::Take(len as u64)) };
        match codec.decode(&bytes[..len]) {
            Ok(sound) => {
                self.faults.good();
                out.play(sound.rate, sound.channels, sound.mono);
            }
            Err(Fault::Packet) => self.faults.bad(NAME)?,
            Err(Fault::Decoder) => return Err(NotSpeech::Broken(NAME, "its decoder gave up")),
        }
        Ok(Step::Take(len as u64))
    }

    fn restart(&mut self) {
        self.seen = 0;
        self.crc = Crc16Ansi::new(0);
    }
}

/// From the block that describes the sound.
fn describe(info: &[u8]) -> Result<Codec, NotSpeech> {
    let block = u16::from_be_bytes([info[2], info[3]]);
    let rate = u32::from_be_bytes([0, info[10], info[11], info[12]]) >> 4;
    let bits = (u16::from_be_bytes([info[12], info[13]]) >> 4 & 0x1F) + 1;
    if block > BLOCK_MAX || bits > 24 || !RATES.contains(&rate) {
        return Err(NotSpeech::Encoded("FLAC beyond the streamable subset"));
    }
    Codec::flac(info).ok_or(NotSpeech::Broken(NAME, "its description makes no sense"))
}

enum Header {
    Frame,
    None,
    /// More bytes would tell.
    Unclear,
}

/// Whether a frame begins here.
fn header(bytes: &[u8]) -> Header {
    let wrong: [fn(u8) -> bool; 4] = [
        |b| b != 0xFF,
        |b| b & 0xFE != 0xF8,
        |b| b >> 4 == 0 || b & 15 == 15,
        // 32 bits are refused at the beginning: the decoder has no room for their difference.
        |b| b >> 4 > 10 || b & 1 != 0 || matches!(b >> 1 & 7, 3 | 7),
    ];
    if bytes.iter().zip(wrong).any(|(b, wrong)| wrong(*b)) {
        return Header::None;
    }
    let &[_, _, sizes, _, number, ..] = bytes else { return Header::Unclear };
    let number_len = match number.leading_ones() {
        0 => 1,
        n @ 2..=7 => n as usize,
        _ => return Header::None,
    };
    let size_len = match sizes >> 4 {
        6 => 1,
        7 => 2,
        _ => 0,
    };
    let rate_len = match sizes & 15 {
        12 => 1,
        13 | 14 => 2,
        _ => 0,
    };
    let Some((checksum, front)) =
        bytes.get(..=4 + number_len + size_len + rate_len).and_then(|all| all.split_last())
    else {
        return Header::Unclear;
    };
    let mut crc = Crc8Ccitt::new(0);
    crc.process_buf_bytes(front);
    if crc.crc() == *checksum { Header::Frame } else { Header::None }
}

/// What may follow the last frame: nothing, another file, or a tag.
fn ends_all(after: &[u8]) -> bool {
    after.is_empty() || after.starts_with(MAGIC) || after.starts_with(b"TAG") || after.starts_with(b"ID3")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &[u8] = include_bytes!("../../../tests/audio/sweep-44k-stereo.flac");

    /// Checksums keep accidents from the decoder; here it gets what is made up.
    #[test]
    fn frames_that_are_made_up_do_not_end_the_call() {
        let first = (8..).find(|at| matches!(header(&FILE[*at..]), Header::Frame)).expect("a frame");
        // Longer than it is, so that what is made up may be as well.
        let frame = &FILE[first..first + 2_000];
        let mut seed = 1u32;
        let mut random = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as usize
        };
        let mut made = 0;
        for _ in 0..3_000 {
            let mut codec = describe(&FILE[8..42]).expect("a description");
            let mut bytes = frame.to_vec();
            for _ in 0..1 + random() % 6 {
                let at = 6 + random() % if random() % 2 == 0 { 40 } else { bytes.len() - 6 };
                bytes[at] = random() as u8;
            }
            made += usize::from(codec.decode(&bytes).is_ok());
        }
        assert!(made > 10, "{made}");
    }

    #[test]
    fn headers_by_their_checksum() {
        let first = (8..).find(|at| matches!(header(&FILE[*at..]), Header::Frame)).expect("a frame");
        assert!(matches!(header(&FILE[first..first + 4]), Header::Unclear));
        assert!(matches!(header(&[]), Header::Unclear));
        let mut wrong = FILE[first..first + 20].to_vec();
        wrong[4] ^= 1;
        assert!(matches!(header(&wrong), Header::None));
    }
}
