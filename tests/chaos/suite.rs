//! Jobs of all kinds while agents, the controller and brokers are killed and paused and connections are cut; then everything is
//! counted and compared.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    client::{self, Digested, Digesting},
    plan::{self, Counts, Cut, Fault, Job, Target},
    stage::Stage,
    writer::End,
};

/// How long the last jobs may take when all is well again.
const SETTLE: Duration = Duration::from_secs(600);
/// How long reading one log may take.
const READ: Duration = Duration::from_secs(300);

/// What is known of the run so far.
#[derive(Default)]
struct Seen {
    counts: Mutex<Counts>,
    /// By job number.
    ids: Mutex<BTreeMap<usize, String>>,
    /// The first end that was seen of each job, by its id.
    ends: Mutex<BTreeMap<String, String>>,
    followed: Mutex<BTreeMap<usize, Result<Digested, String>>>,
    wrong: Mutex<Vec<String>>,
}

impl Seen {
    fn wrong(&self, what: String) {
        println!("chaos: WRONG: {what}");
        self.wrong.lock().unwrap().push(what);
    }

    /// Takes a list of jobs: what has ended stays as it is.
    fn list(&self, jobs: &[Value]) {
        for job in jobs {
            let (id, state) = (text(job, "id"), text(job, "state"));
            let end = format!("{state} {}", job["number"]);
            let mut ends = self.ends.lock().unwrap();
            match ends.get(&id) {
                Some(first) if *first != end => {
                    let changed = format!("job {id} was {first} and is {end}");
                    ends.insert(id, end);
                    drop(ends);
                    self.wrong(changed);
                }
                None if client::is_terminal(&state) => drop(ends.insert(id, end)),
                _ => (),
            }
        }
    }
}

fn text(job: &Value, key: &str) -> String {
    job[key].as_str().unwrap_or_default().to_owned()
}

/// Runs it all; whether everything was right.
pub fn run(stage: &Stage, seed: u64, minutes: u64) -> bool {
    let jobs = plan::jobs(seed, minutes);
    let bytes: u64 = jobs.iter().map(|job| job.writing.lengths.iter().sum::<u64>()).sum();
    println!("chaos: {} jobs write {} MiB on {} agents, {minutes} minutes", jobs.len(), bytes >> 20, plan::AGENTS);
    let seen = Seen::default();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| stage.look_after());
        let watcher = scope.spawn(|| watch(stage, &seen));
        let tracks: Vec<_> = plan::faults(seed, minutes)
            .into_iter()
            .map(|track| {
                let seen = &seen;
                scope.spawn(move || {
                    for event in track {
                        stage.sleep(event.at.saturating_sub(start.elapsed()));
                        if stage.is_over() {
                            return;
                        }
                        fault(stage, &event.fault, event.lasts);
                        count(&mut seen.counts.lock().unwrap(), &event.fault);
                    }
                })
            })
            .collect();
        for job in &jobs {
            stage.sleep(job.at.saturating_sub(start.elapsed()));
            let seen = &seen;
            scope.spawn(move || submit(stage, job, seen));
        }
        for track in tracks {
            if track.join().is_err() {
                seen.wrong("a track of faults broke off; its reason is above".to_owned());
            }
        }
        println!("chaos: the last fault is over after {:.0?}", start.elapsed());
        settle(stage, &seen, jobs.len());
        stage.end();
        watcher.join().unwrap();
    });
    println!("chaos: all jobs have ended after {:.0?}", start.elapsed());
    verify(stage, &jobs, &seen);
    report(stage, &jobs, &seen, minutes, start.elapsed())
}

/// Lists the jobs again and again while that is possible.
fn watch(stage: &Stage, seen: &Seen) {
    let mut told = Instant::now();
    while !stage.is_over() {
        if let Ok(jobs) = client::list(&stage.rig) {
            seen.list(&jobs);
            if told.elapsed() > Duration::from_secs(30) {
                told = Instant::now();
                let ended = jobs.iter().filter(|job| client::is_terminal(&text(job, "state"))).count();
                println!("chaos: {} jobs known, {ended} ended; {:?}", jobs.len(), seen.counts.lock().unwrap());
            }
        }
        stage.sleep(Duration::from_secs(2));
    }
}

fn submit(stage: &Stage, job: &Job, seen: &Seen) {
    let mut command = vec![std::env::current_exe().unwrap().display().to_string()];
    let name = format!("job-{}", job.number);
    command.extend(job.writing.args(&stage.starts(&name)));
    match client::submit(&stage.rig, &["--name", &name], &command) {
        Ok(id) => {
            seen.ids.lock().unwrap().insert(job.number, id.clone());
            if job.followed {
                let rk = stage.rig.rk(&["logs", "-f", "-q", "--patience", "10m", &id]);
                let read = Digesting::start(rk).end(Duration::from_secs(3600));
                seen.followed.lock().unwrap().insert(job.number, read);
            }
        }
        Err(e) => seen.wrong(format!("{name} was not taken: {e}")),
    }
}

fn fault(stage: &Stage, fault: &Fault, lasts: Duration) {
    match fault {
        Fault::KillAgent(number) => stage.kill_agent(*number, lasts),
        Fault::KillController => stage.kill_controller(lasts),
        Fault::KillBrokers(nodes) => stage.kill_brokers(nodes, lasts),
        Fault::Pause(Target::Agent(number)) => stage.pause_agent(*number, lasts),
        Fault::Pause(Target::Controller) => stage.pause_controller(lasts),
        Fault::Pause(Target::Broker(node)) => stage.pause_broker(*node, lasts),
        Fault::Cut(cut, nodes) => {
            let proxies = || nodes.iter().map(|node| &stage.proxies[*node]);
            match cut {
                Cut::Reset => (),
                Cut::Refuse => proxies().for_each(|proxy| {
                    proxy.refuse(true);
                    proxy.reset();
                }),
                Cut::Stall | Cut::Hole => proxies().for_each(|proxy| proxy.stall(true)),
            }
            if *cut != Cut::Reset {
                stage.sleep(lasts);
            }
            for proxy in proxies() {
                proxy.refuse(false);
                if *cut != Cut::Stall {
                    proxy.reset();
                }
                proxy.stall(false);
            }
        }
    }
}

fn count(counts: &mut Counts, fault: &Fault) {
    match fault {
        Fault::KillAgent(_) => counts.agents += 1,
        Fault::KillController => counts.controllers += 1,
        Fault::KillBrokers(nodes) => counts.brokers += nodes.len() as u64,
        Fault::Pause(_) => counts.pauses += 1,
        Fault::Cut(..) => counts.cuts += 1,
    }
}

/// Waits until all jobs have ended, or says which have not.
fn settle(stage: &Stage, seen: &Seen, count: usize) {
    let start = Instant::now();
    let mut last = Err("nothing was listed".to_owned());
    while start.elapsed() < SETTLE {
        last = client::list(&stage.rig);
        if let Ok(jobs) = &last {
            seen.list(jobs);
            let ended = jobs.iter().filter(|job| client::is_terminal(&text(job, "state"))).count();
            let followed = seen.followed.lock().unwrap().len();
            if ended == count && followed == count.div_ceil(8) {
                return;
            }
        }
        stage.sleep(Duration::from_millis(500));
    }
    match last {
        Ok(jobs) => jobs.iter().filter(|job| !client::is_terminal(&text(job, "state"))).for_each(|job| {
            seen.wrong(format!("after {SETTLE:?} of quiet a job has not ended: {job}"));
        }),
        Err(e) => seen.wrong(format!("after {SETTLE:?} of quiet the jobs can't be listed: {e}")),
    }
}

/// Compares every job with its plan.
fn verify(stage: &Stage, jobs: &[Job], seen: &Seen) {
    let listed = client::list(&stage.rig).unwrap_or_else(|e| {
        seen.wrong(format!("the jobs can't be listed: {e}"));
        Vec::new()
    });
    seen.list(&listed);
    if listed.len() != jobs.len() {
        seen.wrong(format!("{} jobs were submitted and {} are known", jobs.len(), listed.len()));
    }
    let known: BTreeMap<String, &Value> = listed.iter().map(|job| (text(job, "id"), job)).collect();
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, SeqCst)) {
                    let id = seen.ids.lock().unwrap().get(&job.number).cloned();
                    let info = id.as_ref().and_then(|id| known.get(id));
                    // That it was not taken was said before.
                    if let (Some(id), Some(info)) = (id, info) {
                        verify_job(stage, job, &id, info, seen);
                    }
                }
            });
        }
    });
}

fn verify_job(stage: &Stage, job: &Job, id: &str, info: &Value, seen: &Seen) {
    let name = format!("job-{} ({id}, {:?})", job.number, job.writing);
    let (state, number, code) = match job.writing.end {
        End::Code(0) => ("succeeded", Value::Null, 0),
        End::Code(code) => ("failed", code.into(), i32::from(code)),
        End::Signal(signal) => ("signalled", signal.into(), 128 + signal),
    };
    if info["state"] != state || info["number"] != number || info["exit_code"] != code {
        seen.wrong(format!("{name}: it should have ended as {state} {number}: {info}"));
    }
    let starts = fs::read_to_string(stage.starts(&format!("job-{}", job.number))).unwrap_or_default();
    if starts.lines().count() != 1 {
        seen.wrong(format!("{name}: it was started {} times: {starts:?}", starts.lines().count()));
    }
    let hashes = job.writing.hashes();
    let compare = |how: &str, read: Result<Digested, String>, code: i32| match read {
        Ok(read) if read.code == code && read.hashes == hashes => (),
        other => seen.wrong(format!("{name}: {how}: {other:?}, should be {hashes:?} and {code}; {info}")),
    };
    compare("its log", client::read_log(&stage.rig, id, READ), 0);
    if let Some(read) = seen.followed.lock().unwrap().remove(&job.number) {
        compare("its log as it was followed", read, code);
    }
}

/// Prints the table; whether everything was right.
fn report(stage: &Stage, jobs: &[Job], seen: &Seen, minutes: u64, took: Duration) -> bool {
    let counts = *seen.counts.lock().unwrap();
    for ((what, count), (_, least)) in counts.rows().into_iter().zip(Counts::least(minutes).rows()) {
        if count < least {
            seen.wrong(format!("too few {what}: {count}, at least {least}"));
        }
    }
    for what in stage.broken.lock().unwrap().drain(..) {
        seen.wrong(what);
    }
    let ends = seen.ends.lock().unwrap();
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for end in ends.values() {
        *states.entry(end.split(' ').next().unwrap_or_default()).or_default() += 1;
    }
    let bytes: u64 = jobs.iter().map(|job| job.writing.lengths.iter().sum::<u64>()).sum();
    println!("\n| what | how many |\n|---|---|");
    println!("| minutes, with the quiet ones at the end | {:.1} |", took.as_secs_f64() / 60.0);
    println!("| jobs | {} |\n| MiB of logs | {} |", jobs.len(), bytes >> 20);
    for (what, count) in counts.rows() {
        println!("| {what} | {count} |");
    }
    println!("| processes that ended by themselves | {} |", stage.by_themselves.load(SeqCst));
    for (state, count) in states {
        println!("| jobs {state} | {count} |");
    }
    let wrong = seen.wrong.lock().unwrap();
    println!("| wrong | {} |\n", wrong.len());
    wrong.iter().for_each(|what| println!("chaos: WRONG: {what}"));
    wrong.is_empty()
}

/// Where the logs of a run that failed are kept.
pub fn kept(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}
