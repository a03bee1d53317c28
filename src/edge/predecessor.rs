//! What a successor is told by the process that it follows, in its environment: where it gets the sockets,
//! which addresses they are bound to, and who that process is.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

const SOCKET: &str = "VOXGATE_UPGRADE_SOCKET";
const LISTENERS: &str = "VOXGATE_UPGRADE_LISTENERS";
const PREDECESSOR: &str = "VOXGATE_UPGRADE_PREDECESSOR";

/// These are for a successor alone, and for nothing that it starts.
pub const UPGRADE_VARIABLES: [&str; 3] = [SOCKET, LISTENERS, PREDECESSOR];

/// Is this process a successor, whose predecessor still listens?
pub fn is_successor() -> bool {
    socket().is_some()
}

/// Where this process gets the sockets, if it is a successor.
pub(super) fn socket() -> Option<PathBuf> {
    std::env::var_os(SOCKET).map(PathBuf::from)
}

/// Whether this process is given a socket that listens on this address. One that is in use otherwise is
/// another program's, and nobody would be heard there.
pub(super) fn hands_over(address: SocketAddr) -> bool {
    match std::env::var(LISTENERS) {
        Ok(listeners) => is_among(address, &listeners),
        // A predecessor that is older than this variable does not say.
        Err(_) => is_successor(),
    }
}

fn is_among(address: SocketAddr, listeners: &str) -> bool {
    // As Pingora finds them again: by how they are written.
    listeners.split(' ').any(|listener| listener == address.to_string())
}

/// The process that this one follows, for as long as it is there.
pub(super) fn predecessor() -> Option<u32> {
    let started_by = std::env::var(PREDECESSOR).ok()?.parse().ok()?;
    // Its end gives us another parent, so that a process that gets its number later is not taken for it.
    (parent_id() == started_by).then_some(started_by)
}

/// What this process tells its successor.
pub(super) fn told(socket: &Path, listeners: &[SocketAddr]) -> [(&'static str, OsString); 3] {
    let listeners: Vec<String> = listeners.iter().map(SocketAddr::to_string).collect();
    [
        (SOCKET, socket.into()),
        (LISTENERS, listeners.join(" ").into()),
        (PREDECESSOR, std::process::id().to_string().into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listened_on_is_handed_over() {
        let addresses =
            ["0.0.0.0:8080", "127.0.0.1:9090", "[::1]:80"].map(|a| a.parse().expect("an address"));
        let [_, (_, listeners), _] = told(Path::new("/tmp/upgrade"), &addresses);
        let listeners = listeners.to_str().expect("text");
        for address in addresses {
            assert!(is_among(address, listeners), "{address}");
        }
        for other in ["127.0.0.1:8080", "0.0.0.0:808", "0.0.0.0:80", "127.0.0.1:90", "[::]:8080"] {
            assert!(!is_among(other.parse().expect("an address"), listeners), "{other}");
        }
    }
}
