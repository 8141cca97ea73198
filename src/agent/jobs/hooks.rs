//! Hooks: programs of the operator that run around jobs and the agent's life.
//!
//! A hook is an executable in the hooks' directory, named after when it runs. It gets the agent's environment with the
//! `RK_…` variables and never a job's secrets, has a minute, and what it prints goes into the job's system stream.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{io::AsyncReadExt, process::Command};

use crate::agent::environment::Environment;

/// How long a hook may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of what it prints is kept.
const OUTPUT: u64 = 64 << 10;

/// The operator's programs.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Where they are; none if there is no directory.
    pub dir: Option<PathBuf>,
}

/// What became of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What it printed, at most so much.
    pub output: Vec<u8>,
    /// Why it failed.
    pub failure: Option<String>,
}

impl Hooks {
    /// Runs the hook `name` in `cwd`; `None` if there is none.
    pub async fn run(&self, name: &str, environment: &Environment, cwd: &Path) -> Option<Ran> {
        let program = self.dir.as_ref()?.join(name);
        if !program.exists() {
            return None;
        }
        let variables: Vec<(OsString, OsString)> =
            environment.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let spawned = Command::new(&program)
            .env_clear()
            .envs(variables)
            .current_dir(cwd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                return Some(Ran { output: Vec::new(), failure: Some(format!("it does not start: {error}")) });
            }
        };
        let mut stdout = child.stdout.take().expect("it is piped");
        let mut output = Vec::new();
        let end = async {
            (&mut stdout).take(OUTPUT).read_to_end(&mut output).await?;
            // What is too much is read and dropped, so that it can end.
            tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await?;
            child.wait().await
        };
        let failure = match tokio::time::timeout(PATIENCE, end).await {
            Ok(Ok(status)) if status.success() => None,
            Ok(Ok(status)) => Some(format!("{status}")),
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("it took longer than {PATIENCE:?}")),
        };
        Some(Ran { output, failure })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn hook(dir: &Path, name: &str, script: &str) {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("executable");
    }

    #[tokio::test]
    async fn a_hook_runs_if_there_is_one_and_says_how_it_ended() {
        let dir = tempfile::tempdir().expect("dir");
        let name = "a".parse().expect("name");
        let environment = Environment::of_agent([], &name, &[].into());
        let hooks = Hooks { dir: Some(dir.path().to_owned()) };
        assert_eq!(hooks.run("pre-job", &environment, dir.path()).await, None);
        assert_eq!(Hooks::default().run("pre-job", &environment, dir.path()).await, None);
        hook(dir.path(), "pre-job", "echo $RK_AGENT_NAME in $PWD; head -c 100000 /dev/zero");
        let ran = hooks.run("pre-job", &environment, dir.path()).await.expect("there is one");
        assert!(ran.output.starts_with(format!("a in {}\n", dir.path().display()).as_bytes()));
        assert_eq!((ran.output.len(), ran.failure), (64 << 10, None));
        hook(dir.path(), "pre-job", "exit 3");
        let ran = hooks.run("pre-job", &environment, dir.path()).await.expect("there is one");
        assert!(ran.failure.expect("it failed").contains('3'));
    }
}
