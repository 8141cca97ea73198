//! A terminal at which a test sits, with `rk` on its other side.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use nix::fcntl::OFlag;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize},
};

use crate::{
    rig::{PATIENCE, Rig, Running},
    support::wait,
};

/// A terminal and who has it.
pub struct Screen {
    side: File,
    /// Kept open, so that it outlives its command and can be looked at.
    other: File,
    seen: Arc<Mutex<Vec<u8>>>,
    before: Termios,
    command: Running,
}

impl Screen {
    /// `rk` with these arguments at a terminal of 100 columns and 30 rows.
    pub fn start(rig: &Rig, args: &[&str]) -> Screen {
        let side = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&side).unwrap();
        unlockpt(&side).unwrap();
        let name = ptsname(&side, Vec::new()).unwrap().into_string().unwrap();
        let other = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(name).unwrap();
        let side = File::from(side);
        set_size(&side, 100, 30);
        let before = tcgetattr(&other).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut source, sink) = (side.try_clone().unwrap(), seen.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = source.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        let rk = rig.rk(args);
        // It executes what follows itself, with this terminal as the one of its session.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(rk.get_program()).args(rk.get_args()).env_clear();
        command.envs(rk.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
        let end = || Stdio::from(other.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end());
        let command = Running::start(command);
        Screen { side, other, seen, before, command }
    }

    /// Presses these keys.
    pub fn press(&mut self, keys: &str) {
        self.side.write_all(keys.as_bytes()).unwrap();
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) {
        self.press(&format!("{line}\r"));
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        set_size(&self.side, columns, rows);
    }

    /// What has come so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// Waits until this text has come.
    pub fn wait_for(&self, text: &str) {
        wait::until(&format!("{text:?} is on the screen"), PATIENCE, || {
            let seen = self.text();
            if seen.contains(text) { Ok(()) } else { Err(seen) }
        });
    }

    /// Waits for what stands between these two texts.
    pub fn between(&self, before: &str, after: &str) -> String {
        wait::until(&format!("something stands between {before:?} and {after:?}"), PATIENCE, || {
            let seen = self.text();
            let found = seen.split_once(before).and_then(|(_, rest)| rest.split_once(after));
            found.map(|(found, _)| found.to_owned()).ok_or(seen.clone())
        })
    }

    /// What names this execution to `--attach`.
    pub fn kept(&self) -> String {
        self.between("--attach ", "\r\n")
    }

    /// Waits until `rk` has taken the terminal.
    pub fn wait_raw(&self) {
        wait::until("the terminal is raw", PATIENCE, || {
            let is_raw = !tcgetattr(&self.other).unwrap().local_modes.contains(LocalModes::ICANON);
            if is_raw { Ok(()) } else { Err(self.text()) }
        });
    }

    /// Sends `rk` a signal.
    pub fn signal(&self, signal: &str) {
        self.command.signal(signal);
    }

    /// Waits until all signals that were sent have been taken.
    pub fn pause(&mut self) {
        let id = self.command.0.id();
        wait::until("no signal is pending", PATIENCE, || {
            if self.command.0.try_wait().unwrap().is_some() {
                return Ok(());
            }
            let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
            let pending = status.lines().filter(|line| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"));
            if pending.clone().all(|line| line.ends_with("0000000000000000")) { Ok(()) } else { Err(status.clone()) }
        });
    }

    /// `kill -9` of `rk`.
    pub fn kill(mut self) {
        self.command.0.kill().unwrap();
        self.command.0.wait().unwrap();
    }

    /// The exit code at the end.
    pub fn code(&mut self) -> i32 {
        let status = wait::until("rk ends", PATIENCE, || self.command.0.try_wait().unwrap().ok_or_else(|| self.text()));
        let code = status.code().unwrap_or_else(|| panic!("{status}"));
        // What was written last has come when this has.
        (&self.other).write_all(b"<end>").unwrap();
        self.wait_for("<end>");
        code
    }

    /// Panics unless the terminal is as it was before `rk` had it.
    pub fn assert_as_before(&self) {
        let now = tcgetattr(&self.other).unwrap();
        let modes = |modes: &Termios| (modes.input_modes, modes.output_modes, modes.control_modes, modes.local_modes);
        assert_eq!(modes(&now), modes(&self.before));
    }
}

fn set_size(side: &File, columns: u16, rows: u16) {
    tcsetwinsize(side, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}
