//! Streams in memory, and an execution as a controller sees it.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    sync::watch,
    task::JoinHandle,
};

use super::{
    Config,
    executor::Executor,
    stream::{Duplex, SendHalf},
};
use crate::{
    frame,
    id::ExecId,
    protocol::{
        Open,
        exec::{Channel, Event, Start, Stdio, Steer},
    },
};

/// No test waits longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a stream in memory holds in each direction.
pub const WINDOW: usize = 64 << 10;

/// The agent's sending half.
pub struct TestSend {
    inner: DuplexStream,
    reset: Arc<Mutex<Option<u32>>>,
    /// Turns true when it was finished, or the controller wants no more.
    over: watch::Sender<bool>,
}

/// The controller's receiving half.
pub struct TestRecv {
    inner: DuplexStream,
    over: watch::Sender<bool>,
}

/// The controller's end of a stream.
pub struct Far {
    pub send: DuplexStream,
    pub recv: TestRecv,
    reset: Arc<Mutex<Option<u32>>>,
}

/// A running `serve` of an executor with the controller's end.
pub struct Served {
    pub far: Far,
    task: JoinHandle<()>,
}

/// An execution, seen from the controller.
pub struct Run {
    pub control: Served,
    pub stdin: DuplexStream,
    pub stdout: TestRecv,
    pub stderr: TestRecv,
    _tasks: [JoinHandle<()>; 2],
}

impl SendHalf for TestSend {
    fn send(&mut self, bytes: Bytes) -> BoxFuture<'_, io::Result<()>> {
        async move { self.write_all(&bytes).await }.boxed()
    }

    fn reset(&mut self, code: u32) {
        *self.reset.lock().expect("lock") = Some(code);
    }

    fn delivered(&self) -> BoxFuture<'static, ()> {
        let mut over = self.over.subscribe();
        async move {
            // Both who could say so are gone: then it is over as well.
            over.wait_for(|over| *over).await.ok();
        }
        .boxed()
    }
}

impl AsyncRead for TestRecv {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl Drop for TestRecv {
    fn drop(&mut self) {
        self.over.send_replace(true);
    }
}

impl AsyncWrite for TestSend {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.over.send_replace(true);
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A receiving half that can break.
pub struct BrokenAfter<R>(pub R);

impl<R: AsyncRead + Unpin> AsyncRead for BrokenAfter<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.0).poll_read(cx, buffer))?;
        if buffer.filled().len() == before {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        Poll::Ready(Ok(()))
    }
}

/// A stream: the agent's halves and the controller's.
pub fn stream() -> (TestSend, DuplexStream, Far) {
    let reset = Arc::new(Mutex::new(None));
    let (to_agent, recv) = io::duplex(WINDOW);
    let (inner, from_agent) = io::duplex(WINDOW);
    let over = watch::Sender::new(false);
    let far = TestRecv { inner: from_agent, over: over.clone() };
    (TestSend { inner, reset: reset.clone(), over }, recv, Far { send: to_agent, recv: far, reset })
}

/// The agent's half of a stream that nobody uses.
pub fn duplex() -> Duplex {
    let (send, recv, _) = stream();
    Duplex { send: Box::new(send), recv: Box::new(recv) }
}

/// An executor with the settings that tests want.
pub fn executor() -> Executor {
    executor_with(Config::default())
}

/// An executor with `config`, and an environment in which programs are found.
pub fn executor_with(mut config: Config) -> Executor {
    config.environment.push(("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()));
    Executor::new(&config, &"a1".parse().expect("name"), &config.labels, None, None, None)
}

/// Opens a stream with its first message.
pub async fn open(executor: &Executor, open: &Open) -> Served {
    let (send, recv, mut far) = stream();
    let executor = executor.clone();
    let task = tokio::spawn(async move { executor.serve(send, recv).await });
    frame::write(&mut far.send, open).await.expect("open");
    Served { far, task }
}

/// What `sh -c script` would be started with.
pub fn script(script: &str) -> Start {
    command(&["sh", "-c", script])
}

/// What `argv` would be started with.
pub fn command(argv: &[&str]) -> Start {
    Start {
        id: ExecId(rand::random()),
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: vec![],
        cwd: None,
        timeout: None,
        grace: Duration::from_millis(300),
        stdin: true,
        terminal: None,
        bundles: Vec::new(),
    }
}

/// Starts an execution with its streams, whose output may run.
pub async fn run(executor: &Executor, start: Start) -> Run {
    let mut run = run_on_allowance(executor, start).await;
    for channel in [Channel::InOut, Channel::Err] {
        // It fails if the start was refused already.
        frame::write(&mut run.control.far.send, &Steer::Allow { channel, up_to: u64::MAX }).await.ok();
    }
    run
}

/// Starts an execution with its streams, whose output may run as far as it is told.
pub async fn run_on_allowance(executor: &Executor, start: Start) -> Run {
    let id = start.id;
    let stdio = |channel| Open::Stdio(Stdio { id, channel });
    let control = open(executor, &Open::Exec(start)).await;
    let in_out = open(executor, &stdio(Channel::InOut)).await;
    let err = open(executor, &stdio(Channel::Err)).await;
    Run {
        control,
        stdin: in_out.far.send,
        stdout: in_out.far.recv,
        stderr: err.far.recv,
        _tasks: [in_out.task, err.task],
    }
}

impl Far {
    /// What the agent reset the stream with.
    pub fn was_reset(&self) -> Option<u32> {
        *self.reset.lock().expect("lock")
    }
}

impl Served {
    /// The next event but for what stdin is allowed.
    pub async fn event(&mut self) -> Event {
        loop {
            match soon(frame::read(&mut self.far.recv)).await.expect("an event") {
                Event::Allow { .. } => {}
                event => return event,
            }
        }
    }

    /// How far stdin may run, when that changes next.
    pub async fn allowed(&mut self) -> u64 {
        match soon(frame::read(&mut self.far.recv)).await.expect("an event") {
            Event::Allow { up_to } => up_to,
            other => panic!("unexpected {other:?}"),
        }
    }

    /// What the agent reset the stream with.
    pub fn was_reset(&self) -> Option<u32> {
        self.far.was_reset()
    }

    /// Lets an output run.
    pub async fn allow(&mut self, channel: Channel, up_to: u64) {
        frame::write(&mut self.far.send, &Steer::Allow { channel, up_to }).await.expect("steer");
    }

    /// Sends a signal.
    pub async fn signal(&mut self, signal: nix::sys::signal::Signal) {
        frame::write(&mut self.far.send, &Steer::Signal(signal as i32)).await.expect("steer");
    }

    /// Goes away: the control stream ends.
    pub async fn leave(self) -> Option<u32> {
        let Far { send, recv, reset } = self.far;
        drop((send, recv));
        soon(self.task).await.expect("no panic");
        *reset.lock().expect("lock")
    }

    /// The agent's task is dropped in the middle.
    pub fn abort(&mut self) {
        self.task.abort();
    }

    /// Waits until the agent is done with it.
    pub async fn served(&mut self) {
        soon(&mut self.task).await.expect("no panic");
    }
}

impl Run {
    /// Its process id.
    pub async fn started(&mut self) -> u32 {
        match self.control.event().await {
            Event::Started { pid } => pid,
            other => panic!("not started: {other:?}"),
        }
    }

    /// Closes stdin and waits until the agent is done.
    pub async fn finish_quietly(mut self) {
        drop((self.stdin, self.stdout, self.stderr));
        self.control.served().await;
    }

    /// Closes stdin, reads all output and waits for the end.
    pub async fn finish(mut self) -> (Event, Vec<u8>, Vec<u8>) {
        drop(self.stdin);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let first = self.control.event().await;
        let Event::Started { .. } = first else { return (first, out, err) };
        let (a, b, event) = soon(async {
            tokio::join!(self.stdout.read_to_end(&mut out), self.stderr.read_to_end(&mut err), self.control.event())
        })
        .await;
        a.expect("stdout");
        b.expect("stderr");
        self.control.served().await;
        (event, out, err)
    }
}

/// Runs `start` to its end.
pub async fn run_all(start: Start) -> (Event, String, String) {
    let (event, out, err) = run(&executor(), start).await.finish().await;
    (event, String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
}

/// Bounds a wait.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes too long")
}

/// Waits until `path` has a whole line and returns it.
pub async fn line(path: &std::path::Path) -> String {
    soon(async {
        loop {
            if let Ok(text) = std::fs::read_to_string(path)
                && let Some(line) = text.strip_suffix('\n')
            {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// Waits until the process is no more. A zombie counts as gone: whoever adopted it will reap it.
pub async fn gone(pid: &str) {
    soon(async {
        while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Writes `bytes` and closes.
pub async fn feed(mut stdin: DuplexStream, bytes: Vec<u8>) {
    stdin.write_all(&bytes).await.expect("write");
}
