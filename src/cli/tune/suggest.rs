//! Better values for a folder of tapes: each pair of a grid is tried on all of them, and judged by how
//! long callers wait and how often they are cut off or the bot is stopped by nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::super::replay::{Figures, each_tape, find, measured, under};
use crate::call::Settings;
use crate::config::Config;

const EOU_MS: [u64; 7] = [250, 300, 350, 450, 600, 800, 1_000];
const VAD_RMS: [f32; 5] = [120.0, 160.0, 210.0, 300.0, 450.0];
/// What a mistake weighs, in ms of waiting for each turn: cutting somebody off costs a turn that was
/// asked in vain, and falling silent for nothing costs half of that.
const CUT_OFF_MS: f64 = 1_500.0;
const FALSE_BARGE_IN_MS: f64 = 750.0;
/// With fewer turns chance decides.
const ENOUGH_TURNS: usize = 100;
/// How many pairs are shown.
const SHOWN: usize = 8;

type Pair = (u64, u32);

pub(super) fn suggest(folder: &Path, config: Option<&Config>) -> anyhow::Result<String> {
    let paths = find(&[folder.to_owned()])?;
    let tapes = each_tape(&paths, |_, tape| {
        let recorded = under(tape, None)?;
        let base = under(tape, config)?;
        let now = pair(&base);
        let mut tried = vec![(now, measured(tape, &recorded, base.clone()).0)];
        for (eou_ms, vad_rms) in EOU_MS.into_iter().flat_map(|eou| VAD_RMS.map(|rms| (eou, rms))) {
            let mut settings = base.clone();
            settings.endpointing.eou = Duration::from_millis(eou_ms);
            settings.vad_rms = vad_rms;
            if pair(&settings) != now {
                tried.push((pair(&settings), measured(tape, &recorded, settings).0));
            }
        }
        Ok((now, tried))
    })?;
    let mut all: BTreeMap<Pair, Figures> = BTreeMap::new();
    let mut now = Figures::default();
    for (at_present, tried) in &tapes {
        for (pair, figures) in tried {
            all.entry(*pair).or_default().add(figures);
            if pair == at_present {
                now.add(figures);
            }
        }
    }
    // What only some tapes had cannot be compared.
    let pairs = all
        .into_iter()
        .filter(|(_, figures)| (figures.seconds - now.seconds).abs() < now.seconds * 0.2 + 1.0);
    let mut ranked: Vec<(Pair, Figures)> = pairs.collect();
    // Of two that do as well, the one that changes less.
    let present = tapes.first().map_or((0, 0), |(present, _)| *present);
    let far = |pair: Pair| (pair.0.abs_diff(present.0), pair.1.abs_diff(present.1));
    ranked.sort_by(|(a, did), (b, does)| cost(did).total_cmp(&cost(does)).then(far(*a).cmp(&far(*b))));
    Ok(table(&now, &ranked, paths.len()))
}

fn pair(settings: &Settings) -> Pair {
    (settings.endpointing.eou.as_millis() as u64, settings.vad_rms as u32)
}

/// What a turn costs the caller, in ms.
fn cost(figures: &Figures) -> f64 {
    let turns = figures.turns.max(1) as f64;
    let wait: u64 = figures.first_frame.iter().sum();
    let wait = wait as f64 / figures.first_frame.len().max(1) as f64;
    // Who is never answered waits for ever.
    let never = if figures.first_frame.is_empty() { f64::MAX } else { 0.0 };
    let mistakes = figures.cut_offs as f64 * CUT_OFF_MS + figures.false_barge_ins as f64 * FALSE_BARGE_IN_MS;
    never + wait + mistakes / turns
}

fn table(now: &Figures, ranked: &[(Pair, Figures)], tapes: usize) -> String {
    let mut text = format!("{tapes} tapes, {:.1} min\n\n", now.seconds / 60.0);
    let _ = writeln!(
        text,
        "  {:>7} {:>8} {:>7} {:>9} {:>10} {:>10} {:>9} {:>9}",
        "eou_ms", "vad_rms", "turns", "cut-offs", "barge-ins", "for naught", "p50 ms", "p95 ms"
    );
    let row = |name: (String, String), f: &Figures| {
        let ms = |percent| f.first_frame_ms(percent).map_or_else(|| "-".to_owned(), |ms| ms.to_string());
        format!(
            "  {:>7} {:>8} {:>7} {:>9} {:>10} {:>10} {:>9} {:>9}\n",
            name.0,
            name.1,
            f.turns,
            f.cut_offs,
            f.barge_ins,
            f.false_barge_ins,
            ms(50),
            ms(95)
        )
    };
    text += &row(("as it".to_owned(), "is".to_owned()), now);
    for ((eou, rms), figures) in ranked.iter().take(SHOWN) {
        text += &row((eou.to_string(), rms.to_string()), figures);
    }
    match ranked.first() {
        Some(((eou, rms), best)) if cost(best) < cost(now) => {
            let _ = writeln!(text, "\nsuggested:\n\n[turn]\neou_ms  = {eou}\nvad_rms = {rms}");
        }
        _ => text += "\nnothing does better than what there is\n",
    }
    if now.turns < ENOUGH_TURNS {
        let _ = writeln!(text, "\nonly {} turns: a hint, not a finding", now.turns);
    }
    let _ = writeln!(
        text,
        "\nThe best come first: the mean wait, and {CUT_OFF_MS} ms a turn for each cut-off (a pause of less than\n\
         1.4 s that was taken for the end), {FALSE_BARGE_IN_MS} ms for each barge-in after which nothing was said."
    );
    text
}
