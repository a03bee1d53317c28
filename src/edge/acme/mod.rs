//! Certificates that the gateway gets and renews by itself, by ACME. This part only writes a file: the
//! listener takes it as it takes any that has changed (`tls`), and no call and no request waits for an
//! order. Who orders holds a lock in the folder, so that of two processes (an upgrade, replicas on one
//! disk) one does; proofs are files there too, so that either can show them.

mod fault;
mod folder;
mod issuer;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::time::{sleep, timeout};
use tracing::{error, info};

use self::fault::Fault;
use self::folder::Folder;
use super::tls::Certificate;
use crate::config::{Acme, Server};
use crate::observe::Metrics;

/// Where an issuer looks for the proof of a name.
pub(super) const PROOFS: &str = "/.well-known/acme-challenge/";
/// How often the certificate is looked at: another process may have renewed it, the clock may be set.
const LOOK: Duration = Duration::from_secs(60);
/// How long an order may take.
const ORDER: Duration = Duration::from_mins(5);
/// While another process orders.
const OTHERS: Duration = Duration::from_secs(5);
/// The longest wait after failures: an issuer that is well again is not to wait a day.
const LONGEST_WAIT: Duration = Duration::from_hours(6);

/// The answer to an issuer that asks for proof: only while an order is under way, and only for what it
/// was told to look for. Everything else is the app's, which may use ACME itself.
pub(super) async fn proof(server: &Server, path: &str) -> Option<String> {
    let token = path.strip_prefix(PROOFS)?;
    Folder::new(server.acme.as_ref()?).proof(token).await
}

/// Orders certificates, each well before the last one expires.
pub(super) struct Certifying {
    acme: Acme,
    folder: Folder,
    metrics: Arc<Metrics>,
    /// 0 to 1: not all gateways of the world renew at once.
    jitter: f64,
}

impl Certifying {
    pub(super) fn new(acme: &Acme, metrics: Arc<Metrics>) -> Certifying {
        Certifying { folder: Folder::new(acme), acme: acme.clone(), metrics, jitter: random() }
    }

    async fn run(&self) {
        let mut failures = 0;
        loop {
            let wait = self.due();
            if !wait.is_zero() {
                sleep(wait.min(LOOK)).await;
                continue;
            }
            match self.renew().await {
                Ok(true) => failures = 0,
                Ok(false) => {
                    info!(detail = "another process orders", "TLS_ORDER_WAITS");
                    sleep(OTHERS).await;
                }
                Err(fault) => {
                    let wait = self.back_off(failures);
                    failures += 1;
                    self.metrics.acme_orders.with_label_values(&[fault.result]).inc();
                    let Fault { why, cure, .. } = fault;
                    let names = self.acme.names.join(", ");
                    let in_use = self.current().map_or("none".into(), |current| current.until);
                    let retry_in_s = wait.as_secs();
                    error!(names, why, cure, in_use, retry_in_s, "TLS_NOT_ORDERED");
                    sleep(wait).await;
                }
            }
        }
    }

    /// Twice as long each time, and not in step with others.
    fn back_off(&self, failures: u32) -> Duration {
        let wait = self.acme.retry.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_WAIT);
        wait.mul_f64(0.9 + 0.2 * random())
    }

    fn current(&self) -> Option<Certificate> {
        Certificate::load(&self.acme.files()).ok()
    }

    /// How long the certificate that is there will do.
    fn due(&self) -> Duration {
        let Some(current) = self.current() else { return Duration::ZERO };
        let (mut has, mut wanted) = (current.names.clone(), self.acme.names.clone());
        has.sort_unstable();
        wanted.sort_unstable();
        if has != wanted {
            return Duration::ZERO;
        }
        until_renewal(current.not_before, current.not_after, self.jitter)
    }

    /// One order from its beginning to its end; `false` where another process has one under way.
    async fn renew(&self) -> Result<bool, Fault> {
        let Some(_lock) = self.folder.lock()? else { return Ok(false) };
        // Another process may just have done it.
        if !self.due().is_zero() {
            return Ok(true);
        }
        self.folder.forget_proofs();
        let ordered = timeout(ORDER, issuer::order(&self.acme, &self.folder)).await;
        self.folder.forget_proofs();
        let pem = ordered.unwrap_or_else(|_| Err(Fault::slow(ORDER)))?;
        self.folder.keep_certificate(&pem)?;
        let issued = Certificate::load(&self.acme.files()).map_err(Fault::nonsense)?;
        let (names, until) = (self.acme.names.join(", "), issued.until);
        self.metrics.acme_orders.with_label_values(&["issued"]).inc();
        info!(names, until, "TLS_ORDERED");
        Ok(true)
    }
}

/// With a third of its time left, as issuers advise, or a little sooner.
fn until_renewal(not_before: i64, not_after: i64, jitter: f64) -> Duration {
    let seconds = |from: i64, to: i64| Duration::from_secs(u64::try_from(to - from).unwrap_or(0));
    let whole = seconds(not_before, not_after);
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = Duration::from_secs(u64::try_from(not_before).unwrap_or(0));
    (start + whole.mul_f64(0.667 - 0.05 * jitter)).saturating_sub(age)
}

fn random() -> f64 {
    f64::from(RandomState::new().hash_one(0) as u32) / f64::from(u32::MAX)
}

#[async_trait]
impl BackgroundService for Certifying {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.run() => {}
            // An order that is cut here is a successor's, or the next start's.
            _ = shutdown.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_its_time_is_left_when_it_is_renewed() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().cast_signed();
        let days = |days: i64| now + days * 24 * 3600;
        for (from, to, wait) in [(0, 90, 60), (-50, 40, 10), (-61, 29, 0), (-100, -10, 0), (0, 0, 0)] {
            for jitter in [0.0, 1.0] {
                let wait = f64::from(wait);
                let due = until_renewal(days(from), days(to), jitter).as_secs_f64() / 86_400.0;
                let spread = (to - from) as f64 * 0.051;
                assert!((wait - spread..=wait + 0.1).contains(&due), "{from}..{to}: {due}, not {wait}");
            }
        }
    }
}
