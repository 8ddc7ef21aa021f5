//! What was sent and what was acknowledged, in memory and in an append-only file, so that it outlives the server, the
//! disk of the server and this process.
//!
//! A line of text for each thing that happened. The first is `gristmill-ledger 1 TAG KEYS SIZE`. Then, with the number of
//! a key and counts from 1 on:
//!
//! | line | meaning |
//! | --- | --- |
//! | `p KEY N`, `P KEY N` | the key's put number N was sent, was acknowledged |
//! | `c KEY N`, `C KEY N` | the same for the runs that count |
//! | `e N KEY`, `E N LANE OFFSET` | event N was sent with that key, was acknowledged at that place |

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail, ensure};

/// How far the operations of one key have come. They are sent one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// How many were sent.
    pub(super) sent: u64,
    /// Number of the last acknowledged one.
    pub(super) acked: u64,
    /// How many were acknowledged.
    pub(super) acks: u64,
}

/// An event that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// Number of its key.
    pub(super) key: usize,
    /// Lane and offset that were acknowledged.
    pub(super) place: Option<(u16, u64)>,
}

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Put { key: usize, number: u64, acked: bool },
    Count { key: usize, number: u64, acked: bool },
    Event { number: u64, key: usize },
    Placed { number: u64, lane: u16, offset: u64 },
}

/// See the module.
pub(super) struct Ledger {
    file: BufWriter<File>,
    /// Tells values of this ledger from others.
    pub(super) tag: u64,
    /// Bytes of a value.
    pub(super) size: usize,
    pub(super) puts: Vec<Mark>,
    pub(super) counts: Vec<Mark>,
    /// In the order of their numbers, from 1.
    pub(super) events: Vec<Sent>,
}

impl Ledger {
    /// Opens a ledger to go on with it, or begins one for so many keys and values of that size.
    ///
    /// # Errors
    /// The file cannot be opened, or says something that no ledger says: the message names the line.
    pub(super) fn open(path: &Path, tag: u64, keys: usize, size: usize) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.with_context(|| format!("opening the ledger {shown}"))?;
        let mut lines = BufReader::new(file.try_clone()?).lines();
        let head = lines.next().transpose().with_context(|| format!("reading the ledger {shown}"))?;
        let mut ledger = Self {
            file: BufWriter::new(file),
            tag,
            size,
            puts: vec![Mark::default(); keys],
            counts: vec![Mark::default(); keys],
            events: Vec::new(),
        };
        let Some(head) = head else {
            writeln!(ledger.file, "gristmill-ledger 1 {tag} {keys} {size}")?;
            ledger.save()?;
            return Ok(ledger);
        };
        let [tag, keys, size] = numbers(&head, "gristmill-ledger 1 ")
            .with_context(|| format!("{shown} begins with {head:?}, a ledger of this version was expected"))?;
        ensure!(keys <= KEYS_MAX as u64, "{shown} is of {keys} keys, at most {KEYS_MAX} are allowed");
        (ledger.tag, ledger.size) = (tag, size as usize);
        ledger.puts = vec![Mark::default(); keys as usize];
        ledger.counts = ledger.puts.clone();
        for (at, line) in (2..).zip(lines) {
            let line = line.with_context(|| format!("reading the ledger {shown}"))?;
            let parsed = parse(&line).with_context(|| format!("line {at} of {shown} says {line:?}"))?;
            ledger.take(parsed).with_context(|| format!("line {at} of {shown} says {line:?}"))?;
        }
        Ok(ledger)
    }

    /// Takes note of something, in memory and for the next [`Self::save`].
    ///
    /// # Errors
    /// It does not follow from what was noted before, or the file cannot be written.
    pub(super) fn note(&mut self, line: Line) -> anyhow::Result<()> {
        self.take(line)?;
        let file = &mut self.file;
        match line {
            Line::Put { key, number, acked } => writeln!(file, "{} {key} {number}", if acked { 'P' } else { 'p' }),
            Line::Count { key, number, acked } => writeln!(file, "{} {key} {number}", if acked { 'C' } else { 'c' }),
            Line::Event { number, key } => writeln!(file, "e {number} {key}"),
            Line::Placed { number, lane, offset } => writeln!(file, "E {number} {lane} {offset}"),
        }
        .context("writing the ledger")
    }

    /// Hands everything noted to the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn save(&mut self) -> anyhow::Result<()> {
        self.file.flush().context("writing the ledger")
    }

    fn take(&mut self, line: Line) -> anyhow::Result<()> {
        match line {
            Line::Put { key, number, acked } => advance(&mut self.puts, key, number, acked),
            Line::Count { key, number, acked } => advance(&mut self.counts, key, number, acked),
            Line::Event { number, key } => {
                let next = self.events.len() as u64 + 1;
                ensure!(number == next, "event {number} comes where event {next} must");
                ensure!(key < self.puts.len(), "key {key} of {}", self.puts.len());
                self.events.push(Sent { key, place: None });
                Ok(())
            }
            Line::Placed { number, lane, offset } => {
                let at = (number as usize).checked_sub(1);
                let event = at.and_then(|at| self.events.get_mut(at)).context("that event was never sent")?;
                ensure!(event.place.is_none(), "that event was acknowledged before");
                event.place = Some((lane, offset));
                Ok(())
            }
        }
    }
}

/// Most keys of a ledger: each has a put or a run in flight at most, so more bring nothing.
pub(super) const KEYS_MAX: usize = 1 << 20;

fn advance(marks: &mut [Mark], key: usize, number: u64, acked: bool) -> anyhow::Result<()> {
    let count = marks.len();
    let mark = marks.get_mut(key).with_context(|| format!("key {key} of {count}"))?;
    if acked {
        ensure!(mark.acked < number && number <= mark.sent, "acknowledged {number} after {mark:?}");
        (mark.acked, mark.acks) = (number, mark.acks + 1);
    } else {
        ensure!(number == mark.sent + 1, "sent {number} after {mark:?}");
        mark.sent = number;
    }
    Ok(())
}

fn numbers<const N: usize>(line: &str, head: &str) -> anyhow::Result<[u64; N]> {
    let rest = line.strip_prefix(head).context("it begins in another way")?;
    let found: Vec<u64> = rest.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    found.try_into().map_err(|found: Vec<u64>| anyhow::anyhow!("{} numbers, {N} expected", found.len()))
}

fn parse(line: &str) -> anyhow::Result<Line> {
    let kind = line.get(..2).context("too short")?;
    Ok(match kind {
        "p " | "P " | "c " | "C " => {
            let [key, number] = numbers(line, kind)?;
            let (key, acked) = (key as usize, kind.starts_with(['P', 'C']));
            if kind.eq_ignore_ascii_case("p ") {
                Line::Put { key, number, acked }
            } else {
                Line::Count { key, number, acked }
            }
        }
        "e " => {
            let [number, key] = numbers(line, kind)?;
            Line::Event { number, key: key as usize }
        }
        "E " => {
            let [number, lane, offset] = numbers(line, kind)?;
            Line::Placed { number, lane: lane.try_into()?, offset }
        }
        _ => bail!("no kind of line begins so"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_read_back_as_it_was_written_and_refuses_what_cannot_be() {
        let folder = std::env::temp_dir().join(format!("gristmill-ledger-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("ledger");
        let mut ledger = Ledger::open(&path, 7, 3, 64).unwrap();
        for line in [
            Line::Put { key: 2, number: 1, acked: false },
            Line::Put { key: 2, number: 1, acked: true },
            Line::Put { key: 2, number: 2, acked: false },
            Line::Count { key: 0, number: 1, acked: false },
            Line::Event { number: 1, key: 1 },
            Line::Placed { number: 1, lane: 5, offset: 9 },
        ] {
            ledger.note(line).unwrap();
        }
        assert!(ledger.note(Line::Put { key: 2, number: 4, acked: false }).is_err(), "3 is next");
        assert!(ledger.note(Line::Put { key: 2, number: 3, acked: true }).is_err(), "never sent");
        assert!(ledger.note(Line::Placed { number: 1, lane: 5, offset: 10 }).is_err(), "acknowledged twice");
        assert!(ledger.note(Line::Event { number: 2, key: 3 }).is_err(), "no such key");
        ledger.save().unwrap();
        let again = Ledger::open(&path, 8, 99, 1).unwrap();
        assert_eq!((again.tag, again.size, again.puts.len()), (7, 64, 3));
        assert_eq!(again.puts[2], Mark { sent: 2, acked: 1, acks: 1 });
        assert_eq!(again.counts[0], Mark { sent: 1, acked: 0, acks: 0 });
        assert_eq!(again.events, [Sent { key: 1, place: Some((5, 9)) }]);
        std::fs::write(&path, "gristmill-ledger 1 7 3 64\np 2 5\n").unwrap();
        let error = format!("{:#}", Ledger::open(&path, 8, 99, 1).err().unwrap());
        assert!(error.contains("line 2"), "{error}");
        std::fs::write(&path, "something else\n").unwrap();
        assert!(Ledger::open(&path, 8, 99, 1).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
