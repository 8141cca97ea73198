//! A job's output as other consumers of the topic see it.

use std::process::Stdio;

use crate::{
    rig::Rig,
    support::{kafka, user},
};

#[test]
#[ignore = "needs Java and Apache Kafka: make test-kafka"]
fn kafkas_console_consumer_reads_an_open_log_and_not_a_sealed_one() {
    let rig = Rig::start("openlog");
    let _agent = rig.agent("a", &[]);
    rig.run(&["run", "--log-format", "open", "--", "sh", "-c", "echo in the open; echo too >&2"]).ok();
    rig.run(&["run", "--", "echo", "under seal"]).ok();
    let output = kafka::tool(kafka::CONSOLE_CONSUMER)
        .args(["--bootstrap-server", &rig.cluster.bootstrap(), "--topic", &format!("{}.logs", rig.prefix)])
        .arg("--consumer.config")
        .arg(rig.cluster.properties(user::ADMIN))
        .args(["--from-beginning", "--timeout-ms", "15000", "--group", &rig.prefix])
        .args(["--property", "print.headers=true", "--property", "print.key=true"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let shown: Vec<&str> = text.lines().filter(|line| line.contains("in the open")).collect();
    assert_eq!(shown.len(), 1, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown[0].contains("stream:stdout") && shown[0].contains("offset:0"), "{}", shown[0]);
    assert!(text.lines().any(|line| line == "too" || line.ends_with("\ttoo")), "{text}");
    assert!(!text.contains("under seal"), "{text}");
}
