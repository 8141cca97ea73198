//! The controller's files in its data directory: `identity.pem`, `api.token`, `journal.witness`.

use std::{fs, os::unix::fs::DirBuilderExt, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};

use super::Error;
use crate::{
    journal::Witness,
    link::Identity,
    private_file::{self, PrivateFileError},
};

const IDENTITY: &str = "identity.pem";
const TOKEN: &str = "api.token";
const WITNESS: &str = "journal.witness";

/// An identity that was read or made.
pub struct ReadIdentity {
    /// The identity.
    pub identity: Identity,
    /// Whether it was made just now: then the operator should be told to back `path` up.
    pub created: bool,
    /// Where it is.
    pub path: std::path::PathBuf,
}

/// Reads the controller's identity from its data directory, or makes both. Blocks for a few file operations.
pub fn read_identity(data: &Path) -> Result<ReadIdentity, Error> {
    create_directory(data)?;
    let path = data.join(IDENTITY);
    let (pem, created) = private_file::read_or_create(&path, || Identity::generate().to_pem().into_bytes())?;
    let identity = std::str::from_utf8(&pem)
        .ok()
        .and_then(|pem| Identity::from_pem(pem).ok())
        .ok_or_else(|| content(&path, "this is no controller identity; restore it from its backup"))?;
    Ok(ReadIdentity { identity, created, path })
}

/// The API's bearer token, made if there is none.
pub(super) fn read_or_create_token(data: &Path) -> Result<String, Error> {
    create_directory(data)?;
    let path = data.join(TOKEN);
    let (token, _) = private_file::read_or_create(&path, || {
        let mut token = [0; 32];
        SystemRandom::new().fill(&mut token).expect("the system has randomness");
        format!("{}\n", URL_SAFE_NO_PAD.encode(token)).into_bytes()
    })?;
    let token = std::str::from_utf8(&token).unwrap_or_default().trim();
    // A short one could be guessed, an odd one not be sent in a header.
    if token.len() < 16 || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(content(&path, "expected a token of 16 or more printable characters; delete it to have one made"));
    }
    Ok(token.to_owned())
}

/// How far this controller has seen the journal; `None` at the first start.
pub(super) fn read_witness(data: &Path) -> Result<Option<Witness>, Error> {
    let path = data.join(WITNESS);
    let line = match private_file::read(&path) {
        Ok(line) => line,
        Err(PrivateFileError::Missing { .. }) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    match std::str::from_utf8(&line).unwrap_or_default().parse() {
        Ok(witness) => Ok(Some(witness)),
        Err(e) => Err(content(&path, &format!("{e}; start once with --accept-rollback to take the journal as it is"))),
    }
}

/// Notes how far this controller has seen the journal.
pub(super) fn write_witness(data: &Path, witness: &Witness) -> Result<(), Error> {
    create_directory(data)?;
    Ok(private_file::replace(&data.join(WITNESS), format!("{witness}\n").as_bytes())?)
}

fn create_directory(data: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(|source| PrivateFileError::Io { path: data.to_owned(), source }.into())
}

fn content(path: &Path, detail: &str) -> Error {
    Error::Content { path: path.to_owned(), detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_and_the_token_are_made_once() {
        let dir = tempfile::tempdir().expect("dir");
        let data = dir.path().join("a/b");
        let first = read_identity(&data).expect("made");
        let second = read_identity(&data).expect("read");
        assert!(first.created && !second.created);
        assert_eq!(first.identity.fingerprint(), second.identity.fingerprint());
        let token = read_or_create_token(&data).expect("made");
        assert_eq!(read_or_create_token(&data).expect("read"), token);
        assert!(token.len() >= 43, "{token}");
    }

    #[test]
    fn what_is_no_identity_token_or_witness_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().expect("dir");
        for file in [IDENTITY, TOKEN, WITNESS] {
            private_file::create(&dir.path().join(file), b"x").expect("written");
        }
        let errors = [
            read_identity(dir.path()).err().expect("no identity").to_string(),
            read_or_create_token(dir.path()).expect_err("no token").to_string(),
            read_witness(dir.path()).expect_err("no witness").to_string(),
        ];
        for (error, cure) in errors.iter().zip(["backup", "delete it", "--accept-rollback"]) {
            assert!(error.contains(cure), "{error}");
        }
    }
}
