//! How long a silence has to be before the caller has finished. Words tell most: a whole sentence is
//! answered sooner; one that stops at "and", or without its full stop where that is usual, later.
//! Otherwise it is the caller's own habit: longer for those who go on after a pause, a little shorter
//! for those who do not.

use std::time::Duration;

use super::words::Words;
use crate::time::CallTime;

/// After a sentence that is complete, and has been for so long.
const AFTER_A_SENTENCE: Duration = Duration::from_millis(300);
const STABLE: Duration = Duration::from_millis(200);
/// What is only asked early, and dropped when it was wrong, need not be as certain.
const STABLE_FOR_NOW: Duration = Duration::from_millis(80);
/// After words that something has to follow.
const MORE_TO_COME: Duration = Duration::from_millis(1_400);
/// Who speaks again so soon had not finished.
const GOES_ON: Duration = Duration::from_secs(1);
/// What that changes, and how far. A wait set outside of these is the bound itself.
const LONGER: f64 = 1.35;
const SHORTER: f64 = 0.97;
const LONGEST: Duration = Duration::from_millis(1_000);
const SHORTEST: Duration = Duration::from_millis(300);

/// A recogniser that writes sentences sets a full stop behind most of them: words without one are not
/// all, unless it has left them out so many times in a row.
const LEFT_OUT: u32 = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Unknown,
    /// "Yes", with a full stop or without.
    Answer,
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
    /// The latest decision that the caller had finished, until it proves wrong; and whether the habit
    /// made it.
    decided: Option<(CallTime, bool)>,
    /// The recogniser writes capitals or full stops.
    writes: bool,
    /// Utterances in a row that ended without a full stop.
    without_stop: u32,
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
            writes: false,
            without_stop: 0,
        }
    }

    /// What a streaming recogniser has understood of the utterance so far.
    pub fn text(&mut self, words: &Words, text: &str, now: CallTime) {
        self.since = now;
        self.writes |= text.contains(|c: char| c.is_uppercase() || c == '.');
        self.text = match () {
            () if words.is_open(text) => Text::Open,
            () if words.is_complete(text) => Text::Complete,
            () if text.trim().is_empty() => Text::Unknown,
            () if words.is_an_answer(text) => Text::Answer,
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
            Text::Open | Text::Words if self.expects_more() => MORE_TO_COME.max(self.habit),
            Text::Open | Text::Complete | Text::Words | Text::Answer | Text::Unknown => self.habit,
        }
    }

    /// By the words, the caller has not finished.
    pub fn expects_more(&self) -> bool {
        match self.text {
            Text::Open => true,
            Text::Words => self.writes && self.without_stop < LEFT_OUT,
            Text::Complete | Text::Answer | Text::Unknown => false,
        }
    }

    /// The same where nothing is gained by a decision before the habit's: what has been asked early is
    /// not answered yet.
    pub fn unhurried_wait(&self, now: CallTime) -> Duration {
        self.wait(now).max(self.habit)
    }

    /// There are words, they do not change any more, and nothing has to follow.
    pub fn may_be_all(&self, now: CallTime) -> bool {
        matches!(self.text, Text::Words | Text::Answer | Text::Complete)
            && now.since(self.since) >= STABLE_FOR_NOW
    }

    /// The caller is taken to have finished.
    pub fn ended(&mut self, now: CallTime) {
        let by_habit = self.wait(now) == self.habit;
        match self.text {
            Text::Complete => self.without_stop = 0,
            Text::Words => self.without_stop += 1,
            Text::Open | Text::Answer | Text::Unknown => {}
        }
        self.forget_text();
        if self.decided.replace((now, by_habit)).is_some_and(|(_, by_habit)| by_habit) && self.adapts {
            self.habit = self.habit.mul_f64(SHORTER).max(self.shortest);
        }
    }

    /// The caller speaks again.
    pub fn started(&mut self, now: CallTime) {
        let wrong = self.decided.take_if(|(at, _)| now.since(*at) < GOES_ON);
        if wrong.is_some_and(|(_, by_habit)| by_habit) && self.adapts {
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
            ("i would like a table", 500, 450),
            ("i would like a table.", 100, 450),
            ("i would like a table.", 200, 300),
            ("i would like a table for", 500, 1_400),
            ("i would like a table for.", 500, 1_400),
            ("five five one", 500, 1_400),
        ] {
            endpoint.text(&words, text, ms(1_000));
            assert_eq!(endpoint.wait(ms(1_000 + after)).as_millis(), wait, "{text:?} for {after} ms");
        }
        endpoint.forget_text();
        assert_eq!(endpoint.wait(ms(9_000)), EOU);
    }

    #[test]
    fn a_full_stop_is_missed_where_it_is_usual() {
        let words = Words::new(&["en".into()], &[], &[]);
        let mut endpoint = Endpoint::new(EOU, true);
        let mut wait = |text| {
            endpoint.text(&words, text, ms(0));
            let told = (endpoint.wait(ms(500)).as_millis(), endpoint.expects_more());
            endpoint.ended(ms(5_000));
            told
        };
        // The first of these may be any recogniser's; the others are of one that writes.
        assert_eq!(wait("i would like a table"), (450, false));
        assert_eq!(wait("I would like a table."), (300, false));
        assert_eq!(wait("I would like a table"), (1_400, true));
        assert_eq!(wait("For two."), (300, false));
        assert_eq!([wait("Tomorrow"), wait("Tuesday"), wait("June")], [(1_400, true); 3]);
        assert!(!wait("July").1, "this one does not set them");
        assert_eq!(wait("In June.").0, 300);
        assert!([wait("Yes"), wait("No"), wait("Okay, sure")].iter().all(|(ms, more)| *ms <= 450 && !more));
        assert_eq!(wait("July"), (1_400, true));
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
