//! The dispatch: who answers a request is decided here, before anything can reach the app. What is
//! not the gateway's own goes to the app, streamed both ways.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use pingora::connectors::TransportConnector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::HttpPeer;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType, Result};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::acme;
use super::forwarded::{cookies, forged, forwarded};
use super::gateway::Gateway;
use super::handshake;
use super::head::refused;
use super::media;
use super::origin::{AtApp, Origin};
use super::outflow;
use super::patience::head_is_read;
use super::respond::{TEXT, XML, not_allowed, read_form, respond};
use super::signed::{self, Turned};
use super::silence::{Silence, was_too_long};
use super::spelling::Spelling;
use super::take_over::take_over;
use super::target;
use super::tunnel::{self, Tunnel};
use super::voice::{self, Passing};
use crate::observe::{EVERY_REQUEST, Route, TwimlFallback};
use crate::twilio::{StreamStatus, codes};
use crate::upstream::quote;

/// A body may be slow for so long.
const SLOW_START: Duration = Duration::from_secs(20);
/// Twilio waits 15 s for a voice webhook; the caller is to hear something before it gives up.
const FOR_TWIML: Duration = Duration::from_secs(12);

/// Why a request is not forwarded.
const TOO_MANY: &str = "[upstreams.app] max_in_flight requests are under way";
/// Why the app has no whole one.
const TOO_SLOW: &str = "the body comes too slowly";

/// A client that has left before it was answered, as nginx calls it: that is no failure of the app.
const CLIENT_CLOSED: u16 = 499;

const REQUEST_ID_NAME: &str = "x-request-id";
const REQUEST_ID: HeaderName = HeaderName::from_static(REQUEST_ID_NAME);
const DEPLOY_ID: HeaderName = HeaderName::from_static("x-deploy-id");

pub(super) struct Proxy {
    pub(super) gateway: Arc<Gateway>,
    app: Origin,
    /// For tunnels, which are no requests of Pingora's.
    connector: TransportConnector,
}

/// What is known of a request while it is answered.
pub(super) struct Context {
    route: Route,
    started: Instant,
    request_id: HeaderValue,
    /// The app server that was tried last.
    server: Option<SocketAddr>,
    /// How many were tried.
    attempts: usize,
    /// While the app has it.
    at_app: Option<AtApp>,
    /// How long the app may be silent, where one time-out does not do.
    silence: Option<Silence>,
    /// Bytes of its body so far, and whether they are all that the app waits for.
    body: u64,
    is_whole: bool,
    /// What the app answers to a voice webhook.
    passing: Option<Passing>,
    /// The app's 5xx that the caller is not to hear.
    app_status: Option<u16>,
}

impl Proxy {
    /// In the place of another, if there is one.
    pub(super) fn new(gateway: Arc<Gateway>, before: Option<&Proxy>) -> Proxy {
        let (metrics, at_app) = (gateway.metrics.clone(), gateway.at_app.clone());
        let app = Origin::new(&gateway.config.app, metrics, at_app, before.map(|before| &before.app));
        Proxy { gateway, app, connector: TransportConnector::new(None) }
    }

    /// Finds the app's servers again where they go.
    pub(super) async fn follow_names(&self) {
        self.app.follow_names().await;
    }

    pub(super) fn knows_no_server(&self) -> bool {
        self.app.next(None).is_none()
    }

    /// From now on it says how the app is, and that one no more.
    pub(super) fn takes_over_from(&self, before: &Proxy) {
        self.app.takes_over_from(&before.app);
    }

    fn route(&self, request: &RequestHeader) -> Route {
        let paths = &self.gateway.paths;
        let path = request.uri.path();
        let spelling = Spelling::of(path);
        if spelling.means(&paths.media) || self.gateway.tokens.are_below(&paths.media, &spelling) {
            Route::Media
        } else if path == "/healthz" {
            Route::Healthz
        } else if path == "/version" {
            Route::Version
        } else if spelling.means(&paths.stream_status) {
            Route::StreamStatus
        } else if voice::is_voice(paths, &spelling) {
            Route::Voice
        } else if handshake::asks_for_websocket(&request.method, request.version, &request.headers) {
            Route::AppUpgrade
        } else {
            Route::App
        }
    }

    // ---- answered here ----------------------------------------------------------------------------

    async fn stream_status(&self, session: &mut Session) -> Result<()> {
        // What has come is told, and the answer is the same, were it all or not.
        let status = StreamStatus::read(&read_form(session, &self.gateway).await?.text);
        let known = ["stream-started", "stream-stopped", "stream-error"];
        let known = known.into_iter().find(|known| *known == status.event);
        let event = known.unwrap_or("other");
        self.gateway.metrics.stream_status.with_label_values(&[event]).inc();
        // Twilio's own words about its stream, with nothing of the caller's.
        let StreamStatus { call_sid, stream_sid, error, .. } = &status;
        let event = known.map_or_else(|| quote(status.event.as_bytes()), str::to_owned);
        match status.code().and_then(codes::explain) {
            Some(known) => {
                let (code, meaning, look_at) = (known.code, known.meaning, known.look_at);
                warn!(call_sid, stream_sid, event, error, code, meaning, look_at, "STREAM_STATUS");
            }
            None if !error.is_empty() => warn!(call_sid, stream_sid, event, error, "STREAM_STATUS"),
            None => info!(call_sid, stream_sid, event, "STREAM_STATUS"),
        }
        let mut response = ResponseHeader::build(StatusCode::NO_CONTENT, Some(1))?;
        response.insert_header(DEPLOY_ID, &self.gateway.config.server.deploy_id)?;
        session.write_response_header(Box::new(response), true).await.map_err(Error::into_down)
    }

    async fn version(&self, session: &mut Session) -> Result<()> {
        let deploy_id = self.gateway.config.server.deploy_id.as_str();
        let body = serde_json::json!({
            "deploy_id": deploy_id, "version": crate::VERSION, "commit": crate::COMMIT,
        });
        let deploy = [(DEPLOY_ID, deploy_id)];
        respond(session, StatusCode::OK, "application/json", format!("{body}\n"), &deploy).await
    }

    // ---- the app's --------------------------------------------------------------------------------

    fn app_peer(&self, ctx: &mut Context) -> Result<HttpPeer> {
        let app = &self.gateway.config.app;
        if ctx.at_app.is_none() {
            ctx.at_app = self.app.asked();
            if ctx.at_app.is_none() {
                return Error::e_explain(ErrorType::HTTPStatus(503), TOO_MANY);
            }
        }
        let Some(server) = self.app.next(ctx.server) else {
            return Error::e_explain(ErrorType::ConnectNoRoute, "no server's address is known");
        };
        ctx.server = Some(server);
        ctx.attempts += 1;
        // Asked for by TLS only.
        let host = app.servers.first().filter(|_| app.tls).and_then(|server| server.rsplit_once(':'));
        let name = host.map_or("", |(host, _)| host);
        let mut peer = HttpPeer::new(server, app.tls, name.to_owned());
        peer.options.connection_timeout = Some(app.connect_timeout);
        peer.options.total_connection_timeout = Some(app.connect_timeout);
        // Where the two differ, `Silence` holds the app to the shorter one.
        peer.options.read_timeout = Some(app.first_byte_timeout.max(app.stall_timeout));
        peer.options.write_timeout = Some(app.stall_timeout);
        peer.options.idle_timeout = Some(app.idle_timeout);
        Ok(peer)
    }

    /// What the app is told about a request.
    fn told(&self, session: &Session, ctx: &Context) -> impl Iterator<Item = (&'static str, HeaderValue)> {
        forwarded(session, &self.gateway).chain([(REQUEST_ID_NAME, ctx.request_id.clone())])
    }

    /// Another WebSocket of the app's: joined to the app as it is.
    async fn app_upgrade(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        let mut app = loop {
            let mut peer = self.app_peer(ctx)?;
            // It may be silent for hours.
            peer.options.tcp_keepalive = Some(tunnel::keepalive());
            match self.connector.new_stream(&peer).await {
                Ok(app) => break app,
                Err(_) if self.is_worth_another(ctx) => {}
                Err(error) => return Err(error.into_up()),
            }
        };
        let forged = forged(session, &self.gateway);
        let head = tunnel::head(session.req_header(), &forged, self.told(session, ctx));
        let limit = self.gateway.config.app.first_byte_timeout;
        let answer = match timeout(limit, tunnel::ask(&mut app, &head)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let failed = Error::because(ErrorType::ReadError, "asking the app to upgrade", error);
                return Err(failed.into_up());
            }
            Err(_) => return Err(Error::new_up(ErrorType::ReadTimedout)),
        };
        if let Some(server) = ctx.server {
            self.app.answered(server);
        }
        let (client, early) = take_over(session, answer.status).await?;
        let is_joined = answer.status == StatusCode::SWITCHING_PROTOCOLS;
        let (gateway, at_app) = (self.gateway.clone(), ctx.at_app.take().filter(|_| !is_joined));
        Tunnel { client, early, app, answer, gateway, at_app }.start();
        Ok(())
    }

    /// The app's server could not be reached, and another may be.
    fn is_worth_another(&self, ctx: &Context) -> bool {
        ctx.server.is_some_and(|server| self.app.unreachable(server, ctx.attempts))
    }

    fn unknown(&self) -> String {
        let servers = self.gateway.config.app.servers.join(", ");
        format!(
            "no address is known of {servers} in [upstreams.app]: is the app running, and is that its name?"
        )
    }

    /// A status and a sentence for a request that the app did not answer.
    fn failure(&self, error: &Error, ctx: &Context) -> (u16, String) {
        use ErrorType::{
            ConnectNoRoute, ConnectRefused, ConnectTimedout, ReadTimedout, TLSHandshakeTimedout,
            WriteTimedout,
        };
        let server = ctx.server.map_or("the app".to_owned(), |server| format!("the app at {server}"));
        match (error.esource(), error.etype()) {
            (_, ErrorType::HTTPStatus(code)) if ctx.app_status.is_some() => {
                (*code, format!("{server} answers {code}"))
            }
            (_, ErrorType::HTTPStatus(413)) => (413, "the body is longer than [limits] max_body_mb".into()),
            (_, ErrorType::HTTPStatus(503)) => (503, TOO_MANY.into()),
            (_, ErrorType::HTTPStatus(408)) => (408, TOO_SLOW.into()),
            (_, ErrorType::HTTPStatus(code)) => (*code, format!("{error}")),
            (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader) => {
                (400, "the request is malformed".into())
            }
            (ErrorSource::Downstream, _) => (0, String::new()),
            (_, ConnectNoRoute) if ctx.server.is_none() => (502, self.unknown()),
            (_, ConnectNoRoute) => (502, format!("{server} cannot be reached: there is no way to it")),
            (_, ConnectRefused) => (502, format!("{server} refuses connections: is it running?")),
            (_, ConnectTimedout | TLSHandshakeTimedout) => {
                (504, format!("{server} cannot be reached within connect_timeout"))
            }
            (ErrorSource::Upstream, kind)
                if !ctx.is_whole && (*kind == ReadTimedout || was_too_long(error)) =>
            {
                (408, TOO_SLOW.into())
            }
            (_, ReadTimedout | WriteTimedout) => (504, format!("{server} does not answer in time")),
            (ErrorSource::Upstream, _) if was_too_long(error) => {
                (504, format!("{server} does not answer in time"))
            }
            (ErrorSource::Upstream, kind) => {
                (502, format!("{server} does not answer as it should: {}", kind.as_str()))
            }
            (_, kind) => (500, format!("voxgate could not forward the request: {}", kind.as_str())),
        }
    }
}

/// What Pingora asks for, in its order: `LiveProxy` passes it on.
impl Proxy {
    pub(super) fn new_ctx(&self) -> Context {
        head_is_read();
        self.gateway.requests.fetch_add(1, Ordering::SeqCst);
        self.gateway.metrics.http_inflight.inc();
        Context {
            route: Route::App,
            started: Instant::now(),
            request_id: HeaderValue::from_static(""),
            server: None,
            attempts: 0,
            at_app: None,
            silence: None,
            body: 0,
            is_whole: true,
            passing: None,
            app_status: None,
        }
    }

    pub(super) async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let limits = &self.gateway.config.limits.http;
        // Whoever comes again is to come to the process that stays.
        session.set_keepalive((!self.gateway.is_leaving()).then_some(limits.keepalive.as_secs()));
        session.set_read_timeout(Some(limits.body_timeout));
        if session.is_http2() {
            // Pingora's own knows of no progress: over HTTP/1.1, where it would hold for several pieces at once,
            // `Outflow` is enough. Here, where a window of the client's may be what is waited for, it is not.
            session.set_write_timeout(Some(outflow::unread(limits).within));
        }
        let settled = target::settle(session.req_header_mut());
        let request = session.req_header();
        ctx.route = self.route(request);
        ctx.request_id = match request.headers.get(REQUEST_ID) {
            Some(id) if (1..=128).contains(&id.len()) && id.to_str().is_ok() => id.clone(),
            _ => self.gateway.request_id(),
        };
        let may_be_acme = request.uri.path().starts_with(acme::PROOFS);
        let misread = settled.err().map(|why| (StatusCode::BAD_REQUEST, why.to_owned()));
        if let Some((status, why)) = misread.or_else(|| refused(session, limits)) {
            session.set_keepalive(None);
            Box::pin(respond(session, status, TEXT, why, &[])).await?;
            return Ok(true);
        }
        if ctx.route == Route::App && !may_be_acme {
            return Ok(false);
        }
        // In a box of its own: what it may hold is a hundred times as much as most requests need.
        Box::pin(self.answer(session, ctx)).await
    }

    /// What is the gateway's own; false for what the app answers all the same.
    async fn answer(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let request = session.req_header();
        let get = matches!(request.method, Method::GET | Method::HEAD);
        if get && let Some(proof) = acme::proof(&self.gateway.config.server, request.uri.path()).await {
            ctx.route = Route::Acme;
            respond(session, StatusCode::OK, TEXT, proof, &[]).await?;
            return Ok(true);
        }
        if matches!(ctx.route, Route::Voice | Route::StreamStatus)
            && let Err(turned) = signed::webhook(session, &self.gateway).await?
        {
            let (status, why) = match turned {
                Turned::Unsigned(why) => (StatusCode::FORBIDDEN, why.to_string()),
                Turned::NoWebhook(cut) => (cut.status(), cut.why().to_owned()),
            };
            warn!(status = status.as_u16(), why, "WEBHOOK_REFUSED");
            respond(session, status, TEXT, format!("{why}\n"), &[]).await?;
            return Ok(true);
        }
        match ctx.route {
            Route::Media => media::answer(session, &self.gateway).await?,
            Route::Healthz | Route::Version if !get => not_allowed(session, "GET, HEAD").await?,
            Route::Healthz => respond(session, StatusCode::OK, TEXT, "ok".to_owned(), &[]).await?,
            Route::Version => self.version(session).await?,
            Route::StreamStatus => self.stream_status(session).await?,
            Route::Voice => return voice::answer(session, &self.gateway).await,
            Route::AppUpgrade => self.app_upgrade(session, ctx).await?,
            Route::App | Route::Acme => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn upstream_peer(&self, session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let mut peer = self.app_peer(ctx)?;
        let is_webhook = ctx.route == Route::Voice;
        ctx.is_whole = session.is_body_done();
        let pause = self.gateway.config.limits.http.body_timeout;
        let pause = (!is_webhook && !ctx.is_whole).then_some(pause);
        ctx.silence = Silence::of(&self.gateway.config.app, pause);
        if let Some(silence) = &ctx.silence {
            silence.bounds(&mut peer);
        }
        if is_webhook {
            peer.options.read_timeout = peer.options.read_timeout.min(Some(FOR_TWIML));
        }
        Ok(Box::new(peer))
    }

    pub(super) fn upstream_request_filter(
        &self,
        session: &Session,
        request: &mut RequestHeader,
        ctx: &Context,
    ) -> Result<()> {
        for name in forged(session, &self.gateway) {
            request.remove_header(&name);
        }
        for (name, value) in self.told(session, ctx) {
            request.insert_header(name, value)?;
        }
        if let Some(cookies) = cookies(&request.headers) {
            request.insert_header(header::COOKIE, cookies)?;
        }
        if ctx.route == Route::Voice {
            // What is packed cannot be looked at.
            request.remove_header(&header::ACCEPT_ENCODING);
        }
        if ctx.silence.is_some() {
            request.insert_header(header::CONNECTION, "close")?;
        }
        Ok(())
    }

    /// A body that is too long, or comes so slowly that it only keeps the app waiting.
    pub(super) fn request_body_filter(
        &self,
        piece: Option<&Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        if end_of_stream {
            ctx.is_whole = true;
            ctx.silence.iter().for_each(Silence::request_is_whole);
        }
        let Some(piece) = piece else { return Ok(()) };
        let limits = &self.gateway.config.limits.http;
        ctx.body += piece.len() as u64;
        if limits.max_body > 0 && ctx.body > limits.max_body {
            return Err(Error::new_down(ErrorType::HTTPStatus(413)));
        }
        let (took, due) = (ctx.started.elapsed(), limits.min_body_rate);
        if took > SLOW_START && ctx.body < due.saturating_mul(took.as_secs()) {
            return Err(Error::new_down(ErrorType::HTTPStatus(408)));
        }
        Ok(())
    }

    pub(super) fn response_filter(
        &self,
        session: &Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if let Some(server) = ctx.server {
            self.app.answered(server);
        }
        if let Some(silence) = ctx.silence.as_ref().filter(|_| !response.status.is_informational()) {
            silence.is_broken();
        }
        if ctx.route == Route::Voice {
            if response.status.is_server_error() && !self.gateway.config.twilio.fallback_twiml.is_empty() {
                let status = response.status.as_u16();
                ctx.app_status = Some(status);
                return Err(Error::new_up(ErrorType::HTTPStatus(status)));
            }
            ctx.passing = Passing::of(&self.gateway, session.req_header(), response)?;
        }
        if !response.headers.contains_key(REQUEST_ID) {
            response.insert_header(REQUEST_ID_NAME, ctx.request_id.clone())?;
        }
        Ok(())
    }

    pub(super) fn response_body_filter(
        &self,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) {
        if let Some(passing) = &mut ctx.passing {
            passing.piece(body, end_of_stream, &self.gateway, id_in(&ctx.request_id));
        }
        if end_of_stream {
            // The app is done with it, however slowly the client reads.
            ctx.at_app = None;
        }
    }

    /// Nothing was sent yet: another server may be tried, whatever the method.
    pub(super) fn fail_to_connect(&self, ctx: &Context, mut error: Box<Error>) -> Box<Error> {
        error.set_retry(self.is_worth_another(ctx));
        error
    }

    /// A connection that the app had closed meanwhile is worth a second try, where trying twice does
    /// no harm.
    pub(super) fn error_while_proxy(
        &self,
        session: &Session,
        error: Box<Error>,
        ctx: &mut Context,
        client_reused: bool,
    ) -> Box<Error> {
        let mut error = error.more_context("while the app answered");
        let method = &session.req_header().method;
        let harmless =
            matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
        let whole = !session.as_ref().retry_buffer_truncated();
        error.retry.decide_reuse(client_reused && harmless && whole);
        if error.retry() {
            self.app.sent_again();
            // The server is well: it may be the only one.
            (ctx.server, ctx.attempts) = (None, ctx.attempts.saturating_sub(1));
        }
        error
    }

    pub(super) async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &Context,
    ) -> FailToProxy {
        let request_id = id_in(&ctx.request_id);
        let (error_code, why) = self.failure(error, ctx);
        if error_code > 0 {
            let fallback = &self.gateway.config.twilio.fallback_twiml;
            let speaks = ctx.route == Route::Voice && error_code >= 500 && !fallback.is_empty();
            warn!(status = error_code, why, fallback = speaks, request_id, "APP_FAILED");
            // What comes behind half an answer would pass for its other half.
            let has_begun = session.response_written().is_some_and(|head| !head.status.is_informational());
            let status = StatusCode::from_u16(error_code).unwrap_or(StatusCode::BAD_GATEWAY);
            let id = [(REQUEST_ID, request_id)];
            let (status, kind, body) = match speaks {
                true => (StatusCode::OK, XML, fallback.clone()),
                false => (status, TEXT, format!("{why}\n")),
            };
            if speaks && !has_begun {
                let app_answered = ctx.app_status.is_some();
                let reason = if app_answered { TwimlFallback::App5xx } else { TwimlFallback::AppDown };
                self.gateway.metrics.twiml_fallback(reason);
            }
            if !has_begun && let Err(error) = respond(session, status, kind, body, &id).await {
                debug!(%error, "the client went away before its answer");
            }
        }
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    pub(super) fn logging(&self, session: &Session, error: Option<&Error>, ctx: &Context) {
        let status = match (session.response_written(), error) {
            (Some(response), _) => response.status.as_u16(),
            (None, Some(error)) if *error.esource() == ErrorSource::Downstream => CLIENT_CLOSED,
            (None, _) => 0,
        };
        let took = ctx.started.elapsed();
        self.gateway.metrics.http_done(ctx.route, status, took.as_secs_f64());
        self.gateway.metrics.http_inflight.dec();
        self.gateway.requests.fetch_sub(1, Ordering::SeqCst);
        let request = session.req_header();
        // A token behind the media path is a secret for a minute.
        let media = ctx.route == Route::Media;
        let path = if media { &self.gateway.config.twilio.path } else { request.uri.path() };
        let method = request.method.as_str();
        let (route, ms, request_id) = (ctx.route.as_str(), took.as_millis() as u64, id_in(&ctx.request_id));
        // The query may hold what is nobody's business; the path is enough to find a request by.
        match (error, ctx.route) {
            (Some(error), _) => {
                info!(target: EVERY_REQUEST, method, path, status, ms, route, request_id, %error, "HTTP")
            }
            (None, Route::Healthz) => debug!(method, path, status, ms, route, request_id, "HTTP"),
            (None, _) => info!(target: EVERY_REQUEST, method, path, status, ms, route, request_id, "HTTP"),
        }
    }
}

/// An id is text: it was looked at, or is one of ours.
fn id_in(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or_default()
}
