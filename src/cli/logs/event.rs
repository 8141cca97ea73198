//! A job's output as lines of JSON.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use serde::Serialize;

use super::stamp::rfc3339;
use crate::{
    api::{
        jobs::JobInfo,
        logs::{Digest, LogItem, LogStream},
    },
    cli::exec::lines::Lines,
};

/// A line of `-o jsonl`.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event<'a> {
    /// The job was taken.
    Submitted { job: &'a JobInfo },
    /// What follows is of this attempt.
    Attempt { attempt: u32 },
    /// A line of stdout.
    Stdout(Line<'a>),
    /// A line of stderr.
    Stderr(Line<'a>),
    /// A line of the agent's.
    System(Line<'a>),
    /// Bytes that will never come.
    Gap { stream: LogStream, from: u64, to: u64, cause: &'a str },
    /// A stream is at its end.
    StreamEnd { stream: LogStream, total: u64, digest: &'static str },
    /// The controller is away.
    Away { message: &'a str },
    /// It is back.
    Back,
    /// The job, as it is at the end of the log.
    End { job: &'a JobInfo },
}

/// Output as text without its line end where it is UTF-8, else in base64, as it is.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// The first byte's position in its stream.
    offset: u64,
    /// When it was written.
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Event<'_> {
    /// The event as a line.
    pub fn line(&self) -> Bytes {
        let mut line = serde_json::to_vec(self).expect("events are plain data");
        line.push(b'\n');
        line.into()
    }
}

/// Makes lines of JSON out of what comes.
#[derive(Debug, Default)]
pub struct Events {
    streams: [Pending; 3],
}

/// What came of one stream and is no whole line yet.
#[derive(Debug, Default)]
struct Pending {
    lines: Lines,
    offset: u64,
    time_ms: i64,
}

impl Events {
    /// What `item` gives, ready to be written.
    pub fn take(&mut self, item: &LogItem) -> Bytes {
        let mut out = BytesMut::new();
        match item {
            LogItem::Attempt(attempt) => {
                out.extend_from_slice(&self.rest());
                out.extend_from_slice(&Event::Attempt { attempt: *attempt }.line());
            }
            LogItem::Chunk { stream, offset, time_ms, bytes } => {
                self.streams[*stream as usize].push(*stream, *offset, *time_ms, bytes, &mut out);
            }
            LogItem::Gap { stream, from, to, cause } => {
                self.streams[*stream as usize].rest(*stream, &mut out);
                out.extend_from_slice(&Event::Gap { stream: *stream, from: *from, to: *to, cause }.line());
            }
            LogItem::End { stream, total, verdict } => {
                self.streams[*stream as usize].rest(*stream, &mut out);
                let digest = match verdict {
                    Digest::Right => "right",
                    Digest::Wrong => "wrong",
                    Digest::Unknown => "unknown",
                };
                out.extend_from_slice(&Event::StreamEnd { stream: *stream, total: *total, digest }.line());
            }
            LogItem::Done(_) | LogItem::Idle | LogItem::Failed(_) => (),
        }
        out.freeze()
    }

    /// Lines that lack their end.
    pub fn rest(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        for stream in [LogStream::Stdout, LogStream::Stderr, LogStream::System] {
            self.streams[stream as usize].rest(stream, &mut out);
        }
        out.freeze()
    }
}

impl Pending {
    fn push(&mut self, stream: LogStream, offset: u64, time_ms: i64, bytes: &[u8], out: &mut BytesMut) {
        if self.lines.is_empty() {
            (self.offset, self.time_ms) = (offset, time_ms);
        }
        self.lines.push(bytes);
        while let Some(line) = self.lines.next() {
            self.write(stream, &line, out);
            self.time_ms = time_ms;
        }
    }

    fn rest(&mut self, stream: LogStream, out: &mut BytesMut) {
        if let Some(line) = self.lines.rest() {
            self.write(stream, &line, out);
        }
    }

    fn write(&mut self, stream: LogStream, bytes: &[u8], out: &mut BytesMut) {
        let (text, base64) = match std::str::from_utf8(bytes) {
            Ok(text) => (Some(text.strip_suffix('\n').unwrap_or(text)), None),
            Err(_) => (None, Some(STANDARD.encode(bytes))),
        };
        let line = Line { offset: self.offset, time: rfc3339(self.time_ms), text, base64 };
        let event = match stream {
            LogStream::Stdout => Event::Stdout(line),
            LogStream::Stderr => Event::Stderr(line),
            LogStream::System => Event::System(line),
        };
        out.extend_from_slice(&event.line());
        self.offset = self.offset.saturating_add(bytes.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines_with_their_place_and_time() {
        let mut events = Events::default();
        let chunk = |offset, time_ms, bytes: &'static [u8]| LogItem::Chunk {
            stream: LogStream::Stdout,
            offset,
            time_ms,
            bytes: Bytes::from_static(bytes),
        };
        let mut out = BytesMut::new();
        for item in [
            LogItem::Attempt(1),
            chunk(0, 0, b"one\ntw"),
            chunk(6, 1000, b"o\n\xff\nx"),
            LogItem::Gap { stream: LogStream::Stdout, from: 11, to: 20, cause: "retention".to_owned() },
            LogItem::End { stream: LogStream::Stdout, total: 20, verdict: Digest::Unknown },
        ] {
            out.extend_from_slice(&events.take(&item));
        }
        assert!(events.rest().is_empty());
        let expected = r#"{"event":"attempt","attempt":1}
{"event":"stdout","offset":0,"time":"1970-01-01T00:00:00.000Z","text":"one"}
{"event":"stdout","offset":4,"time":"1970-01-01T00:00:00.000Z","text":"two"}
{"event":"stdout","offset":8,"time":"1970-01-01T00:00:01.000Z","base64":"/wo="}
{"event":"stdout","offset":10,"time":"1970-01-01T00:00:01.000Z","text":"x"}
{"event":"gap","stream":"stdout","from":11,"to":20,"cause":"retention"}
{"event":"stream_end","stream":"stdout","total":20,"digest":"unknown"}
"#;
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
