//! Where a secret comes from. Never from the command line itself, which every user of the machine can read.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    str::FromStr,
};

use super::Environment;
use crate::{
    private_file::{self, PrivateFileError},
    secret::Secret,
};

/// A secret is short; this much and no more is read.
const LARGEST: u64 = 64 << 10;

/// `file:PATH`, `fd:N` or `env:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that nobody else may read.
    File(PathBuf),
    /// An open file descriptor.
    Fd(u32),
    /// An environment variable.
    Env(String),
}

impl FromStr for SecretSource {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("fd", n)) => n.parse().map(Self::Fd).map_err(|_| "fd: takes a number, like fd:3".to_owned()),
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            // The text may be the secret itself: it is not repeated.
            _ => {
                Err("secrets never stand on the command line or in the file; use file:PATH, fd:N or env:NAME"
                    .to_owned())
            }
        }
    }
}

impl SecretSource {
    /// Reads the secret, without the line end that editors leave. Waits for the writer of a pipe.
    pub fn read(&self, environment: &Environment) -> Result<Secret<String>, SourceError> {
        let text = match self {
            Self::File(path) => read_file(path)?,
            Self::Fd(n) => {
                let (text, again) = read_fd(*n).map_err(|e| SourceError {
                    refused: false,
                    message: format!("file descriptor {n}: {e}; open one, like {n}<FILE"),
                })?;
                if !again {
                    environment.note_read_up(*n, &Secret::new(text.clone()));
                }
                text
            }
            Self::Env(name) => environment.value(name).map(str::to_owned).ok_or_else(|| SourceError {
                refused: false,
                message: format!("the environment variable {name} is not set"),
            })?,
        };
        let text = text.trim_end_matches(['\n', '\r']).to_owned();
        if text.is_empty() {
            return Err(SourceError { refused: false, message: format!("{self} is empty") });
        }
        Ok(Secret::new(text))
    }

    /// Reads the secret as it is, which a key or a certificate must be. It need not be text if it comes from a file.
    pub fn read_bytes(&self, environment: &Environment) -> Result<Secret<Vec<u8>>, SourceError> {
        let bytes = match self {
            Self::File(path) => {
                private_file::read(path).map_err(|e| SourceError { refused: is_refusal(&e), message: e.to_string() })?
            }
            Self::Fd(_) | Self::Env(_) => self.read(environment)?.expose().as_bytes().to_owned(),
        };
        if bytes.is_empty() {
            return Err(SourceError { refused: false, message: format!("{self} is empty") });
        }
        Ok(Secret::new(bytes))
    }
}

impl std::fmt::Display for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Fd(n) => write!(f, "fd:{n}"),
            Self::Env(name) => write!(f, "env:{name}"),
        }
    }
}

/// A secret could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// Whether it is there but must not be used: others can read it.
    pub refused: bool,
    message: String,
}

/// A private file at `origin` could not be read, or must not be used.
#[cfg(feature = "broker")]
pub(super) fn refusal(origin: String, e: &PrivateFileError) -> super::Error {
    match is_refusal(e) {
        true => super::Error::Exposed { origin, problem: e.to_string() },
        false => super::Error::Value { origin, problem: e.to_string() },
    }
}

fn is_refusal(e: &PrivateFileError) -> bool {
    matches!(e, PrivateFileError::OpenToOthers { .. } | PrivateFileError::Owner { .. })
}

fn read_file(path: &Path) -> Result<String, SourceError> {
    let bytes =
        private_file::read(path).map_err(|e| SourceError { refused: is_refusal(&e), message: e.to_string() })?;
    String::from_utf8(bytes)
        .map_err(|_| SourceError { refused: false, message: format!("{} is no text", path.display()) })
}

/// The text, and whether it can be read again.
fn read_fd(n: u32) -> std::io::Result<(String, bool)> {
    let mut text = String::new();
    // Opening its name duplicates the descriptor without trusting a number from outside to be ours to close.
    let file = File::open(format!("/dev/fd/{n}"))?;
    let again = file.metadata()?.is_file();
    file.take(LARGEST).read_to_string(&mut text)?;
    Ok((text, again))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_parsed_and_a_bare_secret_is_refused_without_repeating_it() {
        assert_eq!("file:/a:b".parse(), Ok(SecretSource::File("/a:b".into())));
        assert_eq!("fd:3".parse(), Ok(SecretSource::Fd(3)));
        assert_eq!("env:PW".parse(), Ok(SecretSource::Env("PW".to_owned())));
        for bad in ["hunter2", "file:", "fd:x", "env:", "http://x"] {
            let e = bad.parse::<SecretSource>().expect_err(bad);
            assert!(!e.contains("hunter2"), "{e}");
        }
    }

    #[test]
    fn the_environment_gives_a_secret_without_its_line_end() {
        let environment = Environment::of([("PW", "hunter2\n")]);
        let secret = SecretSource::Env("PW".to_owned()).read(&environment).expect("set");
        assert_eq!(secret.expose(), "hunter2");
        let missing = SecretSource::Env("NO".to_owned()).read(&environment).expect_err("not set");
        assert!(missing.to_string().contains("NO is not set"));
    }
}
