//! The frame around each record on a tape: a mark, a length, a checksum. A process may die at any
//! byte; what was written whole before is read whole after, and damage in the middle costs the
//! records that it hit and no other.
//!
//! ```text
//! A7 5C | length, 4 bytes LE | CRC-32 of length and payload, 4 bytes LE | payload
//! ```

use std::sync::LazyLock;

use crc32fast::Hasher;

const MARK: [u8; 2] = [0xA7, 0x5C];
const HEAD: usize = 10;
/// No record is longer; a longer one is damage.
pub(super) const LONGEST: usize = 16 * 1024 * 1024;

/// Adds a record whose payload `write` appends. If it fails, or wrote too much, nothing is added.
pub(super) fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> bool) {
    let start = out.len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[0; HEAD - MARK.len()]);
    let written = write(out);
    let payload = out.len() - start - HEAD;
    match u32::try_from(payload) {
        Ok(len) if written && payload <= LONGEST => {
            out[start + 2..start + 6].copy_from_slice(&len.to_le_bytes());
            let sum = checksum(len, &out[start + HEAD..]);
            out[start + 6..start + HEAD].copy_from_slice(&sum.to_le_bytes());
        }
        _ => out.truncate(start),
    }
}

fn checksum(len: u32, payload: &[u8]) -> u32 {
    let mut hasher = LENGTHS.get(len as usize).cloned().unwrap_or_else(|| of_length(len));
    hasher.update(payload);
    hasher.finalize()
}

fn of_length(len: u32) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher
}

/// Where the sums of short records begin: a tape has thousands a minute.
static LENGTHS: LazyLock<[Hasher; 512]> = LazyLock::new(|| std::array::from_fn(|len| of_length(len as u32)));

/// A stretch of a tape that is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it begins, in bytes from the start of the file.
    pub at: usize,
    pub bytes: usize,
    /// Nothing whole follows: the tape was torn off here.
    pub torn: bool,
}

/// The payloads of whole records, in order, and what lies between them.
pub(super) struct Records<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Bytes that may still be looked at in search of a whole record: damage must not cost the square
    /// of the tape's length.
    patience: usize,
}

impl<'b> Records<'b> {
    pub(super) fn new(bytes: &'b [u8], from: usize) -> Records<'b> {
        Records { bytes, at: from, patience: bytes.len().saturating_mul(8) }
    }

    /// The payload of a record that begins here, and where the next one does.
    fn record(&self, at: usize) -> Option<(&'b [u8], usize)> {
        let head = self.bytes.get(at..at + HEAD)?;
        let (mark, words) = head.split_at(MARK.len());
        let [len, sum] = words.as_chunks().0 else { return None };
        let (len, sum) = (u32::from_le_bytes(*len), u32::from_le_bytes(*sum));
        if mark != MARK || len as usize > LONGEST {
            return None;
        }
        let end = at + HEAD + len as usize;
        let payload = self.bytes.get(at + HEAD..end)?;
        (checksum(len, payload) == sum).then_some((payload, end))
    }

    /// Where the next whole record begins.
    fn found(&mut self) -> Option<usize> {
        for at in self.at + 1..self.bytes.len() {
            if self.bytes[at..].starts_with(&MARK) {
                let claimed = self.bytes.get(at + 2..at + 6)?;
                let len = claimed.iter().rev().fold(0usize, |w, b| w << 8 | usize::from(*b));
                if len <= LONGEST && at + HEAD + len <= self.bytes.len() {
                    self.patience = self.patience.checked_sub(len)?;
                    if self.record(at).is_some() {
                        return Some(at);
                    }
                }
            }
        }
        None
    }
}

impl<'b> Iterator for Records<'b> {
    type Item = Result<&'b [u8], Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        if at >= self.bytes.len() {
            return None;
        }
        if let Some((payload, next)) = self.record(at) {
            self.at = next;
            return Some(Ok(payload));
        }
        let found = self.found();
        self.at = found.unwrap_or(self.bytes.len());
        Some(Err(Damage { at, bytes: self.at - at, torn: found.is_none() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tape(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for payload in payloads {
            append(&mut bytes, |out| {
                out.extend_from_slice(payload);
                true
            });
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn whole(bytes: &[u8]) -> Vec<Vec<u8>> {
        Records::new(bytes, 0).filter_map(Result::ok).map(<[u8]>::to_vec).collect()
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        // Marks within payloads are what a search could stumble over.
        let byte = prop_oneof![any::<u8>(), Just(0xA7), Just(0x5C), Just(0)];
        prop::collection::vec(prop::collection::vec(byte, 0..40), 1..12)
    }

    #[test]
    fn what_cannot_be_written_leaves_no_trace() {
        let (mut bytes, _) = tape(&[vec![1]]);
        let before = bytes.clone();
        append(&mut bytes, |out| {
            out.push(9);
            false
        });
        assert_eq!(bytes, before);
    }

    #[test]
    fn a_search_through_nothing_but_marks_ends_soon() {
        let bytes = [0xA7, 0x5C, 0x00, 0x40, 0x00, 0x00].repeat(200_000);
        let started = std::time::Instant::now();
        assert_eq!(Records::new(&bytes, 0).filter(Result::is_ok).count(), 0);
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }

    proptest! {
        #[test]
        fn every_prefix_keeps_its_whole_records(payloads in payloads()) {
            let (bytes, ends) = tape(&payloads);
            for cut in 0..=bytes.len() {
                let kept = ends.iter().filter(|end| **end <= cut).count();
                let told: Vec<_> = Records::new(&bytes[..cut], 0).collect();
                prop_assert_eq!(&whole(&bytes[..cut]), &payloads[..kept]);
                let torn = cut > 0 && !ends.contains(&cut);
                prop_assert_eq!(told.iter().any(|piece| matches!(piece, Err(d) if d.torn)), torn);
            }
        }

        #[test]
        fn a_flipped_bit_costs_the_record_that_it_is_in(payloads in payloads(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (mut bytes, ends) = tape(&payloads);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let hit = ends.iter().position(|end| at < *end).unwrap_or(0);
            let mut expected = payloads.clone();
            expected.remove(hit);
            prop_assert_eq!(whole(&bytes), expected);
        }

        #[test]
        fn noise_is_no_tape(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(whole(&bytes).is_empty());
        }
    }
}
