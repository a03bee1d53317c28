//! Callers who must not be left without an answer, and what a call must not forget on the way.

use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::world::{Answer, World, settings, tone};

const MENU: &str = "You can say check my balance, or talk to an agent. We are here from nine to five on every day but Sunday.";

fn streams() -> Settings {
    Settings { hearing: Hearing::Stream, ..settings() }
}

fn texts(world: &World) -> Vec<&str> {
    world.questions.iter().map(|question| question.text.as_str()).collect()
}

/// The caller speaks from then on, after the bot has said this.
fn said_after(said: &'static str, from: u64, words: &'static str) -> World {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000), (from, from + 900)];
    world.stt = [Answer::Text(50, "hello"), Answer::Text(50, words)].into();
    world.agent = [Answer::Text(100, said)].into();
    world.run(14_000);
    world
}

#[test]
fn what_the_bot_has_offered_may_be_said_in_its_own_words() {
    // The menu is heard from 2,680 ms on, its first sentence until 5,700.
    let world = said_after(MENU, 7_500, "Talk to an agent.");
    assert!(world.told().contains("barge-in"), "{}", world.told());
    assert_eq!(texts(&world), ["hello", "Talk to an agent."], "{}", world.told());
    // An echo says what is being said.
    let world = said_after(MENU, 7_500, "from nine to five");
    assert!(world.told().contains("its own words: from nine to five"), "{}", world.told());
    // The question is heard until 4,940 ms, and its last words are half a second of it.
    let question = "Is it for delivery or for pick up?";
    let world = said_after(question, 5_200, "for pick up");
    assert_eq!(texts(&world), ["hello", "for pick up"], "{}", world.told());
    let world = said_after(question, 4_400, "for pick up");
    assert!(world.told().contains("its own words: for pick up"), "{}", world.told());
}

/// It hears the echo of the whole reply, and tells all of it with the next noise.
#[test]
fn an_echo_that_a_streaming_recogniser_has_heard_all_along_interrupts_nobody() {
    let heard = "you can say check my balance or talk to an agent we are here";
    let mut world = World::new(streams());
    world.speech = vec![(1000, 2000), (7_500, 7_700)];
    world.stt = [Answer::Text(50, "hello"), Answer::Text(50, heard)].into();
    world.agent = [Answer::Text(100, MENU)].into();
    world.schedule_at(CallTime::from_millis(7_650), Input::Partial { text: heard.into() });
    world.run(14_000);
    assert!(world.told().contains("goes on after"), "{}", world.told());
    assert_eq!(texts(&world), ["hello"], "{}", world.told());
}

/// Loud, and too short for an utterance that says something new.
fn noise_while_thinking(mut world: World) -> World {
    world.speech.extend([(2_700, 2_740), (2_760, 2_820), (2_840, 2_940)]);
    world.run(9_000);
    assert!(world.told().contains("(caller_went_on)"), "{}", world.told());
    world
}

#[test]
fn a_noise_while_the_agent_thinks_costs_no_answer() {
    for hearing in [Hearing::Utterances, Hearing::Stream] {
        let mut world = World::new(Settings { hearing, ..settings() });
        world.speech = vec![(1000, 2000)];
        let again = if hearing == Hearing::Stream { "" } else { "hello" };
        world.stt = [Answer::Text(50, "hello"), Answer::Text(50, again)].into();
        world.agent = [Answer::Text(900, "Never heard.")].into();
        let world = noise_while_thinking(world);
        assert_eq!(texts(&world), ["hello", "hello"], "{}", world.told());
        assert!(world.told().contains("turn 2 answered"), "{}", world.told());
    }
}

#[test]
fn keys_are_asked_again_if_what_came_after_them_was_nothing() {
    for (hearing, words, then) in [
        (Hearing::Utterances, "", ("7", Some("7"))),
        (Hearing::Stream, "", ("7", Some("7"))),
        (Hearing::Utterances, "okay", ("okay", None)),
        (Hearing::Stream, "okay", ("okay", None)),
    ] {
        let mut world = World::new(Settings { hearing, ..settings() });
        world.stt = [Answer::Text(50, words)].into();
        world.agent = [Answer::Text(2_000, "Never heard.")].into();
        world.schedule_at(CallTime::from_millis(500), Input::Dtmf('7'));
        let world = noise_while_thinking(world);
        let asked: Vec<_> = world.questions.iter().map(|q| (q.text.as_str(), q.dtmf.as_deref())).collect();
        assert_eq!(asked, [("7", Some("7")), then], "{}", world.told());
        let second = &world.questions[1];
        assert_eq!((second.turn, second.interrupted, second.heard.as_str()), (2, true, ""));
        // So that they stand once in what a model is told.
        let again = world.heard.iter().filter(|heard| heard.asked_again).map(|heard| heard.turn);
        assert_eq!(again.collect::<Vec<_>>(), vec![1; usize::from(then.1.is_some())], "{:?}", world.heard);
    }
}

#[test]
fn keys_that_are_asked_again_have_a_turn_of_their_own_and_no_fault_in_between_costs_them() {
    let mut world = World::new(Settings { early_agent: true, ..streams() });
    world.stt = [Answer::Text(50, "")].into();
    world.agent = [Answer::Text(2_000, "Never heard."), Answer::Text(2_000, "Never heard.")].into();
    world.schedule_at(CallTime::from_millis(500), Input::Dtmf('7'));
    world.schedule_at(CallTime::from_millis(2_900), Input::Partial { text: "one moment.".into() });
    let world = noise_while_thinking(world);
    let asked: Vec<_> = world.questions.iter().map(|q| (q.turn, q.text.as_str())).collect();
    assert_eq!(asked, [(1, "7"), (2, "one moment."), (3, "7")], "{}", world.told());
    let again: Vec<_> =
        world.heard.iter().filter(|heard| heard.asked_again).map(|heard| heard.turn).collect();
    assert_eq!(again, [2, 1], "{:?}", world.heard);
    // Nor does a recogniser that fails.
    let mut world = World::new(settings());
    world.stt = [Answer::Fails(50)].into();
    world.agent = [Answer::Text(2_000, "Never heard.")].into();
    world.schedule_at(CallTime::from_millis(500), Input::Dtmf('7'));
    let world = noise_while_thinking(world);
    assert_eq!(texts(&world), ["7", "7"], "{}", world.told());
    assert!(
        world.told().contains("stt failed") && world.told().contains("turn 2 answered"),
        "{}",
        world.told()
    );
}

#[test]
fn an_answer_to_keys_that_collides_with_the_caller_is_told_as_one_that_was_interrupted() {
    let mut world = World::new(settings());
    world.schedule_at(CallTime::from_millis(500), Input::Dtmf('7'));
    world.agent = [Answer::Text(100, MENU)].into();
    // It is heard from 2,700 ms on.
    world.speech = vec![(3_000, 4_000)];
    world.run(9_000);
    assert!(world.told().contains("SPEAKING → LISTENING (caller_went_on)"), "{}", world.told());
    let second = &world.questions[1];
    assert_eq!((second.text.as_str(), second.interrupted, second.heard.as_str()), ("hello", true, ""));
}

#[test]
fn words_of_a_turn_that_was_over_are_no_part_of_the_next() {
    let mut world = World::new(streams());
    // As an agent that answers keys with nothing.
    world.agent = [Answer::Text(100, "")].into();
    world.stt = [Answer::Text(50, "one"), Answer::Text(600, "a table"), Answer::Text(50, "for two")].into();
    world.speech = vec![(1000, 2000), (4_000, 5_000), (5_560, 6_500)];
    world.run(12_000);
    assert_eq!(texts(&world), ["one", "a table for two"], "{}", world.told());
}

#[test]
fn the_words_of_a_backchannel_do_not_stay() {
    let mut world = World::new(Settings { early_agent: true, ..streams() });
    world.speech = vec![(1000, 2000), (4_000, 4_600), (9_500, 10_500)];
    world.agent =
        [Answer::Text(100, "We are open from nine to five on every day but Sunday. Anything else?")].into();
    world.schedule_at(CallTime::from_millis(4_250), Input::Partial { text: "uh huh".into() });
    world.run(12_000);
    assert!(world.told().contains("goes on after 680 ms"), "{}", world.told());
    assert_eq!(texts(&world), ["hello", "hello"], "{}", world.told());
}

#[test]
fn a_stream_that_breaks_in_mid_reply_leaves_what_was_heard_of_it() {
    for reason in [Some(StopReason::WsLost), None] {
        let mut world = World::new(settings());
        world.speech = vec![(1000, 2000)];
        world.agent = [Answer::Text(100, MENU)].into();
        world.run(6_500);
        match reason {
            Some(reason) => {
                world.schedule_at(CallTime::from_millis(6_500), Input::Stop(reason));
                world.run(7_000);
            }
            None => {
                // No audio comes any more.
                world.now = CallTime::from_millis(6_500 + 30_000);
                // It is noticed, and then given up.
                (0..2).for_each(|_| world.call.handle_timeout(world.now));
                world.run(0);
            }
        }
        let heard = world.heard.last().expect("what was heard").clone();
        assert!(heard.interrupted && heard.turn == 1, "{heard:?}");
        let known = world.call.memory().previous;
        assert_eq!((known.heard, known.interrupted), (heard.text, true));
        assert!(MENU.starts_with(&world.call.memory().previous.heard));
    }
}

#[test]
fn a_goodbye_that_has_no_voice_is_still_the_end() {
    let goodbye = Phrase { text: "Goodbye.".into(), audio: Bytes::new() };
    let silence = Silence { hangup_after: Some(Duration::from_secs(3)), goodbye, ..Silence::default() };
    for apology in [settings().apology, Phrase::default()] {
        let mut world = World::new(Settings { silence: silence.clone(), apology, ..settings() });
        world.tts = None;
        world.run(20_000);
        assert!(world.told().contains("hang up: bot_end"), "{}", world.told());
    }
}

#[test]
fn a_filler_that_nothing_came_of_gives_way_to_the_caller() {
    let filler = Phrase { text: "One moment, please.".into(), audio: tone(2_000, 0xF1) };
    let mut world = World::new(Settings { filler, filler_after: Duration::from_millis(600), ..settings() });
    world.stt = [Answer::Text(1_000, "")].into();
    world.speech = vec![(1000, 2000), (3_700, 4_700)];
    world.run(9_000);
    let cleared = world.timeline.iter().find(|line| line.contains("→ clear"));
    assert_eq!(cleared.map(|line| line.trim()), Some("3740 → clear"), "{}", world.told());
}
