//! A controller that plays a script: for what the command line does when a real one would have to break at the right byte.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Condvar, Mutex},
    thread,
};

use bytes::BytesMut;
use remoting_kafka::{
    api::{jobs::JobInfo, logs::LogItem},
    frame,
};

use crate::{
    rig::PATIENCE,
    support::{process, user},
};

/// One answer to a request for a log.
pub struct Answer {
    pub items: Vec<LogItem>,
    pub then: Then,
}

/// What follows an answer's items.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// The connection breaks.
    Break,
    /// The job's end.
    Done,
    /// Nothing, until the job is cancelled; then its end.
    Hold,
}

/// A running one.
pub struct Fake {
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    job: Mutex<JobInfo>,
    answers: Mutex<VecDeque<Answer>>,
    /// Submissions that are still to be dropped without an answer.
    deaf: Mutex<usize>,
    requests: Mutex<Vec<String>>,
    changed: Condvar,
}

impl Fake {
    /// One that knows this job and answers requests for its log in turn.
    pub fn start(job: JobInfo, answers: Vec<Answer>) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            job: Mutex::new(job),
            answers: Mutex::new(answers.into()),
            deaf: Mutex::new(0),
            requests: Mutex::new(Vec::new()),
            changed: Condvar::new(),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = serving.clone();
                thread::spawn(move || shared.serve(stream));
            }
        });
        Fake { address, shared }
    }

    /// Drops the next `times` submissions without an answer.
    pub fn deaf(self, times: usize) -> Fake {
        *self.shared.deaf.lock().unwrap() = times;
        self
    }

    /// `rk` with these arguments, for this controller.
    pub fn rk(&self, dir: &Path, args: &[&str]) -> Command {
        let token = user::private(&dir.join("token"), "0123456789abcdef0123456789abcdef");
        let mut command = process::rk(args);
        command.env("RK_API", &self.address).env("RK_API_TOKEN", format!("file:{}", token.display()));
        command
    }

    /// The requests that begin with `start`: method, path and body.
    pub fn requests(&self, start: &str) -> Vec<String> {
        let requests = self.shared.requests.lock().unwrap();
        requests.iter().filter(|request| request.starts_with(start)).cloned().collect()
    }

    /// Waits for such a request.
    pub fn wait_for(&self, start: &str) {
        let requests = self.shared.requests.lock().unwrap();
        let missing = |requests: &mut Vec<String>| !requests.iter().any(|request| request.starts_with(start));
        let (_requests, waited) = self.shared.changed.wait_timeout_while(requests, PATIENCE, missing).unwrap();
        assert!(!waited.timed_out(), "no request {start}");
    }
}

impl Shared {
    /// Answers one request. Who went away meanwhile gets nothing.
    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        let (mut first, mut length) = (String::new(), 0);
        reader.read_line(&mut first).unwrap_or(0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let request = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
        let text = format!("{request} {}", String::from_utf8_lossy(&body));
        self.requests.lock().unwrap().push(text);
        self.changed.notify_all();
        let mut stream = reader.into_inner();
        if request == "POST /v1/jobs" {
            let mut deaf = self.deaf.lock().unwrap();
            if *deaf > 0 {
                *deaf -= 1;
                return;
            }
            let submitted: serde_json::Value = serde_json::from_slice(&body).unwrap();
            self.job.lock().unwrap().id = submitted["id"].as_str().unwrap().parse().unwrap();
        } else if request.ends_with("/cancel") {
            let mut job = self.job.lock().unwrap();
            *job = JobInfo { state: "cancelled".to_owned(), exit_code: Some(130), ..job.clone() };
            drop(job);
            self.changed.notify_all();
        } else if request.contains("/log") {
            self.log(&mut stream);
            return;
        }
        let job = serde_json::to_string(&*self.job.lock().unwrap()).unwrap();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{job}", job.len()).ok();
    }

    fn log(&self, stream: &mut TcpStream) {
        let Some(answer) = self.answers.lock().unwrap().pop_front() else { return };
        let mut bytes = BytesMut::from(&b"HTTP/1.1 200 OK\r\n\r\n"[..]);
        for item in &answer.items {
            frame::encode(item, &mut bytes).unwrap();
        }
        if stream.write_all(&bytes).is_err() {
            return;
        }
        match answer.then {
            Then::Break => return,
            Then::Done => (),
            Then::Hold => {
                let job = self.job.lock().unwrap();
                drop(self.changed.wait_timeout_while(job, PATIENCE, |job| job.state != "cancelled").unwrap());
            }
        }
        let mut bytes = BytesMut::new();
        frame::encode(&LogItem::done(&self.job.lock().unwrap()), &mut bytes).unwrap();
        stream.write_all(&bytes).ok();
    }
}

/// A directory for the token.
pub fn dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("rk-it-fake-").tempdir().unwrap();
    fs::create_dir_all(dir.path()).unwrap();
    dir
}
