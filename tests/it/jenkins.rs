//! `rk jenkins-agent`: the jar gets there once and whole, stdout carries the channel alone, and no process is left. What plays Java
//! is a script; `make test-jenkins` has the real ones.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    rig::{Ran, Rig, Running, noise, run, sha256, wait_gone, wait_number},
    support::process::Process,
};

/// An agent with a work directory of its own, and a jar on the controller's side.
struct Node {
    rig: Rig,
    credential: PathBuf,
    options: Vec<String>,
    agent: Option<Process>,
    digest: String,
}

impl Node {
    fn start(test: &str) -> Node {
        Node::start_with(test, &[])
    }

    /// One whose agent has these options as well.
    fn start_with(test: &str, options: &[&str]) -> Node {
        let rig = Rig::start(test);
        let credential = rig.add("far", &[]);
        let home = rig.path("home/war/WEB-INF");
        fs::create_dir_all(&home).unwrap();
        fs::create_dir(rig.path("work")).unwrap();
        let bytes = [b"PK".to_vec(), noise(3 << 20)].concat();
        fs::write(home.join("agent.jar"), &bytes).unwrap();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut node = Node { rig, credential, options, agent: None, digest: sha256(&bytes) };
        node.start_agent();
        node.rig.wait_online("far", node.agent.as_mut().unwrap());
        node
    }

    fn start_agent(&mut self) {
        let mut command = self.rig.agent_command("far", &self.credential);
        command.arg("--work").arg(self.rig.path("work")).args(&self.options);
        self.agent = Some(self.rig.process(command, "far.log"));
    }

    /// What plays Java: it is handed options, `-jar` and a path.
    fn java(&self, script: &str) -> String {
        let path = self.rig.path("java");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.rig.rk(&[&["jenkins-agent"], args].concat());
        command.env("JENKINS_HOME", self.rig.path("home"));
        command
    }

    fn run(&self, args: &[&str], stdin: &[u8]) -> Ran {
        run(self.command(args), stdin)
    }

    fn there(&self) -> PathBuf {
        self.rig.path(&format!("work/.rk-jenkins/{}.jar", self.digest))
    }

    /// The files of the agent's jars.
    fn files(&self) -> usize {
        fs::read_dir(self.rig.path("work/.rk-jenkins")).unwrap().count()
    }
}

#[test]
fn the_jar_gets_there_once_and_stdout_is_the_channel_alone() {
    let node = Node::start("jenkins");
    let java = node.java("sha256sum \"$4\" >&2; echo \"$1,$2,$3\" >&2; cat; exit 7");
    let channel = noise(5 << 20);
    let args = ["--java", &java, "--java-opts", "-Xmx1g '-Da=b c'", "far"];
    let first = node.run(&args, &channel).code(7);
    assert!(first.stdout == channel, "the channel is what Java said: {}", first.stderr);
    assert!(first.stderr.contains(&node.digest) && first.stderr.contains("-Xmx1g,-Da=b c,-jar"), "{}", first.stderr);
    assert!(
        first.stderr.contains("rk: brought ") && first.stderr.contains("ended with exit code 7"),
        "{}",
        first.stderr
    );
    assert_eq!(node.files(), 1, "only the whole file is left");

    let second = node.run(&args, b"").code(7);
    assert!(second.stderr.contains("rk: far has ") && !second.stderr.contains("brought"), "{}", second.stderr);

    // Somebody spoilt it.
    fs::write(node.there(), "PK spoilt").unwrap();
    node.run(&args, b"").code(7);
    assert_eq!(sha256(&fs::read(node.there()).unwrap()), node.digest);
}

#[test]
fn what_keeps_a_node_from_coming_online_stands_in_its_log() {
    let node = Node::start("jenkins-log");
    let quiet = |args: &[&str], code: i32, part: &str| {
        let ran = node.run(args, b"").code(code);
        assert!(ran.stdout.is_empty(), "stdout belongs to the channel: {}", ran.text());
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    };
    quiet(&["--java", "/nonexistent/java", "far"], 127, "far has no Java");
    quiet(&["--jar", "/nonexistent.jar", "far"], 64, "/nonexistent.jar: ");
    quiet(&["nobody"], 64, "nobody");
    node.rig.add("away", &[]);
    quiet(&["away"], 69, "away is offline");
    quiet(&["--api", "http://127.0.0.1:1", "far"], 69, "127.0.0.1:1");
    let killed = node.java("kill -9 $$");
    quiet(&["--java", &killed, "far"], 137, "was killed");

    let mut bare = node.command(&["far"]);
    bare.env_remove("JENKINS_HOME");
    let ran = run(bare, b"").code(64);
    assert!(ran.line().contains("JENKINS_HOME and HUDSON_HOME are not set"), "{}", ran.stderr);

    // A token for another node.
    let token = node.rig.path("other.token");
    let add = ["access", "add", "other", "--role", "operator", "--verb", "exec", "--agent", "away", "--out"];
    node.rig.run(&[&add[..], &[token.to_str().unwrap()]].concat()).ok();
    let token = format!("file:{}", token.display());
    quiet(&["--api-token", &token, "far"], 77, "it was to run sha256sum");

    // A directory that takes no files.
    fs::remove_dir_all(node.rig.path("work/.rk-jenkins")).unwrap();
    fs::write(node.rig.path("work/.rk-jenkins"), "in the way").unwrap();
    quiet(&["far"], 69, "mkdir -p .rk-jenkins: exit code 1");
}

#[test]
fn an_agent_that_lists_what_it_runs_needs_six_patterns() {
    let node = Node::start_with(
        "jenkins-allow",
        &[
            ["--allow", "sha256sum .rk-jenkins/*"],
            ["--allow", "mkdir -p .rk-jenkins"],
            ["--allow", "dd of=.rk-jenkins/* bs=64k"],
            ["--allow", "mv -f .rk-jenkins/* .rk-jenkins/*"],
            ["--allow", "rm -f .rk-jenkins/*"],
            ["--allow", "*/java -jar .rk-jenkins/*"],
        ]
        .concat(),
    );
    let java = node.java("cat");
    let ran = node.run(&["--java", &java, "far"], b"through").code(0);
    assert_eq!(ran.text(), "through");
    let ran = node.run(&["--java", &java, "--java-opts", "-Xmx1g", "far"], b"").code(77);
    assert!(ran.stderr.contains("--allow"), "{}", ran.stderr);
}

#[test]
fn a_launch_command_that_is_told_to_end_leaves_nothing_running() {
    let node = Node::start("jenkins-end");
    let pid_file = node.rig.path("pid");
    let java = node.java(&format!("echo $$ > {}; exec sleep 1000", pid_file.display()));
    for signal in ["TERM", "KILL"] {
        fs::remove_file(&pid_file).ok();
        let mut command = node.command(&["--java", &java, "far"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut launched = Running::start(command);
        let pid = wait_number(&pid_file);
        launched.signal(signal);
        launched.wait();
        wait_gone(pid);
    }
}

#[test]
fn a_channel_survives_its_agent_and_its_controller() {
    let mut node = Node::start("jenkins-kill");
    let java = node.java("cat");
    let mut command = node.command(&["--java", &java, "far"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut launched = Running::start(command);
    let (mut to, mut from) = (launched.0.stdin.take().unwrap(), launched.0.stdout.take().unwrap());
    let mut said = launched.0.stderr.take().unwrap();
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        said.read_to_string(&mut text).ok();
        text
    });
    let mut round = |number: usize| {
        let sent = [number.to_le_bytes().to_vec(), noise(64 << 10)].concat();
        to.write_all(&sent).unwrap();
        let mut back = vec![0; sent.len()];
        from.read_exact(&mut back).unwrap();
        assert!(back == sent, "other bytes came back in round {number}");
    };
    round(0);
    for number in 1..=2 {
        node.agent.take();
        node.start_agent();
        round(2 * number);
        node.rig.kill_controller();
        node.rig.start_controller();
        round(2 * number + 1);
    }
    drop(to);
    assert_eq!(launched.code(), 0);
    let said = said.join().unwrap();
    assert!(said.contains("rk: resumed, nothing is lost"), "{said}");
}
