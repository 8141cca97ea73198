//! `rk exec` and what dies under it: the command goes on, and no byte is missing or doubled.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use ring::digest::{Context, SHA256};

use crate::{
    rig::{PATIENCE, Rig, Running, is_alive, noise, wait_gone, wait_number},
    support::wait,
};

const PIECE: usize = 1 << 20;

/// A command whose stdin is fed with pieces and whose stdout is hashed, both by threads.
struct Echo {
    exec: Running,
    back: Arc<AtomicUsize>,
    sent: JoinHandle<Vec<u8>>,
    came: JoinHandle<Vec<u8>>,
    said: JoinHandle<String>,
}

impl Echo {
    /// `pieces` of 1 MiB through what `args` run.
    fn start(rig: &Rig, args: &[&str], pieces: usize, api: Option<&str>) -> Echo {
        let mut command = rig.rk(args);
        if let Some(api) = api {
            command.env("RK_API", api);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut exec = Running::start(command);
        let (mut stdin, mut stdout) = (exec.0.stdin.take().unwrap(), exec.0.stdout.take().unwrap());
        let mut stderr = exec.0.stderr.take().unwrap();
        let back = Arc::new(AtomicUsize::new(0));
        let count = back.clone();
        let sent = thread::spawn(move || {
            let (mut hash, mut piece) = (Context::new(&SHA256), noise(PIECE));
            for number in 0..pieces {
                piece[..8].copy_from_slice(&number.to_le_bytes());
                if stdin.write_all(&piece).is_err() {
                    break;
                }
                hash.update(&piece);
            }
            hash.finish().as_ref().to_vec()
        });
        let came = thread::spawn(move || {
            let (mut hash, mut buffer) = (Context::new(&SHA256), vec![0; PIECE]);
            loop {
                match stdout.read(&mut buffer).unwrap() {
                    0 => return hash.finish().as_ref().to_vec(),
                    n => {
                        hash.update(&buffer[..n]);
                        count.fetch_add(n, Ordering::Relaxed);
                    }
                }
            }
        });
        let said = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).ok();
            text
        });
        Echo { exec, back, sent, came, said }
    }

    fn wait_for(&mut self, bytes: usize) {
        wait::until(&format!("{bytes} bytes are back"), PATIENCE, || {
            if let Some(status) = self.exec.0.try_wait().unwrap() {
                return if status.success() { Ok(()) } else { panic!("it ended with {status}") };
            }
            let back = self.back.load(Ordering::Relaxed);
            if back >= bytes { Ok(()) } else { Err(format!("{back} are")) }
        });
    }

    /// Its exit code and what it said, when all bytes came back as they went.
    fn whole(mut self, pieces: usize) -> (i32, String) {
        let code = self.exec.code();
        let said = self.said.join().unwrap();
        let back = self.back.load(Ordering::Relaxed);
        assert_eq!(back, pieces * PIECE, "{said}");
        assert!(self.sent.join().unwrap() == self.came.join().unwrap(), "other bytes came back: {said}");
        (code, said)
    }
}

#[test]
fn an_agent_that_is_killed_takes_no_command_and_no_byte_along() {
    let rig = Rig::start("resume-agent");
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    const PIECES: usize = 200;
    let script = "cat; echo done >&2; exit 7";
    let mut echo = Echo::start(&rig, &["exec", "a", "--", "sh", "-c", script], PIECES, None);
    for part in 1..=3 {
        echo.wait_for(part * PIECES / 4 * PIECE);
        drop(agent);
        agent = rig.start_agent("a", &credential);
    }
    let (code, said) = echo.whole(PIECES);
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("rk: resumed") && said.ends_with("done\n"), "{said}");
    wait::until("nothing is kept", PATIENCE, || {
        let left = fs::read_dir(rig.path("a.data/agent/a/execs")).unwrap().count();
        if left == 0 { Ok(()) } else { Err(format!("{left} are")) }
    });
}

#[test]
fn a_controller_that_is_killed_takes_no_command_and_no_byte_along() {
    let rig = Rig::start("resume-controller");
    let _agent = rig.agent("a", &[]);
    const PIECES: usize = 200;
    let mut echo = Echo::start(&rig, &["exec", "a", "--", "sh", "-c", "cat; exit 7"], PIECES, None);
    for part in 1..=2 {
        echo.wait_for(part * PIECES / 3 * PIECE);
        rig.kill_controller();
        rig.start_controller();
    }
    let (code, said) = echo.whole(PIECES);
    assert_eq!(code, 7, "{said}");
    assert!(said.contains("rk: resumed"), "{said}");
}

#[test]
fn a_controller_on_an_empty_disk_resumes_a_command() {
    let rig = Rig::start("resume-empty");
    let _agent = rig.agent("a", &[]);
    const PIECES: usize = 60;
    let mut echo = Echo::start(&rig, &["exec", "a", "--", "cat"], PIECES, None);
    echo.wait_for(PIECES / 2 * PIECE);
    rig.kill_controller();
    for entry in fs::read_dir(rig.path("controller")).unwrap().flatten() {
        // The token is the user's, as the identity is the operator's.
        if !["identity.pem", "api.token"].contains(&entry.file_name().to_str().unwrap()) {
            fs::remove_file(entry.path()).or_else(|_| fs::remove_dir_all(entry.path())).unwrap();
        }
    }
    rig.start_controller();
    assert_eq!(echo.whole(PIECES).0, 0);
}

#[test]
fn a_cut_connection_is_resumed() {
    let rig = Rig::start("resume-cut");
    let _agent = rig.agent("a", &[]);
    let way = Way::to(rig.port);
    const PIECES: usize = 100;
    let api = format!("http://127.0.0.1:{}", way.port);
    let mut echo = Echo::start(&rig, &["exec", "a", "--", "cat"], PIECES, Some(&api));
    for part in 1..=4 {
        echo.wait_for(part * PIECES / 5 * PIECE);
        way.cut();
    }
    let (code, said) = echo.whole(PIECES);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("rk: resumed"), "{said}");
}

#[test]
fn a_killed_command_line_hangs_its_command_up() {
    let rig = Rig::start("resume-cli");
    let _agent = rig.agent("a", &[]);
    let pid_file = rig.path("pid");
    let script = format!(
        "trap 'echo hup > {0}.hup' HUP; echo $$ > {0}; while :; do sleep 1 & wait $!; done",
        pid_file.display()
    );
    let args = ["exec", "--grace", "5s", "a", "--", "sh", "-c", &script];
    let mut command = rig.rk(&args);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let exec = Running::start(command);
    let pid = wait_number(&pid_file);
    drop(exec);
    // It gets SIGHUP, does not care, and is killed after its grace.
    wait_gone(pid);
    assert_eq!(fs::read_to_string(rig.path("pid.hup")).unwrap(), "hup\n");
}

#[test]
fn nobody_who_comes_back_in_time_ends_the_command_with_a_clear_line() {
    let rig = Rig::start("resume-over");
    let agent = rig.agent("a", &[]);
    let pid_file = rig.path("pid");
    let script = format!("echo $$ > {}; exec sleep 1000", pid_file.display());
    let args = ["exec", "--no-stdin", "--resume", "2s", "a", "--", "sh", "-c", &script];
    let mut command = rig.rk(&args);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut exec = Running::start(command);
    let pid = wait_number(&pid_file);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let keeper = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    drop(agent);
    assert!(is_alive(pid), "it has two seconds");
    rig.kill_controller();
    assert_eq!(exec.code(), 69);
    let mut said = String::new();
    exec.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("not resumed within 2s"), "{said}");
    // What kept it ends it without an agent, and then itself.
    wait_gone(pid);
    wait_gone(keeper);
}

#[test]
fn a_command_whose_host_forgot_it_ends_with_75() {
    let rig = Rig::start("resume-gone");
    let credential = rig.add("a", &[]);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    let pid_file = rig.path("pid");
    let script = format!("echo $$ > {}; exec sleep 1000", pid_file.display());
    let mut command = rig.rk(&["exec", "-o", "jsonl", "--no-stdin", "a", "--", "sh", "-c", &script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut exec = Running::start(command);
    // Before its start was told it is nothing that could be resumed.
    let mut started = String::new();
    BufReader::new(exec.0.stdout.as_mut().unwrap()).read_line(&mut started).unwrap();
    assert!(started.contains("started"), "{started}");
    let pid = wait_number(&pid_file);
    drop(agent);
    // As a reboot leaves it: no process, and a directory of another life.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let keeper = stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().to_owned();
    assert!(std::process::Command::new("kill").args(["-9", &keeper]).status().unwrap().success());
    wait_gone(pid);
    let mut agent = rig.start_agent("a", &credential);
    rig.wait_online("a", &mut agent);
    assert_eq!(exec.code(), 75);
}

/// A way to the controller that can be cut.
struct Way {
    port: u16,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(port: u16) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Way { port: listener.local_addr().unwrap().port(), open: Arc::default() };
        let open = way.open.clone();
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                open.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (from, to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    thread::spawn(move || pass(from, to));
                }
            }
        });
        way
    }

    fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    std::io::copy(&mut from, &mut to).ok();
    to.shutdown(std::net::Shutdown::Write).ok();
}
