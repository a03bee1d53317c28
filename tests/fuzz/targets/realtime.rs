//! A call that a model conducts, one that hears and speaks by itself.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use voxgate::audio::FRAME_BYTES;
use voxgate::call::realtime::{
    About, Ears, FunctionCall, Input, Manner, Meaning, Realtime, Request, ResponseEnd, Told,
};
use voxgate::call::{Action, Destination, Event, Failure, FailureKind, Output, Phrase, Settings, StopReason};
use voxgate::config::Config;
use voxgate::time::{CallTime, FRAME};
use voxgate::turn::{State, Vad};

use super::carrier::Carrier;

const MOST_STEPS: usize = 300;
const MOST_OUTPUTS: usize = 600;
/// The longest reply, and an app and a model that do not answer.
const WAY_BACK: Duration = Duration::from_secs(700);

#[derive(Arbitrary, Debug)]
struct Shape {
    ours: bool,
    interrupts: bool,
    greets: bool,
    lead: u8,
}

/// `of` is an offset from the present response, so that what comes is sometimes right, sometimes late,
/// and sometimes never asked for.
#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Wait { ms: u16 },
    Caller { frames: u8, voiced: bool },
    Media { payload: &'a [u8], timestamp_ms: Option<u64> },
    Key(u8),
    MarkBack { ago: u8 },
    Linked,
    Unlinked(u8),
    Ready { audio: Option<&'a str> },
    Started,
    Stopped,
    ResponseStarted { of: i8 },
    Audio { of: i8, ms: u8, value: u8 },
    RawAudio { of: i8, content: u8, audio: &'a [u8] },
    AudioEnded { of: i8 },
    Words { of: i8, text: &'a str },
    Function { of: i8, which: u8 },
    FunctionAnswered { failed: bool, output: &'a str },
    ResponseEnded { of: i8, which: u8 },
    Partial(&'a str),
    Transcript(&'a str),
    Refused(u8),
    Stop,
}

/// Frames never leave early or exceed the lead, nothing follows the end, the model is never told that it
/// was heard for longer than it spoke, and a call that is left alone is soon back in LISTENING, or over.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(shape) = Shape::arbitrary(&mut input) else { return };
    let mut check = Check::new(&shape);
    for step in input.arbitrary_iter::<Step<'_>>().into_iter().flatten().take(MOST_STEPS) {
        let Ok(step) = step else { break };
        check.take(step);
    }
    check.pass(WAY_BACK);
    let state = check.call.state();
    assert!(matches!(state, State::Listening | State::Ended), "left in {state:?}: {:?}", check.call);
    check.give(Input::Stop(StopReason::CallerHangup));
    assert_eq!((check.call.state(), check.call.poll_timeout()), (State::Ended, None));
    assert!(check.ended, "ended, and nobody was told");
}

struct Check {
    call: Realtime,
    carrier: Carrier,
    /// The response that the model is at.
    response: u64,
    /// Frames that were played.
    played: u32,
    marks: Vec<String>,
    functions: Vec<String>,
    calls: u64,
    ended: bool,
}

impl Check {
    fn new(shape: &Shape) -> Check {
        let ears = if shape.ours { Ears::Ours } else { Ears::Models };
        let manner =
            Manner { ears, interrupts: shape.interrupts, opening: shape.greets.then(|| "Hello.".to_owned()) };
        let lead = Duration::from_millis(u64::from(shape.lead % 200));
        let phrase =
            |text: &str| Phrase { text: text.to_owned(), audio: Bytes::from(vec![0xEE; 25 * FRAME_BYTES]) };
        let settings = Settings {
            vad: Vad::Rms,
            apology: phrase("Sorry."),
            transfer_apology: phrase("No."),
            lead,
            media_timeout: Duration::from_secs(3_600),
            ..voxgate::edge::settings(&Config::default())
        };
        let mut check = Check {
            call: Realtime::new(Arc::new(settings), manner, CallTime::ZERO),
            carrier: Carrier::new(lead),
            response: 1,
            played: 0,
            marks: Vec::new(),
            functions: Vec::new(),
            calls: 0,
            ended: false,
        };
        check.drain();
        check
    }

    fn pass(&mut self, wait: Duration) {
        let until = self.carrier.now + wait;
        while self.carrier.waits(self.call.poll_timeout(), until) {
            self.call.handle_timeout(self.carrier.now);
            self.drain();
            self.carrier.waited(self.call.poll_timeout());
        }
    }

    fn give(&mut self, input: Input<'_>) {
        self.call.handle(input, self.carrier.now);
        self.drain();
    }

    fn tell(&mut self, told: Told) {
        self.give(Input::Told(told));
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        loop {
            outputs += 1;
            assert!(outputs < MOST_OUTPUTS, "outputs without end");
            if let Some(output) = self.call.poll_output() {
                assert!(!self.ended || matches!(output, Output::Hangup(_)), "{output:?} after the end");
                match output {
                    Output::Play { due, .. } => {
                        self.carrier.plays(due);
                        self.played += 1;
                    }
                    Output::Mark(name) => self.marks.push(name),
                    Output::Clear => self.carrier.clears(),
                    Output::Hangup(_) | Output::Event(Event::Ended { .. }) => self.ended = true,
                    Output::Event(Event::BargeIn { .. }) => {
                        assert!(self.carrier.is_silent(), "what was sent was not cleared");
                    }
                    Output::Event(_) => {}
                    other => panic!("{other:?} is not for such a call"),
                }
            } else if let Some(request) = self.call.poll_request() {
                match request {
                    Request::Truncate { heard, .. } => {
                        assert!(heard <= FRAME * self.played, "heard for {heard:?}, {} frames", self.played);
                    }
                    Request::Function { call, .. } => self.functions.push(call.id),
                    _ => {}
                }
            } else {
                return;
            }
        }
    }

    fn take(&mut self, step: Step<'_>) {
        let now_at = self.response;
        let named = |of: i8| {
            let response = match of {
                -100..=100 => now_at,
                of => now_at.saturating_add_signed(i64::from(of) / 100),
            };
            (format!("r{response}"), format!("i{response}"))
        };
        match step {
            Step::Wait { ms } => self.pass(Duration::from_millis(u64::from(ms))),
            Step::Caller { frames, voiced } => {
                for _ in 0..frames {
                    self.pass(FRAME);
                    let payload = [if voiced { 0x9F } else { 0xFF }; FRAME_BYTES];
                    self.give(Input::Media { payload: &payload, timestamp_ms: None });
                }
            }
            Step::Media { payload, timestamp_ms } => self.give(Input::Media { payload, timestamp_ms }),
            Step::Key(key) => {
                let keys = b"0123456789*#ABCD";
                self.give(Input::Dtmf(char::from(keys[usize::from(key) % keys.len()])));
            }
            Step::MarkBack { ago } => {
                if let Some(name) = self.marks.iter().rev().nth(usize::from(ago % 8)).cloned() {
                    self.give(Input::Mark(&name));
                }
            }
            Step::Linked => self.give(Input::Linked),
            Step::Unlinked(kind) => {
                self.give(Input::Unlinked(failure(kind)));
                // A new session has names of its own.
                self.response += 4;
            }
            Step::Ready { audio } => self.tell(Told::Ready { audio: audio.map(str::to_owned) }),
            Step::Started => self.tell(Told::SpeechStarted),
            Step::Stopped => self.tell(Told::SpeechStopped),
            Step::ResponseStarted { of } => self.tell(Told::ResponseStarted { response: named(of).0 }),
            Step::Audio { of, ms, value } => {
                let (response, item) = named(of);
                let audio = Bytes::from(vec![value; usize::from(ms) * 8]);
                self.tell(Told::Audio { response, item, content: 0, audio });
            }
            Step::RawAudio { of, content, audio } => {
                let (response, item) = named(of);
                let audio = Bytes::copy_from_slice(audio);
                self.tell(Told::Audio { response, item, content: u64::from(content), audio });
            }
            Step::AudioEnded { of } => {
                let (response, item) = named(of);
                self.tell(Told::AudioEnded { response, item });
            }
            Step::Words { of, text } => {
                let (response, item) = named(of);
                self.tell(Told::Words { response, item, content: 0, text: text.to_owned() });
            }
            Step::Function { of, which } => {
                self.calls += 1;
                let to = Destination::Number("+15550100".to_owned());
                let meaning = match which % 5 {
                    0 => Meaning::Act(Action::Hangup, "x".to_owned()),
                    1 => Meaning::Act(Action::Transfer { to }, "x".to_owned()),
                    2 => Meaning::Wrong("x".to_owned()),
                    _ => Meaning::App,
                };
                // Some have the id of the one before.
                let id = format!("c{}", self.calls / (1 + u64::from(which >> 7)));
                let call = FunctionCall { id, name: "f".to_owned(), arguments: "{}".to_owned(), meaning };
                self.tell(Told::FunctionCalled { response: named(of).0, call });
            }
            Step::FunctionAnswered { failed, output } => {
                if let Some(call) = self.functions.pop() {
                    let answer = if failed { Err(failure(3)) } else { Ok((output.to_owned(), Action::None)) };
                    self.give(Input::FunctionAnswered { call, answer });
                }
            }
            Step::ResponseEnded { of, which } => {
                let end = match which % 4 {
                    0 => ResponseEnd::Cancelled,
                    1 => ResponseEnd::Broken(failure(which / 4)),
                    _ => ResponseEnd::Completed,
                };
                self.tell(Told::ResponseEnded { response: named(of).0, end });
                self.response += u64::from((-100..=100).contains(&of));
            }
            Step::Partial(text) => self.tell(Told::Partial { text: text.to_owned() }),
            Step::Transcript(text) => self.tell(Told::Transcript { text: text.to_owned() }),
            Step::Refused(which) => {
                let about = match which % 5 {
                    0 => Some(About::Response { busy: true }),
                    1 => Some(About::Response { busy: false }),
                    2 => Some(About::Other),
                    3 => Some(About::Session),
                    _ => None,
                };
                self.tell(Told::Refused { about, failure: failure(which / 5) });
            }
            Step::Stop => self.give(Input::Stop(StopReason::WsLost)),
        }
    }
}

fn failure(kind: u8) -> Failure {
    let kind = FailureKind::ALL[usize::from(kind) % FailureKind::ALL.len()];
    Failure { upstream: "model".to_owned(), kind, why: "x".to_owned() }
}
