//! Taking the controller's memory back to an earlier day, by whoever may do everything on the cluster. A controller that runs
//! believes what it read; one that starts compares with what it noted; agents compare with what they were shown.

use std::{fs, path::Path};

use bytes::Bytes;
use remoting_kafka::{
    journal::{
        Head,
        record::{Codec, Kind, Record as Entry, StateKey},
    },
    kafka::{
        Cluster, Record,
        topics::{Desired, Installation},
    },
};

use crate::{
    rig::{PATIENCE, Running, noise, run},
    stage::{HONEST, Stage},
    support::{user::ADMIN, wait},
};

fn values(records: Vec<(i64, Record)>) -> Vec<Record> {
    records.into_iter().map(|(_, record)| record).collect()
}

/// Makes the journal's topic anew with these records.
fn recreate(stage: &Stage, records: &[Record]) {
    let (topic, admin) = (stage.prefix.journal(), stage.cluster(ADMIN).admin());
    let installation = Installation { prefix: stage.prefix.clone(), partitions: 2, ..Installation::default() };
    let desired = Desired::new(&installation, 1);
    let wanted = desired.topics.iter().find(|wanted| wanted.name == topic).unwrap();
    stage.block_on(async { admin.delete_topics(&[&topic]).await.unwrap().remove(0).unwrap() });
    wait::until("the topic is made anew", PATIENCE, || {
        stage.block_on(async {
            let made = admin.create_topics(&[wanted]).await.map_err(|error| error.to_string())?;
            made.into_iter().try_for_each(|made| made).map_err(|error| error.to_string())
        })
    });
    // A broker may hear of it later than the one that made it.
    wait::until("the topic is served", PATIENCE, || {
        stage.block_on(admin.are_served(&[wanted])).map_err(|error| error.to_string())
    });
    stage.write(ADMIN, &topic, 0, records.to_vec());
}

/// A controller's start on this data, which must be refused; what it says.
fn refused_start(stage: &Stage, data: &str) -> String {
    let ran = run(stage.rig.controller_command(data, stage.rig.port), &[]).code(77);
    ran.stderr.lines().rfind(|line| line.starts_with("rk: ")).expect("a line").to_owned()
}

fn agents(stage: &Stage) -> String {
    stage.rig.run(&["agents", "ls", "-o", "name"]).ok().text()
}

#[test]
fn what_is_written_into_a_journal_by_others_counts_for_nothing_and_what_they_delete_is_missed() {
    let stage = Stage::start("journal");
    let topic = stage.prefix.journal();
    let epoch = stage.metric("rk_controller_epoch");
    let older = values(stage.read(&topic, 0));
    stage.rig.add("b", &[]);
    stage.rig.run(&["agents", "rm", "b"]).ok();
    stage.rig.add("c", &[]);
    let all = values(stage.read(&topic, 0));
    assert!(older.len() < all.len());

    stage.attempt("an older prefix, and all of it in every order", || {
        let backwards = all.iter().rev().cloned();
        let records = older.iter().cloned().chain(all.iter().cloned()).chain(backwards).collect();
        stage.write(ADMIN, &topic, 0, records);
        assert_eq!(agents(&stage), "c\nhonest\n");
    });
    stage.attempt("claims of strangers", || {
        let stranger = Codec::new(&StateKey::new([9; 32]), &topic);
        let claim = |epoch, writer| {
            let entry = Entry { kind: Kind::Claim, epoch, writer, seq: 0, prev: Head([0; 32]), payload: Bytes::new() };
            Record::new("", stranger.seal(&entry, [3; 12]))
        };
        let mut records: Vec<Record> = [2, 3, u32::MAX].map(|epoch| claim(epoch, 7)).into();
        // The true writer's name on it, whose key the stranger has not.
        let writer = u128::from_be_bytes(all[0].value[1..17].try_into().unwrap());
        records.push(claim(u32::MAX, writer));
        records.extend((0..100).map(|n| Record::new("", noise(1 + n * 91))));
        stage.write(ADMIN, &topic, 0, records);
    });
    stage.attempt("records with a bit changed, and cut", || {
        let changed = all.iter().enumerate().flat_map(|(at, record)| {
            let mut value = record.value.to_vec();
            let place = at * 13 % value.len();
            value[place] ^= 1;
            let cut = record.value.slice(..record.value.len() - 1 - at % 20);
            [Record { value: value.into(), ..record.clone() }, Record { value: cut, ..record.clone() }]
        });
        stage.write(ADMIN, &topic, 0, changed.collect());
    });
    stage.attempt("deleted records", || {
        // What is read back proves that all before it was read.
        stage.rig.add("d", &[]);
        let (cluster, end) = (stage.cluster(ADMIN), stage.end(&topic, 0));
        stage.block_on(cluster.delete_records(&topic, 0, end)).unwrap();
        stage.rig.add("e", &[]);
        assert_eq!(agents(&stage), "c\nd\ne\nhonest\n");
    });
    assert_eq!(stage.metric("rk_controller_epoch"), epoch, "nobody took over");
    stage.kill_controller();
    let line = refused_start(&stage, "controller");
    println!("a start on it: {line}");
    assert!(line.contains("--accept-rollback"), "{line}");
}

#[test]
fn a_journal_that_is_made_anew_from_an_older_one_is_mended_by_the_controller_that_runs() {
    let stage = Stage::start("recreated");
    let topic = stage.prefix.journal();
    let older = values(stage.read(&topic, 0));
    stage.rig.add("late", &[]);
    recreate(&stage, &older);
    wait::until("the controller has noticed", PATIENCE, || {
        let log = fs::read_to_string(stage.rig.path("controller.log")).unwrap();
        if log.contains("deleted and created anew") { Ok(()) } else { Err(log) }
    });
    stage.wait_for_work();
    assert_eq!(agents(&stage), "honest\nlate\n");
    stage.kill_controller();
    stage.start_controller();
    stage.wait_for_work();
    assert_eq!(agents(&stage), "honest\nlate\n");
}

#[test]
fn a_journal_that_was_rolled_back_is_refused_by_a_controller_that_starts_and_by_agents() {
    let stage = Stage::start("rollback");
    let topic = stage.prefix.journal();
    let older = values(stage.read(&topic, 0));
    for _ in 0..2 {
        stage.kill_controller();
        stage.start_controller();
        stage.wait_for_work();
    }
    stage.rig.add("late", &[]);
    stage.rig.run(&["run", "-q", "--agent", HONEST, "--", "true"]).ok();
    stage.kill_controller();
    recreate(&stage, &older);
    let line = refused_start(&stage, "controller");
    println!("a start on it: {line}");
    assert!(line.contains("--accept-rollback"), "{line}");

    // One that has the key, and has never seen the journal.
    copy(&stage.rig.path("controller"), &stage.rig.path("standby"));
    let _standby = stage.rig.process(stage.rig.controller_command("standby", stage.rig.port), "standby.log");
    stage.rig.wait_for_controller();
    assert_eq!(agents(&stage), "honest\n", "it can't know better");
    stage.restart_honest();
    let file = stage.rig.path("ran");
    let script = format!("touch {}", file.display());
    let _job = Running::start(stage.rig.rk(&["run", "-q", "--agent", HONEST, "--", "sh", "-c", &script]));
    wait::until("the agent refuses", PATIENCE, || {
        let log = fs::read_to_string(stage.rig.path("honest.log")).unwrap();
        if log.contains("it was rolled back, and no jobs are taken") { Ok(()) } else { Err(log) }
    });
    stage.rig.run(&["exec", HONEST, "--", "true"]).ok();
    assert!(!file.exists(), "no job of a controller that forgot something");
}

/// What an operator gives to a standby.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in ["identity.pem", "api.token"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}
