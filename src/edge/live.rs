//! Each request is served by the proxy that counted when it came, to its end: a reload in between does
//! not touch it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::HttpPeer;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::{Error, Result};

use super::proxy::{Context, Proxy};
use super::reload::Live;

pub(super) struct LiveProxy(pub(super) Arc<Live>);

/// What Pingora asks of a proxy is passed on; a hook that `Proxy` has must be here too.
#[async_trait]
impl ProxyHttp for LiveProxy {
    type CTX = (Arc<Proxy>, Context);

    fn new_ctx(&self) -> Self::CTX {
        let proxy = self.0.proxy();
        let ctx = proxy.new_ctx();
        (proxy, ctx)
    }

    async fn request_filter(&self, session: &mut Session, (proxy, ctx): &mut Self::CTX) -> Result<bool> {
        proxy.request_filter(session, ctx).await
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        (proxy, ctx): &mut Self::CTX,
    ) -> Result<Box<HttpPeer>> {
        proxy.upstream_peer(session, ctx).await
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (proxy, ctx): &mut Self::CTX,
    ) -> Result<()> {
        proxy.upstream_request_filter(session, request, ctx).await
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        (proxy, ctx): &mut Self::CTX,
    ) -> Result<()> {
        proxy.response_filter(session, response, ctx).await
    }

    fn response_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        (proxy, ctx): &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        proxy.response_body_filter(session, body, end_of_stream, ctx)
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        (proxy, ctx): &mut Self::CTX,
    ) -> Result<()> {
        proxy.request_body_filter(session, body, end_of_stream, ctx).await
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        peer: &HttpPeer,
        (proxy, ctx): &mut Self::CTX,
        error: Box<Error>,
    ) -> Box<Error> {
        proxy.fail_to_connect(session, peer, ctx, error)
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        (proxy, ctx): &mut Self::CTX,
        client_reused: bool,
    ) -> Box<Error> {
        proxy.error_while_proxy(peer, session, error, ctx, client_reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        (proxy, ctx): &mut Self::CTX,
    ) -> FailToProxy {
        proxy.fail_to_proxy(session, error, ctx).await
    }

    fn suppress_error_log(&self, session: &Session, (proxy, ctx): &Self::CTX, error: &Error) -> bool {
        proxy.suppress_error_log(session, ctx, error)
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, (proxy, ctx): &mut Self::CTX) {
        proxy.logging(session, error, ctx).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The functions of an `impl` in a source text.
    fn hooks<'t>(text: &'t str, of: &str) -> BTreeSet<&'t str> {
        let (_, rest) = text.split_once(&format!("impl ProxyHttp for {of} {{\n")).expect("the impl");
        let (body, _) = rest.split_once("\n}\n").expect("its end");
        let name = |line: &'t str| {
            let line = line.strip_prefix("    ")?;
            line.strip_prefix("async fn ").or(line.strip_prefix("fn "))?.split('(').next()
        };
        body.lines().filter_map(name).collect()
    }

    #[test]
    fn every_hook_of_the_proxy_is_passed_on() {
        let ours = hooks(include_str!("proxy.rs"), "Proxy");
        let passed_on = hooks(include_str!("live.rs"), "LiveProxy");
        assert!(ours.contains("logging") && ours.is_subset(&passed_on), "{ours:?} of {passed_on:?}");
    }
}
