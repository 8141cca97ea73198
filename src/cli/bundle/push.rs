//! From files to a bundle that the controller has.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::{
    api::{
        Client, ClientError, Code,
        bundles::{Bundle, PushBundle},
    },
    bundle::{self, Archive, Name, Target, Variants, archive, sign::SigningKey},
    cli::Failure,
};

/// How much of an archive is handed on at once, and how many such pieces wait.
const PIECE: usize = 256 << 10;
const WAITING: usize = 4;

/// Files for one kind of machine.
pub type Part = (Target, PathBuf);

/// What came of a push.
pub struct Pushed {
    pub bundle: Bundle,
    /// What it is called now.
    pub name: Name,
    /// Whether anything was missing.
    pub uploaded: bool,
}

/// Reads `PATH`, `TARGET=PATH`, and lists of them with ':' between.
pub fn parts(texts: &[String]) -> Result<Vec<Part>, Failure> {
    let mut parts: Vec<Part> = Vec::new();
    let words = texts.iter().flat_map(|text| {
        // A path may have a colon in it: only what begins with a target begins anew.
        let mut words: Vec<String> = Vec::new();
        for word in text.split(':') {
            match words.last_mut() {
                Some(last) if target(word).is_none() => {
                    last.push(':');
                    last.push_str(word);
                }
                _ => words.push(word.to_owned()),
            }
        }
        words
    });
    for word in words {
        let (target, path) = target(&word).unwrap_or_else(|| (Target::any(), word.as_str()));
        if parts.iter().any(|(there, _)| *there == target) {
            return Err(Failure::usage(format!("there are two paths for {target}; give one of them as TARGET=PATH")));
        }
        parts.push((target, PathBuf::from(path)));
    }
    Ok(parts)
}

fn target(word: &str) -> Option<(Target, &str)> {
    let (target, path) = word.split_once('=')?;
    Some((target.parse().ok()?, path))
}

/// Makes a bundle of `parts`, and uploads what is missing of it.
pub async fn push(
    client: &Client,
    parts: &[Part],
    name: Option<Name>,
    key: Option<&SigningKey>,
) -> Result<Pushed, Failure> {
    let name = match (name, parts.first()) {
        (Some(name), _) => name,
        (None, Some((_, path))) => name_of(path)?,
        (None, None) => return Err(Failure::usage("name a directory or a file to push")),
    };
    let (mut variants, mut uploaded) = (Variants::new(), false);
    for (target, path) in parts {
        let archive = pack(path, io::sink()).await?;
        if !client.has_blob(&archive).await? {
            upload(client, path, &archive).await?;
            uploaded = true;
        }
        variants.insert(target.clone(), archive);
    }
    let signatures = key.map(|key| key.sign(&bundle::digest(&variants))).into_iter().collect();
    let bundle = client.push_bundle(&PushBundle { name: name.clone(), variants, signatures }).await?;
    Ok(Pushed { bundle, name, uploaded })
}

/// Makes sure that the controller has the files at `path` as a bundle, and returns what means it.
pub async fn ensure(client: &Client, path: &Path) -> Result<String, Failure> {
    let archive = pack(path, io::sink()).await?;
    let digest = bundle::digest(&[(Target::any(), archive)].into());
    let name = name_of(path)?;
    let known = match client.bundle(&format!("sha256:{digest}")).await {
        Ok(_) => match client.has_blob(&archive).await {
            Ok(there) => there,
            // Who may not push may use what is there.
            Err(ClientError::Api(error)) if error.code == Code::Forbidden => true,
            Err(error) => return Err(error.into()),
        },
        Err(ClientError::Api(error)) if error.code == Code::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    if !known {
        push(client, &[(Target::any(), path.to_owned())], Some(name.clone()), None).await?;
    }
    Ok(format!("{name}@sha256:{digest}"))
}

/// What the bundle of a path is called.
fn name_of(path: &Path) -> Result<Name, Failure> {
    let full = std::fs::canonicalize(path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
    let text = full.file_name().unwrap_or_default().to_string_lossy();
    let text: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
    let text = text.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
    let text: String = text.chars().take(64).collect();
    text.parse()
        .map_err(|_| Failure::usage(format!("{} makes no name for a bundle; give one with --name", path.display())))
}

async fn pack(path: &Path, out: impl Write + Send + 'static) -> Result<Archive, Failure> {
    let path = path.to_owned();
    let packed = spawn_blocking(move || archive::pack(&path, out)).await;
    let packed = packed.map_err(|e| Failure::usage(format!("it was not packed: {e}")))?;
    packed.map_err(|e| Failure::usage(e.to_string()))
}

/// Packs once more, as the bytes are sent: what is sent is held to the digest at the other side.
async fn upload(client: &Client, path: &Path, archive: &Archive) -> Result<(), Failure> {
    let (out, pieces) = mpsc::channel(WAITING);
    let (path, broken) = (path.to_owned(), out.clone());
    let packing = tokio::spawn(async move {
        let packed = pack(&path, Pieces { out, buffer: Vec::with_capacity(PIECE) }).await;
        if packed.is_err() {
            broken.send(Err(io::ErrorKind::InvalidData.into())).await.ok();
        }
        packed
    });
    let pieces = futures_util::stream::unfold(pieces, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
    let uploaded = client.upload(archive, pieces).await;
    match (uploaded, packing.await) {
        (Ok(()), _) => Ok(()),
        // Unless it failed because nobody took the bytes any more.
        (Err(_), Ok(Err(failure))) if !failure.message.starts_with(TAKEN) => Err(failure),
        (Err(error), _) => Err(error.into()),
    }
}

/// How an error begins that says that nobody takes the bytes.
const TAKEN: &str = "it cannot be written";

/// Hands on what is written.
struct Pieces {
    out: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..some]);
        if self.buffer.len() == PIECE {
            self.flush()?;
        }
        Ok(some)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.out.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_for_any_machine_unless_they_say_otherwise() {
        let read = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            parts(&texts).map(|parts| {
                parts.into_iter().map(|(t, path)| format!("{t} {}", path.display())).collect::<Vec<_>>().join(", ")
            })
        };
        for (texts, expected) in [
            (&["./a"][..], "any ./a"),
            (&["./a:b=c"], "any ./a:b=c"),
            (&["./a:x86_64-linux=./b:aarch64-linux=./c"], "any ./a, x86_64-linux ./b, aarch64-linux ./c"),
            (&["x86_64-linux=./b", "./a"], "x86_64-linux ./b, any ./a"),
        ] {
            assert_eq!(read(texts).expect("good"), expected);
        }
        assert!(read(&["./a", "./b"]).is_err());
    }
}
