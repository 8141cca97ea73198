//! What agents need in Kafka, made when they come and taken away when they go. One after the other for each agent: what is taken away
//! for one that went must not be what was just made for its return.

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use tokio::time::sleep;

use super::{
    Handle,
    event::Event,
    provision::{Made, Provision},
};
use crate::{
    api::{ApiError, Code},
    id::AgentName,
    kafka::Error,
    layout::Layout,
};

/// How long an agent that goes may take to hear why, before Kafka keeps it out.
const TOLD: Duration = Duration::from_secs(3);
/// How long the topic of an agent that was removed is kept.
const GRACE: Duration = Duration::from_secs(60);
/// In so long agents that were told nothing come back to a controller that has just started, twice over.
const BACK: Duration = Duration::from_secs(15);
/// How long until a cluster that is away is asked again.
const AGAIN: Duration = Duration::from_secs(10);
/// How often is looked whether somebody else is done with an agent.
const LOOK: Duration = Duration::from_millis(50);

impl Handle {
    /// Makes what a new agent needs in Kafka, and notes where it is written to.
    pub(super) async fn prepare(&self, name: &AgentName, layout: Layout) -> Result<Made, ApiError> {
        let shared = self.shared();
        if layout != Layout::default() {
            shared.store.commit(Event::AgentPlaced { name: name.clone(), layout }).await?;
        }
        let Some(provision) = &shared.provision else {
            return match layout {
                Layout::Shared => Ok(Made::default()),
                Layout::PerAgent => Err(ApiError::new(
                    Code::Invalid,
                    "this controller makes no topics for agents; use the shared layout, or --topics-manage auto",
                )),
            };
        };
        let _turn = Turn::wait(&shared.provisioning, name).await;
        provision.make(name, layout).await.map_err(|error| not_made(name, &error))
    }

    /// Makes the login of an agent anew that was taken away when it was revoked, where agents have logins of their own. Nothing
    /// is taken away as long as the turn is held, which ends when it is known that the agent may come back.
    pub(super) async fn let_in_again<'a>(&'a self, name: &'a AgentName) -> Result<(Made, Turn<'a>), ApiError> {
        let shared = self.shared();
        let turn = Turn::wait(&shared.provisioning, name).await;
        let Some(provision) = &shared.provision else { return Ok((Made::default(), turn)) };
        let layout = shared.directory.ask(|registry| registry.layout(name));
        let made = provision.let_in(name, layout).await.map_err(|error| not_made(name, &error))?;
        Ok((made, turn))
    }

    /// Takes away what an agent has in Kafka, once it was told why. Its topic goes later, if it does not come back.
    pub(super) fn retire(&self, name: AgentName, removed: bool) {
        let Some(provision) = self.shared().provision.clone() else { return };
        let handle = self.clone();
        tokio::spawn(async move {
            sleep(TOLD).await;
            handle.bar(&*provision, &name).await;
            if removed {
                sleep(GRACE).await;
                handle.clear(&*provision, &name).await;
            }
        });
    }

    /// Takes away what agents left that were removed or revoked when no controller was there to do it. Only what the journal knows to
    /// be theirs: what it never knew, or forgot, is left to `rk topics plan`.
    pub(super) async fn sweep(self) {
        let shared = self.shared();
        let Some(provision) = shared.provision.clone() else { return };
        // Agents that come back now are told first.
        sleep(TOLD).await;
        let found = loop {
            match provision.found().await {
                Ok(found) => break found,
                Err(error) if error.is_transient() => sleep(AGAIN).await,
                Err(error) => {
                    let cure = "`rk topics plan` finds it";
                    return tracing::warn!(%error, "what removed agents left in Kafka was not looked for; {cure}");
                }
            }
        };
        let is_gone = |name: &AgentName| shared.directory.ask(|r| r.is_removed(name) || r.is_revoked(name));
        let gone: Vec<AgentName> = found.into_iter().filter(is_gone).collect();
        for name in &gone {
            tracing::info!(agent = %name, "taking away what it left in Kafka");
            self.bar(&*provision, name).await;
        }
        sleep(BACK).await;
        for name in &gone {
            self.clear(&*provision, name).await;
        }
    }

    /// Takes login and rights away from an agent that may not come.
    async fn bar(&self, provision: &dyn Provision, name: &AgentName) {
        let shared = self.shared();
        let _turn = Turn::wait(&shared.provisioning, name).await;
        let (here, layout) = shared.directory.ask(|r| (r.contains(name) && !r.is_revoked(name), r.layout(name)));
        if !here && let Err(error) = provision.bar(name, layout).await {
            tracing::warn!(agent = %name, %error, "its login in Kafka was not taken away; the controller's next start tries again");
        }
    }

    /// Deletes the topic of an agent that was removed.
    async fn clear(&self, provision: &dyn Provision, name: &AgentName) {
        let shared = self.shared();
        let _turn = Turn::wait(&shared.provisioning, name).await;
        let (removed, layout) = shared.directory.ask(|r| (r.is_removed(name), r.layout(name)));
        if removed
            && layout == Layout::PerAgent
            && let Err(error) = provision.clear(name).await
        {
            tracing::warn!(agent = %name, %error, "its topic was not deleted; `rk topics plan` finds it");
        }
    }
}

fn not_made(name: &AgentName, error: &Error) -> ApiError {
    let code = if error.is_transient() { Code::KafkaUnreachable } else { Code::Invalid };
    ApiError::new(code, format!("what agent {name} needs in Kafka could not be made: {error}"))
}

/// The right to change something about one agent; given back when dropped.
pub(super) struct Turn<'a>(&'a Mutex<BTreeSet<AgentName>>, &'a AgentName);

impl<'a> Turn<'a> {
    /// Takes it, if nobody has it. `taken` are those of whom somebody has it.
    pub fn take(taken: &'a Mutex<BTreeSet<AgentName>>, name: &'a AgentName) -> Option<Self> {
        taken.lock().expect("no holder panics").insert(name.clone()).then(|| Self(taken, name))
    }

    /// Waits until it can be taken. Whoever has it waits for Kafka and the journal, which is bounded.
    async fn wait(taken: &'a Mutex<BTreeSet<AgentName>>, name: &'a AgentName) -> Self {
        loop {
            match Self::take(taken, name) {
                Some(turn) => return turn,
                None => sleep(LOOK).await,
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().expect("no holder panics").remove(self.1);
    }
}
