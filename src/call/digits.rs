//! Keys that the caller presses. A key is never speech: digits are collected until the key that ends
//! them, until there are as many as are wanted, or until no other comes, and are then put to the agent
//! as a turn. An agent that asks for digits says when they are complete, and is told if none come.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Action, Call, Event, Mode};
use crate::time::CallTime;
use crate::turn::State;

/// More than anyone keys at once; with so many, digits are complete.
pub const MOST_DIGITS: usize = 64;

/// When digits are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collecting {
    /// As soon as there are so many.
    pub num_digits: usize,
    pub finish_on: FinishOn,
    /// After this long without another key.
    pub timeout: Duration,
}

impl Default for Collecting {
    fn default() -> Collecting {
        Collecting { num_digits: MOST_DIGITS, finish_on: FinishOn::Key('#'), timeout: Duration::from_secs(2) }
    }
}

/// The key that ends digits, and is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishOn {
    Key(char),
    /// All keys are digits.
    Nothing,
}

/// An agent asks for digits; what it leaves open is as configured. The names are those of Twilio's
/// `<Gather>`, and so is the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gather {
    pub num_digits: Option<usize>,
    pub finish_on: Option<FinishOn>,
    pub timeout: Option<Duration>,
}

impl Gather {
    /// How long the first digit is waited for, and the next one.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
}

#[derive(Debug)]
pub(super) struct Digits {
    configured: Collecting,
    now: Collecting,
    /// The agent has asked for them.
    asked: bool,
    keys: String,
    due: Option<CallTime>,
}

impl Digits {
    pub(super) fn new(configured: Collecting) -> Digits {
        Digits { configured, now: configured, asked: false, keys: String::new(), due: None }
    }

    /// The agent waits for digits from now on. Those count that were keyed while it still spoke.
    pub(super) fn gather(&mut self, gather: Gather, now: CallTime) {
        self.asked = true;
        self.now = Collecting {
            num_digits: gather.num_digits.unwrap_or(self.configured.num_digits),
            finish_on: gather.finish_on.unwrap_or(self.configured.finish_on),
            timeout: gather.timeout.unwrap_or(Gather::TIMEOUT),
        };
        self.wait(now);
    }

    /// The caller has answered in another way.
    pub(super) fn give_up(&mut self) {
        if std::mem::take(&mut self.asked) && self.keys.is_empty() {
            self.due = None;
            self.now = self.configured;
        }
    }

    pub(super) fn press(&mut self, key: char, now: CallTime) {
        if self.keys.len() < MOST_DIGITS {
            self.keys.push(key);
        }
        self.wait(now);
    }

    fn wait(&mut self, now: CallTime) {
        let Collecting { num_digits, finish_on, timeout } = self.now;
        let finished = matches!(finish_on, FinishOn::Key(key) if self.keys.ends_with(key));
        let complete = finished || self.keys.len() >= num_digits.min(MOST_DIGITS);
        self.due = Some(if complete { now } else { now + timeout });
    }

    /// When the digits will be complete.
    pub(super) fn due(&self) -> Option<CallTime> {
        self.due
    }

    /// Not one was keyed.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The digits, if they are complete. The key that ended them is none, unless it came alone and
    /// nobody had asked.
    pub(super) fn take(&mut self, now: CallTime) -> Option<String> {
        self.due.filter(|due| *due <= now)?;
        self.due = None;
        let mut keys = std::mem::take(&mut self.keys);
        if let FinishOn::Key(end) = self.now.finish_on
            && keys.ends_with(end)
            && (keys.len() > 1 || self.asked)
        {
            keys.pop();
        }
        self.asked = false;
        self.now = self.configured;
        Some(keys)
    }
}

impl Call {
    pub(super) fn key(&mut self, key: char, now: CallTime) {
        self.tell(Event::Dtmf { digit: key });
        if self.settings.mode == Mode::Echo {
            return;
        }
        let interrupts = self.state() == State::Speaking && self.settings.barge_in && !self.is_leaving();
        if interrupts && let Some(Action::Gather(gather)) = self.reply.as_ref().map(|reply| &reply.action) {
            self.digits.gather(*gather, now);
        }
        self.digits.press(key, now);
        if interrupts {
            self.barge_in(Duration::ZERO, now);
        }
        self.take_digits(now);
    }

    /// A caller who speaks in place of keying is heard out first.
    pub(super) fn may_take_digits(&self) -> bool {
        self.state() == State::Listening && !(self.digits.is_empty() && self.ear.hears_speech())
    }

    pub(super) fn take_digits(&mut self, now: CallTime) {
        if self.may_take_digits()
            && let Some(digits) = self.digits.take(now)
        {
            self.answer_digits(digits, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Collecting = Collecting {
        num_digits: MOST_DIGITS,
        finish_on: FinishOn::Key('#'),
        timeout: Duration::from_secs(2),
    };

    /// What is taken of these keys, all pressed at once, after so many ms.
    fn taken(digits: &mut Digits, keys: &str, after_ms: u64) -> Option<String> {
        keys.chars().for_each(|key| digits.press(key, CallTime::ZERO));
        digits.take(CallTime::from_millis(after_ms))
    }

    #[test]
    fn digits_end_with_a_key_or_with_their_number_or_with_time() {
        let four = Collecting { num_digits: 4, ..PLAIN };
        let star = Collecting { finish_on: FinishOn::Key('*'), ..PLAIN };
        let endless = Collecting { finish_on: FinishOn::Nothing, ..PLAIN };
        for (collecting, keys, after_ms, expected) in [
            (PLAIN, "12", 1_999, None),
            (PLAIN, "12", 2_000, Some("12")),
            (PLAIN, "12#", 0, Some("12")),
            (PLAIN, "#", 0, Some("#")),
            (PLAIN, "*1", 2_000, Some("*1")),
            (PLAIN, "", 9_000, None),
            (four, "123", 1_999, None),
            (four, "1234", 0, Some("1234")),
            (four, "12#", 0, Some("12")),
            (star, "1#2*", 0, Some("1#2")),
            (endless, "1#*", 1_999, None),
            (endless, "1#", 2_000, Some("1#")),
        ] {
            let mut digits = Digits::new(collecting);
            assert_eq!(taken(&mut digits, keys, after_ms).as_deref(), expected, "{keys} {collecting:?}");
        }
    }

    #[test]
    fn an_agent_that_asks_says_when_they_are_complete_and_hears_of_none() {
        let asked = |gather: Gather, before: &str, keys: &str, after_ms: u64| {
            let mut digits = Digits::new(PLAIN);
            before.chars().for_each(|key| digits.press(key, CallTime::ZERO));
            digits.gather(gather, CallTime::ZERO);
            taken(&mut digits, keys, after_ms)
        };
        let open = Gather::default();
        let four = Gather { num_digits: Some(4), ..open };
        let star = Gather { finish_on: Some(FinishOn::Key('*')), ..open };
        let quick = Gather { timeout: Some(Duration::from_secs(1)), ..open };
        for (gather, before, keys, after_ms, expected) in [
            (open, "", "", 4_999, None),
            (open, "", "", 5_000, Some("")),
            (open, "", "#", 0, Some("")),
            (open, "", "12", 2_000, None),
            (open, "", "12#", 0, Some("12")),
            (quick, "", "", 1_000, Some("")),
            (four, "", "1234", 0, Some("1234")),
            (four, "1234", "", 0, Some("1234")),
            (four, "12", "", 4_999, None),
            (star, "1#", "*", 0, Some("1#")),
        ] {
            assert_eq!(
                asked(gather, before, keys, after_ms).as_deref(),
                expected,
                "{before}{keys} {gather:?}"
            );
        }
    }

    #[test]
    fn what_was_asked_for_holds_once() {
        let mut digits = Digits::new(PLAIN);
        let nothing = Gather { finish_on: Some(FinishOn::Nothing), ..Gather::default() };
        digits.gather(nothing, CallTime::ZERO);
        assert_eq!(taken(&mut digits, "1#", 5_000).as_deref(), Some("1#"));
        assert_eq!(taken(&mut digits, "1#", 5_000).as_deref(), Some("1"), "as configured again");
        digits.gather(nothing, CallTime::ZERO);
        digits.give_up();
        assert_eq!(digits.due(), None, "nothing is waited for any more");
        assert_eq!(taken(&mut digits, "1#", 5_000).as_deref(), Some("1"));
        digits.gather(nothing, CallTime::ZERO);
        digits.press('7', CallTime::ZERO);
        digits.give_up();
        assert_eq!(taken(&mut digits, "", 5_000).as_deref(), Some("7"), "what was keyed is not lost");
    }

    #[test]
    fn a_stuck_key_does_not_fill_the_memory() {
        let mut digits = Digits::new(Collecting { num_digits: usize::MAX, ..PLAIN });
        (0..10_000).for_each(|_| digits.press('5', CallTime::ZERO));
        assert_eq!(digits.take(CallTime::ZERO).map(|d| d.len()), Some(MOST_DIGITS));
    }
}
