//! From one version of the agent's program to the next: the new one is tried, put in the old one's place, and executed in this
//! process; or the old one is executed anew. Whoever supervises the agent sees one process.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    time::Duration,
};

use nix::fcntl::{FcntlArg, fcntl};

use super::{Failure, warden_program};
use crate::{
    agent::update::{self, Candidate, Verdict},
    cli::{failure, service},
    config::{Environment, Settings},
};

/// How long threads of the agent that ended may take to let go of its files.
pub const LET_GO: Duration = Duration::from_secs(2);
/// What fits into a pipe whatever its limits are. Secrets are shorter.
const PIPE: usize = 4096;

/// Goes on as another program, which happens in this process: returns only if the agent is to stop, or nothing can be executed.
pub fn run(candidate: Candidate, arguments: &[OsString], settings: &Settings) -> Result<u8, Failure> {
    let name = candidate.name();
    let file = match judge(&candidate, arguments, settings)? {
        Verdict::Proven => match candidate.place() {
            Ok(file) => {
                tracing::info!("{name} is good and takes over; what ran before is {}.previous", file.display());
                Some(file)
            }
            Err(why) => {
                tracing::warn!("no update to {name}: {why}");
                None
            }
        },
        Verdict::Failed(why) => {
            tracing::warn!("no update to {name}: {why}");
            note(candidate.roll_back(&why));
            None
        }
        Verdict::Stopped => {
            note(candidate.roll_back("the agent was told to stop meanwhile"));
            return Ok(0);
        }
    };
    refill(settings.environment())?;
    if let Some(file) = &file {
        let error = execute(file, arguments);
        tracing::error!("{} cannot be executed: {error}; the old version goes on", file.display());
    }
    // It is there whatever happened to its file.
    let error = execute(Path::new("/proc/self/exe"), arguments);
    Err(Failure::new(
        failure::TRY_AGAIN,
        format!("this program cannot be executed anew: {error}; start the agent again"),
    ))
}

/// What became of it is for people: that it cannot be noted stops nobody.
fn note(noted: io::Result<()>) {
    if let Err(error) = noted {
        tracing::warn!("what became of the update is not noted: {error}");
    }
}

fn judge(candidate: &Candidate, arguments: &[OsString], settings: &Settings) -> Result<Verdict, Failure> {
    refill(settings.environment())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(failure::TRY_AGAIN, format!("no threads can be started: {e}")))?;
    let verdict = runtime.block_on(async {
        let mut stops = service::stops(settings)?;
        Ok(update::try_out(candidate, arguments, warden_program(), &mut stops).await)
    });
    runtime.shutdown_timeout(LET_GO);
    verdict
}

/// Becomes `program`, with the same process id, arguments and environment. Returns only if that fails.
fn execute(program: &Path, arguments: &[OsString]) -> io::Error {
    let mut command = Command::new(program);
    if let [name, rest @ ..] = arguments {
        command.arg0(name).args(rest);
    }
    command.exec()
}

/// Makes secrets that were read from file descriptors readable there once more.
fn refill(environment: &Environment) -> Result<(), Failure> {
    for (number, secret) in environment.read_up() {
        put(number, secret.expose().as_bytes()).map_err(|error| {
            Failure::new(failure::TRY_AGAIN, format!("fd:{number} cannot be given on: {error}; start the agent again"))
        })?;
    }
    Ok(())
}

fn put(number: u32, secret: &[u8]) -> io::Result<()> {
    let number = i32::try_from(number).map_err(io::Error::other)?;
    if secret.len() > PIPE {
        return Err(io::Error::other(format!("the secret has more than {PIPE} bytes; give it as file:PATH")));
    }
    let (read, mut write) = io::pipe()?;
    write.write_all(secret)?;
    // What was inherited there has been read to its end.
    nix::unistd::close(number).ok();
    // Unlike what this program opens itself, it stays open when another is executed.
    match fcntl(&read, FcntlArg::F_DUPFD(number))? {
        there if there == number => Ok(()),
        other => {
            nix::unistd::close(other).ok();
            Err(io::Error::other("another thread took it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_secret_can_be_read_again_where_it_was_read() {
        // One that nothing of the test's has.
        let number = 900;
        for secret in ["one", "two"] {
            put(number, secret.as_bytes()).expect("there");
            let mut text = String::new();
            let mut file = std::fs::File::open(format!("/dev/fd/{number}")).expect("open");
            file.read_to_string(&mut text).expect("read");
            assert_eq!(text, secret);
        }
        nix::unistd::close(900).expect("open");
        assert!(put(number, &[0; PIPE + 1]).expect_err("too long").to_string().contains("file:PATH"));
    }
}
