//! A call once more that a model or a bot conducted: what it said then is said again, when it was said.
//!
//! Our side of it is run, and does what stands on the tape, to the byte and the microsecond. Where it does
//! not, a call with a model ends: what the model would have said to something else nobody knows. What
//! a bot said was never an answer to us, so a call with one goes on to its end.

use std::sync::Arc;

use super::Entry;
use super::entry::{stop_reason, unpack};
use super::replay::{LOST_WITH_A_TAPE, Measure, Outcome, Step};
use super::{Conductor, Tape};
use crate::audio::FRAME_BYTES;
use crate::call::realtime::{Ears, Input, Manner, Realtime};
use crate::call::{Event, Output, Relay, Service, Settings};
use crate::time::CallTime;
use crate::turn::{Measured, State, level_db};

/// `None` where the call is this side's own.
pub(super) fn replay(
    tape: &Tape<'_>,
    settings: &Arc<Settings>,
    recorded: &Settings,
    each: impl FnMut(CallTime, Step<'_>),
) -> Option<Outcome> {
    let again = Again { entries: &tape.entries, at: 0, matched: 0, forked: None, now: CallTime::ZERO, each };
    match &tape.header.conductor {
        Conductor::Ours => None,
        Conductor::Model(manner) => Some(again.with_model(settings, recorded, manner)),
        Conductor::Bot => Some(again.with_bot(recorded)),
    }
}

struct Again<'t, F> {
    entries: &'t [(CallTime, Entry<'t>)],
    /// The next entry to be handed in.
    at: usize,
    /// Outputs before this entry have been done again.
    matched: usize,
    forked: Option<CallTime>,
    now: CallTime,
    each: F,
}

impl<'t, F: FnMut(CallTime, Step<'_>)> Again<'t, F> {
    fn with_model(mut self, settings: &Arc<Settings>, recorded: &Settings, manner: &Manner) -> Outcome {
        let ours = manner.ears == Ears::Ours;
        let taped = ours && Measure::of(self.entries, recorded, settings) == Measure::AsTaped;
        let (settings, manner) = (settings.clone(), manner.clone());
        let mut call = match taped {
            true => Realtime::measured_before(settings, manner, CallTime::ZERO),
            false => Realtime::new(settings, manner, CallTime::ZERO),
        };
        let mut frames: Vec<Measured> = Vec::new();
        self.take(&mut call);
        while let (None, Some(entry)) = (self.forked, self.next()) {
            match entry {
                Entry::Heard { payload, timestamp_ms, frames: heard } if taped => {
                    frames.clear();
                    frames.extend(unpack(heard));
                    let (timestamp_ms, frames) = (*timestamp_ms, &frames);
                    call.handle(Input::Measured { payload, timestamp_ms, frames }, self.now);
                }
                entry => match entry.model_input() {
                    Some(input) => call.handle(input, self.now),
                    None => call.handle_timeout(self.now),
                },
            }
            self.told(entry, call.measured());
            self.take(&mut call);
        }
        self.over(call.state() == State::Ended, ours && !taped)
    }

    fn with_bot(mut self, settings: &Settings) -> Outcome {
        let mut relay = Relay::new(settings.lead, settings.media_timeout);
        let mut ended = false;
        while let Some(entry) = self.next() {
            let now = self.now;
            let event = match entry {
                Entry::Tick => {
                    relay.handle_timeout(now);
                    None
                }
                Entry::Linked | Entry::Media { .. } => {
                    relay.heard(now);
                    None
                }
                Entry::BotAudio(audio) => {
                    relay.audio(audio, now);
                    None
                }
                Entry::BotMark(name) => {
                    let _ = relay.mark(name, now);
                    None
                }
                Entry::BotClear => {
                    relay.clear(now);
                    None
                }
                Entry::BotFinished => {
                    relay.finish(now);
                    None
                }
                Entry::Dtmf(digit) => Some(Event::Dtmf { digit: *digit }),
                Entry::Unlinked(failure) => {
                    let failure = failure.as_ref().into();
                    Some(Event::UpstreamFailed { service: Service::Agent, failure })
                }
                Entry::Stop(reason) => {
                    ended = true;
                    relay.end();
                    Some(Event::Ended { reason: stop_reason(reason) })
                }
                _ => None,
            };
            self.told(entry, &[]);
            while let Some(output) = relay.poll_output() {
                self.did(&output);
            }
            if let Some(event) = event {
                self.did(&Output::Event(event));
            }
        }
        self.over(ended, false)
    }

    /// What comes next of what was told; nothing once the tape is over.
    fn next(&mut self) -> Option<&'t Entry<'t>> {
        while let Some((at, entry)) = self.entries.get(self.at) {
            if matches!(entry, Entry::End | Entry::Cut(_)) {
                return None;
            }
            self.at += 1;
            if !entry.is_output() {
                // What was done then before this came, and not now.
                if self.done_then().is_some_and(|index| index < self.at) {
                    self.forked = self.forked.or(Some(self.now));
                }
                self.now = *at;
                return Some(entry);
            }
        }
        None
    }

    fn told(&mut self, entry: &Entry<'_>, measured: &[Measured]) {
        (self.each)(self.now, Step::Told(entry));
        let Some((payload, _)) = entry.audio() else { return };
        if measured.is_empty() {
            for frame in payload.chunks(FRAME_BYTES) {
                (self.each)(self.now, Step::Level { level_db: level_db(frame) });
            }
        }
        for &frame in measured {
            (self.each)(self.now, Step::Heard { frame, pause: None, wait: None });
        }
    }

    fn take(&mut self, call: &mut Realtime) {
        while let Some(output) = call.poll_output() {
            self.did(&output);
        }
        while let Some(request) = call.poll_request() {
            self.compare(Entry::of_request(&request));
        }
    }

    fn did(&mut self, output: &Output) {
        self.compare(Entry::of_output(output));
        (self.each)(self.now, Step::Did(output));
    }

    /// The output that was done next then.
    fn done_then(&mut self) -> Option<usize> {
        while self.entries.get(self.matched).is_some_and(|(_, entry)| !entry.is_output()) {
            self.matched += 1;
        }
        (self.matched < self.entries.len()).then_some(self.matched)
    }

    /// Notes where this is not what was done next then. Of a tape that was torn off the last outputs may
    /// be lost.
    fn compare(&mut self, entry: Option<Entry<'_>>) {
        let (Some(entry), None) = (entry, self.forked) else { return };
        let same = match self.done_then().map(|index| &self.entries[index]) {
            Some(then) => *then == (self.now, entry),
            None => self
                .entries
                .last()
                .is_some_and(|(at, last)| *last != Entry::End && at.since(self.now) < LOST_WITH_A_TAPE),
        };
        self.matched += usize::from(same);
        if !same {
            self.forked = Some(self.now);
        }
    }

    fn over(self, ended: bool, measured_anew: bool) -> Outcome {
        Outcome {
            forked: self.forked,
            origins: super::Origins::default(),
            lasted: self.now,
            ended,
            measured_anew,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::entry::{decode, encode};
    use super::super::tests::{header, settings};
    use super::super::{append, begin};
    use super::*;
    use crate::call::realtime::{About, FunctionCall, Meaning, ResponseEnd, Told};
    use crate::call::{Action, Failure, FailureKind, Hearing, Mode, StopReason};
    use crate::time::FRAME;
    use crate::turn::{Endpointing, Vad};

    fn ms(ms: u64) -> CallTime {
        CallTime::from_millis(ms)
    }

    fn manner(ears: Ears) -> Manner {
        Manner { ears, interrupts: true, opening: None }
    }

    fn usual() -> Settings {
        settings(Mode::Echo, Hearing::Utterances)
    }

    fn begun(settings: &Settings, conductor: Conductor) -> Vec<u8> {
        begin(&header(settings).conducted_by(conductor))
    }

    /// A replay as text.
    fn told(bytes: &[u8], settings: &Settings) -> (Outcome, Vec<String>) {
        let tape = Tape::read(bytes).unwrap();
        let recorded = tape.header.settings(settings).unwrap();
        let mut told = Vec::new();
        let each = |at: CallTime, step: Step<'_>| told.push(format!("{at} {step:?}"));
        let outcome = super::super::replay(&tape, Arc::new(settings.clone()), &recorded, each);
        (outcome, told)
    }

    /// A caller who speaks for so many frames and is silent for 1.2 s each time, and a model that speaks
    /// for a second when it is asked to.
    fn with_a_model(settings: &Settings, ears: Ears, spurts: &[u64]) -> Vec<u8> {
        let mut tape = begun(settings, Conductor::Model(manner(ears)));
        let mut call = Realtime::new(Arc::new(settings.clone()), manner(ears), CallTime::ZERO);
        let mut asked: Vec<(CallTime, Told)> = Vec::new();
        let mut replies = 0;
        let mut reply = |at: CallTime, asked: &mut Vec<(CallTime, Told)>| {
            replies += 1;
            let (response, item) = (format!("r{replies}"), format!("i{replies}"));
            let audio = Bytes::from(vec![0x90; 8_000]);
            asked.push((at, Told::ResponseStarted { response: response.clone() }));
            let spoken = Told::Audio { response: response.clone(), item: item.clone(), content: 0, audio };
            asked.push((at + Duration::from_millis(90), spoken));
            let over = at + Duration::from_millis(120);
            asked.push((over, Told::AudioEnded { response: response.clone(), item }));
            asked.push((over, Told::ResponseEnded { response, end: ResponseEnd::Completed }));
        };
        let mut take = |call: &mut Realtime, now: CallTime, tape: &mut Vec<u8>, asked: &mut _| {
            while let Some(output) = call.poll_output() {
                Entry::of_output(&output).iter().for_each(|entry| append(tape, now, entry));
            }
            while let Some(request) = call.poll_request() {
                Entry::of_request(&request).iter().for_each(|entry| append(tape, now, entry));
                if matches!(request, crate::call::realtime::Request::Respond { .. }) {
                    reply(now + Duration::from_millis(200), asked);
                }
            }
        };
        take(&mut call, CallTime::ZERO, &mut tape, &mut asked);
        let ready = Told::Ready { audio: Some("audio/pcmu".into()) };
        for input in [Input::Linked, Input::Told(ready)] {
            append(&mut tape, ms(5), &Entry::of_model_input(&input));
            call.handle(input, ms(5));
            take(&mut call, ms(5), &mut tape, &mut asked);
        }
        let frames = spurts.iter().flat_map(|n| (0..n + 60).map(move |k| k < *n));
        let mut room = Vec::new();
        for (n, voiced) in frames.enumerate() {
            let now = ms(20 + n as u64 * 20);
            while let Some(due) = call.poll_timeout().filter(|due| *due < now) {
                append(&mut tape, due, &Entry::Tick);
                call.handle_timeout(due);
                take(&mut call, due, &mut tape, &mut asked);
            }
            while asked.first().is_some_and(|(at, _)| *at <= now) {
                let input = Input::Told(asked.remove(0).1);
                append(&mut tape, now, &Entry::of_model_input(&input));
                call.handle(input, now);
                take(&mut call, now, &mut tape, &mut asked);
            }
            let payload = [if voiced { 0x10 } else { 0xFF }; 160];
            call.handle(Input::Media { payload: &payload, timestamp_ms: None }, now);
            match call.measured() {
                [] => {
                    let entry = Entry::Media { payload: (&payload[..]).into(), timestamp_ms: None };
                    append(&mut tape, now, &entry);
                }
                heard => append(&mut tape, now, &Entry::heard(&payload, None, heard, &mut room)),
            }
            take(&mut call, now, &mut tape, &mut asked);
        }
        let end = ms(20) + FRAME * (spurts.iter().sum::<u64>() as u32 + 60 * spurts.len() as u32);
        let stop = Input::Stop(StopReason::CallerHangup);
        append(&mut tape, end, &Entry::of_model_input(&stop));
        call.handle(stop, end);
        take(&mut call, end, &mut tape, &mut asked);
        append(&mut tape, end, &Entry::End);
        tape
    }

    /// A bot that sends pieces of audio, sets marks and takes back, on a grid of its own.
    fn with_a_bot(settings: &Settings, does: &[(u64, u8, usize)]) -> Vec<u8> {
        let mut tape = begun(settings, Conductor::Bot);
        let mut relay = Relay::new(settings.lead, settings.media_timeout);
        let mut now = CallTime::ZERO;
        for (after, what, size) in does {
            let then = now + Duration::from_millis(*after);
            while let Some(due) = relay.poll_timeout().filter(|due| *due < then) {
                now = now.max(due);
                append(&mut tape, now, &Entry::Tick);
                relay.handle_timeout(now);
                drain(&mut relay, now, &mut tape);
            }
            now = then;
            let audio = vec![0x90; *size];
            let entry = match what {
                0 => Entry::BotMark("m".into()),
                1 => Entry::BotClear,
                2 => Entry::BotFinished,
                3 => Entry::Media { payload: (&audio[..]).into(), timestamp_ms: None },
                _ => Entry::BotAudio((&audio[..]).into()),
            };
            append(&mut tape, now, &entry);
            match what {
                0 => drop(relay.mark("m", now)),
                1 => drop(relay.clear(now)),
                2 => relay.finish(now),
                3 => relay.heard(now),
                _ => relay.audio(&audio, now),
            }
            drain(&mut relay, now, &mut tape);
        }
        append(&mut tape, now, &Entry::Stop("caller_hangup".into()));
        append(&mut tape, now, &Entry::End);
        tape
    }

    fn drain(relay: &mut Relay, now: CallTime, tape: &mut Vec<u8>) {
        while let Some(output) = relay.poll_output() {
            Entry::of_output(&output).iter().for_each(|entry| append(tape, now, entry));
        }
    }

    #[test]
    fn a_models_call_is_the_same_again_and_other_settings_end_it_where_they_matter() {
        for (ears, vad) in [(Ears::Models, Vad::Rms), (Ears::Ours, Vad::Rms), (Ears::Ours, Vad::Neural)] {
            let with = Settings { vad, ..usual() };
            let tape = with_a_model(&with, ears, &[40, 50, 30]);
            let (outcome, steps) = told(&tape, &with);
            assert_eq!((outcome.forked, outcome.ended), (None, true), "{ears:?}: {steps:#?}");
            assert_eq!(told(&tape, &with).1, steps);
            let torn = &tape[..tape.len() * 2 / 3];
            let (outcome, part) = told(torn, &with);
            assert_eq!((outcome.forked, outcome.ended), (None, false));
            assert!(steps.starts_with(&part));
        }
        let with = Settings { vad: Vad::Rms, ..usual() };
        let tape = with_a_model(&with, Ears::Ours, &[40, 50]);
        let eou = Duration::from_millis(800);
        let patient = Settings { endpointing: Endpointing { eou, ..with.endpointing }, ..with.clone() };
        let (outcome, steps) = told(&tape, &patient);
        // 40 frames of speech, then the 450 ms that ended it on the tape: the model was asked then.
        let forked = outcome.forked.unwrap();
        assert!((ms(1_200)..ms(1_400)).contains(&forked), "{forked}");
        assert!(!outcome.ended && steps.len() < told(&tape, &with).1.len());
    }

    #[test]
    fn a_bot_that_said_something_else_is_noticed() {
        let with = usual();
        let mut tape = with_a_bot(&with, &[(10, 9, 1_600), (5, 0, 0), (300, 9, 300), (40, 1, 0)]);
        let (outcome, steps) = told(&tape, &with);
        assert_eq!((outcome.forked, outcome.ended), (None, true), "{steps:#?}");
        tape = begun(&with, Conductor::Bot);
        append(&mut tape, ms(10), &Entry::BotAudio((&[0x90; 160][..]).into()));
        append(&mut tape, ms(10), &Entry::Play((&[0x91; 160][..]).into()));
        append(&mut tape, ms(900), &Entry::Stop("caller_hangup".into()));
        append(&mut tape, ms(900), &Entry::End);
        let (outcome, _) = told(&tape, &with);
        assert_eq!((outcome.forked, outcome.ended), (Some(ms(10)), true));
    }

    fn failure() -> impl Strategy<Value = Failure> {
        let kind = prop::sample::select(FailureKind::ALL.to_vec());
        ("\\PC{0,9}", kind, "\\PC{0,9}").prop_map(|(upstream, kind, why)| Failure { upstream, kind, why })
    }

    fn said() -> impl Strategy<Value = Told> {
        let text = || "\\PC{0,12}";
        let meaning = prop_oneof![
            Just(Meaning::App),
            text().prop_map(Meaning::Wrong),
            text().prop_map(|told| Meaning::Act(Action::Hangup, told)),
        ];
        let end = prop_oneof![
            Just(ResponseEnd::Completed),
            Just(ResponseEnd::Cancelled),
            failure().prop_map(ResponseEnd::Broken),
        ];
        let about = prop::option::of(prop_oneof![
            Just(About::Session),
            any::<bool>().prop_map(|busy| About::Response { busy }),
            Just(About::Other),
        ]);
        let audio = prop::collection::vec(any::<u8>(), 0..400);
        prop_oneof![
            prop::option::of(text()).prop_map(|audio| Told::Ready { audio }),
            Just(Told::SpeechStarted),
            Just(Told::SpeechStopped),
            text().prop_map(|response| Told::ResponseStarted { response }),
            (text(), text(), any::<u64>(), audio).prop_map(|(response, item, content, audio)| {
                Told::Audio { response, item, content, audio: audio.into() }
            }),
            (text(), text()).prop_map(|(response, item)| Told::AudioEnded { response, item }),
            (text(), text(), any::<u64>(), text()).prop_map(|(response, item, content, text)| {
                Told::Words { response, item, content, text }
            }),
            (text(), text(), text(), text(), meaning).prop_map(|(response, id, name, arguments, meaning)| {
                let call = FunctionCall { id, name, arguments, meaning };
                Told::FunctionCalled { response, call }
            }),
            (text(), end).prop_map(|(response, end)| Told::ResponseEnded { response, end }),
            text().prop_map(|text| Told::Partial { text }),
            text().prop_map(|text| Told::Transcript { text }),
            (about, failure()).prop_map(|(about, failure)| Told::Refused { about, failure }),
        ]
    }

    fn input() -> impl Strategy<Value = Input<'static>> {
        let answer =
            prop_oneof!["\\PC{0,12}".prop_map(|text| Ok((text, Action::Hangup))), failure().prop_map(Err),];
        let reason = prop::sample::select(StopReason::ALL.to_vec());
        prop_oneof![
            Just(Input::Linked),
            failure().prop_map(Input::Unlinked),
            any::<char>().prop_map(Input::Dtmf),
            said().prop_map(Input::Told),
            ("\\PC{0,12}", answer).prop_map(|(call, answer)| Input::FunctionAnswered { call, answer }),
            reason.prop_map(Input::Stop),
        ]
    }

    proptest! {
        #[test]
        fn all_that_a_model_says_comes_back_as_it_was(input in input(), us in any::<u64>()) {
            let at = CallTime::from_micros(us);
            let mut bytes = Vec::new();
            prop_assert!(encode(at, &Entry::of_model_input(&input), &mut bytes));
            let (then, entry) = decode(&bytes).unwrap();
            prop_assert_eq!(then, at);
            prop_assert!(!entry.is_output());
            prop_assert_eq!(format!("{:?}", entry.model_input().unwrap()), format!("{:?}", input));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_a_bot_does_is_the_same_again(
            does in prop::collection::vec((0u64..700, 0u8..9, 0usize..3_000), 1..30),
        ) {
            let with = usual();
            let tape = with_a_bot(&with, &does);
            let (outcome, steps) = told(&tape, &with);
            prop_assert_eq!((outcome.forked, outcome.ended), (None, true), "{:#?}", steps);
        }
    }
}
