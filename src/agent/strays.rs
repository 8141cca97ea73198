//! Children that this process had before it ran this program: shims that an older version started before it gave its process to
//! this one. They need nothing, and are reaped when they end.

use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use tokio::signal::unix::{SignalKind, signal};

use super::shim::proc;

/// Sees to those that there are now. Called before this program starts any of its own, which are others' to reap.
pub(super) fn adopt() {
    let mut strays: Vec<Pid> = proc::children(std::process::id()).into_iter().map(Pid::from_raw).collect();
    if strays.is_empty() {
        return;
    }
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => return tracing::warn!("{} processes will not be reaped: {error}", strays.len()),
    };
    tokio::spawn(async move {
        loop {
            strays.retain(|stray| waitpid(*stray, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive));
            if strays.is_empty() || ended.recv().await.is_none() {
                return;
            }
        }
    });
}
