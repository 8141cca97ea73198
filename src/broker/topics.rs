//! The topics that exist: their ids, partitions and settings, in one file that is replaced as a whole.
//!
//! Promises that a topic is known only after it is on stable storage, that a topic's id never comes back, and that a
//! directory left by a deleted or half-created topic is never taken for another's. Everything that changes something
//! blocks on the disk, and is for threads that may; looking up never does.

use super::clock;
use super::files;
use super::log::partition::Partition;
use super::settings::{self, Defaults, Refused, Settings};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use uuid::Uuid;

const STORE_FILE: &str = "topics.json";
/// In each partition's directory: the id of the topic that it belongs to.
const ID_FILE: &str = "topic-id";
const DELETED_SUFFIX: &str = ".deleted";
/// Producer ids are reserved so many at a time, so that the file is written rarely.
const PRODUCER_IDS: i64 = 1000;
/// All partitions together; each costs an open file and its share of memory.
const MOST_PARTITIONS: usize = 10_000;
/// Kafka's bound, from the longest file name.
const LONGEST_NAME: usize = 249;

/// Why a topic was not created, changed or deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TopicError {
    #[error("topic {0} exists already")]
    Exists(String),
    #[error("topic {0} does not exist")]
    Unknown(String),
    #[error("topic name {0:?} is invalid: 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-', and neither '.' nor '..'")]
    Name(String),
    #[error("number of partitions must be at least 1, and {MOST_PARTITIONS} at most for all topics together")]
    Partitions,
    #[error("the topic {0} currently has {1} partition(s), and {2} would not be an increase")]
    NoMore(String, usize, usize),
    #[error("new partitions must be assigned to this node, each of them and no more")]
    Assignment,
    #[error(transparent)]
    Setting(#[from] Refused),
    #[error("cannot keep the topic: {0}")]
    Io(#[from] io::Error),
}

/// A topic that exists.
#[derive(Debug)]
pub(crate) struct Topic {
    pub name: String,
    pub id: Uuid,
    pub partitions: Vec<Arc<Partition>>,
    settings: RwLock<Given>,
}

/// The settings that were given to a topic, by Kafka's names, and what they mean.
#[derive(Debug)]
struct Given {
    named: Arc<BTreeMap<String, String>>,
    meaning: Arc<Settings>,
}

impl Topic {
    /// What its settings mean.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner).meaning)
    }

    /// The settings that were given to it, by Kafka's names.
    pub fn given(&self) -> Arc<BTreeMap<String, String>> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner).named)
    }

    /// The partition of this number, which a client sent.
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        usize::try_from(index).ok().and_then(|at| self.partitions.get(at))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Stored {
    version: u32,
    cluster_id: String,
    next_producer_id: i64,
    topics: BTreeMap<String, StoredTopic>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct StoredTopic {
    id: String,
    partitions: usize,
    settings: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct Index {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: BTreeMap<Uuid, Arc<Topic>>,
}

/// All topics of this broker.
#[derive(Debug)]
pub(crate) struct Topics {
    directory: PathBuf,
    cache: usize,
    pub defaults: Defaults,
    pub cluster_id: String,
    index: RwLock<Index>,
    /// What is on disk. Whoever changes topics holds this lock all the while.
    stored: Mutex<Stored>,
    /// Reserved producer ids: the next one, and the first that is not reserved.
    producer_ids: Mutex<(i64, i64)>,
}

impl Topics {
    /// Opens what is in `directory`, repairing logs, or begins anew if there is nothing. Blocks.
    pub fn open(directory: &Path, defaults: Defaults, cache: usize) -> io::Result<Self> {
        let store = directory.join(STORE_FILE);
        let stored = match files::read_if_there(&store)? {
            Some(content) => serde_json::from_str(&content).map_err(|e| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{} can't be read: {e}", store.display()))
            })?,
            None => {
                let fresh = Stored {
                    version: 1,
                    cluster_id: base64::Engine::encode(
                        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
                        Uuid::new_v4().as_bytes(),
                    ),
                    next_producer_id: 1,
                    topics: BTreeMap::new(),
                };
                write(directory, &fresh)?;
                fresh
            }
        };
        remove_deleted(directory);
        let mut index = Index::default();
        for (name, topic) in &stored.topics {
            let id = Uuid::parse_str(&topic.id).map_err(|e| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: topic {name}: {e}", store.display()))
            })?;
            let opened = open_topic(directory, name, id, topic, Origin::Stored, &defaults, cache)?;
            index.by_id.insert(id, Arc::clone(&opened));
            index.by_name.insert(name.clone(), opened);
        }
        let next = stored.next_producer_id;
        Ok(Self {
            directory: directory.to_owned(),
            cache,
            defaults,
            cluster_id: stored.cluster_id.clone(),
            index: RwLock::new(index),
            stored: Mutex::new(stored),
            producer_ids: Mutex::new((next, next)),
        })
    }

    pub fn named(&self, name: &str) -> Option<Arc<Topic>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).by_name.get(name).cloned()
    }

    pub fn with_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).by_id.get(&id).cloned()
    }

    /// All topics, by name.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner).by_name.values().cloned().collect()
    }

    /// Creates a topic, or only says whether it could be. Blocks.
    pub fn create(
        &self,
        name: &str,
        partitions: usize,
        settings: BTreeMap<String, String>,
        validate_only: bool,
    ) -> Result<Option<Arc<Topic>>, TopicError> {
        if !is_valid_name(name) {
            return Err(TopicError::Name(name.to_owned()));
        }
        settings.iter().try_for_each(|(name, value)| settings::check(name, value))?;
        let mut stored = self.lock_stored();
        if stored.topics.contains_key(name) {
            return Err(TopicError::Exists(name.to_owned()));
        }
        let others: usize = stored.topics.values().map(|t| t.partitions).sum();
        if partitions == 0 || partitions.saturating_add(others) > MOST_PARTITIONS {
            return Err(TopicError::Partitions);
        }
        if validate_only {
            return Ok(None);
        }
        let id = Uuid::new_v4();
        let topic = StoredTopic { id: id.to_string(), partitions, settings };
        let opened = open_topic(&self.directory, name, id, &topic, Origin::New, &self.defaults, self.cache)?;
        self.change(&mut stored, |topics| {
            topics.insert(name.to_owned(), topic);
        })?;
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.by_id.insert(id, Arc::clone(&opened));
        index.by_name.insert(name.to_owned(), Arc::clone(&opened));
        Ok(Some(opened))
    }

    /// Deletes a topic and its records. Blocks.
    pub fn delete(&self, name: &str) -> Result<Uuid, TopicError> {
        let mut stored = self.lock_stored();
        let topic = self.named(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))?;
        self.change(&mut stored, |topics| {
            topics.remove(name);
        })?;
        {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            index.by_name.remove(name);
            index.by_id.remove(&topic.id);
        }
        for partition in &topic.partitions {
            partition.close();
            set_aside(partition.directory())?;
        }
        drop(stored);
        remove_deleted(&self.directory);
        Ok(topic.id)
    }

    /// Adds partitions until there are `count`, or only says whether it could; `assigned` judges their number. Returns how
    /// many were missing. Blocks.
    pub fn grow(
        &self,
        name: &str,
        count: usize,
        validate_only: bool,
        assigned: impl FnOnce(usize) -> bool,
    ) -> Result<usize, TopicError> {
        let mut stored = self.lock_stored();
        let topic = self.named(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))?;
        let before = topic.partitions.len();
        if count <= before {
            return Err(TopicError::NoMore(name.to_owned(), before, count));
        }
        let all: usize = stored.topics.values().map(|t| t.partitions).sum();
        if all.saturating_add(count - before) > MOST_PARTITIONS {
            return Err(TopicError::Partitions);
        }
        if !assigned(count - before) {
            return Err(TopicError::Assignment);
        }
        if validate_only {
            return Ok(count - before);
        }
        let id = topic.id.to_string();
        let open = |index| open_partition(self.directory.join(format!("{name}-{index}")), &id, Origin::New, self.cache);
        let new = (before..count).map(open).collect::<io::Result<Vec<_>>>()?;
        self.change(&mut stored, |topics| {
            if let Some(topic) = topics.get_mut(name) {
                topic.partitions = count;
            }
        })?;
        let given = Given { named: topic.given(), meaning: topic.settings() };
        let grown = Arc::new(Topic {
            name: topic.name.clone(),
            id: topic.id,
            partitions: topic.partitions.iter().cloned().chain(new).collect(),
            settings: RwLock::new(given),
        });
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.by_id.insert(grown.id, Arc::clone(&grown));
        index.by_name.insert(grown.name.clone(), grown);
        Ok(count - before)
    }

    /// Replaces a topic's settings by what `edit` makes of them, or only says whether it could. Blocks.
    pub fn alter(
        &self,
        name: &str,
        validate_only: bool,
        edit: impl FnOnce(&mut BTreeMap<String, String>) -> Result<(), Refused>,
    ) -> Result<(), TopicError> {
        let mut stored = self.lock_stored();
        let topic = self.named(name).ok_or_else(|| TopicError::Unknown(name.to_owned()))?;
        let mut given = BTreeMap::clone(&topic.given());
        edit(&mut given)?;
        given.iter().try_for_each(|(name, value)| settings::check(name, value))?;
        if validate_only {
            return Ok(());
        }
        self.change(&mut stored, |topics| {
            if let Some(topic) = topics.get_mut(name) {
                topic.settings.clone_from(&given);
            }
        })?;
        let meaning = Arc::new(Settings::new(&given, &self.defaults));
        *topic.settings.write().unwrap_or_else(PoisonError::into_inner) = Given { named: Arc::new(given), meaning };
        Ok(())
    }

    /// A producer id that was never given out. Blocks once in a thousand times.
    pub fn next_producer_id(&self) -> io::Result<i64> {
        let mut ids = self.producer_ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.0 == ids.1 {
            let mut stored = self.lock_stored();
            let mut changed = stored.clone();
            changed.next_producer_id += PRODUCER_IDS;
            write(&self.directory, &changed)?;
            *stored = changed;
            ids.1 += PRODUCER_IDS;
        }
        ids.0 += 1;
        Ok(ids.0 - 1)
    }

    fn lock_stored(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the file first, and what is remembered of it only if that worked.
    fn change(&self, stored: &mut Stored, change: impl FnOnce(&mut BTreeMap<String, StoredTopic>)) -> io::Result<()> {
        let mut changed = stored.clone();
        change(&mut changed.topics);
        write(&self.directory, &changed)?;
        *stored = changed;
        Ok(())
    }
}

fn write(directory: &Path, stored: &Stored) -> io::Result<()> {
    let content = serde_json::to_vec_pretty(stored).map_err(io::Error::other)?;
    files::replace(&directory.join(STORE_FILE), &content)
}

/// Whether directories are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Stored,
    New,
}

/// Opens or creates the partitions' directories of a topic.
fn open_topic(
    directory: &Path,
    name: &str,
    id: Uuid,
    topic: &StoredTopic,
    origin: Origin,
    defaults: &Defaults,
    cache: usize,
) -> io::Result<Arc<Topic>> {
    let open = |index| open_partition(directory.join(format!("{name}-{index}")), &topic.id, origin, cache);
    let partitions = (0..topic.partitions).map(open).collect::<io::Result<_>>()?;
    let meaning = Settings::new(&topic.settings, defaults);
    Ok(Arc::new(Topic {
        name: name.to_owned(),
        id,
        partitions,
        settings: RwLock::new(Given { named: Arc::new(topic.settings.clone()), meaning: Arc::new(meaning) }),
    }))
}

/// Opens or creates one partition's directory, for the topic with this id.
fn open_partition(path: PathBuf, id: &str, origin: Origin, cache: usize) -> io::Result<Arc<Partition>> {
    // A power cut may leave the id's file empty. A topic that is known takes the directory then; a new one never
    // takes what it finds.
    let owner = files::read_if_there(&path.join(ID_FILE))?.filter(|id| !id.is_empty());
    let ours = owner.map_or(origin == Origin::Stored, |owner| owner == id);
    if !ours && path.try_exists()? {
        set_aside(&path)?;
    }
    std::fs::create_dir_all(&path)?;
    std::fs::write(path.join(ID_FILE), id)?;
    Ok(Arc::new(Partition::open(path, cache, clock::now_ms())?))
}

/// Renames a directory that belongs to no topic any more, so that a new topic of its name finds its place free.
fn set_aside(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}{DELETED_SUFFIX}", Uuid::new_v4().simple()));
    std::fs::rename(path, name)
}

fn remove_deleted(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().ends_with(DELETED_SUFFIX)) {
        if let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove what is left of a deleted topic");
        }
    }
}

/// Whether Kafka would take this for a topic's name.
pub(crate) fn is_valid_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=LONGEST_NAME).contains(&name.len()) && name != "." && name != ".." && name.bytes().all(allowed)
}
