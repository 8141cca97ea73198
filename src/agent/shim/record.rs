//! The small files between agent and shim: replaced whole, on the disk when written, and checked when read.
//!
//! `version: u8, crc: u32` (CRC-32C of the rest, little-endian), then postcard.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::private_file::{self, PrivateFileError};

const VERSION: u8 = 1;
const HEADER: usize = 5;

/// What a private file may have.
const MAX_SIZE: usize = 1 << 20;

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read, or others could have written it.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// It is another version's.
    #[error("{} has version {found}, this program reads {VERSION}; finish such jobs with the program that began them", path.display())]
    Version {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u8,
    },
    /// It is not what was written: files are replaced whole, so the disk is damaged or somebody changed it.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
    },
}

/// Writes `record` in place of what is there; on the disk when this returns.
pub(in crate::agent) fn write<T: Serialize>(path: &Path, record: &T) -> Result<(), PrivateFileError> {
    private_file::replace(path, &encode(path, record)?)
}

/// The file at `path`, if it is not too large to be read again.
pub(in crate::agent) fn encode<T: Serialize>(path: &Path, record: &T) -> Result<Vec<u8>, PrivateFileError> {
    let failed = |why: String| PrivateFileError::Io { path: path.to_owned(), source: io::Error::other(why) };
    let bytes = vec![VERSION, 0, 0, 0, 0];
    let mut bytes = postcard::to_extend(record, bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() > MAX_SIZE {
        return Err(failed("it is above 1 MiB; pass what is large as a file".to_owned()));
    }
    let crc = crc32c::crc32c(&bytes[HEADER..]);
    bytes[1..HEADER].copy_from_slice(&crc.to_le_bytes());
    Ok(bytes)
}

/// Reads a record; `None` if there is none.
pub(in crate::agent) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RecordError> {
    let bytes = match private_file::read(path) {
        Err(PrivateFileError::Missing { .. }) => return Ok(None),
        bytes => bytes?,
    };
    let damaged = || RecordError::Damaged { path: path.to_owned() };
    match bytes.split_first_chunk::<HEADER>() {
        Some((&[VERSION, ref crc @ ..], rest)) if crc32c::crc32c(rest).to_le_bytes() == *crc => {
            postcard::from_bytes(rest).map(Some).map_err(|_| damaged())
        }
        Some((&[found, ..], _)) if found != VERSION => Err(RecordError::Version { path: path.to_owned(), found }),
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_and_a_changed_one_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("x");
        assert!(matches!(read::<String>(&path), Ok(None)));
        write(&path, &("hello", 7u32)).expect("written");
        assert_eq!(read(&path).expect("fine"), Some(("hello".to_owned(), 7u32)));
        assert!(write(&path, &vec![0u8; 1 << 20]).is_err(), "it could not be read again");
        let good = std::fs::read(&path).expect("bytes");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            private_file::replace(&path, &bad).expect("replaced");
            assert!(read::<(String, u32)>(&path).is_err(), "byte {at}");
            private_file::replace(&path, &good[..at]).expect("replaced");
            assert!(read::<(String, u32)>(&path).is_err(), "cut at {at}");
        }
    }
}
