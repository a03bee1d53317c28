//! What holds for every such call, whatever happens in it.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::world::{failure, tone};
use crate::call::tests::world::settings;
use crate::call::{Destination, FailureKind};

/// Something that may happen. `off` is an offset from the present response, so that what comes is
/// sometimes right, sometimes late, and sometimes never asked for.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Caller { frames: usize, voiced: bool },
    Key(char),
    MarkBack { ago: usize },
    Linked,
    Unlinked(FailureKind),
    Ready,
    Started,
    Stopped,
    ResponseStarted { off: u64 },
    Audio { off: u64, frames: usize },
    AudioEnded { off: u64 },
    Words { off: u64 },
    Function { off: u64, which: u8 },
    FunctionAnswered { failed: bool },
    ResponseEnded { off: u64, which: u8 },
    Refused(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let off = || prop_oneof![8 => Just(0u64), 1 => 1u64..3, 1 => Just(u64::MAX)];
    let kind =
        prop_oneof![Just(FailureKind::Connect), Just(FailureKind::Timeout), Just(FailureKind::Http4xx)];
    prop_oneof![
        4 => (0u64..3000).prop_map(Step::Wait),
        6 => (1usize..60, any::<bool>()).prop_map(|(frames, voiced)| Step::Caller { frames, voiced }),
        1 => prop_oneof![Just('1'), Just('#')].prop_map(Step::Key),
        3 => (0usize..4).prop_map(|ago| Step::MarkBack { ago }),
        3 => Just(Step::Linked),
        1 => kind.prop_map(Step::Unlinked),
        1 => Just(Step::Ready),
        3 => Just(Step::Started),
        3 => Just(Step::Stopped),
        5 => off().prop_map(|off| Step::ResponseStarted { off }),
        9 => (off(), 1usize..60).prop_map(|(off, frames)| Step::Audio { off, frames }),
        2 => off().prop_map(|off| Step::AudioEnded { off }),
        2 => off().prop_map(|off| Step::Words { off }),
        2 => (off(), 0u8..4).prop_map(|(off, which)| Step::Function { off, which }),
        2 => any::<bool>().prop_map(|failed| Step::FunctionAnswered { failed }),
        5 => (off(), 0u8..4).prop_map(|(off, which)| Step::ResponseEnded { off, which }),
        1 => (0u8..5).prop_map(Step::Refused),
    ]
}

/// Drives a call and checks, at every output, what must always hold.
struct Check {
    call: Realtime,
    now: CallTime,
    carrier_end: CallTime,
    /// The response that the model is at.
    response: u64,
    /// Frames that the carrier has, or has played: when each begins to be heard, and its first byte.
    frames: Vec<(CallTime, u8)>,
    marks: Vec<String>,
    functions: Vec<String>,
    calls: u64,
    ended: bool,
}

impl Check {
    fn new(settings: Settings, manner: Manner) -> Check {
        let mut check = Check {
            call: Realtime::new(Arc::new(settings), manner, CallTime::ZERO),
            now: CallTime::ZERO,
            carrier_end: CallTime::ZERO,
            response: 1,
            frames: Vec::new(),
            marks: Vec::new(),
            functions: Vec::new(),
            calls: 0,
            ended: false,
        };
        check.drain();
        check
    }

    /// Each response's audio bears its number.
    fn value(response: u64) -> u8 {
        0x80 + (response % 64) as u8
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
    }

    fn give(&mut self, input: Input<'_>) {
        self.call.handle(input, self.now);
        self.drain();
    }

    fn tell(&mut self, told: Told) {
        self.give(Input::Told(told));
    }

    /// How long the caller has heard a response.
    fn heard(&self, response: u64) -> Duration {
        let of = self.frames.iter().filter(|(_, value)| *value == Self::value(response));
        of.map(|(at, _)| self.now.since(*at).min(FRAME)).sum()
    }

    fn drain(&mut self) {
        let mut burst = 0;
        let mut truncated = Vec::new();
        loop {
            burst += 1;
            assert!(burst < 300, "outputs without end");
            if let Some(output) = self.call.poll_output() {
                assert!(!self.ended || matches!(output, Output::Hangup(_)), "{output:?} after the end");
                match output {
                    Output::Play { frame, due } => {
                        assert!(due <= self.now);
                        let at = self.carrier_end.max(self.now);
                        self.carrier_end = at + FRAME;
                        assert!(self.carrier_end.since(self.now) <= self.call.settings.lead.max(FRAME));
                        self.frames.push((at, frame.0[0]));
                    }
                    Output::Mark(name) => self.marks.push(name),
                    Output::Clear => {
                        self.frames.retain(|(at, _)| *at < self.now);
                        self.carrier_end = self.now;
                    }
                    Output::Hangup(_) | Output::Event(Event::Ended { .. }) => self.ended = true,
                    Output::Event(_) => {}
                    other => panic!("{other:?} is not for such a call"),
                }
            } else if let Some(request) = self.call.poll_request() {
                match request {
                    Request::Truncate { item, heard, .. } => {
                        let response: u64 =
                            item.strip_prefix('i').and_then(|n| n.parse().ok()).expect("an item");
                        truncated.push((response, heard));
                    }
                    Request::Function { call, .. } => self.functions.push(call.id),
                    _ => {}
                }
            } else {
                break;
            }
        }
        for (response, heard) in truncated {
            let really = self.heard(response);
            let off = really.abs_diff(heard);
            assert!(off <= FRAME, "response {response} was heard for {really:?}, not {heard:?}");
        }
    }

    fn take(&mut self, step: Step) {
        let named = |of: u64| (format!("r{of}"), format!("i{of}"));
        let now_at = self.response;
        let of = |off: u64| if off == u64::MAX { now_at.saturating_sub(1) } else { now_at + off };
        match step {
            Step::Wait(ms) => self.pass(Duration::from_millis(ms)),
            Step::Caller { frames, voiced } => {
                for _ in 0..frames {
                    self.pass(FRAME);
                    let payload = [if voiced { 0x9F } else { 0xFF }; FRAME_BYTES];
                    self.give(Input::Media { payload: &payload, timestamp_ms: None });
                }
            }
            Step::Key(key) => self.give(Input::Dtmf(key)),
            Step::MarkBack { ago } => {
                if let Some(name) = self.marks.iter().rev().nth(ago).cloned() {
                    self.give(Input::Mark(&name));
                }
            }
            Step::Linked => self.give(Input::Linked),
            Step::Unlinked(kind) => {
                self.give(Input::Unlinked(failure(kind, "x")));
                // A new session has names of its own.
                self.response += 4;
            }
            Step::Ready => self.tell(Told::Ready { audio: None }),
            Step::Started => self.tell(Told::SpeechStarted),
            Step::Stopped => self.tell(Told::SpeechStopped),
            Step::ResponseStarted { off } => self.tell(Told::ResponseStarted { response: named(of(off)).0 }),
            Step::Audio { off, frames } => {
                let (response, item) = named(of(off));
                let audio = tone(frames * 20, Self::value(of(off)));
                self.tell(Told::Audio { response, item, content: 0, audio });
            }
            Step::AudioEnded { off } => {
                let (response, item) = named(of(off));
                self.tell(Told::AudioEnded { response, item });
            }
            Step::Words { off } => {
                let (response, item) = named(of(off));
                self.tell(Told::Words { response, item, content: 0, text: "one two three ".into() });
            }
            Step::Function { off, which } => {
                self.calls += 1;
                let meaning = match which {
                    0 => Meaning::Act(Action::Hangup, "x".into()),
                    1 => Meaning::Act(
                        Action::Transfer { to: Destination::Number("+15550100".into()) },
                        "x".into(),
                    ),
                    2 => Meaning::Wrong("x".into()),
                    _ => Meaning::App,
                };
                let id = format!("c{}", self.calls);
                let call = FunctionCall { id, name: "f".into(), arguments: "{}".into(), meaning };
                self.tell(Told::FunctionCalled { response: named(of(off)).0, call });
            }
            Step::FunctionAnswered { failed } => {
                if let Some(call) = self.functions.pop() {
                    let answer = if failed {
                        Err(failure(FailureKind::Http5xx, "x"))
                    } else {
                        Ok(("done".to_owned(), Action::None))
                    };
                    self.give(Input::FunctionAnswered { call, answer });
                }
            }
            Step::ResponseEnded { off, which } => {
                let end = match which {
                    0 => ResponseEnd::Cancelled,
                    1 => ResponseEnd::Broken(failure(FailureKind::Http5xx, "x")),
                    _ => ResponseEnd::Completed,
                };
                self.tell(Told::ResponseEnded { response: named(of(off)).0, end });
                if off == 0 {
                    self.response += 1;
                }
            }
            Step::Refused(which) => {
                let about = match which {
                    0 => Some(About::Response { busy: true }),
                    1 => Some(About::Response { busy: false }),
                    2 => Some(About::Other),
                    3 => Some(About::Session),
                    _ => None,
                };
                self.tell(Told::Refused { about, failure: failure(FailureKind::Http5xx, "x") });
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Frames never leave early or exceed the lead, the model is told how long it was heard and nothing
    /// else, and when the caller is silent and neither model nor app answers any more, the call is back
    /// in LISTENING (or over) in bounded time.
    #[test]
    fn every_call_comes_back_to_listening(
        steps in prop::collection::vec(step(), 1..80),
        interrupts in any::<bool>(), ours in any::<bool>(), lead in 0u64..200, greets in any::<bool>(),
    ) {
        let ears = if ours { Ears::Ours } else { Ears::Models };
        let manner = Manner { ears, interrupts, opening: greets.then(String::new) };
        let lead = Duration::from_millis(lead.next_multiple_of(40));
        let mut check = Check::new(Settings { lead, ..settings() }, manner);
        for step in steps {
            check.take(step);
        }
        // The longest way back: an app that does not answer, a model that does not, and the apology;
        // and a reply may have a lot of audio queued.
        for _ in 0..(150_000 / 20) {
            check.take(Step::Caller { frames: 1, voiced: false });
        }
        prop_assert!(matches!(check.call.state(), State::Listening | State::Ended), "{:?}", check.call);
    }
}
