//! What a connection goes through before its first request: the PROXY protocol, where the proxies in
//! front speak it, and a count of those whose first request is awaited.
//!
//! Pingora has a hook for it, but calls that for TLS only; without TLS the same is done here, before the
//! connection is handed to the HTTP side.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::listeners::PreTlsProcess;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{GetSocketDigest, SocketDigest, Stream};
use pingora::server::ShutdownWatch;
use pingora::{Error, ErrorType, OrErr};
use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use tracing::warn;

use super::outflow::{Limit, Outflow};
use super::patience::patiently;
use super::reload::Live;

/// How long the header may take.
const FOR_A_HEADER: Duration = Duration::from_secs(5);
/// The longest of version 2, and of version 1, by its specification.
const LONGEST: usize = 2048;
const LONGEST_LINE: usize = 107;
const V1_PREFIX: &[u8] = b"PROXY ";

/// Connections whose first request is awaited: who stops has them in mind. Behind TLS, not before its
/// handshake is done; one of HTTP/2, whose requests have tasks of their own, for as long as it is there.
#[derive(Clone, Default)]
pub(super) struct Newcomers(Arc<AtomicUsize>);

/// One of them, until this is dropped.
pub(super) struct Newcomer(Newcomers);

impl Newcomers {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn enter(&self) -> Newcomer {
        self.0.fetch_add(1, Ordering::SeqCst);
        Newcomer(self.clone())
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Reads the PROXY protocol's header from those who are trusted to send one; from nobody else.
#[derive(Clone)]
pub(super) struct Greeting {
    pub(super) live: Arc<Live>,
    pub(super) proxy_protocol: bool,
}

impl Greeting {
    fn is_due(&self, peer: Option<SocketAddr>) -> bool {
        self.proxy_protocol && peer.is_some_and(|peer| self.live.gateway().trusts(peer.ip()))
    }
}

fn peer(stream: &(impl GetSocketDigest + ?Sized)) -> Option<SocketAddr> {
    stream.get_socket_digest()?.peer_addr()?.as_inet().copied()
}

async fn greet(stream: &mut (impl AsyncRead + Unpin)) -> pingora::Result<Option<SocketAddr>> {
    let read = timeout(FOR_A_HEADER, read_header(stream)).await;
    let source = read.or_err(ErrorType::ReadTimedout, "waiting for the PROXY protocol")?;
    source.map_err(|why| Error::explain(ErrorType::HandshakeError, format!("the PROXY protocol: {why}")))
}

fn digest(fd: i32, source: SocketAddr) -> SocketDigest {
    let digest = SocketDigest::from_raw_fd(fd);
    // Empty so far.
    let _ = digest.peer_addr.set(Some(source.into()));
    digest
}

#[async_trait]
impl PreTlsProcess for Greeting {
    async fn process(&self, stream: &mut L4Stream) -> pingora::Result<()> {
        if self.is_due(peer(stream))
            && let Some(source) = greet(stream).await?
        {
            let digest = digest(stream.as_raw_fd(), source);
            stream.set_socket_digest(digest);
        }
        Ok(())
    }
}

/// Lets connections in to an HTTP app.
pub(super) struct Door<A> {
    pub(super) app: Arc<A>,
    pub(super) greeting: Greeting,
    /// How long they may leave unread what they are sent.
    pub(super) unread: Limit,
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Door<A> {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let newcomer = self.greeting.live.gateway().newcomers.enter();
        // Behind TLS it has been read before.
        let plain = stream.get_ssl_digest().is_none();
        if plain && self.greeting.is_due(peer(stream.as_ref())) {
            match greet(&mut stream).await {
                Ok(None) => {}
                Ok(Some(source)) => {
                    let digest = digest(stream.id(), source);
                    stream.set_socket_digest(digest);
                }
                Err(error) => {
                    warn!(%error, "CONNECTION_REFUSED");
                    return None;
                }
            }
        }
        let stream = Box::new(Outflow::new(stream, self.unread.clone()));
        patiently(newcomer, self.app.process_new(stream, shutdown)).await
    }

    async fn cleanup(&self) {
        self.app.http_cleanup().await;
    }
}

/// Whose connection it is; `None` where the proxy speaks for itself. Not a byte more is read.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, String> {
    let mut header = Vec::with_capacity(128);
    let is_binary = loop {
        let length = header.len();
        if length == v2::PROTOCOL_PREFIX.len() && header == v2::PROTOCOL_PREFIX {
            break true;
        } else if length == V1_PREFIX.len() && header == V1_PREFIX {
            break false;
        }
        header.push(stream.read_u8().await.map_err(|error| error.to_string())?);
        if !v2::PROTOCOL_PREFIX.starts_with(&header) && !V1_PREFIX.starts_with(&header) {
            return Err("a connection that does not begin with it".to_owned());
        }
    };
    if is_binary { binary(stream, header).await } else { line(stream, header).await }
}

/// Version 1, whose addresses are a line of text.
async fn line(
    stream: &mut (impl AsyncRead + Unpin),
    mut header: Vec<u8>,
) -> Result<Option<SocketAddr>, String> {
    while header.last() != Some(&b'\n') {
        if header.len() >= LONGEST_LINE {
            return Err(format!("a line of more than {LONGEST_LINE} bytes"));
        }
        header.push(stream.read_u8().await.map_err(|error| error.to_string())?);
    }
    let header = v1::Header::try_from(header.as_slice()).map_err(|error| error.to_string())?;
    Ok(match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Tcp6(it) => Some((it.source_address, it.source_port).into()),
    })
}

/// Version 2, which says its length, and may bear more than addresses.
async fn binary(
    stream: &mut (impl AsyncRead + Unpin),
    mut header: Vec<u8>,
) -> Result<Option<SocketAddr>, String> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await.map_err(|error| error.to_string())?;
    let [.., high, low] = fixed;
    let (start, length) = (header.len() + fixed.len(), usize::from(u16::from_be_bytes([high, low])));
    if length > LONGEST {
        return Err(format!("a header of {length} bytes"));
    }
    header.extend(fixed);
    header.resize(start + length, 0);
    stream.read_exact(&mut header[start..]).await.map_err(|error| error.to_string())?;
    let header = v2::Header::try_from(header.as_slice()).map_err(|error| error.to_string())?;
    Ok(match (header.command, header.addresses) {
        // A health check of the proxy's own.
        (v2::Command::Local, _) => None,
        (v2::Command::Proxy, v2::Addresses::IPv4(it)) => Some((it.source_address, it.source_port).into()),
        (v2::Command::Proxy, v2::Addresses::IPv6(it)) => Some((it.source_address, it.source_port).into()),
        (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn read(bytes: &[u8]) -> (Result<Option<String>, String>, Vec<u8>) {
        let mut rest = bytes;
        let read = read_header(&mut rest).await.map(|source| source.map(|source| source.to_string()));
        (read, rest.to_vec())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        bytes.extend([command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[tokio::test]
    async fn both_versions_are_read_and_not_a_byte_more() {
        let four = [192, 0, 2, 1, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];
        let mut more = four.to_vec();
        more.extend([0x03, 0, 4, 1, 2, 3, 4]);
        for (header, source) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 8080 80\r\n".to_vec(), Some("192.0.2.1:8080")),
            (b"PROXY TCP6 2001:db8::1 fd00::1 8080 80\r\n".to_vec(), Some("[2001:db8::1]:8080")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (v2(0x21, 0x11, &four), Some("192.0.2.1:8080")),
            (v2(0x21, 0x11, &more), Some("192.0.2.1:8080")),
            (v2(0x20, 0x00, &[]), None),
        ] {
            let bytes = [header.as_slice(), b"GET / "].concat();
            let told = (Ok(source.map(str::to_owned)), b"GET / ".to_vec());
            assert_eq!(read(&bytes).await, told, "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_none_is_refused() {
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.999 10.0.0.1 8080 80\r\n".to_vec(),
            b"PROXY TCP4".to_vec(),
            v2(0x31, 0x11, &[0; 12]),
            v2(0x21, 0x11, &[0; 60_000]),
        ] {
            let refused = read(&bytes).await.0;
            assert!(refused.is_err(), "{refused:?} of {}", String::from_utf8_lossy(&bytes[..10]));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), v2_first in any::<bool>()) {
            let start: &[u8] = if v2_first { b"\r\n\r\n\0\r\nQUIT\n" } else { b"PROXY TCP4 " };
            let bytes = [start, &bytes].concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(read(&bytes));
        }
    }
}
