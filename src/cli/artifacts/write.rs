//! Puts files into a directory: each appears when it is whole, and no link on the way is followed.

use std::{fs, path::Path};

use bytes::Bytes;

use crate::{
    api::artifacts::Artifact,
    cli::{
        Failure,
        copy::{Writing, read},
        jobs::show::printable,
    },
    job::manifest::directories,
    service::files::Marks,
};

/// A file that is written.
pub struct Target(Option<Writing>);

impl Target {
    /// Our stdout.
    pub fn stdout() -> Result<Self, Failure> {
        Ok(Self(Some(Writing::stdout()?)))
    }

    /// A file below `to`, whose directories are there.
    pub fn file(to: &Path, file: &Artifact) -> Result<Self, Failure> {
        let path = to.join(&file.path);
        let mut source = [0; 16];
        source.copy_from_slice(&file.sha256.0[..16]);
        Writing::file(&path, source).map(|writing| Self(Some(writing))).map_err(|error| failed(&path, &error))
    }

    /// How many bytes an earlier try left.
    pub fn have(&self) -> u64 {
        self.0.as_ref().map_or(0, |writing| writing.have)
    }

    /// Takes the bytes that follow.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), Failure> {
        let Some(writing) = &mut self.0 else { return Ok(()) };
        if writing.write(piece).await {
            return Ok(());
        }
        let error = match self.0.take() {
            Some(writing) => writing.finish(&[], None).await.err(),
            None => None,
        };
        Err(write_failed(
            Path::new("what was fetched"),
            &error.unwrap_or_else(|| std::io::Error::other("it takes no more")),
        ))
    }

    /// All came: it is put in its place, if it is what the job left.
    pub async fn finish(self, file: &Artifact) -> Result<(), Failure> {
        let marks = Marks { mode: file.mode, modified_ns: Some(file.modified_ns) };
        let Some(writing) = self.0 else { return Ok(()) };
        match writing.finish(&file.sha256.0, Some(marks)).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Failure::new(1, format!("{}: what came is not what the job left (SHA-256)", printable(&file.path))))
            }
            Err(error) => Err(write_failed(Path::new(&file.path), &error)),
        }
    }
}

/// Makes the directories that the paths need below `to`, which is made too. What is there must be directories, and not links.
pub fn make_dirs<'a>(to: &Path, paths: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    fs::create_dir_all(to).map_err(|error| failed(to, &error))?;
    for dir in directories(paths) {
        let path = to.join(dir);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                    let message =
                        format!("{} is there and is no directory, as a file of the job needs it", path.display());
                    return Err(Failure::new(1, message));
                }
            }
            made => made.map_err(|error| failed(&path, &error))?,
        }
    }
    Ok(())
}

/// Puts what `first` is in the place of `other`, which has the same content.
pub async fn copy(to: &Path, first: &Artifact, other: &Artifact) -> Result<(), Failure> {
    let path = to.join(&first.path);
    let open = fs::File::open(&path).map_err(|error| failed(&path, &error))?;
    let mut target = Target::file(to, other)?;
    let mut reading = read(open, target.have()).map_err(|error| failed(&path, &error))?;
    while let Some(piece) = reading.pieces.recv().await {
        target.write(piece.map_err(|error| failed(&path, &error))?).await?;
    }
    target.finish(other).await
}

/// A reader that went away has seen what it wanted.
fn write_failed(path: &Path, error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::silent(0),
        _ => failed(path, error),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(1, format!("{}: {error}", printable(&path.display().to_string())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::bundle::Digest;

    fn artifact(path: &str, content: &[u8], mode: u32) -> Artifact {
        let (size, sha256) = (content.len() as u64, Digest::of(content));
        Artifact { path: path.to_owned(), size, sha256, mode, modified_ns: 1_000_000_000, offset: 0 }
    }

    #[tokio::test]
    async fn a_file_appears_whole_with_its_marks_or_not_at_all() {
        let dir = tempfile::tempdir().expect("dir");
        let to = dir.path().join("new");
        let file = artifact("a/b", b"content", 0o750);
        make_dirs(&to, [file.path.as_str()].into_iter()).expect("made");
        let mut target = Target::file(&to, &file).expect("target");
        target.write(Bytes::from_static(b"content")).await.expect("written");
        target.finish(&file).await.expect("right");
        let found = fs::metadata(to.join("a/b")).expect("there");
        assert_eq!((found.len(), found.permissions().mode() & 0o777), (7, 0o750));
        assert_eq!(found.modified().expect("time"), std::time::UNIX_EPOCH + std::time::Duration::from_secs(1));
        let other = artifact("a/c", b"content", 0o600);
        copy(&to, &file, &other).await.expect("copied");
        assert_eq!(fs::read(to.join("a/c")).expect("there"), b"content");
        let wrong = artifact("a/d", b"other", 0o600);
        let mut target = Target::file(&to, &wrong).expect("target");
        target.write(Bytes::from_static(b"false")).await.expect("written");
        let refused = target.finish(&wrong).await.expect_err("altered");
        assert!(refused.message.contains("SHA-256"), "{}", refused.message);
        let names: Vec<_> = fs::read_dir(to.join("a")).expect("dir").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[tokio::test]
    async fn a_link_leads_nothing_out_of_the_directory() {
        let dir = tempfile::tempdir().expect("dir");
        let (to, outside) = (dir.path().join("to"), dir.path().join("outside"));
        fs::create_dir_all(&to).and_then(|()| fs::create_dir(&outside)).expect("made");
        symlink(&outside, to.join("a")).expect("a link");
        assert!(make_dirs(&to, ["a/b"].into_iter()).is_err());
        // A link in a file's own place is replaced.
        fs::write(outside.join("victim"), "safe").expect("written");
        symlink(outside.join("victim"), to.join("x")).expect("a link");
        let file = artifact("x", b"new", 0o644);
        let mut target = Target::file(&to, &file).expect("target");
        target.write(Bytes::from_static(b"new")).await.expect("written");
        target.finish(&file).await.expect("right");
        assert_eq!(fs::read(outside.join("victim")).expect("there"), b"safe");
        assert!(!to.join("x").is_symlink());
    }
}
