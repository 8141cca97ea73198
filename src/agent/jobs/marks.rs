//! How far the agent was shown the controller's journal: so a journal that was rolled back is noticed.

use std::{fs, path::Path};

use crate::{private_file, protocol::jobs::Mark, versioned};

const VERSION: u8 = 1;

/// Takes what a controller shows, or says what was seen before and is more.
pub fn accept(path: &Path, mark: Mark, accept_rollback: bool) -> Result<(), Mark> {
    let seen = fs::read(path).ok().and_then(|bytes| versioned::decode::<Mark>(VERSION, &bytes).ok());
    match seen {
        Some(seen) if is_rollback(&seen, &mark) && !accept_rollback => Err(seen),
        Some(seen) if seen == mark => Ok(()),
        _ => {
            note(path, mark);
            Ok(())
        }
    }
}

/// Remembers what a controller shows. That it can't be written costs no more than the check.
pub fn note(path: &Path, mark: Mark) {
    if let Err(error) = private_file::replace(path, &versioned::encode(VERSION, &mark)) {
        tracing::warn!("how far the controller's journal was seen is not remembered: {error}");
    }
}

/// Whether a journal that is at `shown` has lost something that it had at `seen`. At the same place it holds the same.
fn is_rollback(seen: &Mark, shown: &Mark) -> bool {
    let place = |mark: &Mark| (mark.epoch, mark.offset);
    place(shown) < place(seen) || (place(shown) == place(seen) && shown.head != seen.head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_shows_less_is_refused_unless_told_otherwise() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("mark");
        let mark = |epoch, offset| Mark { epoch, offset, head: [7; 32] };
        assert_eq!(accept(&path, mark(2, 10), false), Ok(()));
        assert_eq!(accept(&path, mark(2, 9), false), Err(mark(2, 10)));
        assert_eq!(accept(&path, mark(1, 99), false), Err(mark(2, 10)));
        assert_eq!(accept(&path, mark(3, 0), false), Ok(()));
        assert_eq!(accept(&path, mark(2, 99), true), Ok(()));
        assert_eq!(accept(&path, mark(2, 99), false), Ok(()));
    }

    #[test]
    fn a_journal_that_shows_something_else_at_the_same_place_is_refused_too() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("mark");
        let mark = |head| Mark { epoch: 2, offset: 10, head: [head; 32] };
        assert_eq!(accept(&path, mark(7), false), Ok(()));
        assert_eq!(accept(&path, mark(8), false), Err(mark(7)));
        assert_eq!(accept(&path, mark(8), true), Ok(()));
        assert_eq!(accept(&path, mark(8), false), Ok(()));
    }
}
