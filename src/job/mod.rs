//! Jobs: work that must finish and be accounted for, whatever dies meanwhile.
//!
//! Pure nouns that controller, agent and command line share, and the one verb that everything hangs on:
//!
//! ```text
//! Spec::check                 what a submitter may ask for
//! Job::open, Job::apply       the fold of a job's events: exactly one terminal state, ever
//! JobId, JobPrefix, lookup    how jobs are named and found
//! ```
//!
//! It promises that a job's state depends on nothing but its events in the order of the journal, that a repeated or late
//! event changes nothing, and that the bytes of [`Event`] and [`Job`] stay readable for ever. It must not know
//! where events are kept, who sends them, or what time it is.

mod artifacts;
mod attempt;
mod check;
mod event;
mod fold;
mod glob;
#[cfg(test)]
mod golden;
mod id;
pub mod manifest;
mod secret;
mod spec;
mod state;
#[cfg(test)]
mod tests;

pub use artifacts::{Artifacts, Left, Stored};
pub use attempt::{Attempt, AttemptEnd, Started};
pub use check::{InvalidSpec, LIMITS, Limits, check_word};
pub use event::{Event, LogPlace, Loss, Outcome, Returned, StreamEnd, UnknownEvent};
pub use fold::{CancelRequest, Change, Deadline, Job, Refused};
pub use glob::{Course, Glob, InvalidGlob};
pub use id::{InvalidJobId, JobId, JobPrefix, LookupError, lookup};
pub use manifest::Manifest;
pub use secret::Hidden;
pub use spec::{Cancel, Command, JobSecret, LogFormat, SecretRoute, Spec, Stdin, Target, Workspace};
pub use state::State;
