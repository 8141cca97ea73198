//! Forgetting jobs that ended long ago, and artifacts that are old, or more than are kept.

use super::{Event, Now, Scheduler};

/// How many jobs one event forgets.
pub(super) const BATCH: usize = 500;
/// When there are too many, this part of them is forgotten, so that not every job that ends makes an event.
const SLACK: usize = 64;

impl Scheduler {
    /// Decides which jobs are forgotten, a batch at a time; the next follows when this one was read back.
    pub(super) fn expire(&mut self, now: Now) {
        self.expire_artifacts(now);
        if !self.leading || self.on_the_way.forgetting {
            return;
        }
        let (count, most) = (self.jobs.counts().ended, self.config.keep_jobs);
        let over = if count > most { count - most + most / SLACK } else { 0 };
        let keep_ms = self.config.keep.as_millis().try_into().unwrap_or(u64::MAX);
        let oldest = now.unix_ms.saturating_sub(keep_ms);
        let due = self.jobs.ended().enumerate().take_while(|(n, (ended, _))| *n < over || *ended < oldest);
        let ids: Vec<_> = due.map(|(_, (_, id))| id).take(BATCH).collect();
        if !ids.is_empty() {
            self.on_the_way.forgetting = true;
            self.events.push_back(Event::Forgotten { ids });
        }
    }
}
