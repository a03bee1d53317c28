//! Tests of `carrier`.

use super::*;
use proptest::prelude::*;

const LOUD: u8 = 0x80;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Clone, Debug)]
enum Do {
    Media(usize),
    Mark(&'static str),
    Clear,
}
use Do::*;

/// Plays a story and returns every mark with the millisecond at which it came back.
fn story(options: CarrierOptions, script: &[(u64, Do)], end: u64) -> (Carrier, Vec<(u64, String)>) {
    let mut carrier = Carrier::new(options);
    let mut back = Vec::new();
    let mut script = script.iter().peekable();
    for now in 0..=end {
        while let Some((_, what)) = script.next_if(|(at, _)| *at == now) {
            match what {
                Media(len) => _ = carrier.media(&vec![LOUD; len * 8], ms(now)),
                Mark(name) => carrier.mark(name, ms(now)),
                Clear => _ = carrier.clear(ms(now)),
            }
        }
        while let Some(name) = carrier.poll_mark(ms(now)) {
            back.push((now, name));
        }
    }
    (carrier, back)
}

fn check(options: CarrierOptions, script: &[(u64, Do)], expected: &[(u64, &str)]) -> Carrier {
    let (carrier, back) = story(options, script, 2_000);
    let back: Vec<(u64, &str)> = back.iter().map(|(at, name)| (*at, name.as_str())).collect();
    assert_eq!(back, expected, "{script:?}");
    carrier
}

fn with(marks: MarksMode, on_clear: MarksOnClear) -> CarrierOptions {
    CarrierOptions { marks, on_clear, ..CarrierOptions::default() }
}

#[test]
fn marks_come_back_when_the_audio_before_them_has_played() {
    let normal = CarrierOptions::default();
    check(normal.clone(), &[(10, Mark("idle"))], &[(10, "idle")]);
    check(
        normal.clone(),
        &[(10, Media(20)), (10, Mark("a")), (15, Media(20)), (15, Mark("b"))],
        &[(30, "a"), (50, "b")],
    );
    check(
        normal.clone(),
        &[(0, Media(100)), (0, Mark("a")), (60, Clear), (60, Mark("b"))],
        &[(60, "a"), (60, "b")],
    );
    check(with(MarksMode::Normal, MarksOnClear::Drop), &[(0, Media(100)), (0, Mark("a")), (60, Clear)], &[]);
    check(with(MarksMode::Never, MarksOnClear::Return), &[(0, Media(100)), (0, Mark("a")), (60, Clear)], &[]);
    check(with(MarksMode::Late(70), MarksOnClear::Return), &[(0, Media(20)), (0, Mark("a"))], &[(90, "a")]);
    // A mark that had played when `clear` came is on its way already, and is not dropped.
    check(
        with(MarksMode::Late(70), MarksOnClear::Drop),
        &[(0, Media(20)), (0, Mark("a")), (40, Clear)],
        &[(90, "a")],
    );
}

#[test]
fn the_next_mark_is_announced() {
    let mut carrier = Carrier::new(with(MarksMode::Late(5), MarksOnClear::Return));
    assert_eq!(carrier.next_mark_at(), None);
    carrier.media(&[LOUD; 160], ms(10));
    carrier.mark("a", ms(12));
    assert_eq!(carrier.next_mark_at(), Some(ms(35)));
    carrier.poll(ms(31));
    assert_eq!(carrier.next_mark_at(), Some(ms(35)));
    assert_eq!(carrier.poll_mark(ms(34)), None);
    assert_eq!(carrier.poll_mark(ms(35)), Some("a".to_owned()));
    assert_eq!(carrier.next_mark_at(), None);
}

#[test]
fn the_caller_hears_audio_where_it_played_and_silence_elsewhere() {
    let carrier = check(CarrierOptions::default(), &[(10, Media(40)), (35, Clear), (100, Media(20))], &[]);
    let heard = carrier.heard();
    let loud = |from: usize, to: usize| heard[from * 8..to * 8].iter().all(|&b| b == LOUD);
    let silent = |from: usize, to: usize| heard[from * 8..to * 8].iter().all(|&b| b == SILENCE);
    assert_eq!(heard.len(), 2_000 * 8);
    assert!(silent(0, 10) && loud(10, 35) && silent(35, 100) && loud(100, 120) && silent(120, 2_000));
    assert_eq!(
        carrier.spurts(),
        [Spurt { start: ms(10), end: ms(35) }, Spurt { start: ms(100), end: ms(120) }]
    );
}

#[test]
fn a_gap_within_a_spurt_is_an_underrun_and_a_pause_between_spurts_is_none() {
    let underruns = |script: &[(u64, Do)]| {
        let carrier = check(CarrierOptions::default(), script, &[]);
        (carrier.underruns(), carrier.gap_total(), carrier.spurts().len())
    };
    assert_eq!(underruns(&[(0, Media(20)), (20, Media(20))]), (0, ms(0), 1), "on time");
    assert_eq!(underruns(&[(0, Media(20)), (23, Media(20))]), (0, ms(3), 1), "jitter");
    assert_eq!(underruns(&[(0, Media(20)), (50, Media(20)), (90, Media(20))]), (2, ms(50), 1));
    assert_eq!(underruns(&[(0, Media(20)), (320, Media(20))]), (1, ms(300), 1), "the longest gap");
    assert_eq!(underruns(&[(0, Media(20)), (321, Media(20))]), (0, ms(0), 2), "a new spurt");
    let cleared = [(0, Media(20)), (30, Media(20)), (35, Clear), (60, Media(20))];
    assert_eq!(underruns(&cleared), (1, ms(10), 2), "cleared after an underrun");
    assert_eq!(underruns(&[(0, Media(90)), (20, Clear), (60, Media(20))]), (0, ms(0), 2), "cleared");
}

#[test]
fn the_lead_is_what_waits_at_its_highest() {
    let carrier = check(CarrierOptions::default(), &[(0, Media(100)), (50, Media(80)), (60, Media(1))], &[]);
    assert_eq!(carrier.max_lead(), ms(130));
    assert_eq!(carrier.lead(), ms(0));
}

#[test]
fn silence_that_was_sent_is_played_but_not_heard() {
    let mut carrier = Carrier::new(CarrierOptions::default());
    assert!(!carrier.media(&[SILENCE; 1_600], ms(0)).audible);
    assert_eq!(carrier.audible_since(), None);
    assert!(carrier.media(&[LOUD; 160], ms(100)).audible);
    assert_eq!(carrier.audible_since(), Some(ms(200)));
    assert_eq!(carrier.audible_until(), ms(220));
    carrier.clear(ms(210));
    assert_eq!((carrier.audible_until(), carrier.played()), (ms(210), ms(210)));
}

#[test]
fn beyond_ten_minutes_audio_is_dropped() {
    let mut carrier = Carrier::new(CarrierOptions { record: false, ..CarrierOptions::default() });
    let minute = vec![SILENCE; 60 * 8_000];
    for _ in 0..10 {
        assert_eq!(carrier.media(&minute, ms(0)).dropped, 0);
    }
    assert_eq!(carrier.media(&minute, ms(1_000)).dropped, 59 * 8_000);
}

fn any_do() -> impl Strategy<Value = Do> {
    prop_oneof![
        6 => (1usize..200).prop_map(Media),
        3 => Just(Mark("m")),
        1 => Just(Clear),
    ]
}

proptest! {
    #[test]
    fn no_byte_is_lost_and_marks_come_back_once_and_in_order(
        script in prop::collection::vec((0u64..120, any_do()), 0..60), late in 0u64..50,
    ) {
        let mut carrier = Carrier::new(with(MarksMode::Late(late), MarksOnClear::Return));
        let (mut now, mut sent, mut received, mut back) = (0, 0, 0u64, Vec::new());
        for (wait, what) in &script {
            now += wait;
            match what {
                Media(len) => {
                    carrier.media(&vec![LOUD; *len], ms(now));
                    received += *len as u64;
                }
                Mark(_) => { carrier.mark(&sent.to_string(), ms(now)); sent += 1; }
                Clear => _ = carrier.clear(ms(now)),
            }
            while let Some(name) = carrier.poll_mark(ms(now)) { back.push(name); }
            let [all, played, cleared, overflowed, queued] = carrier.bytes();
            prop_assert_eq!(all, received);
            prop_assert_eq!(played + cleared + overflowed + queued, received);
            prop_assert_eq!(carrier.heard().len() as u64, now * 8);
        }
        now += 60_000;
        while let Some(name) = carrier.poll_mark(ms(now)) { back.push(name); }
        prop_assert_eq!(back, (0..sent).map(|n: u32| n.to_string()).collect::<Vec<_>>());
        let loud = carrier.heard().iter().filter(|&&b| b == LOUD).count() as u64;
        prop_assert_eq!(loud, carrier.bytes()[1]);
    }
}
