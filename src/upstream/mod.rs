//! The wires of the services that a dialogue needs: speech-to-text, the agent, text-to-speech. One
//! job is one future that asks one service and sends what comes back as [`Input`]s to the loop of
//! the call: its end, or exactly one [`Input::Failed`]. Dropping the future ends the request. Where a
//! service has failed before any of its answer was used, the next of its list is asked in the same job.
//!
//! What the caller hears of a failure is not decided here. Every wait and every size has a bound;
//! the channel is the back-pressure: while it is full, the service is not read.

mod agent;
mod answer;
mod bot;
mod cache;
mod call;
mod carrier;
#[cfg(test)]
mod chaos;
mod deepgram;
mod elevenlabs;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod faults;
mod health;
mod http;
mod lines;
mod multipart;
mod observed;
mod openai;
mod outlet;
mod owner;
mod quote;
mod realtime;
#[cfg(test)]
mod stand_in;
mod stream;
mod stt;
mod trial;
mod tts;
mod vendor;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

#[doc(hidden)]
pub use self::agent::{Canned, Replied};
pub(crate) use self::answer::root_cause;
pub use self::bot::{Bot, BotStream};
pub use self::call::CallServices;
pub use self::carrier::Carrier;
pub use self::http::Unusable;
pub use self::observed::{Notice, Observation, Watch};
pub use self::quote::{quote, tell_words};
pub use self::realtime::{Limit, Model, ModelLink, ModelReader, Read};
pub use self::stream::Recogniser;
pub use self::trial::{Trial, try_all};

use self::agent::Agent;
use self::cache::Cache;
use self::health::Health;
use self::http::{Pool, Wire};
use self::observed::Tell;
use self::stream::Streaming;
use self::stt::Stt;
use self::tts::Tts;
use crate::call::{Failure, FailureKind, Input, Job, Posted, Service, Trace};
use crate::config::{self, Endpoint};

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
    /// `None` where calls are not traced.
    pub trace: Option<Trace>,
}

impl CallIds {
    /// What goes by this name is no call: somebody tries whether the services answer.
    pub const PROBE: &str = "probe";
}

/// The services of a dialogue, as configured. Clones share their connections and bounds.
#[derive(Clone)]
pub struct Services {
    /// `None` where calls have no dialogue (`mode = "echo"`): every job then fails.
    dialogue: Option<Arc<Dialogue>>,
    /// Who conducts the calls, where a model does.
    model: Option<Arc<Model>>,
    tell: Tell,
    /// Others have taken their place, and say how the servers are.
    are_retired: Arc<Mutex<bool>>,
}

struct Dialogue {
    hearing: Hearing,
    agents: Chain<Agent>,
    voices: Chain<Tts>,
    /// Of what each of the voices has said.
    cache: Cache,
    /// Who waits this long in vain has met a server that does not work.
    patience: Duration,
    healths: Vec<Arc<Health>>,
}

/// A service, and those that stand in for it, in their order: never empty.
struct Chain<S> {
    all: Vec<S>,
    /// How long one has, until something of use has come, where there is another.
    after: Duration,
}

impl<S> Chain<S> {
    fn new<C>(
        first: &C,
        others: &[C],
        after: Duration,
        make: impl FnMut(&C) -> Result<S, Unusable>,
    ) -> Result<Self, Unusable> {
        let all = std::iter::once(first).chain(others).map(make).collect::<Result<_, _>>()?;
        Ok(Chain { all, after })
    }

    fn first(&self) -> Option<&S> {
        self.all.first()
    }

    /// Each, how long it has, and who comes next.
    fn in_turn(&self) -> impl Iterator<Item = (&S, Option<Duration>, Option<&S>)> {
        self.all.iter().enumerate().map(|(n, service)| {
            let next = self.all.get(n + 1);
            (service, next.map(|_| self.after), next)
        })
    }
}

/// How the caller's words are recognised.
enum Hearing {
    /// Each utterance is a request.
    Utterances(Chain<Stt>),
    /// The whole call is heard as it is said.
    Stream(Arc<Streaming>),
}

impl Hearing {
    fn upstream(&self) -> &str {
        match self {
            Hearing::Utterances(chain) => chain.first().map_or("", |stt| stt.wire.upstream()),
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
    /// Connects nowhere yet. `tell` is called at the end of every request, also of a dropped one, on
    /// whatever thread it ended, and when something changes: it must be quick.
    pub fn new(
        dialogue: &config::Dialogue,
        tell: impl Fn(&Notice) + Send + Sync + 'static,
    ) -> Result<Self, Unusable> {
        let are_retired = Arc::new(Mutex::new(false));
        let tell: Tell = Arc::new(unless(Arc::clone(&are_retired), tell));
        let config::Dialogue { fallbacks, speech_cache, reply_deadline, .. } = dialogue;
        let model = match &dialogue.mode {
            config::Mode::Realtime(realtime) => {
                Some(Arc::new(Model::new(realtime, &mut Pools::new(&tell), Arc::clone(&tell))?))
            }
            config::Mode::Echo | config::Mode::Relay { .. } | config::Mode::Dialogue { .. } => None,
        };
        let dialogue = match &dialogue.mode {
            config::Mode::Echo | config::Mode::Relay { .. } | config::Mode::Realtime(_) => None,
            config::Mode::Dialogue { stt, agent, tts } => {
                let mut pools = Pools::new(&tell);
                let hearing = match stt.is_streaming() {
                    true => {
                        let all: Vec<_> = std::iter::once(stt).chain(&fallbacks.stt).collect();
                        Hearing::Stream(Arc::new(Streaming::new(&all, fallbacks.stt_after, &mut pools)?))
                    }
                    false => {
                        Hearing::Utterances(Chain::new(stt, &fallbacks.stt, fallbacks.stt_after, |stt| {
                            Stt::new(stt, &mut pools)
                        })?)
                    }
                };
                let agents = Chain::new(agent, &fallbacks.agent, fallbacks.agent_after, |agent| {
                    Agent::new(agent, &mut pools)
                })?;
                let voices =
                    Chain::new(tts, &fallbacks.tts, fallbacks.tts_after, |tts| Tts::new(tts, &mut pools))?;
                let (cache, patience) = (Cache::new(*speech_cache), *reply_deadline / 2);
                let healths = pools.healths;
                Some(Arc::new(Dialogue { hearing, agents, voices, cache, patience, healths }))
            }
        };
        Ok(Self { dialogue, model, tell, are_retired })
    }

    /// Calls that have begun with them end with them; how their servers are is not told any more.
    pub fn retire(&self) {
        *self.are_retired.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Who conducts the calls, where a model does.
    pub fn model(&self) -> Option<&Arc<Model>> {
        self.model.as_ref()
    }

    /// Looks at the servers of all services now and then, for as long as it is polled.
    pub async fn probe(&self) {
        let healths = self.dialogue.iter().flat_map(|dialogue| &dialogue.healths);
        futures_util::future::join_all(healths.map(|health| Arc::clone(health).probe())).await;
    }

    /// Begins to listen to a call, if the recogniser is one that hears all of it: `Partial`s and
    /// `SpeechFinal`s as they come, and an answer to each `finalize`. Each connection is observed as
    /// one request, which is `ok` if it lasted until it was not needed any more. So much of what it says may wait.
    pub fn recognise(&self, ids: &Arc<CallIds>, room: usize) -> Option<(Recogniser, Receiver<Posted>)> {
        match &self.dialogue.as_deref()?.hearing {
            Hearing::Utterances(_) => None,
            Hearing::Stream(streaming) => {
                let (to, words) = channel(room);
                Some((Arc::clone(streaming).start(ids, to, Arc::clone(&self.tell)), words))
            }
        }
    }

    /// Who does this service, as the operator named it; empty in calls without a dialogue.
    pub fn upstream(&self, service: Service) -> &str {
        self.dialogue.as_deref().map_or("", |dialogue| match service {
            Service::Stt => dialogue.hearing.upstream(),
            Service::Agent => dialogue.agents.first().map_or("", Agent::upstream),
            Service::Tts => dialogue.voices.first().map_or("", Tts::upstream),
            // No service of a dialogue's.
            Service::Carrier => "",
        })
    }

    /// The services as a call with these ids uses them; what they answer goes `to` the call.
    pub fn for_call(&self, ids: impl Into<Arc<CallIds>>, to: Sender<Posted>) -> CallServices {
        CallServices::new(self.clone(), ids.into(), to)
    }

    /// Has a phrase spoken in advance, outside any call: its whole μ-law, and whether it is in the first
    /// voice of the list. The `others` are asked if that does not work.
    pub async fn render(&self, text: &str, others: bool) -> Result<(Vec<u8>, bool), Failure> {
        let mut failed = not_configured(Service::Tts);
        let Some(dialogue) = self.dialogue.as_deref() else { return Err(failed) };
        let voices = if others { dialogue.voices.all.len() } else { 1 };
        for (number, tts) in dialogue.voices.all.iter().take(voices).enumerate() {
            let mut watch = Watch::new(&self.tell, tts.upstream(), Service::Tts, PHRASE_TIME);
            let phrase = timeout(PHRASE_TIME, tts.render(text, &mut watch)).await.unwrap_or_else(|_| {
                let why =
                    format!("the service: a phrase was not complete within {}", answer::seconds(PHRASE_TIME));
                let upstream = tts.upstream().to_owned();
                Err(Failure { upstream, kind: FailureKind::Timeout, why })
            });
            match phrase {
                Ok((phrase, _)) => {
                    watch.ok();
                    return Ok((phrase, number == 0));
                }
                Err(failure) => {
                    watch.failed(&failure);
                    // The first in the list is the one to mend.
                    failed = if number == 0 { failure } else { failed };
                }
            }
        }
        Err(failed)
    }

    /// A service has failed, and the next is asked instead.
    fn fell_back(&self, ids: &CallIds, service: Service, failure: &Failure, to: &str) {
        let Failure { upstream, kind, why } = failure;
        let CallIds { call_sid, stream_sid, .. } = ids;
        let (service_name, kind) = (service.as_str(), kind.as_str());
        tracing::warn!(
            call_sid,
            stream_sid,
            service = service_name,
            from = upstream,
            to,
            kind,
            why,
            "FALLBACK"
        );
        (self.tell)(&Notice::FellBack { service });
    }
}

/// Tells, but not how servers are once that is somebody else's to say.
fn unless(retired: Arc<Mutex<bool>>, tell: impl Fn(&Notice)) -> impl Fn(&Notice) {
    move |notice| match notice {
        Notice::Health { .. } => {
            // Held until it is told: nothing may come behind what the others say.
            let retired = retired.lock().unwrap_or_else(PoisonError::into_inner);
            if !*retired {
                tell(notice);
            }
        }
        Notice::Done(_) | Notice::FellBack { .. } | Notice::Cache { .. } => tell(notice),
    }
}

/// Endpoints on one upstream share its connections, its turns, its bound and its breakers.
struct Pools {
    tell: Tell,
    healths: Vec<Arc<Health>>,
    pools: Vec<Arc<Pool>>,
}

impl Pools {
    fn new(tell: &Tell) -> Pools {
        Pools { tell: Arc::clone(tell), healths: Vec::new(), pools: Vec::new() }
    }

    fn health(&mut self, upstream: &config::Upstream) -> Arc<Health> {
        let known = self.healths.iter().find(|health| health.upstream() == upstream).cloned();
        known.unwrap_or_else(|| {
            let health = Health::new(upstream, &self.tell);
            self.healths.push(Arc::clone(&health));
            health
        })
    }

    fn wire(&mut self, endpoint: &Endpoint) -> Result<Wire, Unusable> {
        let known = self.pools.iter().find(|pool| *pool.upstream() == endpoint.upstream).cloned();
        let pool = match known {
            Some(pool) => pool,
            None => {
                let pool = Arc::new(Pool::new(&self.health(&endpoint.upstream))?);
                self.pools.push(Arc::clone(&pool));
                pool
            }
        };
        Wire::new(endpoint, pool)
    }
}

async fn tell(to: &Sender<Posted>, input: Input<'static>) -> Result<(), Ended> {
    to.send(Box::new(input)).await.map_err(|_| Ended::Unheard)
}

async fn no_service(job: Job, to: &Sender<Posted>) {
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
            trace: None,
        })
    }
}
