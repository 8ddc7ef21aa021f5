//! Bit rot: durable files are damaged, at a crash and at rest. P8 says what may follow: the damage is reported, then the
//! undamaged copy of the file is put back and the run goes on; or it changes nothing, because a second copy is there or
//! because nothing reads these bytes any more. There are two exceptions, and both are told here from the bytes alone, without
//! asking how recovery decides. Damage to the last log batches that no watermark on disk covers yet cannot be told from a
//! torn tail: see `Batches`. And of a two-copy file whose store a crash ended between the copies, one copy is all that
//! says the new content: recovery may come to either, and does so without a word, since nobody was told of it. Whether
//! anybody was, the clients of the run know.

use super::Machine;
use crate::disk::{FaultPlan, SimDisk, Wound};
use crate::rng::SimRng;
use gristmill_base::checksum::{crc32c, crc32c_append};
use gristmill_base::env::Clock;
use gristmill_base::limits::BLOCK_BYTES;
use gristmill_base::sometimes::reached;
use gristmill_core::boot::{BootConfig, recover, verify};
use gristmill_core::request::{Code, Refusal};
use std::collections::BTreeSet;

/// Damages that a run carries along; a file that holds two copies gets one of them at most.
#[derive(Default)]
pub struct Rot {
    /// Where it is drawn; a generator of its own, so that other runs stay as they were.
    rng: Option<SimRng>,
    /// On the disk, as far as nothing was written over it, and not found yet.
    wounds: Vec<Wound>,
    /// Files that were damaged and put back: a refusal that was on its way meanwhile may still name them.
    mended: BTreeSet<String>,
}

impl Rot {
    /// The damages of a seed.
    #[must_use]
    pub fn new(rng: SimRng) -> Self {
        Self { rng: Some(rng), ..Self::default() }
    }
}

/// What a recovery of an image came to.
struct Outcome {
    digest: (u64, u64),
    /// Damages that it named; each file was put back and recovery tried again.
    named: Vec<usize>,
}

impl Machine {
    /// Damages the image of a machine that is down, and compares what its recovery says and comes to with that of the
    /// image as it was. What recovery names is put back.
    ///
    /// # Errors
    /// Damage that was not reported and changed something, or a report that does not name the file.
    pub fn rot_image(&mut self) -> Result<(), String> {
        let Some(mut rng) = self.rot.rng.take() else { return Ok(()) };
        let result = self.rot_with(&mut rng);
        self.rot.rng = Some(rng);
        result
    }

    fn rot_with(&mut self, rng: &mut SimRng) -> Result<(), String> {
        if !self.disk.is_down() || rng.below(100) >= self.knobs.rots {
            return Ok(());
        }
        let before = self.disk.fork();
        let Some(wound) = self.draw_wound(rng) else { return Ok(()) };
        let words = format!("{} of {} at byte {} ({})", wound.kind, wound.path, wound.offset, self.rot.wounds.len());
        let is_half_stored = is_half_stored(&before, &wound.path);
        let exempt = is_half_stored || Batches::find(&before, &wound.path).is_uncovered(&wound.path, wound.offset);
        let old = self.rot.wounds.clone();
        let clean = self.recover_mending(&before, &old, None, rng)?;
        let mut wounds = old;
        wounds.push(wound);
        let new = wounds.len() - 1;
        let last = exempt.then_some(new);
        let found =
            self.recover_mending(&self.disk.fork(), &wounds, last, rng).map_err(|what| format!("{words}: {what}"))?;
        self.rot.wounds = wounds;
        let is_named = found.named.contains(&new);
        let mut gone = found.named;
        gone.extend(clean.named);
        if found.digest != clean.digest && !exempt {
            return Err(format!("P8: {words} was damaged, and recovery came to another state without a word"));
        }
        if is_named {
            self.hold_verify(new)?;
            reached("damage reported");
        } else if exempt {
            // Whatever came of it is allowed. The run goes on with what clients were promised.
            reached(if is_half_stored {
                "damage to the copy that a crash left alone"
            } else if found.digest == clean.digest {
                "damage behind the log"
            } else {
                "damage not to be told from a torn tail"
            });
            gone.push(new);
        } else if self.rot.wounds[new].path.ends_with(['a', 'b', 'y', 't']) {
            reached("damage to one of two copies");
        } else {
            reached("damage that nobody reads");
        }
        self.put_back(&gone);
        Ok(())
    }

    /// What a start refuses, `gristmill data verify` names too; where there is other damage beside it, once that is mended: a loss that
    /// only slots show which other files belong to is not seen before.
    fn hold_verify(&self, at: usize) -> Result<(), String> {
        let wound = &self.rot.wounds[at];
        let mut disk = self.disk.fork().restart();
        disk.set_faults(FaultPlan::default());
        disk.crash_at_op(u64::MAX);
        for (_, other) in self.rot.wounds.iter().enumerate().rev().filter(|(other, _)| *other != at) {
            disk.mend(other);
        }
        let now = disk.clock().now();
        let told = match verify(&mut disk, &self.knobs.boot, now, &mut |_, _| {}) {
            // A log that misses its first batch ends in either of two files: the words name the other one.
            Ok(found) => {
                let names = |file: &str, what: &str| file == wound.path || what.contains(&wound.path);
                found.damaged.iter().any(|range| names(&range.file, &range.what)) || found.lost.is_some()
            }
            Err(error) => error.to_string().contains(&wound.path),
        };
        if told { Ok(()) } else { Err(format!("P8: {} of {} is not named by verify", wound.kind, wound.path)) }
    }

    /// Lane files that checkpoints name are there and whole as long as nobody damages them, whenever the machine goes down.
    ///
    /// # Errors
    /// One is not.
    pub fn hold_lane_files(&self) -> Result<(), String> {
        if !self.rot.wounds.is_empty() || !self.disk.is_down() {
            return Ok(());
        }
        let mut disk = self.disk.fork().restart();
        disk.set_faults(FaultPlan::default());
        disk.crash_at_op(u64::MAX);
        let now = disk.clock().now();
        let Ok(found) = verify(&mut disk, &self.knobs.boot, now, &mut |_, _| {}) else { return Ok(()) };
        match found.damaged.iter().find(|range| range.file.ends_with(".lane")) {
            Some(range) => Err(format!("P8: {}: {} ({})", range.file, range.what, range.held)),
            None => Ok(()),
        }
    }

    /// Damages something of a random durable file.
    fn draw_wound(&self, rng: &mut SimRng) -> Option<Wound> {
        let paths = self.disk.paths();
        // A kind of file first: there are far more segments and checkpoints than others.
        let kinds = [
            ".seg",
            ".seg",
            ".seg",
            ".seg",
            ".seg",
            ".ckpt",
            ".lane",
            ".sorted",
            ".sorted",
            ".values",
            "root.",
            "catalog.",
            "placement.",
            "identity",
            "session-secret",
        ];
        let kind = kinds[rng.below(kinds.len() as u64) as usize];
        let of_kind: Vec<&String> =
            paths.iter().filter(|path| path.contains(kind) && !path.ends_with(".new")).collect();
        let path = (*rng.pick(&of_kind)?).clone();
        let is_double = ![".seg", ".ckpt", ".lane", ".sorted", ".values"].iter().any(|end| path.ends_with(end));
        if is_double && self.rot.wounds.iter().any(|old| old.path == path) {
            return None;
        }
        let offset = self.draw_offset(&path, rng)?;
        self.disk.wound(&path, offset, rng)
    }

    /// A byte of a file, mostly one that says something: files end in zeros.
    fn draw_offset(&self, path: &str, rng: &mut SimRng) -> Option<u64> {
        let bytes = self.disk.peek(path)?;
        let end = bytes.iter().rposition(|byte| *byte != 0)?;
        // Half of the time close behind the last batches, where no watermark covers them yet.
        let low = if path.ends_with(".seg") && rng.below(2) == 0 { end.saturating_sub(BLOCK_BYTES) } else { 0 };
        for _ in 0..16 {
            let at = rng.between(low as u64, end as u64) as usize;
            if bytes.get(at).is_some_and(|byte| *byte != 0) {
                return Some(at as u64);
            }
        }
        Some(end as u64)
    }

    /// Recovers a copy of an image. What recovery names as damaged is put back there, as an operator does, and recovery is
    /// begun again on the same disk: it must have changed nothing that matters. `last` is a wound in batches that no
    /// watermark covers: other logs may notice that they are gone.
    fn recover_mending(
        &self,
        image: &SimDisk,
        wounds: &[Wound],
        last: Option<usize>,
        rng: &mut SimRng,
    ) -> Result<Outcome, String> {
        let mut config = self.knobs.boot.clone();
        if rng.below(2) == 0 {
            config.shard_count = rng.between(1, u64::from(self.knobs.cores_max)) as u16;
        }
        let mut disk = image.fork().restart();
        disk.set_faults(FaultPlan::default());
        // What was to take the machine itself down is not for this one.
        disk.crash_at_op(u64::MAX);
        let mut named = Vec::new();
        loop {
            let what = match self.recover_copy(&mut disk, &config, &mut rng.fork()) {
                Ok(digest) => return Ok(Outcome { digest, named }),
                Err(what) => what,
            };
            let is_named = |at: &usize| {
                what.contains(&wounds[*at].path) || (last == Some(*at) && what.starts_with("acked data is lost"))
            };
            let more: Vec<usize> = (0..wounds.len()).filter(|at| is_named(at) && !named.contains(at)).collect();
            let mended = more.iter().rev().filter(|at| disk.mend(&wounds[**at])).count();
            if mended == 0 {
                return Err(format!("P8: recovery refused, and named no file that is damaged: {what}"));
            }
            named.extend(more);
        }
    }

    /// One recovery on a disk, to the digest of its state and the version of its catalog.
    pub(super) fn recover_copy(
        &self,
        disk: &mut SimDisk,
        config: &BootConfig,
        rng: &mut SimRng,
    ) -> Result<(u64, u64), String> {
        let now = disk.clock().now();
        let seeds = recover(disk, config, now, rng).map_err(|error| error.to_string())?;
        let mut shards = Vec::new();
        for seed in seeds {
            let shard = seed.open(&mut disk.handle(), Box::new(self.apps.clone()), Box::new(rng.fork()));
            shards.push(shard.map_err(|error| format!("a log cannot be resumed: {error}"))?);
        }
        let version = shards.first().map_or(0, |shard| shard.catalog().version);
        // Rows are checked when they are read, which this does.
        let bytes_of = |path: &str| disk.peek(path).unwrap_or_default();
        Ok((crate::digest::digest_of(shards.iter(), config.slot_count, &bytes_of)?, version))
    }

    /// Puts undamaged copies in the place of files that something says are damaged. Whether one was.
    pub fn mend_named(&mut self, what: &str) -> bool {
        let named: Vec<usize> =
            (0..self.rot.wounds.len()).filter(|at| what.contains(&self.rot.wounds[*at].path)).collect();
        self.put_back(&named)
    }

    /// Whether a reader may be refused so for a while: the file was damaged, and is put back if it still is; or the disk
    /// failed to read it, which the engine tells like damage until it has read it again.
    pub fn is_told_damage(&mut self, refusal: &Refusal) -> bool {
        let what = &refusal.message;
        if self.mend_named(what) {
            reached("damaged lane reported to its reader");
            return true;
        }
        let is_read_error = what.contains("they cannot be read");
        refusal.code == Code::Damaged && (is_read_error || self.rot.mended.iter().any(|path| what.contains(path)))
    }

    /// As [`Self::mend_named`], at a copy of the disk alone. Whether something changed there.
    pub(super) fn mend_named_at(&self, disk: &SimDisk, what: &str) -> bool {
        let named = self.rot.wounds.iter().rev().filter(|wound| what.contains(&wound.path));
        named.filter(|wound| disk.mend(wound)).count() > 0
    }

    /// The bytes of a file as they were written, whatever damaged them since; for auditors.
    pub(super) fn undamaged(&self, path: &str) -> Vec<u8> {
        let mut bytes = self.disk.peek(path).unwrap_or_default();
        let wounds = self.rot.wounds.iter().rev().filter(|wound| wound.path == path);
        wounds.for_each(|wound| wound.heal(&mut bytes));
        bytes
    }

    /// The last damage first: a block may have been hit twice.
    fn put_back(&mut self, which: &[usize]) -> bool {
        let mut is_mended = false;
        for at in (0..self.rot.wounds.len()).rev().filter(|at| which.contains(at)) {
            let wound = self.rot.wounds.remove(at);
            is_mended |= self.disk.mend(&wound);
            self.rot.mended.insert(wound.path);
        }
        is_mended
    }

    /// Damages a lane file or a sorted file of a machine that is up, now and then: they are read back while it runs.
    pub fn rot_at_rest(&mut self) {
        let Some(mut rng) = self.rot.rng.take() else { return };
        if rng.chance(self.knobs.rests) {
            let mut paths = self.disk.paths();
            paths.retain(|path| path.ends_with(".lane") || path.ends_with(".sorted"));
            let path = rng.pick(&paths).cloned();
            let offset = path.as_ref().and_then(|path| self.draw_offset(path, &mut rng));
            if let (Some(path), Some(offset)) = (path, offset) {
                self.rot.wounds.extend(self.disk.wound(&path, offset, &mut rng));
            }
        }
        self.rot.rng = Some(rng);
    }

    /// The operator reads the status, and puts back the files that it names.
    pub fn mend_reported(&mut self) {
        if self.rot.wounds.is_empty() {
            return;
        }
        let reports: Vec<String> = self.cores.iter().flat_map(|core| core.shard.damage().map(str::to_owned)).collect();
        for what in reports {
            if self.mend_named(&what) {
                let is_lane = what.starts_with("lanes/");
                reached(if is_lane {
                    "damaged lane reported by the status"
                } else {
                    "damaged sorted file reported by the status"
                });
            }
        }
    }
}

/// Whether a file is a copy of a two-copy file, and the other copy is missing or says something else.
fn is_half_stored(image: &SimDisk, path: &str) -> bool {
    let twin = match path.rsplit_once('.') {
        Some((name, "a")) => format!("{name}.b"),
        Some((name, "b")) => format!("{name}.a"),
        _ => return false,
    };
    let says = |path: &str| {
        let mut bytes = image.peek(path)?;
        let length = u32::from_le_bytes(bytes.get(24..28)?.try_into().expect("four bytes"));
        bytes.truncate(28 + length as usize);
        Some(bytes)
    };
    says(&twin) != says(path)
}

/// The batches of one log as its files hold them, by the description of the format.
#[derive(Default)]
struct Batches(Vec<Batch>);

struct Batch {
    path: String,
    from: u64,
    to: u64,
    sequence: u64,
    first: u64,
    watermark: u64,
}

impl Batches {
    /// Those of the log that a file belongs to; none if it is no segment.
    fn find(image: &SimDisk, path: &str) -> Self {
        let Some((dir, _)) = path.rsplit_once('/').filter(|_| path.ends_with(".seg")) else { return Self::default() };
        let mut batches = Vec::new();
        for path in image.paths() {
            if path.starts_with(dir) && path.ends_with(".seg") {
                let bytes = image.peek(&path).unwrap_or_default();
                read_segment(&path, &bytes, &mut batches);
            }
        }
        Self(batches)
    }

    /// Whether a byte lies in a batch that no later batch's watermark covers.
    fn is_uncovered(&self, path: &str, offset: u64) -> bool {
        let holds = |batch: &&Batch| batch.path == path && (batch.from..batch.to).contains(&offset);
        let Some(hit) = self.0.iter().filter(holds).max_by_key(|batch| batch.sequence) else { return false };
        let later = self.0.iter().filter(|batch| batch.sequence > hit.sequence);
        later.map(|batch| batch.watermark).max().unwrap_or(0) < hit.first
    }
}

fn read_segment(path: &str, bytes: &[u8], batches: &mut Vec<Batch>) {
    let is_header = |head: &[u8]| head.starts_with(b"GMLOGSEG") && crc32c(&head[..64]).to_le_bytes() == head[64..68];
    let copies = [0, BLOCK_BYTES].map(|at| bytes.get(at..at + 68).unwrap_or(&[]));
    let Some(head) = copies.into_iter().find(|head| is_header(head)) else { return };
    let mut identity = Vec::from(&head[16..32]);
    identity.extend_from_slice(&head[12..14]);
    identity.extend_from_slice(&head[32..40]);
    let seed = crc32c(&identity);
    for from in (2 * BLOCK_BYTES..bytes.len()).step_by(BLOCK_BYTES) {
        let batch = &bytes[from..];
        let is_batch = batch.len() >= 72 && batch.starts_with(b"GMBH") && batch[8..16] == head[40..48];
        if !is_batch || crc32c_append(seed, &batch[..68]).to_le_bytes() != batch[68..72] {
            continue;
        }
        let number = |at: usize| u64::from_le_bytes(batch[at..at + 8].try_into().expect("eight bytes"));
        let padded = u32::from_le_bytes(batch[40..44].try_into().expect("four bytes"));
        let to = from as u64 + u64::from(padded);
        let (sequence, first, watermark) = (number(16), number(24), number(48));
        batches.push(Batch { path: path.to_owned(), from: from as u64, to, sequence, first, watermark });
    }
}
