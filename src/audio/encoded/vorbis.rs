//! Looks at the headers of a Vorbis stream before a decoder is made from them. Code books are written
//! densely: a few kilobytes can ask for gigabytes of tables, and for codes that the decoder has no
//! room for.

use crate::audio::format::RATES;

/// Numbers in all tables together; encoders write some 20,000 to 200,000.
const NUMBERS_MAX: u64 = 1 << 20;

/// Whether the first header tells of sound that can be played.
pub(super) fn playable(identification: &[u8]) -> bool {
    let rate = identification.get(12..16).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    // The packet is of one length; the setup is looked for after it.
    identification.len() == 30 && rate.is_some_and(|rate| RATES.contains(&rate))
}

/// Whether the tables that a setup packet asks for are of a size that encoders ask for.
pub(super) fn modest(setup: &[u8]) -> bool {
    size(setup).is_some_and(|numbers| numbers <= NUMBERS_MAX)
}

/// `None`: not the beginning of a setup packet.
fn size(setup: &[u8]) -> Option<u64> {
    let mut bits = Bits { bytes: setup.strip_prefix(b"\x05vorbis")?, at: 0 };
    let books = bits.take(8)? + 1;
    let mut numbers = 0;
    for _ in 0..books {
        numbers += book(&mut bits)?;
        if numbers > NUMBERS_MAX {
            break;
        }
    }
    Some(numbers)
}

fn book(bits: &mut Bits<'_>) -> Option<u64> {
    const SYNC: u64 = 0x56_4342;
    if bits.take(24)? != SYNC {
        return None;
    }
    let (dimensions, entries) = (bits.take(16)?, bits.take(24)?);
    if dimensions == 0 || entries == 0 {
        return None;
    }
    let numbers = entries * (dimensions + 1);
    if numbers > NUMBERS_MAX {
        return Some(numbers);
    }
    if bits.take(1)? == 1 {
        let mut len = bits.take(5)? + 1;
        let mut left = entries;
        while left > 0 {
            // Codes are up to 32 bits long.
            if len > 32 {
                return None;
            }
            left = left.checked_sub(bits.take(u64::BITS - left.leading_zeros())?)?;
            len += 1;
        }
    } else {
        let sparse = bits.take(1)? == 1;
        for _ in 0..entries {
            if !sparse || bits.take(1)? == 1 {
                bits.take(5)?;
            }
        }
    }
    let values = match bits.take(4)? {
        0 => return Some(entries),
        // As many as make a grid of no more than `entries` points.
        1 => {
            let dimensions = dimensions as u32;
            let fits = |n: &u64| n.checked_pow(dimensions).is_some_and(|points| points <= entries);
            (1..).take_while(fits).count() as u64
        }
        2 => entries * dimensions,
        _ => return None,
    };
    bits.take(32)?;
    bits.take(32)?;
    let width = bits.take(4)? + 1;
    bits.take(1)?;
    bits.skip(values * width)?;
    Some(numbers)
}

/// Vorbis fills bytes from the low end.
struct Bits<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl Bits<'_> {
    fn take(&mut self, len: u32) -> Option<u64> {
        (0..len).try_fold(0, |n, i| {
            let byte = self.bytes.get(usize::try_from(self.at / 8).ok()?)?;
            let bit = byte >> (self.at % 8) & 1;
            self.at += 1;
            Some(n | u64::from(bit) << i)
        })
    }

    fn skip(&mut self, len: u64) -> Option<()> {
        self.at += len;
        (self.at <= self.bytes.len() as u64 * 8).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of so many bits each, packed as Vorbis does.
    fn packed(fields: &[(u64, u32)]) -> Vec<u8> {
        let bits: Vec<u64> = fields.iter().flat_map(|(n, len)| (0..*len).map(move |i| n >> i & 1)).collect();
        let bytes = bits.chunks(8).map(|c| c.iter().enumerate().map(|(i, b)| (*b as u8) << i).sum());
        b"\x05vorbis".iter().copied().chain(bytes).collect()
    }

    const SYNC: (u64, u32) = (0x56_4342, 24);

    #[test]
    fn the_books_of_an_encoder_are_modest() {
        for file in [
            &include_bytes!("../../../tests/audio/sweep-24k-mono.ogg")[..],
            include_bytes!("../../../tests/audio/sweep-44k-stereo.ogg"),
        ] {
            let at = file.windows(7).position(|w| w == b"\x05vorbis").expect("a setup");
            // Cut by pages, but the books are on the first one.
            let numbers = size(&file[at..]).expect("books");
            assert!((5_000..300_000).contains(&numbers), "{numbers}");
        }
    }

    #[test]
    fn thirty_bytes_that_ask_for_16_mib_are_not() {
        let book = [SYNC, (32, 16), (131_072, 24), (1, 1), (16, 5), (131_072, 18), (1, 4), (0, 64), (0, 9)];
        assert!(!modest(&packed(&[&[(255, 8)][..], &book].concat())));
        let small = [(0, 8), SYNC, (1, 16), (2, 24), (1, 1), (0, 5), (2, 2), (0, 4)];
        assert_eq!(size(&packed(&small)), Some(2));
        assert_eq!(size(&packed(&small[..6])), None);
    }

    #[test]
    fn a_code_of_more_than_32_bits_is_refused_and_would_be_survived() {
        let book = [(0, 8), SYNC, (1, 16), (2, 24), (1, 1), (31, 5), (0, 2), (2, 2), (0, 4)];
        let setup = packed(&book);
        assert!(!modest(&setup));
        let mut headers = b"\x01vorbis\0\0\0\0\x01\x80\xBB\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xB8\x01".to_vec();
        assert!(playable(&headers));
        headers.extend(setup);
        assert!(super::super::codec::Codec::vorbis(&headers).is_none());
    }
}
