//! An agent that is a ConversationRelay app: voxgate plays Twilio's side of that protocol, so that an
//! app written for it runs unchanged. Each call has one socket, opened as the call starts; the app
//! may speak first.
//!
//! A socket that is lost fails the turn under way, and is opened again, with a new `setup`, for the
//! next one. Twilio would end the call there.

mod message;
mod socket;
mod talk;

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc::{Sender, channel};
use tokio::sync::oneshot;

use self::talk::Talk;
use super::super::health::Health;
use super::super::http::Unusable;
use super::super::observed::Watch;
use super::super::outlet::Outlet;
use super::super::{CallIds, Ended, Pools};
use crate::call::{Failure, Posted, Question, ReplyHeard};
use crate::config::RelayAgent;

/// What the call wants to tell an app that does not read: a few turns' worth.
const MOST_COMMANDS: usize = 32;

pub(in crate::upstream) struct Relay {
    config: RelayAgent,
    headers: HeaderMap,
    health: Arc<Health>,
}

/// One call's line to the app. The socket is closed once the last clone is dropped.
#[derive(Clone)]
pub(in crate::upstream) struct Line {
    commands: Sender<Command>,
}

/// What a call tells its socket.
enum Command {
    Ask(Question, Asking),
    Heard(ReplyHeard),
    Moved(Arc<CallIds>),
}

/// A turn whose reply is awaited.
struct Asking {
    turn: u64,
    /// Told when the first of the reply comes.
    first: Option<oneshot::Sender<()>>,
    /// Told how it ended; closed when nobody waits for it any more.
    done: oneshot::Sender<Result<(), Failure>>,
    since: Instant,
    /// Who waits this long for the first of it, in vain, has met an app that does not work.
    patience: Duration,
}

impl Relay {
    pub(super) fn new(config: &RelayAgent, pools: &mut Pools) -> Result<Self, Unusable> {
        // Fails if the program has chosen before: just as well.
        rustls::crypto::ring::default_provider().install_default().ok();
        let upstream = &config.endpoint.upstream;
        let unusable = |why: String| Unusable { upstream: upstream.name.clone(), why };
        if upstream.servers.is_empty() {
            return Err(unusable("no servers".to_owned()));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &config.endpoint.headers {
            let key = HeaderName::try_from(name)
                .map_err(|_| unusable(format!("{name:?} cannot be the name of a header")))?;
            let mut value = HeaderValue::try_from(&value.0)
                .map_err(|_| unusable(format!("the value of header {name} cannot be sent")))?;
            value.set_sensitive(true);
            headers.append(key, value);
        }
        Ok(Self { config: config.clone(), headers, health: pools.health(upstream) })
    }

    pub(super) fn upstream(&self) -> &str {
        &self.config.endpoint.upstream.name
    }

    /// Opens a socket, only to close it.
    pub(in crate::upstream) async fn try_handshake(&self) -> Result<(), Failure> {
        let (socket, _) = self.connect(None).await?;
        socket.close(1000, "").await;
        Ok(())
    }

    /// Opens a call's socket, in the background.
    pub(super) fn open(self: &Arc<Self>, ids: &Arc<CallIds>, to: &Sender<Posted>) -> Line {
        let (commands, told) = channel(MOST_COMMANDS);
        let talk = Talk::new(Arc::clone(self), Arc::clone(ids), to.clone());
        tokio::spawn(talk.run(told));
        Line { commands }
    }
}

impl Line {
    /// The reply goes to the call by itself; this waits until it has ended.
    pub(super) async fn ask(
        &self,
        question: &Question,
        to: &Outlet<'_>,
        watch: &mut Watch,
    ) -> Result<(), Ended> {
        let (first, came) = oneshot::channel();
        let (done, ended) = oneshot::channel();
        let (since, patience) = (Instant::now(), watch.patience());
        let asking = Asking { turn: question.turn, first: Some(first), done, since, patience };
        let command = Command::Ask(question.clone(), asking);
        self.commands.send(command).await.map_err(|_| Ended::Unheard)?;
        if came.await.is_ok() {
            to.commit();
            watch.first_byte();
        }
        match ended.await {
            Ok(Ok(())) => {
                watch.ok();
                Ok(())
            }
            Ok(Err(failure)) => Err(failure.into()),
            Err(_) => Err(Ended::Unheard),
        }
    }

    pub(super) fn heard(&self, ids: &CallIds, reply: ReplyHeard) {
        // Full is an app that does not read, and its socket is about to be given up.
        if self.commands.try_send(Command::Heard(reply)).is_err() {
            let CallIds { call_sid, stream_sid, .. } = ids;
            let why = "the app reads nothing of what it is told";
            tracing::warn!(call_sid, stream_sid, why, "AGENT_NOT_TOLD");
        }
    }

    /// The call goes on with another stream; an app that reads nothing has no more use for it.
    pub(super) fn moved(&self, ids: &Arc<CallIds>) {
        let _ = self.commands.try_send(Command::Moved(Arc::clone(ids)));
    }
}

#[cfg(test)]
mod tests;
