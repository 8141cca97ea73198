//! Time on one partition in which Kafka demonstrably worked.

use std::time::Duration;

/// Between two probes that came back there may be this much; more is an outage. The controller sends one a second.
pub const GAP: Duration = Duration::from_secs(3);

/// After an outage nothing is counted for this long: agents' connections need up to 6 s to be usable again.
pub const QUIET: Duration = Duration::from_secs(10);

/// Counts the time between the controller's own records that came back from a partition.
///
/// Input: [`probe`](Self::probe), about once a second. Output: [`counted`](Self::counted), which stands still in an
/// outage, also for the seconds before the outage was noticed, because only the time between two probes that came
/// back is ever added.
#[derive(Debug, Clone, Default)]
pub struct PartitionClock {
    counted: Duration,
    /// When the latest probe that is known of came back.
    witnessed: Option<Duration>,
    /// Until when nothing is counted.
    quiet_until: Duration,
}

impl PartitionClock {
    /// At `now` the latest probe had come back `age` ago.
    pub fn probe(&mut self, now: Duration, age: Duration) {
        let Some(witnessed) = now.checked_sub(age) else { return };
        match self.witnessed {
            Some(before) if witnessed <= before => return,
            Some(before) if witnessed - before <= GAP => {
                self.counted += witnessed.saturating_sub(before.max(self.quiet_until));
            }
            Some(_) => self.quiet_until = witnessed + QUIET,
            // The first: sessions are younger than that, so there is nothing to be patient with.
            None => {}
        }
        self.witnessed = Some(witnessed);
    }

    /// The time in which records came back.
    pub fn counted(&self) -> Duration {
        self.counted
    }

    /// Whether records come back at `now`.
    pub fn is_working(&self, now: Duration) -> bool {
        self.witnessed.is_some_and(|witnessed| now.saturating_sub(witnessed) <= GAP)
    }
}
