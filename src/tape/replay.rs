//! A recorded call once more, through the same engine, in virtual time.
//!
//! As long as the call does what stands on the tape, to the byte and the microsecond, everything is
//! handed to it as it came then, timers included. Same tape, same settings: same call. From the first
//! difference on it has gone another way (it *forked*), and the world has to be told what it never
//! saw: the caller's audio, keys and hang-up still come from the tape, at their times, and so does what
//! a recogniser or an agent said without having been asked; marks come back from a carrier as the
//! tape's was (`carrier`); services answer the questions that are asked now with what they answered
//! then (`answers`); timers go off when they are due. The caller does not react: who was not
//! interrupted on the tape is not, and speaks when he spoke.
//!
//! What was measured of the caller's audio is on the tape and is not measured again, even after a fork:
//! the echo in that audio is of what the bot said then. Only a detector that was not asked on the tape
//! has to hear the audio itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

pub use super::answers::Origins;
use super::answers::{Answers, Question, Questions};
use super::carrier::Carrier;
use super::conducted;
use super::entry::{JobWord, unpack};
use super::{Entry, Tape};
use crate::call::{Call, Input, Output, Settings};
use crate::time::CallTime;
use crate::turn::{Measured, State, Vad, decibels};

/// Outputs that a call had made when its tape was torn off may be missing for so long.
pub(super) const LOST_WITH_A_TAPE: Duration = Duration::from_secs(1);

/// One thing that happens in a replay.
#[derive(Debug)]
pub enum Step<'s> {
    /// The call was told something, or that time has passed.
    Told(&'s Entry<'s>),
    /// What a frame of the caller's audio told that was just handed in; then the silence within the
    /// utterance so far, and how much of it would end it.
    /// Neither is known where a model decides too.
    Heard { frame: Measured, pause: Option<Duration>, wait: Option<Duration> },
    /// How loud a frame of the caller's audio was, where nothing else was measured.
    Level { level_db: f32 },
    /// The call did something.
    Did(&'s Output),
}

/// How a replay went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// From when on the call did something else than on the tape.
    pub forked: Option<CallTime>,
    /// Where the answers came from after that.
    pub origins: Origins,
    pub lasted: CallTime,
    /// The call came to its end; if not, the tape did.
    pub ended: bool,
    /// The caller's audio was measured again, since the tape does not tell what this detector makes of it.
    pub measured_anew: bool,
}

/// Where the measure of the caller's frames comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Measure {
    AsTaped,
    /// The tape's levels, speech from this one on.
    ByLoudness(f32),
    Anew,
}

impl Measure {
    pub(super) fn of(entries: &[(CallTime, Entry<'_>)], recorded: &Settings, settings: &Settings) -> Measure {
        let first = entries.iter().find(|(_, entry)| entry.audio().is_some());
        let known = matches!(first, None | Some((_, Entry::Heard { .. })));
        let same = recorded.vad_rms.to_bits() == settings.vad_rms.to_bits();
        match (recorded.vad, settings.vad) {
            (Vad::Neural, Vad::Neural) if known => Measure::AsTaped,
            (Vad::Rms, Vad::Rms) if known && same => Measure::AsTaped,
            (_, Vad::Rms) if known => Measure::ByLoudness(decibels(settings.vad_rms)),
            (_, Vad::Rms | Vad::Neural) => Measure::Anew,
        }
    }
}

/// Runs a tape with these settings and shows `each` step. `recorded` are the tape's own, and a call that
/// a bot conducts knows no others.
pub fn replay(
    tape: &Tape<'_>,
    settings: Arc<Settings>,
    recorded: &Settings,
    mut each: impl FnMut(CallTime, Step<'_>),
) -> Outcome {
    if let Some(outcome) = conducted::replay(tape, &settings, recorded, &mut each) {
        return outcome;
    }
    run(&tape.entries, settings, recorded, None, each)
}

/// A call that never was: what a caller does, from entries that nobody answered.
pub fn simulate(
    entries: &[(CallTime, Entry<'_>)],
    settings: Arc<Settings>,
    each: impl FnMut(CallTime, Step<'_>),
) -> Outcome {
    run(entries, settings.clone(), &settings, Some(CallTime::ZERO), each)
}

fn run(
    entries: &[(CallTime, Entry<'_>)],
    settings: Arc<Settings>,
    recorded: &Settings,
    forked: Option<CallTime>,
    each: impl FnMut(CallTime, Step<'_>),
) -> Outcome {
    let measure = Measure::of(entries, recorded, &settings);
    let call = match measure {
        Measure::AsTaped | Measure::ByLoudness(_) => Call::measured_before(settings, CallTime::ZERO),
        Measure::Anew => Call::new(settings, CallTime::ZERO),
    };
    let mut replay = Replay {
        entries,
        at: 0,
        matched: 0,
        call,
        measure,
        frames: Vec::new(),
        carrier: Carrier::default(),
        questions: Questions::default(),
        pending: HashMap::new(),
        now: CallTime::ZERO,
        forked,
        each,
    };
    replay.as_recorded();
    let mut origins = Origins::default();
    if replay.forked.is_some() {
        replay.carrier.learn(entries);
        let mut answers = Answers::of(entries, recorded);
        let end = entries.last().map_or(CallTime::ZERO, |(at, _)| *at);
        replay.another_way(&mut answers, end);
        origins = answers.origins;
    }
    Outcome {
        forked: replay.forked,
        origins,
        lasted: replay.now,
        ended: replay.call.state() == State::Ended,
        measured_anew: measure == Measure::Anew,
    }
}

struct Replay<'t, F> {
    entries: &'t [(CallTime, Entry<'t>)],
    /// The next entry to be handed in.
    at: usize,
    /// Outputs before this entry have been done again.
    matched: usize,
    call: Call,
    measure: Measure,
    /// What was measured of the audio that is handed in; kept to be filled again.
    frames: Vec<Measured>,
    carrier: Carrier,
    questions: Questions,
    /// Questions without their last answer.
    pending: HashMap<JobWord, Question>,
    now: CallTime,
    forked: Option<CallTime>,
    each: F,
}

/// Answers on their way, in the order in which they come; the number keeps apart what comes at once.
type Schedule = BTreeMap<(CallTime, u64), Input<'static>>;

impl<F: FnMut(CallTime, Step<'_>)> Replay<'_, F> {
    /// Up to the end, or to the first difference.
    fn as_recorded(&mut self) {
        let entries = self.entries;
        self.outputs_as_recorded();
        while let (None, Some((at, entry))) = (self.forked, entries.get(self.at)) {
            if matches!(entry, Entry::End | Entry::Cut(_)) {
                return;
            }
            if !entry.is_output() {
                if let Some((missed, _)) = self.next_recorded_output().filter(|(_, index)| *index < self.at) {
                    self.forked = Some(missed.max(self.now));
                    return;
                }
                self.now = *at;
                if !self.caller_did(entry) {
                    self.call.handle_timeout(*at);
                }
                if let Entry::Mark(name) = entry {
                    self.carrier.returned(name);
                }
                if let Some(job) = entry.answers().filter(|_| entry.is_last_answer()) {
                    self.pending.remove(&job);
                }
                self.told(entry);
                self.outputs_as_recorded();
            }
            self.at += 1;
        }
    }

    fn next_recorded_output(&mut self) -> Option<(CallTime, usize)> {
        while self.entries.get(self.matched).is_some_and(|(_, entry)| !entry.is_output()) {
            self.matched += 1;
        }
        self.entries.get(self.matched).map(|(at, _)| (*at, self.matched))
    }

    fn outputs_as_recorded(&mut self) {
        while let Some(output) = self.call.poll_output() {
            if let Some(entry) = Entry::of_output(&output) {
                if self.forked.is_none() && !self.is_recorded(&entry) {
                    self.forked = Some(self.now);
                }
                self.note(&entry);
            }
            (self.each)(self.now, Step::Did(&output));
        }
    }

    /// Whether this stands next on the tape, now. Of a tape that was torn off the last outputs may be
    /// lost; and what a call did as it was ended stands behind that end.
    fn is_recorded(&mut self, entry: &Entry<'_>) -> bool {
        let Some((at, index)) = self.next_recorded_output() else {
            let torn = |(at, entry): &(CallTime, Entry<'_>)| {
                *entry != Entry::End && at.since(self.now) < LOST_WITH_A_TAPE
            };
            return self.entries.last().is_some_and(torn);
        };
        let in_time = at == self.now || {
            let mut next = self.entries[self.at..index].iter().filter(|(_, e)| !e.is_output()).skip(1);
            matches!(next.next(), Some((_, Entry::Stop(_))))
        };
        let same = in_time && self.entries[index].1 == *entry;
        self.matched += usize::from(same);
        same
    }

    /// What the world makes of an output: the question in it, if there is one.
    fn note(&mut self, entry: &Entry<'_>) -> Option<JobWord> {
        match entry {
            Entry::Play(_) => self.carrier.play(self.now),
            Entry::SentMark(name) => self.carrier.mark(name.clone().into_owned(), self.now),
            Entry::Cleared => self.carrier.clear(self.now),
            Entry::Cancel(job) => drop(self.pending.remove(job)),
            _ => {}
        }
        let question = self.questions.of(entry, self.now)?;
        let job = question.job;
        self.pending.insert(job, question);
        Some(job)
    }

    /// From the fork to the end.
    fn another_way(&mut self, answers: &mut Answers<'_>, tape_end: CallTime) {
        let mut schedule = Schedule::new();
        let mut number = 0;
        let mut plan = |question: &Question, schedule: &mut Schedule| {
            for (at, input) in answers.plan(question) {
                number += 1;
                schedule.insert((at, number), input);
            }
        };
        let mut pending: Vec<Question> = self.pending.values().cloned().collect();
        pending.sort_by_key(|question| question.job);
        pending.iter().for_each(|question| plan(question, &mut schedule));
        // What is due has been answered already.
        schedule = schedule.split_off(&(self.now, u64::MAX));
        while self.call.state() != State::Ended && self.another_step(&mut schedule, tape_end) {
            while let Some(output) = self.call.poll_output() {
                if let Some(entry) = Entry::of_output(&output) {
                    if let Some(question) = self.note(&entry).and_then(|job| self.pending.get(&job)) {
                        plan(question, &mut schedule);
                    }
                    if let Entry::Cancel(job) = entry {
                        schedule.retain(|_, input| Entry::of_input(input).answers() != Some(job));
                    }
                }
                (self.each)(self.now, Step::Did(&output));
            }
        }
    }

    /// Whatever comes first; false when nothing more will.
    fn another_step(&mut self, schedule: &mut Schedule, tape_end: CallTime) -> bool {
        let of_caller = |entry: &Entry<'_>| match entry {
            Entry::Media { .. }
            | Entry::Heard { .. }
            | Entry::Dtmf(_)
            | Entry::LastWords(_)
            | Entry::Stop(_)
            | Entry::Partial(_)
            | Entry::SpeechFinal => true,
            Entry::ReplyText { turn, .. } | Entry::ReplyEnd { turn, .. } => *turn == 0,
            Entry::Failed { job, .. } => *job == JobWord::Ask(0),
            _ => false,
        };
        while self.entries.get(self.at).is_some_and(|(_, entry)| !of_caller(entry)) {
            self.at += 1;
        }
        let caller = self.entries.get(self.at).map(|(at, _)| *at);
        let answer = schedule.first_key_value().map(|((at, _), _)| *at).filter(|_| self.call.has_room());
        let mark = self.carrier.due();
        let timer = self.call.poll_timeout();
        let Some(first) = [caller, answer, mark, timer].into_iter().flatten().min() else { return false };
        if caller.is_none() && first > tape_end {
            self.now = self.now.max(tape_end);
            return false;
        }
        self.now = self.now.max(first);
        let now = self.now;
        if caller == Some(first) {
            let entry = &self.entries[self.at].1;
            self.at += 1;
            self.caller_did(entry);
            self.told(entry);
        } else if answer == Some(first)
            && let Some((_, input)) = schedule.pop_first()
        {
            self.hand_in(input);
        } else if mark == Some(first)
            && let Some(name) = self.carrier.next()
        {
            self.hand_in(Input::Mark(&name));
        } else {
            self.call.handle_timeout(now);
            (self.each)(now, Step::Told(&Entry::Tick));
        }
        true
    }

    /// Hands in what the tape says that the call was told; whether it was told something.
    fn caller_did(&mut self, entry: &Entry<'_>) -> bool {
        let loud_db = match self.measure {
            Measure::AsTaped => None,
            Measure::ByLoudness(db) => Some(db),
            Measure::Anew => return self.handed_in(entry),
        };
        let Entry::Heard { payload, timestamp_ms, frames } = entry else { return self.handed_in(entry) };
        self.frames.clear();
        let by_loudness = |frame: Measured| loud_db.map_or(frame, |db| frame.by_loudness(db));
        self.frames.extend(unpack(frames).map(by_loudness));
        let (timestamp_ms, frames) = (*timestamp_ms, &self.frames);
        self.call.handle(Input::Measured { payload, timestamp_ms, frames }, self.now);
        true
    }

    fn handed_in(&mut self, entry: &Entry<'_>) -> bool {
        let Some(input) = entry.input() else { return false };
        self.call.handle(input, self.now);
        true
    }

    fn told(&mut self, entry: &Entry<'_>) {
        (self.each)(self.now, Step::Told(entry));
        if entry.audio().is_none() {
            return;
        }
        for &frame in self.call.measured() {
            let (pause, wait) = self.call.pause(self.now);
            (self.each)(self.now, Step::Heard { frame, pause, wait: Some(wait) });
        }
    }

    fn hand_in(&mut self, input: Input<'_>) {
        let entry = Entry::of_input(&input);
        if let Some(job) = entry.answers().filter(|_| entry.is_last_answer()) {
            self.pending.remove(&job);
        }
        (self.each)(self.now, Step::Told(&entry));
        drop(entry);
        self.call.handle(input, self.now);
    }
}
