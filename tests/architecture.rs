//! Holds the tree together: who may import whom, which modules are pure, who reads the environment, how
//! long a file may be. A new arrow fails here first, so that it is drawn on purpose: change the table below and
//! `docs/architecture.md` in the same commit, or find the place where the code belongs.
//!
//! The sources are read as text. Comments and literals are blanked, then every path that starts at
//! the crate's root is collected, nested `use` groups included.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "architecture/source.rs"]
mod source;

use source::{Source, sources};
use std::collections::BTreeSet;

/// A layer (a folder of `src`) and the layers that it may import. Leaves are free to everybody.
const LAYERS: &[(&str, &[&str])] = &[
    ("kafka", &[]),
    ("protocol", &[]),
    // Speaks Kafka's protocol from the other side: it needs the codec crate, and nothing of `kafka`.
    ("broker", &[]),
    ("link", &["kafka"]),
    ("journal", &["kafka"]),
    ("bytelog", &["kafka"]),
    ("service", &["protocol"]),
    // `service` for the channel that a client holds.
    ("api", &["service"]),
    // `kafka` because the cluster is handed in as its trait; the controller also makes the topics.
    ("agent", &["kafka", "protocol", "link", "bytelog", "service"]),
    ("controller", &["kafka", "protocol", "link", "bytelog", "journal", "api", "service"]),
    // Converts the file, the environment and the flags into each layer's own `Config`.
    ("config", &["kafka", "link", "bytelog", "journal", "agent", "controller", "broker", "api"]),
    // `kafka` and `journal` for what their errors mean to an exit code, and for `rk topics`; `link` for the credential and the
    // identity, which the command line prints and reads.
    ("cli", &["config", "api", "controller", "agent", "broker", "kafka", "link", "journal", "service"]),
];

/// Leaves that outgrew one file. All other leaves are files at the top of `src`.
const LEAF_FOLDERS: &[&str] = &["bundle", "certs", "job"];

/// Modules that decide and do nothing else, by the start of their path: `now` and seeds are arguments,
/// and nothing depends on the order of a hash.
const PURE: &[&str] = &[
    "src/agent/shim/life",
    "src/agent/wasm/order",
    "src/broker/acl",
    "src/controller/feed/event",
    "src/controller/feed/presence",
    "src/controller/feed/queue",
    "src/controller/rates",
    "src/controller/registry",
    "src/controller/scheduler",
    "src/kafka/acl",
    "src/kafka/topics/commands",
    "src/kafka/topics/desired",
    "src/kafka/topics/difference",
    "src/kafka/topics/layout",
    "src/kafka/topics/plan",
    "src/kafka/topics/rights",
    "src/kafka/topics/strimzi",
    "src/journal/feed",
    "src/journal/rule",
    "src/journal/snapshot",
    "src/job",
    "src/link/packet",
    "src/backoff",
    "src/certs/facts",
    "src/cli/doctor/judge",
    "src/cli/doctor/report",
    "src/cli/exec/escape",
    "src/cli/exec/modes",
    "src/cli/migrate/cluster",
    "src/cli/migrate/command_line",
    "src/cli/migrate/new",
    "src/cli/migrate/old",
    "src/cli/setup/settings",
];

/// What a pure module must not name, and what to do instead.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "a pure module waits for nothing: return what is due, and let the driver wait"),
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime", "take the time as an argument"),
    ("HashMap", "use BTreeMap: its order is the same in every run"),
    ("HashSet", "use BTreeSet: its order is the same in every run"),
    ("std::fs", "a pure module does no I/O"),
    ("std::net", "a pure module does no I/O"),
];

/// Who may read the environment.
/// The simulations take the number of schedules from it.
const READS_ENVIRONMENT: &[&str] = &["src/config", "src/main.rs", "src/link/tests"];

/// A file longer than this has a seam somewhere.
const LONGEST_FILE: usize = 500;

/// Longer files, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// `main` parses, runs and exits.
const LONGEST_MAIN: usize = 60;

#[test]
fn every_import_follows_the_table() {
    let layers: BTreeSet<&str> = LAYERS.iter().map(|(layer, _)| *layer).collect();
    let sources = sources("src");
    let leaves: BTreeSet<String> =
        sources.iter().filter_map(Source::top).filter(|top| !layers.contains(top.as_str())).collect();
    let mut wrong = Vec::new();
    for source in &sources {
        let Some(home) = source.top() else { continue };
        let allowed = LAYERS.iter().find(|(layer, _)| *layer == home).map_or(&[][..], |(_, to)| to);
        for arrow in source.arrows() {
            let to = arrow.to.as_str();
            let place = format!("{}:{}", source.path, arrow.line);
            if to == home || leaves.contains(to) || allowed.contains(&to) {
                continue;
            }
            wrong.push(if layers.contains(to) {
                format!("{place}: `{home}` may not import `{to}`")
            } else {
                format!("{place}: `crate::{to}` is no module of ours; import it from where it lives")
            });
        }
    }
    assert!(wrong.is_empty(), "arrows that the table does not have:\n{}", wrong.join("\n"));
}

#[test]
fn every_folder_of_src_is_a_layer_of_the_table() {
    let unknown: BTreeSet<String> = sources("src")
        .iter()
        .filter(|source| source.in_folder())
        .filter_map(Source::top)
        .filter(|top| !LAYERS.iter().any(|(layer, _)| layer == top))
        .filter(|top| !LEAF_FOLDERS.contains(&top.as_str()))
        .collect();
    assert!(unknown.is_empty(), "give these folders a line in the table: {unknown:?}");
}

#[test]
fn the_table_has_no_cycle() {
    // Arrows go down: a layer imports only layers that stand above it in the table.
    let mut seen = BTreeSet::new();
    for (layer, to) in LAYERS {
        for to in *to {
            assert!(seen.contains(to), "`{layer}` imports `{to}`, which does not stand above it");
        }
        assert!(seen.insert(layer), "`{layer}` stands twice in the table");
    }
}

#[test]
fn main_starts_the_command_line_and_knows_nothing_else() {
    let main = sources("src").into_iter().find(|source| source.path == "src/main.rs").unwrap();
    let lines = main.code.lines().count();
    assert!(lines <= LONGEST_MAIN, "src/main.rs has {lines} lines, {LONGEST_MAIN} are enough");
    for to in main.roots("remoting_kafka") {
        assert_eq!(to.to, "cli", "src/main.rs:{} may import only `cli`", to.line);
    }
}

#[test]
fn pure_modules_name_no_clock_no_io_and_no_hash_order() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        if !PURE.iter().any(|pure| source.is_below(pure)) {
            continue;
        }
        for (line, text) in source.lines() {
            for (word, instead) in IMPURE.iter().filter(|(word, _)| source::names(text, word)) {
                wrong.push(format!("{}:{line}: `{word}`: {instead}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_config_and_main_read_the_environment() {
    let mut wrong = Vec::new();
    for source in sources("src") {
        if READS_ENVIRONMENT.iter().any(|reader| source.is_below(reader)) {
            continue;
        }
        for (line, text) in source.lines() {
            if ["env::var", "env::var_os", "env::vars", "env::vars_os"].iter().any(|word| source::names(text, word)) {
                wrong.push(format!("{}:{line}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "add a key to `config` and take it as a value:\n{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_the_limit_without_a_reason() {
    let mut wrong = Vec::new();
    let mut long = BTreeSet::new();
    for root in ["src", "tests", "benches", "examples", "fuzz"] {
        for source in sources(root) {
            let lines = source.code.lines().count();
            if lines <= LONGEST_FILE {
                continue;
            }
            if !LONG_FILES.iter().any(|(path, _)| *path == source.path) {
                wrong.push(format!("{}: {lines} lines", source.path));
            }
            long.insert(source.path);
        }
    }
    for (path, reason) in LONG_FILES {
        assert!(!reason.is_empty(), "{path} needs a reason");
        assert!(long.contains(*path), "{path} is short again: take it off the list");
    }
    assert!(wrong.is_empty(), "look for a seam, or give a reason in LONG_FILES:\n{}", wrong.join("\n"));
}
