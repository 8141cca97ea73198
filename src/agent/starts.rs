//! The number of an agent's start, by which the newest process of a name is known.
//!
//! It grows with each start on this host whatever its clock does, and starts at the clock, so that an agent whose
//! directory is new (another host, a container without a volume) is not taken for an old one.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// The number of a start at `clock` (milliseconds), noted in `dir`, which is made if it is missing. When this returns,
/// it is on the disk.
pub(super) fn count(dir: &Path, clock: u64) -> io::Result<u64> {
    fs::create_dir_all(dir)?;
    // Two that start at once must not draw the same number.
    let lock = File::create(dir.join("starts.lock"))?;
    lock.lock()?;
    let path = dir.join("starts");
    let before = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| {
            let text: String = text.chars().take(40).collect();
            let cure = "remove it: the clock then numbers the start";
            io::Error::new(io::ErrorKind::InvalidData, format!("{} holds {text:?}; {cure}", path.display()))
        })?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0u64,
        Err(error) => return Err(error),
    };
    let starts = before.saturating_add(1).max(clock);
    let new = dir.join("starts.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{starts}")?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(dir)?.sync_all()?;
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_grow_even_if_the_clock_does_not_and_a_broken_file_is_named() {
        let dir = tempfile::tempdir().expect("dir");
        let data = dir.path().join("agent/a1");
        let starts: Vec<_> = [0, 50, 40, 60].map(|clock| count(&data, clock).expect("count")).into();
        assert_eq!(starts, [1, 50, 51, 60]);
        fs::write(data.join("starts"), "x").expect("write");
        let error = count(&data, 7).expect_err("broken").to_string();
        assert!(error.contains("starts") && error.contains("\"x\""), "{error}");
    }
}
