//! How often somebody may do something. Pure: `now` is an argument, and the table is bounded whoever comes.
//!
//! A bucket holds as many tokens as may be used at once, and gets new ones at a steady rate. What is kept of one is when it will be
//! full again: one that is full is as one that nobody ever used, and is forgotten.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How often, and how many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// One more after so long.
    every: Duration,
    /// How many at once.
    burst: u32,
}

impl Rate {
    /// `count` in `period`, and up to `burst` of them at once. `None` if that is none at all.
    pub fn new(count: u32, period: Duration, burst: u32) -> Option<Self> {
        let every = period.checked_div(count)?;
        (!every.is_zero() && burst > 0).then_some(Self { every, burst })
    }
}

/// Buckets by whose they are.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    most: usize,
    /// When each is full again.
    full_at: BTreeMap<K, Duration>,
    /// The same, the earliest first.
    order: BTreeSet<(Duration, K)>,
}

impl<K: Ord + Clone> Buckets<K> {
    /// All of them are full. When more than `most` are not, the one that is the nearest to it counts as full: who comes under ever
    /// new names displaces those who did the least.
    pub fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most: most.max(1), full_at: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Uses one token of `key`. The error is how long it takes until there is one.
    pub fn take(&mut self, now: Duration, key: &K) -> Result<(), Duration> {
        self.check(now, key)?;
        self.forget(now);
        let full_at = self.full_at.get(key).copied();
        let next = full_at.unwrap_or(now).saturating_add(self.rate.every);
        match full_at {
            Some(full_at) => {
                self.order.remove(&(full_at, key.clone()));
            }
            None if self.full_at.len() >= self.most => self.displace(),
            None => {}
        }
        self.full_at.insert(key.clone(), next);
        self.order.insert((next, key.clone()));
        Ok(())
    }

    /// Whether there is a token of `key`. The error is how long it takes until there is one.
    pub fn check(&self, now: Duration, key: &K) -> Result<(), Duration> {
        let missing = self.full_at.get(key).map_or(Duration::ZERO, |full_at| full_at.saturating_sub(now));
        let most = self.rate.every.saturating_mul(self.rate.burst - 1);
        match missing.checked_sub(most) {
            None | Some(Duration::ZERO) => Ok(()),
            Some(wait) => Err(wait),
        }
    }

    /// How many are not full, of those that were looked at.
    #[cfg(test)]
    fn len(&self) -> usize {
        assert_eq!(self.full_at.len(), self.order.len());
        self.full_at.len()
    }

    fn forget(&mut self, now: Duration) {
        while self.order.first().is_some_and(|(full_at, _)| *full_at <= now) {
            self.displace();
        }
    }

    fn displace(&mut self) {
        if let Some((_, key)) = self.order.pop_first() {
            self.full_at.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rate(count: u32, burst: u32) -> Rate {
        Rate::new(count, SECOND, burst).expect("a rate")
    }

    #[test]
    fn a_burst_is_let_through_and_then_one_after_the_other() {
        let mut buckets = Buckets::new(rate(10, 3), 100);
        let at = Duration::from_millis;
        for _ in 0..3 {
            assert_eq!(buckets.take(at(0), &"a"), Ok(()));
        }
        assert_eq!(buckets.take(at(0), &"a"), Err(at(100)));
        assert_eq!(buckets.take(at(40), &"a"), Err(at(60)), "who is refused loses nothing");
        assert_eq!(buckets.take(at(40), &"b"), Ok(()), "another is not held up");
        assert_eq!(buckets.take(at(100), &"a"), Ok(()));
        assert_eq!(buckets.take(at(100), &"a"), Err(at(100)));
        for _ in 0..3 {
            assert_eq!(buckets.take(at(60_000), &"a"), Ok(()), "it is full again, and no more than that");
        }
        assert_eq!(buckets.take(at(60_000), &"a"), Err(at(100)));
    }

    #[test]
    fn a_look_takes_nothing() {
        let mut buckets = Buckets::new(rate(1, 1), 100);
        for _ in 0..10 {
            assert_eq!(buckets.check(SECOND, &"a"), Ok(()));
        }
        assert_eq!(buckets.take(SECOND, &"a"), Ok(()));
        assert_eq!(buckets.check(SECOND, &"a"), Err(SECOND));
    }

    #[test]
    fn no_rate_is_no_number_of_times_or_one_without_end() {
        assert_eq!(Rate::new(0, SECOND, 1), None);
        assert_eq!(Rate::new(1, SECOND, 0), None);
        assert_eq!(Rate::new(u32::MAX, Duration::from_nanos(1), 1), None);
    }

    #[test]
    fn a_flood_of_names_grows_nothing_and_does_not_free_who_did_the_most() {
        let mut buckets = Buckets::new(rate(1, 10), 50);
        for _ in 0..10 {
            buckets.take(Duration::ZERO, &0).expect("a burst");
        }
        for name in 1..100_000 {
            buckets.take(Duration::ZERO, &name).expect("each is new");
            assert!(buckets.len() <= 50);
        }
        assert_eq!(buckets.take(Duration::ZERO, &0), Err(SECOND));
        buckets.take(11 * SECOND, &1).expect("full");
        assert_eq!(buckets.len(), 1, "those that are full again are forgotten");
    }

    proptest! {
        #[test]
        fn whatever_happens_nobody_gets_more_than_the_rate(
            steps in prop::collection::vec((0u8..4, 0u64..400), 1..300),
            count in 1u32..50, burst in 1u32..20,
        ) {
            let mut buckets = Buckets::new(rate(count, burst), 100);
            let (mut now, mut taken) = (Duration::ZERO, [0u32; 4]);
            for (who, later) in steps {
                now += Duration::from_millis(later);
                match buckets.take(now, &who) {
                    Ok(()) => taken[who as usize] += 1,
                    Err(wait) => {
                        prop_assert!(wait <= SECOND);
                        prop_assert_eq!(buckets.check(now + wait, &who), Ok(()));
                    }
                }
                let most = burst + (now.as_secs_f64() * f64::from(count)).ceil() as u32 + 1;
                prop_assert!(taken.iter().all(|taken| *taken <= most));
            }
        }
    }
}
