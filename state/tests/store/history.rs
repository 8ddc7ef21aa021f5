//! Whole histories: writes, flushes, merges step by step, crashes with replay of the log, files that nobody names.

use crate::rig::{DIRECTORY, Disk, Model, SMALL, deleted, drive, entry, grain, inline, look_up, range_tombstone};
use gristmill_base::ids::{ShardId, SlotId, Ssn, TableId, Term};
use gristmill_state::store::{
    Blocks, Built, Content, Cursor, Damage, Direction, FileNumber, FileOptions, Flush, FlushMark, FlushStep, Group,
    KeyRange, Manifest, Memory, Merge, MergeStep, Plan, Run, Version, View, open_value, plan, value_wanted,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const GROUP: u16 = 3;
const SLOTS: [SlotId; 2] = [SlotId(1), SlotId(2)];

/// A record of the log: one change of one slot.
#[derive(Clone, Debug)]
enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    DeleteRange(KeyRange),
    /// All of these, in order, in one record.
    Several(Vec<Change>),
}

impl Change {
    fn slot(&self) -> SlotId {
        let key = match self {
            Self::Put(key, _) | Self::Delete(key) => key,
            Self::DeleteRange(range) => &range.from,
            Self::Several(changes) => return changes[0].slot(),
        };
        SlotId(key[1].into())
    }
}

/// A store as a shard would drive it.
struct World {
    disk: Disk,
    manifest: Manifest,
    blocks: Blocks,
    cache: usize,
    generation: u64,
    memory: Memory,
    /// Every record by slot, with its ssn: the log, never trimmed.
    log: BTreeMap<SlotId, Vec<Change>>,
    model: Model,
    merge: Option<(Plan, Merge)>,
    /// How files are laid out, if not as planned.
    small: bool,
    user_bytes: u64,
}

impl World {
    fn new(cache: usize, small: bool) -> Self {
        Self {
            disk: Disk::default(),
            manifest: Manifest::new(ShardId(5), 100, SLOTS.map(|slot| (GROUP, slot))),
            blocks: Blocks::new(DIRECTORY, cache),
            cache,
            generation: 0,
            memory: Memory::default(),
            log: BTreeMap::new(),
            model: Model::default(),
            merge: None,
            small,
            user_bytes: 0,
        }
    }

    fn options(&self, options: FileOptions) -> FileOptions {
        if self.small {
            FileOptions { block_bytes: SMALL.block_bytes, file_bytes: SMALL.file_bytes, ..options }
        } else {
            options
        }
    }

    fn view(&self) -> View {
        self.manifest.groups[&GROUP].view(self.generation)
    }

    fn group(&mut self) -> &mut Group {
        self.manifest.groups.get_mut(&GROUP).expect("the world has one group")
    }

    /// Writes a record and applies it.
    fn write(&mut self, change: Change) {
        let log = self.log.entry(change.slot()).or_default();
        log.push(change.clone());
        let ssn = log.len() as u64;
        self.note(&change, ssn);
        self.apply(change, ssn);
    }

    /// Applies a record to the model.
    fn note(&mut self, change: &Change, ssn: u64) {
        match change {
            Change::Put(key, value) => {
                self.user_bytes += (key.len() + value.len()) as u64;
                self.model.put(key.clone(), inline(ssn, value));
            }
            Change::Delete(key) => self.model.put(key.clone(), deleted(ssn)),
            Change::DeleteRange(range) => self.model.delete_range(range),
            Change::Several(changes) => changes.iter().for_each(|change| self.note(change, ssn)),
        }
    }

    fn apply(&mut self, change: Change, ssn: u64) {
        match change {
            Change::Put(key, value) => self.memory.put(key, inline(ssn, &value)),
            Change::Delete(key) => self.memory.put(key, deleted(ssn)),
            Change::DeleteRange(range) => self.memory.delete_range(range_tombstone(range, ssn)),
            Change::Several(changes) => changes.into_iter().for_each(|change| self.apply(change, ssn)),
        }
    }

    /// Flushes the rows that are in part `part` of three, and the range tombstones or not: a flush that is taken slice by
    /// slice while the shard goes on. How far all is flushed does not move.
    fn flush_part(&mut self, part: u32, takes_tombstones: bool) {
        let (mut taken, mut left) = (Memory::default(), Memory::default());
        let with_tombstones = if takes_tombstones { &mut taken } else { &mut left };
        self.memory.tombstones().iter().for_each(|tombstone| with_tombstones.delete_range(tombstone));
        for (key, version) in self.memory.iter() {
            let is_taken = key.iter().map(|byte| u32::from(*byte)).sum::<u32>() % 3 == part;
            let memory = if is_taken { &mut taken } else { &mut left };
            memory.put(key.clone(), version.clone());
        }
        self.memory = left;
        self.write_run(taken, &BTreeMap::new());
    }

    fn flush(&mut self) {
        let marks: BTreeMap<SlotId, FlushMark> = SLOTS
            .iter()
            .map(|slot| {
                let ssn = Ssn(self.log.get(slot).map_or(0, Vec::len) as u64);
                (*slot, FlushMark { term: Term(1), ssn })
            })
            .collect();
        let memory = std::mem::take(&mut self.memory);
        self.write_run(memory, &marks);
    }

    fn write_run(&mut self, memory: Memory, marks: &BTreeMap<SlotId, FlushMark>) {
        let job = self.manifest.begin_job();
        let mut flush = Flush::new(DIRECTORY, GROUP, job, self.options(FileOptions::TOP), (&memory).into());
        let built = loop {
            match flush.step(1_000) {
                FlushStep::Write(piece) => self.disk.write(piece),
                FlushStep::Pause => {}
                FlushStep::Done(built) => break built,
            }
        };
        self.group().flushed(&built, marks);
        self.generation += 1;
    }

    /// Takes a merge some steps on, if one is due.
    fn merge(&mut self, steps: usize) -> bool {
        if self.merge.is_none() {
            let Some(mut plan) = plan(GROUP, &self.manifest.groups[&GROUP]) else { return false };
            plan.options = self.options(plan.options);
            let job = self.manifest.begin_job();
            let merge = Merge::new(DIRECTORY, job, &plan);
            self.merge = Some((plan, merge));
        }
        for _ in 0..steps {
            let (_, merge) = self.merge.as_mut().expect("one is under way");
            match merge.step(2_000).expect("nothing is damaged") {
                MergeStep::Read(wanted) => merge.fill(wanted, &self.disk.read(wanted)).expect("nothing is damaged"),
                MergeStep::Write(piece) => self.disk.write(piece),
                MergeStep::Pause => {}
                MergeStep::Done(built) => {
                    self.publish(&built);
                    break;
                }
            }
        }
        true
    }

    fn publish(&mut self, built: &Built) {
        let (plan, _) = self.merge.take().expect("one is under way");
        for (file, kind) in self.group().merged(&plan, built) {
            self.blocks.forget(file);
            self.disk.files.remove(&(file, kind)).expect("a file that is not needed any more was there");
        }
        self.generation += 1;
        self.check_files();
    }

    /// Makes a last level so large that full tiers become runs of the next tier; it has all rows that histories write.
    fn fill_last_level(&mut self) {
        for slot in [1, 2] {
            (0..700).for_each(|n| self.write(Change::Put(grain(slot, n), vec![1; 60])));
            (0..90).for_each(|n| self.write(Change::Put(entry(slot, n / 30, n % 30), vec![2; 60])));
        }
        (0..4).for_each(|_| {
            self.write(Change::Put(grain(1, 0), vec![3]));
            self.flush();
        });
        self.settle();
        let group = &self.manifest.groups[&GROUP];
        assert!(group.last.files.len() > 20 && group.tier_runs().count() == 0);
    }

    fn settle(&mut self) {
        while self.merge(1_000_000) {}
    }

    /// Files on disk are those that the manifest names.
    fn check_files(&self) {
        let named: BTreeSet<_> = self.manifest.files().map(|(_, file, kind)| (file, kind)).collect();
        let there: BTreeSet<_> = self.disk.files.keys().copied().collect();
        assert!(named.is_subset(&there));
        if self.merge.is_none() {
            assert_eq!(named, there);
        }
        assert!(self.manifest.files().all(|(group, file, _)| group == GROUP && file.job() % 64 == 5));
    }

    /// Loses memory and what is under way, opens the manifest, and replays the log, `more` records of it too early.
    fn crash(&mut self, more: usize) {
        self.merge = None;
        self.memory = Memory::default();
        self.blocks = Blocks::new(DIRECTORY, self.cache);
        self.generation += 1;
        let stored = self.manifest.to_bytes();
        let restored = Manifest::from_bytes(&stored).expect("it was just stored");
        assert_eq!(restored, self.manifest);
        let named: BTreeSet<_> = restored.files().map(|(_, file, kind)| (file, kind)).collect();
        self.disk.files.retain(|file, _| named.contains(file));
        for slot in SLOTS {
            let mark = restored.groups[&GROUP].slots[&slot].ssn.0 as usize;
            let log = self.log.get(&slot).cloned().unwrap_or_default();
            for (at, change) in log.into_iter().enumerate().skip(mark.saturating_sub(more)) {
                self.replay(change, at as u64 + 1);
            }
        }
    }

    /// Applies a record to a row only if the row is older.
    fn replay(&mut self, change: Change, ssn: u64) {
        if let Change::Several(changes) = change {
            return changes.into_iter().for_each(|change| self.replay(change, ssn));
        }
        if let Change::Put(key, _) | Change::Delete(key) = &change {
            let view = self.view();
            let answer = look_up(&self.disk, &mut self.blocks, &[&self.memory], &view, key);
            // A range that the same record deleted says neither, because the record's changes have an order.
            let answer = answer.expect("nothing is damaged");
            if answer.written >= Ssn(ssn) || answer.killed > Ssn(ssn) {
                return;
            }
        }
        self.apply(change, ssn);
    }

    /// A row with its value, wherever that lies.
    fn whole(&self, key: &[u8], row: Version) -> Result<Version, Damage> {
        let Content::Stored(at) = row.content else { return Ok(row) };
        let read = self.disk.read(value_wanted(at, key));
        let content = Content::Inline(open_value(DIRECTORY, at, key, &read)?.to_vec());
        Ok(Version { ssn: row.ssn, content })
    }

    fn get(&mut self, key: &[u8]) -> Option<Version> {
        let view = self.view();
        let answer = look_up(&self.disk, &mut self.blocks, &[&self.memory], &view, key).expect("nothing is damaged");
        answer.row.map(|row| self.whole(key, row).expect("nothing is damaged"))
    }

    fn check(&mut self, range: &KeyRange) {
        let view = self.view();
        for direction in [Direction::Forward, Direction::Backward] {
            let mut cursor = Cursor::new(range.clone(), direction);
            let mut found = Vec::new();
            let mut next = |blocks: &mut Blocks| cursor.next(&[&self.memory], &view, blocks);
            while let Some((key, row)) = drive(&self.disk, &mut self.blocks, &mut next).expect("nothing is damaged") {
                let row = self.whole(&key, row).expect("nothing is damaged");
                found.push((key, row));
            }
            assert_eq!(found, self.model.walk(range, direction));
        }
    }

    fn file_bytes(&self) -> u64 {
        self.disk.files.values().map(|file| file.len() as u64).sum()
    }
}

/// What happens next.
#[derive(Clone, Debug)]
enum Event {
    Write(Change),
    Flush,
    FlushPart(u32, bool),
    Merge(usize),
    Crash(usize),
    Get(Vec<u8>),
    Check(KeyRange),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let slot = 1..3_u16;
    prop_oneof![
        (slot.clone(), 0..30_u32).prop_map(|(slot, n)| grain(slot, n)),
        (slot, 0..3_u32, 0..30_u32).prop_map(|(slot, grain, n)| entry(slot, grain, n)),
    ]
}

fn range() -> impl Strategy<Value = KeyRange> {
    let slot = || (1..3_u16).prop_map(SlotId);
    let entries =
        |(slot, grain): (SlotId, u32)| KeyRange::of_grain_entries(slot, TableId(1), grain.to_string().as_bytes());
    prop_oneof![
        3 => (slot(), 0..3_u32).prop_map(entries),
        2 => (1..3_u16, 0..3_u32, 0..30_u32, 0..30_u32)
            .prop_map(|(slot, grain, a, b)| KeyRange { from: entry(slot, grain, a.min(b)), to: entry(slot, grain, a.max(b)) }),
        1 => slot().prop_map(|slot| KeyRange::of_grains(slot, TableId(1))),
        1 => slot().prop_map(KeyRange::of_slot),
    ]
}

/// A record that puts a row into a range which it also deletes, before or after.
fn several((range, value, name, puts_first): (KeyRange, Vec<u8>, u32, bool)) -> Event {
    let slot = u16::from(range.from[1]);
    let mut changes = vec![
        Change::DeleteRange(range),
        Change::Put(entry(slot, name % 3, name), value.clone()),
        Change::Put(grain(slot, name), value),
    ];
    if puts_first {
        changes.rotate_left(1);
    }
    Event::Write(Change::Several(changes))
}

fn event() -> impl Strategy<Value = Event> {
    let small = proptest::collection::vec(any::<u8>(), 0..50);
    let large = (1_000..3_000_usize, any::<u8>()).prop_map(|(bytes, byte)| vec![byte; bytes]);
    prop_oneof![
        30 => (key(), small).prop_map(|(key, value)| Event::Write(Change::Put(key, value))),
        6 => (key(), large).prop_map(|(key, value)| Event::Write(Change::Put(key, value))),
        8 => key().prop_map(|key| Event::Write(Change::Delete(key))),
        2 => range().prop_map(|range| Event::Write(Change::DeleteRange(range))),
        2 => (range(), proptest::collection::vec(any::<u8>(), 0..9), 0..30_u32, any::<bool>()).prop_map(several),
        6 => Just(Event::Flush),
        6 => (0..3_u32, any::<bool>()).prop_map(|(part, takes_tombstones)| Event::FlushPart(part, takes_tombstones)),
        10 => (1..40_usize).prop_map(Event::Merge),
        2 => (0..30_usize).prop_map(Event::Crash),
        6 => key().prop_map(Event::Get),
        2 => range().prop_map(Event::Check),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn any_history_gives_what_a_sorted_map_has(
        events in proptest::collection::vec(event(), 1..250),
        cache in prop_oneof![Just(0_usize), Just(1_000), Just(1 << 20)],
        small in prop_oneof![4 => Just(true), 1 => Just(false)],
        is_large in any::<bool>(),
    ) {
        let mut world = World::new(cache, small || is_large);
        if is_large {
            world.fill_last_level();
        }
        for event in events {
            match event {
                Event::Write(change) => world.write(change),
                Event::Flush => world.flush(),
                Event::FlushPart(part, takes_tombstones) => world.flush_part(part, takes_tombstones),
                Event::Merge(steps) => drop(world.merge(steps)),
                Event::Crash(more) => world.crash(more),
                Event::Get(key) => {
                    let wanted = world.model.rows.get(&key).cloned();
                    prop_assert_eq!(world.get(&key), wanted);
                }
                Event::Check(range) => world.check(&range),
            }
        }
        for round in 0..2 {
            SLOTS.iter().for_each(|slot| world.check(&KeyRange::of_slot(*slot)));
            if round == 0 {
                world.flush();
                world.settle();
                world.check_files();
            }
        }
    }
}

/// Tombstones of a run that goes to the next tier still hide what the last level has.
#[test]
fn tombstones_outlive_merges_of_tiers() {
    let mut world = World::new(1 << 20, true);
    world.fill_last_level();
    world.write(Change::Delete(grain(1, 5)));
    world.write(Change::DeleteRange(KeyRange::of_grain_entries(SlotId(1), TableId(1), b"1")));
    for n in 0..4 {
        world.write(Change::Put(grain(2, n), vec![4]));
        world.flush();
    }
    world.settle();
    let tiers: Vec<usize> = world.manifest.groups[&GROUP].tiers.iter().map(Vec::len).collect();
    assert_eq!(tiers, [0, 1], "four runs became one of the next tier");
    assert_eq!(world.get(&grain(1, 5)), None);
    assert_eq!(world.get(&entry(1, 1, 7)), None);
    SLOTS.iter().for_each(|slot| world.check(&KeyRange::of_slot(*slot)));
}

/// Marsaglia's xorshift: the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bytes that do not compress.
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// Uniform updates of a state of 40 times what is dirty, which is ten times a memory budget of which a quarter is for dirty
/// rows. Prints what was measured: `cargo test -p gristmill-state --test store amplification -- --nocapture`.
#[test]
fn amplification_of_uniform_updates_is_bounded() {
    const ROWS: u64 = 40_000;
    const VALUE: usize = 100;
    const DIRTY: usize = 110_000;
    let mut world = World::new(440_000, false);
    let mut random = Random(7);
    let write = |world: &mut World, n: u64, random: &mut Random| {
        let value = random.bytes(VALUE);
        world.write(Change::Put(grain(1, n as u32), value));
        if world.memory.bytes() >= DIRTY {
            world.flush();
            world.settle();
        }
    };
    (0..ROWS).for_each(|n| write(&mut world, n, &mut random));
    let (written, user) = (world.disk.written, world.user_bytes);
    let mut most = 0;
    for _ in 0..3 * ROWS {
        let n = random.next() % ROWS;
        write(&mut world, n, &mut random);
        most = most.max(world.file_bytes());
    }
    let live: u64 = world.model.rows.iter().map(|(key, row)| (key.len() + row.inline_bytes()) as u64).sum();
    let write_amplification = (world.disk.written - written) as f64 / (world.user_bytes - user) as f64;
    let space_amplification = most as f64 / live as f64;
    let runs = world.view().runs.len();
    world.disk.reads.set(0);
    for _ in 0..10_000 {
        let key = grain(1, (random.next() % ROWS) as u32);
        assert!(world.get(&key).is_some());
    }
    let reads = world.disk.reads.get() as f64 / 10_000.0;
    println!(
        "write amplification {write_amplification:.2}, space {space_amplification:.2}, reads per get {reads:.2}, {runs} runs"
    );
    assert!(write_amplification < 9.0, "{write_amplification}");
    assert!(space_amplification < 1.6, "{space_amplification}");
    assert!(reads < 1.4, "{reads}");
    world.check(&KeyRange::of_slot(SlotId(1)));
}

/// Large values that are written again and again: dead ones give their space back.
#[test]
fn value_files_are_rewritten_when_much_of_them_is_dead() {
    let mut world = World::new(1 << 20, false);
    let mut random = Random(9);
    let mut most = 0;
    for round in 0..12 {
        for n in 0..300 {
            let value = random.bytes(20_000);
            // A tenth of the rows is written once and stays, so that files are dead in part.
            if round == 0 || n % 10 != 0 {
                world.write(Change::Put(grain(1, n), value));
            }
            if world.memory.bytes() >= 1 << 20 {
                world.flush();
                world.settle();
                most = most.max(world.file_bytes());
            }
        }
    }
    // Rows of the tiers that newer ones hide count as live until they are merged.
    let live = 300 * 20_000_u64;
    let bound = (live + (4 << 20)) * 3 / 2 + (4 << 20);
    assert!(most <= bound, "{most} bytes of files for {live} live ones, of 65,400,000 that were written");
    world.flush();
    world.settle();
    world.check(&KeyRange::of_slot(SlotId(1)));
}

/// Dropping a slot, or a table, gives all of its space back after some flushes, whatever else is written.
#[test]
fn a_dropped_slot_gives_its_space_back() {
    let mut world = World::new(1 << 20, false);
    let mut random = Random(11);
    for n in 0..20_000 {
        let value = random.bytes(100);
        world.write(Change::Put(grain(2, n), value));
        if world.memory.bytes() >= 200_000 {
            world.flush();
            world.settle();
        }
    }
    let before = world.file_bytes();
    world.write(Change::DeleteRange(KeyRange::of_slot(SlotId(2))));
    for n in 0..20 {
        world.write(Change::Put(grain(1, n), vec![1]));
        world.flush();
        world.settle();
    }
    assert!(before > 2_000_000 && world.file_bytes() < 200_000, "{} of {before} bytes", world.file_bytes());
    world.check(&KeyRange::of_slot(SlotId(2)));
    world.check(&KeyRange::of_slot(SlotId(1)));
}

/// A damaged input ends a merge with its name, and nothing is published.
#[test]
fn a_merge_does_not_carry_damage_on() {
    let mut world = World::new(1 << 20, false);
    for round in 0..4 {
        (0..100).for_each(|n| world.write(Change::Put(grain(1, n), vec![round; 50])));
        world.flush();
    }
    let before = world.manifest.clone();
    let found = plan(GROUP, &world.manifest.groups[&GROUP]).expect("four runs are to be merged");
    let file = found.inputs[2].files[0].number;
    let damaged = world.disk.files.iter_mut().find(|((number, _), _)| *number == file).expect("it is there").1;
    damaged[2_000] ^= 1;
    let mut merge = Merge::new(DIRECTORY, world.manifest.begin_job(), &found);
    let damage = loop {
        match merge.step(1_000) {
            Ok(MergeStep::Read(wanted)) => {
                if let Err(damage) = merge.fill(wanted, &world.disk.read(wanted)) {
                    break damage;
                }
            }
            Ok(MergeStep::Write(_) | MergeStep::Pause) => {}
            Ok(MergeStep::Done(_)) => panic!("damage was carried on"),
            Err(damage) => break damage,
        }
    };
    assert_eq!((damage.file, damage.offset), (file, 0));
    assert_eq!(before.groups, world.manifest.groups);
}

#[test]
fn a_manifest_that_is_none_is_refused() {
    let mut world = World::new(0, false);
    world.write(Change::Put(grain(1, 1), vec![7; 2_000]));
    world.flush();
    let bytes = world.manifest.to_bytes();
    assert_eq!(Manifest::from_bytes(&bytes).as_ref(), Ok(&world.manifest));
    let mut newer = bytes.clone();
    newer[0] = 2;
    assert_eq!(Manifest::from_bytes(&newer).unwrap_err(), "version 2; this program reads version 1");
    // What lies around it has a checksum; here it is enough that nothing panics.
    for cut in 0..bytes.len() {
        let _ = Manifest::from_bytes(&bytes[..cut]);
    }
    assert!(Manifest::from_bytes(&bytes[..16]).is_err());
    let mut twice = world.manifest.clone();
    let group = twice.groups.get_mut(&GROUP).unwrap();
    let run = group.tiers[0][0].clone();
    group.tiers[0].push(run);
    assert_eq!(Manifest::from_bytes(&twice.to_bytes()).unwrap_err(), "group 3: it names a file twice");
    let absurd = |change: &dyn Fn(&mut Group)| {
        let mut manifest = world.manifest.clone();
        change(manifest.groups.get_mut(&GROUP).unwrap());
        Manifest::from_bytes(&manifest.to_bytes()).unwrap_err()
    };
    // Sums of what a manifest says are made everywhere.
    let no_count = "group 3: it says a number that nothing counts to";
    assert_eq!(absurd(&|group| group.tiers[0][0].files[0].bytes = u64::MAX), no_count);
    assert_eq!(absurd(&|group| group.tiers[0][0].files[0].rows = 1 << 60), no_count);
    assert_eq!(absurd(&|group| group.tiers[0][0].files[0].values[0].1 = u64::MAX), no_count);
    assert_eq!(absurd(&|group| *group.values.get_mut(&FileNumber::of(133, 0)).unwrap() = u64::MAX), no_count);
    assert_eq!(absurd(&|group| group.flushes = u64::MAX), no_count);
    assert_eq!(absurd(&|group| group.tiers[0].push(Run::default())), "group 3: a run has no files");
    let mut foreign = world.manifest.clone();
    let of_group = foreign.groups[&GROUP].clone();
    foreign.groups.insert(GROUP + 1, Group { slots: BTreeMap::new(), ..of_group });
    assert_eq!(Manifest::from_bytes(&foreign.to_bytes()).unwrap_err(), "two groups name the file 133-1");
    foreign = world.manifest.clone();
    foreign.groups.insert(GROUP + 1, Group { slots: [(SLOTS[0], FlushMark::default())].into(), ..Group::default() });
    assert_eq!(Manifest::from_bytes(&foreign.to_bytes()).unwrap_err(), "two groups name the slot 1");
    let mut lost = world.manifest.clone();
    lost.groups.get_mut(&GROUP).unwrap().values.remove(&FileNumber::of(133, 0)).expect("the first job's first file");
    let refusal = Manifest::from_bytes(&lost.to_bytes()).unwrap_err();
    assert_eq!(refusal, "group 3: rows point at the value file 133-0, which it does not name");
}
