//! Compares what a server says with a ledger.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use gristmill_base::datatype::decode_u64;
use gristmill_base::ids::{LaneId, Offset, TableId};
use gristmill_client::{Client, Event, OwnedOperation, OwnedReply, Status, Ticket};
use serde::Serialize;

use super::ledger::{Book, Mark, Sent};
use super::{Stamp, Things, connect, key_bytes};
use crate::keys::stamp_of;

/// Reads in flight.
const READS: usize = 1_024;
/// Findings that are told one by one.
const TOLD_MAX: usize = 20;

/// What a server says beside what it acknowledged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Acknowledged operations.
    pub acked: u64,
    /// Acknowledged operations whose effect is not there.
    pub lost: u64,
    /// Acknowledged events that are not at the place that was acknowledged.
    pub misplaced: u64,
    /// Effects that are there more than once.
    pub doubled: u64,
    /// Effects that nobody asked for, or values that nobody sent.
    pub invented: u64,
    /// Events of a key that are not in the order sent.
    pub disordered: u64,
    /// The first few, a line each.
    pub told: Vec<String>,
}

impl Findings {
    /// Whether the server kept its word.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lost + self.misplaced + self.doubled + self.invented + self.disordered == 0
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.told.len() < TOLD_MAX {
            self.told.push(what());
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acked, lost, misplaced, doubled, invented, disordered, told } = self;
        for line in told {
            writeln!(f, "{line}")?;
        }
        writeln!(
            f,
            "{acked} acked: {lost} lost, {misplaced} misplaced, {doubled} doubled, {invented} invented, {disordered} disordered"
        )
    }
}

/// Asks a server for everything that a ledger names. Changes nothing: an app that is not there is not loaded.
///
/// # Errors
/// An app that is not there, a ledger that cannot be read, a server that cannot be reached or does not answer.
pub fn check(address: &str, path: &Path) -> anyhow::Result<Findings> {
    let ledger = Book::open(path)?;
    let mut client = connect(address, super::CHECK_WAIT)?;
    let things = Things::find(&mut client)?;
    let mut findings = Findings::default();
    check_puts(&mut client, things.kv, &ledger, &mut findings)?;
    check_counts(&mut client, things.counter, &ledger, &mut findings)?;
    check_events(&mut client, &things, &ledger, &mut findings)?;
    Ok(findings)
}

/// Reads the value of every key that something was sent to.
fn get_all(
    client: &mut Client,
    table: TableId,
    tag: u64,
    marks: &[Mark],
    mut each: impl FnMut(usize, Option<Vec<u8>>),
) -> anyhow::Result<()> {
    let mut open: HashMap<Ticket, usize> = HashMap::new();
    let mut wanted = (0..marks.len()).filter(|key| marks[*key].sent > 0).peekable();
    while wanted.peek().is_some() || !open.is_empty() {
        while open.len() < READS
            && let Some(key) = wanted.next()
        {
            open.insert(client.submit(OwnedOperation::Get { table, key: key_bytes(tag, key) })?, key);
        }
        let Some((ticket, ending)) = client.take_ended(Duration::from_millis(500)) else { continue };
        let Some(key) = open.remove(&ticket) else { continue };
        match ending {
            Ok(OwnedReply::Value(value)) => each(key, Some(value)),
            Err(error) if error.status() == Some(Status::NotFound) => each(key, None),
            Ok(other) => anyhow::bail!("{other:?} as the reply to get"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn check_puts(client: &mut Client, table: TableId, ledger: &Book, findings: &mut Findings) -> anyhow::Result<()> {
    let (tag, size) = (ledger.tag, ledger.size);
    get_all(client, table, tag, &ledger.puts, |key, value| {
        let mark = ledger.puts[key];
        findings.acked += mark.acks;
        let stamp = value.as_ref().map(|value| stamp_of(value, size).filter(|(of, _)| *of == tag));
        let found = match stamp {
            None => Some(0),
            Some(stamp) => stamp
                .and_then(|(_, stamp)| stamp.checked_sub(Stamp::Put(key, 0).number()))
                .filter(|number| (1..=mark.sent).contains(number)),
        };
        match found {
            None => {
                findings.invented += 1;
                findings.tell(|| format!("put: key {key} has a value that nobody sent"));
            }
            Some(number) if number < mark.acked => {
                findings.lost += 1;
                findings.tell(|| format!("put: key {key} has value {number}, {} was acknowledged", mark.acked));
            }
            Some(_) => {}
        }
    })
}

fn check_counts(client: &mut Client, table: TableId, ledger: &Book, findings: &mut Findings) -> anyhow::Result<()> {
    get_all(client, table, ledger.tag, &ledger.counts, |key, value| {
        let mark = ledger.counts[key];
        findings.acked += mark.acks;
        let Some(count) = value.map_or(Some(0), |value| value.try_into().ok().map(decode_u64)) else {
            findings.invented += 1;
            return findings.tell(|| format!("run: the count of key {key} is no number"));
        };
        if count < mark.acks {
            findings.lost += mark.acks - count;
            findings.tell(|| format!("run: key {key} counts {count}, {} runs were acknowledged", mark.acks));
        }
        if count > mark.sent {
            findings.doubled += count - mark.sent;
            findings.tell(|| format!("run: key {key} counts {count}, {} runs were sent", mark.sent));
        }
    })
}

fn check_events(client: &mut Client, things: &Things, ledger: &Book, findings: &mut Findings) -> anyhow::Result<()> {
    let mut seen = Seen { places: vec![None; ledger.events.len()], last: HashMap::new() };
    for lane in 0..things.events.lanes {
        let mut from = Offset(0);
        loop {
            let read = OwnedOperation::Read {
                topic: things.events.id,
                lanes: things.events.lanes,
                lane: LaneId(lane),
                from,
                max_records: 0,
                max_bytes: 0,
                wait_millis: 0,
            };
            let OwnedReply::Events(page) = client.call(read)? else { anyhow::bail!("no events as the reply to read") };
            for event in &page.events {
                seen.take(lane, event, ledger, findings);
            }
            if page.next >= page.end || page.next <= from {
                break;
            }
            from = page.next;
        }
    }
    for (number, (sent, place)) in (1_u64..).zip(ledger.events.iter().zip(&seen.places)) {
        let Sent { place: Some(acked), .. } = sent else { continue };
        findings.acked += 1;
        match place {
            None => {
                findings.lost += 1;
                findings.tell(|| format!("event: {number} was acknowledged at {acked:?} and is nowhere"));
            }
            Some(found) if found != acked => {
                findings.misplaced += 1;
                findings.tell(|| format!("event: {number} was acknowledged at {acked:?} and is at {found:?}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Events that were read back.
struct Seen {
    /// Lane and offset, by number.
    places: Vec<Option<(u16, u64)>>,
    /// Number of the last event of each key.
    last: HashMap<usize, u64>,
}

impl Seen {
    fn take(&mut self, lane: u16, event: &Event, ledger: &Book, findings: &mut Findings) {
        // Another ledger may have sent events here, too: those of other tags are not looked at.
        let stamp = stamp_of(&event.value, ledger.size).filter(|(tag, _)| *tag == ledger.tag);
        let Some((_, stamp)) = stamp else {
            if event.value.len() == ledger.size && event.value.starts_with(&ledger.tag.to_le_bytes()) {
                findings.invented += 1;
                findings.tell(|| format!("event: the one at ({lane}, {}) was not sent so", event.offset));
            }
            return;
        };
        let number = stamp & !(1 << 63);
        let sent = (number as usize).checked_sub(1).and_then(|at| ledger.events.get(at));
        let Some(sent) = sent.filter(|sent| key_bytes(ledger.tag, sent.key) == event.key) else {
            findings.invented += 1;
            return findings.tell(|| format!("event: {number} at ({lane}, {}) was never sent", event.offset));
        };
        let here = (lane, event.offset.0);
        if let Some(before) = self.places[number as usize - 1].replace(here) {
            findings.doubled += 1;
            findings.tell(|| format!("event: {number} is at {before:?} and at {here:?}"));
        }
        if self.last.insert(sent.key, number).is_some_and(|last| last > number) {
            findings.disordered += 1;
            findings.tell(|| format!("event: {number} comes behind a later one of its key"));
        }
    }
}
