//! Whether a server may be asked: not for a while after it has failed too often in a row. A pure
//! value: the time is an argument, counted from wherever its owner likes.
//!
//! ```text
//!             too many failures in a row
//!   CLOSED ────────────────────────────────▶ OPEN ◀──────────┐
//!     ▲                                        │ the cool-down │ the trial
//!     │            the trial went well         ▼ is over, or   │ failed
//!     └───────────────────────────────────  HALF-OPEN ─────────┘ a probe went well
//!              or a probe, and no trial is under way
//! ```

use std::time::Duration;

use crate::call::FailureKind;
use crate::config::BreakerLimits;

/// As the metric has it: the larger, the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::upstream) enum State {
    Closed = 0,
    HalfOpen = 1,
    Open = 2,
}

/// What became of a request.
pub(in crate::upstream) enum Outcome<'a> {
    Ok,
    /// It failed, and it is the server's fault.
    Failed(FailureKind, &'a str),
    /// It failed as the one before did, to the same caller who tries again and again: told of once.
    FailedAgain(FailureKind, &'a str),
    /// Nobody waited for its end.
    Unknown,
}

/// A change that is worth telling.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::upstream) enum Change {
    Opened,
    Closed,
}

#[derive(Debug)]
pub(in crate::upstream) struct Breaker {
    limits: BreakerLimits,
    /// In a row.
    failures: u32,
    opened: Option<Opened>,
}

/// Why a server is not asked.
#[derive(Debug)]
struct Opened {
    since: Duration,
    failures: u32,
    kind: FailureKind,
    why: String,
    /// The next request may be a trial from here on.
    trial_at: Duration,
    /// One is under way, and another may follow from here on: it may have been forgotten.
    trial_until: Option<Duration>,
}

impl Breaker {
    pub(in crate::upstream) fn new(limits: BreakerLimits) -> Breaker {
        Breaker { limits, failures: 0, opened: None }
    }

    pub(in crate::upstream) fn state(&self, now: Duration) -> State {
        match &self.opened {
            None => State::Closed,
            Some(opened) if opened.trial_until.is_some() || opened.trial_at <= now => State::HalfOpen,
            Some(_) => State::Open,
        }
    }

    /// May the server be asked now? While half-open, one request at a time finds out.
    pub(in crate::upstream) fn ask(&mut self, now: Duration) -> bool {
        let Some(opened) = &mut self.opened else { return true };
        let trial_is_over = opened.trial_until.is_none_or(|until| until <= now);
        if now < opened.trial_at || !trial_is_over {
            return false;
        }
        opened.trial_until = Some(now + self.limits.cooldown.max(Duration::from_secs(1)));
        true
    }

    /// A request has ended.
    pub(in crate::upstream) fn settle(&mut self, now: Duration, outcome: &Outcome<'_>) -> Option<Change> {
        match outcome {
            Outcome::Ok => {
                self.failures = 0;
                self.opened.take().map(|_| Change::Closed)
            }
            Outcome::Unknown => {
                if let Some(opened) = &mut self.opened {
                    opened.trial_until = None;
                }
                None
            }
            Outcome::Failed(kind, why) => self.failed(now, *kind, why),
            // As a trial it counts.
            Outcome::FailedAgain(kind, why) if self.opened.is_some() => self.failed(now, *kind, why),
            Outcome::FailedAgain(..) => None,
        }
    }

    /// The server was looked at, outside of any call. That it takes connections tells something only
    /// of one that took none; `thorough` is a check that asks it how it is. One that goes well
    /// lets a caller try; where none has tried by the next, that closes the breaker, and one failure opens it again.
    pub(in crate::upstream) fn probed(
        &mut self,
        now: Duration,
        healthy: Result<(), &str>,
        thorough: bool,
    ) -> Option<Change> {
        match (healthy, &mut self.opened) {
            (Ok(()), None) => {
                // Requests that fail meanwhile are not forgiven by a port that is open.
                if thorough {
                    self.failures = 0;
                }
                None
            }
            (Ok(()), Some(opened)) => {
                if !thorough && opened.kind != FailureKind::Connect {
                    return None;
                }
                if now < opened.trial_at {
                    opened.trial_at = now;
                    return None;
                }
                if opened.trial_until.is_some_and(|until| now < until) {
                    return None;
                }
                // Somebody could have asked, and nobody has: a fallback that is needed no more, the end of
                // the day's calls. It is well for all that is known, and on probation.
                self.failures = self.limits.failures.map_or(0, |limit| limit.get() - 1);
                self.opened = None;
                Some(Change::Closed)
            }
            (Err(why), _) => self.failed(now, FailureKind::Connect, why),
        }
    }

    fn failed(&mut self, now: Duration, kind: FailureKind, why: &str) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        if let Some(opened) = &mut self.opened {
            opened.failures = self.failures;
            (opened.kind, opened.why) = (kind, why.to_owned());
            opened.trial_at = now + self.limits.cooldown;
            opened.trial_until = None;
            return None;
        }
        // None is how an operator says "never".
        let limit = self.limits.failures?;
        if self.failures < limit.get() {
            return None;
        }
        self.opened = Some(Opened {
            since: now,
            failures: self.failures,
            kind,
            why: why.to_owned(),
            trial_at: now + self.limits.cooldown,
            trial_until: None,
        });
        Some(Change::Opened)
    }

    /// Why it is open: since when, after how many failures, and how the last one was.
    pub(in crate::upstream) fn why(&self, now: Duration) -> Option<String> {
        let Opened { since, failures, why, .. } = self.opened.as_ref()?;
        let seconds = now.saturating_sub(*since).as_secs();
        Some(format!("its breaker opened {seconds} s ago; {failures} failures in a row, the last: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn breaker(failures: u32) -> Breaker {
        Breaker::new(BreakerLimits { failures: NonZeroU32::new(failures), cooldown: s(5) })
    }

    const TIMEOUT: Outcome<'static> = Outcome::Failed(FailureKind::Timeout, "no answer");

    #[test]
    fn it_opens_after_failures_in_a_row() {
        let mut breaker = breaker(3);
        for second in [0, 1] {
            assert!(breaker.ask(s(second)));
            assert_eq!(breaker.settle(s(second), &TIMEOUT), None);
        }
        assert_eq!(breaker.settle(s(2), &Outcome::Ok), None, "the row is broken");
        for second in [3, 4] {
            assert_eq!(breaker.settle(s(second), &TIMEOUT), None);
            assert_eq!(breaker.settle(s(second), &Outcome::Unknown), None, "says nothing");
        }
        assert_eq!((breaker.state(s(5)), breaker.why(s(5))), (State::Closed, None));
        assert_eq!(breaker.settle(s(5), &TIMEOUT), Some(Change::Opened));
        assert_eq!(breaker.state(s(9)), State::Open);
        assert!(!breaker.ask(s(9)));
        let why = "its breaker opened 4 s ago; 3 failures in a row, the last: no answer";
        assert_eq!(breaker.why(s(9)).as_deref(), Some(why));
    }

    #[test]
    fn one_trial_decides() {
        let mut breaker = breaker(1);
        assert_eq!(breaker.settle(s(0), &TIMEOUT), Some(Change::Opened));
        assert!(breaker.ask(s(5)), "the cool-down is over");
        assert_eq!(breaker.state(s(5)), State::HalfOpen);
        assert!(!breaker.ask(s(6)), "one at a time");
        assert_eq!(breaker.settle(s(6), &TIMEOUT), None, "told of once");
        assert!(!breaker.ask(s(10)), "cools down again");
        assert!(breaker.ask(s(11)));
        assert_eq!(breaker.settle(s(12), &Outcome::Ok), Some(Change::Closed));
        assert_eq!(
            (breaker.state(s(12)), breaker.ask(s(12)), breaker.ask(s(12))),
            (State::Closed, true, true)
        );
    }

    #[test]
    fn a_trial_that_nobody_waited_for_makes_room_for_another() {
        let mut breaker = breaker(1);
        breaker.settle(s(0), &TIMEOUT);
        assert!(breaker.ask(s(5)));
        breaker.settle(s(6), &Outcome::Unknown);
        assert!(breaker.ask(s(6)));
        assert!(!breaker.ask(s(7)));
        assert!(breaker.ask(s(11)), "a trial that never ends is forgotten");
    }

    #[test]
    fn a_thorough_probe_ends_the_wait_and_an_open_port_only_that_for_a_port() {
        for (kind, thorough, ends) in [
            (FailureKind::Timeout, true, true),
            (FailureKind::Timeout, false, false),
            (FailureKind::Connect, false, true),
        ] {
            let mut breaker = breaker(1);
            breaker.settle(s(0), &Outcome::Failed(kind, "x"));
            assert_eq!(breaker.probed(s(1), Ok(()), thorough), None);
            let state = if ends { State::HalfOpen } else { State::Open };
            assert_eq!(breaker.state(s(1)), state, "{kind:?} {thorough}");
            assert_eq!(breaker.ask(s(1)), ends);
        }
    }

    #[test]
    fn two_good_probes_without_a_request_between_close_it_on_probation() {
        for (kind, thorough) in [(FailureKind::Timeout, true), (FailureKind::Connect, false)] {
            let mut breaker = breaker(3);
            for _ in 0..3 {
                breaker.settle(s(0), &Outcome::Failed(kind, "x"));
            }
            assert_eq!(breaker.probed(s(1), Ok(()), thorough), None);
            assert_eq!(breaker.probed(s(2), Ok(()), thorough), Some(Change::Closed));
            assert_eq!((breaker.state(s(2)), breaker.why(s(2))), (State::Closed, None));
            assert_eq!(breaker.settle(s(3), &TIMEOUT), Some(Change::Opened), "one failure is enough");
        }
        let mut port_only = breaker(1);
        port_only.settle(s(0), &TIMEOUT);
        for second in 1..60 {
            assert_eq!(port_only.probed(s(second), Ok(()), false), None);
        }
        assert_eq!(port_only.state(s(60)), State::HalfOpen, "an open port says nothing of answers");
    }

    #[test]
    fn a_trial_under_way_is_not_forestalled_by_a_probe() {
        let mut breaker = breaker(1);
        breaker.settle(s(0), &TIMEOUT);
        assert!(breaker.ask(s(5)));
        assert_eq!(breaker.probed(s(6), Ok(()), true), None);
        assert_eq!(breaker.settle(s(7), &TIMEOUT), None);
        assert_eq!(breaker.state(s(8)), State::Open);
    }

    #[test]
    fn failing_probes_open_it_and_keep_it_open() {
        let mut breaker = breaker(2);
        assert_eq!(breaker.probed(s(0), Err("down"), false), None);
        assert_eq!(breaker.probed(s(5), Err("down"), false), Some(Change::Opened));
        assert_eq!(breaker.probed(s(9), Err("still down"), false), None);
        assert!(!breaker.ask(s(13)), "no caller is the trial of a server that is known to be down");
        assert!(breaker.why(s(13)).unwrap().ends_with("3 failures in a row, the last: still down"));
        assert!(breaker.ask(s(14)));
    }

    #[test]
    fn one_caller_who_tries_again_is_one_failure() {
        let again = Outcome::FailedAgain(FailureKind::Connect, "gone");
        let mut breaker = breaker(2);
        assert_eq!(breaker.settle(s(0), &TIMEOUT), None);
        for second in 0..9 {
            assert_eq!(breaker.settle(s(second), &again), None);
        }
        assert_eq!(breaker.settle(s(9), &TIMEOUT), Some(Change::Opened));
        assert!(breaker.ask(s(14)));
        breaker.settle(s(14), &again);
        assert!(!breaker.ask(s(18)), "a trial that failed is one");
    }

    #[test]
    fn it_never_opens_where_nobody_wants_it() {
        let mut breaker = breaker(0);
        for second in 0..100 {
            assert_eq!(breaker.settle(s(second), &TIMEOUT), None);
        }
        assert!(breaker.ask(s(100)));
    }
}
