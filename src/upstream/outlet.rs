//! Where an answer goes as it comes, and whether any of it has gone there: from then on nobody else
//! can give the answer instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

use super::answer::seconds;
use super::observed::Watch;
use super::{CallIds, Ended};
use crate::call::{Failure, FailureKind, Input, Posted};

pub(super) struct Outlet<'a> {
    to: &'a Sender<Posted>,
    /// Whose answer it is, for the log.
    pub(super) ids: &'a CallIds,
    used: Arc<AtomicBool>,
}

impl<'a> Outlet<'a> {
    pub(super) fn new(to: &'a Sender<Posted>, ids: &'a CallIds, watch: &Watch) -> Outlet<'a> {
        Outlet { to, ids, used: watch.used() }
    }

    pub(super) async fn tell(&self, input: Input<'static>) -> Result<(), Ended> {
        self.commit();
        self.to.send(Box::new(input)).await.map_err(|_| Ended::Unheard)
    }

    /// What was done so far cannot be done again by another.
    pub(super) fn commit(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Waits for an answer, of which the first must come within this: there is another to ask.
    pub(super) async fn first_within(
        &self,
        limit: Option<Duration>,
        upstream: &str,
        answer: impl Future<Output = Result<(), Ended>>,
    ) -> Result<(), Ended> {
        let Some(limit) = limit else { return answer.await };
        tokio::pin!(answer);
        match timeout(limit, &mut answer).await {
            Ok(ended) => ended,
            Err(_) if self.is_used() => answer.await,
            Err(_) => {
                let why = format!("the service: nothing of use within fallback_after = {}", seconds(limit));
                Err(Failure { upstream: upstream.to_owned(), kind: FailureKind::Timeout, why }.into())
            }
        }
    }
}
