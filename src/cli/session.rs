//! What commands that ask the controller begin with.

use std::path::Path;

use super::{Failure, client, failure, flags::ClientFlags, log, output::Format};
use crate::{
    api::Client,
    config::{Environment, Settings, keys},
    private_file,
};

/// A client, and how its answers are shown.
pub struct Session {
    pub client: Client,
    pub format: Format,
    pub quiet: bool,
    pub settings: Settings,
}

/// Reads the settings. Nothing is sent yet.
pub fn open(flags: ClientFlags, environment: &Environment) -> Result<Session, Failure> {
    let settings = flags.settings(environment)?;
    log::start(&settings, log::COMMAND)?;
    let format = settings.parse::<Format>(&keys::OUTPUT)?.unwrap_or_default();
    let quiet = settings.switch(&keys::QUIET)?;
    Ok(Session { client: client::connect(&settings)?, format, quiet, settings })
}

/// Refuses a file for a secret that is there already, before the secret is made.
pub fn refuse_existing(out: Option<&Path>) -> Result<(), Failure> {
    match out.filter(|path| path.exists()) {
        Some(path) => {
            Err(Failure::usage(format!("{} exists; name another file with --out, or remove it", path.display())))
        }
        None => Ok(()),
    }
}

/// Writes what can't be had again to a new private file, and returns how settings name it. `again` tells how to get another.
pub fn write_secret(path: &Path, secret: &str, again: &str) -> Result<String, Failure> {
    private_file::create(path, format!("{secret}\n").as_bytes())
        .map_err(|e| Failure::new(failure::USAGE, format!("{e}; what it was to hold is lost: {again}")))?;
    Ok(format!("file:{}", path.display()))
}
