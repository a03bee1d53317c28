//! Whatever happens to a call can be written down, read back and run again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proptest::prelude::*;

use super::entry::{decode, encode};
use super::{CallIds, Entry, Header, MAGIC, Outcome, Step, Tape, Unreadable, append, begin, record, replay};
use crate::audio::SILENCE;
use crate::call::{
    Action, Call, Collecting, Destination, Event, Failure, FailureKind, FinishOn, Gather, Hearing, Input,
    Job, Keys, Memory, Mode, Output, Phrase, Settings, Silence, StopReason,
};
use crate::time::{CallTime, FRAME};
use crate::turn::{Endpointing, State, Vad, Words};

pub(super) fn settings(mode: Mode, hearing: Hearing) -> Settings {
    let ms = Duration::from_millis;
    Settings {
        mode,
        hearing,
        vad: Vad::Rms,
        vad_rms: 210.0,
        endpointing: Endpointing { eou: ms(450), tail: Duration::ZERO, max_utterance: ms(30_000) },
        adaptive_eou: true,
        early_agent: false,
        silence: Silence::default(),
        barge_in: true,
        words: std::sync::Arc::new(Words::new(&["en".into()], &["roger".into()], &[])),
        dedup_window: ms(8_000),
        greeting: None,
        apology: Phrase { text: "Sorry.".into(), audio: Bytes::from(vec![0x90; 4_000]) },
        filler: Phrase::default(),
        filler_after: ms(1_500),
        reply_deadline: ms(6_000),
        transfer_apology: Phrase::default(),
        digits: Collecting::default(),
        control: None,
        ask_to_hang_up: true,
        memory: Memory::default(),
        lead: ms(100),
        media_timeout: ms(30_000),
    }
}

pub(super) fn header(settings: &Settings) -> Header {
    let parameters = BTreeMap::from([("token".to_owned(), "t0p".to_owned())]);
    let ids =
        CallIds { call_sid: "CA1".into(), stream_sid: "MZ1".into(), account_sid: "AC1".into(), parameters };
    Header::new(ids, settings, SystemTime::UNIX_EPOCH)
}

/// A call in a world of its own, and the tape of it.
struct World {
    settings: Arc<Settings>,
    call: Call,
    now: CallTime,
    tape: Vec<u8>,
    /// What comes when, and a number that keeps apart what comes at once.
    coming: BTreeMap<(CallTime, u64), Input<'static>>,
    marks: Vec<(CallTime, String)>,
    played_until: CallTime,
    count: u64,
    /// µs: how late timers and services are.
    jitter: u64,
}

impl World {
    fn new(settings: Settings, jitter: u64) -> World {
        let tape = begin(&header(&settings));
        let settings = Arc::new(settings);
        let call = Call::new(settings.clone(), CallTime::ZERO);
        let (coming, marks) = (BTreeMap::new(), Vec::new());
        let (now, played_until) = (CallTime::ZERO, CallTime::ZERO);
        let mut world = World { settings, call, now, tape, coming, marks, played_until, count: 0, jitter };
        world.take();
        world
    }

    fn write(&mut self, entry: &Entry<'_>) {
        append(&mut self.tape, self.now, entry);
    }

    fn tell(&mut self, input: Input<'_>) {
        if let Input::Media { payload, timestamp_ms } = input {
            self.call.handle(input, self.now);
            let mut room = Vec::new();
            let entry = Entry::heard(payload, timestamp_ms, self.call.measured(), &mut room);
            append(&mut self.tape, self.now, &entry);
        } else {
            self.write(&Entry::of_input(&input));
            self.call.handle(input, self.now);
        }
        self.take();
    }

    fn later(&mut self, ms: u64, input: Input<'static>) {
        self.count += 1;
        let late = self.count * 7_919 % (self.jitter + 1);
        let at = self.now + Duration::from_millis(ms) + Duration::from_micros(late);
        self.coming.insert((at, self.count), input);
    }

    fn take(&mut self) {
        while let Some(output) = self.call.poll_output() {
            if let Some(entry) = Entry::of_output(&output) {
                self.write(&entry);
            }
            match output {
                Output::Play { .. } => self.played_until = self.played_until.max(self.now) + FRAME,
                Output::Mark(name) => {
                    let at = self.played_until.max(self.now) + Duration::from_micros(45_000 + self.jitter);
                    self.marks.push((at, name));
                }
                Output::Clear => {
                    self.played_until = self.now;
                    let at = self.now + Duration::from_millis(45);
                    self.marks.iter_mut().for_each(|(due, _)| *due = (*due).min(at));
                }
                Output::Transcribe { utterance, .. } | Output::Finalize { utterance } => {
                    let text = format!("utterance number {utterance} with words");
                    self.later(180, Input::Transcript { utterance, text });
                }
                Output::Ask(question) => {
                    let turn = question.turn;
                    if turn % 5 == 4 {
                        let kind = FailureKind::Http5xx;
                        let failure = Failure { upstream: "app".into(), kind, why: "503".into() };
                        self.later(50, Input::Failed { job: Job::Ask { turn }, failure });
                        continue;
                    }
                    self.later(300, Input::ReplyText { turn, text: "This is an answer. And a".into() });
                    self.later(400, Input::ReplyText { turn, text: " second sentence.".into() });
                    self.later(420, Input::ReplyEnd { turn, action: Action::None });
                }
                Output::Say { segment, text } => {
                    let audio = Bytes::from(vec![0x90; text.len() * 66 * 4]);
                    self.later(120, Input::Speech { segment, audio: audio.clone() });
                    self.later(160, Input::Speech { segment, audio });
                    self.later(160, Input::SpeechEnd { segment });
                }
                Output::Cancel(job) => {
                    self.coming.retain(|_, input| Entry::of_input(input).answers() != Some(job.into()));
                }
                Output::Control { .. } => {}
                Output::Forget | Output::Heard(_) | Output::Hangup(_) | Output::Event(_) => {}
            }
        }
    }

    /// One frame of the caller, after all that comes before it.
    fn frame(&mut self, voiced: bool) {
        let next = self.now + FRAME - Duration::from_micros(self.now.as_micros() % 20_000);
        loop {
            let timer = self.call.poll_timeout().map(|at| at + Duration::from_micros(self.jitter));
            let answer = self.coming.first_key_value().map(|((at, _), _)| *at);
            let mark = self.marks.first().map(|(at, _)| *at);
            let Some(first) = [timer, answer, mark].into_iter().flatten().min().filter(|at| *at < next)
            else {
                break;
            };
            self.now = self.now.max(first);
            if answer == Some(first) {
                let (_, input) = self.coming.pop_first().unwrap();
                self.tell(input);
            } else if mark == Some(first) {
                let (_, name) = self.marks.remove(0);
                self.tell(Input::Mark(&name));
            } else {
                self.write(&Entry::Tick);
                self.call.handle_timeout(self.now);
                self.take();
            }
        }
        self.now = next;
        let payload = [if voiced { 0x90 } else { SILENCE }; 160];
        let timestamp_ms = Some(self.now.as_millis());
        self.tell(Input::Media { payload: &payload, timestamp_ms });
    }

    fn end(mut self) -> Vec<u8> {
        self.tell(Input::Stop(StopReason::CallerHangup));
        self.write(&Entry::End);
        self.tape
    }
}

/// Spurts of speech and pauses, in frames.
fn recorded(settings: Settings, jitter: u64, spurts: &[(usize, usize)]) -> Vec<u8> {
    let mut world = World::new(settings, jitter);
    for (voiced, silent) in spurts {
        (0..*voiced).for_each(|_| world.frame(true));
        (0..*silent).for_each(|_| world.frame(false));
    }
    assert_eq!(world.settings.lead, Duration::from_millis(100));
    world.end()
}

/// A replay as text.
fn told(bytes: &[u8], settings: &Settings) -> (Outcome, Vec<String>) {
    let tape = Tape::read(bytes).unwrap();
    let recorded = tape.header.settings(settings).unwrap();
    let mut told = Vec::new();
    let outcome = replay(&tape, Arc::new(settings.clone()), &recorded, |at, step| match step {
        Step::Told(Entry::Heard { .. }) | Step::Heard { .. } | Step::Level { .. } => {}
        step => told.push(format!("{at} {step:?}")),
    });
    (outcome, told)
}

const KINDS: [(Mode, Hearing); 3] = [
    (Mode::Echo, Hearing::Utterances),
    (Mode::Dialogue, Hearing::Utterances),
    (Mode::Dialogue, Hearing::Stream),
];

#[test]
fn a_header_keeps_the_settings_and_no_secret() {
    let settings = settings(Mode::Dialogue, Hearing::Stream);
    let header = header(&settings);
    let text = serde_json::to_string(&header).unwrap();
    assert!(!text.contains("t0p"), "{text}");
    let read: Header = serde_json::from_str(&text).unwrap();
    let otherwise = Settings { vad_rms: 999.0, ..super::tests::settings(Mode::Echo, Hearing::Utterances) };
    assert_eq!(format!("{:?}", read.settings(&otherwise).unwrap()), format!("{settings:?}"));
}

#[test]
fn what_is_no_tape_says_so() {
    assert_eq!(Tape::read(b"RIFF").unwrap_err(), Unreadable::NotATape);
    assert_eq!(Tape::read(MAGIC).unwrap_err(), Unreadable::NoHeader);
    let mut header = header(&settings(Mode::Echo, Hearing::Utterances));
    header.version = 99;
    assert_eq!(Tape::read(&begin(&header)).unwrap_err(), Unreadable::Newer(99));
}

#[test]
fn a_tape_says_what_is_missing() {
    let whole = recorded(settings(Mode::Echo, Hearing::Utterances), 0, &[(40, 60)]);
    let missing = |bytes: &[u8]| Tape::read(bytes).unwrap().missing();
    assert_eq!(missing(&whole), None);
    let torn = missing(&whole[..whole.len() - 20]).unwrap();
    assert!(torn.starts_with("torn off at 2."), "{torn}");
    let mut holed = whole.clone();
    let middle = whole.len() / 2;
    holed[middle] ^= 1;
    let hole = missing(&holed).unwrap();
    assert!(hole.ends_with("bytes in the middle are damaged"), "{hole}");
}

/// With a longer pause allowed, what was cut in two is one utterance with all its words.
#[test]
fn other_settings_make_another_call_of_the_same_words() {
    let recorded_with = settings(Mode::Dialogue, Hearing::Utterances);
    let tape = recorded(recorded_with.clone(), 900, &[(60, 200), (40, 35), (40, 200)]);
    let (outcome, as_it_was) = told(&tape, &recorded_with);
    assert_eq!((outcome.forked, outcome.ended), (None, true), "{as_it_was:#?}");
    let patient = Settings {
        endpointing: Endpointing { eou: Duration::from_millis(900), ..recorded_with.endpointing },
        ..recorded_with
    };
    let (outcome, told) = told(&tape, &patient);
    assert!(outcome.forked.is_some() && outcome.ended, "{outcome:?}");
    let asked =
        |told: &[String]| told.iter().filter(|line| line.contains("Did(Ask")).cloned().collect::<Vec<_>>();
    assert_eq!(asked(&as_it_was).len(), 3, "{as_it_was:#?}");
    assert_eq!(asked(&told).len(), 2, "{told:#?}");
    assert!(asked(&told)[0].contains("\"utterance number 1 with words\""), "{told:#?}");
    assert!(asked(&told)[1].contains("utterance number 3 with words"), "{told:#?}");
    assert!(outcome.origins.moved > 0, "{outcome:?}");
}

fn input() -> impl Strategy<Value = Input<'static>> {
    let text = || "\\PC{0,20}";
    let reason = prop::sample::select(StopReason::ALL.to_vec());
    let kind = prop::sample::select(FailureKind::ALL.to_vec());
    let job = prop_oneof![
        any::<u64>().prop_map(|utterance| Job::Transcribe { utterance }),
        any::<u64>().prop_map(|turn| Job::Ask { turn }),
        any::<u64>().prop_map(|segment| Job::Say { segment }),
        any::<u64>().prop_map(|number| Job::Control { number }),
    ];
    let action = prop_oneof![
        Just(Action::None),
        Just(Action::Hangup),
        "[+][1-9][0-9]{3,14}|sip:[a-z]{1,9}|client:[a-z]{1,9}"
            .prop_map(|to| Action::Transfer { to: Destination::parse(&to).unwrap() }),
        "[0-9w#*]{1,32}".prop_map(|digits| Action::SendDigits { digits: Keys::parse(&digits).unwrap() }),
        (any::<Option<usize>>(), any::<Option<Option<char>>>(), prop::option::of(0u64..99_999)).prop_map(
            |(num_digits, key, ms)| {
                let finish_on = key.map(|key| key.map_or(FinishOn::Nothing, FinishOn::Key));
                Action::Gather(Gather { num_digits, finish_on, timeout: ms.map(Duration::from_millis) })
            }
        ),
    ];
    let audio = || prop::collection::vec(any::<u8>(), 0..400);
    let leaked = |bytes: Vec<u8>| -> &'static [u8] { Vec::leak(bytes) };
    prop_oneof![
        (audio(), any::<Option<u64>>())
            .prop_map(move |(payload, timestamp_ms)| Input::Media { payload: leaked(payload), timestamp_ms }),
        any::<char>().prop_map(Input::Dtmf),
        text().prop_map(|name| Input::Mark(String::leak(name))),
        (any::<u64>(), text()).prop_map(|(utterance, text)| Input::Transcript { utterance, text }),
        text().prop_map(|text| Input::Partial { text }),
        Just(Input::SpeechFinal),
        (any::<u64>(), text()).prop_map(|(turn, text)| Input::ReplyText { turn, text }),
        (any::<u64>(), action).prop_map(|(turn, action)| Input::ReplyEnd { turn, action }),
        (any::<u64>(), audio())
            .prop_map(|(segment, audio)| Input::Speech { segment, audio: Bytes::from(audio) }),
        any::<u64>().prop_map(|segment| Input::SpeechEnd { segment }),
        any::<u64>().prop_map(|number| Input::Controlled { number }),
        (job, kind, text(), text()).prop_map(|(job, kind, upstream, why)| {
            Input::Failed { job, failure: Failure { upstream, kind, why } }
        }),
        text().prop_map(|text| Input::LastWords { text }),
        reason.prop_map(Input::Stop),
    ]
}

fn spurts() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::vec((1usize..90, 1usize..150), 1..7)
}

proptest! {
    #[test]
    fn every_input_comes_back_as_it_was(input in input(), us in any::<u64>()) {
        let at = CallTime::from_micros(us);
        let mut bytes = Vec::new();
        prop_assert!(encode(at, &Entry::of_input(&input), &mut bytes));
        let (then, entry) = decode(&bytes).unwrap();
        prop_assert_eq!(then, at);
        prop_assert!(!entry.is_output());
        prop_assert_eq!(format!("{:?}", entry.input().unwrap()), format!("{:?}", input));
        if let Entry::Media { payload, .. } = &entry {
            prop_assert!(matches!(payload, Cow::Borrowed(_)), "a copy for each frame");
        }
    }

    #[test]
    fn noise_in_whole_records_does_no_harm(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..40)) {
        let settings = settings(Mode::Dialogue, Hearing::Utterances);
        let mut bytes = World::new(settings.clone(), 0).tape;
        for payload in payloads {
            record::append(&mut bytes, |out| { out.extend(&payload); true });
        }
        told(&bytes, &settings);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_settings_make_the_same_call(
        kind in 0usize..3, neural in any::<bool>(), jitter in 0u64..3_000, spurts in spurts(),
    ) {
        let vad = if neural { Vad::Neural } else { Vad::Rms };
        let settings = Settings { vad, ..settings(KINDS[kind].0, KINDS[kind].1) };
        let tape = recorded(settings.clone(), jitter, &spurts);
        let (outcome, first) = told(&tape, &settings);
        prop_assert_eq!((outcome.forked, outcome.ended), (None, true), "{:#?}", first);
        prop_assert_eq!(&told(&tape, &settings).1, &first);
        // A tape that was torn off is the same call up to there.
        let head = begin(&header(&settings)).len();
        let torn = &tape[..head + (tape.len() - head) * 2 / 3];
        let (outcome, part) = told(torn, &settings);
        prop_assert_eq!(outcome.forked, None);
        prop_assert!(first.starts_with(&part), "{:#?}\n{:#?}", first, part);
    }

    #[test]
    fn other_settings_come_to_an_end_and_to_the_same_one_each_time(
        kind in 0usize..3, jitter in 0u64..3_000, spurts in spurts(),
        eou in 100u64..2_000, vad_rms in 1.0f32..30_000.0, barge_in in any::<bool>(), lead in 0u64..400,
    ) {
        let with = settings(KINDS[kind].0, KINDS[kind].1);
        let tape = recorded(with.clone(), jitter, &spurts);
        let eou = Duration::from_millis(eou);
        let other = Settings {
            vad_rms, barge_in, lead: Duration::from_millis(lead),
            endpointing: Endpointing { eou, ..with.endpointing },
            ..with
        };
        let (outcome, first) = told(&tape, &other);
        prop_assert!(outcome.ended);
        prop_assert_eq!(told(&tape, &other), (outcome, first));
    }
}

/// What was measured is not measured again; and measured again it is the same.
#[test]
fn what_the_detector_measured_is_on_the_tape() {
    for vad in [Vad::Rms, Vad::Neural] {
        let with = Settings { vad, ..settings(Mode::Dialogue, Hearing::Utterances) };
        let bytes = recorded(with.clone(), 900, &[(40, 90), (70, 60), (3, 80)]);
        let heard = |tape: &Tape<'_>, settings: &Settings| {
            let mut heard = Vec::new();
            let outcome = replay(tape, Arc::new(settings.clone()), &with, |_, step| {
                if let Step::Heard { frame, .. } = step {
                    heard.push(frame);
                }
            });
            (outcome.measured_anew, outcome.forked, heard)
        };
        let mut tape = Tape::read(&bytes).unwrap();
        let taped = heard(&tape, &with);
        assert_eq!((taped.0, taped.1, taped.2.len()), (false, None, 343), "{vad:?}");
        // From levels, where loudness decides; from the audio, where the tape does not tell.
        let loud = Settings { vad: Vad::Rms, vad_rms: 40_000.0, ..with.clone() };
        let (anew, _, frames) = heard(&tape, &loud);
        assert!(!anew && frames.iter().all(|frame| frame.p == 0.0), "{vad:?}");
        let doubted = Settings { vad: Vad::Neural, ..with.clone() };
        assert_eq!(heard(&tape, &doubted).0, vad == Vad::Rms);
        // As of the first format.
        tape.forget_measured();
        assert_eq!(heard(&tape, &with), (true, None, taped.2), "{vad:?}");
    }
}

/// The call does what it did although the detector would hear something else today.
#[test]
fn a_replay_believes_its_tape() {
    let with = settings(Mode::Echo, Hearing::Utterances);
    let bytes = recorded(with.clone(), 0, &[(40, 60)]);
    let mut tape = Tape::read(&bytes).unwrap();
    for (_, entry) in &mut tape.entries {
        if let Entry::Heard { payload, .. } = entry {
            *payload = &[SILENCE; 160];
        }
    }
    let mut turns = 0;
    let settings = Arc::new(Settings { apology: Phrase::default(), ..with.clone() });
    replay(&tape, settings, &with, |_, step| {
        turns += usize::from(matches!(step, Step::Did(Output::Event(Event::UtteranceEnded { .. }))));
    });
    assert_eq!(turns, 1);
}

#[test]
fn a_call_that_was_recorded_in_its_last_state_ends_there() {
    let with = settings(Mode::Echo, Hearing::Utterances);
    let tape = recorded(with.clone(), 0, &[(30, 30)]);
    let read = Tape::read(&tape).unwrap();
    let mut states = Vec::new();
    replay(&read, Arc::new(with.clone()), &with, |_, step| {
        if let Step::Did(Output::Event(Event::State(moved))) = step {
            states.push(moved.to);
        }
    });
    assert_eq!(states, [State::Thinking, State::Speaking, State::Ended]);
}
