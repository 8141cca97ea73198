//! Settings: default < file < environment < flag, converted once into each layer's own `Config`.
//!
//! Nothing else reads the environment. A refusal names where the value stands and what would do. The layers below know
//! nothing of files, variables and flags; this module knows nothing of how flags are parsed.

#[cfg(feature = "agent")]
mod agent;
#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "controller")]
mod controller;
mod environment;
mod file;
#[cfg(feature = "link")]
mod kafka;
pub mod keys;
mod pass;
mod source;
#[cfg(feature = "link")]
mod topics;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

#[cfg(feature = "broker")]
pub use broker::BROKER_ADDRESS;
pub use environment::Environment;
pub use file::File;
use keys::{Key, Role};
use pass::Pass;
pub use source::{SecretSource, SourceError};

use crate::{bundle::sign::PublicKey, secret::Secret};

/// Values by the name of their key, in the order in which they were given.
pub type Given = BTreeMap<&'static str, Vec<String>>;

/// Why settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or understood.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A value does not fit its key.
    #[error("{origin}: {problem}")]
    Value {
        /// The flag, the variable, or the file and key.
        origin: String,
        /// What is wrong and what would do.
        problem: String,
    },
    /// A value is needed and not there.
    #[error("{what}; give it with --{name}, {variable}, or {name}: in the configuration file")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// The key.
        name: &'static str,
        /// Its variable.
        variable: String,
    },
    /// A secret is there and must not be used: others can read it.
    #[error("{origin}: {problem}")]
    Exposed {
        /// The flag, the variable, or the file and key.
        origin: String,
        /// Which file, and the command that mends it.
        problem: String,
    },
}

/// All that was set for one command.
#[derive(Debug)]
pub struct Settings {
    role: Role,
    flags: Given,
    environment: Environment,
    file: Option<File>,
    /// What stands under the credential.
    pass: Pass,
}

impl Settings {
    /// Puts `flags` over the environment over the file that `--config` names, or the first of the usual ones.
    pub fn gather(role: Role, flags: Given, environment: Environment) -> Result<Self, Error> {
        let mut settings = Self { role, flags, environment, file: None, pass: Pass::default() };
        settings.file = match settings.text(&keys::CONFIG) {
            Some((origin, path)) => Some(
                File::read(Path::new(path))?
                    .ok_or_else(|| Error::Value { origin, problem: format!("there is no file {path}") })?,
            ),
            None => {
                let mut found = None;
                for path in settings.environment.config_files() {
                    found = File::read(&path)?;
                    if found.is_some() {
                        break;
                    }
                }
                found
            }
        };
        // What the doctor finds wrong with a credential is one of its findings.
        if role == Role::Agent {
            settings.take_pass()?;
        }
        Ok(settings)
    }

    /// Reads the credential, and takes what stands under it for settings below all others.
    pub fn take_pass(&mut self) -> Result<(), Error> {
        if let Some(text) = self.secret(&keys::CREDENTIAL)? {
            let origin = self.origin(&keys::CREDENTIAL);
            self.pass = Pass::read(text.expose()).map_err(|problem| Error::Value { origin, problem })?;
        }
        Ok(())
    }

    /// The credential that [`take_pass`](Self::take_pass) read.
    pub fn credential_text(&self) -> Option<&Secret<String>> {
        self.pass.credential.as_ref()
    }

    /// The same settings as another role has them: with its section of the file.
    pub fn seen_as(&self, role: Role) -> Self {
        let (flags, environment, file) = (self.flags.clone(), self.environment.clone(), self.file.clone());
        Self { role, flags, environment, file, pass: self.pass.clone() }
    }

    /// The environment that these settings were read from.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The value of `key`, converted by its `FromStr`.
    pub fn parse<T: FromStr<Err: std::fmt::Display>>(&self, key: &'static Key) -> Result<Option<T>, Error> {
        self.convert(key, |text| text.parse::<T>().map_err(|e| e.to_string()))
    }

    /// The value of `key`, converted by `convert`, whose error says what would do.
    pub fn convert<T>(
        &self,
        key: &'static Key,
        convert: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let Some((origin, text)) = self.text(key) else { return Ok(None) };
        convert(text).map(Some).map_err(|problem| Error::Value { origin, problem })
    }

    /// A whole number.
    pub fn number<T: FromStr>(&self, key: &'static Key) -> Result<Option<T>, Error> {
        self.convert(key, |text| text.parse().map_err(|_| format!("{text:?} is no whole number in its range")))
    }

    /// A duration: `500ms`, `10s`, `5m`, `2h`.
    pub fn duration(&self, key: &'static Key) -> Result<Option<Duration>, Error> {
        self.convert(key, duration)
    }

    /// A path.
    pub fn path(&self, key: &'static Key) -> Option<PathBuf> {
        self.text(key).map(|(_, text)| PathBuf::from(text))
    }

    /// The keys that vouch for bundles, if any are asked for.
    pub fn require_signed(&self) -> Result<Option<Vec<PublicKey>>, Error> {
        self.convert(&keys::REQUIRE_SIGNED, |path| {
            let pem = std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
            PublicKey::all_from_pem(&pem).map_err(|e| format!("{path}: {e}"))
        })
    }

    /// On or off; off if nobody says.
    pub fn switch(&self, key: &'static Key) -> Result<bool, Error> {
        let on = self.convert(key, |text| match text {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(format!("{text:?} is neither true nor false")),
        })?;
        Ok(on.unwrap_or(false))
    }

    /// The secret that `key` points to.
    pub fn secret(&self, key: &'static Key) -> Result<Option<Secret<String>>, Error> {
        if self.above(key).is_none()
            && let Some(secret) = self.pass.values.get(key.name)
        {
            return Ok(Some(Secret::new(secret[0].clone())));
        }
        let Some(source) = self.parse::<SecretSource>(key)? else { return Ok(None) };
        let origin = self.text(key).map(|(origin, _)| origin).unwrap_or_default();
        self.read_secret(origin, &source).map(Some)
    }

    /// Reads a secret that stands at `origin`.
    pub fn read_secret(&self, origin: String, source: &SecretSource) -> Result<Secret<String>, Error> {
        source.read(&self.environment).map_err(|e| match e.refused {
            true => Error::Exposed { origin, problem: e.to_string() },
            false => Error::Value { origin, problem: e.to_string() },
        })
    }

    /// The values of a key that takes several; empty if nobody says. Commas separate values within one.
    pub fn list(&self, key: &'static Key) -> Vec<String> {
        let values = self.values(key).map(|(_, values)| values).unwrap_or_default();
        let parts = values.iter().flat_map(|value| value.split(',')).map(str::trim);
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// Where the value of `key` stands, for messages.
    pub fn origin(&self, key: &'static Key) -> String {
        self.values(key).map(|(origin, _)| origin).unwrap_or_else(|| format!("--{}", key.name))
    }

    /// The error that `key` is needed.
    pub fn missing(&self, key: &'static Key, what: &'static str) -> Error {
        Error::Missing { what, name: key.name, variable: key.variable() }
    }

    /// Where state lives.
    pub fn data_dir(&self) -> Result<PathBuf, Error> {
        let chosen = self.path(&keys::DATA).or_else(|| self.environment.data_dir());
        chosen.ok_or_else(|| self.missing(&keys::DATA, "there is no home directory to keep state in"))
    }

    fn text(&self, key: &'static Key) -> Option<(String, &str)> {
        let (origin, values) = self.values(key)?;
        // The last one wins, as with most commands.
        Some((origin, values.last()?))
    }

    fn values(&self, key: &'static Key) -> Option<(String, Vec<&str>)> {
        let below = || {
            let values = self.pass.values.get(key.name)?;
            Some((format!("{} in the credential", key.name), values.iter().map(String::as_str).collect()))
        };
        self.above(key).or_else(below)
    }

    /// The values of a key, whatever stands under the credential.
    fn above(&self, key: &'static Key) -> Option<(String, Vec<&str>)> {
        debug_assert!(keys::named(key.name).is_some(), "{} is missing in KEYS", key.name);
        if let Some(values) = self.flags.get(key.name) {
            return Some((format!("--{}", key.name), values.iter().map(String::as_str).collect()));
        }
        if let Some(value) = self.environment.setting(key) {
            return Some((key.variable(), vec![value]));
        }
        let file = self.file.as_ref()?;
        let values = file.values(self.role, key.name)?;
        Some((format!("{}: {}", file.path().display(), key.name), values.iter().map(String::as_str).collect()))
    }
}

/// Reads a duration: `500ms`, `10s`, `5m`, `2h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("{text:?} is no duration; use one like 500ms, 10s, 5m or 2h"))
}

#[cfg(test)]
mod tests;
