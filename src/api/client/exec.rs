//! The two halves of an execution's connection.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadHalf},
    sync::{Semaphore, mpsc, oneshot},
};

use super::resume::{Connect, KEPT, Resumption, Upgraded};
use crate::{
    api::{
        ExecRequest,
        exec::{ExecResume, MAX_PAYLOAD, Resumable, STDIN_WINDOW},
        frames::{FrameReader, FrameWriter, FramesError, ToClient, ToController},
    },
    id::{AgentName, ExecId},
};

/// How much credit the controller may grant beyond what it took: a broken one cannot overflow the semaphore.
const MAX_CREDIT: usize = 1 << 30;

/// No stream comes so far: what is added to an offset below it does not overflow.
const FURTHEST: u64 = 1 << 60;

/// Sends to the process. Clones send to the same: one may feed stdin while another sends signals.
#[derive(Clone)]
pub struct ExecSender {
    frames: mpsc::Sender<ToController>,
    credit: Arc<Semaphore>,
}

/// Receives from the process. When it is dropped, the connection is closed, and a process that still runs is ended.
pub struct ExecReceiver {
    frames: Frames,
    credit: Arc<Semaphore>,
    ended: bool,
    open: Option<oneshot::Sender<()>>,
}

/// Where frames come from.
enum Frames {
    /// The connection itself.
    Connection(FrameReader<Box<dyn AsyncRead + Send + Unpin>>),
    /// Whoever resumes.
    Resumed(mpsc::Receiver<Result<ToClient, FramesError>>),
}

impl Frames {
    async fn next(&mut self) -> Result<Option<ToClient>, FramesError> {
        match self {
            Self::Connection(reader) => reader.next_from_controller().await,
            Self::Resumed(frames) => frames.recv().await.transpose(),
        }
    }
}

/// The connection is gone: the receiver says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the execution takes no more input")]
pub struct Gone;

/// Starts `request` on an upgraded connection.
pub(super) async fn open<S>(stream: S, request: &ExecRequest) -> Result<(ExecSender, ExecReceiver), FramesError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (read, write): (ReadHalf<S>, _) = tokio::io::split(stream);
    let mut writer = FrameWriter::new(write);
    writer.write_to_controller(&ToController::Start(request.clone())).await?;
    let credit = Arc::new(Semaphore::new(STDIN_WINDOW as usize));
    let (frames, mut queue) = mpsc::channel::<ToController>(4);
    let (open, mut closed) = oneshot::channel::<()>();
    tokio::spawn(async move {
        let send = async {
            while let Some(frame) = queue.recv().await {
                if writer.write_to_controller(&frame).await.is_err() {
                    break;
                }
            }
            // The process lives on without senders: only the receiver's end closes the connection.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = &mut closed => (),
            () = send => (),
        }
    });
    let source = Frames::Connection(FrameReader::new(Box::new(read)));
    let receiver = ExecReceiver { frames: source, credit: credit.clone(), ended: false, open: Some(open) };
    Ok((ExecSender { frames, credit }, receiver))
}

/// Starts `request`, which may be resumed, on an upgraded connection; `connect` makes further ones.
pub(super) async fn open_resumable<C>(
    stream: Upgraded,
    request: &ExecRequest,
    resume: Resumable,
    connect: C,
) -> Result<(ExecSender, ExecReceiver), FramesError>
where
    C: Connect,
{
    let (read, write) = tokio::io::split(stream);
    let (reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    writer.write_to_controller(&ToController::Start(request.clone())).await?;
    let credit = Arc::new(Semaphore::new(KEPT));
    let (frames, queue) = mpsc::channel(4);
    let (out, source) = mpsc::channel(2);
    let (open, closed) = oneshot::channel();
    let resumption = Resumption::new(request, resume, queue, out, credit.clone());
    tokio::spawn(resumption.run((reader, writer), connect, closed));
    let receiver =
        ExecReceiver { frames: Frames::Resumed(source), credit: credit.clone(), ended: false, open: Some(open) };
    Ok((ExecSender { frames, credit }, receiver))
}

/// Comes as a new user to an execution, on an upgraded connection; `connect` makes further ones.
pub(super) async fn open_attached<C>(
    stream: Upgraded,
    agent: AgentName,
    id: ExecId,
    connect: C,
) -> Result<(ExecSender, ExecReceiver), FramesError>
where
    C: Connect,
{
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    let resume = ExecResume { agent, id, stdin: true, stdout: 0, stderr: 0, user: None };
    writer.write_to_controller(&ToController::Resume(resume.clone())).await?;
    let ended = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let first = reader.next_from_controller().await?.ok_or_else(ended)?;
    if let ToClient::Attached(at) = &first
        && (at.stdout.max(at.stderr) > FURTHEST || (at.stdin > FURTHEST && at.stdin != u64::MAX))
    {
        return Err(FramesError::Malformed(format!("no process came as far as {at:?}")));
    }
    let credit = Arc::new(Semaphore::new(KEPT));
    let (frames, queue) = mpsc::channel(4);
    let (out, source) = mpsc::channel(2);
    let (open, closed) = oneshot::channel();
    // There is room for one.
    out.try_send(Ok(first.clone())).ok();
    if let ToClient::Attached(attached) = &first {
        let resumption = Resumption::attached(resume, attached, queue, out, credit.clone());
        tokio::spawn(resumption.run((reader, writer), connect, closed));
    }
    let receiver =
        ExecReceiver { frames: Frames::Resumed(source), credit: credit.clone(), ended: false, open: Some(open) };
    Ok((ExecSender { frames, credit }, receiver))
}

impl ExecSender {
    /// Sends bytes of stdin, as fast as the process takes them. Not cancel-safe: part may have been sent.
    pub async fn stdin(&self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(MAX_PAYLOAD));
            let permits = self.credit.acquire_many(part.len() as u32).await.map_err(|_| Gone)?;
            permits.forget();
            self.send(ToController::Stdin(part)).await?;
        }
        Ok(())
    }

    /// Tells that there will be no more stdin.
    pub async fn stdin_end(&self) -> Result<(), Gone> {
        self.send(ToController::StdinEnd).await
    }

    /// Sends the process group a signal; never waits for stdin to be taken.
    pub async fn signal(&self, signal: i32) -> Result<(), Gone> {
        self.send(ToController::Signal(signal)).await
    }

    /// Tells the size of our terminal.
    pub async fn size(&self, columns: u16, rows: u16) -> Result<(), Gone> {
        self.send(ToController::Size(columns, rows)).await
    }

    /// Leaves the terminal, which waits for somebody to come back; what was sent before arrives there. The receiver ends when it is said.
    pub async fn detach(&self) -> Result<(), Gone> {
        self.send(ToController::Detach).await
    }

    async fn send(&self, frame: ToController) -> Result<(), Gone> {
        self.frames.send(frame).await.map_err(|_| Gone)
    }
}

impl ExecReceiver {
    /// The next frame; `None` after `Exit`. Never returns a credit. A connection that ends before `Exit` is an error.
    /// Cancel-safe. As long as it is not called the process's output waits, and so does the process.
    pub async fn next(&mut self) -> Result<Option<ToClient>, FramesError> {
        while !self.ended {
            match self.frames.next().await {
                Ok(Some(ToClient::StdinCredit(bytes))) => {
                    let room = MAX_CREDIT.saturating_sub(self.credit.available_permits());
                    self.credit.add_permits((bytes as usize).min(room));
                }
                Ok(Some(frame)) => {
                    if matches!(frame, ToClient::Exit(_)) {
                        self.end();
                    }
                    return Ok(Some(frame));
                }
                Ok(None) => {
                    self.end();
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                }
                Err(e) => {
                    self.end();
                    return Err(e);
                }
            }
        }
        Ok(None)
    }

    /// Closes the connection: a process that still runs is ended. Returns when that was said, unlike a drop.
    pub async fn close(&mut self) {
        self.open = None;
        self.drain().await;
    }

    /// Reads what still comes and forgets it.
    pub async fn drain(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }

    fn end(&mut self) {
        self.ended = true;
        self.credit.close();
    }
}

impl Drop for ExecReceiver {
    fn drop(&mut self) {
        self.credit.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::ExecEnd;

    #[tokio::test]
    async fn a_signal_passes_stdin_that_waits_for_credit() {
        let (client, server) = tokio::io::duplex(64 << 10);
        let (read, write) = tokio::io::split(server);
        let (mut read, mut write) = (FrameReader::new(read), FrameWriter::new(write));
        let request = ExecRequest::new("a".parse().expect("name"), ["cat"]);
        let (sender, mut receiver) = open(client, &request).await.expect("open");
        let blob = Bytes::from(vec![1; STDIN_WINDOW as usize + 1000]);
        let feeder = tokio::spawn({
            let sender = sender.clone();
            async move { sender.stdin(blob).await }
        });
        let mut seen = 0;
        let mut signalled = false;
        loop {
            match tokio::time::timeout(Duration::from_secs(10), read.next_from_client()).await.expect("in time") {
                Ok(Some(ToController::Start(_))) => (),
                Ok(Some(ToController::Stdin(bytes))) => seen += bytes.len(),
                Ok(Some(ToController::Signal(15))) => {
                    signalled = true;
                    write.write_to_client(&ToClient::StdinCredit(1000)).await.expect("write");
                    write.write_to_client(&ToClient::Started(1)).await.expect("write");
                    assert_eq!(receiver.next().await.expect("next"), Some(ToClient::Started(1)));
                }
                other => panic!("unexpected {other:?}"),
            }
            if seen == STDIN_WINDOW as usize / MAX_PAYLOAD * MAX_PAYLOAD && !signalled {
                sender.signal(15).await.expect("signal");
            }
            if seen == STDIN_WINDOW as usize + 1000 {
                break;
            }
        }
        assert!(signalled);
        feeder.await.expect("feeder").expect("sent");
        write.write_to_client(&ToClient::Exit(ExecEnd::TimedOut)).await.expect("write");
        assert_eq!(receiver.next().await.expect("next"), Some(ToClient::Exit(ExecEnd::TimedOut)));
        assert_eq!(receiver.next().await.expect("next"), None);
        assert_eq!(sender.stdin(Bytes::from_static(b"x")).await, Err(Gone));
    }

    #[tokio::test]
    async fn dropping_the_receiver_closes_the_connection() {
        let (client, server) = tokio::io::duplex(1024);
        let request = ExecRequest::new("a".parse().expect("name"), ["cat"]);
        let (_sender, receiver) = open(client, &request).await.expect("open");
        drop(receiver);
        let mut read = FrameReader::new(server);
        let end = tokio::time::timeout(Duration::from_secs(10), async {
            while let Ok(Some(_)) = read.next_from_client().await {}
        });
        end.await.expect("closed in time");
    }
}
