//! Asking what seldom has anything only once it has woken: it is given a waker of its own, and until that has
//! rung a wake of the call costs it a look at one flag. A call is woken a hundred times a second, and what
//! it touches each time has long left the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

pub(super) struct Bell {
    rope: Arc<Rope>,
    waker: Waker,
    /// Who is to be woken.
    task: Option<Waker>,
}

struct Rope {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Bell {
    pub(super) fn new() -> Bell {
        let rope = Arc::new(Rope { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Bell { waker: Waker::from(rope.clone()), rope, task: None }
    }

    /// What `poll` has, if it is worth asking. It is to keep the waker that it is given until it is asked again.
    pub(super) fn ask<T>(
        &mut self,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let moved = !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker()));
        if moved {
            self.task = Some(cx.waker().clone());
        } else if !self.rope.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // In this order: what rings from here on is heard.
        self.rope.task.register(cx.waker());
        self.rope.rung.store(false, Ordering::Release);
        let asked = poll(&mut Context::from_waker(&self.waker));
        if asked.is_ready() {
            // There may be more, and it would not ring for that.
            self.rope.rung.store(true, Ordering::Release);
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    fn next(bell: &mut Bell, inbox: &mut mpsc::Receiver<u8>, asked: &mut u32) -> Option<Option<u8>> {
        let ask = |cx: &mut Context<'_>| {
            bell.ask(cx, |cx| {
                *asked += 1;
                inbox.poll_recv(cx)
            })
        };
        poll_fn(ask).now_or_never()
    }

    #[test]
    fn is_asked_when_it_has_rung_until_it_has_nothing_more() {
        let (mut bell, mut asked) = (Bell::new(), 0);
        let (sender, mut inbox) = mpsc::channel(4);
        for expected in [1, 1, 1] {
            assert_eq!(next(&mut bell, &mut inbox, &mut asked), None);
            assert_eq!(asked, expected);
        }
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        let got: Vec<_> = (0..4).map(|_| next(&mut bell, &mut inbox, &mut asked)).collect();
        assert_eq!(got, [Some(Some(1)), Some(Some(2)), None, None]);
        assert_eq!(asked, 4);
        drop(sender);
        assert_eq!(next(&mut bell, &mut inbox, &mut asked), Some(None));
    }

    #[tokio::test]
    async fn wakes_whoever_asked_last() {
        let mut bell = Bell::new();
        let (sender, mut inbox) = mpsc::channel(1);
        // Asked by one task, and then by another.
        assert_eq!(next(&mut bell, &mut inbox, &mut 0), None);
        let other = tokio::spawn(async move {
            let mut heard = Vec::new();
            while let Some(number) = poll_fn(|cx| bell.ask(cx, |cx| inbox.poll_recv(cx))).await {
                heard.push(number);
            }
            heard
        });
        for number in 0..100 {
            sender.send(number).await.unwrap();
        }
        drop(sender);
        let heard = timeout(Duration::from_secs(10), other).await.expect("to be woken");
        assert_eq!(heard.unwrap(), (0..100).collect::<Vec<_>>());
    }
}
