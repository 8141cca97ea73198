//! The last lines. Pure: [`locate`](super::locate) finds the bytes.

use std::collections::VecDeque;

use super::{Stream, assemble::Event, record::Opened};

/// How many lines end in `records`.
pub(super) fn lines<'a>(records: impl Iterator<Item = &'a Opened>, only: Option<Stream>) -> u64 {
    let shown = records.filter(|record| only.is_none_or(|only| only == record.stream));
    shown.map(|record| record.bytes.iter().filter(|byte| **byte == b'\n').count() as u64).sum()
}

/// How many lines end in `events`.
pub(super) fn shown_lines(events: &VecDeque<Event>, only: Option<Stream>) -> u64 {
    let shown = events.iter().filter_map(|event| match event {
        Event::Chunk { stream, bytes, .. } if only.is_none_or(|only| only == *stream) => Some(bytes),
        _ => None,
    });
    shown.map(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count() as u64).sum()
}

/// Takes off what comes before the last `lines` lines of the streams that are shown, counted where they end, from the last
/// event back; a stream's last line may lack its end. Gaps and ends stay if they come behind.
pub(super) fn cut(events: &mut VecDeque<Event>, lines: u64, only: Option<Stream>) {
    let mut ended = 0;
    let mut seen = [false; 3];
    for index in (0..events.len()).rev() {
        let Event::Chunk { stream, bytes, .. } = &events[index] else { continue };
        if only.is_some_and(|only| only != *stream) {
            continue;
        }
        let seen = &mut seen[*stream as usize];
        for at in (0..bytes.len()).rev() {
            let last = !std::mem::replace(seen, true);
            ended += u64::from(last || bytes[at] == b'\n');
            if ended > lines {
                cut_at(events, index, at + 1);
                return;
            }
        }
    }
}

/// Takes off all events before `index`, and the first `at` bytes of that one.
fn cut_at(events: &mut VecDeque<Event>, index: usize, at: usize) {
    events.drain(..index);
    if let Some(Event::Chunk { offset, bytes, .. }) = events.front_mut() {
        *offset += at as u64;
        drop(bytes.split_to(at));
        if bytes.is_empty() {
            events.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_text(chunks: &[(Stream, &'static str)], lines: u64, only: Option<Stream>) -> String {
        let chunk = |(stream, text): &(Stream, &'static str)| Event::Chunk {
            stream: *stream,
            offset: 0,
            time: 0,
            bytes: text.as_bytes().into(),
        };
        let mut events: VecDeque<_> = chunks.iter().map(chunk).collect();
        cut(&mut events, lines, only);
        let shown = events.iter().filter_map(|event| match event {
            Event::Chunk { bytes, stream, .. } if only.is_none_or(|only| only == *stream) => Some(bytes),
            _ => None,
        });
        shown.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    #[test]
    fn the_last_lines_are_left() {
        use Stream::{Stderr, Stdout};
        let chunks = [(Stdout, "1\n2"), (Stdout, "2\n3\n"), (Stderr, "e\n"), (Stdout, "4")];
        for (lines, left) in [(0, ""), (1, "4"), (2, "e\n4"), (3, "3\ne\n4"), (4, "22\n3\ne\n4"), (5, "1\n22\n3\ne\n4")]
        {
            assert_eq!(cut_text(&chunks, lines, None), left, "{lines}");
        }
        assert_eq!(cut_text(&chunks, 2, Some(Stdout)), "3\n4");
        assert_eq!(cut_text(&chunks, 99, None), "1\n22\n3\ne\n4");
        assert_eq!(cut_text(&[(Stdout, "1\n\n")], 1, None), "\n");
        assert_eq!(cut_text(&[], 1, None), "");
    }
}
