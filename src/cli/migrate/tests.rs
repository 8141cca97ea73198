use std::path::Path;

use super::{command_line, *};
use crate::config;

/// What was, and what is printed for it. `RK_BLESS` is not read here: change the golden file by hand, and look at it.
const GOLDEN: [(&str, &[&str], &[&str], &str); 4] = [
    ("secure", &[include_str!("golden/secure.yaml")], &[], include_str!("golden/secure.txt")),
    ("open", &[include_str!("golden/open.yaml")], &[], include_str!("golden/open.txt")),
    ("agent", &[], &[include_str!("golden/agent.sh")], include_str!("golden/agent.txt")),
    (
        "noauth",
        &[],
        &["java -jar agent.jar -name a -master http://j/ -readSecret -kafkaURL k:9092 -noauth"],
        include_str!("golden/noauth.txt"),
    ),
];

fn words(line: &str) -> Vec<String> {
    command_line::split(line).expect("words")
}

fn migrated(files: &[&str], lines: &[&str]) -> String {
    let mut old = Old::default();
    for file in files {
        old.take_yaml(file).expect("read");
    }
    for line in lines {
        old.take_agent(command_line::parse(&words(line)).expect("a command line"));
    }
    new::render(&old)
}

/// The lines below a heading.
fn part<'a>(text: &'a str, heading: &str) -> &'a str {
    let from = text.find(heading).unwrap_or_else(|| panic!("{heading}: {text}"));
    let rest = &text[from..];
    rest.split_once("\n\n").map_or(rest, |(_, rest)| rest.split("\n# ----").next().unwrap_or(rest))
}

#[test]
fn what_was_becomes_what_is_printed() {
    for (name, files, lines, expected) in GOLDEN {
        let text = migrated(files, lines);
        assert!(text == expected, "golden/{name}.txt is another than what is printed:\n{text}");
    }
}

#[test]
fn no_secret_is_printed() {
    for (name, files, lines, expected) in GOLDEN {
        let text = migrated(files, lines);
        assert!(!text.contains("hunter2") && !expected.contains("hunter2"), "{name}: {text}");
    }
}

#[test]
fn the_settings_that_are_printed_are_settings() {
    for (name, files, lines, _) in GOLDEN {
        let text = migrated(files, lines);
        let settings = part(&text, "/etc/rk/config.yaml, for");
        config::File::parse(Path::new(name), settings).unwrap_or_else(|e| panic!("{e}: {settings}"));
    }
}

#[test]
fn the_nodes_that_are_printed_are_yaml_with_the_command_of_each() {
    for (name, files, lines, _) in GOLDEN {
        let text = migrated(files, lines);
        let nodes = part(&text, "---- jenkins.yaml");
        let nodes: serde_json::Value = serde_saphyr::from_str(nodes).unwrap_or_else(|e| panic!("{name}: {e}: {nodes}"));
        for node in nodes["jenkins"]["nodes"].as_array().expect("nodes") {
            let command = node["permanent"]["launcher"]["command"]["command"].as_str().expect("a command");
            assert!(command.starts_with("rk jenkins-agent "), "{name}: {command}");
        }
    }
}

#[test]
fn whatever_stands_in_a_name_stays_in_its_place() {
    let odd = "a\"b\n    - evil: $(reboot) '`x`'";
    let mut old = Old::default();
    for name in [odd, "a.b", "a b", "a-b", ""] {
        old.nodes.push(old::Node { name: name.to_owned(), remote_fs: Some(odd.to_owned()), ..Default::default() });
    }
    let text = new::render(&old);
    let nodes: serde_json::Value = serde_saphyr::from_str(part(&text, "---- jenkins.yaml")).expect("YAML");
    let nodes = nodes["jenkins"]["nodes"].as_array().expect("nodes");
    assert_eq!(nodes.len(), 5);
    assert_eq!(nodes[0]["permanent"]["name"].as_str(), Some(odd));
    let added: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("rk agents add ")).collect();
    let names: std::collections::BTreeSet<&str> = added.iter().filter_map(|rest| rest.split(' ').next()).collect();
    assert_eq!(names.len(), 5, "each has a name of its own: {added:?}");
    let launch = part(&text, "on each agent's machine");
    assert_eq!(words(launch).iter().filter(|word| *word == odd).count(), 5, "one word each: {launch}");
}

#[test]
fn what_cannot_be_read_is_refused_without_repeating_it() {
    let parse = |line: &str| command_line::parse(&words(line)).expect_err(line);
    assert!(parse("java -jar x.jar").contains("-name"));
    assert!(parse("-name a -secret").contains("-secret has no value"));
    assert!(parse("-name a -secret -noauth").contains("-secret has no value"));
    assert!(!parse("-name a -secret hunter2 hunter3").contains("hunter"));
    assert!(command_line::split("a 'b").is_err());
    for text in ["a: [", "- a", "just text"] {
        assert!(Old::default().take_yaml(text).is_err(), "{text}");
    }
    let mut old = Old::default();
    old.take_yaml("jenkins: {nodes: 7, clouds: {a: b}}\nunclassified: {kafka: [1]}\n").expect("nothing of it is ours");
    assert!(old.is_empty());
}
