//! Playout: one frame every 20 ms on absolute deadlines, kept `lead` ahead at the carrier and never
//! more. A small lead hides jitter; a large one would make an interruption late and inexact.
//!
//! Audio is counted in bytes since the start of the call, so that a mark, a sentence and what the
//! caller has heard are all positions on one ruler.

use std::collections::VecDeque;
use std::time::Duration;

use crate::audio::{BYTES_PER_MS, FRAME_BYTES, Frame, SILENCE};
use crate::time::{CallTime, FRAME};

/// Something whose time to be sent has come.
#[derive(Debug, PartialEq)]
pub(super) enum Sent {
    Frame {
        frame: Frame,
        /// When it should have left.
        due: CallTime,
        /// The carrier had run dry before it.
        underrun: bool,
    },
    Mark(Mark),
}

/// A place in a reply that the carrier is asked to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    First,
    Segment(u64),
    End,
    /// One of a bot's own; its name is kept elsewhere.
    Named,
}

#[derive(Debug)]
pub(super) struct Pacer {
    lead: Duration,
    queue: VecDeque<u8>,
    marks: VecDeque<(u64, Mark)>,
    /// What was sent last, as much as the carrier may not have played; and the marks in it.
    recent: VecDeque<u8>,
    recent_marks: VecDeque<(u64, Mark)>,
    /// So many bytes of it.
    most_recent: usize,
    /// Nothing is sent for now.
    held: bool,
    /// Position up to which audio was queued, and up to which it was sent.
    pushed: u64,
    sent: u64,
    /// When the carrier will have played all that was sent.
    playout_end: CallTime,
    /// There was a frame when the pacer was last asked, and it was not due yet.
    waits_for_time: bool,
    /// When the spurt began, or began anew after the carrier had run dry.
    grid_from: CallTime,
    /// Frames sent since the spurt began; 0 between spurts.
    spurt: u64,
}

/// What an emptied queue may keep allocated.
const KEPT_CAPACITY: usize = 4_096;

impl Pacer {
    pub(super) fn new(lead: Duration) -> Pacer {
        Pacer {
            lead,
            queue: VecDeque::new(),
            marks: VecDeque::new(),
            recent: VecDeque::new(),
            recent_marks: VecDeque::new(),
            most_recent: (lead + FRAME * 2).as_millis() as usize * BYTES_PER_MS,
            held: false,
            pushed: 0,
            sent: 0,
            playout_end: CallTime::ZERO,
            waits_for_time: false,
            grid_from: CallTime::ZERO,
            spurt: 0,
        }
    }

    pub(super) fn push(&mut self, audio: &[u8]) {
        self.queue.extend(audio);
        self.pushed += audio.len() as u64;
    }

    /// Fills the last frame with silence: at the end of a sentence, never within.
    pub(super) fn pad(&mut self) {
        let over = self.queue.len() % FRAME_BYTES;
        if over > 0 {
            self.push(&[SILENCE; FRAME_BYTES][over..]);
        }
    }

    /// Sets a mark behind everything queued so far.
    pub(super) fn mark(&mut self, mark: Mark) {
        self.marks.push_back((self.pushed, mark));
    }

    /// Takes back the marks of this kind that were not sent.
    pub(super) fn unmark(&mut self, mark: Mark) {
        self.marks.retain(|(_, set)| *set != mark);
    }

    /// The position behind everything queued so far.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Takes back what was queued from `position` on, as far as it was not sent.
    pub(super) fn truncate(&mut self, position: u64) {
        let keep = position.max(self.sent);
        let drop = self.pushed.saturating_sub(keep) as usize;
        self.queue.truncate(self.queue.len().saturating_sub(drop));
        self.pushed -= drop as u64;
        self.marks.retain(|(at, _)| *at <= keep);
    }

    /// What is to be sent now, one thing a call, until `None`.
    #[inline]
    pub(super) fn next(&mut self, now: CallTime) -> Option<Sent> {
        if self.held {
            return None;
        }
        // As it is most of the time.
        if self.marks.is_empty() && self.is_dry() {
            self.waits_for_time = false;
            return None;
        }
        self.next_of_some(now)
    }

    fn next_of_some(&mut self, now: CallTime) -> Option<Sent> {
        if let Some(&(position, mark)) = self.marks.front()
            && position <= self.sent
        {
            self.marks.pop_front();
            self.recent_marks.push_back((position, mark));
            return Some(Sent::Mark(mark));
        }
        let planned = self.due();
        let ours = std::mem::replace(&mut self.waits_for_time, planned.is_some_and(|due| due > now));
        let planned = planned.filter(|due| *due <= now)?;
        // A spurt that follows another so closely that the carrier still plays goes on in its grid.
        let grace = if self.spurt == 0 { Duration::ZERO } else { self.grace() };
        let dry = now > self.playout_end + grace;
        let underrun = dry && self.spurt > 0;
        if dry {
            self.playout_end = now;
        }
        if dry || self.spurt == 0 {
            self.grid_from = now;
        }
        // The lead is due when the spurt begins, not before. Audio that came too late is not our
        // lateness; audio that was here in time and left too late is.
        let due = if ours { planned } else { planned.max(self.grid_from) };
        let frame = self.take_frame();
        self.remember(&frame);
        self.playout_end = self.playout_end + FRAME;
        self.sent += FRAME_BYTES as u64;
        self.spurt += 1;
        Some(Sent::Frame { frame, due, underrun })
    }

    /// The first frame of the queue, which has one.
    fn take_frame(&mut self) -> Frame {
        let (front, back) = self.queue.as_slices();
        let frame = match front.first_chunk() {
            Some(whole) => Frame(*whole),
            None => {
                let mut frame = Frame::SILENT;
                let (begin, end) = frame.0.split_at_mut(front.len());
                begin.copy_from_slice(front);
                end.copy_from_slice(&back[..end.len()]);
                frame
            }
        };
        self.queue.drain(..FRAME_BYTES);
        frame
    }

    /// When the next frame is due, if there is one.
    pub(super) fn due(&self) -> Option<CallTime> {
        if self.held || self.queue.len() < FRAME_BYTES {
            return None;
        }
        Some(self.playout_end + FRAME - self.lead.max(FRAME))
    }

    /// With hardly any lead each frame arrives as the one before ends; a timer's lateness must not
    /// move the grid then.
    fn grace(&self) -> Duration {
        if self.lead < FRAME * 2 { FRAME } else { Duration::ZERO }
    }

    /// When the carrier will have played all that was sent.
    pub(super) fn playout_end(&self) -> CallTime {
        self.playout_end
    }

    /// Nothing is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// No whole frame is queued.
    pub(super) fn is_dry(&self) -> bool {
        self.queue.len() < FRAME_BYTES
    }

    /// The position behind everything sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Audio queued here, not sent.
    pub(super) fn queued(&self) -> Duration {
        Duration::from_millis((self.queue.len() / BYTES_PER_MS) as u64)
    }

    /// Audio that the carrier has and has not played.
    pub(super) fn ahead(&self, now: CallTime) -> Duration {
        self.playout_end.since(now)
    }

    /// Audio that was not heard yet, here and at the carrier.
    pub(super) fn unheard(&self, now: CallTime) -> Duration {
        self.ahead(now) + self.queued()
    }

    /// The position up to which the caller has heard.
    pub(super) fn heard(&self, now: CallTime) -> u64 {
        let ahead = self.ahead(now).as_micros() as u64 * BYTES_PER_MS as u64 / 1_000;
        self.sent.saturating_sub(ahead)
    }

    /// Keeps a frame as long as the carrier may not have played it.
    fn remember(&mut self, frame: &Frame) {
        let over = (self.recent.len() + FRAME_BYTES).saturating_sub(self.most_recent);
        self.recent.drain(..over.min(self.recent.len()));
        self.recent.extend(&frame.0);
        let from = self.sent.saturating_sub(self.recent.len() as u64);
        while self.recent_marks.front().is_some_and(|(at, _)| *at < from) {
            self.recent_marks.pop_front();
        }
    }

    /// Sends nothing until `resume`, and takes back what the carrier was sent and will not play, with
    /// its marks. It is to be told to forget that.
    pub(super) fn hold(&mut self, now: CallTime) {
        let frames = self.ahead(now).as_micros().div_ceil(FRAME.as_micros()) as usize;
        let unheard = (frames * FRAME_BYTES).min(self.recent.len());
        for byte in self.recent.drain(self.recent.len() - unheard..).rev() {
            self.queue.push_front(byte);
        }
        self.sent -= unheard as u64;
        while let Some(mark) = self.recent_marks.pop_back_if(|(at, _)| *at > self.sent) {
            self.marks.push_front(mark);
        }
        self.playout_end = self.playout_end.min(now);
        self.held = true;
    }

    pub(super) fn resume(&mut self) {
        self.held = false;
    }

    /// Forgets everything that was not heard; how much that was.
    pub(super) fn clear(&mut self, now: CallTime) -> Duration {
        let unheard = self.unheard(now);
        self.queue.clear();
        self.marks.clear();
        self.recent.clear();
        self.recent_marks.clear();
        self.held = false;
        self.pushed = self.sent;
        self.playout_end = self.playout_end.min(now);
        unheard
    }

    /// Ends the spurt; how many frames it had.
    pub(super) fn end_spurt(&mut self) -> u64 {
        self.recent.shrink_to(KEPT_CAPACITY);
        self.queue.shrink_to(KEPT_CAPACITY);
        std::mem::take(&mut self.spurt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> CallTime {
        CallTime::from_millis(ms)
    }

    /// When frames leave if the pacer is asked exactly when it wants to be.
    fn departures(pacer: &mut Pacer, from: u64, until: u64) -> Vec<u64> {
        let mut times = Vec::new();
        let mut now = ms(from);
        while now <= ms(until) {
            while let Some(sent) = pacer.next(now) {
                if matches!(sent, Sent::Frame { .. }) {
                    times.push(now.as_millis());
                }
            }
            match pacer.due() {
                Some(due) => now = due,
                None => break,
            }
        }
        times
    }

    #[test]
    fn the_lead_goes_out_at_once_and_then_one_frame_each_20_ms() {
        for (lead, expected) in [
            (100, [1000, 1000, 1000, 1000, 1000, 1020, 1040, 1060]),
            (40, [1000, 1000, 1020, 1040, 1060, 1080, 1100, 1120]),
            (0, [1000, 1020, 1040, 1060, 1080, 1100, 1120, 1140]),
        ] {
            let mut pacer = Pacer::new(Duration::from_millis(lead));
            pacer.push(&[1; 8 * FRAME_BYTES]);
            assert_eq!(departures(&mut pacer, 1000, 5000), expected, "lead {lead} ms");
        }
    }

    #[test]
    fn a_frame_of_the_lead_is_not_late_and_one_after_a_stall_is_late_once() {
        let mut pacer = Pacer::new(Duration::from_millis(100));
        pacer.push(&[1; 30 * FRAME_BYTES]);
        let mut late = Vec::new();
        for now in [1000, 1020, 1050, 1300, 1320] {
            while let Some(Sent::Frame { due, .. }) = pacer.next(ms(now)) {
                late.push(ms(now).since(due).as_millis());
            }
        }
        // The lead at 1000, one at 1020, one 10 ms late; 1060 became 1300, and a lead anew.
        assert_eq!(late, [0, 0, 0, 0, 0, 0, 10, 240, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_late_timer_does_not_move_the_grid() {
        for lead in [0, 20, 100] {
            let mut pacer = Pacer::new(Duration::from_millis(lead));
            pacer.push(&[1; 200 * FRAME_BYTES]);
            let mut sent = 0;
            // Woken each 20 ms, always 7 ms late.
            for tick in 0..100 {
                while pacer.next(ms(1007 + tick * 20)).is_some() {
                    sent += 1;
                }
            }
            assert_eq!(sent, 99 + (lead / 20).max(1), "lead {lead} ms");
        }
    }

    #[test]
    fn a_stall_is_an_underrun_and_is_not_made_up_for_by_a_burst() {
        let mut pacer = Pacer::new(Duration::from_millis(100));
        pacer.push(&[1; 2 * FRAME_BYTES]);
        assert_eq!(departures(&mut pacer, 1000, 1000), [1000, 1000]);
        pacer.push(&[1; 20 * FRAME_BYTES]);
        let Some(Sent::Frame { underrun: true, .. }) = pacer.next(ms(1500)) else { panic!("no underrun") };
        assert_eq!(departures(&mut pacer, 1500, 1540), [1500, 1500, 1500, 1500, 1520, 1540]);
    }

    #[test]
    fn marks_come_right_behind_their_audio() {
        let mut pacer = Pacer::new(Duration::ZERO);
        pacer.push(&[1; 100]);
        pacer.pad();
        pacer.mark(Mark::Segment(1));
        pacer.push(&[2; FRAME_BYTES]);
        pacer.mark(Mark::End);
        let mut told = Vec::new();
        for now in [0, 20, 40] {
            while let Some(sent) = pacer.next(ms(now)) {
                told.push(match sent {
                    Sent::Frame { frame, .. } => format!("{now}: frame of {}..{}", frame.0[0], frame.0[159]),
                    Sent::Mark(mark) => format!("{now}: {mark:?}"),
                });
            }
        }
        assert_eq!(told, ["0: frame of 1..255", "0: Segment(1)", "20: frame of 2..2", "20: End"]);
    }

    #[test]
    fn what_was_heard_and_what_clear_throws_away() {
        let mut pacer = Pacer::new(Duration::from_millis(100));
        pacer.push(&[1; 50 * FRAME_BYTES]);
        departures(&mut pacer, 1000, 1200);
        assert_eq!(pacer.heard(ms(1200)), 200 * BYTES_PER_MS as u64);
        assert_eq!(pacer.ahead(ms(1200)), Duration::from_millis(100));
        assert_eq!(pacer.clear(ms(1200)), Duration::from_millis(800));
        assert_eq!(pacer.next(ms(1300)), None);
        assert_eq!(pacer.ahead(ms(1200)), Duration::ZERO);
        assert_eq!(pacer.end_spurt(), 15);
    }

    #[test]
    fn what_is_held_is_taken_back_and_sent_once() {
        let mut pacer = Pacer::new(Duration::from_millis(100));
        let audio: Vec<u8> = (0..30u8).flat_map(|n| [n; FRAME_BYTES]).collect();
        pacer.push(&audio[..4 * FRAME_BYTES]);
        pacer.mark(Mark::Segment(1));
        pacer.push(&audio[4 * FRAME_BYTES..]);
        pacer.mark(Mark::End);
        let mut played = Vec::new();
        let mut run = |pacer: &mut Pacer, from: u64, until: u64| {
            for now in (from..=until).step_by(20) {
                while let Some(sent) = pacer.next(ms(now)) {
                    played.push(match sent {
                        Sent::Frame { frame, .. } => format!("{}", frame.0[0]),
                        Sent::Mark(mark) => format!("{mark:?}"),
                    });
                }
            }
            played.len()
        };
        // Seven frames are sent by 1040, of which two were heard, and 30 ms later another half.
        run(&mut pacer, 1_000, 1_040);
        pacer.hold(ms(1_070));
        assert_eq!((pacer.sent(), pacer.heard(ms(1_070))), (3 * 160, 3 * 160));
        assert_eq!((pacer.due(), pacer.next(ms(2_000))), (None, None));
        pacer.end_spurt();
        pacer.resume();
        run(&mut pacer, 2_000, 4_000);
        let frame = |n: u32| n.to_string();
        let mut expected: Vec<String> = (0..4).map(frame).collect();
        expected.push("Segment(1)".into());
        expected.extend((4..7).map(frame));
        // From here on again: what the carrier forgot.
        expected.extend((3..4).map(frame));
        expected.push("Segment(1)".into());
        expected.extend((4..30).map(frame));
        expected.push("End".into());
        assert_eq!(played, expected);
    }

    proptest! {
        /// Whenever it is held and let go on: the caller hears every byte once, in order. (With hardly
        /// any lead the clock is exact to a frame only.)
        #[test]
        fn what_is_held_is_heard_once(lead_ms in 40u64..300,
                                      steps in prop::collection::vec((0u64..90, 0usize..900, 0u8..4), 1..120)) {
            let mut pacer = Pacer::new(Duration::from_millis(lead_ms));
            let (mut now, mut fed, mut heard) = (ms(0), Vec::new(), Vec::new());
            // What the carrier has, and when each frame will have been played.
            let mut carrier: VecDeque<(CallTime, Frame)> = VecDeque::new();
            let mut end = ms(0);
            let steps = steps.into_iter().chain([(0, 0, 1)]).chain([(20, 0, 3); 2_000]);
            for (wait, bytes, what) in steps {
                now = now + Duration::from_millis(wait);
                while let Some((_, frame)) = carrier.pop_front_if(|(end, _)| *end <= now) {
                    heard.extend_from_slice(&frame.0);
                }
                let chunk: Vec<u8> = (0..bytes).map(|i| ((fed.len() + i) % 251) as u8).collect();
                fed.extend_from_slice(&chunk);
                pacer.push(&chunk);
                match what {
                    0 => {
                        pacer.hold(now);
                        carrier.clear();
                        end = now;
                    }
                    1 => pacer.resume(),
                    _ => {}
                }
                while let Some(sent) = pacer.next(now) {
                    let Sent::Frame { frame, .. } = sent else { continue };
                    end = end.max(now) + FRAME;
                    carrier.push_back((end, frame));
                }
            }
            prop_assert_eq!(heard.len(), fed.len() / FRAME_BYTES * FRAME_BYTES);
            prop_assert_eq!(&heard[..], &fed[..heard.len()]);
        }

        /// Whatever comes when, and however late the clock is: the carrier never holds more than the
        /// lead, no frame leaves before it is due, and everything arrives in order.
        #[test]
        fn never_ahead_of_the_lead(lead_ms in 0u64..300,
                                   steps in prop::collection::vec((0u64..120, 0usize..900), 1..120)) {
            let lead = Duration::from_millis(lead_ms);
            let mut pacer = Pacer::new(lead);
            let mut now = ms(0);
            let mut carrier_end = ms(0);
            let mut fed = Vec::new();
            let mut got = Vec::new();
            for (wait, bytes) in steps {
                now = now + Duration::from_millis(wait);
                let chunk: Vec<u8> = (0..bytes).map(|i| ((fed.len() + i) % 251) as u8).collect();
                fed.extend_from_slice(&chunk);
                pacer.push(&chunk);
                while let Some(sent) = pacer.next(now) {
                    let Sent::Frame { frame, due, .. } = sent else { continue };
                    prop_assert!(due <= now);
                    got.extend_from_slice(&frame.0);
                    carrier_end = carrier_end.max(now) + FRAME;
                    // Below 40 ms of lead the grid is kept at the price of one frame.
                    let allowed = lead.max(FRAME) + if lead < FRAME * 2 { FRAME } else { Duration::ZERO };
                    prop_assert!(carrier_end.since(now) <= allowed, "{:?} ahead", carrier_end.since(now));
                }
            }
            prop_assert_eq!(&got[..], &fed[..got.len()]);
        }
    }
}
