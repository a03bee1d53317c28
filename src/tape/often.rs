//! The three kinds of entries that make up nearly all of a tape, read by hand: a frame in, a frame out, and
//! time that passes. Reading these is a tenth of a replay otherwise. What this does not know, and all that is
//! not as it should be, is for the format's own reader.

use std::borrow::Cow;

use super::Entry;
use crate::time::CallTime;

/// Their places among the entries, which are the format.
const TICK: u8 = 0;
const PLAY: u8 = 13;
const HEARD: u8 = 27;

/// Puts the entry behind the others, made there and not moved. False if it is for the other reader.
pub(super) fn read<'b>(payload: &'b [u8], entries: &mut Vec<(CallTime, Entry<'b>)>) -> bool {
    decode(payload, entries).is_some()
}

#[inline(always)]
fn decode<'b>(payload: &'b [u8], entries: &mut Vec<(CallTime, Entry<'b>)>) -> Option<()> {
    let (at, rest) = number(payload)?;
    let at = CallTime::from_micros(at);
    let (kind, rest) = rest.split_first()?;
    match *kind {
        TICK => entries.push((at, Entry::Tick)),
        PLAY => entries.push((at, Entry::Play(Cow::Borrowed(bytes(rest)?.0)))),
        HEARD => {
            let (payload, rest) = bytes(rest)?;
            let (timestamp_ms, rest) = match rest.split_first()? {
                (0, rest) => (None, rest),
                (1, rest) => number(rest).map(|(ms, rest)| (Some(ms), rest))?,
                _ => return None,
            };
            let frames = bytes(rest)?.0;
            entries.push((at, Entry::Heard { payload, timestamp_ms, frames }));
        }
        _ => return None,
    }
    Some(())
}

/// Seven bits a byte, the lowest first; and what follows. None of these is so great that it takes more bytes.
fn number(from: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (place, byte) in from.iter().enumerate().take(8) {
        number |= u64::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((number, &from[place + 1..]));
        }
    }
    None
}

fn bytes(from: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = number(from)?;
    rest.split_at_checked(usize::try_from(len).ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::entry;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_read_by_hand_is_what_was_written(
            us in 0..1u64 << 50,
            audio in prop::collection::vec(any::<u8>(), 0..400),
            frames in prop::collection::vec(any::<u8>(), 0..60),
            timestamp_ms in prop::option::of(0..1u64 << 40),
        ) {
            let heard = Entry::Heard { payload: &audio, timestamp_ms, frames: &frames };
            for entry in [Entry::Tick, Entry::Play(Cow::Borrowed(&audio)), heard] {
                let mut payload = Vec::new();
                entry::encode(CallTime::from_micros(us), &entry, &mut payload);
                let mut entries = Vec::new();
                prop_assert!(read(&payload, &mut entries));
                prop_assert_eq!(entries, [(CallTime::from_micros(us), entry)]);
            }
        }

        #[test]
        fn whatever_it_takes_the_formats_own_reader_takes_too(
            mut payload in prop::collection::vec(any::<u8>(), 0..40),
            kind in prop::sample::select(vec![TICK, PLAY, HEARD]),
        ) {
            if let [first, second, ..] = payload.as_mut_slice() {
                (*first, *second) = (*first & 0x7F, kind);
            }
            let mut entries = Vec::new();
            if read(&payload, &mut entries) {
                prop_assert_eq!(entries.pop(), entry::decode(&payload));
            }
        }
    }
}
