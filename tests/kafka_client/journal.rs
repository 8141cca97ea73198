//! The journal's snapshots and cuts, on any broker.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use remoting_kafka::{
    journal::{Committed, Error, Journal, Snapshot, StateKey, Witness},
    kafka::{At, Cluster, KafkaCluster},
};
use tokio::{sync::mpsc, time::timeout};

use crate::logs::make;

const LONG: Duration = Duration::from_secs(60);

async fn open(cluster: &KafkaCluster, topic: &str, witness: Option<Witness>) -> (Journal, mpsc::Receiver<Committed>) {
    let key = StateKey::new([7; 32]);
    Journal::open(Arc::new(cluster.clone()), topic, key, witness).await.unwrap()
}

async fn next(events: &mut mpsc::Receiver<Committed>) -> Committed {
    timeout(LONG, events.recv()).await.expect("in time").expect("open")
}

/// What a reader has folded once it has read all that is there.
async fn fold(events: &mut mpsc::Receiver<Committed>) -> Vec<Bytes> {
    let mut state = Vec::new();
    loop {
        match next(events).await {
            Committed::Event { payload, .. } | Committed::Restored { payload } => state.push(payload),
            Committed::Restore(_) => state.clear(),
            Committed::CaughtUp => return state,
            Committed::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

async fn begun(events: &mut mpsc::Receiver<Committed>) -> Snapshot {
    loop {
        if let Committed::SnapshotBegun(snapshot) = next(events).await {
            return snapshot;
        }
    }
}

pub async fn a_journal_is_cut_at_a_snapshot_and_goes_on(cluster: &KafkaCluster, prefix: &str) {
    let topic = make(cluster, prefix, 1).await.journal();
    let (journal, mut events) = open(cluster, &topic, None).await;
    timeout(LONG, journal.claim()).await.unwrap().unwrap();
    let mut state = Vec::new();
    for round in 0..3u32 {
        for event in 0..1000u32 {
            state.push(Bytes::from(format!("event {event} of round {round}")));
            timeout(LONG, journal.enqueue(state[state.len() - 1].clone())).await.unwrap().unwrap();
            // Nothing is read meanwhile, so no more than fits may wait.
            while events.len() > 500 {
                next(&mut events).await;
            }
        }
        let begin = async { journal.begin_snapshot().await };
        let (begin, snapshot) = tokio::join!(timeout(LONG, begin), begun(&mut events));
        begin.unwrap().unwrap();
        let written = journal.write_snapshot(snapshot, state.clone());
        timeout(LONG, written).await.unwrap().unwrap();
        timeout(LONG, journal.cut()).await.unwrap().unwrap();
        timeout(LONG, journal.cut()).await.unwrap().expect("twice is as good");
        assert_eq!(cluster.reader(&topic, 0).offset(At::Earliest).await.unwrap(), snapshot.offset);
        let (_reader, mut events) = open(cluster, &topic, Some(journal.head())).await;
        assert!(matches!(next(&mut events).await, Committed::Restore(at) if at == snapshot));
        assert_eq!(fold(&mut events).await, state);
    }
    let (heir, mut events) = open(cluster, &topic, Some(journal.head())).await;
    assert_eq!(fold(&mut events).await, state);
    assert_eq!(timeout(LONG, heir.claim()).await.unwrap().unwrap(), 2);
    let late = timeout(LONG, journal.append("late".into())).await.unwrap();
    assert!(matches!(late, Err(Error::Superseded { by: 2 })), "{late:?}");
    timeout(LONG, heir.append("on".into())).await.unwrap().unwrap();
}
