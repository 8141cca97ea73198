//! What the scheduler writes into the journal.
//!
//! Bytes: one version byte and postcard. Variants are only added, at the end, and a variant and what is in it never
//! change; see [`job::Event`].

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    id::AgentName,
    job::{self, Job, JobId, UnknownEvent},
    versioned,
};

const VERSION: u8 = 1;

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
}

impl Event {
    /// The journal's payload.
    pub fn encode(&self) -> Bytes {
        versioned::encode(VERSION, self)
    }

    /// Reads a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, UnknownEvent> {
        versioned::decode(VERSION, payload).map_err(UnknownEvent::new)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            (Event::Job { id, event: assigned }, [&[1, 0], &ID[..], &[1, 1, 2, 2, b'b', b'7']].concat()),
            (Event::AgentDrained { name: name.clone(), by: "op".to_owned() }, vec![1, 1, 2, b'b', b'7', 2, b'o', b'p']),
            (Event::AgentResumed { name }, vec![1, 2, 2, b'b', b'7']),
            (Event::Forgotten { ids: vec![id] }, [&[1, 3, 1], &ID[..]].concat()),
            (Event::Restored { id, job }, [&[1, 4], &ID[..], &job_bytes].concat()),
        ]
    }

    #[test]
    fn events_have_the_bytes_that_they_always_had() {
        for (event, bytes) in golden() {
            assert_eq!(event.encode(), bytes, "{event:?}");
            assert_eq!(Event::decode(&bytes), Ok(event));
        }
    }

    #[test]
    fn an_event_of_a_newer_version_is_refused_with_the_cure() {
        for bytes in [&[][..], &[2, 0], &[1, 200], &[1, 2, 2, b'b', b'7', 0]] {
            let message = Event::decode(bytes).expect_err("unknown").to_string();
            assert!(message.contains("at least as new"), "{message}");
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Event::decode(&bytes);
        }
    }
}
