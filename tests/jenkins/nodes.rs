//! The node: it comes online, it builds, it goes on building while what carries its channel is killed, and it leaves nothing behind.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crate::{
    hudson::{Build, Hudson},
    rig::{Rig, is_alive, noise, sha256, wait_gone},
    support::process::Process,
};

/// How many builds are made with nothing in their way, and again with everything.
const BUILDS: usize = 20;

/// What each build sends there and gets back.
const ARTIFACT: usize = 3 << 20;

/// How often the controller is killed, and the agent.
const KILLS: usize = 5;

/// Everything that runs. Dropping it ends it all, in the order in which nothing is left.
struct Stage {
    hudson: Option<Hudson>,
    agent: Option<Process>,
    credential: PathBuf,
    rig: Rig,
}

impl Stage {
    fn start() -> Stage {
        let rig = Rig::start("jenkins");
        let credential = rig.add("far", &[]);
        let mut stage = Stage { hudson: None, agent: None, credential, rig };
        fs::create_dir(stage.rig.path("work")).unwrap();
        stage.start_agent();
        stage.rig.wait_online("far", stage.agent.as_mut().unwrap());
        let token = stage.rig.path("jenkins.token");
        let add = ["access", "add", "jenkins", "--role", "operator", "--verb", "exec", "--agent", "far", "--out"];
        stage.rig.run(&[&add[..], &[token.to_str().unwrap()]].concat()).ok();
        let api = format!("http://127.0.0.1:{}", stage.rig.port);
        let token = format!("file:{}", token.display());
        let variables = [("RK_API", &*api), ("RK_API_TOKEN", &*token), ("RK_CONFIG", "/dev/null")];
        let variables = variables.map(|(name, value)| (name, value.as_ref()));
        stage.hudson = Some(Hudson::start(&stage.rig.path("hudson"), &variables));
        stage
    }

    fn start_agent(&mut self) {
        let mut command = self.rig.agent_command("far", &self.credential);
        command.arg("--work").arg(self.rig.path("work"));
        self.agent = Some(self.rig.process(command, "far.log"));
    }

    fn hudson(&self) -> &Hudson {
        self.hudson.as_ref().expect("it runs")
    }

    /// One word that no other process of this machine has on its command line.
    fn mark(&self) -> String {
        format!("-Drk.stage={}", self.rig.path("").display())
    }

    /// Kills the controller or the agent, and starts it again.
    fn kill(&mut self, number: usize) {
        if number.is_multiple_of(2) {
            self.agent.take();
            self.start_agent();
        } else {
            self.rig.kill_controller();
            self.rig.start_controller();
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if thread::panicking() && self.hudson.is_some() {
            eprintln!("{}", self.hudson().last_words());
        }
        // Its launch commands see the end of their stdin, and with them what they run.
        self.hudson.take();
        let mark = self.mark();
        let until = Instant::now() + Duration::from_secs(10);
        while !marked(&mark).is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
        }
        self.agent.take();
        // Only after a failure is there still something.
        for pid in marked(&mark) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).ok();
        }
    }
}

/// Processes that have this on their command line.
fn marked(mark: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(mark)
    };
    pids.filter(has).collect()
}

/// A build of a file that no other build has: it is green, and the file came there and back.
fn check(build: &Build, file: &[u8], number: usize) {
    assert_eq!(build.result, "SUCCESS", "build {number}: {}", build.console);
    let hash = sha256(file);
    assert!(build.console.contains(&hash), "build {number}: another file came there: {}", build.console);
    assert_eq!(build.artifact, hash, "build {number}: another file came back");
}

fn file(number: usize) -> Vec<u8> {
    let mut file = noise(ARTIFACT);
    file[..8].copy_from_slice(&number.to_le_bytes());
    file
}

/// Builds with nothing in their way; how long each took.
fn quiet(hudson: &Hudson, job: &str) -> Vec<Duration> {
    let mut took = Vec::new();
    for number in 0..BUILDS {
        let file = file(number);
        let build = hudson.build(job, &file);
        let build = hudson.finish(job, build);
        check(&build, &file, number);
        took.push(build.took);
    }
    took.sort_unstable();
    took
}

fn report(name: &str, response: &[u64], builds: &[Duration]) {
    let ms = |micros: u64| micros as f64 / 1000.0;
    println!(
        "| {name} | {:.2} | {:.2} | {:.2} | {:.2} |",
        ms(response[response.len() / 2]),
        ms(response[response.len() - 1]),
        builds[builds.len() / 2].as_secs_f64(),
        builds[builds.len() - 1].as_secs_f64(),
    );
}

#[test]
#[ignore = "needs a JDK 17, Apache Kafka and Hudson: `make test-jenkins`"]
fn a_node_builds_through_kafka_and_goes_on_whatever_is_killed() {
    let start = Instant::now();
    let mut stage = Stage::start();
    println!("jenkins: everything serves after {:?}", start.elapsed());
    let program = std::env::var("RK_TEST_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_rk").to_owned());
    let options = format!("-Xmx256m {}", stage.mark());
    let hudson = stage.hudson();
    hudson.add("far", &format!("{program} jenkins-agent --java-opts \"{options}\" far"));
    let jar = hudson.home().join("war/WEB-INF/slave.jar");
    hudson.add("direct", &format!("java {options} -jar {}", jar.display()));
    hudson.wait_online("far");
    hudson.wait_online("direct");

    let builds = quiet(hudson, "far");
    let response = hudson.response_times("far", 50);
    let direct = (hudson.response_times("direct", 50), quiet(hudson, "direct"));
    println!("| node | response ms p50 | max | build s p50 | max |\n|---|---|---|---|---|");
    report("java -jar slave.jar", &direct.0, &direct.1);
    report("rk jenkins-agent", &response, &builds);

    let before = hudson.connection("far");
    let mut pids = Vec::new();
    let mut took = Vec::new();
    let mut kills = 0;
    for number in 0..BUILDS {
        let file = file(BUILDS + number);
        let build = stage.hudson().build("far", &file);
        match number {
            3 => stage.rig.cluster.kill(1),
            9 => stage.rig.cluster.restart(1),
            _ if kills < 2 * KILLS => {
                // Somewhere in the build: each at another place.
                thread::sleep(Duration::from_millis((kills as u64 * 137) % 900));
                stage.kill(kills);
                kills += 1;
            }
            _ => (),
        }
        let build = stage.hudson().finish("far", build);
        check(&build, &file, number);
        pids.push(build.pid());
        took.push(build.took);
    }
    assert_eq!(kills, 2 * KILLS);
    let hudson = stage.hudson();
    let log = hudson.log("far");
    assert_eq!(hudson.connection("far"), before, "the same channel: {log}");
    assert!(pids.iter().all(|pid| *pid == pids[0]), "the same JVM: {pids:?}");
    assert_eq!(log.matches("Launching").count(), 1, "launched once: {log}");
    assert!(log.contains("rk: resumed, nothing is lost"), "{log}");
    took.sort_unstable();
    println!(
        "jenkins: {BUILDS} builds while one broker was dead, the controller was killed {KILLS} times and the agent {KILLS} \
         times: p50 {:.2} s, max {:.2} s, one channel",
        took[took.len() / 2].as_secs_f64(),
        took[took.len() - 1].as_secs_f64()
    );

    // Who closes the channel leaves no process, on neither side.
    assert!(is_alive(pids[0]));
    hudson.disconnect("far");
    wait_gone(pids[0]);
    let left: Vec<u32> = marked(&stage.mark()).into_iter().filter(|pid| is_bridge(*pid)).collect();
    left.into_iter().for_each(wait_gone);
    println!("jenkins: done after {:?}", start.elapsed());
}

/// Whether it is the launch command of the node.
fn is_bridge(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains("jenkins-agent")
}
