//! Records and what surrounds them.

use bytes::Bytes;

/// One record as the layers above see it. Timestamps are the broker's (`LogAppendTime`); writers send a fixed one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The key; empty means none.
    pub key: Bytes,
    /// The value; empty means none.
    pub value: Bytes,
    /// Headers, in their order.
    pub headers: Vec<(String, Bytes)>,
}

impl Record {
    /// A record without headers.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { key: key.into(), value: value.into(), headers: Vec::new() }
    }

    /// About how many bytes the record takes in a batch: key, value, headers and 32 bytes around them.
    pub fn approximate_size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(k, v)| k.len() + v.len() + 4).sum();
        self.key.len() + self.value.len() + headers + 32
    }
}

/// What a fetch brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fetched {
    /// Records with their offsets, ascending. There may be gaps between offsets.
    pub records: Vec<(i64, Record)>,
    /// Where the next fetch goes on.
    pub next_offset: i64,
    /// The end of what may be read: equal to `next_offset` when the reader has caught up.
    pub high_watermark: i64,
}

/// Which end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The earliest record that is still kept.
    Earliest,
    /// Behind the last record.
    Latest,
}

/// What the cluster says of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicDescription {
    /// The topic's id: another one under the same name means that it was deleted and created again. Zero where the
    /// broker knows no ids.
    pub id: u128,
    /// The number of partitions.
    pub partitions: i32,
    /// The number of replicas of the first partition.
    pub replication: i16,
}
