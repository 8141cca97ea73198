//! Walking the batches of a segment file from a position on.

use super::batch::{BatchError, Header};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

/// Read in pieces of this size; a larger batch is read whole.
const PIECE: usize = 1 << 20;
/// No batch is larger than the largest request; a larger length is damage and must not be allocated.
pub(crate) const LARGEST_BATCH: usize = 101 << 20;

/// Where a walk ended.
#[derive(Debug)]
pub(crate) struct Walked {
    /// Position behind the last good batch.
    pub end: u64,
    /// What is wrong with the bytes there, if the walk did not reach its end.
    pub damage: Option<BatchError>,
}

/// Whether to check each batch's sum, or to trust a file that was checked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    Checked,
    Blind,
}

/// Calls `each` with position, header and bytes of every batch in `from..to`, until it breaks.
pub(crate) fn walk(
    file: &File,
    from: u64,
    to: u64,
    trust: Trust,
    mut each: impl FnMut(u64, &Header, &[u8]) -> ControlFlow<()>,
) -> io::Result<Walked> {
    let mut piece = Vec::new();
    let mut at = from;
    let mut used = 0;
    loop {
        let have = &piece[used..];
        let header = match trust {
            Trust::Checked => Header::read_checked(have),
            Trust::Blind => {
                Header::read(have).and_then(|h| if h.size > have.len() { Err(BatchError::Short) } else { Ok(h) })
            }
        };
        match header {
            Ok(header) => {
                if each(at, &header, &have[..header.size]).is_break() {
                    return Ok(Walked { end: at, damage: None });
                }
                at += header.size as u64;
                used += header.size;
            }
            Err(BatchError::Short) => {
                let left = usize::try_from(to - at).unwrap_or(usize::MAX);
                if left == 0 {
                    return Ok(Walked { end: at, damage: None });
                }
                let wanted = Header::read(have).map_or(PIECE, |h| h.size.max(PIECE)).min(left);
                if wanted <= have.len() || wanted > LARGEST_BATCH {
                    return Ok(Walked { end: at, damage: Some(BatchError::Short) });
                }
                piece.resize(wanted, 0);
                file.read_exact_at(&mut piece, at)?;
                used = 0;
            }
            Err(damage) => return Ok(Walked { end: at, damage: Some(damage) }),
        }
    }
}
