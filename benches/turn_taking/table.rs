//! The table: each figure beside its goal, of the shipped detector and of others.

use crate::score::{Barge, Score};

/// What it is, its goal and whether a score meets it, and how a score tells it.
type Row = (&'static str, Option<(&'static str, fn(&Score) -> bool)>, fn(&Score) -> String);

/// The first is the detector that is shipped.
pub(crate) fn show(scores: &[(&str, Score)]) -> String {
    let rows: Vec<Row> = vec![
        ("frame AUC", None, |s| format!("{:.3}", s.auc)),
        ("frame F1", Some(("≥ .86", |s| s.f1 >= 0.86)), |s| format!("{:.3}", s.f1)),
        ("speech missed / noise taken for speech", None, |s| format!("{:.2} / {:.2}", s.miss, s.false_alarm)),
        ("speech missed of quiet talkers (≤ -30 dBFS)", Some(("≤ .08", |s| s.quiet_miss <= 0.08)), |s| {
            format!("{:.3}", s.quiet_miss)
        }),
        ("end of utterance p50 / p95, ms", Some(("≤ 500 / 650", |s| within(s.eou, (500.0, 650.0)))), |s| {
            pair(s.eou)
        }),
        ("turns never closed", Some(("≤ .01", |s| s.never_closed <= 0.01)), |s| {
            format!("{:.3} of {}", s.never_closed, s.turns)
        }),
        ("thinking pauses over 450 ms that end the turn", None, |s| format!("{:.2}", s.pauses_cut)),
        ("HOLD p50 / p95, ms", Some(("≤ 180 / 450", |s| within(s.hold.delay, (180.0, 450.0)))), |s| {
            pair(s.hold.delay)
        }),
        ("HOLD missed", Some(("≤ 1 of 36", |s| s.hold.missed <= 1)), |s| missed(&s.hold)),
        ("HOLD before the caller spoke", Some(("≤ 1 of 36", |s| s.hold.early <= 1)), |s| early(&s.hold)),
        ("HOLD on backchannels", None, |s| backchannels(&s.hold)),
        ("HOLD a minute of noise / of echo", None, |s| rates(&s.hold)),
        ("CONFIRM by voice alone p50 / p95, ms", None, |s| pair(s.confirm.delay)),
        ("CONFIRM by voice alone missed", None, |s| missed(&s.confirm)),
        ("CONFIRM before the caller spoke", Some(("0", |s| s.confirm.early == 0)), |s| early(&s.confirm)),
        ("CONFIRM on backchannels, no words known", None, |s| backchannels(&s.confirm)),
        ("CONFIRM a minute of noise / of echo", Some(("≤ 1 / -", |s| s.confirm.in_noise <= 1.0)), |s| {
            rates(&s.confirm)
        }),
        ("front end on this corpus, µs a frame", Some(("≤ 5", |s| micros(s) <= 5.0)), |s| {
            format!("{:.2}", micros(s))
        }),
    ];
    let mut text = String::from("| | goal | met |");
    scores.iter().for_each(|(name, _)| text.push_str(&format!(" {name} |")));
    text.push_str(&format!("\n|---|---|---|{}\n", "---|".repeat(scores.len())));
    for (name, goal, figure) in rows {
        let met = goal.zip(scores.first()).map_or("", |((_, met), (_, shipped))| match met(shipped) {
            true => "met",
            false => "NOT MET",
        });
        text.push_str(&format!("| {name} | {} | {met} |", goal.map_or("", |(goal, _)| goal)));
        scores.iter().for_each(|(_, score)| text.push_str(&format!(" {} |", figure(score))));
        text.push('\n');
    }
    text
}

fn within(figure: (f64, f64), goal: (f64, f64)) -> bool {
    figure.0 <= goal.0 && figure.1 <= goal.1
}

fn pair((one, other): (f64, f64)) -> String {
    format!("{one:.0} / {other:.0}")
}

fn micros(score: &Score) -> f64 {
    score.cost.as_secs_f64() * 1e6
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
