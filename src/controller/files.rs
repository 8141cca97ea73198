//! The controller's files in its data directory: `api.token` and `journal.witness`.

use std::{fs, os::unix::fs::DirBuilderExt, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::Error;
use crate::{
    journal::Witness,
    private_file::{self, PrivateFileError},
    secret,
};

const TOKEN: &str = "api.token";
const WITNESS: &str = "journal.witness";

/// The API's bearer token, made if there is none.
pub(super) fn read_or_create_token(data: &Path) -> Result<String, Error> {
    create_directory(data)?;
    let path = data.join(TOKEN);
    let (token, _) = private_file::read_or_create(&path, || {
        format!("{}\n", URL_SAFE_NO_PAD.encode(secret::random::<32>())).into_bytes()
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
    fn the_token_is_made_once() {
        let dir = tempfile::tempdir().expect("dir");
        let data = dir.path().join("a/b");
        let token = read_or_create_token(&data).expect("made");
        assert_eq!(read_or_create_token(&data).expect("read"), token);
        assert!(token.len() >= 43, "{token}");
    }

    #[test]
    fn what_is_no_token_or_witness_is_refused_with_the_cure() {
        let dir = tempfile::tempdir().expect("dir");
        for file in [TOKEN, WITNESS] {
            private_file::create(&dir.path().join(file), b"x").expect("written");
        }
        let errors = [
            read_or_create_token(dir.path()).expect_err("no token").to_string(),
            read_witness(dir.path()).expect_err("no witness").to_string(),
        ];
        for (error, cure) in errors.iter().zip(["delete it", "--accept-rollback"]) {
            assert!(error.contains(cure), "{error}");
        }
    }
}
