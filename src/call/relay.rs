//! A call that a bot of the operator's own conducts over the carrier's protocol. The bot decides what
//! is said and when it stops; what it sends in bursts, in odd chunks or with file headers leaves here
//! on the 20 ms grid, and its marks and `clear` keep their meaning.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::Event;
use super::file::File;
use super::input::StopReason;
use super::line::{Line, LineFault};
use super::output::Output;
use super::pacer::{Mark, Pacer, Sent};
use crate::audio::BYTES_PER_MS;
use crate::time::{CallTime, FRAME};

/// What a carrier queues at most (10 minutes); more is dropped there, and here.
const MOST_QUEUED: Duration = Duration::from_secs(600);
/// Marks that wait at most; a bot that sets more gets them back at once.
const MOST_MARKS: usize = 1_000;
/// The longest name of a mark; no bot gives one a tenth of that.
const LONGEST_NAME: usize = 1_000;
/// An incomplete frame is filled with silence when nothing has followed for this long, and not before
/// the carrier would run dry.
const TAIL: Duration = Duration::from_millis(40);
/// From us to the caller's ear at most: a call that ends sooner may cut the last word.
const ON_THE_WAY: Duration = Duration::from_millis(500);
/// A spurt is over when the carrier has been dry for this long; a shorter gap is a hole in it.
const SPURT_GAP: Duration = Duration::from_millis(500);
/// Frames of a spurt that are told of before it is over (10 s): a bot that never pauses has but one.
const LONG_SPURT: u64 = 500;

/// A relayed call: what the bot says on its way to the carrier, and whether the carrier is still there.
#[derive(Debug)]
pub struct Relay {
    pacer: Pacer,
    line: Line,
    media_timeout: Duration,
    /// The caller's audio stayed away too long: the call is to end.
    given_up: bool,
    /// Names of marks that wait in the pacer, in their order.
    names: VecDeque<String>,
    /// Reads a file that the bot sends in pieces, header included.
    file: Option<File>,
    decoded: Vec<u8>,
    /// When the last audio came, while an incomplete frame waits.
    tail_since: Option<CallTime>,
    in_spurt: bool,
    /// Frames that have left, and have not been told of.
    untold: u64,
    overflowed: bool,
    unplayable: bool,
    /// The bot has left, and the carrier may still say until then that it has taken the call elsewhere.
    lingers_until: Option<CallTime>,
    outputs: VecDeque<Output>,
}

impl Relay {
    /// `lead` of audio is kept ahead at the carrier, whose caller may stay silent for `media_timeout`.
    pub fn new(lead: Duration, media_timeout: Duration) -> Relay {
        Relay {
            pacer: Pacer::new(lead),
            line: Line::new(CallTime::ZERO),
            media_timeout,
            given_up: false,
            names: VecDeque::new(),
            file: None,
            decoded: Vec::new(),
            tail_since: None,
            in_spurt: false,
            untold: 0,
            overflowed: false,
            unplayable: false,
            lingers_until: None,
            outputs: VecDeque::new(),
        }
    }

    /// Audio of the caller came.
    pub fn heard(&mut self, now: CallTime) {
        if let Some(after) = self.line.alive(now) {
            self.outputs.push_back(Output::Event(Event::MediaResumed { after }));
        }
    }

    /// Audio of the bot: raw μ-law, 8 kHz, in pieces of any length, or WAV files in pieces.
    pub fn audio(&mut self, payload: &[u8], now: CallTime) {
        let mut rest = payload;
        while !rest.is_empty() {
            if File::begins(rest) {
                self.end_file();
                self.file = Some(File::new());
            }
            rest = match self.file.take() {
                Some(file) => self.push_file(file, rest),
                None => {
                    self.push(rest);
                    &[]
                }
            };
            self.tail_since = Some(now);
        }
        self.pump(now);
    }

    /// A mark of the bot's, behind the audio that it has sent so far. Returns whether there is room for
    /// it; if not, the bot gets it back at once.
    #[must_use]
    pub fn mark(&mut self, name: &str, now: CallTime) -> bool {
        let fits = self.names.len() < MOST_MARKS && name.len() <= LONGEST_NAME;
        if fits {
            self.pacer.mark(Mark::Named);
            self.names.push_back(name.to_owned());
            self.pump(now);
        }
        fits
    }

    /// The bot takes back what has not been played. Returns the marks that the carrier does not know
    /// yet: the bot gets them back from here, as the carrier gives back its own.
    pub fn clear(&mut self, now: CallTime) -> Vec<String> {
        self.file = None;
        self.tail_since = None;
        self.pacer.clear(now);
        self.outputs.push_back(Output::Clear);
        self.end_spurt();
        Vec::from(std::mem::take(&mut self.names))
    }

    /// Nothing more will come: an incomplete frame need not wait.
    pub fn finish(&mut self, now: CallTime) {
        self.end_file();
        self.pacer.pad();
        self.tail_since = None;
        self.pump(now);
    }

    /// The call is over: what has left of the spurt under way is told.
    pub fn end(&mut self) {
        self.end_spurt();
    }

    /// The bot has left of its own accord. Where it may have had the call taken elsewhere, the carrier has so long
    /// to say so.
    pub fn leave(&mut self, linger: Duration, now: CallTime) {
        self.finish(now);
        self.lingers_until = Some(now + linger);
    }

    /// Nothing is to be heard or waited for any more.
    pub fn is_over(&self, now: CallTime) -> bool {
        self.has_been_heard(now) && self.lingers_until.is_none_or(|until| until <= now)
    }

    /// Everything has been played.
    pub fn is_quiet(&self, now: CallTime) -> bool {
        self.pacer.is_empty() && self.pacer.ahead(now) == Duration::ZERO
    }

    /// Everything has been played, and so long ago that the caller has heard it too.
    pub fn has_been_heard(&self, now: CallTime) -> bool {
        self.pacer.is_empty() && now.since(self.pacer.playout_end()) >= ON_THE_WAY
    }

    pub fn handle_timeout(&mut self, now: CallTime) {
        self.pump(now);
        // Perhaps since the last whole frame has just left.
        if self.tail_due().is_some_and(|due| due <= now) {
            self.pacer.pad();
            self.tail_since = None;
            self.pump(now);
        }
        if self.spurt_over().is_some_and(|at| at <= now) {
            self.end_spurt();
        }
        self.lingers_until = self.lingers_until.filter(|until| *until > now);
        match self.line.check(now, self.media_timeout) {
            Some(LineFault::Stalled) => self.outputs.push_back(Output::Event(Event::MediaStalled)),
            Some(LineFault::Dead) if self.given_up => {}
            Some(LineFault::Dead) => {
                self.given_up = true;
                self.outputs.push_back(Output::Hangup(StopReason::Timeout));
            }
            None => {}
        }
    }

    /// Audio for the caller that waits to be sent.
    pub fn queued(&self) -> Duration {
        self.pacer.queued()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn poll_timeout(&self) -> Option<CallTime> {
        let line = (!self.given_up).then(|| self.line.deadline(self.media_timeout));
        let all = [self.pacer.due(), self.tail_due(), self.spurt_over(), self.lingers_until, line];
        all.into_iter().flatten().min()
    }

    fn push(&mut self, audio: &[u8]) {
        let room = MOST_QUEUED.saturating_sub(self.pacer.queued()).as_millis() as usize * BYTES_PER_MS;
        self.pacer.push(&audio[..audio.len().min(room)]);
        if room < audio.len() && !std::mem::replace(&mut self.overflowed, true) {
            self.outputs.push_back(Output::Event(Event::BotOverflow));
        }
    }

    /// Plays what is the file's of these bytes, and returns what is not.
    fn push_file<'a>(&mut self, mut file: File, bytes: &'a [u8]) -> &'a [u8] {
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.clear();
        let (behind, played) = file.push(bytes, &mut decoded);
        self.push(&decoded);
        self.decoded = decoded;
        if let Err(why) = played
            && !std::mem::replace(&mut self.unplayable, true)
        {
            self.outputs.push_back(Output::Event(Event::BotUnplayable { why: why.to_string() }));
        }
        if behind.is_none() {
            self.file = Some(file);
        }
        behind.unwrap_or_default()
    }

    fn end_file(&mut self) {
        if let Some(file) = self.file.take() {
            let mut rest = Vec::new();
            file.finish(&mut rest);
            self.push(&rest);
        }
    }

    fn tail_due(&self) -> Option<CallTime> {
        let dry = self.pacer.playout_end() - FRAME;
        self.tail_since.filter(|_| self.pacer.is_dry()).map(|since| (since + TAIL).max(dry))
    }

    fn spurt_over(&self) -> Option<CallTime> {
        (self.in_spurt && self.pacer.is_dry()).then(|| self.pacer.playout_end() + SPURT_GAP)
    }

    fn end_spurt(&mut self) {
        self.in_spurt = false;
        self.pacer.end_spurt();
        self.tell_frames();
    }

    fn tell_frames(&mut self) {
        let frames = std::mem::take(&mut self.untold);
        if frames > 0 {
            let ms = frames * FRAME.as_millis() as u64;
            self.outputs.push_back(Output::Event(Event::MediaTx { frames, ms }));
        }
    }

    fn pump(&mut self, now: CallTime) {
        while let Some(sent) = self.pacer.next(now) {
            match sent {
                Sent::Frame { frame, due, underrun } => {
                    self.in_spurt = true;
                    if underrun {
                        self.outputs.push_back(Output::Event(Event::Underrun));
                    }
                    self.outputs.push_back(Output::Play { frame, due });
                    self.untold += 1;
                    if self.untold >= LONG_SPURT {
                        self.tell_frames();
                    }
                }
                Sent::Mark(_) => self.outputs.extend(self.names.pop_front().map(Output::Mark)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The caller's line is not what these are about.
    const PATIENT: Duration = Duration::from_secs(3_600);

    fn ms(ms: u64) -> CallTime {
        CallTime::from_millis(ms)
    }

    /// Runs the relay until a time; what came out, with the times at which it did. The caller is heard
    /// at the beginning.
    fn run(relay: &mut Relay, from: u64, until: u64) -> Vec<String> {
        let mut told = Vec::new();
        let mut now = ms(from);
        relay.heard(now);
        loop {
            while let Some(output) = relay.poll_output() {
                told.push(match output {
                    Output::Play { frame, .. } => format!("{} play {:02x}", now.as_millis(), frame.0[0]),
                    Output::Mark(name) => format!("{} mark {name}", now.as_millis()),
                    Output::Clear => format!("{} clear", now.as_millis()),
                    Output::Event(event) => format!("{} {event:?}", now.as_millis()),
                    other => format!("{} {other:?}", now.as_millis()),
                });
            }
            match relay.poll_timeout().filter(|at| *at <= ms(until)) {
                Some(at) => now = now.max(at),
                None => return told,
            }
            relay.handle_timeout(now);
        }
    }

    #[test]
    fn a_burst_leaves_on_the_grid_and_the_mark_behind_it() {
        let mut relay = Relay::new(Duration::from_millis(40), PATIENT);
        relay.audio(&[0x90; 700], ms(1000));
        assert!(relay.mark("done \"it\"", ms(1000)));
        assert_eq!(
            run(&mut relay, 1000, 2000),
            [
                "1000 play 90",
                "1000 play 90",
                "1020 play 90",
                "1040 play 90",
                "1060 play 90",
                "1060 mark done \"it\"",
                "1600 MediaTx { frames: 5, ms: 100 }"
            ]
        );
    }

    #[test]
    fn what_has_left_is_told_as_it_goes_and_to_the_end() {
        let mut relay = Relay::new(Duration::from_millis(40), PATIENT);
        relay.audio(&vec![0x90; 160 * 1_210], ms(0));
        let told = |told: Vec<String>| -> Vec<String> {
            told.into_iter().filter(|line| line.contains("MediaTx")).collect()
        };
        let expected =
            ["9960 MediaTx { frames: 500, ms: 10000 }", "19960 MediaTx { frames: 500, ms: 10000 }"];
        assert_eq!(told(run(&mut relay, 0, 24_000)), expected);
        relay.end();
        assert_eq!(told(run(&mut relay, 24_000, 24_000)), ["24000 MediaTx { frames: 202, ms: 4040 }"]);
    }

    #[test]
    fn a_tail_is_filled_up_before_the_carrier_runs_dry_and_not_while_more_may_come() {
        let mut relay = Relay::new(Duration::ZERO, PATIENT);
        relay.audio(&[0x90; 100], ms(1000));
        relay.audio(&[0x91; 100], ms(1030));
        assert_eq!(run(&mut relay, 1030, 1080), ["1030 play 90", "1070 play 91"]);
        // With audio ahead at the carrier there is time to wait.
        let mut relay = Relay::new(Duration::from_millis(100), PATIENT);
        relay.audio(&[0x90; 700], ms(1000));
        assert_eq!(run(&mut relay, 1000, 1059).len(), 4);
        relay.audio(&[0x91; 100], ms(1059));
        assert_eq!(run(&mut relay, 1059, 1059), ["1059 play 90"], "whole, and no hole in it");
    }

    #[test]
    fn a_mark_in_mid_word_leaves_the_word_whole() {
        let mut relay = Relay::new(Duration::from_millis(200), PATIENT);
        for part in 0..4 {
            relay.audio(&[0x90; 100], ms(0));
            assert!(relay.mark(&part.to_string(), ms(0)));
        }
        let mut played = Vec::new();
        let mut marks = Vec::new();
        while let Some(output) = relay.poll_output() {
            match output {
                Output::Play { frame, .. } => played.extend(frame.0),
                Output::Mark(name) => marks.push((name, played.len())),
                _ => {}
            }
        }
        assert_eq!(played, [0x90; 320], "400 bytes, of which the rest waits");
        assert_eq!(marks, [("0".to_owned(), 160), ("1".to_owned(), 320), ("2".to_owned(), 320)]);
    }

    #[test]
    fn more_marks_than_fit_and_names_without_end_are_not_kept() {
        let mut relay = Relay::new(Duration::ZERO, PATIENT);
        relay.audio(&[0x90; 320], ms(0));
        let kept = (0..2_000).filter(|name| relay.mark(&name.to_string(), ms(0))).count();
        assert_eq!(kept, MOST_MARKS);
        assert_eq!(relay.clear(ms(0)).len(), MOST_MARKS);
        assert!(!relay.mark(&"x".repeat(LONGEST_NAME + 1), ms(0)));
    }

    #[test]
    fn ten_minutes_are_kept_and_the_excess_is_told_of_once() {
        let mut relay = Relay::new(Duration::ZERO, PATIENT);
        for _ in 0..30 {
            relay.audio(&[0x90; 250_000], ms(0));
        }
        assert_eq!(relay.pacer.queued(), MOST_QUEUED);
        let told = run(&mut relay, 0, 10);
        assert_eq!(told.iter().filter(|told| told.contains("BotOverflow")).count(), 1, "{told:?}");
    }

    #[test]
    fn a_line_without_the_caller_is_told_of_and_then_given_up() {
        let mut relay = Relay::new(Duration::ZERO, Duration::from_secs(5));
        let expected = ["3000 MediaStalled", "6000 Hangup(Timeout)"];
        assert_eq!(run(&mut relay, 1_000, 6_500)[..2], expected);
        let mut relay = Relay::new(Duration::ZERO, Duration::from_secs(5));
        run(&mut relay, 0, 2_500);
        assert_eq!(run(&mut relay, 2_500, 2_600), ["2500 MediaResumed { after: 2.5s }"]);
    }

    #[test]
    fn a_call_whose_bot_has_left_is_over_when_all_is_heard_and_the_carrier_had_its_time() {
        let linger = Duration::from_millis(1_500);
        for (said, linger, over) in
            [(0, linger, 2_500), (160 * 100, linger, 3_500), (0, Duration::ZERO, 1_000)]
        {
            let mut relay = Relay::new(Duration::ZERO, PATIENT);
            relay.audio(&vec![0x90; said], ms(1_000));
            relay.leave(linger, ms(1_000));
            run(&mut relay, 1_000, over - 1);
            assert!(!relay.is_over(ms(over - 1)), "{said} {linger:?}");
            let due = relay.poll_timeout();
            assert!(due == Some(ms(over)) || over == 1_000, "it is woken for it: {due:?}");
            relay.handle_timeout(ms(over));
            assert!(relay.is_over(ms(over)), "{said} {linger:?}");
            assert!(relay.poll_timeout().is_none_or(|at| at > ms(over)), "once");
        }
    }

    #[test]
    fn a_clear_gives_back_the_marks_that_the_carrier_does_not_know() {
        let mut relay = Relay::new(Duration::ZERO, PATIENT);
        for name in ["a", "b"] {
            relay.audio(&[0x90; 320], ms(0));
            assert!(relay.mark(name, ms(0)));
        }
        run(&mut relay, 0, 30);
        assert_eq!(relay.clear(ms(30)), ["b"], "`a` went out behind the second frame");
        assert_eq!(run(&mut relay, 30, 2000), ["30 clear", "30 MediaTx { frames: 2, ms: 40 }"]);
        relay.audio(&[0x91; 160], ms(3000));
        assert_eq!(run(&mut relay, 3000, 3000), ["3000 play 91"]);
    }

    #[test]
    fn a_file_is_played_without_its_header() {
        let wav = crate::audio::wav::wav_pcm16(&[0x90; 480]);
        for size in [7, 160, 10_000] {
            let mut relay = Relay::new(Duration::ZERO, PATIENT);
            wav.chunks(size).for_each(|piece| relay.audio(piece, ms(0)));
            assert!(relay.mark("end", ms(0)));
            let told = run(&mut relay, 0, 100);
            assert_eq!(told, ["0 play 90", "20 play 90", "40 play 90", "40 mark end"], "pieces of {size}");
        }
    }

    #[test]
    fn files_and_raw_audio_may_follow_each_other_with_or_without_a_pause() {
        let wav = crate::audio::wav::wav_pcm16(&[0x90; 160]);
        let (head, rest) = wav.split_at(100);
        let mut relay = Relay::new(Duration::ZERO, PATIENT);
        relay.audio(&[&wav[..], &[0x33; 160]].concat(), ms(0));
        relay.audio(head, ms(10));
        let mut told = run(&mut relay, 10, 900);
        // The file goes on after a pause, and would be noise if it were taken for raw audio.
        relay.audio(rest, ms(900));
        told.extend(run(&mut relay, 900, 950));
        relay.audio(&[0x44; 160], ms(950));
        told.extend(run(&mut relay, 950, 990));
        let played: Vec<&str> = told.iter().filter_map(|told| told.split(" play ").nth(1)).collect();
        assert_eq!(played, ["90", "33", "90", "90", "44"], "{told:?}");
    }

    #[test]
    fn what_cannot_be_played_is_told_of_and_not_heard() {
        let mut wav = crate::audio::wav::wav_pcm16(&[0x90; 160]);
        wav[20] = 17;
        let mut relay = Relay::new(Duration::ZERO, PATIENT);
        for _ in 0..2 {
            relay.audio(&wav, ms(0));
        }
        relay.audio(&[0x33; 160], ms(0));
        let told = run(&mut relay, 0, 10);
        assert!(told[0].contains("BotUnplayable { why: \"WAV with codec 17 (IMA ADPCM)"), "{told:?}");
        assert_eq!(told[1..], ["0 play 33"]);
    }

    proptest! {
        /// Whatever the bot sends, nothing is ahead of the lead, every byte is played once, in order and
        /// not after a clear, and every mark comes out once: to the carrier, or back to the bot.
        #[test]
        fn audio_and_marks_keep_their_order(
            steps in prop::collection::vec((0u64..90, 0usize..500, any::<bool>(), 0u8..12), 1..60),
        ) {
            let lead = Duration::from_millis(100);
            let mut relay = Relay::new(lead, PATIENT);
            let (mut now, mut carrier_end) = (ms(0), ms(0));
            let (mut set, mut out) = (0usize, 0usize);
            // Loud, and unlike the silence that fills frames up.
            let byte = |at: usize| 0x80 | ((at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58) as u8;
            let (mut given, mut played) = (0usize, 0usize);
            let play = |frame: &crate::audio::Frame, from: usize| {
                let voice = frame.0.iter().filter(|value| **value < 0xC0);
                voice.zip(from..).map(|(value, at)| assert_eq!(*value, byte(at), "byte {at}")).count()
            };
            for (wait, bytes, mark, clear) in steps {
                let until = now + Duration::from_millis(wait);
                loop {
                    while let Some(output) = relay.poll_output() {
                        match output {
                            Output::Play { due, frame } => {
                                prop_assert!(due <= now);
                                played += play(&frame, played);
                                carrier_end = carrier_end.max(now) + FRAME;
                                prop_assert!(carrier_end.since(now) <= lead);
                            }
                            Output::Mark(name) => {
                                prop_assert_eq!(name, out.to_string());
                                out += 1;
                            }
                            Output::Clear => carrier_end = now,
                            _ => {}
                        }
                    }
                    match relay.poll_timeout().filter(|at| *at <= until) {
                        Some(at) => now = now.max(at),
                        None => break,
                    }
                    relay.handle_timeout(now);
                }
                now = until;
                relay.audio(&(given..given + bytes).map(byte).collect::<Vec<u8>>(), now);
                given += bytes;
                if mark {
                    prop_assert!(relay.mark(&set.to_string(), now));
                    set += 1;
                }
                if clear == 0 {
                    // What already came out stands before what comes back.
                    while let Some(output) = relay.poll_output() {
                        match output {
                            Output::Mark(_) => out += 1,
                            Output::Play { frame, .. } => {
                                played += play(&frame, played);
                                carrier_end = carrier_end.max(now) + FRAME;
                            }
                            _ => {}
                        }
                    }
                    played = given;
                    for name in relay.clear(now) {
                        prop_assert_eq!(name, out.to_string());
                        out += 1;
                    }
                    prop_assert_eq!(out, set);
                }
            }
        }
    }
}
