//! Tells agents of the key that the controller has next, so that they accept it when it comes.
//!
//! The next identity lies in a file beside the first, and is made and put in its place by commands. That it is gone again
//! takes nothing back: it was put in place, and this controller goes on with the one before until it is restarted.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::{Handle, call};
use crate::{
    link::{Fingerprint, Identity},
    private_file::{self, PrivateFileError},
    protocol::call::Call,
};

/// How often it is looked for a next key, and for agents that were not told.
const LOOK: Duration = Duration::from_secs(2);
/// Agents that are told at once.
const AT_ONCE: usize = 64;

/// Tells all agents, those that come later too. Never ends.
pub(super) async fn announce(handle: Handle, path: Option<PathBuf>) {
    let Some(path) = path else { return };
    let mut known = None;
    let mut complaint = String::new();
    loop {
        let place = path.clone();
        match tokio::task::spawn_blocking(move || read(&place)).await {
            Ok(Ok(Some(next))) if known != Some(next) => {
                tracing::info!(fingerprint = %next, "agents are told of the next key");
                known = Some(next);
            }
            Ok(Err(error)) if error != complaint => {
                tracing::warn!("no next key is announced: {error}");
                complaint = error;
            }
            _ => {}
        }
        if let Some(next) = known {
            tell(&handle, next).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The key in the file; `None` if there is no file.
fn read(path: &Path) -> Result<Option<Fingerprint>, String> {
    let pem = match private_file::read(path) {
        Ok(pem) => pem,
        Err(PrivateFileError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let identity = Identity::from_pem(&String::from_utf8_lossy(&pem));
    identity.map(|identity| Some(identity.fingerprint())).map_err(|e| format!("{}: {e}", path.display()))
}

/// Tells the agents that were not told. One that can't be told now is told at the next look.
async fn tell(handle: &Handle, next: Fingerprint) {
    let shared = handle.shared();
    let telling = stream::iter(shared.directory.untold(next)).for_each_concurrent(AT_ONCE, async |peer| {
        let body = Bytes::from(next.to_string());
        match call::whole(&peer, Call::PinNext, body, handle.patience()).await {
            Ok(_) => {
                tracing::info!(agent = %peer.name(), "accepts the next key");
                shared.directory.told(&peer, next);
            }
            Err(error) => tracing::debug!(agent = %peer.name(), %error, "was not told of the next key"),
        }
    });
    telling.await;
}
