//! When the caller has finished, and what happens when the caller says nothing at all.

use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::world::{Answer, World, settings, tone};

fn streams() -> Settings {
    Settings { hearing: Hearing::Stream, ..settings() }
}

/// When each utterance was taken to be over, after speech until 2,000 ms.
fn over(settings: Settings, speech: &[(u64, u64)], words: &[(u64, &'static str)]) -> Vec<u64> {
    let mut world = World::new(settings);
    world.speech = speech.to_vec();
    for (at, text) in words {
        world.schedule_at(CallTime::from_millis(*at), Input::Partial { text: (*text).into() });
    }
    world.run(9_000);
    let ended = world.timeline.iter().filter(|line| line.ends_with("(end_of_utterance)"));
    ended.map(|line| line.trim().split(' ').next().unwrap_or_default().parse().unwrap()).collect()
}

#[test]
fn words_move_the_end_of_an_utterance() {
    let speech = [(1000, 2000)];
    assert_eq!(over(streams(), &speech, &[(1_900, "a table for two")]), [2_440]);
    assert_eq!(over(streams(), &speech, &[(1_900, "a table for two people.")]), [2_280]);
    assert_eq!(over(streams(), &speech, &[(1_900, "a table for")]), [3_380]);
    // The pause was one for thought.
    let speech = [(1000, 2000), (2900, 3900)];
    let words = [(1_900, "a table for"), (3_800, "a table for seven people tonight.")];
    assert_eq!(over(streams(), &speech, &words), [4_180]);
}

#[test]
fn a_caller_who_goes_on_is_waited_for_longer() {
    let speech = [(1000, 2000), (2500, 3000), (6000, 7000)];
    assert_eq!(over(settings(), &speech, &[]), [2_440, 3_440, 7_440]);
    // 450, then 607 and 589.
    let adaptive = Settings { adaptive_eou: true, ..settings() };
    assert_eq!(over(adaptive, &speech, &[]), [2_440, 3_600, 7_600]);
}

#[test]
fn the_bots_own_words_are_no_turn_unless_the_caller_says_them() {
    for (from, questions) in [(4_000, 1), (8_000, 2)] {
        let mut world = World::new(Settings { barge_in: false, ..settings() });
        world.speech = vec![(1000, 2000), (from, from + 400)];
        world.stt = [Answer::Text(50, "hello"), Answer::Text(50, "Open from nine to five.")].into();
        world.agent = [Answer::Text(100, "We are open from nine to five on every day but Sunday.")].into();
        world.run(12_000);
        assert_eq!(world.questions.len(), questions, "{}", world.told());
        assert_eq!(world.told().contains("its own words"), questions == 1, "{}", world.told());
        assert_eq!(world.call.state(), State::Listening);
    }
}

fn asks_and_hangs_up() -> Settings {
    let phrase = |text: &str| Phrase { text: text.into(), audio: tone(500, 0xB0) };
    let silence = Silence {
        prompt_after: Some(Duration::from_secs(5)),
        prompt: phrase("Are you still there?"),
        hangup_after: Some(Duration::from_secs(9)),
        goodbye: phrase("Goodbye."),
    };
    Settings { silence, ..settings() }
}

#[test]
fn a_silent_caller_is_asked_once_and_told_goodbye() {
    let mut world = World::new(asks_and_hangs_up());
    world.speech = vec![(1000, 2000)];
    let timeline = world.run(20_000).told();
    let told: Vec<&str> =
        timeline.lines().map(str::trim).filter(|l| l.contains("idle") || l.contains("hang up")).collect();
    // The answer was heard until 3,290 ms.
    assert_eq!(
        told,
        ["8290 LISTENING → THINKING (idle)", "12290 LISTENING → THINKING (idle)", "12790 → hang up: bot_end"],
        "{timeline}"
    );
    assert_eq!(world.call.state(), State::Ended);
}

#[test]
fn a_caller_who_answers_the_question_is_not_told_goodbye() {
    let mut world = World::new(asks_and_hangs_up());
    world.speech = vec![(1000, 2000), (9_500, 10_500)];
    let timeline = world.run(15_000).told();
    assert_eq!(timeline.matches("(idle)").count(), 1, "{timeline}");
    assert_eq!(world.questions.len(), 2);
    // Not while a caller speaks for long, and not where it is off.
    let mut world = World::new(asks_and_hangs_up());
    world.speech = vec![(1000, 15_000)];
    assert!(!world.run(15_000).told().contains("idle"));
    let mut world = World::new(settings());
    assert_eq!(world.run(60_000).told(), "");
}

/// What was asked and dropped of the agent, and what was said, with an agent that is asked early.
fn early(
    speech: &[(u64, u64)],
    words: &[(u64, &'static str)],
    finals: [&'static str; 2],
) -> (World, Vec<String>) {
    let mut world = World::new(Settings { early_agent: true, ..streams() });
    world.speech = speech.to_vec();
    world.stt = finals.map(|text| Answer::Text(50, text)).into();
    for (at, text) in words {
        world.schedule_at(CallTime::from_millis(*at), Input::Partial { text: (*text).into() });
    }
    world.run(9_000);
    let told = world.timeline.iter().filter(|line| ["ask", "cancel", "say"].iter().any(|w| line.contains(w)));
    let told = told.map(|line| line.trim().to_owned()).collect();
    (world, told)
}

#[test]
fn an_agent_that_is_asked_early_answers_sooner_and_once() {
    let (world, told) = early(&[(1000, 2000)], &[(1_900, "a table for two")], ["A table for two.", ""]);
    // Its answer is there when the words are final, 440 + 50 ms after the speech.
    assert_eq!(told, ["2180 → ask 1: a table for two", "2490 → say 1: All right."]);
    assert!(world.told().contains("turn 1 answered"), "{}", world.told());
}

#[test]
fn what_was_asked_too_early_is_dropped_and_never_said() {
    // The caller goes on.
    let words = [(1_900, "a table for two"), (2_600, "a table for two and a chair")];
    let (world, told) = early(&[(1000, 2000), (2300, 3000)], &words, ["a table for two and a chair", ""]);
    assert_eq!(told[..2], ["2180 → ask 1: a table for two", "2320 → cancel Ask { turn: 1 }"]);
    assert!(told[2].ends_with("→ ask 2: a table for two and a chair"), "{told:?}");
    assert_eq!(told.iter().filter(|line| line.contains("say")).count(), 1, "{}", world.told());
    // The final words are others.
    let (world, told) = early(&[(1000, 2000)], &[(1_900, "a table for two")], ["a stable for two", ""]);
    assert_eq!(told[1..3], ["2490 → cancel Ask { turn: 1 }", "2490 → ask 2: a stable for two"]);
    assert_eq!(told.len(), 4, "{}", world.told());
    // Something has to follow.
    let (_, told) = early(&[(1000, 2000)], &[(1_900, "a table for")], ["a table for", ""]);
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn a_sentence_that_was_asked_early_is_over_when_its_answer_begins_or_by_habit() {
    for (agent_ms, told) in [(80, "2280 → finalize 1"), (2_000, "2440 → finalize 1")] {
        let mut world = World::new(Settings { early_agent: true, ..streams() });
        world.speech = vec![(1000, 2000)];
        world.agent = [Answer::Text(agent_ms, "All right.")].into();
        let text = "a table for two.".to_owned();
        world.schedule_at(CallTime::from_millis(1_900), Input::Partial { text });
        world.run(3_000);
        assert!(world.told().contains(told), "{}", world.told());
    }
}

#[test]
fn a_caller_who_speaks_in_place_of_keying_is_not_asked_for_keys_once_that_was_answered_early() {
    let mut world = World::new(Settings { early_agent: true, ..streams() });
    world.speech = vec![(1000, 2000), (5000, 6000)];
    world.stt = [Answer::Text(50, "hello"), Answer::Text(50, "none of them please")].into();
    let gather = Action::Gather(Gather::default());
    world.agent = [Answer::Then(100, "Please key it in.", gather), Answer::Text(100, "Then not.")].into();
    let words = Input::Partial { text: "none of them please".into() };
    world.schedule_at(CallTime::from_millis(5_900), words);
    world.run(20_000);
    let asked: Vec<&str> = world.questions.iter().map(|question| question.text.as_str()).collect();
    assert_eq!(asked, ["hello", "none of them please"], "{}", world.told());
}

#[test]
fn who_speaks_before_the_prompt_was_heard_is_not_told_goodbye_after_the_answer() {
    let mut settings = asks_and_hangs_up();
    settings.silence.prompt.audio = Bytes::new();
    let mut world = World::new(settings);
    // The prompt is asked for at 5,000 ms, and heard a second later.
    world.tts = Some(1_000);
    world.speech = vec![(5_100, 6_500)];
    let timeline = world.run(13_000).told();
    assert!(timeline.contains("turn 1 answered"), "{timeline}");
    assert!(!timeline.contains("hang up"), "{timeline}");
    assert_eq!(timeline.matches("(idle)").count(), 1, "{timeline}");
}
