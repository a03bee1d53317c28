//! The servers of the app behind: whose turn it is, which of them cannot be reached at present,
//! whether a request that reached none is worth another, and how many the app has at once.

use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use crate::config::{BreakerLimits, Upstream};
use crate::observe::Metrics;

pub(super) struct Origin {
    name: String,
    servers: Vec<Server>,
    turn: AtomicUsize,
    limits: BreakerLimits,
    budget: Budget,
    since: Instant,
    /// Requests that the app has, and how many it may.
    at_app: Arc<AtomicUsize>,
    most: usize,
    metrics: Arc<Metrics>,
}

/// A request that the app has, until this is dropped.
pub(super) struct AtApp(Arc<AtomicUsize>);

impl Drop for AtApp {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A server, and what the requests to it have shown.
struct Server {
    address: SocketAddr,
    /// Connections that failed, in a row.
    failures: AtomicU32,
    /// It is passed over until then, in milliseconds; 0 while it is well.
    away_until: AtomicU64,
}

impl Origin {
    /// Those that the app has already, by way of another configuration, count as well.
    pub(super) fn new(
        app: &Upstream,
        metrics: Arc<Metrics>,
        at_app: Arc<AtomicUsize>,
    ) -> std::io::Result<Origin> {
        let mut addresses = BTreeSet::new();
        for server in &app.servers {
            addresses.extend(server.to_socket_addrs()?);
        }
        let server = |address| Server { address, failures: AtomicU32::new(0), away_until: AtomicU64::new(0) };
        let origin = Origin {
            name: app.name.clone(),
            servers: addresses.into_iter().map(server).collect(),
            turn: AtomicUsize::new(0),
            limits: app.breaker,
            budget: Budget::default(),
            since: Instant::now(),
            at_app,
            most: app.max_in_flight,
            metrics,
        };
        origin.tell();
        Ok(origin)
    }

    /// The next that can be reached, as far as known, and not the one that was just tried. Where there
    /// is no such server, one that may be back: to try is better than to refuse.
    pub(super) fn next(&self, tried: Option<SocketAddr>) -> Option<SocketAddr> {
        // Who is passed over gives each of the others the same share of its turns.
        let pick = |accept: &dyn Fn(&Server) -> bool| {
            let mut turns = self.servers.iter().filter_map(|_| {
                self.servers.get(self.turn.fetch_add(1, Ordering::Relaxed) % self.servers.len())
            });
            turns.find(|server| accept(server)).map(|server| server.address)
        };
        let is_away = |server: &Server| match server.away_until.load(Ordering::Relaxed) {
            0 => false,
            until => until > self.now(),
        };
        let elsewhere = |server: &Server| tried != Some(server.address);
        pick(&|server| elsewhere(server) && !is_away(server))
            .or_else(|| pick(&elsewhere))
            .or_else(|| pick(&|_| true))
    }

    fn server(&self, address: SocketAddr) -> Option<&Server> {
        self.servers.iter().find(|server| server.address == address)
    }

    /// A request begins; `None` where the app has enough of them.
    pub(super) fn asked(&self) -> Option<AtApp> {
        let one = AtApp(self.at_app.clone());
        if self.at_app.fetch_add(1, Ordering::Relaxed) >= self.most {
            return None;
        }
        self.budget.earn();
        Some(one)
    }

    /// A server has answered, whatever it said.
    pub(super) fn answered(&self, address: SocketAddr) {
        let Some(server) = self.server(address) else { return };
        if server.failures.load(Ordering::Relaxed) > 0 {
            server.failures.store(0, Ordering::Relaxed);
            if server.away_until.swap(0, Ordering::Relaxed) > 0 {
                self.tell();
            }
        }
    }

    /// A server could not be reached; nothing of the request was sent. True if another is to be asked,
    /// which is so while there is one, for a fifth of all requests at most.
    pub(super) fn unreachable(&self, address: SocketAddr, attempts: usize) -> bool {
        if let Some(server) = self.server(address) {
            let failures = server.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if self.limits.failures.is_some_and(|most| failures >= most.get()) {
                let until = self.now() + self.limits.cooldown.as_millis() as u64;
                if server.away_until.swap(until, Ordering::Relaxed) == 0 {
                    self.tell();
                }
            }
        }
        let again = attempts < self.servers.len() && self.budget.spend();
        if again {
            self.metrics.origin_retry(&self.name);
        }
        again
    }

    /// A request is sent once more on a new connection, since the app had closed the old one.
    pub(super) fn sent_again(&self) {
        self.metrics.origin_retry(&self.name);
    }

    fn now(&self) -> u64 {
        // From 1: zero is a server that is well.
        self.since.elapsed().as_millis() as u64 + 1
    }

    fn tell(&self) {
        let away = self.servers.iter().filter(|server| server.away_until.load(Ordering::Relaxed) > 0).count();
        let all = self.servers.len().max(1);
        #[expect(clippy::cast_precision_loss, reason = "a handful of servers")]
        self.metrics.origin_healthy(&self.name, (all - away) as f64 / all as f64);
    }
}

/// Second tries: one for five requests, and a few ahead.
struct Budget(AtomicU32);

impl Budget {
    const RETRY: u32 = 5;
    const MOST: u32 = 10 * Budget::RETRY;

    fn earn(&self) {
        let earned = |saved: u32| (saved < Budget::MOST).then_some(saved + 1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, earned);
    }

    fn spend(&self) -> bool {
        let spent = |saved: u32| saved.checked_sub(Budget::RETRY);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent).is_ok()
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget(AtomicU32::new(Budget::MOST))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;

    fn origin(servers: &[&str], failures: u32, cooldown: Duration) -> Origin {
        let app = crate::config::Config::default().app;
        let servers = servers.iter().map(|server| (*server).to_owned()).collect();
        let breaker = BreakerLimits { failures: NonZeroU32::new(failures), cooldown };
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let app = Upstream { servers, breaker, max_in_flight: 2, ..app };
        Origin::new(&app, metrics, Arc::default()).expect("addresses")
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    const LONG: Duration = Duration::from_hours(1);

    #[test]
    fn a_server_that_cannot_be_reached_is_passed_over_until_it_answers() {
        let origin = origin(&["127.0.0.1:1", "127.0.0.1:2"], 2, LONG);
        let (one, two) = (address("127.0.0.1:1"), address("127.0.0.1:2"));
        let healthy = |part: &str| {
            let line = format!("voxgate_origin_healthy{{upstream=\"app\"}} {part}\n");
            assert!(origin.metrics.text().contains(&line), "{line}");
        };
        healthy("1");
        assert!(origin.unreachable(one, 1), "there is another");
        assert_eq!(origin.next(Some(one)), Some(two), "not the one that was just tried");
        assert!(!origin.unreachable(two, 2), "all were tried");
        origin.answered(two);
        origin.unreachable(one, 1);
        healthy("0.5");
        assert!((0..4).all(|_| origin.next(None) == Some(two)));
        assert_eq!(origin.next(Some(two)), Some(one), "better than nothing");
        origin.answered(one);
        healthy("1");
        assert!((0..4).any(|_| origin.next(None) == Some(one)));
    }

    #[test]
    fn the_only_server_is_asked_whatever_it_did_and_nothing_is_tried_twice() {
        let origin = origin(&["127.0.0.1:1"], 1, LONG);
        let one = address("127.0.0.1:1");
        assert!(!origin.unreachable(one, 1));
        assert_eq!(origin.next(None), Some(one));
        assert_eq!(origin.next(Some(one)), Some(one));
    }

    #[test]
    fn the_app_has_so_many_requests_at_once() {
        let origin = origin(&["127.0.0.1:1"], 1, LONG);
        let (first, second) = (origin.asked(), origin.asked());
        assert!(first.is_some() && second.is_some() && origin.asked().is_none());
        drop(first);
        let third = origin.asked();
        assert!(third.is_some() && origin.asked().is_none(), "who was refused takes no place");
        drop((second, third));
        assert_eq!(origin.at_app.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_request_in_five_may_be_tried_again() {
        let origin = origin(&["127.0.0.1:1", "127.0.0.1:2"], 0, LONG);
        let one = address("127.0.0.1:1");
        let tries = |requests: usize| {
            let again = |_| {
                drop(origin.asked());
                origin.unreachable(one, 1)
            };
            (0..requests).map(again).filter(|again| *again).count()
        };
        let tried = tries(1_000);
        assert!((200..=210).contains(&tried), "{tried}: a fifth, and the ten ahead");
        assert_eq!(origin.next(None).map(|_| ()), Some(()), "breaker_failures = 0: never passed over");
    }
}
