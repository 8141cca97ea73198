//! A program that may become the agent's: found in a bundle, and asked who it is.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::errno::Errno;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, process::Command, time::timeout};

use super::swap::Staged;
use crate::{bundle::Digest, link, update::Update};

/// Where the program lies in a bundle.
const PLACES: [&str; 2] = ["rk", "bin/rk"];
/// How many files are looked at for the only one that can be run.
const LOOKED_AT: usize = 10_000;
/// How long a program may take to say who it is.
const ANSWER: Duration = Duration::from_secs(20);
/// How much it may say.
const LONGEST: u64 = 16 << 10;
/// How often a start is tried again: another thread may have been starting something just when the file was written.
const TRIES: usize = 50;

/// The version of what a parent and a program on trial have to say to each other.
pub const FORMAT: u32 = 1;

/// A program that is to be tried.
#[derive(Debug)]
pub struct Candidate {
    /// It, beside the old one.
    pub staged: Staged,
    /// How long it has to prove itself.
    pub deadline: Duration,
    /// The agent's directory.
    pub(super) dir: PathBuf,
    /// The change that it is for.
    pub(super) update: Update,
}

/// What `rk version -o json` prints: enough to know whether it can take this one's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// `rk`.
    pub program: String,
    /// Its version.
    pub version: String,
    /// The versions of the protocol between agents and controllers that it speaks, best first.
    #[serde(default)]
    pub protocols: Vec<String>,
    /// How it shows that it is good: [`FORMAT`]; 0 if it cannot.
    #[serde(default)]
    pub updates: u32,
}

impl About {
    /// This program.
    pub fn us() -> Self {
        Self {
            program: "rk".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocols: link::PROTOCOLS.map(str::to_owned).to_vec(),
            updates: FORMAT,
        }
    }

    /// Whether it can follow a program of version `now`, or why not.
    pub fn check(&self, now: &str, downgrade: bool) -> Result<(), String> {
        let Self { program, version, protocols, updates } = self;
        if program != "rk" {
            return Err(format!("the program in the bundle is {program:?}, and not rk"));
        }
        if !protocols.iter().any(|protocol| link::PROTOCOLS.contains(&protocol.as_str())) {
            let theirs = protocols.join(", ");
            return Err(format!(
                "rk {version} speaks {theirs}, and the controller here {}; update the controller first",
                link::PROTOCOLS.join(", ")
            ));
        }
        if *updates != FORMAT {
            return Err(format!(
                "rk {version} cannot show that it is good (it has no trial {FORMAT}); install it by hand"
            ));
        }
        if !downgrade && numbers(version) < numbers(now) {
            return Err(format!("rk {version} is older than {now}, which runs; --allow-downgrade takes it"));
        }
        Ok(())
    }
}

/// A version's numbers, for comparing.
fn numbers(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    release.split('.').map(|number| number.parse().unwrap_or(0)).collect()
}

/// The SHA-256 of a file. Blocks.
pub fn digest(path: &Path) -> io::Result<Digest> {
    let (mut file, mut hash, mut buffer) = (File::open(path)?, Context::new(&SHA256), vec![0; 128 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from_ring(&hash.finish())),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// The program in a bundle's directory: `rk`, `bin/rk`, or the only file there that can be run. Blocks.
pub fn find(root: &Path) -> Result<PathBuf, String> {
    let failed = |error: io::Error| format!("the bundle cannot be read: {error}");
    if let Some(found) = PLACES.iter().map(|place| root.join(place)).find(|path| path.is_file()) {
        return Ok(found);
    }
    let (mut dirs, mut left, mut found) = (vec![root.to_owned()], LOOKED_AT, Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            left = left.checked_sub(1).ok_or("the bundle has too many files to look for a program; call it rk")?;
            let metadata = entry.metadata().map_err(failed)?;
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
                found.push(entry.path());
            }
        }
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err("there is no program in the bundle; push one with rk in it".to_owned()),
        n => Err(format!("there are {n} programs in the bundle and none is called rk or bin/rk")),
    }
}

/// Asks a program who it is.
pub async fn ask(program: &Path) -> Result<About, String> {
    let failed = |what: String| format!("the program in the bundle {what}");
    let start = || {
        Command::new(program)
            .args(["version", "-o", "json"])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    };
    let mut tries = 0;
    let mut child = loop {
        match start() {
            Err(error) if error.raw_os_error() == Some(Errno::ETXTBSY as i32) && tries < TRIES => tries += 1,
            started => break started.map_err(|error| failed(format!("cannot be run here: {error}")))?,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut stdout = child.stdout.take().expect("stdout is piped").take(LONGEST);
    let mut said = Vec::new();
    let answer = async {
        stdout.read_to_end(&mut said).await?;
        child.wait().await
    };
    let ended =
        timeout(ANSWER, answer).await.map_err(|_| failed(format!("did not say its version within {ANSWER:?}")))?;
    let status = ended.map_err(|error| failed(format!("broke: {error}")))?;
    if !status.success() {
        return Err(failed(format!("cannot say its version (`rk version -o json`): {status}")));
    }
    serde_json::from_slice(&said).map_err(|error| failed(format!("does not say its version as rk does: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_checked_before_anything_stops() {
        let us = About { version: "0.10.2".to_owned(), ..About::us() };
        assert_eq!(us.check("0.10.2", false), Ok(()));
        assert_eq!(us.check("0.9.9", false), Ok(()));
        let refused = |about: &About, now, part: &str| {
            let why = about.check(now, false).expect_err(part);
            assert!(why.contains(part), "{why}");
        };
        refused(&us, "0.11.0", "--allow-downgrade");
        assert_eq!(us.check("0.11.0", true), Ok(()));
        refused(&About { program: "busybox".to_owned(), ..us.clone() }, "0.1.0", "and not rk");
        refused(&About { protocols: vec!["rk/2".to_owned()], ..us.clone() }, "0.1.0", "update the controller first");
        refused(&About { updates: 0, ..us }, "0.1.0", "by hand");
    }

    #[test]
    fn the_program_is_found_by_its_name_or_because_it_is_the_only_one() {
        let dir = tempfile::tempdir().expect("dir");
        let put = |path: &str, mode| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(&path, path.to_string_lossy().as_bytes()).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            path
        };
        assert!(find(dir.path()).expect_err("empty").contains("no program"));
        put("README", 0o644);
        let only = put("deep/er/rk-0.4.0", 0o755);
        assert_eq!(find(dir.path()), Ok(only));
        put("other", 0o755);
        assert!(find(dir.path()).expect_err("two").contains("2 programs"));
        let usual = put("bin/rk", 0o755);
        assert_eq!(find(dir.path()), Ok(usual));
    }

    #[tokio::test]
    async fn what_is_not_our_program_says_so() {
        let why = ask(Path::new("/bin/false")).await.expect_err("false");
        assert!(why.contains("version -o json"), "{why}");
        let why = ask(Path::new("/bin/echo")).await.expect_err("echo");
        assert!(why.contains("as rk does"), "{why}");
        let why = ask(Path::new("/etc/passwd")).await.expect_err("no program");
        assert!(why.contains("cannot be run here"), "{why}");
    }
}
