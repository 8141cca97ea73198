//! `rk reference`: the pages of `docs/reference` that are made from the code, so that they cannot say something else.

use std::fmt::Write;

use clap::{Args, Command, ValueEnum};

use super::{Failure, output};
use crate::config::keys::{KEYS, Key, Kind, Role};

/// What pages begin with.
const MADE: &str = "<!-- Made by `make docs-reference`; a test compares it with the code. -->";

/// Print a page of docs/reference
#[derive(Debug, Args)]
pub struct ReferenceArgs {
    /// Which
    #[arg(value_name = "PAGE")]
    page: Page,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Page {
    Cli,
    Configuration,
}

/// Prints the page.
pub fn run(args: &ReferenceArgs, command: Command) -> Result<u8, Failure> {
    output::print(&match args.page {
        Page::Cli => cli(command),
        Page::Configuration => configuration(),
    })?;
    Ok(0)
}

/// The help of every command that is shown.
fn cli(command: Command) -> String {
    let mut command = command.term_width(80);
    command.build();
    let mut page = format!(
        "{MADE}\n\n# The command line\n\n\
         What `--help` prints, of each command. Settings that several commands share are in [configuration](configuration.md), \
         exit codes in [exit codes](exit-codes.md).\n"
    );
    describe(&mut command, &mut page);
    page
}

fn describe(command: &mut Command, page: &mut String) {
    let name = command.get_bin_name().unwrap_or("rk").to_owned();
    let help = command.clone().term_width(80).render_help().to_string();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    // A string takes all that is written.
    let _ = write!(page, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n"));
    for below in command.get_subcommands_mut().filter(|below| !below.is_hide_set()) {
        describe(below, page);
    }
}

/// Every setting.
fn configuration() -> String {
    let mut page = format!(
        "{MADE}\n\n# Configuration\n\n\
         Each setting is a key of the YAML file, a variable and a flag: `request-timeout: 10s`, `RK_REQUEST_TIMEOUT=10s`, \
         `--request-timeout 10s`. A flag wins over the variable, that over the file, and that over the default.\n\n\
         The file is what `--config` names, else `~/.config/rk/config.yaml`, else `/etc/rk/config.yaml`. Keys stand at its top, for \
         every command that takes them, or below the name of a section, for that one alone. A key that nobody knows is an error.\n\n\
         Several values are a list in the file (pairs may be a map), have commas between them in a variable, and may be given by \
         repeating the flag. A switch is `true` or `false`; the flag alone means `true`. A SOURCE is `file:PATH`, `fd:N` or \
         `env:NAME`, a DURATION like `500ms`, `10s`, `5m`, `2h` or `30days`, a SIZE like `500M` or `10G`.\n"
    );
    let mut headings: Vec<&str> = Vec::new();
    for key in shown() {
        if !headings.contains(&key.heading) {
            headings.push(key.heading);
        }
    }
    for heading in headings {
        let _ =
            write!(page, "\n## {heading}\n\n| key | value | default | meaning | sections |\n|---|---|---|---|---|\n");
        for key in shown().filter(|key| key.heading == heading) {
            let (meaning, default) = key.meaning_and_default();
            let _ = writeln!(
                page,
                "| `{}`{} | {} | {} | {} | {} |",
                key.name,
                key.alias.map(|alias| format!(", `{alias}`")).unwrap_or_default(),
                cell(&value(key)),
                cell(default.unwrap_or(match key.kind {
                    Kind::Switch => "false",
                    _ => "–",
                })),
                cell(meaning),
                sections(key),
            );
        }
    }
    page
}

fn shown() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().copied().filter(|key| !key.hidden)
}

fn value(key: &Key) -> String {
    match key.kind {
        Kind::Switch => "switch".to_owned(),
        Kind::Many => format!("several {}", key.value.trim_end_matches(",…")),
        Kind::One => key.value.to_owned(),
    }
}

/// Where a key may stand; a doctor takes the sections of those that it looks at.
fn sections(key: &Key) -> String {
    if key.name == "config" {
        return "not in the file".to_owned();
    }
    let all = [Role::Controller, Role::Agent, Role::Broker, Role::Client, Role::Topics, Role::Jenkins];
    let names = all.into_iter().filter(|role| key.roles.contains(role)).map(|role| format!("`{}`", role.section()));
    names.collect::<Vec<_>>().join(", ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn each_setting_and_each_command_that_is_shown_has_its_place() {
        let page = configuration();
        for key in KEYS {
            assert_eq!(page.contains(&format!("| `{}`", key.name)), !key.hidden, "{}", key.name);
        }
        let page = cli(Cli::command());
        assert!(page.contains("\n## rk agents add\n") && !page.contains("rk reference"), "{page}");
    }
}
