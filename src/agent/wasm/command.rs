//! From a command whose program is a module to one that runs it.
//!
//! What is asked for stays what it is for everybody else: the agent's policy looks at the caller's words, and only what is executed
//! in the end differs.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    Runner,
    order::{Folder, Order},
};
use crate::{agent::environment::Environment, protocol::exec::Refusal};

/// What every module begins with.
const MAGIC: [u8; 4] = *b"\0asm";

/// What makes commands of modules runnable.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Modules {
    /// What runs them; without it there is nothing that does.
    pub runner: Option<Runner>,
    /// The agent's own files, which no module gets with its directory.
    pub data: PathBuf,
}

/// What a module may touch.
#[derive(Debug, Clone, Copy)]
pub(in crate::agent) struct Place<'a> {
    /// Where the command runs: `.` of the module, which may write there.
    pub cwd: &'a Path,
    /// The job's directory, if it has one; the command may also run below it.
    pub workspace: Option<&'a Path>,
    /// The job's secrets that are files, if there are any. Only read.
    pub secrets: Option<&'a Path>,
    /// The directory of the bundle that the command came from, if it came from one: `/bundle` of the module. Only read.
    pub bundle: Option<&'a Path>,
}

impl Modules {
    /// The file to execute and its arguments, where `found` is to run with `argv` and this environment.
    pub fn executable(
        &self,
        found: PathBuf,
        argv: Vec<OsString>,
        environment: &Environment,
        place: Place<'_>,
    ) -> Result<(PathBuf, Vec<OsString>), Refusal> {
        if !is_module(&found) {
            return Ok((found, argv));
        }
        let name = argv.first().map_or(found.as_os_str(), OsString::as_os_str).display();
        let Some(runner) = &self.runner else {
            let why = "a WebAssembly module, and this agent was built without what runs them (the feature wasm)";
            return Err(Refusal::NotExecutable(format!("{name}: {why}")));
        };
        let folders = place.folders(&self.data).map_err(|why| Refusal::NotExecutable(format!("{name}: {why}")))?;
        let names = environment.iter().map(|(name, _)| name.as_os_str());
        Ok(wrapped(runner, found, argv, names, folders))
    }

    /// Whether this file is one, which no script can have as its interpreter: a module would not find the script.
    pub fn refuse_interpreter(&self, found: &Path, name: &str) -> Result<(), Refusal> {
        let why = "a WebAssembly module can't be a script's interpreter; name it as the command and give it the script as input";
        if is_module(found) { Err(Refusal::NotExecutable(format!("{name}: {why}"))) } else { Ok(()) }
    }
}

/// The command that runs the module in the file `found`. Pure.
fn wrapped<'a>(
    runner: &Runner,
    found: PathBuf,
    argv: Vec<OsString>,
    names: impl Iterator<Item = &'a OsStr>,
    folders: Vec<Folder>,
) -> (PathBuf, Vec<OsString>) {
    let mut argv = argv.into_iter();
    let order = Order {
        folders,
        variables: names.map(|name| (name.to_owned(), None)).collect(),
        limits: runner.limits,
        name: argv.next(),
        module: found,
        arguments: argv.collect(),
    };
    let mut words = vec![OsString::from("rk")];
    words.extend_from_slice(&runner.program.args);
    words.extend(order.words());
    (runner.program.path.clone(), words)
}

/// Whether a file that was found is to be run as a module: it says so by its name, or by how it begins.
fn is_module(file: &Path) -> bool {
    file.extension() == Some(OsStr::new("wasm")) || begins_like_one(file).unwrap_or(false)
}

fn begins_like_one(file: &Path) -> io::Result<bool> {
    // A pipe is not waited for.
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file: File = OpenOptions::new().read(true).custom_flags(nonblocking).open(file)?;
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut start = [0; MAGIC.len()];
    (&file).read_exact(&mut start)?;
    Ok(start == MAGIC)
}

impl<'a> Place<'a> {
    /// That of an execution: the directory that it runs in.
    pub fn of_exec(cwd: &'a Path) -> Self {
        Self { cwd, workspace: None, secrets: None, bundle: None }
    }

    /// What is granted. The error says why it can't be.
    fn folders(&self, data: &Path) -> Result<Vec<Folder>, String> {
        let real = |path: &Path| fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()));
        let cwd = real(self.cwd)?;
        let workspace = self.workspace.map(real).transpose()?;
        // It may be missing where nothing was written yet.
        let data = fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
        if !may_have(&cwd, &data, workspace.as_deref()) {
            let cure = "run it with --cwd in another directory, or give the agent one with --work";
            let cwd = cwd.display();
            return Err(format!(
                "a module may write where it runs, and with {cwd} it would get the agent's own files; {cure}"
            ));
        }
        let mut folders = vec![Folder::new(&cwd, Path::new("."), true)];
        // Also by the names that its variables and arguments say.
        folders.push(Folder::new(&cwd, self.cwd, true));
        folders.extend(workspace.iter().zip(self.workspace).map(|(real, path)| Folder::new(real, path, true)));
        if let Some(bundle) = self.bundle {
            folders.extend([Path::new("/bundle"), bundle].map(|guest| Folder::new(bundle, guest, false)));
        }
        folders.extend(self.secrets.map(|secrets| Folder::new(secrets, secrets, false)));
        let mut folders: Vec<Folder> = folders.into_iter().flatten().collect();
        folders.dedup();
        Ok(folders)
    }
}

/// Whether a module may have the directory `cwd`: not what is the agent's, but the job's own. Pure; all are real paths.
fn may_have(cwd: &Path, data: &Path, workspace: Option<&Path>) -> bool {
    workspace.is_some_and(|workspace| cwd.starts_with(workspace)) || !(cwd.starts_with(data) || data.starts_with(cwd))
}

/// Whether a program of this name needs no right to be executed: it is only read.
pub(in crate::agent) fn is_named_like_one(program: &str) -> bool {
    program.as_bytes().ends_with(b".wasm")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::agent::wasm::Limits;

    fn modules(data: &Path) -> Modules {
        let runner = Runner::ourselves(Limits { memory: 1 << 20, fuel: Some(9) });
        Modules { runner: Some(runner), data: data.to_owned() }
    }

    fn environment() -> Environment {
        let own = [("PATH".into(), "/bin".into())];
        let environment = Environment::of_agent(own, &"a1".parse().expect("name"), &BTreeMap::new());
        environment.with(&[("SECRET".to_owned(), "s3".to_owned())]).expect("fine")
    }

    #[test]
    fn a_modules_command_becomes_ours_and_others_stay() {
        let dir = tempfile::tempdir().expect("dir");
        let (cwd, data) = (fs::canonicalize(dir.path()).expect("dir"), Path::new("/nowhere/data"));
        let argv = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        for (name, bytes, is_one) in
            [("t.wasm", "", true), ("tool", "\0asm\x01", true), ("t.sh", "#!/bin/sh", false), ("short", "\0as", false)]
        {
            let file = cwd.join(name);
            fs::write(&file, bytes).expect("write");
            let given = argv(&[name, "-a", "--"]);
            let (program, words) = modules(data)
                .executable(file.clone(), given.clone(), &environment(), Place::of_exec(&cwd))
                .expect("fine");
            if !is_one {
                assert_eq!((program, words), (file, given));
                continue;
            }
            assert_eq!((program.to_str(), words[1].to_str()), (Some("/proc/self/exe"), Some("wasm-run")));
            // No value is on the command line.
            assert!(!words.iter().any(|word| word.to_string_lossy().contains("s3")), "{words:?}");
            let order = Order::parse(&words[2..]).expect("it is read back");
            assert_eq!((order.module, order.name, order.arguments), (file, Some(name.into()), argv(&["-a", "--"])));
            assert!(order.variables.contains(&("SECRET".into(), None)), "{:?}", order.variables);
            assert_eq!((order.limits.memory, order.limits.fuel), (1 << 20, Some(9)));
            let guests: Vec<_> = order.folders.iter().map(|folder| (folder.guest(), folder.writable)).collect();
            assert_eq!(guests, [(Path::new("."), true), (&*cwd, true)]);
        }
        let none = Modules { runner: None, data: data.to_owned() };
        let refused = none.executable(cwd.join("t.wasm"), argv(&["t.wasm"]), &environment(), Place::of_exec(&cwd));
        assert!(matches!(&refused, Err(Refusal::NotExecutable(why)) if why.contains("feature wasm")), "{refused:?}");
        assert!(modules(data).refuse_interpreter(&cwd.join("tool"), "tool").is_err());
        assert!(modules(data).refuse_interpreter(&cwd.join("t.sh"), "t.sh").is_ok());
    }

    #[test]
    fn a_pipe_is_no_module_and_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("dir");
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        assert!(!is_module(&pipe));
    }

    #[test]
    fn the_agents_own_files_are_not_granted_and_a_jobs_are() {
        let path = Path::new;
        let (data, workspace) = (path("/var/lib/rk"), Some(path("/var/lib/rk/agent/a/work/j.1")));
        for (cwd, workspace, may) in [
            ("/srv", None, true),
            ("/var/lib/rkx", None, true),
            ("/", None, false),
            ("/var/lib", None, false),
            ("/var/lib/rk", None, false),
            ("/var/lib/rk/agent/a/work/j.1", None, false),
            ("/var/lib/rk/agent/a/work/j.1", workspace, true),
            ("/var/lib/rk/agent/a/work/j.1/sub", workspace, true),
            ("/var/lib/rk/agent/a/work/j.10", workspace, false),
            ("/var/lib/rk/agent/a", workspace, false),
            ("/srv", workspace, true),
        ] {
            assert_eq!(may_have(path(cwd), data, workspace), may, "{cwd} {workspace:?}");
        }
    }

    #[test]
    fn a_job_gets_its_secrets_and_its_bundle_to_read() {
        let dir = tempfile::tempdir().expect("dir");
        let top = fs::canonicalize(dir.path()).expect("dir");
        let [workspace, secrets, bundle] = ["work", "secrets", "bundle"].map(|name| top.join(name));
        for dir in [&workspace.join("sub"), &secrets, &bundle] {
            fs::create_dir_all(dir).expect("dir");
        }
        let cwd = workspace.join("sub");
        let place = Place { cwd: &cwd, workspace: Some(&workspace), secrets: Some(&secrets), bundle: Some(&bundle) };
        let folders = place.folders(&top).expect("the job's own");
        let shown: Vec<_> = folders.iter().map(|folder| (&*folder.host, folder.guest(), folder.writable)).collect();
        let expected: [(&Path, &Path, bool); 6] = [
            (&cwd, ".".as_ref(), true),
            (&cwd, &cwd, true),
            (&workspace, &workspace, true),
            (&bundle, "/bundle".as_ref(), false),
            (&bundle, &bundle, false),
            (&secrets, &secrets, false),
        ];
        assert_eq!(shown, expected);
        let outside = Place { cwd: &top, ..place };
        assert!(outside.folders(&top).expect_err("the agent's").contains("--work"));
    }
}
