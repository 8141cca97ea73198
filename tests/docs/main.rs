//! Holds README and docs to what the program does: `make docs-test`. Each command on a page runs, each block of settings
//! is read, each link leads somewhere, and reference pages are what the code says.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod page;
mod reference;
mod run;
mod shell;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
};

use page::Page;

/// How many pages run at once.
const AT_ONCE: usize = 2;

/// Every page below `docs` but the decisions, which are records of what was, and the README.
fn pages() -> Vec<String> {
    let mut pages = markdown(Path::new("docs"));
    // The command line's page is compared with what `--help` prints, examples and all.
    pages.retain(|page| !page.starts_with("docs/decisions") && page != "docs/reference/cli.md");
    pages.insert(0, "README.md".to_owned());
    pages
}

/// The Markdown below a folder of the project, by name.
fn markdown(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            found.extend(markdown(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path.display().to_string());
        }
    }
    found.sort();
    found
}

#[test]
#[ignore = "makes namespaces and layers over directories, so it needs root: make docs-test"]
fn every_command_of_every_page_runs() {
    let only = std::env::var("RK_DOCS_PAGE").ok();
    let waiting: Vec<String> =
        pages().into_iter().filter(|page| only.as_ref().is_none_or(|only| page == only)).collect();
    assert!(!waiting.is_empty(), "there is no such page");
    let count = waiting.len();
    let (waiting, done) = (Mutex::new(waiting), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(path) = waiting.lock().unwrap().pop() else { break };
                    let outcome = run::run(&Page::read(&path));
                    println!("{path}: {} commands, {} wrong", outcome.ran, outcome.wrong.len());
                    done.lock().unwrap().insert(path, outcome);
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (place, commands, reason) in done.values().flat_map(|outcome| &outcome.not_run) {
        reasons.entry(reason).or_default().push(format!("{place} ({commands})"));
    }
    for (reason, places) in &reasons {
        let why = page::REASONS.iter().find(|(known, _)| known == reason).unwrap().1;
        println!("not run, {reason}: {why}: {}", places.join(", "));
    }
    let ran: usize = done.values().map(|outcome| outcome.ran).sum();
    let read: usize = done.values().map(|outcome| outcome.read).sum();
    let not: usize = done.values().flat_map(|outcome| &outcome.not_run).map(|(_, commands, _)| commands).sum();
    let wrong: Vec<&str> = done.values().flat_map(|outcome| &outcome.wrong).map(String::as_str).collect();
    println!("{count} pages: {ran} commands ran, {not} not, {read} blocks of settings read, {} wrong", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = markdown(Path::new("docs"));
    all.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(str::to_owned));
    all.extend(["compose/README.md", "certs/README.md"].map(str::to_owned));
    let mut wrong = Vec::new();
    for path in &all {
        let page = Page::read(path);
        for (line, link) in &page.links {
            if ["https://", "http://", "mailto:"].iter().any(|start| link.starts_with(start)) {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => PathBuf::from(path),
                file => Path::new(path).parent().unwrap().join(file),
            };
            if !root.join(&target).exists() {
                wrong.push(format!("{path}:{line}: there is no {link}"));
            } else if !anchor.is_empty()
                && !Page::read(&target.display().to_string()).anchors.iter().any(|a| a == anchor)
            {
                wrong.push(format!("{path}:{line}: {file} has no heading #{anchor}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
