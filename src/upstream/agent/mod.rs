//! The agents, by kind. An agent serves all calls; what it keeps for one of them, a history or a
//! socket, is that call's [`Conversation`] with it.

mod actions;
mod chat;
mod history;
mod relay;
mod tools;
mod webhook;

use std::sync::Arc;

use tokio::sync::mpsc::Sender;

use self::chat::Chat;
use self::history::SharedHistory;
use self::relay::{Line, Relay};
use self::webhook::Webhook;
use super::http::Unusable;
use super::observed::Watch;
use super::{CallIds, Ended, Pools};
use crate::call::{Input, Question, ReplyHeard};
use crate::config;

/// The most text of one reply, and the longest body of a reply that is not streamed: hours of speech.
const LONGEST_REPLY: usize = 256 * 1024;

pub(super) enum Agent {
    Webhook(Webhook),
    Chat(Arc<Chat>),
    Relay(Arc<Relay>),
}

/// What is between one call and its agent.
#[derive(Clone)]
pub(super) enum Conversation {
    /// Every question says all there is to know.
    Nothing,
    History(SharedHistory),
    Line(Line),
}

impl Agent {
    pub(super) fn new(agent: &config::Agent, pools: &mut Pools) -> Result<Agent, Unusable> {
        Ok(match agent {
            config::Agent::Webhook { endpoint } => Agent::Webhook(Webhook { wire: pools.wire(endpoint)? }),
            config::Agent::OpenAi(chat) => Agent::Chat(Arc::new(Chat::new(chat, pools)?)),
            config::Agent::ConversationRelay(relay) => Agent::Relay(Arc::new(Relay::new(relay)?)),
        })
    }

    pub(super) fn upstream(&self) -> &str {
        match self {
            Agent::Webhook(webhook) => webhook.wire.upstream(),
            Agent::Chat(chat) => chat.upstream(),
            Agent::Relay(relay) => relay.upstream(),
        }
    }

    /// A call begins. What it says unasked goes `to` the call.
    pub(super) fn converse(&self, ids: &Arc<CallIds>, to: &Sender<Input<'static>>) -> Conversation {
        match self {
            Agent::Webhook(_) => Conversation::Nothing,
            Agent::Chat(chat) => Conversation::History(chat.history()),
            Agent::Relay(relay) => Conversation::Line(relay.open(ids, to)),
        }
    }

    /// Puts a turn: sends the reply as it comes, up to and with its end.
    pub(super) async fn ask(
        &self,
        conversation: &Conversation,
        ids: &CallIds,
        question: &Question,
        to: &Sender<Input<'static>>,
        watch: &mut Watch,
    ) -> Result<(), Ended> {
        match (self, conversation) {
            (Agent::Chat(chat), Conversation::History(history)) => {
                chat.ask(history, question, to, watch).await
            }
            (Agent::Relay(_), Conversation::Line(line)) => line.ask(question, watch).await,
            (Agent::Webhook(webhook), _) => webhook.ask(ids, question, to, watch).await,
            // A conversation is always made by the agent that it is with.
            (Agent::Chat(_) | Agent::Relay(_), _) => Err(Ended::Unheard),
        }
    }
}

impl Conversation {
    /// A question is about to be asked, whatever becomes of the request.
    pub(super) fn asked(&self, question: &Question) {
        if let Conversation::History(history) = self {
            history.lock().asked(question);
        }
    }

    pub(super) fn heard(&self, reply: ReplyHeard) {
        match self {
            Conversation::Nothing => {}
            Conversation::History(history) => history.lock().heard(reply),
            Conversation::Line(line) => line.heard(reply),
        }
    }
}
