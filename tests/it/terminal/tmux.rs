//! Programs that fill the screen, as a person sees them: `rk` in a window of tmux, which is typed at, looked at, and made smaller.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    rig::{PATIENCE, Rig},
    support::wait,
};

/// A window of a tmux of its own. Dropping it ends that.
struct Window {
    socket: PathBuf,
}

impl Window {
    fn open(rig: &Rig, args: &[&str]) -> Window {
        for (program, package) in [("tmux", "tmux"), ("vi", "vim-tiny"), ("top", "procps")] {
            let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output().unwrap();
            assert!(found.status.success(), "{program} is missing; apt-get install {package}");
        }
        let window = Window { socket: rig.path("tmux") };
        let rk = rig.rk(args);
        let mut tmux = window.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30"]);
        tmux.arg("env").arg("-u").arg("TMUX");
        for (name, value) in rk.get_envs() {
            tmux.arg(format!("{}={}", name.display(), value.unwrap_or_default().display()));
        }
        tmux.arg(rk.get_program()).args(rk.get_args());
        assert!(tmux.status().unwrap().success());
        window
    }

    fn tmux(&self, args: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(&self.socket).args(args).env("LC_ALL", "C.UTF-8");
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let ran = self.tmux(args).output().unwrap();
        assert!(ran.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    /// Waits until what runs in it has ended, and the window with it.
    fn wait_gone(&self) {
        wait::until("the window is gone", PATIENCE, || {
            let ran = self.tmux(&["list-sessions"]).output().unwrap();
            if ran.status.success() { Err(String::from_utf8_lossy(&ran.stdout).into_owned()) } else { Ok(()) }
        });
    }

    fn line(&self, line: &str) {
        self.run(&["send-keys", "-l", line]);
        self.run(&["send-keys", "Enter"]);
    }

    /// Waits until the screen's lines are as wanted, and returns them.
    fn shows(&self, what: &str, wanted: impl Fn(&[&str]) -> bool) -> String {
        wait::until(what, PATIENCE, || {
            let screen = self.run(&["capture-pane", "-p"]);
            let lines: Vec<&str> = screen.lines().collect();
            if wanted(&lines) { Ok(screen.clone()) } else { Err(format!("\n{screen}")) }
        })
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]).output().ok();
    }
}

/// Whether a vi with numbers fills a screen of so many rows with the lines 1 to 100, up to where it stands, in the last row.
fn is_vi(lines: &[&str], rows: usize) -> bool {
    let numbered = |(index, line): (usize, &&str)| line.trim_start().starts_with(&format!("{} line-", index + 1));
    lines.len() == rows && lines[..rows - 1].iter().enumerate().all(numbered) && lines[rows - 1].contains("1,1")
}

#[test]
fn vi_and_top_fill_the_screen_whatever_its_size() {
    let rig = Rig::start("tmux");
    let _agent = rig.agent("a", &[]);
    let text: String = (1..=100).map(|number| format!("line-{number}\n")).collect();
    fs::write(rig.path("text"), text).unwrap();
    let window = Window::open(&rig, &["exec", "-it", "--resume", "20s", "a", "--", "sh"]);
    let has = |text: &'static str| move |lines: &[&str]| lines.iter().any(|line| line.trim_end() == text);
    window.line("echo re''ady; stty size");
    window.shows("the shell has the window's size", has("30 100"));

    window.line(&format!("vi -u NONE -c 'set ruler number' {}", rig.path("text").display()));
    let large = window.shows("vi fills 30 rows", |lines| is_vi(lines, 30));
    window.run(&["resize-window", "-x", "60", "-y", "12"]);
    let small = window.shows("vi fills 12 rows", |lines| is_vi(lines, 12));
    println!("vi before:\n{large}\nvi after:\n{small}");
    window.run(&["send-keys", "-l", "Gonew line"]);
    window.run(&["send-keys", "Escape"]);
    window.line(":wq");
    // What is typed before it has gone may still be read by it.
    window.shows("vi is gone", |lines| !lines.iter().any(|line| line.contains("line-")));
    window.line("stty size");
    window.shows("the shell is back, with the new size", has("12 60"));
    wait::until("vi wrote", PATIENCE, || {
        let text = fs::read_to_string(rig.path("text")).unwrap();
        if text.ends_with("line-100\nnew line\n") { Ok(()) } else { Err(text) }
    });

    window.line("top -d 1");
    let is_top = |lines: &[&str]| {
        lines.first().is_some_and(|line| line.starts_with("top -"))
            && lines.iter().any(|line| line.contains("PID USER"))
    };
    window.shows("top shows processes", move |lines| lines.len() == 12 && is_top(lines));
    window.run(&["resize-window", "-x", "90", "-y", "25"]);
    let filled =
        move |lines: &[&str]| is_top(lines) && lines.iter().filter(|line| !line.trim().is_empty()).count() > 12;
    window.shows("top fills the larger window", filled);
    window.run(&["send-keys", "q"]);
    let is_prompt = |lines: &[&str]| {
        let last = lines.iter().rev().find(|line| !line.is_empty());
        last.is_some_and(|line| ["#", "$"].contains(&line.trim_end()))
    };
    window.shows("top is gone", is_prompt);
    window.line("stty size");
    window.shows("the shell is back", has("25 90"));
    // Its end is told before its agent's.
    window.line("exit");
    window.wait_gone();
}

#[test]
fn what_fills_the_screen_is_there_again_after_an_attach() {
    let rig = Rig::start("tmux-attach");
    let _agent = rig.agent("a", &[]);
    let text: String = (1..=100).map(|number| format!("line-{number}\n")).collect();
    fs::write(rig.path("text"), text).unwrap();
    let text = rig.path("text");
    let first = super::screen::Screen::start(
        &rig,
        &["exec", "-it", "a", "--", "vi", "-u", "NONE", "-c", "set ruler number", text.to_str().unwrap()],
    );
    first.wait_for("line-29");
    let kept = first.kept();
    first.kill();
    // In a window of the same size nothing but a word tells vi to draw.
    let window = Window::open(&rig, &["exec", "--attach", &kept]);
    window.shows("vi fills 30 rows", |lines| is_vi(lines, 30));
    window.line(":q");
    window.wait_gone();
}
