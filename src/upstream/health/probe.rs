//! Looks at an upstream's servers now and then, outside of any call, so that one that is gone is known
//! before a caller meets it, and one that is back is asked again at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Client;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::answer::{root_cause, seconds};
use super::super::http::client;
use super::Health;

/// An answer that takes longer is none, whatever a request may take.
const LONGEST: Duration = Duration::from_secs(5);

impl Health {
    /// Probes for as long as it is polled; at once done where nobody wants that.
    pub(in crate::upstream) async fn probe(self: Arc<Self>) {
        let check = &self.upstream.health;
        if check.interval.is_zero() {
            return;
        }
        let client = match check.path.as_ref().map(|_| client(&self.upstream, 1)).transpose() {
            Ok(client) => client,
            Err(unusable) => {
                return tracing::warn!(upstream = self.upstream.name, why = %unusable, "NO_HEALTH_CHECK");
            }
        };
        let mut ticks = interval(check.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let servers = self.upstream.servers.iter().enumerate();
            join_all(servers.map(|(number, server)| self.look_at(number, server, client.as_ref()))).await;
        }
    }

    async fn look_at(&self, number: usize, server: &str, client: Option<&Client>) {
        let limit = self.upstream.connect_timeout.max(self.upstream.first_byte_timeout).min(LONGEST);
        let looked = async {
            match (client, &self.upstream.health.path) {
                (Some(client), Some(path)) => {
                    let scheme = if self.upstream.tls { "https" } else { "http" };
                    let asked = client.get(format!("{scheme}://{server}{path}")).send().await;
                    // Without the query, where operators put keys.
                    let shown = path.split('?').next().unwrap_or_default();
                    match asked.map(|answer| answer.status()).map_err(reqwest::Error::without_url) {
                        Ok(status) if status.is_success() => Ok(()),
                        Ok(status) => Err(format!("health_check {shown} answered {}", status.as_u16())),
                        Err(error) => Err(format!("health_check {shown}: {}", root_cause(&error))),
                    }
                }
                _ => TcpStream::connect(server)
                    .await
                    .map(drop)
                    .map_err(|error| format!("no connection: {error}")),
            }
        };
        let looked = timeout(limit, looked)
            .await
            .unwrap_or_else(|_| Err(format!("health check: no answer within {}", seconds(limit))));
        let healthy = match &looked {
            Ok(()) => Ok(()),
            Err(why) => Err(why.as_str()),
        };
        self.change(number, |breaker, now| breaker.probed(now, healthy, client.is_some()));
    }
}
