//! The calls that are under way, and the callers that have been greeted.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGauge;

/// CallSids that are remembered as greeted; the oldest go first. A call that opens a second stream
/// does so soon after the first.
const GREETED: usize = 20_000;

pub(super) struct Calls {
    active: AtomicUsize,
    /// Those of them whose `start` has not come.
    unstarted: AtomicUsize,
    limit: AtomicUsize,
    gauge: IntGauge,
    unstarted_gauge: IntGauge,
    greeted: Mutex<Greeted>,
}

#[derive(Default)]
struct Greeted {
    known: HashSet<String>,
    order: VecDeque<String>,
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
            unstarted_gauge,
            greeted: Mutex::default(),
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
        let mut greeted = self.greeted.lock().unwrap_or_else(PoisonError::into_inner);
        if call_sid.is_empty() {
            return true;
        }
        let fresh = greeted.known.insert(call_sid.to_owned());
        if fresh {
            greeted.order.push_back(call_sid.to_owned());
            if greeted.order.len() > GREETED
                && let Some(oldest) = greeted.order.pop_front()
            {
                greeted.known.remove(&oldest);
            }
        }
        fresh
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
        (0..GREETED).for_each(|i| assert!(calls.greet(&format!("CB{i}"))));
        assert!(calls.greet("CA1"), "the oldest is forgotten");
        assert!(calls.greet("") && calls.greet(""), "a carrier without ids");
    }
}
