//! What runs as another user than the agent's has that user's rights, and not the agent's.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
};

use nix::unistd::{User, geteuid};

use crate::{
    failures::{refused, replaced},
    rig::{PATIENCE, Rig, run},
    support::wait,
};

const NOBODY: &str = "nobody";

/// Everybody may pass through the test's directory.
fn open(rig: &Rig) {
    fs::set_permissions(rig.path(""), fs::Permissions::from_mode(0o711)).unwrap();
}

fn nobody() -> User {
    User::from_name(NOBODY).unwrap().unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).mode() & 0o777
}

/// An agent's command that must be refused: it never comes to look at its credential.
pub fn agent_command(rig: &Rig, user: &str) -> Command {
    let mut command = replaced(rig.agent_command("a", Path::new("")), "--credential", "env:CREDENTIAL");
    let half = "A".repeat(43);
    command.args(["--run-as", user]).env("CREDENTIAL", format!("rk1.a.{half}.{half}"));
    command
}

#[test]
fn only_root_runs_commands_as_somebody_else() {
    let rig = Rig::prepare("nobody-else", 2);
    let mut command = agent_command(&rig, NOBODY);
    if geteuid().is_root() {
        refused(agent_command(&rig, "root"), 64, &["--run-as", "credential", "another user"]);
        refused(agent_command(&rig, "no-such-user"), 64, &["--run-as", "no-such-user", "useradd"]);
        // From here on as nobody, who may not come to where the program was built.
        open(&rig);
        fs::copy(command.get_program(), rig.path("rk")).unwrap();
        let nobody = nobody();
        let mut other = Command::new("setpriv");
        other.args(["--reuid", &nobody.uid.to_string(), "--regid", &nobody.gid.to_string(), "--clear-groups", "--"]);
        other.arg(rig.path("rk")).args(command.get_args()).env_clear();
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = other;
    }
    refused(command, 64, &["--run-as", "only root", "start the agent as root"]);
}

#[test]
fn what_runs_as_another_user_has_its_home_its_files_and_not_the_agents_credential() {
    if !geteuid().is_root() {
        let rig = Rig::prepare("run-as", 2);
        refused(agent_command(&rig, NOBODY), 64, &["only root"]);
        return;
    }
    let rig = Rig::start("run-as");
    open(&rig);
    let credential = rig.add("a", &[]);
    let mut command = rig.agent_command("a", &credential);
    command.args(["--run-as", NOBODY]);
    let mut agent = rig.process(command, "a.log");
    rig.wait_online("a", &mut agent);
    let home = nobody().dir.display().to_string();
    let place = if nobody().dir.is_dir() { home.as_str() } else { "/" };
    let shown = format!("nobody\n{home} nobody nobody\n{place}\nin");
    let look = "id -un; echo $HOME $USER $LOGNAME; pwd; cat /dev/stdin; echo err >/dev/stderr";
    let environment = format!("/proc/{}/environ", agent.id());
    for resume in [&["--resume", "60s"], &["--resume", "0s"]] {
        let exec = |command: &[&str], stdin: &[u8]| {
            run(rig.rk(&[&["exec"], &resume[..], &["a", "--"], command].concat()), stdin)
        };
        let ran = exec(&["sh", "-c", look], b"in").ok();
        assert_eq!((ran.text(), ran.stderr.as_str()), (shown.clone(), "err\n"));
        for secret in [credential.to_str().unwrap(), &environment] {
            let ran = exec(&["cat", secret], b"").code(1);
            assert!(ran.stdout.is_empty() && ran.stderr.contains("ermission denied"), "{}", ran.stderr);
        }
        exec(&["no-such-program"], b"").code(127);
    }
    let dir = rig.path("a.data/agent/a");
    for open in [rig.path("a.data"), rig.path("a.data/agent"), dir.clone(), dir.join("work")] {
        assert_eq!(mode(&open) & 0o011, 0o011, "{}", open.display());
    }
    assert_eq!(mode(&dir.join("execs")), 0o700);

    a_job(&rig, &credential);
    assert_eq!(mode(&dir.join("jobs")), 0o700);
    wait::until("what the job was given is removed", PATIENCE, || {
        let left: Vec<_> = fs::read_dir(dir.join("work")).unwrap().flatten().map(|entry| entry.path()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert!(agent.ended().is_none());
}

/// A job with a script, input, and a secret in a file.
fn a_job(rig: &Rig, credential: &Path) {
    let script = format!(
        "#!/bin/sh\n\
         id -un\n\
         test \"$(cat \"$KEY\")\" = \"$WANTED\" || exit 9\n\
         for path in \"$KEY\" \"$(dirname \"$KEY\")\" \"$0\" \"$(dirname \"$0\")\" .; do stat -c '%U %a' \"$path\"; done\n\
         cat\n\
         touch made && test \"$PWD\" = \"$RK_WORKSPACE\" || exit 8\n\
         cat {} && exit 7\n\
         echo $HOME $USER >/dev/stderr\n\
         exit 3\n",
        credential.display()
    );
    for (name, text) in [("s.sh", script.as_str()), ("input", "in\n"), ("key", "k-value")] {
        fs::write(rig.path(name), text).unwrap();
        fs::set_permissions(rig.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let path = |name: &str| rig.path(name).display().to_string();
    let key = format!("KEY=file:{}", path("key"));
    let (script, input) = (path("s.sh"), path("input"));
    // What the variable holds is masked only where it is printed.
    let given = ["run", "-e", "WANTED=k-value", "--secret-file", &key, "--stdin", &input, "--script", &script];
    let ran = rig.run(&given).code(3);
    let (file, private) = ("nobody 600\n", "nobody 700\n");
    assert_eq!(ran.text(), format!("nobody\n{file}{private}{private}{private}{private}in\n"), "{}", ran.stderr);
    let home = nobody().dir;
    assert!(ran.stderr.contains("ermission denied"), "{}", ran.stderr);
    assert!(ran.stderr.lines().any(|line| line == format!("{} nobody", home.display())), "{}", ran.stderr);
    // A plain command too, and one whose directory is another.
    assert_eq!(rig.run(&["run", "-q", "--", "id", "-un"]).ok().text(), "nobody\n");
    assert_eq!(rig.run(&["run", "-q", "--cwd", "/", "--", "pwd"]).ok().text(), "/\n");
}
