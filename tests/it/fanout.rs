//! `rk exec -l`: many agents at once.

use std::{fs, process::Stdio};

use crate::rig::{Rig, Running, run, wait_number};

#[test]
fn a_fan_out_prefixes_lines_and_its_exit_code_tells_the_worst() {
    let rig = Rig::start("fanout");
    let _web = [rig.agent("web1", &["role=web"]), rig.agent("web2", &["role=web"])];
    let _db = rig.agent("db1", &["role=db"]);
    let ran = rig.run(&["exec", "-l", "role=web", "--", "sh", "-c", "echo hi from $RK_AGENT_NAME; echo oops >&2"]).ok();
    let text = ran.text();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["web1: hi from web1", "web2: hi from web2"]);
    assert!(ran.stderr.contains("web1: oops\n") && ran.stderr.contains("web2: oops\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("rk: 2 ok, 0 failed, 0 no answer, 0 offline"), "{}", ran.stderr);

    let fails = "[ $RK_AGENT_NAME != web2 ]";
    let ran = rig.run(&["exec", "-l", "role", "--", "sh", "-c", fails]).code(1);
    assert!(ran.stderr.contains("rk: web2 failed: exit code 1"), "{}", ran.stderr);
    assert!(ran.stderr.contains("rk: 2 ok, 1 failed, 0 no answer, 0 offline"), "{}", ran.stderr);

    // One that has never been there is offline: 3 wins over 1.
    rig.add("web3", &["role=web"]);
    let ran = rig.run(&["exec", "-l", "role=web", "-o", "jsonl", "--", "sh", "-c", fails]).code(3);
    let text = ran.text();
    let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(summary, serde_json::json!({"event":"summary","ok":1,"failed":1,"no_answer":0,"offline":1}));

    let ran = rig.run(&["exec", "-l", "role=none", "--", "true"]).code(64);
    assert!(ran.line().contains("rk agents ls"), "{}", ran.stderr);
    assert_eq!(rig.run(&["exec", "-q", "-l", "role=db", "--", "true"]).ok().stderr, "");
}

#[test]
fn a_batch_bounds_how_many_run_at_once() {
    let rig = Rig::start("batch");
    let _agents: Vec<_> = (0..4).map(|i| rig.agent(&format!("a{i}"), &["x=y"])).collect();
    let dir = rig.path("running");
    fs::create_dir(&dir).unwrap();
    // Each counts who runs beside it while it runs.
    let script = format!("touch {0}/$$; sleep 0.3; ls {0} | wc -l; rm {0}/$$", dir.display());
    let most = |batch: &str| {
        let ran = rig.run(&["exec", "-l", "x=y", "--batch", batch, "--", "sh", "-c", &script]).ok();
        let text = ran.text();
        let counts = text.lines().map(|line| line.split(' ').next_back().unwrap().trim().parse::<u32>().unwrap());
        counts.max().unwrap()
    };
    assert_eq!(most("1"), 1);
    assert_eq!(most("25%"), 1);
    assert!(most("50%") <= 2);
}

#[test]
fn a_fan_out_that_is_interrupted_interrupts_everywhere() {
    let rig = Rig::start("fanint");
    let _agents: Vec<_> = (0..2).map(|i| rig.agent(&format!("a{i}"), &["x=y"])).collect();
    let script = format!(
        "trap 'exit 7' INT; echo $$ > {}-$RK_AGENT_NAME; while :; do sleep 0.1; done",
        rig.path("pid").display()
    );
    let mut command = rig.rk(&["exec", "-l", "x=y", "--", "sh", "-c", &script]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = Running::start(command);
    for agent in ["a0", "a1"] {
        wait_number(&rig.path(&format!("pid-{agent}")));
    }
    running.signal("INT");
    assert_eq!(running.code(), 1);
    assert_eq!(run(rig.rk(&["agents", "ls", "-o", "name"]), b"").ok().text(), "a0\na1\n");
}
