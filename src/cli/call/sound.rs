//! Files in and out: WAV of any rate to the telephone's μ-law, what was heard to WAV, and a built-in
//! utterance for those who have no file at hand.

use crate::audio::{SAMPLE_RATE, mulaw};
use anyhow::{Context as _, Result, bail};
use std::f32::consts::{PI, TAU};
use std::path::Path;

/// Half the width of the interpolation kernel, in samples of the slower rate.
const KERNEL: f32 = 16.0;

/// Reads a WAV file (PCM or float, any rate, mono or mixed down to it) as μ-law, 8 kHz.
pub fn read_wav(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let reader = hound::WavReader::open(path).with_context(|| {
        format!("{shown}: cannot be read as WAV; convert it with `ffmpeg -i IN -ar 8000 OUT.wav`")
    })?;
    let spec = reader.spec();
    let scale = 32_768.0 / (1u64 << (spec.bits_per_sample.clamp(1, 32) - 1)) as f32;
    let samples: Vec<f32> = match spec.sample_format {
        hound::SampleFormat::Int => {
            reader.into_samples::<i32>().map(|s| Ok(s? as f32 * scale)).collect::<Result<_, hound::Error>>()
        }
        hound::SampleFormat::Float => {
            reader.into_samples::<f32>().map(|s| Ok(s? * 32_768.0)).collect::<Result<_, hound::Error>>()
        }
    }
    .with_context(|| format!("{shown}: damaged"))?;
    let channels = usize::from(spec.channels.max(1));
    let mono: Vec<f32> = samples.chunks(channels).map(|s| s.iter().sum::<f32>() / channels as f32).collect();
    if mono.is_empty() {
        bail!("{shown}: holds no audio");
    }
    Ok(to_mulaw(&resample(&mono, spec.sample_rate)))
}

/// Writes μ-law, 8 kHz, as 16-bit PCM.
pub fn write_wav(path: &Path, audio: &[u8]) -> Result<()> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: SAMPLE_RATE,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let write = || -> Result<(), hound::Error> {
        let mut writer = hound::WavWriter::create(path, spec)?;
        for byte in audio {
            writer.write_sample(mulaw::decode(*byte))?;
        }
        writer.finalize()
    };
    write().with_context(|| format!("{}: cannot be written; give another file with --out", path.display()))
}

/// 1.2 s that sound like four syllables: a buzz whose pitch falls, shaped by two resonances of a
/// vowel, so that a voice detector takes it for speech.
pub fn utterance() -> Vec<u8> {
    let rate = SAMPLE_RATE as f32;
    let syllable = 0.3 * rate;
    let mut phase = 0.0f32;
    let samples: Vec<f32> = (0..(4.0 * syllable) as usize)
        .map(|n| {
            let pitch = 150.0 - 30.0 * n as f32 / (4.0 * syllable);
            phase = (phase + pitch / rate).fract();
            let within = (n as f32 % syllable) / syllable;
            let envelope = if within < 0.85 { (PI * within / 0.85).sin().sqrt() } else { 0.0 };
            let closed = ((n as f32 / syllable) as usize).is_multiple_of(2);
            let vowel = if closed { (400.0, 2_000.0) } else { (700.0, 1_200.0) };
            let buzz: f32 = (1..24)
                .map(|k| {
                    let hz = k as f32 * pitch;
                    let near = |formant: f32| 1.0 / (1.0 + ((hz - formant) / 120.0).powi(2));
                    (0.15 / k as f32 + near(vowel.0) + 0.5 * near(vowel.1)) * (TAU * phase * k as f32).sin()
                })
                .sum();
            4_000.0 * envelope * buzz
        })
        .collect();
    to_mulaw(&samples)
}

fn to_mulaw(samples: &[f32]) -> Vec<u8> {
    // The cast saturates, which is what a sample that is too loud needs.
    samples.iter().map(|s| mulaw::encode(s.round() as i16)).collect()
}

/// Windowed-sinc interpolation to 8 kHz. Slow and plain: it runs once, before the call.
fn resample(samples: &[f32], from: u32) -> Vec<f32> {
    if from == SAMPLE_RATE || from == 0 {
        return samples.to_vec();
    }
    let step = f64::from(from) / f64::from(SAMPLE_RATE);
    // Below both Nyquist frequencies, relative to the rate of the input.
    let cutoff = 0.94 / (step as f32).max(1.0);
    let reach = KERNEL / cutoff;
    let len = (samples.len() as f64 / step).ceil() as usize;
    (0..len)
        .map(|n| {
            let at = n as f64 * step;
            let first = (at - f64::from(reach)).ceil().max(0.0) as usize;
            let last = ((at + f64::from(reach)).floor() as usize).min(samples.len() - 1);
            (first..=last)
                .map(|i| {
                    let x = (i as f64 - at) as f32;
                    let sinc = if x == 0.0 { 1.0 } else { (PI * x * cutoff).sin() / (PI * x * cutoff) };
                    samples[i] * cutoff * sinc * (0.5 + 0.5 * (PI * x / reach).cos())
                })
                .sum()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{Frame, level};
    use crate::turn::{FrontEnd, Vad};

    fn tone(rate: u32, hz: f32, seconds: f32) -> Vec<f32> {
        (0..(rate as f32 * seconds) as usize)
            .map(|n| 10_000.0 * (TAU * hz * n as f32 / rate as f32).sin())
            .collect()
    }

    fn rms(samples: &[f32]) -> f32 {
        (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
    }

    #[test]
    fn resampling_keeps_what_a_telephone_carries_and_drops_what_it_would_fold() {
        for rate in [16_000, 22_050, 44_100, 48_000, 6_000] {
            let kept = resample(&tone(rate, 1_000.0, 0.5), rate);
            assert!(kept.len().abs_diff(4_000) <= 2, "{rate}: {}", kept.len());
            // Compared with the same tone made at 8 kHz, away from the ends.
            let expected = tone(8_000, 1_000.0, 0.5);
            let off: Vec<f32> = (400..3_600).map(|n| kept[n] - expected[n]).collect();
            assert!(rms(&off) < 100.0, "{rate}: off by {}", rms(&off));
            if rate > 10_000 {
                let folded = resample(&tone(rate, 5_500.0, 0.5), rate);
                assert!(rms(&folded[400..3_600]) < 50.0, "{rate}: {}", rms(&folded));
            }
        }
    }

    #[test]
    fn wav_files_go_in_and_out() {
        let dir = std::env::temp_dir().join(format!("voxgate-call-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("out.wav");
        let audio: Vec<u8> = (0..=255u8).filter(|&b| b != 0x7F).collect();
        write_wav(&path, &audio).unwrap();
        assert_eq!(read_wav(&path).unwrap(), audio);

        let stereo = dir.join("stereo.wav");
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: 16_000,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(&stereo, spec).unwrap();
        for sample in tone(16_000, 440.0, 1.0) {
            writer.write_sample(sample as i16).unwrap();
            writer.write_sample(0i16).unwrap();
        }
        writer.finalize().unwrap();
        let mixed = read_wav(&stereo).unwrap();
        assert!((7_990..=8_010).contains(&mixed.len()));
        assert!((level::rms(&mixed) - 3_535.0).abs() < 100.0, "{}", level::rms(&mixed));

        std::fs::write(&path, "not a WAV file").unwrap();
        assert!(read_wav(&path).unwrap_err().to_string().contains("out.wav: cannot be read as WAV"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_built_in_utterance_is_speech_to_the_detector_that_is_shipped() {
        let mut front = FrontEnd::new(Vad::Neural, 210.0);
        let mut line = vec![0xFF; 8_000];
        line.extend(utterance());
        let heard: Vec<bool> =
            line.as_chunks().0.iter().map(|frame| front.hear(&Frame(*frame), 0.0).is_speech()).collect();
        let speech = heard.iter().filter(|speech| **speech).count();
        let longest = heard.split(|speech| !speech).map(<[bool]>::len).max().unwrap();
        assert!(speech > 40 && longest > 10, "{speech} of 60 frames, {longest} in a row");
    }

    #[test]
    fn the_built_in_utterance_is_loud_and_ends_in_a_short_silence() {
        let audio = utterance();
        assert_eq!(audio.len(), 1_200 * 8);
        let loud = audio.chunks(160).filter(|frame| level::rms(frame) > 500.0).count();
        assert!(loud > 45, "{loud} of 60 frames");
        let peak = audio.iter().map(|b| i32::from(mulaw::decode(*b)).abs()).max().unwrap();
        assert!((8_000..32_000).contains(&peak), "{peak}");
    }
}
