//! Commands to the running gateway, by its admin listener.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::Context as _;

use crate::config::Admin;

/// An upgrade waits for the new process to come up.
const LONGEST: Duration = Duration::from_secs(60);

/// Posts to a path of the admin listener: what it answers, as an error where it refuses.
pub(super) fn post(admin: &Admin, path: &str) -> anyhow::Result<String> {
    let mut at = admin.listen;
    match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => at.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => at.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(LONGEST).build()?;
        let mut request = client.post(format!("http://{at}{path}"));
        if let Some(token) = &admin.token {
            request = request.bearer_auth(&token.0);
        }
        let answer = request.send().await.with_context(|| {
            format!("nothing answers at [admin] listen = \"{at}\": is the gateway running?")
        })?;
        let status = answer.status();
        let said = answer.text().await?.trim_end().to_owned();
        anyhow::ensure!(status.is_success(), "{said}");
        Ok(said)
    })
}
