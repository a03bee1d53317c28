//! Stories of an agent that speaks without having been asked, and of what it learns of its replies.

use insta::assert_snapshot;

use super::super::*;
use super::world::{Answer, World, settings};

/// At this time the agent says this piece of something that nobody asked for.
fn says(world: &mut World, at_ms: u64, text: &str) {
    let text = text.to_owned();
    world.schedule_at(CallTime::from_millis(at_ms), Input::ReplyText { turn: 0, text });
}

fn ends(world: &mut World, at_ms: u64, action: Action) {
    world.schedule_at(CallTime::from_millis(at_ms), Input::ReplyEnd { turn: 0, action });
}

/// What the agent was told of its replies: turn, text, interrupted.
fn told(world: &World) -> Vec<(u64, &str, bool)> {
    world.heard.iter().map(|heard| (heard.turn, heard.text.as_str(), heard.interrupted)).collect()
}

#[test]
fn a_welcome_is_spoken_as_it_is_written() {
    let mut world = World::new(settings());
    says(&mut world, 100, "Welcome. How ");
    says(&mut world, 700, "are you?");
    ends(&mut world, 800, Action::None);
    assert_snapshot!(world.run(3000).told(), @r#"
     100 LISTENING → THINKING (unasked)
     100 → say 1: Welcome.
     200 first frame, - after the end of speech
     200 THINKING → SPEAKING (first_frame)
     800 → say 2: How are you?
    1620 sent 60 frames
    1620 SPEAKING → LISTENING (played)
    "#);
    assert_eq!(told(&world), [(0, "Welcome. How are you?", false)]);
}

#[test]
fn what_nobody_asked_for_waits_for_the_reply_that_somebody_did() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000)];
    for at in [2460, 2800] {
        says(&mut world, at, "A parcel is here.");
        ends(&mut world, at, Action::None);
    }
    let timeline = world.run(9000).told();
    let order = ["→ say 1: All right.", "turn 1 answered", "→ say 2: A parcel is here."];
    let places = order.map(|what| timeline.find(what).unwrap_or_else(|| panic!("{what} in {timeline}")));
    assert!(places.is_sorted(), "{timeline}");
    assert_eq!(told(&world), [(1, "All right.", false), (0, "A parcel is here. A parcel is here.", false)]);
}

#[test]
fn a_caller_who_is_speaking_is_not_spoken_over() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 3000)];
    says(&mut world, 2000, "A parcel is here.");
    ends(&mut world, 2000, Action::None);
    world.run(9000);
    assert_eq!(told(&world), [(1, "All right.", false), (0, "A parcel is here.", false)]);
}

#[test]
fn what_is_cut_is_cut_to_its_end() {
    let mut world = World::new(settings());
    world.speech = vec![(1500, 2500)];
    says(&mut world, 100, "This is a very long notice about our opening hours in summer. It ");
    // Written before the agent can have learnt of the interruption.
    says(&mut world, 1900, "goes on and on.");
    ends(&mut world, 1900, Action::None);
    says(&mut world, 8000, "Still there?");
    ends(&mut world, 8000, Action::None);
    let timeline = world.run(11_000).told();
    assert!(!timeline.contains("goes on"), "{timeline}");
    let expected = [(0, "This is a very", true), (1, "All right.", false), (0, "Still there?", false)];
    assert_eq!(told(&world), expected);
}

#[test]
fn an_agent_that_ends_the_call_does_so_when_it_has_been_heard() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000)];
    ends(&mut world, 2700, Action::Hangup);
    let timeline = world.run(5000).told();
    assert!(timeline.find("turn 1 answered") < timeline.find("→ hang up: bot_end"), "{timeline}");
    assert_eq!(world.call.state(), State::Ended);
}

#[test]
fn a_caller_who_interrupts_the_goodbye_of_an_agent_that_has_ended_the_call_is_alone() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000), (4000, 5000)];
    world.agent = [Answer::Text(100, "Goodbye, and do come again when the weather is good.")].into();
    ends(&mut world, 3000, Action::Hangup);
    let timeline = world.run(6000).told();
    assert!(timeline.contains("turn 1 interrupted"), "{timeline}");
    assert_eq!(world.call.state(), State::Ended, "{timeline}");
}

#[test]
fn a_goodbye_that_waits_is_said_to_a_caller_who_interrupts_what_is_before_it() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000), (4000, 5000)];
    let long = "We are open from nine to five on every day but Sunday, and then we are not.";
    world.agent = [Answer::Text(100, long)].into();
    says(&mut world, 3000, "That was all.");
    ends(&mut world, 3000, Action::Hangup);
    let timeline = world.run(12_000).told();
    assert!(timeline.contains("turn 1 interrupted"), "{timeline}");
    assert_eq!(told(&world).last(), Some(&(0, "That was all.", false)), "{timeline}");
    assert!(timeline.ends_with("→ hang up: bot_end"), "{timeline}");
}

#[test]
fn text_that_nobody_can_hear_has_a_bound() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 30_000)];
    for at in 2000..2020 {
        says(&mut world, at, &"word ".repeat(100));
    }
    let ignored = world.run(3000).told().matches("ignored: text").count();
    assert_eq!(ignored, 20 - 4096 / 500);
}

#[test]
fn a_turn_that_goes_on_was_not_heard() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000), (2500, 3500)];
    world.agent = [Answer::Never, Answer::Text(100, "Yes.")].into();
    world.run(9000);
    assert_eq!(told(&world), [(1, "", true), (2, "Yes.", false)]);
}

#[test]
fn an_apology_is_what_was_heard() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000)];
    world.agent = [Answer::Fails(100)].into();
    world.run(9000);
    assert_eq!(told(&world), [(1, "Sorry.", false)]);
}
