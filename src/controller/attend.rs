//! Attends a running execution on its control stream: signals and limits out, limits and the end in.

use std::{convert::Infallible, future::pending, pin::Pin, sync::Arc};

use bytes::BytesMut;
use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, oneshot, watch},
};

use super::{
    exec::{Surroundings, broken, exited, no_answer},
    peer::{BoxReader, Peer, Sending},
    stdio::Allow,
};
use crate::{
    api::{ExecEnd, Fault},
    frame::{self, FrameError},
    protocol::exec::{Channel, Event, Steer},
};

/// What happens on our side of an execution.
pub(super) struct Wishes {
    /// Signals to send.
    pub signals: mpsc::Receiver<i32>,
    /// How far stdout may run.
    pub stdout: watch::Receiver<u64>,
    /// How far stderr may run.
    pub stderr: watch::Receiver<u64>,
    /// Ends when nobody is interested in the end any more.
    pub interest: oneshot::Receiver<()>,
}

/// Attends until the end, or until nobody is interested in it.
pub(super) async fn attend(
    peer: Arc<dyn Peer>,
    surroundings: Surroundings,
    (send, recv): (Sending, BoxReader),
    wishes: Wishes,
    stdin: Allow,
    end: oneshot::Sender<ExecEnd>,
) {
    let Wishes { signals, stdout, stderr, mut interest } = wishes;
    let mut abandon = surroundings.abandon.clone();
    let mut steering = Steering { send, pending: BytesMut::new(), signals, stdout, stderr };
    let mut event = read(recv);
    let how = loop {
        tokio::select! {
            (recv, next) = &mut event => match next {
                Ok(Event::Allow { up_to }) => {
                    stdin.up_to(up_to);
                    event = read(recv);
                }
                Ok(Event::Exited(outcome)) => {
                    let _ = steering.send.shutdown().await;
                    break exited(outcome);
                }
                Ok(Event::Started { .. } | Event::Refused(_)) => {
                    break no_answer(Fault::Agent, format!("agent {} broke the exec protocol", peer.name()));
                }
                Err(error) => break broken(&peer, &surroundings, error.into()).await,
            },
            // A session that broke is told by `event`.
            never = steering.steer() => match never {},
            // Dropping `send` resets the stream: the agent ends the process.
            _ = &mut interest => return,
            () = async { let _ = abandon.wait_for(|abandon| *abandon).await; } => {
                break no_answer(Fault::Controller, "the controller was stopped, and ends the process");
            }
        }
    };
    let _ = end.send(how);
}

type Reading = Pin<Box<dyn Future<Output = (BoxReader, Result<Event, FrameError>)> + Send>>;

/// Reads an event so that a `select!` may give up waiting.
fn read(mut recv: BoxReader) -> Reading {
    Box::pin(async move {
        let event = frame::read(&mut recv).await;
        (recv, event)
    })
}

/// What goes out.
struct Steering {
    send: Sending,
    /// The rest of a message that went out in part.
    pending: BytesMut,
    signals: mpsc::Receiver<i32>,
    stdout: watch::Receiver<u64>,
    stderr: watch::Receiver<u64>,
}

impl Steering {
    /// Passes on what is wished; of limits only the newest if they change faster. Never ends, and does no more when the
    /// stream broke. Cancel-safe.
    async fn steer(&mut self) -> Infallible {
        loop {
            while !self.pending.is_empty() {
                if self.send.write_buf(&mut self.pending).await.is_err() {
                    pending::<()>().await;
                }
            }
            let message = tokio::select! {
                biased;
                Some(signal) = self.signals.recv() => Steer::Signal(signal),
                up_to = newest(&mut self.stdout) => Steer::Allow { channel: Channel::InOut, up_to },
                up_to = newest(&mut self.stderr) => Steer::Allow { channel: Channel::Err, up_to },
            };
            frame::encode(&message, &mut self.pending).expect("a small enum can be encoded");
        }
    }
}

/// Waits for the next limit; for ever when nobody reads any more.
async fn newest(limit: &mut watch::Receiver<u64>) -> u64 {
    if limit.changed().await.is_err() {
        pending::<()>().await;
    }
    *limit.borrow_and_update()
}
