//! What a job may ask for: bounds, so that a spec fits into a journal record and its process can be started at all.

use std::time::Duration;

use crate::bundle::MAX_USED;

use super::{
    glob::Glob,
    spec::{Cancel, Command, Spec, Stdin, Target, Workspace},
};

/// The bounds of a [`Spec`].
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all of it; a journal record takes 512 KiB.
    pub spec: usize,
    /// Bytes of an argument, a variable with its value, or a path: Linux takes 128 KiB with the closing zero.
    pub argument: usize,
    /// Arguments.
    pub arguments: usize,
    /// Variables.
    pub variables: usize,
    /// Secrets.
    pub secrets: usize,
    /// Bytes of a name, a concurrency key, or a submitter.
    pub word: usize,
    /// Bytes of a path.
    pub path: usize,
    /// Bytes of a selector.
    pub selector: usize,
    /// The greatest priority.
    pub priority: u8,
    /// Patterns of artifacts.
    pub artifacts: usize,
    /// The most retries.
    pub retries: u8,
    /// The longest timeout.
    pub timeout: Duration,
    /// The longest grace.
    pub grace: Duration,
    /// The least spool, in bytes.
    pub least_spool: u64,
    /// The most bytes on an agent's disk, for the spool or a kept workspace.
    pub disk: u64,
}

/// The bounds.
pub const LIMITS: Limits = Limits {
    spec: 448 << 10,
    argument: (128 << 10) - 1,
    arguments: 4096,
    variables: 1024,
    secrets: 64,
    word: 128,
    path: 4095,
    selector: 1024,
    priority: 9,
    artifacts: 32,
    retries: 10,
    timeout: Duration::from_secs(366 * 86400),
    grace: Duration::from_secs(3600),
    least_spool: 1 << 20,
    disk: 1 << 40,
};

/// A spec asks for what is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}; {cure}")]
pub struct InvalidSpec {
    what: String,
    problem: String,
    cure: String,
}

type Checked = Result<(), InvalidSpec>;

impl Spec {
    /// Whether the job can be taken. The error names what is wrong with it and what to do.
    pub fn check(&self) -> Checked {
        self.check_command()?;
        self.check_environment()?;
        self.check_secrets()?;
        self.check_words()?;
        self.check_numbers()?;
        if self.bundles.len() > MAX_USED {
            let problem = format!("are {}, at most {MAX_USED} are taken", self.bundles.len());
            return refuse("bundles", problem, "put several into one");
        }
        self.check_artifacts()?;
        let weight = self.weight();
        if weight > LIMITS.spec {
            let cure = "have the job fetch its input, or `rk cp` it to the agent first";
            return refuse("the job", format!("has {weight} bytes in all, at most {} are taken", LIMITS.spec), cure);
        }
        Ok(())
    }

    fn check_artifacts(&self) -> Checked {
        if self.artifacts.len() > LIMITS.artifacts {
            let problem = format!("are {} patterns, at most {} are taken", self.artifacts.len(), LIMITS.artifacts);
            return refuse("artifacts", problem, "let the job collect its files in one directory, and name that");
        }
        for text in &self.artifacts {
            if let Err(error) = text.parse::<Glob>() {
                return refuse("artifacts:", error.to_string(), "write what the job leaves there");
            }
        }
        Ok(())
    }

    fn check_command(&self) -> Checked {
        let (what, words) = match &self.command {
            Command::Argv(argv) if argv.first().is_none_or(String::is_empty) => {
                return refuse("the command", "is empty", "write it after `--`, or give a script");
            }
            Command::Argv(argv) => ("argument", argv),
            Command::Script { text, .. } if text.trim().is_empty() => {
                return refuse("the script", "is empty", "name the file that holds it");
            }
            Command::Script { interpreter, .. } if interpreter.first().is_some_and(String::is_empty) => {
                return refuse("the interpreter", "is empty", "leave it out to use the script's #! line");
            }
            Command::Script { interpreter, .. } => ("the interpreter's argument", interpreter),
        };
        if words.len() > LIMITS.arguments {
            let problem = format!("has {} arguments, at most {} are taken", words.len(), LIMITS.arguments);
            return refuse("the command", problem, "write a script");
        }
        for (number, word) in words.iter().enumerate() {
            check_argument(&format!("{what} {number}"), word, LIMITS.argument)?;
        }
        self.cwd.as_ref().map_or(Ok(()), |cwd| {
            if cwd.is_empty() {
                return refuse("the work directory", "is empty", "leave it out to run in the workspace");
            }
            check_argument("the work directory", cwd, LIMITS.path)
        })
    }

    fn check_environment(&self) -> Checked {
        if self.env.len() > LIMITS.variables {
            let problem = format!("has {} variables, at most {} are taken", self.env.len(), LIMITS.variables);
            return refuse("the environment", problem, "put them into a file or a script");
        }
        for (name, value) in &self.env {
            let what = format!("variable {:?}", shortened(name));
            check_variable(&what, name)?;
            check_argument(&what, value, LIMITS.argument.saturating_sub(name.len() + 1))?;
        }
        Ok(())
    }

    fn check_secrets(&self) -> Checked {
        if self.secrets.len() > LIMITS.secrets {
            let problem = format!("are {}, at most {} are taken", self.secrets.len(), LIMITS.secrets);
            return refuse("secrets", problem, "put several into one file");
        }
        for (name, secret) in &self.secrets {
            let what = format!("secret {:?}", shortened(name));
            let value = secret.value.expose();
            check_variable(&what, name)?;
            if self.env.contains_key(name) {
                return refuse(&what, "is also a variable", "give one of them another name");
            }
            if value.is_empty() {
                return refuse(&what, "is empty", "look at the file or variable that it comes from");
            }
            let is_variable = secret.route == super::SecretRoute::Variable;
            if is_variable && (value.contains(&0) || value.len() + name.len() + 1 > LIMITS.argument) {
                return refuse(&what, "does not fit into a variable", "let it come as a file");
            }
        }
        Ok(())
    }

    fn check_words(&self) -> Checked {
        check_word("the submitter", &self.submitter)?;
        if let Some(name) = &self.name {
            check_word("the job's name", name)?;
        }
        if let Some(key) = &self.concurrency {
            check_word("the concurrency key", key)?;
        }
        match &self.target {
            Target::Selector(selector) if selector.to_string().len() > LIMITS.selector => {
                let problem = format!("is longer than {} bytes", LIMITS.selector);
                refuse("the selector", problem, "give the agents that you mean a label of their own")
            }
            _ => Ok(()),
        }
    }

    fn check_numbers(&self) -> Checked {
        let limits = &LIMITS;
        if self.priority > limits.priority {
            return refuse("the priority", format!("is {}", self.priority), &format!("use 0 to {}", limits.priority));
        }
        if self.retries > limits.retries {
            return refuse("retries", format!("are {}", self.retries), &format!("use 0 to {}", limits.retries));
        }
        match self.timeout {
            Some(Duration::ZERO) => return refuse("the timeout", "is 0", "leave it out to run without one"),
            Some(timeout) if timeout > limits.timeout => {
                return refuse("the timeout", "is above 366 days", "leave it out to run without one");
            }
            _ => {}
        }
        if let Workspace::Keep { quota } = self.workspace
            && quota > limits.disk
        {
            return refuse("the workspace's quota", format!("is {quota} bytes"), "use 1 TiB at most");
        }
        if !(limits.least_spool..=limits.disk).contains(&self.spool_limit) {
            return refuse("the spool limit", format!("is {} bytes", self.spool_limit), "use 1 MiB to 1 TiB");
        }
        if let Some(Stdin::Inline(bytes)) = &self.stdin
            && bytes.len() > limits.spec
        {
            let cure = "`rk cp` it to the agent first, and redirect it in a script";
            return refuse("stdin", format!("has {} bytes, at most {} are taken", bytes.len(), limits.spec), cure);
        }
        self.cancel.check()
    }
}

impl Cancel {
    /// Whether there is such a signal and the grace is bearable.
    pub fn check(&self) -> Checked {
        if !(1..=64).contains(&self.signal) {
            return refuse("the signal", format!("is {}", self.signal), "use 1 to 64, 15 for SIGTERM");
        }
        if self.grace > LIMITS.grace {
            return refuse("the grace period", "is above one hour", "use less");
        }
        Ok(())
    }
}

/// Whether `text` can be shown in one line: 1 to 128 bytes without control characters. `what` is for the error.
pub fn check_word(what: &str, text: &str) -> Checked {
    if text.is_empty() || text.len() > LIMITS.word || text.chars().any(char::is_control) {
        let problem = format!("{:?} is empty, too long, or has control characters", shortened(text));
        return refuse(what, problem, &format!("use 1 to {} bytes of text", LIMITS.word));
    }
    Ok(())
}

fn check_argument(what: &str, text: &str, limit: usize) -> Checked {
    if text.contains('\0') {
        return refuse(what, "has a zero byte in it", "no program can be given that; use a file");
    }
    if text.len() > limit {
        return refuse(what, format!("has {} bytes, Linux takes {limit}", text.len()), "put it into a file");
    }
    Ok(())
}

fn check_variable(what: &str, name: &str) -> Checked {
    let part = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || name.len() > LIMITS.word || !name.bytes().all(part) || name.as_bytes()[0].is_ascii_digit() {
        return refuse(what, "has no name that a shell takes", "use letters, digits and '_', no digit first");
    }
    if name == "RK" || name.starts_with("RK_") {
        return refuse(what, "has a name of ours", "take one that does not start with RK_");
    }
    Ok(())
}

fn refuse(what: &str, problem: impl Into<String>, cure: &str) -> Checked {
    Err(InvalidSpec { what: what.to_owned(), problem: problem.into(), cure: cure.to_owned() })
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
