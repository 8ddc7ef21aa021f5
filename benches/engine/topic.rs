//! A topic that lies in files is read from its beginning to its end: in record batches as they came, and event by event.

use crate::bench::{Bench, NO_FIO, remove};
use crate::callers::{BATCH_EVENTS, Callers, Extent, Op};
use crate::core::Core;
use anyhow::{anyhow, bail, ensure};
use gristmill_base::class::InputClass;
use gristmill_base::event_batch::check_fetched;
use gristmill_base::ids::{ConnId, LaneId, Offset, SessionId, ShardId};
use gristmill_base::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use gristmill_benches::{Target, is_value_of, timed};
use gristmill_core::request::{Answer, Operation, Request, Responder};

/// Bytes of an event's value.
const VALUE_BYTES: usize = 1_000;
/// Lanes that one reader reads side by side, and pieces that fio has in flight.
const DEPTH: usize = 8;
/// How long a read may wait for events, milliseconds: one that waits for its chunk is not meant.
const WAIT_MILLIS: u32 = 0;

/// How a topic is written and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// In record batches.
    Batches,
    /// Event by event.
    Events,
}

/// See the module.
pub(crate) fn cold_read(bench: &mut Bench) -> anyhow::Result<()> {
    let id = "topic read, cold, sequential / fio's sequential read";
    let in_bytes = "topic read, cold, sequential, bytes of values";
    read_cold(bench, Form::Batches, (id, in_bytes))?;
    let id = "topic read event by event, cold, sequential / fio's sequential read";
    let in_bytes = "topic read event by event, cold, sequential, bytes of values";
    read_cold(bench, Form::Events, (id, in_bytes))
}

fn read_cold(bench: &mut Bench, form: Form, (id, in_bytes): (&'static str, &'static str)) -> anyhow::Result<()> {
    let settings = bench.with_checkpoints(2 * bench.sizes.segment_bytes);
    let mut core = bench.fresh("topic", &settings)?;
    let (op, callers, each) = match form {
        Form::Batches => (Op::AppendBatch, 64, u64::from(BATCH_EVENTS)),
        Form::Events => (Op::Append, 1_024, 1),
    };
    let appends = bench.sizes.topic_bytes / VALUE_BYTES as u64 / each;
    let events = appends * each;
    let mut callers = Callers::new(&mut core, callers, VALUE_BYTES)?;
    callers.run(&mut core, op, Extent::EachBelow(appends))?;
    core.settle()?;
    drop((core, callers));
    let batches = if form == Form::Batches { format!(" in record batches of {each}") } else { String::new() };
    let pace = format!(
        "one reader, {DEPTH} lanes side by side, {events} events of {VALUE_BYTES} B{batches}; fio: 1 MiB, depth {DEPTH}"
    );
    // What has to be is that batches are handed on as they are; single events are decoded and put together again.
    let row = bench.report.row(id, "x");
    let row = if form == Form::Batches { row.target(Target::AtLeast(0.8)) } else { row };
    row.pace(&pace);
    for _ in 0..bench.sizes.rounds {
        // After a start nothing of what was filed is in memory, and files are read past the page cache.
        let mut core = Core::open(&bench.root("topic"), &settings)?;
        let (nanos, read) = timed(|| read_all(&mut core, form));
        let read = read?;
        ensure!(read == events, "{read} events were read of {events}");
        let ours = (read * VALUE_BYTES as u64) as f64 * 1e9 / nanos;
        bench.report.row(in_bytes, "MB/s").round(ours / 1e6).pace(&pace);
        match &bench.fio {
            Some(fio) => {
                let theirs = fio.sequential_read(bench.sizes.topic_bytes, DEPTH)?;
                let pieces = format!("pieces of 1 MiB, {DEPTH} in flight");
                bench.report.row("fio: sequential read", "MB/s").round(theirs / 1e6).pace(pieces);
                bench.report.row(id, "x").round(ours / theirs);
            }
            None => drop(bench.report.row(id, "x").note(NO_FIO)),
        }
    }
    remove(&bench.root("topic"));
    Ok(())
}

/// Reads every lane from its beginning; gives the number of events.
fn read_all(core: &mut Core, form: Form) -> anyhow::Result<u64> {
    let (topic, lanes) = core.topic();
    let mut waiting: Vec<u16> = (0..lanes).rev().collect();
    let (mut in_flight, mut events) = (0, 0);
    let ask = |core: &mut Core, lane: u16, from: Offset| {
        let (max_events, max_bytes, wait_millis) = (PAGE_ENTRIES_MAX, PAGE_BYTES_MAX as u32, WAIT_MILLIS);
        let lane_id = LaneId(lane);
        let operation = match form {
            Form::Events => Operation::Read { topic, lane: lane_id, from, max_events, max_bytes, wait_millis },
            Form::Batches => {
                let as_stored = true;
                Operation::Fetch { topic, lane: lane_id, from, max_events, max_bytes, wait_millis, as_stored }
            }
        };
        let responder = Responder { shard: ShardId(0), conn: ConnId(1), tag: u64::from(lane) };
        core.inbox.requests.push(Request { responder, session: SessionId(0), class: InputClass::Live, operation });
    };
    loop {
        while in_flight < DEPTH {
            let Some(lane) = waiting.pop() else { break };
            ask(core, lane, Offset(1));
            in_flight += 1;
        }
        if in_flight == 0 {
            return Ok(events);
        }
        let deadline = core.step();
        for reply in std::mem::take(&mut core.outbox.replies) {
            let answer = reply.outcome.map_err(|refusal| anyhow!("{:?}: {}", refusal.code, refusal.message))?;
            let page = look_at(&answer)?;
            events += page.events;
            if page.next < page.end {
                ensure!(
                    page.events > 0,
                    "lane {} gives nothing from {:?} on, its end is {:?}",
                    reply.responder.tag,
                    page.next,
                    page.end
                );
                ask(core, reply.responder.tag as u16, page.next);
            } else {
                in_flight -= 1;
            }
        }
        let is_asking = !core.inbox.requests.is_empty() || (in_flight < DEPTH && !waiting.is_empty());
        core.rest(if is_asking { 0 } else { deadline });
    }
}

/// What a page says of the lane, and how many events it has.
struct Page {
    end: Offset,
    next: Offset,
    events: u64,
}

/// Looks at every event of a page: each has the value of its key.
fn look_at(answer: &Answer) -> anyhow::Result<Page> {
    let check = |offset: Offset, key: &[u8], value: &[u8]| {
        let number = std::str::from_utf8(&key[4..])?.parse()?;
        ensure!(is_value_of(value, number), "event {offset:?} has the value of another one");
        Ok(())
    };
    match answer {
        Answer::Events { end, next, events } => {
            events.iter().try_for_each(|event| check(event.offset, &event.key, &event.value))?;
            Ok(Page { end: *end, next: *next, events: events.len() as u64 })
        }
        Answer::Batches { end, next, batches } => {
            let mut events = 0;
            for batch in batches {
                events += u64::from(batch.count);
                check_fetched(batch.count, &batch.bytes, |at, event| {
                    check(Offset(batch.first.0 + u64::from(at)), event.key, event.value)
                })?;
            }
            Ok(Page { end: *end, next: *next, events })
        }
        other => bail!("no events, but {other:?}"),
    }
}
