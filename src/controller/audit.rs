//! Who did what: a line of JSON in a file for each request that changes something, and for each that was refused.
//!
//! Written by a thread of its own, in the order in which requests were answered. Who asks waits while the disk is behind, so
//! that nothing is done that is not noted; a disk that fails costs the lines, is told, and is counted.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use serde::Serialize;
use tokio::sync::mpsc;

use super::{Error, feed::Feed};
use crate::{clock, private_file::PrivateFileError};

/// The file in the data directory.
const FILE: &str = "audit.log";
/// What was there before the last turn.
const BEFORE: &str = "audit.log.1";
/// A file of this size is put aside; with the one before it, twice as much is kept.
const TURN: u64 = 64 << 20;
/// Lines that wait for the disk.
const WAITING: usize = 1024;
/// The longest detail that is noted, in bytes.
const DETAIL: usize = 2048;

/// Something that was asked for.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// Whose token it was; `null` if it was nobody's.
    pub who: Option<&'a str>,
    /// From where.
    pub from: Option<SocketAddr>,
    /// What it takes to be allowed.
    pub verb: &'a str,
    /// Method and path, or what went over a connection of its own.
    pub request: &'a str,
    /// What else tells it from others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The HTTP status that it was answered with.
    pub status: u16,
}

#[derive(Serialize)]
struct Line<'a> {
    /// RFC 3339 in UTC.
    time: String,
    #[serde(flatten)]
    entry: &'a Entry<'a>,
}

/// Where it is noted. Clones are the same.
#[derive(Clone)]
pub struct Audit {
    lines: mpsc::Sender<Vec<u8>>,
    lost: Arc<AtomicU64>,
    feed: Option<Feed>,
}

impl Audit {
    /// Goes on with the file in `data`. Other systems are told by `feed`, without details.
    pub fn open(data: &Path, feed: Option<Feed>) -> Result<Self, Error> {
        let mut book = Book::open(data)?;
        let (lines, mut received) = mpsc::channel::<Vec<u8>>(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = lost.clone();
        thread::Builder::new().name("audit".to_owned()).spawn(move || {
            while let Some(line) = received.blocking_recv() {
                if let Err(error) = book.write(&line)
                    && counter.fetch_add(1, Ordering::Relaxed).is_multiple_of(1000)
                {
                    tracing::error!(%error, file = %book.path.display(), "the audit log cannot be written");
                }
            }
        })?;
        Ok(Self { lines, lost, feed })
    }

    /// Notes something.
    pub async fn note(&self, mut entry: Entry<'_>) {
        if let Some(detail) = &mut entry.detail
            && detail.len() > DETAIL
        {
            let end = (0..=DETAIL).rev().find(|at| detail.is_char_boundary(*at)).unwrap_or(0);
            detail.truncate(end);
            detail.push('…');
        }
        let at_ms = clock::unix_ms();
        if let Some(feed) = &self.feed {
            feed.access(at_ms, &entry);
        }
        let time = clock::rfc3339(at_ms);
        let mut line = serde_json::to_vec(&Line { time, entry: &entry }).expect("plain data can be written");
        line.push(b'\n');
        // The thread lives as long as somebody can note something.
        let _ = self.lines.send(line).await;
    }

    /// Lines that could not be written.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// The file.
struct Book {
    path: PathBuf,
    before: PathBuf,
    file: File,
    length: u64,
}

impl Book {
    fn open(data: &Path) -> Result<Self, Error> {
        let (path, before) = (data.join(FILE), data.join(BEFORE));
        let failed = |source| PrivateFileError::Io { path: path.clone(), source };
        let file = append(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        Ok(Self { path, before, file, length })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.length >= TURN {
            std::fs::rename(&self.path, &self.before)?;
            self.file = append(&self.path)?;
            self.length = 0;
        }
        self.file.write_all(line)?;
        self.length += line.len() as u64;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_request_is_one_line_that_can_be_read_and_a_restart_goes_on_behind() {
        let dir = tempfile::tempdir().expect("dir");
        for (number, who) in [Some("jenkins"), None].into_iter().enumerate() {
            let audit = Audit::open(dir.path(), None).expect("opened");
            let detail = Some("a\nb".repeat(2000));
            audit.note(Entry { who, from: None, verb: "exec", request: "POST /v1/exec", detail, status: 403 }).await;
            let path = dir.path().join(FILE);
            let written = async {
                while std::fs::read_to_string(&path).unwrap_or_default().lines().count() <= number {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(20), written).await.expect("written");
        }
        let text = std::fs::read_to_string(dir.path().join(FILE)).expect("there");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["who"], &lines[0]["status"]), (&"jenkins".into(), &403.into()));
        assert!(lines[1]["who"].is_null());
        assert!(lines[0]["detail"].as_str().expect("text").len() <= DETAIL + 3);
    }

    #[test]
    fn a_full_file_is_put_aside() {
        let dir = tempfile::tempdir().expect("dir");
        let mut book = Book::open(dir.path()).expect("opened");
        book.length = TURN;
        book.write(b"new\n").expect("written");
        assert!(dir.path().join(BEFORE).exists());
        assert_eq!(std::fs::read(dir.path().join(FILE)).expect("there"), b"new\n");
    }
}
