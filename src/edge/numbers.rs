//! How many calls each caller has, by its number. A number is known to the voice webhook, a call to its
//! stream: one that was let in counts from the webhook on, for as long as a stream may take to come, and
//! then until it ends. No number is kept, only what it hashes to.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// From the webhook to `start`; an app may do without a stream altogether.
const UNTIL_START: Duration = Duration::from_secs(60);
/// Calls whose stream has not come; the oldest goes first.
const MOST: usize = 20_000;

#[derive(Clone, Default)]
pub(super) struct Numbers(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    hasher: RandomState,
    /// By number: calls under way, and expected.
    calls: HashMap<u64, usize>,
    /// By call: whose it is, and until when its stream is expected.
    expected: HashMap<u64, (u64, Instant)>,
    /// By call: streams of it that count. One that has broken may be there for a while beside the next.
    running: HashMap<u64, usize>,
    /// Until when, and which call; also those whose stream has come meanwhile.
    order: VecDeque<(Instant, u64)>,
}

/// A call under way counts until this is dropped.
pub(super) struct Counted {
    numbers: Numbers,
    call: u64,
    number: u64,
}

impl Numbers {
    /// Whether a call that comes in is within so many of its caller. If so, its stream is expected.
    pub(super) fn expect(&self, call_sid: &str, number: &str, most: usize, now: Instant) -> bool {
        let mut known = self.lock();
        known.forget(now);
        let (call, number) = (known.hasher.hash_one(call_sid), known.hasher.hash_one(number));
        // Twilio asks again where it had no answer.
        if known.expected.contains_key(&call) {
            return true;
        }
        // A call that comes back is not turned away for the stream that it has lost.
        let is_new = !known.running.contains_key(&call);
        if is_new && known.calls.get(&number).is_some_and(|calls| *calls >= most) {
            return false;
        }
        if known.order.len() >= MOST {
            known.forget_first();
        }
        let until = now + UNTIL_START;
        known.expected.insert(call, (number, until));
        known.order.push_back((until, call));
        *known.calls.entry(number).or_default() += 1;
        true
    }

    /// A stream has come: for a call that was expected, or for one of this number, if that is known.
    /// `Err` where that has enough.
    pub(super) fn enter(
        &self,
        call_sid: &str,
        number: Option<&str>,
        most: usize,
        now: Instant,
    ) -> Result<Option<Counted>, ()> {
        let mut known = self.lock();
        known.forget(now);
        let call = known.hasher.hash_one(call_sid);
        let number = match (known.expected.remove(&call), number) {
            (Some((number, _)), _) => number,
            (None, None) => return Ok(None),
            (None, Some(number)) => {
                let number = known.hasher.hash_one(number);
                let is_new = !known.running.contains_key(&call);
                let calls = known.calls.entry(number).or_default();
                if is_new && *calls >= most {
                    return Err(());
                }
                *calls += 1;
                number
            }
        };
        *known.running.entry(call).or_default() += 1;
        Ok(Some(Counted { numbers: self.clone(), call, number }))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((until, call)) = self.order.pop_front() else { return };
        // A call whose stream came and went may have asked again since: it is expected for longer.
        if let Some((number, _)) = self.expected.get(&call).copied().filter(|(_, latest)| *latest == until) {
            self.expected.remove(&call);
            self.ended(number);
        }
    }

    fn ended(&mut self, number: u64) {
        one_less(&mut self.calls, number);
    }
}

fn one_less(counts: &mut HashMap<u64, usize>, of: u64) {
    if let Some(count) = counts.get_mut(&of) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&of);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut known = self.numbers.lock();
        known.ended(self.number);
        one_less(&mut known.running, self.call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_so_many_calls_from_the_webhook_to_the_end() {
        let (numbers, now) = (Numbers::default(), Instant::now());
        assert!(numbers.expect("CA1", "+1", 2, now) && numbers.expect("CA2", "+1", 2, now));
        assert!(!numbers.expect("CA3", "+1", 2, now) && numbers.expect("CA4", "+2", 2, now));
        assert!(numbers.expect("CA1", "+1", 2, now), "asked again");
        let first = numbers.enter("CA1", None, 2, now).unwrap();
        assert!(first.is_some() && !numbers.expect("CA3", "+1", 2, now));
        // The other one never came.
        let later = now + UNTIL_START;
        assert!(numbers.expect("CA3", "+1", 2, later) && !numbers.expect("CA5", "+1", 2, later));
        drop(first);
        assert!(numbers.expect("CA5", "+1", 2, later));
    }

    #[test]
    fn a_call_that_asks_again_after_its_stream_is_expected_from_then_on() {
        let (numbers, now) = (Numbers::default(), Instant::now());
        let after = |part: u32| now + UNTIL_START * part / 4;
        assert!(numbers.expect("CA1", "+1", 1, now));
        drop(numbers.enter("CA1", None, 1, after(1)).unwrap());
        assert!(numbers.expect("CA1", "+1", 1, after(2)));
        assert!(!numbers.expect("CA2", "+1", 1, after(5)), "its first minute is over, not its second");
        assert!(numbers.expect("CA2", "+1", 1, after(6)));
        drop(numbers.enter("CA2", None, 1, after(7)).unwrap());
        assert!(numbers.lock().calls.is_empty() && numbers.lock().expected.is_empty());
    }

    /// Its stream has broken, and nobody here knows it yet.
    #[test]
    fn a_call_that_comes_back_is_not_one_too_many_beside_itself() {
        let (numbers, now) = (Numbers::default(), Instant::now());
        assert!(numbers.expect("CA1", "+1", 1, now));
        let broken = numbers.enter("CA1", None, 1, now).unwrap();
        assert!(numbers.expect("CA1", "+1", 1, now), "its own stream is there still");
        assert!(!numbers.expect("CA2", "+1", 1, now), "another call is one too many all the same");
        let next = numbers.enter("CA1", None, 1, now).unwrap();
        // The webhook was another replica's.
        let third = numbers.enter("CA1", Some("+1"), 1, now).unwrap();
        assert!(numbers.enter("CA2", Some("+1"), 1, now).is_err());
        drop(broken);
        drop(third);
        assert!(numbers.expect("CA1", "+1", 1, now) && !numbers.expect("CA2", "+1", 1, now));
        drop(numbers.enter("CA1", None, 1, now).unwrap());
        drop(next);
        let known = numbers.lock();
        assert!(known.calls.is_empty() && known.expected.is_empty() && known.running.is_empty());
    }

    #[test]
    fn a_call_of_another_replica_counts_by_the_number_that_its_stream_tells() {
        let (numbers, now) = (Numbers::default(), Instant::now());
        assert!(numbers.enter("CA1", None, 1, now).unwrap().is_none());
        let counted = numbers.enter("CA1", Some("+1"), 1, now).unwrap();
        assert!(counted.is_some() && numbers.enter("CA2", Some("+1"), 1, now).is_err());
        drop(counted);
        assert!(numbers.enter("CA2", Some("+1"), 1, now).unwrap().is_some());
        assert!(numbers.lock().calls.is_empty(), "nothing is left behind");
    }

    #[test]
    fn what_is_expected_is_bounded() {
        let (numbers, now) = (Numbers::default(), Instant::now());
        (0..2 * MOST).for_each(|n| assert!(numbers.expect(&format!("CA{n}"), &format!("+{n}"), 1, now)));
        let known = numbers.lock();
        assert_eq!([known.order.len(), known.expected.len(), known.calls.len()], [MOST; 3]);
    }
}
