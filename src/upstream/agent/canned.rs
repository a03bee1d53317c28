//! An agent's answer without a server, a socket or a turn that it answers: what the fuzz targets read.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::channel;

use super::super::answer::Answer;
use super::super::observed::Watch;
use super::super::outlet::Outlet;
use super::super::{CallIds, Ended};
use super::history::SharedHistory;
use super::{LONGEST_REPLY, chat, webhook};
use crate::call::{Action, Failure, Input, Service};
use crate::config::Tool;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canned {
    Webhook,
    /// The app, asked by a model for a function.
    Function,
    Chat,
}

/// What is heard of an answer: its text, in the pieces in which it is spoken, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replied {
    pub pieces: Vec<String>,
    /// All that is to be done after it; one thing at most but for a model that calls several functions.
    pub end: Result<Vec<Action>, Failure>,
}

impl Canned {
    /// Reads a body that comes in these pieces. Fails where the type cannot be a header's value.
    pub async fn read(self, content_type: &str, pieces: Vec<Bytes>) -> Result<Replied, Box<dyn Error>> {
        let mut answer = Answer::canned(content_type, pieces)?;
        let watch = Watch::new(&(Arc::new(|_: &_| {}) as _), "canned", Service::Agent, Duration::MAX);
        // No piece is empty, and so there are never more.
        let (to, mut heard) = channel(LONGEST_REPLY + 1);
        let nobody = CallIds::default();
        let outlet = Outlet::new(&to, &nobody, &watch);
        let end = match self {
            Canned::Webhook | Canned::Function => {
                let read = webhook::read(answer, 1, self == Canned::Function, &outlet).await;
                read.map(|(_, action)| vec![action])
            }
            Canned::Chat => {
                let calls = chat::read(&mut answer, &SharedHistory::new(1), 1, &outlet).await;
                calls.map(|calls| {
                    let meant = calls.into_calls().map(|call| call.meaning(&Tool::ALL));
                    meant.filter_map(|meant| Some(meant.ok()?.0)).collect()
                })
            }
        };
        let end = match end {
            Ok(actions) => Ok(actions),
            Err(Ended::Failed(failure)) => Err(failure),
            Err(Ended::Unheard) => return Err("nobody has heard it".into()),
        };
        drop(to);
        let mut pieces = Vec::new();
        while let Some(input) = heard.recv().await {
            match *input {
                Input::ReplyText { text, .. } => pieces.push(text),
                other => return Err(format!("{other:?} is no text").into()),
            }
        }
        Ok(Replied { pieces, end })
    }
}
