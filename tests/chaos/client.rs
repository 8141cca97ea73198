//! What people do with `rk` while everything falls apart: submit, follow, list, read.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use ring::digest::{Context, SHA256};
use serde_json::Value;

use crate::{rig::Rig, support::process, writer::hex};

/// What a job's log was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digested {
    /// How `rk` ended.
    pub code: i32,
    /// How many bytes came on stdout and on stderr.
    pub lengths: [u64; 2],
    /// Their SHA-256.
    pub hashes: [String; 2],
    /// The last line of stderr that begins with `rk:`.
    pub said: String,
}

/// A running `rk` whose output is digested as it comes.
pub struct Digesting {
    child: Child,
    streams: [JoinHandle<(u64, String, Vec<u8>)>; 2],
}

impl Digesting {
    /// Starts it.
    pub fn start(command: Command) -> Digesting {
        let mut command = process::bound(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn(command).unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let streams = [thread::spawn(|| digest(out)), thread::spawn(|| digest(err))];
        Digesting { child, streams }
    }

    /// Waits for its end, at most so long.
    pub fn end(mut self, limit: Duration) -> Result<Digested, String> {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().ok();
                self.child.wait().ok();
                let [_, (_, _, tail)] = self.streams.map(|stream| stream.join().unwrap());
                return Err(format!("not done within {limit:?}: {}", said(&tail)));
            }
            thread::sleep(Duration::from_millis(20));
        };
        let [out, err] = self.streams.map(|stream| stream.join().unwrap());
        Ok(Digested {
            code: status.code().unwrap_or(-1),
            lengths: [out.0, err.0],
            said: said(&err.2),
            hashes: [out.1, err.1],
        })
    }
}

fn digest(mut stream: impl Read) -> (u64, String, Vec<u8>) {
    let (mut hash, mut length, mut tail) = (Context::new(&SHA256), 0, Vec::new());
    let mut buffer = vec![0; 64 << 10];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        hash.update(&buffer[..n]);
        length += n as u64;
        tail.extend_from_slice(&buffer[..n]);
        tail.drain(..tail.len().saturating_sub(1000));
    }
    (length, hex(hash), tail)
}

fn said(tail: &[u8]) -> String {
    let text = String::from_utf8_lossy(tail);
    text.lines().rev().find(|line| line.starts_with("rk:")).unwrap_or_default().to_owned()
}

/// Submits a job and returns its id.
pub fn submit(rig: &Rig, options: &[&str], command: &[String]) -> Result<String, String> {
    let mut rk = rig.rk(&["run", "--detach", "--patience", "5m"]);
    rk.args(options).arg("--").args(command);
    let output = rk.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// All jobs, as `rk jobs ls` tells.
pub fn list(rig: &Rig) -> Result<Vec<Value>, String> {
    let output = rig.rk(&["jobs", "ls", "-n", "10000", "-o", "json"]).stdin(Stdio::null()).output();
    let output = output.map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
}

/// Whether a job in this state has ended.
pub fn is_terminal(state: &str) -> bool {
    !matches!(state, "queued" | "assigned" | "running")
}

/// Reads a job's whole log, and nothing else on the two streams.
pub fn read_log(rig: &Rig, id: &str, limit: Duration) -> Result<Digested, String> {
    Digesting::start(rig.rk(&["logs", "-q", id])).end(limit)
}
