//! Gives back the room of artifacts that were forgotten: what lies before all that is kept is deleted from the topic.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::super::jobs::Jobs;
use crate::{
    job::JobId,
    kafka::{At, PartitionReader, SharedCluster},
};

/// How often is looked, at most: what is deleted at once costs one request for each partition.
const LOOK: Duration = Duration::from_secs(10);
/// How long a look at one partition may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What lies in the topic of artifacts and must stay.
#[derive(Debug, Default)]
struct Floors {
    topic: u128,
    /// Where each partition ended at the look before.
    ends: BTreeMap<u32, i64>,
    /// Before these offsets there is nothing of attempts that may be storing something, whose place nobody knows yet.
    storing: BTreeMap<(JobId, u32), i64>,
    /// Nothing was in the topic at the look before.
    clean: bool,
}

impl Floors {
    /// The topic was made anew.
    fn turn(&mut self, topic: u128) {
        if self.topic != topic {
            *self = Self { topic, ..Self::default() };
        }
    }

    /// These attempts may be storing something now. One that was not there at the look before got its order later than that look
    /// at where its partition ended; of one from before the first look nothing is known.
    fn note(&mut self, storing: &[(JobId, u32)], partition_of: impl Fn(JobId) -> u32) {
        self.storing.retain(|attempt, _| storing.contains(attempt));
        for attempt in storing {
            let end = self.ends.get(&partition_of(attempt.0)).copied().unwrap_or(0);
            self.storing.entry(*attempt).or_insert(end);
        }
    }

    /// Before this offset nothing of the partition, which ends at `end`, is wanted any more.
    fn cut(&self, partition: u32, end: i64, kept: &[(u32, i64)], partition_of: impl Fn(JobId) -> u32) -> i64 {
        let kept = kept.iter().filter(|(at, _)| *at == partition).map(|(_, first)| *first);
        let storing =
            self.storing.iter().filter(|((id, _), _)| partition_of(*id) == partition).map(|(_, floor)| *floor);
        kept.chain(storing).chain([end]).min().unwrap_or(0)
    }
}

/// Looks again and again. Never ends.
pub async fn keep_trimmed(jobs: Arc<Jobs>, cluster: SharedCluster, topic: String, partitions: u32) {
    let mut floors = Floors::default();
    let mut readers = Vec::new();
    loop {
        let idle = floors.clean
            && jobs.ask(|scheduler, _| scheduler.artifacts().next().is_none() && scheduler.storing().next().is_none());
        if idle {
            // Who has no artifacts has no connections for them.
            readers.clear();
            sleep(LOOK).await;
            continue;
        }
        if readers.is_empty() {
            let of = |partition| cluster.reader(&topic, i32::try_from(partition).unwrap_or(i32::MAX));
            readers = (0..partitions).map(of).collect();
        }
        // One that can't be looked at now is looked at again.
        if let Ok(Ok(found)) = timeout(PATIENCE, cluster.describe(&topic)).await {
            floors.turn(found.id);
            look(&jobs, &cluster, &topic, &mut readers, &mut floors).await;
        }
        sleep(LOOK).await;
    }
}

async fn look(
    jobs: &Jobs,
    cluster: &SharedCluster,
    topic: &str,
    readers: &mut [Box<dyn PartitionReader>],
    floors: &mut Floors,
) {
    // Where they end first: who is not yet there afterwards writes behind it.
    let (mut ends, count) = (BTreeMap::new(), readers.len());
    for (partition, reader) in (0..).zip(readers) {
        let both = async {
            Ok::<_, crate::kafka::Error>((reader.offset(At::Earliest).await?, reader.offset(At::Latest).await?))
        };
        if let Ok(Ok(both)) = timeout(PATIENCE, both).await {
            ends.insert(partition, both);
        }
    }
    let (kept, storing) = jobs.ask(|scheduler, _| {
        let here = |place: &crate::bundle::Place| place.topic == floors.topic || place.topic == 0;
        let kept = scheduler.artifacts().filter(|(_, stored)| here(&stored.place));
        let kept: Vec<(u32, i64)> = kept.map(|(_, stored)| (stored.place.partition, stored.first)).collect();
        (kept, scheduler.storing().collect::<Vec<_>>())
    });
    floors.note(&storing, |id| jobs.log_partition(id));
    for (partition, (earliest, latest)) in &ends {
        let cut = floors.cut(*partition, *latest, &kept, |id| jobs.log_partition(id));
        if cut <= *earliest {
            continue;
        }
        match cluster.delete_records(topic, i32::try_from(*partition).unwrap_or(i32::MAX), cut).await {
            Ok(()) => tracing::info!(topic, partition, before = cut, "deleted artifacts that nobody keeps"),
            Err(error) => tracing::warn!(topic, partition, %error, "artifacts that nobody keeps were not deleted"),
        }
    }
    floors.clean = ends.len() == count && ends.values().all(|(earliest, latest)| earliest == latest);
    floors.ends.extend(ends.into_iter().map(|(partition, (_, latest))| (partition, latest)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> JobId {
        JobId::new(1, number)
    }

    /// Odd ones lie in partition 1.
    fn partition_of(id: JobId) -> u32 {
        u32::from(id.as_bytes()[9] % 2)
    }

    #[test]
    fn what_lies_before_all_that_is_kept_goes_and_nothing_else() {
        let mut floors = Floors::default();
        floors.turn(7);
        let cut = |floors: &Floors, partition, kept: &[(u32, i64)]| floors.cut(partition, 100, kept, partition_of);
        floors.note(&[], partition_of);
        assert_eq!(cut(&floors, 0, &[]), 100, "nobody keeps anything");
        assert_eq!(cut(&floors, 0, &[(0, 40), (0, 30), (1, 5)]), 30);
        floors.ends = [(0, 20), (1, 25)].into();
        // Both began after the look that saw these ends.
        floors.note(&[(id(2), 1), (id(3), 1)], partition_of);
        assert_eq!((cut(&floors, 0, &[(0, 40)]), cut(&floors, 1, &[])), (20, 25));
        floors.ends = [(0, 60), (1, 65)].into();
        floors.note(&[(id(2), 1)], partition_of);
        assert_eq!(
            (cut(&floors, 0, &[(0, 40)]), cut(&floors, 1, &[])),
            (20, 100),
            "it keeps its floor while it stores"
        );
        floors.note(&[], partition_of);
        assert_eq!(cut(&floors, 0, &[(0, 40)]), 40);
    }

    #[test]
    fn of_what_stored_already_when_nobody_looked_nothing_is_deleted() {
        let mut floors = Floors::default();
        floors.turn(7);
        floors.note(&[(id(2), 1)], partition_of);
        assert_eq!((floors.cut(0, 100, &[], partition_of), floors.cut(1, 100, &[], partition_of)), (0, 100));
        floors.ends = [(0, 60)].into();
        // A topic that was made anew begins at 0.
        floors.turn(8);
        floors.note(&[(id(2), 1)], partition_of);
        assert_eq!(floors.cut(0, 100, &[], partition_of), 0);
    }
}
