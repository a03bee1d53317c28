//! The metrics. Base units, closed sets of labels, every combination there from the start, so that a
//! rate never misses the first event; handles are kept, so that counting is an addition.

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::http::Http;
use super::labels::{NOISE, Route, SPEECH, SignedKind, TOO_SHORT};
use super::refused::{HandshakeResult, TwimlFallback};
use crate::call::{FailureKind, Service, StopReason, TurnResult};
use crate::twilio::TokenFault;
use crate::twilio::lint::Rule;
use crate::twilio::signature::Unsigned;

/// Bounds that are no whole seconds: Prometheus 3 would rename `le="1"`.
const TURN: [f64; 15] = [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.1, 1.5, 2.1, 3.1, 5.1, 10.1];
const PACE: [f64; 13] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5];
const NET: [f64; 12] = [0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.1];
const HTTP: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.1, 2.5, 5.1, 10.1, 30.1];
const CALL: [f64; 11] = [5.1, 15.1, 30.1, 60.1, 120.1, 300.1, 600.1, 1800.1, 3600.1, 7200.1, 14400.1];

/// One frame through the voice activity detector and the state machine: microseconds.
const FRAME: [f64; 5] = [2.5e-6, 1e-5, 2.5e-5, 1e-4, 1e-3];

/// What becomes of an interruption: it ends the reply, the bot goes on, or it is not let through.
const BARGE_INS: [&str; 3] = ["cleared", "false_positive", "suppressed"];
/// Stages of a turn, in their order.
const STAGES: [&str; 6] = ["endpoint", "stt", "agent_ttfb", "tts_ttfb", "first_frame", "total"];

/// Why a message of the carrier was of no use.
const DROPPED: [&str; 9] = [
    "before_start",
    "base64",
    "malformed",
    "binary",
    "other_track",
    "stt_behind",
    "bot_slow",
    "bot_malformed",
    "model_malformed",
];

/// The result of a request to a service: a failure's kind, or one of these.
const RESULTS: [&str; 2] = ["ok", "cancelled"];

/// What becomes of an order of a certificate.
const ACME: [&str; 4] = ["issued", "refused", "unreachable", "failed"];

pub struct Metrics {
    registry: Registry,
    pub calls_active: IntGauge,
    pub calls_capacity: IntGauge,
    pub calls_unstarted: IntGauge,
    pub draining: IntGauge,
    pub calls: IntCounterVec,
    pub call_duration: Histogram,
    pub calls_without_start: IntCounter,
    pub handshakes: IntCounterVec,
    pub frames_in: IntCounter,
    pub frames_out: IntCounter,
    pub frames_dropped: IntCounterVec,
    pub sequence_gaps: IntCounter,
    pub media_stalls: IntCounter,
    pub jitter: Histogram,
    pub lateness: Histogram,
    pub underruns: IntCounter,
    pub playout_buffer: Gauge,
    pub worker_stall: Histogram,
    pub segments: IntCounterVec,
    pub inference: Histogram,
    pub ping_rtt: Histogram,
    pub pongs_missed: IntCounter,
    pub mark_ack: Histogram,
    pub barge_ins: IntCounterVec,
    pub barge_in_reaction: Histogram,
    pub turns: IntCounterVec,
    pub turn_stage: HistogramVec,
    pub greeting: Histogram,
    pub duplicates: IntCounter,
    pub dtmf: IntCounter,
    upstream_requests: IntCounterVec,
    upstream_seconds: HistogramVec,
    upstream_healthy: GaugeVec,
    breaker_state: IntGaugeVec,
    fallbacks: IntCounterVec,
    speech_cache: IntCounterVec,
    http: Http,
    pub http_inflight: IntGauge,
    origin_healthy: GaugeVec,
    origin_retries: IntCounterVec,
    pub recordings_written: IntCounter,
    pub recordings_cut: IntCounter,
    pub recordings_deleted: IntCounter,
    pub recording_bytes: IntCounter,
    pub recording_folder_bytes: IntGauge,
    pub stream_status: IntCounterVec,
    certificate: IntGaugeVec,
    pub acme_orders: IntCounterVec,
    pub spans: IntCounterVec,
    pub config_generation: IntGauge,
    pub config_reloaded: IntGauge,
    pub config_reloaded_at: IntGauge,
    twiml_findings: IntCounterVec,
    twiml_fallbacks: IntCounterVec,
    stream_tokens: IntCounterVec,
    signatures: IntCounterVec,
}

impl Metrics {
    /// All metrics, at zero. Fails only if two bear one name.
    pub fn new() -> prometheus::Result<Metrics> {
        let registry = Registry::new_custom(Some("voxgate".into()), None)?;
        let new = New(&registry);
        let media_frames = new.counters(
            "media_frames_total",
            "Frames of 20 ms received from and sent to the carrier.",
            &["direction"],
        )?;
        let barge_ins = new.counters(
            "barge_ins_total",
            "Interruptions of the bot by the caller, by outcome.",
            &["outcome"],
        )?;
        let recordings = new.counters(
            "recordings_total",
            "Tapes of calls: written to the end, cut before it, and deleted by age or size.",
            &["result"],
        )?;
        let build = IntGaugeVec::new(
            Opts::new("build_info", "The version that runs; always 1."),
            &["version", "commit"],
        )?;
        build.with_label_values(&[crate::VERSION, crate::COMMIT]).set(1);
        registry.register(Box::new(build))?;
        let http_requests = new.counters(
            "http_requests_total",
            "HTTP requests, by who answers them and the class of the status.",
            &["route", "code"],
        )?;
        let http_duration = new.histograms(
            "http_request_duration_seconds",
            "From a request's head to the end of its answer; not of what is answered at once.",
            &["route"],
            &HTTP,
        )?;
        let metrics = Metrics {
            calls_active: new.gauge("calls_active", "Calls under way.")?,
            calls_capacity: new.gauge("calls_capacity", "Calls that may be under way at once.")?,
            calls_unstarted: new
                .gauge("calls_unstarted", "WebSockets at the media path whose `start` has not come yet.")?,
            draining: new.gauge("draining", "1 while no new calls are taken and the last ones finish.")?,
            calls: new.counters("calls_total", "Calls that have ended, by reason.", &["reason"])?,
            call_duration: new.histogram("call_duration_seconds", "How long calls lasted.", &CALL)?,
            calls_without_start: new.counter(
                "calls_without_start_total",
                "WebSockets at the media path that ended before `start`.",
            )?,
            handshakes: new.counters(
                "ws_handshakes_total",
                "Requests at the media path, by result.",
                &["result"],
            )?,
            frames_in: media_frames.with_label_values(&["in"]),
            frames_out: media_frames.with_label_values(&["out"]),
            frames_dropped: new.counters(
                "media_frames_dropped_total",
                "Messages of the carrier that could not be used, by reason.",
                &["direction", "reason"],
            )?,
            sequence_gaps: new.counter(
                "media_sequence_gaps_total",
                "Places where audio was lost between the carrier and here, by its timestamps.",
            )?,
            media_stalls: new
                .counter("media_stalls_total", "Times that a caller's audio stopped for 2 s.")?,
            jitter: new.histogram(
                "media_interarrival_jitter_seconds",
                "How much sooner or later than its timestamp says a caller's audio came after the last.",
                &PACE,
            )?,
            lateness: new.histogram(
                "frame_send_lateness_seconds",
                "How long after it was due a frame left.",
                &PACE,
            )?,
            underruns: new.counter(
                "playout_underruns_total",
                "Times that there was nothing to send in the middle of a sentence.",
            )?,
            playout_buffer: new.register(Gauge::new(
                "playout_buffer_seconds",
                "Audio for callers that waits here until it is due, of all calls together.",
            )?)?,
            worker_stall: new.histogram(
                "worker_stall_seconds",
                "How late the threads that carry calls come to a tick each 20 ms.",
                &PACE,
            )?,
            segments: new.counters(
                "vad_segments_total",
                "Stretches that the detector took for speech, by what came of them.",
                &["outcome"],
            )?,
            inference: new.histogram(
                "vad_inference_seconds",
                "Voice activity and the state machine, for one frame of 20 ms; one in fifty is timed.",
                &FRAME,
            )?,
            ping_rtt: new.histogram("ws_ping_rtt_seconds", "From a ping to its pong.", &NET)?,
            pongs_missed: new.counter("ws_pongs_missed_total", "Pings without a pong by the next ping.")?,
            mark_ack: new.histogram(
                "mark_ack_seconds",
                "From a reply's first frame to the carrier's word that it was played.",
                &NET,
            )?,
            barge_ins,
            barge_in_reaction: new.histogram(
                "barge_in_reaction_seconds",
                "From the caller's first voiced frame of an interruption to `clear`.",
                &NET,
            )?,
            turns: new.counters("turns_total", "Turns of callers, by result.", &["result"])?,
            turn_stage: new.histograms(
                "turn_stage_seconds",
                "How long each stage of a turn took; total is from the end of speech to the first frame.",
                &["stage"],
                &TURN,
            )?,
            greeting: new.histogram(
                "greeting_seconds",
                "From `start` to the first frame of the greeting.",
                &TURN,
            )?,
            duplicates: new.counter("stt_duplicates_total", "Final texts that repeated the last one.")?,
            dtmf: new.counter("dtmf_total", "Keys pressed by callers.")?,
            upstream_requests: new.counters(
                "upstream_requests_total",
                "Requests to the speech services, by result.",
                &["upstream", "kind", "result"],
            )?,
            upstream_seconds: new.histograms(
                "upstream_seconds",
                "From a request to a speech service to the first byte of its answer.",
                &["upstream", "kind"],
                &TURN,
            )?,
            upstream_healthy: new.register(GaugeVec::new(
                Opts::new("upstream_healthy", "The part of an upstream's servers that is asked: 1 for all."),
                &["upstream"],
            )?)?,
            breaker_state: new.register(IntGaugeVec::new(
                Opts::new(
                    "breaker_state",
                    "0: an upstream is asked; 1: one request at a time finds out; 2: it is not asked.",
                ),
                &["upstream"],
            )?)?,
            fallbacks: new.counters(
                "fallbacks_total",
                "Times that the next service of a list was asked, since the one before had failed.",
                &["kind"],
            )?,
            speech_cache: new.counters(
                "speech_cache_total",
                "Sentences looked for in the cache of what was said before, by result.",
                &["result"],
            )?,
            http: Http::new(&http_requests, &http_duration),
            http_inflight: new.gauge("http_inflight", "HTTP requests under way.")?,
            origin_healthy: new.register(GaugeVec::new(
                Opts::new("origin_healthy", "The part of the app's servers that can be reached: 1 for all."),
                &["upstream"],
            )?)?,
            origin_retries: new.counters(
                "origin_retries_total",
                "Times that a request was sent to the app again, or to another of its servers.",
                &["upstream"],
            )?,
            recordings_written: recordings.with_label_values(&["written"]),
            recordings_cut: recordings.with_label_values(&["cut"]),
            recordings_deleted: recordings.with_label_values(&["deleted"]),
            recording_bytes: new.counter("recording_bytes_total", "Written to tapes.")?,
            recording_folder_bytes: new
                .gauge("recording_folder_bytes", "What the tapes in the folder take up.")?,
            stream_status: new.counters(
                "stream_status_total",
                "Stream status callbacks of the carrier, by event.",
                &["event"],
            )?,
            config_generation: new
                .gauge("config_generation", "Configurations since the start, the first included.")?,
            config_reloaded: new.gauge(
                "config_last_reload_successful",
                "0 after a reload that failed: the configuration before it counts.",
            )?,
            config_reloaded_at: new.gauge(
                "config_last_reload_success_timestamp_seconds",
                "When the configuration was last read.",
            )?,
            certificate: new.gauges(
                "tls_certificate_not_after_timestamp_seconds",
                "When the certificate of the public listener expires, by its first name.",
                &["name"],
            )?,
            acme_orders: new.counters(
                "acme_orders_total",
                "Certificates that were asked for, by what became of it.",
                &["result"],
            )?,
            spans: new.counters("spans_total", "Spans of calls, by what became of them.", &["result"])?,
            twiml_findings: new.counters(
                "twiml_lint_findings_total",
                "What was wrong with TwiML of the app, by rule.",
                &["rule"],
            )?,
            twiml_fallbacks: new.counters(
                "twiml_fallbacks_total",
                "Voice webhooks that were answered with fallback_twiml or busy_twiml, by reason.",
                &["reason"],
            )?,
            stream_tokens: new.counters(
                "stream_tokens_total",
                "Tokens of calls at the media path, by what was wrong with them.",
                &["result"],
            )?,
            signatures: new.counters(
                "signatures_total",
                "Signatures of Twilio's that were checked, by what was wrong with them.",
                &["kind", "result"],
            )?,
            registry,
        };
        metrics.create_all();
        Ok(metrics)
    }

    fn create_all(&self) {
        StopReason::ALL.iter().for_each(|r| drop(self.calls.with_label_values(&[r.as_str()])));
        HandshakeResult::all().for_each(|r| drop(self.handshakes.with_label_values(&[r.as_str()])));
        TurnResult::ALL.iter().for_each(|r| drop(self.turns.with_label_values(&[r.as_str()])));
        BARGE_INS.iter().for_each(|o| drop(self.barge_ins.with_label_values(&[o])));
        [SPEECH, TOO_SHORT, NOISE].iter().for_each(|o| drop(self.segments.with_label_values(&[o])));
        STAGES.iter().for_each(|s| drop(self.turn_stage.with_label_values(&[s])));
        DROPPED.iter().for_each(|r| drop(self.frames_dropped.with_label_values(&["in", r])));
        Service::ALL.iter().for_each(|s| drop(self.fallbacks.with_label_values(&[s.as_str()])));
        ["hit", "miss"].iter().for_each(|r| drop(self.speech_cache.with_label_values(&[r])));
        for event in ["stream-started", "stream-stopped", "stream-error", "other"] {
            self.stream_status.with_label_values(&[event]);
        }
        Rule::ALL.iter().for_each(|r| drop(self.twiml_findings.with_label_values(&[r.as_str()])));
        ["exported", "dropped"].iter().for_each(|r| drop(self.spans.with_label_values(&[r])));
        ACME.iter().for_each(|r| drop(self.acme_orders.with_label_values(&[r])));
        for reason in TwimlFallback::all() {
            self.twiml_fallbacks.with_label_values(&[reason.as_str()]);
        }
        for result in TokenFault::ALL.map(TokenFault::as_str).into_iter().chain(["ok"]) {
            self.stream_tokens.with_label_values(&[result]);
        }
        for kind in [SignedKind::Webhook, SignedKind::Handshake] {
            for result in Unsigned::ALL.map(Unsigned::as_str).into_iter().chain(["ok"]) {
                self.signatures.with_label_values(&[kind.as_str(), result]);
            }
        }
    }

    /// Makes the series of a service known before its first request.
    pub fn know_upstream(&self, upstream: &str, service: Service) {
        let kind = service.as_str();
        self.upstream_seconds.with_label_values(&[upstream, kind]);
        self.upstream_health(upstream, 0, 1.0);
        for result in RESULTS.into_iter().chain(FailureKind::ALL.map(FailureKind::as_str)) {
            self.upstream_requests.with_label_values(&[upstream, kind, result]);
        }
    }

    /// A service that is not asked any more is neither well nor ill. What was counted of it stays.
    pub fn forget_upstream(&self, upstream: &str) {
        // Where there is none it is forgotten already.
        let _ = self.breaker_state.remove_label_values(&[upstream]);
        let _ = self.upstream_healthy.remove_label_values(&[upstream]);
    }

    pub fn upstream_done(&self, upstream: &str, service: Service, result: &str, first_byte: Option<f64>) {
        let kind = service.as_str();
        self.upstream_requests.with_label_values(&[upstream, kind, result]).inc();
        if let Some(seconds) = first_byte {
            self.upstream_seconds.with_label_values(&[upstream, kind]).observe(seconds);
        }
    }

    pub fn upstream_health(&self, upstream: &str, breaker_state: i64, healthy: f64) {
        self.breaker_state.with_label_values(&[upstream]).set(breaker_state);
        self.upstream_healthy.with_label_values(&[upstream]).set(healthy);
    }

    /// The part of the app's servers that can be reached.
    pub fn origin_healthy(&self, upstream: &str, part: f64) {
        self.origin_healthy.with_label_values(&[upstream]).set(part);
        self.origin_retries.with_label_values(&[upstream]);
    }

    pub fn origin_retry(&self, upstream: &str) {
        self.origin_retries.with_label_values(&[upstream]).inc();
    }

    pub fn fell_back(&self, service: Service) {
        self.fallbacks.with_label_values(&[service.as_str()]).inc();
    }

    pub fn speech_cache(&self, hit: bool) {
        self.speech_cache.with_label_values(&[if hit { "hit" } else { "miss" }]).inc();
    }

    pub fn http_done(&self, route: Route, status: u16, seconds: f64) {
        self.http.done(route, status, seconds);
    }

    /// The certificate in use, from now on.
    pub fn certificate(&self, name: &str, not_after: i64) {
        self.certificate.reset();
        self.certificate.with_label_values(&[name]).set(not_after);
    }

    pub fn twiml_finding(&self, rule: Rule) {
        self.twiml_findings.with_label_values(&[rule.as_str()]).inc();
    }

    pub fn twiml_fallback(&self, reason: TwimlFallback) {
        self.twiml_fallbacks.with_label_values(&[reason.as_str()]).inc();
    }

    pub fn stream_token(&self, result: Result<(), TokenFault>) {
        self.stream_tokens.with_label_values(&[result.err().map_or("ok", TokenFault::as_str)]).inc();
    }

    pub fn signature(&self, kind: SignedKind, wrong: Option<Unsigned>) {
        self.signatures.with_label_values(&[kind.as_str(), wrong.map_or("ok", Unsigned::as_str)]).inc();
    }

    pub fn handshake(&self, result: HandshakeResult) {
        self.handshakes.with_label_values(&[result.as_str()]).inc();
    }

    /// The text that Prometheus reads, the process's own metrics included.
    pub fn text(&self) -> String {
        let mut families = self.registry.gather();
        families.extend(prometheus::gather());
        let mut text = Vec::new();
        // Writing to memory fails only on a metric without a name.
        let _ = TextEncoder::new().encode(&families, &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Makes metrics and registers them.
struct New<'a>(&'a Registry);

impl New<'_> {
    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> prometheus::Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        self.register(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_and_within_the_budget() {
        let metrics = Metrics::new().expect("metrics");
        for service in Service::ALL {
            metrics.know_upstream("speech", service);
        }
        metrics.origin_healthy("app", 1.0);
        metrics.certificate("bot.example.com", 0);
        let text = metrics.text();
        for series in [
            "voxgate_calls_total{reason=\"caller_hangup\"} 0",
            "voxgate_ws_handshakes_total{result=\"ok\"} 0",
            "voxgate_turns_total{result=\"failed\"} 0",
            "voxgate_media_frames_total{direction=\"out\"} 0",
            "voxgate_media_frames_dropped_total{direction=\"in\",reason=\"stt_behind\"} 0",
            "voxgate_http_request_duration_seconds_bucket{route=\"app\",le=\"0.01\"} 0",
            "voxgate_turn_stage_seconds_count{stage=\"total\"} 0",
            "voxgate_upstream_requests_total{kind=\"tts\",result=\"http_5xx\",upstream=\"speech\"} 0",
            "voxgate_http_requests_total{code=\"5xx\",route=\"app\"} 0",
            "voxgate_barge_ins_total{outcome=\"cleared\"} 0",
            "voxgate_vad_segments_total{outcome=\"too_short\"} 0",
            "voxgate_media_interarrival_jitter_seconds_count 0",
            "voxgate_playout_buffer_seconds 0",
            "voxgate_vad_inference_seconds_count 0",
            "voxgate_worker_stall_seconds_count 0",
            "voxgate_origin_healthy{upstream=\"app\"} 1",
            "voxgate_origin_retries_total{upstream=\"app\"} 0",
        ] {
            assert!(text.contains(series), "{series} is missing");
        }
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        // README and spec promise it: a replica with its services, each of another kind.
        assert!(series < 600, "{series} series");
    }

    #[test]
    fn a_status_counts_in_its_class() {
        let metrics = Metrics::new().expect("metrics");
        for status in [101, 204, 404, 502, 0, 999] {
            metrics.http_done(Route::App, status, 0.1);
        }
        let text = metrics.text();
        for (class, count) in [("1xx", 1), ("2xx", 1), ("3xx", 0), ("4xx", 1), ("5xx", 3)] {
            let series = format!("voxgate_http_requests_total{{code=\"{class}\",route=\"app\"}} {count}");
            assert!(text.contains(&series), "{series}");
        }
    }
}
