//! Agents that change to another version of their program: the order, and what becomes of it.
//!
//! An agent tells how its last change stands when it connects. In between it is asked, so that whoever looks sees what goes on
//! and a change that ends without a new session is told too.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::sleep;

use super::{Handle, call, directory::Directory, peer::Peer};
use crate::{
    api::{Agent, AgentState, ApiError, Code, agents::UpdateAgent},
    id::AgentName,
    link::Program,
    protocol::{call::Call, update::Order},
    update::Update,
};

/// How often an agent that changes is asked.
const LOOK: Duration = Duration::from_millis(500);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where somebody waits who only looks.
const SOON: Duration = Duration::from_secs(2);
/// The longest times that may be asked for.
const LONGEST_MS: u64 = 24 * 3600 * 1000;

impl Handle {
    /// Orders an agent to change. It has taken the order when this returns; what becomes of it stands in [`Agent::update`].
    pub async fn update_agent(&self, name: &AgentName, request: UpdateAgent) -> Result<Agent, ApiError> {
        let peer = self.session(name)?;
        if request.deadline_ms == 0 || request.deadline_ms.max(request.drain_ms) > LONGEST_MS {
            return Err(ApiError::new(
                Code::Invalid,
                "deadline_ms and drain_ms are at most a day, and deadline_ms at least 1",
            ));
        }
        if peer.profile().program.is_none() {
            let version = peer.profile().version;
            let message = format!(
                "agent {name} ({version}) cannot be updated from here; install the new version on its machine by hand, once"
            );
            return Err(ApiError::new(Code::AgentFailed, message));
        }
        let mut tickets = self.tickets(std::slice::from_ref(&request.bundle))?;
        let ticket = tickets.pop().ok_or_else(|| ApiError::new(Code::Invalid, "no bundle is named"))?;
        let order = Order {
            id: request.id,
            ticket,
            deadline: Duration::from_millis(request.deadline_ms),
            drain: Duration::from_millis(request.drain_ms),
            interrupt: request.interrupt,
            downgrade: request.allow_downgrade,
        };
        let body = postcard::to_stdvec(&order).map_err(|e| ApiError::new(Code::Internal, e.to_string()))?;
        call::whole(&peer, Call::Update, body.into(), self.patience()).await?;
        tracing::info!(agent = %name, to = %order.ticket.used.name, "an update was ordered");
        let directory = Arc::downgrade(&self.shared().directory);
        ask(&directory, &peer).await;
        tokio::spawn(follow(directory, peer));
        self.agent(name)
    }
}

impl Handle {
    /// One agent, and what its program is, which it does not tell unasked. One that does not answer soon is shown without.
    pub async fn show_agent(&self, name: &AgentName) -> Result<Agent, ApiError> {
        let agent = self.agent(name)?;
        if agent.digest.is_some() || agent.state != AgentState::Online {
            return Ok(agent);
        }
        match self.session(name) {
            Ok(peer) if peer.profile().program.is_some() => {
                if let Some(program) = look(&peer, SOON).await {
                    self.shared().directory.describe(&peer, program);
                }
                self.agent(name)
            }
            _ => Ok(agent),
        }
    }
}

/// Asks until the agent's change has ended, or its session.
pub(super) async fn follow(directory: Weak<Directory>, peer: Arc<dyn Peer>) {
    while ask(&directory, &peer).await.is_some_and(|update| !update.stage.is_end()) {
        sleep(LOOK).await;
    }
}

/// Asks once, and tells the directory. `None` if there is nothing to be asked any more.
async fn ask(directory: &Weak<Directory>, peer: &Arc<dyn Peer>) -> Option<Update> {
    while !peer.is_closed() {
        let answer = look(peer, PATIENCE).await;
        let directory = directory.upgrade()?;
        match answer {
            Some(program) => {
                let update = program.update.clone();
                directory.describe(peer, program);
                return update;
            }
            None => sleep(LOOK).await,
        }
    }
    None
}

/// What the agent says of its program; nothing if it does not know the question, or does not answer.
async fn look(peer: &Arc<dyn Peer>, patience: Duration) -> Option<Program> {
    let answer = call::whole(peer, Call::UpdateState, Bytes::new(), patience).await.ok()?;
    postcard::from_bytes(&answer).ok()
}

#[cfg(test)]
mod tests {
    use crate::{
        api::{Code, agents::UpdateAgent},
        controller::testing::*,
    };

    #[tokio::test]
    async fn an_agent_that_does_not_say_what_it_is_must_be_updated_by_hand() {
        let site = Site::new();
        let world = site.controller().await.expect("a leader");
        let _agent = world.agent("a").await;
        let request = UpdateAgent {
            id: 1,
            bundle: "rk-9.9.9".to_owned(),
            deadline_ms: 60_000,
            drain_ms: 0,
            interrupt: false,
            allow_downgrade: false,
        };
        let error = world.handle.update_agent(&name("a"), request.clone()).await.expect_err("an old one");
        assert!(error.code == Code::AgentFailed && error.message.contains("by hand"), "{error}");
        let error = world.handle.update_agent(&name("b"), request.clone()).await.expect_err("nobody");
        assert_eq!(error.code, Code::UnknownAgent);
        let odd = UpdateAgent { deadline_ms: 0, ..request };
        assert_eq!(world.handle.update_agent(&name("a"), odd).await.expect_err("no time").code, Code::Invalid);
    }
}
