//! `POST /v1/exec`: an execution on an upgraded connection. [`api::exec`](crate::api::exec) has the frames.
//!
//! Two futures run side by side, so that neither direction waits for the other: [`input`] puts stdin aside as far as
//! there is credit, which keeps signals moving, and [`output`] sends what comes and waits while the client does not
//! read. What is held per execution is bounded by the stdin window and one frame of each output.

use std::{io, net::SocketAddr, time::Duration};

use axum::{
    extract::{Request, State},
    response::Response,
};
use bytes::{BufMut, BytesMut};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::{sleep, timeout},
};

use super::{
    access::from,
    stdin::{Credit, Early, gone, input},
    upgrade::{PATIENCE, upgrade},
};
use crate::{
    api::{
        ApiError, EXEC_PROTOCOL, ExecEnd, ExecRequest, Fault, RefusalKind,
        access::Verb,
        exec::{ExecAttached, ExecResume, MAX_PAYLOAD},
        frames::{FrameReader, FrameWriter, FramesError, ToClient, ToController},
    },
    controller::{Control, Execution, Handle, access::Caller, audit::Entry, peer::BoxReader},
    protocol::exec::{Attached, Steer},
};

/// How long a client may take to close its side after the end.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// Answers 101, and serves the execution on what follows.
pub async fn start(State(handle): State<Handle>, caller: Caller, request: Request) -> Response {
    let client = Client { caller, from: from(&request) };
    upgrade(EXEC_PROTOCOL, "executions", request, async move |stream| serve(&handle, &client, stream).await)
}

/// Who is at the other end.
pub(in crate::controller) struct Client {
    pub caller: Caller,
    pub from: Option<SocketAddr>,
}

/// Serves one execution on a connection, from the request to the end.
pub(in crate::controller) async fn serve<S: AsyncRead + AsyncWrite>(handle: &Handle, client: &Client, stream: S) {
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    if let Some(first) = first(&mut reader, &mut writer).await {
        let done = tokio::select! {
            done = permitted(handle, client, first, &mut reader, &mut writer) => done,
            // A client that does not read what it is told cannot keep the controller from stopping.
            () = abandoned(handle) => false,
        };
        if !done {
            return;
        }
    }
    // Closing with unread input would reset the connection, and the client might lose the end.
    let farewell = async {
        writer.shutdown().await?;
        while reader.next_from_client().await?.is_some() {}
        Ok::<_, FramesError>(())
    };
    let _ = timeout(FAREWELL, farewell).await;
}

/// Ends a while after the controller gave up what runs.
pub(super) async fn abandoned(handle: &Handle) {
    handle.abandoned().await;
    sleep(FAREWELL).await;
}

/// What a connection is for.
enum First {
    Start(ExecRequest),
    Resume(ExecResume),
}

/// The first frame; what is none is answered.
async fn first<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
) -> Option<First> {
    let message = match timeout(PATIENCE, reader.next_from_client()).await {
        Ok(Ok(Some(ToController::Start(request)))) => return Some(First::Start(request)),
        Ok(Ok(Some(ToController::Resume(resume)))) => return Some(First::Resume(resume)),
        Ok(Ok(Some(_))) => "the first frame must be the request".to_owned(),
        Ok(Ok(None)) | Err(_) => return None,
        Ok(Err(error)) => error.to_string(),
    };
    let end = ExecEnd::Refused { reason: RefusalKind::Invalid, message };
    let _ = timeout(PATIENCE, writer.write_to_client(&ToClient::Exit(end))).await;
    None
}

/// Notes what is asked for; runs or resumes what may be. False if the client is gone.
async fn permitted<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    handle: &Handle,
    client: &Client,
    first: First,
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
) -> bool {
    let (agent, detail) = match &first {
        First::Start(request) => (&request.agent, format!("{}: {}", request.agent, request.argv.join(" "))),
        First::Resume(ExecResume { agent, id, user, .. }) => {
            let what = if user.is_some() { "goes on with" } else { "attaches to" };
            (agent, format!("{agent}: {what} {id}"))
        }
    };
    let checked = handle.check_agent(&client.caller, agent);
    let status = checked.as_ref().map_or_else(|error| error.code.http_status(), |()| 101);
    let (who, verb, detail) = (Some(client.caller.name()), Verb::Exec.as_str(), Some(detail));
    let entry = Entry { who, from: client.from, verb, request: "POST /v1/exec", detail, status };
    handle.audit().note(entry).await;
    match checked {
        Ok(()) => {
            let ended = handle.token_ended(&client.caller).boxed().shared();
            execute(handle, first, &ended, reader, writer).await
        }
        Err(error) => {
            let end = ExecEnd::Refused { reason: RefusalKind::Forbidden, message: error.message };
            writer.write_to_client(&ToClient::Exit(end)).await.is_ok()
        }
    }
}

/// When the client's token is good no more, and what is said then.
type Ended = Shared<BoxFuture<'static, ApiError>>;

/// Runs or resumes, until the end or that of the client's token. False if the client is gone.
async fn execute<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    handle: &Handle,
    first: First,
    ended: &Ended,
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
) -> bool {
    let (with_stdin, resumable, resumed) = match &first {
        First::Start(request) => (request.stdin, request.resume.is_some(), false),
        First::Resume(resume) => (resume.stdin, true, true),
    };
    let mut early = Early::default();
    let begin = async {
        match first {
            First::Start(request) => handle.exec(request).await,
            First::Resume(resume) => handle.resume_exec(resume).await,
        }
    };
    tokio::pin!(begin);
    let begun = tokio::select! {
        begun = &mut begin => begun,
        // What is given up before it started is given up: the streams are reset.
        () = early.read(reader) => {
            give_up(resumable, begin, Steer::Disconnected).await;
            return false;
        }
        error = ended.clone() => {
            let _ = timeout(FAREWELL, writer.write_to_client(&ToClient::Exit(forbidden(error)))).await;
            give_up(resumable, begin, Steer::HangUp).await;
            return true;
        }
    };
    let execution = match begun {
        Ok(execution) => execution,
        Err(end) => return writer.write_to_client(&ending(end, resumed)).await.is_ok(),
    };
    let Execution { pid, stdin, stdout, stderr, mut control, stdin_at, attached } = execution;
    let answer = match attached {
        Some(attached) => ToClient::Attached(told(&attached)),
        None if resumed => ToClient::Resumed(stdin_at),
        None => ToClient::Started(pid),
    };
    let signals = control.signals();
    if writer.write_to_client(&answer).await.is_err() {
        if resumable {
            signals.steer(Steer::Disconnected).await;
        }
        return false;
    }
    let credit = Credit::default();
    let stdin = with_stdin.then_some(stdin);
    let input = input(reader, early, stdin, &signals, &credit, resumable);
    tokio::pin!(input);
    let sent = tokio::select! {
        () = &mut input => return false,
        sent = output(writer, (stdout, stderr), &mut control, &credit, resumable, ended) => Some(sent),
        // A client that does not read what it is told keeps nothing running.
        () = async { ended.clone().await; sleep(FAREWELL).await } => None,
    };
    if ended.peek().is_some() {
        // What can't be resumed ends with its streams.
        if resumable {
            let _ = timeout(FAREWELL, signals.steer(Steer::HangUp)).await;
        }
        return sent.is_some_and(|sent| sent.is_ok());
    }
    match sent {
        Some(Ok(())) => {
            if resumable {
                // The client says when it has the end, which the agent keeps for it until then.
                let _ = timeout(FAREWELL, input).await;
            }
            true
        }
        Some(Err(error)) => {
            // What the client said before it went is still heard: that it left on purpose, or comes back. Whoever reads from it may also
            // hear of its end later, or never.
            if timeout(FAREWELL, input).await.is_err() {
                gone(Some(error), &signals, resumable).await;
            }
            false
        }
        None => false,
    }
}

/// Gives up what has not started yet. What can't be resumed ends with its streams, which are reset; of what can the agent has to be
/// told, or it would wait for the client.
async fn give_up(resumable: bool, begin: impl Future<Output = Result<Execution, ExecEnd>>, why: Steer) {
    if resumable && let Ok(execution) = begin.await {
        execution.control.signals().steer(why).await;
    }
}

/// What ends because the client's token did.
fn forbidden(error: ApiError) -> ExecEnd {
    ExecEnd::Refused { reason: RefusalKind::Forbidden, message: error.message }
}

/// How a new client is told where it goes on.
fn told(attached: &Attached) -> ExecAttached {
    let Attached { pid, stdin, stdout, stderr, user, patience, terminal } = *attached;
    let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    ExecAttached { pid, stdin, stdout, stderr, user, patience_ms, terminal }
}

/// How a client is told of an end. What can be resumed has not ended because nobody answers now.
fn ending(end: ExecEnd, resumable: bool) -> ToClient {
    match end {
        ExecEnd::NoAnswer { message, .. } if resumable => ToClient::Lost(message),
        ExecEnd::Refused { reason: RefusalKind::Offline | RefusalKind::Busy, message } if resumable => {
            ToClient::Lost(message)
        }
        end => ToClient::Exit(end),
    }
}

/// One of the process's outputs on its way.
struct Output {
    reader: BoxReader,
    buffer: BytesMut,
    end: Option<io::Result<()>>,
}

impl Output {
    fn new(reader: BoxReader) -> Self {
        Self { reader, buffer: BytesMut::with_capacity(16 << 10), end: None }
    }

    /// Waits for bytes or the end, and takes as much as is there, up to a frame. Cancel-safe.
    async fn fill(&mut self) {
        if self.buffer.is_empty() {
            self.buffer.reserve(16 << 10);
            let first = self.reader.read_buf(&mut (&mut self.buffer).limit(MAX_PAYLOAD)).await;
            self.note(first);
        }
        while self.end.is_none() && self.buffer.len() < MAX_PAYLOAD {
            // A stream that keeps coming grows the buffer once, to a whole frame.
            self.buffer.reserve(MAX_PAYLOAD - self.buffer.len());
            let room = MAX_PAYLOAD - self.buffer.len();
            match self.reader.read_buf(&mut (&mut self.buffer).limit(room)).now_or_never() {
                Some(read) => self.note(read),
                None => return,
            }
        }
    }

    fn note(&mut self, read: io::Result<usize>) {
        match read {
            Ok(0) => self.end = Some(Ok(())),
            Ok(_) => (),
            Err(error) => self.end = Some(Err(error)),
        }
    }
}

/// Sends what the process writes, and last how it ended. An error means that the client is gone.
async fn output<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    (stdout, stderr): (BoxReader, BoxReader),
    control: &mut Control,
    credit: &Credit,
    resumable: bool,
    ended: &Ended,
) -> Result<(), FramesError> {
    let (mut stdout, mut stderr) = (Output::new(stdout), Output::new(stderr));
    let (mut end, mut taken, mut over) = (None, control.taken(), ended.clone());
    loop {
        if let Some(end) = verdict(&end, &stdout, &stderr) {
            return writer.write_to_client(&ending(end, resumable)).await;
        }
        tokio::select! {
            () = stdout.fill(), if stdout.end.is_none() => send(writer, &mut stdout, false).await?,
            () = stderr.fill(), if stderr.end.is_none() => send(writer, &mut stderr, true).await?,
            bytes = credit.take() => writer.write_to_client(&ToClient::StdinCredit(bytes)).await?,
            Ok(()) = taken.changed() => {
                let bytes = *taken.borrow_and_update();
                writer.write_to_client(&ToClient::Taken(bytes)).await?;
            }
            ended = control.end(), if end.is_none() => end = Some(ended),
            error = &mut over => return writer.write_to_client(&ToClient::Exit(forbidden(error))).await,
        }
    }
}

async fn send<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    output: &mut Output,
    stderr: bool,
) -> Result<(), FramesError> {
    writer.write_output(stderr, &output.buffer).await?;
    output.buffer.clear();
    match output.end {
        Some(Ok(())) if stderr => writer.write_to_client(&ToClient::StderrEnd).await,
        Some(Ok(())) => writer.write_to_client(&ToClient::StdoutEnd).await,
        _ => Ok(()),
    }
}

/// What the client is told, once everything is known. An output that broke off is not passed over in silence.
fn verdict(end: &Option<ExecEnd>, stdout: &Output, stderr: &Output) -> Option<ExecEnd> {
    let end = end.as_ref()?;
    if matches!(end, ExecEnd::NoAnswer { .. } | ExecEnd::Refused { .. }) {
        return Some(end.clone());
    }
    let (Some(stdout), Some(stderr)) = (&stdout.end, &stderr.end) else { return None };
    for (name, output) in [("stdout", stdout), ("stderr", stderr)] {
        if let Err(error) = output {
            let message = format!("the process ended ({end:?}), but its {name} broke off: {error}");
            return Some(ExecEnd::NoAnswer { fault: Fault::Agent, message });
        }
    }
    Some(end.clone())
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use tokio::{
        io::{AsyncWriteExt, DuplexStream, ReadBuf},
        sync::watch,
    };

    use super::*;
    use crate::{
        api::exec::Resumable,
        controller::testing::{Site, name, soon},
        id::ExecId,
        protocol::exec::Event,
    };

    /// A connection to a client that is gone, which only who writes has noticed yet.
    struct HalfGone {
        inner: DuplexStream,
        gone: watch::Receiver<bool>,
    }

    impl AsyncRead for HalfGone {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for HalfGone {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            if *self.gone.borrow() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
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

    #[tokio::test]
    async fn an_agent_hears_of_a_client_that_is_gone_also_from_who_wrote_to_it() {
        let site = Site::new();
        let world = site.controller().await.expect("started");
        let mut agent = world.agent("a").await;
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (gone, is_gone) = watch::channel(false);
        let mut request = ExecRequest::new(name("a"), ["cat"]);
        request.resume = Some(Resumable { id: ExecId::random(), patience_ms: 60_000 });
        let (read, write) = tokio::io::split(theirs);
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        writer.write_to_controller(&ToController::Start(request)).await.expect("asked");
        let handle = world.handle.clone();
        let serving = tokio::spawn(async move {
            let client = Client { caller: Caller::Root, from: None };
            serve(&handle, &client, HalfGone { inner: ours, gone: is_gone }).await;
        });
        let mut process = agent.exec().await;
        process.tell(Event::Started { pid: 7 }).await;
        assert_eq!(soon(reader.next_from_controller()).await.expect("a frame"), Some(ToClient::Started(7)));
        gone.send_replace(true);
        process.stdout.as_mut().expect("open").write_all(b"the last words").await.expect("written");
        // Limits may come before it.
        while process.steered().await != Steer::Disconnected {}
        soon(serving).await.expect("served");
    }
}
