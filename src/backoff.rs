//! Retry delays: exponential, bounded, jittered. Pure: the caller sleeps, and passes in the randomness.

use std::time::Duration;

/// Delays that double from `min` to `max`, each drawn from its upper half, so that many peers that failed together do
/// not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Delays from `min` to `max`.
    ///
    /// # Panics
    /// If `min` is zero or above `max`: a constant of the caller's is wrong.
    pub const fn new(min: Duration, max: Duration) -> Self {
        assert!(!min.is_zero(), "a backoff needs a delay");
        assert!(min.as_nanos() <= max.as_nanos(), "min is above max");
        Self { min, max, failures: 0 }
    }

    /// What we use towards Kafka: 50 ms to 1 s.
    pub const fn kafka() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// The next delay. `random` is any uniformly drawn number.
    pub fn next(&mut self, random: u64) -> Duration {
        let full = self.min.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(self.max);
        self.failures = self.failures.saturating_add(1).min(31);
        let half = full / 2;
        let span = half.as_nanos().max(1) as u64;
        half + Duration::from_nanos(random % span)
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_stay_bounded_and_start_over() {
        let mut b = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        for (i, r) in [0u64, u64::MAX, 7, 1 << 40].into_iter().cycle().take(100).enumerate() {
            let d = b.next(r);
            let full = Duration::from_millis(50 << i.min(10)).min(Duration::from_secs(1));
            assert!(d >= full / 2 && d <= full, "{i}: {d:?} of {full:?}");
        }
        b.reset();
        assert!(b.next(0) <= Duration::from_millis(50));
    }
}
