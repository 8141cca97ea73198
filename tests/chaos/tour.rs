//! Three minutes that show what a job survives, told as they happen: `make tour`.

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    client,
    rig::{run, sha256},
    scenarios::show,
    stage::Stage,
    support::{process, wait},
};

/// Lines that the job prints, ten a second.
const LINES: usize = 900;
const LIMIT: Duration = Duration::from_secs(120);

/// What a viewer reads: what is done, and when.
struct Story(Instant);

impl Story {
    fn tell(&self, what: &str) {
        println!("[{:>4.0} s] {what}", self.0.elapsed().as_secs_f64());
    }

    fn command(&self, command: &str) {
        self.tell(&format!("$ {command}"));
    }
}

/// One job; its agent, a broker and the controller are killed while it prints; its log is whole.
pub fn tour(stage: &Stage) -> bool {
    let story = Story(Instant::now());
    story.tell("three nodes of Apache Kafka, a controller and an agent are up");
    let script = format!("i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo \"step $i of {LINES}\"; sleep 0.1; done");
    story.command(&format!("rk run --detach -- sh -c 'print {LINES} lines, ten a second'"));
    let id = client::submit(&stage.rig, &[], &["sh", "-c", &script].map(str::to_owned)).unwrap();
    story.tell(&id);
    story.command(&format!("rk logs --follow {id} > build.log &"));
    let log = stage.rig.path("build.log");
    let mut follow = process::bound(stage.rig.rk(&["logs", "--follow", "--quiet", &id]));
    follow.stdin(Stdio::null()).stdout(File::create(&log).unwrap()).stderr(Stdio::null());
    let mut follower = process::spawn(follow).unwrap();
    grows(&log, 50);
    let pid = show(stage, &id)["pid"].clone();
    story.tell(&format!("the job runs as process {pid}"));

    story.tell(&format!("kill -9 of the agent, process {}; another starts after 3 s", stage.agent_id(0)));
    stage.kill_agent(0, Duration::from_secs(3));
    goes_on(&story, &log);
    story.tell("kill -9 of one broker of the three for 10 s");
    stage.kill_brokers(&[0], Duration::from_secs(10));
    goes_on(&story, &log);
    story.tell(&format!("kill -9 of the controller, process {}; another starts after 3 s", stage.controller_id()));
    stage.kill_controller(Duration::from_secs(3));
    goes_on(&story, &log);
    let after = show(stage, &id)["pid"].clone();
    story.tell(&format!("the job still runs as process {after}"));

    story.command(&format!("rk jobs wait {id}"));
    let waited = run(stage.rig.rk(&["jobs", "wait", &id]), b"");
    story.tell(&format!("exit code {}", waited.code));
    wait::until("who follows the log has all of it", LIMIT, || {
        follower.try_wait().map_err(|e| e.to_string())?.map(|_| ()).ok_or_else(|| "it follows".to_owned())
    });
    let printed: String = (1..=LINES).map(|line| format!("step {line} of {LINES}\n")).collect();
    let read = run(stage.rig.rk(&["logs", "--quiet", &id]), b"");
    let sums = [sha256(printed.as_bytes()), sha256(&fs::read(&log).unwrap()), sha256(&read.stdout)];
    for (what, sum) in ["what the job printed", "what was followed", "rk logs, read again"].into_iter().zip(&sums) {
        story.tell(&format!("{what:<20} sha256:{}…", &sum[..32]));
    }
    let equal = sums.iter().all(|sum| *sum == sums[0]);
    story.tell(if equal { "equal: no byte is lost, and none is there twice" } else { "NOT EQUAL" });
    equal && waited.code == 0 && pid.is_u64() && after == pid
}

/// Waits for so many lines more.
fn grows(log: &Path, lines: usize) {
    let count = || fs::read(log).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count();
    let wanted = (count() + lines).min(LINES);
    wait::until("the log grows", LIMIT, || if count() >= wanted { Ok(()) } else { Err(format!("{} lines", count())) });
}

/// Tells that the log goes on, when it does.
fn goes_on(story: &Story, log: &Path) {
    grows(log, 30);
    let text = fs::read_to_string(log).unwrap_or_default();
    story.tell(&format!("the log goes on: {:?}", text.lines().last().unwrap_or_default()));
}
