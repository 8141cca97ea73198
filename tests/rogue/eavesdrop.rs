//! Reading what an agent is told. Who may read the packets may read those of all agents, since Kafka can't keep agents apart on a
//! common topic; what is in them it can't.

use remoting_kafka::kafka::{Error, Record};

use crate::{
    rig::run,
    stage::{self, Stage},
    support::user::{ADMIN, AGENT},
};

fn holds(record: &Record, marker: &str) -> bool {
    let marker = marker.as_bytes();
    let is_in = |bytes: &[u8]| bytes.windows(marker.len()).any(|window| window == marker);
    is_in(&record.key) || is_in(&record.value) || record.headers.iter().any(|(_, value)| is_in(value))
}

#[test]
fn whoever_reads_all_topics_finds_no_word_of_a_command_its_environment_or_its_bytes() {
    let stage = Stage::start("eavesdrop");
    let [secret, open] = [(); 2].map(|()| uuid::Uuid::new_v4().simple().to_string());
    stage.attempt("eavesdrop", || {
        let variable = format!("WORD={secret}");
        let script = "cat; echo $WORD $0; echo $WORD >&2";
        let exec = ["exec", "-e", &variable, "honest", "--", "sh", "-c", script, &secret];
        let ran = run(stage.rig.rk(&exec), secret.as_bytes()).ok();
        assert_eq!((ran.text().matches(&secret).count(), ran.stderr.matches(&secret).count()), (3, 1));
        let resumable = ["exec", "--resume", "1m", "honest", "--", "echo", &secret];
        assert_eq!(stage.rig.run(&resumable).ok().text(), format!("{secret}\n"));
        let job = ["run", "-q", "-e", &variable, "--agent", "honest", "--", "sh", "-c", "echo $WORD $0", &secret];
        assert_eq!(stage.rig.run(&job).ok().text().matches(&secret).count(), 2);
        // That it would be found if it were there.
        stage.rig.run(&["run", "-q", "--log-format", "open", "--", "echo", &open]).ok();
    });

    // With an agent's login: what comes down, and nothing else.
    let cluster = stage.cluster(AGENT);
    let mut read = Vec::new();
    for topic in stage.topics() {
        let records = stage.block_on(stage::read(&cluster, &topic, 0));
        match records {
            Ok(records) => {
                assert!(topic.contains(".down."), "{topic}");
                assert!(records.iter().all(|(_, record)| !holds(record, &secret)), "{topic}");
                read.push(topic);
            }
            Err(error) => {
                assert!(matches!(error, Error::Authorization { .. } | Error::TopicMissing { .. }), "{topic}: {error}");
            }
        }
    }
    assert_eq!(read, [stage.prefix.down_control(), stage.prefix.down_bulk()]);

    // With all rights.
    for topic in stage.topics() {
        let records = stage.read_all(&topic);
        let bytes: usize = records.iter().map(|(_, record)| record.value.len()).sum();
        println!("{topic}: {} records, {bytes} bytes, read as {}", records.len(), ADMIN.name);
        assert!(!records.is_empty(), "{topic}");
        assert!(records.iter().all(|(_, record)| !holds(record, &secret)), "{topic}");
        let found = records.iter().any(|(_, record)| holds(record, &open));
        assert_eq!(found, topic == stage.prefix.logs(), "{topic}");
    }
}
