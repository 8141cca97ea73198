//! From here to an agent.

use std::{
    fs::{self, File},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{
    Copy, joined, last_part,
    local::{self, Reading},
    needs_recursion, ours,
    remote::{Remote, Trouble},
    source,
};
use crate::{
    cli::Failure,
    secret,
    service::files::{Entry, Kind, Marks, RawPath, Reason, Reply, Request},
};

impl Copy {
    /// Copies stdin to a file.
    pub(super) async fn upload_pipe(&mut self, remote: &mut Remote, to: &[u8]) -> Result<(), Failure> {
        let marks = Marks { mode: 0o644, modified_ns: None };
        self.progress.begin(&String::from_utf8_lossy(to), None);
        let write = Request::Write { path: to.to_vec(), marks, source: secret::random() };
        let done = async {
            remote.ask(&write).await?;
            match remote.answer().await? {
                Reply::Have(_) => (),
                other => return Err(Failure::usage(format!("unexpected {other:?}")).into()),
            }
            let reading = local::read(std::io::stdin(), 0).map_err(|e| ours(Path::new("-"), &e))?;
            self.send(remote, Path::new("-"), reading).await
        };
        let done = done.await;
        self.settle(done)
    }

    /// Copies a file or a directory. `into`: `to` has to be a directory.
    pub(super) async fn upload(
        &mut self,
        remote: &mut Remote,
        from: &Path,
        to: &[u8],
        into: bool,
    ) -> Result<(), Failure> {
        let found = fs::metadata(from).map_err(|e| Failure::from(ours(from, &e)))?;
        if found.is_dir() && !self.recursive {
            return Err(needs_recursion(&from.display().to_string()));
        }
        let there = match remote.entry(&Request::Stat(to.to_vec())).await {
            Ok(entry) => Some(entry.kind),
            Err(Trouble::Refused(Reason::NotFound, _)) => None,
            Err(trouble) => return Err(trouble.into()),
        };
        let target = match there {
            Some(Kind::Directory) => {
                // The directory that `.` is has a name, too.
                let whole = fs::canonicalize(from).map_err(|e| Failure::from(ours(from, &e)))?;
                joined(to, last_part(whole.as_os_str().as_bytes()).unwrap_or(b"root"))
            }
            _ if into || to.ends_with(b"/") => {
                let text = format!("{}: is no directory there", String::from_utf8_lossy(to));
                return Err(Failure::usage(text));
            }
            _ => to.to_vec(),
        };
        if found.is_dir() {
            self.upload_tree(remote, from, &target).await
        } else {
            let done = self.upload_file(remote, from, &target).await;
            self.settle(done)
        }
    }

    /// Copies a directory: each is made before what is in it, and gets its permissions and time after that.
    async fn upload_tree(&mut self, remote: &mut Remote, from: &Path, to: &[u8]) -> Result<(), Failure> {
        let (mut waiting, mut made) = (vec![(from.to_owned(), to.to_vec())], Vec::new());
        while let Some((here, there)) = waiting.pop() {
            let begun = self.begin_directory(remote, &here, &there, &mut made).await;
            let names = match begun {
                Ok(names) => names,
                Err(trouble) => {
                    self.settle(Err(trouble))?;
                    continue;
                }
            };
            for (path, name) in names {
                let done = match entry(&path) {
                    Ok(Entry { kind: Kind::Directory, .. }) => {
                        waiting.push((path, joined(&there, &name)));
                        Ok(())
                    }
                    Ok(Entry { kind: Kind::File, .. }) => self.upload_file(remote, &path, &joined(&there, &name)).await,
                    Ok(Entry { kind: Kind::Link(target), .. }) => {
                        remote.act(&Request::Link { path: joined(&there, &name), target }).await
                    }
                    Ok(Entry { kind: Kind::Other, .. }) => {
                        let text = format!("{}: is neither a file nor a directory; left out", path.display());
                        Err(Trouble::Refused(Reason::Other, text))
                    }
                    Err(e) => Err(ours(&path, &e)),
                };
                self.settle(done)?;
            }
        }
        // The innermost first: what is written into a directory changes its time.
        for (path, marks) in made.into_iter().rev() {
            let done = remote.act(&Request::Mark { path, marks }).await;
            self.settle(done)?;
        }
        Ok(())
    }

    /// Makes a directory there, and says what is in it here.
    async fn begin_directory(
        &mut self,
        remote: &mut Remote,
        here: &Path,
        there: &[u8],
        made: &mut Vec<(RawPath, Marks)>,
    ) -> Result<Vec<(PathBuf, RawPath)>, Trouble> {
        let fault = |e: std::io::Error| ours(here, &e);
        let marks = fs::metadata(here).and_then(|found| Entry::of(Vec::new(), here, &found)).map_err(fault)?.marks;
        let mut names = fs::read_dir(here)
            .and_then(|entries| {
                entries
                    .map(|entry| entry.map(|entry| (entry.path(), entry.file_name().as_bytes().to_vec())))
                    .collect::<Result<Vec<_>, _>>()
            })
            .map_err(fault)?;
        names.sort_unstable();
        remote.act(&Request::MakeDir { path: there.to_vec(), mode: marks.mode }).await?;
        made.push((there.to_vec(), marks));
        Ok(names)
    }

    async fn upload_file(&mut self, remote: &mut Remote, from: &Path, to: &[u8]) -> Result<(), Trouble> {
        let mut again = true;
        loop {
            let file = File::open(from).map_err(|e| ours(from, &e))?;
            let found = file.metadata().map_err(|e| ours(from, &e))?;
            let entry = Entry::of(Vec::new(), from, &found).map_err(|e| ours(from, &e))?;
            let whole = std::path::absolute(from).unwrap_or_else(|_| from.to_owned());
            let source = source(whole.as_os_str().as_bytes(), entry.size, entry.marks.modified_ns);
            remote.ask(&Request::Write { path: to.to_vec(), marks: entry.marks, source }).await?;
            let have = match remote.answer().await? {
                Reply::Have(have) => have,
                other => return Err(Failure::usage(format!("unexpected {other:?}")).into()),
            };
            self.progress.begin(&from.display().to_string(), Some(entry.size));
            self.progress.skip(have);
            let reading = local::read(file, have).map_err(|e| ours(from, &e))?;
            match self.send(remote, from, reading).await {
                // What was there was of something else; it is gone now.
                Err(Trouble::Refused(Reason::Corrupt, _)) if have > 0 && again => again = false,
                done => return done,
            }
        }
    }

    /// Sends a content to its end.
    async fn send(&mut self, remote: &mut Remote, from: &Path, mut reading: Reading) -> Result<(), Trouble> {
        let mut bytes = 0;
        while let Some(piece) = reading.pieces.recv().await {
            match piece {
                Ok(piece) => {
                    bytes += piece.len() as u64;
                    self.progress.add(piece.len() as u64);
                    remote.data(piece).await?;
                }
                Err(e) => {
                    // A sum that cannot be right: what was sent is not all, and is thrown away.
                    remote.end(&[]).await?;
                    let _ = remote.done().await;
                    return Err(ours(from, &e));
                }
            }
        }
        let sum = reading.sum.await.map_err(|_| ours(from, &std::io::Error::other("reading broke off")))?;
        remote.end(&sum).await?;
        remote.done().await?;
        self.copied.files += 1;
        self.copied.bytes += bytes;
        Ok(())
    }
}

fn entry(path: &Path) -> std::io::Result<Entry> {
    let found = fs::symlink_metadata(path)?;
    Entry::of(Vec::new(), path, &found)
}
