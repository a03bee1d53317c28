//! The proxy that Pingora is by itself, for comparison: every request goes to one origin, and nothing is
//! looked at, logged or counted. `bare_proxy LISTEN ORIGIN THREADS`; `tests/bench/proxy.sh` runs it.

use async_trait::async_trait;
use pingora::Result;
use pingora::prelude::HttpPeer;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::Server;
use pingora::server::configuration::ServerConf;

/// As in voxgate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare {
    origin: String,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.origin.as_str(), false, String::new())))
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(listen), Some(origin), Some(Ok(threads))) =
        (args.next(), args.next(), args.next().map(|threads| threads.parse()))
    else {
        eprintln!("bare_proxy LISTEN ORIGIN THREADS");
        return;
    };
    let conf = ServerConf { threads, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let mut proxy = http_proxy_service(&server.configuration, Bare { origin });
    proxy.add_tcp(&listen);
    server.add_service(proxy);
    server.bootstrap();
    server.run_forever()
}
