//! Sends spans in batches. A collector that is away or slow costs spans, which are counted, and nothing
//! else.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, redirect};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::super::metrics::Metrics;
use super::Told;
use super::span::text;
use crate::config;

/// Spans of one request.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// For one request.
const REQUEST: Duration = Duration::from_secs(5);
/// Before a batch is tried again; after the last it is dropped. Meanwhile others wait, as far as there
/// is room.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// Empties the queue of spans.
pub struct Exporter {
    client: Client,
    endpoint: String,
    /// The same, as the log names it.
    shown: String,
    headers: HeaderMap,
    resource: Resource,
    waiting: Receiver<Told>,
    metrics: Arc<Metrics>,
    is_away: bool,
}

impl Exporter {
    pub(super) fn new(
        config: &config::Traces,
        waiting: Receiver<Told>,
        metrics: Arc<Metrics>,
    ) -> Result<Exporter, String> {
        // Fails if the program has chosen before: just as well.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut builder = Client::builder()
            .user_agent(concat!("voxgate/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(REQUEST);
        if config.endpoint.starts_with("http:") {
            // Plain HTTP must also work on a machine without any CA certificates.
            builder = builder.tls_certs_only([]);
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        for (name, value) in &config.headers {
            let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
            let mut value = HeaderValue::try_from(&value.0).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let attributes =
            vec![text("service.name", &config.service_name), text("service.version", crate::VERSION)];
        Ok(Exporter {
            client: builder.build().map_err(|error| error.to_string())?,
            // Without the query, where operators put keys.
            shown: config.endpoint.split('?').next().unwrap_or_default().to_owned(),
            endpoint: config.endpoint.clone(),
            headers,
            resource: Resource { attributes, ..Resource::default() },
            waiting,
            metrics,
            is_away: false,
        })
    }

    /// Until nobody is left who could tell of a span.
    pub async fn run(mut self) {
        while let Some(told) = self.waiting.recv().await {
            let (spans, flushed) = self.gather(told).await;
            if !spans.is_empty() {
                self.export(spans, flushed.is_some()).await;
            }
            if let Some(flushed) = flushed {
                let _ = flushed.send(());
            }
        }
    }

    /// A batch, and who waits for it to leave.
    async fn gather(&mut self, first: Told) -> (Vec<Span>, Option<oneshot::Sender<()>>) {
        let mut spans = Vec::new();
        let (mut next, until) = (Some(first), Instant::now() + GATHER);
        while let Some(told) = next {
            match told {
                Told::Span(span) => spans.push(*span),
                Told::Flush(flushed) => return (spans, Some(flushed)),
            }
            if spans.len() >= BATCH {
                break;
            }
            next = timeout_at(until, self.waiting.recv()).await.ok().flatten();
        }
        (spans, None)
    }

    async fn export(&mut self, spans: Vec<Span>, hurried: bool) {
        let count = spans.len() as u64;
        let scope = InstrumentationScope {
            name: "voxgate".to_owned(),
            version: crate::VERSION.to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
        let body = bytes::Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let mut pauses = PAUSES.iter().filter(|_| !hurried);
        let result = loop {
            match (self.post(body.clone()).await, pauses.next()) {
                (Ok(()), _) => break "exported",
                (Err(Refused { why, again }), pause) => {
                    if !std::mem::replace(&mut self.is_away, true) {
                        warn!(endpoint = self.shown, why, "TRACES_NOT_EXPORTED");
                    }
                    match pause.filter(|_| again) {
                        Some(pause) => sleep(*pause).await,
                        None => break "dropped",
                    }
                }
            }
        };
        if result == "exported" && std::mem::take(&mut self.is_away) {
            info!(endpoint = self.shown, "TRACES_EXPORTED");
        }
        self.metrics.spans.with_label_values(&[result]).inc_by(count);
    }

    async fn post(&self, body: bytes::Bytes) -> Result<(), Refused> {
        let request = self.client.post(&self.endpoint).headers(self.headers.clone()).body(body);
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                let status = answer.status().as_u16();
                let again = matches!(status, 429 | 502 | 503 | 504);
                Err(Refused { why: format!("it answers {status}"), again })
            }
            Err(error) => {
                let error = error.without_url();
                let mut root: &dyn std::error::Error = &error;
                while let Some(source) = root.source() {
                    root = source;
                }
                Err(Refused { why: root.to_string(), again: true })
            }
        }
    }
}

/// A batch that was not taken.
struct Refused {
    why: String,
    /// Worth another try, by the protocol.
    again: bool,
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::{MOST_WAITING, Traces};
    use super::*;
    use crate::call::{Event, TurnResult};
    use crate::observe::CallLabels;

    fn spans(result: &str, metrics: &Metrics) -> u64 {
        metrics.spans.with_label_values(&[result]).get()
    }

    /// A collector that accepts and never answers: its batches are lost, each after three tries, and what
    /// comes meanwhile waits as far as there is room.
    #[tokio::test(start_paused = true)]
    async fn a_collector_that_never_answers_costs_spans_which_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config::Traces {
            endpoint: format!("http://{}/v1/traces", listener.local_addr().unwrap()),
            service_name: "voxgate".to_owned(),
            headers: Vec::new(),
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let (traces, exporter) = Traces::new(&config, &metrics).unwrap();
        let exporting = tokio::spawn(exporter.run());
        let labels = CallLabels { call_sid: "CA1".to_owned(), stream_sid: "MZ1".to_owned() };
        let mut call = traces.call(&traces.of_call("CA1"), &labels);
        call.event(&Event::TurnEnded { turn: 0, result: TurnResult::Answered });
        let (_held, _) = listener.accept().await.unwrap();
        // Nobody reads meanwhile; telling waits for nothing.
        let (told, more) = (Instant::now(), MOST_WAITING as u64 + 7);
        for turn in 1..=more {
            call.event(&Event::TurnEnded { turn, result: TurnResult::Answered });
        }
        assert_eq!((told.elapsed(), spans("dropped", &metrics)), (Duration::ZERO, 7));
        // The end of the process waits a bounded time.
        traces.flush().await;
        assert!(told.elapsed() < super::super::FLUSH * 2, "{:?}", told.elapsed());
        let second = Duration::from_secs(1);
        sleep(REQUEST * 3 + PAUSES[0] + PAUSES[1] + second).await;
        assert_eq!((spans("exported", &metrics), spans("dropped", &metrics)), (0, 8));
        exporting.abort();
    }
}
