//! What replays leave in a slot: from which subscription instance to which it has switched, and where; and, so that it is known
//! what can be replayed, from where the state of tables has come beside events.

use super::{Acceptance, Slot};
use crate::input::{StreamId, Target};
use crate::record::{Commit, Control, Journal, RecordKind, Switched, TimerChange};
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{LaneId, Lsn, SubscriptionId, TableId};
use gristmill_base::planted::{self, Bug};
use gristmill_base::sometimes::reached;
use std::collections::{BTreeMap, BTreeSet};

/// From where grains of a table have got something beside events of topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Clients' writes and invokes.
    Client,
    /// Timers that their handlers have set.
    Timer,
    /// Messages, and responses, of grains of that table.
    Table(TableId),
    /// Versions of the app.
    Control,
}

/// See [`Source`]. What is not here has never been: but for a slot whose data are of before it was noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    noted: BTreeSet<(TableId, Source)>,
    /// Whether there may be others.
    is_older: bool,
    /// The last one that was looked for: most are it.
    last: Option<(TableId, Source)>,
}

/// Where a slot has switched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Switch {
    new: SubscriptionId,
    ends: BTreeMap<LaneId, u64>,
}

impl Sources {
    pub(super) fn note(&mut self, table: TableId, source: Source) {
        if self.last != Some((table, source)) {
            self.last = Some((table, source));
            self.noted.insert((table, source));
        }
    }

    pub(super) fn is_of_older_data(&mut self) {
        self.is_older = true;
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(self.is_older));
        out.put_varint(self.noted.len() as u64);
        for (table, source) in &self.noted {
            out.put_varint(table.0.into());
            match source {
                Source::Client => out.put_u8(1),
                Source::Timer => out.put_u8(2),
                Source::Control => out.put_u8(4),
                Source::Table(from) => {
                    out.put_u8(3);
                    out.put_varint(from.0.into());
                }
            }
        }
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let is_older = from.u8()? != 0;
        let mut noted = BTreeSet::new();
        for _ in 0..from.count(2)? {
            let table = TableId(from.varint_as("table")?);
            let source = match from.u8()? {
                1 => Source::Client,
                2 => Source::Timer,
                3 => Source::Table(TableId(from.varint_as("table")?)),
                4 => Source::Control,
                found => return Err(DecodeError::Unknown { what: "source of a table", found: found.into() }),
            };
            noted.insert((table, source));
        }
        Ok(Self { noted, is_older, last: None })
    }
}

impl Slot {
    /// From where grains of a table have got something beside events, in this slot or by what this slot has sent; and whether
    /// that may not be all, since the slot has data of before it was noted.
    pub fn sources_of(&self, table: TableId) -> impl Iterator<Item = Source> {
        self.sources.noted.iter().filter(move |(to, _)| *to == table).map(|(_, source)| *source)
    }

    /// Whether there may be sources that nobody has noted.
    #[must_use]
    pub fn has_older_data(&self) -> bool {
        self.sources.is_older
    }

    /// Takes note of what a commit of a run, or of copies to a backlog, says of sources.
    pub(super) fn note_sources(&mut self, kind: RecordKind, commit: &Commit) {
        let is_session = |stream: StreamId| matches!(stream, StreamId::Session(_));
        let is_input = matches!(kind, RecordKind::Run | RecordKind::FailedRun | RecordKind::Spill);
        if is_input && commit.consumed.iter().any(|consumed| is_session(consumed.stream)) {
            self.sources.note(commit.grain.table, Source::Client);
        }
        let is_control = |stream: StreamId| matches!(stream, StreamId::Control { .. });
        if is_input && commit.consumed.iter().any(|consumed| is_control(consumed.stream)) {
            self.sources.note(commit.grain.table, Source::Control);
        }
        let is_timer = |change: &TimerChange| matches!(change, TimerChange::Set { .. } | TimerChange::Repeat { .. });
        if commit.timers.iter().any(is_timer) {
            self.sources.note(commit.grain.table, Source::Timer);
        }
        for sent in &commit.sent {
            if let Target::Grain(to, _) = &sent.target {
                self.sources.note(to.table, Source::Table(commit.grain.table));
            }
        }
    }

    /// Forgets what is of tables and subscriptions that are gone.
    pub(super) fn forget_switches(&mut self, tables: &[u32], subscriptions: &[u32]) {
        self.sources.noted.retain(|(table, _)| !tables.contains(&table.0));
        self.sources.last = None;
        self.switches.retain(|old, switch| !subscriptions.contains(&old.0) && !subscriptions.contains(&switch.new.0));
    }

    /// Whether the slot has switched from a subscription instance to another one.
    #[must_use]
    pub fn has_switched_from(&self, old: SubscriptionId) -> bool {
        self.switches.contains_key(&old)
    }

    /// The last offset of a lane that is the old instance's; `None` if the slot has not switched from that.
    #[must_use]
    pub fn end_of(&self, old: SubscriptionId, lane: LaneId) -> Option<u64> {
        self.switches.get(&old).map(|switch| switch.ends.get(&lane).copied().unwrap_or(0))
    }

    /// The same of a stream.
    #[must_use]
    pub fn end_of_stream(&self, stream: StreamId) -> Option<u64> {
        let StreamId::Topic { subscription, lane } = stream else { return None };
        if self.switches.is_empty() {
            return None;
        }
        self.end_of(subscription, lane)
    }

    /// Lanes with an end of a subscription instance from which the slot has switched, and their ends.
    pub fn ends_of(&self, old: SubscriptionId) -> impl Iterator<Item = (LaneId, u64)> {
        self.switches.get(&old).into_iter().flat_map(|switch| &switch.ends).map(|(lane, end)| (*lane, *end))
    }

    /// Switches from old instances to new ones, by a record: what either of them has accepted or handled is the old one's, what
    /// comes behind it the new one's.
    pub fn switch(&mut self, journal: &mut impl Journal, pairs: &[(SubscriptionId, SubscriptionId)]) -> Lsn {
        let streams = self.streams();
        let switched = pairs.iter().map(|&(old, new)| {
            let mut ends: BTreeMap<LaneId, u64> = BTreeMap::new();
            for (id, stream) in &streams {
                let StreamId::Topic { subscription, lane } = *id else { continue };
                if subscription != old && (subscription != new || planted::is(Bug::SwitchForgetsNew)) {
                    continue;
                }
                let done = if planted::is(Bug::SwitchForgetsDone) { 0 } else { stream.highest_done() };
                let end = ends.entry(lane).or_default();
                *end = (*end).max(stream.received()).max(done);
            }
            Switched { old, new, ends: ends.into_iter().filter(|(_, end)| *end > 0).collect() }
        });
        let control = Control::Switch(switched.collect());
        let (_, lsn) = self.write(journal, RecordKind::Control, |out| control.encode(out));
        self.apply_control(control);
        lsn
    }

    /// What the slot knows of switches and sources, for comparisons.
    #[must_use]
    pub fn switches_text(&self) -> String {
        format!("{:?} {:?} {}", self.switches, self.sources.noted, self.sources.is_older)
    }

    pub(super) fn apply_switch(&mut self, switched: Vec<Switched>) {
        for Switched { old, new, ends } in switched {
            self.switches.insert(old, Switch { new, ends: ends.into_iter().collect() });
        }
    }

    /// Takes note that what a stream brings behind its end is not this instance's any more.
    pub(super) fn pass_end(&mut self, stream: StreamId, prev: u64, end: u64) -> Acceptance {
        let entry = self.streams.entry(stream).or_default();
        if entry.received() >= end {
            reached("event behind the end of an old subscription");
            return Acceptance::Known;
        }
        match self.cover(stream, prev, end) {
            Acceptance::Taken => Acceptance::Known,
            other => other,
        }
    }

    pub(super) fn dump_switches(&self, out: &mut Vec<u8>) {
        let switches = || self.switches.iter().filter(|_| !planted::is(Bug::SwitchNotDumped));
        out.put_varint(switches().count() as u64);
        for (old, switch) in switches() {
            let ends = switch.ends.iter().map(|(lane, end)| (*lane, *end)).collect();
            Switched { old: *old, new: switch.new, ends }.encode(out);
        }
        self.sources.encode(out);
    }

    pub(super) fn load_switches(&mut self, from: &mut Reader<'_>) -> Result<(), DecodeError> {
        for _ in 0..from.count(3)? {
            let switched = Switched::decode(from)?;
            self.apply_switch(vec![switched]);
        }
        self.sources = Sources::decode(from)?;
        Ok(())
    }
}
