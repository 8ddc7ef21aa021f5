//! Reads everything back: what was acked must be there, what was never sent must not.

use std::collections::HashMap;
use std::time::Duration;

use gristmill_base::datatype::decode_u64;
use gristmill_base::ids::{LaneId, Offset, TableId};
use gristmill_client::{Client, Error, OwnedOperation, OwnedReply, Status, Ticket};

use crate::connection::{Connection, EventMark};
use crate::keys::stamp_of;
use crate::plan::{Op, Plan};
use crate::tally::Tally;

/// What reading back showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// Acked operations whose effect is there.
    pub(crate) verified: u64,
    /// Acked operations whose effect is not there. Of puts to one key only the last one can be told: it counts as one.
    pub(crate) lost: u64,
    /// Effects that nobody asked for, or more than were asked for, or in another order.
    pub(crate) invented: u64,
}

/// Where each lane of the topic ended, or the counts of all keys, before the run.
#[derive(Debug, Default)]
pub(crate) struct Before {
    ends: Vec<Offset>,
    /// By connection and key.
    counts: Vec<Vec<u64>>,
}

/// Takes note of what was there before the run.
pub(crate) fn before(plan: &Plan, client: &mut Client, connections: &[&Connection]) -> Result<Before, Error> {
    let mut before = Before::default();
    match plan.settings.op {
        Op::Append => {
            for lane in 0..plan.lanes {
                before.ends.push(read(plan, client, lane, Offset(u64::MAX >> 1))?.0);
            }
        }
        Op::Invoke => {
            for connection in connections {
                let mut counts = vec![0; connection.keys.len()];
                get_all(
                    client,
                    plan.counter,
                    connection,
                    |_| true,
                    |key, value| counts[key] = count(value).unwrap_or(0),
                )?;
                before.counts.push(counts);
            }
        }
        Op::Put | Op::Get => {}
    }
    Ok(before)
}

/// Compares what is there with what was acked.
pub(crate) fn verify(
    plan: &Plan,
    client: &mut Client,
    connections: &[&Connection],
    before: &Before,
    tally: &Tally,
) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    match plan.settings.op {
        Op::Put => {
            for connection in connections {
                verify_puts(plan, client, connection, &mut findings)?;
            }
            findings.verified = tally.acked.saturating_sub(findings.lost);
        }
        Op::Get => {
            findings.lost = tally.wrong + tally.errors.get(Status::NotFound.name()).copied().unwrap_or(0);
            findings.verified = tally.acked.saturating_sub(tally.wrong);
        }
        Op::Invoke => {
            for (connection, counts) in connections.iter().zip(&before.counts) {
                verify_counts(plan, client, connection, counts, &mut findings)?;
            }
        }
        Op::Append => verify_events(plan, client, connections, &before.ends, &mut findings)?,
    }
    Ok(findings)
}

/// Reads the value of all keys that `wanted` names, many at a time.
fn get_all(
    client: &mut Client,
    table: TableId,
    connection: &Connection,
    wanted: impl Fn(usize) -> bool,
    mut each: impl FnMut(usize, Option<&[u8]>),
) -> Result<(), Error> {
    let mut keys: HashMap<Ticket, usize> = HashMap::new();
    let mut take = |client: &mut Client, keys: &mut HashMap<Ticket, usize>, wait: Duration| -> Result<(), Error> {
        while let Some((ticket, ending)) = client.take_ended(wait) {
            let Some(key) = keys.remove(&ticket) else { continue };
            match ending {
                Ok(OwnedReply::Value(value)) => each(key, Some(&value)),
                Err(error) if error.status() == Some(Status::NotFound) => each(key, None),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    };
    for key in (0..connection.keys.len()).filter(|key| wanted(*key)) {
        let operation = OwnedOperation::Get { table, key: connection.keys.key(key).to_vec() };
        keys.insert(client.submit(operation)?, key);
        if keys.len() >= 2_048 {
            take(client, &mut keys, Duration::ZERO)?;
        }
    }
    while !keys.is_empty() {
        take(client, &mut keys, Duration::from_millis(500))?;
    }
    Ok(())
}

fn verify_puts(
    plan: &Plan,
    client: &mut Client,
    connection: &Connection,
    findings: &mut Findings,
) -> Result<(), Error> {
    let marks = &connection.marks;
    let acked = |key: usize| marks[key].acked > 0;
    get_all(client, plan.kv, connection, acked, |key, value| {
        let mark = marks[key];
        match value.map(|value| stamp_of(value, plan.settings.size)) {
            None => findings.lost += 1,
            Some(Some((tag, stamp))) if tag == connection.tag => {
                findings.lost += u64::from(stamp < u64::from(mark.acked));
                findings.invented += u64::from(stamp > u64::from(mark.issued));
            }
            Some(Some(_)) => findings.lost += 1,
            Some(None) => findings.invented += 1,
        }
    })
}

fn count(value: Option<&[u8]>) -> Option<u64> {
    value.map_or(Some(0), |value| value.try_into().ok().map(decode_u64))
}

fn verify_counts(
    plan: &Plan,
    client: &mut Client,
    connection: &Connection,
    before: &[u64],
    findings: &mut Findings,
) -> Result<(), Error> {
    let marks = &connection.marks;
    get_all(
        client,
        plan.counter,
        connection,
        |key| marks[key].issued > 0,
        |key, value| {
            let (acked, issued) = (u64::from(marks[key].acked), u64::from(marks[key].issued));
            let Some(ran) = count(value).map(|count| count.saturating_sub(before[key])) else {
                findings.invented += 1;
                return;
            };
            findings.verified += acked.min(ran);
            findings.lost += acked.saturating_sub(ran);
            findings.invented += ran.saturating_sub(issued);
        },
    )
}

/// End of the lane, where to read on, and keys and values.
type Lane = (Offset, Offset, Vec<(Vec<u8>, Vec<u8>)>);

fn read(plan: &Plan, client: &mut Client, lane: u16, from: Offset) -> Result<Lane, Error> {
    let reply = client.call(OwnedOperation::Read {
        topic: plan.topic,
        lanes: plan.lanes,
        lane: LaneId(lane),
        from,
        max_records: 0,
        max_bytes: 0,
        wait_millis: 0,
    })?;
    match reply {
        OwnedReply::Events(page) => {
            let events = page.events.into_iter().map(|event| (event.key, event.value)).collect();
            Ok((page.end, page.next, events))
        }
        other => Err(Error {
            kind: gristmill_client::ErrorKind::Protocol,
            message: format!("{other:?} as the reply to read"),
        }),
    }
}

fn verify_events(
    plan: &Plan,
    client: &mut Client,
    connections: &[&Connection],
    before: &[Offset],
    findings: &mut Findings,
) -> Result<(), Error> {
    let by_tag: HashMap<u64, usize> = connections.iter().enumerate().map(|(at, c)| (c.tag, at)).collect();
    let mut seen: Vec<Vec<bool>> = connections.iter().map(|connection| vec![false; connection.events.len()]).collect();
    // Last stamp per key: events of one key keep the order in which they were sent.
    let mut last: HashMap<Vec<u8>, u64> = HashMap::new();
    for (lane, from) in (0_u16..).zip(before) {
        let mut from = *from;
        loop {
            let (end, next, events) = read(plan, client, lane, from)?;
            for (key, value) in events {
                let Some((tag, stamp)) = stamp_of(&value, plan.settings.size) else { continue };
                let Some(at) = by_tag.get(&tag) else { continue };
                let place = stamp as usize - 1;
                let known = connections[*at].events.get(place).is_some_and(|mark| *mark != EventMark::Refused);
                let in_order = last.insert(key, stamp).is_none_or(|before| before < stamp);
                let first = known && !std::mem::replace(&mut seen[*at][place], true);
                findings.invented += u64::from(!first || !in_order);
            }
            if next >= end || next <= from {
                break;
            }
            from = next;
        }
    }
    for (connection, seen) in connections.iter().zip(&seen) {
        for (mark, seen) in connection.events.iter().zip(seen) {
            if *mark == EventMark::Acked {
                findings.verified += u64::from(*seen);
                findings.lost += u64::from(!*seen);
            }
        }
    }
    Ok(())
}
