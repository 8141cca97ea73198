//! Agents that change to another version of their program, and those that had better not.
//!
//! The other version is the same program with some bytes behind it: another digest, the same behaviour.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    rig::{PATIENCE, Ran, Rig, Running, is_alive, wait_gone, wait_number},
    support::{
        ports,
        process::{self, Process},
        wait,
    },
};

/// An installation whose agents have programs of their own.
struct Stage {
    rig: Rig,
}

/// An agent, and its program's file.
struct Agent {
    name: String,
    program: PathBuf,
    process: Process,
}

impl Stage {
    fn new(test: &str) -> Self {
        let rig = Rig::start(test);
        let built = process::rk(&[]).get_program().to_owned();
        fs::copy(built, rig.path("old")).unwrap();
        Self { rig }
    }

    /// The same program, but for its digest.
    fn new_version(&self) -> String {
        let path = self.rig.path("new/rk");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(self.rig.path("old"), &path).unwrap();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"another version").unwrap();
        self.rig.path("new").display().to_string()
    }

    /// A script in the place of a program. `$REAL` is the old one.
    fn script(&self, name: &str, text: &str) -> String {
        let path = self.rig.path(name).join("bin/rk");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let real = self.rig.path("old").display().to_string();
        let head = format!("#!/bin/sh\nREAL={real}\n[ \"$1\" = version ] && exec $REAL \"$@\"\n");
        fs::write(&path, head + text + "\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.rig.path(name).display().to_string()
    }

    /// How an agent is started that was added before.
    fn command(&self, name: &str, flags: &[&str]) -> Command {
        let credential = self.rig.path(&format!("{name}.credential"));
        let usual = self.rig.agent_command(name, &credential);
        let mut command = Command::new(self.program(name));
        command.args(usual.get_args()).args(flags);
        for (key, value) in usual.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command
    }

    fn program(&self, name: &str) -> PathBuf {
        self.rig.path(&format!("{name}.program")).join("rk")
    }

    fn agent(&self, name: &str, flags: &[&str]) -> Agent {
        self.rig.add(name, &["fleet=yes"]);
        let program = self.program(name);
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        // A name of its own for the same bytes: what replaces it leaves the others alone.
        fs::hard_link(self.rig.path("old"), &program).unwrap();
        let mut process = self.rig.process(self.command(name, flags), &format!("{name}.log"));
        self.rig.wait_online(name, &mut process);
        Agent { name: name.to_owned(), program, process }
    }

    fn update(&self, args: &[&str]) -> Ran {
        self.rig.run(&[&["agents", "update", "-o", "json"], args].concat())
    }

    fn shown(&self, name: &str) -> Value {
        let ran = self.rig.run(&["agents", "show", "-o", "json", name]);
        serde_json::from_slice(&ran.stdout).unwrap_or_default()
    }

    /// Waits until the agent's update is at this stage.
    fn wait_stage(&self, name: &str, stage: &str) {
        wait::until(&format!("the update of {name} is {stage}"), PATIENCE, || {
            let shown = self.shown(name);
            if shown["update"]["stage"] == stage { Ok(()) } else { Err(shown["update"].to_string()) }
        });
    }

    /// A job on an agent that counts until it is told to end, or the test is over, and the id of its process.
    fn job(&self, name: &str) -> (String, u32) {
        let (pid, done) = (self.rig.path(&format!("{name}.pid")), self.rig.path(&format!("{name}.done")));
        let (pid, done) = (pid.display().to_string(), done.display().to_string());
        let script = format!(
            "echo $$ > {pid}; i=0; while [ -e {pid} ] && [ ! -e {done} ]; do echo $i; i=$((i+1)); sleep 0.05; done; echo whole"
        );
        let ran = self.rig.run(&["run", "--detach", "--agent", name, "--", "sh", "-c", &script]).ok();
        (ran.text().trim().to_owned(), wait_number(Path::new(&pid)))
    }

    /// The job's process is the same, and its log has every number.
    fn job_ends(&self, name: &str, (id, pid): &(String, u32)) {
        assert!(is_alive(*pid), "the job of {name} is gone");
        File::create(self.rig.path(&format!("{name}.done"))).unwrap();
        self.rig.run(&["jobs", "wait", id]).ok();
        let text = self.rig.run(&["logs", id]).ok().text();
        let lines: Vec<&str> = text.lines().collect();
        let counted: Vec<String> = (0..lines.len() - 1).map(|n| n.to_string()).collect();
        assert_eq!(lines.last(), Some(&"whole"));
        assert_eq!(lines[..lines.len() - 1], counted);
    }

    /// The agent works, in the process in which it was started.
    fn works(&self, agent: &Agent) {
        wait::until(&format!("agent {} takes work", agent.name), PATIENCE, || {
            let ran = self.rig.run(&["exec", "--resume", "0s", &agent.name, "--", "true"]);
            if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
        });
        let shown = self.shown(&agent.name);
        assert_eq!((&shown["state"], &shown["pid"]), (&"online".into(), &agent.process.id().into()), "{shown}");
    }
}

impl Agent {
    fn digest(&self) -> String {
        digest(&self.program)
    }

    fn previous(&self) -> PathBuf {
        self.program.with_file_name("rk.previous")
    }

    /// What lies beside the program.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.program.parent().unwrap()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// How many children of a process have ended and were not reaped.
fn zombies(parent: u32) -> usize {
    let stats =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let is_one = |stat: &String| {
        let mut words = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        words.next() == Some("Z") && words.next() == Some(&parent.to_string())
    };
    stats.filter(is_one).count()
}

fn digest(path: &Path) -> String {
    crate::rig::sha256(&fs::read(path).unwrap())
}

fn results(ran: &Ran) -> Vec<String> {
    let fates: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stderr));
    fates
        .as_array()
        .unwrap()
        .iter()
        .map(|fate| format!("{} {}", fate["name"].as_str().unwrap(), fate["result"].as_str().unwrap()))
        .collect()
}

/// Why it came to nothing, of the only agent.
fn why(ran: &Ran) -> String {
    let fates: Value = serde_json::from_slice(&ran.stdout).unwrap();
    fates[0]["why"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn agents_change_their_program_and_their_jobs_do_not_notice() {
    let stage = Stage::new("update");
    let health = format!("127.0.0.1:{}", ports::free([127, 0, 0, 1].into()));
    let agents = [stage.agent("a", &["--health-addr", &health]), stage.agent("b", &[]), stage.agent("c", &[])];
    let jobs = ["a", "b", "c"].map(|name| stage.job(name));
    let mut kept = stage.rig.rk(&["exec", "a", "--", "sh", "-c", "echo up; cat; echo down"]);
    kept.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut kept = Running::start(kept);
    let new = stage.new_version();
    let (old, wanted) = (agents[0].digest(), digest(&stage.rig.path("new/rk")));
    assert_eq!(stage.shown("a")["digest"], old.as_str());

    let dry = stage.update(&["-l", "fleet", "--to", &new, "--dry-run"]).ok();
    assert_eq!(results(&dry), ["a would_update", "b would_update", "c would_update"]);
    let ran = stage.update(&["-l", "fleet", "--to", &new]).ok();
    assert_eq!(results(&ran), ["a updated", "b updated", "c updated"]);
    for agent in &agents {
        stage.works(agent);
        let shown = stage.shown(&agent.name);
        assert_eq!((&shown["digest"], &shown["update"]["from"]), (&wanted.as_str().into(), &old.as_str().into()));
        assert_eq!((agent.digest(), digest(&agent.previous())), (wanted.clone(), old.clone()));
        assert_eq!(agent.files(), ["rk", "rk.previous"]);
    }
    TcpStream::connect(&health).expect("the new program has the old one's address");
    assert!(stage.rig.run(&["agents", "show", "a"]).ok().text().contains("updated to new"));
    for (agent, job) in agents.iter().zip(&jobs) {
        stage.job_ends(&agent.name, job);
        // Its shim was the child of another program.
        let agent = agent.process.id();
        wait::until("the shim is reaped", PATIENCE, || {
            if zombies(agent) == 0 { Ok(()) } else { Err("it is not".to_owned()) }
        });
    }
    // What is resumable went on too.
    drop(kept.0.stdin.take());
    let mut text = String::new();
    std::io::Read::read_to_string(kept.0.stdout.as_mut().unwrap(), &mut text).unwrap();
    assert_eq!((kept.code(), text.as_str()), (0, "up\ndown\n"));

    let again = stage.update(&["-l", "fleet", "--to", &new]).ok();
    assert_eq!(results(&again), ["a current", "b current", "c current"]);
    // One that is not there: 3 wins.
    stage.rig.add("d", &["fleet=yes"]);
    let away = stage.update(&["a", "d", "--to", "new"]).code(3);
    assert_eq!(results(&away), ["a current", "d no_answer"]);
    let unknown = stage.update(&["a", "--to", "7.7.7"]).code(64);
    assert!(unknown.stderr.contains("rk-7.7.7"), "{unknown:?}");
}

#[test]
fn a_program_that_is_no_good_is_not_taken_and_the_agent_goes_on() {
    let stage = Stage::new("update-bad");
    let agents = ["a", "b", "c"].map(|name| stage.agent(name, &[]));
    let job = stage.job("a");
    let old = agents[0].digest();

    // It says its version wrongly, or not at all: refused before anything stops, and no other agent is tried.
    let broken = stage.rig.path("broken");
    fs::create_dir_all(&broken).unwrap();
    fs::write(broken.join("rk"), "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(broken.join("rk"), fs::Permissions::from_mode(0o755)).unwrap();
    let ran = stage.update(&["-l", "fleet", "--to", broken.to_str().unwrap()]).code(1);
    assert_eq!(results(&ran), ["a refused", "b not_begun", "c not_begun"]);
    assert!(why(&ran).contains("version -o json"), "{ran:?}");

    // It never comes online.
    let silent = stage.script("silent", "echo so it is >&2; exec sleep 600");
    let ran = stage.update(&["a", "--to", &silent, "--deadline", "2s"]).code(1);
    assert_eq!(results(&ran), ["a rolled_back"]);
    assert!(why(&ran).contains("not online within 2s") && why(&ran).contains("so it is"), "{ran:?}");
    stage.works(&agents[0]);

    // It comes online, and dies.
    let log = stage.rig.path("dying.said").display().to_string();
    let dying =
        format!("$REAL \"$@\" 2>{log} & pid=$!\nuntil grep -q online {log}; do sleep 0.05; done\nkill -9 $pid; exit 3");
    let dying = stage.script("dying", &dying);
    let ran = stage.update(&["a", "--to", &dying]).code(1);
    assert_eq!(results(&ran), ["a rolled_back"]);
    assert!(why(&ran).contains("exit status: 3"), "{ran:?}");
    stage.works(&agents[0]);

    let shown = stage.shown("a");
    assert_eq!((&shown["digest"], &shown["update"]["stage"]), (&old.as_str().into(), &"rolled_back".into()));
    assert_eq!((agents[0].digest(), agents[0].files()), (old, vec!["rk".to_owned()]));
    stage.job_ends("a", &job);
}

#[test]
fn an_agent_that_is_killed_in_the_middle_is_whole_when_it_starts_again() {
    let stage = Stage::new("update-kill");
    let mut agent = stage.agent("a", &[]);
    let job = stage.job("a");
    let old = agent.digest();
    let update = |to: &str| {
        let mut command = stage.rig.rk(&["agents", "update", "-o", "json", "a", "--to", to]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Running::start(command)
    };
    let mut killed = |running: &mut Running, signal: &str| {
        agent.process.signal(signal);
        let ended = wait::until("the agent ends", PATIENCE, || agent.process.ended().ok_or("it runs".to_owned()));
        assert!(signal == "KILL" || ended.success(), "{ended}");
        agent.process = stage.rig.process(stage.command("a", &[]), "a.log");
        stage.rig.wait_online("a", &mut agent.process);
        assert_eq!(running.code(), 1);
        let shown = stage.shown("a");
        assert_eq!((&shown["update"]["stage"], &shown["digest"]), (&"rolled_back".into(), &old.as_str().into()));
        assert_eq!(agent.digest(), old);
        stage.works(&agent);
    };

    // As soon as it has the order: it fetches 100 MB, and can hardly be through.
    let mut running = update(&stage.new_version());
    wait::until("the order is taken", PATIENCE, || {
        let update = stage.shown("a")["update"].clone();
        let goes_on = ["fetching", "draining", "trying"].iter().any(|stage| update["stage"] == *stage);
        if goes_on { Ok(()) } else { Err(update.to_string()) }
    });
    killed(&mut running, "KILL");

    // While the new one is tried, which must not go on as an orphan.
    let tried = stage.rig.path("tried");
    let slow = stage.script("slow", &format!("echo $$ > {}; echo it is tried >&2; exec sleep 600", tried.display()));
    let mut running = update(&slow);
    let child = wait_number(&tried);
    // What it says is passed on by the agent, which has told the warden of it before.
    let log = stage.rig.path("a.log");
    wait::until("the agent listens to it", PATIENCE, || {
        let said = fs::read_to_string(&log).map_err(|e| e.to_string())?;
        if said.contains("it is tried") { Ok(()) } else { Err(said) }
    });
    killed(&mut running, "KILL");
    wait_gone(child);
    fs::remove_file(&tried).unwrap();
    let mut running = update(&slow);
    let child = wait_number(&tried);
    killed(&mut running, "TERM");
    wait_gone(child);

    // While it waits for a command.
    let started = stage.rig.path("started");
    let script = format!("echo $$ > {}; exec sleep 600", started.display());
    let plain = stage.rig.rk(&["exec", "--no-stdin", "--resume", "0s", "a", "--", "sh", "-c", &script]);
    let mut plain = Running::start(plain);
    wait_number(&started);
    let mut running = update(&stage.new_version());
    stage.wait_stage("a", "draining");
    killed(&mut running, "KILL");
    plain.wait();

    // And a controller that is killed meanwhile changes nothing.
    let mut running = update("new");
    wait::until("the order is taken", PATIENCE, || {
        let update = stage.shown("a")["update"].clone();
        if update["stage"] == "rolled_back" { Err(update.to_string()) } else { Ok(()) }
    });
    stage.rig.kill_controller();
    stage.rig.start_controller();
    assert_eq!(running.code(), 0, "{}", stage.rig.log("a.log"));
    stage.works(&agent);
    assert_eq!(agent.digest(), digest(&stage.rig.path("new/rk")));
    stage.job_ends("a", &job);
}

#[test]
fn an_agent_is_updated_as_far_as_its_operator_lets_and_its_commands_do() {
    let stage = Stage::new("update-policy");
    let key = stage.rig.path("key").display().to_string();
    stage.rig.run(&["bundle", "keygen", &key]).ok();
    let trusts = format!("{key}.pub");
    let _no = stage.agent("no", &["--updates", "no"]);
    let _limited = stage.agent("limited", &["--allow", "true"]);
    let signed = stage.agent("signed", &["--updates", "signed", "--require-signed", &trusts]);
    let free = stage.agent("free", &[]);
    let new = stage.new_version();
    // Where its file cannot be replaced, whatever of.
    let stuck = stage.agent("stuck", &[]);
    fs::create_dir(stuck.program.with_file_name("rk.stuck.new")).unwrap();
    for (name, part) in [
        ("no", "--updates no"),
        ("limited", "--require-signed"),
        ("signed", "rk bundle sign"),
        ("stuck", "the package or the image"),
    ] {
        let ran = stage.update(&[name, "--to", &new]).code(1);
        assert_eq!(results(&ran), [format!("{name} refused")]);
        assert!(why(&ran).contains(part), "{name}: {}", why(&ran));
    }
    stage.rig.run(&["bundle", "sign", "new", "--key", &key]).ok();
    stage.update(&["signed", "--to", "new"]).ok();
    stage.works(&signed);

    // A command that a new start would end is waited for, and ended only if that is wanted.
    let started = stage.rig.path("started");
    let script = format!("echo $$ > {}; exec sleep 600", started.display());
    let plain = stage.rig.rk(&["exec", "--no-stdin", "--resume", "0s", "free", "--", "sh", "-c", &script]);
    let mut plain = Running::start(plain);
    let pid = wait_number(&started);
    let ran = stage.update(&["free", "--to", "new", "--drain", "1s"]).code(1);
    assert_eq!(results(&ran), ["free busy"]);
    assert!(is_alive(pid) && why(&ran).contains("--interrupt"), "{ran:?}");
    stage.works(&free);
    let ran = stage.update(&["free", "--to", "new", "--drain", "1s", "--interrupt"]).ok();
    assert_eq!(results(&ran), ["free updated"]);
    wait_gone(pid);
    plain.wait();
    stage.works(&free);

    // Who may run commands may not say what an agent is.
    let token = stage.rig.path("token").display().to_string();
    stage.rig.run(&["access", "add", "ci", "--role", "operator", "--out", &token]).ok();
    let mut limited = stage.rig.rk(&["agents", "update", "free", "--to", "new"]);
    limited.env("RK_API_TOKEN", format!("file:{token}"));
    let ran = crate::rig::run(limited, b"");
    assert!(ran.code == 77 && ran.stderr.contains("update"), "{ran:?}");
}

#[test]
fn a_credential_that_came_by_a_pipe_is_given_on() {
    let stage = Stage::new("update-fd");
    let credential = stage.rig.add("a", &[]);
    let program = stage.program("a");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::hard_link(stage.rig.path("old"), &program).unwrap();
    // As `agent_command` has it, but for where the credential comes from.
    let usual = stage.command("a", &[]);
    let script = format!("exec \"$0\" \"$@\" 3< <(cat {0}; rm {0})", credential.display());
    let mut command = Command::new("bash");
    command.args(["-c", &script]).arg(usual.get_program());
    let file = format!("file:{}", credential.display());
    command.args(usual.get_args().map(|arg| if arg == file.as_str() { "fd:3".as_ref() } else { arg }));
    command.envs(usual.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let mut process = stage.rig.process(command, "a.log");
    stage.rig.wait_online("a", &mut process);
    wait::until("the credential is gone", PATIENCE, || {
        if credential.exists() { Err("it is there".to_owned()) } else { Ok(()) }
    });
    let agent = Agent { name: "a".to_owned(), program, process };
    let new = stage.new_version();
    // Who asked for it may go.
    let mut command = stage.rig.rk(&["agents", "update", "a", "--to", &new]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let asked = Running::start(command);
    wait::until("the order is taken", PATIENCE, || {
        let shown = stage.shown("a");
        if shown["update"].is_null() { Err(shown.to_string()) } else { Ok(()) }
    });
    drop(asked);
    stage.wait_stage("a", "updated");
    stage.works(&agent);
    assert_eq!(agent.digest(), digest(&stage.rig.path("new/rk")));
    // Also of one that comes to nothing.
    let silent = stage.script("silent", "exec sleep 600");
    stage.update(&["a", "--to", &silent, "--deadline", "1s"]).code(1);
    stage.works(&agent);
}
