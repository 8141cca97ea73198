//! Streams to services of agents: opens them, and says whose fault it is when nobody answers.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::timeout,
};

use super::{
    Handle,
    exec::{Failure, Running, Surroundings, broken},
    peer::{BoxReader, Peer, Sending},
};
use crate::{
    api::{ExecEnd, RefusalKind},
    frame::{self, FrameError},
    id::AgentName,
    link::Lane,
    protocol::{Open, service::Start},
    service::{Channel, Ending, Outcome, Refusal, opened},
};

/// A stream to a service, as the agent's session has it: frames go both ways on it.
pub(super) struct Line {
    pub send: Sending,
    pub recv: BoxReader,
    pub way: Way,
}

/// Where a stream runs. It counts as something that runs as long as this lives.
pub(super) struct Way {
    peer: Arc<dyn Peer>,
    surroundings: Surroundings,
    _running: Running,
}

impl Handle {
    /// Opens a stream to a service of the agent `name`. An agent that does not answer costs the link's `connect_timeout`, one that is
    /// known to be offline nothing.
    pub async fn open_service(&self, name: &AgentName, start: Start) -> Result<(Channel, Ending), Outcome> {
        let budget = self.shared().budget.clone();
        let line = self.service_line(name, start).await?;
        let recv = Counted { inner: line.recv, _way: line.way };
        Ok(opened(recv, line.send, &budget))
    }

    pub(super) async fn service_line(&self, name: &AgentName, start: Start) -> Result<Line, Outcome> {
        if self.is_draining() {
            let text = "the controller drains and starts nothing new; try again".to_owned();
            return Err(Outcome::Refused(Refusal::Busy, text));
        }
        let (peer, surroundings, running) = self.surroundings(name).map_err(outcome)?;
        let open = async {
            let (mut send, recv) = peer.open(Lane::Bulk).await?;
            frame::write(&mut send, &Open::Service(start)).await?;
            Ok::<_, Failure>((send, recv))
        };
        match timeout(surroundings.patience, open).await {
            Ok(Ok((send, recv))) => {
                let way = Way { peer, surroundings, _running: running };
                Ok(Line { send, recv, way })
            }
            Ok(Err(failure)) => Err(outcome(broken(&peer, &surroundings, failure).await)),
            Err(_) => Err(Outcome::NoAnswer(format!(
                "agent {name} did not answer within {:?}; `rk agents show {name}` tells how it is",
                surroundings.patience
            ))),
        }
    }
}

impl Way {
    /// How a stream ended whose outcome did not come.
    pub async fn broke(&self) -> Outcome {
        outcome(broken(&self.peer, &self.surroundings, Failure::Frame(FrameError::Ended)).await)
    }
}

/// An execution's end as a service has it: only ends of what did not run come here.
fn outcome(end: ExecEnd) -> Outcome {
    match end {
        ExecEnd::Refused { reason, message } => {
            let refusal = match reason {
                RefusalKind::UnknownAgent => Refusal::UnknownAgent,
                RefusalKind::Offline => Refusal::Offline,
                RefusalKind::Busy | RefusalKind::Draining => Refusal::Busy,
                RefusalKind::Forbidden => Refusal::Denied,
                _ => Refusal::Invalid,
            };
            Outcome::Refused(refusal, message)
        }
        ExecEnd::NoAnswer { message, .. } => Outcome::NoAnswer(message),
        other => Outcome::NoAnswer(format!("{other:?}")),
    }
}

/// A stream that counts as something that runs.
struct Counted {
    inner: BoxReader,
    _way: Way,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}
