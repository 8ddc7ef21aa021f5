//! The lanes as the server shows them once everything has settled: every event, and where each lane was at which time.

use super::Run;
use crate::workload::Act;
use gristmill_base::ids::{LaneId, LaneKey, Offset};
use gristmill_core::request::{Answer, Code, Operation, Refusal};

/// Times that a read of a chunk may be told that its file is damaged, before it must have been put back.
const DAMAGE_TRIES_MAX: u32 = 600;

impl Run {
    /// Reads every lane to its end; if nothing is appended any more, holds what the server says of places in them too.
    pub(super) fn read_lanes(&mut self, is_settled: bool) -> Result<(), String> {
        let topics = self.workload.topics();
        for topic in topics {
            let names = self.names.as_ref().expect("the app is loaded");
            let (id, lanes) = names.topic(topic);
            for lane in 0..lanes {
                let key = LaneKey { topic: id, lane: LaneId(lane) };
                let (first, times) = self.read_lane(topic, key)?;
                if is_settled {
                    self.hold_offsets(topic, key, first, &times)?;
                }
            }
        }
        Ok(())
    }

    /// Reads a lane to its end: its first offset, and the append times of its events.
    fn read_lane(&mut self, topic: &'static str, key: LaneKey) -> Result<(u64, Vec<u64>), String> {
        let mut from = Offset(0);
        let (mut first, mut times) = (1, Vec::new());
        loop {
            let (topic_id, lane, wait_millis) = (key.topic, key.lane, 0);
            let read = Operation::Read { topic: topic_id, lane, from, max_events: 50, max_bytes: 1 << 20, wait_millis };
            let answer = self.ask_mending(&read)?;
            if matches!(&answer, Err(refusal) if refusal.code == Code::Gone) {
                // Retention was quicker: once more, from where the lane begins now.
                self.begins(topic, key, from.0 + 1)?;
                (from, times) = (Offset(0), Vec::new());
                continue;
            }
            let answer = answer.map_err(|refusal| format!("P1: {topic}-{} cannot be read: {refusal:?}", key.lane))?;
            let Answer::Events { end, next, events } = &answer else { return Err(format!("{answer:?}")) };
            if from == Offset(0) {
                first = events.first().map_or(*next, |event| event.offset).0;
            }
            times.extend(events.iter().map(|event| event.append_micros));
            let (end, next) = (*end, *next);
            let act = Act::Read(topic, key.lane.0, from.0);
            self.auditor.read(&act, 0, &answer, self.workload.as_ref())?;
            if next >= end {
                return Ok((first, times));
            }
            if next <= from {
                return Err(format!("{topic}-{} cannot be read from {from}, although it ends at {end}", key.lane));
            }
            from = next;
        }
    }

    /// The server says that a lane begins at `start`, or later.
    fn begins(&mut self, topic: &'static str, key: LaneKey, start: u64) -> Result<(), String> {
        let keep = self.names.as_ref().expect("the app is loaded").keep(topic);
        self.auditor.begins(topic, key.lane.0, start, keep)
    }

    /// Asks where a lane was at some times; `times` are those of its events from `first` on. Meanwhile it may begin later.
    fn hold_offsets(&mut self, topic: &'static str, key: LaneKey, first: u64, times: &[u64]) -> Result<(), String> {
        if !times.is_sorted() {
            return Err(format!("append times of {topic}-{} go back: {times:?}", key.lane));
        }
        let of = |at: usize| times.get(at).copied();
        let asked = [None, of(0), of(times.len() / 2), of(times.len() / 3).map(|time| time + 1), Some(u64::MAX)];
        for time_micros in asked {
            let ask = Operation::Offsets { topic: key.topic, lane: key.lane, time_micros };
            let answer = self.ask_mending(&ask)?;
            let asked = format!("{topic}-{} at {time_micros:?}", key.lane);
            let Ok(Answer::Offsets { start, .. }) = answer else {
                return Err(format!("offsets of {asked}: {answer:?}"));
            };
            let end = Offset(first + times.len() as u64);
            let at = |micros| first + times.partition_point(|time| *time < micros) as u64;
            let at = Offset(time_micros.map_or(0, |micros| at(micros).max(start.0)));
            let expected = Ok(Answer::Offsets { start, end, at });
            if answer != expected || start.0 < first.max(self.auditor.known_start(topic, key.lane.0)) {
                return Err(format!("offsets of {asked}: {answer:?} instead of {expected:?}, first {first}"));
            }
            self.begins(topic, key, start.0)?;
        }
        self.hold_gone(topic, key)
    }

    /// What lies before the start cannot be read, and the server says so.
    fn hold_gone(&mut self, topic: &'static str, key: LaneKey) -> Result<(), String> {
        let LaneKey { topic: of, lane } = key;
        let start = self.auditor.known_start(topic, lane.0);
        for from in [1, start.saturating_sub(1)].into_iter().filter(|from| (1..start).contains(from)) {
            let (from, wait_millis) = (Offset(from), 0);
            let read = Operation::Read { topic: of, lane, from, max_events: 5, max_bytes: 1 << 20, wait_millis };
            match self.ask_mending(&read)? {
                Err(refusal) if refusal.code == Code::Gone => {}
                other => return Err(format!("P2: {topic}-{lane} begins at {start}, but {from} is read: {other:?}")),
            }
        }
        Ok(())
    }

    /// Asks, and puts back files that are told as damaged.
    fn ask_mending(&mut self, operation: &Operation) -> Result<Result<Answer, Refusal>, String> {
        let mut tries = 0;
        loop {
            let answer = self.ask(operation.clone())?.ok_or("the machine went down in the end phase")?;
            if tries == DAMAGE_TRIES_MAX || !matches!(&answer, Err(refusal) if self.machine.is_told_damage(refusal)) {
                return Ok(answer);
            }
            tries += 1;
            self.wait_a_little()?;
        }
    }
}
