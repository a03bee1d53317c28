//! The services as one call uses them: who it is, where the answers go, and what its agent keeps of
//! it. Jobs are futures that know all they need, so that a call may run or drop them as it likes.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::agent::Conversation;
use super::observed::Watch;
use super::{CallIds, Dialogue, Ended, Hearing, Services, conclude, no_service, tell};
use crate::call::{Input, Job, Question, ReplyHeard, Service};

/// The services of one call. When the last of its clones and jobs is dropped, so is what the agent
/// kept for it.
#[derive(Clone)]
pub struct CallServices {
    services: Services,
    ids: Arc<CallIds>,
    to: Sender<Input<'static>>,
    /// `None` where calls have no dialogue.
    conversation: Option<Conversation>,
}

impl CallServices {
    pub(super) fn new(services: Services, ids: Arc<CallIds>, to: Sender<Input<'static>>) -> Self {
        let conversation = services.dialogue.as_ref().map(|dialogue| dialogue.agent.converse(&ids, &to));
        Self { services, ids, to, conversation }
    }

    /// The same services, for a call that comes back with another stream. What the agent kept stays.
    pub fn for_stream(self, ids: impl Into<Arc<CallIds>>) -> Self {
        Self { ids: ids.into(), ..self }
    }

    /// Has an utterance (μ-law) recognised: one `Transcript`, or `Failed`.
    pub fn transcribe(
        &self,
        utterance: u64,
        audio: Vec<u8>,
    ) -> impl Future<Output = ()> + Send + use<> + 'static {
        let Self { services, ids, to, .. } = self.clone();
        async move {
            let job = Job::Transcribe { utterance };
            let Some(Dialogue { hearing: Hearing::Utterances(stt), .. }) = services.dialogue.as_deref()
            else {
                return no_service(job, &to).await;
            };
            let mut watch = Watch::new(&services.on_done, stt.wire.upstream(), Service::Stt);
            let ended = async {
                let text = stt.transcribe(&ids, audio, &mut watch).await?;
                watch.ok();
                tell(&to, Input::Transcript { utterance, text }).await
            };
            let ended = ended.await;
            conclude(job, ended, watch, &to).await;
        }
    }

    /// Puts a turn to the agent: `ReplyText`…, then `ReplyEnd` or `Failed`. The question is known to
    /// have been asked from now on, even if the future never runs.
    pub fn ask(&self, question: Question) -> impl Future<Output = ()> + Send + use<> + 'static {
        if let Some(conversation) = &self.conversation {
            conversation.asked(&question);
        }
        let Self { services, ids, to, conversation } = self.clone();
        async move {
            let job = Job::Ask { turn: question.turn };
            let (Some(Dialogue { agent, .. }), Some(conversation)) =
                (services.dialogue.as_deref(), conversation)
            else {
                return no_service(job, &to).await;
            };
            let mut watch = Watch::new(&services.on_done, agent.upstream(), Service::Agent);
            let ended = agent.ask(&conversation, &ids, &question, &to, &mut watch).await;
            conclude(job, ended, watch, &to).await;
        }
    }

    /// Tells the agent what was heard of its reply.
    pub fn heard(&self, reply: ReplyHeard) {
        if let Some(conversation) = &self.conversation {
            conversation.heard(reply);
        }
    }

    /// Has a sentence spoken: `Speech`…, then `SpeechEnd` or `Failed`.
    pub fn say(&self, segment: u64, text: String) -> impl Future<Output = ()> + Send + use<> + 'static {
        let Self { services, ids, to, .. } = self.clone();
        async move {
            let job = Job::Say { segment };
            let Some(Dialogue { tts, .. }) = services.dialogue.as_deref() else {
                return no_service(job, &to).await;
            };
            let mut watch = Watch::new(&services.on_done, tts.wire.upstream(), Service::Tts);
            let ended: Result<(), Ended> = async {
                let mut speech = tts.say(Some(&ids), &text, &mut watch).await?;
                while let Some(mulaw) = speech.next().await? {
                    tell(&to, Input::Speech { segment, audio: Bytes::from(mulaw) }).await?;
                }
                watch.ok();
                tell(&to, Input::SpeechEnd { segment }).await
            }
            .await;
            conclude(job, ended, watch, &to).await;
        }
    }
}
