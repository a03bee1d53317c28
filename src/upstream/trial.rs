//! Tries every service of a configuration once, with a request as small as can be: to know before the
//! first caller does. Nothing is kept, no breaker is asked, and whoever stands in is tried like the rest.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::agent::Agent;
use super::answer::seconds;
use super::http::Unusable;
use super::observed::{Notice, Tell, Watch};
use super::outlet::Outlet;
use super::quote::words;
use super::stream::Streaming;
use super::stt::Stt;
use super::tts::Tts;
use super::{Bot, CallIds, Ended, Model, Pools};
use crate::audio::APOLOGY;
use crate::call::{Action, Failure, FailureKind, Input, Posted, Question, Service};
use crate::config::{self, Config, Mode, Upstream};

/// What the agent is asked, and what the voice says.
const PING: &str = "ping";
const HELLO: &str = "Hello.";

/// "Sorry, something", as the recorded apology says it.
const WORDS: usize = 8000;

/// How long each may take. A caller would not wait so long.
const LONGEST: Duration = Duration::from_secs(15);

/// What became of one of them.
#[derive(Clone, Debug)]
pub struct Trial {
    /// `tts`, or `tts.fallback 1`, as the configuration has it.
    pub name: String,
    /// By its name in the configuration, or its host.
    pub upstream: String,
    /// What it answered, or why it did not.
    pub result: Result<String, Failure>,
    pub first_byte: Option<Duration>,
    pub total: Duration,
}

/// Tries them all, at once.
pub async fn try_all(config: &Config) -> Vec<Trial> {
    let mut trials: Vec<BoxFuture<'_, Trial>> = vec![app(&config.app).boxed()];
    let fallbacks = &config.dialogue.fallbacks;
    match &config.dialogue.mode {
        Mode::Echo => {}
        Mode::Relay { bot, subprotocol } => trials.push(relay(bot, subprotocol.as_deref()).boxed()),
        Mode::Realtime(realtime) => trials.push(try_model(realtime).boxed()),
        Mode::Dialogue { stt, agent, tts } => {
            for (n, stt) in std::iter::once(stt).chain(&fallbacks.stt).enumerate() {
                trials.push(try_stt(name("stt", n), stt).boxed());
            }
            for (n, agent) in std::iter::once(agent).chain(&fallbacks.agent).enumerate() {
                trials.push(try_agent(name("agent", n), agent).boxed());
            }
            for (n, tts) in std::iter::once(tts).chain(&fallbacks.tts).enumerate() {
                trials.push(try_tts(name("tts", n), tts).boxed());
            }
        }
    }
    join_all(trials).await
}

fn name(service: &str, number: usize) -> String {
    if number == 0 { service.to_owned() } else { format!("{service}.fallback {number}") }
}

/// One of them, while it is tried.
struct Trying {
    name: String,
    upstream: String,
    since: Instant,
    first_byte: Arc<Mutex<Option<f64>>>,
    pools: Pools,
    tell: Tell,
}

impl Trying {
    fn new(name: String, upstream: &Upstream) -> Trying {
        let first_byte = Arc::<Mutex<Option<f64>>>::default();
        let seen = Arc::clone(&first_byte);
        let tell: Tell = Arc::new(move |notice| {
            if let Notice::Done(done) = notice {
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                *seen = seen.or(done.seconds_to_first_byte);
            }
        });
        let (upstream, since, pools) = (upstream.name.clone(), Instant::now(), Pools::new(&tell));
        Trying { name, upstream, since, first_byte, pools, tell }
    }

    fn watch(&self, service: Service) -> Watch {
        Watch::new(&self.tell, &self.upstream, service, LONGEST)
    }

    fn unusable(&self, unusable: &Unusable) -> Failure {
        let (upstream, why) = (self.upstream.clone(), format!("your config: {}", unusable.why));
        Failure { upstream, kind: FailureKind::Protocol, why }
    }

    /// Waits for its answer, but not for ever.
    async fn end(self, answer: impl Future<Output = Result<String, Failure>>) -> Trial {
        let result = timeout(LONGEST, answer).await.unwrap_or_else(|_| {
            let why = format!("the service: no complete answer within {}", seconds(LONGEST));
            Err(Failure { upstream: self.upstream.clone(), kind: FailureKind::Timeout, why })
        });
        let first_byte = *self.first_byte.lock().unwrap_or_else(PoisonError::into_inner);
        let (first_byte, total) = (first_byte.map(Duration::from_secs_f64), self.since.elapsed());
        Trial { name: self.name, upstream: self.upstream, result, first_byte, total }
    }
}

fn ids() -> Arc<CallIds> {
    Arc::new(CallIds { call_sid: CallIds::PROBE.to_owned(), ..CallIds::default() })
}

async fn try_stt(name: String, stt: &config::Stt) -> Trial {
    let mut trying = Trying::new(name, &stt.endpoint().upstream);
    if stt.is_streaming() {
        return hear(trying, stt).await;
    }
    let made = Stt::new(stt, &mut trying.pools).map_err(|unusable| trying.unusable(&unusable));
    let mut watch = trying.watch(Service::Stt);
    let answer = async move {
        let text = made?.transcribe(&ids(), &APOLOGY[..WORDS], &mut watch).await?;
        Ok(heard(&text))
    };
    trying.end(answer).await
}

async fn hear(mut trying: Trying, stt: &config::Stt) -> Trial {
    let made = Streaming::new(&[stt], LONGEST, &mut trying.pools);
    let made = made.map_err(|unusable| trying.unusable(&unusable));
    let tell = Arc::clone(&trying.tell);
    let answer = async move {
        let (to, mut inputs) = channel(8);
        let mut recogniser = Arc::new(made?).start(&ids(), to, tell);
        APOLOGY[..WORDS].chunks(160).for_each(|frame| recogniser.hear(frame));
        recogniser.finalize(1);
        while let Some(input) = inputs.recv().await {
            match *input {
                Input::Transcript { text, .. } => return Ok(heard(&text)),
                Input::Failed { failure, .. } => return Err(failure),
                _ => {}
            }
        }
        Ok(heard(""))
    };
    trying.end(answer).await
}

fn heard(text: &str) -> String {
    match text {
        "" => "understood nothing of \"Sorry, something\"".to_owned(),
        text => format!("understood {:?}", words(text.as_bytes())),
    }
}

async fn try_agent(name: String, agent: &config::Agent) -> Trial {
    let mut trying = Trying::new(name, &agent.endpoint().upstream);
    let made = Agent::new(agent, &mut trying.pools).map_err(|unusable| trying.unusable(&unusable));
    let mut watch = trying.watch(Service::Agent);
    let answer = async move {
        let made = made?;
        if let Agent::Relay(relay) = &made {
            relay.try_handshake().await?;
            watch.first_byte();
            return Ok("opened the WebSocket".to_owned());
        }
        let (to, inputs) = channel(8);
        let ids = ids();
        let conversation = Agent::converse(std::slice::from_ref(&made), &ids, &to);
        let question = Question {
            text: PING.to_owned(),
            deadline_ms: u64::try_from(LONGEST.as_millis()).unwrap_or(u64::MAX),
            ..Question::default()
        };
        conversation.asked(&question);
        // Its end of the channel goes with it, or the reader would wait for more.
        let asking = async move {
            let outlet = Outlet::new(&to, &ids, &watch);
            made.ask(&conversation, &ids, &question, &outlet, &mut watch).await
        };
        let (ended, said) = tokio::join!(asking, reply(inputs));
        match ended {
            Err(Ended::Failed(failure)) => Err(failure),
            Err(Ended::Unheard) | Ok(()) => Ok(said),
        }
    };
    trying.end(answer).await
}

async fn reply(mut inputs: Receiver<Posted>) -> String {
    let (mut text, mut does) = (String::new(), Action::None);
    while let Some(input) = inputs.recv().await {
        match *input {
            Input::ReplyText { text: more, .. } => text += &more,
            Input::ReplyEnd { action, .. } => does = action,
            _ => {}
        }
    }
    let text = match &*text {
        "" => "said nothing".to_owned(),
        text => format!("said {:?}", words(text.as_bytes())),
    };
    match does {
        Action::None => text,
        Action::Hangup => format!("{text} and would hang up"),
        Action::Transfer { .. } => format!("{text} and would transfer the call"),
        Action::SendDigits { .. } => format!("{text} and would send digits"),
        Action::Gather(_) => format!("{text} and would ask for digits"),
    }
}

async fn try_tts(name: String, tts: &config::Tts) -> Trial {
    let mut trying = Trying::new(name, &tts.endpoint().upstream);
    let made = Tts::new(tts, &mut trying.pools).map_err(|unusable| trying.unusable(&unusable));
    let mut watch = trying.watch(Service::Tts);
    let answer = async move {
        let (mulaw, kind) = made?.render(HELLO, &mut watch).await?;
        let kind = kind.map_or_else(|| "sound".to_owned(), |kind| kind.to_string());
        Ok(format!("spoke {} of {kind}", seconds(Duration::from_millis(mulaw.len() as u64 / 8))))
    };
    trying.end(answer).await
}

async fn relay(bot: &config::Endpoint, subprotocol: Option<&str>) -> Trial {
    let trying = Trying::new("bot".to_owned(), &bot.upstream);
    let made = Bot::new(bot, subprotocol).map_err(|unusable| trying.unusable(&unusable));
    let answer = async move {
        let mut socket = made?.connect(WebSocketConfig::default(), None).await?;
        let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
        Ok("opened the WebSocket".to_owned())
    };
    trying.end(answer).await
}

/// Only whether it lets us in: a session costs nothing until something is said in it.
async fn try_model(realtime: &config::Realtime) -> Trial {
    let mut trying = Trying::new("realtime".to_owned(), &realtime.endpoint.upstream);
    let tell = Arc::clone(&trying.tell);
    let made = Model::new(realtime, &mut trying.pools, tell).map_err(|unusable| trying.unusable(&unusable));
    let answer = async move {
        let mut link = Arc::new(made?).connect(WebSocketConfig::default(), None).await?;
        let _ = timeout(Duration::from_secs(1), link.ws.close(None)).await;
        link.watch.ok();
        Ok("opened the WebSocket".to_owned())
    };
    trying.end(answer).await
}

/// Only whether it can be reached: any request might do something.
async fn app(upstream: &Upstream) -> Trial {
    let trying = Trying::new("app".to_owned(), upstream);
    let limit = upstream.connect_timeout;
    let failure = |kind, why: String| Failure { upstream: upstream.name.clone(), kind, why };
    let answer = async move {
        for server in &upstream.servers {
            match timeout(limit, TcpStream::connect(server)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    let why = format!("the service: {server}: {error}: is it running?");
                    return Err(failure(FailureKind::Connect, why));
                }
                Err(_) => {
                    let why = format!("the network: {server}: no connection within {}", seconds(limit));
                    return Err(failure(FailureKind::Connect, why));
                }
            }
        }
        let servers = upstream.servers.len();
        Ok(if servers == 1 { "took a connection".to_owned() } else { format!("{servers} took a connection") })
    };
    trying.end(answer).await
}
