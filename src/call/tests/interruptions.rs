//! The caller speaks while the bot does: when that ends the reply, and when the bot goes on.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::super::*;
use super::world::{Answer, Marks, World, settings};
use crate::audio::{APOLOGY, mulaw};
use crate::turn::{Endpointing, Vad};

const LONG: &str = "We are open from nine to five on every day but Sunday.";

/// A reply of 54 characters, 3,240 ms, that is heard from 2,690 ms on; the caller speaks from 4,000 ms
/// for so long, and a recogniser understands that (at this ms).
fn spoken_to(settings: Settings, ms: u64, words: &[(u64, &'static str)]) -> World {
    let mut world = World::new(settings);
    world.speech = vec![(1000, 2000), (4000, 4000 + ms)];
    world.agent = [Answer::Text(100, LONG)].into();
    for (at, text) in words {
        world.schedule_at(CallTime::from_millis(*at), Input::Partial { text: (*text).into() });
    }
    world.run(12_000);
    world
}

fn streams() -> Settings {
    Settings { hearing: Hearing::Stream, ..settings() }
}

/// What became of it: when the bot was held, and what then happened when.
fn outcome(world: &World) -> Vec<String> {
    let told = world
        .timeline
        .iter()
        .filter(|line| ["held", "goes on", "barge-in", "turn 1"].iter().any(|what| line.contains(what)));
    told.map(|line| line.trim().split(':').next().unwrap_or_default().to_owned()).collect()
}

/// The frames of the first reply that the caller heard, without those that were sent and cleared.
fn heard_of_the_reply(world: &World) -> usize {
    world.carried.iter().filter(|value| **value == 0x81).count()
}

#[test]
fn a_short_noise_holds_the_bot_for_a_moment_and_no_word_is_lost() {
    let world = spoken_to(settings(), 200, &[]);
    assert_eq!(outcome(&world), ["4100 held", "4620 goes on after 520 ms", "6460 turn 1 answered"]);
    assert_eq!(heard_of_the_reply(&world), 3_240 / 20, "every frame once");
    assert_eq!(world.questions.len(), 1, "it was no turn");
}

/// The same reply, a television during it, and a word of that.
fn with_a_television(settings: Settings, during: (u64, u64), word: Option<(u64, &'static str)>) -> World {
    let mut world = World::new(settings);
    world.speech = vec![(1000, 2000)];
    world.television = vec![during];
    world.agent = [Answer::Text(100, LONG)].into();
    if let Some((at, text)) = word {
        world.schedule_at(CallTime::from_millis(at), Input::Partial { text: text.into() });
    }
    world.run(12_000);
    world
}

#[test]
fn a_television_holds_the_bot_for_a_moment_and_takes_no_turn() {
    let world = with_a_television(settings(), (2_800, 3_900), None);
    assert!(world.told().contains("held"), "{}", world.told());
    assert!(world.told().contains("turn 1 answered"), "{}", world.told());
    assert_eq!(heard_of_the_reply(&world), 3_240 / 20, "every frame once");
}

#[test]
fn words_that_our_ear_takes_for_no_utterance_end_the_turn_and_do_not_take_it_up_again() {
    let world = with_a_television(streams(), (2_720, 3_400), Some((3_100, "no stop")));
    assert!(world.told().contains("turn 1 interrupted"), "{}", world.told());
    assert!(world.heard.iter().all(|heard| !heard.asked_again), "{:?}", world.heard);
}

/// However long a noise is that is no interruption yet, with words to come or without.
#[test]
fn whoever_did_not_interrupt_is_hearing_the_bot_again_within_700_ms() {
    for settings in [settings(), streams()] {
        let mut gone_on = 0;
        for ms in (100..=420).step_by(20) {
            let world = spoken_to(settings.clone(), ms, &[]);
            for line in outcome(&world) {
                if let Some((_, after)) = line.split_once(" goes on after ") {
                    gone_on += 1;
                    let after: u64 = after.trim_end_matches(" ms").parse().unwrap();
                    assert!(after <= 700, "a noise of {ms} ms: {line}");
                }
            }
        }
        assert!(gone_on >= 14, "{gone_on} noises held the bot");
    }
}

#[test]
fn words_tell_an_interruption_from_a_backchannel() {
    for (ms, words, expected) in [
        // Long, and still no more than an "uh huh".
        (
            600,
            &[(4_250, "uh huh"), (4_500, "uh huh yeah")][..],
            &["4100 held", "4780 goes on after 680 ms"][..],
        ),
        (1_500, &[(4_250, "mm hmm")], &["4100 held", "5600 goes on after 1500 ms"]),
        // Short, and clear.
        (200, &[(4_250, "stop")], &["4100 held", "4250 barge-in"]),
        (300, &[(4_250, "on"), (4_300, "on Tuesday")], &["4100 held", "4300 barge-in"]),
        // One word that is neither: it counts when nothing follows.
        (300, &[(4_250, "Tuesday")], &["4100 held", "4720 barge-in"]),
        // The bot's own words, come back.
        (300, &[(4_250, "open from nine to")], &["4100 held", "4720 goes on after 620 ms"]),
    ] {
        let world = spoken_to(streams(), ms, words);
        let told = outcome(&world);
        assert_eq!(told[..2], *expected, "{words:?}\n{}", world.told());
    }
}

#[test]
fn a_short_answer_to_the_last_words_is_a_turn_and_the_bot_ends_its_sentence() {
    // The reply is heard until 5,930 ms; carriers may say so late, or never.
    for streams in [false, true] {
        for marks in [Marks::Returned, Marks::LateBy(450), Marks::Never] {
            let hearing = if streams { Hearing::Stream } else { Hearing::Utterances };
            for from in [5_560, 5_700, 5_900] {
                let mut world = World::new(Settings { hearing, ..settings() });
                world.marks = marks;
                world.speech = vec![(1000, 2000), (from, from + 260)];
                world.stt = [Answer::Text(50, "hello"), Answer::Text(50, "yes")].into();
                world.agent = [Answer::Text(100, LONG)].into();
                if streams {
                    world.schedule_at(
                        CallTime::from_millis(from + 300),
                        Input::Partial { text: "yes".into() },
                    );
                }
                world.run(12_000);
                let line = format!("{marks:?} from {from}\n{}", world.told());
                assert_eq!(heard_of_the_reply(&world), 3_240 / 20, "{line}");
                let texts: Vec<&str> = world.questions.iter().map(|question| &*question.text).collect();
                assert_eq!(texts, ["hello", "yes"], "{line}");
                assert!(!world.questions[1].interrupted, "{line}");
            }
        }
    }
}

#[test]
fn a_yes_to_a_question_is_an_answer_and_to_a_statement_it_is_not() {
    let outcome_of = |reply| {
        let mut world = World::new(streams());
        // 2,690 to 4,430 ms; the caller speaks 200 ms later.
        world.speech = vec![(1000, 2000), (4_700, 5_000)];
        world.agent = [Answer::Text(100, reply)].into();
        world.schedule_at(CallTime::from_millis(5_050), Input::Partial { text: "yes".into() });
        world.run(12_000);
        (outcome(&world).join(", "), world.told())
    };
    let (asked, told) = outcome_of("Shall I book the table there? I can do that now, or a bit later.");
    assert!(asked.contains("barge-in"), "{told}");
    let (stated, told) = outcome_of("I can book a table for you now. I can do that now, or a bit later.");
    assert!(stated.contains("goes on"), "{told}");
}

#[test]
fn words_that_are_on_their_way_are_waited_for() {
    // 520 ms of a voice are enough to interrupt, where nobody is to say what it was.
    assert!(outcome(&spoken_to(settings(), 520, &[]))[1].contains("barge-in"));
    let world = spoken_to(streams(), 520, &[(4_700, "uh huh")]);
    assert_eq!(outcome(&world)[..2], ["4100 held", "4700 goes on after 600 ms"], "{}", world.told());
    // Words that never come do not make the caller wait for long.
    for (ms, stopped) in [(520, "4900 barge-in"), (3_000, "5100 barge-in")] {
        let world = spoken_to(streams(), ms, &[]);
        assert_eq!(outcome(&world)[1], stopped, "{}", world.told());
    }
}

#[test]
fn a_reply_gives_way_to_a_caller_who_goes_on() {
    // The reply could be heard from 2,690 ms on; the caller speaks again just before.
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000), (2_640, 3_600)];
    world.agent = [Answer::Text(100, "Never heard.")].into();
    world.run(9_000);
    assert!(world.told().contains("2820 THINKING → LISTENING (caller_went_on)"), "{}", world.told());
    assert_eq!(world.questions.len(), 2);
    assert!(world.played.iter().all(|(at, _)| *at > 4_000), "{}", world.told());
    // A click costs it a moment.
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000), (2_640, 2_700)];
    world.run(9_000);
    assert_eq!(world.played[0].0, 2_700, "{}", world.told());
    assert_eq!(world.questions.len(), 1);
}

#[test]
fn an_utterance_that_ended_before_it_was_understood_is_answered() {
    let eou = std::time::Duration::from_millis(400);
    let endpointing = Endpointing { eou, ..settings().endpointing };
    let world = spoken_to(Settings { endpointing, ..streams() }, 260, &[(4_670, "Tuesday")]);
    assert_eq!(outcome(&world)[..2], ["4100 held", "4680 barge-in"], "{}", world.told());
    assert_eq!(world.questions.len(), 2, "{}", world.told());
    assert!(world.questions[1].interrupted);
}

#[test]
fn who_interrupts_at_once_had_not_finished() {
    for streams in [false, true] {
        let hearing = if streams { Hearing::Stream } else { Hearing::Utterances };
        let mut world = World::new(Settings { hearing, ..settings() });
        world.speech = vec![(1000, 2000), (2800, 3800)];
        world.stt = [Answer::Text(50, "a table"), Answer::Text(50, "for two")].into();
        world.agent = [Answer::Text(100, LONG)].into();
        world.run(9_000);
        let texts: Vec<&str> = world.questions.iter().map(|question| &*question.text).collect();
        assert!(!world.questions[1].interrupted, "{}", world.told());
        assert!(world.told().contains("SPEAKING → LISTENING (caller_went_on)"), "{}", world.told());
        if streams {
            assert_eq!(texts, ["a table", "a table for two"]);
        } else {
            // Both are recognised again, as one.
            assert!(world.transcribed[1] > 2_800, "{:?}", world.transcribed);
        }
    }
}

#[test]
fn a_bot_that_may_not_be_interrupted_is_never_held() {
    let world = spoken_to(Settings { barge_in: false, ..settings() }, 1_000, &[]);
    assert!(!world.told().contains("held"), "{}", world.told());
    assert_eq!(heard_of_the_reply(&world), 3_240 / 20);
}

/// A call in which the bot speaks for ten seconds and is heard back, and nobody else speaks.
fn call_with_an_echo(gain_db: f32, delay_ms: usize) -> (usize, Vec<Event>) {
    let bot = APOLOGY.repeat(3);
    let greeting = Some(Phrase { text: "Sorry.".into(), audio: Bytes::from(bot.clone()) });
    let settings = Settings { greeting, vad: Vad::Neural, ..settings() };
    let mut call = Call::new(Arc::new(settings), CallTime::ZERO);
    let gain = 10f32.powf(gain_db / 20.0);
    // What the caller's telephone has played, and what it is still to play.
    let (mut played, mut queue) = (Vec::new(), VecDeque::new());
    let (mut heard, mut events, mut mark) = (0, Vec::new(), None);
    for n in 1..=800u64 {
        let now = CallTime::from_millis(n * 20);
        call.handle_timeout(now);
        while let Some(output) = call.poll_output() {
            match output {
                Output::Play { frame, .. } => queue.push_back(frame),
                Output::Clear => queue.clear(),
                Output::Mark(name) => mark = Some(name),
                Output::Event(event) => events.push(event),
                _ => {}
            }
        }
        let frame = queue.pop_front();
        heard += usize::from(frame.is_some());
        played.extend_from_slice(&frame.unwrap_or(Frame::SILENT).0);
        let at = played.len().checked_sub(delay_ms * BYTES_PER_MS + FRAME_BYTES);
        let echo = at.map_or(Frame::SILENT.0, |at| {
            std::array::from_fn(|i| mulaw::encode((f32::from(mulaw::decode(played[at + i])) * gain) as i16))
        });
        call.handle(Input::Media { payload: &echo, timestamp_ms: None }, now);
        if queue.is_empty()
            && let Some(mark) = mark.take()
        {
            call.handle(Input::Mark(&mark), now);
        }
    }
    assert_eq!(call.state(), State::Listening);
    (heard * FRAME_BYTES / bot.len(), events)
}

#[test]
fn a_bot_that_hears_itself_finishes_its_sentence() {
    for gain_db in [-20.0, -24.0, -28.0, -32.0, -36.0, -40.0] {
        for delay_ms in (80..=310).step_by(23) {
            let (whole, events) = call_with_an_echo(gain_db, delay_ms);
            let line = format!("{gain_db} dB after {delay_ms} ms");
            let stopped = |event: &Event| {
                matches!(
                    event,
                    Event::BargeIn { .. } | Event::BargeInHeld { .. } | Event::UtteranceEnded { .. }
                )
            };
            assert!(!events.iter().any(stopped), "{line}: {events:?}");
            assert_eq!(whole, 1, "{line}");
        }
    }
}
