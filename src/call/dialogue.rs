//! The dialogue of a call: what is asked of which service, what becomes of the answers, and what
//! the caller hears when there is none.

use std::time::Duration;

use bytes::Bytes;

use super::pacer::Mark;
use super::reply::Reply;
use super::{
    Action, Asked, Call, Event, Failure, FailureKind, Hearing, Job, Mode, Output, Phrase, Previous, Question,
    ReplyHeard, Service, Thinking, TurnResult,
};
use crate::audio::{BYTES_PER_MS, FRAME_BYTES};
use crate::time::CallTime;
use crate::turn::{Ended, State, Why, normalised};

/// An utterance with less voice than this (200 ms) is no new speech if its text repeats the last.
const NEW_SPEECH_FRAMES: u32 = 10;
/// Silence kept behind an utterance that is echoed.
const ECHO_TAIL: usize = 100 * BYTES_PER_MS;

impl Call {
    pub(super) fn greet(&mut self, now: CallTime) {
        let Some(greeting) = self.settings.greeting.clone() else { return };
        self.think(Why::Greeting, nobodys_turn(now));
        self.say_phrase(&greeting, Action::None, now);
    }

    /// Says something fixed that answers nobody.
    pub(super) fn say_phrase(&mut self, phrase: &Phrase, action: Action, now: CallTime) {
        self.reply = Some(Reply::new(0));
        if phrase.audio.is_empty() {
            self.reply_text_came(&phrase.text, now);
        } else {
            self.speak_phrase(phrase, now);
        }
        self.reply_complete(action, now);
    }

    pub(super) fn think(&mut self, why: Why, thinking: Thinking) {
        self.be_quiet(thinking.since);
        self.thinking = thinking;
        let transition = self.machine.think(why);
        self.moved(transition);
    }

    // ---- the caller's turn ------------------------------------------------------------------------

    pub(super) fn answer_utterance(&mut self, ended: Ended, now: CallTime) {
        // What was asked early has its number.
        self.turns += u64::from(self.early.is_none());
        let thinking = Thinking {
            speech_end: Some(now - ended.silence),
            since: now,
            voiced_frames: ended.voiced_frames,
            filled: false,
        };
        self.think(Why::EndOfUtterance, thinking);
        match self.settings.mode {
            Mode::Echo => self.echo(ended.silence, now),
            Mode::Dialogue => self.transcribe(now),
        }
    }

    fn transcribe(&mut self, now: CallTime) {
        self.utterances += 1;
        self.transcribing = Some(Asked { number: self.utterances, at: now });
        let utterance = self.utterances;
        self.outputs.push_back(match self.settings.hearing {
            Hearing::Utterances => Output::Transcribe { utterance, audio: self.recording.turn().to_vec() },
            Hearing::Stream => Output::Finalize { utterance },
        });
    }

    fn echo(&mut self, silence: Duration, now: CallTime) {
        let turn = self.recording.turn();
        let tail = (silence.as_millis() as usize * BYTES_PER_MS).saturating_sub(ECHO_TAIL);
        let audio = Bytes::copy_from_slice(&turn[..turn.len().saturating_sub(tail)]);
        self.reply = Some(Reply::new(self.turns));
        self.speak_phrase(&Phrase { text: String::new(), audio }, now);
        self.reply_complete(Action::None, now);
    }

    pub(super) fn answer_digits(&mut self, digits: String, now: CallTime) {
        self.drop_early();
        // Keys are pressed on purpose: what the line sounds like meanwhile is dropped.
        self.ear.end();
        self.recording.answered(false);
        if self.settings.hearing == Hearing::Stream {
            self.outputs.push_back(Output::Forget);
            self.unanswered.clear();
        }
        self.turns += 1;
        self.think(Why::Digits, Thinking { speech_end: None, since: now, voiced_frames: 0, filled: false });
        self.ask(digits.clone(), Some(digits), now);
    }

    /// The recogniser takes the caller to have finished; our own detector would have waited for more
    /// silence. Most know that by the silence alone: words that something has to follow are waited for.
    pub(super) fn speech_final(&mut self, now: CallTime) {
        if self.state() == State::Listening && !self.endpoint.expects_more() {
            let heard = self.ear.end();
            self.heard(heard, now);
        }
    }

    pub(super) fn transcript(&mut self, utterance: u64, text: String, now: CallTime) {
        let Some(asked) = self.transcribing.take_if(|asked| asked.number == utterance) else {
            return self.late_transcript(text);
        };
        self.partial_text.clear();
        let text = match self.settings.hearing {
            Hearing::Utterances => text.trim().to_owned(),
            Hearing::Stream => self.with_unanswered(&text),
        };
        self.tell(Event::SttFinal { text: text.clone(), took: now.since(asked.at) });
        if text.is_empty() {
            return self.nothing_said(now);
        }
        if self.is_echo(&text) {
            self.tell(Event::OwnWords { text });
            return self.nothing_said(now);
        }
        if self.repeats_the_last(&text, now) {
            self.tell(Event::Duplicate { text });
            return self.nothing_said(now);
        }
        if !self.was_asked_early(&text, now) {
            self.ask(text, None, now);
        }
    }

    /// A recogniser says a text twice when a noise follows it. A caller who says "yes" twice has
    /// spoken twice, and is answered twice.
    fn repeats_the_last(&mut self, text: &str, now: CallTime) -> bool {
        let normal = normalised(text);
        let new_speech = self.thinking.voiced_frames >= NEW_SPEECH_FRAMES;
        let repeats = self
            .last_final
            .as_ref()
            .is_some_and(|(last, at)| *last == normal && now.since(*at) < self.settings.dedup_window);
        self.last_final = Some((normal, now));
        repeats && !new_speech
    }

    fn ask(&mut self, text: String, dtmf: Option<String>, now: CallTime) {
        self.digits.give_up();
        self.reply = Some(Reply::new(self.turns));
        self.asking = Some(Asked { number: self.turns, at: now });
        let words = dtmf.is_none() && self.settings.hearing == Hearing::Stream;
        self.asked_text = words.then(|| text.clone());
        (self.asked_keys, self.unanswered_keys) = (dtmf.clone(), None);
        let from = self.thinking.speech_end.unwrap_or(self.thinking.since);
        let left = self.settings.reply_deadline.saturating_sub(now.since(from));
        self.put(text, dtmf, left);
    }

    /// Puts a question to the agent, who has so long for it.
    pub(super) fn put(&mut self, text: String, dtmf: Option<String>, left: Duration) {
        let Previous { heard, interrupted } = self.previous.clone();
        self.outputs.push_back(Output::Ask(Question {
            turn: self.turns,
            text,
            dtmf,
            interrupted,
            heard,
            action_failed: self.failed_action,
            deadline_ms: left.as_millis() as u64,
        }));
    }

    /// Whether the caller's wait may still be filled.
    pub(super) fn may_fill(&self) -> bool {
        !self.thinking.filled && self.pacer.is_empty() && !self.settings.filler.audio.is_empty()
    }

    /// The reply's first frame is here.
    pub(super) fn reply_is_queued(&self) -> bool {
        self.pacer.pushed() >= self.filler_end.max(self.pacer.sent()) + FRAME_BYTES as u64
    }

    /// Tells the caller that something is being done. It is no reply: the turn is still THINKING, and
    /// a caller who goes on now goes on with the same turn.
    pub(super) fn fill(&mut self) {
        self.thinking.filled = true;
        self.pacer.push(&self.settings.filler.audio);
        self.pacer.pad();
        self.filler_end = self.pacer.pushed();
    }

    // ---- the agent's reply ------------------------------------------------------------------------

    pub(super) fn reply_text(&mut self, turn: u64, text: &str, now: CallTime) {
        if let Some(asked) = self.asking.filter(|asked| asked.number == turn) {
            if !text.trim().is_empty() && self.reply.as_ref().is_some_and(|reply| !reply.has_text()) {
                self.tell(Event::AgentFirstText { took: now.since(asked.at) });
            }
            self.reply_text_came(text, now);
        } else if self.early_text(turn, text) {
            // Kept until the caller has certainly finished.
        } else if turn == 0 {
            self.unasked_text(text, now);
        }
    }

    pub(super) fn reply_end(&mut self, turn: u64, action: Action, now: CallTime) {
        if self.early_end(turn, &action) {
            return;
        }
        if self.asking.take_if(|asked| asked.number == turn).is_some() {
            self.reply_complete(action, now);
        } else if turn == 0 {
            self.unasked_end(action, now);
        }
    }

    pub(super) fn reply_text_came(&mut self, text: &str, now: CallTime) {
        let Some(reply) = &mut self.reply else { return };
        if !text.trim().is_empty() {
            reply.first_text_at.get_or_insert(now);
        }
        reply.push_text(text);
        self.say_next(now);
    }

    pub(super) fn reply_complete(&mut self, action: Action, now: CallTime) {
        if let Some(reply) = &mut self.reply {
            reply.end_text(action);
            self.say_next(now);
        }
    }

    /// Gives the next sentence a voice, or ends the reply if there is none left.
    fn say_next(&mut self, now: CallTime) {
        let Some(reply) = &mut self.reply else { return };
        if let Some(text) = reply.next_sentence() {
            self.segments += 1;
            reply.say(self.segments, text.clone(), self.pacer.pushed(), now);
            self.outputs.push_back(Output::Say { segment: self.segments, text });
        } else if reply.is_complete() && reply.is_empty() {
            self.nothing_to_play(now);
        } else if reply.is_complete() && !reply.end_marked {
            reply.end_marked = true;
            self.pacer.mark(Mark::End);
        }
    }

    pub(super) fn speech(&mut self, id: u64, audio: &[u8], now: CallTime) {
        let position = self.pacer.pushed();
        let Some(reply) = &mut self.reply else { return };
        let Some(segment) = reply.speech(id, audio, position) else { return };
        if segment.bytes == audio.len() as u64 && !audio.is_empty() {
            let took = now.since(segment.asked_at);
            self.tell(Event::TtsFirstAudio { took });
        }
        if self.state() == State::Thinking && self.pacer.is_empty() {
            self.first_audio_at = now;
        }
        self.pacer.push(audio);
    }

    pub(super) fn speech_end(&mut self, id: u64, now: CallTime) {
        if !self.is_saying(id) {
            return;
        }
        let begun = self.pacer.pushed();
        self.pacer.pad();
        let position = self.pacer.pushed();
        let Some(segment) = self.reply.as_mut().and_then(|reply| reply.end_segment(position)) else { return };
        self.tell(Event::TtsLen { ms: segment.bytes / BYTES_PER_MS as u64 });
        if !segment.loud {
            if let Some(reply) = &mut self.reply {
                reply.take_back();
            }
            self.pacer.truncate(begun.saturating_sub(segment.bytes));
            let why = "the audio is nothing but silence";
            return self.service_failed(Service::Tts, FailureKind::Protocol, why.to_owned(), now);
        }
        self.pacer.mark(Mark::Segment(id));
        self.say_next(now);
    }

    fn is_saying(&self, segment: u64) -> bool {
        self.reply.as_ref().and_then(|reply| reply.saying.as_ref()).is_some_and(|saying| saying.id == segment)
    }

    /// Queues a phrase whose voice is known.
    pub(super) fn speak_phrase(&mut self, phrase: &Phrase, now: CallTime) {
        self.first_audio_at = now;
        let from = self.pacer.pushed();
        self.pacer.push(&phrase.audio);
        self.pacer.pad();
        self.segments += 1;
        if let Some(reply) = &mut self.reply {
            reply.add_spoken(self.segments, phrase.text.clone(), from, self.pacer.pushed());
        }
        self.pacer.mark(Mark::Segment(self.segments));
    }

    // ---- when something fails ---------------------------------------------------------------------

    pub(super) fn job_failed(&mut self, job: Job, failure: Failure, now: CallTime) {
        if let Job::Control { number } = job {
            return self.control_failed(number, failure, now);
        }
        if job == (Job::Ask { turn: 0 }) {
            self.unasked.forget_cut();
        }
        if self.early_failed(job) {
            return self.tell(Event::UpstreamFailed { service: job.service(), failure });
        }
        let current = match job {
            Job::Transcribe { utterance } => self.transcribing.take_if(|a| a.number == utterance).is_some(),
            Job::Ask { turn } => self.asking.take_if(|a| a.number == turn).is_some(),
            Job::Say { segment } => self.is_saying(segment),
            Job::Control { .. } => false,
        };
        if current {
            self.tell(Event::UpstreamFailed { service: job.service(), failure });
            match job {
                Job::Transcribe { .. } if self.unanswered_keys.is_some() => self.nothing_said(now),
                _ => self.apologise(now),
            }
        }
    }

    /// Nothing could be heard in time, or nothing more came.
    pub(super) fn reply_overdue(&mut self, now: CallTime) {
        let saying = self.reply.as_ref().is_some_and(|reply| reply.saying.is_some());
        let service = match (self.transcribing, self.asking) {
            (Some(_), _) => Service::Stt,
            (None, Some(_)) if !saying => Service::Agent,
            (None, _) => Service::Tts,
        };
        let why = format!("nothing to play within {} ms", self.settings.reply_deadline.as_millis());
        self.service_failed(service, FailureKind::Timeout, why, now);
    }

    fn service_failed(&mut self, service: Service, kind: FailureKind, why: String, now: CallTime) {
        let failure = Failure { upstream: String::new(), kind, why };
        self.tell(Event::UpstreamFailed { service, failure });
        self.apologise(now);
    }

    fn apologise(&mut self, now: CallTime) {
        self.cancel_jobs();
        let settings = self.settings.clone();
        self.pacer.pad();
        let position = self.pacer.pushed();
        let turn = self.turns;
        let reply = self.reply.get_or_insert_with(|| Reply::new(turn));
        let again = reply.failed;
        reply.give_up(position);
        if !again && !settings.apology.audio.is_empty() {
            self.speak_phrase(&settings.apology, now);
        }
        self.say_next(now);
    }

    /// The longest time for a reply is over.
    pub(super) fn cut_reply(&mut self, now: CallTime) {
        self.cancel_jobs();
        self.tell_heard(false, now);
        self.clear(now);
        self.turn_ended(TurnResult::Failed);
        self.back_to_listening(Why::Failed, now);
    }

    pub(super) fn cancel_jobs(&mut self) {
        self.drop_early();
        if self.asking.is_some_and(|asked| asked.number == 0) {
            self.unasked.cut();
        }
        let jobs = [
            self.transcribing.take().map(|a| Job::Transcribe { utterance: a.number }),
            self.asking.take().map(|a| Job::Ask { turn: a.number }),
            self.reply.as_ref().and_then(|r| r.saying.as_ref()).map(|s| Job::Say { segment: s.id }),
        ];
        self.outputs.extend(jobs.into_iter().flatten().map(Output::Cancel));
    }

    // ---- back to LISTENING ------------------------------------------------------------------------

    fn nothing_said(&mut self, now: CallTime) {
        let early = self.early.is_some();
        self.drop_early();
        if let Some((turn, keys)) = self.unanswered_keys.take() {
            self.turns += u64::from(early);
            self.is_asked_again(turn, Duration::ZERO);
            return self.ask(keys.clone(), Some(keys), now);
        }
        self.recording.answered(self.ear.hears_speech());
        self.turn_ended(TurnResult::Empty);
        self.back_to_listening(Why::NothingSaid, now);
    }

    /// A reply without a word.
    fn nothing_to_play(&mut self, now: CallTime) {
        let Some(reply) = &mut self.reply else { return };
        let action = std::mem::take(&mut reply.action);
        let failed = reply.failed;
        self.recording.answered(self.ear.hears_speech());
        self.asked_is_answered();
        let (result, why) = match failed {
            true => (TurnResult::Failed, Why::Failed),
            false if self.leads_away(&action) => (TurnResult::Answered, Why::EmptyReply),
            false => (TurnResult::Empty, Why::EmptyReply),
        };
        self.turn_ended(result);
        if !self.act(action, now) {
            self.back_to_listening(why, now);
        }
    }

    /// The carrier has played the whole reply.
    pub(super) fn played(&mut self, now: CallTime) {
        let Some(reply) = &mut self.reply else { return };
        let action = std::mem::take(&mut reply.action);
        let failed = reply.failed;
        let (turn, heard) = (reply.turn, reply.heard(u64::MAX));
        let after = now.since(self.speaking_since);
        let told = ReplyHeard { turn, text: heard.clone(), after, ..ReplyHeard::default() };
        self.outputs.push_back(Output::Heard(told));
        self.previous = Previous { heard, interrupted: false };
        self.turn_ended(if failed { TurnResult::Failed } else { TurnResult::Answered });
        self.tell_spurt();
        if !self.act(action, now) {
            self.back_to_listening(Why::Played, now);
        }
    }

    /// Tells what the caller has heard up to now of a reply that is cut short, and answers with it.
    pub(super) fn tell_heard(&mut self, interrupted: bool, now: CallTime) -> String {
        let Some(reply) = &self.reply else { return String::new() };
        let text = reply.heard(self.pacer.heard(now));
        let after = now.since(self.speaking_since);
        let told =
            ReplyHeard { turn: reply.turn, text: text.clone(), interrupted, after, ..ReplyHeard::default() };
        self.outputs.push_back(Output::Heard(told));
        text
    }

    pub(super) fn barge_in(&mut self, reaction: Duration, now: CallTime) {
        self.settle_turn();
        self.cancel_jobs();
        let heard = self.tell_heard(true, now);
        self.keep_own_words(Why::BargeIn, now);
        self.unasked.drop_text();
        let cleared = self.clear(now);
        self.tell(Event::BargeIn { reaction, cleared, heard: heard.clone() });
        self.turn_ended(TurnResult::Interrupted);
        self.previous = Previous { heard, interrupted: true };
        self.back_to_listening(Why::BargeIn, now);
    }

    /// Ends what a filler still has to say.
    pub(super) fn be_quiet(&mut self, now: CallTime) {
        if self.pacer.heard(now) < self.filler_end {
            self.clear(now);
            self.tell_spurt();
        }
    }

    /// Has the carrier forget what it has not played. Marks that come back from now on are stale.
    pub(super) fn clear(&mut self, now: CallTime) -> Duration {
        let unheard = self.pacer.clear(now);
        self.playback.clear(now);
        self.filler_end = 0;
        // A bot that is held has been cleared.
        if !self.hold.release() {
            self.outputs.push_back(Output::Clear);
        }
        self.epoch += 1;
        unheard
    }

    pub(super) fn turn_ended(&mut self, result: TurnResult) {
        // The greeting is nobody's turn.
        let turn = self.reply.as_ref().map_or(self.turns, |reply| reply.turn);
        if turn > 0 {
            self.tell(Event::TurnEnded { turn, result });
        }
    }

    pub(super) fn back_to_listening(&mut self, why: Why, now: CallTime) {
        self.settle_turn();
        self.tell_spurt();
        if why != Why::BargeIn {
            self.keep_own_words(why, now);
        }
        self.idle.listening(why, now);
        self.unanswered_keys = None;
        self.reply = None;
        self.interruption.forget();
        self.hold.forget();
        let transition = self.machine.listen(why);
        self.moved(transition);
        if self.state() != State::Listening {
            return;
        }
        let waited = why != Why::BargeIn && self.recording.take_queued();
        if waited && !self.ear.hears_speech() {
            let ended = Ended { speech: Duration::ZERO, silence: Duration::ZERO, voiced_frames: u32::MAX };
            self.answer_utterance(ended, now);
        } else {
            self.take_digits(now);
        }
        self.say_unasked(now);
    }
}

/// Of a reply that answers nobody. Silence before it is not filled.
pub(super) fn nobodys_turn(now: CallTime) -> Thinking {
    Thinking { speech_end: None, since: now, voiced_frames: 0, filled: true }
}
