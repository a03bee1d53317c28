//! From the events of a call to its spans.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::{Event as SpanEvent, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};
use tokio::sync::mpsc::Sender;

use super::super::call::CallLabels;
use super::super::metrics::Metrics;
use super::{Told, new_span};
use crate::call::{Event, SpanId, StopReason, Trace, TurnResult};

/// Remarks on one span. A turn has a few; a service that fails all the time, more.
const MOST_REMARKS: usize = 64;

/// The spans of one call.
pub(in super::super) struct Spans {
    queue: Sender<Told>,
    metrics: Arc<Metrics>,
    trace: Trace,
    call: Open,
    turn: Option<Open>,
    labels: CallLabels,
    turns: i64,
}

/// A span that has not ended.
struct Open {
    id: SpanId,
    since: SystemTime,
    remarks: Vec<SpanEvent>,
}

impl Open {
    fn new(id: SpanId, since: SystemTime) -> Open {
        Open { id, since, remarks: Vec::new() }
    }
}

impl Spans {
    pub(super) fn new(
        queue: Sender<Told>,
        metrics: Arc<Metrics>,
        trace: Trace,
        labels: &CallLabels,
    ) -> Spans {
        let call = Open::new(trace.current(), SystemTime::now());
        Spans { queue, metrics, trace, call, turn: None, labels: labels.clone(), turns: 0 }
    }

    pub(in super::super) fn event(&mut self, event: &Event) {
        let now = SystemTime::now();
        match event {
            Event::UtteranceStarted => self.begin_turn(now),
            Event::UtteranceEnded { speech, endpoint } => {
                self.begin_turn(ago(now, *speech + *endpoint));
                self.stage("endpoint", *endpoint, now);
            }
            Event::SttFinal { took, .. } => self.stage("stt", *took, now),
            Event::AgentFirstText { took } => self.stage("agent_ttfb", *took, now),
            Event::TtsFirstAudio { took } => self.stage("tts_ttfb", *took, now),
            Event::FirstFrame { since_audio, .. } => self.stage("first_frame", *since_audio, now),
            Event::TurnEnded { turn, result } => self.end_turn(Some(*turn), *result, now),
            Event::BargeIn { .. } => self.remark("barge_in", Vec::new(), now),
            Event::BargeInHeld { .. } => self.remark("barge_in_held", Vec::new(), now),
            Event::BargeInResumed { .. } => self.remark("barge_in_resumed", Vec::new(), now),
            Event::Underrun => self.remark("underrun", Vec::new(), now),
            Event::MediaStalled => self.remark("media_stalled", Vec::new(), now),
            Event::UpstreamFailed { service, failure } => {
                let told = vec![
                    text("service", service.as_str()),
                    text("upstream", &failure.upstream),
                    text("kind", failure.kind.as_str()),
                ];
                self.remark("upstream_failed", told, now);
            }
            Event::State(_)
            | Event::SttPartial { .. }
            | Event::Duplicate { .. }
            | Event::OwnWords { .. }
            | Event::TtsLen { .. }
            | Event::FirstFrameHeard { .. }
            | Event::MediaTx { .. }
            | Event::BargeInSuppressed { .. }
            | Event::Dtmf { .. }
            | Event::MediaResumed { .. }
            | Event::MediaGap { .. }
            | Event::BotOverflow
            | Event::BotUnplayable { .. }
            | Event::ActionIgnored { .. }
            | Event::Ended { .. } => {}
        }
    }

    /// The call has ended, and a turn that was under way with it.
    pub(in super::super) fn end(mut self, reason: StopReason) {
        let now = SystemTime::now();
        if self.turn.is_some() {
            self.end_turn(None, TurnResult::Interrupted, now);
        }
        let call = std::mem::replace(&mut self.call, Open::new(0, now));
        let about = vec![
            text("call_sid", &self.labels.call_sid),
            text("stream_sid", &self.labels.stream_sid),
            text("reason", reason.as_str()),
            number("turns", self.turns),
        ];
        let failed = matches!(reason, StopReason::Error);
        self.close("call", call, 0, SpanKind::Server, about, failed, now);
    }

    /// What happens from now on is a turn's, if none is under way.
    fn begin_turn(&mut self, since: SystemTime) {
        let turn = self.turn.get_or_insert_with(|| Open::new(new_span(), since));
        self.trace.enter(turn.id);
    }

    fn end_turn(&mut self, turn: Option<u64>, result: TurnResult, now: SystemTime) {
        // Digits, or an app that speaks by itself: nobody was heard to begin.
        let open = self.turn.take().unwrap_or_else(|| Open::new(new_span(), now));
        self.turns += 1;
        let mut about = vec![text("result", result.as_str())];
        about.extend(turn.map(|turn| number("turn", turn.cast_signed())));
        let parent = self.call.id;
        self.close("turn", open, parent, SpanKind::Internal, about, result == TurnResult::Failed, now);
        self.trace.enter(parent);
    }

    fn stage(&mut self, name: &str, took: Duration, now: SystemTime) {
        let parent = self.trace.current();
        let open = Open::new(new_span(), ago(now, took));
        self.close(name, open, parent, SpanKind::Internal, Vec::new(), false, now);
    }

    fn remark(&mut self, name: &str, attributes: Vec<KeyValue>, now: SystemTime) {
        let remarks = &mut self.turn.as_mut().unwrap_or(&mut self.call).remarks;
        if remarks.len() < MOST_REMARKS {
            let (name, time_unix_nano) = (name.to_owned(), nanos(now));
            remarks.push(SpanEvent { time_unix_nano, name, attributes, ..SpanEvent::default() });
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is a field of a span")]
    fn close(
        &self,
        name: &str,
        open: Open,
        parent: SpanId,
        kind: SpanKind,
        attributes: Vec<KeyValue>,
        failed: bool,
        end: SystemTime,
    ) {
        let parent = if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() };
        let code = if failed { StatusCode::Error } else { StatusCode::Unset };
        let span = Span {
            trace_id: self.trace.id().to_vec(),
            span_id: open.id.to_be_bytes().to_vec(),
            parent_span_id: parent,
            name: name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: nanos(open.since),
            end_time_unix_nano: nanos(end),
            attributes,
            events: open.remarks,
            status: Some(Status { code: code.into(), ..Status::default() }),
            ..Span::default()
        };
        if self.queue.try_send(Told::Span(Box::new(span))).is_err() {
            self.metrics.spans.with_label_values(&["dropped"]).inc();
        }
    }
}

fn ago(now: SystemTime, took: Duration) -> SystemTime {
    now.checked_sub(took).unwrap_or(now)
}

fn nanos(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
