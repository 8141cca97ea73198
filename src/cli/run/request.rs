//! From flags to a job.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::RunArgs;
use crate::{
    api::jobs::{Script, SubmitJob, SubmitSecret},
    cli::{
        Failure,
        exec::{milliseconds, variables},
        failure, submitter,
    },
    clock,
    config::{Environment, SecretSource},
    job::{Glob, JobId, LIMITS},
    secret::{self, Secret},
};

/// The job that the flags ask for. Reads the files that they name.
pub fn job(args: &RunArgs, environment: &Environment) -> Result<SubmitJob, Failure> {
    let is_stdin = |file: &Option<String>| file.as_deref() == Some("-");
    if is_stdin(&args.script) && is_stdin(&args.stdin) {
        return Err(Failure::usage("--script - and --stdin - both take our stdin; give one of them a file"));
    }
    // The parser does not see it: it lets pass what needs an argument that another one excludes.
    if args.interpreter.is_some() && args.script.is_none() {
        return Err(Failure::usage("--interpreter runs a --script; name the script, or leave it out"));
    }
    let script = args.script.as_deref().map(|file| script(file, args.interpreter.as_deref())).transpose()?;
    let stdin = args.stdin.as_deref().map(|file| read(file, "--stdin")).transpose()?;
    let mut secrets = BTreeMap::new();
    for (flag, given, file) in [("--secret", &args.secret, false), ("--secret-file", &args.secret_file, true)] {
        for text in given {
            let (name, value) = secret(flag, text, file, environment)?;
            if secrets.insert(name.clone(), SubmitSecret { value, file }).is_some() {
                return Err(Failure::usage(format!("{flag} {name}: it is given twice; give one another name")));
            }
        }
    }
    Ok(SubmitJob {
        id: Some(new_id()),
        name: args.name.clone(),
        argv: args.command.clone(),
        script,
        env: variables(&args.env, environment)?,
        cwd: args.cwd.clone(),
        agent: args.agent.clone(),
        selector: args.selector.as_ref().map(ToString::to_string).unwrap_or_default(),
        timeout_ms: args.timeout.map(milliseconds),
        priority: args.priority,
        retries: args.retries,
        stdin: stdin.map(|bytes| STANDARD.encode(bytes)),
        secrets,
        concurrency: args.concurrency.clone(),
        submitter: submitter::name(),
        keep_workspace: args.keep_workspace,
        signal: args.signal,
        grace_ms: args.grace.map(milliseconds),
        log_format: args.log_format.unwrap_or_default(),
        spool_limit: args.spool_limit,
        bundles: Vec::new(),
        artifacts: args.artifact.iter().map(Glob::to_string).collect(),
    })
}

/// Chosen here, so that the job may be submitted again when the answer got lost.
fn new_id() -> JobId {
    JobId::new(clock::unix_ms(), u64::from_le_bytes(secret::random()))
}

fn script(file: &str, interpreter: Option<&str>) -> Result<Script, Failure> {
    let text = String::from_utf8(read(file, "--script")?)
        .map_err(|_| Failure::usage(format!("--script {file}: it is no UTF-8 text; `rk cp` programs to the agent")))?;
    let interpreter = interpreter.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    Ok(Script { text, interpreter })
}

/// A file's content, or what comes on our stdin; no more than a job may have.
fn read(file: &str, flag: &str) -> Result<Vec<u8>, Failure> {
    let failed = |e: io::Error| Failure::usage(format!("{flag} {file}: {e}; name a file that can be read"));
    let source: Box<dyn Read> = match file {
        "-" => Box::new(io::stdin().lock()),
        file => Box::new(File::open(file).map_err(failed)?),
    };
    let mut bytes = Vec::new();
    source.take(LIMITS.spec as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > LIMITS.spec {
        let most = LIMITS.spec >> 10;
        return Err(Failure::usage(format!("{flag} {file}: more than {most} KiB; have the job fetch it instead")));
    }
    Ok(bytes)
}

/// `NAME=SOURCE`. What stands behind the name may be the secret itself: it is not repeated.
fn secret(flag: &str, text: &str, file: bool, environment: &Environment) -> Result<(String, Secret<String>), Failure> {
    let Some((name, source)) = text.split_once('=') else {
        return Err(Failure::usage(format!("{flag}: use {flag} NAME=file:PATH or {flag} NAME=env:VARIABLE")));
    };
    let source: SecretSource = source.parse().map_err(|_| {
        let line = "a secret never stands on the command line, where every user of the machine sees it";
        Failure::usage(format!("{flag} {name}: {line}; use {flag} {name}=file:PATH or {name}=env:VARIABLE"))
    })?;
    let value = match file {
        // A key or a certificate is that with its last line end, and need not be text.
        true => source.read_bytes(environment).map(|bytes| STANDARD.encode(bytes.expose())),
        false => source.read(environment).map(|text| STANDARD.encode(text.expose())),
    };
    let value = value.map_err(|e| {
        let code = if e.refused { failure::REFUSED } else { failure::USAGE };
        Failure::new(code, format!("{flag} {name}: {e}"))
    })?;
    Ok((name.to_owned(), Secret::new(value)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: RunArgs,
    }

    fn made(args: &[&str], environment: &Environment) -> Result<SubmitJob, Failure> {
        let line = Line::try_parse_from([&["run"], args].concat()).expect("good");
        job(&line.args, environment)
    }

    #[test]
    fn flags_become_a_job_with_an_id_of_its_own() {
        let environment = Environment::of([("HERE", "x"), ("TOKEN", "hunter2\n")]);
        let args = [
            "--name",
            "b",
            "-l",
            "os=linux",
            "-e",
            "HERE",
            "--env",
            "A=b",
            "--timeout",
            "10m",
            "--priority",
            "9",
            "--retries",
            "2",
            "--secret",
            "T=env:TOKEN",
            "--signal",
            "INT",
            "--grace",
            "3s",
            "--keep-workspace",
            "1G",
            "--log-format",
            "open",
            "--concurrency",
            "k",
            "--",
            "make",
            "-j",
        ];
        let job = made(&args, &environment).expect("made");
        assert_eq!((job.argv, job.selector, job.env.len()), (vec!["make".into(), "-j".into()], "os=linux".into(), 2));
        assert_eq!((job.timeout_ms, job.priority, job.retries), (Some(600_000), Some(9), 2));
        assert_eq!((job.signal, job.grace_ms, job.keep_workspace), (Some(2), Some(3000), Some(1 << 30)));
        assert_eq!(job.secrets["T"].value.expose(), &STANDARD.encode("hunter2"));
        assert!(job.submitter.contains('@'));
        assert_ne!(job.id, made(&["--", "true"], &environment).expect("made").id);
    }

    #[test]
    fn a_secret_on_the_command_line_is_refused_and_not_repeated() {
        for bad in [&["--secret", "T=hunter2"][..], &["--secret-file", "T=hunter2"], &["--secret", "hunter2"]] {
            let failure = made(&[bad, &["--", "true"]].concat(), &Environment::default()).expect_err("refused");
            assert_eq!(failure.code, failure::USAGE);
            assert!(failure.message.contains("file:PATH") && !failure.message.contains("hunter2"), "{failure:?}");
        }
        let twice = ["--secret", "T=env:A", "--secret-file", "T=env:A", "--", "true"];
        assert!(made(&twice, &Environment::of([("A", "b")])).is_err());
    }

    #[test]
    fn scripts_input_and_secret_files_come_from_files() {
        let dir = tempfile::tempdir().expect("dir");
        let path = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("private");
            path.display().to_string()
        };
        let (script, input, key) = (path("s.py", b"print(1)\n"), path("in", b"\xff"), path("key", b"k\xfe\n"));
        let secret = format!("KEY=file:{key}");
        let args = ["--script", &script, "--interpreter", "python3 -u", "--stdin", &input, "--secret-file", &secret];
        let job = made(&args, &Environment::default()).expect("made");
        let script = job.script.expect("a script");
        assert_eq!((script.text.as_str(), script.interpreter), ("print(1)\n", vec!["python3".into(), "-u".into()]));
        assert_eq!(job.stdin.as_deref(), Some("/w=="));
        assert_eq!(job.secrets["KEY"].value.expose(), &STANDARD.encode(b"k\xfe\n"));
        assert!(job.secrets["KEY"].file);
        let large = path("large", &vec![0; LIMITS.spec + 1]);
        let failure = made(&["--stdin", &large, "--", "cat"], &Environment::default()).expect_err("too large");
        assert!(failure.message.contains("448 KiB"), "{failure:?}");
        assert!(made(&["--script", "/none"], &Environment::default()).is_err());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for bad in [
            &["run"][..],
            &["run", "--script", "x", "--", "true"],
            &["run", "--agent", "a", "-l", "b", "--", "true"],
            &["run", "--priority", "10", "--", "true"],
            &["run", "--detach", "--cancel-on-interrupt", "--", "true"],
        ] {
            assert!(Line::try_parse_from(bad).is_err(), "{bad:?}");
        }
        for bad in [&["--script", "-", "--stdin", "-"][..], &["--interpreter", "sh", "--", "true"]] {
            assert_eq!(made(bad, &Environment::default()).expect_err("refused").code, failure::USAGE, "{bad:?}");
        }
    }
}
