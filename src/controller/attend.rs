//! Attends a running execution on its control stream: signals and limits out, limits and the end in.

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use tokio::{
    io::AsyncWriteExt,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    exec::{Surroundings, broken, exited, no_answer, refused},
    peer::{BoxReader, Peer, Sending},
    stdio::Allow,
};
use crate::{
    api::{ExecEnd, Fault},
    frame::{Incoming, Outgoing},
    protocol::exec::{Channel, Event, Refusal, Steer},
};

/// What happens on our side of an execution.
pub(super) struct Wishes {
    /// What is to be said to the agent.
    pub steers: mpsc::Receiver<Steer>,
    /// How far stdout may run.
    pub stdout: watch::Receiver<u64>,
    /// How far stderr may run.
    pub stderr: watch::Receiver<u64>,
    /// Ends when nobody is interested in the end any more.
    pub interest: oneshot::Receiver<()>,
    /// Whether the execution outlives our interest.
    pub resumable: bool,
}

/// Who is told what the agent says.
pub(super) struct Answers {
    /// How far stdin may run.
    pub stdin: Allow,
    /// What of stdin need not be sent again.
    pub taken: watch::Sender<u64>,
    /// How it ended.
    pub end: oneshot::Sender<ExecEnd>,
}

/// How long the last words of a resumable execution may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// Attends until the end, or until nobody is interested in it.
pub(super) async fn attend(
    peer: Arc<dyn Peer>,
    surroundings: Surroundings,
    (send, recv): (Sending, BoxReader),
    wishes: Wishes,
    answers: Answers,
) {
    let Wishes { steers, stdout, stderr, mut interest, resumable } = wishes;
    let Answers { stdin, taken, end } = answers;
    let mut abandon = surroundings.abandon.clone();
    let mut steering = Steering { out: Outgoing::new(send), steers, stdout, stderr };
    let mut events = Incoming::new(recv);
    let (how, kept) = loop {
        tokio::select! {
            event = events.next() => match event {
                Ok(Event::Allow { up_to }) => stdin.up_to(up_to),
                Ok(Event::Taken { up_to }) => {
                    taken.send_replace(up_to);
                }
                Ok(Event::Refused(refusal @ Refusal::Gone(_))) => break (refused(refusal), false),
                Ok(Event::Exited(outcome)) if resumable => {
                    // It is kept until the user has the end.
                    break (exited(outcome), true);
                }
                Ok(Event::Exited(outcome)) => {
                    let _ = steering.out.stream().shutdown().await;
                    break (exited(outcome), false);
                }
                Ok(
                    Event::Started { .. }
                    | Event::Resumed { .. }
                    | Event::Attached(_)
                    | Event::Refused(_)
                    | Event::Preparing { .. },
                ) => {
                    break (no_answer(Fault::Agent, format!("agent {} broke the exec protocol", peer.name())), false);
                }
                Err(error) => break (broken(&peer, &surroundings, error.into()).await, false),
            },
            // A session that broke is told by `events`.
            never = steering.steer() => match never {},
            _ = &mut interest => {
                if resumable {
                    steering.leave().await;
                }
                // Otherwise dropping `send` resets the stream: the agent ends the process.
                return;
            }
            () = async { let _ = abandon.wait_for(|abandon| *abandon).await; } => {
                break (no_answer(Fault::Controller, "the controller was stopped, and ends the process"), false);
            }
        }
    };
    drop(stdin);
    let _ = end.send(how);
    if kept {
        tokio::select! {
            never = steering.steer() => match never {},
            _ = &mut interest => {}
            _ = events.next() => {}
        }
        steering.leave().await;
    }
}

/// What goes out.
struct Steering {
    out: Outgoing<Sending>,
    steers: mpsc::Receiver<Steer>,
    stdout: watch::Receiver<u64>,
    stderr: watch::Receiver<u64>,
}

impl Steering {
    /// Says what was still to be said, and ends the stream: that breaks nothing off.
    async fn leave(mut self) {
        while let Ok(steer) = self.steers.try_recv() {
            self.out.put(&steer).expect("a small enum can be encoded");
        }
        let last = async {
            self.out.send().await?;
            self.out.stream().shutdown().await
        };
        let _ = timeout(FAREWELL, last).await;
    }

    /// Passes on what is wished; of limits only the newest if they change faster. Never ends, and does no more when the
    /// stream broke. Cancel-safe.
    async fn steer(&mut self) -> Infallible {
        loop {
            if self.out.send().await.is_err() {
                pending::<()>().await;
            }
            let message = tokio::select! {
                biased;
                Some(steer) = self.steers.recv() => steer,
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
