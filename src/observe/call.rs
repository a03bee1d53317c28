//! Watches one call: its events become log lines and metrics, and its last line sums it up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::metrics::Metrics;
use super::pace::Pace;
use super::segments::Segments;
use super::traces::{Spans, Traces};
use crate::call::{Event, Ignored, StopReason, Trace, TurnResult};
use crate::time::CallTime;
use crate::twilio::{Start, codes};

/// Between two lines about what a recogniser guesses.
const GUESS_LINES: Duration = Duration::from_millis(250);

/// Why nothing comes of a transfer, or of digits that are to be sent.
const NO_CONTROL: &str = "Twilio's REST API is needed for it: set [twilio] auth_token (TWILIO_AUTH_TOKEN), or \
                          api_key_sid and api_key_secret";

/// What every line of a call bears.
#[derive(Clone, Debug)]
pub struct CallLabels {
    pub call_sid: String,
    pub stream_sid: String,
}

impl CallLabels {
    pub fn of(start: &Start) -> CallLabels {
        CallLabels { call_sid: start.known_as().to_owned(), stream_sid: start.stream_sid.clone() }
    }
}

/// How the socket of a call ended.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// The WebSocket close code that was sent or received.
    pub close_code: Option<u16>,
    /// The 319xx code that the carrier is likely to report for it.
    pub carrier_code: Option<u16>,
    /// In words, where there is more to say than the reason.
    pub detail: String,
}

impl Ending {
    /// Of a socket that we close: to the carrier, which has not said `stop`, the server has.
    pub fn ours(close_code: u16, detail: impl Into<String>) -> Ending {
        Ending { close_code: Some(close_code), carrier_code: Some(31921), detail: detail.into() }
    }

    fn detail(&self) -> Option<&str> {
        Some(self.detail.as_str()).filter(|detail| !detail.is_empty())
    }
}

/// Follows one call from `start` to its end.
pub struct CallObserver {
    metrics: Arc<Metrics>,
    labels: CallLabels,
    transcripts: bool,
    pace: Pace,
    segments: Segments,
    frames_in: u64,
    frames_out: u64,
    turns: u64,
    failed: u64,
    barge_ins: u64,
    underruns: u64,
    dropped: u64,
    reason: Option<StopReason>,
    /// When a guess of the recogniser was logged last.
    guessed_at: Option<Instant>,
    every_guess: bool,
    /// `None` where calls are not traced.
    spans: Option<Spans>,
}

impl CallObserver {
    pub fn new(metrics: Arc<Metrics>, labels: CallLabels, transcripts: bool) -> CallObserver {
        let pace = Pace::new(&metrics);
        CallObserver {
            metrics,
            labels,
            transcripts,
            pace,
            segments: Segments::default(),
            frames_in: 0,
            frames_out: 0,
            turns: 0,
            failed: 0,
            barge_ins: 0,
            underruns: 0,
            dropped: 0,
            reason: None,
            guessed_at: None,
            every_guess: false,
            spans: None,
        }
    }

    /// With spans, where calls are traced.
    pub fn traced(mut self, traces: Option<&Traces>, trace: Option<&Trace>) -> CallObserver {
        self.spans = traces.zip(trace).map(|(traces, trace)| traces.call(trace, &self.labels));
        self
    }

    /// For a call that does not happen now, and whose guesses come as fast as they are read.
    pub fn telling_every_guess(mut self) -> CallObserver {
        self.every_guess = true;
        self
    }

    pub fn started(&self, subprotocol: Option<&str>, account_sid: &str, mode: &str) {
        let CallLabels { call_sid, stream_sid } = &self.labels;
        let subprotocol = subprotocol.unwrap_or("none");
        info!(call_sid, stream_sid, account_sid, subprotocol, mode, "WS_START");
    }

    /// The call was here before, with another stream, and goes on after so many turns.
    pub fn resumed(&self, turns: u64) {
        let CallLabels { call_sid, stream_sid } = &self.labels;
        info!(call_sid, stream_sid, turns, "CALL_RESUMED");
    }

    /// Why the call has ended, once it has.
    pub fn reason(&self) -> Option<StopReason> {
        self.reason
    }

    /// Audio of the caller; counted in frames of 20 ms, whatever the payloads were. True once a second:
    /// then [`took`](Self::took) and [`waits`](Self::waits) want to be told.
    pub fn heard(&mut self, bytes: usize, timestamp_ms: Option<u64>, at: CallTime) -> bool {
        let before = self.frames_in / 160;
        self.frames_in += bytes as u64;
        let frames = self.frames_in / 160 - before;
        self.pace.heard(frames, Duration::from_micros(bytes as u64 * 125), timestamp_ms, at)
    }

    /// The same of a call that does not happen now: its pace is nobody's any more.
    pub fn heard_then(&mut self, bytes: usize) {
        self.frames_in += bytes as u64;
    }

    pub fn sent_then(&mut self) {
        self.frames_out += 1;
    }

    /// How long the call took over one frame of the caller's.
    pub fn took(&self, one_frame: Duration) {
        self.pace.took(one_frame);
    }

    /// How much audio for the caller waits until it is due.
    pub fn waits(&mut self, audio: Duration) {
        self.pace.buffered(audio);
    }

    pub fn sent(&mut self, late: Duration) {
        self.frames_out += 1;
        self.pace.sent(late);
    }

    /// A message that could not be used. Logged once a call, counted each time.
    pub fn dropped(&mut self, reason: &'static str, detail: &str) {
        let CallLabels { call_sid, stream_sid } = &self.labels;
        self.metrics.frames_dropped.with_label_values(&["in", reason]).inc();
        self.dropped += 1;
        if self.dropped == 1 {
            warn!(call_sid, stream_sid, reason, detail, "MESSAGE_DROPPED");
        }
    }

    pub fn unknown(&self, event: &str) {
        let CallLabels { call_sid, stream_sid } = &self.labels;
        let (bytes, event) = (event.len(), if self.transcripts { event } else { "" });
        debug!(call_sid, stream_sid, event, bytes, "UNKNOWN_EVENT");
    }

    /// A limit of the operator's account with a vendor is used up.
    pub fn limit_reached(&self, limit: &str, reset_seconds: f64) {
        let CallLabels { call_sid, stream_sid } = &self.labels;
        warn!(call_sid, stream_sid, limit, reset_seconds, "LIMIT_REACHED");
    }

    /// A relayed bot has ended the conversation.
    pub fn bot_gone(&self, code: u16) {
        let CallLabels { call_sid, stream_sid } = &self.labels;
        info!(call_sid, stream_sid, code, "BOT_GONE");
    }

    pub fn ping_sent(&self, pong_missed: bool) {
        let CallLabels { call_sid, stream_sid } = &self.labels;
        if pong_missed {
            self.metrics.pongs_missed.inc();
            warn!(call_sid, stream_sid, "PONG_MISSED");
        }
        info!(call_sid, stream_sid, "PNG_PONG_TX");
    }

    pub fn pong_received(&self, rtt: Duration) {
        let CallLabels { call_sid, stream_sid } = &self.labels;
        self.metrics.ping_rtt.observe(rtt.as_secs_f64());
        info!(call_sid, stream_sid, rtt_ms = millis(rtt), "PNG_PONG_RX");
    }

    pub fn event(&mut self, event: Event) {
        if let Some(spans) = &mut self.spans {
            spans.event(&event);
        }
        let CallLabels { call_sid, stream_sid } = &self.labels;
        let metrics = &self.metrics;
        let stage = |stage: &str, took: Duration| {
            metrics.turn_stage.with_label_values(&[stage]).observe(took.as_secs_f64());
        };
        if let Some((outcome, of)) = self.segments.settle(&event) {
            metrics.segments.with_label_values(&[outcome]).inc_by(of);
        }
        match event {
            Event::State(t) => {
                let (from, to, why) = (t.from.as_str(), t.to.as_str(), t.why.as_str());
                info!(call_sid, stream_sid, from, to, why, "STATE");
            }
            Event::UtteranceStarted => debug!(call_sid, stream_sid, "UTTERANCE_STARTED"),
            Event::UtteranceEnded { speech, endpoint } => {
                stage("endpoint", endpoint);
                debug!(call_sid, stream_sid, speech_ms = millis(speech), "UTTERANCE_ENDED");
            }
            Event::SttFinal { text, took } => {
                stage("stt", took);
                let chars = text.chars().count();
                if self.transcripts {
                    info!(call_sid, stream_sid, ms = millis(took), chars, text, "STT_FINAL");
                } else {
                    info!(call_sid, stream_sid, ms = millis(took), chars, "STT_FINAL");
                }
            }
            // A guess grows with every word: a few lines a second show it well enough.
            Event::SttPartial { .. }
                if !self.every_guess && self.guessed_at.is_some_and(|at| at.elapsed() < GUESS_LINES) => {}
            Event::SttPartial { text } => {
                self.guessed_at = Some(Instant::now());
                let chars = text.chars().count();
                if self.transcripts {
                    info!(call_sid, stream_sid, chars, text, "STT_PARTIAL");
                } else {
                    info!(call_sid, stream_sid, chars, "STT_PARTIAL");
                }
            }
            Event::Duplicate { .. } => {
                metrics.duplicates.inc();
                info!(call_sid, stream_sid, "STT_DUPLICATE");
            }
            Event::OwnWords { .. } => {
                metrics.duplicates.inc();
                info!(call_sid, stream_sid, "STT_ECHO");
            }
            Event::AgentFirstText { took } => {
                stage("agent_ttfb", took);
                debug!(call_sid, stream_sid, ms = millis(took), "AGENT_FIRST_TEXT");
            }
            Event::TtsFirstAudio { took } => {
                stage("tts_ttfb", took);
                debug!(call_sid, stream_sid, ms = millis(took), "TTS_FIRST_AUDIO");
            }
            Event::TtsLen { ms } => info!(call_sid, stream_sid, ms, "TTS_LEN_ms"),
            Event::FirstFrame { since_speech_end, greeting, since_thinking, since_audio } => {
                stage("first_frame", since_audio);
                if let Some(took) = since_speech_end {
                    stage("total", took);
                }
                if greeting {
                    metrics.greeting.observe(since_thinking.as_secs_f64());
                }
                debug!(call_sid, stream_sid, greeting, "FIRST_FRAME");
            }
            Event::FirstFrameHeard { took } => {
                metrics.mark_ack.observe(took.as_secs_f64());
                debug!(call_sid, stream_sid, ms = millis(took), "FIRST_FRAME_HEARD");
            }
            Event::MediaTx { frames, ms } => {
                metrics.frames_out.inc_by(frames);
                self.pace.flush();
                info!(call_sid, stream_sid, frames, ms, "MEDIA_TX");
            }
            Event::Underrun => {
                metrics.underruns.inc();
                self.underruns += 1;
                warn!(call_sid, stream_sid, "UNDERRUN");
            }
            Event::BargeInHeld { reaction } => {
                info!(call_sid, stream_sid, reaction_ms = millis(reaction), "BARGE_IN_HELD");
            }
            Event::BargeInResumed { after } => {
                metrics.barge_ins.with_label_values(&["false_positive"]).inc();
                info!(call_sid, stream_sid, after_ms = millis(after), "BARGE_IN_RESUMED");
            }
            Event::BargeInSuppressed { echo } => {
                metrics.barge_ins.with_label_values(&["suppressed"]).inc();
                debug!(call_sid, stream_sid, echo, "BARGE_IN_SUPPRESSED");
            }
            Event::BargeIn { reaction, cleared, .. } => {
                metrics.barge_ins.with_label_values(&["cleared"]).inc();
                metrics.barge_in_reaction.observe(reaction.as_secs_f64());
                self.barge_ins += 1;
                let (reaction_ms, cleared_ms) = (millis(reaction), millis(cleared));
                info!(call_sid, stream_sid, reaction_ms, cleared_ms, "BARGE_IN");
            }
            Event::TurnEnded { turn, result } => {
                metrics.turns.with_label_values(&[result.as_str()]).inc();
                self.turns += 1;
                self.failed += u64::from(result == TurnResult::Failed);
                info!(call_sid, stream_sid, turn, result = result.as_str(), "TURN");
            }
            Event::UpstreamFailed { service, failure } => {
                let (service, kind) = (service.as_str(), failure.kind.as_str());
                let (upstream, why) = (&failure.upstream, &failure.why);
                warn!(call_sid, stream_sid, service, upstream, kind, why, "UPSTREAM_FAILED");
            }
            Event::Dtmf { .. } => {
                metrics.dtmf.inc();
                // Which key is the caller's business: it may be a card number.
                debug!(call_sid, stream_sid, "DTMF");
            }
            Event::MediaStalled => {
                metrics.media_stalls.inc();
                let code = 31953;
                warn!(call_sid, stream_sid, code, "MEDIA_STALLED");
            }
            Event::MediaResumed { after } => {
                info!(call_sid, stream_sid, after_ms = millis(after), "MEDIA_RESUMED");
            }
            Event::MediaGap { ms } => {
                metrics.sequence_gaps.inc();
                debug!(call_sid, stream_sid, ms, "MEDIA_GAP");
            }
            Event::BotOverflow => {
                let code = 31931;
                warn!(call_sid, stream_sid, code, "BOT_OVERFLOW");
            }
            Event::BotUnplayable { why } => warn!(call_sid, stream_sid, why, "BOT_UNPLAYABLE"),
            Event::ActionIgnored { action, why } => {
                let why = match why {
                    Ignored::Backlog => "too much of it waits to be said",
                    Ignored::NoControl => NO_CONTROL,
                    Ignored::Mode => "not in mode = \"realtime\"",
                };
                warn!(call_sid, stream_sid, action, why, "ACTION_IGNORED");
            }
            Event::Ended { reason } => self.reason = Some(reason),
        }
    }

    /// The call's last line.
    pub fn stopped(mut self, lasted: Duration, ending: &Ending) {
        self.pace.flush();
        if let Some(spans) = self.spans.take() {
            spans.end(self.reason.unwrap_or(StopReason::Error));
        }
        let CallLabels { call_sid, stream_sid } = &self.labels;
        let reason = self.reason.unwrap_or(StopReason::Error).as_str();
        self.metrics.calls.with_label_values(&[reason]).inc();
        self.metrics.call_duration.observe(lasted.as_secs_f64());
        let explained = ending.carrier_code.and_then(codes::explain);
        info!(
            call_sid,
            stream_sid,
            seconds = tenths(lasted),
            turns = self.turns,
            failed_turns = self.failed,
            barge_ins = self.barge_ins,
            frames_in = self.frames_in / 160,
            frames_out = self.frames_out,
            underruns = self.underruns,
            dropped = self.dropped,
            close_code = ending.close_code,
            reason,
            detail = ending.detail(),
            code = explained.map(|e| e.code),
            meaning = explained.map(|e| e.meaning),
            look_at = explained.map(|e| e.look_at),
            "WS_STOP"
        );
    }
}

/// The last line of a stream that was no call yet, and bears its names if it has told them: it says what that of
/// a call says, for whoever reads all of them.
pub fn never_began(
    labels: Option<&CallLabels>,
    lasted: Duration,
    dropped: u64,
    reason: StopReason,
    ending: &Ending,
) {
    let explained = ending.carrier_code.and_then(codes::explain);
    warn!(
        call_sid = labels.map(|labels| labels.call_sid.as_str()),
        stream_sid = labels.map(|labels| labels.stream_sid.as_str()),
        seconds = tenths(lasted),
        turns = 0u64,
        failed_turns = 0u64,
        barge_ins = 0u64,
        frames_in = 0u64,
        frames_out = 0u64,
        underruns = 0u64,
        dropped,
        close_code = ending.close_code,
        reason = reason.as_str(),
        detail = ending.detail(),
        code = explained.map(|e| e.code),
        meaning = explained.map(|e| e.meaning),
        look_at = explained.map(|e| e.look_at),
        "WS_STOP"
    );
}

fn tenths(lasted: Duration) -> f64 {
    (lasted.as_secs_f64() * 10.0).round() / 10.0
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
