//! From what was asked for to what a shim runs.

use std::{ffi::OsString, path::Path, time::Duration};

use super::{Key, Settings, files::Files, given::Given};
use crate::{
    agent::{
        bundles::Ready,
        environment::Environment,
        run_as::User,
        shim::spec::{Background, Spec as ShimSpec, Stdin as ShimStdin},
        wasm::{Modules, Place},
    },
    bytelog::redact::MAX_SECRETS,
    job::{Command, Hidden, Outcome, SecretRoute, Spec, Stdin},
    private_file::{self, PrivateFileError},
    protocol::exec::Refusal,
};

/// How long a job's children may hold its output open after it ended by itself.
const LINGER: Duration = Duration::from_secs(2);

/// Why nothing was started.
pub enum Failure {
    /// The job asks for what is not there: that is its end.
    Job(Outcome),
    /// The disk does not let us: another try, or another agent, may do.
    Disk(String),
}

/// Prepares what the shim needs in the attempt's directory, and what the job is given to read.
pub fn prepare(
    settings: &Settings,
    key: Key,
    files: &Files<'_>,
    given: &Given<'_>,
    workspace: &Path,
    spec: &Spec,
    bundles: &Ready,
) -> Result<ShimSpec, Failure> {
    settings.policy.check_job(spec).map_err(|why| refused(Refusal::Denied(why)))?;
    let request: Vec<_> = spec.env.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let mut base = settings.environment.clone();
    if let Some(user) = &settings.run_as {
        user.describe(&mut base);
    }
    let mut environment = base.with(&request).map_err(refused)?;
    describe(&mut environment, key, spec.name.as_deref(), workspace);
    bundles.describe(&mut environment, settings.policy.bundles_first());
    let cwd = spec.cwd.as_ref().map_or_else(|| workspace.to_owned(), |cwd| workspace.join(cwd));
    if !cwd.is_dir() {
        return Err(not_started(127, format!("{}: no such directory; it is seen from the workspace", cwd.display())));
    }
    check_secrets(spec)?;
    secrets(spec, given, &mut environment).map_err(disk)?;
    let secrets = spec.secrets.values().any(|secret| secret.route == SecretRoute::File).then(|| given.secrets());
    let place = Place { cwd: &cwd, workspace: Some(workspace), secrets: secrets.as_deref(), bundle: None };
    let (program, argv) = command(spec, given, &settings.modules, &environment, place, bundles)?;
    given.hand_over().map_err(disk)?;
    let stdin = match &spec.stdin {
        None => ShimStdin::Empty,
        Some(Stdin::Inline(bytes)) => {
            let path = files.path("stdin");
            private_file::replace(&path, bytes).map_err(disk)?;
            ShimStdin::File(path.into())
        }
    };
    let redact = spec.secrets.values().map(|secret| secret.value.clone()).collect();
    Ok(ShimSpec {
        program,
        argv,
        env: environment.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        cwd: cwd.into(),
        stdin,
        timeout: spec.timeout,
        signal: spec.cancel.signal,
        grace: spec.cancel.grace,
        linger: LINGER,
        background: Background::End,
        spool_limit: spec.spool_limit,
        run_as: settings.run_as.as_ref().map(User::ids).cloned(),
        redact,
    })
}

/// What a process is told about its job.
pub fn describe(environment: &mut Environment, (job, number): Key, name: Option<&str>, workspace: &Path) {
    environment.set("RK_JOB_ID", job.to_string());
    environment.set("RK_JOB_NAME", name.unwrap_or_default());
    environment.set("RK_ATTEMPT", number.to_string());
    environment.set("RK_WORKSPACE", workspace);
}

/// What can't be masked is not run: it would be the same on every agent.
fn check_secrets(spec: &Spec) -> Result<(), Failure> {
    let bytes: usize = spec.secrets.values().map(|secret| secret.value.expose().len()).sum();
    if bytes > MAX_SECRETS {
        let cure = "give large files to the job by another way";
        return Err(not_started(126, format!("its secrets have {bytes} bytes, {MAX_SECRETS} can be masked; {cure}")));
    }
    Ok(())
}

fn secrets(spec: &Spec, given: &Given<'_>, environment: &mut Environment) -> Result<(), PrivateFileError> {
    for (name, secret) in &spec.secrets {
        match secret.route {
            SecretRoute::Variable => {
                use std::os::unix::ffi::OsStringExt;
                environment.set(name, OsString::from_vec(Hidden::expose(&secret.value).clone()));
            }
            SecretRoute::File => {
                environment.set(name, given.secret(name, secret.value.expose())?);
            }
        }
    }
    Ok(())
}

/// The program with its arguments.
fn command(
    spec: &Spec,
    given: &Given<'_>,
    modules: &Modules,
    environment: &Environment,
    place: Place<'_>,
    bundles: &Ready,
) -> Result<(OsString, Vec<OsString>), Failure> {
    let words = |words: &[String]| words.iter().map(OsString::from).collect::<Vec<_>>();
    match &spec.command {
        Command::Argv(argv) => {
            let program = argv.first().map_or("", String::as_str);
            let program = bundles.find(environment, program, place.cwd).map_err(refused)?;
            let place = Place { bundle: bundles.holding(&program), ..place };
            let (program, argv) =
                modules.executable(program.clone(), words(argv), environment, place).map_err(refused)?;
            Ok((program.into(), argv))
        }
        Command::Script { text, interpreter } => {
            let by_itself = interpreter.is_empty() && text.starts_with("#!");
            let script = given.script(text, by_itself).map_err(disk)?;
            let mut argv = match interpreter.first() {
                None if by_itself => return Ok((script.clone().into(), vec![script.into()])),
                None => vec!["/bin/sh".into()],
                Some(_) => words(interpreter),
            };
            let name = argv[0].to_string_lossy().into_owned();
            let program = bundles.find(environment, &name, place.cwd).map_err(refused)?;
            modules.refuse_interpreter(&program, &name).map_err(refused)?;
            argv.push(script.into());
            Ok((program.into(), argv))
        }
    }
}

fn disk(error: impl std::fmt::Display) -> Failure {
    Failure::Disk(error.to_string())
}

fn refused(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::NotFound(message) => not_started(127, message),
        Refusal::NotExecutable(message)
        | Refusal::Failed(message)
        | Refusal::Gone(message)
        | Refusal::Denied(message) => not_started(126, message),
        Refusal::Draining => Failure::Disk("the agent drains".to_owned()),
    }
}

fn not_started(code: i32, message: String) -> Failure {
    Failure::Job(Outcome::NotStarted { code, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{JobSecret, Target};

    #[test]
    fn secrets_that_cannot_be_masked_end_the_job_and_not_the_agents_readiness() {
        let mut spec = Spec::new("me", Target::Agent("a1".parse().expect("name")), ["true"]);
        let mut add = |name: &str, length| {
            let secret = JobSecret { value: Hidden::new(vec![b'x'; length]), route: SecretRoute::File };
            spec.secrets.insert(name.to_owned(), secret);
            check_secrets(&spec)
        };
        assert!(add("A", MAX_SECRETS - 10).is_ok() && add("B", 10).is_ok());
        let Err(Failure::Job(Outcome::NotStarted { code: 126, message })) = add("C", 1) else {
            panic!("it is refused")
        };
        assert!(message.contains("65537"), "{message}");
    }
}
