//! Looks after the servers of the speech services in the background, until the gateway stops.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use super::gateway::Gateway;

pub(super) struct HealthChecks(pub(super) Arc<Gateway>);

#[async_trait]
impl BackgroundService for HealthChecks {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        tokio::select! {
            () = self.0.services.probe() => {}
            _ = shutdown.changed() => {}
        }
    }
}
