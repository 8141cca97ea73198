//! The broker's access control list: kept durably, and asked on every request.
//!
//! Promises that a change is on stable storage before it is acknowledged, and that a request is judged by one state of
//! the list from its beginning to its end. Changing blocks on the disk; judging never does. What a list means is
//! [`super::acl`]'s.

use super::acl::{self, Asker, Binding, Bindings, CLUSTER_NAME, Filter, Operation, Resource, ResourceType, Verdict};
use super::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

const FILE: &str = "acls.json";
const VERSION: u32 = 1;
/// All bindings together; the file is written as a whole.
const MOST_BINDINGS: usize = 100_000;

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    bindings: Vec<Binding>,
}

/// A state of the list.
#[derive(Debug, Default)]
struct Rules {
    bindings: Bindings,
    super_users: BTreeSet<String>,
}

/// Holds the list.
#[derive(Debug)]
pub(crate) struct Authorizer {
    file: PathBuf,
    rules: RwLock<Arc<Rules>>,
    /// Whoever changes the list holds this all the while.
    changing: Mutex<()>,
}

/// Why the list was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("an access control list holds at most {MOST_BINDINGS} bindings: delete some first")]
    Full,
    #[error("cannot keep the access control list: {0}")]
    Io(#[from] io::Error),
}

impl Authorizer {
    /// Reads the list in `directory`, if there is one. `super_users` are names without `User:`. Blocks.
    pub fn open(directory: &Path, super_users: &BTreeSet<String>) -> io::Result<Self> {
        let file = directory.join(FILE);
        let stored = files::read_json::<Stored>(&file)?;
        if let Some(stored) = stored.as_ref().filter(|stored| stored.version != VERSION) {
            return Err(files::damaged(&file, &format!("its version {} is not {VERSION}", stored.version)));
        }
        let bindings = stored.map(|stored| stored.bindings.into_iter().collect()).unwrap_or_default();
        let super_users = super_users.iter().map(|name| principal(name)).collect();
        let rules = RwLock::new(Arc::new(Rules { bindings, super_users }));
        Ok(Self { file, rules, changing: Mutex::new(()) })
    }

    /// Whether a list is kept in this directory.
    pub fn is_kept(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The bindings that a filter finds.
    pub fn matching(&self, filter: &Filter) -> Vec<Binding> {
        self.rules().bindings.matching(filter)
    }

    /// Adds bindings: all, or none if it fails. Blocks.
    pub fn create(&self, new: Vec<Binding>) -> Result<(), ChangeError> {
        self.change(|bindings| new.into_iter().for_each(|binding| bindings.insert(binding)))
    }

    /// Deletes what each of the filters finds, and says what that was. Blocks.
    pub fn delete(&self, filters: &[Filter]) -> Result<Vec<Vec<Binding>>, ChangeError> {
        let mut found = Vec::new();
        self.change(|bindings| {
            found = filters.iter().map(|filter| bindings.matching(filter)).collect();
            found.iter().flatten().for_each(|binding| bindings.remove(binding));
        })?;
        Ok(found)
    }

    /// Changes the file first, and what is asked only if that worked.
    fn change(&self, change: impl FnOnce(&mut Bindings)) -> Result<(), ChangeError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.rules();
        let mut bindings = before.bindings.clone();
        change(&mut bindings);
        if bindings == before.bindings {
            return Ok(());
        }
        if bindings.len() > before.bindings.len().max(MOST_BINDINGS) {
            return Err(ChangeError::Full);
        }
        let stored = Stored { version: VERSION, bindings: bindings.iter().collect() };
        let content = serde_json::to_vec_pretty(&stored).map_err(io::Error::other)?;
        files::replace(&self.file, &content)?;
        let rules = Arc::new(Rules { bindings, super_users: before.super_users.clone() });
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
        Ok(())
    }
}

/// The name by which access control lists know a user.
fn principal(user: &str) -> String {
    format!("User:{user}")
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    principal: Arc<str>,
    host: Arc<str>,
}

impl Client {
    /// A user who has proved who they are.
    pub fn user(name: &str, host: IpAddr) -> Self {
        Self { principal: principal(name).into(), host: host.to_canonical().to_string().into() }
    }

    /// Somebody who need not prove anything.
    pub fn anonymous(host: IpAddr) -> Self {
        Self::user("ANONYMOUS", host)
    }
}

/// What one client may do, as the list stood when their request arrived.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    /// None: everybody may do everything.
    rules: Option<Arc<Rules>>,
    client: Client,
}

impl Rights {
    pub fn new(authorizer: Option<&Authorizer>, client: &Client) -> Self {
        Self { rules: authorizer.map(Authorizer::rules), client: client.clone() }
    }

    /// Whether the client may do this with the topic of this name, which need not exist.
    pub fn topic(&self, operation: Operation, name: &str) -> bool {
        self.may(operation, Resource { kind: ResourceType::Topic, name })
    }

    /// Whether the client may do this with the cluster.
    pub fn cluster(&self, operation: Operation) -> bool {
        self.may(operation, Resource { kind: ResourceType::Cluster, name: CLUSTER_NAME })
    }

    /// Whether there may be a topic with which the client may do this.
    pub fn some_topic(&self, operation: Operation) -> bool {
        let Some(rules) = &self.rules else { return true };
        let (bindings, super_users) = (&rules.bindings, &rules.super_users);
        acl::decide_any(bindings, super_users, self.asker(), operation, ResourceType::Topic) == Verdict::Allowed
    }

    /// What the client may do with a topic, as Kafka's field of bits.
    pub fn topic_operations(&self, name: &str) -> i32 {
        self.operations(Resource { kind: ResourceType::Topic, name })
    }

    /// What the client may do with the cluster, as Kafka's field of bits; nothing for who may not describe it.
    pub fn cluster_operations(&self) -> i32 {
        if !self.cluster(Operation::Describe) {
            return 0;
        }
        self.operations(Resource { kind: ResourceType::Cluster, name: CLUSTER_NAME })
    }

    fn operations(&self, resource: Resource<'_>) -> i32 {
        let allowed = Operation::with(resource.kind).iter().filter(|operation| self.may(**operation, resource));
        allowed.fold(0, |bits, operation| bits | 1 << operation.number())
    }

    fn may(&self, operation: Operation, resource: Resource<'_>) -> bool {
        let Some(rules) = &self.rules else { return true };
        let asker = self.asker();
        let verdict = acl::decide(&rules.bindings, &rules.super_users, asker, operation, resource);
        if verdict == Verdict::Denied {
            let Asker { principal, host } = asker;
            tracing::debug!(principal, host, ?operation, kind = ?resource.kind, name = resource.name, "not allowed");
        }
        verdict == Verdict::Allowed
    }

    fn asker(&self) -> Asker<'_> {
        Asker { principal: &self.client.principal, host: &self.client.host }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::acl::{Entry, Pattern, PatternFilter, PatternType, Permission};
    use proptest::prelude::*;

    fn reads(topic: &str, user: &str) -> Binding {
        Binding {
            pattern: Pattern { resource: ResourceType::Topic, pattern: PatternType::Literal, name: topic.to_owned() },
            entry: Entry {
                principal: principal(user),
                host: "*".to_owned(),
                operation: Operation::Read,
                permission: Permission::Allow,
            },
        }
    }

    fn about(name: &str) -> Filter {
        Filter {
            resource: None,
            pattern: PatternFilter::Any,
            name: Some(name.to_owned()),
            principal: None,
            host: None,
            operation: None,
            permission: None,
        }
    }

    #[test]
    fn the_list_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Authorizer::open(directory.path(), &BTreeSet::new()).unwrap();
        let list = open();
        list.create(vec![reads("one", "alice"), reads("two", "alice"), reads("two", "bob")]).unwrap();
        let found = list.delete(&[about("one"), about("none"), about("one")]).unwrap();
        assert_eq!(found, [vec![reads("one", "alice")], vec![], vec![reads("one", "alice")]]);
        drop(list);
        let list = open();
        assert_eq!(list.matching(&about("two")), [reads("two", "alice"), reads("two", "bob")]);
        assert!(list.matching(&about("one")).is_empty());
    }

    #[test]
    fn a_request_is_judged_by_the_list_of_its_arrival() {
        let directory = tempfile::tempdir().unwrap();
        let list = Authorizer::open(directory.path(), &BTreeSet::from(["root".to_owned()])).unwrap();
        let alice = Client::user("alice", "::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(&*alice.host, "10.0.0.1");
        let before = Rights::new(Some(&list), &alice);
        list.create(vec![reads("one", "alice")]).unwrap();
        assert!(!before.topic(Operation::Read, "one"));
        let after = Rights::new(Some(&list), &alice);
        assert!(after.topic(Operation::Read, "one") && after.some_topic(Operation::Read));
        assert_eq!(after.topic_operations("one"), 1 << 3 | 1 << 8, "read, and describe with it");
        assert_eq!(after.cluster_operations(), 0);
        let root = Rights::new(Some(&list), &Client::user("root", "::1".parse().unwrap()));
        assert!(root.cluster(Operation::Alter));
        assert!(Rights::new(None, &alice).cluster(Operation::Alter), "without a list everything is allowed");
    }

    #[test]
    fn a_damaged_file_is_named_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        for damage in ["", "{", r#"{"version":2,"bindings":[]}"#, r#"{"version":1,"bindings":[{"resource":"topic"}]}"#]
        {
            std::fs::write(&path, damage).unwrap();
            let error = Authorizer::open(directory.path(), &BTreeSet::new()).unwrap_err().to_string();
            assert!(error.contains("acls.json can't be read") && error.contains("move it away"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), damage);
        }
    }

    #[test]
    fn a_list_that_cannot_be_written_is_not_changed() {
        let directory = tempfile::tempdir().unwrap();
        let list = Authorizer::open(&directory.path().join("absent"), &BTreeSet::new()).unwrap();
        assert!(matches!(list.create(vec![reads("one", "alice")]), Err(ChangeError::Io(_))));
        assert!(list.matching(&about("one")).is_empty());
    }

    proptest! {
        #[test]
        fn garbage_in_the_file_never_panics(content in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..400usize) {
            let directory = tempfile::tempdir().unwrap();
            let list = Authorizer::open(directory.path(), &BTreeSet::new()).unwrap();
            list.create(vec![reads("one", "alice")]).unwrap();
            let path = directory.path().join(FILE);
            let mut good = std::fs::read(&path).unwrap();
            good.truncate(cut);
            good.extend_from_slice(&content);
            std::fs::write(&path, &good).unwrap();
            let _ = Authorizer::open(directory.path(), &BTreeSet::new());
            std::fs::write(&path, &content).unwrap();
            prop_assert!(Authorizer::open(directory.path(), &BTreeSet::new()).is_err());
        }
    }
}
