//! What the scheduler writes into the journal.
//!
//! Its bytes are postcard, in an event of the controller. Variants are only added, at the end, and a variant and what is in it
//! never change; see [`job::Event`].

use serde::{Deserialize, Serialize};

use crate::{
    id::AgentName,
    job::{self, Job, JobId},
};

/// Something that became true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Of a job.
    Job {
        /// Which.
        id: JobId,
        /// What.
        event: job::Event,
    },
    /// The agent gets no new jobs.
    AgentDrained {
        /// Its name.
        name: AgentName,
        /// Who wants that.
        by: String,
    },
    /// The agent gets jobs again.
    AgentResumed {
        /// Its name.
        name: AgentName,
    },
    /// These jobs ended long ago and are forgotten. Without effect on jobs that have not ended.
    Forgotten {
        /// Which.
        ids: Vec<JobId>,
    },
    /// A job as it was when a snapshot was taken. Without effect if there is such a job.
    Restored {
        /// Which.
        id: JobId,
        /// All of it.
        job: Box<Job>,
    },
    /// The artifacts of these jobs are not kept any longer. Without effect on jobs that have none.
    ArtifactsForgotten {
        /// When that was decided, in milliseconds since 1970.
        at_ms: u64,
        /// Which.
        ids: Vec<JobId>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{Hidden, Spec, Target};

    const ID: [u8; 10] = [0x68, 0x31, 0x14, 0x1b, 0x00, 0x00, 0x12, 0x34, 0x56, 0x78];

    /// Written by the first version, and to be read for ever.
    fn golden() -> Vec<(Event, Vec<u8>)> {
        let id = JobId::new(1_790_000_000_000, 0x1234_5678);
        let name: AgentName = "b7".parse().expect("name");
        let spec = Box::new(Spec::new("a", Target::Agent(name.clone()), ["x"]));
        let submitted = job::Event::Submitted { at_ms: 1, spec, log_key: Hidden::new([7; 32]), retry_of: None };
        let job = Box::new(Job::open(&submitted).expect("first"));
        let assigned = job::Event::Assigned { at_ms: 1, attempt: 2, agent: name.clone() };
        let job_bytes = postcard::to_stdvec(&job).expect("fixed by the job's own test");
        vec![
            (Event::Job { id, event: assigned }, [&[0], &ID[..], &[1, 1, 2, 2, b'b', b'7']].concat()),
            (Event::AgentDrained { name: name.clone(), by: "op".to_owned() }, vec![1, 2, b'b', b'7', 2, b'o', b'p']),
            (Event::AgentResumed { name }, vec![2, 2, b'b', b'7']),
            (Event::Forgotten { ids: vec![id] }, [&[3, 1], &ID[..]].concat()),
            (Event::Restored { id, job }, [&[4], &ID[..], &job_bytes].concat()),
            (Event::ArtifactsForgotten { at_ms: 300, ids: vec![id] }, [&[5, 0xac, 2, 1], &ID[..]].concat()),
        ]
    }

    #[test]
    fn events_have_the_bytes_that_they_always_had() {
        for (event, bytes) in golden() {
            assert_eq!(postcard::to_stdvec(&event).expect("plain data"), bytes, "{event:?}");
            assert_eq!(postcard::from_bytes(&bytes), Ok(event));
        }
    }
}
