//! What holds for every call, whatever happens in it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::*;
use super::world::settings;
use crate::audio::FRAME_BYTES;
use crate::turn::Why;

/// Something that may happen; numbers are offsets from what the call last asked for, so that answers
/// are sometimes right, sometimes late, and sometimes never asked for.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Caller { frames: usize, voiced: bool },
    Odd { bytes: usize, timestamp: Option<u64> },
    Key(char),
    MarkBack { ago: usize },
    Transcript { off: u64, text: &'static str },
    Partial { text: &'static str },
    SpeechFinal,
    LastWords,
    ReplyText { off: u64, text: &'static str },
    Unasked { text: &'static str },
    UnaskedEnd(Action),
    ReplyEnd { off: u64, action: Action },
    Speech { off: u64, ms: usize },
    SpeechEnd { off: u64 },
    Controlled { off: u64 },
    Failed { which: usize, off: u64 },
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    let off = prop_oneof![6 => Just(0u64), 1 => 1u64..3];
    let text = prop_oneof![Just("hello there"), Just(""), Just("One. Two. Three"), Just("...")];
    let action = prop_oneof![
        8 => Just(Action::None),
        1 => Just(Action::Hangup),
        1 => Just(Action::Transfer { to: Destination::Number("+15550100".into()) }),
        1 => Just(Action::SendDigits { digits: Keys::parse("1w2").unwrap() }),
        1 => Just(Action::Gather(Gather::default()))
    ];
    prop_oneof![
        4 => (0u64..3000).prop_map(Step::Wait),
        6 => (1usize..60, any::<bool>()).prop_map(|(frames, voiced)| Step::Caller { frames, voiced }),
        1 => (0usize..700, prop::option::of(0u64..90_000))
            .prop_map(|(bytes, timestamp)| Step::Odd { bytes, timestamp }),
        1 => prop_oneof![Just('1'), Just('#')].prop_map(Step::Key),
        3 => (0usize..4).prop_map(|ago| Step::MarkBack { ago }),
        4 => (off.clone(), text.clone()).prop_map(|(off, text)| Step::Transcript { off, text }),
        1 => text.clone().prop_map(|text| Step::Unasked { text }),
        1 => action.clone().prop_map(Step::UnaskedEnd),
        4 => (off.clone(), text).prop_map(|(off, text)| Step::ReplyText { off, text }),
        3 => (off.clone(), action).prop_map(|(off, action)| Step::ReplyEnd { off, action }),
        6 => (off.clone(), 0usize..2000).prop_map(|(off, ms)| Step::Speech { off, ms }),
        4 => off.clone().prop_map(|off| Step::SpeechEnd { off }),
        2 => off.clone().prop_map(|off| Step::Controlled { off }),
        2 => (0usize..4, off).prop_map(|(which, off)| Step::Failed { which, off }),
        3 => prop_oneof![Just("uh huh"), Just("hello th"), Just("stop"), Just("")]
            .prop_map(|text| Step::Partial { text }),
        1 => Just(Step::SpeechFinal),
        1 => Just(Step::LastWords),
        1 => Just(Step::Stop),
    ]
}

/// Drives a call and checks, at every output, what must always hold.
struct Check {
    call: Call,
    now: CallTime,
    carrier_end: CallTime,
    /// The latest utterance, turn and segment that the call asked for.
    utterance: u64,
    turn: u64,
    segment: u64,
    /// What the carrier was asked for last, and when.
    control: Option<(u64, CallTime)>,
    /// Where it is exact: an echo is the caller's own audio, and with hardly any lead the clock that
    /// tells what was heard is not.
    telephone: Option<Telephone>,
    /// The bot is silent until it is known whether it was interrupted.
    held: bool,
    marks: Vec<String>,
    outputs: usize,
    ended: bool,
}

impl Check {
    fn new(settings: Settings) -> Check {
        let exact = settings.mode != Mode::Echo && settings.lead >= FRAME * 2;
        let telephone = exact.then(Telephone::default);
        let mut check = Check {
            call: Call::new(Arc::new(settings), CallTime::ZERO),
            now: CallTime::ZERO,
            carrier_end: CallTime::ZERO,
            utterance: 0,
            turn: 0,
            segment: 0,
            control: None,
            telephone,
            held: false,
            marks: Vec::new(),
            outputs: 0,
            ended: false,
        };
        check.drain();
        check
    }

    fn pass(&mut self, wait: Duration) {
        let until = self.now + wait;
        while let Some(at) = self.call.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.call.handle_timeout(self.now);
            self.drain();
            let again = self.call.poll_timeout();
            assert!(again.is_none_or(|next| next > self.now), "a deadline that does not pass: {again:?}");
        }
        self.now = until;
        if let Some(telephone) = &mut self.telephone {
            telephone.pass(self.now);
        }
    }

    fn give(&mut self, input: Input<'_>) {
        self.call.handle(input, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        let mut burst = 0;
        while let Some(output) = self.call.poll_output() {
            burst += 1;
            assert!(burst < 200, "outputs without end");
            assert!(!self.ended || matches!(output, Output::Hangup(_)), "{output:?} after the end");
            match output {
                Output::Play { frame, due } => {
                    assert!(due <= self.now);
                    assert!(!self.held, "a bot that is held speaks");
                    self.carrier_end = self.carrier_end.max(self.now) + FRAME;
                    assert!(self.carrier_end.since(self.now) <= self.call.settings.lead.max(FRAME));
                    if let Some(telephone) = &mut self.telephone {
                        telephone.plays(frame, self.now);
                    }
                }
                Output::Mark(name) => self.marks.push(name),
                Output::Clear => {
                    self.carrier_end = self.now;
                    if let Some(telephone) = &mut self.telephone {
                        telephone.clear(self.now);
                    }
                }
                Output::Event(Event::BargeInHeld { .. }) => self.held = true,
                Output::Event(Event::BargeInResumed { .. }) => self.held = false,
                Output::Event(Event::BargeIn { .. }) => self.held = false,
                Output::Event(Event::State(transition)) => {
                    self.held &= transition.to == State::Speaking;
                    // Behind a reply that was played, one without a word stops nothing: what was played may
                    // still be on its way to a carrier that says so too early.
                    let goes_on = transition.to != State::Listening
                        || matches!(transition.why, Why::Played | Why::EmptyReply);
                    if let Some(telephone) = self.telephone.as_mut().filter(|_| !goes_on) {
                        telephone.stopped(self.now);
                    }
                    if transition.to == State::Ended {
                        self.telephone = None;
                    }
                }
                Output::Transcribe { utterance, audio } => {
                    assert!(audio.len() <= 2 * 30_000 * BYTES_PER_MS);
                    self.utterance = utterance;
                }
                Output::Finalize { utterance } => self.utterance = utterance,
                Output::Forget | Output::Heard(_) => {}
                Output::Ask(question) => self.turn = question.turn,
                Output::Say { segment, .. } => {
                    assert_eq!(segment.checked_sub(1).map(|s| s >= self.segment), Some(true));
                    self.segment = segment;
                }
                Output::Control { number, .. } => {
                    assert!(self.call.settings.control.is_some());
                    assert_eq!(
                        number,
                        self.control.map_or(0, |(number, _)| number) + 1,
                        "one after the other"
                    );
                    self.control = Some((number, self.now));
                }
                Output::Cancel(_) => {}
                Output::Hangup(_) => self.ended = true,
                Output::Event(Event::Ended { .. }) => self.ended = true,
                Output::Event(_) => {}
            }
            self.outputs += 1;
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => self.pass(Duration::from_millis(ms)),
            Step::Caller { frames, voiced } => {
                for _ in 0..frames {
                    self.pass(FRAME);
                    let payload = [if voiced { 0x9F } else { 0xFF }; FRAME_BYTES];
                    self.give(Input::Media { payload: &payload, timestamp_ms: None });
                }
            }
            Step::Odd { bytes, timestamp } => {
                self.give(Input::Media { payload: &vec![0x9F; bytes], timestamp_ms: timestamp });
            }
            Step::Key(key) => self.give(Input::Dtmf(key)),
            Step::MarkBack { ago } => {
                if let Some(name) = self.marks.iter().rev().nth(ago).cloned() {
                    self.give(Input::Mark(&name));
                }
            }
            Step::Transcript { off, text } => {
                self.give(Input::Transcript { utterance: self.utterance + off, text: text.into() });
            }
            Step::Partial { text } => self.give(Input::Partial { text: text.into() }),
            Step::SpeechFinal => self.give(Input::SpeechFinal),
            Step::LastWords => self.give(Input::LastWords { text: "Goodbye.".into() }),
            Step::ReplyText { off, text } => {
                self.give(Input::ReplyText { turn: self.turn + off, text: text.into() });
            }
            Step::Unasked { text } => self.give(Input::ReplyText { turn: 0, text: text.into() }),
            Step::UnaskedEnd(action) => self.give(Input::ReplyEnd { turn: 0, action }),
            Step::ReplyEnd { off, action } => self.give(Input::ReplyEnd { turn: self.turn + off, action }),
            Step::Speech { off, ms } => {
                // Back-pressure is the shell's promise.
                if self.call.has_room() {
                    let segment = self.segment + off;
                    let new = Telephone::default();
                    let audio = self.telephone.as_ref().unwrap_or(&new).next_of(segment, ms);
                    let before = self.call.pacer.pushed();
                    let bytes = audio.len();
                    self.give(Input::Speech { segment, audio });
                    let taken = self.call.pacer.pushed() > before;
                    if let Some(telephone) = self.telephone.as_mut().filter(|_| taken) {
                        *telephone.given.entry(segment).or_default() += bytes;
                    }
                }
            }
            Step::SpeechEnd { off } => self.give(Input::SpeechEnd { segment: self.segment + off }),
            Step::Controlled { off } => {
                self.give(Input::Controlled { number: self.control.map_or(0, |(number, _)| number) + off });
            }
            Step::Failed { which, off } => {
                let control = self.control.map_or(0, |(number, _)| number) + off;
                let job = [
                    Job::Transcribe { utterance: self.utterance + off },
                    Job::Ask { turn: self.turn + off },
                    Job::Say { segment: self.segment + off },
                    Job::Control { number: control },
                ][which];
                let failure = Failure { upstream: "x".into(), kind: FailureKind::Connect, why: "x".into() };
                self.give(Input::Failed { job, failure });
            }
            Step::Stop => self.give(Input::Stop(StopReason::CallerHangup)),
        }
    }
}

/// What the caller's telephone has to play and has played, to the byte. A segment's audio is like no
/// other's, so that each byte tells whether it is the one to come.
#[derive(Default)]
struct Telephone {
    outstanding: VecDeque<(CallTime, Frame)>,
    end: CallTime,
    /// How much of each segment is to be heard.
    given: BTreeMap<u64, usize>,
    /// The segment that is being heard, and how much of it was.
    hears: (u64, usize),
}

impl Telephone {
    /// Loud, and neither silence nor a phrase.
    fn byte(segment: u64, at: usize) -> u8 {
        0x80 | ((segment << 32 | at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as u8
    }

    /// The next audio of a segment.
    fn next_of(&self, segment: u64, ms: usize) -> Bytes {
        let from = self.given.get(&segment).copied().unwrap_or_default();
        (from..from + ms * BYTES_PER_MS).map(|at| Self::byte(segment, at)).collect()
    }

    fn plays(&mut self, frame: Frame, now: CallTime) {
        self.end = self.end.max(now) + FRAME;
        self.outstanding.push_back((self.end, frame));
    }

    fn clear(&mut self, now: CallTime) {
        self.pass(now);
        self.outstanding.clear();
        self.end = now;
    }

    /// The bot was stopped: nothing more of what it had to say is to be heard, nor is any of it on its way.
    fn stopped(&mut self, now: CallTime) {
        self.pass(now);
        let voice = |(_, frame): &(CallTime, Frame)| frame.0.iter().any(|byte| *byte < 0xC0);
        assert!(!self.outstanding.iter().any(voice), "audio plays after the bot was stopped");
        let (segment, heard) = self.hears;
        self.given.retain(|other, _| *other < segment);
        self.given.insert(segment, heard);
    }

    fn pass(&mut self, now: CallTime) {
        while let Some((_, frame)) = self.outstanding.pop_front_if(|(end, _)| *end <= now) {
            frame.0.iter().filter(|byte| **byte < 0xC0).for_each(|byte| self.hear(*byte));
        }
    }

    /// Each byte is the next one of its segment, or the first of the next segment after the last of this.
    fn hear(&mut self, byte: u8) {
        let (segment, at) = self.hears;
        let given = self.given.get(&segment).copied().unwrap_or_default();
        if at == given {
            let next = self.given.range(segment + 1..).find(|(_, given)| **given > 0);
            self.hears = (next.map_or(u64::MAX, |(next, _)| *next), 0);
        }
        let (segment, at) = self.hears;
        assert_eq!(byte, Self::byte(segment, at), "byte {at} of segment {segment} was to be heard");
        self.hears.1 += 1;
    }

    fn all_heard(&self) -> bool {
        let (segment, at) = self.hears;
        let rest = self.given.range(segment..).map(|(_, given)| given).sum::<usize>();
        rest == at
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Frames never leave early or exceed the lead. A bot that was stopped is silent; of one that was not,
    /// however often it was held, each byte is heard once, in order. And when the caller is silent and no
    /// service answers any more, the call is back in LISTENING (or over) in bounded time.
    #[test]
    fn every_call_comes_back_to_listening(
        steps in prop::collection::vec(step(), 1..80),
        barge_in in any::<bool>(), echo in any::<bool>(), lead in 0u64..200, greets in any::<bool>(),
        streams in any::<bool>(), early_agent in any::<bool>(), control in any::<bool>(),
    ) {
        let greeting = greets.then(|| Phrase { text: "Hello.".into(), audio: Bytes::new() });
        let mode = if echo { Mode::Echo } else { Mode::Dialogue };
        let hearing = if streams { Hearing::Stream } else { Hearing::Utterances };
        let lead = Duration::from_millis(lead.next_multiple_of(40));
        let control = control.then_some(Duration::from_secs(5));
        let settings = Settings { barge_in, mode, hearing, greeting, lead, early_agent, control, ..settings() };
        let mut check = Check::new(settings);
        for step in steps {
            check.take(step);
        }
        // The longest way back: an utterance is put to STT, nobody answers, the apology is played;
        // and a reply may have a lot of audio queued.
        for _ in 0..(120_000 / 20) {
            check.take(Step::Caller { frames: 1, voiced: false });
        }
        prop_assert!(matches!(check.call.state(), State::Listening | State::Ended), "{:?}", check.call);
        prop_assert!(check.telephone.is_none_or(|telephone| telephone.all_heard()), "something was never heard");
    }
}
