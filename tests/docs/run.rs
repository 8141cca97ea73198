//! Runs a page: its commands in order, in one shell, on a stage of its own; what is configuration is read by the code
//! that reads it from users.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use remoting_kafka::config::File;

use crate::{
    page::{Block, Item, Page},
    shell::{self, Step},
    support::process::{self, Process},
};

/// How long a page may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// Commands that stay until they are told to go.
const STAYING: &[&str] =
    &["rk controller run", "rk agent run", "rk broker", "rk forward", "rk fs tail", "rk jenkins-agent"];

/// How the words begin that may not hide in a block of mere text.
const COMMANDS: &[&str] = &["$ ", "rk ", "cargo ", "make ", "docker ", "sudo "];

/// What became of a page.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Commands that ran.
    pub ran: usize,
    /// Blocks of configuration that were read.
    pub read: usize,
    /// Commands that did not run, where they stand, and why.
    pub not_run: Vec<(String, usize, &'static str)>,
    /// What is wrong.
    pub wrong: Vec<String>,
}

#[derive(Debug, Default)]
struct Said {
    text: String,
    code: Option<u8>,
}

/// Looks at all blocks of a page and runs its commands.
pub fn run(page: &Page) -> Outcome {
    let mut outcome = Outcome { wrong: page.wrong.clone(), ..Outcome::default() };
    let mut steps: Vec<(Step, u8, bool)> = Vec::new();
    let mut words: Vec<(&str, &str)> = Vec::new();
    for item in &page.items {
        match item {
            Item::Replace { from, to } => words.push((from, to)),
            Item::Run { line, text } => match shell::script(text, *line) {
                Ok(hidden) => steps.extend(hidden.into_iter().map(|step| (step, 0, false))),
                Err(problem) => outcome.wrong.push(format!("{}: {problem}", page.path)),
            },
            Item::Block(block) => match look(block, page, &mut outcome) {
                Ok(found) => {
                    let filled_in = |(at, mut step): (usize, Step)| {
                        step.command = words.iter().fold(step.command, |text, (from, to)| text.replace(from, to));
                        let exit = block.exit.get(at).or(block.exit.last()).copied().unwrap_or(0);
                        (step, exit, true)
                    };
                    steps.extend(found.into_iter().enumerate().map(filled_in));
                }
                Err(problem) => outcome.wrong.push(format!("{}:{}: {problem}", page.path, block.line)),
            },
        }
    }
    outcome.ran = steps.iter().filter(|(_, _, shown)| *shown).count();
    if outcome.ran > 0 && outcome.wrong.is_empty() {
        let said = play(page, &steps);
        outcome.wrong = judge(page, &steps, &said);
    }
    outcome
}

/// The commands of a block, after it was looked at as what it says that it is.
fn look(block: &Block, page: &Page, outcome: &mut Outcome) -> Result<Vec<Step>, String> {
    let text = &block.text;
    let place = format!("{}:{}", page.path, block.line);
    if let Some(path) = &block.excerpt {
        outcome.read += 1;
        return excerpt(path, text).map(|()| Vec::new());
    }
    let steps = match block.info.as_str() {
        "sh" => shell::script(text, block.line)?,
        "console" => shell::console(text, block.line)?,
        _ if block.not_run.is_some() => shell::script(text, block.line).unwrap_or_default(),
        _ => Vec::new(),
    };
    if let Some(reason) = block.not_run {
        outcome.not_run.push((place, steps.len().max(1), reason));
        return Ok(Vec::new());
    }
    match block.info.as_str() {
        "sh" | "console" => return Ok(steps),
        "yaml" if block.foreign => drop(serde_saphyr::from_str::<serde_json::Value>(text).map_err(|e| e.to_string())?),
        "yaml" => drop(File::parse(Path::new(&place), text).map_err(|e| e.to_string())?),
        "json" => drop(serde_json::from_str::<serde_json::Value>(text).map_err(|e| e.to_string())?),
        "text" | "mermaid" => {
            // A diagram may name a command.
            let mut lines = text.lines().filter(|line| !line.contains('─'));
            let hidden = lines.find(|line| COMMANDS.iter().any(|start| line.trim_start().starts_with(start)));
            return match hidden {
                Some(line) => Err(format!("a command in a block of text: {line}")),
                None => Ok(Vec::new()),
            };
        }
        info => return Err(format!("nothing tests a block of {info:?}; `test: not run, REASON` says why")),
    }
    outcome.read += 1;
    Ok(Vec::new())
}

/// Whether the lines of `text` stand in the file in this order.
fn excerpt(path: &str, text: &str) -> Result<(), String> {
    let file =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).map_err(|e| format!("{path}: {e}"))?;
    // A format stands in the documentation of the module that reads and writes it.
    let mut lines = file.lines().map(|line| line.trim().trim_start_matches("//!").trim());
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !lines.any(|there| there == line) {
            return Err(format!("{path} has no such line, or not in this order: {line}"));
        }
    }
    Ok(())
}

/// Runs the steps on a stage, and returns what each of them said and how it ended.
fn play(page: &Page, steps: &[(Step, u8, bool)]) -> (BTreeMap<usize, Said>, String, bool) {
    let folder = process::folder("docs");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = fs::read_to_string(root.join("tests/docs/stage.sh")).unwrap();
    for (number, (step, exit, _)) in steps.iter().enumerate() {
        let command = step.command.replace('\'', r"'\''");
        let stays = STAYING.iter().any(|start| step.command.starts_with(start)) && *exit == 0;
        text.push_str(&match stays {
            true => format!("serve {number} '{command}'\n"),
            false => format!("step {number} {exit} '{command}'\n"),
        });
    }
    text.push_str("stayed\n");
    let (file, log) = (folder.join("page.sh"), folder.join("said"));
    fs::write(&file, text).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash"]).arg(&file);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("PROGRAM", env!("CARGO_BIN_EXE_rk"));
    command.env("ROOT", root);
    let mut process = Process::start(process::bound(command), &log).unwrap();
    let start = Instant::now();
    while process.ended().is_none() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(50));
    }
    process.kill();
    let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    fs::remove_dir_all(&folder).ok();
    if std::env::var_os("RK_DOCS_SHOW").is_some() {
        eprintln!("==== {}\n{text}", page.path);
    }
    take_apart(&text)
}

fn take_apart(text: &str) -> (BTreeMap<usize, Said>, String, bool) {
    let (mut said, mut rest, mut whole): (BTreeMap<usize, Said>, _, _) = (BTreeMap::new(), String::new(), false);
    for (at, part) in text.split('\u{1e}').enumerate() {
        let (first, more) = part.split_once('\n').unwrap_or((part, ""));
        let words: Vec<&str> = first.split(' ').collect();
        let number = words.get(1).and_then(|word| word.parse().ok());
        match (words[0], number) {
            ("begin", Some(number)) if at > 0 => said.entry(number).or_default().text = more.to_owned(),
            ("end", Some(number)) if at > 0 => {
                said.entry(number).or_default().code = words.get(2).and_then(|word| word.parse().ok());
                rest.push_str(more);
            }
            ("whole", None) if at > 0 => whole = true,
            _ => rest.push_str(part),
        }
    }
    (said, rest, whole)
}

fn judge(page: &Page, steps: &[(Step, u8, bool)], played: &(BTreeMap<usize, Said>, String, bool)) -> Vec<String> {
    let (said, rest, whole) = played;
    let mut wrong = Vec::new();
    for (number, (step, exit, _)) in steps.iter().enumerate() {
        let place = format!("{}:{}: {}", page.path, step.line, step.command);
        match said.get(&number) {
            Some(Said { text, code: Some(code) }) if code == exit => {
                if let Some(shown) = step.output.as_ref().filter(|shown| !shell::matches(shown, text)) {
                    wrong.push(format!("{place}\nthe page shows:\n{shown}it said:\n{text}"));
                }
            }
            Some(Said { text, code }) => {
                let ended = code.map_or(format!("did not end in {PATIENCE:?}"), |code| format!("ended with {code}"));
                wrong.push(format!("{place}\n{ended}, and said:\n{text}{rest}"));
                return wrong;
            }
            None => {
                wrong.push(format!("{place}\ndid not run: {rest}"));
                return wrong;
            }
        }
    }
    if !whole {
        wrong.push(format!("{}: the page did not come to its end: {rest}", page.path));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_nothing_tests_is_wrong() {
        for (text, part) in [
            ("```\nls\n```\n", "nothing tests a block"),
            ("```ini\na=b\n```\n", "nothing tests a block"),
            ("```text\nsome output\n  rk status\n```\n", "a command in a block of text"),
            ("```yaml\nbrokerz: a:1\n```\n", "did you mean brokers?"),
            ("```json\n{\n```\n", "EOF"),
            ("```sh\ncat <<END\n```\n", "has no end"),
            ("```sh\ntrue\n", "has no end"),
            ("<!-- test: not run, boredom -->\n```sh\ntrue\n```\n", "is no reason that counts"),
            ("<!-- test: hope -->\n", "is nothing that a test does"),
            ("<!-- test: excerpt Cargo.toml -->\n```text\nname = \"other\"\n```\n", "no such line"),
        ] {
            let outcome = run(&Page::parse("x.md", text));
            assert!(outcome.wrong.iter().any(|wrong| wrong.contains(part)), "{text}: {:?}", outcome.wrong);
        }
    }

    #[test]
    fn a_command_that_ends_or_says_otherwise_or_never_ends_is_wrong() {
        let page = Page::parse("x.md", "");
        let step = |output: Option<&str>| {
            vec![(Step { line: 1, command: "rk status".to_owned(), output: output.map(str::to_owned) }, 0, true)]
        };
        let begun = "\u{1e}begin 0\nfine\n";
        for (output, text, part) in [
            (None, format!("{begun}\u{1e}end 0 0\n\u{1e}whole\n"), None),
            (Some("fine\n"), format!("{begun}\u{1e}end 0 0\n\u{1e}whole\n"), None),
            (Some("bad\n"), format!("{begun}\u{1e}end 0 0\n\u{1e}whole\n"), Some("the page shows")),
            (None, format!("{begun}\u{1e}end 0 69\n"), Some("ended with 69")),
            (None, begun.to_owned(), Some("did not end in")),
            (None, "docs stage: cannot mount\n".to_owned(), Some("did not run: docs stage: cannot mount")),
            (None, format!("{begun}\u{1e}end 0 0\na server ended\n"), Some("did not come to its end: a server ended")),
        ] {
            let wrong = judge(&page, &step(output), &take_apart(&text));
            assert_eq!(wrong.len(), usize::from(part.is_some()), "{text}: {wrong:?}");
            assert!(part.is_none_or(|part| wrong[0].contains(part)), "{text}: {wrong:?}");
        }
    }
}
