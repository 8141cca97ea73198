//! Segments: files `<number>.seg` whose header says where each stream stands: `"RKSP", version: u8, 3 zeros, stdout: u64,
//! stderr: u64, crc: u32`, little-endian.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Offsets;

/// The bytes before a segment's first record.
pub(super) const HEADER: usize = 28;

const MAGIC: [u8; 8] = *b"RKSP\x01\0\0\0";

/// The header of a segment that begins at `starts`.
pub(super) fn header(starts: &Offsets) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&MAGIC);
    header[8..16].copy_from_slice(&starts.stdout.to_le_bytes());
    header[16..24].copy_from_slice(&starts.stderr.to_le_bytes());
    let crc = crc32c::crc32c(&header[..24]);
    header[24..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Where a segment begins; `None` if this is no header.
pub(super) fn decode(bytes: &[u8; HEADER]) -> Option<Offsets> {
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let crc = crc32c::crc32c(&bytes[..24]).to_le_bytes();
    (bytes[..8] == MAGIC && bytes[24..] == crc).then(|| Offsets { stdout: number(8), stderr: number(16) })
}

/// The file of segment `number`.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:010}.seg"))
}

/// The numbers of the segments in `dir`, ascending. A directory that is missing has none.
pub(super) fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".seg"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
