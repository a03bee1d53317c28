//! G.711 μ-law to 16-bit linear and back.

/// The linear value of every μ-law byte.
pub const DECODE: [i16; 256] = {
    let mut table = [0i16; 256];
    let mut code = 0;
    while code < 256 {
        let bits = !(code as u8);
        let magnitude = ((((bits & 0x0F) as i16) << 3) + BIAS) << ((bits >> 4) & 7);
        table[code] = if bits & 0x80 != 0 { BIAS - magnitude } else { magnitude - BIAS };
        code += 1;
    }
    table
};

const BIAS: i16 = 0x84;
const CLIP: i32 = 32_635;

pub fn decode(byte: u8) -> i16 {
    DECODE[byte as usize]
}

pub fn encode(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80u8 } else { 0 };
    let magnitude = i32::from(sample).abs().min(CLIP) + i32::from(BIAS);
    // The highest set bit, counted from bit 7, is the segment.
    let segment = 24 - (magnitude as u32).leading_zeros();
    let mantissa = (magnitude >> (segment + 3)) & 0x0F;
    !(sign | ((segment as u8) << 4) | mantissa as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_and_the_middle_of_the_g711_table() {
        assert_eq!(decode(0x00), -32_124);
        assert_eq!(decode(0x80), 32_124);
        assert_eq!(decode(0x7F), 0);
        assert_eq!(decode(0xFF), 0);
        assert_eq!(decode(0xFE), 8);
    }

    #[test]
    fn every_byte_survives_the_round_trip_but_for_negative_zero() {
        for byte in 0..=255u8 {
            let expected = if byte == 0x7F { 0xFF } else { byte };
            assert_eq!(encode(decode(byte)), expected, "byte {byte:#04x}");
        }
    }

    #[test]
    fn encoding_picks_a_neighbour_of_the_sample() {
        for sample in i16::MIN..=i16::MAX {
            let back = i32::from(decode(encode(sample)));
            let off = (back - i32::from(sample).clamp(-CLIP, CLIP)).abs();
            assert!(off <= 1024 && off <= 8 + i32::from(sample).abs() / 16, "{sample} → {back}");
        }
    }
}
