//! When a process is told to end, and when its attempt is over. Pure: the time is an argument.
//!
//! ```text
//! handle_cancel(now, signal, grace)   handle_kill(now)    handle_time(now)
//! handle_exit(now)                    handle_output_end(now)   handle_alone(now)
//! poll_action() -> Option<Action>     deadline() -> Option<Duration>     is_over() -> bool
//! ```
//!
//! `now` is time since boot. An attempt is over when its process ended, its output ended, and no process of it is left or those
//! that are left may stay.

use std::{collections::VecDeque, time::Duration};

use super::spec::{Background, Cause};

/// How long killed processes may take to go. One that the kernel does not let go takes longer, and is left.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Send this signal to the process group, and SIGCONT.
    Signal(i32),
    /// Kill all processes of the attempt, and go on killing what appears.
    Kill,
    /// Take what output is there already, and then close it, whoever still holds it.
    CloseOutput,
}

/// What the rules depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub timeout: Option<Duration>,
    pub signal: i32,
    pub grace: Duration,
    pub linger: Duration,
    pub background: Background,
}

/// The life of one attempt's processes.
#[derive(Debug)]
pub(super) struct Life {
    rules: Rules,
    /// When the timeout is due.
    timeout_at: Option<Duration>,
    cause: Option<Cause>,
    /// When those that were asked to end are killed.
    kill_at: Option<Duration>,
    killed_at: Option<Duration>,
    exited_at: Option<Duration>,
    killed_leftovers: bool,
    output_ended: bool,
    /// No process is left.
    alone: bool,
    /// Whoever is left may stay.
    left_alone: bool,
    actions: VecDeque<Action>,
}

impl Life {
    pub fn new(now: Duration, rules: Rules) -> Self {
        Self {
            rules,
            timeout_at: rules.timeout.map(|timeout| now.saturating_add(timeout)),
            cause: None,
            kill_at: None,
            killed_at: None,
            exited_at: None,
            killed_leftovers: false,
            output_ended: false,
            alone: false,
            left_alone: false,
            actions: VecDeque::new(),
        }
    }

    /// An order to end. A later one may shorten the grace, never lengthen it.
    pub fn handle_cancel(&mut self, now: Duration, signal: i32, grace: Duration) {
        if self.exited_at.is_none() {
            self.ask_to_end(now, Cause::Cancelled, signal, grace);
        } else {
            self.shorten(now.saturating_add(grace));
        }
        self.settle(now);
    }

    /// An order to end at once.
    pub fn handle_kill(&mut self, now: Duration) {
        if self.exited_at.is_none() {
            self.cause.get_or_insert(Cause::Cancelled);
        }
        self.kill(now);
    }

    /// The process ended and was reaped.
    pub fn handle_exit(&mut self, now: Duration) {
        self.exited_at = Some(now);
        self.settle(now);
    }

    /// Nobody holds the output any more, or it was closed.
    pub fn handle_output_end(&mut self, now: Duration) {
        self.output_ended = true;
        self.settle(now);
    }

    /// No process of the attempt is left.
    pub fn handle_alone(&mut self, now: Duration) {
        self.alone = true;
        self.settle(now);
    }

    /// Time passed.
    pub fn handle_time(&mut self, now: Duration) {
        let is_due = |at: Option<Duration>| at.is_some_and(|at| at <= now);
        if self.exited_at.is_none() && self.cause.is_none() && is_due(self.timeout_at) {
            self.ask_to_end(now, Cause::TimedOut, self.rules.signal, self.rules.grace);
        }
        if self.exited_at.is_none() && is_due(self.kill_at) {
            self.kill(now);
        }
        self.settle(now);
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Self::handle_time`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        let killing = self.killed_at.is_some();
        match self.exited_at {
            None if killing => None,
            None if self.cause.is_some() => self.kill_at,
            None => self.timeout_at,
            // Nothing more is due by time: whoever is left may stay, and the output ends when the driver has taken it.
            Some(_) if self.is_over() || self.left_alone => None,
            Some(_) => self.patience_ends(),
        }
    }

    /// Whether nothing of the attempt is left that concerns us.
    pub fn is_over(&self) -> bool {
        self.exited_at.is_some() && self.output_ended && (self.alone || self.left_alone)
    }

    /// Whether the process ended.
    pub fn has_exited(&self) -> bool {
        self.exited_at.is_some()
    }

    /// Whether everything that appears is to be killed.
    pub fn is_killing(&self) -> bool {
        self.killed_at.is_some()
    }

    /// Why the process was told to end.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Whether processes that outlived it were killed.
    pub fn killed_leftovers(&self) -> bool {
        self.killed_leftovers
    }

    fn ask_to_end(&mut self, now: Duration, cause: Cause, signal: i32, grace: Duration) {
        self.cause.get_or_insert(cause);
        self.shorten(now.saturating_add(grace));
        self.actions.push_back(Action::Signal(signal));
    }

    fn shorten(&mut self, kill_at: Duration) {
        self.kill_at = Some(self.kill_at.map_or(kill_at, |at| at.min(kill_at)));
    }

    fn kill(&mut self, now: Duration) {
        if self.killed_at.is_none() {
            self.killed_at = Some(now);
            self.killed_leftovers = self.exited_at.is_some();
            self.actions.push_back(Action::Kill);
        }
    }

    /// How long those that outlived the process have for what they do now.
    fn patience_ends(&self) -> Option<Duration> {
        let exited = self.exited_at?;
        Some(match (self.killed_at, self.kill_at) {
            (Some(killed), _) => killed.max(exited).saturating_add(KILL_PATIENCE),
            (None, Some(kill_at)) => kill_at,
            (None, None) => exited.saturating_add(self.rules.linger),
        })
    }

    /// What follows once the process ended.
    fn settle(&mut self, now: Duration) {
        let Some(patience_ends) = self.patience_ends() else { return };
        if self.is_over() || self.left_alone {
            return;
        }
        let told_to_end = self.cause.is_some() || self.kill_at.is_some();
        let may_stay = self.rules.background == Background::Leave && !told_to_end && !self.is_killing();
        let out_of_patience = now >= patience_ends;
        if may_stay && self.output_ended {
            self.left_alone = true;
        } else if out_of_patience && (may_stay || self.alone || self.is_killing()) {
            self.left_alone = true;
            if !self.output_ended {
                self.actions.push_back(Action::CloseOutput);
            }
        } else if !may_stay && !self.alone && (out_of_patience || self.output_ended && !told_to_end) {
            self.kill(now);
        }
    }
}
