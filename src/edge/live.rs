//! Each request is served by the proxy that counted when it came, to its end: a reload in between does
//! not touch it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::prelude::HttpPeer;
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::{Error, Result};

use super::proxy::{Context, Proxy};
use super::reload::Live;

pub(super) struct LiveProxy(pub(super) Arc<Live>);

/// What Pingora asks of a proxy is passed on.
#[async_trait]
impl ProxyHttp for LiveProxy {
    type CTX = (Arc<Proxy>, Context);

    /// None: Pingora would make a compressor for each request, which would then compress nothing.
    fn init_downstream_modules(&self, _: &mut HttpModules) {}

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
        proxy.upstream_peer(session, ctx)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (proxy, ctx): &mut Self::CTX,
    ) -> Result<()> {
        proxy.upstream_request_filter(session, request, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        (proxy, ctx): &mut Self::CTX,
    ) -> Result<()> {
        proxy.response_filter(session, response, ctx)
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        (proxy, ctx): &mut Self::CTX,
    ) -> Result<Option<Duration>> {
        proxy.response_body_filter(body, end_of_stream, ctx);
        Ok(None)
    }

    async fn request_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        (proxy, ctx): &mut Self::CTX,
    ) -> Result<()> {
        proxy.request_body_filter(body.as_ref(), end_of_stream, ctx)
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        (proxy, ctx): &mut Self::CTX,
        error: Box<Error>,
    ) -> Box<Error> {
        proxy.fail_to_connect(ctx, error)
    }

    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        (proxy, ctx): &mut Self::CTX,
        client_reused: bool,
    ) -> Box<Error> {
        proxy.error_while_proxy(session, error, ctx, client_reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        (proxy, ctx): &mut Self::CTX,
    ) -> FailToProxy {
        proxy.fail_to_proxy(session, error, ctx).await
    }

    /// `logging` says it, once.
    fn suppress_error_log(&self, _: &Session, _: &Self::CTX, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, (proxy, ctx): &mut Self::CTX) {
        proxy.logging(session, error, ctx);
    }
}
