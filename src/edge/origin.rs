//! The servers of the app behind: whose turn it is, which of them cannot be reached at present,
//! whether a request that reached none is worth another, and how many the app has at once.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::names::{LookUp, Names, of_this_machine};
use crate::config::{BreakerLimits, Upstream};
use crate::observe::Metrics;

/// Names are looked up no more often than that.
const LOOK_UP: Duration = Duration::from_secs(3);

pub(super) struct Origin {
    name: String,
    /// By address; another list as soon as the names mean other addresses.
    servers: ArcSwap<Vec<Arc<Server>>>,
    names: Mutex<Names>,
    /// A server cannot be reached: is it still there?
    doubted: Notify,
    turn: AtomicUsize,
    limits: BreakerLimits,
    budget: Budget,
    since: Instant,
    /// Requests that the app has, and how many it may.
    at_app: Arc<AtomicUsize>,
    most: usize,
    metrics: Arc<Metrics>,
    /// Another has taken its place, and says how the app is.
    is_retired: Mutex<bool>,
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

impl Server {
    fn at(address: SocketAddr) -> Server {
        Server { address, failures: AtomicU32::new(0), away_until: AtomicU64::new(0) }
    }
}

impl Origin {
    /// Looks the names up. Those that the app has already, by way of the configuration before, count as well,
    /// and so do the addresses that it knew of a name that is not found now.
    pub(super) fn new(
        app: &Upstream,
        metrics: Arc<Metrics>,
        at_app: Arc<AtomicUsize>,
        before: Option<&Origin>,
    ) -> Origin {
        Origin::with(app, metrics, at_app, before, Arc::new(of_this_machine))
    }

    fn with(
        app: &Upstream,
        metrics: Arc<Metrics>,
        at_app: Arc<AtomicUsize>,
        before: Option<&Origin>,
        look_up: Arc<LookUp>,
    ) -> Origin {
        let mut names = Names::new(&app.servers, look_up);
        if let Some(before) = before {
            names.learn(&before.names());
        }
        names.look_up();
        let origin = Origin {
            name: app.name.clone(),
            servers: ArcSwap::default(),
            names: Mutex::new(names.clone()),
            doubted: Notify::new(),
            turn: AtomicUsize::new(0),
            limits: app.breaker,
            budget: Budget::default(),
            since: Instant::now(),
            at_app,
            most: app.max_in_flight,
            metrics,
            is_retired: Mutex::default(),
        };
        origin.know(names);
        origin
    }

    fn names(&self) -> Names {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on the servers are where these say. What is known of one that stays, stays known.
    fn know(&self, names: Names) {
        let old = self.servers.load();
        let addresses = names.addresses();
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        if !addresses.iter().eq(old.iter().map(|server| &server.address)) {
            let known = |address| old.iter().find(|server| server.address == address).cloned();
            let server = |address| known(address).unwrap_or_else(|| Arc::new(Server::at(address)));
            self.servers.store(Arc::new(addresses.into_iter().map(server).collect()));
        }
        self.tell();
    }

    /// Looks the names up again when a server could not be reached, and for as long as one was never found.
    pub(super) async fn follow_names(&self) {
        if self.names().are_addresses() {
            return;
        }
        loop {
            if !self.names().lack_one() {
                self.doubted.notified().await;
            }
            let mut names = self.names();
            // Resolvers block.
            let looking = tokio::task::spawn_blocking(move || {
                names.look_up();
                names
            });
            if let Ok(names) = looking.await {
                self.know(names);
            }
            tokio::time::sleep(LOOK_UP).await;
        }
    }

    /// The next that can be reached, as far as known, and not the one that was just tried. Where there
    /// is no such server, one that may be back: to try is better than to refuse.
    pub(super) fn next(&self, tried: Option<SocketAddr>) -> Option<SocketAddr> {
        // Who is passed over gives each of the others the same share of its turns.
        let servers = self.servers.load();
        let pick = |accept: &dyn Fn(&Server) -> bool| {
            let mut turns = servers
                .iter()
                .filter_map(|_| servers.get(self.turn.fetch_add(1, Ordering::Relaxed) % servers.len()));
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
        let servers = self.servers.load();
        let Some(server) = servers.iter().find(|server| server.address == address) else { return };
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
        self.doubted.notify_one();
        let servers = self.servers.load();
        if let Some(server) = servers.iter().find(|server| server.address == address) {
            let failures = server.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if self.limits.failures.is_some_and(|most| failures >= most.get()) {
                let until = self.now() + self.limits.cooldown.as_millis() as u64;
                if server.away_until.swap(until, Ordering::Relaxed) == 0 {
                    self.tell();
                }
            }
        }
        let again = attempts < servers.len() && self.budget.spend();
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

    /// Requests that have begun there end there; what they show is not told any more.
    pub(super) fn takes_over_from(&self, before: &Origin) {
        *before.is_retired.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.tell();
    }

    fn tell(&self) {
        // Held until it is told: nothing may come behind what the next one says.
        let is_retired = self.is_retired.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_retired {
            return;
        }
        let servers = self.servers.load();
        let well = servers.iter().filter(|server| server.away_until.load(Ordering::Relaxed) == 0).count();
        #[expect(clippy::cast_precision_loss, reason = "a handful of servers")]
        self.metrics.origin_healthy(&self.name, well as f64 / servers.len().max(1) as f64);
        drop(is_retired);
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
    use std::io;
    use std::num::NonZeroU32;

    use super::*;

    fn origin(servers: &[&str], failures: u32, cooldown: Duration) -> Origin {
        let nobody_asked = |server: &str| Ok(vec![server.parse().expect("an address")]);
        origin_with(servers, failures, cooldown, None, nobody_asked)
    }

    fn origin_with(
        servers: &[&str],
        failures: u32,
        cooldown: Duration,
        before: Option<&Origin>,
        look_up: impl Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> Origin {
        let app = crate::config::Config::default().app;
        let servers = servers.iter().map(|server| (*server).to_owned()).collect();
        let breaker = BreakerLimits { failures: NonZeroU32::new(failures), cooldown };
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let app = Upstream { servers, breaker, max_in_flight: 2, ..app };
        Origin::with(&app, metrics, Arc::default(), before, Arc::new(look_up))
    }

    /// Names with an address each.
    type Known = Arc<Mutex<Vec<(&'static str, &'static str)>>>;

    /// A resolver that knows what is known when it is asked.
    fn resolver() -> (Known, impl Fn(&str) -> io::Result<Vec<SocketAddr>>) {
        let known = Known::default();
        let asked = known.clone();
        let look_up = move |server: &str| {
            let known = asked.lock().expect("no panic");
            let found = known.iter().filter(|(name, _)| *name == server).map(|(_, at)| address(at));
            match found.collect::<Vec<_>>() {
                none if none.is_empty() => Err(io::Error::other("nobody knows it")),
                found => Ok(found),
            }
        };
        (known, look_up)
    }

    /// Follows the names until the servers are these.
    async fn until_at(origin: &Origin, wanted: &[&str]) {
        let wanted: Vec<_> = wanted.iter().map(|at| address(at)).collect();
        let seen = async {
            while origin.servers.load().iter().map(|server| server.address).ne(wanted.iter().copied()) {
                tokio::task::yield_now().await;
            }
        };
        let followed = async {
            tokio::select! {
                () = origin.follow_names() => panic!("a name is followed"),
                () = seen => {}
            }
        };
        tokio::time::timeout(SOON, followed).await.expect("the servers elsewhere");
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    const LONG: Duration = Duration::from_hours(1);
    const SOON: Duration = Duration::from_secs(10);

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
    fn a_server_that_only_the_old_configuration_has_is_nobodys_business_any_more() {
        let before = origin(&["127.0.0.1:1", "127.0.0.1:2"], 1, LONG);
        let mut after = origin(&["127.0.0.1:2"], 1, LONG);
        after.metrics = before.metrics.clone();
        let healthy = |part: &str| {
            let line = format!("voxgate_origin_healthy{{upstream=\"app\"}} {part}\n");
            assert!(before.metrics.text().contains(&line), "{line}");
        };
        before.unreachable(address("127.0.0.1:1"), 1);
        healthy("0.5");
        after.takes_over_from(&before);
        healthy("1");
        // A request that came before the reload.
        before.unreachable(address("127.0.0.1:2"), 1);
        healthy("1");
        after.unreachable(address("127.0.0.1:2"), 1);
        healthy("0");
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

    #[tokio::test]
    async fn a_name_is_looked_up_again_when_its_server_cannot_be_reached() {
        let (known, look_up) = resolver();
        let now = |answers: &[(&'static str, &'static str)]| {
            *known.lock().expect("no panic") = answers.to_vec();
        };
        now(&[("app:1", "127.0.0.1:1"), ("app:1", "127.0.0.2:1"), ("db:1", "127.0.0.3:1")]);
        let origin = origin_with(&["app:1", "db:1"], 1, LONG, None, look_up);
        let (stays, gone) = (address("127.0.0.2:1"), address("127.0.0.1:1"));
        origin.unreachable(stays, 1);
        // One is elsewhere, and of the other nobody knows for the moment.
        now(&[("app:1", "127.0.0.9:1"), ("app:1", "127.0.0.2:1")]);
        origin.unreachable(gone, 1);
        until_at(&origin, &["127.0.0.2:1", "127.0.0.3:1", "127.0.0.9:1"]).await;
        let asked: std::collections::BTreeSet<_> = (0..6).filter_map(|_| origin.next(None)).collect();
        let new = ["127.0.0.3:1", "127.0.0.9:1"].map(address);
        assert_eq!(asked, new.into(), "the one that stays is still passed over");
        assert!(origin.unreachable(gone, 1), "as little as it means any more");
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_looked_for_until_it_is_found() {
        let (known, look_up) = resolver();
        let origin = origin_with(&["app:1"], 1, LONG, None, look_up);
        assert_eq!(origin.next(None), None);
        assert!(origin.metrics.text().contains("voxgate_origin_healthy{upstream=\"app\"} 0\n"));
        known.lock().expect("no panic").push(("app:1", "127.0.0.1:1"));
        until_at(&origin, &["127.0.0.1:1"]).await;
        assert!(origin.metrics.text().contains("voxgate_origin_healthy{upstream=\"app\"} 1\n"));
        // The next configuration begins with what is known, should nobody know it just then.
        let next = origin_with(&["app:1", "db:1"], 1, LONG, Some(&origin), |_| Err(io::Error::other("no")));
        assert_eq!(next.next(None), Some(address("127.0.0.1:1")));
    }

    #[tokio::test]
    async fn addresses_are_not_looked_up() {
        let origin = origin(&["127.0.0.1:1", "[::1]:1"], 1, LONG);
        origin.unreachable(address("127.0.0.1:1"), 1);
        tokio::time::timeout(SOON, origin.follow_names()).await.expect("nothing to follow");
    }
}
