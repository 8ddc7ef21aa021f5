//! Crash points of the store's files: a flush, a merge and their publication are cut at every operation of the disk. What a
//! manifest that counts names is there, whole, and says what it said when it was published.

use gristmill_base::env::{Completion, Disk, DiskError, DiskOp, FileId, OpenMode, Ticket};
use gristmill_base::files::Files;
use gristmill_base::ids::{ShardId, SlotId, Ssn, TableId, Term};
use gristmill_base::limits::STORE_OPEN_FILES_MAX;
use gristmill_base::planted::{Bug, plant};
use gristmill_core::store_files::{OpenFiles, StoreError, StoreJob, StoreStep, is_unnamed, make_group_dirs};
use gristmill_io::root::{RootFile, RootState};
use gristmill_sim::clock::SimClock;
use gristmill_sim::crash_points::{Budget, Failure, Subject, Tally, Verdict, enumerate};
use gristmill_sim::disk::SimDisk;
use gristmill_state::store::{
    Access, Blocks, Built, Content, Cursor, Damage, Direction, FileCheck, FileKind, FileOptions, Flush, FlushMark,
    KeyRange, Manifest, Memory, Plan, RowKey, Stop, Version, file_path, group_dir, open_value, plan, value_wanted,
};
use std::collections::BTreeMap;
use std::rc::Rc;

const DIRECTORY: u128 = 77;
const GROUP: u16 = 3;
const SLOT: SlotId = SlotId(9);
/// Flushes of the workload; the fourth makes a merge due, the last one another.
const ROUNDS: u64 = 8;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A manifest that was, or was about to be, published, and the rows that it stands for.
#[derive(Clone)]
struct Published {
    manifest: Vec<u8>,
    rows: Rows,
}

/// What the outside knows: everything that was handed to the root, and how much of it is durable for certain.
#[derive(Clone, Default)]
struct Promise {
    all: Vec<Rc<Published>>,
    durable: usize,
}

/// The store of one shard over a disk.
struct Store<'a> {
    files: Files<'a>,
    root: RootFile,
    manifest: Manifest,
    rows: Rows,
    ssn: u64,
}

fn failed(error: StoreError) -> Verdict {
    match error {
        StoreError::Disk(error) => error.into(),
        error => Verdict::Wrong(error.to_string()),
    }
}

fn damaged(damage: Damage) -> Verdict {
    Verdict::Wrong(damage.to_string())
}

fn grain(n: u64) -> Vec<u8> {
    RowKey::Grain(SLOT, TableId(1), n.to_string().into_bytes().into()).encode()
}

impl Store<'_> {
    /// Hands the manifest to the root.
    fn publish(&mut self, promise: &mut Promise) -> Result<(), Verdict> {
        let manifest = self.manifest.to_bytes();
        promise.all.push(Rc::new(Published { manifest: manifest.clone(), rows: self.rows.clone() }));
        self.root.store(&mut self.files, &manifest)?;
        promise.durable = promise.all.len();
        Ok(())
    }

    /// Writes some rows, flushes them, and merges what is due.
    fn round(&mut self, round: u64, promise: &mut Promise) -> Result<(), Verdict> {
        self.flush(round, promise)?;
        while let Some(plan) = plan(GROUP, self.group()) {
            let built = self.merge(&plan, 0).map_err(failed)?;
            let gone = self.group().merged(&plan, &built);
            self.publish(promise)?;
            for (file, kind) in gone {
                self.files.remove_if_there(&file_path(GROUP, file, kind))?;
            }
        }
        Ok(())
    }

    fn merge(&mut self, plan: &Plan, kept: u64) -> Result<Built, StoreError> {
        StoreJob::merge(DIRECTORY, self.manifest.begin_job(), plan, kept).run(&mut self.files)
    }

    fn flush(&mut self, round: u64, promise: &mut Promise) -> Result<(), Verdict> {
        let mut memory = Memory::default();
        for n in round % 3..12 {
            self.ssn += 1;
            let (key, large) = (grain(n), n.is_multiple_of(5));
            let content = if (n + round).is_multiple_of(4) {
                self.rows.remove(&key);
                Content::Deleted
            } else {
                let value = vec![round as u8; if large { 3_000 } else { 30 }];
                self.rows.insert(key.clone(), value.clone());
                Content::Inline(value)
            };
            memory.put(key, Version { ssn: Ssn(self.ssn), content });
        }
        let flush = Flush::new(DIRECTORY, GROUP, self.manifest.begin_job(), FileOptions::TOP, (&memory).into());
        let built = StoreJob::sorted(GROUP, flush).run(&mut self.files).map_err(failed)?;
        let marks = [(SLOT, FlushMark { term: Term(1), ssn: Ssn(self.ssn) })].into();
        self.group().flushed(&built, &marks);
        self.publish(promise)
    }

    fn group(&mut self) -> &mut gristmill_state::store::Group {
        self.manifest.groups.get_mut(&GROUP).expect("it has one group")
    }

    fn read(&mut self, wanted: gristmill_state::store::Wanted) -> Result<Vec<u8>, Verdict> {
        let mut open = OpenFiles::new(GROUP);
        let read = open.read(&mut self.files, wanted);
        open.close(&mut self.files);
        Ok(read?)
    }

    /// All rows, by a cursor.
    fn walk(&mut self) -> Result<Rows, Verdict> {
        let view = self.group().view(1);
        let mut blocks = Blocks::new(DIRECTORY, 1 << 20);
        let mut cursor = Cursor::new(KeyRange::of_slot(SLOT), Direction::Forward);
        let mut rows = Rows::new();
        loop {
            match cursor.next(&[], &view, &mut blocks) {
                Ok(None) => return Ok(rows),
                Ok(Some((key, version))) => {
                    let value = match version.content {
                        Content::Inline(value) => value,
                        Content::Stored(at) => {
                            let record = self.read(value_wanted(at, &key))?;
                            open_value(DIRECTORY, at, &key, &record).map_err(damaged)?.to_vec()
                        }
                        other => return Err(Verdict::Wrong(format!("a cursor gave {other:?}"))),
                    };
                    rows.insert(key, value);
                }
                Err(Stop::Miss(wanted)) => {
                    let bytes = self.read(wanted)?;
                    blocks.fill(wanted, &bytes, Access::Scan).map_err(damaged)?;
                }
                Err(Stop::Pause) => {}
                Err(Stop::Damage(damage)) => return Err(damaged(damage)),
            }
        }
    }

    /// Every file that the manifest names is whole.
    fn check_files(&mut self) -> Result<(), Verdict> {
        let sorted: Vec<_> = self.group().files().map(|file| (file.number, file.bytes)).collect();
        for (file, bytes) in sorted {
            let mut check = FileCheck::new(DIRECTORY, file, bytes);
            while let Some(wanted) = check.wanted() {
                check.fill(&self.read(wanted)?);
            }
            if let Some(finding) = check.findings().first() {
                return Err(Verdict::Wrong(finding.to_string()));
            }
        }
        Ok(())
    }
}

/// Opens what is on the disk, sweeps, and checks it against the promise.
fn open<'a>(disk: &'a mut SimDisk, promise: &mut Promise) -> Result<Store<'a>, Verdict> {
    let mut files = Files::new(disk);
    make_group_dirs(&mut files, [GROUP])?;
    let (mut root, state) = RootFile::load(&mut files, "", "manifest", DIRECTORY)
        .map_err(|error| if files.list("").is_err() { Verdict::Crashed } else { Verdict::Wrong(error.to_string()) })?;
    let (manifest, rows) = match state {
        RootState::Empty if promise.durable == 0 => (Manifest::new(ShardId(0), 0, [(GROUP, SLOT)]), Rows::new()),
        RootState::Present { bytes, degraded, .. } => {
            let at = promise.all.iter().rposition(|published| published.manifest == bytes);
            let at = at.ok_or_else(|| Verdict::Wrong("a manifest that was never published".into()))?;
            if at + 1 < promise.durable {
                return Err(Verdict::Wrong(format!("manifest {at} of {} durable ones", promise.durable)));
            }
            // Nothing is removed before both copies say the same.
            if degraded.is_some() {
                root.store(&mut files, &bytes).map(drop)?
            } else {
                root.flush(&mut files)?
            }
            promise.durable = at + 1;
            promise.all.truncate(at + 1);
            (Manifest::from_bytes(&bytes).map_err(Verdict::Wrong)?, promise.all[at].rows.clone())
        }
        other => return Err(Verdict::Wrong(format!("the root is {other:?}"))),
    };
    let named = manifest.files().collect();
    for name in files.list(&group_dir(GROUP))? {
        if is_unnamed(&named, GROUP, &name) {
            files.remove(&format!("{}/{name}", group_dir(GROUP)))?;
        }
    }
    let ssn = manifest.groups[&GROUP].slots[&SLOT].ssn.0;
    let mut store = Store { files, root, manifest, rows, ssn };
    store.check_files()?;
    if store.walk()? != store.rows {
        return Err(Verdict::Wrong("rows are not those of the manifest".into()));
    }
    Ok(store)
}

fn work(mut disk: SimDisk) -> Promise {
    let mut promise = Promise::default();
    let done = open(&mut disk, &mut promise.clone())
        .and_then(|mut store| (0..ROUNDS).try_for_each(|round| store.round(round, &mut promise)));
    match done {
        Ok(()) | Err(Verdict::Crashed) => promise,
        Err(Verdict::Wrong(said)) => panic!("without a crash: {said}"),
    }
}

fn try_all(seed: u64, budget: Budget) -> Result<Tally, Box<Failure>> {
    let mut reopen = |mut disk: SimDisk, promise: &mut Promise| {
        let mut store = open(&mut disk, promise)?;
        // Full service: what it has found can be gone on with.
        store.round(ROUNDS + 1, promise)?;
        store.check_files()
    };
    enumerate(seed, budget, &mut Subject { work: &mut work, open: &mut reopen })
}

#[test]
fn a_crash_anywhere_leaves_a_manifest_and_its_files() {
    let tally = try_all(1, Budget { random_images: 2, stride: 1, recovery_crashes: 1 })
        .unwrap_or_else(|failure| panic!("{failure}"));
    println!("{tally:?}");
    assert!(tally.points > 150 && tally.images > 600, "{tally:?}");
}

#[test]
fn a_skipped_sync_of_the_folder_is_found() {
    plant(Some(Bug::SkippedDirectorySync));
    let found = try_all(1, Budget { random_images: 4, stride: 1, recovery_crashes: 0 });
    plant(None);
    let said = found.expect_err("names of files that were not flushed are lost").said;
    assert!(said.contains("file") || said.contains("never"), "{said}");
}

/// A disk that is full ends a flush and a merge with that, leaves nothing behind, and both go on when there is room.
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let mut disk = SimDisk::new(5, SimClock::new());
    let watch = disk.handle();
    let mut promise = Promise::default();
    let Ok(mut store) = open(&mut disk, &mut promise) else { panic!("an empty disk opens") };
    (0..3).for_each(|round| store.round(round, &mut promise).expect("there is room"));
    let before = watch.paths();
    watch.fill(2);
    let mut full = 0;
    for round in 3..6 {
        let (manifest, rows, ssn) = (store.manifest.clone(), store.rows.clone(), store.ssn);
        let said = store.round(round, &mut promise);
        full += usize::from(matches!(&said, Err(Verdict::Wrong(said)) if said.contains("no space left")));
        // What was under way is forgotten, as a shard would that tries again later.
        store.manifest.groups = manifest.groups;
        (store.rows, store.ssn) = (rows, ssn);
        assert_eq!(watch.paths(), before);
    }
    assert_eq!(full, 3);
    watch.fill(100_000);
    (3..9).for_each(|round| store.round(round, &mut promise).expect("there is room again"));
    assert!(store.walk().expect("all is readable") == store.rows);
}

/// A bit that turned over in an input is named by the merge, and what there was before stays.
#[test]
fn rot_ends_a_merge_with_its_name() {
    let mut disk = SimDisk::new(6, SimClock::new());
    let watch = disk.handle();
    let mut promise = Promise::default();
    let Ok(mut store) = open(&mut disk, &mut promise) else { panic!("an empty disk opens") };
    (0..3).for_each(|round| store.round(round, &mut promise).expect("nothing is damaged"));
    let file = store.group().tiers[0][1].files[0].number;
    let path = file_path(GROUP, file, FileKind::Sorted);
    assert!(watch.rot_at(&path, 30, 3));
    let Err(Verdict::Wrong(said)) = store.round(3, &mut promise) else { panic!("damage was carried on") };
    let wanted = format!("{path}: file {file} of the store is damaged at byte 0: its checksum is");
    assert!(said.starts_with(&wanted), "{said}");
    assert_eq!(store.group().tiers[0].len(), 4, "the four runs are as they were");
}

/// A merge that would fill the disk is not begun, unless it is one that may give room back; then it stops short of it.
#[test]
fn a_merge_looks_for_room_and_leaves_what_the_log_needs() {
    const KEPT: u64 = 10 * 4_096;
    let mut disk = SimDisk::new(7, SimClock::new());
    let watch = disk.handle();
    let mut promise = Promise::default();
    let Ok(mut store) = open(&mut disk, &mut promise) else { panic!("an empty disk opens") };
    (1..5).for_each(|round| store.flush(round, &mut promise).expect("there is room"));
    let mut plan = plan(GROUP, store.group()).expect("four runs are merged");
    let inputs = || plan.inputs.iter().flat_map(|run| &run.files);
    let copied = inputs().flat_map(|file| &file.values).filter(|(file, _)| plan.victims.contains(file));
    let bytes = inputs().map(|file| file.bytes).sum::<u64>() + copied.map(|(_, bytes)| bytes).sum::<u64>();
    let before = watch.paths();
    // Few rows are deleted: what the inputs take is what the outputs may take.
    plan.inputs.iter_mut().flat_map(|run| &mut run.files).for_each(|file| file.tombstones = 0);
    watch.fill((bytes + KEPT) / 4_096);
    let Err(lack) = store.merge(&plan, KEPT) else { panic!("it began") };
    assert!(matches!(&lack, StoreError::Room { group: GROUP, needed, written: 0, .. } if *needed == bytes), "{lack:?}");
    let words = lack.to_string();
    assert!(words.contains(&format!("merging {} takes up to {bytes} bytes beside", group_dir(GROUP))), "{words}");
    assert!(
        words.contains(&format!("{} are free, and {KEPT} of them are kept", (bytes + KEPT) / 4_096 * 4_096)),
        "{words}"
    );
    watch.fill((bytes + KEPT) / 4_096 + 1);
    assert!(store.merge(&plan, KEPT).is_ok());
    // Many are deleted: it is tried, and ends where what is kept would be touched.
    let watched = watch.paths();
    plan.inputs[0].files[0].range_tombstones = 1;
    plan.inputs[0].files[0].tombstones = plan.inputs[0].files[0].rows;
    watch.fill(KEPT / 4_096 - 1);
    assert!(matches!(store.merge(&plan, KEPT), Err(StoreError::Room { written: 0, .. })));
    watch.fill(KEPT / 4_096 + 1);
    let mut job = StoreJob::merge(DIRECTORY, store.manifest.begin_job(), &plan, KEPT);
    let ended = (0..100).find_map(|_| match job.step(&mut store.files, 1) {
        StoreStep::More => None,
        StoreStep::Done(done) => Some(done),
    });
    let Some(Err(StoreError::Room { written, .. })) = ended else { panic!("{ended:?}") };
    assert!(written > 4_096, "{written} bytes");
    assert_eq!(watch.paths(), watched, "nothing is left behind");
    assert!(before.iter().all(|path| watched.contains(path)));
}

/// Counts what is open.
struct Counting<'a> {
    disk: &'a mut SimDisk,
    open: usize,
    most: usize,
}

impl Disk for Counting<'_> {
    fn open(&mut self, path: &str, mode: OpenMode) -> Result<FileId, DiskError> {
        let file = self.disk.open(path, mode)?;
        self.open += 1;
        self.most = self.most.max(self.open);
        Ok(file)
    }

    fn close(&mut self, file: FileId) {
        self.open -= 1;
        self.disk.close(file);
    }

    fn submit(&mut self, ticket: Ticket, op: DiskOp) {
        self.disk.submit(ticket, op);
    }

    fn poll(&mut self, done: &mut Vec<Completion>) {
        self.disk.poll(done);
    }

    fn wait(&mut self, done: &mut Vec<Completion>) {
        self.disk.wait(done);
    }
}

/// Sixty runs are merged into a hundred files, and each row and value is read where it is, with few files open.
#[test]
fn few_files_are_open_however_many_there_are() {
    let mut disk = SimDisk::new(8, SimClock::new());
    let mut counting = Counting { disk: &mut disk, open: 0, most: 0 };
    let mut files = Files::new(&mut counting);
    make_group_dirs(&mut files, [GROUP]).expect("a new disk");
    let mut manifest = Manifest::new(ShardId(0), 0, [(GROUP, SLOT)]);
    for round in 1..61_u64 {
        let mut memory = Memory::default();
        for n in 0..4 {
            let value = vec![round as u8; if n == 3 { 2_000 } else { 500 }];
            memory.put(grain(4 * round + n), Version { ssn: Ssn(round), content: Content::Inline(value) });
        }
        let flush = Flush::new(DIRECTORY, GROUP, manifest.begin_job(), FileOptions::TOP, (&memory).into());
        let built = StoreJob::sorted(GROUP, flush).run(&mut files).expect("there is room");
        let group = manifest.groups.get_mut(&GROUP).expect("it has one group");
        group.flushed(&built, &[(SLOT, FlushMark { term: Term(1), ssn: Ssn(round) })].into());
    }
    let group = manifest.groups.get(&GROUP).expect("it has one group");
    let mut plan = plan(GROUP, group).expect("sixty runs are merged");
    assert_eq!((plan.inputs.iter().filter(|run| !run.files.is_empty()).count(), plan.victims.len()), (60, 60));
    plan.options.file_bytes = 1_000;
    let merge = StoreJob::merge(DIRECTORY, manifest.begin_job(), &plan, 0);
    let built = merge.run(&mut files).expect("there is room");
    assert!(built.files.len() > 50, "{}", built.files.len());
    let mut open = OpenFiles::new(GROUP);
    for summary in &built.files {
        let mut check = FileCheck::new(DIRECTORY, summary.number, summary.bytes);
        while let Some(wanted) = check.wanted() {
            check.fill(&open.read(&mut files, wanted).expect("it is there"));
        }
        assert!(check.findings().is_empty(), "{:?}", check.findings());
    }
    open.close(&mut files);
    assert_eq!(counting.open, 0);
    assert!((10..=STORE_OPEN_FILES_MAX + 3).contains(&counting.most), "{}", counting.most);
}
