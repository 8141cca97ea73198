//! Attends a running execution on its control stream: signals and limits out, limits and the end in.

use std::{convert::Infallible, future::pending, sync::Arc};

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
    frame::{Incoming, Outgoing},
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
    let mut steering = Steering { out: Outgoing::new(send), signals, stdout, stderr };
    let mut events = Incoming::new(recv);
    let how = loop {
        tokio::select! {
            event = events.next() => match event {
                Ok(Event::Allow { up_to }) => stdin.up_to(up_to),
                Ok(Event::Exited(outcome)) => {
                    let _ = steering.out.stream().shutdown().await;
                    break exited(outcome);
                }
                Ok(Event::Started { .. } | Event::Refused(_)) => {
                    break no_answer(Fault::Agent, format!("agent {} broke the exec protocol", peer.name()));
                }
                Err(error) => break broken(&peer, &surroundings, error.into()).await,
            },
            // A session that broke is told by `events`.
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

/// What goes out.
struct Steering {
    out: Outgoing<Sending>,
    signals: mpsc::Receiver<i32>,
    stdout: watch::Receiver<u64>,
    stderr: watch::Receiver<u64>,
}

impl Steering {
    /// Passes on what is wished; of limits only the newest if they change faster. Never ends, and does no more when the
    /// stream broke. Cancel-safe.
    async fn steer(&mut self) -> Infallible {
        loop {
            if self.out.send().await.is_err() {
                pending::<()>().await;
            }
            let message = tokio::select! {
                biased;
                Some(signal) = self.signals.recv() => Steer::Signal(signal),
                up_to = newest(&mut self.stdout) => Steer::Allow { channel: Channel::InOut, up_to },
                up_to = newest(&mut self.stderr) => Steer::Allow { channel: Channel::Err, up_to },
            };
            self.out.put(&message).expect("a small enum can be encoded");
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
