//! What callers live through when the agent ends the call, puts it through, sends keys or asks for
//! digits, and when the carrier does not do what it is asked for.

use std::time::Duration;

use bytes::Bytes;
use insta::assert_snapshot;

use super::super::*;
use super::world::{Answer, Carrier, World, settings};

fn transfer() -> Action {
    Action::Transfer { to: Destination::Number("+15550100".into()) }
}

fn send_digits() -> Action {
    Action::SendDigits { digits: Keys::parse("1w2").unwrap() }
}

fn with_control() -> Settings {
    Settings { control: Some(Duration::from_secs(5)), ..settings() }
}

/// A caller who speaks from 1 to 2 s, and an agent who says this and then wants that done.
fn world(settings: Settings, text: &'static str, action: Action, carrier: Carrier) -> World {
    let mut world = World::new(settings);
    world.speech = vec![(1000, 2000)];
    world.agent = [Answer::Then(100, text, action)].into();
    world.carrier = [carrier].into();
    world
}

/// From the end of the first reply on.
fn since_played(world: &World) -> String {
    let from = world.timeline.iter().position(|line| line.contains("turn 1")).unwrap_or(0);
    world.timeline[from..].join("\n")
}

#[test]
fn a_call_is_ended_by_the_carrier_once_the_goodbye_has_been_heard() {
    let mut world = world(with_control(), "Goodbye then.", Action::Hangup, Carrier::Agrees(200, 50));
    assert_snapshot!(world.run(9000).told(), @r#"
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → transcribe 1700 ms
    2490 → ask 1: hello
    2590 → say 1: Goodbye then.
    2690 first frame, 710 ms after the end of speech
    2690 THINKING → SPEAKING (first_frame)
    3470 turn 1 answered
    3470 sent 39 frames
    3470 → Hangup
    3670 SPEAKING → ENDED (stopped)
    3670 ended: bot_end
    3670 → hang up: bot_end
    "#);
    assert_eq!(world.call.poll_timeout(), None);
}

#[test]
fn a_call_ends_whatever_the_carrier_answers_to_a_hang_up() {
    for (carrier, told) in [
        (Carrier::EndsFirst(30), None),
        (Carrier::AgreesOnly(200), None),
        (Carrier::Refuses(200), Some("carrier failed: answered 500")),
        (Carrier::Never, Some("carrier failed: no answer to hangup")),
    ] {
        let mut world = world(with_control(), "Goodbye then.", Action::Hangup, carrier);
        world.run(20_000);
        let ended = world.timeline.iter().any(|line| line.ends_with("ended: bot_end"));
        assert!(ended, "{carrier:?}\n{}", world.told());
        assert_eq!(told.is_some(), world.told().contains("carrier failed"), "{carrier:?}\n{}", world.told());
        assert!(world.told().contains(told.unwrap_or_default()), "{}", world.told());
        let closes = world.timeline.iter().filter(|line| line.contains("hang up")).count();
        assert_eq!(closes, usize::from(!matches!(carrier, Carrier::EndsFirst(_))), "{carrier:?}");
    }
}

#[test]
fn a_caller_is_put_through_once_that_has_been_said() {
    let mut world = world(with_control(), "One moment.", transfer(), Carrier::Agrees(200, 50));
    world.run(9000);
    assert_snapshot!(since_played(&world), @r#"
    3350 turn 1 answered
    3350 sent 33 frames
    3350 → Transfer { to: Number("+15550100") }
    3600 SPEAKING → ENDED (stopped)
    3600 ended: transfer
    "#);
    assert_eq!(world.call.state(), State::Ended);
}

#[test]
fn a_carrier_that_takes_the_call_elsewhere_need_not_answer_first() {
    for (action, reason) in [(transfer(), "transfer"), (send_digits(), "send_digits")] {
        for carrier in [Carrier::Agrees(200, 50), Carrier::EndsFirst(30), Carrier::AgreesOnly(200)] {
            let mut world = world(with_control(), "One moment.", action.clone(), carrier);
            world.run(20_000);
            assert!(world.told().contains(&format!("ended: {reason}")), "{carrier:?}\n{}", world.told());
        }
    }
}

#[test]
fn a_caller_who_is_not_put_through_is_told_and_the_agent_too() {
    let mut world = world(with_control(), "One moment.", transfer(), Carrier::Refuses(300));
    world.speech.push((6000, 7000));
    world.run(12_000);
    assert_snapshot!(since_played(&world), @r#"
    3350 turn 1 answered
    3350 sent 33 frames
    3350 → Transfer { to: Number("+15550100") }
    3650 carrier failed: answered 500
    3650 SPEAKING → LISTENING (action_failed)
    3650 LISTENING → THINKING (action_failed)
    3650 first frame, - after the end of speech
    3650 THINKING → SPEAKING (first_frame)
    4150 sent 25 frames
    4150 SPEAKING → LISTENING (played)
    7440 LISTENING → THINKING (end_of_utterance)
    7440 → transcribe 1700 ms
    7490 → ask 2: hello
    7590 → say 3: All right.
    7690 first frame, 710 ms after the end of speech
    7690 THINKING → SPEAKING (first_frame)
    8290 turn 2 answered
    8290 sent 30 frames
    8290 SPEAKING → LISTENING (played)
    "#);
    assert_eq!(world.stretches()[1].2, 0xED, "the apology for it");
    assert_eq!(world.questions[1].action_failed, Some("transfer"));
    assert_eq!(world.questions[1].heard, "No.");
}

#[test]
fn the_agent_is_told_once_of_what_failed() {
    let mut world = world(with_control(), "One moment.", send_digits(), Carrier::Never);
    world.speech.extend([(12_000, 13_000), (18_000, 19_000)]);
    world.run(24_000);
    let failed: Vec<_> = world.questions.iter().map(|question| question.action_failed).collect();
    assert_eq!(failed, [None, Some("send_digits"), None], "{}", world.told());
    assert_eq!(world.stretches()[1].2, 0xEE, "the apology");
}

#[test]
fn what_is_said_while_the_carrier_is_asked_is_answered_if_it_refuses() {
    // In the middle of the time-out of the carrier, which begins at about 3.4 s.
    let mut world = world(with_control(), "One moment.", transfer(), Carrier::Refuses(3000));
    world.speech.push((4000, 4800));
    world.run(15_000);
    assert_snapshot!(since_played(&world), @r#"
    3350 turn 1 answered
    3350 sent 33 frames
    3350 → Transfer { to: Number("+15550100") }
    6350 carrier failed: answered 500
    6350 SPEAKING → LISTENING (action_failed)
    6350 LISTENING → THINKING (action_failed)
    6350 first frame, - after the end of speech
    6350 THINKING → SPEAKING (first_frame)
    6850 sent 25 frames
    6850 SPEAKING → LISTENING (played)
    6850 LISTENING → THINKING (end_of_utterance)
    6850 → transcribe 1800 ms
    6900 → ask 2: hello
    7000 → say 3: All right.
    7100 first frame, 250 ms after the end of speech
    7100 THINKING → SPEAKING (first_frame)
    7700 turn 2 answered
    7700 sent 30 frames
    7700 SPEAKING → LISTENING (played)
    "#);
    assert_eq!(world.questions.len(), 2);
}

#[test]
fn without_an_apology_the_caller_has_the_floor_at_once() {
    let silent =
        Settings { apology: Phrase::default(), transfer_apology: Phrase::default(), ..with_control() };
    let mut world = world(silent, "One moment.", transfer(), Carrier::Refuses(300));
    world.run(9000);
    assert!(since_played(&world).ends_with("SPEAKING → LISTENING (action_failed)"), "{}", world.told());
}

#[test]
fn an_action_without_a_word_is_done_at_once() {
    let mut world = world(with_control(), "", transfer(), Carrier::Agrees(200, 50));
    world.run(9000);
    assert_snapshot!(since_played(&world), @r#"
    2590 turn 1 answered
    2590 → Transfer { to: Number("+15550100") }
    2840 THINKING → ENDED (stopped)
    2840 ended: transfer
    "#);
}

#[test]
fn nothing_is_done_that_the_caller_would_not_hear_announced() {
    let mut world =
        world(with_control(), "I am putting you through to an agent.", transfer(), Carrier::Never);
    world.speech.push((3500, 4500));
    world.run(12_000);
    assert!(
        world.told().contains("turn 1 interrupted") && !world.told().contains("Transfer"),
        "{}",
        world.told()
    );
}

#[test]
fn without_control_a_hang_up_closes_and_the_rest_is_ignored() {
    for (action, told) in [
        (Action::Hangup, "→ hang up: bot_end"),
        (transfer(), "ignored: transfer"),
        (send_digits(), "ignored: send_digits"),
    ] {
        for text in ["One moment.", ""] {
            let mut world = world(settings(), text, action.clone(), Carrier::Never);
            world.run(9000);
            assert!(world.told().contains(told), "{}", world.told());
            assert!(!world.told().contains("carrier"), "{}", world.told());
        }
    }
}

#[test]
fn a_hang_up_may_be_left_to_what_follows_the_stream() {
    let settings = Settings { ask_to_hang_up: false, ..with_control() };
    for text in ["Goodbye then.", ""] {
        let mut world = world(settings.clone(), text, Action::Hangup, Carrier::Never);
        world.run(9000);
        assert!(world.told().ends_with("→ hang up: bot_end"), "{}", world.told());
        assert!(!world.told().contains("→ Hangup"), "{}", world.told());
    }
}

#[test]
fn keys_during_a_control_do_not_interrupt_it() {
    let mut world = world(with_control(), "One moment.", transfer(), Carrier::Refuses(2000));
    world.schedule_at(CallTime::from_millis(4500), Input::Dtmf('7'));
    world.run(15_000);
    assert!(!world.told().contains("barge-in"), "{}", world.told());
    assert_eq!(world.questions[1].dtmf.as_deref(), Some("7"));
}

// ---- digits that the agent asks for ---------------------------------------------------------------

fn four() -> Action {
    Action::Gather(Gather { num_digits: Some(4), ..Gather::default() })
}

/// The keys of the second question, with these pressed at these times.
fn keyed(action: Action, keys: &[(u64, char)], speech: &[(u64, u64)]) -> World {
    let mut world = world(settings(), "Your number, please.", action, Carrier::Never);
    world.speech.extend(speech);
    for (at, key) in keys {
        world.schedule_at(CallTime::from_millis(*at), Input::Dtmf(*key));
    }
    world.run(20_000);
    world
}

#[test]
fn digits_that_were_asked_for_come_as_the_next_turn() {
    let keys = [(5000, '4'), (7000, '7'), (9500, '1'), (9600, '1')];
    let world = keyed(four(), &keys, &[]);
    assert_eq!(world.questions[1].dtmf.as_deref(), Some("4711"));
    assert!(world.told().contains("  9600 → ask 2: 4711"), "as soon as they are complete\n{}", world.told());
    assert_eq!(world.questions.len(), 2);
}

#[test]
fn who_keys_nothing_is_told_of_where_the_agent_asked() {
    let world = keyed(four(), &[], &[]);
    // The reply of 20 characters is heard from 2.69 s on, for 1.2 s.
    assert!(world.told().contains("  8890 → ask 2: \n"), "{}", world.told());
    assert_eq!(world.questions[1].dtmf.as_deref(), Some(""));
    assert_eq!(world.questions.len(), 2, "and only once");
    let unasked = keyed(Action::None, &[], &[]);
    assert_eq!(unasked.questions.len(), 1);
}

#[test]
fn keys_that_interrupt_the_question_count() {
    let world = keyed(four(), &[(3000, '4'), (5500, '7'), (6000, '1'), (8500, '1')], &[]);
    assert!(world.told().contains("barge-in"), "{}", world.told());
    assert_eq!(world.questions[1].dtmf.as_deref(), Some("4711"));
}

#[test]
fn who_speaks_in_place_of_keying_is_answered() {
    // When the time for the keys ends, the caller is in the middle of a sentence.
    let world = keyed(four(), &[], &[(8500, 9500)]);
    assert_eq!((&*world.questions[1].text, &world.questions[1].dtmf), ("hello", &None));
    assert_eq!(world.questions.len(), 2, "the keys are not waited for any more\n{}", world.told());
}

#[test]
fn a_noise_in_place_of_keys_is_no_answer() {
    let mut world = world(settings(), "Your number, please.", four(), Carrier::Never);
    world.stt = [Answer::Text(50, "hello"), Answer::Text(50, "")].into();
    world.speech.push((8500, 9500));
    world.run(20_000);
    assert_eq!(world.questions[1].dtmf.as_deref(), Some(""), "{}", world.told());
}

// ---- a call that comes back -----------------------------------------------------------------------

#[test]
fn a_call_that_comes_back_goes_on_where_it_was() {
    let mut first = world(with_control(), "One moment.", send_digits(), Carrier::Agrees(200, 50));
    first.run(9000);
    let memory = first.call.memory();
    assert_eq!(memory.turns(), 1);
    let mut second = World::new(Settings { memory, ..with_control() });
    second.speech = vec![(1000, 2000)];
    // What was asked for before the stream ended is answered now.
    second.schedule_at(CallTime::from_millis(10), Input::ReplyText { turn: 1, text: "Too late.".into() });
    second.schedule_at(
        CallTime::from_millis(10),
        Input::Speech { segment: 1, audio: Bytes::from_static(&[1; 160]) },
    );
    second.run(5000);
    assert_eq!((second.questions[0].turn, &*second.questions[0].heard), (2, "One moment."));
    assert!(second.told().contains("→ say 2: All right."), "{}", second.told());
    assert_eq!(second.stretches().len(), 1, "{}", second.told());
}

#[test]
fn the_turns_of_a_call_that_nobody_knows_any_more_are_no_repeats() {
    assert_eq!(Memory::default().after(0).turns(), 0);
    assert_eq!(Memory::default().after(2).turns(), 20_000);
    let known = Memory::default().after(3);
    assert_eq!(known.after(1).turns(), 30_000, "it is known better");
}
