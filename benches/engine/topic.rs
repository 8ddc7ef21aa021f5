//! A topic that lies in files is read from its beginning to its end.

use crate::bench::{Bench, NO_FIO, remove};
use crate::callers::{Callers, Extent, Op};
use crate::core::Core;
use anyhow::{anyhow, bail, ensure};
use gristmill_base::class::InputClass;
use gristmill_base::ids::{ConnId, LaneId, Offset, SessionId, ShardId};
use gristmill_base::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX};
use gristmill_benches::{Target, is_value_of, timed};
use gristmill_core::request::{Answer, Operation, Request, Responder};

/// Bytes of an event's value.
const VALUE_BYTES: usize = 1_000;
/// Lanes that one reader reads side by side, and pieces that fio has in flight.
const DEPTH: usize = 8;
/// How long a read may wait for a chunk, milliseconds.
const WAIT_MILLIS: u32 = 10_000;

/// See the module.
pub(crate) fn cold_read(bench: &mut Bench) -> anyhow::Result<()> {
    let id = "topic read, cold, sequential / fio's sequential read";
    let events = bench.sizes.topic_bytes / VALUE_BYTES as u64;
    let settings = bench.with_checkpoints(2 * bench.sizes.segment_bytes);
    let mut core = bench.fresh("topic", &settings)?;
    let mut callers = Callers::new(&mut core, 1_024, VALUE_BYTES)?;
    callers.run(&mut core, Op::Append, Extent::EachBelow(events))?;
    core.settle()?;
    drop((core, callers));
    let pace = format!(
        "one reader, {DEPTH} lanes side by side, {events} events of {VALUE_BYTES} B; fio: 1 MiB, depth {DEPTH}"
    );
    bench.report.row(id, "x").target(Target::AtLeast(0.8)).pace(&pace);
    for _ in 0..bench.sizes.rounds {
        // After a start nothing of what was filed is in memory, and files are read past the page cache.
        let mut core = Core::open(&bench.root("topic"), &settings)?;
        let (nanos, read) = timed(|| read_all(&mut core));
        let read = read?;
        ensure!(read == events, "{read} events were read of {events}");
        let ours = (read * VALUE_BYTES as u64) as f64 * 1e9 / nanos;
        bench.report.row("topic read, cold, sequential, bytes of values", "MB/s").round(ours / 1e6).pace(&pace);
        match &bench.fio {
            Some(fio) => {
                let theirs = fio.sequential_read(bench.sizes.topic_bytes, DEPTH)?;
                bench.report.row("fio: sequential read", "MB/s").round(theirs / 1e6).pace(&pace);
                bench.report.row(id, "x").round(ours / theirs);
            }
            None => drop(bench.report.row(id, "x").note(NO_FIO)),
        }
    }
    remove(&bench.root("topic"));
    Ok(())
}

/// Reads every lane from its beginning; gives the number of events.
fn read_all(core: &mut Core) -> anyhow::Result<u64> {
    let (topic, lanes) = core.topic();
    let mut waiting: Vec<u16> = (0..lanes).rev().collect();
    let (mut in_flight, mut events) = (0, 0);
    let ask = |core: &mut Core, lane: u16, from: Offset| {
        let (max_events, max_bytes, wait_millis) = (PAGE_ENTRIES_MAX, PAGE_BYTES_MAX as u32, WAIT_MILLIS);
        let operation = Operation::Read { topic, lane: LaneId(lane), from, max_events, max_bytes, wait_millis };
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
            let Answer::Events { end, next, events: page } = answer else { bail!("no events, but {answer:?}") };
            for event in &page {
                let number = std::str::from_utf8(&event.key[4..])?.parse()?;
                ensure!(is_value_of(&event.value, number), "event {:?} has the value of another one", event.offset);
            }
            events += page.len() as u64;
            if next < end {
                ensure!(
                    !page.is_empty(),
                    "lane {} gives nothing from {next:?} on, its end is {end:?}",
                    reply.responder.tag
                );
                ask(core, reply.responder.tag as u16, next);
            } else {
                in_flight -= 1;
            }
        }
        let is_asking = !core.inbox.requests.is_empty() || (in_flight < DEPTH && !waiting.is_empty());
        core.rest(if is_asking { 0 } else { deadline });
    }
}
