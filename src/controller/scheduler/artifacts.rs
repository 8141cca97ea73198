//! Artifacts of jobs: what agents say of them is journalled, and when they are forgotten is decided here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Event, Now, Report, Scheduler, input::MAX_MESSAGE, retention::BATCH};
use crate::job::{self, Artifacts, Job, JobId, Stored};

/// The jobs whose artifacts are kept, by their age and by what they are called.
#[derive(Debug, Default)]
pub struct Shelf {
    /// How many of one row are kept.
    keep: usize,
    places: BTreeMap<JobId, (u64, Row)>,
    by_age: BTreeSet<(u64, JobId)>,
    rows: BTreeMap<Row, BTreeSet<(u64, JobId)>>,
    /// Those that have more than are kept.
    full: BTreeSet<Row>,
}

/// Jobs that are called the same; those without a name are a row for each submitter.
type Row = (Option<String>, String);

impl Shelf {
    /// Without any.
    pub fn new(keep: usize) -> Self {
        Self { keep, ..Self::default() }
    }

    /// The job may have artifacts now.
    pub fn put(&mut self, id: JobId, job: &Job) {
        self.take(id);
        let Some(left) = job.left().filter(|left| left.stored().is_some()) else { return };
        let row = match &job.spec().name {
            Some(name) => (Some(name.clone()), String::new()),
            None => (None, job.spec().submitter.clone()),
        };
        self.places.insert(id, (left.at_ms, row.clone()));
        self.by_age.insert((left.at_ms, id));
        let jobs = self.rows.entry(row.clone()).or_default();
        jobs.insert((left.at_ms, id));
        if jobs.len() > self.keep {
            self.full.insert(row);
        }
    }

    /// The job has none any more.
    pub fn take(&mut self, id: JobId) {
        let Some((at_ms, row)) = self.places.remove(&id) else { return };
        self.by_age.remove(&(at_ms, id));
        let Some(jobs) = self.rows.get_mut(&row) else { return };
        jobs.remove(&(at_ms, id));
        if jobs.len() <= self.keep {
            self.full.remove(&row);
        }
        if jobs.is_empty() {
            self.rows.remove(&row);
        }
    }

    /// Whose artifacts go: those from before `oldest`, and of each row what is more than is kept, the oldest first.
    fn due(&self, oldest: u64) -> impl Iterator<Item = JobId> + '_ {
        let old = self.by_age.iter().take_while(move |(at_ms, _)| *at_ms < oldest);
        let rows = self.full.iter().filter_map(|row| self.rows.get(row));
        let many = rows.flat_map(|jobs| jobs.iter().take(jobs.len().saturating_sub(self.keep)));
        old.chain(many.filter(move |(at_ms, _)| *at_ms >= oldest)).map(|(_, id)| *id)
    }

    /// The jobs that have some.
    pub fn ids(&self) -> impl Iterator<Item = JobId> + '_ {
        self.places.keys().copied()
    }
}

impl Scheduler {
    /// The agent says what became of the artifacts of its attempt.
    pub(super) fn propose_artifacts(&mut self, now: Now, id: JobId, attempt: u32, report: Report) {
        let artifacts = match report {
            Report::Stored(stored) => Artifacts::Stored(stored),
            Report::NotStored(why) => Artifacts::Missing { why: why.chars().take(MAX_MESSAGE).collect() },
            _ => return,
        };
        if self.on_the_way.artifacts.insert((id, attempt)) {
            let event = job::Event::Artifacts { at_ms: now.unix_ms, attempt, artifacts };
            self.events.push_back(Event::Job { id, event });
        }
    }

    /// Decides which artifacts are forgotten, a batch at a time; the next follows when this one was read back.
    pub(super) fn expire_artifacts(&mut self, now: Now) {
        if !self.leading || self.on_the_way.forgetting_artifacts {
            return;
        }
        let age_ms = u64::try_from(self.config.artifacts_age.as_millis()).unwrap_or(u64::MAX);
        let ids: Vec<JobId> = self.jobs.shelf().due(now.unix_ms.saturating_sub(age_ms)).take(BATCH).collect();
        if !ids.is_empty() {
            self.artifacts_due = None;
            self.on_the_way.forgetting_artifacts = true;
            self.events.push_back(Event::ArtifactsForgotten { at_ms: now.unix_ms, ids });
            return;
        }
        let oldest = self.jobs.shelf().by_age.first().map(|(at_ms, _)| at_ms.saturating_add(age_ms).saturating_add(1));
        // What is far away is looked at with the jobs themselves.
        self.artifacts_due = oldest
            .map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now.unix_ms)))
            .and_then(|wait| now.elapsed.checked_add(wait));
    }

    /// The jobs whose artifacts are kept, and where those lie.
    pub fn artifacts(&self) -> impl Iterator<Item = (JobId, &Stored)> + '_ {
        let job = |id| self.jobs.job(id).and_then(|job| Some((id, job.left()?.stored()?)));
        self.jobs.shelf().ids().filter_map(job)
    }

    /// The attempts that may be storing artifacts now, or later.
    pub fn storing(&self) -> impl Iterator<Item = (JobId, u32)> + '_ {
        let wants = |id: JobId| {
            let job = self.jobs.job(id).filter(|job| !job.spec().artifacts.is_empty())?;
            job.holder().map(|(_, attempt)| (id, attempt))
        };
        self.agents.values().flat_map(|agent| agent.jobs.iter().copied()).filter_map(wants)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bundle::{Archive, Digest, Place},
        job::{Hidden, Spec, Target},
    };

    fn id(number: u64) -> JobId {
        JobId::new(1, number)
    }

    /// A job that left something at `at_ms`.
    fn job(name: Option<&str>, submitter: &str, at_ms: u64) -> Job {
        let target = Target::Agent("a".parse().expect("name"));
        let spec = Spec { name: name.map(str::to_owned), ..Spec::new(submitter, target, ["x"]) };
        let key = Hidden::new([1; 32]);
        let first = job::Event::Submitted { at_ms: 1, spec: Box::new(spec), log_key: key.clone(), retry_of: None };
        let mut job = Job::open(&first).expect("first");
        let place = Place { topic: 1, partition: 0, first: 5, last: 6, key };
        let manifest = Archive { sha256: Digest([1; 32]), size: 1 };
        let stored = Stored { manifest, place, first: 5, files: 1, bytes: 1, left_out: 0 };
        let artifacts = Artifacts::Stored(stored);
        for event in [
            job::Event::Assigned { at_ms: 1, attempt: 1, agent: "a".parse().expect("name") },
            job::Event::Artifacts { at_ms, attempt: 1, artifacts },
        ] {
            job.apply(&event).expect("true");
        }
        job
    }

    #[test]
    fn what_is_old_and_what_is_too_much_goes_and_the_rest_stays() {
        let mut shelf = Shelf::new(2);
        for (number, name, submitter, at_ms) in [
            (1, Some("nightly"), "ann", 10),
            (2, Some("nightly"), "bob", 20),
            (3, Some("nightly"), "ann", 30),
            (4, Some("other"), "ann", 15),
            (5, None, "ann", 11),
            (6, None, "bob", 12),
            (7, None, "ann", 13),
            (8, None, "ann", 14),
        ] {
            shelf.put(id(number), &job(name, submitter, at_ms));
        }
        let due = |shelf: &Shelf, oldest| {
            let mut all: Vec<JobId> = shelf.due(oldest).collect();
            all.sort();
            all
        };
        // One nightly too many, and one of ann's without a name.
        assert_eq!(due(&shelf, 0), [1, 5].map(id));
        // Those that are too old as well, each once.
        assert_eq!(due(&shelf, 13), [1, 5, 6].map(id));
        assert_eq!(due(&shelf, 100).len(), 8);
        // Put again it stands once, at its newer time.
        shelf.put(id(1), &job(Some("nightly"), "ann", 40));
        assert_eq!(due(&shelf, 0), [2, 5].map(id));
        for number in 1..=8 {
            shelf.take(id(number));
        }
        assert!(shelf.by_age.is_empty() && shelf.rows.is_empty() && shelf.full.is_empty());
    }

    #[test]
    fn what_was_forgotten_or_never_stored_is_not_kept() {
        let mut shelf = Shelf::new(2);
        let mut gone = job(Some("x"), "ann", 10);
        assert!(gone.forget_artifacts(50) && !gone.forget_artifacts(60));
        assert_eq!(gone.left().and_then(|left| left.forgotten_ms), Some(50));
        shelf.put(id(1), &gone);
        assert_eq!(shelf.ids().count(), 0);
    }

    fn now(at_ms: u64) -> Now {
        Now { elapsed: Duration::from_millis(at_ms), unix_ms: at_ms }
    }

    /// A scheduler that leads and knows these jobs, which have ended.
    fn leading(config: super::super::Config, jobs: &[(u64, &str, u64)]) -> Scheduler {
        let mut scheduler = Scheduler::new(config);
        for (number, name, at_ms) in jobs {
            let mut job = job(Some(name), "ann", *at_ms);
            let (stdout, stderr) = (job::StreamEnd::default(), job::StreamEnd::default());
            let outcome = job::Outcome::Exited(0);
            let ended = job::Event::Ended { at_ms: *at_ms, attempt: 1, agent_ms: 1, outcome, stdout, stderr };
            job.apply(&ended).expect("true");
            let restored = Event::Restored { id: id(*number), job: Box::new(job) };
            scheduler.apply(now(0), &restored).expect("true");
        }
        scheduler.handle_leading(now(100), |_| 0);
        scheduler
    }

    fn kept(scheduler: &Scheduler) -> Vec<JobId> {
        scheduler.artifacts().map(|(id, _)| id).collect()
    }

    #[test]
    fn forgetting_is_journalled_once_and_the_same_after_a_snapshot() {
        let config = super::super::Config { artifacts_keep: 1, ..Default::default() };
        let mut scheduler = leading(config.clone(), &[(1, "a", 10), (2, "a", 20), (3, "b", 5)]);
        let event = scheduler.poll_event().expect("one is too many");
        assert_eq!(event, Event::ArtifactsForgotten { at_ms: 100, ids: vec![id(1)] });
        scheduler.handle_timeout(now(200));
        assert_eq!(scheduler.poll_event(), None, "it is on its way");
        scheduler.apply(now(300), &event).expect("true");
        assert_eq!((kept(&scheduler), scheduler.poll_event()), ([2, 3].map(id).to_vec(), None));
        let left = scheduler.job(id(1)).and_then(|job| job.left().cloned()).expect("it is known");
        assert_eq!((left.at_ms, left.forgotten_ms), (10, Some(100)));
        let mut again = Scheduler::new(config);
        scheduler.snapshot().for_each(|event| drop(again.apply(now(0), &event)));
        assert_eq!(kept(&again), kept(&scheduler));
        assert_eq!(again.job(id(1)).map(|job| job.left()), Some(Some(&left)));
        // A job that is forgotten takes its artifacts along.
        scheduler.apply(now(400), &Event::Forgotten { ids: vec![id(2)] }).expect("true");
        assert_eq!(kept(&scheduler), [id(3)]);
    }

    #[test]
    fn age_wakes_the_scheduler_when_it_is_reached() {
        let config = super::super::Config { artifacts_age: Duration::from_secs(1), ..Default::default() };
        let mut scheduler = leading(config, &[(1, "a", 10), (2, "a", 500)]);
        assert_eq!((scheduler.poll_event(), scheduler.poll_timeout()), (None, Some(Duration::from_millis(1011))));
        scheduler.handle_timeout(now(1011));
        let event = scheduler.poll_event().expect("it is old");
        assert_eq!(event, Event::ArtifactsForgotten { at_ms: 1011, ids: vec![id(1)] });
        scheduler.apply(now(1012), &event).expect("true");
        assert_eq!(scheduler.poll_timeout(), Some(Duration::from_millis(1501)));
    }
}
