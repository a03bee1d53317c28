//! What the caller does: a list of steps, and the director that turns them into one act per 20 ms.
//! Pure: it sees the time and what was heard, and says what to send.

use crate::audio::{FRAME_BYTES, level};
use std::sync::Arc;
use std::time::Duration;

/// One thing that the caller does. Audio is μ-law, 8 kHz.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Speaks, and goes on to the next step with the last frame.
    Say(Arc<[u8]>),
    /// Waits until nothing has been heard for `quiet`.
    WaitForSilence { quiet: Duration, timeout: Duration },
    /// Waits for the reply to the last thing said; before anything was said, for a greeting.
    WaitForReplyStart { timeout: Duration },
    /// Waits until that reply has come and nothing more of it has been heard for `quiet`.
    WaitForReplyEnd { quiet: Duration, timeout: Duration },
    /// Listens, in silence.
    Pause(Duration),
    /// Presses a key.
    Dtmf(char),
    /// Speaks into the reply once that much of it has been heard; without audio, it waits for that and no more.
    Interrupt { after: Duration, audio: Arc<[u8]>, timeout: Duration },
    /// Hangs up. A script without it hangs up at its end.
    Hangup,
}

impl Step {
    pub fn say(audio: impl Into<Arc<[u8]>>) -> Step {
        Step::Say(audio.into())
    }

    /// With the quiet that tells the end of a reply from a pause between its sentences.
    pub fn wait_for_reply_end(timeout: Duration) -> Step {
        Step::WaitForReplyEnd { quiet: Duration::from_millis(800), timeout }
    }
}

/// What the director needs to know of the call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct View {
    pub(super) now: Duration,
    /// When the reply to the last thing said began, if it has.
    pub(super) reply_at: Option<Duration>,
    /// When the last thing there is to hear will have been heard.
    pub(super) audible_until: Duration,
    /// The server is speaking.
    pub(super) speaking: bool,
}

/// What the caller does in one slot of 20 ms.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    Silence,
    Speak(Spoken),
    Dtmf(char),
    /// A step waited in vain; silence meanwhile.
    GaveUp(String),
    Hangup,
}

/// A frame of speech.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spoken {
    audio: Arc<[u8]>,
    from: usize,
    /// The first, or the last, frame of the utterance that bears voice.
    pub(super) onset: bool,
    pub(super) last_voiced: bool,
}

impl Spoken {
    pub(super) fn frame(&self) -> &[u8] {
        &self.audio[self.from..(self.from + FRAME_BYTES).min(self.audio.len())]
    }
}

#[derive(Debug)]
struct Saying {
    audio: Arc<[u8]>,
    at: usize,
    /// Offsets of the first and the last voiced frame.
    voiced: (usize, usize),
}

#[derive(Debug)]
pub(super) struct Director {
    steps: Vec<Step>,
    next: usize,
    /// When the step at `next` began.
    since: Duration,
    saying: Option<Saying>,
    /// The script starts over at its end until this time.
    repeat_until: Duration,
}

impl Director {
    pub(super) fn new(steps: Vec<Step>, repeat_until: Option<Duration>) -> Director {
        let repeat_until = repeat_until.unwrap_or_default();
        Director { steps, next: 0, since: Duration::ZERO, saying: None, repeat_until }
    }

    pub(super) fn tick(&mut self, view: View) -> Act {
        // One pass over the script at the most, so that a script without a wait cannot spin.
        for _ in 0..=self.steps.len() {
            if let Some(spoken) = self.speak(view.now) {
                return Act::Speak(spoken);
            }
            let Some(step) = self.steps.get(self.next) else {
                if view.now >= self.repeat_until || self.steps.is_empty() {
                    return Act::Hangup;
                }
                self.step_to(0, view.now);
                continue;
            };
            let waited = view.now.saturating_sub(self.since);
            let quiet = view.now.saturating_sub(view.audible_until);
            let (done, timeout, what) = match step {
                Step::Say(audio) => {
                    self.saying = saying(audio);
                    (true, None, "")
                }
                Step::Pause(pause) => (waited >= *pause, None, ""),
                Step::Dtmf(digit) => {
                    let digit = *digit;
                    self.step_to(self.next + 1, view.now);
                    return Act::Dtmf(digit);
                }
                Step::Hangup if view.now < self.repeat_until => {
                    self.next = self.steps.len();
                    continue;
                }
                Step::Hangup => return Act::Hangup,
                Step::WaitForSilence { quiet: least, timeout } => {
                    (quiet >= *least && waited >= *least, Some(*timeout), "silence")
                }
                Step::WaitForReplyStart { timeout } => {
                    (view.reply_at.is_some(), Some(*timeout), "a reply to begin")
                }
                Step::WaitForReplyEnd { quiet: least, timeout } => {
                    let ended = view.reply_at.is_some_and(|at| view.now >= at + *least) && quiet >= *least;
                    let what = if view.reply_at.is_some() { "the reply to end" } else { "a reply" };
                    (ended, Some(*timeout), what)
                }
                Step::Interrupt { after, audio, timeout } => {
                    let heard = view.reply_at.is_some_and(|at| view.now >= at + *after);
                    let interrupts = heard && view.speaking;
                    if interrupts {
                        self.saying = saying(audio);
                    }
                    (interrupts, Some(*timeout), "a reply to interrupt")
                }
            };
            if done {
                self.step_to(self.next + 1, view.now);
            } else if timeout.is_some_and(|timeout| waited >= timeout) {
                let gave_up = format!("waited {} ms for {what} in vain", waited.as_millis());
                self.step_to(self.next + 1, view.now);
                return Act::GaveUp(gave_up);
            } else {
                return Act::Silence;
            }
        }
        Act::Silence
    }

    /// How many utterances the script still holds that were not begun.
    pub(super) fn unsaid(&self) -> usize {
        let says = |step: &&Step| matches!(step, Step::Say(audio) | Step::Interrupt { audio, .. } if !audio.is_empty());
        self.steps.iter().skip(self.next).filter(says).count()
    }

    fn step_to(&mut self, next: usize, now: Duration) {
        self.next = next;
        self.since = now;
    }

    fn speak(&mut self, now: Duration) -> Option<Spoken> {
        let saying = self.saying.as_mut()?;
        let from = saying.at;
        saying.at += FRAME_BYTES;
        let audio = saying.audio.clone();
        let (first, last) = saying.voiced;
        if saying.at >= audio.len() {
            self.saying = None;
            self.since = now;
        }
        Some(Spoken { audio, from, onset: from == first, last_voiced: from == last })
    }
}

fn saying(audio: &Arc<[u8]>) -> Option<Saying> {
    let voiced = voiced(audio)?;
    Some(Saying { audio: audio.clone(), at: 0, voiced })
}

/// Offsets of the first and the last frame with voice in them: louder than 4 % of the loudest frame
/// (28 dB below it), so that the noise of a room is not taken for speech. Of audio without any, the
/// first and the last frame.
fn voiced(audio: &[u8]) -> Option<(usize, usize)> {
    let levels: Vec<f32> = audio.chunks(FRAME_BYTES).map(level::rms).collect();
    let floor = levels.iter().fold(0.0f32, |a, b| a.max(*b)) * 0.04;
    let is_voiced = |level: &f32| *level > floor.max(super::carrier::AUDIBLE_RMS);
    let first = levels.iter().position(is_voiced).unwrap_or(0);
    let last = levels.iter().rposition(is_voiced).or(levels.len().checked_sub(1))?;
    Some((first * FRAME_BYTES, last * FRAME_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// What the caller does, tick by tick, in letters: s speech (S voiced onset, E last voiced),
    /// `.` silence, a digit for a key, `!` gave up, `X` hung up.
    fn acts(steps: Vec<Step>, repeat: Option<Duration>, reply: Option<(u64, u64)>) -> String {
        let mut director = Director::new(steps, repeat);
        let mut acts = String::new();
        for tick in 0..40u64 {
            let now = ms(tick * 20);
            let (from, until) = reply.unwrap_or((u64::MAX, 0));
            let reply_at = (from <= tick * 20).then(|| ms(from));
            let audible_until = if reply_at.is_some() { ms(until) } else { Duration::ZERO };
            let speaking = audible_until > now;
            match director.tick(View { now, reply_at, audible_until, speaking }) {
                Act::Silence => acts.push('.'),
                Act::Speak(spoken) => acts.push(match (spoken.onset, spoken.last_voiced) {
                    (true, _) => 'S',
                    (_, true) => 'E',
                    _ => 's',
                }),
                Act::Dtmf(digit) => acts.push(digit),
                Act::GaveUp(_) => acts.push('!'),
                Act::Hangup => {
                    acts.push('X');
                    break;
                }
            }
        }
        acts
    }

    /// Three voiced frames and a bit, with a silent one on either side.
    fn speech() -> Arc<[u8]> {
        let mut audio = vec![0xFF; 160];
        audio.extend([0x90; 500]);
        audio.extend([0xFF; 200]);
        audio.into()
    }

    #[test]
    fn speech_pauses_and_keys_follow_each_other() {
        let steps = vec![Step::Pause(ms(40)), Step::Say(speech()), Step::Dtmf('5'), Step::Hangup];
        assert_eq!(acts(steps, None, None), "..sSssEs5X");
        let pause_after = vec![Step::Say(speech()), Step::Pause(ms(60)), Step::Dtmf('5')];
        assert_eq!(acts(pause_after, None, None), "sSssEs..5X", "a pause begins where the speech ends");
        assert_eq!(acts(vec![Step::say([]), Step::Dtmf('1')], None, None), "1X");
        assert_eq!(acts(vec![Step::Dtmf('1'), Step::Pause(ms(40))], Some(ms(100)), None), "1.1.1.X");
        assert_eq!(acts(vec![Step::Pause(ms(0))], Some(SECOND), None).len(), 40, "does not spin");
    }

    #[test]
    fn waits_end_with_what_they_wait_for_or_in_vain() {
        let reply = Some((60, 140));
        let start = vec![Step::WaitForReplyStart { timeout: ms(100) }];
        assert_eq!(acts(start.clone(), None, reply), "...X");
        assert_eq!(acts(start, None, None), ".....!X");
        let end = vec![Step::WaitForReplyEnd { quiet: ms(40), timeout: ms(300) }];
        assert_eq!(acts(end.clone(), None, reply), ".........X");
        assert_eq!(acts(end, None, Some((60, 900))), "...............!X");
        let silence = vec![Step::WaitForSilence { quiet: ms(40), timeout: ms(300) }];
        assert_eq!(acts(silence, None, Some((0, 60))), ".....X");
    }

    #[test]
    fn an_interruption_waits_until_enough_was_heard_and_needs_a_reply_that_still_plays() {
        let interrupt = |after| vec![Step::Interrupt { after: ms(after), audio: speech(), timeout: ms(200) }];
        assert_eq!(acts(interrupt(40), None, Some((60, 300))), ".....sSssEsX");
        assert_eq!(acts(interrupt(40), None, Some((60, 90))), "..........!X");
        let heard = |until| {
            vec![
                Step::Interrupt { after: ms(40), audio: Arc::default(), timeout: ms(until) },
                Step::Dtmf('1'),
            ]
        };
        assert_eq!(acts(heard(200), None, Some((60, 300))), ".....1X", "only waited for");
        assert_eq!(Director::new(heard(200), None).unsaid(), 0);
    }
}
