//! The calls that are under way, and what is known of those that come back with another stream.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGauge;

use crate::call::{Counts, Memory, StopReason};

/// CallSids that are remembered; the oldest go first. A call that opens a second stream does so soon
/// after the first.
const REMEMBERED: usize = 20_000;

pub(super) struct Calls {
    active: AtomicUsize,
    /// Those of them whose `start` has not come.
    unstarted: AtomicUsize,
    limit: AtomicUsize,
    gauge: IntGauge,
    known: Mutex<Known>,
    unstarted_gauge: IntGauge,
}

/// By what their CallSids hash to, which is small: 2 MB for all of them.
struct Known {
    hasher: RandomState,
    calls: HashMap<u64, Past>,
    order: VecDeque<u64>,
}

impl Default for Known {
    fn default() -> Known {
        // All of it is written to once, since the system gives a page only then: a process would grow for as long
        // as it does not know as many calls as it may, and each new call would seem to take a page.
        let mut order: VecDeque<u64> = (0..=REMEMBERED as u64).collect();
        // Half of it may be places of calls that were forgotten, without another to be had.
        let mut calls: HashMap<u64, Past> =
            (0..2 * REMEMBERED as u64).map(|n| (n, Past::default())).collect();
        order.clear();
        calls.clear();
        Known { hasher: RandomState::new(), calls, order }
    }
}

/// Of a call's streams so far.
#[derive(Default)]
struct Past {
    greeted: bool,
    /// Its last stream was ended on purpose, by whomever.
    over: bool,
    counts: Counts,
}

/// A place for one call; given back when dropped.
pub(super) struct Place {
    calls: Arc<Calls>,
    started: bool,
}

impl Calls {
    pub(super) fn new(limit: usize, gauge: IntGauge, unstarted_gauge: IntGauge) -> Arc<Calls> {
        Arc::new(Calls {
            active: AtomicUsize::new(0),
            unstarted: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            gauge,
            known: Mutex::default(),
            unstarted_gauge,
        })
    }

    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
    }

    pub(super) fn unstarted(&self) -> usize {
        self.unstarted.load(Ordering::SeqCst)
    }

    /// Calls above it go on; no new ones are taken until there are fewer.
    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
    }

    /// A place for a new call, unless all are taken.
    pub(super) fn enter(self: &Arc<Calls>) -> Option<Place> {
        let limit = self.limit.load(Ordering::SeqCst);
        let entered = self
            .active
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |active| (active < limit).then_some(active + 1))
            .is_ok();
        entered.then(|| {
            self.gauge.inc();
            self.unstarted.fetch_add(1, Ordering::SeqCst);
            self.unstarted_gauge.inc();
            Place { calls: self.clone(), started: false }
        })
    }

    /// Whether this call is to be greeted: true once for each CallSid.
    pub(super) fn greet(&self, call_sid: &str) -> bool {
        self.past(call_sid, |past| !std::mem::replace(&mut past.greeted, true)).unwrap_or(true)
    }

    /// A stream of this call has ended.
    pub(super) fn ended(&self, call_sid: &str, reason: StopReason) {
        let over = match reason {
            StopReason::WsLost | StopReason::Error => false,
            StopReason::CallerHangup
            | StopReason::BotEnd
            | StopReason::Timeout
            | StopReason::Drain
            | StopReason::SendDigits
            | StopReason::Transfer => true,
        };
        self.past(call_sid, |past| past.over = over);
    }

    /// Whether the last stream of this call was ended on purpose, as far as this process knows.
    pub(super) fn is_over(&self, call_sid: &str) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.calls.get(&known.hasher.hash_one(call_sid)).is_some_and(|past| past.over)
    }

    /// A stream of this call has ended, and left so much.
    pub(super) fn remember(&self, call_sid: &str, memory: Memory) {
        self.past(call_sid, |past| past.counts = memory.counts());
    }

    /// What its earlier streams have left: its turns are counted on, so that no turn passes for the
    /// repeat of another.
    pub(super) fn memory(&self, call_sid: &str) -> Memory {
        self.past(call_sid, |past| past.counts).unwrap_or_default().into()
    }

    /// A carrier without ids has no call that could be known again.
    fn past<T>(&self, call_sid: &str, with: impl FnOnce(&mut Past) -> T) -> Option<T> {
        if call_sid.is_empty() {
            return None;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = known.hasher.hash_one(call_sid);
        if let Some(past) = known.calls.get_mut(&key) {
            return Some(with(past));
        }
        known.order.push_back(key);
        if known.order.len() > REMEMBERED
            && let Some(oldest) = known.order.pop_front()
        {
            known.calls.remove(&oldest);
        }
        Some(with(known.calls.entry(key).or_default()))
    }
}

impl Place {
    /// The call's `start` has come.
    pub(super) fn start(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            self.calls.unstarted.fetch_sub(1, Ordering::SeqCst);
            self.calls.unstarted_gauge.dec();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.start();
        self.calls.active.fetch_sub(1, Ordering::SeqCst);
        self.calls.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(limit: usize) -> Arc<Calls> {
        let gauge = || IntGauge::new("calls", "calls").expect("a gauge");
        Calls::new(limit, gauge(), gauge())
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let calls = calls(2);
        let first = calls.enter();
        let second = calls.enter();
        assert!(first.is_some() && second.is_some() && calls.enter().is_none());
        drop(first);
        assert_eq!((calls.active(), calls.unstarted()), (1, 1));
        let mut second = second;
        second.iter_mut().for_each(Place::start);
        assert_eq!((calls.active(), calls.unstarted()), (1, 0));
        assert!(calls.enter().is_some());
    }

    #[test]
    fn each_call_is_greeted_once_and_the_memory_of_it_is_bounded() {
        let calls = calls(1);
        assert!(calls.greet("CA1"));
        assert!(!calls.greet("CA1"));
        (0..REMEMBERED).for_each(|i| assert!(calls.greet(&format!("CB{i}"))));
        assert!(calls.greet("CA1"), "the oldest is forgotten");
        assert!(calls.greet("") && calls.greet(""), "a carrier without ids");
    }

    #[test]
    fn a_call_is_over_when_its_stream_was_ended_and_not_when_it_broke() {
        let calls = calls(1);
        assert!(!calls.is_over("CA1"), "nothing is known of it");
        for reason in StopReason::ALL {
            calls.ended("CA1", reason);
            let broke = ["ws_lost", "error"].contains(&reason.as_str());
            assert_eq!(calls.is_over("CA1"), !broke, "{reason:?}");
        }
    }

    #[test]
    fn the_numbers_of_a_call_go_on_over_its_streams() {
        let calls = calls(1);
        let told = serde_json::json!({
            "turns": 3, "utterances": 5, "segments": 7, "controls": 9,
            "previous": {"heard": "", "interrupted": false},
        });
        let memory = || serde_json::from_value::<Memory>(told.clone()).expect("a memory");
        let kept = |call_sid| serde_json::to_value(calls.memory(call_sid)).expect("a memory");
        let nothing = kept("CA1");
        assert_eq!(nothing["turns"], 0);
        calls.remember("CA1", memory());
        calls.remember("", memory());
        assert_eq!((kept("CA1"), kept("CA2")), (told.clone(), nothing.clone()));
        assert_eq!(kept(""), nothing, "a carrier without ids");
        assert!(calls.greet("CA1"), "it had no greeting");
    }

    #[test]
    fn what_is_known_of_a_call_is_small() {
        assert!(size_of::<(u64, Past)>() <= 32);
    }
}
