//! Figures from decisions and labels.

use std::time::Duration;

use crate::corpus::{Corpus, Kind, Label};
use crate::decisions::{Heard, Ran};

/// Softer than this, a caller is a quiet talker.
const QUIET_DBFS: f64 = -30.0;

#[derive(Default)]
pub(crate) struct Score {
    pub(crate) auc: f64,
    pub(crate) f1: f64,
    pub(crate) miss: f64,
    pub(crate) false_alarm: f64,
    pub(crate) quiet_miss: f64,
    /// ms after the end of the turn, at the median and at 95 %.
    pub(crate) eou: (f64, f64),
    pub(crate) never_closed: f64,
    pub(crate) turns: usize,
    pub(crate) pauses_cut: f64,
    pub(crate) hold: Barge,
    pub(crate) confirm: Barge,
    pub(crate) cost: Duration,
}

/// One stage of an interruption.
#[derive(Default)]
pub(crate) struct Barge {
    pub(crate) clips: usize,
    /// Clips in which it came before the caller spoke, and clips in which it never came.
    pub(crate) early: usize,
    pub(crate) missed: usize,
    /// ms after the caller began.
    pub(crate) delay: (f64, f64),
    /// A minute of noise, and of nothing but echo.
    pub(crate) in_noise: f64,
    pub(crate) in_echo: f64,
    pub(crate) backchannels: (usize, usize),
}

pub(crate) fn score(corpus: &Corpus, ran: &Ran) -> Score {
    let both = || corpus.clips.iter().map(|clip| &clip.label).zip(&ran.clips);
    let labelled = || both().filter(|(label, _)| matches!(label.kind, Kind::Turn | Kind::NoiseOnly));
    let all: Vec<Judged> = labelled().flat_map(|(label, heard)| judged(label, heard)).collect();
    let quiet: Vec<Judged> = labelled()
        .filter(|(label, _)| label.kind == Kind::Turn && label.level_dbfs <= QUIET_DBFS)
        .flat_map(|(label, heard)| judged(label, heard))
        .collect();
    let count = |frames: &[Judged], speech, heard| {
        frames.iter().filter(|f| f.speech == speech && f.heard == heard).count() as f64
    };
    let (hit, wrong) = (count(&all, true, true), count(&all, false, true));
    let (missed, right) = (count(&all, true, false), count(&all, false, false));
    let quiet_missed = count(&quiet, true, false) / (count(&quiet, true, true) + count(&quiet, true, false));

    let turns: Vec<(&Label, &Heard)> = both().filter(|(label, _)| label.kind == Kind::Turn).collect();
    let ends: Vec<Option<u64>> = turns.iter().filter_map(|(label, heard)| end_of(label, heard)).collect();
    let pauses: Vec<bool> = turns.iter().flat_map(|(label, heard)| cut_pauses(label, heard)).collect();
    Score {
        auc: auc(&all),
        f1: 2.0 * hit / (2.0 * hit + wrong + missed),
        miss: missed / (hit + missed),
        false_alarm: wrong / (wrong + right),
        quiet_miss: quiet_missed,
        eou: percentiles(ends.iter().flatten().map(|ms| *ms as f64).collect()),
        never_closed: ends.iter().filter(|end| end.is_none()).count() as f64 / turns.len().max(1) as f64,
        turns: turns.len(),
        pauses_cut: pauses.iter().filter(|cut| **cut).count() as f64 / pauses.len().max(1) as f64,
        hold: barge(corpus, ran, |heard| &heard.holds),
        confirm: barge(corpus, ran, |heard| &heard.confirms),
        cost: ran.cost,
    }
}

struct Judged {
    p: f32,
    heard: bool,
    speech: bool,
}

/// Frames with what they are. Those at a boundary are not judged.
fn judged(label: &Label, heard: &Heard) -> Vec<Judged> {
    let speech: Vec<bool> = (0..heard.frames.len() as u64)
        .map(|k| {
            let (from, to) = (k * 20, k * 20 + 20);
            let covered = label.speech.iter().map(|(s, e)| (*e).min(to).saturating_sub((*s).max(from)));
            covered.sum::<u64>() >= 10
        })
        .collect();
    let edge = |k: usize| speech.get(k + 1).is_some_and(|next| *next != speech[k]);
    let at_edge = |k: usize| edge(k) || (k > 0 && edge(k - 1));
    let frames = heard.frames.iter().enumerate().filter(|(k, _)| !at_edge(*k));
    frames.map(|(k, m)| Judged { p: m.p, heard: m.is_speech(), speech: speech[k] }).collect()
}

/// When the turn was taken to be over, after its end; `Some(None)` if never, `None` if it was over
/// before, or never begun.
fn end_of(label: &Label, heard: &Heard) -> Option<Option<u64>> {
    let (_, end) = label.turn;
    let open = heard.turns.iter().rev().find(|t| t.start <= end + 60 && t.end.is_none_or(|e| e >= end))?;
    Some(open.end.map(|ms| ms - end))
}

/// Whether each thinking pause longer than the shipped EOU_MS was cut.
fn cut_pauses(label: &Label, heard: &Heard) -> Vec<bool> {
    let long = label.pauses.iter().filter(|(from, to)| to - from >= 460);
    long.map(|(from, to)| heard.turns.iter().any(|t| t.end.is_some_and(|e| (*from..=*to).contains(&e))))
        .collect()
}

fn barge(corpus: &Corpus, ran: &Ran, stage: fn(&Heard) -> &Vec<u64>) -> Barge {
    let mut barge = Barge::default();
    let (mut delays, mut noise, mut echo) = (Vec::new(), (0, 0.0), (0, 0.0));
    for (clip, heard) in corpus.clips.iter().zip(&ran.clips) {
        let times = stage(heard);
        match clip.label.kind {
            Kind::Turn => {}
            Kind::NoiseOnly => noise = (noise.0 + times.len(), noise.1 + clip.minutes()),
            Kind::EchoOnly => echo = (echo.0 + times.len(), echo.1 + clip.minutes()),
            Kind::BargeIn => {
                let (from, to) = clip.label.turn;
                let early = times.iter().any(|ms| *ms < from);
                let hit = times.iter().find(|ms| (from..=to + 100).contains(ms));
                barge.clips += 1;
                barge.early += usize::from(early);
                barge.missed += usize::from(!early && hit.is_none());
                delays.extend(hit.map(|ms| (ms - from) as f64));
            }
            Kind::Backchannel => {
                for word in clip.label.events.iter().filter(|sound| sound.what == "word") {
                    let during = word.start_ms..=word.end_ms + 150;
                    barge.backchannels.0 += usize::from(times.iter().any(|ms| during.contains(ms)));
                    barge.backchannels.1 += 1;
                }
            }
        }
    }
    barge.delay = percentiles(delays);
    barge.in_noise = noise.0 as f64 / noise.1.max(f64::MIN_POSITIVE);
    barge.in_echo = echo.0 as f64 / echo.1.max(f64::MIN_POSITIVE);
    barge
}

fn auc(frames: &[Judged]) -> f64 {
    let mut sorted: Vec<&Judged> = frames.iter().collect();
    sorted.sort_by(|a, b| a.p.total_cmp(&b.p));
    let (mut below, mut wins, mut speech) = (0.0, 0.0, 0.0);
    for same in sorted.chunk_by(|a, b| a.p == b.p) {
        let (yes, no) =
            same.iter().fold((0.0, 0.0), |(y, n), f| if f.speech { (y + 1.0, n) } else { (y, n + 1.0) });
        wins += yes * (below + no / 2.0);
        below += no;
        speech += yes;
    }
    wins / (speech * below)
}

/// The median and the 95th percentile, by straight lines between the values.
fn percentiles(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * (values.len().max(1) - 1) as f64;
        let (low, part) = (place as usize, place.fract());
        let value = |i: usize| values.get(i).or(values.last()).copied().unwrap_or(f64::NAN);
        value(low) + part * (value(low + 1) - value(low))
    };
    (at(0.5), at(0.95))
}
