//! How loud a stretch of μ-law is.

use super::{FRAME_BYTES, mulaw};

/// Squares of the linear values, so that a frame's level costs a table look-up a sample.
static SQUARES: [u32; 256] = {
    let mut table = [0u32; 256];
    let mut code = 0;
    while code < 256 {
        let v = mulaw::DECODE[code] as i32;
        table[code] = (v * v) as u32;
        code += 1;
    }
    table
};

/// Root mean square on the 16-bit scale: 0 for silence, about 23,000 for a full-scale sine.
pub fn rms(mulaw: &[u8]) -> f32 {
    if mulaw.is_empty() {
        return 0.0;
    }
    let sum: u64 = mulaw.iter().map(|&b| u64::from(SQUARES[b as usize])).sum();
    (sum as f32 / mulaw.len() as f32).sqrt()
}

/// Whether the root mean square is above this whole number. What is loud shows it soon, and the rest is not
/// looked at.
pub fn is_above(mulaw: &[u8], rms: u32) -> bool {
    let most = u64::from(rms) * u64::from(rms) * mulaw.len() as u64;
    let mut sum = 0;
    mulaw.chunks(FRAME_BYTES).any(|some| {
        sum += some.iter().map(|&b| u64::from(SQUARES[b as usize])).sum::<u64>();
        sum > most
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_above_is_so_by_its_measure(codes in prop::collection::vec(any::<u8>(), 0..700), quiet in any::<bool>()) {
            let audio: Vec<u8> = codes.iter().map(|code| if quiet { 0x70 | code } else { *code }).collect();
            for least in [0, 4, 8, 16, 300, 10_000] {
                let measured = rms(&audio);
                // At the very edge a float is no judge.
                if (measured - least as f32).abs() > 0.001 {
                    prop_assert_eq!(is_above(&audio, least), measured > least as f32, "{} of {}", least, measured);
                }
            }
        }
    }

    #[test]
    fn silence_is_zero_and_a_square_wave_is_its_amplitude() {
        assert_eq!(rms(&[0xFF; 160]), 0.0);
        assert_eq!(rms(&[0x80; 160]), 32_124.0);
        let alternating: Vec<u8> = (0..160).map(|i| if i % 2 == 0 { 0x00 } else { 0x80 }).collect();
        assert_eq!(rms(&alternating), 32_124.0);
        assert_eq!(rms(&[]), 0.0);
    }
}
