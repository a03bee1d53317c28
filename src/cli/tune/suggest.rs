//! Better values for a folder of tapes. Each knob that tapes can tell something about is turned alone,
//! through a few values, on all of them; a value is judged by how long callers wait and by what goes
//! wrong, and suggested only where enough calls would have gone another way, and better.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::super::replay::{Figures, each_tape, find, measured, under};
use crate::call::{Hearing, Mode, Settings};
use crate::config::Config;
use crate::tape::Conductor;
use crate::turn::Vad;

/// What a mistake weighs, in ms of waiting for each turn. To cut somebody off costs a turn that was asked
/// in vain, and so does not to hear somebody; to fall silent for nothing costs half of that; to hesitate,
/// or to ask an agent for nothing, little.
const CUT_OFF_MS: f64 = 1_500.0;
const UNHEARD_MS: f64 = 1_500.0;
const FALSE_BARGE_IN_MS: f64 = 750.0;
const RESUMED_MS: f64 = 300.0;
const IN_VAIN_MS: f64 = 150.0;
/// With fewer turns, or fewer calls that would have gone another way, chance decides.
const ENOUGH_TURNS: usize = 30;
const ENOUGH_CALLS: usize = 3;
/// What is better by less than this for each turn is not worth a change.
const WORTH_MS: f64 = 15.0;

const UNKNOWN: &str = "what it would have said otherwise is not on them";

/// What there is in `[turn]` besides, and why it is not turned here.
const NOT_TRIED: &str = "\
Not tried: barge_in (what callers would have said to a bot that goes on is not on tape), dedup_window_sec,\n\
languages, backchannels, stop_words, greeting, max_utterance, idle_* and dtmf_*.";

/// One knob, and the values that are tried.
#[derive(Clone, Copy, Debug)]
struct Knob {
    name: &'static str,
    values: &'static [&'static str],
    /// Turns it. `false`: this call cannot tell.
    turn: fn(&mut Settings, &str) -> bool,
}

const KNOBS: [Knob; 5] = [
    Knob {
        name: "eou_ms",
        values: &["250", "300", "350", "450", "600", "800", "1000"],
        turn: |settings, value| {
            let ms = value.parse().map(Duration::from_millis);
            ms.map(|eou| settings.endpointing.eou = eou).is_ok()
        },
    },
    Knob {
        name: "adaptive_eou",
        values: &["true", "false"],
        turn: |settings, value| {
            settings.adaptive_eou = value == "true";
            true
        },
    },
    Knob {
        name: "vad_rms",
        values: &["120", "160", "210", "300", "450", "650"],
        turn: |settings, value| value.parse().map(|rms| settings.vad_rms = rms).is_ok(),
    },
    Knob {
        name: "vad",
        values: &["\"neural\"", "\"rms\""],
        turn: |settings, value| {
            settings.vad = if value == "\"rms\"" { Vad::Rms } else { Vad::Neural };
            settings.endpointing.tail = settings.vad.tail();
            true
        },
    },
    Knob {
        name: "early_agent",
        values: &["true", "false"],
        turn: |settings, value| {
            settings.early_agent = value == "true";
            (settings.mode, settings.hearing) == (Mode::Dialogue, Hearing::Stream)
        },
    },
];

/// A value of a knob, and what it would have made of all tapes.
#[derive(Clone, Debug)]
struct Trial {
    knob: Knob,
    value: &'static str,
    figures: Figures,
    /// Calls that would have gone another way.
    changed: usize,
}

pub(super) fn suggest(folder: &Path, config: Option<&Config>) -> anyhow::Result<String> {
    let paths = find(&[folder.to_owned()])?;
    let each = KNOBS.iter().flat_map(|knob| knob.values.iter().map(|value| (*knob, *value)));
    let values: Vec<(Knob, &str)> = each.collect();
    // Of each tape: as it is, and with each value.
    let tapes = each_tape(&paths, |_, tape| {
        if tape.header.conductor != Conductor::Ours {
            return Ok(None);
        }
        let (recorded, base) = (under(tape, None)?, under(tape, config)?);
        let (now, _) = measured(tape, &recorded, base.clone());
        let tried = values.iter().map(|(knob, value)| {
            let mut settings = base.clone();
            if !(knob.turn)(&mut settings, value) || same(&settings, &base) {
                return (now.clone(), false);
            }
            let (figures, _) = measured(tape, &recorded, settings);
            let changed = figures != now;
            (figures, changed)
        });
        let tried: Vec<(Figures, bool)> = tried.collect();
        Ok(Some((now, tried)))
    })?;
    let tapes: Vec<(Figures, Vec<(Figures, bool)>)> = tapes.into_iter().flatten().collect();
    let now = sum(tapes.iter().map(|(now, _)| now));
    let trials: Vec<Trial> = (0..)
        .zip(&values)
        .map(|(n, (knob, value))| {
            let figures = sum(tapes.iter().map(|(_, tried)| &tried[n].0));
            let changed = tapes.iter().filter(|(_, tried)| tried[n].1).count();
            Trial { knob: *knob, value, figures, changed }
        })
        .collect();
    let found = better(&now, &trials);
    let all = if found.len() > 1 {
        let together = each_tape(&paths, |_, tape| {
            if tape.header.conductor != Conductor::Ours {
                return Ok(Figures::default());
            }
            let (recorded, mut settings) = (under(tape, None)?, under(tape, config)?);
            for trial in &found {
                (trial.knob.turn)(&mut settings, trial.value);
            }
            Ok(measured(tape, &recorded, settings).0)
        })?;
        Some(sum(together.iter()))
    } else {
        None
    };
    let mut text = told(&now, &trials, &found, all.as_ref(), tapes.len());
    let left_out = paths.len() - tapes.len();
    if left_out > 0 {
        let _ =
            writeln!(text, "Left out: {left_out} tapes of calls that a model or a bot conducts; {UNKNOWN}.");
    }
    Ok(text)
}

fn same(a: &Settings, b: &Settings) -> bool {
    let knobs = |s: &Settings| (s.endpointing, s.adaptive_eou, s.vad_rms.to_bits(), s.vad, s.early_agent);
    knobs(a) == knobs(b)
}

fn sum<'f>(all: impl Iterator<Item = &'f Figures>) -> Figures {
    all.fold(Figures::default(), |mut sum, figures| {
        sum.add(figures);
        sum
    })
}

/// What a turn costs the caller, in ms, beside calls that go as they do `now`.
fn cost(figures: &Figures, now: &Figures) -> f64 {
    let wait: u64 = figures.first_frame.iter().sum();
    let wait = wait as f64 / figures.first_frame.len().max(1) as f64;
    // Who is never answered waits for ever.
    let never = if figures.first_frame.is_empty() { f64::MAX } else { 0.0 };
    // A cut-off makes two turns of one.
    let whole = |f: &Figures| f.turns.saturating_sub(f.cut_offs);
    let meant = |f: &Figures| f.barge_ins.saturating_sub(f.false_barge_ins);
    let unheard = whole(now).saturating_sub(whole(figures)) + meant(now).saturating_sub(meant(figures));
    let in_vain = figures.questions.saturating_sub(figures.turns);
    let mistakes = [
        (figures.cut_offs, CUT_OFF_MS),
        (unheard, UNHEARD_MS),
        (figures.false_barge_ins, FALSE_BARGE_IN_MS),
        (figures.resumed, RESUMED_MS),
        (in_vain, IN_VAIN_MS),
    ];
    let mistakes: f64 = mistakes.iter().map(|(count, ms)| *count as f64 * ms).sum();
    never + wait + mistakes / whole(now).max(1) as f64
}

/// Of each knob the value that does best, where it does better than what there is and enough speaks for it.
fn better<'t>(now: &Figures, trials: &'t [Trial]) -> Vec<&'t Trial> {
    if now.turns < ENOUGH_TURNS {
        return Vec::new();
    }
    let of_knob = |knob: &Knob| {
        let tried = trials.iter().filter(|trial| trial.knob.name == knob.name);
        let best = tried.min_by(|a, b| cost(&a.figures, now).total_cmp(&cost(&b.figures, now)))?;
        let better = cost(&best.figures, now) + WORTH_MS < cost(now, now);
        (better && best.changed >= ENOUGH_CALLS).then_some(best)
    };
    KNOBS.iter().filter_map(of_knob).collect()
}

fn told(now: &Figures, trials: &[Trial], found: &[&Trial], all: Option<&Figures>, tapes: usize) -> String {
    let mut text = format!("{tapes} tapes, {:.1} min, {} turns\n\n", now.seconds / 60.0, now.turns);
    text += &heading();
    text += &row("as it is", now, now, None);
    for knob in &KNOBS {
        let tried: Vec<&Trial> = trials.iter().filter(|trial| trial.knob.name == knob.name).collect();
        if tried.iter().all(|trial| trial.changed == 0) {
            let _ = writeln!(text, "{}: makes no difference on these tapes", knob.name);
            continue;
        }
        let _ = writeln!(text, "{}", knob.name);
        tried.iter().for_each(|t| text += &row(t.value, &t.figures, now, Some(t.changed)));
    }
    if now.turns < ENOUGH_TURNS {
        let _ = writeln!(
            text,
            "\nnothing is suggested: {} turns tell too little, {ENOUGH_TURNS} are wanted",
            now.turns
        );
    } else if found.is_empty() {
        text += "\nnothing is suggested: no value does better, in enough calls\n";
    } else {
        text += &suggested(now, found, all, tapes);
    }
    let _ = writeln!(
        text,
        "\nCost is ms of waiting for each turn: the mean wait; {CUT_OFF_MS} for a cut-off (a pause of less than\n\
         1.4 s that was taken for the end), {UNHEARD_MS} for a turn or a barge-in that is not heard any more,\n\
         {FALSE_BARGE_IN_MS} for a barge-in after which nothing was said, {RESUMED_MS} for a hold that was taken back,\n\
         {IN_VAIN_MS} for a question in vain. A value is suggested if {ENOUGH_CALLS} calls change and {WORTH_MS} ms are gained.\n\
         {NOT_TRIED}"
    );
    text
}

fn suggested(now: &Figures, found: &[&Trial], all: Option<&Figures>, tapes: usize) -> String {
    let mut text = String::from("\nsuggested, and what each alone would have changed:\n");
    for trial in found {
        let (knob, value, changed) = (trial.knob.name, trial.value, trial.changed);
        let what = difference(now, &trial.figures);
        let _ = writeln!(text, "  {knob} = {value}: {changed} of {tapes} calls, {} turns: {what}", now.turns);
    }
    let single = found.iter().map(|trial| cost(&trial.figures, now)).fold(f64::MAX, f64::min);
    let mut kept = found.to_vec();
    if let Some(all) = all {
        if cost(all, now) <= single {
            let _ = writeln!(text, "  all together: {}", difference(now, all));
        } else {
            text += "  together they do worse than the best of them, which is below\n";
            kept.retain(|trial| cost(&trial.figures, now) <= single);
            kept.truncate(1);
        }
    }
    text += "\n[turn]\n";
    for trial in kept {
        let _ = writeln!(text, "{} = {}", trial.knob.name, trial.value);
    }
    text
}

/// What is not as it was, in words.
fn difference(now: &Figures, then: &Figures) -> String {
    let counts = [
        ("turns", now.turns, then.turns),
        ("cut-offs", now.cut_offs, then.cut_offs),
        ("barge-ins", now.barge_ins, then.barge_ins),
        ("for naught", now.false_barge_ins, then.false_barge_ins),
        ("resumed", now.resumed, then.resumed),
        ("questions", now.questions, then.questions),
    ];
    let counts = counts.iter().filter(|(_, a, b)| a != b).map(|(name, a, b)| format!("{name} {a} → {b}"));
    let percentiles = [50, 95].into_iter().filter_map(|percent| {
        let (a, b) = (now.first_frame_ms(percent)?, then.first_frame_ms(percent)?);
        (a != b).then(|| format!("first frame p{percent} {a} → {b} ms"))
    });
    counts.chain(percentiles).collect::<Vec<_>>().join(", ")
}

fn heading() -> String {
    let names = ["turns", "cut-offs", "held", "resumed", "barge-ins", "naught", "asked", "p50 ms", "p95 ms"];
    let names: String = names.iter().map(|name| format!(" {name:>9}")).collect();
    format!("{:10}{names} {:>9} {:>9}\n", "", "cost ms", "calls")
}

fn row(name: &str, f: &Figures, now: &Figures, changed: Option<usize>) -> String {
    let ms = |percent| f.first_frame_ms(percent).map_or_else(|| "-".to_owned(), |ms| ms.to_string());
    let counts = [f.turns, f.cut_offs, f.held, f.resumed, f.barge_ins, f.false_barge_ins, f.questions];
    let counts: String = counts.iter().map(|count| format!(" {count:>9}")).collect();
    let cost = if f.first_frame.is_empty() { "-".to_owned() } else { format!("{:.0}", cost(f, now)) };
    let changed = changed.map_or_else(String::new, |changed| changed.to_string());
    let row = format!("  {name:8}{counts} {:>9} {:>9} {cost:>9} {changed:>9}", ms(50), ms(95));
    format!("{}\n", row.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(turns: usize, cut_offs: usize, wait: u64) -> Figures {
        let mut figures = Figures::default();
        (figures.turns, figures.cut_offs, figures.questions) = (turns, cut_offs, turns);
        figures.first_frame = vec![wait; turns];
        figures
    }

    fn trial(knob: usize, value: &'static str, changed: usize, figures: Figures) -> Trial {
        Trial { knob: KNOBS[knob], value, figures, changed }
    }

    fn names(found: &[&Trial]) -> Vec<String> {
        found.iter().map(|trial| format!("{} = {}", trial.knob.name, trial.value)).collect()
    }

    #[test]
    fn what_is_better_in_enough_calls_is_suggested_and_nothing_else() {
        let now = figures(100, 10, 800);
        let trials = [
            // Sooner, but callers are cut off; later, and they are not.
            trial(0, "250", 9, figures(120, 30, 600)),
            trial(0, "600", 9, figures(92, 2, 850)),
            // As good, in two calls only.
            trial(1, "false", 2, figures(92, 2, 850)),
            // Quiet callers are not heard: their turns are gone, with their cut-offs.
            trial(2, "450", 9, figures(60, 0, 790)),
            // Better by next to nothing.
            trial(3, "\"rms\"", 9, figures(100, 10, 790)),
        ];
        assert_eq!(names(&better(&now, &trials)), ["eou_ms = 600"]);
        let few = figures(20, 10, 800);
        assert!(better(&few, &trials).is_empty(), "20 turns tell too little");
        let text = told(&now, &trials, &better(&now, &trials), None, 12);
        for part in [
            "eou_ms = 600: 9 of 12 calls, 100 turns: turns 100 → 92, cut-offs 10 → 2, questions 100 → 92, \
             first frame p50 800 → 850 ms",
            "[turn]\neou_ms = 600\n\n",
            "early_agent: makes no difference on these tapes",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn a_hold_taken_back_and_a_question_in_vain_cost_something() {
        let now = figures(100, 0, 800);
        let cost = |change: fn(&mut Figures)| {
            let mut figures = now.clone();
            change(&mut figures);
            super::cost(&figures, &now) - super::cost(&now, &now)
        };
        assert_eq!(cost(|f| f.resumed = 10), 30.0);
        assert_eq!(cost(|f| f.questions = 110), 15.0);
        assert_eq!(cost(|f| f.false_barge_ins = 10), 75.0);
        assert_eq!(cost(|f| (f.turns, f.questions) = (90, 90)), 150.0);
        assert!(cost(|f| f.first_frame.clear()) > 1e9);
    }
}
