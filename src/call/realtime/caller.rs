//! The caller's side of a call that a model conducts: what is heard of the caller, by whichever ear,
//! keys, and interruptions.

use std::time::Duration;

use super::super::event::{Event, TurnResult};
use super::model::{Request, Role};
use super::reply::Reply;
use super::{Action, Ears, Realtime};
use crate::audio::{Frame, level};
use crate::time::{CallTime, FRAME};
use crate::turn::{Ended, Heard, Measured, State, Why, decibels};

impl Realtime {
    pub(super) fn media(
        &mut self,
        payload: &[u8],
        timestamp_ms: Option<u64>,
        before: &[Measured],
        now: CallTime,
    ) {
        if let Some(after) = self.line.alive(now) {
            self.tell(Event::MediaResumed { after });
        }
        let mut before = before.iter().copied();
        let (lost, fill) = self.line.takes(payload, timestamp_ms);
        for mut audio in [fill, payload] {
            while let Some(frame) = self.line.next(&mut audio) {
                self.frame(&frame, before.next(), now);
            }
        }
        if let Some(ms) = lost {
            self.tell(Event::MediaGap { ms });
        }
    }

    fn frame(&mut self, frame: &Frame, before: Option<Measured>, now: CallTime) {
        let loud = self.settings.vad_rms;
        let front = self.front.as_mut();
        let measured = before.or_else(|| Some(front?.hear(frame, self.levels.level_db(now))));
        self.measured.extend(measured);
        let (voiced, interrupts) = match measured {
            Some(measured) => (measured.is_turn(), measured.interrupts(decibels(loud))),
            None => (level::rms(&frame.0) >= loud, false),
        };
        if voiced {
            self.last_voiced = now;
        }
        match self.manner.ears {
            Ears::Models => self.hear(&frame.0),
            Ears::Ours => {
                self.recording.push(&frame.0);
                if self.listening {
                    self.hear(&frame.0);
                }
            }
        }
        let heard = self.ear.hear(voiced);
        self.heard(heard, now);
        if self.manner.ears == Ears::Models {
            return;
        }
        let may_interrupt = match self.state() {
            State::Thinking => true,
            State::Speaking => self.manner.interrupts,
            State::Listening | State::Ended => false,
        };
        if !may_interrupt {
            self.interruption.forget();
        } else if let Some(ago) = self.interruption.hear(interrupts)
            // Of a voice that begins no utterance nothing would come that could be answered.
            && self.listening
        {
            match self.state() {
                State::Thinking => self.caller_went_on(now),
                State::Listening | State::Speaking | State::Ended => self.barge_in(ago, now),
            }
        }
    }

    /// What our own ear notices. Where the model's counts, ours only measures.
    pub(super) fn heard(&mut self, heard: Heard, now: CallTime) {
        match heard {
            Heard::Same => {}
            Heard::Started { frames_ago } => {
                self.voice_since = now - FRAME * frames_ago.saturating_sub(1);
                if self.manner.ears == Ears::Ours {
                    self.listening = true;
                    let begun = self.recording.turn().to_vec();
                    self.hear(&begun);
                    self.tell(Event::UtteranceStarted);
                }
            }
            Heard::Ended(ended) => {
                if std::mem::take(&mut self.listening) {
                    self.utterance_ended(ended, now);
                }
            }
        }
    }

    fn utterance_ended(&mut self, ended: Ended, now: CallTime) {
        match self.state() {
            State::Listening => {
                self.tell(Event::UtteranceEnded { speech: ended.speech, endpoint: ended.silence });
                self.commit();
                self.answer_utterance(Some(now - ended.silence), now);
            }
            State::Speaking if !self.manner.interrupts => self.waiting = true,
            // Too short to have interrupted.
            State::Thinking | State::Speaking => self.forget_utterance(),
            State::Ended => {}
        }
    }

    fn answer_utterance(&mut self, speech_end: Option<CallTime>, now: CallTime) {
        self.begin_turn(Why::EndOfUtterance, speech_end, now);
        self.wanted = Some(None);
        self.respond_if_wanted(now);
    }

    pub(super) fn begin_turn(&mut self, why: Why, speech_end: Option<CallTime>, now: CallTime) {
        self.turns += 1;
        self.finished_at = now;
        self.waited_from = speech_end.unwrap_or(now);
        self.reply = Some(Reply::new(self.turns, speech_end, now));
        let transition = self.machine.think(why);
        self.moved(transition);
    }

    // ---- what the model's ear notices -------------------------------------------------------------

    pub(super) fn speech_started(&mut self, now: CallTime) {
        if self.manner.ears == Ears::Ours {
            return;
        }
        match self.state() {
            State::Listening => self.tell(Event::UtteranceStarted),
            State::Thinking if self.manner.interrupts => self.caller_went_on(now),
            State::Speaking if self.manner.interrupts => {
                let reaction = now.since(self.voice_since);
                self.barge_in(if self.ear.hears_speech() { reaction } else { Duration::ZERO }, now);
            }
            State::Thinking | State::Speaking | State::Ended => {}
        }
    }

    pub(super) fn speech_stopped(&mut self, now: CallTime) {
        if self.manner.ears == Ears::Models && self.state() == State::Listening {
            let speech_end = self.last_voiced.min(now);
            let speech = speech_end.since(self.voice_since.min(speech_end));
            self.tell(Event::UtteranceEnded { speech, endpoint: now.since(speech_end) });
            self.begin_turn(Why::EndOfUtterance, Some(speech_end), now);
            // The caller has waited since then, but it is the model that let the time pass.
            self.waited_from = now;
        }
    }

    // ---- keys -------------------------------------------------------------------------------------

    pub(super) fn key(&mut self, key: char, now: CallTime) {
        self.tell(Event::Dtmf { digit: key });
        self.digits.press(key, now);
        if self.state() == State::Speaking && self.manner.interrupts {
            // The model has not heard it.
            self.barge_in_untold(Duration::ZERO, now);
        }
        self.take_digits(now);
    }

    pub(super) fn digits_due(&self) -> Option<CallTime> {
        self.digits.due().filter(|_| self.state() == State::Listening && self.link.is_up())
    }

    pub(super) fn take_digits(&mut self, now: CallTime) {
        if self.digits_due().is_none() {
            return;
        }
        let Some(digits) = self.digits.take(now) else { return };
        let text = format!("(The caller presses these keys on the telephone: {digits})");
        self.history.push(Role::Caller, &text);
        self.request(Request::Remember { role: Role::Caller, text });
        self.begin_turn(Why::Digits, None, now);
        self.wanted = Some(None);
        self.respond_if_wanted(now);
    }

    // ---- interruptions ----------------------------------------------------------------------------

    /// The caller goes on before anything of the reply was heard.
    fn caller_went_on(&mut self, now: CallTime) {
        self.drop_response(self.manner.ears == Ears::Models, now);
        let cuts = self.playback.cuts(self.pacer.heard(now));
        self.truncate(cuts);
        // A few bytes of speech may wait that were too short for a frame.
        self.pacer.truncate(0);
        self.playback.forget();
        self.reply = None;
        self.action = Action::None;
        let transition = self.machine.listen(Why::CallerWentOn);
        self.moved(transition);
    }

    fn barge_in(&mut self, reaction: Duration, now: CallTime) {
        self.drop_response(self.manner.ears == Ears::Models, now);
        self.silence(reaction, now);
    }

    /// The same, where the model's own ear cannot have noticed.
    fn barge_in_untold(&mut self, reaction: Duration, now: CallTime) {
        self.drop_response(false, now);
        self.silence(reaction, now);
    }

    fn silence(&mut self, reaction: Duration, now: CallTime) {
        let position = self.pacer.heard(now);
        let heard = self.playback.heard(position);
        let cuts = self.playback.cuts(position);
        let cleared = self.clear(now);
        self.truncate(cuts);
        self.history.push(Role::Model, &heard);
        self.tell(Event::BargeIn { reaction, cleared, heard });
        self.turn_ended(TurnResult::Interrupted);
        if self.is_gone() {
            // It was the last thing to be said.
            return self.let_go();
        }
        self.action = Action::None;
        self.back_to_listening(Why::BargeIn, now);
    }

    /// Utterances that waited for the bot to finish.
    pub(super) fn answer_waiting(&mut self, now: CallTime) {
        if std::mem::take(&mut self.waiting) && !self.listening {
            self.commit();
            self.answer_utterance(None, now);
        }
    }
}
