//! What a process starts with, and that it starts once.

use remoting_kafka::agent::{
    adopt::Decision,
    attempt::{Attempt, ClaimError},
    shim::{
        Shim, StartError,
        spec::{Outcome, RunAs, Stdin},
    },
};

use super::rig::*;

#[tokio::test]
async fn output_exit_code_and_environment_are_those_of_the_process() {
    let rig = Rig::new();
    std::fs::write(rig.path("in"), "from a file\n").expect("write");
    let mut spec = script("cat; env | grep -v -e ^_= -e ^SHLVL= -e ^PWD= -e ^OLDPWD=; pwd; echo to-err >&2; exit 42");
    spec.env.push(("GIVEN".into(), "a b=c".into()));
    spec.cwd = "/usr".into();
    spec.stdin = Stdin::File(rig.path("in").into());
    let (attempt, exit) = rig.run("a", &spec).await;
    assert_eq!((&exit.outcome, exit.cause, exit.killed_leftovers), (&Outcome::Code(42), None, false));
    let [out, err] = text(&attempt, &exit);
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["/usr", "GIVEN=a b=c", "PATH=/usr/local/bin:/usr/bin:/bin", "from a file"]);
    assert_eq!(err, "to-err\n");
    assert!(!attempt.dir().join("spec").exists(), "it may hold secrets and is not needed any more");
    until(|| shim_of(&attempt).is_none().then_some(())).await;
    attempt.remove().expect("removed");
    attempt.remove().expect("removed twice");
}

#[tokio::test]
async fn nothing_that_the_shim_blocks_or_holds_is_inherited() {
    let rig = Rig::new();
    let (attempt, exit) = rig.run("a", &script("grep SigBlk /proc/self/status; ls /proc/self/fd | wc -l")).await;
    let [out, _] = text(&attempt, &exit);
    // The fourth descriptor is the directory that `ls` reads.
    assert_eq!(out, "SigBlk:\t0000000000000000\n4\n");
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_says_why() {
    let rig = Rig::new();
    let mut spec = script("");
    spec.program = "/nowhere/program".into();
    let (_, exit) = rig.run("a", &spec).await;
    let Outcome::NotExecuted { errno: 2, what } = &exit.outcome else { panic!("{exit:?}") };
    assert!(what.contains("/nowhere/program"), "{what}");
    let mut spec = script("");
    spec.cwd = "/nowhere/dir".into();
    let (_, exit) = rig.run("b", &spec).await;
    assert!(matches!(&exit.outcome, Outcome::NotExecuted { errno: 2, what } if what.contains("/nowhere/dir")));
}

#[tokio::test]
async fn whoever_starts_at_the_same_time_one_wins() {
    let rig = Rig::new();
    let count = rig.path("starts");
    let spec = script(&format!("echo x >> {}; sleep 1000", count.display()));
    let attempt = rig.claim("a", &spec);
    assert!(matches!(Attempt::claim(&rig.jobs(), &id("a"), &spec), Err(ClaimError::Taken(_))));
    let starts = (0..5).map(|_| {
        let attempt = attempt.clone();
        tokio::spawn(async move { launcher().start(&attempt).await })
    });
    let mut won = 0;
    for start in starts.collect::<Vec<_>>() {
        match soon(start).await.expect("no panic") {
            Ok(_) => won += 1,
            Err(error) => assert!(matches!(error, StartError::Taken), "{error}"),
        }
    }
    assert_eq!(won, 1);
    let pid = Shim::connect(&attempt).await.expect("connected").changed().await.expect("a report").pid;
    let Decision::Adopt(Some(started)) = decision(&attempt) else { panic!("it runs") };
    assert_eq!(started.pid, pid);
    until(|| (std::fs::read_to_string(&count).ok()? == "x\n").then_some(())).await;
    order(&attempt, remoting_kafka::agent::shim::Order::Kill).await;
    ended(&attempt).await;
    let again = soon(launcher().start(&attempt)).await;
    assert!(matches!(again, Err(StartError::Taken)), "what ended is not started again");
    assert_eq!(std::fs::read_to_string(&count).expect("count"), "x\n");
}

#[tokio::test]
async fn a_claim_without_a_spec_did_not_run_and_starts_when_it_has_one() {
    let rig = Rig::new();
    let dir = rig.jobs().join("a.1");
    std::fs::create_dir_all(&dir).expect("dir");
    let attempt = Attempt::at(dir);
    assert_eq!(decision(&attempt), Decision::Start { has_spec: false });
    let failed = soon(launcher().start(&attempt)).await;
    assert!(matches!(&failed, Err(StartError::Failed(why)) if why.contains("spec")), "{failed:?}");
    assert_eq!(decision(&attempt), Decision::Start { has_spec: false });
    attempt.put_spec(&script("echo now")).expect("spec");
    assert_eq!(decision(&attempt), Decision::Start { has_spec: true });
    soon(launcher().start(&attempt)).await.expect("started");
    let exit = ended(&attempt).await;
    assert_eq!(text(&attempt, &exit)[0], "now\n");
}

#[tokio::test]
async fn a_directory_with_a_long_path_has_orders_too() {
    let rig = Rig::new();
    let jobs = rig.dir.path().join("x".repeat(120));
    let attempt = Attempt::claim(&jobs, &id("a"), &script("sleep 1000")).expect("a claim");
    let started = soon(launcher().start(&attempt)).await.expect("started");
    order(&attempt, remoting_kafka::agent::shim::Order::Kill).await;
    assert_eq!(ended(&attempt).await.outcome, Outcome::Signal(9));
    gone(started.pid).await;
}

#[tokio::test]
#[ignore = "only root may run processes as others: run with --include-ignored as root"]
async fn a_process_runs_as_the_user_that_it_should() {
    let rig = Rig::new();
    let mut spec = script("id -u; id -g; id -G");
    spec.run_as = Some(RunAs { uid: 65534, gid: 65534, groups: vec![65534, 12345] });
    let (attempt, exit) = rig.run("a", &spec).await;
    assert_eq!(text(&attempt, &exit)[0], "65534\n65534\n65534 12345\n");
}
