//! A simulated client that watches a table: it asks for changes behind its positions, for slots of one shard at a time, goes on with its
//! token after crashes and moves, and begins a new line where it is told that its position is gone.

use crate::auditor::watched::{Began, Line};
use crate::client::{World, is_passing};
use crate::rng::SimRng;
use crate::workload::watched::TABLES;
use gristmill_base::class::InputClass;
use gristmill_base::ids::{ConnId, SessionId, ShardId, SlotId, TableId};
use gristmill_base::placement::slot_of;
use gristmill_base::sometimes::reached;
use gristmill_base::watch::{Behind, WatchKeys, WatchPosition, WatchToken};
use gristmill_core::request::{Answer, Changes, Code, Operation, Reply, Request, Responder, Watch};
use std::collections::{BTreeMap, BTreeSet};

/// Connections of watchers, from here on.
const CONNS: u64 = 1 << 50;

/// See the module.
pub struct Watcher {
    rng: SimRng,
    conn: u64,
    table: &'static str,
    keys: WatchKeys,
    /// The app whose table it watches.
    app: u32,
    id: TableId,
    positions: BTreeMap<SlotId, Option<Behind>>,
    /// Which shard has which slot, as it was told.
    at: BTreeMap<SlotId, ShardId>,
    /// Slots that it has asked for, by tag, and what was acked then.
    asked: BTreeMap<u64, (Vec<SlotId>, BTreeSet<u64>)>,
    next_tag: u64,
    wake: u64,
    line: Line,
    /// Lines that have ended.
    past: Vec<Line>,
    was_cut: bool,
}

impl Watcher {
    /// A watcher of some table.
    #[must_use]
    pub fn new(number: u64, mut rng: SimRng) -> Self {
        let table = TABLES[(number % 3) as usize];
        let letter = if table == "runs" { "r" } else { "g" };
        let keys = match rng.below(4) {
            0 => WatchKeys::Key(format!("{letter}0{}", if letter == "g" { "-0" } else { "" }).into_bytes().into()),
            1 => WatchKeys::Prefix(format!("{letter}1").into_bytes().into()),
            _ => WatchKeys::Prefix(Box::default()),
        };
        Self {
            rng,
            conn: CONNS + (number << 32),
            table,
            line: Line::new(table, keys.clone()),
            keys,
            app: 0,
            id: TableId(0),
            positions: BTreeMap::new(),
            at: BTreeMap::new(),
            asked: BTreeMap::new(),
            next_tag: 1,
            wake: 0,
            past: Vec::new(),
            was_cut: false,
        }
    }

    /// When it wants to act, nanoseconds.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.wake
    }

    /// Whether a reply is for it.
    #[must_use]
    pub fn hears(&self, reply: &Reply) -> bool {
        reply.responder.conn == ConnId(self.conn)
    }

    /// The machine went down: what it asked for is not answered any more. It goes on with its token.
    pub fn cut(&mut self) {
        self.conn += 1;
        self.asked.clear();
        self.was_cut = !self.line.is_empty();
        let positions = self.positions.iter().map(|(slot, behind)| WatchPosition { slot: *slot, behind: *behind });
        let token =
            WatchToken { directory: [7; 16], table: self.id, keys: self.keys.clone(), positions: positions.collect() };
        let read = WatchToken::from_text(&token.to_text()).expect("a token comes back");
        self.positions = read.positions.into_iter().map(|it| (it.slot, it.behind)).collect();
    }

    /// Begins a new line, from now on.
    fn begin(&mut self, slot_count: u16) {
        self.conn += 1;
        self.asked.clear();
        let slots: Vec<SlotId> = match &self.keys {
            WatchKeys::Key(key) => vec![slot_of(key, slot_count)],
            WatchKeys::Prefix(_) => (0..slot_count).map(SlotId).collect(),
        };
        self.positions = slots.into_iter().map(|slot| (slot, None)).collect();
        self.line = Line::new(self.table, self.keys.clone());
        self.was_cut = false;
    }

    /// Asks for changes, now and then.
    pub fn act(&mut self, world: &mut World<'_>) {
        let now = world.machine.clock.nanos();
        if now < self.wake || world.machine.cores.is_empty() {
            return;
        }
        self.wake = now + self.rng.between(10_000, 8_000_000);
        if world.auditor.is_past(world.auditor.life()) {
            return;
        }
        if self.app != world.names.app_id() {
            // Its table is gone with the app.
            self.past.clear();
            self.app = world.names.app_id();
            self.id = TableId(world.names.table(self.table).id);
            self.begin(world.machine.knobs.boot.slot_count);
        }
        let open: BTreeSet<SlotId> = self.asked.values().flat_map(|(slots, _)| slots.iter().copied()).collect();
        let free: Vec<SlotId> = self.positions.keys().copied().filter(|slot| !open.contains(slot)).collect();
        let Some(first) = self.rng.pick(&free).copied() else { return };
        let shard = self.at.get(&first).copied().unwrap_or(ShardId(0));
        let mut slots: Vec<SlotId> =
            free.into_iter().filter(|slot| self.at.get(slot).copied().unwrap_or(ShardId(0)) == shard).collect();
        if self.rng.below(4) == 0 {
            slots.retain(|_| self.rng.below(2) == 0);
        }
        if slots.is_empty() {
            return;
        }
        let wait_millis = [0, 5, 400, 20_000][self.rng.below(4) as usize];
        let watch = self.watch(&slots, wait_millis);
        let tag = self.next_tag;
        self.next_tag += 1;
        self.asked.insert(tag, (slots, world.auditor.acked_and_begun().0));
        let door = self.rng.below(world.machine.cores.len() as u64) as usize;
        let responder = Responder { shard: ShardId(door as u16), conn: ConnId(self.conn), tag };
        let (session, class, operation) = (SessionId(0), InputClass::Live, Operation::Watch(Box::new(watch)));
        world.machine.request(door, Request { responder, session, class, operation });
    }

    fn watch(&mut self, slots: &[SlotId], wait_millis: u32) -> Watch {
        let positions = slots.iter().map(|slot| WatchPosition { slot: *slot, behind: self.positions[slot] });
        Watch {
            table: self.id,
            keys: self.keys.clone(),
            positions: positions.collect(),
            max_changes: [1, 3, 10_000][self.rng.below(3) as usize],
            max_bytes: [1, 2_000, 1 << 20][self.rng.below(3) as usize],
            wait_millis,
        }
    }

    /// Takes the answer to what it asked for.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn hear(&mut self, reply: Reply, world: &mut World<'_>) -> Result<(), String> {
        let Some((_, acked)) = self.asked.remove(&reply.responder.tag) else { return Ok(()) };
        match reply.outcome {
            Ok(Answer::Changes(changes)) => self.shown(*changes, acked, world),
            Ok(other) => Err(format!("watch: it was answered {other:?}")),
            Err(refusal) if refusal.code == Code::Gone => {
                reached("watch told that its position is gone");
                if !refusal.message.starts_with("position is gone, read anew") {
                    return Err(format!("watch: a position is gone, and this is said: {}", refusal.message));
                }
                self.end_line(world.machine.knobs.boot.slot_count);
                Ok(())
            }
            Err(refusal) if is_passing(refusal.code) || refusal.code == Code::UnknownName => {
                self.wake = self.wake.max(world.machine.clock.nanos() + 20_000_000);
                Ok(())
            }
            Err(refusal) => Err(format!("watch: it was refused: {refusal:?}")),
        }
    }

    fn end_line(&mut self, slot_count: u16) {
        let mut line = std::mem::replace(&mut self.line, Line::new(self.table, self.keys.clone()));
        line.is_gone = true;
        self.past.push(line);
        self.begin(slot_count);
    }

    fn shown(&mut self, changes: Changes, acked: BTreeSet<u64>, world: &mut World<'_>) -> Result<(), String> {
        let Changes { positions, elsewhere, changes, .. } = changes;
        for (slot, shard) in elsewhere {
            reached("watch told that a slot is elsewhere");
            self.at.insert(slot, shard);
        }
        let begun = world.auditor.acked_and_begun().1;
        for WatchPosition { slot, behind } in positions {
            if self.positions.insert(slot, behind) == Some(None) {
                let began = Began { before: acked.clone(), maybe: begun.clone() };
                self.line.began.insert(slot, began);
            }
        }
        if !changes.is_empty() && std::mem::take(&mut self.was_cut) {
            reached("watch goes on behind a crash");
        }
        for change in &changes {
            if !self.keys.covers(&change.key) {
                return Err(format!("watch: {:?} was asked for, and {change:?} is shown", self.keys));
            }
            world.auditor.watched(self.table, &String::from_utf8_lossy(&change.key), &change.change);
        }
        self.line.take(changes)
    }

    /// Whether it has watched a table of this app, and not only of one that was deleted.
    #[must_use]
    pub fn is_of(&self, app: u32) -> bool {
        self.app == app
    }

    /// At the end: what it asks for next in each slot, alone.
    pub fn last_asks(&mut self, app: u32, slot_count: u16) -> Vec<(SlotId, Operation)> {
        self.conn += 1;
        self.asked.clear();
        if self.app != app {
            return Vec::new();
        }
        if self.positions.is_empty() {
            self.begin(slot_count);
        }
        let slots: Vec<SlotId> = self.positions.keys().copied().filter(|slot| self.positions[slot].is_some()).collect();
        slots.into_iter().map(|slot| (slot, Operation::Watch(Box::new(self.watch(&[slot], 0))))).collect()
    }

    /// An answer to one of them; whether there is more.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn last_answer(
        &mut self,
        outcome: Result<Answer, gristmill_core::request::Refusal>,
        world: &mut World<'_>,
    ) -> Result<bool, String> {
        match outcome {
            Ok(Answer::Changes(changes)) => {
                let more = changes.more || !changes.elsewhere.is_empty();
                self.shown(*changes, BTreeSet::new(), world)?;
                Ok(more)
            }
            Err(refusal) if refusal.code == Code::Gone => {
                self.end_line(world.machine.knobs.boot.slot_count);
                Ok(false)
            }
            other => Err(format!("watch: at the end it was answered {other:?}")),
        }
    }

    /// Its lines, the last one included, which has been told all there is.
    pub fn lines(&self) -> impl Iterator<Item = &Line> {
        self.past.iter().chain([&self.line])
    }
}
