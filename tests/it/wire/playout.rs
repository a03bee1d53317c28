//! What the caller hears, and when: pacing, marks and `clear`.

use std::time::Duration;

use futures_util::future::join_all;
use voxgate::cli::call::{CallOptions, CarrierOptions, MarksMode, MarksOnClear, Step, run_call};

use crate::world::{Gateway, block_on, steady, tone};

const TIMEOUT: Duration = Duration::from_secs(20);
/// What a frame may be late on its way here: less than one frame.
const JITTER: Duration = Duration::from_millis(8);

/// Item 9: marks that come back, that never do, that come late, and that `clear` sends back or drops:
/// the call ends the same, and turns after the interruption are answered.
#[test]
fn a_call_does_not_depend_on_its_marks() {
    let gateway = Gateway::start("");
    let script = vec![
        Step::Say(tone(400)),
        Step::wait_for_reply_end(TIMEOUT),
        Step::Say(tone(2_000)),
        Step::Interrupt { after: Duration::from_millis(800), audio: tone(600), timeout: TIMEOUT },
        Step::wait_for_reply_end(TIMEOUT),
        Step::Say(tone(400)),
        Step::wait_for_reply_end(TIMEOUT),
    ];
    let mut carriers = Vec::new();
    for marks in [MarksMode::Normal, MarksMode::Never, MarksMode::Late(900)] {
        for on_clear in [MarksOnClear::Return, MarksOnClear::Drop] {
            carriers.push(CarrierOptions { marks, on_clear, ..CarrierOptions::default() });
        }
    }
    let calls = carriers.iter().map(|carrier| {
        let options = CallOptions { carrier: carrier.clone(), ..CallOptions::new(gateway.media()) };
        run_call(options, script.clone())
    });
    let reports = block_on(join_all(calls));
    for (carrier, report) in carriers.iter().zip(reports) {
        let report = report.unwrap();
        assert_eq!(report.problem(), None, "{carrier:?}");
        assert_eq!((report.turns.len(), report.clears), (4, 1), "{carrier:?}");
        let stops = gateway.events("WS_STOP");
        let stop = stops.iter().find(|stop| stop["stream_sid"] == report.stream_sid.as_str()).unwrap();
        assert_eq!(stop["turns"], 4, "{carrier:?}");
        assert_eq!(stop["barge_ins"], 1, "{carrier:?}");
        assert_eq!(stop["reason"], "caller_hangup", "{carrier:?}");
    }
    assert_eq!(gateway.metric("voxgate_turns_total{result=\"answered\"}"), 18.0);
    assert_eq!(gateway.metric("voxgate_turns_total{result=\"interrupted\"}"), 6.0);
}

/// Item 10: the carrier never holds more than the lead (and the frame that keeps the grid, where the
/// lead is less than two), and no frame of an echo comes more than 25 ms after the one before.
#[test]
fn audio_is_never_further_ahead_than_the_lead_and_has_no_gaps() {
    for lead in [0, 100, 200] {
        let gateway = Gateway::start(&format!("[playout]\nlead_ms = {lead}\n"));
        let allowed = Duration::from_millis(if lead < 40 { 40 } else { lead });
        steady(|| {
            let script = vec![Step::Say(tone(1_000)), Step::wait_for_reply_end(TIMEOUT)];
            let report = block_on(run_call(CallOptions::new(gateway.media()), script)).unwrap();
            assert_eq!(report.problem(), None);
            assert!(report.frames_in > 50, "{} frames", report.frames_in);
            let mut wrong = Vec::new();
            if report.max_lead > allowed + JITTER {
                wrong.push(format!("lead_ms = {lead}: {:?} ahead", report.max_lead));
            }
            if lead >= 100 && report.max_lead < allowed - Duration::from_millis(20) - JITTER {
                wrong.push(format!("lead_ms = {lead}: only {:?} ahead", report.max_lead));
            }
            if report.max_gap > Duration::from_millis(25) {
                wrong.push(format!("lead_ms = {lead}: a gap of {:?}", report.max_gap));
            }
            (report, wrong)
        });
    }
}

/// Item 13: keys pressed while the bot speaks do no harm to an echo.
#[test]
fn keys_do_not_disturb_an_echo() {
    let gateway = Gateway::start("");
    let mut script = vec![Step::Say(tone(800)), Step::WaitForReplyStart { timeout: TIMEOUT }];
    script.extend("0123456789*#ABCD".chars().map(Step::Dtmf));
    script.push(Step::wait_for_reply_end(TIMEOUT));
    let report = block_on(run_call(CallOptions::new(gateway.media()), script)).unwrap();
    assert_eq!(report.problem(), None);
    assert_eq!((report.clears, report.turns.len()), (0, 1));
    assert!(report.frames_in >= 40, "{} frames", report.frames_in);
    assert_eq!(gateway.metric("voxgate_dtmf_total"), 16.0);
    assert_eq!(gateway.metric("voxgate_turns_total{result=\"answered\"}"), 1.0);
}
