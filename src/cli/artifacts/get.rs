//! Fetches files. What the controller says of paths is not believed: nothing leaves the directory that was asked for.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::{
    Session, all, nothing,
    write::{self, Target},
};
use crate::{
    api::{
        Client,
        artifacts::{Artifact, ArtifactState, PackQuery},
        client::{PackReceiver, Retry},
    },
    cli::{
        Failure, failure,
        output::{self, Format},
    },
    job::{Glob, JobId, manifest::is_below},
};

/// How long is asked again while the controller is away.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing may come while Kafka is away.
const STALLED: Duration = Duration::from_secs(600);
/// What is read and thrown away to be spared a request.
const GAP: u64 = 256 << 10;

/// Fetches the files that match one of `patterns`, or all.
pub async fn get(session: &Session, id: &str, patterns: &[Glob], to: &Path) -> Result<u8, Failure> {
    let list = all(&session.client, id).await?;
    if let Some(why) = nothing(&list) {
        let code = if list.state == ArtifactState::Pending { failure::TRY_AGAIN } else { 1 };
        return Err(Failure::new(code, why));
    }
    let job = list.job;
    let files: Vec<&Artifact> = list
        .files
        .iter()
        .filter(|file| patterns.is_empty() || patterns.iter().any(|glob| glob.matches(&file.path)))
        .collect();
    if files.is_empty() {
        return Err(Failure::usage(format!("job {job} left no file that matches; `rk artifacts ls {job}` lists them")));
    }
    if let Some(file) = files.iter().find(|file| !is_below(&file.path)) {
        let why = "which leads out of the directory; nothing is fetched";
        return Err(Failure::new(1, format!("the controller says that job {job} left {:?}, {why}", file.path)));
    }
    let mut source =
        Source { client: &session.client, job, quiet: session.quiet, open: None, retry: Retry::new(PATIENCE) };
    if to == Path::new("-") {
        let [file] = files[..] else {
            return Err(Failure::usage(format!("{} files match, and stdout takes one; name it", files.len())));
        };
        let mut target = Target::stdout()?;
        source.copy(file.offset, file.size, &mut target).await?;
        target.finish(file).await?;
        return Ok(0);
    }
    let fetched = fetch(&mut source, &files, to).await?;
    match session.format {
        Format::Json => output::print_json(&files)?,
        Format::Jsonl => files.iter().try_for_each(output::print_jsonl)?,
        Format::Name | Format::Table => {}
    }
    if !session.quiet {
        let what = if files.len() == 1 { "file" } else { "files" };
        output::say(&format!("rk: {} {what}, {fetched} bytes, in {}", files.len(), to.display()));
    }
    Ok(0)
}

/// Fetches files into a directory. Returns their bytes.
async fn fetch(source: &mut Source<'_>, files: &[&Artifact], to: &Path) -> Result<u64, Failure> {
    write::make_dirs(to, files.iter().map(|file| file.path.as_str()))?;
    // In the order of the pack, each content once.
    let mut contents: BTreeMap<(u64, u64), Vec<&Artifact>> = BTreeMap::new();
    for file in files {
        contents.entry((file.offset, file.size)).or_default().push(file);
    }
    let runs = runs(contents.keys().copied());
    for ((offset, size), same) in contents {
        let [first, others @ ..] = &same[..] else { continue };
        let end = runs.range(..=offset).next_back().map_or(offset + size, |(_, end)| *end);
        source.within(offset, end);
        let mut target = Target::file(to, first)?;
        let mut stale = target.have() > 0;
        loop {
            source.copy(offset, size, &mut target).await?;
            match target.finish(first).await {
                // What was there of an earlier try was damaged; it is gone now.
                Err(_) if std::mem::take(&mut stale) => target = Target::file(to, first)?,
                finished => break finished?,
            }
        }
        for other in others {
            write::copy(to, first, other).await?;
        }
    }
    Ok(files.iter().map(|file| file.size).sum())
}

/// Contents that lie near to each other are fetched together: where such runs begin, and where they end.
fn runs(contents: impl Iterator<Item = (u64, u64)>) -> BTreeMap<u64, u64> {
    let mut runs = BTreeMap::new();
    let mut open: Option<(u64, u64)> = None;
    for (offset, size) in contents {
        open = match open {
            Some((from, to)) if offset <= to.saturating_add(GAP) => Some((from, to.max(offset.saturating_add(size)))),
            _ => Some((offset, offset.saturating_add(size))),
        };
        runs.extend(open);
    }
    runs
}

/// The pack, as it comes.
struct Source<'a> {
    client: &'a Client,
    job: JobId,
    quiet: bool,
    open: Option<Open>,
    retry: Retry,
}

struct Open {
    receiver: Option<PackReceiver>,
    /// What came and was not used.
    left: Bytes,
    /// Where that begins.
    at: u64,
    end: u64,
}

impl Source<'_> {
    /// What is read next lies in front of `end`.
    fn within(&mut self, offset: u64, end: u64) {
        let fits = self.open.as_ref().is_some_and(|open| open.end == end && open.at <= offset);
        if !fits {
            self.open = Some(Open { receiver: None, left: Bytes::new(), at: offset, end });
        }
    }

    /// Copies a content into `target`, but for what is there.
    async fn copy(&mut self, offset: u64, size: u64, target: &mut Target) -> Result<(), Failure> {
        let (mut from, end) = (offset + target.have().min(size), offset + size);
        while from < end {
            let piece = self.take(from, end).await?;
            from += piece.len() as u64;
            target.write(piece).await?;
        }
        Ok(())
    }

    /// Some bytes from `from` on, in front of `end`.
    async fn take(&mut self, from: u64, end: u64) -> Result<Bytes, Failure> {
        let last = self.open.as_ref().map_or(end, |open| open.end.max(end));
        let fits = self.open.as_ref().is_some_and(|open| open.at <= from);
        if !fits {
            self.open = None;
        }
        let open = self.open.get_or_insert_with(|| Open { receiver: None, left: Bytes::new(), at: from, end: last });
        let stalled = Instant::now() + STALLED;
        loop {
            let skip = (from - open.at).min(open.left.len() as u64);
            drop(open.left.split_to(skip as usize));
            open.at += skip;
            if !open.left.is_empty() {
                let some = (end - from).min(open.left.len() as u64);
                open.at += some;
                return Ok(open.left.split_to(some as usize));
            }
            if Instant::now() > stalled {
                let message = format!("nothing of the artifacts of job {} came for {STALLED:?}; try again", self.job);
                return Err(Failure::new(failure::UNREACHABLE, message));
            }
            let next = match &mut open.receiver {
                Some(receiver) => receiver.next().await,
                None => {
                    open.at = from;
                    let query = PackQuery { from, to: open.end.max(end) };
                    match self.client.pack(&self.job.to_string(), query).await {
                        Ok(receiver) => {
                            open.receiver = Some(receiver);
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            match next {
                Ok(Some(bytes)) => {
                    if !bytes.is_empty() {
                        self.retry.reset();
                    }
                    open.left = bytes;
                }
                Ok(None) => {
                    let message = format!("the artifacts of job {} ended early; try again", self.job);
                    return Err(Failure::new(failure::TRY_AGAIN, message));
                }
                Err(error) => {
                    open.receiver = None;
                    let text = error.to_string();
                    let again = self.retry.after(error)?;
                    if !self.quiet {
                        output::say(&format!("rk: trying again ({text})"));
                    }
                    sleep_until(again).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_near_is_fetched_together() {
        let far = 10 << 20;
        let of = |contents: &[(u64, u64)]| runs(contents.iter().copied()).into_iter().collect::<Vec<_>>();
        assert_eq!(of(&[(0, 5), (5, 5), (20, 1)]), [(0, 21)]);
        assert_eq!(of(&[(0, 5), (far, 5), (far + GAP, 1)]), [(0, 5), (far, far + GAP + 1)]);
        assert_eq!(of(&[]), []);
    }
}
