//! The lanes as the server shows them once everything has settled: every event, and where each lane was at which time.

use super::Run;
use crate::auditor::events_of_batches;
use crate::workload::{Act, fetch};
use gristmill_base::ids::{LaneId, LaneKey, Offset};
use gristmill_core::request::{Answer, Code, Operation, Refusal};

/// Times that a read of a chunk may be told that its file is damaged, before it must have been put back.
const DAMAGE_TRIES_MAX: u32 = 600;

/// Time in which topics let go of what they keep no longer, nanoseconds.
const LET_GO_NANOS: u64 = 5_000_000_000;

/// A lane, as it was read.
struct LaneShown {
    /// Its first offset that is there; behind its end if there is none.
    first: u64,
    /// The offset behind its last one.
    end: u64,
    /// Offsets and append times of its events.
    events: Vec<(u64, u64)>,
}

impl Run {
    /// Lets time pass in which topics with retention let go of what they may, and others are compacted.
    pub(super) fn let_go(&mut self) -> Result<(), String> {
        let names = self.names.as_ref().expect("the app is loaded");
        if names.topics().iter().all(|topic| topic.keep().is_none() && !topic.compact) {
            return Ok(());
        }
        let until = self.machine.clock.nanos() + LET_GO_NANOS;
        while self.machine.clock.nanos() < until {
            self.round()?;
        }
        Ok(())
    }

    /// Reads every lane to its end; if nothing is appended any more, holds what the server says of places in them too.
    pub(super) fn read_lanes(&mut self, is_settled: bool) -> Result<(), String> {
        let topics = self.workload.topics();
        for topic in topics {
            let names = self.names.as_ref().expect("the app is loaded");
            let (id, lanes) = names.topic(topic);
            for lane in 0..lanes {
                let key = LaneKey { topic: id, lane: LaneId(lane) };
                let read = self.read_lane(topic, key)?;
                if is_settled {
                    self.hold_offsets(topic, key, &read)?;
                }
            }
        }
        Ok(())
    }

    /// Reads a lane to its end.
    fn read_lane(&mut self, topic: &'static str, key: LaneKey) -> Result<LaneShown, String> {
        let mut from = Offset(0);
        let (mut first, mut events_shown) = (1, Vec::new());
        loop {
            let (topic_id, lane, wait_millis) = (key.topic, key.lane, 0);
            let read = Operation::Read { topic: topic_id, lane, from, max_events: 50, max_bytes: 1 << 20, wait_millis };
            let since = self.auditor.moment();
            // Every other lane in batches.
            let read = if lane.0 % 2 == 1 { fetch(key, from, 50) } else { read };
            let answer = self.ask_mending(&read)?;
            if matches!(&answer, Err(refusal) if refusal.code == Code::Gone) {
                // Retention was quicker: once more, from where the lane begins now.
                self.begins(topic, key, from.0 + 1)?;
                (from, events_shown) = (Offset(0), Vec::new());
                continue;
            }
            let answer = answer.map_err(|refusal| format!("P1: {topic}-{} cannot be read: {refusal:?}", key.lane))?;
            let answer = match &answer {
                Answer::Batches { end, next, batches } => events_of_batches(from, *end, *next, batches)?,
                _ => answer,
            };
            let Answer::Events { end, next, events } = &answer else { return Err(format!("{answer:?}")) };
            if from == Offset(0) {
                first = events.first().map_or(*next, |event| event.offset).0;
            }
            events_shown.extend(events.iter().map(|event| (event.offset.0, event.append_micros)));
            let (end, next) = (*end, *next);
            let act = Act::Read(topic, key.lane.0, from.0);
            self.auditor.read(&act, since, &answer, self.workload.as_ref())?;
            if next >= end {
                if self.auditor.is_compacted(topic) {
                    let ask = Operation::Offsets { topic: topic_id, lane, time_micros: None };
                    let Ok(Answer::Offsets { start, .. }) = self.ask_mending(&ask)? else {
                        return Err(format!("{topic}-{lane} was read, but its offsets are refused"));
                    };
                    self.begins(topic, key, start.0)?;
                    self.auditor.lane_read(topic, key.lane.0, (start.0, end.0), &events_shown);
                }
                return Ok(LaneShown { first, end: end.0, events: events_shown });
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

    /// Asks where a lane was at some times. Meanwhile it may begin later, or be compacted.
    fn hold_offsets(&mut self, topic: &'static str, key: LaneKey, shown: &LaneShown) -> Result<(), String> {
        let LaneShown { first, end, events } = shown;
        if !events.is_sorted_by_key(|(_, time)| *time) {
            return Err(format!("append times of {topic}-{} go back: {events:?}", key.lane));
        }
        let is_compacted = self.auditor.is_compacted(topic);
        let of = |at: usize| events.get(at).map(|(_, time)| *time);
        let asked = [None, of(0), of(events.len() / 2), of(events.len() / 3).map(|time| time + 1), Some(u64::MAX)];
        for time_micros in asked {
            let ask = Operation::Offsets { topic: key.topic, lane: key.lane, time_micros };
            let answer = self.ask_mending(&ask)?;
            let asked = format!("{topic}-{} at {time_micros:?}", key.lane);
            let Ok(Answer::Offsets { start, end: told, at: found }) = answer else {
                return Err(format!("offsets of {asked}: {answer:?}"));
            };
            let since = |micros| events.get(events.partition_point(|(_, time)| *time < micros)).map_or(*end, |it| it.0);
            let at = time_micros.map_or(0, |micros| since(micros).max(start.0));
            // What was there may be compacted by now.
            let fits = found.0 == at || is_compacted && time_micros.is_some() && (at..=*end).contains(&found.0);
            let least = self.auditor.known_start(topic, key.lane.0).max(if is_compacted { 0 } else { *first });
            if told.0 != *end || !fits || start.0 < least {
                return Err(format!(
                    "offsets of {asked}: {answer:?}, expected {at} of {start} to {end}, first {first}"
                ));
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
