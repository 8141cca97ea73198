//! The jar that runs on the agent: where it is found on the controller's side, and its digest.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use ring::digest::{SHA256, digest};

use crate::{cli::Failure, config::Environment};

/// Names by which versions of the family know it, newest first.
const NAMES: [&str; 3] = ["agent.jar", "remoting.jar", "slave.jar"];

/// Where they unpack themselves, below the directory that a variable names.
const VARIABLES: [&str; 2] = ["JENKINS_HOME", "HUDSON_HOME"];

/// A jar of Remoting has less than 2 MiB; this much and no more is read.
const LARGEST: u64 = 64 << 20;

/// A jar, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jar {
    /// Where it was read.
    pub path: PathBuf,
    /// All of it.
    pub bytes: Bytes,
    /// Its SHA-256 in hexadecimal.
    pub digest: String,
}

impl Jar {
    /// Reads a jar; the error names the path.
    pub fn read(path: &Path) -> Result<Self, String> {
        let wrong = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
        read.map_err(|e| wrong(&e))?;
        if bytes.len() as u64 > LARGEST {
            return Err(wrong(&format_args!("it is larger than {} MiB, which no agent's jar is", LARGEST >> 20)));
        }
        // A ZIP begins so: a page that says that one has to log in does not.
        if !bytes.starts_with(b"PK") {
            return Err(wrong(&"it is no jar; Jenkins offers the right one at its address, under /jnlpJars/agent.jar"));
        }
        Ok(Self { path: path.to_owned(), digest: hex(digest(&SHA256, &bytes).as_ref()), bytes: bytes.into() })
    }

    /// The jar of the controller that runs here, or the places that were looked at.
    pub fn find(environment: &Environment) -> Result<Self, Failure> {
        let mut looked = Vec::new();
        for home in VARIABLES.iter().filter_map(|name| environment.value(name)) {
            let web = Path::new(home).join("war/WEB-INF");
            for path in NAMES.map(|name| web.join(name)) {
                if path.is_file() {
                    return Self::read(&path).map_err(Failure::usage);
                }
                looked.push(path.display().to_string());
            }
            // Newer ones have it among their libraries, under its version.
            let library = web.join("lib");
            if let Some(path) = newest(&library).map_err(|e| Failure::usage(format!("{}: {e}", library.display())))? {
                return Self::read(&path).map_err(Failure::usage);
            }
            looked.push(library.join("remoting-*.jar").display().to_string());
        }
        let looked = match looked.is_empty() {
            true => format!("{} are not set", VARIABLES.join(" and ")),
            false => format!("looked at {}", looked.join(", ")),
        };
        Err(Failure::usage(format!(
            "there is no agent's jar here ({looked}); name it with --jar FILE: Jenkins offers it at its address, under \
             /jnlpJars/agent.jar"
        )))
    }
}

/// The `remoting-*.jar` of a directory that was changed last: an unpacked WAR has one, but another may be left of an older version.
fn newest(directory: &Path) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut found = None;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Not a plugin's library whose name begins so: a version follows.
        let version = name.strip_prefix("remoting-").and_then(|rest| rest.strip_suffix(".jar"));
        if version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit())) {
            found = found.max(Some((entry.metadata()?.modified()?, entry.path())));
        }
    }
    Ok(found.map(|(_, path)| path))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(files: &[&str]) -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("directory");
        for file in files {
            let path = home.path().join("war/WEB-INF").join(file);
            fs::create_dir_all(path.parent().expect("parent")).expect("made");
            fs::write(path, format!("PK {file}")).expect("written");
        }
        home
    }

    fn found(variable: &str, files: &[&str]) -> Result<String, String> {
        let home = home(files);
        let environment = Environment::of([(variable, home.path().to_str().expect("text"))]);
        let jar = Jar::find(&environment).map_err(|failure| failure.message)?;
        let name = jar.path.strip_prefix(home.path().join("war/WEB-INF")).expect("below");
        Ok(name.display().to_string())
    }

    #[test]
    fn each_version_of_the_family_has_it_at_a_place_of_its_own() {
        assert_eq!(found("JENKINS_HOME", &["slave.jar", "remoting.jar", "agent.jar"]), Ok("agent.jar".to_owned()));
        assert_eq!(found("JENKINS_HOME", &["slave.jar", "remoting.jar"]), Ok("remoting.jar".to_owned()));
        assert_eq!(found("HUDSON_HOME", &["slave.jar"]), Ok("slave.jar".to_owned()));
        let files = ["lib/remoting-3283.v92c105e0f819.jar", "lib/remoting-kafka.jar", "lib/commons-io.jar"];
        assert_eq!(found("JENKINS_HOME", &files), Ok(files[0].to_owned()));
    }

    #[test]
    fn where_there_is_none_all_places_are_named() {
        let said = found("JENKINS_HOME", &["lib/remoting-kafka.jar"]).expect_err("none");
        for name in ["agent.jar", "remoting.jar", "slave.jar", "lib/remoting-*.jar", "--jar FILE"] {
            assert!(said.contains(name), "{name}: {said}");
        }
        let said = Jar::find(&Environment::default()).expect_err("none").message;
        assert!(said.contains("JENKINS_HOME and HUDSON_HOME are not set"), "{said}");
    }

    #[test]
    fn what_is_no_jar_is_refused_and_a_jar_has_its_digest() {
        let home = tempfile::tempdir().expect("directory");
        let path = home.path().join("a.jar");
        fs::write(&path, "<html>log in</html>").expect("written");
        let said = Jar::read(&path).expect_err("no jar");
        assert!(said.contains("a.jar: it is no jar"), "{said}");
        fs::write(&path, "PK").expect("written");
        let jar = Jar::read(&path).expect("a jar");
        assert_eq!(jar.digest, "fcab7fcc2b4cffd9bb45003bfc2e468a04ef6f77ca8200a7341f027631584d25");
        assert!(Jar::read(&home.path().join("none.jar")).expect_err("none").contains("none.jar"));
    }
}
