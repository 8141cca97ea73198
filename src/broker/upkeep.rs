//! What has to be done from time to time: forcing writes to stable storage, and dropping what retention gives up.

use super::clock;
use super::config::Sync;
use super::server::Shared;
use std::sync::Arc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// Applies each topic's retention, for ever.
pub(crate) async fn retain(shared: Arc<Shared>) {
    let every = shared.config.retention_check;
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let shared = Arc::clone(&shared);
        let pass = tokio::task::spawn_blocking(move || {
            for topic in shared.topics.all() {
                let settings = topic.settings();
                for (index, partition) in topic.partitions.iter().enumerate() {
                    match partition.retain(&settings, clock::now_ms()) {
                        Ok(0) => {}
                        Ok(dropped) => {
                            tracing::debug!(topic = topic.name, partition = index, dropped, "dropped old segments");
                        }
                        Err(error) => {
                            tracing::error!(topic = topic.name, partition = index, %error, "cannot apply retention");
                        }
                    }
                }
            }
        });
        if let Err(error) = pass.await {
            tracing::error!(%error, "retention pass failed");
        }
    }
}

/// Forces what was written to stable storage at the configured interval, for ever.
pub(crate) async fn sync(shared: Arc<Shared>) {
    let Sync::Every(every) = shared.sync else { return };
    let every = every.max(std::time::Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sync_all(&shared).await;
    }
}

/// Forces everything written so far to stable storage.
pub(crate) async fn sync_all(shared: &Arc<Shared>) {
    let shared = Arc::clone(shared);
    let pass = tokio::task::spawn_blocking(move || {
        for topic in shared.topics.all() {
            for (index, partition) in topic.partitions.iter().enumerate() {
                let result = partition.take_unsynced().map_or(Ok(()), |unsynced| unsynced.sync());
                if let Err(error) = result {
                    tracing::error!(topic = topic.name, partition = index, %error, "cannot sync the log");
                }
            }
        }
    });
    if let Err(error) = pass.await {
        tracing::error!(%error, "sync pass failed");
    }
}
