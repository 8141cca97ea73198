//! Bundles on this machine: fetched from Kafka when something needs them, kept, and shared by all that use them.
//!
//! ```text
//! ticket (from the controller) ─▶ is it signed, does it fit ─▶ cache ─▶ Ready: directories, pinned
//!                                                               ▲ flight: one download, whoever waits for it
//! ```
//!
//! A download goes on as long as somebody waits for it. What was installed is whole and is what its digest says.

mod cache;
mod flight;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::{environment::Environment, events::Events, run_as::User, stream::SendHalf};
use crate::{
    bundle::{Archive, Digest, MAX_SIZE, MAX_USED, Name, Place, Target, Ticket, sign},
    bytelog::blob::Progress,
    frame,
    kafka::SharedCluster,
    protocol::exec::{Event, PREPARING, Refusal},
};

pub(super) use cache::Pin;
use cache::{Cache, Unkept};
use flight::Flight;

/// How a program is named that lies in a bundle: this and its path there.
pub(super) const INSIDE: &str = "bundle:";

/// How bundles are kept here.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// The agent's data directory.
    pub data: PathBuf,
    /// The room for them, in bytes.
    pub limit: u64,
    /// Whose bundles are taken; anybody's if nothing is said.
    pub keys: Option<Vec<sign::PublicKey>>,
    /// The topic.
    pub topic: String,
    /// Who must be able to read them.
    pub run_as: Option<User>,
}

/// All of them. Clones are handles of the same.
#[derive(Clone)]
pub(super) struct Bundles(Arc<Shared>);

struct Shared {
    cache: Cache,
    keys: Option<Vec<sign::PublicKey>>,
    topic: String,
    cluster: SharedCluster,
    flights: Mutex<BTreeMap<Digest, Flight>>,
}

/// Why a bundle is not to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// It is the same wherever and whenever it is tried.
    Refused(String),
    /// Later, or on another agent, it may do.
    NoRoom(String),
}

impl Failure {
    /// The reason.
    pub fn into_text(self) -> String {
        match self {
            Self::Refused(why) | Self::NoRoom(why) => why,
        }
    }
}

/// Bundles that are here, and stay as long as this does.
#[derive(Debug, Clone, Default)]
pub(super) struct Ready(Vec<(Name, Arc<Pin>)>);

/// What is to be had for one ticket.
struct Wanted<'a> {
    ticket: &'a Ticket,
    archive: Archive,
    place: &'a Place,
}

impl Bundles {
    /// Opens what is there.
    pub fn new(settings: Settings, cluster: SharedCluster) -> std::io::Result<Self> {
        let dir = std::path::absolute(&settings.data)?.join("bundles");
        let cache = Cache::open(dir.clone(), settings.limit)?;
        if let Some(user) = &settings.run_as {
            user.let_through(&std::path::absolute(&settings.data)?, &dir)?;
        }
        let Settings { keys, topic, .. } = settings;
        Ok(Self(Arc::new(Shared { cache, keys, topic, cluster, flights: Mutex::default() })))
    }

    /// The digests under which the tickets' files are kept here, as far as there are any: what the next agent pins.
    pub fn kept_as(tickets: &[Ticket]) -> Vec<Digest> {
        let here = Target::here();
        tickets.iter().filter_map(|ticket| ticket.choose(&here).ok()).map(|(archive, _)| archive.sha256).collect()
    }

    /// Pins what something uses that runs already. What is not there any more is not missed.
    pub fn pin(&self, digests: &[Digest]) -> Vec<Pin> {
        let pin = |digest| {
            self.0.cache.pin(digest).unwrap_or_else(|error| {
                tracing::warn!("a bundle that is used cannot be pinned: {error}");
                None
            })
        };
        digests.iter().filter_map(pin).collect()
    }

    /// Waits until all are here; how far that is, and what stands in the way, it tells in `told`. Cancel-safe.
    pub async fn get(&self, tickets: &[Ticket], told: &watch::Sender<Progress>) -> Result<Ready, Failure> {
        if tickets.len() > MAX_USED {
            return Err(Failure::Refused(format!("it uses more than {MAX_USED} bundles")));
        }
        // First all are looked at: what is refused costs no download.
        let wanted: Vec<Wanted<'_>> = tickets.iter().map(|ticket| self.look(ticket)).collect::<Result<_, _>>()?;
        let (mut ready, mut before) = (Vec::new(), 0);
        for Wanted { ticket, archive, place } in wanted {
            let name = &ticket.used.name;
            let pin = self.one(&archive, place, told, before).await;
            let failed = |why| format!("bundle {name}: {why}");
            let pin = pin.map_err(|failure| match failure {
                Failure::Refused(why) => Failure::Refused(failed(why)),
                Failure::NoRoom(why) => Failure::NoRoom(failed(why)),
            })?;
            before += archive.size;
            told.send_replace(Progress { done: before, stalled: None });
            ready.push((name.clone(), pin));
        }
        Ok(Ready(ready))
    }

    /// How many bytes the tickets stand for here.
    pub fn size(tickets: &[Ticket]) -> u64 {
        let here = Target::here();
        let sizes = tickets.iter().filter_map(|ticket| ticket.choose(&here).ok()).map(|(archive, _)| archive.size);
        sizes.fold(0, u64::saturating_add)
    }

    /// Whether these could be fetched, as far as that can be told at once.
    pub fn check(&self, tickets: &[Ticket]) -> Result<(), Failure> {
        tickets.iter().try_for_each(|ticket| self.look(ticket).map(drop))
    }

    fn look<'a>(&self, ticket: &'a Ticket) -> Result<Wanted<'a>, Failure> {
        let name = &ticket.used.name;
        let refuse = |why: String| Err(Failure::Refused(format!("bundle {name}: {why}")));
        let (archive, place) = ticket.choose(&Target::here()).map_err(|error| Failure::Refused(error.to_string()))?;
        if let Some(keys) = &self.0.keys
            && !sign::is_signed(&ticket.used.digest, &ticket.signatures, keys)
        {
            return refuse(
                "it is not signed by a key that this agent trusts (--require-signed); `rk bundle sign` signs it"
                    .to_owned(),
            );
        }
        if archive.size > MAX_SIZE {
            return refuse(format!("it has {} bytes, and none has more than {MAX_SIZE}", archive.size));
        }
        if let Err(error) = self.0.cache.check(archive.size) {
            return refuse(error.to_string());
        }
        Ok(Wanted { ticket, archive: *archive, place })
    }

    async fn one(
        &self,
        archive: &Archive,
        place: &Place,
        told: &watch::Sender<Progress>,
        before: u64,
    ) -> Result<Arc<Pin>, Failure> {
        let failed = |error: std::io::Error| Failure::NoRoom(Unkept::Disk(error).to_string());
        if let Some(pin) = self.0.cache.pin(&archive.sha256).map_err(failed)? {
            return Ok(Arc::new(pin));
        }
        let (mut progress, mut result) = flight::join(&self.0, archive, place);
        loop {
            tokio::select! {
                biased;
                ended = result.wait_for(Option::is_some) => {
                    // Its sender says how it ended before it goes.
                    let ended = ended.ok().and_then(|ended| ended.clone());
                    return ended.unwrap_or_else(|| Err(Failure::NoRoom("its download broke off".to_owned())));
                }
                Ok(()) = progress.changed() => {
                    let Progress { done, stalled } = progress.borrow_and_update().clone();
                    told.send_replace(Progress { done: before + done, stalled });
                }
            }
        }
    }
}

/// Who is told how far it is.
pub(super) trait Listener: Send {
    /// An error says that nobody listens any more.
    fn hear(&mut self, event: Event) -> BoxFuture<'_, std::io::Result<()>>;
}

impl Listener for Events {
    fn hear(&mut self, event: Event) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(async move { self.say(&event).await })
    }
}

impl Listener for Box<dyn SendHalf> {
    fn hear(&mut self, event: Event) -> BoxFuture<'_, std::io::Result<()>> {
        Box::pin(async move { frame::write(self, &event).await.map_err(std::io::Error::other) })
    }
}

/// Waits for the bundles of an execution, and says so meanwhile. The inner error is that nobody listens any more.
pub(super) fn prepare<'a>(
    bundles: Option<&'a Bundles>,
    tickets: &'a [Ticket],
    listener: &'a mut dyn Listener,
) -> BoxFuture<'a, Result<std::io::Result<Ready>, Refusal>> {
    Box::pin(wait(bundles, tickets, listener))
}

async fn wait(
    bundles: Option<&Bundles>,
    tickets: &[Ticket],
    listener: &mut dyn Listener,
) -> Result<std::io::Result<Ready>, Refusal> {
    if tickets.is_empty() {
        return Ok(Ok(Ready::default()));
    }
    let Some(bundles) = bundles else {
        return Err(Refusal::Failed("this agent takes no bundles".to_owned()));
    };
    let (told, of) = (watch::Sender::default(), Bundles::size(tickets));
    let get = bundles.get(tickets, &told);
    tokio::pin!(get);
    let mut due = tokio::time::interval(PREPARING / 2);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What is here needs no word.
    due.reset_after(Duration::from_millis(200));
    loop {
        tokio::select! {
            biased;
            ready = &mut get => {
                return ready.map(Ok).map_err(|failure| match failure {
                    Failure::Refused(why) => Refusal::Denied(why),
                    Failure::NoRoom(why) => Refusal::Failed(why),
                });
            }
            _ = due.tick() => {
                let done = told.borrow().done;
                if let Err(error) = listener.hear(Event::Preparing { done, of }).await {
                    return Ok(Err(error));
                }
            }
        }
    }
}

impl Ready {
    /// Tells a process where its bundles are. With `first` their programs are found before the machine's.
    pub fn describe(&self, environment: &mut Environment, first: bool) {
        if self.0.is_empty() {
            return;
        }
        let own = self.0.iter().flat_map(|(_, pin)| [pin.root().to_owned(), pin.root().join("bin")]);
        let machine = environment.value("PATH").cloned().unwrap_or_default();
        let machine = std::env::split_paths(&machine).collect::<Vec<_>>();
        let all: Vec<PathBuf> = match first {
            true => own.chain(machine).collect(),
            false => machine.into_iter().chain(own).collect(),
        };
        match std::env::join_paths(all) {
            Ok(path) => environment.set("PATH", path),
            Err(error) => {
                tracing::warn!("programs of bundles are not found in PATH: {error}; use a --data without ':'")
            }
        }
        for (name, pin) in &self.0 {
            environment.set(&name.variable(), pin.root());
        }
        if let Some((_, pin)) = self.0.first() {
            environment.set("RK_BUNDLE", pin.root());
        }
    }

    /// The directory of the first.
    pub fn root(&self) -> Option<&Path> {
        self.0.first().map(|(_, pin)| pin.root())
    }

    /// The directory of the bundle in which `file` lies, if it does in one.
    pub fn holding(&self, file: &Path) -> Option<&Path> {
        self.0.iter().map(|(_, pin)| pin.root()).find(|root| file.starts_with(root))
    }

    /// The file that `program` names, seen from `cwd`.
    pub fn find(&self, environment: &Environment, program: &str, cwd: &Path) -> Result<PathBuf, Refusal> {
        let Some(path) = program.strip_prefix(INSIDE) else { return environment.find(program, cwd) };
        let inside = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let found = self.0.iter().map(|(_, pin)| pin.root().join(path)).find(|file| inside && file.exists());
        let file = found.ok_or_else(|| Refusal::NotFound(format!("{path}: no bundle of this command has it")))?;
        environment.find(&file.to_string_lossy(), cwd)
    }
}

impl Shared {
    fn flights(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
