//! The handshakes at the media path: with the subprotocol offered, and without, as Twilio does it.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::DoctorArgs;
use super::http::{Client, Media};
use super::report::{Fault, Report};
use super::signer::Signer;
use super::target::Target;
use crate::cli::call::CallOptions;
use crate::cli::call::connect::{Connected, Refusal, connect};

const FOR_A_PONG: Duration = Duration::from_secs(3);

/// Where calls go.
pub(super) struct Line<'a> {
    pub(super) args: &'a DoctorArgs,
    pub(super) target: &'a Target,
    pub(super) signer: &'a Signer,
    pub(super) http: &'a Client,
    pub(super) media: Media,
}

impl Line<'_> {
    /// What the next connection needs. A path that is good once is asked for again.
    pub(super) async fn options(&mut self, subprotocol: Option<&str>) -> CallOptions {
        if self.media.once {
            let (args, mut unseen) = (self.args, Report::new(""));
            self.media = self
                .http
                .incoming_call(&args.incoming_call, &args.media, &args.stream_status, &mut unseen)
                .await;
        }
        CallOptions {
            subprotocol: subprotocol.map(str::to_owned),
            headers: self
                .args
                .header
                .iter()
                .cloned()
                .chain(self.signer.handshake(&self.media.path))
                .collect(),
            call_sid: Some(self.media.call_sid.clone()),
            parameters: self.media.parameters.clone(),
            ..CallOptions::new(self.target.ws(&self.media.path))
        }
    }

    /// Notes two handshakes and a ping; false where a call is not worth a try.
    pub(super) async fn handshakes(&mut self, report: &mut Report) -> bool {
        let name = self.args.subprotocol.clone();
        let options = self.options(Some(&name)).await;
        match connect(&options).await {
            Ok(Connected { socket, .. }) => {
                report.pass("handshake, offered", format!("101, and {name} comes back"));
                drop(socket);
            }
            Err(error) => refused("handshake, offered", &error, report),
        }
        let options = self.options(None).await;
        match connect(&options).await {
            Ok(Connected { socket, .. }) => {
                report.pass("handshake, plain", "101, and no subprotocol");
                ping(socket, report).await;
                true
            }
            Err(error) => {
                refused("handshake, plain", &error, report);
                report.skip("ping", "not tried: there is no handshake");
                false
            }
        }
    }
}

fn refused(check: &str, error: &anyhow::Error, report: &mut Report) {
    match error.downcast_ref::<Refusal>() {
        Some(Refusal { seen, code, cause, cure, .. }) => {
            report.fail(check, seen.as_str(), Fault::new(*cause, *cure).code(code));
        }
        None => {
            let fault = Fault::new("the media URL is malformed", "correct the TwiML, or --media").code(31923);
            report.fail(check, format!("{error:#}"), fault);
        }
    }
}

/// Whether a ping is answered, before any call has begun.
async fn ping<S>(mut socket: tokio_tungstenite::WebSocketStream<S>, report: &mut Report)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let begun = Instant::now();
    let answered = timeout(FOR_A_PONG, async {
        socket.send(Message::Ping("voxgate".into())).await.ok()?;
        while let Some(Ok(message)) = socket.next().await {
            if matches!(message, Message::Pong(_)) {
                return Some(begun.elapsed());
            }
        }
        None
    });
    match answered.await {
        Ok(Some(took)) => report.pass("ping", format!("answered in {} ms", took.as_millis())),
        Ok(None) => {
            let fault = Fault::new(
                "the server ends a connection that has not said `start` yet",
                "give Twilio 5 s for it",
            );
            report.fail("ping", "the connection ended", fault.code(31921));
        }
        Err(_) => {
            let fault = Fault::new(
                "the server does not read while it waits",
                "answer pings at once: something blocks the media path",
            );
            report.fail("ping", format!("no pong within {} s", FOR_A_PONG.as_secs()), fault.code(31924));
        }
    }
    _ = timeout(FOR_A_PONG, socket.close(None)).await;
}
