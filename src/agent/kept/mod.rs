//! Resumable executions: they belong to a keeper and to a task here, not to the streams that a controller opens.
//!
//! A stream that begins or resumes one is handed to its task as an [`Attachment`]; what happens then is in `task`. The directory
//! `execs/<id>` holds what must outlive this agent, and [`adopt`] finds it again.

mod attached;
mod retained;
mod task;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::sync::mpsc;

use super::{
    bundles::{self, Bundles, Ready},
    environment::Environment,
    exec::{STDIO_PATIENCE, check_directory, streams},
    executor::Shared,
    run_as::User,
    shim::keep,
    stream::{RecvHalf, SendHalf},
    warden::Program,
};
use crate::{
    bundle::Digest,
    frame::{self, Incoming},
    id::ExecId,
    protocol::{
        CANCELLED,
        exec::{Event, Refusal, Resume, Start, StartResumable, Steer, Terminal},
    },
};
use attached::{Attachment, From};
use task::Task;

/// All resumable executions of this agent.
pub(super) struct Kept {
    dir: PathBuf,
    /// What serves as keeper; without it there are no resumable executions.
    program: Option<Program>,
    table: Mutex<BTreeMap<ExecId, Entry>>,
}

/// There is nothing to come back to.
const NOT_THERE: &str = "the execution is not there any more: its host was started anew, or nobody came for it in time";

/// Whoever was here before a new user.
const TAKEN_OVER: &str = "another `rk exec --attach` has taken the execution over";

struct Entry {
    mailbox: mpsc::Sender<Attachment>,
    /// The process, once it runs.
    pid: Option<u32>,
    /// The user that may come back; earlier ones were replaced.
    user: u32,
}

impl Kept {
    pub fn new(dir: PathBuf, program: Option<Program>) -> Self {
        Self { dir, program, table: Mutex::default() }
    }

    /// SIGKILL to all of them.
    pub fn kill_all(&self) {
        for pid in self.lock().values().filter_map(|entry| i32::try_from(entry.pid?).ok()).filter(|pid| *pid > 1) {
            killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }

    fn enter(&self, id: ExecId) -> Option<mpsc::Receiver<Attachment>> {
        let mut table = self.lock();
        if table.contains_key(&id) {
            return None;
        }
        let (mailbox, attachments) = mpsc::channel(1);
        table.insert(id, Entry { mailbox, pid: None, user: 0 });
        Some(attachments)
    }

    fn runs(&self, id: ExecId, pid: u32) {
        if let Some(entry) = self.lock().get_mut(&id) {
            entry.pid = Some(pid);
        }
    }

    fn leave(&self, id: ExecId) {
        self.lock().remove(&id);
    }

    fn has(&self, id: ExecId) -> bool {
        self.lock().contains_key(&id)
    }

    /// Lets a user in, by its number or as a new one: where it is to go, and its number.
    fn let_in(&self, id: ExecId, user: Option<u32>) -> Result<(mpsc::Sender<Attachment>, u32), &'static str> {
        let mut table = self.lock();
        let Some(entry) = table.get_mut(&id) else { return Err(NOT_THERE) };
        match user {
            None => entry.user = entry.user.wrapping_add(1),
            Some(user) if user < entry.user => return Err(TAKEN_OVER),
            // An earlier agent let it in.
            Some(user) => entry.user = user,
        }
        Ok((entry.mailbox.clone(), entry.user))
    }

    fn path(&self, id: ExecId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ExecId, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins an execution, on its control stream.
pub(super) async fn start(
    shared: Arc<Shared>,
    message: StartResumable,
    send: Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
) {
    let mut send = send;
    let id = message.start.id;
    let mut orders = Incoming::<_, Steer>::new(recv);
    let begun = tokio::select! {
        biased;
        // Before it runs it is nothing that could be resumed.
        () = gone(&mut orders) => None,
        begun = begin(&shared, &message, &mut send) => Some(begun),
    };
    match begun {
        Some(Ok((task, in_out, err))) => {
            let attachment = Attachment::new(send, orders, in_out, err, 0, From::Start);
            tokio::spawn(task.run(Some(attachment)));
        }
        Some(Err(refusal)) => refuse(&shared, id, send, refusal).await,
        None => reset(send),
    }
}

/// Comes back to an execution, on its control stream.
pub(super) async fn resume(shared: Arc<Shared>, message: Resume, send: Box<dyn SendHalf>, recv: Box<dyn RecvHalf>) {
    if !shared.kept.has(message.id) {
        return refuse(&shared, message.id, send, Refusal::Gone(NOT_THERE.to_owned())).await;
    }
    let stdio = tokio::time::timeout(STDIO_PATIENCE, streams(&shared.meeting, message.id)).await;
    match stdio {
        Ok(Ok((in_out, err))) => match shared.kept.let_in(message.id, message.user) {
            Ok((mailbox, user)) => {
                let has = message.user.map(|_| [message.stdout, message.stderr]);
                let attachment = Attachment::new(send, Incoming::new(recv), in_out, err, user, From::Later { has });
                // If it ended just now the streams are dropped, and the next try says so.
                mailbox.send(attachment).await.ok();
            }
            Err(why) => refuse(&shared, message.id, send, Refusal::Gone(why.to_owned())).await,
        },
        Ok(Err(_)) | Err(_) => reset(send),
    }
}

/// Takes up the executions that an earlier agent left.
pub(super) async fn adopt(shared: &Arc<Shared>) {
    let Ok(entries) = fs::read_dir(&shared.kept.dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| u128::from_str_radix(name, 16).ok()).map(ExecId) else { continue };
        match Task::new(shared, id, shared.slot().ok()).await {
            Ok(task) => {
                tokio::spawn(task.run(None));
            }
            Err(error) => {
                tracing::debug!(%id, "an execution is over: {error}");
                fs::remove_dir_all(entry.path()).ok();
            }
        }
    }
}

type Begun = (Task, super::stream::Duplex, super::stream::Duplex);

async fn begin(shared: &Arc<Shared>, message: &StartResumable, send: &mut Box<dyn SendHalf>) -> Result<Begun, Refusal> {
    let StartResumable { start, patience } = message;
    let failed = |what: String| Refusal::Failed(what);
    let Some(program) = &shared.kept.program else {
        return Err(failed("this agent keeps no executions; use --resume 0s".to_owned()));
    };
    if start.argv.is_empty() {
        return Err(failed("the command is empty".to_owned()));
    }
    shared.check(start)?;
    let slot = shared.slot()?;
    let stdio = tokio::time::timeout(STDIO_PATIENCE, streams(&shared.meeting, start.id)).await;
    let (in_out, err) = stdio.map_err(|_| failed(format!("its streams did not come within {STDIO_PATIENCE:?}")))??;
    let ready = bundles::prepare(shared.bundles.as_ref(), &start.bundles, send).await?;
    let ready = ready.map_err(|error| failed(format!("nobody listens any more: {error}")))?;
    let spec = spec(shared, start, &ready, *patience)?;
    let dir = shared.kept.path(start.id);
    let data = |error: io::Error| failed(format!("the agent's directory {} cannot be used: {error}", dir.display()));
    let made = make(&shared.kept.dir, &dir).and_then(|()| put_used(&dir, &Bundles::kept_as(&start.bundles)));
    made.and_then(|()| keep::put_spec(&dir, &spec)).map_err(data)?;
    let started = async {
        keep::start(program, &dir).await?;
        Task::new(shared, start.id, Some(slot)).await.map_err(data)
    };
    match started.await {
        Ok(task) => Ok((task, in_out, err)),
        Err(refusal) => {
            fs::remove_dir_all(&dir).ok();
            Err(refusal)
        }
    }
}

fn spec(shared: &Shared, start: &Start, bundles: &Ready, patience: Duration) -> Result<keep::Spec, Refusal> {
    let cwd = match &start.cwd {
        Some(cwd) => shared.work_dir.join(cwd),
        None => shared.work_dir.clone(),
    };
    check_directory(&cwd)?;
    let mut environment = environment(shared, start)?;
    bundles.describe(&mut environment, shared.policy.bundles_first());
    let (file, argv) = shared.executable(start, &environment, &cwd, bundles)?;
    Ok(keep::Spec {
        program: file.into(),
        argv,
        env: environment.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        cwd: cwd.into(),
        stdin: start.stdin,
        terminal: start.terminal.as_ref().map(|terminal| terminal.size),
        timeout: start.timeout,
        grace: start.grace,
        patience,
        run_as: shared.run_as.as_ref().map(User::ids).cloned(),
    })
}

/// What the process gets; the kind of a terminal unless the request says another.
fn environment(shared: &Shared, start: &Start) -> Result<Environment, Refusal> {
    let Some(Terminal { kind, .. }) = &start.terminal else { return shared.environment.with(&start.env) };
    // It becomes part of a file's name.
    if kind.len() > 64 || !kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-+._".contains(&byte)) {
        return Err(Refusal::Failed("the kind of the terminal, TERM, is malformed".to_owned()));
    }
    let mut variables = vec![("TERM".to_owned(), kind.clone())];
    variables.extend(start.env.iter().cloned());
    shared.environment.with(&variables)
}

/// Notes which bundles it uses, for the next agent.
fn put_used(dir: &Path, used: &[Digest]) -> io::Result<()> {
    if used.is_empty() {
        return Ok(());
    }
    fs::write(dir.join("bundles"), postcard::to_stdvec(used).expect("plain data"))
}

/// The bundles that an execution uses.
fn used(dir: &Path) -> Vec<Digest> {
    let noted = fs::read(dir.join("bundles")).ok();
    noted.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default()
}

fn make(parent: &Path, dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    fs::DirBuilder::new().mode(0o700).create(dir)
}

/// Ends when the controller gave the start up.
async fn gone(orders: &mut Incoming<Box<dyn RecvHalf>, Steer>) {
    while !matches!(orders.next().await, Err(_) | Ok(Steer::HangUp | Steer::Disconnected)) {}
}

fn reset(mut send: Box<dyn SendHalf>) {
    send.reset(CANCELLED);
}

async fn refuse(shared: &Shared, id: ExecId, mut send: Box<dyn SendHalf>, refusal: Refusal) {
    for mut stream in shared.meeting.turn_away(id) {
        stream.send.reset(CANCELLED);
    }
    let event = Event::Refused(refusal);
    if frame::write(&mut send, &event).await.is_ok() && tokio::io::AsyncWriteExt::shutdown(&mut send).await.is_ok() {
        send.delivered().await;
    }
}
