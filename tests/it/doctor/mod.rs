//! `rk doctor` names the hop that is broken. What it prints is shown with `--nocapture`.

mod controller;
mod rights;
mod topics;
mod way;

use std::{fs, path::Path, process::Command, time::Duration};

use remoting_kafka::kafka::{Config, KafkaCluster, Prefix, topics as fixed};
use serde_json::Value;
use tempfile::TempDir;

use crate::{rig::run, support::process};

/// What the doctor found.
struct Examined {
    code: i32,
    hops: Vec<Value>,
}

/// Lets the doctor look; prints what it says of the first hop that failed, or of those that want a look.
fn examine(what: &str, mut command: Command) -> Examined {
    command.args(["-o", "json"]);
    let start = std::time::Instant::now();
    let ran = run(command, b"");
    assert!(start.elapsed() < Duration::from_secs(60), "{what}: {:?}", start.elapsed());
    let hops: Vec<Value> =
        serde_json::from_slice(&ran.stdout).unwrap_or_else(|e| panic!("{what}: {e}: {}{}", ran.text(), ran.stderr));
    let examined = Examined { code: ran.code, hops };
    let shown = examined.first("fail").or_else(|| examined.first("warn"));
    println!("## {what}: exit {}", examined.code);
    for key in ["hop", "target", "verdict", "detail", "fault", "next"] {
        println!("{key:>8}: {}", shown.map_or("-", |hop| hop[key].as_str().unwrap_or_default()));
    }
    examined
}

impl Examined {
    fn first(&self, verdict: &str) -> Option<&Value> {
        self.hops.iter().find(|hop| hop["verdict"] == verdict)
    }

    /// Whether all is well, or only wants a look.
    fn works(self) -> Self {
        assert_eq!((self.code, self.first("fail")), (0, None), "{:#?}", self.hops);
        self
    }

    /// The first failure must be of this hop, its target and words hold the parts, and it says whose fault it is.
    fn fails(&self, code: i32, hop: &str, parts: &[&str]) -> &Self {
        let found = self.first("fail").unwrap_or_else(|| panic!("nothing failed: {:#?}", self.hops));
        self.holds(found, hop, parts);
        assert_eq!(self.code, code, "{found:#?}");
        self
    }

    /// The first warning, in the same way.
    fn warns(&self, hop: &str, parts: &[&str]) {
        let found = self.hops.iter().find(|found| found["verdict"] == "warn" && found["hop"] == hop);
        let found = found.unwrap_or_else(|| panic!("no warning: {:#?}", self.hops));
        println!("    warn: {} {}: {}", found["hop"], found["target"], found["detail"]);
        self.holds(found, hop, parts);
    }

    fn holds(&self, found: &Value, hop: &str, parts: &[&str]) {
        assert_eq!(found["hop"], hop, "{found:#?}");
        let text = ["target", "detail", "fault", "next"].map(|key| found[key].as_str().unwrap_or_default()).join(" | ");
        for part in parts {
            assert!(text.contains(part), "{part:?} is not in {text}");
        }
        for key in ["fault", "next"] {
            assert!(found[key].as_str().is_some_and(|words| !words.is_empty()), "no {key}: {found:#?}");
        }
    }
}

/// A folder for a test without an installation, and the doctor in it.
struct Room(TempDir);

impl Room {
    fn new() -> Room {
        Room(tempfile::Builder::new().prefix("rk-it-doctor-").tempdir().unwrap())
    }

    /// `rk doctor` with these brokers; its controller is one that never ran.
    fn doctor(&self, brokers: &str, args: &[&str]) -> Command {
        let mut command = process::rk(&["doctor", "--brokers", brokers, "--data"]);
        command.env("RK_PARTITIONS", "2").arg(self.0.path()).args(args);
        command
    }

    fn private(&self, name: &str, text: &str) -> String {
        let path = crate::support::user::private(&self.0.path().join(name), text);
        format!("file:{}", path.display())
    }
}

/// Makes the fixed topics.
fn make_topics(config: Config, prefix: &str) -> Prefix {
    let prefix: Prefix = prefix.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        fixed::ensure(&KafkaCluster::new(config).unwrap(), &prefix, 2).await.unwrap();
    });
    prefix
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap().trim().to_owned()
}
