//! Puts the parts together and runs them until they are told to stop.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::listeners::{L4BufferSettings, ListenerConfig, TcpSocketOptions};
use pingora::proxy::HttpProxy;
use pingora::server::Server;
use pingora::server::ShutdownWatch;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::services::background::{BackgroundService, background_service};
use pingora::services::listening::Service;
use tracing::info;

use super::acme::Certifying;
use super::admin::{Admin, until_succeeded};
use super::beside::Beside;
use super::door::{Door, Greeting};
use super::gateway::Gateway;
use super::live::LiveProxy;
use super::outflow::{self, Limit};
use super::patience::{Limits, Patience};
use super::predecessor::{hands_over, is_successor};
use super::reload::{Live, Watching};
use super::tapes::Sweeping;
use super::{shutdown, stall, tls, tunnel};
use crate::call::Service as SpeechService;
use crate::config::{Config, Fallbacks, Mode, Source};
use crate::observe::{Exporter, Metrics, Traces};
use crate::upstream::{Carrier, Notice, Services, Unusable, tell_words};

/// The listener's own buffers, for each connection, for as long as it lasts: what is read or written in larger
/// pieces goes past them. The first is for a message of a call's that did not fit into what was left of the
/// WebSocket's, the other for an answer with its head.
const READ_BUFFER: usize = 512;
const WRITE_BUFFER: usize = 1024;

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "{key} = \"{address}\" cannot be listened on: {why}; choose another address, or stop what is using it"
    )]
    Listen { key: &'static str, address: SocketAddr, why: std::io::Error },
    #[error(
        "no address is known of {servers} in [upstreams.app], where the process before this one may know one"
    )]
    App { servers: String },
    #[error("[dialogue] apology_audio = {file:?} cannot be played: {why}")]
    Apology { file: PathBuf, why: String },
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Services(#[from] Unusable),
    #[error("[traces]: {0}")]
    Traces(String),
    #[error("the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("no threads: {0}")]
    Threads(std::io::Error),
    #[error("Pingora: {0}")]
    Pingora(Box<pingora::Error>),
}

/// Runs the gateway until it is stopped, and until its last call has ended.
/// A reload reads the configuration from its source again.
pub fn serve(config: Config, source: Source) -> Result<(), StartError> {
    // Pingora panics where it cannot listen, in a task that nobody misses; ask first.
    for (key, address) in listeners(&config) {
        can_listen(key, address)?;
    }
    tell_words(config.log.transcripts);
    let metrics = Arc::new(Metrics::new()?);
    know_upstreams(&config, None, &metrics);
    let services = Arc::new(services(&config, &metrics)?);
    let threads = match config.server.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let traces = config.traces.as_ref().map(|traces| Traces::new(traces, &metrics));
    let (traces, exporter) = traces.transpose().map_err(StartError::Traces)?.unzip();
    let gateway = Gateway::new(config, metrics, services, traces.map(Arc::new))?;
    let live = Arc::new(Live::new(gateway, source));
    let gateway = live.gateway();
    // A predecessor may know what nobody can be asked for at the moment: it serves better than we would.
    if is_successor() && live.proxy().knows_no_server() {
        return Err(StartError::App { servers: gateway.config.app.servers.join(", ") });
    }
    let mut server = Server::new_with_opt_and_conf(
        Opt { upgrade: is_successor(), ..Opt::default() },
        ServerConf {
            threads,
            // After an upgrade: for ever, as far as Pingora is concerned.
            grace_period_seconds: Some(u64::from(u32::MAX)),
            graceful_shutdown_timeout_seconds: Some(0),
            upgrade_sock: gateway.upgrade.socket(),
            // Pingora's own timers cannot be cancelled: each request's would stay until they are due.
            fast_timeout_to_tokio_threshold_seconds: Some(0),
            ..ServerConf::default()
        },
    );
    let buffers = || L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER);
    let listen = gateway.config.server.listen.to_string();
    let mut app = HttpProxy::new(LiveProxy(live.clone()), server.configuration.clone());
    app.handle_init_modules();
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(gateway.config.limits.http.keepalive);
    let config = live.clone();
    let limits = move || {
        let http = &config.gateway().config.limits.http;
        Limits { head: http.head_timeout, keepalive: http.keepalive }
    };
    let app = Arc::new(Patience { app: Arc::new(app), limits, options, last_heads: shutdown::LAST_REQUESTS });
    let proxy_protocol = gateway.config.server.proxy_protocol;
    let greeting = Greeting { live: live.clone(), proxy_protocol };
    let config = live.clone();
    let unread: Limit = Arc::new(move || outflow::unread(&config.gateway().config.limits.http));
    let mut public = Service::new("gateway".into(), Door { app, greeting: greeting.clone(), unread });
    let mut options = TcpSocketOptions::default();
    options.tcp_keepalive = Some(tunnel::keepalive());
    let tcp = |address| ListenerConfig::tcp(address).l4_buffer(buffers()).tcp_socket_options(options.clone());
    let mut listener = tcp(listen);
    if let Some(files) = &gateway.config.server.tls {
        let awaited = gateway.config.server.acme.is_some();
        let (settings, renewal) =
            tls::listen(files, awaited, gateway.metrics.clone()).map_err(StartError::Tls)?;
        listener = listener.tls(settings);
        server.add_service(background_service("certificate", renewal));
    }
    public.add_listener(listener);
    if let Some(acme) = &gateway.config.server.acme {
        public.add_listener(tcp(acme.listen.to_string()));
        server.add_service(background_service("acme", Certifying::new(acme, gateway.metrics.clone())));
    }
    if proxy_protocol {
        public.endpoints().set_pre_tls_callback(Arc::new(greeting));
    }
    let mut admin = Service::new("admin".into(), Admin(live.clone()));
    admin.threads = Some(1);
    admin.add_tcp(&gateway.config.admin.listen.to_string());
    let metrics = gateway.metrics.clone();
    server.add_service(Beside::new(public, move |shutdown| {
        // Not to be waited for: it ends with the process.
        tokio::spawn(stall::watch(metrics));
        shutdown
    }));
    let upgrade = gateway.upgrade.clone();
    server.add_service(Beside::new(admin, move |shutdown| until_succeeded(shutdown, upgrade)));
    server.add_service(background_service("configuration", Watching(live.clone())));
    server.add_service(background_service("tapes", Sweeping(gateway.clone())));
    if let Some(exporter) = exporter {
        server.add_service(background_service("traces", Exporting(Mutex::new(Some(exporter)))));
    }
    // Last of what may fail: from here on, a predecessor is on its way out.
    server.bootstrap();
    info!(
        pid = std::process::id(),
        listen = %gateway.config.server.listen,
        admin = %gateway.config.admin.listen,
        mode = gateway.config.dialogue.mode.as_str(),
        app = gateway.config.app.servers.join(", "),
        version = crate::VERSION,
        deploy_id = gateway.config.server.deploy_id,
        "STARTED"
    );
    shutdown::run(server, live).map_err(StartError::Threads)
}

/// Where it listens, and the keys that say so.
pub(super) fn listeners(config: &Config) -> impl Iterator<Item = (&'static str, SocketAddr)> {
    let acme = config.server.acme.as_ref().map(|acme| ("[server.acme] listen", acme.listen));
    [("[server] listen", config.server.listen), ("[admin] listen", config.admin.listen)]
        .into_iter()
        .chain(acme)
}

fn can_listen(key: &'static str, address: SocketAddr) -> Result<(), StartError> {
    match TcpListener::bind(address) {
        Err(why) if !(why.kind() == ErrorKind::AddrInUse && hands_over(address)) => {
            Err(StartError::Listen { key, address, why })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The services of a dialogue, with their metrics.
pub(super) fn services(config: &Config, metrics: &Arc<Metrics>) -> Result<Services, StartError> {
    Ok(Services::new(&config.dialogue, count(metrics))?)
}

/// Has the services of a dialogue in the metrics, and none that were only in the one before.
pub(super) fn know_upstreams(config: &Config, before: Option<&Config>, metrics: &Metrics) {
    let now = upstreams(config);
    for (name, _) in before.iter().flat_map(|before| upstreams(before)) {
        if !now.iter().any(|(other, _)| *other == name) {
            metrics.forget_upstream(name);
        }
    }
    for (name, service) in now {
        metrics.know_upstream(name, service);
    }
}

/// Counts what the services tell.
fn count(metrics: &Arc<Metrics>) -> impl Fn(&Notice) + Send + Sync + 'static {
    let metrics = metrics.clone();
    move |notice| match notice {
        Notice::Done(done) => {
            metrics.upstream_done(&done.upstream, done.service, done.result, done.seconds_to_first_byte);
        }
        Notice::FellBack { service } => metrics.fell_back(*service),
        Notice::Cache { hit } => metrics.speech_cache(*hit),
        Notice::Health { upstream, breaker_state, healthy } => {
            metrics.upstream_health(upstream, *breaker_state, *healthy);
        }
    }
}

/// Who ends calls and takes them elsewhere, with its metrics; `None` where it cannot be asked.
pub(super) fn carrier(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Arc<Carrier>>, StartError> {
    let carrier = Carrier::new(config, count(metrics))?;
    if carrier.is_some() {
        metrics.know_upstream(Carrier::NAME, SpeechService::Carrier);
    }
    Ok(carrier.map(Arc::new))
}

/// The upstreams of the speech services, by name and by what they are used for.
fn upstreams(config: &Config) -> Vec<(&str, SpeechService)> {
    match &config.dialogue.mode {
        Mode::Echo => Vec::new(),
        Mode::Relay { bot, .. } => vec![(bot.upstream.name.as_str(), SpeechService::Agent)],
        Mode::Realtime(realtime) => {
            let app = realtime.app.iter().map(|app| &app.upstream);
            let all = std::iter::once(&realtime.endpoint.upstream).chain(app);
            all.map(|upstream| (upstream.name.as_str(), SpeechService::Agent)).collect()
        }
        Mode::Dialogue { stt, agent, tts } => {
            let Fallbacks { stt: stts, agent: agents, tts: ttss, .. } = &config.dialogue.fallbacks;
            let stts = std::iter::once(stt).chain(stts).map(|stt| (stt.endpoint(), SpeechService::Stt));
            let agents =
                std::iter::once(agent).chain(agents).map(|agent| (agent.endpoint(), SpeechService::Agent));
            let ttss = std::iter::once(tts).chain(ttss).map(|tts| (tts.endpoint(), SpeechService::Tts));
            let all = stts.chain(agents).chain(ttss);
            all.map(|(endpoint, service)| (endpoint.upstream.name.as_str(), service)).collect()
        }
    }
}

/// Sends spans until the process ends: the last of them are told during the drain.
struct Exporting(Mutex<Option<Exporter>>);

#[async_trait]
impl BackgroundService for Exporting {
    async fn start(&self, _: ShutdownWatch) {
        let exporter = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(exporter) = exporter {
            exporter.run().await;
        }
    }
}
