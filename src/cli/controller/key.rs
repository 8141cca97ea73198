//! `rk controller key`: a new key for the controller, which agents know before it comes.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

use super::private_failure;
use crate::{
    cli::{Failure, flags::ControllerFlags, output},
    config::{Environment, keys},
    link::Identity,
    private_file::{self, PrivateFileError},
};

/// Rotate the controller's key.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make the next key; a running controller tells connected agents of it
    Next(KeyArgs),
    /// Put the next key in the first one's place, for the controller's next start
    Promote(KeyArgs),
}

/// Arguments of the commands on the key.
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(flatten)]
    flags: ControllerFlags,
}

/// Runs the command.
pub fn run(command: KeyCommand, environment: &Environment) -> Result<u8, Failure> {
    let (KeyCommand::Next(args) | KeyCommand::Promote(args)) = &command;
    let settings = args.flags.clone().settings(environment)?;
    let first = match settings.path(&keys::IDENTITY) {
        Some(path) => path,
        None => settings.data_dir()?.join("identity.pem"),
    };
    match command {
        KeyCommand::Next(_) => next(&first)?,
        KeyCommand::Promote(_) => promote(&first)?,
    }
    Ok(0)
}

/// Where the next identity lies that takes the place of the one in `first`.
pub fn next_file(first: &Path) -> PathBuf {
    first.with_extension("next.pem")
}

fn next(first: &Path) -> Result<(), Failure> {
    let before = read(first)?.ok_or_else(|| missing(first, "`rk controller run` makes the first one"))?;
    let path = next_file(first);
    let made = Identity::generate().in_place_of(&before);
    private_file::create(&path, made.to_pem().as_bytes()).map_err(|e| match e {
        PrivateFileError::Exists { .. } => {
            let path = path.display();
            Failure::usage(format!("{path} exists: put it in place with `rk controller key promote`, or remove it"))
        }
        e => private_failure(&e),
    })?;
    output::print(&format!("{}\n", made.fingerprint()))?;
    output::say(&format!(
        "rk: made the next key {}; the controller's log names each agent that accepts it. Then `rk controller key promote`",
        path.display()
    ));
    Ok(())
}

fn promote(first: &Path) -> Result<(), Failure> {
    let path = next_file(first);
    let next = read(&path)?.ok_or_else(|| missing(&path, "`rk controller key next` makes it"))?;
    let before = read(first)?.ok_or_else(|| missing(first, "`rk controller run` makes the first one"))?;
    // A promotion that was interrupted has done this already.
    if next.fingerprint() != before.fingerprint() {
        let promoted = next.in_place_of(&before);
        private_file::replace(first, promoted.to_pem().as_bytes()).map_err(|e| private_failure(&e))?;
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(Failure::usage(format!("{}: {e}; remove it", path.display())));
        }
        _ => (),
    }
    output::say(&format!(
        "rk: the new key is in {}: back it up, give it to standbys, and restart the controller. Agents that did not hear of it \
         get a new credential by `rk agents rotate NAME`",
        first.display()
    ));
    Ok(())
}

fn read(path: &Path) -> Result<Option<Identity>, Failure> {
    let pem = match private_file::read(path) {
        Ok(pem) => pem,
        Err(PrivateFileError::Missing { .. }) => return Ok(None),
        Err(e) => return Err(private_failure(&e)),
    };
    let identity = Identity::from_pem(&String::from_utf8_lossy(&pem));
    identity.map(Some).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))
}

fn missing(path: &Path, cure: &str) -> Failure {
    Failure::usage(format!("{} does not exist; {cure}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_key_takes_the_place_of_the_first_and_derives_the_same() {
        let dir = tempfile::tempdir().expect("dir");
        let first = dir.path().join("identity.pem");
        assert!(next(&first).expect_err("no first one").message.contains("rk controller run"));
        let before = Identity::generate();
        private_file::create(&first, before.to_pem().as_bytes()).expect("created");
        assert!(promote(&first).expect_err("no next one").message.contains("key next"));
        next(&first).expect("made");
        assert!(next(&first).expect_err("there is one").message.contains("key promote"));
        let made = read(&next_file(&first)).expect("read").expect("there");
        let copy = fs::read(next_file(&first)).expect("read");
        promote(&first).expect("promoted");
        let after = read(&first).expect("read").expect("there");
        assert_eq!((after.fingerprint(), after.derive("x")), (made.fingerprint(), before.derive("x")));
        assert!(read(&next_file(&first)).expect("read").is_none());
        // Interrupted before the end, and done again.
        private_file::create(&next_file(&first), &copy).expect("created");
        promote(&first).expect("promoted");
        assert_eq!(read(&first).expect("read").expect("there").derive("x"), before.derive("x"));
    }
}
