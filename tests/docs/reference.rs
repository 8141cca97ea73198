//! Reference pages against the code: those that are made from it, and those that list what it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use crate::{markdown, page::Page};

/// Who fills a page of metrics.
const MEASURING: &[&str] = &["src/health.rs", "src/controller/metrics.rs", "src/agent/health.rs"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// All Rust below these folders, in one text.
fn sources(folders: &[&str]) -> String {
    fn collect(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut text = String::new();
    folders.iter().for_each(|folder| collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut text));
    text
}

/// The cells of a table's line.
fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn pages_that_are_made_from_the_code_are_what_it_says() {
    for name in ["cli", "configuration"] {
        let made = Command::new(env!("CARGO_BIN_EXE_rk")).args(["reference", name]).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        let same = String::from_utf8(made.stdout).unwrap() == read(&format!("docs/reference/{name}.md"));
        assert!(same, "docs/reference/{name}.md is not what the code says; `make docs-reference` writes it anew");
    }
}

#[test]
fn every_metric_is_on_its_page_with_its_kind_and_no_other() {
    let mut code = BTreeMap::new();
    for file in MEASURING {
        let text = read(file);
        let text = text.split("#[cfg(test)]").next().unwrap();
        for (kind, call) in [("gauge", "page.gauge"), ("counter", "page.counter")] {
            for after in text.split(call).skip(1) {
                code.insert(after.split('"').nth(1).unwrap().to_owned(), kind.to_owned());
            }
        }
    }
    let measuring = |text: &str| text.matches("&mut Page").count();
    let known: usize = MEASURING.iter().map(|file| measuring(&read(file))).sum();
    assert_eq!(known, measuring(&sources(&["src"])), "a metric comes from a file that MEASURING does not name");
    let page = read("docs/reference/metrics.md");
    let listed: BTreeMap<String, String> = page
        .lines()
        .filter(|line| line.starts_with("| `rk_"))
        .map(|line| (cells(line)[0].trim_matches('`').to_owned(), cells(line)[1].to_owned()))
        .collect();
    assert_eq!(listed, code);
}

#[test]
fn every_exit_code_of_ours_is_on_its_page() {
    let page = read("docs/reference/exit-codes.md");
    let listed: BTreeSet<&str> =
        page.lines().filter(|line| line.starts_with("| ")).flat_map(|line| cells(line)[0].split(", ")).collect();
    let code = read("src/cli/failure.rs");
    let codes: Vec<&str> = code
        .lines()
        .filter(|line| line.starts_with("pub const "))
        .filter_map(|line| line.split(" = ").nth(1))
        .collect();
    assert!(codes.len() > 6, "{codes:?}");
    for code in codes {
        assert!(listed.contains(code.trim_end_matches(';')), "{code}");
    }
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let code = sources(&["src", "tests"]);
    let mut wrong = Vec::new();
    let mut known = 0;
    for path in markdown(Path::new("docs")) {
        for name in read(&path).split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
            let last = name.rsplit("::").next().unwrap_or_default();
            let is_test = last.matches('_').count() >= 3 && last.chars().all(|c| c.is_alphanumeric() || c == '_');
            if !is_test {
                continue;
            }
            known += 1;
            if !code.contains(&format!("fn {last}(")) {
                wrong.push(format!("{path}: {name}"));
            }
        }
    }
    assert!(known > 20 && wrong.is_empty(), "{known} tests are named; these are not there:\n{}", wrong.join("\n"));
}

/// `| row | value | …`, on a page, beside `kafka row value …` in what `make bench` printed.
#[test]
fn figures_on_pages_are_those_of_recorded_runs() {
    let mut recorded: BTreeMap<String, (String, String)> = BTreeMap::new();
    for line in read("docs/results/services-kafka.txt").lines().filter(|line| line.starts_with("kafka ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        recorded.insert(words[1].to_owned(), (words[2].to_owned(), words[5].to_owned()));
    }
    let page = read("docs/benchmarks.md");
    let section = page.split("## Services, files and bundles").nth(1).unwrap();
    let mut compared = 0;
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells = cells(line);
        let (value, ratio) = recorded.get(cells[0].trim_matches('`')).unwrap_or_else(|| panic!("{line}: no such row"));
        let same = |shown: &str, recorded: &str| match (shown.parse::<f64>(), recorded.parse::<f64>()) {
            (Ok(_), Ok(number)) => {
                let digits = shown.split_once('.').map_or(0, |(_, digits)| digits.len());
                format!("{number:.digits$}") == shown
            }
            _ => shown == "–" && recorded == "-",
        };
        let shown = cells[1].split(' ').next().unwrap();
        assert!(same(shown, value) && same(cells[2], ratio), "{line}: recorded are {value} and {ratio}");
        compared += 1;
    }
    assert_eq!(compared, recorded.len(), "a figure was recorded and is not on the page");
}

#[test]
fn pages_of_every_kind_are_in_the_index() {
    let index = Page::read("docs/README.md");
    let linked: BTreeSet<String> = index.links.iter().map(|(_, link)| format!("docs/{link}")).collect();
    let missing: Vec<String> = markdown(Path::new("docs"))
        .into_iter()
        .filter(|path| path != "docs/README.md" && !path.starts_with("docs/decisions/") && !linked.contains(path))
        .collect();
    assert!(missing.is_empty(), "docs/README.md does not lead to {missing:?}");
}
