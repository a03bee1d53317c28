//! What callers live through, one story each.

use insta::assert_snapshot;

use super::super::*;
use super::world::{Given, Reply, World, failure, manner};
use crate::call::FailureKind;

const LONG: &str = "We are open from nine to five on every day but Sunday. Anything else?";

#[test]
fn a_question_and_its_answer_by_the_models_ear() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000)];
    assert_snapshot!(world.run(5000).told(), @"");
    assert_eq!(world.given, 5000, "the model is given all that there is");
}

#[test]
fn a_question_and_its_answer_by_our_ear() {
    let mut world = World::new(manner(Ears::Ours));
    world.speech = vec![(1000, 2000)];
    assert_snapshot!(world.run(5000).told(), @"");
    assert_eq!(world.given, 300 + 940 + 460, "pre-roll, speech, silence");
}

#[test]
fn the_caller_interrupts_and_the_model_learns_how_far_it_was_heard() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000), (4000, 5000)];
    world.replies = [Reply::Says(4, LONG)].into();
    assert_snapshot!(world.run(9000).told(), @"");
}

#[test]
fn our_ear_interrupts_and_stops_the_model() {
    let mut world = World::new(manner(Ears::Ours));
    world.speech = vec![(1000, 2000), (3500, 4500)];
    world.replies = [Reply::Says(2, LONG)].into();
    assert_snapshot!(world.run(9000).told(), @"");
}

#[test]
fn what_comes_late_of_a_stopped_reply_is_not_heard_and_one_that_does_not_stop_is_told_to() {
    let mut world = World::new(manner(Ears::Models));
    world.stops = false;
    world.speech = vec![(1000, 2000), (3500, 4500)];
    world.replies = [Reply::Says(2, LONG)].into();
    world.run(9000);
    assert!(world.told().contains("→ cancel r1"), "{}", world.told());
    let cleared = world.timeline.iter().find(|line| line.ends_with("→ clear")).expect("a clear");
    let at: u64 = cleared.split_whitespace().next().and_then(|ms| ms.parse().ok()).expect("a time");
    assert!(world.played.iter().all(|(ms, value)| *value != 0x81 || *ms <= at), "{:?}", world.played);
}

#[test]
fn a_caller_who_goes_on_before_anything_was_heard_is_answered_once() {
    let mut world = World::new(manner(Ears::Ours));
    world.speech = vec![(1000, 2000), (2500, 3500)];
    assert_snapshot!(world.run(6000).told(), @"");
}

#[test]
fn the_model_greets() {
    let opening = Some("Hello there.".to_owned());
    let mut world = World::new(Manner { opening, ..manner(Ears::Models) });
    assert_snapshot!(world.run(3000).told(), @"");
}

#[test]
fn the_app_does_what_the_model_wants_done() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000)];
    world.replies = [Reply::Calls("order_status", Meaning::App), Reply::Says(4, "It is on its way.")].into();
    world.app = [(800, Ok(("shipped".to_owned(), Action::None)))].into();
    assert_snapshot!(world.run(8000).told(), @"");
}

#[test]
fn an_app_that_does_not_answer_is_not_waited_for_for_ever() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000)];
    world.replies = [Reply::Calls("order_status", Meaning::App), Reply::Says(4, "I cannot tell.")].into();
    assert_snapshot!(world.run(12_000).told(), @"");
}

#[test]
fn a_model_that_hangs_up_is_heard_to_its_end() {
    let hang_up = || Meaning::Act(Action::Hangup, "After your goodbye.".to_owned());
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000)];
    world.replies = [Reply::Calls("hangup", hang_up()), Reply::Says(4, "Goodbye.")].into();
    assert_snapshot!(world.run(8000).told(), @"");
}

#[test]
fn a_response_that_fails_and_one_that_never_comes_are_apologised_for() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000), (5000, 6000)];
    world.replies = [Reply::Fails, Reply::Nothing].into();
    assert_snapshot!(world.run(16_000).told(), @"");
}

#[test]
fn a_line_that_is_lost_in_mid_reply_comes_back() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000), (8000, 9000)];
    world.replies = [Reply::Says(2, LONG)].into();
    world.at(2600, Given::Input(Input::Told(Told::Transcript { text: "when are you open".into() })));
    let lost = failure(FailureKind::Protocol, "the network: the model was lost");
    world.at(3200, Given::Input(Input::Unlinked(lost)));
    assert_snapshot!(world.run(12_000).told(), @"");
}

#[test]
fn a_model_that_cannot_be_reached_is_apologised_for_and_the_call_ends() {
    for ears in [Ears::Models, Ears::Ours] {
        let mut world = World::new(Manner { opening: Some(String::new()), ..manner(ears) });
        let refused = || Err(failure(FailureKind::Connect, "the network: connection refused"));
        world.dials = [refused(), refused(), refused()].into();
        world.run(5000);
        assert_eq!(world.heard_ms(0xEE), 500, "{}", world.told());
        assert_eq!(world.timeline.iter().filter(|line| line.ends_with("→ dial")).count(), 3);
        assert!(world.told().ends_with("→ hang up: error"), "{}", world.told());
    }
    // What is wrong with the configuration will not mend itself.
    let mut world = World::new(manner(Ears::Models));
    world.dials = [Err(failure(FailureKind::Http4xx, "your config: api_key"))].into();
    assert_snapshot!(world.run(5000).told(), @"");
}

#[test]
fn where_the_caller_may_not_interrupt_both_are_answered_in_their_turn() {
    let mut world = World::new(Manner { interrupts: false, ..manner(Ears::Ours) });
    world.speech = vec![(1000, 2000), (3000, 4000)];
    world.replies = [Reply::Says(4, LONG)].into();
    assert_snapshot!(world.run(12_000).told(), @"");
    assert_eq!(world.heard_ms(0x81), LONG.len() * 60);
}

#[test]
fn keys_are_told_and_interrupt() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000)];
    world.replies = [Reply::Says(2, LONG)].into();
    for (ms, key) in [(3500, '4'), (3600, '2'), (3700, '#')] {
        world.at(ms, Given::Input(Input::Dtmf(key)));
    }
    assert_snapshot!(world.run(7000).told(), @"");
}

#[test]
fn marks_that_never_come_back_make_no_difference_but_time() {
    let mut world = World::new(manner(Ears::Models));
    world.marks = false;
    world.speech = vec![(1000, 2000), (6000, 7000)];
    world.run(12_000);
    let results: Vec<&str> =
        world.timeline.iter().filter_map(|line| line.split_once(" turn ")).map(|(_, r)| r).collect();
    assert_eq!(results, ["1 answered", "2 answered"], "{}", world.told());
}
