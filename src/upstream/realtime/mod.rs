//! OpenAI's Realtime API, at OpenAI or at whatever speaks it: a WebSocket for each call, to a model that
//! hears and speaks by itself. What is said to it and what it says is translated here; what becomes of
//! it is decided in `call::realtime`.

mod read;
mod session;
#[cfg(test)]
mod tests;
mod write;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use form_urlencoded::Serializer;
use tokio::sync::mpsc::channel;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub use self::read::{Limit, ModelReader, Read};

use super::agent::webhook::{Function, Webhook};
use super::bot::BotStream;
use super::http::Unusable;
use super::observed::{Tell, Watch};
use super::outlet::Outlet;
use super::owner::Vendor;
use super::stream::Target;
use super::{CallIds, Ended, Pools};
use crate::call::realtime::{Answered, FunctionCall, Request};
use crate::call::{Action, Failure, FailureKind, Input, Question, Service, Trace};
use crate::config::{Dialect, Realtime, Secret, Tool};

/// The most of an app's answer that a model is given.
const LONGEST_OUTPUT: usize = 16 * 1024;
/// Pieces of an app's answer that wait to be put together.
const PIECES: usize = 16;
/// What the operator can set, as far as a refusal may be about it.
const KEYS: &[&str] = &[
    "model",
    "voice",
    "instructions",
    "temperature",
    "speed",
    "max_output_tokens",
    "turn_detection",
    "threshold",
    "prefix_padding_ms",
    "silence_duration_ms",
    "idle_timeout_ms",
    "eagerness",
    "transcription",
    "noise_reduction",
    "tools",
    "functions",
];

/// A model as configured, shared by all calls.
pub struct Model {
    target: Target,
    next: AtomicUsize,
    vendor: Vendor,
    dialect: Dialect,
    /// What every connection begins with.
    opening: String,
    tools: Vec<Tool>,
    /// The app's functions, by name.
    functions: Vec<String>,
    app: Option<Webhook>,
    tell: Tell,
}

/// A connection to a model, and what watches over it until it ends.
pub struct ModelLink {
    pub ws: WebSocketStream<BotStream>,
    pub watch: Watch,
}

impl Model {
    pub(super) fn new(realtime: &Realtime, pools: &mut Pools, tell: Tell) -> Result<Self, Unusable> {
        let mut headers = Vec::new();
        if let Some(key) = &realtime.api_key {
            headers.push(("Authorization".to_owned(), Secret(format!("Bearer {}", key.0))));
        }
        if realtime.dialect == Dialect::Beta {
            headers.push(("OpenAI-Beta".to_owned(), Secret("realtime=v1".to_owned())));
        }
        let mut endpoint = realtime.endpoint.clone();
        // What the operator wrote counts.
        headers.retain(|(name, _)| !endpoint.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)));
        endpoint.headers.extend(headers);
        let (path, own_query) = endpoint.path.split_once('?').unwrap_or((&endpoint.path, ""));
        let names_model = own_query.split('&').any(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            name == "model" || name == "deployment"
        });
        let query = if names_model {
            String::new()
        } else {
            Serializer::new(String::new()).append_pair("model", &realtime.model).finish()
        };
        // A bare host has its API under `/v1`.
        let operation = if path == "/" { "/v1/realtime" } else { "/realtime" };
        let target = Target::new(&endpoint, operation, &query, None)?;
        let app = realtime.app.as_ref().map(|app| pools.wire(app)).transpose()?;
        Ok(Self {
            target,
            next: AtomicUsize::new(0),
            vendor: Vendor::new(realtime.api_key.clone(), KEYS),
            dialect: realtime.dialect,
            opening: session::update(realtime).to_string(),
            tools: realtime.tools.clone(),
            functions: realtime.functions.iter().map(|function| function.name.clone()).collect(),
            app: app.map(|wire| Webhook { wire }),
            tell,
        })
    }

    pub fn upstream(&self) -> &str {
        &self.target.upstream.name
    }

    /// Opens a connection, which is observed as one request: `ok` if it lasts until it is not needed any
    /// more.
    pub fn connect(
        self: &Arc<Self>,
        config: WebSocketConfig,
        trace: Option<Trace>,
    ) -> impl Future<Output = Result<Box<ModelLink>, Failure>> + Send + use<> + 'static {
        let model = Arc::clone(self);
        async move {
            let mut watch = Watch::new(&model.tell, model.upstream(), Service::Agent, Duration::MAX);
            let turn = model.next.fetch_add(1, Ordering::Relaxed) % model.target.servers.len().max(1);
            let Some(server) = model.target.servers.get(turn) else {
                return Err(model.failure(FailureKind::Connect, "your config: url", "no servers"));
            };
            match model.target.open(server, config, trace.as_ref()).await {
                Ok(ws) => {
                    watch.first_byte();
                    Ok(Box::new(ModelLink { ws, watch }))
                }
                Err(failure) => {
                    watch.failed(&failure);
                    Err(failure)
                }
            }
        }
    }

    /// A failure of a connection that was open.
    pub fn failure(&self, kind: FailureKind, owner: &str, why: &str) -> Failure {
        Failure { upstream: self.upstream().to_owned(), kind, why: format!("{owner}: the model {why}") }
    }

    /// The first message of a connection.
    pub fn opening(&self) -> String {
        self.opening.clone()
    }

    /// The message of a request; `None` for one that is not the model's to answer.
    pub fn write(&self, request: &Request) -> Option<String> {
        write::message(request, self.dialect)
    }

    /// Has the app do what a function call wants; what the model is to be told of it, and what is to be
    /// done once the caller has heard the model.
    pub fn function(
        self: &Arc<Self>,
        ids: &Arc<CallIds>,
        turn: u64,
        call: FunctionCall,
        deadline_ms: u64,
    ) -> impl Future<Output = Answered> + Send + use<> + 'static {
        let (model, ids) = (Arc::clone(self), Arc::clone(ids));
        async move {
            let Some(app) = &model.app else {
                return Err(model.failure(FailureKind::Connect, "your config", "has no app behind it"));
            };
            let mut watch = Watch::new(
                &model.tell,
                app.wire.upstream(),
                Service::Agent,
                Duration::from_millis(deadline_ms) / 2,
            )
            .in_trace(ids.trace.as_ref());
            let done = ask(app, &ids, turn, &call, deadline_ms, &mut watch).await;
            done.map_err(|ended| {
                let failure = match ended {
                    Ended::Failed(failure) => failure,
                    Ended::Unheard => model.failure(FailureKind::Protocol, "the app", "was not answered"),
                };
                watch.failed(&failure);
                failure
            })
        }
    }
}

async fn ask(
    app: &Webhook,
    ids: &CallIds,
    turn: u64,
    call: &FunctionCall,
    deadline_ms: u64,
    watch: &mut Watch,
) -> Result<(String, Action), Ended> {
    let arguments: serde_json::Value = serde_json::from_str(&call.arguments).unwrap_or_default();
    let asked = Function { name: &call.name, arguments: &arguments, call: &call.id };
    let question = Question {
        turn,
        text: arguments["text"].as_str().unwrap_or_default().to_owned(),
        deadline_ms,
        ..Question::default()
    };
    let (to, mut pieces) = channel(PIECES);
    let asking = async move {
        let outlet = Outlet::new(&to, ids, watch);
        let done = app.ask_for(ids, &question, Some(&asked), &outlet, watch).await;
        drop(to);
        done
    };
    let collecting = async {
        let (mut output, mut done) = (String::new(), Action::None);
        while let Some(piece) = pieces.recv().await {
            match *piece {
                Input::ReplyText { text, .. } if output.len() < LONGEST_OUTPUT => output.push_str(&text),
                Input::ReplyEnd { action, .. } => done = action,
                _ => {}
            }
        }
        (output.chars().take(LONGEST_OUTPUT).collect(), done)
    };
    let (asked, (output, action)): (_, (String, _)) = tokio::join!(asking, collecting);
    asked?;
    Ok((if output.trim().is_empty() { "Done.".to_owned() } else { output }, action))
}
