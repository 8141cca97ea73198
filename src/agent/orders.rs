//! What the controller sends on an execution's control stream, read so that a `select!` may give up waiting.
//!
//! How far the output may run is passed on right here, whoever reads orders and for what: output flows as long as
//! anybody listens.

use std::future::pending;

use tokio::sync::watch;

use super::stream::RecvHalf;
use crate::{
    frame::Incoming,
    protocol::{
        allowance::INITIAL,
        exec::{Channel, Steer},
    },
};

/// The receiving half of a control stream.
pub(super) struct Orders {
    /// None when they have ended.
    incoming: Option<Incoming<Box<dyn RecvHalf>, Steer>>,
    /// Read by [`Orders::left`] before anybody could follow it.
    early: Option<i32>,
    /// How far stdout and stderr may run.
    stdout: watch::Sender<u64>,
    stderr: watch::Sender<u64>,
}

impl Orders {
    pub fn new(recv: Box<dyn RecvHalf>) -> Self {
        let (stdout, stderr) = (watch::Sender::new(INITIAL), watch::Sender::new(INITIAL));
        Self { incoming: Some(Incoming::new(recv)), early: None, stdout, stderr }
    }

    /// How far stdout or stderr may run, in bytes from its start.
    pub fn allowed(&self, channel: Channel) -> watch::Receiver<u64> {
        self.limit(channel).subscribe()
    }

    /// The next signal to send; `None` for ever when whoever sends orders is gone, or no longer makes sense.
    pub async fn next(&mut self) -> Option<i32> {
        if let Some(early) = self.early.take() {
            return Some(early);
        }
        loop {
            match self.incoming.as_mut()?.next().await {
                Ok(Steer::Signal(signal)) => return Some(signal),
                Ok(Steer::Allow { channel, up_to }) => self.allow(channel, up_to),
                // For resumable executions only.
                Ok(Steer::Acked { .. } | Steer::Resize(_)) => {}
                Ok(Steer::HangUp | Steer::Disconnected | Steer::Detached) => self.incoming = None,
                Err(error) => {
                    tracing::debug!("no more orders: {error}");
                    self.incoming = None;
                }
            }
        }
    }

    /// Obeys what needs nobody else, and forgets signals. Never ends.
    pub async fn heed(&mut self) -> std::convert::Infallible {
        while self.next().await.is_some() {}
        pending().await
    }

    /// Ends when whoever sends orders is gone. One signal that comes meanwhile is kept, others stay in the stream.
    pub async fn left(&mut self) {
        if self.early.is_some() {
            pending::<()>().await;
        }
        self.early = self.next().await;
        if self.early.is_some() {
            pending::<()>().await;
        }
    }

    fn allow(&self, channel: Channel, up_to: u64) {
        self.limit(channel).send_if_modified(|limit| {
            let further = up_to > *limit;
            *limit = up_to.max(*limit);
            further
        });
    }

    fn limit(&self, channel: Channel) -> &watch::Sender<u64> {
        match channel {
            Channel::InOut => &self.stdout,
            Channel::Err => &self.stderr,
        }
    }
}
