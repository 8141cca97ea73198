//! What the agent itself keeps in an attempt's directory.

use std::{os::unix::fs::OpenOptionsExt, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    agent::{
        attempt::Attempt,
        shim::{RecordError, record},
    },
    bundle::Digest,
    bytelog::Acked,
    job::{Cancel, Hidden, LogFormat, Outcome, Workspace},
    private_file::PrivateFileError,
    protocol::jobs::Report,
};

/// What must be known of an attempt by the next agent. Written before anything starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Of the logs' topic.
    pub partition: u32,
    /// The attempt's key.
    pub key: Hidden<[u8; 32]>,
    /// How output is sealed.
    pub format: LogFormat,
    /// What becomes of the work directory.
    pub workspace: Workspace,
    /// What people call the job.
    pub name: Option<String>,
    /// The archives of bundles that it uses.
    pub bundles: Vec<Digest>,
}

/// An end that no shim tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// How.
    pub outcome: Outcome,
}

/// The files of an attempt.
pub struct Files<'a>(pub &'a Attempt);

impl Files<'_> {
    /// Reads the ticket.
    pub fn ticket(&self) -> Result<Option<Ticket>, RecordError> {
        record::read(&self.path("ticket"))
    }

    /// Writes the ticket.
    pub fn put_ticket(&self, ticket: &Ticket) -> Result<(), PrivateFileError> {
        record::write(&self.path("ticket"), ticket)
    }

    /// Reads the verdict.
    pub fn verdict(&self) -> Result<Option<Verdict>, RecordError> {
        record::read(&self.path("verdict"))
    }

    /// Writes the verdict.
    pub fn put_verdict(&self, verdict: &Verdict) -> Result<(), PrivateFileError> {
        record::write(&self.path("verdict"), verdict)
    }

    /// How far output was shipped into the topic with this id; the beginning if that is not known.
    pub fn shipped(&self, topic_id: u128) -> Acked {
        let noted = std::fs::read(self.path("shipped")).ok();
        let noted = noted.and_then(|bytes| postcard::from_bytes::<(u128, Acked)>(&bytes).ok());
        noted.filter(|(id, _)| *id == topic_id).map(|(_, acked)| acked).unwrap_or_default()
    }

    /// Notes how far output was shipped. A hint: not synced, and not missed if it can't be written.
    pub fn note_shipped(&self, topic_id: u128, acked: &Acked) {
        let (path, new) = (self.path("shipped"), self.path("shipped.new"));
        let bytes = postcard::to_stdvec(&(topic_id, acked)).expect("plain data");
        let written = std::fs::write(&new, bytes).and_then(|()| std::fs::rename(&new, &path));
        if let Err(error) = written {
            tracing::debug!("{}: {error}", path.display());
        }
    }

    /// Forgets how far output was shipped.
    pub fn forget_shipped(&self) {
        let _ = std::fs::remove_file(self.path("shipped"));
    }

    /// What the agent itself says about the attempt: the system stream.
    pub fn notes(&self) -> Vec<u8> {
        std::fs::read(self.path("notes")).unwrap_or_default()
    }

    /// Adds to what the agent says. That it can't be written costs no more than the note.
    pub fn note(&self, bytes: &[u8]) {
        use std::io::Write;
        let mut file = std::fs::OpenOptions::new();
        let file = file.append(true).create(true).mode(0o600).open(self.path("notes"));
        if let Err(error) = file.and_then(|mut file| file.write_all(bytes)) {
            tracing::debug!("{}: {error}", self.path("notes").display());
        }
    }

    /// True once for each `step` of what follows an attempt's end: one agent alone does it.
    pub fn begin(&self, step: &str) -> bool {
        std::fs::OpenOptions::new().write(true).create_new(true).open(self.path(step)).is_ok()
    }

    /// Which files of the work directory are kept; none unless somebody wants some.
    pub fn wanted(&self) -> Result<Vec<String>, RecordError> {
        Ok(record::read(&self.path("wanted"))?.unwrap_or_default())
    }

    /// Says which files of the work directory are kept.
    pub fn put_wanted(&self, patterns: &Vec<String>) -> Result<(), PrivateFileError> {
        if patterns.is_empty() { Ok(()) } else { record::write(&self.path("wanted"), patterns) }
    }

    /// What became of them, once that is known.
    pub fn left(&self) -> Result<Option<Report>, RecordError> {
        record::read(&self.path("left"))
    }

    /// Says what became of them.
    pub fn put_left(&self, report: &Report) -> Result<(), PrivateFileError> {
        record::write(&self.path("left"), report)
    }

    /// By which order the process is ended, if it was told to.
    pub fn cancelled(&self) -> Option<Cancel> {
        record::read(&self.path("cancelled")).ok().flatten()
    }

    /// Notes by which order the process is ended. That it can't be written costs no more than the note.
    pub fn note_cancelled(&self, cancel: &Cancel) {
        if let Err(error) = record::write(&self.path("cancelled"), cancel) {
            tracing::debug!("{error}");
        }
    }

    /// A file of this name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.dir().join(name)
    }
}
