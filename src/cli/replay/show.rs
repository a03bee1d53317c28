//! The answer of a replay, for people.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::{All, Figures, Measured, Otherwise, Replayed};

pub(super) fn text(all: &All, to: &mut impl Write) -> io::Result<()> {
    for tape in &all.tapes {
        let Replayed { tape: path, call_sid, started, mode, recorded, .. } = tape;
        writeln!(to, "{path}: {mode}, {call_sid}, {started}, {:.1} s", recorded.seconds)?;
        if let Some(missing) = &tape.missing {
            writeln!(to, "  tape: {missing}")?;
        }
        if let Some(ms) = tape.differs_from_ms {
            let at = seconds(ms);
            writeln!(to, "  not as recorded from {at} s on: another version of voxgate made the tape")?;
        }
        match &tape.otherwise {
            None if tape.not_compared.is_some() => {}
            None => {
                if tape.measured == Measured::Anew {
                    writeln!(to, "  measured anew from the audio, not as the tape says")?;
                }
                let timeline = tape.timeline.as_deref().unwrap_or_default();
                writeln!(to, "{timeline}  {}", line(recorded))?;
            }
            Some(otherwise) => {
                to.write_all(why(otherwise).as_bytes())?;
                if let Some(estimate) = &otherwise.estimate {
                    to.write_all(table(recorded, &estimate.now).as_bytes())?;
                }
            }
        }
        if let Some(why) = tape.not_compared {
            writeln!(to, "  not compared: {why}")?;
        }
    }
    if all.tapes.len() > 1 {
        writeln!(to, "all {} tapes: {:.1} s", all.tapes.len(), all.recorded.seconds)?;
        match &all.now {
            None => writeln!(to, "  {}", line(&all.recorded))?,
            Some(now) => to.write_all(table(&all.recorded, now).as_bytes())?,
        }
    }
    to.flush()
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03}", ms / 1_000, ms % 1_000)
}

/// What is different, and how far that can be known.
fn why(otherwise: &Otherwise) -> String {
    let changed = otherwise.changed.iter().map(|change| {
        let (setting, from, to) = (&change.setting, &change.from, &change.to);
        format!("{setting} {from} → {to}")
    });
    let changed: Vec<String> = changed.collect();
    let changed = if changed.is_empty() { "no setting".to_owned() } else { changed.join(", ") };
    let answers = otherwise.estimate.as_ref().map(|estimate| &estimate.answers);
    let answers = answers.filter(|answers| answers.same + answers.moved + answers.made_up > 0);
    let way = match (otherwise.forked_ms, answers) {
        (None, _) => "the call goes as recorded".to_owned(),
        (Some(ms), None) => format!("the call goes another way from {} s on", seconds(ms)),
        (Some(ms), Some(answers)) => format!(
            "the call goes another way from {} s on; answers to the same questions {}, moved to others {}, made up {}",
            seconds(ms),
            answers.same,
            answers.moved,
            answers.made_up
        ),
    };
    let anew = match otherwise.measured {
        Measured::Tape => "",
        Measured::Anew => {
            "  measured anew from the audio: the tape does not tell what this detector makes of it\n"
        }
    };
    format!("  changed: {changed}\n{anew}  {way}\n")
}

fn ms(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"))
}

fn line(figures: &Figures) -> String {
    let Figures { turns, answered, interrupted, empty, failed, cut_offs, collisions, .. } = figures;
    let Figures { held, resumed, barge_ins, .. } = figures;
    format!(
        "turns {turns} ({answered} answered, {interrupted} interrupted, {empty} empty, {failed} failed), \
         cut-offs {cut_offs}, collisions {collisions}, held {held} ({resumed} resumed), barge-ins {barge_ins}, \
         first frame p50 {}, p95 {}",
        ms(figures.first_frame_ms(50)),
        ms(figures.first_frame_ms(95))
    )
}

type Count = fn(&Figures) -> usize;

fn table(recorded: &Figures, now: &Figures) -> String {
    let mut text = String::new();
    row(&mut text, "", "recorded", "now", "");
    let counts: [(&str, Count); 12] = [
        ("turns", |f| f.turns),
        ("  answered", |f| f.answered),
        ("  interrupted", |f| f.interrupted),
        ("  empty", |f| f.empty),
        ("  failed", |f| f.failed),
        ("cut-offs", |f| f.cut_offs),
        ("collisions", |f| f.collisions),
        ("held", |f| f.held),
        ("  resumed", |f| f.resumed),
        ("barge-ins", |f| f.barge_ins),
        ("  for naught", |f| f.false_barge_ins),
        ("questions asked", |f| f.questions),
    ];
    for (name, of) in counts {
        let (then, now) = (of(recorded), of(now));
        let change = difference(then as i64, now as i64, "");
        row(&mut text, name, &then.to_string(), &now.to_string(), &change);
    }
    for (name, percent) in [("first frame p50", 50), ("            p95", 95)] {
        let (then, now) = (recorded.first_frame_ms(percent), now.first_frame_ms(percent));
        let change = match (then, now) {
            (Some(then), Some(now)) => difference(then as i64, now as i64, " ms"),
            _ => String::new(),
        };
        row(&mut text, name, &ms(then), &ms(now), &change);
    }
    text
}

fn row(text: &mut String, name: &str, then: &str, now: &str, change: &str) {
    let row = format!("  {name:18} {then:>10} {now:>10} {change:>10}");
    let _ = writeln!(text, "{}", row.trim_end());
}

fn difference(then: i64, now: i64, unit: &str) -> String {
    if then == now { String::new() } else { format!("{:+}{unit}", now - then) }
}
