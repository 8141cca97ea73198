//! `rk completion` and `rk man`: what shells and `man` want to know of this command line, made from it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_complete::Shell;

use super::{Failure, output};

/// Print what makes a shell complete our command line
#[derive(Debug, Args)]
#[command(after_help = "\
bash: rk completion bash > /etc/bash_completion.d/rk
zsh:  rk completion zsh > \"${fpath[1]}/_rk\"
fish: rk completion fish > ~/.config/fish/completions/rk.fish")]
pub struct CompletionArgs {
    /// For which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Print the manual page of a command, or write all of them
#[derive(Debug, Args)]
#[command(after_help = "\
rk man agents add | man -l -
rk man --out /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The command, like agents add; rk itself if none is named
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Vec<String>,
    /// Write the pages of all commands into this directory
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the script.
pub fn complete(args: &CompletionArgs, mut command: Command) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "rk", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// Prints or writes pages.
pub fn man(args: &ManArgs, mut command: Command) -> Result<u8, Failure> {
    command.build();
    if let Some(dir) = &args.out {
        let written = fs::create_dir_all(dir).and_then(|()| write(&command, dir));
        let count = written.map_err(|error| Failure::new(1, format!("{}: {error}", dir.display())))?;
        output::say(&format!("rk: {count} manual pages are in {}", dir.display()));
        return Ok(0);
    }
    let mut found = &command;
    for word in &args.command {
        let below = found.get_subcommands().find(|below| below.get_name() == word && !below.is_hide_set());
        found = below.ok_or_else(|| {
            Failure::usage(format!("there is no command {}; `rk --help` lists them", args.command.join(" ")))
        })?;
    }
    let mut page = Vec::new();
    render(found, &mut page)?;
    output::print(&String::from_utf8_lossy(&page))?;
    Ok(0)
}

/// Writes a command's page and those of all below it; how many these are.
fn write(command: &Command, dir: &Path) -> io::Result<usize> {
    let mut page = Vec::new();
    render(command, &mut page)?;
    fs::write(dir.join(format!("{}.1", name(command))), page)?;
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    below.map(|below| write(below, dir)).sum::<io::Result<usize>>().map(|count| count + 1)
}

fn render(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let page_name = name(command);
    clap_mangen::Man::new(command.clone()).title(page_name).manual("remoting-kafka").render(page)
}

/// What a command's page is called: `rk-agents-add`.
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or(command.get_name()).to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn each_command_has_a_page_and_what_is_hidden_has_none() {
        let dir = tempfile::tempdir().expect("dir");
        let args = ManArgs { command: Vec::new(), out: Some(dir.path().join("man1")) };
        man(&args, Cli::command()).expect("written");
        let page = |name: &str| fs::read_to_string(dir.path().join("man1").join(name));
        for (name, word) in [("rk.1", "exec"), ("rk-exec.1", "timeout"), ("rk-agents-add.1", "label")] {
            let text = page(name).expect(name);
            assert!(text.contains(".TH rk") && text.contains(word), "{name}: {text}");
        }
        assert!(page("rk-agent-run.1").is_ok() || cfg!(not(feature = "agent")));
        assert!(page("rk-agent-warden.1").is_err());
    }

    #[test]
    fn a_page_of_no_command_is_a_usage_error() {
        for words in [&["exce"][..], &["agent", "warden"], &["exec", "more"]] {
            let command = words.iter().map(|word| (*word).to_owned()).collect();
            let error = man(&ManArgs { command, out: None }, Cli::command()).expect_err("there is none");
            assert_eq!(error.code, crate::cli::failure::USAGE, "{words:?}");
        }
    }

    #[test]
    fn completions_know_every_command_that_is_shown() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let (mut command, mut script) = (Cli::command(), Vec::new());
            clap_complete::generate(shell, &mut command, "rk", &mut script);
            let script = String::from_utf8(script).expect("text");
            for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
                assert!(script.contains(below.get_name()), "{shell}: {}", below.get_name());
            }
        }
    }
}
