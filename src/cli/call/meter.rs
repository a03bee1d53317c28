//! Measures what a server sends, against the clock of the call. Pure.
//!
//! **Lateness.** Within a spurt, the audio that begins at offset `o` is due at
//! `first + max(0, o - lead)`. The lead is what the server chose to send ahead: all that arrives within
//! 5 ms of the spurt's first message counts as its opening burst, and the lead is the offset at which
//! the last message of that burst begins. A server that sends one frame every 20 ms from the first has
//! a lead of zero. Lateness is never negative. When the caller has heard an underrun the schedule
//! starts again with the audio that ended it: a stall is to count once and not for the rest of the
//! reply.

use super::carrier::{Arrival, Carrier};
use super::report::{BargeIn, CallReport, Turn, What};
use crate::audio::BYTES_PER_MS;
use std::time::Duration;

const BURST: Duration = Duration::from_millis(5);
/// An interruption without `clear` is over when the server has been still for this long.
const STILL: Duration = Duration::from_millis(300);

#[derive(Debug, Default)]
pub(super) struct Meter {
    spurt_at: Option<Duration>,
    last_arrival: Duration,
    /// Where the schedule of the running spurt begins, its lead, and the audio seen since.
    schedule_at: Duration,
    lead: Duration,
    bytes: u64,
    greeting: Option<Duration>,
    /// The interruption that is under way: audio played when it began.
    open: Option<Duration>,
}

impl Meter {
    /// The first voiced frame of an utterance went out.
    pub(super) fn said_start(&mut self, now: Duration, carrier: &Carrier, report: &mut CallReport) {
        self.close_barge_in(carrier, report);
        let interrupts = carrier.speaking();
        if interrupts {
            self.open = Some(carrier.played());
            report.barge_ins.push(BargeIn { at: now, clear: None, heard_after: None });
        }
        report.turns.push(Turn { said_at: now, interrupts, ..Turn::default() });
    }

    /// The last voiced frame of an utterance went out.
    pub(super) fn said_end(&mut self, now: Duration, report: &mut CallReport) {
        if let Some(turn) = report.turns.last_mut() {
            turn.said_until = Some(now);
        }
    }

    /// A media message came, and the carrier has taken it.
    pub(super) fn media(
        &mut self,
        len: usize,
        arrival: Arrival,
        now: Duration,
        carrier: &Carrier,
        report: &mut CallReport,
    ) -> Option<What> {
        report.frames_in += 1;
        report.bytes_in += len as u64;
        if arrival.new_spurt {
            self.spurt_at = Some(now);
            self.restart(now);
        } else {
            report.max_gap = report.max_gap.max(now.saturating_sub(self.last_arrival));
        }
        self.last_arrival = now;

        let offset = Duration::from_micros(self.bytes * 1_000 / BYTES_PER_MS as u64);
        if now.saturating_sub(self.schedule_at) <= BURST {
            self.lead = offset;
        }
        let due = self.schedule_at + offset.saturating_sub(self.lead);
        let late = now.saturating_sub(due).as_micros();
        report.lateness.saturating_record(u64::try_from(late).unwrap_or(u64::MAX));
        if arrival.underrun.is_some() {
            self.restart(now);
        }
        self.bytes += len as u64;
        self.reply(arrival, now, carrier, report)
    }

    fn restart(&mut self, now: Duration) {
        self.schedule_at = now;
        self.lead = Duration::ZERO;
        self.bytes = 0;
    }

    /// Decides whether this message begins the reply to what was said last.
    fn reply(
        &mut self,
        arrival: Arrival,
        now: Duration,
        carrier: &Carrier,
        report: &mut CallReport,
    ) -> Option<What> {
        let spurt_at = self.spurt_at?;
        let elsewhere = arrival.new_spurt.then_some(What::SpurtStart);
        let Some(turn) = report.turns.last_mut() else {
            if self.greeting.is_some() || !arrival.audible {
                return elsewhere;
            }
            self.greeting = Some(now);
            return Some(What::ReplyStart { latency: None });
        };
        let Some(said_until) = turn.said_until else { return elsewhere };
        // A stream of audio that was running before the caller spoke (an old reply, or a server that
        // sends silence for ever) answers only once something new is to be heard in it.
        let audible_at = carrier.audible_since().filter(|at| arrival.audible && *at >= turn.said_at);
        if turn.audible_at.is_none() && (arrival.audible && spurt_at >= turn.said_at || audible_at.is_some())
        {
            turn.audible_at = Some(now);
        }
        if turn.reply_at.is_some() {
            return elsewhere;
        }
        let began = if spurt_at >= turn.said_at { spurt_at } else { audible_at? };
        turn.reply_at = Some(now);
        turn.early = began < said_until;
        Some(What::ReplyStart { latency: turn.latency() })
    }

    /// `clear` came, and the carrier has obeyed it. Says how long after the interruption.
    pub(super) fn clear(&mut self, now: Duration, report: &mut CallReport) -> Option<Duration> {
        report.clears += 1;
        self.open?;
        let barge_in = report.barge_ins.last_mut().filter(|barge_in| barge_in.clear.is_none())?;
        barge_in.clear = Some(now.saturating_sub(barge_in.at));
        barge_in.clear
    }

    /// Time passes: an interruption is over when it was cleared and the caller has spoken (so that
    /// old audio sent after the `clear` counts as heard), or when the server fell still by itself.
    pub(super) fn tick(&mut self, now: Duration, carrier: &Carrier, report: &mut CallReport) {
        if self.open.is_none() {
            return;
        }
        let cleared = report.barge_ins.last().is_some_and(|barge_in| barge_in.clear.is_some());
        let spoken = report.turns.last().is_some_and(|turn| turn.said_until.is_some());
        if cleared && spoken || !cleared && now >= carrier.audible_until() + STILL {
            self.close_barge_in(carrier, report);
        }
    }

    /// Notes how much was heard since the interruption began.
    pub(super) fn close_barge_in(&mut self, carrier: &Carrier, report: &mut CallReport) {
        if let (Some(played), Some(barge_in)) = (self.open.take(), report.barge_ins.last_mut()) {
            barge_in.heard_after = Some(carrier.played().saturating_sub(played));
        }
    }

    /// When the reply to what was said last began; before anything was said, the greeting.
    pub(super) fn reply_at(&self, report: &CallReport) -> Option<Duration> {
        report.turns.last().map_or(self.greeting, |turn| turn.reply_at)
    }
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;
