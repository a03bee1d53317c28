//! How long a silence has to be before the caller has finished. Words tell most: a whole sentence is
//! answered sooner, one that stops at "and" later. Otherwise it is the caller's own habit: longer for
//! those who go on after a pause, a little shorter for those who do not.

use std::time::Duration;

use super::words::Words;
use crate::time::CallTime;

/// After a sentence that is complete, and has been for so long.
const AFTER_A_SENTENCE: Duration = Duration::from_millis(300);
const STABLE: Duration = Duration::from_millis(200);
/// After words that something has to follow.
const AFTER_AN_OPEN_END: Duration = Duration::from_millis(1_400);
/// Who speaks again so soon had not finished.
const GOES_ON: Duration = Duration::from_secs(1);
/// What that changes, and how far. A wait set outside of these is the bound itself.
const LONGER: f64 = 1.35;
const SHORTER: f64 = 0.97;
const LONGEST: Duration = Duration::from_millis(1_000);
const SHORTEST: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Unknown,
    Words,
    Open,
    Complete,
}

/// The end of one caller's utterances.
#[derive(Clone, Debug)]
pub struct Endpoint {
    shortest: Duration,
    longest: Duration,
    adapts: bool,
    habit: Duration,
    text: Text,
    /// When the text became what it is.
    since: CallTime,
    /// The latest decision that the caller had finished, until it proves wrong.
    decided: Option<CallTime>,
}

impl Endpoint {
    /// `eou` is the silence to begin with; where it does not adapt, it stays.
    pub fn new(eou: Duration, adapts: bool) -> Endpoint {
        Endpoint {
            shortest: SHORTEST.min(eou),
            longest: LONGEST.max(eou),
            adapts,
            habit: eou,
            text: Text::Unknown,
            since: CallTime::ZERO,
            decided: None,
        }
    }

    /// What a streaming recogniser has understood of the utterance so far.
    pub fn text(&mut self, words: &Words, text: &str, now: CallTime) {
        self.since = now;
        self.text = match () {
            () if words.is_open(text) => Text::Open,
            () if words.is_complete(text) => Text::Complete,
            () if text.trim().is_empty() => Text::Unknown,
            () => Text::Words,
        };
    }

    /// There is no text: the recogniser has been asked for it, or told to forget it.
    pub fn forget_text(&mut self) {
        self.text = Text::Unknown;
    }

    /// The silence that ends the utterance, as things are.
    pub fn wait(&self, now: CallTime) -> Duration {
        match self.text {
            Text::Complete if now.since(self.since) >= STABLE => AFTER_A_SENTENCE.min(self.habit),
            Text::Open => AFTER_AN_OPEN_END.max(self.habit),
            Text::Complete | Text::Words | Text::Unknown => self.habit,
        }
    }

    /// There are words, they do not change any more, and nothing has to follow.
    pub fn may_be_all(&self, now: CallTime) -> bool {
        matches!(self.text, Text::Words | Text::Complete) && now.since(self.since) >= STABLE
    }

    /// The caller is taken to have finished.
    pub fn ended(&mut self, now: CallTime) {
        self.forget_text();
        if self.decided.replace(now).is_some() && self.adapts {
            self.habit = self.habit.mul_f64(SHORTER).max(self.shortest);
        }
    }

    /// The caller speaks again.
    pub fn started(&mut self, now: CallTime) {
        if self.decided.take_if(|at| now.since(*at) < GOES_ON).is_some() && self.adapts {
            self.habit = self.habit.mul_f64(LONGER).min(self.longest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EOU: Duration = Duration::from_millis(450);

    fn ms(ms: u64) -> CallTime {
        CallTime::from_millis(ms)
    }

    #[test]
    fn words_move_the_end() {
        let words = Words::new(&["en".into()], &[], &[]);
        let mut endpoint = Endpoint::new(EOU, true);
        for (text, after, wait) in [
            ("I would like a table", 500, 450),
            ("I would like a table.", 100, 450),
            ("I would like a table.", 200, 300),
            ("I would like a table for", 500, 1_400),
            ("I would like a table for.", 500, 1_400),
            ("five five one", 500, 1_400),
        ] {
            endpoint.text(&words, text, ms(1_000));
            assert_eq!(endpoint.wait(ms(1_000 + after)).as_millis(), wait, "{text:?} for {after} ms");
        }
        endpoint.forget_text();
        assert_eq!(endpoint.wait(ms(9_000)), EOU);
    }

    #[test]
    fn a_caller_who_goes_on_is_waited_for_and_one_who_does_not_is_answered_sooner() {
        let after = |adapts, pauses: &[u64]| {
            let mut endpoint = Endpoint::new(EOU, adapts);
            let mut now = ms(0);
            for pause in pauses {
                now = now + Duration::from_secs(5);
                endpoint.ended(now);
                now = now + Duration::from_millis(*pause);
                endpoint.started(now);
            }
            endpoint.wait(now).as_millis()
        };
        assert_eq!(after(true, &[200]), 607);
        assert_eq!(after(true, &[200, 200]), 820);
        assert_eq!(after(true, &[200; 9]), 1_000);
        assert_eq!(after(true, &[5_000, 5_000]), 436);
        assert_eq!(after(true, &[5_000; 99]), 300);
        assert_eq!(after(false, &[200; 9]), 450);
    }

    #[test]
    fn a_wait_outside_of_the_bounds_is_kept() {
        for eou in [200, 3_000] {
            let mut endpoint = Endpoint::new(Duration::from_millis(eou), true);
            for n in 0..200 {
                endpoint.ended(ms(n * 5_000));
            }
            let shortest = endpoint.wait(ms(0)).as_millis() as u64;
            assert_eq!(shortest, eou.min(300));
        }
    }
}
