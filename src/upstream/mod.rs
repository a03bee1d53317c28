//! The wires of the services that a dialogue needs: speech-to-text, the agent, text-to-speech. One
//! job is one future that asks one service and sends what comes back as [`Input`]s to the loop of
//! the call: its end, or exactly one [`Input::Failed`]. Dropping the future ends the request.
//!
//! What the caller hears of a failure is not decided here. Every wait and every size has a bound;
//! the channel is the back-pressure: while it is full, the service is not read.

mod agent;
mod answer;
mod bot;
mod call;
mod carrier;
mod deepgram;
mod elevenlabs;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod faults;
mod http;
mod lines;
mod multipart;
mod observed;
mod openai;
mod owner;
mod stream;
mod stt;
mod tts;
mod vendor;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

pub use self::bot::{Bot, BotStream};
pub use self::call::CallServices;
pub use self::carrier::Carrier;
pub use self::http::Unusable;
pub use self::observed::Observation;
pub use self::stream::Recogniser;

use self::agent::Agent;
use self::http::{Pool, Wire};
use self::observed::{OnDone, Watch};
use self::stream::Streaming;
use self::stt::Stt;
use self::tts::Tts;
use crate::audio::{FRAME_BYTES, level};
use crate::call::{Failure, FailureKind, Input, Job, SILENT_RMS, Service};
use crate::config::{self, Endpoint};

/// The most μ-law that a phrase rendered in advance may have: more than four minutes.
const LONGEST_PHRASE: usize = 2 * 1024 * 1024;

/// How long a phrase may take that is rendered in advance. A call has deadlines of its own; here a
/// service that trickles would hold up the start.
const PHRASE_TIME: Duration = Duration::from_secs(30);

/// How a call is known, to its carrier and to the app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallIds {
    pub call_sid: String,
    pub stream_sid: String,
    pub account_sid: String,
    /// The custom parameters of the stream.
    pub parameters: BTreeMap<String, String>,
}

/// The services of a dialogue, as configured. Clones share their connections and bounds.
#[derive(Clone)]
pub struct Services {
    /// `None` where calls have no dialogue (`mode = "echo"`): every job then fails.
    dialogue: Option<Arc<Dialogue>>,
    on_done: OnDone,
}

struct Dialogue {
    hearing: Hearing,
    agent: Agent,
    tts: Tts,
}

/// How the caller's words are recognised.
enum Hearing {
    /// Each utterance is a request.
    Utterances(Stt),
    /// The whole call is heard as it is said.
    Stream(Arc<Streaming>),
}

impl Hearing {
    fn upstream(&self) -> &str {
        match self {
            Hearing::Utterances(stt) => stt.wire.upstream(),
            Hearing::Stream(streaming) => streaming.upstream(),
        }
    }
}

/// A job ended before its answer was complete.
enum Ended {
    Failed(Failure),
    /// Nobody takes the answer any more.
    Unheard,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended::Failed(failure)
    }
}

impl Services {
    /// Connects nowhere yet. `on_done` is called at the end of every request, also of a dropped one,
    /// on whatever thread it ended: it must be quick.
    pub fn new(
        dialogue: &config::Dialogue,
        on_done: impl Fn(&Observation) + Send + Sync + 'static,
    ) -> Result<Self, Unusable> {
        let dialogue = match &dialogue.mode {
            config::Mode::Echo | config::Mode::Relay { .. } => None,
            config::Mode::Dialogue { stt, agent, tts } => {
                let mut pools = Pools::default();
                let hearing = match Streaming::new(stt)? {
                    Some(streaming) => Hearing::Stream(Arc::new(streaming)),
                    None => Hearing::Utterances(Stt::new(stt, &mut pools)?),
                };
                let agent = Agent::new(agent, &mut pools)?;
                let tts = Tts::new(tts, &mut pools)?;
                Some(Arc::new(Dialogue { hearing, agent, tts }))
            }
        };
        Ok(Self { dialogue, on_done: Arc::new(on_done) })
    }

    /// Begins to listen to a call, if the recogniser is one that hears all of it: `Partial`s and
    /// `SpeechFinal`s as they come, and an answer to each `finalize`. Each connection is observed as
    /// one request, which is `ok` if it lasted until it was not needed any more.
    pub fn recognise(&self, to: Sender<Input<'static>>) -> Option<Recogniser> {
        match &self.dialogue.as_deref()?.hearing {
            Hearing::Utterances(_) => None,
            Hearing::Stream(streaming) => Some(Arc::clone(streaming).start(to, Arc::clone(&self.on_done))),
        }
    }

    /// Who does this service, as the operator named it; empty in calls without a dialogue.
    pub fn upstream(&self, service: Service) -> &str {
        self.dialogue.as_deref().map_or("", |Dialogue { hearing, agent, tts }| match service {
            Service::Stt => hearing.upstream(),
            Service::Agent => agent.upstream(),
            Service::Tts => tts.wire.upstream(),
            // No service of a dialogue's.
            Service::Carrier => "",
        })
    }

    /// The services as a call with these ids uses them; what they answer goes `to` the call.
    pub fn for_call(&self, ids: impl Into<Arc<CallIds>>, to: Sender<Input<'static>>) -> CallServices {
        CallServices::new(self.clone(), ids.into(), to)
    }

    /// Has a phrase spoken in advance, outside any call: its whole μ-law.
    pub async fn render(&self, text: &str) -> Result<Vec<u8>, Failure> {
        let Some(Dialogue { tts, .. }) = self.dialogue.as_deref() else {
            return Err(not_configured(Service::Tts));
        };
        let mut watch = Watch::new(&self.on_done, tts.wire.upstream(), Service::Tts);
        let phrase = async {
            let mut phrase = Vec::new();
            let mut speech = tts.say(None, text, &mut watch).await?;
            while let Some(mulaw) = speech.next().await? {
                if phrase.len() + mulaw.len() > LONGEST_PHRASE {
                    return Err(speech.too_long(LONGEST_PHRASE));
                }
                phrase.extend_from_slice(&mulaw);
            }
            // As a call judges it; an apology that is silence would be worse than the one shipped.
            if phrase.chunks(FRAME_BYTES).all(|frame| level::rms(frame) <= SILENT_RMS) {
                return Err(speech.silent());
            }
            Ok(phrase)
        };
        let phrase = timeout(PHRASE_TIME, phrase).await.unwrap_or_else(|_| {
            let why = format!("a phrase was not complete within {}", answer::seconds(PHRASE_TIME));
            let upstream = tts.wire.upstream().to_owned();
            Err(Failure { upstream, kind: FailureKind::Timeout, why })
        });
        match &phrase {
            Ok(_) => watch.ok(),
            Err(failure) => watch.failed(failure.kind),
        }
        phrase
    }
}

/// Endpoints on one upstream share its connections, its turns and its bound.
#[derive(Default)]
struct Pools(Vec<Arc<Pool>>);

impl Pools {
    fn wire(&mut self, endpoint: &Endpoint) -> Result<Wire, Unusable> {
        let known = self.0.iter().find(|pool| pool.is_for(&endpoint.upstream)).cloned();
        let pool = match known {
            Some(pool) => pool,
            None => {
                let pool = Arc::new(Pool::new(&endpoint.upstream)?);
                self.0.push(Arc::clone(&pool));
                pool
            }
        };
        Wire::new(endpoint, pool)
    }
}

async fn tell(to: &Sender<Input<'static>>, input: Input<'static>) -> Result<(), Ended> {
    to.send(input).await.map_err(|_| Ended::Unheard)
}

async fn conclude(job: Job, ended: Result<(), Ended>, mut watch: Watch, to: &Sender<Input<'static>>) {
    if let Err(Ended::Failed(failure)) = ended {
        watch.failed(failure.kind);
        // Told before the channel is waited for: the request itself is over.
        drop(watch);
        let _ = tell(to, Input::Failed { job, failure }).await;
    }
}

async fn no_service(job: Job, to: &Sender<Input<'static>>) {
    let failure = not_configured(job.service());
    let _ = tell(to, Input::Failed { job, failure }).await;
}

fn not_configured(service: Service) -> Failure {
    Failure {
        upstream: service.as_str().to_owned(),
        kind: FailureKind::Connect,
        why: format!("[dialogue] mode = \"echo\" has no {} service", service.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn ids() -> Arc<CallIds> {
        Arc::new(CallIds {
            call_sid: "CA1".to_owned(),
            stream_sid: "MZ1".to_owned(),
            account_sid: "AC1".to_owned(),
            parameters: BTreeMap::from([("call_sid".to_owned(), "CA1".to_owned())]),
        })
    }
}
