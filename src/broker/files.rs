//! Small files that are replaced as a whole, so that a crash leaves the old one or the new one.

use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces `path` by `content`, on stable storage when it returns.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, content, 0o666)
}

/// The same for what only the broker's user may read.
pub(crate) fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_with(path, content, 0o600)
}

fn replace_with(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    // What a crash left may have another mode.
    if let Err(error) = std::fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// The content of a file that may not exist.
pub(crate) fn read_if_there(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The number in a file that may not exist.
pub(crate) fn read_number(path: &Path) -> io::Result<Option<i64>> {
    let Some(content) = read_if_there(path)? else { return Ok(None) };
    content
        .trim()
        .parse()
        .map(Some)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, format!("{} does not hold a number", path.display())))
}

/// The JSON in a file that may not exist; what can't be read is an error that names the file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let Some(content) = read_if_there(path).map_err(|error| damaged(path, &error))? else { return Ok(None) };
    serde_json::from_str(&content).map(Some).map_err(|error| damaged(path, &error))
}

/// A file whose content is not what was written into it.
pub(crate) fn damaged(path: &Path, why: &dyn std::fmt::Display) -> io::Error {
    let cure = "restore it, or move it away to begin without it";
    io::Error::new(io::ErrorKind::InvalidData, format!("{} can't be read: {why}; {cure}", path.display()))
}
