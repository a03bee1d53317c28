//! The proxy that Pingora is by itself, for comparison: every request goes to one origin, and nothing is
//! looked at, logged or counted. With `told`, the origin is told where a request came from, as the nginx of the same
//! run tells it. `bare_proxy LISTEN ORIGIN THREADS [told]`; `tests/bench/proxy.sh` runs it.

use async_trait::async_trait;
use pingora::Result;
use pingora::http::RequestHeader;
use pingora::prelude::HttpPeer;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;

/// As in voxgate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare {
    origin: String,
    told: bool,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.origin.as_str(), false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        (): &mut (),
    ) -> Result<()> {
        if !self.told {
            return Ok(());
        }
        let client = session.client_addr().and_then(|client| client.as_inet());
        let client = client.map(|client| client.ip().to_string()).unwrap_or_default();
        request.insert_header("X-Forwarded-For", client)?;
        request.insert_header("X-Forwarded-Proto", "http")?;
        request.insert_header("X-Request-Id", format!("{:032x}", std::ptr::from_ref(session) as usize))
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(listen), Some(origin), Some(Ok(threads))) =
        (args.next(), args.next(), args.next().map(|threads| threads.parse()))
    else {
        eprintln!("bare_proxy LISTEN ORIGIN THREADS [told]");
        return;
    };
    let told = args.next().as_deref() == Some("told");
    let conf = ServerConf { threads, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let mut proxy = http_proxy_service(&server.configuration, Bare { origin, told });
    proxy.add_tcp(&listen);
    server.add_service(proxy);
    server.bootstrap();
    server.run_forever()
}
