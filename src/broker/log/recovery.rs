//! Reading a partition's directory after a start: every batch is checked, and what a crash left half written is cut.
//!
//! Nothing that was acknowledged is ever removed here: the cut takes the bytes behind the last whole batch, and
//! segments that lie beyond damage are set aside under another name, not deleted.

use super::batch::Header;
use super::producers::Producers;
use super::scan::{self, Trust};
use super::segment::{Segment, file_name};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was found in a partition's directory.
#[derive(Debug)]
pub(crate) struct Found {
    /// In order of their offsets; the last is open for appending. Never empty.
    pub segments: Vec<Segment>,
    pub producers: Producers,
    pub next_offset: i64,
    /// Bytes that were cut off because they were no whole batch.
    pub cut: u64,
    /// Files that were set aside.
    pub set_aside: Vec<PathBuf>,
}

/// Reads and repairs `directory`; `log_start` is where the log begins if it has no segment.
pub(crate) fn recover(directory: &Path, log_start: i64, now_ms: i64) -> io::Result<Found> {
    let bases = segment_bases(directory)?;
    let mut found = Found {
        segments: Vec::new(),
        producers: Producers::default(),
        next_offset: bases.first().copied().unwrap_or(log_start),
        cut: 0,
        set_aside: Vec::new(),
    };
    let mut whole = true;
    for base in bases {
        let path = directory.join(file_name(base));
        if !whole || base != found.next_offset {
            let aside = path.with_extension("log.aside");
            std::fs::rename(&path, &aside)?;
            found.set_aside.push(aside);
            whole = false;
            continue;
        }
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        whole = read_segment(&mut found, file, path, base, now_ms)?;
    }
    if found.segments.is_empty() {
        found.segments.push(Segment::create(directory, found.next_offset)?);
    }
    let last = found.segments.len() - 1;
    for segment in &mut found.segments[..last] {
        segment.seal();
    }
    Ok(found)
}

/// Adds one segment to what was found; false if its end had to be cut.
fn read_segment(found: &mut Found, file: File, path: PathBuf, base: i64, now_ms: i64) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let length = metadata.len();
    // The age of a segment counts from its first batch, whose time of arrival only the file system still knows.
    let born = metadata.created().or_else(|_| metadata.modified()).map_or(now_ms, super::super::clock::millis);
    let file = Arc::new(file);
    let mut segment = Segment::over(path, base, Some(Arc::clone(&file)));
    let (next, producers) = (&mut found.next_offset, &mut found.producers);
    let walked = scan::walk(&file, 0, length, Trust::Checked, |_, header: &Header, _| {
        if header.base_offset != *next {
            return ControlFlow::Break(());
        }
        *next = header.last_offset() + 1;
        producers.record(header, now_ms);
        segment.note(header, born);
        ControlFlow::Continue(())
    })?;
    let torn = length - walked.end;
    if torn > 0 {
        file.set_len(walked.end)?;
        file.sync_data()?;
        found.cut += torn;
    }
    found.segments.push(segment);
    Ok(torn == 0)
}

fn segment_bases(directory: &Path) -> io::Result<Vec<i64>> {
    let mut bases = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name();
        let digits = name.to_str().and_then(|n| n.strip_suffix(".log")).filter(|d| d.len() == 20);
        bases.extend(digits.and_then(|d| d.parse::<i64>().ok()));
    }
    bases.sort_unstable();
    Ok(bases)
}
