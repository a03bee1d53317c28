//! The agents, by kind. An agent serves all calls; what it keeps for one of them, a history or a
//! socket, is that call's [`Conversation`] with it.

mod actions;
mod canned;
mod chat;
mod history;
mod relay;
pub(super) mod tools;
pub(super) mod webhook;

use std::sync::Arc;

use tokio::sync::mpsc::Sender;

pub use self::canned::{Canned, Replied};

use self::chat::Chat;
use self::history::SharedHistory;
use self::relay::{Line, Relay};
use self::webhook::Webhook;
use super::http::Unusable;
use super::observed::Watch;
use super::outlet::Outlet;
use super::{CallIds, Ended, Pools};
use crate::call::{Posted, Question, ReplyHeard};
use crate::config;

/// The most text of one reply, and the longest body of a reply that is not streamed: hours of speech.
const LONGEST_REPLY: usize = 256 * 1024;

pub(super) enum Agent {
    Webhook(Webhook),
    Chat(Arc<Chat>),
    Relay(Arc<Relay>),
}

/// What is between one call and its agents: nothing, where every question says all there is to know.
#[derive(Clone, Default)]
pub(super) struct Conversation {
    /// Of all models in the list: who stands in for another knows what was said.
    history: Option<SharedHistory>,
    line: Option<Line>,
}

impl Agent {
    pub(super) fn new(agent: &config::Agent, pools: &mut Pools) -> Result<Agent, Unusable> {
        Ok(match agent {
            config::Agent::Webhook { endpoint } => Agent::Webhook(Webhook { wire: pools.wire(endpoint)? }),
            config::Agent::OpenAi(chat) => Agent::Chat(Arc::new(Chat::new(chat, pools)?)),
            config::Agent::ConversationRelay(relay) => Agent::Relay(Arc::new(Relay::new(relay, pools)?)),
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
    pub(super) fn converse(agents: &[Agent], ids: &Arc<CallIds>, to: &Sender<Posted>) -> Conversation {
        let turns = agents.iter().filter_map(|agent| match agent {
            Agent::Chat(chat) => Some(chat.history_turns()),
            Agent::Webhook(_) | Agent::Relay(_) => None,
        });
        let line = agents.iter().find_map(|agent| match agent {
            Agent::Relay(relay) => Some(relay.open(ids, to)),
            Agent::Webhook(_) | Agent::Chat(_) => None,
        });
        Conversation { history: turns.max().map(SharedHistory::new), line }
    }

    /// Puts a turn: sends the reply as it comes, up to and with its end.
    pub(super) async fn ask(
        &self,
        conversation: &Conversation,
        ids: &CallIds,
        question: &Question,
        to: &Outlet<'_>,
        watch: &mut Watch,
    ) -> Result<(), Ended> {
        match (self, conversation) {
            (Agent::Chat(chat), Conversation { history: Some(history), .. }) => {
                chat.ask(history, question, to, watch).await
            }
            (Agent::Relay(_), Conversation { line: Some(line), .. }) => line.ask(question, to, watch).await,
            (Agent::Webhook(webhook), _) => webhook.ask(ids, question, to, watch).await,
            // A conversation is always made by the agents that it is with.
            (Agent::Chat(_) | Agent::Relay(_), _) => Err(Ended::Unheard),
        }
    }
}

impl Conversation {
    /// The call goes on with another stream.
    pub(super) fn moved(&self, ids: &Arc<CallIds>) {
        if let Some(line) = &self.line {
            line.moved(ids);
        }
    }

    /// A question is about to be asked, whatever becomes of the request.
    pub(super) fn asked(&self, question: &Question) {
        if let Some(history) = &self.history {
            history.lock().asked(question);
        }
    }

    pub(super) fn heard(&self, ids: &CallIds, reply: ReplyHeard) {
        if let Some(line) = &self.line {
            line.heard(ids, reply.clone());
        }
        if let Some(history) = &self.history {
            history.lock().heard(reply);
        }
    }
}
