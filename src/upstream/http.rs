//! Requests to a service, over a pool of connections that is kept warm: one POST at a time takes a
//! slot, picks a server in turn, and waits no longer than the operator allowed.
//!
//! A request is sent again in two cases, each once: to the next server where a connection could not
//! be had, and over a fresh connection where the one used was closed before any answer came. The
//! second is how a kept connection looks that the server had given up at the same moment; the HTTP
//! library repeats a request only if none of it was written yet. Both are safe, because speech
//! services keep no state and the agent is given a key by which to know a repeat.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder, Url, redirect};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{Answer, root_cause, seconds};
use super::health::{Health, Ticket};
use super::observed::Watch;
use super::owner::{Owner, Vendor};
use crate::call::{Failure, FailureKind, Trace};
use crate::config::{Endpoint, Upstream};

/// Something in the configuration that no request could be made with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("upstream {upstream}: {why}")]
pub struct Unusable {
    pub upstream: String,
    pub why: String,
}

/// The servers of one upstream, shared by all endpoints on it.
pub(super) struct Pool {
    health: Arc<Health>,
    /// Keeps its connections.
    client: Client,
    /// Keeps none: for the second try after a kept connection failed, which must not meet another
    /// one that is just as stale.
    fresh: Client,
    slots: Arc<Semaphore>,
}

/// All requests to a vendor who speaks HTTP/2 share a connection. One whose path has fallen silent is known
/// by its pings, this often and within this long, and not by requests that fail until TCP gives it up.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// A client for an upstream's servers, which keeps so many connections to each.
pub(super) fn client(upstream: &Upstream, kept: usize) -> Result<Client, Unusable> {
    let unusable = |error: reqwest::Error| Unusable {
        upstream: upstream.name.clone(),
        why: root_cause(&error).to_string(),
    };
    builder(upstream, kept).build().map_err(unusable)
}

fn builder(upstream: &Upstream, kept: usize) -> ClientBuilder {
    // Fails if the program has chosen before: just as well.
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut builder = Client::builder()
        .user_agent(concat!("voxgate/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .referer(false)
        .redirect(redirect::Policy::none())
        .connect_timeout(upstream.connect_timeout)
        .pool_idle_timeout(upstream.idle_timeout)
        .pool_max_idle_per_host(kept)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true);
    if !upstream.tls {
        // Plain HTTP must also work on a machine without any CA certificates.
        builder = builder.tls_certs_only([]);
    }
    builder
}

impl Pool {
    pub(super) fn new(health: &Arc<Health>) -> Result<Self, Unusable> {
        let upstream = health.upstream();
        if upstream.servers.is_empty() {
            return Err(Unusable { upstream: upstream.name.clone(), why: "no servers".to_owned() });
        }
        Ok(Self {
            client: client(upstream, upstream.max_in_flight)?,
            fresh: client(upstream, 0)?,
            slots: Arc::new(Semaphore::new(upstream.max_in_flight.min(Semaphore::MAX_PERMITS))),
            health: Arc::clone(health),
        })
    }

    pub(super) fn upstream(&self) -> &Upstream {
        self.health.upstream()
    }

    /// A turn to ask, or why there is none.
    async fn slot(&self) -> Result<OwnedSemaphorePermit, String> {
        let wait = self.upstream().connect_timeout;
        match timeout(wait, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(format!(
                "all {} requests that max_in_flight allows are under way; none ended within {}",
                self.upstream().max_in_flight,
                seconds(wait)
            )),
        }
    }
}

/// One path on the servers of an upstream.
pub(super) struct Wire {
    pool: Arc<Pool>,
    /// One for each server.
    targets: Vec<Target>,
    headers: HeaderMap,
    /// Whose failures are told with their owner.
    vendor: Option<Arc<Vendor>>,
}

struct Target {
    url: Url,
    /// "POST URL", as failures name it: without the query, where operators put keys.
    request: Arc<str>,
}

impl Wire {
    pub(super) fn new(endpoint: &Endpoint, pool: Arc<Pool>) -> Result<Self, Unusable> {
        let unusable = |why: String| Unusable { upstream: endpoint.upstream.name.clone(), why };
        let scheme = if endpoint.upstream.tls { "https" } else { "http" };
        let target = |server: &String| {
            let url = format!("{scheme}://{server}{}", endpoint.path);
            let shown = url.split('?').next().unwrap_or_default();
            if !endpoint.path.starts_with('/') {
                return Err(unusable(format!("the path of {shown} must begin with a slash")));
            }
            let request = format!("POST {shown}").into();
            let url = Url::parse(&url).map_err(|e| unusable(format!("{shown} is no address: {e}")))?;
            Ok(Target { url, request })
        };
        let targets = endpoint.upstream.servers.iter().map(target).collect::<Result<_, _>>()?;
        let mut headers = HeaderMap::new();
        for (name, value) in &endpoint.headers {
            let key = HeaderName::try_from(name)
                .map_err(|_| unusable(format!("{name:?} cannot be the name of a header")))?;
            // The value is secret: it is not shown even if it is wrong.
            let mut value = HeaderValue::try_from(&value.0)
                .map_err(|_| unusable(format!("the value of header {name} cannot be sent")))?;
            value.set_sensitive(true);
            headers.append(key, value);
        }
        Ok(Self { pool, targets, headers, vendor: None })
    }

    /// This wire, to a vendor who wants its key in this header. One that the operator wrote counts.
    pub(super) fn of_vendor(
        mut self,
        vendor: Vendor,
        header: HeaderName,
        scheme: &str,
    ) -> Result<Self, Unusable> {
        if let Some(key) = vendor.api_key().filter(|_| !self.headers.contains_key(&header)) {
            let why = || "the api_key cannot be sent in a header".to_owned();
            let unusable = |_| Unusable { upstream: self.upstream().to_owned(), why: why() };
            let mut value = HeaderValue::try_from(format!("{scheme}{key}")).map_err(unusable)?;
            value.set_sensitive(true);
            self.headers.insert(header, value);
        }
        self.vendor = Some(Arc::new(vendor));
        Ok(self)
    }

    pub(super) fn upstream(&self) -> &str {
        &self.pool.upstream().name
    }

    /// Posts and waits for the head of the answer, which is a success. The operator's own headers
    /// go before `headers`.
    pub(super) async fn post(
        &self,
        mut headers: HeaderMap,
        body: Bytes,
        watch: &mut Watch,
    ) -> Result<Answer, Failure> {
        let limits = self.pool.upstream();
        let failure = |kind, owner: Owner, why: String| {
            let why = format!("{}: {why}", owner.named(self.vendor.is_some()));
            Failure { upstream: limits.name.clone(), kind, why }
        };
        let busy = |why| failure(FailureKind::Busy, Owner::Config("max_in_flight"), why);
        let mut server = self.asked_next(self.pool.health.turn()?, watch);
        let slot = self.pool.slot().await.map_err(busy)?;
        in_trace(&mut headers, watch.trace());
        let mut deadline = Instant::now() + limits.first_byte_timeout;
        let (mut client, mut other_tried, mut fresh_tried) = (&self.pool.client, false, false);
        loop {
            let target = &self.targets[server];
            let request = client
                .post(target.url.clone())
                .headers(headers.clone())
                .headers(self.headers.clone())
                .body(body.clone());
            let failed = |kind, owner, why| failure(kind, owner, format!("{}: {why}", target.request));
            let error = match timeout_at(deadline, request.send()).await {
                Ok(Ok(response)) => {
                    watch.first_byte();
                    let request = Arc::clone(&target.request);
                    let answer = Answer::new(response, limits, request, slot, self.vendor.clone());
                    return answer.success().await;
                }
                Err(_) => {
                    let why = format!("no answer within {}", seconds(limits.first_byte_timeout));
                    return Err(failed(FailureKind::Timeout, Owner::Vendor, why));
                }
                Ok(Err(error)) => error,
            };
            if error.is_connect() {
                let (owner, why) = no_connection(&error, limits);
                let failure = failed(FailureKind::Connect, owner, why);
                let other = if other_tried { None } else { self.pool.health.turn_elsewhere(server) };
                let Some(other) = other else { return Err(failure) };
                other_tried = true;
                watch.lost(&failure);
                server = self.asked_next(other, watch);
                deadline = Instant::now() + limits.first_byte_timeout;
            } else if !fresh_tried {
                fresh_tried = true;
                client = &self.pool.fresh;
            } else {
                let why = format!("no HTTP answer, though asked twice: {}", root_cause(&error));
                return Err(failed(FailureKind::Protocol, Owner::Vendor, why));
            }
        }
    }
}

impl Wire {
    fn asked_next(&self, ticket: Ticket, watch: &mut Watch) -> usize {
        let server = ticket.server();
        watch.asks(ticket);
        server
    }
}

/// Tells a service which trace what it does belongs to, unless the operator has it told otherwise.
pub(super) fn in_trace(headers: &mut HeaderMap, trace: Option<&Trace>) {
    if let Some(trace) = trace {
        headers.entry("traceparent").or_insert_with(|| header(&trace.parent()));
    }
}

/// A header's value from what a carrier or an agent said; what cannot be sent is left out.
pub(super) fn header(text: &str) -> HeaderValue {
    let sendable: String = text.chars().filter(|c| matches!(c, ' '..='~')).collect();
    HeaderValue::try_from(sendable).unwrap_or_else(|_| HeaderValue::from_static(""))
}

pub(super) fn no_connection(error: &reqwest::Error, limits: &Upstream) -> (Owner, String) {
    let cause = root_cause(error);
    if error.is_timeout() {
        (Owner::Network, format!("no connection within {}", seconds(limits.connect_timeout)))
    } else if error.is_dns() {
        (Owner::Network, format!("the name of the server could not be resolved: {cause}"))
    } else {
        likely_mistake(cause).unwrap_or_else(|| (Owner::Network, format!("no connection: {cause}")))
    }
}

/// What an operator is most likely to have done wrong, where the error's own words do not tell.
fn likely_mistake(cause: &(dyn Error + 'static)) -> Option<(Owner, String)> {
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return Some(Owner::of_io(error));
    }
    cause.downcast_ref::<rustls::Error>().map(Owner::of_tls)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::super::fake::dialogue;
    use super::super::observed::Tell;
    use super::*;
    use crate::config::{Agent, Mode};

    #[test]
    fn an_operators_headers_are_never_printed() {
        let Mode::Dialogue { agent: Agent::Webhook { endpoint }, .. } = dialogue(&["a:1".to_owned()]).mode
        else {
            panic!("a dialogue");
        };
        let tell: Tell = Arc::new(|_| {});
        let pool = Arc::new(Pool::new(&Health::new(&endpoint.upstream, &tell)).unwrap());
        let wire = Wire::new(&endpoint, pool).unwrap();
        assert_eq!(format!("{:?}", wire.headers), "{\"authorization\": Sensitive}");
    }

    /// Answers the first request on a connection by HTTP/2; the second would be for another to answer.
    async fn answered_once(mut stream: TcpStream) -> TcpStream {
        let frame = |kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]| {
            let length = u8::try_from(payload.len()).unwrap();
            [&[0, 0, length, kind, flags], &stream[..], payload].concat()
        };
        let (settings, headers, ack, end) = (4, 1, 1, 0b101);
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        assert!(preface.starts_with(b"PRI * HTTP/2.0"));
        stream.write_all(&frame(settings, 0, [0; 4], &[])).await.unwrap();
        stream.write_all(&frame(settings, ack, [0; 4], &[])).await.unwrap();
        let asked = loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            stream.read_exact(&mut vec![0; length]).await.unwrap();
            if head[3] == headers {
                break [head[5], head[6], head[7], head[8]];
            }
        };
        // `:status: 200`, by its place in HPACK's table.
        stream.write_all(&frame(headers, end, asked, &[0x88])).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_connection_whose_path_has_fallen_silent_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let Mode::Dialogue { agent, .. } = dialogue(&[address.to_string()]).mode else {
            panic!("a dialogue");
        };
        // Not because nobody needs it.
        let hour = Duration::from_secs(3600);
        let upstream = Upstream { idle_timeout: hour, ..agent.endpoint().upstream.clone() };
        let client = builder(&upstream, 8).http2_prior_knowledge().build().unwrap();
        let ask = || client.get(format!("http://{address}/")).send();
        let accept = async || answered_once(listener.accept().await.unwrap().0).await;
        let (answer, mut silent) = tokio::join!(ask(), accept());
        assert_eq!(answer.unwrap().status(), 200);
        // Takes what comes, and says nothing: its way back is lost. Time passes as soon as nothing happens.
        tokio::time::pause();
        let mut pings = Vec::new();
        let given_up = timeout(2 * (PING_INTERVAL + PING_TIMEOUT), silent.read_to_end(&mut pings)).await;
        tokio::time::resume();
        assert!(given_up.is_ok(), "it is kept, though no ping comes back");
        let (answer, _peer) = tokio::join!(ask(), accept());
        assert_eq!(answer.unwrap().status(), 200);
    }

    #[test]
    fn a_server_without_tls_is_told_of_in_plain_words() {
        let error = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        // As wrapped as it comes from the HTTP library.
        let error = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
        let why = "what came is not TLS: does the server speak without it there?";
        let told = likely_mistake(root_cause(&error)).unwrap();
        assert_eq!((told.0.to_string().as_str(), told.1.as_str()), ("your config: url", why));
        let told = likely_mistake(&io::Error::from(io::ErrorKind::HostUnreachable)).unwrap();
        assert_eq!(told, (Owner::Network, "no connection: host unreachable".to_owned()));
    }

    #[test]
    fn what_a_carrier_said_cannot_break_a_header() {
        assert_eq!(header("CA1/2"), "CA1/2");
        assert_eq!(header("CA1\r\nX: ü\0"), "CA1X: ");
    }
}
