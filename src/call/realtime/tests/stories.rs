//! What callers live through, one story each.

use bytes::Bytes;
use insta::assert_snapshot;

use super::super::*;
use super::world::{Given, Reply, World, failure, manner};
use crate::call::FailureKind;

const LONG: &str = "We are open from nine to five on every day but Sunday. Anything else?";

#[test]
fn a_question_and_its_answer_by_the_models_ear() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000)];
    assert_snapshot!(world.run(5000).told(), @r#"
       0 → dial
    2500 LISTENING → THINKING (end_of_utterance)
    2700 first frame, 720 ms after the end of speech
    2700 THINKING → SPEAKING (first_frame)
    3300 turn 1 answered
    3300 sent 30 frames
    3300 SPEAKING → LISTENING (played)
    "#);
    assert_eq!(world.given, 5020, "the model is given all that there is");
}

#[test]
fn a_question_and_its_answer_by_our_ear() {
    let mut world = World::new(manner(Ears::Ours));
    world.speech = vec![(1000, 2000)];
    assert_snapshot!(world.run(5000).told(), @r#"
       0 → dial
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → commit
    2440 → respond
    2640 first frame, 660 ms after the end of speech
    2640 THINKING → SPEAKING (first_frame)
    3240 turn 1 answered
    3240 sent 30 frames
    3240 SPEAKING → LISTENING (played)
    "#);
    assert_eq!(world.given, 300 + 940 + 460, "pre-roll, speech, silence");
}

#[test]
fn the_caller_interrupts_and_the_model_learns_how_far_it_was_heard() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000), (4000, 5000)];
    world.replies = [Reply::Says(4, LONG)].into();
    assert_snapshot!(world.run(9000).told(), @r#"
       0 → dial
    2500 LISTENING → THINKING (end_of_utterance)
    2700 first frame, 720 ms after the end of speech
    2700 THINKING → SPEAKING (first_frame)
    4000 → clear
    4000 barge-in: 2840 ms unheard, heard "We are open from"
    4000 turn 1 interrupted
    4000 sent 70 frames
    4000 SPEAKING → LISTENING (barge_in)
    4000 → truncate i1 at 1300 ms
    5500 LISTENING → THINKING (end_of_utterance)
    5700 first frame, 720 ms after the end of speech
    5700 THINKING → SPEAKING (first_frame)
    6300 turn 2 answered
    6300 sent 30 frames
    6300 SPEAKING → LISTENING (played)
    "#);
}

#[test]
fn our_ear_interrupts_and_stops_the_model() {
    let mut world = World::new(manner(Ears::Ours));
    world.speech = vec![(1000, 2000), (3500, 4500)];
    world.replies = [Reply::Says(2, LONG)].into();
    assert_snapshot!(world.run(9000).told(), @r#"
       0 → dial
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → commit
    2440 → respond
    2640 first frame, 660 ms after the end of speech
    2640 THINKING → SPEAKING (first_frame)
    3680 → clear
    3680 barge-in: 1060 ms unheard, heard "We are open from"
    3680 turn 1 interrupted
    3680 sent 56 frames
    3680 SPEAKING → LISTENING (barge_in)
    3680 → cancel r1
    3680 → truncate i1 at 1040 ms
    4940 LISTENING → THINKING (end_of_utterance)
    4940 → commit
    4940 → respond
    5140 first frame, 660 ms after the end of speech
    5140 THINKING → SPEAKING (first_frame)
    5740 turn 2 answered
    5740 sent 30 frames
    5740 SPEAKING → LISTENING (played)
    "#);
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
    assert_snapshot!(world.run(6000).told(), @r#"
       0 → dial
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → commit
    2440 → respond
    2640 first frame, 660 ms after the end of speech
    2640 THINKING → SPEAKING (first_frame)
    2680 → clear
    2680 barge-in: 260 ms unheard, heard ""
    2680 turn 1 interrupted
    2680 sent 6 frames
    2680 SPEAKING → LISTENING (barge_in)
    2680 → cancel r1
    2680 → truncate i1 at 40 ms
    3940 LISTENING → THINKING (end_of_utterance)
    3940 → commit
    3940 → respond
    4140 first frame, 660 ms after the end of speech
    4140 THINKING → SPEAKING (first_frame)
    4740 turn 2 answered
    4740 sent 30 frames
    4740 SPEAKING → LISTENING (played)
    "#);
}

#[test]
fn the_model_greets() {
    let opening = Some("Hello there.".to_owned());
    let mut world = World::new(Manner { opening, ..manner(Ears::Models) });
    assert_snapshot!(world.run(3000).told(), @r#"
      0 LISTENING → THINKING (greeting)
      0 → dial
    150 → respond: Hello there.
    350 first frame, - after the end of speech
    350 THINKING → SPEAKING (first_frame)
    950 sent 30 frames
    950 SPEAKING → LISTENING (played)
    "#);
}

#[test]
fn the_app_does_what_the_model_wants_done() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000)];
    world.replies = [Reply::Calls("order_status", Meaning::App), Reply::Says(4, "It is on its way.")].into();
    world.app = [(800, Ok(("shipped".to_owned(), Action::None)))].into();
    assert_snapshot!(world.run(8000).told(), @r#"
       0 → dial
    2500 LISTENING → THINKING (end_of_utterance)
    2700 → function order_status of turn 1
    3500 → answer c1: shipped
    3500 → respond
    3700 first frame, 1720 ms after the end of speech
    3700 THINKING → SPEAKING (first_frame)
    4720 turn 1 answered
    4720 sent 51 frames
    4720 SPEAKING → LISTENING (played)
    "#);
}

#[test]
fn an_app_that_does_not_answer_is_not_waited_for_for_ever() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000)];
    world.replies = [Reply::Calls("order_status", Meaning::App), Reply::Says(4, "I cannot tell.")].into();
    assert_snapshot!(world.run(12_000).told(), @r#"
       0 → dial
    2500 LISTENING → THINKING (end_of_utterance)
    2700 → function order_status of turn 1
    8700 failed: the app: no answer within 6000 ms
    8700 → drop c1
    8700 → answer c1: Error: there is no answer. Tell the caller that this does not work right now.
    8700 → respond
    8900 first frame, 6920 ms after the end of speech
    8900 THINKING → SPEAKING (first_frame)
    9740 turn 1 answered
    9740 sent 42 frames
    9740 SPEAKING → LISTENING (played)
    "#);
}

#[test]
fn a_model_that_hangs_up_is_heard_to_its_end() {
    let hang_up = || Meaning::Act(Action::Hangup, "After your goodbye.".to_owned());
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000)];
    world.replies = [Reply::Calls("hangup", hang_up()), Reply::Says(4, "Goodbye.")].into();
    assert_snapshot!(world.run(8000).told(), @r#"
       0 → dial
    2500 LISTENING → THINKING (end_of_utterance)
    2700 → answer c1: After your goodbye.
    2700 → respond
    2900 first frame, 920 ms after the end of speech
    2900 THINKING → SPEAKING (first_frame)
    3380 turn 1 answered
    3380 sent 24 frames
    3380 SPEAKING → ENDED (stopped)
    3380 ended: bot_end
    3380 → hang up: bot_end
    "#);
}

#[test]
fn a_response_that_fails_and_one_that_never_comes_are_apologised_for() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000), (5000, 6000)];
    world.replies = [Reply::Fails, Reply::Nothing].into();
    assert_snapshot!(world.run(16_000).told(), @r#"
        0 → dial
     2500 LISTENING → THINKING (end_of_utterance)
     2700 failed: the vendor failed
     2700 first frame, 720 ms after the end of speech
     2700 THINKING → SPEAKING (first_frame)
     3200 turn 1 failed
     3200 sent 25 frames
     3200 SPEAKING → LISTENING (played)
     6500 LISTENING → THINKING (end_of_utterance)
    12500 failed: the vendor: nothing to play within 6000 ms
    12500 first frame, 6520 ms after the end of speech
    12500 THINKING → SPEAKING (first_frame)
    13000 turn 2 failed
    13000 sent 25 frames
    13000 SPEAKING → LISTENING (played)
    "#);
}

#[test]
fn audio_that_is_none_or_has_no_sound_is_apologised_for() {
    let webm = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm".repeat(20);
    for (audio, why) in
        [(webm, "audio that is none"), (b"RIFF\xff\xff\xff\xffWAVE".to_vec(), "without a sound")]
    {
        let mut world = World::new(manner(Ears::Models));
        world.speech = vec![(1000, 2000)];
        world.replies = [Reply::Nothing].into();
        let response = || "r1".to_owned();
        for told in [
            Told::ResponseStarted { response: response() },
            Told::Audio { response: response(), item: "i1".into(), content: 0, audio: audio.into() },
            Told::ResponseEnded { response: response(), end: ResponseEnd::Completed },
        ] {
            world.at(2_700, Given::Input(Input::Told(told)));
        }
        world.run(9_000);
        let told = world.told();
        assert!(told.contains("turn 1 failed") && told.matches("failed: ").count() == 1, "{told}");
        assert!(told.contains(why) && world.heard_ms(0xEE) > 0, "{told}");
    }
}

#[test]
fn a_function_that_comes_beside_audio_without_a_sound_is_answered() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000)];
    world.replies = [Reply::Nothing].into();
    let response = || "r1".to_owned();
    let call =
        FunctionCall { id: "f1".into(), name: "hours".into(), arguments: "{}".into(), meaning: Meaning::App };
    for told in [
        Told::ResponseStarted { response: response() },
        Told::Audio { response: response(), item: "i1".into(), content: 0, audio: Bytes::new() },
        Told::FunctionCalled { response: response(), call },
        Told::ResponseEnded { response: response(), end: ResponseEnd::Completed },
    ] {
        world.at(2_700, Given::Input(Input::Told(told)));
    }
    world.run(9_000);
    let told = world.told();
    assert!(
        !told.contains("without a sound") && told.contains("→ answer f1") && told.contains("→ respond"),
        "{told}"
    );
}

#[test]
fn a_television_behind_the_caller_takes_no_turn() {
    for television in [(2_460, 3_000), (3_200, 4_000)] {
        let mut world = World::new(manner(Ears::Ours));
        world.speech = vec![(1000, 2000)];
        world.television = vec![television];
        world.replies = [Reply::Says(2, LONG)].into();
        world.run(12_000);
        assert!(world.told().contains("turn 1 answered"), "{}", world.told());
    }
}

#[test]
fn a_line_that_is_lost_in_mid_reply_comes_back() {
    let mut world = World::new(manner(Ears::Models));
    world.speech = vec![(1000, 2000), (8000, 9000)];
    world.replies = [Reply::Says(2, LONG)].into();
    world.at(2600, Given::Input(Input::Told(Told::Transcript { text: "when are you open".into() })));
    let lost = failure(FailureKind::Protocol, "the network: the model was lost");
    world.at(3200, Given::Input(Input::Unlinked(lost)));
    assert_snapshot!(world.run(12_000).told(), @r#"
        0 → dial
     2500 LISTENING → THINKING (end_of_utterance)
     2600 heard: when are you open
     2700 first frame, 720 ms after the end of speech
     2700 THINKING → SPEAKING (first_frame)
     3200 failed: the network: the model was lost
     3200 → dial
     3350 → remember Caller: when are you open
     3350 → remember Model: We are open from nin Sorry.
     7040 turn 1 failed
     7040 sent 217 frames
     7040 SPEAKING → LISTENING (played)
     9500 LISTENING → THINKING (end_of_utterance)
     9700 first frame, 720 ms after the end of speech
     9700 THINKING → SPEAKING (first_frame)
    10300 turn 2 answered
    10300 sent 30 frames
    10300 SPEAKING → LISTENING (played)
    "#);
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
    assert_snapshot!(world.run(5000).told(), @r#"
      0 → dial
    150 failed: your config: api_key
    150 LISTENING → THINKING (unasked)
    150 first frame, - after the end of speech
    150 THINKING → SPEAKING (first_frame)
    650 sent 25 frames
    650 SPEAKING → ENDED (stopped)
    650 ended: error
    650 → hang up: error
    "#);
}

#[test]
fn where_the_caller_may_not_interrupt_both_are_answered_in_their_turn() {
    let mut world = World::new(Manner { interrupts: false, ..manner(Ears::Ours) });
    world.speech = vec![(1000, 2000), (3000, 4000)];
    world.replies = [Reply::Says(4, LONG)].into();
    assert_snapshot!(world.run(12_000).told(), @r#"
       0 → dial
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → commit
    2440 → respond
    2640 first frame, 660 ms after the end of speech
    2640 THINKING → SPEAKING (first_frame)
    6780 turn 1 answered
    6780 sent 207 frames
    6780 SPEAKING → LISTENING (played)
    6780 LISTENING → THINKING (end_of_utterance)
    6780 → commit
    6780 → respond
    6980 first frame, - after the end of speech
    6980 THINKING → SPEAKING (first_frame)
    7580 turn 2 answered
    7580 sent 30 frames
    7580 SPEAKING → LISTENING (played)
    "#);
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
    assert_snapshot!(world.run(7000).told(), @r#"
       0 → dial
    2500 LISTENING → THINKING (end_of_utterance)
    2700 first frame, 720 ms after the end of speech
    2700 THINKING → SPEAKING (first_frame)
    3500 → clear
    3500 barge-in: 1000 ms unheard, heard "We are open"
    3500 turn 1 interrupted
    3500 sent 44 frames
    3500 SPEAKING → LISTENING (barge_in)
    3500 → cancel r1
    3500 → truncate i1 at 800 ms
    3700 LISTENING → THINKING (digits)
    3700 → remember Caller: (The caller presses these keys on the telephone: 42)
    3700 → respond
    3900 first frame, - after the end of speech
    3900 THINKING → SPEAKING (first_frame)
    4500 turn 2 answered
    4500 sent 30 frames
    4500 SPEAKING → LISTENING (played)
    "#);
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
