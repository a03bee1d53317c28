//! The caller's audio on its way to a streaming recogniser, and what the call wants of it, in one
//! order. Audio is kept until the recogniser is done with it, so that a broken connection costs no
//! word; what is kept has a bound, and the oldest goes first.
//!
//! The call's loop writes and must never wait: a push copies into memory that is already there and
//! wakes the reader once for every message's worth of audio, not for every frame.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::audio::BYTES_PER_MS;

/// Audio kept at most: 10 s.
pub(super) const MOST_KEPT: usize = 10_000 * BYTES_PER_MS;

/// A message to the recogniser: 80 ms. Vendors advise 20 to 250 ms; a shorter one costs more packets,
/// a longer one makes the caller wait.
pub(super) const MESSAGE: usize = 80 * BYTES_PER_MS;

/// Orders that wait at most. A call gives one at a time; with more, nobody waits for the oldest.
const MOST_ORDERS: usize = 8;

/// A place in the caller's audio: bytes since the call began.
pub(super) type Position = u64;

/// What the call wants of the recogniser once it has heard everything before `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// The utterance that ends there; `None` if what was understood is of no use.
    pub(super) utterance: Option<u64>,
    pub(super) at: Position,
}

#[derive(Default)]
pub(super) struct Tape {
    kept: Mutex<Kept>,
    wake: Notify,
}

#[derive(Default)]
struct Kept {
    audio: VecDeque<u8>,
    /// The position of the first byte that is kept.
    start: Position,
    /// The position at which the reader was woken last.
    woken: Position,
    orders: VecDeque<Order>,
    /// Bytes that nobody has heard: the recogniser was away for too long, or too slow.
    lost: u64,
    /// Up to here the audio has been sent at least once.
    sent: Position,
    over: bool,
}

impl Kept {
    fn end(&self) -> Position {
        self.start + self.audio.len() as u64
    }
}

impl Tape {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, payload: &[u8]) {
        let mut kept = self.kept();
        let over = (kept.audio.len() + payload.len()).saturating_sub(MOST_KEPT);
        if over > 0 {
            let gone = over.min(kept.audio.len());
            kept.audio.drain(..gone);
            kept.start += gone as u64;
            kept.lost += kept.start.saturating_sub(kept.sent).min(gone as u64);
        }
        kept.audio.extend(&payload[payload.len().saturating_sub(MOST_KEPT)..]);
        if kept.end() - kept.woken >= MESSAGE as u64 {
            kept.woken = kept.end();
            drop(kept);
            self.wake.notify_one();
        }
    }

    pub(super) fn order(&self, utterance: Option<u64>) {
        let mut kept = self.kept();
        let at = kept.end();
        kept.orders.push_back(Order { utterance, at });
        if kept.orders.len() > MOST_ORDERS {
            kept.orders.pop_front();
        }
        drop(kept);
        self.wake.notify_one();
    }

    /// The call is over.
    pub(super) fn end_it(&self) {
        self.kept().over = true;
        self.wake.notify_one();
    }

    // ---- the reader's side ------------------------------------------------------------------------

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn is_over(&self) -> bool {
        self.kept().over
    }

    pub(super) fn next_order(&self) -> Option<Order> {
        self.kept().orders.pop_front()
    }

    /// Where the audio that is kept begins and ends.
    pub(super) fn span(&self) -> (Position, Position) {
        let kept = self.kept();
        (kept.start, kept.end())
    }

    /// Up to `most` bytes from there on, which must be kept.
    pub(super) fn copy(&self, from: Position, most: usize) -> Vec<u8> {
        let mut kept = self.kept();
        let skip = usize::try_from(from.saturating_sub(kept.start)).unwrap_or(usize::MAX);
        let copied: Vec<u8> = kept.audio.iter().skip(skip).take(most).copied().collect();
        kept.sent = kept.sent.max(from + copied.len() as u64);
        copied
    }

    /// The recogniser is done with everything before this.
    pub(super) fn forget(&self, before: Position) {
        let mut kept = self.kept();
        let gone = before.saturating_sub(kept.start).min(kept.audio.len() as u64);
        kept.audio.drain(..usize::try_from(gone).unwrap_or(usize::MAX));
        kept.start += gone;
    }

    /// Bytes that were dropped before anybody heard them.
    pub(super) fn lost(&self) -> u64 {
        self.kept().lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_is_kept_until_it_is_forgotten_and_can_be_read_again() {
        let tape = Tape::default();
        tape.push(&[1; 160]);
        tape.push(&[2; 160]);
        assert_eq!(tape.span(), (0, 320));
        assert_eq!(tape.copy(150, 20), [[1; 10], [2; 10]].concat());
        tape.forget(160);
        assert_eq!((tape.span(), tape.copy(160, 999)), ((160, 320), vec![2; 160]));
        tape.forget(100);
        tape.forget(9999);
        assert_eq!(tape.span(), (320, 320));
    }

    #[test]
    fn the_oldest_goes_when_nobody_reads_and_what_was_never_heard_is_counted() {
        let tape = Tape::default();
        (0..500).for_each(|_| tape.push(&[7; 160]));
        assert_eq!((tape.span(), tape.lost()), ((0, MOST_KEPT as u64), 0));
        assert_eq!(tape.copy(0, 200).len(), 200);
        (0..500).for_each(|_| tape.push(&[8; 160]));
        assert_eq!(tape.span(), (MOST_KEPT as u64, 2 * MOST_KEPT as u64));
        assert_eq!(tape.lost(), MOST_KEPT as u64 - 200);
    }

    #[test]
    fn orders_have_a_place_in_the_audio_and_a_bound() {
        let tape = Tape::default();
        tape.push(&[1; 100]);
        tape.order(Some(1));
        tape.push(&[1; 100]);
        tape.order(None);
        assert_eq!(tape.next_order(), Some(Order { utterance: Some(1), at: 100 }));
        assert_eq!(tape.next_order(), Some(Order { utterance: None, at: 200 }));
        (0..99).for_each(|i| tape.order(Some(i)));
        assert_eq!(tape.next_order().and_then(|order| order.utterance), Some(91));
    }
}
