//! What survives what: the rows of the README's table that no other test stands for.

use std::{fs, thread, time::Duration};

use crate::{
    jobs::{count_lines, end, shown, start, steady, stop, submit, wait_lines, wait_state},
    rig::{Rig, is_alive, wait_number},
    support::{another, cluster::kafka_nodes, user},
};

#[test]
fn a_controller_on_an_empty_disk_with_its_identity_knows_the_same() {
    let rig = Rig::start("emptydisk");
    let _agent = rig.agent("a", &["role=build"]);
    let done = submit(&rig, &["--name", "done"], &["echo", "done"]);
    rig.run(&["jobs", "wait", &done]).ok();
    let running = submit(&rig, &[], &["sh", "-c", &steady(&rig)]);
    let pid = wait_number(&rig.path("pid"));
    let queued = submit(&rig, &["-l", "role=none"], &["true"]);
    wait_state(&rig, &running, "running");
    let follower = start(rig.rk(&["logs", "-f", "--api-token", &token(&rig), &running]));
    let before = [shown(&rig, &done).unwrap(), shown(&rig, &queued).unwrap()];
    rig.kill_controller();
    for entry in fs::read_dir(rig.path("controller")).unwrap().flatten() {
        if entry.file_name() != "identity.pem" {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    // The token is the operator's to keep too, if clients are to go on.
    fs::copy(rig.path("token.kept"), rig.path("controller/api.token")).unwrap();
    rig.start_controller();
    assert_eq!([shown(&rig, &done).unwrap(), shown(&rig, &queued).unwrap()], before);
    assert_eq!(rig.run(&["logs", &done]).ok().text(), "done\n");
    wait_lines(&rig, &running, rig.run(&["logs", &running]).ok().text().lines().count());
    assert!(is_alive(pid));
    stop(&rig);
    let (code, out, err) = end(follower);
    assert_eq!((code, err.contains("gap")), (7, false), "{err}");
    count_lines(&out);
}

/// The API's token, put where an emptied disk does not take it.
fn token(rig: &Rig) -> String {
    fs::copy(rig.path("controller/api.token"), rig.path("token.kept")).unwrap();
    format!("file:{}", rig.path("token.kept").display())
}

#[test]
fn topics_that_are_deleted_and_created_anew_cost_no_job_and_what_is_gone_of_a_log_is_named() {
    let rig = Rig::start("anew");
    let _agent = rig.agent("a", &[]);
    let done = submit(&rig, &[], &["echo", "done"]);
    rig.run(&["jobs", "wait", &done]).ok();
    let running = submit(&rig, &[], &["sh", "-c", &steady(&rig)]);
    let pid = wait_number(&rig.path("pid"));
    let queued = submit(&rig, &["-l", "role=none"], &["true"]);
    wait_lines(&rig, &running, 10);
    recreate(&rig, "journal", 1);
    recreate(&rig, "logs", i32::try_from(rig.partitions).unwrap());
    // The controller goes on with what it knows.
    let next = crate::support::wait::until("a job is taken", Duration::from_secs(120), || {
        let ran = rig.run(&["run", "--detach", "--", "echo", "next"]);
        if ran.code == 0 { Ok(ran.text().trim().to_owned()) } else { Err(ran.stderr) }
    });
    rig.run(&["jobs", "wait", &next]).ok();
    assert_eq!(rig.run(&["logs", &next]).ok().text(), "next\n");
    assert_eq!(shown(&rig, &done).unwrap()["state"], "succeeded");
    assert_eq!(shown(&rig, &queued).unwrap()["state"], "queued");
    assert!(is_alive(pid));
    stop(&rig);
    rig.run(&["jobs", "wait", &running]).code(7);
    let log = rig.run(&["logs", &running]);
    // All of it was kept in the spool.
    assert!(!log.stderr.contains("gap") && count_lines(&log.text()) > 10, "{}", log.stderr);
    let gone = rig.run(&["logs", &done]);
    assert!(
        gone.text().is_empty() && gone.stderr.contains("bytes 0..5") && gone.stderr.contains("created anew"),
        "{}",
        gone.stderr
    );
    // And so does the next one.
    rig.kill_controller();
    rig.start_controller();
    assert_eq!(shown(&rig, &running).unwrap()["number"], 7);
    assert_eq!(shown(&rig, &queued).unwrap()["state"], "queued");
}

/// Deletes a topic and creates it anew.
fn recreate(rig: &Rig, topic: &str, partitions: i32) {
    let name = format!("{}.{topic}", rig.prefix);
    rig.block_on(async {
        let brokers = rig.cluster.bootstrap().split(',').map(str::to_owned).collect();
        let client = another::connect(brokers, &rig.cluster.ca(), user::ADMIN).await;
        let admin = client.controller_client().unwrap();
        admin.delete_topic(&name, 10_000).await.unwrap();
        let replication = i16::try_from(rig.cluster.nodes().min(3)).unwrap();
        for _ in 0..100 {
            if admin.create_topic(&name, partitions, replication, 10_000).await.is_ok() {
                return;
            }
            // It is being deleted still.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("topic {name} is not created anew");
    });
}

#[test]
#[ignore = "needs three nodes of Apache Kafka: make test-kafka"]
fn a_minute_without_any_broker_costs_a_job_and_its_followers_nothing() {
    assert_eq!(kafka_nodes(), 3, "RK_TEST_KAFKA=3 gives the three nodes");
    let rig = Rig::start("alldead");
    let mut agent = rig.agent("a", &[]);
    let id = submit(&rig, &[], &["sh", "-c", &steady(&rig)]);
    let pid = wait_number(&rig.path("pid"));
    let queued = submit(&rig, &["-l", "role=none"], &["true"]);
    wait_lines(&rig, &id, 10);
    let follower = start(rig.rk(&["logs", "-f", &id]));
    (0..3).for_each(|node| rig.cluster.kill(node));
    // Time is what this is about.
    thread::sleep(Duration::from_secs(60));
    assert!(is_alive(pid));
    thread::scope(|scope| (0..3).for_each(|node| drop(scope.spawn(move || rig_restart(node)))));
    rig.cluster.wait_until_in_sync();
    let before = rig.run(&["logs", &id]).ok().text().lines().count();
    wait_lines(&rig, &id, before);
    assert_eq!(shown(&rig, &queued).unwrap()["state"], "queued");
    stop(&rig);
    let (code, out, err) = end(follower);
    assert_eq!((code, err.contains("gap")), (7, false), "{err}");
    // One line in 50 ms at most, and not much less.
    assert!(count_lines(&out) > 600);
    assert!(agent.ended().is_none());
}

fn rig_restart(node: usize) {
    crate::support::cluster::TestCluster::shared().restart(node);
}
