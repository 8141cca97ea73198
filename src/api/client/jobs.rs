//! A client's requests about jobs and their output.

use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use serde::Serialize;

use super::{Client, ClientError, items::Items};
use crate::{
    api::{
        ApiError, Code,
        jobs::{AskedBy, CancelJob, JobInfo, JobList, JobQuery, SetDeadline, SubmitJob},
        logs::{LogItem, LogQuery},
    },
    id::AgentName,
};

impl Client {
    /// Submits a job. It is in the journal when this returns.
    pub async fn submit(&self, job: &SubmitJob) -> Result<JobInfo, ClientError> {
        self.json(Method::POST, "/v1/jobs", self.body(job)?).await
    }

    /// The jobs that `query` asks for.
    pub async fn jobs(&self, query: &JobQuery) -> Result<JobList, ClientError> {
        self.json(Method::GET, &format!("/v1/jobs{}", self.query(query)?), Bytes::new()).await
    }

    /// The job whose id begins with `id`.
    pub async fn job(&self, id: &str) -> Result<JobInfo, ClientError> {
        self.json(Method::GET, &job_path(id, ""), Bytes::new()).await
    }

    /// The job, when it has ended, or as it is after `patience`, whose bound is half of this client's timeout.
    pub async fn wait_for_job(&self, id: &str, patience: Duration) -> Result<JobInfo, ClientError> {
        let patience = patience.min(self.timeout / 2).as_millis();
        self.json(Method::GET, &job_path(id, &format!("/wait?for_ms={patience}")), Bytes::new()).await
    }

    /// Asks for a job's end. Returns the job as it is then, which may still run.
    pub async fn cancel_job(&self, id: &str, cancel: &CancelJob) -> Result<JobInfo, ClientError> {
        self.json(Method::POST, &job_path(id, "/cancel"), self.body(cancel)?).await
    }

    /// Submits a job that ended once more. Returns the new one.
    pub async fn retry_job(&self, id: &str, by: &AskedBy) -> Result<JobInfo, ClientError> {
        self.json(Method::POST, &job_path(id, "/retry"), self.body(by)?).await
    }

    /// Says how long a job's agent may be unreachable.
    pub async fn set_job_deadline(&self, id: &str, deadline: &SetDeadline) -> Result<JobInfo, ClientError> {
        self.json(Method::POST, &job_path(id, "/deadline"), self.body(deadline)?).await
    }

    /// Gives an agent no new jobs from now on.
    pub async fn drain_agent(&self, name: &AgentName, by: &AskedBy) -> Result<crate::api::Agent, ClientError> {
        self.json(Method::POST, &format!("/v1/agents/{name}/drain"), self.body(by)?).await
    }

    /// Gives an agent jobs again.
    pub async fn resume_agent(&self, name: &AgentName, by: &AskedBy) -> Result<crate::api::Agent, ClientError> {
        self.json(Method::POST, &format!("/v1/agents/{name}/resume"), self.body(by)?).await
    }

    /// Opens a job's output.
    pub async fn job_log(&self, id: &str, query: &LogQuery) -> Result<LogReceiver, ClientError> {
        let path = job_path(id, &format!("/log{}", self.query(query)?));
        Ok(LogReceiver { items: Items::open(self, &path).await?, done: false })
    }

    pub(super) fn query(&self, query: &impl Serialize) -> Result<String, ClientError> {
        let value = serde_json::to_value(query).map_err(|e| self.protocol(e))?;
        let mut out = String::new();
        for (key, value) in value.as_object().into_iter().flatten() {
            let text = match value {
                serde_json::Value::Null => continue,
                serde_json::Value::String(text) if text.is_empty() => continue,
                serde_json::Value::String(text) => super::percent_encoded(text),
                other => other.to_string(),
            };
            out.push(if out.is_empty() { '?' } else { '&' });
            out.push_str(&format!("{key}={text}"));
        }
        Ok(out)
    }
}

/// A job's output as it comes.
#[derive(Debug)]
pub struct LogReceiver {
    items: Items<LogItem>,
    done: bool,
}

impl LogReceiver {
    /// The next item; `None` after [`LogItem::Done`]. [`LogItem::Idle`] is passed over, and [`LogItem::Failed`] is an error of
    /// the controller's. Cancel-safe. Another error says that the answer broke: ask again from where you are.
    pub async fn next(&mut self) -> Result<Option<LogItem>, ClientError> {
        while !self.done {
            match self.items.next().await? {
                LogItem::Failed(why) => return Err(ApiError::new(Code::Internal, why).into()),
                LogItem::Idle => {}
                item => {
                    self.done = matches!(item, LogItem::Done(_));
                    return Ok(Some(item));
                }
            }
        }
        Ok(None)
    }
}

/// A job's path. An id that could be another path is no id, and the controller says so of the empty one.
fn job_path(id: &str, rest: &str) -> String {
    format!("/v1/jobs/{}{rest}", super::percent_encoded(id))
}
