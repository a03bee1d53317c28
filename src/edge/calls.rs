//! The calls that are under way, and what is known of those that come back with another stream.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGauge;

use crate::call::Memory;

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

#[derive(Default)]
struct Known {
    calls: HashMap<String, Past>,
    order: VecDeque<String>,
}

/// Of a call's streams so far.
#[derive(Default)]
struct Past {
    greeted: bool,
    memory: Memory,
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

    /// A stream of this call has ended, and left so much.
    pub(super) fn remember(&self, call_sid: &str, memory: Memory) {
        self.past(call_sid, |past| past.memory = memory.without_words());
    }

    /// What its earlier streams have left: its turns are counted on, so that no turn passes for the
    /// repeat of another.
    pub(super) fn memory(&self, call_sid: &str) -> Memory {
        self.past(call_sid, |past| past.memory.clone()).unwrap_or_default()
    }

    /// A carrier without ids has no call that could be known again.
    fn past<T>(&self, call_sid: &str, with: impl FnOnce(&mut Past) -> T) -> Option<T> {
        if call_sid.is_empty() {
            return None;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(past) = known.calls.get_mut(call_sid) {
            return Some(with(past));
        }
        known.order.push_back(call_sid.to_owned());
        if known.order.len() > REMEMBERED
            && let Some(oldest) = known.order.pop_front()
        {
            known.calls.remove(&oldest);
        }
        Some(with(known.calls.entry(call_sid.to_owned()).or_default()))
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
    fn the_turns_of_a_call_are_counted_on_over_its_streams() {
        let calls = calls(1);
        let memory = |turns| {
            serde_json::from_value::<Memory>(serde_json::json!({
                "turns": turns, "utterances": 0, "segments": 0, "controls": 0,
                "previous": {"heard": "", "interrupted": false},
            }))
        };
        assert_eq!(calls.memory("CA1").turns(), 0);
        calls.remember("CA1", memory(3).expect("a memory"));
        calls.remember("", memory(3).expect("a memory"));
        assert_eq!((calls.memory("CA1").turns(), calls.memory("CA2").turns()), (3, 0));
        assert_eq!(calls.memory("").turns(), 0, "a carrier without ids");
        assert!(calls.greet("CA1"), "it had no greeting");
    }
}
