//! Writing packets under the honest agent's name, invented and recorded.

use std::fs;

use bytes::{BufMut, Bytes, BytesMut};
use remoting_kafka::{
    kafka::Record,
    link::packet::{Header, Incarnation, Kind, is_long},
};

use crate::{
    packets::{self, Initials, prove, up, with_datagram},
    rig::noise,
    stage::{HONEST, Stage},
    support::user::{ADMIN, AGENT},
};

/// The honest agent's run, as whoever may read what comes down sees it.
fn incarnation(stage: &Stage) -> Incarnation {
    let records = stage.read(&stage.prefix.down_control(), stage.partition(HONEST));
    let ours = records.iter().rev().find(|(_, record)| record.key == HONEST);
    packets::header(&ours.expect("it was answered").1).unwrap().incarnation
}

#[test]
fn packets_under_another_agents_name_are_dropped_counted_and_end_nothing() {
    let stage = Stage::start("forge");
    let (topic, at, run) = (stage.prefix.up_control(), stage.partition(HONEST), incarnation(&stage));
    stage.rig.add("rogue", &[]);
    let own = stage.credential("rogue");
    let initial = Initials::new().next();
    // As one with an agent's login, who may write what goes up.
    let forge = |what: &str, reason: Option<&str>, records: Vec<Record>| {
        let before = reason.map(|reason| stage.dropped(reason));
        let count = records.len() as u64;
        stage.attempt(what, || {
            stage.write(AGENT, &topic, at, records);
            if let (Some(reason), Some(before)) = (reason, before) {
                stage.wait_dropped(reason, before, count);
            }
        });
    };

    let garbage = (0..200).map(|n| Record::new(HONEST, noise(1 + n * 37))).collect();
    forge("garbage", Some("malformed"), garbage);
    let nobody = (0..50).map(|n| with_datagram(&format!("-{n}"), &up(run, 1), &initial, [7; 16])).collect();
    forge("names that nobody has", Some("malformed"), nobody);
    let unknown = (0..50).map(|n| with_datagram(&format!("x{n}"), &up(run, 1), &initial, [7; 16])).collect();
    forge("names that nobody was given", Some("unknown"), unknown);
    let guessed = (0..50).map(|n| with_datagram(HONEST, &up(run, 1), &initial, [n; 16])).collect();
    forge("a guessed MAC", Some("forged"), guessed);
    let header = up(run, 1);
    let stolen = (0..50).map(|_| with_datagram(HONEST, &header, &initial, prove(&own, HONEST, &header, &initial)));
    forge("the rogue's own secret under the honest name", Some("forged"), stolen.collect());
    let none = up(Incarnation { starts: 0, random: 1 }, 1);
    forge("an older run", Some("old"), vec![with_datagram(HONEST, &none, &[0x40; 60], [0; 16]); 50]);
    let kinds =
        [Kind::Down, Kind::Notice].map(|kind| with_datagram(HONEST, &Header { kind, ..header }, &initial, [0; 16]));
    forge("what a controller says", Some("malformed"), kinds.to_vec());

    let whole = with_datagram(HONEST, &header, &initial, [7; 16]);
    let cut = (0..whole.value.len()).step_by(3).filter(|length| *length != 22);
    let cut = cut.map(|length| Record { value: whole.value.slice(..length), ..whole.clone() }).collect();
    forge("truncated packets", Some("malformed"), cut);
    let mut huge = BytesMut::new();
    for _ in 0..14 {
        huge.put_u16_le(u16::MAX);
        huge.put_bytes(0x41, usize::from(u16::MAX));
    }
    forge("datagrams larger than any", None, vec![packets::record(HONEST, &header, &huge); 8]);
    let mut many = BytesMut::new();
    for _ in 0..200_000 {
        many.put_slice(&[1, 0, 0x41]);
    }
    forge("200,000 datagrams in a record", None, vec![packets::record(HONEST, &header, &many); 2]);
    let runs = (0..5000).map(|random| {
        let run = Incarnation { random, starts: u64::MAX };
        with_datagram(HONEST, &up(run, u32::MAX), &[0x41; 40], [0; 16])
    });
    forge("5,000 later runs that prove nothing", None, runs.collect());
    let probes = (0..50u64).map(|n| {
        let none = Incarnation { starts: 0, random: 0 };
        packets::record("-controller", &Header { kind: Kind::Probe, incarnation: none, epoch: 1 }, &n.to_le_bytes())
    });
    forge("a controller's probes", None, probes.collect());

    // One whose secret is good may say what it likes of controllers that it knows.
    let before = stage.dropped("fenced");
    stage.attempt("a controller that nobody knows", || {
        let liar = up(Incarnation { starts: 1, random: 1 }, u32::MAX);
        let lie = with_datagram("rogue", &liar, &initial, prove(&own, "rogue", &liar, &initial));
        stage.write(AGENT, &topic, stage.partition("rogue"), vec![lie; 20]);
        stage.wait_dropped("fenced", before, 20);
    });
    println!("dropped: {}", stage.all_dropped());
}

#[test]
fn recorded_packets_written_again_end_no_session_begin_none_and_run_nothing_twice() {
    let stage = Stage::start("replay");
    let file = stage.rig.path("lines");
    let script = format!("echo line >> {}", file.display());
    let append = || stage.rig.run(&["exec", HONEST, "--", "sh", "-c", &script]).ok();
    let lines = || fs::read_to_string(&file).unwrap().lines().count();
    append();
    let partitions = 0..stage.rig.partitions as i32;
    let [up, down] = [stage.prefix.up_control(), stage.prefix.down_control()];
    let record = |topic: &str| -> Vec<Record> { stage.read_all(topic).into_iter().map(|(_, record)| record).collect() };
    let earlier = record(&up);
    stage.restart_honest();
    append();
    let of_honest = |records: &[Record]| records.iter().filter(|record| record.key == HONEST).count();

    let (old, count) = (stage.dropped("old"), of_honest(&earlier) as u64);
    stage.attempt("packets of an earlier session, on every partition", || {
        for at in partitions.clone() {
            stage.write(ADMIN, &up, at, earlier.clone());
        }
        stage.wait_dropped("old", old, count * u64::from(stage.rig.partitions));
    });
    let current = record(&up);
    let handshakes = current.iter().filter(|r| r.value.get(24).is_some_and(|first| is_long(&[*first]))).count();
    println!("recorded: {count} packets of the earlier session, {} in all, {handshakes} of handshakes", current.len());
    let topics = [("up", &up, current.clone()), ("down", &down, record(&down))];
    for (what, topic, records) in topics {
        for round in ["in order", "backwards", "each three times"] {
            stage.attempt(&format!("packets of this session, {what}, {round}"), || {
                let mut again: Vec<Record> = records.clone();
                match round {
                    "backwards" => again.reverse(),
                    "each three times" => again = again.into_iter().flat_map(|record| vec![record; 3]).collect(),
                    _ => {}
                }
                for at in partitions.clone() {
                    stage.write(ADMIN, topic, at, again.clone());
                }
            });
        }
    }
    // The same with a bit changed in each, and the other lane's.
    stage.attempt("packets of this session with a bit changed, and on the bulk lane", || {
        let flipped = |at: usize, record: &Record| {
            let mut value = record.value.to_vec();
            let place = 22 + at * 7 % value.len().saturating_sub(22).max(1);
            value.get_mut(place).into_iter().for_each(|byte| *byte ^= 1 << (at % 8));
            Record { value: Bytes::from(value), ..record.clone() }
        };
        let changed: Vec<Record> = current.iter().enumerate().map(|(at, record)| flipped(at, record)).collect();
        for at in partitions.clone() {
            stage.write(ADMIN, &up, at, changed.clone());
            stage.write(ADMIN, &stage.prefix.up_bulk(), at, current.clone());
        }
    });
    assert_eq!(lines(), 2, "each command ran once");
    append();
    assert_eq!(lines(), 3);
    let status: serde_json::Value =
        serde_json::from_slice(&stage.rig.run(&["status", "-o", "json"]).ok().stdout).unwrap();
    assert_eq!(status["agents"]["online"], 1);
    println!("dropped: {}", stage.all_dropped());
}
