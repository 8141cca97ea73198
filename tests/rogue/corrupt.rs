//! Bytes that are changed on their way, in every topic at once, while a job writes.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use remoting_kafka::kafka::Record;

use crate::{
    rig::sha256,
    stage::{HONEST, Stage},
    support::user::{ADMIN, AGENT},
};

const LINES: usize = 150;

/// What the job writes.
fn expected() -> String {
    (1..=LINES).map(|n| format!("line {n} of a job that nobody may change\n")).collect()
}

fn script() -> String {
    format!(
        "i=1; while [ $i -le {LINES} ]; do echo line $i of a job that nobody may change; i=$((i+1)); sleep 0.02; done"
    )
}

/// A record with a bit changed, cut, empty, and with each header changed.
fn corrupted(at: usize, record: &Record) -> Vec<Record> {
    let value = |value: Bytes| Record { value, ..record.clone() };
    let mut flipped = record.value.to_vec();
    if !flipped.is_empty() {
        let place = at * 31 % flipped.len();
        flipped[place] ^= 1 << (at % 8);
    }
    let cut = record.value.slice(..record.value.len() * (at % 7) / 7);
    let mut all = vec![value(flipped.into()), value(cut), value(Bytes::new())];
    for header in 0..record.headers.len() {
        let mut other = record.clone();
        let mut changed = other.headers[header].1.to_vec();
        changed.iter_mut().skip(at % 5).take(1).for_each(|byte| *byte ^= 1);
        other.headers[header].1 = changed.into();
        all.push(other);
    }
    all
}

/// Runs the job, and `spoil` again and again while it runs; the job's id.
fn spoiled(stage: &Stage, what: &str, mut spoil: impl FnMut(&str)) -> String {
    let submitted = stage.rig.run(&["run", "--detach", "--agent", HONEST, "--", "sh", "-c", &script()]).ok();
    let id = submitted.text().trim().to_owned();
    let done = AtomicBool::new(false);
    stage.attempt(what, || {
        std::thread::scope(|scope| {
            let followed = scope.spawn(|| {
                let followed = stage.rig.run(&["logs", "-f", "-q", &id]);
                done.store(true, Ordering::SeqCst);
                followed
            });
            while !done.load(Ordering::SeqCst) {
                spoil(&id);
                std::thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(followed.join().unwrap().ok().text(), expected());
        });
    });
    let read = stage.rig.run(&["logs", "-q", &id]).ok();
    assert_eq!(sha256(&read.stdout), sha256(expected().as_bytes()), "{what}");
    id
}

#[test]
fn records_that_were_changed_or_cut_in_all_topics_end_nothing_and_change_no_byte_of_a_log() {
    let stage = Stage::start("corrupt");
    let partitions = |topic: &str| if *topic == stage.prefix.journal() { 1 } else { stage.rig.partitions as i32 };
    let mut seen: std::collections::BTreeMap<(String, i32), usize> = std::collections::BTreeMap::new();
    let mut written = 0;
    spoiled(&stage, "changed records in every topic", |_| {
        for topic in stage.topics() {
            for at in 0..partitions(&topic) {
                let records = stage.read(&topic, at);
                let place = seen.entry((topic.clone(), at)).or_default();
                // Not of what was written here, of which there would be ever more.
                let fresh: Vec<_> = records.iter().skip(*place).take(200).collect();
                let changed: Vec<Record> =
                    fresh.iter().flat_map(|(offset, record)| corrupted(*offset as usize, record)).collect();
                *place = records.len() + changed.len();
                written += changed.len();
                stage.write(ADMIN, &topic, at, changed);
            }
        }
    });
    let forged = stage.metric("rk_log_records_forged_total");
    println!("{written} changed records; {forged} counted in logs; dropped: {}", stage.all_dropped());
    assert!(forged > 0);
    stage.kill_controller();
    stage.start_controller();
    stage.wait_for_work();
}

#[test]
fn what_another_agent_writes_under_a_jobs_id_is_counted_and_is_not_in_its_log() {
    let stage = Stage::start("logs");
    let topic = stage.prefix.logs();
    let mut number = 0u8;
    spoiled(&stage, "records under another agent's job", |id| {
        number = number.wrapping_add(1);
        // Version, format, kind, salt, counter and length, as the job's own records have them.
        let envelope = [&[1, number % 2, 0][..], &[number; 16], &[0; 8], &5u32.to_be_bytes()].concat();
        let envelope = if number % 2 == 1 { [&envelope[..], &[number; 32]].concat() } else { envelope };
        let record = |offset: &str, rk: &[u8]| Record {
            key: Bytes::copy_from_slice(id.as_bytes()),
            value: Bytes::from_static(b"false"),
            headers: [("stream", "stdout".to_owned()), ("offset", offset.to_owned()), ("attempt", "1".to_owned())]
                .map(|(name, value)| (name.to_owned(), Bytes::from(value)))
                .into_iter()
                .chain([("rk".to_owned(), URL_SAFE_NO_PAD.encode(rk).into())])
                .collect(),
        };
        let records = vec![record("0", &envelope), record("700", &envelope), record("x", &envelope), record("0", b"")];
        for at in 0..stage.rig.partitions as i32 {
            stage.write(AGENT, &topic, at, records.clone());
        }
    });
    let forged = stage.metric("rk_log_records_forged_total");
    println!("{forged} counted in logs");
    assert!(forged > 0);
}
