//! From an agent to here. What an agent says of names is not believed: nothing leaves the directory that was asked for.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
};

use super::{
    Copy, joined, last_part,
    local::Writing,
    needs_recursion, os, ours,
    remote::{Part, Remote, Trouble},
    source,
};
use crate::{
    cli::Failure,
    id::AgentName,
    service::files::{Entry, Kind, Marks, RawPath, Reason, Reply, Request},
};

impl Copy {
    /// Copies a file to stdout.
    pub(super) async fn download_pipe(&mut self, remote: &mut Remote, from: &[u8]) -> Result<(), Failure> {
        let done = async {
            remote.ask(&Request::Read { path: from.to_vec(), from: 0 }).await?;
            remote.answer().await?;
            let writing = Writing::stdout().map_err(|e| ours(Path::new("-"), &e))?;
            self.receive(remote, Path::new("-"), writing, None).await
        };
        let done = done.await;
        self.settle(done)
    }

    /// Copies a file or a directory. `into`: `to` has to be a directory.
    pub(super) async fn download(
        &mut self,
        remote: &mut Remote,
        agent: &AgentName,
        from: &[u8],
        to: &Path,
        into: bool,
    ) -> Result<(), Failure> {
        let entry = remote.entry(&Request::Stat(from.to_vec())).await?;
        let name = String::from_utf8_lossy(from).into_owned();
        let directory = match entry.kind {
            Kind::File => false,
            Kind::Directory if !self.recursive => return Err(needs_recursion(&format!("{agent}:{name}"))),
            Kind::Directory => true,
            Kind::Link(_) | Kind::Other => {
                return Err(Failure::new(1, format!("{agent}:{name} is neither a file nor a directory")));
            }
        };
        let target = if to.is_dir() {
            to.join(os(last_part(from).unwrap_or(agent.as_str().as_bytes())))
        } else if into || to.as_os_str().as_bytes().ends_with(b"/") {
            return Err(Failure::usage(format!("{} is no directory", to.display())));
        } else {
            to.to_owned()
        };
        if directory {
            self.download_tree(remote, agent, from, &target, entry.marks).await
        } else {
            let done = self.download_file(remote, agent, from, &target).await;
            self.settle(done)
        }
    }

    async fn download_tree(
        &mut self,
        remote: &mut Remote,
        agent: &AgentName,
        from: &[u8],
        to: &Path,
        marks: Marks,
    ) -> Result<(), Failure> {
        let (mut waiting, mut made) = (vec![(from.to_vec(), to.to_owned(), marks)], Vec::new());
        while let Some((there, here, marks)) = waiting.pop() {
            let begun = async {
                make(&here)?;
                remote.list(&there).await
            };
            let entries = match begun.await.and_then(|entries| checked(&there, entries)) {
                Ok(entries) => entries,
                Err(trouble) => {
                    self.settle(Err(trouble))?;
                    continue;
                }
            };
            made.push((here.clone(), marks));
            for Entry { name, kind, marks, .. } in entries {
                let (theirs, ours_path) = (joined(&there, &name), here.join(os(&name)));
                let done = match kind {
                    Kind::Directory => {
                        waiting.push((theirs, ours_path, marks));
                        Ok(())
                    }
                    Kind::File => self.download_file(remote, agent, &theirs, &ours_path).await,
                    Kind::Link(target) => linked(&target, &ours_path),
                    Kind::Other => {
                        let text = format!(
                            "{}: is neither a file nor a directory; left out",
                            String::from_utf8_lossy(&theirs)
                        );
                        Err(Trouble::Refused(Reason::Other, text))
                    }
                };
                self.settle(done)?;
            }
        }
        // The innermost first: what is written into a directory changes its time.
        for (path, marks) in made.into_iter().rev() {
            let done = marks.put(&path).map_err(|e| ours(&path, &e));
            self.settle(done)?;
        }
        Ok(())
    }

    async fn download_file(
        &mut self,
        remote: &mut Remote,
        agent: &AgentName,
        from: &[u8],
        to: &Path,
    ) -> Result<(), Trouble> {
        let mut again = true;
        loop {
            let entry = remote.entry(&Request::Stat(from.to_vec())).await?;
            let place = [agent.as_str().as_bytes(), b":", from].concat();
            let source = source(&place, entry.size, entry.marks.modified_ns);
            let writing = Writing::file(to, source).map_err(|e| ours(to, &e))?;
            let have = writing.have;
            remote.ask(&Request::Read { path: from.to_vec(), from: have }).await?;
            let Reply::Entry(entry) = remote.answer().await? else {
                return Err(Failure::usage("an answer of another kind").into());
            };
            self.progress.begin(&String::from_utf8_lossy(from), Some(entry.size));
            self.progress.skip(have);
            match self.receive(remote, to, writing, Some(entry.marks)).await {
                // What was there was of something else; it is gone now.
                Err(Trouble::Refused(Reason::Corrupt, _)) if have > 0 && again => again = false,
                done => return done,
            }
        }
    }

    /// Takes a content to its end.
    async fn receive(
        &mut self,
        remote: &mut Remote,
        to: &Path,
        mut writing: Writing,
        marks: Option<Marks>,
    ) -> Result<(), Trouble> {
        let mut bytes = 0;
        let sum = loop {
            match remote.part().await? {
                Part::Data(piece) => {
                    bytes += piece.len() as u64;
                    self.progress.add(piece.len() as u64);
                    if !writing.write(piece).await {
                        let error = writing.finish(&[], None).await.err();
                        let error = error.unwrap_or_else(|| std::io::Error::other("it takes no more"));
                        if error.kind() == std::io::ErrorKind::BrokenPipe {
                            return Err(Failure::silent(0).into());
                        }
                        // What still comes of this content cannot be told from the next.
                        return Err(Failure::new(1, format!("{}: {error}", to.display())).into());
                    }
                }
                Part::End(sum) => break sum,
            }
        };
        match writing.finish(&sum, marks).await {
            Ok(true) => {
                self.copied.files += 1;
                self.copied.bytes += bytes;
                Ok(())
            }
            Ok(false) => {
                let text = format!("{}: what came is not what was sent (SHA-256); copy it again", to.display());
                Err(Trouble::Refused(Reason::Corrupt, text))
            }
            Err(e) => Err(ours(to, &e)),
        }
    }
}

/// Makes a directory. A link that leads to one is none: an agent may have sent it.
fn make(path: &Path) -> Result<(), Trouble> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let found = fs::symlink_metadata(path).map_err(|e| ours(path, &e))?;
            if found.is_dir() {
                Ok(())
            } else {
                Err(ours(path, &std::io::Error::other("is there and is no directory")))
            }
        }
        made => made.map_err(|e| ours(path, &e)),
    }
}

fn linked(target: &[u8], path: &PathBuf) -> Result<(), Trouble> {
    if path.is_symlink() {
        fs::remove_file(path).map_err(|e| ours(path, &e))?;
    }
    symlink(os(target), path).map_err(|e| ours(path, &e))
}

/// The entries if each can be one of a directory: another name would lead out of it.
fn checked(directory: &[u8], entries: Vec<Entry>) -> Result<Vec<Entry>, Trouble> {
    let mut seen: BTreeSet<&RawPath> = BTreeSet::new();
    for entry in &entries {
        let name = &entry.name;
        let odd = name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0);
        if odd || !seen.insert(name) {
            let text = format!(
                "{}: the agent says that it holds {:?}, which no directory can; nothing of it is copied",
                String::from_utf8_lossy(directory),
                String::from_utf8_lossy(name)
            );
            return Err(Trouble::Refused(Reason::Other, text));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let entry = |name: &str| Entry {
            name: name.as_bytes().to_vec(),
            kind: Kind::File,
            size: 0,
            marks: Marks { mode: 0o644, modified_ns: None },
        };
        let of = |names: &[&str]| checked(b"d", names.iter().map(|name| entry(name)).collect()).is_ok();
        assert!(of(&["a", "b", "..c", ". "]));
        for wrong in [&["../a"][..], &[".."], &["."], &[""], &["/etc/passwd"], &["a\0b"], &["a", "a"]] {
            assert!(!of(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn a_link_is_no_directory_to_write_into() {
        let dir = tempfile::tempdir().expect("dir");
        let link = dir.path().join("link");
        linked(b"/tmp", &link).expect("a link");
        assert!(make(&link).is_err());
        assert!(make(&dir.path().join("new")).is_ok() && make(&dir.path().join("new")).is_ok());
    }
}
