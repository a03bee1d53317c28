//! Many calls at once: one task each, begun over a ramp and over the 20 ms grid, so that the server
//! does not get all frames in the same millisecond (and neither does this generator).

use super::caller::{CallOptions, run_call};
use super::figures::{Cost, Figures};
use super::process;
use super::script::Step;
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Successive multiples of it, taken modulo one, lie evenly on the grid however many there are.
const GOLDEN: f64 = 0.618_033_988_749_895;

pub(super) async fn run(
    options: CallOptions,
    script: Vec<Step>,
    calls: u32,
    ramp: Duration,
    pid: Option<u32>,
) -> Result<Figures> {
    let before = pid.map(process::usage).transpose()?;
    let mut figures = Figures::default();
    // Hidden by itself where stderr is no terminal.
    let bar = ProgressBar::new(u64::from(calls)).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} calls done, {msg} begun, {elapsed}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for n in 0..calls {
        let (options, script) = (options.clone(), script.clone());
        let at = begin + begins_after(n, calls, ramp);
        tasks.spawn(async move {
            sleep_until(at).await;
            run_call(options, script).await
        });
    }
    let mut peak = before.map_or(0, |usage| usage.rss_kib);
    let mut sample = interval(Duration::from_millis(500));
    sample.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            done = tasks.join_next() => {
                let Some(done) = done else { break };
                figures.add(&done.map_err(anyhow::Error::from).and_then(|outcome| outcome));
                bar.inc(1);
            }
            _ = sample.tick() => {
                let begun = (0..calls).take_while(|n| begin + begins_after(*n, calls, ramp) <= Instant::now());
                bar.set_message(begun.count().to_string());
                if let Some(pid) = pid {
                    peak = peak.max(process::usage(pid).map_or(0, |usage| usage.rss_kib));
                }
            }
        }
    }
    bar.finish_and_clear();
    if let (Some(pid), Some(before)) = (pid, before) {
        let after = process::usage(pid)?;
        figures.cost(Cost {
            cpu: after.cpu.saturating_sub(before.cpu),
            rss_kib: peak.max(after.rss_kib) - before.rss_kib,
        });
    }
    Ok(figures)
}

/// The n-th call's place on the ramp and on the grid.
fn begins_after(n: u32, calls: u32, ramp: Duration) -> Duration {
    let on_ramp = ramp * n / calls.max(1);
    let on_grid = (f64::from(n) * GOLDEN).fract();
    on_ramp + crate::time::FRAME.mul_f64(on_grid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_spread_over_the_ramp_and_over_the_grid() {
        let ramp = Duration::from_secs(5);
        let starts: Vec<Duration> = (0..500).map(|n| begins_after(n, 500, ramp)).collect();
        assert!(starts[0] < Duration::from_millis(20) && starts[499] > Duration::from_millis(4_980));
        // A ramp of whole frames must not put all calls into one phase of the grid.
        let mut phases = [0; 10];
        for start in &starts {
            phases[(start.as_micros() % 20_000 / 2_000) as usize] += 1;
        }
        assert!(phases.iter().all(|n| (45..=55).contains(n)), "{phases:?}");
    }
}
