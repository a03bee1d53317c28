//! A listening service with something that begins beside it, on its own threads.

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use pingora::services::listening;

/// Begins, and says when the service is to stop.
type Begin = Box<dyn FnOnce(ShutdownWatch) -> ShutdownWatch + Send + Sync>;

pub(super) struct Beside<A> {
    service: listening::Service<A>,
    begin: Option<Begin>,
}

impl<A> Beside<A> {
    pub(super) fn new(
        service: listening::Service<A>,
        begin: impl FnOnce(ShutdownWatch) -> ShutdownWatch + Send + Sync + 'static,
    ) -> Beside<A> {
        Beside { service, begin: Some(Box::new(begin)) }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Beside<A> {
    async fn start_service(&mut self, fds: Option<ListenFds>, shutdown: ShutdownWatch, each: usize) {
        let shutdown = match self.begin.take() {
            Some(begin) => begin(shutdown),
            None => shutdown,
        };
        Service::start_service(&mut self.service, fds, shutdown, each).await;
    }

    fn name(&self) -> &str {
        Service::name(&self.service)
    }

    fn threads(&self) -> Option<usize> {
        Service::threads(&self.service)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Service::listen_addresses(&self.service)
    }
}
