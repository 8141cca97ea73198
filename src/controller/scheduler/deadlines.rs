//! Time that counts against agents that can't be reached.
//!
//! Each partition has a clock that stands still while Kafka does not work there, and for [`QUIET`] after that, so that an
//! outage, however long, brings no job nearer to its deadline, and everybody has time to come back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::super::registry::QUIET;
use crate::job::JobId;

/// The clocks of the partitions, and what is due on them.
#[derive(Debug, Default)]
pub struct Deadlines {
    clocks: BTreeMap<u32, Clock>,
    due: BTreeMap<u32, BTreeSet<(Duration, JobId)>>,
    armed: BTreeMap<JobId, (u32, Duration)>,
}

/// Does not count before it was first said to work.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    counted: Duration,
    /// From when on it counts.
    since: Option<Duration>,
}

impl Clock {
    fn at(&self, now: Duration) -> Duration {
        self.counted + self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

impl Deadlines {
    /// Whether Kafka works on the partition. Without effect if that was known.
    pub fn set_working(&mut self, now: Duration, partition: u32, working: bool) {
        let clock = self.clocks.entry(partition).or_default();
        match (clock.since, working) {
            (None, true) => clock.since = Some(now + QUIET),
            (Some(_), false) => *clock = Clock { counted: clock.at(now), since: None },
            _ => {}
        }
    }

    /// Whether Kafka works on the partition, as far as is known.
    pub fn is_working(&self, partition: u32) -> bool {
        self.clocks.get(&partition).is_some_and(|clock| clock.since.is_some())
    }

    /// The time that was counted on the partition.
    pub fn counted(&self, now: Duration, partition: u32) -> Duration {
        self.clocks.get(&partition).map_or(Duration::ZERO, |clock| clock.at(now))
    }

    /// The job is due when the partition's clock shows `at`, instead of what was said before.
    pub fn arm(&mut self, id: JobId, partition: u32, at: Duration) {
        self.disarm(id);
        self.armed.insert(id, (partition, at));
        self.due.entry(partition).or_default().insert((at, id));
    }

    /// The job is not due any more.
    pub fn disarm(&mut self, id: JobId) {
        let Some((partition, at)) = self.armed.remove(&id) else { return };
        if let Some(due) = self.due.get_mut(&partition) {
            due.remove(&(at, id));
            if due.is_empty() {
                self.due.remove(&partition);
            }
        }
    }

    /// A job that is due; it is so only once.
    pub fn expired(&mut self, now: Duration) -> Option<JobId> {
        let id = self.due.iter().find_map(|(partition, due)| {
            let (at, id) = due.first()?;
            (self.counted(now, *partition) >= *at).then_some(*id)
        })?;
        self.disarm(id);
        Some(id)
    }

    /// When the next job is due if nothing changes.
    pub fn next(&self) -> Option<Duration> {
        let next = |(partition, due): (&u32, &BTreeSet<(Duration, JobId)>)| {
            let (clock, (at, _)) = (self.clocks.get(partition)?, due.first()?);
            Some(clock.since? + at.saturating_sub(clock.counted))
        };
        self.due.iter().filter_map(next).min()
    }

    #[cfg(test)]
    pub fn is_clean(&self) -> bool {
        self.due.is_empty() && self.armed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_does_not_count_nor_does_the_time_after_it() {
        let secs = Duration::from_secs;
        let mut deadlines = Deadlines::default();
        let [a, b] = [JobId::new(1, 1), JobId::new(1, 2)];
        deadlines.arm(a, 0, secs(60));
        deadlines.arm(b, 1, secs(60));
        assert_eq!(deadlines.next(), None, "nothing works yet");
        deadlines.set_working(secs(5), 0, true);
        assert_eq!(deadlines.next(), Some(secs(75)));
        deadlines.set_working(secs(45), 0, false);
        assert_eq!((deadlines.next(), deadlines.expired(secs(9999))), (None, None));
        deadlines.set_working(secs(10_000), 0, true);
        assert_eq!(deadlines.next(), Some(secs(10_040)));
        assert_eq!(deadlines.expired(secs(10_039)), None);
        assert_eq!(deadlines.expired(secs(10_040)), Some(a));
        assert_eq!(deadlines.expired(secs(10_041)), None, "it is so only once");
        deadlines.disarm(b);
        assert!(deadlines.is_clean());
    }
}
