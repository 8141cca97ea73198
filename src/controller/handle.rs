//! What can be asked of a running controller: the one face that HTTP, benches and tests use.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    artifacts::Lists,
    audit::Audit,
    bundles::{Catalogue, Uploads},
    call,
    directory::{Directory, Standing},
    exec::{self, Execution, Running, Surroundings},
    feed::Feed,
    jobs::Jobs,
    limiter::Limiter,
    peer::{BoxReader, Endpoints, Peer, Sending},
    provision::{Login, Provision},
    snapshots::Legacy,
    store::{Store, unknown_agent},
};
use crate::{
    api::{
        AddAgent, AddedAgent, Agent, AgentCondition, AgentList, ApiError, Code, ExecEnd, ExecRequest, Fault,
        KafkaStatus, RefusalKind, RemovedAgent, Status, exec::ExecResume,
    },
    bundle::sign::PublicKey,
    certs::{State, Validity},
    clock,
    id::AgentName,
    kafka::SharedCluster,
    layout::Layout,
    link::{self, Credential, Fingerprint, Lane},
    protocol::{
        allowance::Budget,
        call::{Call, Condition},
    },
    selector::{self, Selector},
};

/// A running controller. Clones are handles of the same.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

/// What a controller consists of.
pub(super) struct Shared {
    pub(super) link: link::Config,
    pub(super) max_executions: u32,
    pub(super) fingerprint: Fingerprint,
    pub(super) epoch: u32,
    pub(super) directory: Arc<Directory>,
    pub(super) endpoints: Arc<dyn Endpoints>,
    pub(super) cluster: SharedCluster,
    pub(super) jobs: Arc<Jobs>,
    pub(super) store: Store,
    pub(super) executions: watch::Sender<u32>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) abandon: watch::Sender<bool>,
    pub(super) budget: Budget,
    pub(super) audit: Audit,
    /// Where other systems are told what happens.
    pub(super) feed: Option<Feed>,
    /// Where new agents are written to, unless somebody says.
    pub(super) layout: Layout,
    /// What makes what agents need in Kafka.
    pub(super) provision: Option<Arc<dyn Provision>>,
    /// Certificates that are in use.
    pub(super) certificates: Vec<(String, Validity)>,
    /// The bundles that there are.
    pub(super) catalogue: Catalogue,
    /// Archives that become parts of some.
    pub(super) uploads: Uploads,
    /// Lists of artifacts that were read.
    pub(super) lists: Lists,
    /// Whose bundles are taken.
    pub(super) require_signed: Option<Vec<PublicKey>>,
    /// Requests with a wrong token.
    pub(super) unauthorized: AtomicU64,
    /// How often the API is asked.
    pub(super) limiter: Limiter,
    /// Agents that are being given a new secret.
    pub(super) rotating: Mutex<BTreeSet<AgentName>>,
    /// Agents for which something is made in Kafka, or taken away.
    pub(super) provisioning: Mutex<BTreeSet<AgentName>>,
}

/// How far the controller is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not at all.
    Serving,
    /// It starts nothing new.
    Draining,
}

/// Control partitions should have no more agents than this: all of them read all its records.
const AGENTS_PER_PARTITION: usize = 16;

impl Handle {
    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    /// How the controller is.
    pub fn status(&self) -> Status {
        let shared = &self.0;
        let now = shared.directory.now();
        let (agents, unreachable_partitions) =
            shared.directory.ask(|registry| (registry.counts(), registry.unreachable_partitions(now)));
        let health = shared.store.journal().health().borrow().clone();
        let detail = if !health.is_reachable() {
            let text = health.to_string();
            Some(text.strip_prefix("Kafka unreachable: ").unwrap_or(&text).to_owned())
        } else if !unreachable_partitions.is_empty() {
            Some("the controller's own records do not come back; is a broker down?".to_owned())
        } else {
            None
        };
        let partitions = shared.link.partitions;
        let mut warnings = Vec::new();
        if (agents.total() as usize).div_ceil(AGENTS_PER_PARTITION) > partitions as usize {
            warnings.push(format!(
                "{} agents share {partitions} control partitions, more than {AGENTS_PER_PARTITION} each; \
                 use --partitions {} with topics of a new --prefix",
                agents.total(),
                (agents.total() as usize).div_ceil(AGENTS_PER_PARTITION),
            ));
        }
        warnings.extend(ending(&shared.certificates, (clock::unix_ms() / 1000) as i64));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: now.as_secs(),
            prefix: shared.link.prefix.to_string(),
            epoch: shared.epoch,
            fingerprint: shared.fingerprint.to_string(),
            kafka: KafkaStatus { reachable: detail.is_none(), detail, unreachable_partitions },
            agents,
            partitions,
            executions: *shared.executions.borrow(),
            jobs: shared.jobs.counts(),
            warnings,
        }
    }

    /// The agents that `selector` selects, by name.
    pub fn agents(&self, selector: &Selector) -> AgentList {
        let mut agents = self.0.directory.agents(selector, &*self.0.endpoints);
        self.0.jobs.complete(&mut agents);
        AgentList { agents }
    }

    /// One agent.
    pub fn agent(&self, name: &AgentName) -> Result<Agent, ApiError> {
        let mut agent = self.0.directory.agent(name, &*self.0.endpoints).ok_or_else(|| unknown_agent(name))?;
        self.0.jobs.complete(std::slice::from_mut(&mut agent));
        Ok(agent)
    }

    /// Adds an agent. It is in the journal when this returns.
    pub async fn add_agent(&self, request: AddAgent) -> Result<AddedAgent, ApiError> {
        selector::check(&request.labels).map_err(|e| ApiError::new(Code::Invalid, e.to_string()))?;
        let layout = request.layout.unwrap_or(self.0.layout);
        let credential = Credential::generate(request.name, self.0.fingerprint);
        let name = &credential.name;
        self.0.store.add_agent(name, credential.secret_hash(), request.labels).await?;
        let made = match self.prepare(name, layout).await {
            Ok(made) => made,
            Err(error) => {
                // Nobody has its credential, and the name is free again.
                self.retire(name.clone(), true);
                self.0.store.remove_agent(name).await?;
                return Err(error);
            }
        };
        tracing::info!(agent = %name, %layout, "added");
        Ok(AddedAgent {
            credential: credential.to_text(),
            prefix: self.0.link.prefix.to_string(),
            partitions: self.0.link.partitions,
            layout,
            kafka: made.login.map(Login::told),
            commands: made.left,
            name: credential.name,
        })
    }

    /// Removes an agent and ends its session.
    pub async fn remove_agent(&self, name: &AgentName) -> Result<RemovedAgent, ApiError> {
        let had_session = self.session(name).is_ok();
        self.retire(name.clone(), true);
        self.0.store.remove_agent(name).await?;
        tracing::info!(agent = %name, "removed");
        Ok(RemovedAgent { name: name.clone(), had_session })
    }

    /// The session of an agent that can be worked with.
    pub fn session(&self, name: &AgentName) -> Result<Arc<dyn Peer>, ApiError> {
        match self.0.directory.standing(name) {
            Standing::Unknown => Err(unknown_agent(name)),
            Standing::Offline => Err(ApiError::new(Code::AgentOffline, offline(name))),
            Standing::Here(peer) => Ok(peer),
        }
    }

    /// Sends a call's body to an agent and returns the answer's.
    pub async fn call(&self, name: &AgentName, call: Call, body: Bytes) -> Result<Bytes, ApiError> {
        call::whole(&self.session(name)?, call, body, self.patience()).await
    }

    /// A call whose bodies stream: writes go to the agent, and its answer is waited for by [`answer`](Self::answer).
    pub(super) async fn open_call(
        &self,
        name: &AgentName,
        call: Call,
        lane: Lane,
    ) -> Result<(Arc<dyn Peer>, Sending, BoxReader), ApiError> {
        let peer = self.session(name)?;
        let (send, recv) = call::open(&peer, call, lane, self.patience()).await?;
        Ok((peer, send, recv))
    }

    /// Waits for the answer to a call; its body follows.
    pub(super) async fn answer(&self, peer: &Arc<dyn Peer>, recv: BoxReader) -> Result<BoxReader, ApiError> {
        call::answered(peer, recv, self.patience()).await
    }

    /// Asks an agent how it is.
    pub async fn condition(&self, name: &AgentName) -> Result<AgentCondition, ApiError> {
        let before = self.0.directory.now();
        let answer = self.call(name, Call::Condition, Bytes::new()).await?;
        let condition: Condition = postcard::from_bytes(&answer)
            .map_err(|e| ApiError::new(Code::AgentFailed, format!("agent {name} answers what is no condition: {e}")))?;
        let took = self.0.directory.now().saturating_sub(before);
        Ok(AgentCondition {
            running: condition.running,
            uptime: condition.uptime,
            took_us: took.as_micros().try_into().unwrap_or(u64::MAX),
        })
    }

    /// Starts a process on an agent; the error says how it ended without having run. An agent that does not answer
    /// costs the link's `connect_timeout`, one that is known to be offline nothing.
    pub async fn exec(&self, request: ExecRequest) -> Result<Execution, ExecEnd> {
        if self.is_draining() {
            let message = "the controller drains and starts nothing new; try again".to_owned();
            return Err(ExecEnd::Refused { reason: RefusalKind::Draining, message });
        }
        let (peer, surroundings, running) = self.surroundings(&request.agent)?;
        let refused = |error: ApiError| ExecEnd::Refused { reason: RefusalKind::Invalid, message: error.message };
        let bundles = self.tickets(&request.bundles).map_err(refused)?;
        exec::start(peer, (request, bundles), surroundings, running).await
    }

    /// Comes back to a process, also while the controller drains.
    pub async fn resume_exec(&self, request: ExecResume) -> Result<Execution, ExecEnd> {
        let (peer, surroundings, running) = self.surroundings(&request.agent)?;
        exec::resume(peer, request, surroundings, running).await
    }

    /// What an execution on the agent `name` needs.
    pub(super) fn surroundings(&self, name: &AgentName) -> Result<(Arc<dyn Peer>, Surroundings, Running), ExecEnd> {
        let refused = |reason, message: String| Err(ExecEnd::Refused { reason, message });
        let peer = match self.0.directory.standing(name) {
            Standing::Unknown => return refused(RefusalKind::UnknownAgent, unknown_agent(name).message),
            Standing::Offline => return refused(RefusalKind::Offline, offline(name)),
            Standing::Here(peer) => peer,
        };
        let running = Running::new(&self.0.executions);
        if *self.0.executions.borrow() > self.0.max_executions {
            let message = format!("{} executions run already; try again", self.0.max_executions);
            return refused(RefusalKind::Busy, message);
        }
        let shared = self.0.clone();
        let partition = shared.endpoints.partition_of(name);
        let blame = move || {
            let now = shared.directory.now();
            if *shared.abandon.borrow() {
                Fault::Controller
            } else if shared.directory.ask(|registry| registry.is_reachable(now, partition)) {
                Fault::Agent
            } else {
                Fault::Kafka
            }
        };
        let surroundings = Surroundings {
            patience: self.patience(),
            blame: Arc::new(blame),
            abandon: self.0.abandon.subscribe(),
            budget: self.0.budget.clone(),
        };
        Ok((peer, surroundings, running))
    }

    /// Whether nothing new is started.
    pub(super) fn is_draining(&self) -> bool {
        *self.0.phase.borrow() != Phase::Serving
    }

    /// Starts nothing new from now on.
    pub(super) fn drain(&self) {
        self.0.phase.send_replace(Phase::Draining);
    }

    /// Gives up all executions: their processes are ended.
    pub(super) fn abandon(&self) {
        self.drain();
        self.0.abandon.send_replace(true);
    }

    /// Waits until all executions were given up.
    pub(super) async fn abandoned(&self) {
        // The sender lives as long as this handle.
        let _ = self.0.abandon.subscribe().wait_for(|abandoned| *abandoned).await;
    }

    /// Waits until nothing runs.
    pub(super) async fn idle(&self) {
        let mut executions = self.0.executions.subscribe();
        // The sender lives as long as this handle.
        let _ = executions.wait_for(|running| *running == 0).await;
    }

    /// What must outlive the journal if that is deleted and created anew.
    pub(super) fn legacy(&self) -> Legacy {
        Legacy { epoch: self.0.epoch, state: self.0.store.state().snapshot() }
    }

    /// Where it is noted who did what.
    pub(super) fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// Somebody showed a wrong token.
    pub(super) fn count_unauthorized(&self) {
        self.0.unauthorized.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    pub(super) fn patience(&self) -> Duration {
        self.0.link.connect_timeout
    }
}

/// A warning for each certificate that ends soon, or has.
fn ending(certificates: &[(String, Validity)], now_s: i64) -> Vec<String> {
    let told = |(what, validity): &(String, Validity)| match validity.state(now_s) {
        State::Good(_) => None,
        State::Ending(days) => {
            Some(format!("the certificate of {what} ends in {days} days; renew it, and start the controller again"))
        }
        State::Ended(_) => {
            Some(format!("the certificate of {what} has ended; renew it, and start the controller again"))
        }
        State::NotYet(_) => Some(format!("the certificate of {what} is not valid yet; compare this machine's clock")),
    };
    certificates.iter().filter_map(told).collect()
}

fn offline(name: &AgentName) -> String {
    format!("agent {name} is offline; start it with `rk agent run`, or see `rk agents show {name}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_that_end_within_30_days_are_told_and_others_are_not() {
        let now = 1_700_000_000;
        let of = |days: i64| Validity { not_before: now - 86_400, not_after: now + days * 86_400 };
        let all = [("a", 31), ("b", 29), ("c", -1_i64)].map(|(what, days)| (what.to_owned(), of(days)));
        let warnings = ending(&all, now);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].contains("of b ends in 29 days") && warnings[1].contains("of c has ended"), "{warnings:?}");
    }
}
