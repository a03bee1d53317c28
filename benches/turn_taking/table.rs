//! The table: each figure beside its goal, of the shipped detector and of RMS 210.

use crate::score::{Barge, Score};

/// What it is, its goal, and how a score tells it.
type Row = (&'static str, &'static str, fn(&Score) -> String);

pub(crate) fn show(neural: &Score, rms: &Score) -> String {
    let rows: Vec<Row> = vec![
        ("frame AUC", "", |s| format!("{:.3}", s.auc)),
        ("frame F1", "≥ .86", |s| format!("{:.3}", s.f1)),
        ("speech missed / noise taken for speech", "", |s| format!("{:.2} / {:.2}", s.miss, s.false_alarm)),
        ("speech missed of quiet talkers (≤ -30 dBFS)", "≤ .08", |s| format!("{:.2}", s.quiet_miss)),
        ("end of utterance p50 / p95, ms", "≤ 500 / 650", |s| pair(s.eou)),
        ("turns never closed", "≤ .01", |s| format!("{:.3} of {}", s.never_closed, s.turns)),
        ("thinking pauses over 450 ms that end the turn", "", |s| format!("{:.2}", s.pauses_cut)),
        ("HOLD p50 / p95, ms", "≤ 180 / 450", |s| pair(s.hold.delay)),
        ("HOLD missed", "≤ 1 of 36", |s| missed(&s.hold)),
        ("HOLD before the caller spoke", "≤ 1 of 36", |s| early(&s.hold)),
        ("HOLD on backchannels", "", |s| backchannels(&s.hold)),
        ("HOLD a minute of noise / of echo", "", |s| rates(&s.hold)),
        ("CONFIRM by voice alone p50 / p95, ms", "", |s| pair(s.confirm.delay)),
        ("CONFIRM by voice alone missed", "", |s| missed(&s.confirm)),
        ("CONFIRM before the caller spoke", "0", |s| early(&s.confirm)),
        ("CONFIRM on backchannels, no words known", "", |s| backchannels(&s.confirm)),
        ("CONFIRM a minute of noise / of echo", "≤ 1 / -", |s| rates(&s.confirm)),
        ("front end, µs a frame", "≤ 10", |s| format!("{:.2}", s.cost.as_secs_f64() * 1e6)),
    ];
    let mut text = String::from("| | goal | neural | RMS 210 |\n|---|---|---|---|\n");
    for (name, goal, figure) in rows {
        text.push_str(&format!("| {name} | {goal} | {} | {} |\n", figure(neural), figure(rms)));
    }
    text
}

fn pair((one, other): (f64, f64)) -> String {
    format!("{one:.0} / {other:.0}")
}

fn missed(barge: &Barge) -> String {
    format!("{} of {}", barge.missed, barge.clips)
}

fn early(barge: &Barge) -> String {
    format!("{} of {}", barge.early, barge.clips)
}

fn backchannels(barge: &Barge) -> String {
    format!("{} of {}", barge.backchannels.0, barge.backchannels.1)
}

fn rates(barge: &Barge) -> String {
    format!("{:.1} / {:.1}", barge.in_noise, barge.in_echo)
}
