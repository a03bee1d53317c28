//! The calls that are under way, and what is known of those that come back with another stream.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::call::{Counts, Memory, StopReason};

/// CallSids that are remembered; the oldest go first. A call that opens a second stream does so soon
/// after the first.
const REMEMBERED: usize = 20_000;

/// A stream that was told to end has done so by then, but where it is still meeting its bot.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

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
    /// The stream that each call has now.
    streams: HashMap<u64, Stream>,
    /// How many there were.
    count: u64,
}

/// A stream that has started, and has not ended.
struct Stream {
    number: u64,
    /// Turns true when the call has come back with another; `None` where calls do not come back.
    replaced: Option<watch::Sender<bool>>,
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
        Known { hasher: RandomState::new(), calls, order, streams: HashMap::new(), count: 0 }
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
    /// What its CallSid hashes to, and the number of this stream.
    stream: Option<(u64, u64)>,
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
            Place { calls: self.clone(), started: false, stream: None }
        })
    }

    /// Whether this call is to be greeted: true once for each CallSid.
    pub(super) fn greet(&self, call_sid: &str) -> bool {
        self.past(call_sid, |past| !std::mem::replace(&mut past.greeted, true)).unwrap_or(true)
    }

    /// The last stream of this call has ended.
    fn ended(&self, call_sid: &str, reason: StopReason) {
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
        let known = self.known();
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
        let mut known = self.known();
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

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here panics half-way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The call's `start` has come: from now on its stream is this one. Twilio knows of a break before we do, where
    /// neither end of the connection has said so: a call that `resumes` beside an older stream has that one end
    /// first, and hand over. What is returned turns true when a newer one comes.
    pub(super) async fn start(&mut self, call_sid: &str, resumes: bool) -> Option<watch::Receiver<bool>> {
        self.count_started();
        // A carrier without ids has no call that could be known again.
        if call_sid.is_empty() {
            return None;
        }
        let (replaced, told) = resumes.then(|| watch::channel(false)).unzip();
        let older = {
            let mut known = self.calls.known();
            known.count += 1;
            let (key, number) = (known.hasher.hash_one(call_sid), known.count);
            self.stream = Some((key, number));
            // Whatever its last stream ended for: the call is here.
            if let Some(past) = known.calls.get_mut(&key) {
                past.over = false;
            }
            known.streams.insert(key, Stream { number, replaced })
        };
        if let Some(replaced) = older.and_then(|older| older.replaced) {
            replaced.send_replace(true);
            let _ = timeout(ENDS_WITHIN, replaced.closed()).await;
        }
        told
    }

    /// Its stream has ended. Whether that was the call's last one: the call has gone on with a newer one otherwise,
    /// and is not to be touched.
    pub(super) fn ended(&self, call_sid: &str, reason: StopReason) -> bool {
        let last = self.stream.is_none_or(|(key, number)| {
            self.calls.known().streams.get(&key).is_some_and(|stream| stream.number == number)
        });
        if last {
            self.calls.ended(call_sid, reason);
        }
        last
    }

    fn count_started(&mut self) {
        if !std::mem::replace(&mut self.started, true) {
            self.calls.unstarted.fetch_sub(1, Ordering::SeqCst);
            self.calls.unstarted_gauge.dec();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count_started();
        if let Some((key, number)) = self.stream {
            let mut known = self.calls.known();
            if known.streams.get(&key).is_some_and(|stream| stream.number == number) {
                known.streams.remove(&key);
            }
        }
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

    fn place(calls: &Arc<Calls>) -> Place {
        calls.enter().expect("a place")
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
        second.iter_mut().for_each(Place::count_started);
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

    #[tokio::test]
    async fn what_becomes_of_a_stream_says_nothing_of_a_call_that_has_another() {
        let calls = calls(9);
        let (mut broken, mut next, mut other) = (place(&calls), place(&calls), place(&calls));
        assert!(broken.start("CA1", false).await.is_none(), "nobody waits for it");
        next.start("CA1", false).await;
        other.start("CA2", false).await;
        assert!(!broken.ended("CA1", StopReason::Timeout) && !calls.is_over("CA1"));
        drop(broken);
        assert!(next.ended("CA1", StopReason::WsLost));
        assert!(other.ended("CA2", StopReason::BotEnd) && calls.is_over("CA2"));
        // It is there again, whatever its last stream ended for.
        let mut other = place(&calls);
        other.start("CA2", false).await;
        assert!(!calls.is_over("CA2"));
        // Nor does it once the other is over, and no stream is kept for long.
        let mut last = place(&calls);
        last.start("CA1", false).await;
        assert!(last.ended("CA1", StopReason::BotEnd));
        drop((last, other));
        assert!(!next.ended("CA1", StopReason::WsLost) && calls.is_over("CA1"));
        drop(next);
        assert!(calls.known().streams.is_empty());
        // A carrier without ids.
        let mut nameless = place(&calls);
        assert!(nameless.start("", true).await.is_none() && nameless.ended("", StopReason::Timeout));
    }

    #[tokio::test]
    async fn a_stream_that_is_replaced_is_told_and_ends_before_the_next_begins() {
        let calls = calls(2);
        let mut broken = place(&calls);
        let mut told = broken.start("CA1", true).await.expect("a channel");
        let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let ends = ended.clone();
        tokio::spawn(async move {
            told.wait_for(|replaced| *replaced).await.expect("to be told");
            ends.store(true, Ordering::SeqCst);
        });
        let mut next = place(&calls);
        let told = next.start("CA1", true).await.expect("a channel");
        assert!(ended.load(Ordering::SeqCst) && !*told.borrow());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_does_not_end_is_not_waited_for() {
        let calls = calls(2);
        let (mut broken, mut next) = (place(&calls), place(&calls));
        let told = broken.start("CA1", true).await.expect("a channel");
        next.start("CA1", true).await.expect("a channel");
        assert!(*told.borrow() && !broken.ended("CA1", StopReason::Timeout));
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
