//! All that the journal's events make: the state that a controller must not forget.

use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use tokio::sync::watch;

use super::{access::Tokens, bundles::Catalogue, directory::Directory, event::Event, jobs::Jobs};

/// The state. Clones are the same.
#[derive(Clone)]
pub struct Folded {
    /// Agents.
    pub directory: Arc<Directory>,
    /// Jobs.
    pub jobs: Arc<Jobs>,
    /// Bundles.
    pub catalogue: Catalogue,
    tokens: Arc<RwLock<Tokens>>,
    /// Changes with the tokens.
    turned: watch::Sender<()>,
}

impl Folded {
    /// Without anything yet.
    pub fn new(directory: Arc<Directory>, jobs: Arc<Jobs>, catalogue: Catalogue) -> Self {
        Self { directory, jobs, catalogue, tokens: Arc::default(), turned: watch::Sender::new(()) }
    }

    /// The API's tokens.
    pub fn tokens(&self) -> RwLockReadGuard<'_, Tokens> {
        self.tokens.read().expect("no holder panics")
    }

    /// Hears of each change of the tokens.
    pub fn token_changes(&self) -> watch::Receiver<()> {
        self.turned.subscribe()
    }

    /// Applies an event of the journal.
    pub fn fold(&self, event: Event) {
        match event {
            Event::Access(event) => {
                self.tokens.write().expect("no holder panics").fold(&event);
                self.turned.send_replace(());
            }
            Event::Bundle(event) => self.catalogue.fold(event),
            event => {
                let admitted = self
                    .directory
                    .ask(|registry| registry.admits(&event).map(|(name, labels)| (name.clone(), labels.clone())));
                if let Some((name, labels)) = admitted {
                    self.jobs.fold_agent(&name, &labels);
                }
                self.jobs.fold(&event);
                self.directory.fold(event);
            }
        }
    }

    /// Forgets all: the journal begins anew. Only before there are sessions.
    pub fn forget(&self) {
        self.directory.forget();
        self.jobs.forget();
        self.catalogue.forget();
        *self.tokens.write().expect("no holder panics") = Tokens::default();
    }

    /// All that must be remembered, as payloads of events.
    pub fn snapshot(&self) -> Vec<Bytes> {
        // Agents first: what else is said of them needs them.
        let agents = |registry: &super::registry::Registry| registry.snapshot().map(|event| event.encode()).collect();
        let mut state: Vec<Bytes> = self.directory.ask(agents);
        state.extend(self.jobs.snapshot());
        state.extend(self.tokens().snapshot().map(|event| Event::Access(event).encode()));
        state.extend(self.catalogue.snapshot().into_iter().map(|event| Event::Bundle(event).encode()));
        state
    }
}
