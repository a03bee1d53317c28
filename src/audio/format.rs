//! How samples are written down, and reading them as one channel of numbers.

use super::{alaw, mulaw};

/// Rates that can be played; outside of them a header is wrong rather than exotic.
pub(super) const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;

/// How one sample is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    MuLaw,
    ALaw,
    /// Unsigned, as only 8-bit WAV is.
    Pcm8,
    Pcm16Le,
    Pcm16Be,
    Pcm24Le,
    Pcm32Le,
    Float32Le,
    Float64Le,
}

impl Coding {
    fn width(self) -> usize {
        match self {
            Coding::MuLaw | Coding::ALaw | Coding::Pcm8 => 1,
            Coding::Pcm16Le | Coding::Pcm16Be => 2,
            Coding::Pcm24Le => 3,
            Coding::Pcm32Le | Coding::Float32Le => 4,
            Coding::Float64Le => 8,
        }
    }

    /// One sample on the 16-bit scale. `b` has the width of the coding; anything else is silence.
    fn sample(self, b: &[u8]) -> f32 {
        match (self, b) {
            (Coding::MuLaw, &[a]) => f32::from(mulaw::DECODE[a as usize]),
            (Coding::ALaw, &[a]) => f32::from(alaw::DECODE[a as usize]),
            (Coding::Pcm8, &[a]) => (f32::from(a) - 128.0) * 256.0,
            (Coding::Pcm16Le, &[a, b]) => f32::from(i16::from_le_bytes([a, b])),
            (Coding::Pcm16Be, &[a, b]) => f32::from(i16::from_be_bytes([a, b])),
            (Coding::Pcm24Le, &[a, b, c]) => i32::from_le_bytes([0, a, b, c]) as f32 / 65_536.0,
            (Coding::Pcm32Le, &[a, b, c, d]) => i32::from_le_bytes([a, b, c, d]) as f32 / 65_536.0,
            (Coding::Float32Le, &[a, b, c, d]) => full_scale(f32::from_le_bytes([a, b, c, d])),
            (Coding::Float64Le, &[a, b, c, d, e, f, g, h]) => {
                full_scale(f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32)
            }
            _ => 0.0,
        }
    }
}

/// A float of −1 to 1 on the 16-bit scale. Clamped here, because one infinite sample would spread
/// through a resampler's whole block.
pub(super) fn full_scale(x: f32) -> f32 {
    if x.is_nan() { 0.0 } else { x.clamp(-1.0, 1.0) * 32_768.0 }
}

impl std::fmt::Display for Coding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Coding::MuLaw => "μ-law",
            Coding::ALaw => "A-law",
            Coding::Pcm8 => "pcm8",
            Coding::Pcm16Le => "pcm16",
            Coding::Pcm16Be => "pcm16 big-endian",
            Coding::Pcm24Le => "pcm24",
            Coding::Pcm32Le => "pcm32",
            Coding::Float32Le => "float32",
            Coding::Float64Le => "float64",
        })
    }
}

/// How a stream of samples is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    pub coding: Coding,
    pub rate: u32,
    /// Never zero; the channels of one moment follow each other.
    pub channels: u16,
}

impl Format {
    /// What the carrier wants: nothing to do but to pass the bytes on.
    pub const CARRIER: Format = Format { coding: Coding::MuLaw, rate: super::SAMPLE_RATE, channels: 1 };
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} Hz", self.coding, self.rate)?;
        match self.channels {
            1 => Ok(()),
            n => write!(f, ", {n} channels"),
        }
    }
}

/// Reads bytes, in chunks that may end within a sample, as one channel on the 16-bit scale: the mean
/// of all channels, since a voice may be on any of them.
#[derive(Clone, Debug)]
pub(super) struct Mono {
    format: Format,
    held: [u8; 8],
    held_len: usize,
    /// Sum, and number, of the channels of the current moment that have been read.
    sum: f32,
    channel: u16,
}

impl Mono {
    pub(super) fn new(format: Format) -> Mono {
        Mono { format, held: [0; 8], held_len: 0, sum: 0.0, channel: 0 }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<f32>) {
        let coding = self.format.coding;
        let width = coding.width();
        if self.held_len > 0 {
            let take = bytes.len().min(width - self.held_len);
            let (now, later) = bytes.split_at(take);
            self.held[self.held_len..self.held_len + take].copy_from_slice(now);
            self.held_len += take;
            bytes = later;
            if self.held_len < width {
                return;
            }
            self.held_len = 0;
            let sample = coding.sample(&self.held[..width]);
            self.one(sample, out);
        }
        let whole = bytes.chunks_exact(width);
        let rest = whole.remainder();
        for b in whole {
            self.one(coding.sample(b), out);
        }
        self.held[..rest.len()].copy_from_slice(rest);
        self.held_len = rest.len();
    }

    fn one(&mut self, sample: f32, out: &mut Vec<f32>) {
        self.sum += sample;
        self.channel += 1;
        if self.channel >= self.format.channels {
            out.push(self.sum / f32::from(self.channel));
            self.sum = 0.0;
            self.channel = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(coding: Coding, channels: u16, bytes: &[u8]) -> Vec<f32> {
        let mut mono = Mono::new(Format { coding, rate: 8_000, channels });
        let mut out = Vec::new();
        mono.push(bytes, &mut out);
        let mut by_one = Vec::new();
        let mut mono = Mono::new(Format { coding, rate: 8_000, channels });
        for b in bytes {
            mono.push(&[*b], &mut by_one);
        }
        assert_eq!(out, by_one);
        out
    }

    #[test]
    fn every_coding_has_the_same_scale() {
        assert_eq!(read(Coding::Pcm8, 1, &[0, 128, 192]), [-32_768.0, 0.0, 16_384.0]);
        assert_eq!(read(Coding::Pcm16Le, 1, &[0, 0x80, 0, 0x40]), [-32_768.0, 16_384.0]);
        assert_eq!(read(Coding::Pcm16Be, 1, &[0x80, 0, 0x40, 0]), [-32_768.0, 16_384.0]);
        assert_eq!(read(Coding::Pcm24Le, 1, &[0, 0, 0x80, 0, 0, 0x40]), [-32_768.0, 16_384.0]);
        assert_eq!(read(Coding::Pcm32Le, 1, &[0, 0, 0, 0x80, 0, 0, 0, 0x40]), [-32_768.0, 16_384.0]);
        assert_eq!(read(Coding::Float32Le, 1, &0.5f32.to_le_bytes()), [16_384.0]);
        assert_eq!(read(Coding::Float64Le, 1, &0.5f64.to_le_bytes()), [16_384.0]);
        assert_eq!(read(Coding::MuLaw, 1, &[0x80, 0xFF]), [32_124.0, 0.0]);
        assert_eq!(read(Coding::ALaw, 1, &[0xAA]), [32_256.0]);
    }

    #[test]
    fn channels_are_averaged_and_half_a_moment_is_no_sample() {
        assert_eq!(read(Coding::Pcm16Le, 2, &[10, 0, 30, 0, 5, 0]), [20.0]);
        assert_eq!(read(Coding::Pcm16Le, u16::MAX, &[10, 0]), Vec::<f32>::new());
    }

    #[test]
    fn floats_that_are_no_numbers_are_harmless() {
        let bytes: Vec<u8> =
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 7.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(read(Coding::Float32Le, 1, &bytes), [0.0, 32_768.0, -32_768.0, 32_768.0]);
    }
}
