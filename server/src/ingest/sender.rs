//! The sending side of a run: records into chunks per slot, many in flight, each slot's in order.

use super::reading::Record;
use crate::commands::failed;
use crate::exit::{Exit, Failed};
use gristmill_base::ids::{LaneId, SlotId, TaskId};
use gristmill_base::limits::INGEST_RECORDS_MAX;
use gristmill_base::placement::lane_home;
use gristmill_client::wire::RecordsBuf;
use gristmill_client::{Client, ErrorKind, IngestChunk, OwnedReply, Ticket, Topic};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

/// A chunk of this size goes out at once.
const CHUNK_BYTES: usize = 48 << 10;
/// Bytes in flight and waiting, over all slots, beyond which reading waits. Far below the window of the client, which
/// counts more for each record: a full window holds up whoever submits, a second also while the server is away and has to
/// be looked for at another address.
const OPEN_BYTES_MAX: usize = 4 << 20;

/// Records of one slot that were or will be sent together.
struct Chunk {
    prev: u64,
    first: u64,
    last: u64,
    records: RecordsBuf,
}

/// What one slot gets.
struct Share {
    /// Up to where the slot has the input, durably.
    received: u64,
    /// Number of the last record that went into a chunk.
    last: u64,
    filling: Option<Chunk>,
    /// Sent, or to be sent again, in order.
    chunks: VecDeque<Chunk>,
    in_flight: usize,
}

/// A topic that records go to: the input's own, or that of rejects.
struct Target {
    topic: Topic,
    number: u32,
    shares: BTreeMap<SlotId, Share>,
}

/// See the module.
pub(super) struct Sender {
    targets: Vec<Target>,
    tickets: HashMap<Ticket, (usize, SlotId)>,
    open_bytes: usize,
    /// Records that their slots are known to have, of those taken.
    pub(super) appended: u64,
    /// Answers so far.
    pub(super) answers: u64,
    /// Endings of operations that are not ours.
    pub(super) others: Vec<(Ticket, Result<OwnedReply, gristmill_client::Error>)>,
}

impl Sender {
    /// A sender of an input, after every home slot has said how far it has come.
    ///
    /// # Errors
    /// The server does not answer, or the input was deleted.
    pub(super) fn new(client: &mut Client, topics: Vec<(Topic, u32)>) -> Result<Self, Failed> {
        let slots = client.topology().slots.len() as u16;
        let mut sender = Self {
            targets: Vec::new(),
            tickets: HashMap::new(),
            open_bytes: 0,
            appended: 0,
            answers: 0,
            others: vec![],
        };
        for (topic, number) in topics {
            let mut asked = BTreeMap::new();
            for lane in 0..topic.lanes {
                let slot = lane_home(topic.id, LaneId(lane), topic.lanes, slots);
                if let std::collections::btree_map::Entry::Vacant(entry) = asked.entry(slot) {
                    entry.insert(client.submit_ingest(empty(&topic, number, slot, false)).map_err(failed)?);
                }
            }
            let mut shares = BTreeMap::new();
            for (slot, ticket) in asked {
                let received = received(client.wait(ticket))?;
                let (filling, chunks) = (None, VecDeque::new());
                shares.insert(slot, Share { received, last: received, filling, chunks, in_flight: 0 });
            }
            sender.targets.push(Target { topic, number, shares });
        }
        Ok(sender)
    }

    /// Ends an input in all home slots: nothing of it is appended any more.
    ///
    /// # Errors
    /// The server does not answer, or refuses.
    pub(super) fn end(client: &mut Client, topic: &Topic, number: u32) -> Result<(), Failed> {
        let slots = client.topology().slots.len() as u16;
        let tickets: Result<Vec<Ticket>, _> = (0..topic.lanes)
            .map(|lane| {
                let slot = lane_home(topic.id, LaneId(lane), topic.lanes, slots);
                client.submit_ingest(empty(topic, number, slot, true))
            })
            .collect();
        tickets.map_err(failed)?.into_iter().try_for_each(|ticket| client.wait(ticket).map(|_| ()).map_err(failed))
    }

    /// Takes a record, which goes out when its chunk is full, or with [`Self::flush`]. One that its slot has is passed
    /// over; says whether it was new.
    ///
    /// # Errors
    /// It is over a limit.
    pub(super) fn push(&mut self, client: &mut Client, record: Record) -> Result<bool, Failed> {
        let at = usize::from(record.is_reject);
        let share = self.targets[at].shares.get_mut(&record.slot).expect("every home slot was asked");
        if record.number <= share.received {
            self.appended += 1;
            return Ok(false);
        }
        let (first, prev) = (record.number, share.last);
        let chunk =
            share.filling.get_or_insert_with(|| Chunk { prev, first, last: prev, records: RecordsBuf::default() });
        let before = chunk.records.bytes();
        chunk
            .records
            .push(record.number - chunk.last, &record.key, &record.value)
            .map_err(|error| Failed::new(Exit::Usage, format!("record {}: {error}", record.number)))?;
        chunk.last = record.number;
        share.last = record.number;
        self.open_bytes += chunk.records.bytes() - before;
        if chunk.records.bytes() >= CHUNK_BYTES || chunk.records.len() == INGEST_RECORDS_MAX {
            self.send_filling(client, at, record.slot)?;
        }
        Ok(true)
    }

    /// Sends every chunk that is being filled.
    ///
    /// # Errors
    /// It is over a limit.
    pub(super) fn flush(&mut self, client: &mut Client) -> Result<(), Failed> {
        for at in 0..self.targets.len() {
            let filling = self.targets[at].shares.iter().filter(|(_, share)| share.filling.is_some());
            let slots: Vec<SlotId> = filling.map(|(slot, _)| *slot).collect();
            slots.into_iter().try_for_each(|slot| self.send_filling(client, at, slot))?;
            // What found no room while the server was away.
            let held_up = self.targets[at].shares.iter().filter(|(_, share)| share.in_flight == 0);
            let slots: Vec<SlotId> =
                held_up.filter(|(_, share)| !share.chunks.is_empty()).map(|(slot, _)| *slot).collect();
            slots.into_iter().try_for_each(|slot| self.send_all(client, at, slot))?;
        }
        client.flush();
        Ok(())
    }

    fn send_filling(&mut self, client: &mut Client, at: usize, slot: SlotId) -> Result<(), Failed> {
        let share = self.targets[at].shares.get_mut(&slot).expect("it was just looked at");
        let Some(chunk) = share.filling.take() else { return Ok(()) };
        share.chunks.push_back(chunk);
        if share.in_flight == 0 {
            return self.send_all(client, at, slot);
        }
        let last = share.chunks.len() - 1;
        self.send(client, at, slot, last).map(|_| ())
    }

    /// Sends everything that its slot has not got, in order. Nothing of the slot is in flight.
    fn send_all(&mut self, client: &mut Client, at: usize, slot: SlotId) -> Result<(), Failed> {
        let count = self.targets[at].shares[&slot].chunks.len();
        for index in 0..count {
            if !self.send(client, at, slot, index)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether it was sent; not while the server is away and the client is full.
    fn send(&mut self, client: &mut Client, at: usize, slot: SlotId, index: usize) -> Result<bool, Failed> {
        let target = &mut self.targets[at];
        let share = target.shares.get_mut(&slot).expect("it was just looked at");
        let chunk = &share.chunks[index];
        let (topic, input, prev) = (target.topic.id, TaskId(target.number), chunk.prev);
        let records = chunk.records.clone();
        match client.submit_ingest(IngestChunk { topic, input, slot, end: false, prev, records }) {
            Ok(ticket) => self.tickets.insert(ticket, (at, slot)),
            Err(error) if error.kind == ErrorKind::Unreachable => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        share.in_flight += 1;
        Ok(true)
    }

    /// Takes in answers, waiting for one at most so long.
    ///
    /// # Errors
    /// A refusal for good.
    pub(super) fn pump(&mut self, client: &mut Client, wait: Duration) -> Result<(), Failed> {
        let mut wait = wait;
        while let Some((ticket, ended)) = client.take_ended(wait) {
            wait = Duration::ZERO;
            match self.tickets.remove(&ticket) {
                Some((at, slot)) => self.answered(client, at, slot, ended)?,
                None => self.others.push((ticket, ended)),
            }
        }
        Ok(())
    }

    fn answered(
        &mut self,
        client: &mut Client,
        at: usize,
        slot: SlotId,
        ended: Result<OwnedReply, gristmill_client::Error>,
    ) -> Result<(), Failed> {
        let share = self.targets[at].shares.get_mut(&slot).expect("only these were sent");
        share.in_flight -= 1;
        match ended {
            // What became of it the slot says when it is sent again.
            Err(error) if matches!(error.kind, ErrorKind::TimedOut | ErrorKind::Unknown | ErrorKind::Unreachable) => {}
            ended => {
                let found = received(ended)?;
                // Answers of a slot come in order, so this is no old one.
                if found < share.received {
                    let had = share.received;
                    return Err(lost(slot, had, found));
                }
                share.received = found;
                self.answers += 1;
            }
        }
        while let Some(chunk) = share.chunks.pop_front_if(|chunk| chunk.last <= share.received) {
            self.open_bytes -= chunk.records.bytes();
            self.appended += chunk.records.len() as u64;
        }
        // Once nothing of the slot is in flight, what it has not got goes again, in order.
        if share.in_flight == 0 {
            self.send_all(client, at, slot)?;
        }
        Ok(())
    }

    /// Whether reading should wait.
    pub(super) fn is_full(&self) -> bool {
        self.open_bytes >= OPEN_BYTES_MAX
    }

    /// Whether everything that was taken is appended.
    pub(super) fn is_empty(&self) -> bool {
        self.open_bytes == 0
    }

    /// The first record that is not known to be appended, if there is one.
    pub(super) fn first_open(&self) -> Option<u64> {
        let shares = self.targets.iter().flat_map(|target| target.shares.values());
        shares.filter_map(|share| share.chunks.front().or(share.filling.as_ref())).map(|chunk| chunk.first).min()
    }
}

fn empty(topic: &Topic, number: u32, slot: SlotId, end: bool) -> IngestChunk {
    IngestChunk { topic: topic.id, input: TaskId(number), slot, end, prev: 0, records: RecordsBuf::default() }
}

/// What a slot acknowledged is not there any more.
fn lost(slot: SlotId, had: u64, found: u64) -> Failed {
    let message = format!(
        "the server has lost what it had acknowledged: slot {slot} had the records up to {had}, and has them up to {found} \
         now; was an older data directory put back? nothing more is sent; delete the input to load it anew"
    );
    Failed::new(Exit::No, message)
}

fn received(ended: Result<OwnedReply, gristmill_client::Error>) -> Result<u64, Failed> {
    match ended.map_err(failed)? {
        OwnedReply::Ingested(u64::MAX) => Err(Failed::new(
            Exit::No,
            "the input was deleted; if ingest list still shows it, deleting it was cut off: delete it again",
        )),
        OwnedReply::Ingested(received) => Ok(received),
        other => Err(Failed::new(Exit::Internal, format!("a reply of another kind came: {other:?}"))),
    }
}
