//! What waits for the model's line, for the end of what it is at, and for the network behind the clock.

use super::super::*;
use super::world::{Given, Reply, World, manner};

/// When something was told, in ms.
fn times(world: &World, what: &str) -> Vec<u64> {
    let told = world.timeline.iter().filter(|line| line.contains(what));
    told.map(|line| line.split_whitespace().next().unwrap_or_default().parse().unwrap()).collect()
}

#[test]
fn a_cough_while_the_line_is_dialled_takes_nothing_of_the_utterance_that_waits() {
    for cough in [vec![], vec![(2_600, 2_720)]] {
        let mut world = World::new(manner(Ears::Ours));
        world.dial_takes = 4_000;
        world.speech = [vec![(1_000, 2_000)], cough].concat();
        world.run(9_000);
        assert_eq!(world.committed, [300 + 940 + 460], "pre-roll, speech, silence: {}", world.told());
        assert_eq!(world.given, world.committed[0], "{}", world.told());
        assert!(world.told().contains("turn 1 answered"), "{}", world.told());
    }
}

#[test]
fn what_is_being_said_when_the_line_comes_belongs_to_the_next_utterance() {
    let mut world = World::new(manner(Ears::Ours));
    world.dial_takes = 4_000;
    world.speech = vec![(1_000, 2_000), (3_600, 5_000)];
    world.run(9_000);
    assert_eq!(world.committed, [1_700, 1_700 + 300 + 1_340 + 460], "{}", world.told());
    assert_eq!(times(&world, "→ commit"), [4_000, 5_440], "{}", world.told());
}

#[test]
fn a_response_that_never_ends_is_let_go_of_while_the_app_is_at_a_function_that_nobody_waits_for() {
    let mut world = World::new(manner(Ears::Ours));
    world.speech = vec![(1_000, 2_000), (3_000, 3_500)];
    world.replies = [Reply::Nothing].into();
    let (response, name) = (|| "r1".to_owned(), "order_status".to_owned());
    let call = FunctionCall { id: "c1".into(), name, arguments: "{}".into(), meaning: Meaning::App };
    world.at(2_600, Given::Input(Input::Told(Told::ResponseStarted { response: response() })));
    world.at(2_600, Given::Input(Input::Told(Told::FunctionCalled { response: response(), call })));
    world.run(12_000);
    let dropped = times(&world, "→ cancel r1")[0];
    assert_eq!(times(&world, "→ respond"), [2_440, dropped + 2_000], "{}", world.told());
}

#[test]
fn the_last_syllable_is_on_its_way_for_a_while_where_marks_do_not_come_back() {
    let mut world = World::new(manner(Ears::Models));
    world.marks = false;
    world.speech = vec![(1_000, 2_000), (6_000, 7_000)];
    let hang_up = Meaning::Act(Action::Hangup, "After your goodbye.".to_owned());
    world.replies =
        [Reply::Says(4, "All right."), Reply::Calls("hangup", hang_up), Reply::Says(4, "Goodbye.")].into();
    world.run(12_000);
    let (last, _) = world.played[world.played.len() - 1];
    let [hung_up] = times(&world, "→ hang up")[..] else { panic!("{}", world.told()) };
    // The carrier plays the last frame a lead of 100 ms after it was sent.
    assert_eq!(hung_up, last + 100 + 500, "{}", world.told());
}
