//! What a call is told from outside of it: that the gateway goes down, or that it goes on elsewhere. Every wake of every call asks, so it only looks
//! at what all calls share until something was said there.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, Waker};

use futures_util::future::{Fuse, FutureExt};
use tokio::sync::watch;

use super::session::{GOING_AWAY, NORMAL};
use crate::call::StopReason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// The drain is over: the caller may hear some last words.
    Goodbye,
    /// At once.
    HangUp,
    /// The call has come back with another stream, and this one is dead.
    Replaced,
}

impl Told {
    /// How it ends a call that has no last words: why, with which close code, and what the log says.
    pub(super) fn ending(self) -> (StopReason, u16, &'static str) {
        match self {
            Told::Goodbye | Told::HangUp => (StopReason::Drain, GOING_AWAY, "the gateway is going down"),
            Told::Replaced => (StopReason::WsLost, NORMAL, "the call has come back with another stream"),
        }
    }
}

type Waits = Fuse<Pin<Box<dyn Future<Output = ()> + Send>>>;

pub(super) struct Farewell {
    hang_up: (watch::Receiver<bool>, Waits),
    goodbye: (watch::Receiver<bool>, Waits),
    /// Of a call that may come back.
    replaced: Option<(watch::Receiver<bool>, Waits)>,
    /// Who waits for them.
    task: Option<Waker>,
}

impl Farewell {
    pub(super) fn new(
        goodbye: watch::Receiver<bool>,
        hang_up: watch::Receiver<bool>,
        replaced: Option<watch::Receiver<bool>>,
    ) -> Farewell {
        let with = |channel: watch::Receiver<bool>| (channel.clone(), said(channel));
        Farewell { hang_up: with(hang_up), goodbye: with(goodbye), replaced: replaced.map(with), task: None }
    }

    /// What the call is told next: each of them once. Cancel-safe.
    pub(super) async fn told(&mut self) -> Told {
        poll_fn(|cx| {
            let waits = self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker()));
            let nothing = |channel: &watch::Receiver<bool>| matches!(channel.has_changed(), Ok(false));
            let stays = self.replaced.as_ref().is_none_or(|(channel, _)| nothing(channel));
            if waits && nothing(&self.hang_up.0) && nothing(&self.goodbye.0) && stays {
                return Poll::Pending;
            }
            if self.hang_up.1.poll_unpin(cx).is_ready() {
                return Poll::Ready(Told::HangUp);
            }
            if self.goodbye.1.poll_unpin(cx).is_ready() {
                return Poll::Ready(Told::Goodbye);
            }
            if let Some((_, replaced)) = &mut self.replaced
                && replaced.poll_unpin(cx).is_ready()
            {
                return Poll::Ready(Told::Replaced);
            }
            self.task = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

fn said(mut channel: watch::Receiver<bool>) -> Waits {
    let waits = async move {
        // The sender lives as long as the gateway, or as the stream.
        let _ = channel.wait_for(|said| *said).await;
    };
    let waits: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(waits);
    waits.fuse()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;

    #[test]
    fn each_is_told_once_whatever_was_asked_before() {
        let ((goodbye, heard), (hang_up, hung_up)) = (watch::channel(false), watch::channel(false));
        let (replaced, gone) = watch::channel(false);
        let mut farewell = Farewell::new(heard, hung_up, Some(gone));
        assert_eq!(farewell.told().now_or_never(), None);
        goodbye.send_replace(true);
        assert_eq!(farewell.told().now_or_never(), Some(Told::Goodbye));
        assert_eq!(farewell.told().now_or_never(), None);
        hang_up.send_replace(true);
        assert_eq!(farewell.told().now_or_never(), Some(Told::HangUp));
        assert_eq!(farewell.told().now_or_never(), None);
        replaced.send_replace(true);
        assert_eq!(farewell.told().now_or_never(), Some(Told::Replaced));
        // Whoever waits for this to be gone.
        assert!(replaced.closed().now_or_never().is_none());
        drop(farewell);
        assert!(replaced.closed().now_or_never().is_some());
    }

    #[tokio::test]
    async fn wakes_whoever_asked_last_and_tells_what_was_said_before() {
        let ((goodbye, heard), (hang_up, hung_up)) = (watch::channel(false), watch::channel(false));
        let mut farewell = Farewell::new(heard, hung_up.clone(), None);
        // Asked by one task, and then by another.
        assert_eq!(farewell.told().now_or_never(), None);
        let other = tokio::spawn(async move { (farewell.told().await, farewell.told().await) });
        goodbye.send_replace(true);
        hang_up.send_replace(true);
        let told = timeout(Duration::from_secs(10), other).await.expect("to be woken");
        let mut told = told.unwrap();
        if told.0 == Told::HangUp {
            told = (told.1, told.0);
        }
        assert_eq!(told, (Told::Goodbye, Told::HangUp));

        let mut late = Farewell::new(goodbye.subscribe(), hung_up, None);
        assert_eq!(late.told().now_or_never(), Some(Told::HangUp));
        assert_eq!(late.told().now_or_never(), Some(Told::Goodbye));
        assert_eq!(late.told().now_or_never(), None);
    }
}
