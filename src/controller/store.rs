//! The journal, folded into the directory: durable first, then true.
//!
//! What is asked for is appended and read back before it has an effect, so that an answer is never taken back by a
//! controller that had already lost its claim. Nobody else folds.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Error, access,
    event::{Event, UnknownEvent},
    feed::{Feed, Glance},
    folded::Folded,
};
use crate::{
    api::{ApiError, Code},
    id::AgentName,
    journal::{self, Committed, Journal, Snapshot},
    link::SecretHash,
    selector::Labels,
};

/// Writes events and waits until they are true.
#[derive(Clone)]
pub struct Store {
    journal: Journal,
    state: Folded,
    progress: watch::Sender<Progress>,
    /// What was claimed.
    epoch: Arc<OnceLock<u32>>,
    patience: Duration,
}

/// How far the journal was folded.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// Epoch and number of the last folded event; an epoch's claim counts as its event 0.
    at: (u32, u64),
    end: Option<End>,
}

/// The state as of a snapshot, as payloads.
pub type Copy = (Snapshot, Vec<Bytes>);

/// Why folding ended.
#[derive(Debug, Clone)]
enum End {
    Superseded(u32),
    Unknown(UnknownEvent),
    Journal(journal::Error),
    Closed,
}

impl Store {
    /// Folds the journal into `state` from now on. A change waits up to `patience` to be read back. Copies of
    /// the state come out where snapshots begin; with a `founding` state that is the first of them, and nothing before counts.
    /// What happens is told to `feed`.
    pub fn new(
        journal: Journal,
        committed: mpsc::Receiver<Committed>,
        state: Folded,
        founding: Option<Vec<Bytes>>,
        feed: Option<Feed>,
        patience: Duration,
    ) -> (Self, mpsc::Receiver<Copy>) {
        let progress = watch::Sender::new(Progress::default());
        let (copies, copies_out) = mpsc::channel(1);
        let fold = Fold { state: state.clone(), progress: progress.clone(), leading: false, founding, copies, feed };
        tokio::spawn(fold.run(committed));
        (Self { journal, state, progress, epoch: Arc::default(), patience }, copies_out)
    }

    /// Takes the journal over with an epoch above this one, and returns the epoch once everything before it was folded. Bounded
    /// by the caller.
    pub async fn claim(&self, above: u32) -> Result<u32, Error> {
        let epoch = tokio::select! {
            epoch = self.journal.claim_above(above) => epoch?,
            error = self.ended() => return Err(error),
        };
        self.reached((epoch, 0)).await?;
        let _ = self.epoch.set(epoch);
        Ok(epoch)
    }

    /// Adds an agent.
    pub async fn add_agent(&self, name: &AgentName, secret: SecretHash, labels: Labels) -> Result<(), ApiError> {
        let exists = || {
            ApiError::new(
                Code::AgentExists,
                format!("agent {name} exists already; `rk agents rm {name}` first, or take another name"),
            )
        };
        if self.state.directory.ask(|registry| registry.contains(name)) {
            return Err(exists());
        }
        self.commit(Event::AgentAdded { name: name.clone(), secret, labels }).await?;
        // Of two that were under way at once, the first in the journal won.
        match self.state.directory.ask(|registry| registry.secrets(0, name)) {
            Some(stored) if stored.newest == secret => Ok(()),
            _ => Err(exists()),
        }
    }

    /// Removes an agent.
    pub async fn remove_agent(&self, name: &AgentName) -> Result<(), ApiError> {
        if !self.state.directory.ask(|registry| registry.contains(name)) {
            return Err(unknown_agent(name));
        }
        self.commit(Event::AgentRemoved { name: name.clone() }).await
    }

    /// Makes a token of the API.
    pub async fn grant(&self, grant: access::Grant) -> Result<(), ApiError> {
        let (name, hash) = (grant.name.clone(), grant.hash);
        let exists = || {
            let cure = format!("`rk access revoke {name}` first, or take another name");
            ApiError::new(Code::Exists, format!("there is a token of {name} already; {cure}"))
        };
        if self.state.tokens().get(&name).is_some() {
            return Err(exists());
        }
        if self.state.tokens().are_full() {
            let message = format!("there are {} tokens already; revoke some (`rk access ls`)", access::MAX_TOKENS);
            return Err(ApiError::new(Code::Invalid, message));
        }
        self.commit(Event::Access(access::Event::Granted(grant))).await?;
        // Of two that were under way at once, the first in the journal won.
        match self.state.tokens().get(&name) {
            Some(stored) if stored.hash == hash => Ok(()),
            _ => Err(exists()),
        }
    }

    /// Ends a token.
    pub async fn revoke(&self, name: &AgentName) -> Result<(), ApiError> {
        if self.state.tokens().get(name).is_none() {
            let message = format!("there is no token of {name}; `rk access ls` lists them");
            return Err(ApiError::new(Code::NotFound, message));
        }
        self.commit(Event::Access(access::Event::Revoked { name: name.clone() })).await
    }

    /// Waits until the journal can't be followed any more, or another controller took it over.
    pub async fn ended(&self) -> Error {
        let mut progress = self.progress.subscribe();
        match progress.wait_for(|progress| progress.end.is_some()).await {
            Ok(progress) => progress.end.clone().unwrap_or(End::Closed).into(),
            Err(_) => End::Closed.into(),
        }
    }

    /// What was folded.
    pub fn state(&self) -> &Folded {
        &self.state
    }

    /// The journal itself, for its high-water mark and health.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Appends an event, and waits until it was folded.
    pub async fn commit(&self, event: Event) -> Result<(), ApiError> {
        let commit = async {
            let epoch = *self.epoch.get().ok_or(journal::Error::NotLeader)?;
            match self.journal.append(event.encode()).await {
                Ok(seq) => self.reached((epoch, seq)).await,
                // Once folding has ended the journal is closed; why it ended says more.
                Err(error) => Err(self.progress.borrow().end.clone().map_or_else(|| error.into(), Error::from)),
            }
        };
        match timeout(self.patience, commit).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error @ Error::Superseded { .. })) => Err(ApiError::new(Code::Superseded, error.to_string())),
            Ok(Err(error)) => {
                if let Error::Journal(error) = &error {
                    self.note_failure(error);
                }
                Err(ApiError::new(Code::Internal, error.to_string()))
            }
            Err(_) => Err(ApiError::new(
                Code::KafkaUnreachable,
                format!(
                    "the change did not come back from Kafka within {:?} and may still happen; see `rk status`",
                    self.patience
                ),
            )),
        }
    }

    /// An event was not taken. If that is because the journal holds something else than this controller wrote, it must not
    /// go on; whatever else ends it is told by the journal itself.
    pub fn note_failure(&self, error: &journal::Error) {
        if let journal::Error::Diverged { .. } = error {
            self.progress.send_modify(|progress| {
                progress.end.get_or_insert_with(|| End::Journal(error.clone()));
            });
        }
    }

    async fn reached(&self, at: (u32, u64)) -> Result<(), Error> {
        let mut progress = self.progress.subscribe();
        let reached = progress.wait_for(|progress| progress.at >= at || progress.end.is_some()).await;
        match reached {
            Ok(progress) if progress.at >= at => Ok(()),
            Ok(progress) => Err(progress.end.clone().unwrap_or(End::Closed).into()),
            Err(_) => Err(End::Closed.into()),
        }
    }
}

/// The answer to a request about an agent that does not exist.
pub fn unknown_agent(name: &AgentName) -> ApiError {
    ApiError::new(Code::UnknownAgent, format!("there is no agent {name}; `rk agents ls` lists them"))
}

/// Who folds the journal.
struct Fold {
    state: Folded,
    progress: watch::Sender<Progress>,
    leading: bool,
    /// The state that a founding snapshot will hold. Until it is written what the journal holds counts for nothing.
    founding: Option<Vec<Bytes>>,
    copies: mpsc::Sender<Copy>,
    /// Who is told what happens.
    feed: Option<Feed>,
}

impl Fold {
    async fn run(mut self, mut committed: mpsc::Receiver<Committed>) {
        let end = loop {
            match committed.recv().await {
                Some(committed) => match self.take(committed) {
                    Ok(()) => {}
                    Err(end) => break end,
                },
                None => break End::Closed,
            }
        };
        self.progress.send_modify(|progress| {
            progress.end.get_or_insert(end);
        });
    }

    fn take(&mut self, committed: Committed) -> Result<(), End> {
        match committed {
            Committed::Event { epoch, seq, payload, .. } => {
                self.tell(epoch, seq, &payload)?;
                self.progress.send_modify(|progress| progress.at = (epoch, seq));
            }
            Committed::Claimed { epoch, mine } => {
                if self.leading && !mine {
                    return Err(End::Superseded(epoch));
                }
                self.leading |= mine;
                if let Some(feed) = self.feed.as_ref().filter(|_| mine) {
                    feed.lead(epoch);
                }
                self.progress.send_modify(|progress| progress.at = (epoch, 0));
            }
            Committed::Restore(snapshot) => {
                if self.leading {
                    return Err(End::Superseded(snapshot.epoch));
                }
                self.state.forget();
                self.progress.send_modify(|progress| progress.at = (snapshot.epoch, snapshot.seq));
            }
            Committed::Restored { payload } => self.fold(&payload)?,
            Committed::SnapshotBegun(snapshot) => self.copy(snapshot)?,
            Committed::CaughtUp | Committed::RestoreEnd => {}
            Committed::Failed(error) => return Err(End::Journal(error)),
        }
        Ok(())
    }

    fn fold(&self, payload: &[u8]) -> Result<(), End> {
        if self.founding.is_some() {
            return Ok(());
        }
        self.state.fold(Event::decode(payload).map_err(End::Unknown)?);
        Ok(())
    }

    /// Folds an event, and tells what it changed.
    fn tell(&self, epoch: u32, seq: u64, payload: &[u8]) -> Result<(), End> {
        let Some(feed) = self.feed.as_ref().filter(|_| self.founding.is_none()) else { return self.fold(payload) };
        let event = Event::decode(payload).map_err(End::Unknown)?;
        let glance = Glance::before(&self.state, &event);
        self.state.fold(event);
        if let Some(happening) = glance.after(&self.state) {
            feed.journalled(epoch, seq, happening);
        }
        Ok(())
    }

    /// The state as it is here goes into the journal.
    fn copy(&mut self, snapshot: Snapshot) -> Result<(), End> {
        let state = match self.founding.take() {
            None => self.state.snapshot(),
            Some(state) => {
                self.state.forget();
                state.iter().try_for_each(|payload| self.fold(payload))?;
                state
            }
        };
        // One that nobody takes stays torn, which costs nothing.
        let _ = self.copies.try_send((snapshot, state));
        Ok(())
    }
}

impl From<End> for Error {
    fn from(end: End) -> Self {
        match end {
            End::Superseded(epoch) => Self::Superseded { epoch },
            End::Unknown(unknown) => Self::Event(unknown),
            End::Journal(journal::Error::Superseded { by }) => Self::Superseded { epoch: by },
            End::Journal(error) => error.into(),
            End::Closed => Self::Journal(journal::Error::Closed),
        }
    }
}
