//! An agent and a controller's listener on one cluster in memory: sessions, and how they end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use futures_util::FutureExt;
use tokio::{io::AsyncReadExt, sync::mpsc, task::JoinHandle};

use super::super::{Config, Error, Exit, run, testing::*};
use crate::{
    frame,
    id::AgentName,
    kafka::{Prefix, SharedCluster, memory::MemoryCluster},
    link::{
        self, Credential, Identity, Lane, LinkError, Listener, RecvStream, Roster, SecretHash, Secrets, SendStream,
        Session,
    },
    protocol::{
        Open,
        call::{Answer, Call},
        exec::{Channel, Event, Outcome, Refusal, Start, Stdio},
    },
};

/// Agents that may connect, and whether they were removed.
#[derive(Default)]
struct People(Mutex<BTreeMap<AgentName, (SecretHash, bool)>>);

impl Roster for People {
    fn secrets(&self, name: &AgentName) -> Option<Secrets> {
        self.0.lock().expect("lock").get(name).map(|(hash, _)| (*hash).into())
    }

    fn is_removed(&self, name: &AgentName) -> bool {
        self.0.lock().expect("lock").get(name).is_some_and(|(_, removed)| *removed)
    }
}

pub(super) struct World {
    cluster: SharedCluster,
    people: Arc<People>,
    identity: Arc<Identity>,
    data: tempfile::TempDir,
}

pub(super) struct Agent {
    stops: mpsc::Sender<()>,
    task: JoinHandle<Result<Exit, Error>>,
}

/// An execution over the link.
struct Remote {
    control: (SendStream, RecvStream),
    in_out: (SendStream, RecvStream),
    _err: (SendStream, RecvStream),
}

impl World {
    pub fn new() -> Self {
        let cluster = MemoryCluster::new();
        let prefix = Prefix::default();
        for topic in [prefix.up_control(), prefix.down_control(), prefix.up_bulk(), prefix.down_bulk()] {
            cluster.create(&topic, 8);
        }
        Self {
            cluster: Arc::new(cluster),
            people: Arc::default(),
            identity: Arc::new(Identity::generate()),
            data: tempfile::tempdir().expect("dir"),
        }
    }

    pub fn admit(&self, name: &str) -> Arc<Credential> {
        let credential = Credential::generate(name.parse().expect("name"), self.identity.fingerprint());
        let entry = (credential.secret_hash(), false);
        self.people.0.lock().expect("lock").insert(credential.name.clone(), entry);
        Arc::new(credential)
    }

    fn remove(&self, credential: &Credential) {
        self.people.0.lock().expect("lock").get_mut(&credential.name).expect("admitted").1 = true;
    }

    pub async fn listen(&self, epoch: u32) -> (Listener, mpsc::Receiver<Session>) {
        self.listen_as(epoch, link::PROTOCOLS.to_vec()).await
    }

    pub async fn listen_as(&self, epoch: u32, protocols: Vec<&'static str>) -> (Listener, mpsc::Receiver<Session>) {
        let config = link::Config { protocols, ..link::Config::default() };
        let listener = Listener::open(self.cluster.clone(), config, self.identity.clone(), epoch, self.people.clone());
        soon(listener).await.expect("a listener")
    }

    pub fn start(&self, credential: &Arc<Credential>) -> Agent {
        let config = Config {
            data: self.data.path().to_owned(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            // Tests share this process, and whoever debugs them wants to read it.
            dumpable: true,
            ..Config::default()
        };
        let (stops, receiver) = mpsc::channel(4);
        Agent { stops, task: tokio::spawn(run(config, self.cluster.clone(), credential.clone(), receiver)) }
    }
}

impl Agent {
    async fn stop(&self) {
        self.stops.send(()).await.expect("it listens");
    }

    pub async fn end(self) -> Result<Exit, Error> {
        soon(self.task).await.expect("no panic")
    }
}

impl Remote {
    async fn start(session: &Session, start: Start) -> Self {
        let id = start.id;
        let control = open(session, Lane::Control, &Open::Exec(start)).await;
        let in_out = open(session, Lane::Bulk, &Open::Stdio(Stdio { id, channel: Channel::InOut })).await;
        let _err = open(session, Lane::Bulk, &Open::Stdio(Stdio { id, channel: Channel::Err })).await;
        Self { control, in_out, _err }
    }

    async fn event(&mut self) -> Event {
        soon(frame::read(&mut self.control.1)).await.expect("an event")
    }

    async fn started(&mut self) {
        let event = self.event().await;
        assert!(matches!(event, Event::Started { .. }), "{event:?}");
    }

    async fn line(&mut self) -> String {
        let mut text = String::new();
        soon(async {
            while !text.ends_with('\n') {
                text.push(self.in_out.1.read_u8().await.expect("stdout").into());
            }
        })
        .await;
        text.trim_end().to_owned()
    }
}

async fn open(session: &Session, lane: Lane, open: &Open) -> (SendStream, RecvStream) {
    let (mut send, recv) = soon(session.open_stream(lane)).await.expect("a stream");
    frame::write(&mut send, open).await.expect("open");
    (send, recv)
}

pub(super) async fn next(sessions: &mut mpsc::Receiver<Session>) -> Session {
    soon(sessions.recv()).await.expect("a session")
}

#[tokio::test]
async fn a_command_runs_over_the_link_and_a_drained_agent_delivers_its_end() {
    let world = World::new();
    let (_listener, mut sessions) = world.listen(1).await;
    let agent = world.start(&world.admit("a1"));
    let session = next(&mut sessions).await;
    assert_eq!(session.profile().labels["os"], std::env::consts::OS);

    let mut remote = Remote::start(&session, script("cat; echo done; exit 7")).await;
    remote.started().await;
    remote.in_out.0.write_all(b"hello\n").await.expect("stdin");
    assert_eq!(remote.line().await, "hello");

    agent.stop().await;
    // It drains: what comes now is refused, what runs goes on.
    let refused = loop {
        let mut remote = Remote::start(&session, script("true")).await;
        let event = remote.event().await;
        if matches!(event, Event::Refused(_)) {
            break event;
        }
    };
    assert_eq!(refused, Event::Refused(Refusal::Draining));
    remote.in_out.0.finish().expect("finish");
    assert_eq!(remote.line().await, "done");
    assert_eq!(remote.event().await, Event::Exited(Outcome::Code(7)));
    assert_eq!(agent.end().await.expect("no error"), Exit::Drained);
    soon(session.closed()).await;
}

#[tokio::test]
async fn an_idle_agent_stops_at_once_and_without_a_controller_too() {
    let world = World::new();
    let credential = world.admit("a1");
    let agent = world.start(&credential);
    agent.stop().await;
    assert_eq!(agent.end().await.expect("no error"), Exit::Drained);

    let (_listener, mut sessions) = world.listen(1).await;
    let agent = world.start(&credential);
    let session = next(&mut sessions).await;
    let before = tokio::time::Instant::now();
    agent.stop().await;
    assert_eq!(agent.end().await.expect("no error"), Exit::Drained);
    soon(session.closed()).await;
    assert!(before.elapsed() < std::time::Duration::from_secs(2), "{:?}", before.elapsed());
}

#[tokio::test]
async fn a_second_stop_ends_what_runs_and_a_third_kills_it() {
    let world = World::new();
    let (_listener, mut sessions) = world.listen(1).await;
    let agent = world.start(&world.admit("a1"));
    let session = next(&mut sessions).await;
    let mut remote = Remote::start(&session, script("echo ready; exec sleep 1000")).await;
    remote.started().await;
    assert_eq!(remote.line().await, "ready");
    agent.stop().await;
    agent.stop().await;
    assert_eq!(remote.event().await, Event::Exited(Outcome::Signal(nix::libc::SIGTERM)));
    assert_eq!(agent.end().await.expect("no error"), Exit::Cancelled);

    let agent = world.start(&world.admit("a2"));
    let session = next(&mut sessions).await;
    let mut remote = Remote::start(&session, script("trap '' TERM; echo $$; while :; do sleep 1000; done")).await;
    remote.started().await;
    let pid = remote.line().await;
    for _ in 0..3 {
        agent.stop().await;
    }
    assert_eq!(agent.end().await.expect("no error"), Exit::Killed);
    gone(&pid).await;
}

#[tokio::test]
async fn an_agent_comes_back_to_a_controller_that_restarted() {
    let world = World::new();
    let (listener, mut sessions) = world.listen(1).await;
    let _agent = world.start(&world.admit("a1"));
    next(&mut sessions).await;
    listener.close().await;
    drop((listener, sessions));
    let (_listener, mut sessions) = world.listen(2).await;
    let session = next(&mut sessions).await;
    let (mut send, mut recv) = open(&session, Lane::Control, &Open::Call(Call::Echo)).await;
    send.write_all(b"again").await.expect("body");
    send.finish().expect("finish");
    assert_eq!(soon(frame::read::<Answer>(&mut recv)).await.expect("answer"), Answer::Ok);
    let mut body = Vec::new();
    soon(AsyncReadExt::read_to_end(&mut recv, &mut body)).await.expect("body");
    assert_eq!(body, b"again");
}

#[tokio::test]
async fn a_lost_session_ends_its_processes() {
    let world = World::new();
    let (listener, mut sessions) = world.listen(1).await;
    let _agent = world.start(&world.admit("a1"));
    let session = next(&mut sessions).await;
    let mut remote = Remote::start(&session, script("echo $$; exec sleep 1000")).await;
    remote.started().await;
    let pid = remote.line().await;
    listener.close().await;
    gone(&pid).await;
}

#[tokio::test]
async fn a_newer_process_of_the_same_name_ends_the_older_one_whose_commands_get_their_grace() {
    let world = World::new();
    let (_listener, mut sessions) = world.listen(1).await;
    let credential = world.admit("a1");
    let older = world.start(&credential);
    let session = next(&mut sessions).await;
    let note = world.data.path().join("note");
    let text = format!("trap 'echo hup >{}; exit' HUP; echo $$; while :; do sleep 0.01; done", note.display());
    let mut start = script(&text);
    start.grace = PATIENCE;
    let mut remote = Remote::start(&session, start).await;
    remote.started().await;
    let pid = remote.line().await;
    let newer = world.start(&credential);
    next(&mut sessions).await;
    let error = older.end().await.expect_err("superseded");
    assert!(matches!(error, Error::Link(LinkError::Superseded(_))), "{error}");
    assert_eq!(error.exit_code(), 5);
    gone(&pid).await;
    assert_eq!(line(&note).await, "hup");
    assert!(newer.task.now_or_never().is_none(), "the newer one runs");
}

#[tokio::test]
async fn who_is_unknown_removed_or_pins_another_controller_is_told_and_ends() {
    let world = World::new();
    let (_listener, mut sessions) = world.listen(1).await;
    let stranger = Arc::new(Credential::generate("stranger".parse().expect("name"), world.identity.fingerprint()));
    let removed = world.admit("removed");
    world.remove(&removed);
    let other = {
        let other = Credential::generate("other".parse().expect("name"), Identity::generate().fingerprint());
        let entry = (other.secret_hash(), false);
        world.people.0.lock().expect("lock").insert(other.name.clone(), entry);
        Arc::new(other)
    };
    for (credential, word) in [(stranger, "know"), (removed, "removed"), (other, "another key")] {
        let error = world.start(&credential).end().await.expect_err("it must not go on");
        assert_eq!(error.exit_code(), 77, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(sessions.recv().now_or_never().is_none());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: cargo test --release -- --ignored --nocapture speed_over_the_link"]
async fn speed_over_the_link() {
    let world = World::new();
    let (_listener, mut sessions) = world.listen(1).await;
    let _agent = world.start(&world.admit("a1"));
    let session = next(&mut sessions).await;
    for _ in 0..3 {
        let before = tokio::time::Instant::now();
        let mut remote = Remote::start(&session, command(&["head", "-c", "1G", "/dev/zero"])).await;
        remote.started().await;
        println!("started after {:?}", before.elapsed());
        let mut total = 0;
        while let Some(chunk) = remote.in_out.1.read_chunk(usize::MAX, true).await.expect("stdout") {
            total += chunk.bytes.len();
        }
        let seconds = before.elapsed().as_secs_f64();
        println!("{:.0} MiB/s", total as f64 / seconds / f64::from(1 << 20));
        assert_eq!(remote.event().await, Event::Exited(Outcome::Code(0)));
    }
    let mut took = Vec::new();
    for _ in 0..200 {
        let before = tokio::time::Instant::now();
        let mut remote = Remote::start(&session, command(&["true"])).await;
        remote.started().await;
        assert_eq!(remote.event().await, Event::Exited(Outcome::Code(0)));
        took.push(before.elapsed());
    }
    took.sort_unstable();
    println!("`true` takes {:?} (p50), {:?} (p99)", took[100], took[198]);
}
