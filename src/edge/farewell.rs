//! What a call is told when the gateway goes down. Every frame asks whether it was told, so asking is
//! cheap: a channel is only looked at again once it has woken.

use std::future::pending;
use std::pin::Pin;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The drain is over: the caller may hear some last words.
    Goodbye,
    /// At once.
    HangUp,
}

pub(super) struct Farewell(FuturesUnordered<Pin<Box<dyn Future<Output = Told> + Send>>>);

impl Farewell {
    pub(super) fn new(goodbye: watch::Receiver<bool>, hang_up: watch::Receiver<bool>) -> Farewell {
        let told = FuturesUnordered::new();
        told.push(once(hang_up, Told::HangUp));
        told.push(once(goodbye, Told::Goodbye));
        Farewell(told)
    }

    /// What the call is told next: each of both once. Cancel-safe.
    pub(super) async fn told(&mut self) -> Told {
        match self.0.next().await {
            Some(told) => told,
            None => pending().await,
        }
    }
}

fn once(mut channel: watch::Receiver<bool>, told: Told) -> Pin<Box<dyn Future<Output = Told> + Send>> {
    Box::pin(async move {
        // The sender lives as long as the gateway.
        let _ = channel.wait_for(|told| *told).await;
        told
    })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn each_is_told_once_whatever_was_asked_before() {
        let ((goodbye, heard), (hang_up, hung_up)) = (watch::channel(false), watch::channel(false));
        let mut farewell = Farewell::new(heard, hung_up);
        assert_eq!(farewell.told().now_or_never(), None);
        goodbye.send_replace(true);
        assert_eq!(farewell.told().now_or_never(), Some(Told::Goodbye));
        assert_eq!(farewell.told().now_or_never(), None);
        hang_up.send_replace(true);
        assert_eq!(farewell.told().now_or_never(), Some(Told::HangUp));
        assert_eq!(farewell.told().now_or_never(), None);
    }
}
