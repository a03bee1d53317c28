//! Tests of `meter`.

use super::*;
use crate::cli::call::carrier::CarrierOptions;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A call whose events are told by hand.
struct Bench {
    meter: Meter,
    carrier: Carrier,
    report: CallReport,
}

impl Bench {
    fn new() -> Bench {
        let carrier = Carrier::new(CarrierOptions::default());
        Bench { meter: Meter::default(), carrier, report: CallReport::new("MZ", "CA") }
    }

    fn frame(&mut self, at: u64, byte: u8) {
        let arrival = self.carrier.media(&[byte; 160], ms(at));
        self.meter.media(160, arrival, ms(at), &self.carrier, &mut self.report);
    }

    fn loud(&mut self, at: impl IntoIterator<Item = u64>) -> &mut Bench {
        at.into_iter().for_each(|at| self.frame(at, 0x90));
        self
    }

    fn silent(&mut self, at: impl IntoIterator<Item = u64>) -> &mut Bench {
        at.into_iter().for_each(|at| self.frame(at, 0xFF));
        self
    }

    fn said(&mut self, from: u64, until: u64) -> &mut Bench {
        self.carrier.poll(ms(from));
        self.meter.said_start(ms(from), &self.carrier, &mut self.report);
        self.meter.said_end(ms(until), &mut self.report);
        self
    }

    /// Lateness of every frame, in ms, ascending.
    fn lateness(&self) -> Vec<u64> {
        let recorded = self.report.lateness.iter_recorded();
        recorded
            .flat_map(|v| {
                std::iter::repeat_n((v.value_iterated_to() + 500) / 1_000, v.count_at_value() as usize)
            })
            .collect()
    }
}

#[test]
fn frames_on_the_grid_are_not_late_whatever_the_lead() {
    let mut one_by_one = Bench::new();
    one_by_one.loud((0..10).map(|k| 7 + k * 20));
    assert_eq!(one_by_one.lateness(), [0; 10]);
    assert_eq!(one_by_one.report.max_gap, ms(20));
    let mut ahead = Bench::new();
    ahead.loud([7, 7, 8, 9, 9]).loud((1..6).map(|k| 7 + k * 20));
    // The burst itself is due at once.
    assert_eq!(ahead.lateness(), [0, 0, 0, 0, 0, 0, 0, 1, 2, 2]);
}

#[test]
fn a_late_frame_counts_as_late_and_the_next_is_measured_against_the_same_grid() {
    let mut bench = Bench::new();
    // Five frames of lead; the seventh comes 60 ms late and the eighth 40 ms: nothing is heard of it.
    bench.loud([0, 0, 0, 0, 0, 20, 100, 100, 100, 100]);
    assert_eq!(bench.lateness(), [0, 0, 0, 0, 0, 0, 0, 20, 40, 60]);
    assert_eq!(bench.report.max_gap, ms(80));
    assert_eq!(bench.carrier.underruns(), 0);
}

#[test]
fn after_an_underrun_the_grid_starts_again() {
    let mut bench = Bench::new();
    bench.loud([0, 20, 140, 160, 180]);
    assert_eq!(bench.lateness(), [0, 0, 0, 0, 100]);
    assert_eq!(bench.carrier.underruns(), 1);
}

#[test]
fn latency_runs_from_the_last_voiced_frame_to_the_first_frame_back() {
    let mut bench = Bench::new();
    bench.said(0, 500).silent([900, 920]).loud([940]);
    let turn = &bench.report.turns[0];
    assert_eq!((turn.latency(), turn.audible_latency()), (Some(ms(400)), Some(ms(440))));
    assert!(!turn.early);
}

#[test]
fn a_server_that_always_sends_silence_answers_when_there_is_something_to_hear() {
    let mut bench = Bench::new();
    bench.silent((0..5).map(|k| k * 20)).said(100, 200);
    bench.silent((5..30).map(|k| k * 20)).loud([600]);
    assert_eq!(bench.report.turns[0].latency(), Some(ms(400)));
}

#[test]
fn an_echo_answers_early_and_an_old_reply_does_not_answer_at_all() {
    let mut echo = Bench::new();
    echo.said(100, 200).loud((6..10).map(|k| k * 20)).loud([201]);
    // The frames before 200 came while the caller still spoke; in life `said_end` is not told yet.
    assert!(echo.report.turns[0].early);

    let mut old = Bench::new();
    old.loud((0..10).map(|k| k * 20)).said(200, 300).loud((10..20).map(|k| k * 20));
    assert_eq!(old.report.turns[0].reply_at, None);
    assert!(old.report.turns[0].interrupts);
}

#[test]
fn a_barge_in_is_timed_to_its_clear_and_what_is_heard_after_it_counts() {
    let mut bench = Bench::new();
    bench.loud([0; 50]).said(400, 900);
    bench.report.turns[0].said_until = None;
    bench.carrier.clear(ms(650));
    assert_eq!(bench.meter.clear(ms(650), &mut bench.report), Some(ms(250)));
    assert_eq!(bench.meter.clear(ms(660), &mut bench.report), None, "only the first counts");
    // The server forgot a frame in its own queue: the caller hears it after the clear.
    bench.carrier.poll(ms(680));
    bench.meter.tick(ms(680), &bench.carrier, &mut bench.report);
    bench.loud([700]);
    bench.carrier.poll(ms(900));
    bench.meter.said_end(ms(900), &mut bench.report);
    bench.meter.tick(ms(900), &bench.carrier, &mut bench.report);
    let expected = BargeIn { at: ms(400), clear: Some(ms(250)), heard_after: Some(ms(270)) };
    assert_eq!(bench.report.barge_ins, [expected]);
}

#[test]
fn without_a_clear_the_caller_hears_the_reply_to_its_end() {
    let mut bench = Bench::new();
    bench.loud([0; 50]).said(400, 500);
    for at in [900, 1_200, 1_300] {
        bench.carrier.poll(ms(at));
        bench.meter.tick(ms(at), &bench.carrier, &mut bench.report);
        let heard = bench.report.barge_ins[0].heard_after;
        assert_eq!(heard, (at == 1_300).then_some(ms(600)), "at {at}");
    }
}

#[test]
fn a_greeting_is_a_reply_before_anything_was_said() {
    let mut bench = Bench::new();
    assert_eq!(bench.meter.reply_at(&bench.report), None);
    bench.silent([0]).loud([20, 40]);
    assert_eq!(bench.meter.reply_at(&bench.report), Some(ms(20)));
    bench.said(1_000, 1_100);
    assert_eq!(bench.meter.reply_at(&bench.report), None);
}
