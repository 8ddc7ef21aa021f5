//! A running log: group commit, marks, segments, room, failure.

use super::*;
use crate::log::format::{FLAG_IDLE_MARK, SEGMENT_BODY_OFFSET};
use gristmill_base::env::{DiskErrorKind, DiskOp};
use gristmill_base::limits::LOG_IDLE_MARK_NANOS;

fn fresh() -> (MemDisk, Dice, Log) {
    let (mut disk, mut dice) = (MemDisk::default(), Dice(1));
    let (mut log, records) = open(&mut disk, &config(), 1, &mut dice).unwrap();
    assert!(records.is_empty());
    supply(&mut log, &mut disk, &mut dice).unwrap();
    (disk, dice, log)
}

#[test]
fn one_batch_is_in_flight_and_the_flush_comes_after_the_write() {
    let (mut disk, _, mut log) = fresh();
    assert_eq!(append(&mut log, b"one"), 1);
    assert!(log.has_undurable());
    let mut out = Vec::new();
    log.drive(now(0), 0, &mut out);
    let (ticket, op) = out.pop().unwrap();
    assert!(matches!(op, DiskOp::Write { .. }));
    assert_eq!(append(&mut log, b"two"), 2);
    log.drive(now(0), 0, &mut out);
    assert!(out.is_empty(), "nothing is submitted before the write has completed");
    let mut done = Vec::new();
    disk.submit(ticket, op);
    disk.poll(&mut done);
    let completion = done.pop().unwrap();
    assert!(!log.complete(completion.ticket, completion.result));
    assert_eq!(log.durable().0, Lsn(0), "a completed write is not durable");
    log.drive(now(0), 0, &mut out);
    let (ticket, op) = out.pop().unwrap();
    assert!(matches!(op, DiskOp::Flush { .. }));
    disk.submit(ticket, op);
    disk.poll(&mut done);
    let completion = done.pop().unwrap();
    assert!(log.complete(completion.ticket, completion.result));
    assert_eq!(log.durable().0, Lsn(1), "a flush covers its own batch only");
    settle(&mut log, &mut disk, 0);
    assert_eq!(log.durable().0, Lsn(2));
}

#[test]
fn large_batches_are_one_operation_except_behind_a_mark() {
    let (mut disk, _, _) = fresh();
    let mut settings = config();
    settings.write_durable_bytes = 8 << 10;
    let (mut log, _) = open(&mut disk, &settings, 1, &mut Dice(2)).unwrap();
    let mut kinds = Vec::new();
    let mut round = |log: &mut Log, disk: &mut MemDisk, nanos: u64| loop {
        let mut out = Vec::new();
        log.drive(now(nanos), 0, &mut out);
        let Some((ticket, op)) = out.pop() else { break };
        kinds.push(match op {
            DiskOp::Write { .. } => 'w',
            DiskOp::WriteDurable { .. } => 'd',
            DiskOp::Flush { .. } => 'f',
            _ => '?',
        });
        disk.submit(ticket, op);
        let mut done = Vec::new();
        disk.poll(&mut done);
        let completion = done.pop().unwrap();
        log.complete(completion.ticket, completion.result);
    };
    append(&mut log, &[1; 10_000]);
    round(&mut log, &mut disk, 0);
    append(&mut log, &[2; 10]);
    round(&mut log, &mut disk, 0);
    round(&mut log, &mut disk, LOG_IDLE_MARK_NANOS);
    append(&mut log, &[3; 10_000]);
    round(&mut log, &mut disk, LOG_IDLE_MARK_NANOS);
    append(&mut log, &[3; 10_000]);
    round(&mut log, &mut disk, LOG_IDLE_MARK_NANOS);
    assert_eq!(kinds.iter().collect::<String>(), "dwfwwfd");
    assert_eq!(log.durable().0, Lsn(4));
}

#[test]
fn an_idle_log_writes_one_mark_that_covers_its_last_batch() {
    let (mut disk, _, mut log) = fresh();
    assert_eq!(log.next_deadline(), None);
    append(&mut log, b"one");
    settle(&mut log, &mut disk, 5);
    assert_eq!(log.next_deadline(), Some(5 + LOG_IDLE_MARK_NANOS));
    settle(&mut log, &mut disk, 4 + LOG_IDLE_MARK_NANOS);
    assert_eq!(read(&mut disk, &config(), 1).unwrap().0.watermark, Lsn(0));
    settle(&mut log, &mut disk, 5 + LOG_IDLE_MARK_NANOS);
    assert_eq!(log.next_deadline(), None);
    let before = disk.ops;
    settle(&mut log, &mut disk, 5 + 9 * LOG_IDLE_MARK_NANOS);
    assert_eq!(disk.ops, before);
    let (end, records) = read(&mut disk, &config(), 1).unwrap();
    assert_eq!((end.watermark, end.next, records.len()), (Lsn(1), Lsn(2), 1));
    let path = "shard-000/log/0000000001.seg";
    let mark = SEGMENT_BODY_OFFSET as usize + 4_096;
    assert_eq!(u32::from(disk.bytes(path)[mark + 4]), FLAG_IDLE_MARK);
}

#[test]
fn flushes_of_many_keep_their_distance_but_a_lone_request_does_not_wait() {
    let (mut disk, mut dice, _) = fresh();
    let mut settings = config();
    settings.flush_spacing_nanos = 1_000;
    let (mut log, _) = open(&mut disk, &settings, 1, &mut dice).unwrap();
    append(&mut log, b"one");
    settle(&mut log, &mut disk, 10);
    assert_eq!(log.durable().0, Lsn(1));
    for _ in 0..8 {
        append(&mut log, b"many");
    }
    settle(&mut log, &mut disk, 20);
    assert_eq!(log.durable().0, Lsn(9), "the flush before was of one");
    append(&mut log, b"two");
    assert!(!step(&mut log, &mut disk, 1_019));
    assert_eq!(log.next_deadline(), Some(1_020));
    settle(&mut log, &mut disk, 1_020);
    assert_eq!(log.durable().0, Lsn(10));
}

#[test]
fn a_full_batch_does_not_wait_for_the_distance_of_flushes() {
    let (mut disk, mut dice, _) = fresh();
    let mut settings = config();
    settings.flush_spacing_nanos = 1_000;
    let (mut log, _) = open(&mut disk, &settings, 1, &mut dice).unwrap();
    let record = vec![7; settings.seal_bytes / 16];
    let fill = |log: &mut Log, sealed: usize| {
        let last = log.appended().0.0;
        while log.ahead_bytes() < sealed * settings.seal_bytes {
            append(log, &record);
        }
        append(log, b"rest");
        log.appended().0.0 - last
    };
    let first = fill(&mut log, 1);
    // The full one, and what gathers behind it.
    step(&mut log, &mut disk, 10);
    settle(&mut log, &mut disk, 10);
    assert_eq!(log.durable().0, Lsn(first - 1), "the rest keeps its distance");
    let second = fill(&mut log, 1);
    assert_eq!(log.next_deadline(), Some(0));
    settle(&mut log, &mut disk, 11);
    assert!(log.durable().0 >= Lsn(first + second - 17), "{:?} of {}", log.durable(), first + second);
    assert!(log.durable().0 < log.appended().0, "again the rest");
    settle(&mut log, &mut disk, 1_011);
    assert_eq!(log.durable().0, log.appended().0);
}

#[test]
fn segments_are_used_again_and_the_log_does_not_grow() {
    let (mut disk, mut dice, mut log) = fresh();
    let mut bodies = Vec::new();
    for round in 0..400_u64 {
        bodies.push(vec![round as u8; 900]);
        append(&mut log, &bodies[round as usize]);
        settle(&mut log, &mut disk, 0);
        log.free_before(Lsn((round + 1).saturating_sub(20).max(1)));
        supply(&mut log, &mut disk, &mut dice).unwrap();
    }
    assert!(disk.paths().len() <= 6, "{:?}", disk.paths());
    drop(log);
    disk.kill();
    let (_, records) = open(&mut disk, &config(), 380, &mut dice).unwrap();
    assert_eq!(records.len(), 21);
    for (lsn, found, body) in records {
        assert_eq!((found, &body), (head(lsn), &bodies[lsn as usize - 1]));
    }
    assert!(matches!(read(&mut disk, &config(), 1), Err(LogError::Damage { .. })), "the start is gone");
}

#[test]
fn room_ends_before_the_reserve_and_returns() {
    let (mut disk, mut dice, mut log) = fresh();
    disk.full = true;
    let mut admitted = 0;
    while log.room(3_000) {
        append(&mut log, &[7; 3_000]);
        settle(&mut log, &mut disk, 0);
        assert!(!log.has_undurable());
        if let Err(error) = supply(&mut log, &mut disk, &mut dice) {
            assert_eq!(error.kind, DiskErrorKind::NoSpace);
        }
        admitted += 1;
    }
    assert!(admitted > 10);
    for _ in 0..8 {
        append(&mut log, &[8; 3_000]);
        settle(&mut log, &mut disk, 0);
        assert!(!log.has_undurable(), "the reserve serves what committed work causes");
    }
    assert!(log.failed().is_none());
    disk.full = false;
    supply(&mut log, &mut disk, &mut dice).unwrap();
    assert!(log.room(3_000));
    assert!(!log.room(log.config().record_bytes_max() + 1));
}

#[test]
fn what_waits_for_the_device_is_bounded() {
    let (_, _, mut log) = fresh();
    let mut bytes = 0;
    while log.room(1_000) {
        append(&mut log, &[1; 1_000]);
        bytes += 1_000;
    }
    assert!(bytes <= log.config().pending_bytes, "{bytes}");
}

#[test]
fn a_failed_write_or_flush_is_final() {
    for operations in 1..=2 {
        let (mut disk, _, mut log) = fresh();
        append(&mut log, b"one");
        settle(&mut log, &mut disk, 0);
        append(&mut log, b"two");
        disk.crash_at = Some(disk.ops + operations);
        settle(&mut log, &mut disk, 0);
        assert!(log.failed().is_some());
        disk.crash_at = None;
        append(&mut log, b"three");
        settle(&mut log, &mut disk, 1_000_000_000);
        assert_eq!((log.durable().0, log.appended().0), (Lsn(1), Lsn(3)));
        assert!(!log.room(1));
        assert_eq!(log.next_deadline(), None);
    }
}

#[test]
fn steady_appending_takes_its_buffers_back() {
    let (mut disk, mut dice, mut log) = fresh();
    for round in 0..2_000_u64 {
        append(&mut log, &vec![round as u8; (round * 37 % 2_500) as usize]);
        if round % 3 == 0 {
            step(&mut log, &mut disk, round);
        }
        if round % 16 == 0 {
            settle(&mut log, &mut disk, round);
            log.free_before(log.durable().0);
            supply(&mut log, &mut disk, &mut dice).unwrap();
        }
    }
    supply(&mut log, &mut disk, &mut dice).unwrap();
    settle(&mut log, &mut disk, 2_000);
    assert_eq!(log.durable().0, Lsn(2_000));
}

#[test]
fn records_larger_than_a_batch_or_a_read_come_back() {
    let (mut disk, mut dice) = (MemDisk::default(), Dice(3));
    let settings = LogConfig::new(IDENTITY, ShardId(0)).with_segment_bytes(8 << 20);
    let (mut log, _) = open(&mut disk, &settings, 1, &mut dice).unwrap();
    let sizes = [10, 3 << 20, 0, 700_000, 255 << 10, 1 << 20, 5 << 20, 1, 2 << 20, 99];
    for (index, size) in sizes.into_iter().enumerate() {
        append(&mut log, &vec![index as u8; size]);
        if index % 2 == 1 {
            settle(&mut log, &mut disk, 0);
            supply(&mut log, &mut disk, &mut dice).unwrap();
        }
    }
    settle(&mut log, &mut disk, 0);
    assert!(!log.has_undurable());
    let (_, records) = read(&mut disk, &settings, 1).unwrap();
    assert_eq!(records.len(), sizes.len());
    for (index, (_, found, body)) in records.into_iter().enumerate() {
        assert_eq!((found, body), (head(index as u64 + 1), vec![index as u8; sizes[index]]));
    }
}

#[test]
fn other_segment_sizes_are_taken_up_at_a_start() {
    let (mut disk, mut dice, mut log) = fresh();
    let mut bodies = Vec::new();
    for (life, bytes) in [128 << 10, 64 << 10, 256 << 10].into_iter().enumerate() {
        for index in 0..60 {
            bodies.push(vec![index; 4_000 + life]);
            append(&mut log, bodies.last().unwrap());
            settle(&mut log, &mut disk, 0);
            supply(&mut log, &mut disk, &mut dice).unwrap();
        }
        disk.kill();
        let settings = LogConfig::new(IDENTITY, ShardId(0)).with_segment_bytes(bytes);
        let records;
        (log, records) = open(&mut disk, &settings, 1, &mut dice).unwrap();
        assert!(records.iter().map(|record| &record.2).eq(&bodies), "life {life}");
    }
    let last = log.durable().0;
    for _ in 0..200 {
        append(&mut log, &[1; 4_000]);
        settle(&mut log, &mut disk, 0);
        log.free_before(last);
        supply(&mut log, &mut disk, &mut dice).unwrap();
    }
    assert!(!log.has_undurable());
    assert_eq!(read(&mut disk, log.config(), last.0).unwrap().1.len(), 201);
}

#[test]
fn a_start_on_a_full_disk_works_with_what_is_there() {
    let (mut disk, mut dice, mut log) = fresh();
    append(&mut log, b"one");
    settle(&mut log, &mut disk, 0);
    disk.kill();
    disk.full = true;
    let (mut log, records) = open(&mut disk, &config(), 1, &mut dice).unwrap();
    assert_eq!(records.len(), 1);
    append(&mut log, b"two");
    settle(&mut log, &mut disk, 0);
    assert!(!log.has_undurable());
}
