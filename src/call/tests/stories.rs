//! What callers live through, one story each.

use std::time::Duration;

use bytes::Bytes;
use insta::assert_snapshot;

use super::super::*;
use super::world::{Answer, Marks, World, settings};

#[test]
fn a_question_and_its_answer() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000)];
    assert_snapshot!(world.run(5000).told(), @r#"
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → transcribe 1700 ms
    2490 → ask 1: hello
    2590 → say 1: All right.
    2690 first frame, 710 ms after the end of speech
    2690 THINKING → SPEAKING (first_frame)
    3290 turn 1 answered
    3290 sent 30 frames
    3290 SPEAKING → LISTENING (played)
    "#);
    assert_eq!(world.transcribed, [240 + 1000 + 460], "pre-roll, speech, silence");
    assert_eq!(world.call.state(), State::Listening);
}

#[test]
fn the_caller_interrupts_and_is_answered() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000), (4000, 5000)];
    world.agent =
        [Answer::Text(100, "We are open from nine to five on every day but Sunday. Anything else?")].into();
    assert_snapshot!(world.run(9000).told(), @r#"
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → transcribe 1700 ms
    2490 → ask 1: hello
    2590 → say 1: We are open from nine to five on every day but Sunday.
    2690 first frame, 710 ms after the end of speech
    2690 THINKING → SPEAKING (first_frame)
    2730 → say 2: Anything else?
    4100 → clear
    4100 held
    4100 sent 75 frames
    4380 barge-in: 2680 ms unheard, heard "We are open from nine"
    4380 turn 1 interrupted
    4380 SPEAKING → LISTENING (barge_in)
    5440 LISTENING → THINKING (end_of_utterance)
    5440 → transcribe 1700 ms
    5490 → ask 2: hello
    5590 → say 3: All right.
    5690 first frame, 710 ms after the end of speech
    5690 THINKING → SPEAKING (first_frame)
    6290 turn 2 answered
    6290 sent 30 frames
    6290 SPEAKING → LISTENING (played)
    "#);
    assert_eq!(world.questions[1].heard, "We are open from nine");
    assert!(world.questions[1].interrupted);
}

#[test]
fn marks_returned_dropped_late_or_never_end_the_same() {
    for marks in
        [Marks::Returned, Marks::DroppedByClear, Marks::Never, Marks::LateBy(300), Marks::LateBy(3000)]
    {
        let mut world = World::new(settings());
        world.marks = marks;
        world.speech = vec![(1000, 2000), (3500, 4500), (9000, 10_000)];
        world.agent =
            vec![Answer::Text(100, "This reply is interrupted in its middle, long before its end."); 1]
                .into();
        world.run(20_000);
        let results: Vec<&str> =
            world.timeline.iter().filter_map(|line| line.split_once(" turn ")).map(|(_, r)| r).collect();
        assert_eq!(results, ["1 interrupted", "2 answered", "3 answered"], "{marks:?}\n{}", world.told());
        assert_eq!(world.call.state(), State::Listening, "{marks:?}");
    }
}

#[test]
fn an_echo_of_each_utterance() {
    let mut world = World::new(Settings { mode: Mode::Echo, ..settings() });
    world.speech = vec![(1000, 2000)];
    assert_snapshot!(world.run(6000).told(), @r#"
    2440 LISTENING → THINKING (end_of_utterance)
    2440 first frame, 460 ms after the end of speech
    2440 THINKING → SPEAKING (first_frame)
    3780 turn 1 answered
    3780 sent 67 frames
    3780 SPEAKING → LISTENING (played)
    "#);
}

#[test]
fn a_greeting_once_by_its_recording_or_by_the_service() {
    let text = "Hello there.";
    for audio in [Bytes::new(), super::world::tone(240, 0x90)] {
        let greeting = Some(Phrase { text: text.into(), audio });
        let mut world = World::new(Settings { greeting, ..settings() });
        world.run(4000);
        assert_eq!(world.stretches().len(), 1, "{}", world.told());
        assert_eq!(world.call.state(), State::Listening);
        assert!(!world.told().contains("turn "), "a greeting is no turn of the caller");
    }
}

#[test]
fn a_streamed_reply_is_spoken_while_it_is_written() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 1500)];
    world.agent = [Answer::Pieces(vec![
        (100, "One small piz"),
        (100, "za costs five euros. "),
        (1000, "A large one "),
        (100, "costs ten."),
    ])]
    .into();
    assert_snapshot!(world.run(6000).told(), @r#"
    1940 LISTENING → THINKING (end_of_utterance)
    1940 → transcribe 1200 ms
    1990 → ask 1: hello
    2190 → say 1: One small pizza costs five euros.
    2290 first frame, 810 ms after the end of speech
    2290 THINKING → SPEAKING (first_frame)
    3290 → say 2: A large one costs ten.
    5590 turn 1 answered
    5590 sent 165 frames
    5590 SPEAKING → LISTENING (played)
    "#);
}

#[test]
fn one_turn_of_two_halves_when_the_caller_goes_on() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000), (2600, 3600)];
    world.stt = [Answer::Text(50, "I would like"), Answer::Text(50, "I would like a table")].into();
    world.agent = [Answer::Text(800, "Never heard.")].into();
    assert_snapshot!(world.run(8000).told(), @r#"
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → transcribe 1700 ms
    2490 → ask 1: I would like
    2780 → cancel Ask { turn: 1 }
    2780 THINKING → LISTENING (caller_went_on)
    4040 LISTENING → THINKING (end_of_utterance)
    4040 → transcribe 3300 ms
    4090 → ask 2: I would like a table
    4190 → say 1: All right.
    4290 first frame, 710 ms after the end of speech
    4290 THINKING → SPEAKING (first_frame)
    4890 turn 2 answered
    4890 sent 30 frames
    4890 SPEAKING → LISTENING (played)
    "#);
}

#[test]
fn a_service_that_fails_is_an_apology_and_the_call_goes_on() {
    type Fail = fn(&mut World);
    let fails: [(&str, Fail); 6] = [
        ("stt", |w| w.stt = [Answer::Fails(50)].into()),
        ("stt", |w| w.stt = [Answer::Never].into()),
        ("agent", |w| w.agent = [Answer::Fails(50)].into()),
        ("agent", |w| w.agent = [Answer::Never].into()),
        ("tts", |w| w.tts = None),
        ("agent", |w| w.agent = [Answer::Pieces(vec![(10, "First. "), (9_000, "Second.")])].into()),
    ];
    for (service, fail) in fails {
        let mut world = World::new(settings());
        world.speech = vec![(1000, 2000)];
        fail(&mut world);
        world.run(12_000);
        let told = world.told();
        assert_eq!(told.matches(&format!("{service} failed")).count(), 1, "{service}\n{told}");
        assert_eq!(world.stretches().last().map(|s| s.2), Some(0xEE), "the apology is heard\n{told}");
        assert!(told.contains("turn 1 failed"), "{told}");
        assert_eq!(world.call.state(), State::Listening, "{told}");
        // And the next turn is answered.
        world.tts = Some(100);
        world.stt.clear();
        world.agent.clear();
        world.speech.push((13_000, 14_000));
        world.run(18_000);
        assert!(world.told().contains("turn 2 answered"), "{}", world.told());
    }
}

#[test]
fn the_apology_is_heard_within_the_deadline_after_the_end_of_speech() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000)];
    world.agent = [Answer::Never].into();
    world.run(12_000);
    assert_eq!(world.stretches()[0].0, 1980 + 6000, "the last voiced frame arrives at 1980");
}

#[test]
fn nothing_said_and_nothing_answered() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000), (4000, 5000)];
    world.stt = [Answer::Text(50, " "), Answer::Text(50, "hm")].into();
    world.agent = [Answer::Pieces(vec![])].into();
    assert_snapshot!(world.run(9000).told(), @r#"
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → transcribe 1700 ms
    2490 turn 1 empty
    2490 THINKING → LISTENING (nothing_said)
    5440 LISTENING → THINKING (end_of_utterance)
    5440 → transcribe 1700 ms
    5490 → ask 2: hm
    5490 turn 2 empty
    5490 THINKING → LISTENING (empty_reply)
    "#);
    assert!(world.played.is_empty());
}

#[test]
fn a_repeated_text_without_new_speech_is_dropped_and_a_second_yes_is_not() {
    let mut world = World::new(settings());
    // A second of speech, a click of 100 ms, a second of speech; the recogniser says the same thrice.
    world.speech = vec![(1000, 2000), (4000, 4100), (6000, 7000)];
    world.stt = vec![Answer::Text(50, "Yes."); 3].into();
    world.run(10_000);
    assert_eq!(world.questions.len(), 2, "{}", world.told());
    assert!(world.told().contains("duplicate: Yes."));
}

#[test]
fn without_barge_in_the_bot_finishes_and_then_answers_what_was_said_meanwhile() {
    let mut world = World::new(Settings { barge_in: false, ..settings() });
    world.speech = vec![(1000, 2000), (3000, 3600)];
    world.agent =
        [Answer::Text(100, "This is a long reply that takes its time, and it is not interrupted.")].into();
    assert_snapshot!(world.run(9000).told(), @r#"
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → transcribe 1700 ms
    2490 → ask 1: hello
    2590 → say 1: This is a long reply that takes its time, and it is not interrupted.
    2690 first frame, 710 ms after the end of speech
    2690 THINKING → SPEAKING (first_frame)
    3100 no interruption: not allowed
    6770 turn 1 answered
    6770 sent 204 frames
    6770 SPEAKING → LISTENING (played)
    6770 LISTENING → THINKING (end_of_utterance)
    6770 → transcribe 1600 ms
    6820 → ask 2: hello
    6920 → say 2: All right.
    7020 first frame, 250 ms after the end of speech
    7020 THINKING → SPEAKING (first_frame)
    7620 turn 2 answered
    7620 sent 30 frames
    7620 SPEAKING → LISTENING (played)
    "#);
}

#[test]
fn keys_interrupt_and_become_a_turn() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000)];
    world.agent = [Answer::Text(100, "Please key in your number now, followed by the hash key.")].into();
    for (at, key) in [(3200, '4'), (3400, '2'), (3600, '#')] {
        world.schedule_at(CallTime::from_millis(at), Input::Dtmf(key));
    }
    world.run(12_000);
    assert_eq!(world.questions[1].dtmf.as_deref(), Some("42"));
    assert!(world.questions[1].interrupted);
    assert_eq!(world.call.state(), State::Listening);
}

#[test]
fn a_goodbye_is_heard_before_the_call_ends() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000)];
    world.agent = [Answer::ThenHangup(100, "Goodbye then.")].into();
    assert_snapshot!(world.run(9000).told(), @r#"
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → transcribe 1700 ms
    2490 → ask 1: hello
    2590 → say 1: Goodbye then.
    2690 first frame, 710 ms after the end of speech
    2690 THINKING → SPEAKING (first_frame)
    3470 turn 1 answered
    3470 sent 39 frames
    3470 SPEAKING → ENDED (stopped)
    3470 ended: bot_end
    3470 → hang up: bot_end
    "#);
    assert_eq!(world.call.poll_timeout(), None);
}

#[test]
fn a_line_that_falls_silent_ends_the_utterance_and_at_last_the_call() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000)];
    world.run(1500);
    // No media from here on: only deadlines.
    while let Some(at) = world.call.poll_timeout() {
        world.call.handle_timeout(at);
        while let Some(output) = world.call.poll_output() {
            match output {
                Output::Event(Event::State(t)) => world.timeline.push(format!("{at}: {}", t.why.as_str())),
                Output::Event(Event::MediaStalled) => world.timeline.push(format!("{at}: stalled")),
                Output::Hangup(reason) => world.timeline.push(format!("{at}: {}", reason.as_str())),
                _ => {}
            }
        }
    }
    assert_snapshot!(world.told(), @r#"
    3500.000 ms: stalled
    3500.000 ms: end_of_utterance
    9500.000 ms: first_frame
    10500.000 ms: played
    31500.000 ms: stopped
    31500.000 ms: timeout
    "#);
}

#[test]
fn the_end_of_the_call_cancels_what_is_under_way() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000)];
    world.agent = [Answer::Never].into();
    world.schedule_at(CallTime::from_millis(3000), Input::Stop(StopReason::CallerHangup));
    assert_snapshot!(world.run(9000).told(), @r#"
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → transcribe 1700 ms
    2490 → ask 1: hello
    3000 → cancel Ask { turn: 1 }
    3000 THINKING → ENDED (stopped)
    3000 ended: caller_hangup
    "#);
}

#[test]
fn noise_that_never_stops_is_put_to_the_recogniser_after_the_longest_utterance() {
    let mut settings = settings();
    settings.endpointing.max_utterance = Duration::from_secs(5);
    let mut world = World::new(settings);
    world.speech = vec![(1000, 60_000)];
    world.stt = vec![Answer::Text(50, ""); 20].into();
    world.run(30_000);
    assert_eq!(world.transcribed.len(), 5, "{}", world.told());
}

#[test]
fn a_streaming_recogniser_says_its_words_once_and_the_turn_has_them_all() {
    let mut world = World::new(Settings { hearing: Hearing::Stream, ..settings() });
    // The caller goes on while the agent thinks, and again before the recogniser has answered.
    world.speech = vec![(1000, 2000), (2600, 3600), (4100, 5000)];
    world.stt =
        vec![Answer::Text(50, "I would like"), Answer::Text(400, "a table"), Answer::Text(50, "for two")]
            .into();
    world.agent = [Answer::Text(2000, "Never heard.")].into();
    world.run(9000);
    assert_eq!(world.questions[1].text, "I would like a table for two", "{}", world.told());
    assert_eq!(world.questions.len(), 2);
}

#[test]
fn a_recogniser_that_knows_the_end_ends_the_utterance_sooner() {
    let mut world = World::new(Settings { hearing: Hearing::Stream, ..settings() });
    world.speech = vec![(1000, 2000)];
    world.schedule_at(CallTime::from_millis(2100), Input::Partial { text: "hel".into() });
    world.schedule_at(CallTime::from_millis(2200), Input::SpeechFinal);
    assert_snapshot!(world.run(5000).told(), @r#"
    2100 partial: hel
    2200 LISTENING → THINKING (end_of_utterance)
    2200 → finalize 1
    2250 → ask 1: hello
    2350 → say 1: All right.
    2450 first frame, 450 ms after the end of speech
    2450 THINKING → SPEAKING (first_frame)
    3050 turn 1 answered
    3050 sent 30 frames
    3050 SPEAKING → LISTENING (played)
    "#);
}

#[test]
fn what_a_streaming_recogniser_heard_behind_keys_is_forgotten() {
    let mut world = World::new(Settings { hearing: Hearing::Stream, ..settings() });
    world.schedule_at(CallTime::from_millis(1000), Input::Dtmf('7'));
    world.schedule_at(CallTime::from_millis(1100), Input::Dtmf('#'));
    world.run(5000);
    assert!(world.told().contains("→ forget"), "{}", world.told());
    assert_eq!(world.questions[0].text, "7");
}

#[test]
fn what_a_streaming_recogniser_heard_of_a_cough_during_the_reply_is_forgotten() {
    let mut world = World::new(Settings { hearing: Hearing::Stream, ..settings() });
    world.speech = vec![(1000, 2000), (3000, 3100)];
    world.agent = [Answer::Text(100, "A reply that is long enough to be coughed into by the caller.")].into();
    world.run(9000);
    assert!(world.told().contains("→ forget"), "{}", world.told());
    assert_eq!(world.questions.len(), 1);
}

/// Settings with a filler that can be told by its first byte, 0x95.
fn filling() -> Settings {
    let filler = Phrase { text: "One moment.".into(), audio: super::world::tone(600, 0x95) };
    Settings { filler, ..settings() }
}

#[test]
fn a_long_wait_is_filled_once_and_the_reply_follows() {
    let mut world = World::new(filling());
    world.speech = vec![(1000, 2000)];
    world.agent = [Answer::Text(3000, "Here it is.")].into();
    assert_snapshot!(world.run(9000).told(), @r#"
    2440 LISTENING → THINKING (end_of_utterance)
    2440 → transcribe 1700 ms
    2490 → ask 1: hello
    5490 → say 1: Here it is.
    5590 first frame, 3610 ms after the end of speech
    5590 THINKING → SPEAKING (first_frame)
    6250 turn 1 answered
    6250 sent 63 frames
    6250 SPEAKING → LISTENING (played)
    "#);
    let heard: Vec<(u64, u8)> = world.stretches().iter().map(|(from, _, value)| (*from, *value)).collect();
    assert_eq!(heard[0], (1980 + 1500, 0x95), "{}", world.told());
    assert_eq!(heard.len(), 2, "{heard:?}");
}

#[test]
fn a_caller_who_goes_on_into_the_filler_goes_on_with_the_turn() {
    let mut world = World::new(filling());
    world.speech = vec![(1000, 2000), (3600, 4500)];
    world.agent = [Answer::Text(3000, "Never heard.")].into();
    world.run(9000);
    assert!(world.told().contains("→ clear"), "{}", world.told());
    assert_eq!(world.transcribed.len(), 2);
    assert!(world.transcribed[1] > 3000, "both halves are recognised: {:?}", world.transcribed);
    assert_eq!(world.call.state(), State::Listening);
}

#[test]
fn an_answer_that_is_there_in_time_waits_for_the_filler_and_one_that_is_not_is_apologised_for_once() {
    let filler = Phrase { text: "One moment.".into(), audio: super::world::tone(2_000, 0x95) };
    let filling = Settings { filler, filler_after: Duration::from_secs(5), ..settings() };
    for (answers, told, value) in [(5_300, "turn 1 answered", 0x81), (9_000, "turn 1 failed", 0xEE)] {
        let mut world = World::new(filling.clone());
        world.speech = vec![(1000, 2000)];
        world.agent = [Answer::Text(answers, "Here it is.")].into();
        world.run(12_000);
        assert!(world.told().contains(told), "{}", world.told());
        let failures = usize::from(told.ends_with("failed"));
        assert_eq!(world.told().matches("agent failed").count(), failures, "{}", world.told());
        let heard: Vec<u8> = world.stretches().iter().map(|(_, _, value)| *value).collect();
        assert_eq!(heard, [0x95, value], "the filler to its end, and the answer: {}", world.told());
        let filled = world.played.iter().filter(|(_, value)| *value == 0x95).count();
        assert_eq!(filled, 100);
    }
}

#[test]
fn a_television_behind_a_caller_who_has_finished_costs_no_answer() {
    let mut world = World::new(settings());
    world.speech = vec![(1000, 2000)];
    world.television = vec![(2_460, 3_960)];
    world.agent = [Answer::Text(1_500, "Here it is.")].into();
    world.run(9000);
    assert!(world.told().contains("turn 1 answered"), "{}", world.told());
}
