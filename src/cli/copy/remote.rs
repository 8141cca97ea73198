//! The program on an agent that serves files, as a command's other end. It runs as a resumable execution: what breaks on the
//! way costs a wait, and nothing else.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::{AsyncWriteExt, SimplexStream},
    task::JoinHandle,
};

use crate::{
    api::{
        Client, ExecEnd, ExecRequest,
        client::{ExecReceiver, ExecSender},
        exec::Resumable,
        frames::ToClient,
    },
    cli::{Failure, failure, output},
    id::{AgentName, ExecId},
    service::files::{DATA, END, Entry, MAX_PAYLOAD, PROGRAM, REPLY, REQUEST, Reason, Reply, Request},
    tagged::{TaggedError, TaggedReader},
};

/// How long the agent's program waits for us.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was read and waits to be looked at.
const WAITING: usize = 1 << 20;

/// The other end.
pub struct Remote {
    sender: ExecSender,
    frames: TaggedReader<tokio::io::ReadHalf<SimplexStream>>,
    pump: Option<JoinHandle<Failure>>,
}

/// What comes of a content.
pub enum Part {
    /// Bytes.
    Data(Bytes),
    /// All was sent; the SHA-256 of the whole file, empty for a part of one.
    End(Bytes),
}

/// Why something was not done: it was refused, and others may succeed, or nothing goes on.
#[derive(Debug)]
pub enum Trouble {
    /// The agent's program says so.
    Refused(Reason, String),
    /// The way or the program is gone.
    Over(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Over(failure)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Over(failure) => failure,
            Trouble::Refused(Reason::Denied, text) => Self::new(failure::REFUSED, text),
            Trouble::Refused(_, text) => Self::new(1, text),
        }
    }
}

impl Remote {
    /// Starts it.
    pub async fn open(client: &Client, agent: &AgentName) -> Result<Self, Failure> {
        let resume = Resumable { id: ExecId::random(), patience_ms: PATIENCE.as_millis() as u64 };
        let request = ExecRequest { stdin: true, resume: Some(resume), ..ExecRequest::new(agent.clone(), [PROGRAM]) };
        let (sender, receiver) = client.exec(&request).await?;
        let (read, write) = tokio::io::simplex(WAITING);
        let pump = tokio::spawn(pump(receiver, write));
        Ok(Self { sender, frames: TaggedReader::new(read, MAX_PAYLOAD), pump: Some(pump) })
    }

    /// Asks for something.
    pub async fn ask(&mut self, request: &Request) -> Result<(), Failure> {
        let payload = postcard::to_stdvec(request).map_err(|e| Failure::usage(e.to_string()))?;
        if payload.len() > MAX_PAYLOAD {
            return Err(Failure::usage("a path is too long"));
        }
        self.send(REQUEST, payload.into()).await
    }

    /// The next answer.
    pub async fn answer(&mut self) -> Result<Reply, Trouble> {
        match self.next().await? {
            (REPLY, payload) => match postcard::from_bytes(&payload) {
                Ok(Reply::Failed(reason, text)) => Err(Trouble::Refused(reason, text)),
                Ok(reply) => Ok(reply),
                Err(e) => Err(odd(&e.to_string()).into()),
            },
            (kind, _) => Err(odd(&format!("frame {kind} in an answer's place")).into()),
        }
    }

    /// Asks, and expects what is there.
    pub async fn entry(&mut self, request: &Request) -> Result<Entry, Trouble> {
        self.ask(request).await?;
        match self.answer().await? {
            Reply::Entry(entry) => Ok(entry),
            other => Err(odd(&format!("{other:?}")).into()),
        }
    }

    /// Asks for something to be done.
    pub async fn act(&mut self, request: &Request) -> Result<(), Trouble> {
        self.ask(request).await?;
        self.done().await
    }

    /// Waits until it is.
    pub async fn done(&mut self) -> Result<(), Trouble> {
        match self.answer().await? {
            Reply::Done => Ok(()),
            other => Err(odd(&format!("{other:?}")).into()),
        }
    }

    /// What is in a directory.
    pub async fn list(&mut self, path: &[u8]) -> Result<Vec<Entry>, Trouble> {
        self.ask(&Request::List(path.to_vec())).await?;
        let mut entries = Vec::new();
        loop {
            match self.answer().await? {
                Reply::Entry(entry) => entries.push(entry),
                Reply::Done => return Ok(entries),
                other => return Err(odd(&format!("{other:?}")).into()),
            }
        }
    }

    /// The next of a content.
    pub async fn part(&mut self) -> Result<Part, Trouble> {
        match self.next().await? {
            (DATA, bytes) => Ok(Part::Data(bytes)),
            (END, sum) => Ok(Part::End(sum)),
            (REPLY, payload) => match postcard::from_bytes(&payload) {
                Ok(Reply::Failed(reason, text)) => Err(Trouble::Refused(reason, text)),
                _ => Err(odd("an answer inside a content").into()),
            },
            (kind, _) => Err(odd(&format!("frame {kind}")).into()),
        }
    }

    /// Sends bytes of a content.
    pub async fn data(&mut self, bytes: Bytes) -> Result<(), Failure> {
        self.send(DATA, bytes).await
    }

    /// Sends the end of a content.
    pub async fn end(&mut self, sum: &[u8]) -> Result<(), Failure> {
        self.send(END, Bytes::copy_from_slice(sum)).await
    }

    /// Ends the program, and waits until it has.
    pub async fn close(mut self) {
        let _ = self.sender.stdin_end().await;
        if let Some(pump) = self.pump.take() {
            let _ = tokio::time::timeout(Duration::from_secs(5), pump).await;
        }
    }

    async fn send(&mut self, kind: u8, payload: Bytes) -> Result<(), Failure> {
        let [a, b, c, d] = (payload.len() as u32).to_le_bytes();
        let header = Bytes::copy_from_slice(&[kind, a, b, c, d]);
        // That it is gone is told, with the reason, by what is read.
        let sent = async {
            self.sender.stdin(header).await?;
            self.sender.stdin(payload).await
        };
        match sent.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.over().await),
        }
    }

    async fn next(&mut self) -> Result<(u8, Bytes), Failure> {
        match self.frames.next().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) | Err(TaggedError::Io(_)) => Err(self.over().await),
            Err(error) => Err(odd(&error.to_string())),
        }
    }

    /// Why nothing comes any more.
    async fn over(&mut self) -> Failure {
        match self.pump.take() {
            Some(pump) => pump.await.unwrap_or_else(|_| Failure::new(failure::UNREACHABLE, "the copy was given up")),
            None => Failure::new(failure::UNREACHABLE, "the agent's program is gone"),
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(pump) = &self.pump {
            pump.abort();
        }
    }
}

fn odd(what: &str) -> Failure {
    let text =
        format!("the agent serves files in a way that this program does not understand ({what}); compare `rk version`");
    Failure::new(failure::UNREACHABLE, text)
}

/// Moves the program's output, and says how it ended.
async fn pump(mut receiver: ExecReceiver, mut to: tokio::io::WriteHalf<SimplexStream>) -> Failure {
    let failure = relay(&mut receiver, &mut to).await;
    // Its drop alone would not tell the reader.
    let _ = to.shutdown().await;
    failure
}

async fn relay(receiver: &mut ExecReceiver, to: &mut tokio::io::WriteHalf<SimplexStream>) -> Failure {
    let mut said = String::new();
    loop {
        match receiver.next().await {
            Ok(Some(ToClient::Stdout(bytes))) => {
                if to.write_all(&bytes).await.is_err() {
                    return Failure::silent(failure::UNREACHABLE);
                }
            }
            Ok(Some(ToClient::Stderr(bytes))) if said.len() < 4096 => said += &String::from_utf8_lossy(&bytes),
            Ok(Some(ToClient::Lost(why))) => {
                output::say(&format!("rk: the agent cannot be reached ({why}); trying again"));
            }
            Ok(Some(ToClient::Resumed(_))) => output::say("rk: resumed, nothing is lost"),
            Ok(Some(ToClient::Exit(end))) => {
                let text = match &end {
                    ExecEnd::Refused { message, .. } | ExecEnd::NoAnswer { message, .. } => message.clone(),
                    _ if !said.is_empty() => said.trim().trim_start_matches("rk: ").to_owned(),
                    end => format!("the agent's file server ended ({end:?})"),
                };
                let code = match &end {
                    ExecEnd::Refused { reason, .. } => reason.exit_code(),
                    _ => failure::UNREACHABLE,
                };
                return Failure::new(code, text);
            }
            Ok(Some(_)) => (),
            Ok(None) => return Failure::new(failure::UNREACHABLE, "the controller ended without a word"),
            Err(e) => {
                let text = format!("the connection to the controller broke ({e}); look at `rk status`");
                return Failure::new(failure::UNREACHABLE, text);
            }
        }
    }
}
