//! Who is next.
//!
//! Queued jobs lie in *lanes*, one for each distinct target. In a lane the greater priority goes first; within a
//! priority the submitter with the fewest jobs under way, and of those the one that was served longest ago; within a
//! submitter the oldest job.
//!
//! Why the fewest under way, and not weighted turns: jobs last between a second and a day, so that turns would give all
//! slots to who has the long ones, while what colleagues see and compare is who holds the slots now. A new controller
//! knows it from the journal. Who was served when only decides between equals, and is kept in memory; who comes for the
//! first time counts as served just now, so that a stream of newcomers starves nobody.
//!
//! Of the jobs with the same concurrency key only the first of each lane, priority and submitter is offered, and none while
//! one is under way.
//!
//! Cost: an operation touches the places where one submitter, or one key, has jobs. That is at most lanes × priorities,
//! and has nothing to do with how many jobs there are.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::job::JobId;

/// Numbers the lanes.
pub type LaneId = u64;

/// Where a job waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its target's.
    pub lane: LaneId,
    /// Greater is first.
    pub priority: u8,
    /// Whose it is.
    pub submitter: Arc<str>,
    /// Its concurrency key.
    pub key: Option<Arc<str>>,
}

/// How a job compares to the first of other lanes; the least goes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    priority: Reverse<u8>,
    under_way: u32,
    served: u64,
    submitter: Arc<str>,
    /// The job.
    pub id: JobId,
}

/// How many submitters without jobs are remembered, so that one who submits a job at a time waits no longer than others.
const DEPARTED: usize = 1024;

/// The queued jobs, and the share that everybody has of those under way.
#[derive(Debug, Default)]
pub struct Queue {
    lanes: BTreeMap<LaneId, BTreeMap<Reverse<u8>, Bucket>>,
    shares: BTreeMap<Arc<str>, Share>,
    /// When submitters were served last who have no jobs here.
    departed: BTreeMap<Arc<str>, u64>,
    /// The same by that time.
    departures: BTreeSet<(u64, Arc<str>)>,
    keys: BTreeMap<Arc<str>, Key>,
    waiting: BTreeMap<JobId, Place>,
    under_way: BTreeMap<JobId, Place>,
    /// Jobs that wait, by lane; no entry for none.
    lengths: BTreeMap<LaneId, usize>,
    tick: u64,
    #[cfg(test)]
    pub steps: u64,
}

/// The jobs of one priority in one lane that could be started now.
#[derive(Debug, Default)]
struct Bucket {
    jobs: BTreeMap<Arc<str>, BTreeSet<JobId>>,
    /// Jobs under way, when served, who: of those who have jobs here.
    order: BTreeSet<(u32, u64, Arc<str>)>,
}

#[derive(Debug, Default)]
struct Share {
    under_way: u32,
    /// The tick at which it was served last, or came.
    served: u64,
    /// The buckets in whose order it is.
    buckets: BTreeSet<(LaneId, Reverse<u8>)>,
}

/// Lane, priority and submitter: jobs in which only their age tells who is first.
type Slot = (LaneId, Reverse<u8>, Arc<str>);

#[derive(Debug, Default)]
struct Key {
    under_way: BTreeSet<JobId>,
    waiting: BTreeMap<Slot, BTreeSet<JobId>>,
}

impl Queue {
    /// The job waits.
    pub fn push(&mut self, id: JobId, place: Place) {
        *self.lengths.entry(place.lane).or_default() += 1;
        match &place.key {
            None => self.offer(id, &place),
            Some(name) => {
                let key = self.keys.entry(name.clone()).or_default();
                let jobs =
                    key.waiting.entry((place.lane, Reverse(place.priority), place.submitter.clone())).or_default();
                let before = jobs.first().copied();
                jobs.insert(id);
                if key.under_way.is_empty() && before.is_none_or(|before| id < before) {
                    before.into_iter().for_each(|before| self.withdraw(before, &place));
                    self.offer(id, &place);
                }
            }
        }
        self.waiting.insert(id, place);
    }

    /// The job waits no more, and is not under way either.
    pub fn remove(&mut self, id: JobId) {
        if let Some(place) = self.leave(id) {
            self.tidy_key(&place);
        }
    }

    /// The job is under way.
    pub fn take(&mut self, id: JobId) {
        let Some(place) = self.leave(id) else { return };
        self.tick += 1;
        let (count, tick) = (self.share(&place.submitter).under_way + 1, self.tick);
        self.set_share(&place.submitter, count, tick);
        if let Some(name) = &place.key {
            let key = self.keys.entry(name.clone()).or_default();
            if key.under_way.is_empty() {
                let offered = key.firsts();
                offered.into_iter().for_each(|(id, place)| self.withdraw(id, &place));
            }
            self.keys.entry(name.clone()).or_default().under_way.insert(id);
        }
        self.under_way.insert(id, place);
    }

    /// The job is not under way any more. Returns the lanes in which others may go now.
    pub fn finish(&mut self, id: JobId) -> BTreeSet<LaneId> {
        let Some(place) = self.under_way.remove(&id) else { return BTreeSet::new() };
        let share = self.share(&place.submitter);
        let (count, served) = (share.under_way.saturating_sub(1), share.served);
        self.set_share(&place.submitter, count, served);
        let mut lanes = BTreeSet::new();
        if let Some(key) = place.key.as_ref().and_then(|name| self.keys.get_mut(name)) {
            key.under_way.remove(&id);
            if key.under_way.is_empty() {
                for (id, place) in key.firsts() {
                    lanes.insert(place.lane);
                    self.offer(id, &place);
                }
            }
            self.tidy_key(&place);
        }
        lanes
    }

    /// The first job in the lane that could be started now.
    pub fn best(&mut self, lane: LaneId) -> Option<Rank> {
        self.step();
        let (priority, bucket) = self.lanes.get(&lane)?.first_key_value()?;
        let (under_way, served, submitter) = bucket.order.first()?.clone();
        let id = *bucket.jobs.get(&submitter)?.first()?;
        Some(Rank { priority: *priority, under_way, served, submitter, id })
    }

    /// Whether no job waits in the lane.
    pub fn is_empty(&self, lane: LaneId) -> bool {
        !self.lengths.contains_key(&lane)
    }

    /// Where the job waits.
    pub fn place(&self, id: JobId) -> Option<&Place> {
        self.waiting.get(&id)
    }

    /// A job with this key that is under way.
    pub fn holder(&self, key: &str) -> Option<JobId> {
        self.keys.get(key).and_then(|key| key.under_way.first().copied())
    }

    fn leave(&mut self, id: JobId) -> Option<Place> {
        let place = self.waiting.remove(&id)?;
        if let Some(length) = self.lengths.get_mut(&place.lane) {
            *length -= 1;
            if *length == 0 {
                self.lengths.remove(&place.lane);
            }
        }
        match place.key.as_ref().and_then(|name| self.keys.get_mut(name)) {
            None => self.withdraw(id, &place),
            Some(key) => {
                let slot = (place.lane, Reverse(place.priority), place.submitter.clone());
                let jobs = key.waiting.entry(slot.clone()).or_default();
                let was_first = jobs.first() == Some(&id);
                jobs.remove(&id);
                let next = jobs.first().copied();
                if jobs.is_empty() {
                    key.waiting.remove(&slot);
                }
                if was_first && key.under_way.is_empty() {
                    self.withdraw(id, &place);
                    next.into_iter().for_each(|next| self.offer(next, &place));
                }
            }
        }
        Some(place)
    }

    fn offer(&mut self, id: JobId, place: &Place) {
        self.step();
        self.share(&place.submitter);
        let (priority, submitter) = (Reverse(place.priority), &place.submitter);
        let bucket = self.lanes.entry(place.lane).or_default().entry(priority).or_default();
        bucket.jobs.entry(submitter.clone()).or_default().insert(id);
        let share = self.shares.get_mut(submitter).expect("just made");
        if share.buckets.insert((place.lane, priority)) {
            bucket.order.insert((share.under_way, share.served, submitter.clone()));
        }
    }

    fn withdraw(&mut self, id: JobId, place: &Place) {
        self.step();
        let priority = Reverse(place.priority);
        let Some(lane) = self.lanes.get_mut(&place.lane) else { return };
        let Some(bucket) = lane.get_mut(&priority) else { return };
        let Some(jobs) = bucket.jobs.get_mut(&place.submitter) else { return };
        jobs.remove(&id);
        if !jobs.is_empty() {
            return;
        }
        bucket.jobs.remove(&place.submitter);
        if let Some(share) = self.shares.get_mut(&place.submitter) {
            bucket.order.remove(&(share.under_way, share.served, place.submitter.clone()));
            share.buckets.remove(&(place.lane, priority));
        }
        if bucket.jobs.is_empty() {
            lane.remove(&priority);
            if lane.is_empty() {
                self.lanes.remove(&place.lane);
            }
        }
        self.tidy_share(&place.submitter);
    }

    fn share(&mut self, submitter: &Arc<str>) -> &Share {
        if !self.shares.contains_key(submitter) {
            self.tick += 1;
            let served = self.departed.remove(submitter).unwrap_or(self.tick);
            self.departures.remove(&(served, submitter.clone()));
            self.shares.insert(submitter.clone(), Share { served, ..Share::default() });
        }
        &self.shares[submitter]
    }

    /// Who has no jobs here is remembered apart.
    fn tidy_share(&mut self, submitter: &Arc<str>) {
        let share = self.shares.get(submitter);
        let Some(served) = share.filter(|s| s.under_way == 0 && s.buckets.is_empty()).map(|s| s.served) else { return };
        self.shares.remove(submitter);
        self.departed.insert(submitter.clone(), served);
        self.departures.insert((served, submitter.clone()));
        if self.departures.len() > DEPARTED
            && let Some((_, oldest)) = self.departures.pop_first()
        {
            self.departed.remove(&oldest);
        }
    }

    fn set_share(&mut self, submitter: &Arc<str>, under_way: u32, served: u64) {
        let Some(share) = self.shares.get_mut(submitter) else { return };
        let (before, after) = ((share.under_way, share.served), (under_way, served));
        (share.under_way, share.served) = after;
        let buckets = share.buckets.clone();
        for (lane, priority) in buckets {
            self.step();
            let bucket = self.lanes.get_mut(&lane).and_then(|lane| lane.get_mut(&priority));
            let bucket = bucket.expect("a share knows only buckets that are");
            bucket.order.remove(&(before.0, before.1, submitter.clone()));
            bucket.order.insert((after.0, after.1, submitter.clone()));
        }
        self.tidy_share(submitter);
    }

    fn tidy_key(&mut self, place: &Place) {
        let Some(name) = &place.key else { return };
        if self.keys.get(name).is_some_and(|key| key.under_way.is_empty() && key.waiting.is_empty()) {
            self.keys.remove(name);
        }
    }

    #[cfg(test)]
    fn step(&mut self) {
        self.steps += 1;
    }

    #[cfg(not(test))]
    fn step(&self) {}
}

impl Key {
    /// The jobs that are offered while none is under way.
    fn firsts(&self) -> Vec<(JobId, Place)> {
        let first = |((lane, priority, submitter), jobs): (&Slot, &BTreeSet<JobId>)| {
            let place = Place { lane: *lane, priority: priority.0, submitter: submitter.clone(), key: None };
            jobs.first().map(|id| (*id, place))
        };
        self.waiting.iter().filter_map(first).collect()
    }
}

#[cfg(test)]
impl Queue {
    /// Whether nothing is left of anything.
    pub fn is_clean(&self) -> bool {
        let waiting = self.lanes.is_empty() && self.waiting.is_empty() && self.lengths.is_empty();
        waiting && self.under_way.is_empty() && self.shares.is_empty() && self.keys.is_empty()
    }
}
