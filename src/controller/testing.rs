//! A controller without Kafka and QUIC: its journal lies in memory, and its agents are the test itself, on streams in
//! memory.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt, DuplexStream},
    net::TcpListener,
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Config, Controller, Error, Handle,
    peer::{BoxReader, Endpoints, Peer, Sending, Writer},
};
use crate::{
    api::{AddAgent, Client},
    frame,
    id::AgentName,
    job::JobId,
    kafka::memory::MemoryCluster,
    link::{self, Dismissal, Identity, Lane, LinkError, Profile, SecretHash},
    protocol::{
        Open,
        exec::{Channel, Event, Start, StartResumable, Steer},
        jobs::{self, Report},
    },
    secret::Secret,
    selector::Labels,
};

/// How much a stream in memory holds.
pub const WINDOW: usize = 64 << 10;

/// Waits for `future`, but not for ever.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("it happens in time")
}

pub fn name(text: &str) -> AgentName {
    text.parse().expect("name")
}

/// A cluster, an identity and a data directory that outlive controllers.
pub struct Site {
    pub cluster: MemoryCluster,
    pub identity: Arc<Identity>,
    pub config: Config,
    _dir: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let cluster = MemoryCluster::new();
        cluster.create("rk.journal", 1);
        cluster.create("rk.logs", 8);
        let link = link::Config { connect_timeout: Duration::from_millis(500), ..link::Config::default() };
        let config =
            Config { link, data: dir.path().to_owned(), patience: Duration::from_secs(10), ..Config::default() };
        Self { cluster, identity: Arc::new(Identity::generate()), config, _dir: dir }
    }

    /// Takes over.
    pub async fn controller(&self) -> Result<World, Error> {
        self.controller_with(None).await
    }

    /// Takes over a journal that was created anew, with what a controller knew.
    pub async fn controller_with(&self, legacy: Option<super::snapshots::Legacy>) -> Result<World, Error> {
        let (sessions, receiver) = mpsc::channel(16);
        let endpoints: Arc<dyn Endpoints> = Arc::new(FakeEndpoints);
        let controller =
            super::start_on(&self.config, Arc::new(self.cluster.clone()), &self.identity, legacy, async move |_, _| {
                Ok((endpoints, receiver))
            })
            .await?;
        Ok(World { handle: controller.handle(), controller: Some(controller), sessions })
    }
}

/// A running controller.
pub struct World {
    pub handle: Handle,
    pub controller: Option<Controller>,
    pub sessions: mpsc::Sender<FakeSession>,
}

/// Its API.
pub struct Api {
    pub client: Client,
    pub address: std::net::SocketAddr,
    pub token: Secret<String>,
    pub shutdown: mpsc::Sender<()>,
    pub served: tokio::task::JoinHandle<Result<(), Error>>,
}

impl World {
    /// Adds an agent and gives it a session.
    pub async fn agent(&self, text: &str) -> FakeAgent {
        let request = AddAgent { name: name(text), labels: Labels::new(), layout: None };
        self.handle.add_agent(request).await.expect("added");
        self.connect(text).await
    }

    /// Adds an agent that takes one job at once.
    pub async fn worker(&self, text: &str) -> FakeAgent {
        let mut agent = self.agent(text).await;
        agent.take_jobs(1, &[]).await;
        soon(async {
            while self.handle.agent(&name(text)).expect("added").slots == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        agent
    }

    /// Gives an agent a session.
    pub async fn connect(&self, text: &str) -> FakeAgent {
        let secrets = self.handle.shared().directory.ask(|registry| registry.secrets(0, &name(text)));
        let (session, agent) = FakeSession::new(name(text), secrets.expect("added").newest);
        self.sessions.send(session).await.expect("taken");
        soon(async {
            while self.handle.session(&name(text)).is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        agent
    }

    /// Serves the API.
    pub async fn serve(&mut self, site: &Site) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let token = Secret::new(super::files::read_or_create_token(&site.config.data).expect("token"));
        let client = Client::new(&address.to_string(), &token, None).expect("client");
        let (shutdown, stop) = mpsc::channel(4);
        let controller = self.controller.take().expect("served once");
        let served = tokio::spawn(controller.serve(site.config.clone(), listener, stop));
        Api { client, address, token, shutdown, served }
    }
}

struct FakeEndpoints;

impl Endpoints for FakeEndpoints {
    fn partition_of(&self, _: &AgentName) -> u32 {
        3
    }

    fn probe_age(&self, _: u32) -> Duration {
        Duration::ZERO
    }

    fn dropped(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    fn fenced(&self) -> BoxFuture<'_, u32> {
        Box::pin(std::future::pending())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// The controller's side of a session.
pub struct FakeSession {
    name: AgentName,
    streams: mpsc::Sender<FakeStream>,
    ended: watch::Receiver<Option<LinkError>>,
    dismissed: watch::Sender<Option<Dismissal>>,
    secret: SecretHash,
}

/// The agent's side of a session.
pub struct FakeAgent {
    streams: mpsc::Receiver<FakeStream>,
    /// The stream about jobs, once it came.
    jobs: Option<FakeStream>,
    ended: watch::Sender<Option<LinkError>>,
    pub dismissed: watch::Receiver<Option<Dismissal>>,
}

/// The agent's side of a stream.
pub struct FakeStream {
    pub lane: Lane,
    pub send: DuplexStream,
    pub recv: DuplexStream,
    /// Whether the controller reset its half.
    pub reset: watch::Receiver<bool>,
}

struct FakeWriter {
    inner: DuplexStream,
    reset: watch::Sender<bool>,
    /// Streams break with their session.
    ended: watch::Receiver<Option<LinkError>>,
}

impl FakeSession {
    fn new(name: AgentName, secret: SecretHash) -> (Self, FakeAgent) {
        let (streams, streams_in) = mpsc::channel(16);
        let (end, ended) = watch::channel(None);
        let (dismiss, dismissed) = watch::channel(None);
        (
            Self { name, streams, ended, dismissed: dismiss, secret },
            FakeAgent { streams: streams_in, jobs: None, ended: end, dismissed },
        )
    }
}

impl Peer for FakeSession {
    fn name(&self) -> &AgentName {
        &self.name
    }

    fn profile(&self) -> Profile {
        Profile {
            version: "0.0.1".to_owned(),
            labels: [("os".to_owned(), "linux".to_owned())].into(),
            pid: 7,
            ..Profile::default()
        }
    }

    fn open(&self, lane: Lane) -> BoxFuture<'_, Result<(Sending, BoxReader), LinkError>> {
        Box::pin(async move {
            let (ours, recv) = tokio::io::duplex(WINDOW);
            let (send, theirs) = tokio::io::duplex(WINDOW);
            let (reset, was_reset) = watch::channel(false);
            let stream = FakeStream { lane, send, recv, reset: was_reset };
            self.streams.send(stream).await.map_err(|_| LinkError::Ended("the test is over".to_owned()))?;
            let writer = FakeWriter { inner: ours, reset, ended: self.ended.clone() };
            Ok((Sending::new(writer), Box::new(theirs) as BoxReader))
        })
    }

    fn heard(&self) -> u64 {
        1
    }

    fn closed(&self) -> BoxFuture<'_, LinkError> {
        let mut ended = self.ended.clone();
        Box::pin(async move {
            let gone = || LinkError::Ended("the agent is gone".to_owned());
            match ended.wait_for(Option::is_some).await {
                Ok(error) => error.clone().unwrap_or_else(gone),
                Err(_) => gone(),
            }
        })
    }

    fn is_closed(&self) -> bool {
        self.ended.borrow().is_some() || self.ended.has_changed().is_err()
    }

    fn dismiss(&self, why: Dismissal) {
        self.dismissed.send_replace(Some(why));
    }

    fn secret(&self) -> SecretHash {
        self.secret
    }

    fn round_trip(&self) -> Duration {
        Duration::from_micros(1500)
    }
}

impl AsyncWrite for FakeWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended.borrow().is_some() {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Writer for FakeWriter {
    fn reset(&mut self) {
        self.reset.send_replace(true);
    }
}

impl FakeAgent {
    /// The next stream and what it is for, beside that about jobs.
    pub async fn accept(&mut self) -> (Open, FakeStream) {
        loop {
            let mut stream = soon(self.streams.recv()).await.expect("a stream");
            let open = soon(frame::read(&mut stream.recv)).await.expect("a message");
            match open {
                Open::Jobs(_) => self.jobs = Some(stream),
                open => return (open, stream),
            }
        }
    }

    /// Takes jobs from now on, so many at once, and reports these attempts first.
    pub async fn take_jobs(&mut self, slots: u32, inventory: &[(JobId, u32, Report)]) {
        while self.jobs.is_none() {
            let mut stream = soon(self.streams.recv()).await.expect("a stream");
            match soon(frame::read(&mut stream.recv)).await.expect("a message") {
                Open::Jobs(_) => self.jobs = Some(stream),
                other => panic!("unexpected {other:?}"),
            }
        }
        for (job, attempt, report) in inventory {
            self.report(*job, *attempt, report.clone()).await;
        }
        self.say(jobs::Event::Ready { slots, draining: false }).await;
    }

    /// Says something on the stream about jobs.
    pub async fn say(&mut self, event: jobs::Event) {
        let stream = self.jobs.as_mut().expect("it takes jobs");
        soon(frame::write(&mut stream.send, &event)).await.expect("told");
    }

    /// Reports how an attempt stands.
    pub async fn report(&mut self, job: JobId, attempt: u32, report: Report) {
        self.say(jobs::Event::Report { job, attempt, report }).await;
    }

    /// The next order.
    pub async fn order(&mut self) -> jobs::Order {
        let stream = self.jobs.as_mut().expect("it takes jobs");
        soon(frame::read(&mut stream.recv)).await.expect("an order")
    }

    /// Takes an execution: its request and its three streams.
    pub async fn exec(&mut self) -> FakeProcess {
        let (mut start, mut control, mut inout, mut err) = (None, None, None, None);
        for _ in 0..3 {
            match self.accept().await {
                (Open::Exec(message) | Open::ExecResumable(StartResumable { start: message, .. }), stream) => {
                    assert_eq!(stream.lane, Lane::Control);
                    (start, control) = (Some(message), Some(stream));
                }
                (Open::Stdio(stdio), stream) => {
                    assert_eq!(stream.lane, Lane::Bulk);
                    match stdio.channel {
                        Channel::InOut => inout = Some(stream),
                        Channel::Err => err = Some(stream),
                    }
                }
                (other, _) => panic!("unexpected {other:?}"),
            }
        }
        let (inout, err) = (inout.expect("stdin and stdout"), err.expect("stderr"));
        FakeProcess {
            start: start.expect("a start"),
            control: control.expect("a control stream"),
            stdin: inout.recv,
            stdin_reset: inout.reset,
            stdout: Some(inout.send),
            stderr: Some(err.send),
        }
    }

    /// Ends the session.
    pub fn end(&self, reason: &str) {
        self.ended.send_replace(Some(LinkError::Ended(reason.to_owned())));
    }
}

/// The agent's side of an execution.
pub struct FakeProcess {
    pub start: Start,
    pub control: FakeStream,
    pub stdin: DuplexStream,
    pub stdin_reset: watch::Receiver<bool>,
    pub stdout: Option<DuplexStream>,
    pub stderr: Option<DuplexStream>,
}

impl FakeProcess {
    pub async fn tell(&mut self, event: Event) {
        soon(frame::write(&mut self.control.send, &event)).await.expect("told");
    }

    pub async fn steered(&mut self) -> Steer {
        soon(frame::read(&mut self.control.recv)).await.expect("a message")
    }

    pub async fn signal(&mut self) -> i32 {
        match self.steered().await {
            Steer::Signal(signal) => signal,
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Writes to both outputs, ends them and the process.
    pub async fn finish(mut self, stdout: &[u8], stderr: &[u8], event: Event) {
        let (mut out, mut err) = (self.stdout.take().expect("open"), self.stderr.take().expect("open"));
        soon(out.write_all(stdout)).await.expect("written");
        soon(err.write_all(stderr)).await.expect("written");
        drop((out, err));
        self.tell(event).await;
    }

    /// Waits until the controller gives the execution up.
    pub async fn given_up(&mut self) {
        soon(self.control.reset.wait_for(|reset| *reset)).await.expect("reset");
    }
}
