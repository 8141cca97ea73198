//! An execution that goes on over one connection after the other.
//!
//! What the process did not take of stdin stays here; what came of its output is counted and confirmed. So whoever connects
//! again says where it goes on, and no byte is missing or doubled, whoever else died meanwhile.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{ReadHalf, WriteHalf},
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Client, ClientError, stdin::Stdin};
use crate::{
    api::{
        Code, EXEC_PROTOCOL, ExecEnd, ExecRequest, RefusalKind,
        exec::{ExecAttached, ExecResume, Resumable},
        frames::{FrameReader, FrameWriter, FramesError, ToClient, ToController},
    },
    backoff::Backoff,
};

/// How much of stdin is kept that the process did not take: 8 MiB.
pub(super) const KEPT: usize = 8 << 20;

/// Output is confirmed in steps of this size: the agent keeps eight of them.
const CONFIRM: u64 = 1 << 20;

/// Of a terminal also when nothing more came for so long: whoever comes from elsewhere gets again what was not confirmed.
const QUIET: Duration = Duration::from_secs(1);

/// Delays between tries to come back.
const RETRY: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// How long one try may take.
const TRY: Duration = Duration::from_secs(15);

/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// A connection that speaks frames.
pub(super) type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

type Reader = FrameReader<ReadHalf<Upgraded>>;
type Writer = FrameWriter<WriteHalf<Upgraded>>;

/// Makes connections.
pub(super) trait Connect: Send + Sync + 'static {
    fn connect(&self) -> BoxFuture<'_, Result<Upgraded, ClientError>>;
}

impl Connect for Client {
    fn connect(&self) -> BoxFuture<'_, Result<Upgraded, ClientError>> {
        Box::pin(self.upgrade("/v1/exec", EXEC_PROTOCOL))
    }
}

/// Why a connection is of no more use.
enum Over {
    /// The end came, or nobody wants it any more.
    Done,
    /// Somebody means to come back, and has said so.
    Detached,
    /// It may go on over another one.
    Lost(String),
}

/// Why one did not come back.
enum Failed {
    /// The next try may go better.
    Broken(String),
    /// It is not let in any more.
    Refused(String),
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self::Broken(why)
    }
}

/// An execution beyond its connections.
pub(super) struct Resumption {
    resume: ExecResume,
    patience: Duration,
    queue: mpsc::Receiver<ToController>,
    out: mpsc::Sender<Result<ToClient, FramesError>>,
    stdin: Stdin,
    received: Received,
    /// Whether the process has a terminal.
    terminal: bool,
}

/// What came.
#[derive(Default, Clone, Copy)]
struct Received {
    stdout: u64,
    stderr: u64,
    confirmed: u64,
}

/// What the reading side found and the writing side has to know.
#[derive(Default, Clone, Copy)]
struct Told {
    /// What the controller granted on this connection, in all.
    credit: u64,
    taken: u64,
    confirm: (u64, u64),
}

impl Resumption {
    pub fn new(
        request: &ExecRequest,
        resume: Resumable,
        queue: mpsc::Receiver<ToController>,
        out: mpsc::Sender<Result<ToClient, FramesError>>,
        room: Arc<Semaphore>,
    ) -> Self {
        let patience = Duration::from_millis(resume.patience_ms);
        let (agent, id, stdin) = (request.agent.clone(), resume.id, request.stdin);
        let resume = ExecResume { agent, id, stdin, stdout: 0, stderr: 0, user: Some(0) };
        let (received, terminal) = (Received::default(), request.terminal.is_some());
        Self { resume, patience, queue, out, stdin: Stdin::new(0, room), received, terminal }
    }

    /// One that somebody else began.
    pub fn attached(
        resume: ExecResume,
        attached: &ExecAttached,
        queue: mpsc::Receiver<ToController>,
        out: mpsc::Sender<Result<ToClient, FramesError>>,
        room: Arc<Semaphore>,
    ) -> Self {
        let ExecAttached { stdin, stdout, stderr, user, patience_ms, terminal, .. } = *attached;
        let resume = ExecResume { user: Some(user), ..resume };
        let received = Received { stdout, stderr, confirmed: stdout + stderr };
        let patience = Duration::from_millis(patience_ms);
        // A process that takes no more has no place to go on at.
        let stdin = Stdin::new(if stdin == u64::MAX { 0 } else { stdin }, room);
        Self { resume, patience, queue, out, stdin, received, terminal }
    }

    /// To the end. `closed` ends when nobody wants it any more.
    pub async fn run(
        mut self,
        (mut reader, mut writer): (Reader, Writer),
        connect: impl Connect,
        mut closed: oneshot::Receiver<()>,
    ) {
        loop {
            let lost = tokio::select! {
                biased;
                _ = &mut closed => {
                    // Part of a frame may have gone out: then the controller sees nonsense, and then the end, which says the same.
                    let _ = timeout(FAREWELL, leave(&mut writer)).await;
                    return;
                }
                over = self.flow(&mut reader, &mut writer) => match over {
                    Over::Done => {
                        let _ = timeout(FAREWELL, leave(&mut writer)).await;
                        return;
                    }
                    Over::Detached => {
                        let _ = timeout(FAREWELL, writer.shutdown()).await;
                        return;
                    }
                    Over::Lost(why) => why,
                },
            };
            drop((reader, writer));
            if self.out.send(Ok(ToClient::Lost(lost.clone()))).await.is_err() {
                return;
            }
            let again = tokio::select! {
                biased;
                _ = &mut closed => return,
                again = self.come_back(&connect, lost) => again,
            };
            match again {
                Ok(streams) => (reader, writer) = streams,
                Err(error) => {
                    let _ = self.out.send(error).await;
                    return;
                }
            }
        }
    }

    /// Tries to come back until the time is over. The error is the last that the receiver gets.
    async fn come_back(
        &mut self,
        connect: &impl Connect,
        mut why: String,
    ) -> Result<(Reader, Writer), Result<ToClient, FramesError>> {
        let until = Instant::now() + self.patience;
        let mut backoff = RETRY;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match timeout(TRY.min(left), self.try_once(connect)).await {
                Ok(Ok((reader, writer, ToClient::Resumed(stdin)))) => {
                    self.stdin.go_on(stdin);
                    self.received.confirmed = self.received.stdout + self.received.stderr;
                    if self.out.send(Ok(ToClient::Resumed(stdin))).await.is_ok() {
                        return Ok((reader, writer));
                    }
                }
                Ok(Ok((_, _, end @ ToClient::Exit(_)))) => return Err(Ok(end)),
                Ok(Ok((_, _, ToClient::Lost(detail)))) => why = detail,
                Ok(Ok(_)) => why = "the controller broke the rk-exec protocol".to_owned(),
                Ok(Err(Failed::Broken(error))) => why = error,
                Ok(Err(Failed::Refused(message))) => {
                    return Err(Ok(ToClient::Exit(ExecEnd::Refused { reason: RefusalKind::Forbidden, message })));
                }
                Err(_) => why = "no answer in time".to_owned(),
            }
            let pause =
                backoff.next(uuid::Uuid::new_v4().as_u64_pair().1).min(until.saturating_duration_since(Instant::now()));
            sleep(pause).await;
        }
        let why = format!("not resumed within {:?}: {why}", self.patience);
        Err(Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why).into()))
    }

    async fn try_once(&self, connect: &impl Connect) -> Result<(Reader, Writer, ToClient), Failed> {
        let stream = connect.connect().await.map_err(|error| match error {
            ClientError::Api(error) if matches!(error.code, Code::Unauthorized | Code::Forbidden) => {
                Failed::Refused(error.message)
            }
            error => Failed::Broken(error.to_string()),
        })?;
        Ok(self.ask(stream).await?)
    }

    async fn ask(&self, stream: Upgraded) -> Result<(Reader, Writer, ToClient), String> {
        let (read, write) = tokio::io::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        let resume = ExecResume { stdout: self.received.stdout, stderr: self.received.stderr, ..self.resume.clone() };
        writer.write_to_controller(&ToController::Resume(resume)).await.map_err(|error| error.to_string())?;
        match reader.next_from_controller().await {
            Ok(Some(answer)) => Ok((reader, writer, answer)),
            Ok(None) => Err("the controller closed the connection".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Moves frames both ways over one connection.
    async fn flow(&mut self, reader: &mut Reader, writer: &mut Writer) -> Over {
        let Self { queue, out, stdin, received, terminal, .. } = self;
        let (tell, mut told) = watch::channel(Told::default());
        let read = read(reader, out, received, tell, *terminal);
        let write = async {
            let (mut known, mut detaching) = (Told::default(), false);
            loop {
                let frame = tokio::select! {
                    biased;
                    Ok(()) = told.changed() => {
                        let before = std::mem::replace(&mut known, *told.borrow_and_update());
                        stdin.credit = stdin.credit.saturating_add(known.credit - before.credit);
                        stdin.taken(known.taken);
                        if known.confirm == before.confirm {
                            continue;
                        }
                        ToController::Confirm(known.confirm.0, known.confirm.1)
                    }
                    Some(frame) = queue.recv() => match frame {
                        ToController::Stdin(bytes) => {
                            stdin.push(bytes);
                            continue;
                        }
                        ToController::StdinEnd => {
                            stdin.ended = true;
                            continue;
                        }
                        ToController::Detach => {
                            detaching = true;
                            continue;
                        }
                        frame => frame,
                    },
                    Some(frame) = async { stdin.next().or(detaching.then_some(ToController::Detach)) } => frame,
                    // The reading side says why.
                    else => std::future::pending().await,
                };
                if let Err(error) = writer.write_to_controller(&frame).await {
                    return Over::Lost(error.to_string());
                }
                if frame == ToController::Detach {
                    return Over::Detached;
                }
            }
        };
        tokio::select! {
            biased;
            over = read => over,
            over = write => over,
        }
    }
}

/// Hands on what comes, and counts it when it was handed on.
async fn read(
    reader: &mut Reader,
    out: &mpsc::Sender<Result<ToClient, FramesError>>,
    received: &mut Received,
    tell: watch::Sender<Told>,
    terminal: bool,
) -> Over {
    let mut due = None;
    let confirm = |received: &mut Received| {
        received.confirmed = received.stdout + received.stderr;
        tell.send_modify(|told| told.confirm = (received.stdout, received.stderr));
    };
    loop {
        let frame = tokio::select! {
            biased;
            frame = reader.next_from_controller() => frame,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                confirm(received);
                continue;
            }
        };
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return Over::Lost("the controller closed the connection".to_owned()),
            Err(error) => return Over::Lost(error.to_string()),
        };
        let (mut stdout, mut stderr, mut ends) = (0, 0, false);
        match &frame {
            ToClient::StdinCredit(bytes) => tell.send_modify(|told| told.credit += u64::from(*bytes)),
            ToClient::Taken(up_to) => tell.send_modify(|told| told.taken = told.taken.max(*up_to)),
            ToClient::Lost(why) => return Over::Lost(why.clone()),
            ToClient::Stdout(bytes) => stdout = bytes.len() as u64,
            ToClient::Stderr(bytes) => stderr = bytes.len() as u64,
            ToClient::Exit(_) => ends = true,
            _ => {}
        }
        if matches!(frame, ToClient::StdinCredit(_) | ToClient::Taken(_)) {
            continue;
        }
        if out.send(Ok(frame)).await.is_err() || ends {
            return Over::Done;
        }
        received.stdout += stdout;
        received.stderr += stderr;
        let unconfirmed = received.stdout + received.stderr - received.confirmed;
        if unconfirmed >= CONFIRM {
            confirm(received);
        }
        due = due.or_else(|| (terminal && unconfirmed > 0).then(|| Instant::now() + QUIET));
    }
}

/// Tells the controller that nobody comes back.
async fn leave(writer: &mut Writer) -> Result<(), FramesError> {
    writer.write_to_controller(&ToController::Leave).await?;
    writer.shutdown().await
}
