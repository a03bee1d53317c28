//! What is kept of an issuer: the account, the certificate, proofs while an order is under way. For the
//! owner alone, and each file whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::fault::Fault;
use crate::config::Acme;

const PROOFS: &str = "proofs";
const ACCOUNT: &str = "account.json";

pub(super) struct Folder {
    path: PathBuf,
    certificate: PathBuf,
}

impl Folder {
    pub(super) fn new(acme: &Acme) -> Folder {
        Folder { path: acme.of_issuer(), certificate: acme.files().cert }
    }

    /// The right to order, for as long as it is held, even if the process dies; `None` where another
    /// process has it.
    pub(super) fn lock(&self) -> Result<Option<File>, Fault> {
        let proofs = self.path.join(PROOFS);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&proofs);
        made.map_err(|error| Fault::folder(&proofs, &error))?;
        let path = self.path.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(|error| Fault::folder(&path, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(Fault::folder(&path, &error)),
        }
    }

    pub(super) fn account(&self) -> Option<String> {
        std::fs::read_to_string(self.path.join(ACCOUNT)).ok()
    }

    pub(super) fn keep_account(&self, account: &str) -> Result<(), Fault> {
        write(&self.path.join(ACCOUNT), account)
    }

    /// The issuer does not know it any more.
    pub(super) fn forget_account(&self) {
        let _ = std::fs::remove_file(self.path.join(ACCOUNT));
    }

    pub(super) fn keep_certificate(&self, pem: &str) -> Result<(), Fault> {
        write(&self.certificate, pem)
    }

    pub(super) fn keep_proof(&self, token: &str, proof: &str) -> Result<(), Fault> {
        match is_token(token) {
            true => write(&self.path.join(PROOFS).join(token), proof),
            false => Err(Fault::nonsense(format!("the token {token:?} of its challenge is none"))),
        }
    }

    pub(super) async fn proof(&self, token: &str) -> Option<String> {
        if !is_token(token) {
            return None;
        }
        tokio::fs::read_to_string(self.path.join(PROOFS).join(token)).await.ok()
    }

    pub(super) fn forget_proofs(&self) {
        for entry in std::fs::read_dir(self.path.join(PROOFS)).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// What an issuer may choose, by its standard; and nothing that leads out of the folder.
fn is_token(token: &str) -> bool {
    let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    (1..=128).contains(&token.len()) && token.bytes().all(sound)
}

fn write(path: &Path, text: &str) -> Result<(), Fault> {
    let beside = path.with_extension("new");
    let write = || {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|error| Fault::folder(path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_nowhere_else() {
        assert!(is_token("PEw3q8AiJe_SUmj7ZmAuOXTGwqouohiysHkVGXzKzQ8-"));
        for token in ["", ".", "..", "../account.json", "a/b", "a%2fb", "a.new", &"x".repeat(129)] {
            assert!(!is_token(token), "{token}");
        }
    }
}
