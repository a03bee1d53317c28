//! Any rate to the carrier's 8 kHz, as a stream.
//!
//! `rubato` does the filtering; here it is made to fit speech that is played while it still arrives:
//! blocks of 20 ms, the filter's delay cut off at the front, its tail flushed at the end, so that the
//! output begins with the first sample and loses no word.

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{
    Async, Fft, FixedAsync, FixedSync, SincInterpolationParameters, SincInterpolationType, WindowFunction,
};

use super::SAMPLE_RATE;
use super::format::RATES;

/// Blocks a second: 20 ms each.
const BLOCKS: u32 = 50;
/// A block by FFT holds whole cycles of both rates; past 40 ms waiting for one would be heard.
const FFT_BLOCKS_MIN: u32 = 25;

/// Brings one stream to 8 kHz.
pub struct Resampler {
    rate: u32,
    /// `None`: the stream is at 8 kHz already.
    filter: Option<Filter>,
    taken: u64,
    given: u64,
}

struct Filter {
    inner: Box<dyn rubato::Resampler<f32>>,
    pending: Vec<f32>,
    block: Vec<f32>,
    /// Output samples still to be dropped: the filter's delay.
    trim: usize,
}

impl Resampler {
    /// A rate outside of [`RATES`] is taken for the nearest one inside: whoever parsed it should have
    /// refused it, and a filter for 1 Hz or 4 GHz is no better an answer.
    pub fn new(rate: u32) -> Resampler {
        let rate = rate.clamp(*RATES.start(), *RATES.end());
        let filter = (rate != SAMPLE_RATE).then(|| Filter::new(rate));
        Resampler { rate, filter, taken: 0, given: 0 }
    }

    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        let Some(filter) = &mut self.filter else {
            out.extend_from_slice(samples);
            return;
        };
        self.taken += samples.len() as u64;
        filter.pending.extend_from_slice(samples);
        let before = out.len();
        let mut used = 0;
        loop {
            let want = filter.inner.input_frames_next();
            let Some(block) = filter.pending.get(used..used + want) else { break };
            used += want;
            process(filter.inner.as_mut(), block, &mut filter.block, &mut filter.trim, out);
        }
        filter.pending.drain(..used);
        self.given += (out.len() - before) as u64;
    }

    /// The end of the stream: gives what is still owed, so that the output is as long as the input.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        let Some(filter) = &mut self.filter else { return };
        let (rate, carrier) = (u64::from(self.rate), u64::from(SAMPLE_RATE));
        let owed = ((self.taken * carrier + rate / 2) / rate).saturating_sub(self.given);
        let end = out.len() + owed as usize;
        while out.len() < end {
            // First what is pending, then silence, to push it through the filter.
            let want = filter.inner.input_frames_next();
            filter.pending.resize(want, 0.0);
            process(filter.inner.as_mut(), &filter.pending, &mut filter.block, &mut filter.trim, out);
            filter.pending.clear();
        }
        out.truncate(end);
        self.given += owed;
    }
}

impl Filter {
    fn new(rate: u32) -> Filter {
        let block = rate.div_ceil(BLOCKS) as usize;
        let inner: Box<dyn rubato::Resampler<f32>> = if gcd(rate, SAMPLE_RATE) >= FFT_BLOCKS_MIN {
            let fft = Fft::new_custom(
                rate as usize,
                SAMPLE_RATE as usize,
                block,
                1,
                1,
                WindowFunction::BlackmanHarris,
                FixedSync::Both,
            );
            Box::new(fft.expect("the rates and the block are not zero"))
        } else {
            // Rates that share no short cycle with 8 kHz: dearer, and hardly ever met.
            let ratio = f64::from(SAMPLE_RATE) / f64::from(rate);
            // As many zero crossings as the FFT's block has, counted at the lower rate.
            let len = (160 * rate.max(SAMPLE_RATE) / SAMPLE_RATE) as usize;
            let sinc = SincInterpolationParameters::new(len, WindowFunction::BlackmanHarris)
                .oversampling_factor(64)
                .interpolation(SincInterpolationType::Quadratic);
            let sinc = Async::new_sinc(ratio, 1.0, &sinc, block, 1, FixedAsync::Input);
            Box::new(sinc.expect("the ratio is positive and the block not empty"))
        };
        let trim = inner.output_delay();
        Filter { inner, pending: Vec::new(), block: Vec::new(), trim }
    }
}

fn process(
    inner: &mut dyn rubato::Resampler<f32>,
    input: &[f32],
    block: &mut Vec<f32>,
    trim: &mut usize,
    out: &mut Vec<f32>,
) {
    block.resize(inner.output_frames_next(), 0.0);
    let room = block.len();
    // Both slices have the length that was asked for, so nothing here can fail; and if it did, a
    // block of silence is better than the end of a call.
    let given = SequentialSlice::new(input, 1, input.len())
        .ok()
        .zip(SequentialSlice::new_mut(block.as_mut_slice(), 1, room).ok())
        .and_then(|(input, mut output)| inner.process_into_buffer(&input, &mut output, None).ok())
        .map_or(room, |(_, given)| given);
    let skip = given.min(*trim);
    *trim -= skip;
    out.extend_from_slice(&block[skip..given]);
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::f64::consts::TAU;

    fn sine(hz: f64, rate: u32, len: usize) -> Vec<f32> {
        (0..len).map(|i| (10_000.0 * (TAU * hz * i as f64 / f64::from(rate)).sin()) as f32).collect()
    }

    fn resample(rate: u32, input: &[f32], chunk: usize) -> Vec<f32> {
        let mut resampler = Resampler::new(rate);
        let mut out = Vec::new();
        input.chunks(chunk).for_each(|c| resampler.push(c, &mut out));
        resampler.finish(&mut out);
        out
    }

    fn rms(x: &[f32]) -> f64 {
        (x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / x.len() as f64).sqrt()
    }

    /// Of a tone that went through: how far above everything else it is, and how late, in samples.
    fn purity_db_and_delay(hz: f64, rate: u32) -> (f64, f64) {
        let out = resample(rate, &sine(hz, rate, rate as usize), 777);
        // Whole periods, without the edges: a sine switched on and off is more than a sine.
        let period = |i: usize| TAU * hz * i as f64 / f64::from(SAMPLE_RATE);
        let inner = 400..7_600;
        let project = |f: fn(f64) -> f64| {
            inner.clone().map(|i| f64::from(out[i]) * f(period(i))).sum::<f64>() / 3_600.0
        };
        let (sin, cos) = (project(f64::sin), project(f64::cos));
        let rest: Vec<f32> =
            inner.clone().map(|i| out[i] - (sin * period(i).sin() + cos * period(i).cos()) as f32).collect();
        let delay = -cos.atan2(sin) / TAU * f64::from(SAMPLE_RATE) / hz;
        (20.0 * (rms(&out[inner]) / rms(&rest)).log10(), delay)
    }

    const USUAL: [u32; 9] = [4_000, 11_025, 12_000, 16_000, 22_050, 24_000, 44_100, 48_000, 192_000];
    /// Rates that share no short cycle with 8 kHz.
    const ODD_RATES: [u32; 4] = [7_919, 8_001, 22_051, 47_999];

    #[test]
    fn a_tone_stays_the_tone_and_in_time() {
        for rate in USUAL.into_iter().chain(ODD_RATES) {
            let (purity, delay) = purity_db_and_delay(1_000.0, rate);
            assert!(purity > 70.0, "{rate}: {purity:.1} dB");
            assert!(delay.abs() < 1.5, "{rate}: {delay:.2} samples late");
        }
    }

    #[test]
    fn the_voice_band_passes_and_what_would_fold_into_it_does_not() {
        for rate in USUAL.into_iter().chain(ODD_RATES).filter(|r| *r > 10_000) {
            let level = |hz| {
                let out = resample(rate, &sine(hz, rate, rate as usize), 500);
                20.0 * (rms(&out[400..out.len() - 400]) / rms(&sine(1_000.0, rate, rate as usize))).log10()
            };
            for hz in [300.0, 1_000.0, 3_000.0, 3_400.0] {
                let db = level(hz);
                assert!(db.abs() < 0.5, "{rate}: {hz} Hz at {db:.1} dB");
            }
            for hz in [4_100.0, 4_400.0, 5_000.0, 5_400.0] {
                let db = level(hz);
                assert!(db < -40.0, "{rate}: {hz} Hz at {db:.1} dB");
            }
        }
    }

    #[test]
    fn the_first_sound_comes_after_40_ms_at_most() {
        for rate in USUAL.into_iter().chain(ODD_RATES) {
            let mut resampler = Resampler::new(rate);
            let mut out = Vec::new();
            resampler.push(&sine(500.0, rate, rate as usize / 25 + 1), &mut out);
            assert!(!out.is_empty(), "{rate}");
        }
    }

    #[test]
    fn a_senseless_rate_is_harmless() {
        for rate in [0, 1, u32::MAX] {
            assert!(resample(rate, &[1.0; 500], 100).len() <= 1_000);
        }
    }

    #[test]
    fn at_8_khz_nothing_is_touched() {
        let input = sine(3_900.0, 8_000, 999);
        assert_eq!(resample(8_000, &input, 7), input);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_length_is_exact_and_chunks_do_not_matter(rate in prop_oneof![prop::sample::select(USUAL.to_vec()), 4_000u32..60_000],
                                                        len in 0usize..6_000, chunk in 1usize..3_000) {
            let input = sine(440.0, rate, len);
            let out = resample(rate, &input, chunk);
            let want = (len as u64 * 8_000 + u64::from(rate) / 2) / u64::from(rate);
            prop_assert_eq!(out.len() as u64, want);
            prop_assert_eq!(out, resample(rate, &input, usize::MAX));
        }
    }
}
