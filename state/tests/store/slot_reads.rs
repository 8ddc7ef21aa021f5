//! Reads of slots of which memory does not hold all: memory first, then files, as a shard does it.

use crate::rig::{DIRECTORY, Disk};
use gristmill_base::ids::{SlotId, Ssn};
use gristmill_state::expiry::name_of_stored;
use gristmill_state::grain::Queued;
use gristmill_state::input::GrainAddress;
use gristmill_state::slot::{Held, Slot};
use gristmill_state::store::{
    Access, Blocks, Direction, KeyRange, Memory, Part, RangeRead, RowKey, RowRead, Stop, StoredRow, View, Wanted,
};
use gristmill_state::timers::TimerRow;
use std::collections::BTreeMap;

/// Drives a read that may lack blocks or values.
pub(crate) fn drive<R, T>(
    disk: &Disk,
    blocks: &mut Blocks,
    read: &mut R,
    mut step: impl FnMut(&mut R, &mut Blocks) -> Result<T, Stop>,
    mut fill: impl FnMut(&mut R, &[u8]),
) -> T {
    for _ in 0..1_000_000 {
        match step(read, blocks) {
            Ok(done) => return done,
            Err(Stop::Miss(wanted @ Wanted { part: Part::Value, .. })) => fill(read, &disk.read(wanted)),
            Err(Stop::Miss(wanted)) => {
                blocks.fill(wanted, &disk.read(wanted), Access::Point).expect("nothing is damaged");
            }
            Err(Stop::Pause) => {}
            Err(Stop::Damage(damage)) => panic!("{damage}"),
        }
    }
    panic!("it never ends")
}

/// A row that files hold.
pub(crate) fn stored_row(disk: &Disk, view: &View, deleted: &[&Memory], key: Vec<u8>) -> Option<StoredRow> {
    let mut blocks = Blocks::new(DIRECTORY, 0);
    let fill = |read: &mut RowRead, bytes: &[u8]| read.fill(DIRECTORY, bytes).expect("nothing is damaged");
    let step = |read: &mut RowRead, blocks: &mut Blocks| read.step(deleted, view, blocks);
    drive(disk, &mut blocks, &mut RowRead::new(key), step, fill)
}

/// A row, wherever it is.
pub(crate) fn row(disk: &Disk, view: &View, slot: &Slot, key: &RowKey<'_>) -> Option<(Ssn, Vec<u8>)> {
    let held = match key {
        RowKey::Grain(_, table, grain) => slot.value(slot.grains.find(*table, grain)),
        RowKey::Entry(_, table, grain, map, entry) => slot.entry(slot.grains.find(*table, grain), *map, entry),
        other => panic!("{other:?} is no row of a grain"),
    };
    match held {
        Held::Row(row) => Some((row.ssn, row.bytes.to_vec())),
        Held::Nothing => None,
        Held::Unknown => {
            stored_row(disk, view, &slot.deleted(), key.encode()).map(|StoredRow { ssn, value }| (ssn, value))
        }
    }
}

/// All rows of grains, page by page, and the presence rows of files.
pub(crate) type AllRows = (BTreeMap<Vec<u8>, (Ssn, Vec<u8>)>, Vec<Vec<u8>>);

/// All rows of a slot.
pub(crate) fn rows(disk: &Disk, view: &View, id: SlotId, slot: &Slot, page: usize) -> AllRows {
    let (mut all, mut present) = (BTreeMap::new(), Vec::new());
    let deleted = slot.deleted();
    let direction = if page.is_multiple_of(2) { Direction::Forward } else { Direction::Backward };
    let mut range = KeyRange::of_grain_rows(id);
    let mut blocks = Blocks::new(DIRECTORY, 1 << 20);
    while !slot.is_whole() {
        let mut read = RangeRead::new(range.clone(), direction, page, usize::MAX);
        let fill = |read: &mut RangeRead, bytes: &[u8]| read.fill(DIRECTORY, bytes).expect("nothing is damaged");
        drive(disk, &mut blocks, &mut read, |read, blocks| read.step(&deleted, view, blocks), fill);
        for row in read.rows() {
            match &row.value {
                Some(value) => drop(all.insert(row.key.clone(), (row.ssn, value.clone()))),
                None => present.push(row.key.clone()),
            }
        }
        match read.rows().last() {
            Some(last) if !read.is_all() && direction == Direction::Forward => range.from = [&*last.key, &[0]].concat(),
            Some(last) if !read.is_all() => range.to = last.key.clone(),
            _ => break,
        }
    }
    for (_, grain) in slot.grains.iter() {
        let key = &*grain.key;
        if let Some(row) = &grain.value {
            all.insert(RowKey::Grain(id, grain.table, key.into()).encode(), (row.ssn, row.bytes.to_vec()));
        }
        for (map, rows) in grain.maps() {
            for (entry, row) in rows {
                let entry = RowKey::Entry(id, grain.table, key.into(), *map, (&**entry).into());
                all.insert(entry.encode(), (row.ssn, row.bytes.to_vec()));
            }
        }
    }
    (all, present)
}

/// All backlog rows of a slot: those of files, where some lie there alone, and those of memory.
pub(crate) fn backlog(disk: &Disk, view: &View, id: SlotId, slot: &Slot) -> BTreeMap<(SlotId, u64), GrainAddress> {
    let mut all = BTreeMap::new();
    let deleted = slot.deleted();
    for place in slot.with_rests() {
        let grain = slot.address(place);
        let rest = slot.grains.get(place).work().and_then(|work| work.rest.as_deref()).expect("it is listed");
        let mut blocks = Blocks::new(DIRECTORY, 1 << 20);
        let range = KeyRange::of_backlog(id, grain.table, &grain.key, rest.from, rest.end);
        let mut read = RangeRead::new(range, Direction::Forward, usize::MAX, usize::MAX);
        let fill = |read: &mut RangeRead, bytes: &[u8]| read.fill(DIRECTORY, bytes).expect("nothing is damaged");
        drive(disk, &mut blocks, &mut read, |read, blocks| read.step(&deleted, view, blocks), fill);
        assert_eq!(read.rows().len() as u64, rest.count, "files hold as many rows as memory says");
        for row in read.rows() {
            let Ok(RowKey::Backlog(.., n)) = RowKey::decode(&row.key) else { panic!("no backlog row") };
            assert!(all.insert((id, n), grain.clone()).is_none());
        }
    }
    for (place, work) in slot.grains.with_work() {
        let rows = work.backlog.keys().map(|n| ((id, *n), slot.address(place)));
        rows.for_each(|(n, grain)| assert!(all.insert(n, grain).is_none(), "a row is in memory or in files alone"));
        let queued =
            work.queue.iter().filter_map(|queued| if let Queued::Backlog(n) = queued { Some(n) } else { None });
        assert!(queued.eq(work.backlog.keys()), "rows are queued in order");
        if let Some(rest) = &work.rest {
            let at = work.queue.iter().position(|queued| matches!(queued, Queued::Rest)).expect("it is queued");
            let (before, behind) = work.queue.iter().enumerate().partition::<Vec<_>, _>(|(place, _)| *place < at);
            let number = |(_, queued): (usize, &Queued)| if let Queued::Backlog(n) = queued { Some(*n) } else { None };
            let before: Vec<u64> = before.into_iter().filter_map(number).collect();
            assert!(before.iter().all(|n| *n < rest.from));
            assert!(behind.into_iter().filter_map(number).all(|n| n >= rest.end));
            let bytes = before.iter().map(|n| work.backlog[n].input.weight()).sum();
            assert_eq!((rest.rows_before, rest.bytes_before), (before.len(), bytes), "of what comes before the rest");
        }
        let bulk = work.queue.iter().filter(|queued| work.class_of(queued).is_bulk()).count();
        assert_eq!(work.bulk, bulk, "queued inputs that are bulk");
        assert_eq!(work.queue.iter().any(|queued| matches!(queued, Queued::Rest)), work.rest.is_some());
    }
    all
}

/// A timer by slot, grain and name, with the record that set it and its time.
type Timer = ((SlotId, GrainAddress, Box<str>), (Ssn, u64));

/// All timers of a slot: those of files, unless memory says otherwise.
pub(crate) fn timers(disk: &Disk, view: &View, id: SlotId, slot: &Slot) -> Vec<Timer> {
    let mut all = BTreeMap::new();
    if slot.timers.beyond().is_some() {
        let mut blocks = Blocks::new(DIRECTORY, 1 << 20);
        let mut read = RangeRead::new(KeyRange::of_timers(id), Direction::Forward, usize::MAX, usize::MAX);
        let fill = |read: &mut RangeRead, bytes: &[u8]| read.fill(DIRECTORY, bytes).expect("nothing is damaged");
        let deleted = slot.deleted();
        drive(disk, &mut blocks, &mut read, |read, blocks| read.step(&deleted, view, blocks), fill);
        for row in read.rows() {
            let Ok(RowKey::Timer(_, table, grain, name)) = RowKey::decode(&row.key) else { panic!("no timer") };
            let name = name_of_stored(&name).expect("names are text");
            let key = (id, GrainAddress { table, key: grain.into_owned().into() }, name);
            let timer = TimerRow::decode(row.ssn, row.value.as_deref().expect("timers have contents"));
            all.insert(key, (row.ssn, timer.expect("it was encoded").due_micros));
        }
    }
    for ((grain, name), row) in slot.timers.iter() {
        all.insert((id, grain.clone(), name.clone()), (row.generation, row.due_micros));
    }
    all.into_iter().collect()
}
