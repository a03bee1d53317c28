//! The bot, spoken to while it speaks. It falls silent as soon as somebody may be speaking, and keeps
//! what was not heard. Words, or enough of a voice, make that an interruption; quiet, or no more than
//! an "uh huh", and the bot goes on where it stopped: no word is lost, and none is said twice.

use std::time::Duration;

use super::merge::Collision;
use super::{Call, Event, Hearing, Output};
use crate::audio::BYTES_PER_MS;
use crate::time::CallTime;
use crate::turn::{Ended, Evidence, Measured, Said, State};

/// Frames without speech after which the caller has nothing to say: 440 ms. A noise that is just too
/// short to interrupt lasts some 300 ms longer than the hold, and the bot is to go on within 700.
const QUIET_FRAMES: u32 = 22;
/// Less will do where the words are known, and only say "go on": 200 ms.
const GO_ON_FRAMES: u32 = 10;
/// A voice whose words a recogniser should have told by now: 400 ms after it, or so long after the hold.
const WORDLESS_FRAMES: u32 = 20;
const WORDLESS: Duration = Duration::from_millis(1_000);
/// The bot is silent for no longer than this before it is decided.
const LONGEST: Duration = Duration::from_millis(1_500);
/// Who speaks when so little of the reply is left has heard it, and answers: the bot ends its sentence.
const LAST_WORDS: Duration = Duration::from_millis(400);
/// The same, of when the caller began: to be noticed took some of it.
const BEFORE_THE_END: Duration = Duration::from_millis(600);
/// Who interrupts so soon had not finished speaking: the bot collided with the caller.
const COLLISION: Duration = Duration::from_millis(600);

/// What speaks against the bot going on.
#[derive(Debug, Default)]
pub(super) struct Hold {
    evidence: Evidence,
    /// The same, of what is as loud as the bot's echo may be.
    echo: Evidence,
    /// What was not let through has been told.
    told: bool,
    held: Option<Held>,
}

/// The bot is silent for now.
#[derive(Debug)]
struct Held {
    at: CallTime,
    /// When the caller began.
    began: CallTime,
    /// Frames without speech up to now.
    quiet: u32,
    /// There was enough of a voice to end the bot's turn.
    voiced: bool,
    said: Said,
    /// The bot had just asked something: an "uh huh" is an answer.
    asked: bool,
    /// The caller has finished meanwhile.
    ended: Option<Ended>,
}

impl Hold {
    pub(super) fn forget(&mut self) {
        *self = Hold::default();
    }

    /// Gives the hold up; whether there was one.
    pub(super) fn release(&mut self) -> bool {
        self.held.take().is_some()
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// When who it is held for began, and since when it is held.
    pub(super) fn since(&self) -> Option<(CallTime, CallTime)> {
        self.held.as_ref().map(|held| (held.began, held.at))
    }

    /// By when it has to be decided.
    pub(super) fn deadline(&self) -> Option<CallTime> {
        self.held.as_ref().map(|held| held.at + LONGEST)
    }

    /// Takes note of an utterance that ended while the bot is held; whether it is.
    pub(super) fn utterance_ended(&mut self, ended: Ended) -> bool {
        self.held.as_mut().map(|held| held.ended = Some(ended)).is_some()
    }
}

impl Call {
    /// A frame of the caller's while the bot speaks.
    pub(super) fn heard_while_speaking(&mut self, measured: Measured, now: CallTime) {
        let least_db = self.least_db;
        let speech = measured.interrupts(least_db);
        self.hold.evidence.hear(speech, measured.interrupts_clearly(least_db));
        self.hold.echo.hear(!speech && measured.would_speak(least_db), false);
        if let Some(held) = &mut self.hold.held {
            held.quiet = if speech { 0 } else { held.quiet + 1 };
            return self.judge_hold(now);
        }
        let evident = self.hold.evidence.holds();
        match evident.filter(|_| self.settings.barge_in) {
            Some(ago) => self.hold_tongue(ago, now),
            None => self.tell_suppressed(evident.is_some()),
        }
        if self.settings.barge_in && !self.hold.is_held() && now.since(self.speaking_since) >= COLLISION {
            self.settle_turn();
        }
    }

    /// Something would have interrupted, were it not for the bot's echo or for `barge_in = false`.
    fn tell_suppressed(&mut self, by_setting: bool) {
        let suppressed = by_setting || self.hold.echo.holds().is_some();
        if suppressed && !self.hold.told {
            self.tell(Event::BargeInSuppressed { echo: !by_setting });
        }
        self.hold.told = suppressed;
    }

    fn hold_tongue(&mut self, ago: Duration, now: CallTime) {
        let unheard = self.pacer.unheard(now);
        let began_at = self.pacer.heard(now).saturating_sub(ago.as_millis() as u64 * BYTES_PER_MS as u64);
        let Some(reply) = &mut self.reply else { return };
        if unheard <= LAST_WORDS && reply.end_marked {
            return;
        }
        reply.end_sent = false;
        let asked = reply.has_just_asked(began_at);
        self.pacer.hold(now);
        self.playback.clear(now);
        self.first_mark_sent = None;
        self.outputs.push_back(Output::Clear);
        self.epoch += 1;
        let (began, said) = (now - ago, Said::Nothing);
        self.hold.held = Some(Held { at: now, began, quiet: 0, voiced: false, said, asked, ended: None });
        self.tell(Event::BargeInHeld { reaction: ago });
        self.tell_spurt();
    }

    /// What the caller has just said was said to the reply's last words: a "yes" then is an answer.
    pub(super) fn answers_the_end(&self) -> bool {
        self.settings.barge_in
            && self.pacer.is_empty()
            && self.reply.as_ref().is_some_and(|reply| reply.end_marked)
            && self.utterance_began + BEFORE_THE_END >= self.pacer.playout_end()
    }

    /// What a streaming recogniser takes the caller's words for.
    pub(super) fn partial(&mut self, text: String, now: CallTime) {
        let own = self.may_be_echo(&text, now);
        if let Some(held) = &mut self.hold.held {
            held.said = if own { Said::Nothing } else { self.settings.words.said(&text) };
        }
        self.endpoint.text(&self.settings.words, &text, now);
        self.partial_text.clone_from(&text);
        self.check_early();
        self.tell(Event::SttPartial { text });
        self.judge_hold(now);
    }

    /// The caller is in the middle of an utterance, or has finished one since the bot is held.
    fn is_spoken_to(&self) -> bool {
        self.ear.hears_speech() || self.hold.held.as_ref().is_some_and(|held| held.ended.is_some())
    }

    /// Decides, as far as it can be decided.
    pub(super) fn judge_hold(&mut self, now: CallTime) {
        // A voice that is no utterance of the caller's, like a television's, could not be answered.
        let confirms = self.hold.evidence.confirms() && self.is_spoken_to();
        let Some(held) = &mut self.hold.held else { return };
        held.voiced |= confirms;
        let goes_on = held.said == Said::Backchannel && !held.asked;
        let quiet = held.quiet >= if goes_on { GO_ON_FRAMES } else { QUIET_FRAMES };
        let interrupts = match held.said {
            Said::Interrupts => true,
            Said::Backchannel if goes_on => false,
            Said::Word | Said::Backchannel => quiet || confirms,
            // The bot is silent already, so that nothing is lost by waiting for the words.
            Said::Nothing if self.settings.hearing == Hearing::Stream => {
                let overdue = held.quiet >= WORDLESS_FRAMES || now.since(held.at) >= WORDLESS;
                held.voiced && overdue
            }
            Said::Nothing => confirms,
        };
        if interrupts {
            self.interrupted(now);
        } else if quiet || now.since(held.at) >= LONGEST {
            self.resume(now);
        }
    }

    pub(super) fn hold_overdue(&mut self, now: CallTime) {
        self.judge_hold(now);
        // The reply may have been waited for all the while.
        if !self.hold.is_held() && self.state_deadline().is_some_and(|at| at <= now) {
            self.state_overdue(now);
        }
    }

    fn interrupted(&mut self, now: CallTime) {
        let is_spoken_to = self.is_spoken_to();
        let Some(held) = &mut self.hold.held else { return };
        let (reaction, ended) = (held.at.since(held.began), held.ended.take());
        let collides = is_spoken_to && held.began < self.speaking_since + COLLISION;
        match self.unsettled.take_if(|_| collides) {
            Some(before) => self.collided(Collision { reaction, before }, now),
            None => self.barge_in(reaction, now),
        }
        // The caller has finished already.
        if let Some(ended) = ended
            && self.state() == State::Listening
            && !self.ear.hears_speech()
        {
            self.endpoint.ended(now);
            self.tell(Event::UtteranceEnded { speech: ended.speech, endpoint: ended.silence });
            self.answer_utterance(ended, now);
        }
    }

    /// Nobody wanted to interrupt: the bot goes on where it stopped.
    fn resume(&mut self, now: CallTime) {
        let Some(held) = self.hold.held.take() else { return };
        self.hold.forget();
        self.pacer.resume();
        self.tell(Event::BargeInResumed { after: now.since(held.at) });
        self.settle_turn();
        self.recording.answered(self.ear.hears_speech());
        if !self.ear.hears_speech() {
            self.forget_words();
        }
    }

    /// What was said is no turn: its words, which a streaming recogniser has told or will tell, are none of the next.
    pub(super) fn forget_words(&mut self) {
        if self.settings.hearing == Hearing::Stream {
            self.outputs.push_back(Output::Forget);
            self.endpoint.forget_text();
            self.partial_text.clear();
        }
    }

    /// The caller has heard enough of the reply for it to be one: what it answers is done with.
    pub(super) fn settle_turn(&mut self) {
        if self.unsettled.take().is_some() {
            self.recording.answered(self.ear.hears_speech());
            self.asked_is_answered();
        }
    }

    pub(super) fn asked_is_answered(&mut self) {
        (self.asked_text, self.asked_keys) = (None, None);
    }
}
