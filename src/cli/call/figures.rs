//! The figures of one call or of many, as JSON and as a few lines for people.

use super::check::Violation;
use super::report::{CallReport, Close};
use hdrhistogram::{Counter, Histogram};
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// How many problems and violations are shown of many.
const SHOWN: usize = 10;

/// Sums over calls.
#[derive(Debug)]
pub struct Figures {
    calls: u64,
    served: u64,
    call_time: Duration,
    turns: u64,
    replies: u64,
    early: u64,
    handshake: Histogram<u64>,
    reply: Histogram<u64>,
    audible: Histogram<u64>,
    lateness: Histogram<u64>,
    own_lateness: Histogram<u64>,
    barge_ins: u64,
    clear: Histogram<u64>,
    heard_after: Histogram<u64>,
    max_gap: Duration,
    max_lead: Duration,
    gap_total: Duration,
    underruns: u64,
    frames_in: u64,
    frames_out: u64,
    bytes_in: u64,
    marks_in: u64,
    marks_out: u64,
    clears: u64,
    pings: u64,
    violation_count: u64,
    violations: Vec<Violation>,
    problems: Vec<String>,
    gateway: Option<Cost>,
}

/// What the server's process spent on the calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) cpu: Duration,
    /// Growth of resident memory at its height.
    pub(super) rss_kib: u64,
}

/// Of microseconds up to ten minutes.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3)
        .unwrap_or_else(|e| unreachable!("constant bounds are valid: {e}"))
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

impl Default for Figures {
    fn default() -> Figures {
        Figures {
            calls: 0,
            served: 0,
            call_time: Duration::ZERO,
            turns: 0,
            replies: 0,
            early: 0,
            handshake: histogram(),
            reply: histogram(),
            audible: histogram(),
            lateness: histogram(),
            own_lateness: histogram(),
            barge_ins: 0,
            clear: histogram(),
            heard_after: histogram(),
            max_gap: Duration::ZERO,
            max_lead: Duration::ZERO,
            gap_total: Duration::ZERO,
            underruns: 0,
            frames_in: 0,
            frames_out: 0,
            bytes_in: 0,
            marks_in: 0,
            marks_out: 0,
            clears: 0,
            pings: 0,
            violation_count: 0,
            violations: Vec::new(),
            problems: Vec::new(),
            gateway: None,
        }
    }
}

impl Figures {
    /// Adds a call that came about, or the reason why one did not.
    pub fn add(&mut self, outcome: &anyhow::Result<CallReport>) {
        self.calls += 1;
        let report = match outcome {
            Ok(report) => report,
            Err(error) => return self.problem(format!("{error:#}")),
        };
        match report.problem() {
            None => self.served += 1,
            Some(problem) => self.problem(problem),
        }
        self.call_time += report.duration;
        self.handshake.saturating_record(micros(report.handshake));
        for turn in &report.turns {
            self.turns += 1;
            self.replies += u64::from(turn.reply_at.is_some());
            self.early += u64::from(turn.early);
            record(&mut self.reply, turn.latency());
            record(&mut self.audible, turn.audible_latency());
        }
        merge(&mut self.lateness, &report.lateness);
        merge(&mut self.own_lateness, &report.own_lateness);
        for barge_in in &report.barge_ins {
            self.barge_ins += 1;
            record(&mut self.clear, barge_in.clear);
            record(&mut self.heard_after, barge_in.heard_after);
        }
        self.max_gap = self.max_gap.max(report.max_gap);
        self.max_lead = self.max_lead.max(report.max_lead);
        self.gap_total += report.gap_total;
        self.underruns += report.underruns;
        self.frames_in += report.frames_in;
        self.frames_out += report.frames_out;
        self.bytes_in += report.bytes_in;
        self.marks_in += report.marks_in;
        self.marks_out += report.marks_out;
        self.clears += report.clears;
        self.pings += report.pings;
        self.violation_count += report.violation_count;
        let room = SHOWN.saturating_sub(self.violations.len());
        self.violations.extend(report.violations.iter().take(room).cloned());
    }

    fn problem(&mut self, problem: String) {
        if self.problems.len() < SHOWN && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    pub(super) fn cost(&mut self, cost: Cost) {
        self.gateway = Some(cost);
    }

    /// `None` if every call was served; else one line about those that were not.
    pub fn complaint(&self) -> Option<String> {
        let failed = self.calls - self.served;
        let first = self.problems.first()?;
        Some(if self.calls == 1 {
            first.clone()
        } else {
            format!("{failed} of {} calls failed; {first}", self.calls)
        })
    }

    pub fn to_json(&self) -> Value {
        let seconds = self.call_time.as_secs_f64();
        json!({
            "calls": self.calls, "served": self.served, "failed": self.calls - self.served,
            "call_seconds": round(seconds),
            "turns": self.turns, "replies": self.replies, "early_replies": self.early,
            "handshake_ms": spread(&self.handshake),
            "reply_ms": spread(&self.reply),
            "audible_ms": spread(&self.audible),
            "lateness_ms": spread(&self.lateness),
            "own_lateness_ms": spread(&self.own_lateness),
            "max_gap_ms": ms(self.max_gap),
            "underruns": self.underruns, "gap_total_ms": ms(self.gap_total),
            "max_lead_ms": ms(self.max_lead),
            "frames_in": self.frames_in, "bytes_in": self.bytes_in, "frames_out": self.frames_out,
            "marks_in": self.marks_in, "marks_out": self.marks_out, "clears": self.clears,
            "pings": self.pings,
            "barge_in": {
                "count": self.barge_ins, "clear_ms": spread(&self.clear),
                "heard_after_ms": spread(&self.heard_after),
            },
            "violation_count": self.violation_count,
            "violations": self.violations.iter().map(violation).collect::<Vec<_>>(),
            "problems": self.problems,
            "gateway": self.gateway.map(|cost| json!({
                "cpu_ms": ms(cost.cpu),
                "cpu_ms_per_call_second": round(cost.cpu.as_secs_f64() * 1e3 / seconds.max(0.001)),
                "rss_kib": cost.rss_kib,
                "rss_kib_per_call": round(cost.rss_kib as f64 / self.calls.max(1) as f64),
            })),
        })
    }
}

/// What only one call has: its names, its turns and its timeline.
pub fn detail(report: &CallReport) -> Value {
    let optional = |d: Option<Duration>| d.map(ms);
    let close = report.close.as_ref().map(
        |Close { code, reason, by_server }| json!({"code": code, "reason": reason, "by_server": by_server}),
    );
    json!({
        "stream_sid": report.stream_sid, "call_sid": report.call_sid,
        "subprotocol": report.subprotocol, "close": close, "gave_up": report.gave_up,
        "turns": report.turns.iter().map(|turn| json!({
            "said_at_ms": ms(turn.said_at), "said_until_ms": optional(turn.said_until),
            "reply_at_ms": optional(turn.reply_at), "reply_ms": optional(turn.latency()),
            "audible_ms": optional(turn.audible_latency()),
            "early": turn.early, "interrupts": turn.interrupts,
        })).collect::<Vec<_>>(),
        "barge_ins": report.barge_ins.iter().map(|b| json!({
            "at_ms": ms(b.at), "clear_ms": optional(b.clear), "heard_after_ms": optional(b.heard_after),
        })).collect::<Vec<_>>(),
        "spurts": report.spurts.iter().map(|s| json!({
            "start_ms": ms(s.start), "end_ms": ms(s.end),
        })).collect::<Vec<_>>(),
        "timeline": report.timeline.iter().map(|moment| json!({
            "ms": moment.ms, "what": moment.what.to_string(),
        })).collect::<Vec<_>>(),
    })
}

fn violation(violation: &Violation) -> Value {
    json!({"code": violation.code, "what": violation.what})
}

fn record(into: &mut Histogram<u64>, d: Option<Duration>) {
    if let Some(d) = d {
        into.saturating_record(micros(d));
    }
}

fn merge<C: Counter>(into: &mut Histogram<u64>, from: &Histogram<C>) {
    for value in from.iter_recorded() {
        into.saturating_record_n(value.value_iterated_to(), value.count_at_value().as_u64());
    }
}

fn ms(d: Duration) -> f64 {
    round(d.as_secs_f64() * 1e3)
}

/// To three decimals: a microsecond where the unit is milliseconds.
fn round(x: f64) -> f64 {
    (x * 1e3).round() / 1e3
}

fn at(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    round(histogram.value_at_quantile(quantile) as f64 / 1e3)
}

/// `null` of nothing measured, so that nobody takes it for a zero.
fn spread(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    json!({
        "count": histogram.len(), "p50": at(histogram, 0.5), "p90": at(histogram, 0.9),
        "p99": at(histogram, 0.99), "p999": at(histogram, 0.999), "max": at(histogram, 1.0),
    })
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.call_time.as_secs_f64();
        let row = |f: &mut fmt::Formatter<'_>, name: &str, h: &Histogram<u64>| match h.is_empty() {
            true => Ok(()),
            false => {
                let (p50, p99, max) = (at(h, 0.5), at(h, 0.99), at(h, 1.0));
                writeln!(f, "{name:<28}{p50:>10.1}{p99:>10.1}{max:>10.1}")
            }
        };
        writeln!(f, "{} of {} calls served, {seconds:.1} call seconds", self.served, self.calls)?;
        let early = if self.early > 0 { format!(", {} early", self.early) } else { String::new() };
        writeln!(f, "{} utterances, {} replies{early}", self.turns, self.replies)?;
        writeln!(f, "{:<28}{:>10}{:>10}{:>10}", "ms", "p50", "p99", "max")?;
        row(f, "handshake", &self.handshake)?;
        row(f, "reply, first frame", &self.reply)?;
        row(f, "reply, first sound", &self.audible)?;
        row(f, "frames late by", &self.lateness)?;
        row(f, "own frames late by", &self.own_lateness)?;
        row(f, "interruption to clear", &self.clear)?;
        row(f, "heard after interruption", &self.heard_after)?;
        let (gaps, gap, lead) = (ms(self.gap_total), ms(self.max_gap), ms(self.max_lead));
        writeln!(
            f,
            "underruns {}, gaps {gaps:.1} ms in all, longest wait {gap:.1} ms, lead up to {lead:.1} ms",
            self.underruns
        )?;
        writeln!(
            f,
            "frames {} in, {} out; marks {} in, {} out; clears {}; pings answered {}",
            self.frames_in, self.frames_out, self.marks_in, self.marks_out, self.clears, self.pings
        )?;
        if let Some(Cost { cpu, rss_kib }) = self.gateway {
            let per_second = cpu.as_secs_f64() * 1e3 / seconds.max(0.001);
            let per_call = rss_kib / self.calls.max(1);
            writeln!(
                f,
                "gateway {per_second:.2} ms of CPU per call second, {per_call} KiB of memory per call"
            )?;
        }
        if self.violation_count > 0 {
            writeln!(f, "violations {}:", self.violation_count)?;
            self.violations.iter().try_for_each(|violation| writeln!(f, "  {violation}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{BargeIn, Turn};
    use super::*;

    #[test]
    fn calls_add_up_and_one_that_failed_is_told() {
        let ms = Duration::from_millis;
        let mut report = CallReport::new("MZ", "CA");
        report.duration = ms(4_000);
        report.frames_in = 10;
        report.turns.push(Turn { said_until: Some(ms(100)), reply_at: Some(ms(600)), ..Turn::default() });
        report.barge_ins.push(BargeIn { at: ms(0), clear: Some(ms(250)), heard_after: None });
        report.lateness.record(2_000).unwrap();
        let mut figures = Figures::default();
        figures.add(&Ok(report.clone()));
        assert_eq!(figures.complaint(), None);
        report.turns[0].reply_at = None;
        figures.add(&Ok(report));
        figures.add(&Err(anyhow::anyhow!("nobody there")));
        figures.cost(Cost { cpu: ms(80), rss_kib: 300 });

        let complaint = figures.complaint().unwrap();
        assert!(complaint.starts_with("2 of 3 calls failed; 1 of 1 utterances had no reply"), "{complaint}");
        let json = figures.to_json();
        assert_eq!((&json["calls"], &json["served"], &json["failed"]), (&json!(3), &json!(1), &json!(2)));
        assert_eq!(
            (&json["turns"], &json["replies"], &json["frames_in"]),
            (&json!(2), &json!(1), &json!(20))
        );
        assert_eq!(json["reply_ms"]["count"], 1);
        assert!((json["reply_ms"]["p50"].as_f64().unwrap() - 500.0).abs() < 1.0);
        assert!((json["lateness_ms"]["max"].as_f64().unwrap() - 2.0).abs() < 0.05);
        assert_eq!(json["barge_in"]["clear_ms"]["count"], 2);
        assert_eq!(json["barge_in"]["heard_after_ms"], Value::Null);
        assert_eq!(json["gateway"]["cpu_ms_per_call_second"], 10.0);
        assert_eq!(json["gateway"]["rss_kib_per_call"], 100.0);
        assert_eq!(json["problems"].as_array().unwrap().len(), 2);
    }
}
