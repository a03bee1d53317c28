//! How a call ends that has to, whoever is speaking; and what is still on its way when the clock has played all.

use super::super::*;
use super::world::{Answer, Marks, World, settings};

const GOODBYE: &str = "We have to end this call. Goodbye.";
const LONG: &str = "We are open from nine to five on every day but Sunday, and on Sunday we are not open at all, \
                    whatever the sign at the door may say, which is much older than all of us. Anything else?";

fn times(world: &World, what: &str) -> Vec<u64> {
    let told = world.timeline.iter().filter(|line| line.contains(what));
    told.map(|line| line.split_whitespace().next().unwrap_or_default().parse().unwrap()).collect()
}

/// Told to end at 4,000 ms; what was said of it was said whole, and nothing behind it.
fn told_to_end(prepare: impl FnOnce(&mut World)) -> World {
    let mut world = World::new(settings());
    prepare(&mut world);
    world.schedule_at(CallTime::from_millis(4_000), Input::LastWords { text: GOODBYE.into() });
    world.run(20_000);
    let told = world.told();
    let said = told.split_once("say ").map_or("", |(_, rest)| rest);
    assert_eq!(times(&world, "We have to end"), [4_000], "{told}");
    assert_eq!(world.call.state(), State::Ended, "{told}");
    assert!(told.ends_with("→ hang up: bot_end"), "{told}");
    assert!(said.contains("We have to end this call.") && said.contains(": Goodbye."), "{told}");
    let last = world.heard.last().map(|heard| (heard.text.clone(), heard.interrupted));
    assert_eq!(last, Some((GOODBYE.to_owned(), false)), "{told}");
    world
}

#[test]
fn a_call_that_has_to_end_does_so_in_the_middle_of_a_long_reply() {
    let world = told_to_end(|world| {
        world.speech = vec![(1_000, 2_000)];
        world.agent = [Answer::Text(100, LONG)].into();
    });
    assert_eq!(times(&world, "→ clear"), [4_000], "{}", world.told());
    assert!(world.told().contains("turn 1 interrupted"), "{}", world.told());
}

#[test]
fn nobody_talks_its_last_words_down() {
    for barge_in in [true, false] {
        let mut world = told_to_end(|world| {
            world.call = Call::new(Settings { barge_in, ..settings() }.into(), CallTime::ZERO);
            world.speech = vec![(1_000, 20_000)];
        });
        assert_eq!(world.questions.len(), 0, "{}", world.run(20_000).told());
    }
    // Nor does a key.
    told_to_end(|world| {
        world.schedule_at(CallTime::from_millis(3_900), Input::Dtmf('1'));
        world.schedule_at(CallTime::from_millis(5_000), Input::Dtmf('2'));
    });
}

#[test]
fn what_was_asked_is_not_answered_before_it() {
    for agent in [Answer::Never, Answer::Text(1_600, "All right.")] {
        let world = told_to_end(|world| {
            world.speech = vec![(1_000, 2_000)];
            world.agent = [agent].into();
        });
        assert!(!world.told().contains("All right."), "{}", world.told());
    }
}

#[test]
fn a_voice_that_fails_holds_no_call_that_has_to_end() {
    let mut world = World::new(settings());
    world.tts = None;
    world.schedule_at(CallTime::from_millis(4_000), Input::LastWords { text: GOODBYE.into() });
    world.run(12_000);
    assert_eq!(times(&world, "→ hang up: bot_end"), [10_500], "with an apology: {}", world.told());
}

#[test]
fn a_goodbye_that_is_being_said_is_not_said_again() {
    let mut world = World::new(settings());
    world.speech = vec![(1_000, 2_000)];
    world.agent = [Answer::ThenHangup(100, "Goodbye, and do come again when the weather is good.")].into();
    world.schedule_at(CallTime::from_millis(4_000), Input::LastWords { text: GOODBYE.into() });
    let told = world.run(12_000).told();
    assert!(!told.contains("We have to end") && told.contains("turn 1 answered"), "{told}");
    assert_eq!(world.call.state(), State::Ended);
}

#[test]
fn the_last_syllable_is_on_its_way_for_a_while_where_marks_do_not_come_back() {
    let elsewhere = Destination::Number("+15550100".into());
    for action in [Action::Hangup, Action::Transfer { to: elsewhere }, Action::None] {
        let control = Some(Duration::from_secs(5)).filter(|_| action != Action::Hangup);
        let mut world = World::new(Settings { control, ..settings() });
        world.marks = Marks::Never;
        world.speech = vec![(1_000, 2_000), (6_000, 7_000)];
        let leaves = action != Action::None;
        world.agent = [Answer::Text(100, "All right."), Answer::Then(100, "See you.", action)].into();
        world.run(12_000);
        let (last, _) = world.played[world.played.len() - 1];
        // The carrier plays the last frame a lead of 100 ms after it was sent.
        let slack = if leaves { 500 } else { 0 };
        assert_eq!(times(&world, "turn 2 answered"), [last + 100 + slack], "{}", world.told());
    }
}
