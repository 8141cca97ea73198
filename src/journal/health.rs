//! Whether the journal reaches Kafka, for a status line: an outage fails nothing here, it only takes time.

use std::fmt;

use crate::kafka;

/// What stands between the journal and its topic, if anything does.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// Why nothing can be read.
    pub reading: Option<kafka::Error>,
    /// Why nothing can be appended.
    pub writing: Option<kafka::Error>,
}

impl Health {
    /// Whether both ways work, as far as they were tried.
    pub fn is_reachable(&self) -> bool {
        self.reading.is_none() && self.writing.is_none()
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.reading, &self.writing) {
            (None, None) => f.write_str("Kafka reachable"),
            (Some(error), _) => write!(f, "Kafka unreachable: reading the journal: {error}"),
            (None, Some(error)) => write!(f, "Kafka unreachable: writing the journal: {error}"),
        }
    }
}
