//! What the agent runs for its controller, whatever that asks for. Pure.
//!
//! With an allow-list only what its operator wrote down is run: no script, and none of what would give an allowed program another
//! meaning (variables, a secret in a variable's place, a directory under a program that is named relative to it). Whether an
//! allowed program can be made to run others is for the operator to know: many can.

use std::{path::PathBuf, str::FromStr};

use crate::{
    job::{Command, Spec},
    service::files,
};

/// What may run. By default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Nothing at all.
    pub no_exec: bool,
    /// If not empty, only this.
    pub allow: Vec<Pattern>,
    /// Which files are given and taken.
    pub files: Files,
}

/// Which files may be copied, listed and read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Files {
    /// Those that executions could also reach: all where everything may run, none where little or nothing may.
    #[default]
    AsCommands,
    /// What lies below these directories.
    Below(Vec<PathBuf>),
    /// None.
    Nothing,
}

/// A command line: words, in which `*` stands for any characters; a last word `*` for any further words, also none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

/// The text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pattern for allowed commands is empty; write it like 'git *' or '/usr/bin/make test'")]
pub struct InvalidPattern;

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() { Err(InvalidPattern) } else { Ok(Self(words)) }
    }
}

impl Pattern {
    fn matches(&self, argv: &[String]) -> bool {
        let (words, open) = match self.0.split_last() {
            Some((last, words)) if last == "*" && !words.is_empty() => (words, true),
            _ => (&self.0[..], false),
        };
        let enough = if open { argv.len() >= words.len() } else { argv.len() == words.len() };
        enough && words.iter().zip(argv).all(|(pattern, word)| is_like(pattern.as_bytes(), word.as_bytes()))
    }
}

/// Whether `text` is what `pattern` says, in which `*` stands for any bytes.
pub(super) fn is_like(pattern: &[u8], text: &[u8]) -> bool {
    // Where the last star was, and what it stands for so far: only that may have to grow.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl Policy {
    /// Whether this may run; if not, why.
    pub fn check(&self, argv: &[String], variables: usize, cwd: bool) -> Result<(), String> {
        if argv.first().is_some_and(|program| program == files::PROGRAM) {
            return self.check_files(variables);
        }
        if self.no_exec {
            return Err("this agent runs no commands (--no-exec)".to_owned());
        }
        if self.allow.is_empty() {
            return Ok(());
        }
        if !self.allow.iter().any(|pattern| pattern.matches(argv)) {
            let program = argv.first().map_or("", String::as_str);
            return Err(format!(
                "this agent runs only what its --allow lists, and {program} with these arguments is not"
            ));
        }
        if variables > 0 {
            return Err("this agent has an --allow list, and takes no environment variables".to_owned());
        }
        let relative = argv.first().is_some_and(|program| program.contains('/') && !program.starts_with('/'));
        if cwd && relative {
            return Err("this agent has an --allow list, and takes no directory for a relative program".to_owned());
        }
        Ok(())
    }

    fn check_files(&self, variables: usize) -> Result<(), String> {
        let restricted = self.no_exec || !self.allow.is_empty();
        match &self.files {
            Files::Nothing => Err("this agent gives and takes no files (--no-files)".to_owned()),
            Files::AsCommands if restricted => {
                Err("this agent does not run everything, and gives files only where --files says so".to_owned())
            }
            // They might change what the program loads.
            _ if restricted && variables > 0 => Err("this agent takes no environment variables".to_owned()),
            Files::AsCommands | Files::Below(_) => Ok(()),
        }
    }

    /// The directories below which files stay; none if they may lie anywhere.
    pub fn roots(&self) -> &[PathBuf] {
        match &self.files {
            Files::Below(roots) => roots,
            Files::AsCommands | Files::Nothing => &[],
        }
    }

    /// Whether the programs of bundles come before those of the machine. With an allow-list they do not: its names are meant for
    /// what the operator has there.
    pub fn bundles_first(&self) -> bool {
        self.allow.is_empty()
    }

    /// Whether a job may run; if not, why.
    pub fn check_job(&self, spec: &Spec) -> Result<(), String> {
        match &spec.command {
            Command::Script { .. } if !self.no_exec && !self.allow.is_empty() => {
                Err("this agent has an --allow list, and runs no scripts".to_owned())
            }
            Command::Script { .. } => self.check(&[], 0, false),
            Command::Argv(argv) => self.check(argv, spec.env.len() + spec.secrets.len(), spec.cwd.is_some()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Target;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn allow(patterns: &[&str]) -> Policy {
        let allow = patterns.iter().map(|pattern| pattern.parse().expect("a pattern")).collect();
        Policy { no_exec: false, allow, files: Files::default() }
    }

    #[test]
    fn a_pattern_stands_for_whole_words_and_only_its_end_for_more_of_them() {
        for (pattern, command, matches) in [
            ("git *", "git", true),
            ("git *", "git status -s", true),
            ("git *", "gitk", false),
            ("git *", "/tmp/git status", false),
            ("make test", "make test", true),
            ("make test", "make test install", false),
            ("make test", "make", false),
            ("make test-*", "make test-kafka", true),
            ("make test-*", "make test", false),
            ("* --version", "gcc --version", true),
            ("* --version", "sh -c", false),
            ("*", "anything", true),
            ("*", "anything else", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
        ] {
            let policy = allow(&[pattern]);
            assert_eq!(policy.check(&words(command), 0, false).is_ok(), matches, "{pattern}: {command}");
        }
        // One word with a space in it is one word.
        assert!(allow(&["git status"]).check(&["git status".to_owned()], 0, false).is_err());
        assert!("  ".parse::<Pattern>().is_err());
    }

    #[test]
    fn what_would_change_an_allowed_command_is_refused() {
        let policy = allow(&["git *", "./build *"]);
        assert!(policy.check(&words("git status"), 1, false).expect_err("refused").contains("variables"));
        assert_eq!(policy.check(&words("git status"), 0, true), Ok(()));
        assert!(policy.check(&words("./build all"), 0, true).expect_err("refused").contains("relative"));
        assert_eq!(Policy::default().check(&words("./build all"), 3, true), Ok(()));
        let none = Policy { no_exec: true, ..allow(&["git *"]) };
        assert!(none.check(&words("git status"), 0, false).expect_err("refused").contains("--no-exec"));
    }

    #[test]
    fn files_are_given_as_far_as_commands_run_unless_the_operator_says_more_or_less() {
        let ask = |policy: &Policy, variables| policy.check(&[files::PROGRAM.to_owned()], variables, false);
        let below = Files::Below(vec!["/srv".into()]);
        assert_eq!(ask(&Policy::default(), 1), Ok(()));
        assert!(ask(&allow(&["*"]), 0).is_err() && ask(&Policy { no_exec: true, ..Policy::default() }, 0).is_err());
        let policy = Policy { files: below.clone(), ..allow(&["git *"]) };
        assert_eq!((ask(&policy, 0), policy.roots().len()), (Ok(()), 1));
        assert!(ask(&policy, 1).is_err());
        assert!(ask(&Policy { files: Files::Nothing, ..Policy::default() }, 0).is_err());
    }

    #[test]
    fn jobs_are_held_to_the_same() {
        let spec = |argv: &[&str]| Spec::new("me", Target::Selector(Default::default()), argv.iter().copied());
        let script =
            Spec { command: Command::Script { text: "true".to_owned(), interpreter: Vec::new() }, ..spec(&["x"]) };
        let policy = allow(&["git *"]);
        assert_eq!(policy.check_job(&spec(&["git", "gc"])), Ok(()));
        assert!(policy.check_job(&spec(&["sh", "-c", "true"])).is_err());
        assert!(policy.check_job(&script).expect_err("refused").contains("scripts"));
        assert_eq!(Policy::default().check_job(&script), Ok(()));
        let none = Policy { no_exec: true, ..Policy::default() };
        assert!(none.check_job(&script).is_err() && none.check_job(&spec(&["true"])).is_err());
        let with = Spec { env: [("PATH".to_owned(), "/tmp".to_owned())].into(), ..spec(&["git", "gc"]) };
        assert!(policy.check_job(&with).is_err());
    }
}
