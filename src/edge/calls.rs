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
    limit: AtomicUsize,
    gauge: IntGauge,
    greeted: Mutex<Greeted>,
}

#[derive(Default)]
struct Greeted {
    known: HashSet<String>,
    order: VecDeque<String>,
}

/// A place for one call; given back when dropped.
pub(super) struct Place(Arc<Calls>);

impl Calls {
    pub(super) fn new(limit: usize, gauge: IntGauge) -> Arc<Calls> {
        Arc::new(Calls {
            active: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            gauge,
            greeted: Mutex::default(),
        })
    }

    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::SeqCst)
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
            Place(self.clone())
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

impl Drop for Place {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
        self.0.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(limit: usize) -> Arc<Calls> {
        Calls::new(limit, IntGauge::new("calls", "calls").expect("a gauge"))
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let calls = calls(2);
        let first = calls.enter();
        let second = calls.enter();
        assert!(first.is_some() && second.is_some() && calls.enter().is_none());
        drop(first);
        assert_eq!(calls.active(), 1);
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
