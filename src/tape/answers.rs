//! What the services would have said to questions that were never put to them.
//!
//! - **Transcripts.** The words of the tape are laid out in time: each transcript's words end where its
//!   utterance did, 350 ms a word, closer where they would not fit. An utterance of the replay says the
//!   words that fall into it, so that one which was cut in two gives each half its words, and two that
//!   became one give all. It takes as long as the tape's nearest in time.
//! - **Replies.** Of the same text where there is one, else the nearest in time.
//! - **Speech.** Of the same sentence; one that was never spoken gets a hum of the length that it would
//!   have, after the time that voices took on the tape, in the middle.
//!
//! What broke off on the tape because the caller interrupted is brought to its end here.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use super::Entry;
use super::entry::JobWord;
use crate::audio::{BYTES_PER_MS, FRAME_BYTES};
use crate::call::{Action, Input, Job, Settings};
use crate::time::CallTime;

const WORD: Duration = Duration::from_millis(350);
/// What an utterance's audio has before its first sound.
const PREROLL: Duration = Duration::from_millis(280);
/// How long services take that are not on the tape.
const USUAL: Duration = Duration::from_millis(300);
/// How long speech is: about 15 characters a second.
const BYTES_PER_CHAR: usize = 66 * BYTES_PER_MS;
/// The longest made-up sentence.
const LONGEST_HUM: usize = 30_000 * BYTES_PER_MS;
/// A square wave of 400 Hz, at the level of speech.
const HUM: [u8; 20] = [
    0x9E, 0x9E, 0x9E, 0x9E, 0x9E, 0x9E, 0x9E, 0x9E, 0x9E, 0x9E, 0x1E, 0x1E, 0x1E, 0x1E, 0x1E, 0x1E, 0x1E,
    0x1E, 0x1E, 0x1E,
];

/// Where the answers to a replay's questions came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// The same question stands on the tape.
    pub same: usize,
    /// Another question's answer, or a part of it.
    pub moved: usize,
    /// Not on the tape, or not to its end.
    pub made_up: usize,
}

/// A question as the replay asks it.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) job: JobWord,
    pub(super) at: CallTime,
    /// What is asked or said; empty for audio.
    pub(super) text: String,
    /// Since when the caller is listened to, for a transcript.
    pub(super) from: CallTime,
}

/// A question of the tape, with where its answers stand.
struct Asked {
    question: Question,
    answers: Vec<usize>,
    whole: bool,
}

pub(super) struct Answers<'t> {
    entries: &'t [(CallTime, Entry<'t>)],
    asked: Vec<Asked>,
    words: Vec<(CallTime, String)>,
    /// From a sentence to its first audio, in the middle.
    voice: Duration,
    pub(super) origins: Origins,
}

/// Answers with the times at which they come.
pub(super) type Plan = Vec<(CallTime, Input<'static>)>;

impl<'t> Answers<'t> {
    pub(super) fn of(entries: &'t [(CallTime, Entry<'t>)], settings: &Settings) -> Answers<'t> {
        let mut asked: Vec<Asked> = Vec::new();
        let mut known: HashMap<JobWord, usize> = HashMap::new();
        let mut questions = Questions::default();
        for (index, (at, entry)) in entries.iter().enumerate() {
            if let Some(question) = questions.of(entry, *at) {
                known.insert(question.job, asked.len());
                asked.push(Asked { question, answers: Vec::new(), whole: false });
            } else if let Some(asked) =
                entry.answers().and_then(|job| known.get(&job)).map(|n| &mut asked[*n])
            {
                asked.answers.push(index);
                asked.whole |= entry.is_last_answer();
            }
        }
        let mut answers =
            Answers { entries, asked, words: Vec::new(), voice: USUAL, origins: Origins::default() };
        answers.lay_out(settings.endpointing.eou);
        let mut voices: Vec<Duration> = answers
            .asked
            .iter()
            .filter(|asked| matches!(asked.question.job, JobWord::Say(_)))
            .filter_map(|asked| Some(answers.delay(asked, *asked.answers.first()?)))
            .collect();
        voices.sort();
        answers.voice = voices.get(voices.len() / 2).copied().unwrap_or(USUAL);
        answers
    }

    /// Lays the words out in time.
    fn lay_out(&mut self, eou: Duration) {
        for asked in &self.asked {
            let Some(Entry::Transcript { text, .. }) = asked.answers.first().map(|i| &self.entries[*i].1)
            else {
                continue;
            };
            // Audio that is asked about again says its words again.
            self.words.retain(|(at, _)| *at <= asked.question.from);
            let end = asked.question.at - eou;
            let count = text.split_whitespace().count() as u32;
            let each = WORD.min(end.since(asked.question.from) / count.max(1));
            let words = text.split_whitespace().enumerate();
            self.words.extend(words.map(|(n, word)| (end - each * (count - 1 - n as u32), word.to_owned())));
        }
    }

    fn delay(&self, asked: &Asked, answer: usize) -> Duration {
        self.entries[answer].0.since(asked.question.at)
    }

    /// What will be answered to this, and when.
    pub(super) fn plan(&mut self, question: &Question) -> Plan {
        match question.job {
            JobWord::Transcribe(utterance) => self.transcript(question, utterance),
            JobWord::Ask(turn) => self.reply(question, turn),
            JobWord::Say(segment) => self.speech(question, segment),
            // As the carrier does nearly always; what becomes of the stream then is its own matter.
            JobWord::Control(number) => {
                self.origins.made_up += 1;
                vec![(question.at + USUAL, Input::Controlled { number })]
            }
        }
    }

    fn nearest(&self, at: CallTime, of: impl Fn(&Asked) -> bool) -> Option<usize> {
        let far = |asked: &Asked| asked.question.at.since(at).max(at.since(asked.question.at));
        let all = self.asked.iter().enumerate().filter(|(_, asked)| of(asked));
        all.min_by_key(|(_, asked)| far(asked)).map(|(index, _)| index)
    }

    fn transcript(&mut self, question: &Question, utterance: u64) -> Plan {
        let is_transcript = |asked: &Asked| matches!(asked.question.job, JobWord::Transcribe(_));
        let same = |asked: &Asked| {
            asked.whole
                && (asked.question.job, asked.question.at, asked.question.from)
                    == (question.job, question.at, question.from)
        };
        if let Some(index) = self.asked.iter().position(same) {
            self.origins.same += 1;
            return self.repeat(index, question);
        }
        let nearest = self.nearest(question.at, |asked| is_transcript(asked) && asked.whole);
        let said = self.words.iter().filter(|(at, _)| (question.from..=question.at).contains(at));
        let text = said.map(|(_, word)| word.as_str()).collect::<Vec<_>>().join(" ");
        let Some(index) = nearest else {
            self.origins.made_up += 1;
            return vec![(question.at + USUAL, Input::Transcript { utterance, text })];
        };
        self.origins.moved += 1;
        let asked = &self.asked[index];
        let failed = |i: &usize| matches!(self.entries[*i].1, Entry::Failed { .. });
        if text.is_empty() && asked.answers.iter().any(failed) {
            return self.repeat(index, question);
        }
        let delay = asked.answers.first().map_or(USUAL, |answer| self.delay(asked, *answer));
        vec![(question.at + delay, Input::Transcript { utterance, text })]
    }

    fn reply(&mut self, question: &Question, turn: u64) -> Plan {
        let is_ask = |asked: &Asked| matches!(asked.question.job, JobWord::Ask(_));
        let same_text = |asked: &Asked| is_ask(asked) && asked.question.text == question.text;
        let found = self
            .nearest(question.at, |asked| same_text(asked) && asked.question.job == question.job)
            .or_else(|| self.nearest(question.at, |asked| same_text(asked) && asked.whole))
            .or_else(|| self.nearest(question.at, |asked| is_ask(asked) && asked.whole))
            .or_else(|| self.nearest(question.at, |asked| is_ask(asked) && !asked.answers.is_empty()));
        let end = Input::ReplyEnd { turn, action: Action::None };
        let Some(index) = found else {
            self.origins.made_up += 1;
            return vec![(question.at + USUAL, end)];
        };
        let mut plan = self.repeat(index, question);
        self.count(index, question);
        if !self.asked[index].whole {
            plan.push((plan.last().map_or(question.at + USUAL, |(at, _)| *at), end));
        }
        plan
    }

    fn speech(&mut self, question: &Question, segment: u64) -> Plan {
        let same_text = |asked: &Asked| {
            matches!(asked.question.job, JobWord::Say(_)) && asked.question.text == question.text
        };
        let found = self
            .nearest(question.at, |asked| same_text(asked) && asked.question.job == question.job)
            .or_else(|| self.nearest(question.at, |asked| same_text(asked) && asked.whole))
            .or_else(|| self.nearest(question.at, |asked| same_text(asked) && !asked.answers.is_empty()));
        let mut plan = found.map_or_else(Vec::new, |index| self.repeat(index, question));
        match found {
            Some(index) => self.count(index, question),
            None => self.origins.made_up += 1,
        }
        if !found.is_some_and(|index| self.asked[index].whole) {
            let there = plan.iter().map(|(_, input)| match input {
                Input::Speech { audio, .. } => audio.len(),
                _ => 0,
            });
            let whole = (question.text.chars().count() * BYTES_PER_CHAR).clamp(FRAME_BYTES, LONGEST_HUM);
            let left = whole.saturating_sub(there.sum());
            let at = plan.last().map_or(question.at + self.voice, |(at, _)| *at);
            if left > 0 {
                let audio = HUM.iter().copied().cycle().take(left).collect();
                plan.push((at, Input::Speech { segment, audio }));
            }
            plan.push((at, Input::SpeechEnd { segment }));
        }
        plan
    }

    fn count(&mut self, index: usize, question: &Question) {
        let asked = &self.asked[index];
        if !asked.whole {
            self.origins.made_up += 1;
        } else if asked.question.job == question.job && asked.question.text == question.text {
            self.origins.same += 1;
        } else {
            self.origins.moved += 1;
        }
    }

    /// The answers to a question of the tape, as answers to this one.
    fn repeat(&self, index: usize, question: &Question) -> Plan {
        let asked = &self.asked[index];
        let answer = |i: &usize| {
            let at = question.at + self.delay(asked, *i);
            Some((at, renumbered(self.entries[*i].1.answer()?, question.job)))
        };
        asked.answers.iter().filter_map(answer).collect()
    }
}

fn renumbered(input: Input<'static>, job: JobWord) -> Input<'static> {
    match (input, job) {
        (Input::Transcript { text, .. }, JobWord::Transcribe(utterance)) => {
            Input::Transcript { utterance, text }
        }
        (Input::ReplyText { text, .. }, JobWord::Ask(turn)) => Input::ReplyText { turn, text },
        (Input::ReplyEnd { action, .. }, JobWord::Ask(turn)) => Input::ReplyEnd { turn, action },
        (Input::Speech { audio, .. }, JobWord::Say(segment)) => {
            Input::Speech { segment, audio: Bytes::clone(&audio) }
        }
        (Input::SpeechEnd { .. }, JobWord::Say(segment)) => Input::SpeechEnd { segment },
        (Input::Failed { failure, .. }, job) => Input::Failed { job: Job::from(job), failure },
        (input, _) => input,
    }
}

/// Finds the questions among what a call does.
#[derive(Default)]
pub(super) struct Questions {
    /// Up to when a streaming recogniser has said everything.
    told_until: CallTime,
}

impl Questions {
    pub(super) fn of(&mut self, entry: &Entry<'_>, at: CallTime) -> Option<Question> {
        let question = |job, text: &str, from| Some(Question { job, at, text: text.to_owned(), from });
        match entry {
            Entry::Transcribe { utterance, bytes } => {
                let length = Duration::from_millis(bytes / BYTES_PER_MS as u64);
                let from = at - length + PREROLL.min(length);
                question(JobWord::Transcribe(*utterance), "", from)
            }
            Entry::Finalize { utterance } => {
                let from = std::mem::replace(&mut self.told_until, at);
                question(JobWord::Transcribe(*utterance), "", from)
            }
            Entry::Forget => {
                self.told_until = at;
                None
            }
            Entry::Ask { turn, text } => question(JobWord::Ask(*turn), text, at),
            Entry::Say { segment, text } => question(JobWord::Say(*segment), text, at),
            Entry::Control { number, what } => question(JobWord::Control(*number), what, at),
            _ => None,
        }
    }
}
