//! Our own terminal: its size, its kind, and that it gives us each key as it is typed.

use std::{
    fs::File,
    io::{self, IsTerminal},
    os::fd::{AsFd, BorrowedFd},
    str::FromStr,
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::{
    api::exec::Terminal,
    id::{AgentName, ExecId},
};

/// What a terminal is taken for that does not say what it is.
const PLAIN: &str = "dumb";

/// The size where there is no terminal to ask: what programs expect of one.
const USUAL: (u16, u16) = (80, 24);

/// Whether stdin is a terminal.
pub fn is_ours() -> bool {
    io::stdin().is_terminal()
}

/// Its size in columns and rows.
pub fn size() -> (u16, u16) {
    let ask = |fd: BorrowedFd<'_>| tcgetwinsize(fd).ok().map(|size| (size.ws_col, size.ws_row));
    let found = ask(io::stdin().as_fd()).or_else(|| ask(io::stdout().as_fd()));
    found.filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(USUAL)
}

/// What the agent is told of it; `kind` is our `TERM`.
pub fn describe(kind: Option<&str>) -> Terminal {
    let (columns, rows) = size();
    let kind = kind.filter(|kind| !kind.is_empty()).unwrap_or(PLAIN).to_owned();
    Terminal { kind, columns, rows }
}

/// As long as it lives, our terminal hands on every key at once and changes nothing of what is written. Its drop puts back what was, however
/// we end, save by SIGKILL.
pub struct Raw {
    terminal: File,
    before: Termios,
}

impl Raw {
    /// From now on.
    pub fn enter() -> io::Result<Self> {
        let terminal = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let raw = Self { before: tcgetattr(&terminal)?, terminal };
        raw.again()?;
        Ok(raw)
    }

    /// Once more, after somebody else had the terminal.
    pub fn again(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        Ok(tcsetattr(&self.terminal, OptionalActions::Now, &raw)?)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Not when everything was written: that may take for ever.
        tcsetattr(&self.terminal, OptionalActions::Now, &self.before).ok();
    }
}

/// What `--attach` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// On which agent.
    pub agent: AgentName,
    /// Which execution.
    pub id: ExecId,
}

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} names nothing to come back to; use AGENT/ID as it was printed at the start");
        let (agent, id) = text.split_once('/').ok_or_else(wrong)?;
        let digits = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u128::from_str_radix(id, 16).ok().filter(|_| digits).ok_or_else(wrong)?;
        Ok(Self { agent: agent.parse().map_err(|error: crate::id::InvalidName| error.to_string())?, id: ExecId(id) })
    }
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.agent, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_can_be_named_again() {
        let kept = Kept { agent: "a-1".parse().expect("name"), id: ExecId(0x1f) };
        assert_eq!(kept.to_string(), "a-1/0000000000000000000000000000001f");
        assert_eq!(kept.to_string().parse(), Ok(kept));
        for bad in ["", "a", "a/", "a/1f", "/0000000000000000000000000000001f", "a/+000000000000000000000000000001f"] {
            assert!(bad.parse::<Kept>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_terminal_that_says_nothing_is_a_plain_one() {
        assert_eq!(describe(None).kind, "dumb");
        assert_eq!(describe(Some("")).kind, "dumb");
        assert_eq!(describe(Some("xterm")).kind, "xterm");
    }
}
