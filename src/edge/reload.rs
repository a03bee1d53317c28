//! The configuration may change under live calls. A reload makes everything anew that depends on it,
//! beside what is in use, and then swaps the two: a file with a problem changes nothing. A call and a
//! request keep what they began with. What belongs to the process (listeners, threads, the log's form)
//! keeps its value until a restart, and is told by name.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::gateway::Gateway;
use super::phrases::{Phrases, render};
use super::proxy::Proxy;
use super::serve::{StartError, know_upstreams, services};
use crate::config::{self, Config, Source};
use crate::upstream::{Services, tell_words};

/// How often the file is looked at. A change counts when two looks have seen the same.
const LOOK: Duration = Duration::from_secs(1);

/// What counts at present.
pub(super) struct Live {
    proxy: ArcSwap<Proxy>,
    source: Source,
    /// The file when the gateway was made: a change since then counts, however soon it came.
    at_start: Option<Vec<u8>>,
    reloading: Mutex<Reloading>,
}

struct Reloading {
    generation: i64,
    /// Gives the phrases of the present configuration a voice.
    rendering: Option<(Arc<Phrases>, JoinHandle<()>)>,
    /// Looks after the servers of the present configuration's services.
    probing: Option<(Arc<Services>, JoinHandle<()>)>,
    /// Looks up where the app's servers are, by the present configuration.
    following: Option<JoinHandle<()>>,
}

impl Live {
    pub(super) fn new(gateway: Gateway, source: Source) -> Live {
        let metrics = gateway.metrics.clone();
        metrics.config_generation.set(1);
        metrics.config_reloaded.set(1);
        metrics.config_reloaded_at.set(now());
        let reloading = Reloading { generation: 1, rendering: None, probing: None, following: None };
        Live {
            proxy: ArcSwap::from_pointee(Proxy::new(Arc::new(gateway), None)),
            at_start: look(&source),
            source,
            reloading: Mutex::new(reloading),
        }
    }

    /// What serves a request that comes now.
    pub(super) fn proxy(&self) -> Arc<Proxy> {
        self.proxy.load_full()
    }

    pub(super) fn gateway(&self) -> Arc<Gateway> {
        self.proxy.load().gateway.clone()
    }

    /// Reads the configuration again: what became of it, in a sentence.
    pub(super) async fn reload(&self) -> Result<String, String> {
        let mut reloading = self.reloading.lock().await;
        let gateway = self.gateway();
        let metrics = &gateway.metrics;
        match self.next(&gateway) {
            Ok((proxy, restart)) => {
                proxy.gateway.takes_over();
                tell_words(proxy.gateway.config.log.transcripts);
                if !Arc::ptr_eq(&proxy.gateway.services, &gateway.services) {
                    // Live calls go on with them: how their servers are is said by the new ones alone.
                    gateway.services.retire();
                    know_upstreams(&proxy.gateway.config, Some(&gateway.config), metrics);
                }
                let before = self.proxy.swap(Arc::new(proxy));
                self.proxy().takes_over_from(&before);
                self.render(&mut reloading);
                self.probe(&mut reloading);
                self.follow_names(&mut reloading);
                reloading.generation += 1;
                let generation = reloading.generation;
                metrics.config_generation.set(generation);
                metrics.config_reloaded.set(1);
                metrics.config_reloaded_at.set(now());
                let needs_restart = restart.join(", ");
                if restart.is_empty() {
                    info!(generation, "CONFIG_RELOADED");
                } else {
                    warn!(generation, needs_restart, "CONFIG_RELOADED");
                }
                let but = if restart.is_empty() { "" } else { "; changed, but only after a restart: " };
                Ok(format!("generation {generation} counts{but}{needs_restart}"))
            }
            Err(why) => {
                metrics.config_reloaded.set(0);
                error!(generation = reloading.generation, why, "CONFIG_NOT_RELOADED");
                Err(why)
            }
        }
    }

    fn next(&self, gateway: &Gateway) -> Result<(Proxy, Vec<&'static str>), String> {
        let config = config::load(self.source.clone(), &config::process_env());
        let mut config = config.map_err(|problems| problems.to_string())?;
        let restart = keep(&gateway.config, &mut config);
        let make = || -> Result<Proxy, StartError> {
            let services = match config.dialogue == gateway.config.dialogue {
                true => gateway.services.clone(),
                false => Arc::new(services(&config, &gateway.metrics)?),
            };
            let next = Arc::new(gateway.succeeded_by(config, services)?);
            Ok(Proxy::new(next, Some(&self.proxy.load())))
        };
        Ok((make().map_err(|why| why.to_string())?, restart))
    }

    fn render(&self, reloading: &mut Reloading) {
        let gateway = self.gateway();
        let phrases = gateway.phrases.clone();
        match &reloading.rendering {
            Some((same, _)) if Arc::ptr_eq(same, &phrases) => return,
            Some((_, others)) => others.abort(),
            None => {}
        }
        reloading.rendering = Some((phrases, tokio::spawn(render(gateway))));
    }

    fn probe(&self, reloading: &mut Reloading) {
        let services = self.gateway().services.clone();
        match &reloading.probing {
            Some((same, _)) if Arc::ptr_eq(same, &services) => return,
            Some((_, others)) => others.abort(),
            None => {}
        }
        let probed = services.clone();
        reloading.probing = Some((services, tokio::spawn(async move { probed.probe().await })));
    }

    fn follow_names(&self, reloading: &mut Reloading) {
        let proxy = self.proxy();
        let following = tokio::spawn(async move { proxy.follow_names().await });
        if let Some(others) = reloading.following.replace(following) {
            others.abort();
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Leaves what only a restart can change as it is: the keys that were changed all the same.
fn keep(old: &Config, new: &mut Config) -> Vec<&'static str> {
    let mut kept = Vec::new();
    fn keep<T: Clone + PartialEq>(kept: &mut Vec<&'static str>, name: &'static str, old: &T, new: &mut T) {
        if old != new {
            kept.push(name);
            new.clone_from(old);
        }
    }
    keep(&mut kept, "[server] listen", &old.server.listen, &mut new.server.listen);
    keep(&mut kept, "[server] threads", &old.server.threads, &mut new.server.threads);
    let (was, will_be) = (&old.server.proxy_protocol, &mut new.server.proxy_protocol);
    keep(&mut kept, "[server] proxy_protocol", was, will_be);
    keep(&mut kept, "[server.tls]", &old.server.tls, &mut new.server.tls);
    keep(&mut kept, "[server.acme]", &old.server.acme, &mut new.server.acme);
    keep(&mut kept, "[admin] listen", &old.admin.listen, &mut new.admin.listen);
    // It was dropped for the new address, and nobody listens there: who reaches the old one needs it still.
    if new.admin.token.is_none() && !old.admin.listen.ip().is_loopback() {
        keep(&mut kept, "[admin] token", &old.admin.token, &mut new.admin.token);
    }
    keep(&mut kept, "[log] format", &old.log.format, &mut new.log.format);
    keep(&mut kept, "[recording]", &old.recording, &mut new.recording);
    keep(&mut kept, "[traces]", &old.traces, &mut new.traces);
    kept
}

/// Reloads on SIGHUP and when the file has changed; gives the phrases their first voice, and looks
/// after the services.
pub(super) struct Watching(pub(super) Arc<Live>);

#[async_trait]
impl BackgroundService for Watching {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let live = &self.0;
        {
            let mut reloading = live.reloading.lock().await;
            live.render(&mut reloading);
            live.probe(&mut reloading);
            live.follow_names(&mut reloading);
        }
        let Ok(mut hup) = signal(SignalKind::hangup()) else {
            return warn!("SIGHUP cannot be received: POST /reload does the same");
        };
        let mut known = live.at_start.clone();
        let mut last = look(&live.source);
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {
                    let seen = look(&live.source);
                    let settled = seen == last;
                    last = seen;
                    if last == known || !settled {
                        continue;
                    }
                }
                Some(()) = hup.recv() => last = look(&live.source),
                _ = shutdown.changed() => return,
            }
            known = last.clone();
            let _ = live.reload().await;
        }
    }
}

/// The file as it is, a few kilobytes; `None` where there is none to read.
fn look(source: &Source) -> Option<Vec<u8>> {
    match source {
        Source::File(path) => std::fs::read(path).ok(),
        Source::Text { .. } | Source::Default => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Admin, Secret};

    fn admin(listen: &str, token: Option<&str>) -> Config {
        let token = token.map(|token| Secret(token.to_owned()));
        Config { admin: Admin { listen: listen.parse().expect("an address"), token }, ..Config::default() }
    }

    /// The rule that a public listener has a token is held to the address that is listened on.
    #[test]
    fn a_listener_that_stays_public_keeps_its_token() {
        let (public, local) = ("0.0.0.0:9090", "127.0.0.1:9090");
        let kept = |old: &Config, mut new: Config| {
            let kept = keep(old, &mut new);
            (kept, new.admin.token.map(|token| token.0))
        };
        let old = admin(public, Some("s3cret"));
        let both = (vec!["[admin] listen", "[admin] token"], Some("s3cret".to_owned()));
        assert_eq!(kept(&old, admin(local, None)), both);
        let other = (vec!["[admin] listen"], Some("other".to_owned()));
        assert_eq!(kept(&old, admin(local, Some("other"))), other, "a new one counts");
        let old = admin(local, Some("s3cret"));
        assert_eq!(kept(&old, admin(local, None)), (vec![], None), "on loopback it may go");
        assert_eq!(kept(&old, admin("[::1]:9090", None)), (vec!["[admin] listen"], None));
    }
}
