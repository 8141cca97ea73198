//! Tells who follows a job why nothing comes: it waits for an agent, its agent can't be reached, a disk is full.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{
    api::{Client, jobs::JobInfo},
    cli::jobs::show,
    job::JobId,
};

/// A job that starts at once is not asked about.
const FIRST: Duration = Duration::from_secs(2);
/// How often is asked: one small request.
const EVERY: Duration = Duration::from_secs(5);

/// Looks after a job until it is dropped.
pub struct Watch {
    news: mpsc::Receiver<String>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Looks after the job `id`.
    pub fn start(client: Client, id: JobId) -> Self {
        let (tell, news) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let mut last = None;
            let mut ticks = interval_at(Instant::now() + FIRST, EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let client = client.with_timeout(EVERY);
            loop {
                ticks.tick().await;
                // That the controller is away is told by who reads the log.
                let Ok(job) = client.job(&id.to_string()).await else { continue };
                if let Some(line) = news_of(&job, &mut last)
                    && tell.send(line).await.is_err()
                {
                    return;
                }
            }
        });
        Self { news, task }
    }

    /// The next line. Cancel-safe.
    pub async fn next(&mut self) -> String {
        match self.news.recv().await {
            Some(line) => line,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is new since `last`.
fn news_of(job: &JobInfo, last: &mut Option<String>) -> Option<String> {
    let now = show::obstacle(job);
    if now == *last {
        return None;
    }
    let line = match (&now, &job.agent) {
        (Some(obstacle), _) => Some(format!("job {}: {obstacle}", job.id)),
        (None, Some(agent)) if !job.has_ended() => Some(format!("job {}: goes on, on agent {agent}", job.id)),
        (None, _) => None,
    };
    *last = now;
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::jobs::testing::job;

    #[test]
    fn what_stands_in_the_way_is_told_once_and_so_is_its_end() {
        let mut last = None;
        let agent = Some("a".parse().expect("name"));
        let runs = JobInfo { state: "running".to_owned(), exit_code: None, agent, ..job() };
        let away = JobInfo { unreachable: true, ..runs.clone() };
        assert_eq!(news_of(&runs, &mut last), None);
        assert!(news_of(&away, &mut last).expect("told").contains("can't be reached"));
        assert_eq!(news_of(&away, &mut last), None);
        assert!(news_of(&runs, &mut last).expect("told").contains("goes on, on agent a"));
        assert_eq!(news_of(&runs, &mut last), None);
    }
}
