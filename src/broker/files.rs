//! Small files that are replaced as a whole, so that a crash leaves the old one or the new one.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Replaces `path` by `content`, on stable storage when it returns.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
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
