//! G.711 A-law to 16-bit linear: what European trunks, and WAV files made for them, carry. Voxgate
//! only reads it; what it sends is always μ-law.

/// The linear value of every A-law byte.
pub(super) const DECODE: [i16; 256] = {
    let mut table = [0i16; 256];
    let mut code = 0;
    while code < 256 {
        // The line inverts every other bit, so that silence is not a run of zeros.
        let bits = code as u8 ^ 0x55;
        let segment = (bits >> 4) & 7;
        let step = (((bits & 0x0F) as i16) << 4) + 8;
        let magnitude = if segment == 0 { step } else { (step + 0x100) << (segment - 1) };
        table[code] = if bits & 0x80 != 0 { magnitude } else { -magnitude };
        code += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::DECODE;

    #[test]
    fn the_ends_and_the_middle_of_the_g711_table() {
        assert_eq!(DECODE[0xD5], 8);
        assert_eq!(DECODE[0x55], -8);
        assert_eq!(DECODE[0xAA], 32_256);
        assert_eq!(DECODE[0x2A], -32_256);
        assert_eq!(DECODE[0x80], 5_504);
    }

    #[test]
    fn the_table_is_odd() {
        for code in 0..128usize {
            assert_eq!(DECODE[code], -DECODE[code | 0x80]);
        }
    }
}
