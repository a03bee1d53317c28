//! The services as one call uses them: who it is, where the answers go, and what its agent keeps of
//! it. Jobs are futures that know all they need, so that a call may run or drop them as it likes.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::agent::{Agent, Conversation};
use super::observed::{Notice, Watch};
use super::outlet::Outlet;
use super::tts::Tts;
use super::{CallIds, Dialogue, Ended, Hearing, Services, no_service, tell};
use crate::call::{Input, Job, Posted, Question, ReplyHeard, Service};

/// What of a sentence from the cache goes to the call at once: a second.
const PIECE: usize = 8000;

/// The services of one call. When the last of its clones and jobs is dropped, so is what the agent
/// kept for it.
#[derive(Clone)]
pub struct CallServices {
    services: Services,
    ids: Arc<CallIds>,
    to: Sender<Posted>,
    /// `None` where calls have no dialogue.
    conversation: Option<Conversation>,
}

impl CallServices {
    pub(super) fn new(services: Services, ids: Arc<CallIds>, to: Sender<Posted>) -> Self {
        let conversation =
            services.dialogue.as_ref().map(|dialogue| Agent::converse(&dialogue.agents.all, &ids, &to));
        Self { services, ids, to, conversation }
    }

    /// The same services, for a call that comes back with another stream. What the agent kept stays.
    pub fn for_stream(self, ids: impl Into<Arc<CallIds>>) -> Self {
        let ids = ids.into();
        if let Some(conversation) = &self.conversation {
            conversation.moved(&ids);
        }
        Self { ids, ..self }
    }

    /// Has an utterance (μ-law) recognised: one `Transcript`, or `Failed`.
    pub fn transcribe(
        &self,
        utterance: u64,
        audio: Vec<u8>,
    ) -> impl Future<Output = ()> + Send + use<> + 'static {
        let call = self.clone();
        async move {
            let job = Job::Transcribe { utterance };
            let Some(dialogue) = call.services.dialogue.as_deref() else {
                return no_service(job, &call.to).await;
            };
            let Hearing::Utterances(recognisers) = &dialogue.hearing else {
                return no_service(job, &call.to).await;
            };
            for (stt, limit, next) in recognisers.in_turn() {
                let upstream = stt.wire.upstream();
                let mut watch = call.watch(dialogue, upstream, Service::Stt);
                let outlet = Outlet::new(&call.to, &call.ids, &watch);
                let answer = async {
                    let text = stt.transcribe(&call.ids, &audio, &mut watch).await?;
                    watch.ok();
                    outlet.tell(Input::Transcript { utterance, text }).await
                };
                let ended = outlet.first_within(limit, upstream, answer).await;
                let next = next.map(|stt| stt.wire.upstream());
                if call.is_over(job, ended, &outlet, watch, next).await {
                    return;
                }
            }
        }
    }

    /// Puts a turn to the agent: `ReplyText`…, then `ReplyEnd` or `Failed`. The question is known to
    /// have been asked from now on, even if the future never runs.
    pub fn ask(&self, question: Question) -> impl Future<Output = ()> + Send + use<> + 'static {
        if let Some(conversation) = &self.conversation {
            conversation.asked(&question);
        }
        let call = self.clone();
        async move {
            let job = Job::Ask { turn: question.turn };
            let (Some(dialogue), Some(conversation)) =
                (call.services.dialogue.as_deref(), &call.conversation)
            else {
                return no_service(job, &call.to).await;
            };
            for (agent, limit, next) in dialogue.agents.in_turn() {
                let mut watch = call.watch(dialogue, agent.upstream(), Service::Agent).within(limit);
                let outlet = Outlet::new(&call.to, &call.ids, &watch);
                let answer = agent.ask(conversation, &call.ids, &question, &outlet, &mut watch);
                let ended = outlet.first_within(limit, agent.upstream(), answer).await;
                if call.is_over(job, ended, &outlet, watch, next.map(Agent::upstream)).await {
                    return;
                }
            }
        }
    }

    /// Tells the agent what was heard of its reply.
    pub fn heard(&self, reply: ReplyHeard) {
        if let Some(conversation) = &self.conversation {
            conversation.heard(&self.ids, reply);
        }
    }

    /// Has a sentence spoken: `Speech`…, then `SpeechEnd` or `Failed`.
    pub fn say(&self, segment: u64, text: String) -> impl Future<Output = ()> + Send + use<> + 'static {
        let call = self.clone();
        async move {
            let job = Job::Say { segment };
            let Some(dialogue) = call.services.dialogue.as_deref() else {
                return no_service(job, &call.to).await;
            };
            let text = text.as_str();
            for (voice, (tts, limit, next)) in dialogue.voices.in_turn().enumerate() {
                let kept = dialogue.cache.get(voice, text);
                if dialogue.cache.is_on() {
                    (call.services.tell)(&Notice::Cache { hit: kept.is_some() });
                }
                if let Some(audio) = kept {
                    return call.play(segment, audio).await;
                }
                let mut watch = call.watch(dialogue, tts.upstream(), Service::Tts);
                let outlet = Outlet::new(&call.to, &call.ids, &watch);
                let answer = async {
                    let mut recording = dialogue.cache.record(voice, text);
                    let mut speech = tts.say(Some(&call.ids), text, &mut watch).await?;
                    while let Some(mulaw) = speech.next().await? {
                        recording.push(&mulaw);
                        outlet.tell(Input::Speech { segment, audio: Bytes::from(mulaw) }).await?;
                    }
                    watch.ok();
                    recording.keep();
                    outlet.tell(Input::SpeechEnd { segment }).await
                };
                let ended = outlet.first_within(limit, tts.upstream(), answer).await;
                if call.is_over(job, ended, &outlet, watch, next.map(Tts::upstream)).await {
                    return;
                }
            }
        }
    }

    async fn play(&self, segment: u64, mut audio: Bytes) {
        while !audio.is_empty() {
            let audio = audio.split_to(audio.len().min(PIECE));
            if tell(&self.to, Input::Speech { segment, audio }).await.is_err() {
                return;
            }
        }
        let _ = tell(&self.to, Input::SpeechEnd { segment }).await;
    }

    fn watch(&self, dialogue: &Dialogue, upstream: &str, service: Service) -> Watch {
        let watch = Watch::new(&self.services.tell, upstream, service, dialogue.patience);
        watch.in_trace(self.ids.trace.as_ref())
    }

    /// Is the job over? Not if it has failed before anything of it was used, and there is another to
    /// ask.
    async fn is_over(
        &self,
        job: Job,
        ended: Result<(), Ended>,
        outlet: &Outlet<'_>,
        mut watch: Watch,
        next: Option<&str>,
    ) -> bool {
        let Err(Ended::Failed(failure)) = ended else { return true };
        watch.failed(&failure);
        // Told before the channel is waited for: the request itself is over.
        drop(watch);
        match next {
            Some(next) if !outlet.is_used() => {
                self.services.fell_back(&self.ids, job.service(), &failure, next);
                false
            }
            Some(_) | None => {
                let _ = tell(&self.to, Input::Failed { job, failure }).await;
                true
            }
        }
    }
}
