//! The files of a run in the making: rows and range tombstones go in, in order; it decides where files end.

use super::output::Piece;
use super::{
    FileNumber, FileOptions, FileWriter, KeyRange, RangeTombstone, Summary, Tombstones, ValueRef, ValueWriter, Version,
};
use gristmill_base::limits::{STORE_TOMBSTONE_BYTES, STORE_VALUE_FILE_BYTES};
use gristmill_base::placement::group_of_part;
use std::collections::VecDeque;

/// Files that a flush or a merge wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// Sorted files, in order.
    pub files: Vec<Summary>,
    /// Value files and their bytes.
    pub values: Vec<(FileNumber, u64)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct RunBuilder {
    directory: u128,
    group: u16,
    job: u64,
    /// Files begun so far.
    begun: u32,
    options: FileOptions,
    /// Not reached yet, ascending.
    tombstones: VecDeque<RangeTombstone>,
    /// Of the file in the making, and what of them reaches beyond it.
    current: Tombstones,
    /// Keys at which another file must begin.
    cuts: VecDeque<Vec<u8>>,
    writer: Option<FileWriter>,
    values: Option<ValueWriter>,
    pieces: VecDeque<Piece>,
    built: Built,
}

/// Behind every key: no slot has this number.
const BEHIND_ALL: [u8; 2] = [0xff; 2];

impl RunBuilder {
    pub(super) fn new(directory: u128, group: u16, job: u64, options: FileOptions) -> Self {
        Self {
            directory,
            group: group_of_part(group),
            job,
            begun: 0,
            options,
            tombstones: VecDeque::new(),
            current: Tombstones::default(),
            cuts: VecDeque::new(),
            writer: None,
            values: None,
            pieces: VecDeque::new(),
            built: Built::default(),
        }
    }

    /// Range tombstones that the run has; before any row.
    pub(super) fn set_tombstones(&mut self, tombstones: &Tombstones) {
        self.tombstones = tombstones.iter().collect();
    }

    /// Keys at which another file must begin, ascending; before any row.
    pub(super) fn set_cuts(&mut self, cuts: Vec<Vec<u8>>) {
        self.cuts = cuts.into();
    }

    fn number(&mut self) -> FileNumber {
        let number = FileNumber::nth(self.job, self.begun);
        self.begun += 1;
        number
    }

    /// Takes a piece that is ready to be written.
    pub(super) fn piece(&mut self) -> Option<Piece> {
        self.pieces.pop_front()
    }

    /// Puts a large value into a value file.
    pub(super) fn add_value(&mut self, key: &[u8], value: &[u8]) -> ValueRef {
        if self.values.as_ref().is_some_and(|values| values.bytes() >= STORE_VALUE_FILE_BYTES) {
            self.end_values();
        }
        if self.values.is_none() {
            self.values = Some(ValueWriter::new(self.directory, self.number()));
        }
        let values = self.values.as_mut().expect("it was just made");
        let at = values.add(key, value);
        self.pieces.extend(values.output());
        at
    }

    fn end_values(&mut self) {
        if let Some(values) = self.values.take() {
            let number = values.number();
            let (piece, bytes) = values.finish();
            self.pieces.extend(piece);
            self.built.values.push((number, bytes));
        }
    }

    fn writer(&mut self) -> &mut FileWriter {
        if self.writer.is_none() {
            self.writer = Some(FileWriter::new(self.directory, self.group, self.number(), self.options));
        }
        self.writer.as_mut().expect("it was just made")
    }

    /// Adds a row; keys ascend.
    pub(super) fn add(&mut self, key: &[u8], version: &Version) {
        self.reach(key);
        if self.writer.as_ref().is_some_and(FileWriter::is_full) {
            self.end_file(key);
        }
        while self.cuts.front().is_some_and(|cut| **cut <= *key) {
            let cut = self.cuts.pop_front().expect("it was just seen");
            self.end_file(&cut);
        }
        let writer = self.writer();
        writer.add(key, version);
        let piece = writer.output();
        self.pieces.extend(piece);
    }

    /// Takes up the range tombstones that begin before a key. Where there are too many for a file, it ends between them.
    fn reach(&mut self, key: &[u8]) {
        while let Some(next) = self.tombstones.pop_front_if(|next| *next.range.from < *key) {
            let border = (&*next.range.to).min(key).to_vec();
            self.current.add(next);
            if self.current.bytes() >= STORE_TOMBSTONE_BYTES {
                self.end_file(&border);
            }
        }
    }

    /// Ends the file before a key; what range tombstones reach beyond it goes to the next one.
    fn end_file(&mut self, border: &[u8]) {
        let below = KeyRange { from: Vec::new(), to: border.to_vec() };
        let beyond = KeyRange { from: border.to_vec(), to: BEHIND_ALL.to_vec() };
        let part = self.current.within(&below);
        self.current = self.current.within(&beyond);
        if self.writer.is_none() && part.is_empty() {
            return;
        }
        self.writer();
        let writer = self.writer.take().expect("it was just made");
        let (piece, summary) = writer.finish(&part);
        self.pieces.push_back(piece);
        self.built.files.push(summary);
    }

    /// Ends the run.
    pub(super) fn finish(&mut self) -> Built {
        self.reach(&BEHIND_ALL);
        self.end_file(&BEHIND_ALL);
        self.end_values();
        std::mem::take(&mut self.built)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Content, Manifest, RowKey};
    use gristmill_base::ids::{ShardId, SlotId, Ssn, TableId};

    fn key(n: u32) -> Vec<u8> {
        RowKey::Grain(SlotId(1), TableId(1), format!("{n:08}").into_bytes().into()).encode()
    }

    /// A hundred thousand range tombstones make several files, none of which takes much memory when it is open.
    #[test]
    fn many_range_tombstones_are_spread_over_files() {
        let mut tombstones = Tombstones::default();
        for n in 0..20_000 {
            let range = KeyRange { from: key(10 * n), to: key(10 * n + 5) };
            tombstones.add(RangeTombstone { range, ssn: Ssn(u64::from(n) + 1) });
        }
        let mut builder = RunBuilder::new(1, 0, 7, FileOptions::TOP);
        builder.set_tombstones(&tombstones);
        for n in (0..200_000).step_by(1_001) {
            builder.add(&key(n), &Version { ssn: Ssn(500_000), content: Content::Present });
        }
        let built = builder.finish();
        assert!((9..40).contains(&built.files.len()), "{}", built.files.len());
        let ranges: Vec<_> = built.files.iter().map(|file| &file.properties.range).collect();
        assert!(ranges.windows(2).all(|pair| pair[0].to <= pair[1].from));
        let (rows, pieces) = built.files.iter().fold((0, 0), |(rows, pieces), file| {
            (rows + file.properties.rows, pieces + file.properties.range_tombstones)
        });
        assert_eq!(rows, 200);
        assert!((20_000..20_040).contains(&pieces), "{pieces}");
    }

    /// Files beyond 65,536 have another number of the job, and none is given twice.
    #[test]
    fn a_job_has_numbers_for_many_files() {
        let mut builder = RunBuilder::new(1, 0, 130, FileOptions::LAST);
        builder.begun = 65_534;
        builder.set_cuts((1..5).map(key).collect());
        for n in 0..5 {
            builder.add(&key(n), &Version { ssn: Ssn(1), content: Content::Present });
        }
        let numbers: Vec<_> = builder.finish().files.iter().map(|file| file.number.to_string()).collect();
        assert_eq!(numbers, ["130-65534", "130-65535", "194-0", "194-1", "194-2"]);
        let mut manifest = Manifest::new(ShardId(2), 100, [(0, SlotId(1))]);
        assert_eq!([manifest.begin_job(), manifest.begin_job()], [130, 130 + 16 * 64], "behind all of the first");
        assert_eq!(FileNumber::nth(130, (1 << 20) - 1), FileNumber::of(130 + 15 * 64, 65_535));
    }

    #[test]
    fn a_file_ends_where_it_must() {
        let mut builder = RunBuilder::new(1, 0, 7, FileOptions::LAST);
        builder.set_cuts(vec![key(3), key(4), key(8)]);
        for n in [1, 2, 3, 5, 9] {
            builder.add(&key(n), &Version { ssn: Ssn(1), content: Content::Present });
        }
        let built = builder.finish();
        let rows: Vec<_> = built.files.iter().map(|file| file.properties.rows).collect();
        assert_eq!(rows, [2, 1, 1, 1]);
        let numbers: Vec<_> = built.files.iter().map(|file| file.number.to_string()).collect();
        assert_eq!(numbers, ["7-0", "7-1", "7-2", "7-3"]);
    }
}
