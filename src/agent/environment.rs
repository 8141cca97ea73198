//! What a process inherits: a cleared environment plus an allow-list, and the program that its `PATH` names.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use super::wasm;
use crate::{id::AgentName, protocol::exec::Refusal};

/// What passes from the agent's environment to its processes; anything else may hold a secret.
const ALLOWED: [&str; 9] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "SHELL", "TERM"];

/// Where programs are looked up if the agent itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A process's environment.
#[derive(Debug, Clone)]
pub(super) struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// What every process of an agent gets.
    pub fn of_agent(
        own: impl IntoIterator<Item = (OsString, OsString)>,
        name: &AgentName,
        labels: &BTreeMap<String, String>,
    ) -> Self {
        let mut variables: BTreeMap<_, _> = own.into_iter().filter(|(key, _)| is_allowed(key)).collect();
        variables.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        variables.insert("RK".into(), "1".into());
        variables.insert("RK_AGENT_NAME".into(), name.as_str().into());
        variables.insert("RK_AGENT_LABELS".into(), labels.join(",").into());
        Self(variables)
    }

    /// The same with a request's own variables.
    pub fn with(&self, request: &[(String, String)]) -> Result<Self, Refusal> {
        let mut variables = self.0.clone();
        for (key, value) in request {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                let key: String = key.chars().take(80).collect();
                return Err(Refusal::Failed(format!("environment variable {key:?} is malformed")));
            }
            variables.insert(key.into(), value.into());
        }
        Ok(Self(variables))
    }

    /// Sets one variable, whose name is known to be one.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.0.insert(name.into(), value.into());
    }

    /// A variable's value.
    pub fn value(&self, name: &str) -> Option<&OsString> {
        self.0.get(OsStr::new(name))
    }

    /// The variables, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }

    /// The file that `program` names, seen from the directory `cwd`.
    pub fn find(&self, program: &str, cwd: &Path) -> Result<PathBuf, Refusal> {
        if program.contains('/') {
            return check(cwd.join(program), program);
        }
        let path = self.0.get(OsStr::new("PATH")).map_or(OsStr::new(""), OsString::as_os_str);
        let mut refusal = Refusal::NotFound(format!("{program}: command not found"));
        for dir in std::env::split_paths(path) {
            match check(cwd.join(dir).join(program), program) {
                Ok(file) => return Ok(file),
                Err(not_executable @ Refusal::NotExecutable(_)) => refusal = not_executable,
                Err(_) => {}
            }
        }
        Err(refusal)
    }
}

fn is_allowed(key: &OsStr) -> bool {
    ALLOWED.iter().any(|allowed| key == *allowed) || key.as_bytes().starts_with(b"LC_")
}

fn check(file: PathBuf, program: &str) -> Result<PathBuf, Refusal> {
    match fs::metadata(&file) {
        Ok(found) if found.is_dir() => Err(Refusal::NotExecutable(format!("{program}: is a directory"))),
        Ok(found) if found.permissions().mode() & 0o111 == 0 && !wasm::is_named_like_one(program) => {
            Err(refuse(program, io::ErrorKind::PermissionDenied.into()))
        }
        Ok(_) => Ok(file),
        Err(error) => Err(refuse(program, error)),
    }
}

/// What a shell would say of an error at a start.
pub(super) fn refuse(program: &str, error: io::Error) -> Refusal {
    const ENOEXEC: i32 = nix::errno::Errno::ENOEXEC as i32;
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Refusal::NotFound(format!("{program}: no such file or directory"))
        }
        io::ErrorKind::PermissionDenied => Refusal::NotExecutable(format!("{program}: permission denied")),
        _ if error.raw_os_error() == Some(ENOEXEC) => {
            Refusal::NotExecutable(format!("{program}: neither a program nor a script that starts with #!"))
        }
        _ => Refusal::Failed(format!("{program}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(own: &[(&str, &str)]) -> Environment {
        let labels = BTreeMap::from([("os".to_owned(), "linux".to_owned()), ("role".to_owned(), "web".to_owned())]);
        let own = own.iter().map(|(key, value)| (key.into(), value.into()));
        Environment::of_agent(own, &"a1".parse().expect("name"), &labels)
    }

    fn text(environment: &Environment) -> Vec<String> {
        environment.iter().map(|(k, v)| format!("{}={}", k.display(), v.display())).collect()
    }

    #[test]
    fn only_the_allow_list_passes_and_the_request_is_added() {
        let own = environment(&[("PATH", "/bin"), ("RK_CREDENTIAL", "rk1.x"), ("LC_ALL", "C"), ("LD_PRELOAD", "x.so")]);
        let all = own.with(&[("A".to_owned(), "b c".to_owned())]).expect("fine");
        let expected =
            ["A=b c", "LC_ALL=C", "PATH=/bin", "RK=1", "RK_AGENT_LABELS=os=linux,role=web", "RK_AGENT_NAME=a1"];
        assert_eq!(text(&all), expected);
        for bad in ["", "A=B", "A\0"] {
            assert!(matches!(own.with(&[(bad.to_owned(), String::new())]), Err(Refusal::Failed(_))), "{bad:?}");
        }
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let dir = tempfile::tempdir().expect("dir");
        let plain = dir.path().join("plain");
        fs::write(&plain, "").expect("write");
        let path = format!("/nowhere:{}:/bin", dir.path().display());
        let own = environment(&[("PATH", &path)]);
        assert_eq!(own.find("sh", Path::new("/")).expect("sh"), Path::new("/bin/sh"));
        assert_eq!(own.find("bin/sh", Path::new("/")).expect("relative"), Path::new("/bin/sh"));
        assert!(matches!(own.find("plain", Path::new("/")), Err(Refusal::NotExecutable(_))));
        assert!(matches!(own.find("/bin", Path::new("/")), Err(Refusal::NotExecutable(_))));
        assert!(matches!(own.find("no-such-program", Path::new("/")), Err(Refusal::NotFound(_))));
        assert!(matches!(own.find("./no-such-program", Path::new("/")), Err(Refusal::NotFound(_))));
        assert!(matches!(own.find("", Path::new("/")), Err(Refusal::NotFound(_) | Refusal::NotExecutable(_))));
    }
}
