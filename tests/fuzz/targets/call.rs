//! One call, as a value: whatever happens to it, in whatever order.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use voxgate::audio::FRAME_BYTES;
use voxgate::call::{
    Action, Call, Destination, Event, Failure, FailureKind, FinishOn, Gather, Hearing, Input, Job, Keys,
    Mode, Output, Phrase, Settings, Silence, StopReason,
};
use voxgate::config::Config;
use voxgate::time::{CallTime, FRAME};
use voxgate::turn::{State, Vad};

use super::carrier::Carrier;

/// So much happens in one call here.
const MOST_STEPS: usize = 300;
/// What one input, or one deadline, has a call say at most.
const MOST_OUTPUTS: usize = 400;
/// Whatever is under way is over by then: an utterance is cut, no service answers, the apology is
/// played; and a reply may have a lot of audio queued.
const WAY_BACK: Duration = Duration::from_secs(400);
/// Audio that a call keeps for the caller, and the piece that it was given last.
const MOST_QUEUED: Duration = Duration::from_secs(30 + 9);

#[derive(Arbitrary, Debug)]
struct Shape {
    echo: bool,
    streams: bool,
    barge_in: bool,
    early_agent: bool,
    adaptive_eou: bool,
    greets: bool,
    fills: bool,
    controls: bool,
    asks_to_hang_up: bool,
    prompts: bool,
    lead: u8,
}

/// Numbers are offsets from what the call last asked for, so that answers are sometimes right, sometimes
/// late, and sometimes never asked for.
#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Wait { ms: u16 },
    Caller { frames: u8, voiced: bool },
    Media { payload: &'a [u8], timestamp_ms: Option<u64> },
    Key(u8),
    MarkBack { ago: u8 },
    StrangeMark(&'a str),
    Transcript { off: i8, text: Text<'a> },
    Partial(Text<'a>),
    SpeechFinal,
    ReplyText { off: i8, text: Text<'a> },
    ReplyEnd { off: i8, action: Wanted },
    Unasked(Text<'a>),
    UnaskedEnd(Wanted),
    Speech { off: i8, ms: u16, value: u8 },
    SpeechEnd { off: i8 },
    Controlled { off: i8 },
    Failed { which: u8, off: i8 },
    Stop,
}

/// What makes a difference is easily found, and anything may be said.
#[derive(Arbitrary, Debug)]
enum Text<'a> {
    Known(u8),
    Any(&'a str),
}

const TEXTS: [&str; 12] = [
    "",
    "hello there",
    "One. Two. Three",
    "uh huh",
    "stop",
    "wait, what about",
    "Yes.",
    "...",
    "Hello.",
    " ",
    "The bill is $4.50, i.e. less than before! Is that all? ",
    "Сколько это стоит? 多少钱？好。",
];

#[derive(Arbitrary, Debug)]
enum Wanted {
    None,
    Hangup,
    Transfer,
    SendDigits,
    Gather { num_digits: Option<u8>, any_key: bool, timeout_ms: Option<u16> },
}

/// Frames never leave early or exceed the lead, a bot that is held or was interrupted is silent, nothing
/// follows the end, what waits is bounded, and a call that is left alone is soon back in LISTENING, or over.
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
    call: Call,
    carrier: Carrier,
    /// The latest utterance, turn, segment and request to the carrier that the call asked for.
    utterance: u64,
    turn: u64,
    segment: u64,
    control: u64,
    marks: Vec<String>,
    /// The bot is silent until it is known whether it was interrupted.
    held: bool,
    /// It was, and has nothing to say before there is something new to answer.
    interrupted: bool,
    ended: bool,
}

impl Check {
    fn new(shape: &Shape) -> Check {
        let settings = settings(shape);
        let lead = settings.lead;
        let mut check = Check {
            call: Call::new(Arc::new(settings), CallTime::ZERO),
            carrier: Carrier::new(lead),
            utterance: 0,
            turn: 0,
            segment: 0,
            control: 0,
            marks: Vec::new(),
            held: false,
            interrupted: false,
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

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.call.poll_output() {
            outputs += 1;
            assert!(outputs < MOST_OUTPUTS, "outputs without end");
            assert!(!self.ended || matches!(output, Output::Hangup(_)), "{output:?} after the end");
            match output {
                Output::Play { due, .. } => {
                    self.carrier.plays(due);
                    assert!(!self.held, "a bot that is held speaks");
                    assert!(!self.interrupted, "a bot that was interrupted speaks");
                }
                Output::Clear => self.carrier.clears(),
                Output::Mark(name) => self.marks.push(name),
                Output::Event(Event::BargeInHeld { .. }) => self.held = true,
                Output::Event(Event::BargeInResumed { .. }) => self.held = false,
                Output::Event(Event::BargeIn { .. }) => {
                    self.held = false;
                    self.interrupted = true;
                    assert!(self.carrier.is_silent(), "what was sent was not cleared");
                }
                Output::Event(Event::State(transition)) => {
                    self.held &= transition.to == State::Speaking;
                    self.interrupted &= transition.to != State::Thinking;
                }
                Output::Event(Event::Ended { .. }) | Output::Hangup(_) => self.ended = true,
                Output::Transcribe { utterance, audio } => {
                    assert!(audio.len() <= 2 * 30_000 * 8);
                    self.utterance = utterance;
                }
                Output::Finalize { utterance } => self.utterance = utterance,
                Output::Ask(question) => {
                    assert!(question.turn > self.turn, "turns are counted");
                    self.turn = question.turn;
                }
                Output::Say { segment, text } => {
                    assert!(segment > self.segment && !text.trim().is_empty(), "{segment}: {text:?}");
                    self.segment = segment;
                }
                Output::Control { number, .. } => {
                    assert_eq!(number, self.control + 1, "one after the other");
                    self.control = number;
                }
                Output::Forget | Output::Heard(_) | Output::Cancel(_) | Output::Event(_) => {}
            }
        }
        assert!(self.call.queued() <= MOST_QUEUED, "{:?} wait", self.call.queued());
    }

    fn take(&mut self, step: Step<'_>) {
        let near = |number: u64, off: i8| match off {
            // Mostly what was asked for.
            -100..=100 => number,
            off => number.saturating_add_signed(i64::from(off) / 100),
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
            Step::StrangeMark(name) => self.give(Input::Mark(name)),
            Step::Transcript { off, text } => {
                let utterance = near(self.utterance, off);
                self.give(Input::Transcript { utterance, text: text.said() });
            }
            Step::Partial(text) => self.give(Input::Partial { text: text.said() }),
            Step::SpeechFinal => self.give(Input::SpeechFinal),
            Step::ReplyText { off, text } => {
                self.give(Input::ReplyText { turn: near(self.turn, off), text: text.said() });
            }
            Step::ReplyEnd { off, action } => {
                self.give(Input::ReplyEnd { turn: near(self.turn, off), action: action.meant() });
            }
            Step::Unasked(text) => self.give(Input::ReplyText { turn: 0, text: text.said() }),
            Step::UnaskedEnd(action) => self.give(Input::ReplyEnd { turn: 0, action: action.meant() }),
            // Back-pressure is the shell's promise.
            Step::Speech { off, ms, value } if self.call.has_room() => {
                let audio = Bytes::from(vec![value; usize::from(ms % 8_192) * 8 + usize::from(ms >> 13)]);
                self.give(Input::Speech { segment: near(self.segment, off), audio });
            }
            Step::Speech { .. } => {}
            Step::SpeechEnd { off } => self.give(Input::SpeechEnd { segment: near(self.segment, off) }),
            Step::Controlled { off } => self.give(Input::Controlled { number: near(self.control, off) }),
            Step::Failed { which, off } => {
                let job = match which % 4 {
                    0 => Job::Transcribe { utterance: near(self.utterance, off) },
                    1 => Job::Ask { turn: near(self.turn, off) },
                    2 => Job::Say { segment: near(self.segment, off) },
                    _ => Job::Control { number: near(self.control, off) },
                };
                let kind = FailureKind::ALL[usize::from(which / 4) % FailureKind::ALL.len()];
                let failure = Failure { upstream: "x".to_owned(), kind, why: "x".to_owned() };
                self.give(Input::Failed { job, failure });
            }
            Step::Stop => self.give(Input::Stop(StopReason::WsLost)),
        }
    }
}

impl Text<'_> {
    fn said(&self) -> String {
        match self {
            Text::Known(number) => TEXTS[usize::from(*number) % TEXTS.len()].to_owned(),
            Text::Any(text) => (*text).to_owned(),
        }
    }
}

impl Wanted {
    fn meant(self) -> Action {
        match self {
            Wanted::None => Action::None,
            Wanted::Hangup => Action::Hangup,
            Wanted::Transfer => Action::Transfer { to: Destination::Number("+15550100".to_owned()) },
            Wanted::SendDigits => match Keys::parse("1w2") {
                Ok(digits) => Action::SendDigits { digits },
                Err(why) => panic!("{why}"),
            },
            Wanted::Gather { num_digits, any_key, timeout_ms } => Action::Gather(Gather {
                num_digits: num_digits.map(|number| usize::from(number).clamp(1, 64)),
                finish_on: any_key.then_some(FinishOn::Nothing),
                timeout: timeout_ms.map(|ms| Duration::from_millis(u64::from(ms))),
            }),
        }
    }
}

fn settings(shape: &Shape) -> Settings {
    let phrase =
        |text: &str| Phrase { text: text.to_owned(), audio: Bytes::from(vec![0xEE; 25 * FRAME_BYTES]) };
    let silence = Silence {
        prompt_after: Some(Duration::from_secs(20)),
        prompt: phrase("Are you there?"),
        hangup_after: Some(Duration::from_secs(50)),
        goodbye: phrase("Goodbye."),
    };
    Settings {
        mode: if shape.echo { Mode::Echo } else { Mode::Dialogue },
        hearing: if shape.streams { Hearing::Stream } else { Hearing::Utterances },
        // The network is somebody else's, and slow.
        vad: Vad::Rms,
        barge_in: shape.barge_in,
        early_agent: shape.early_agent,
        adaptive_eou: shape.adaptive_eou,
        greeting: shape.greets.then(|| Phrase { text: "Hello.".to_owned(), audio: Bytes::new() }),
        apology: phrase("Sorry."),
        transfer_apology: phrase("No."),
        filler: if shape.fills { phrase("One moment.") } else { Phrase::default() },
        control: shape.controls.then_some(Duration::from_secs(5)),
        ask_to_hang_up: shape.asks_to_hang_up,
        silence: if shape.prompts { silence } else { Silence::default() },
        lead: Duration::from_millis(u64::from(shape.lead % 200)),
        // So that being left alone is no reason to end.
        media_timeout: Duration::from_secs(3_600),
        ..voxgate::edge::settings(&Config::default())
    }
}
