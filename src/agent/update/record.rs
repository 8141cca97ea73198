//! What the agent remembers of the last change of its program, in its own directory. It is replaced whole.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    bundle::Digest,
    clock,
    private_file::{self, PrivateFileError},
    update::{Stage, Update},
};

fn path(dir: &Path) -> PathBuf {
    dir.join("update.json")
}

/// What was written last; nothing if there is none, or none that can be read: it only tells people what happened.
pub fn read(dir: &Path) -> Option<Update> {
    let bytes = match private_file::read(&path(dir)) {
        Ok(bytes) => bytes,
        Err(PrivateFileError::Missing { .. }) => return None,
        Err(error) => {
            tracing::warn!("what became of the last update is not known: {error}");
            return None;
        }
    };
    serde_json::from_slice(&bytes).inspect_err(|error| tracing::warn!("{}: {error}", path(dir).display())).ok()
}

/// Writes how a change stands. When this returns it is on the disk.
pub fn write(dir: &Path, update: &Update) -> io::Result<()> {
    let bytes = serde_json::to_vec_pretty(update).map_err(io::Error::other)?;
    private_file::replace(&path(dir), &bytes).map_err(io::Error::other)
}

/// What became of the change that was written last, by an agent that may have been killed in the middle, seen by one whose program
/// has this digest.
pub fn resolve(dir: &Path, last: Update, own: &Digest) -> Update {
    let resolved = resolved(last.clone(), own, clock::unix_ms());
    if resolved != last
        && let Err(error) = write(dir, &resolved)
    {
        tracing::warn!("what became of the last update is not noted: {error}");
    }
    resolved
}

fn resolved(last: Update, own: &Digest, now_ms: u64) -> Update {
    let why = match last.stage {
        stage if stage.is_end() => return last,
        _ if last.program.as_ref() == Some(own) => return last.at(Stage::Updated, None, now_ms),
        Stage::Trying => "the agent ended while the new program was tried",
        _ => "the agent ended before the new program was tried",
    };
    last.at(Stage::RolledBack, Some(why), now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(stage: Stage) -> Update {
        Update {
            id: 7,
            to: "rk-0.4.0".parse().expect("a name"),
            bundle: Digest([1; 32]),
            from: Digest([2; 32]),
            from_version: "0.3.0".to_owned(),
            program: Some(Digest([3; 32])),
            version: None,
            stage,
            why: None,
            at_ms: 1,
        }
    }

    #[test]
    fn whoever_starts_knows_what_became_of_a_change_by_what_it_is() {
        let (old, new) = (Digest([2; 32]), Digest([3; 32]));
        assert_eq!(resolved(update(Stage::Trying), &new, 5).stage, Stage::Updated);
        for stage in [Stage::Fetching, Stage::Draining, Stage::Trying] {
            let back = resolved(update(stage), &old, 5);
            assert_eq!((back.stage, back.at_ms), (Stage::RolledBack, 5));
            assert!(back.why.is_some());
        }
        for stage in [Stage::Updated, Stage::Current, Stage::RolledBack, Stage::Refused, Stage::Busy] {
            assert_eq!(resolved(update(stage), &old, 5), update(stage));
        }
    }

    #[test]
    fn what_is_written_is_read_and_rubbish_is_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(read(dir.path()), None);
        write(dir.path(), &update(Stage::Trying)).expect("written");
        let last = read(dir.path()).expect("there");
        assert_eq!(resolve(dir.path(), last, &Digest([3; 32])).stage, Stage::Updated);
        assert_eq!(read(dir.path()).expect("there").stage, Stage::Updated, "it is noted");
        private_file::replace(&path(dir.path()), b"{").expect("written");
        assert_eq!(read(dir.path()), None);
    }
}
