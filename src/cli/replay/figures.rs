//! A call in numbers, from what happened in it.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::call::{Event, Output, TurnResult};
use crate::tape::Step;
use crate::time::CallTime;
use crate::turn::State;

/// Who goes on after a pause shorter than this, and was taken for finished, was cut off.
const CUT_OFF: Duration = Duration::from_millis(1_400);
/// Who speaks this soon after the bot began did not hear it begin.
const COLLISION: Duration = Duration::from_millis(600);

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(in crate::cli) struct Figures {
    pub(in crate::cli) seconds: f64,
    pub(in crate::cli) turns: usize,
    pub(in crate::cli) answered: usize,
    pub(in crate::cli) interrupted: usize,
    pub(in crate::cli) empty: usize,
    pub(in crate::cli) failed: usize,
    /// The caller was taken for finished in a pause of less than 1.4 s, and had not heard the bot yet.
    pub(in crate::cli) cut_offs: usize,
    /// The caller spoke within 600 ms of the bot's first sound.
    pub(in crate::cli) collisions: usize,
    /// The bot fell silent for the moment, and went on since nobody meant to interrupt.
    pub(in crate::cli) held: usize,
    pub(in crate::cli) resumed: usize,
    pub(in crate::cli) barge_ins: usize,
    /// Those after which nothing was understood.
    pub(in crate::cli) false_barge_ins: usize,
    /// What the agent was asked, in vain or not.
    pub(in crate::cli) questions: usize,
    /// From the end of speech to the first frame of its answer.
    #[serde(serialize_with = "middle_and_late", rename = "first_frame_ms")]
    pub(in crate::cli) first_frame: Vec<u64>,
    #[serde(skip)]
    speech_ended_at: Option<CallTime>,
    #[serde(skip)]
    spoke_at: Option<CallTime>,
    /// The next turn tells what a barge-in was about.
    #[serde(skip)]
    barged_in: bool,
}

impl Figures {
    pub(in crate::cli) fn note(&mut self, at: CallTime, step: &Step<'_>) {
        let event = match step {
            Step::Did(Output::Event(event)) => event,
            Step::Did(Output::Ask(_)) => {
                self.questions += 1;
                return;
            }
            _ => return,
        };
        match event {
            Event::BargeInHeld { .. } => self.held += 1,
            Event::BargeInResumed { .. } => self.resumed += 1,
            Event::UtteranceEnded { endpoint, .. } => self.speech_ended_at = Some(at - *endpoint),
            Event::UtteranceStarted => {
                let paused = self.speech_ended_at.take().map(|then| at.since(then));
                let bot_heard = self.spoke_at.map(|then| at.since(then));
                let went_on = paused.is_some_and(|pause| pause <= CUT_OFF);
                // Who has heard the bot begin interrupts it.
                self.cut_offs += usize::from(went_on && bot_heard.is_none_or(|heard| heard <= COLLISION));
                self.collisions += usize::from(bot_heard.is_some_and(|heard| heard <= COLLISION));
            }
            Event::State(moved) => self.spoke_at = (moved.to == State::Speaking).then_some(at),
            // Speech that had to wait until the bot had finished is dated to then.
            Event::FirstFrame { since_speech_end: Some(took), .. } if !took.is_zero() => {
                self.first_frame.push(took.as_millis() as u64);
            }
            Event::BargeIn { .. } => {
                self.barge_ins += 1;
                self.barged_in = true;
            }
            Event::TurnEnded { result, .. } => {
                self.turns += 1;
                if *result != TurnResult::Interrupted {
                    let empty = *result == TurnResult::Empty;
                    self.false_barge_ins += usize::from(std::mem::take(&mut self.barged_in) && empty);
                }
                *match result {
                    TurnResult::Answered => &mut self.answered,
                    TurnResult::Interrupted => &mut self.interrupted,
                    TurnResult::Empty => &mut self.empty,
                    TurnResult::Failed => &mut self.failed,
                } += 1;
            }
            _ => {}
        }
    }

    pub(in crate::cli) fn lasted(&mut self, lasted: CallTime) {
        self.seconds = lasted.as_millis() as f64 / 1e3;
    }

    pub(in crate::cli) fn add(&mut self, other: &Figures) {
        self.seconds += other.seconds;
        self.turns += other.turns;
        self.answered += other.answered;
        self.interrupted += other.interrupted;
        self.empty += other.empty;
        self.failed += other.failed;
        self.cut_offs += other.cut_offs;
        self.collisions += other.collisions;
        self.held += other.held;
        self.resumed += other.resumed;
        self.barge_ins += other.barge_ins;
        self.false_barge_ins += other.false_barge_ins;
        self.questions += other.questions;
        self.first_frame.extend(&other.first_frame);
    }

    /// How long so many of a hundred first frames took at most, in ms.
    pub(in crate::cli) fn first_frame_ms(&self, percent: usize) -> Option<u64> {
        percentile(&self.first_frame, percent)
    }
}

fn percentile(all: &[u64], percent: usize) -> Option<u64> {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

fn middle_and_late<S: Serializer>(all: &[u64], to: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Latency {
        count: usize,
        p50: Option<u64>,
        p95: Option<u64>,
    }
    Latency { count: all.len(), p50: percentile(all, 50), p95: percentile(all, 95) }.serialize(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let all: Vec<u64> = (1..=20).rev().collect();
        for (percent, value) in [(0, 1), (50, 10), (95, 19), (100, 20)] {
            assert_eq!(percentile(&all, percent), Some(value), "{percent} %");
        }
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn who_goes_on_after_a_pause_was_cut_off_once() {
        let mut figures = Figures::default();
        let endpoint = Duration::from_millis(400);
        let ended = Event::UtteranceEnded { speech: Duration::ZERO, endpoint };
        for (at, event) in [
            (0, Event::UtteranceStarted),
            (1_000, ended.clone()),
            (2_000, Event::UtteranceStarted),
            (2_050, Event::UtteranceStarted),
            (3_000, ended),
            (4_020, Event::UtteranceStarted),
        ] {
            figures.note(CallTime::from_millis(at), &Step::Did(&Output::Event(event)));
        }
        assert_eq!(figures.cut_offs, 1);
    }

    #[test]
    fn a_barge_in_after_which_nothing_was_said_was_for_naught() {
        let ended = |result| Event::TurnEnded { turn: 1, result };
        let barge_in =
            || Event::BargeIn { reaction: Duration::ZERO, cleared: Duration::ZERO, heard: String::new() };
        let mut figures = Figures::default();
        for event in [
            barge_in(),
            ended(TurnResult::Interrupted),
            ended(TurnResult::Empty),
            ended(TurnResult::Empty),
            barge_in(),
            ended(TurnResult::Interrupted),
            ended(TurnResult::Answered),
        ] {
            figures.note(CallTime::ZERO, &Step::Did(&Output::Event(event)));
        }
        assert_eq!((figures.barge_ins, figures.false_barge_ins, figures.turns), (2, 1, 5));
    }
}
