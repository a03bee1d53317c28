//! What is kept of a call whose stream has ended because the carrier took it elsewhere, for the stream
//! with which it comes back: its services, with whatever the agent keeps of the conversation, what they
//! have answered meanwhile, and where it was. Bounded in number and in time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::sleep;

use crate::call::{Memory, Posted, StopReason};
use crate::upstream::CallServices;

/// The oldest goes first.
const MOST: usize = 1000;

/// Keys are sent within seconds; to be put through, and to come back, may take a long talk.
const WHILE_KEYS_ARE_SENT: Duration = Duration::from_mins(2);
const WHILE_THE_CARRIER_ASKS: Duration = Duration::from_secs(30);
const WHILE_PUT_THROUGH: Duration = Duration::from_hours(1);

pub(super) struct Handover {
    pub(super) services: CallServices,
    pub(super) inbox: Receiver<Posted>,
    pub(super) answers: Sender<Posted>,
    pub(super) memory: Memory,
}

#[derive(Clone, Default)]
pub(super) struct Handovers(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    calls: VecDeque<(u64, String, Handover)>,
    count: u64,
}

impl Handovers {
    /// Keeps a call that ended for this reason, if it may come back; where streams `resume`, one that broke too.
    pub(super) fn keep(&self, call_sid: &str, reason: StopReason, resume: bool, handover: Handover) {
        let long = match reason {
            StopReason::SendDigits => WHILE_KEYS_ARE_SENT,
            StopReason::Transfer => WHILE_PUT_THROUGH,
            StopReason::WsLost | StopReason::Error if resume => WHILE_THE_CARRIER_ASKS,
            StopReason::CallerHangup
            | StopReason::BotEnd
            | StopReason::WsLost
            | StopReason::Timeout
            | StopReason::Drain
            | StopReason::Error => return,
        };
        // A carrier without ids has no call that could be known again.
        if call_sid.is_empty() {
            return;
        }
        let mut kept = self.lock();
        kept.count += 1;
        let number = kept.count;
        kept.calls.retain(|(_, sid, _)| sid != call_sid);
        kept.calls.push_back((number, call_sid.to_owned(), handover));
        if kept.calls.len() > MOST {
            kept.calls.pop_front();
        }
        drop(kept);
        let handovers = self.clone();
        tokio::spawn(async move {
            sleep(long).await;
            handovers.lock().calls.retain(|(other, ..)| *other != number);
        });
    }

    /// What there is of a call that comes back.
    pub(super) fn take(&self, call_sid: &str) -> Option<Handover> {
        let mut kept = self.lock();
        let place = kept.calls.iter().position(|(_, sid, _)| sid == call_sid)?;
        kept.calls.remove(place).map(|(.., handover)| handover)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::channel;
    use tokio::time::advance;

    use super::*;
    use crate::config::Dialogue;
    use crate::upstream::{CallIds, Services};

    fn handover() -> Handover {
        let dialogue: Dialogue = crate::config::Config::default().dialogue;
        let (answers, inbox) = channel(1);
        let services = Services::new(&dialogue, |_| {}).unwrap();
        let services = services.for_call(CallIds::default(), answers.clone());
        Handover { services, inbox, answers, memory: Memory::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_may_come_back_is_known_again_once_and_for_a_while() {
        let handovers = Handovers::default();
        for (reason, kept) in
            StopReason::ALL.map(|reason| (reason, ["transfer", "send_digits"].contains(&reason.as_str())))
        {
            handovers.keep("CA1", reason, false, handover());
            assert_eq!(handovers.take("CA1").is_some(), kept, "{reason:?}");
            assert!(handovers.take("CA1").is_none(), "once");
            handovers.keep("CA1", reason, true, handover());
            let kept = kept || ["ws_lost", "error"].contains(&reason.as_str());
            assert_eq!(handovers.take("CA1").is_some(), kept, "{reason:?}, where streams resume");
        }
        handovers.keep("", StopReason::Transfer, true, handover());
        assert!(handovers.take("").is_none(), "a call without an id");
        handovers.keep("CA1", StopReason::SendDigits, true, handover());
        handovers.keep("CA2", StopReason::Transfer, true, handover());
        tokio::task::yield_now().await;
        advance(WHILE_KEYS_ARE_SENT + Duration::from_millis(1)).await;
        tokio::task::yield_now().await;
        assert!(handovers.take("CA1").is_none(), "it did not come back in time");
        assert!(handovers.take("CA2").is_some());
    }

    #[tokio::test]
    async fn the_memory_of_calls_is_bounded() {
        let handovers = Handovers::default();
        (0..=MOST).for_each(|n| handovers.keep(&format!("CA{n}"), StopReason::Transfer, true, handover()));
        assert!(handovers.take("CA0").is_none(), "the oldest is forgotten");
        assert!(handovers.take("CA1").is_some());
        assert_eq!(handovers.lock().calls.len(), MOST - 1);
    }
}
