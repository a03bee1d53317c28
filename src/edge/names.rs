//! Where the servers of the app are, as their names say. A name may mean another address tomorrow: a container
//! that is made anew has one. So names are looked up again when a server cannot be reached, behind the back of
//! the requests.

use std::collections::BTreeSet;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tracing::{info, warn};

/// What `host:port` means at present. It may take its time.
pub(super) type LookUp = dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync;

/// By the resolver of this machine.
pub(super) fn of_this_machine(server: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(server.to_socket_addrs()?.collect())
}

/// The servers as they are configured, and the addresses that they had when they were last found.
#[derive(Clone)]
pub(super) struct Names {
    servers: Vec<Name>,
    look_up: Arc<LookUp>,
}

#[derive(Clone)]
struct Name {
    server: String,
    addresses: Vec<SocketAddr>,
    /// That it is not found was told.
    is_lost: bool,
}

impl Names {
    pub(super) fn new(servers: &[String], look_up: Arc<LookUp>) -> Names {
        let name = |server: &String| Name { server: server.clone(), addresses: Vec::new(), is_lost: false };
        Names { servers: servers.iter().map(name).collect(), look_up }
    }

    /// Knows what the others know, until it is looked up.
    pub(super) fn learn(&mut self, others: &Names) {
        for name in &mut self.servers {
            if let Some(known) = others.servers.iter().find(|known| known.server == name.server) {
                name.addresses.clone_from(&known.addresses);
            }
        }
    }

    /// What is written as an address stays one.
    pub(super) fn are_addresses(&self) -> bool {
        self.servers.iter().all(|name| name.server.parse::<SocketAddr>().is_ok())
    }

    /// One of them has no address yet.
    pub(super) fn lack_one(&self) -> bool {
        self.servers.iter().any(|name| name.addresses.is_empty())
    }

    /// Asks for all of them. One that is not found keeps the addresses that it had.
    pub(super) fn look_up(&mut self) {
        for name in &mut self.servers {
            let server = name.server.as_str();
            let found = (self.look_up)(server).and_then(|mut found| {
                // Many resolvers give them in another order each time.
                found.sort_unstable();
                if found.is_empty() { Err(io::Error::other("it has no address")) } else { Ok(found) }
            });
            match found {
                Ok(found) => {
                    let moved = !name.addresses.is_empty() && name.addresses != found;
                    if moved || name.is_lost {
                        info!(server, addresses = ?found, "APP_FOUND");
                    }
                    (name.addresses, name.is_lost) = (found, false);
                }
                Err(why) if !name.is_lost => {
                    warn!(server, %why, keeps = ?name.addresses, "APP_NOT_FOUND");
                    name.is_lost = true;
                }
                Err(_) => {}
            }
        }
    }

    /// Each once, were several of them the same.
    pub(super) fn addresses(&self) -> BTreeSet<SocketAddr> {
        self.servers.iter().flat_map(|name| &name.addresses).copied().collect()
    }
}
