use proptest::prelude::*;

use super::*;

fn meta(acked: u64, body: Body) -> Meta {
    let acked = Positions([acked, 0, 0]);
    Meta { topic: 1, batch: None, index: None, before: acked, acked, body }
}

fn data(offset: u64, bytes: impl Into<Bytes>, acked: u64) -> Opened {
    let bytes = bytes.into();
    let runs = vec![Run { time: offset as i64, length: bytes.len() as u32 }];
    Opened { stream: Stream::Stdout, offset, bytes, meta: meta(acked, Body::Data(runs)) }
}

fn end(total: u64, bytes: &[u8]) -> Opened {
    let digest = digest::digest(&digest::SHA256, bytes).as_ref().try_into().expect("32 bytes");
    Opened { stream: Stream::Stdout, offset: total, bytes: Bytes::new(), meta: meta(total, Body::End(digest)) }
}

fn assemble(records: impl IntoIterator<Item = Opened>) -> (Assembler, Vec<Event>) {
    let mut assembler = Assembler::new(Positions::default());
    let mut out = VecDeque::new();
    for record in records {
        assembler.record(record, true, Cause::Lost, &mut out);
    }
    (assembler, out.into())
}

fn text(events: &[Event]) -> String {
    let event = |event: &Event| match event {
        Event::Chunk { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
        Event::Gap { bytes, .. } => format!("[{}..{}]", bytes.start, bytes.end),
        Event::End { digest, .. } => format!("<{digest:?}>"),
    };
    events.iter().map(event).collect()
}

#[test]
fn what_comes_out_of_order_is_put_in_order_and_ends() {
    let (assembler, events) = assemble([data(3, "de", 0), data(0, "abc", 0), data(0, "abcde", 0), end(5, b"abcde")]);
    assert_eq!(text(&events), "abcde<Matches>");
    assert_eq!(assembler.counts(), Counts { repeated: 5, differing: 0 });
    assert!(assembler.is_whole());
}

#[test]
fn the_first_record_in_the_log_wins_and_one_that_differs_is_counted() {
    let (assembler, events) =
        assemble([data(0, "abc", 0), data(5, "fg", 0), data(1, "XXXXXXXX", 0), data(0, "abc", 0)]);
    assert_eq!(text(&events), "abcXXfgXX");
    assert_eq!(assembler.counts(), Counts { repeated: 7, differing: 1 });
    let (assembler, events) = assemble([end(2, b"ab"), end(3, b"ab"), data(0, "abcd", 2)]);
    assert_eq!((text(&events).as_str(), assembler.counts().differing), ("[0..2]<Incomplete>", 2));
}

#[test]
fn a_gap_that_may_still_be_filled_is_waited_for() {
    let (assembler, events) = assemble([data(3, "de", 0)]);
    assert_eq!((text(&events).as_str(), assembler.is_whole()), ("", false));
}

#[test]
fn a_gap_of_bytes_that_were_acknowledged_before_is_named_at_once() {
    let (mut assembler, events) = assemble([data(0, "ab", 0), data(4, "ef", 0), data(8, "ij", 5)]);
    assert_eq!(text(&events), "ab[2..4]ef");
    let record = data(8, "ij", 8);
    assert!(assembler.misses(&record.meta));
    let mut out = VecDeque::new();
    assembler.record(record.clone(), false, Cause::Lost, &mut out);
    assert!(out.is_empty(), "another topic's acknowledgements say nothing");
    assembler.record(record, true, Cause::Lost, &mut out);
    assert_eq!(text(out.make_contiguous()), "[6..8]ij");
    assembler.record(end(10, b""), true, Cause::Lost, &mut out);
    assert_eq!(text(out.make_contiguous()), "[6..8]ij<Incomplete>");
}

#[test]
fn what_waits_behind_a_gap_is_bounded() {
    let piece = vec![7; 1 << 20];
    let records = (1..20).map(|at| data(at << 20, piece.clone(), 0));
    let (assembler, events) = assemble(records);
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Gap { .. })).count(), 1);
    assert_eq!(assembler.positions().0[0], 20 << 20);
    let (assembler, _) = assemble((1..200_000).map(|at| data(2 * at, "x", 0)));
    let pending: usize = assembler.lanes[0].pending.len();
    assert!(pending * PIECE <= REORDER + PIECE, "{pending}");
}

#[test]
fn bytes_behind_the_end_do_not_count() {
    let (assembler, events) = assemble([end(3, b"abc"), data(2, "cdef", 0), data(0, "ab", 0), data(3, "d", 0)]);
    assert_eq!(text(&events), "[0..3]<Incomplete>");
    assert!(assembler.lanes[0].pending.is_empty());
    let late = Opened { meta: meta(0, end(3, b"abc").meta.body), ..end(3, b"abc") };
    let (assembler, events) = assemble([late, data(2, "cdef", 0), data(0, "ab", 0), data(3, "d", 0)]);
    assert_eq!(text(&events), "abc<Matches>");
    assert!(assembler.lanes[0].ended);
}

proptest! {
    #[test]
    fn any_cover_of_a_stream_in_any_order_gives_its_bytes(
        length in 1..500_usize, extra in prop::collection::vec((0..500_usize, 1..200_usize), 0..20),
        cut in 1..100_usize, order in any::<u64>(),
    ) {
        let whole: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
        let cover = (0..length).step_by(cut).map(|at| (at, cut));
        let mut pieces: Vec<_> = cover.chain(extra).filter(|(at, _)| *at < length).collect();
        let mut order = order;
        pieces.sort_by_cached_key(|_| {
            order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            order >> 20
        });
        let records = pieces.iter().map(|&(at, size)| data(at as u64, whole[at..(at + size).min(length)].to_vec(), 0));
        let late = Opened { meta: meta(0, end(length as u64, &whole).meta.body), ..end(length as u64, &whole) };
        let (assembler, events) = assemble(records.chain([late]));
        let mut got = Vec::new();
        for event in &events[..events.len() - 1] {
            let Event::Chunk { offset, bytes, .. } = event else { panic!("{event:?}") };
            prop_assert_eq!(*offset, got.len() as u64);
            got.extend_from_slice(bytes);
        }
        prop_assert_eq!(got, whole);
        prop_assert_eq!(assembler.counts().differing, 0);
        let total = length as u64;
        prop_assert_eq!(&events[events.len() - 1], &Event::End { stream: Stream::Stdout, total, digest: Digest::Matches });
    }
}
