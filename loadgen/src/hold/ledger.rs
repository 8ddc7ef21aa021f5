//! What was sent and what was acknowledged, in memory and in an append-only file, so that it outlives the server, the
//! disk of the server and this process.
//!
//! What is sent stands in the file before it goes out; of a writer that was killed the last line may be cut.
//!
//! A line of text for each thing that happened. The first is `gristmill-ledger 1 TAG KEYS SIZE`. Then, with the number of
//! a key and counts from 1 on:
//!
//! | line | meaning |
//! | --- | --- |
//! | `p KEY N`, `P KEY N` | the key's put number N was sent, was acknowledged |
//! | `c KEY N`, `C KEY N` | the same for the runs that count |
//! | `e N KEY`, `E N LANE OFFSET` | event N was sent with that key, was acknowledged at that place |

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, bail, ensure};

use crate::keys::STAMP_BYTES;

/// Begins every ledger.
const HEAD: &str = "gristmill-ledger 1 ";
/// No line of a ledger is longer.
const LINE_BYTES_MAX: u64 = 128;
/// Most keys of a ledger: each has a put or a run in flight at most, so more bring nothing.
pub(super) const KEYS_MAX: usize = 1 << 20;
/// Bytes that a value may have.
pub(super) const SIZES: RangeInclusive<usize> = STAMP_BYTES..=1 << 20;

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

/// What a ledger says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Book {
    /// Tells values of this ledger from others.
    pub(super) tag: u64,
    /// Bytes of a value.
    pub(super) size: usize,
    pub(super) puts: Vec<Mark>,
    pub(super) counts: Vec<Mark>,
    /// In the order of their numbers, from 1.
    pub(super) events: Vec<Sent>,
}

/// See the module. One process at a time writes it.
pub(super) struct Ledger {
    file: BufWriter<File>,
    pub(super) book: Book,
}

impl Ledger {
    /// Opens a ledger to go on with it, or begins one for so many keys and values of that size. A last line that was cut,
    /// because its writer was killed, is taken away: what it told of was not sent yet, or an answer that counts as unknown.
    ///
    /// # Errors
    /// The file cannot be opened, another process writes it, or it says something that no ledger says: the message names
    /// the line.
    pub(super) fn open(path: &Path, tag: u64, keys: usize, size: usize) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.with_context(|| format!("opening the ledger {shown}"))?;
        // Some network file systems have no locks.
        ensure!(!matches!(file.try_lock(), Err(TryLockError::WouldBlock)), "another process writes the ledger {shown}");
        let (found, whole) = Book::read(&file, path)?;
        file.set_len(whole).with_context(|| format!("taking the cut line away from the ledger {shown}"))?;
        let is_new = found.is_none();
        let mut ledger = Self { file: BufWriter::new(file), book: found.unwrap_or_else(|| Book::new(tag, keys, size)) };
        if is_new {
            writeln!(ledger.file, "{HEAD}{tag} {keys} {size}")?;
            ledger.save()?;
        }
        Ok(ledger)
    }

    /// Takes note of something, in memory and for the next [`Self::save`].
    ///
    /// # Errors
    /// It does not follow from what was noted before, or the file cannot be written.
    pub(super) fn note(&mut self, line: Line) -> anyhow::Result<()> {
        self.book.take(line)?;
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
}

impl Book {
    fn new(tag: u64, keys: usize, size: usize) -> Self {
        let marks = vec![Mark::default(); keys];
        Self { tag, size, puts: marks.clone(), counts: marks, events: Vec::new() }
    }

    /// Looks at a ledger.
    ///
    /// # Errors
    /// As [`Ledger::open`]; nothing stands in it.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = File::open(path).with_context(|| format!("opening the ledger {shown}"))?;
        let is_held = matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock));
        ensure!(!is_held, "another process writes the ledger {shown}");
        Self::read(&file, path)?.0.with_context(|| format!("nothing stands in the ledger {shown}"))
    }

    /// What stands in a file, and how many bytes of it are whole lines; nothing if there is no whole line.
    fn read(file: &File, path: &Path) -> anyhow::Result<(Option<Self>, u64)> {
        let shown = path.display();
        let mut reader = BufReader::new(file);
        let (mut book, mut whole, mut line) = (None::<Self>, 0, Vec::new());
        for at in 1_u64.. {
            line.clear();
            let got = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            got.with_context(|| format!("reading the ledger {shown}"))?;
            let text = String::from_utf8_lossy(&line);
            let is_cut = !line.ends_with(b"\n");
            if is_cut && (line.len() as u64) < LINE_BYTES_MAX {
                // Whoever names a file that is no ledger keeps it.
                let is_ledger = book.is_some() || HEAD.starts_with(&*text) || text.starts_with(HEAD);
                ensure!(is_ledger, "{shown} begins with {text:?}, a ledger of this version was expected");
                break;
            }
            let place = || format!("line {at} of {shown} says {:?}", text.trim_end());
            ensure!(!is_cut, "{}: longer than {LINE_BYTES_MAX} bytes", place());
            match &mut book {
                None => book = Some(Self::begun(text.trim_end_matches('\n'), path)?),
                Some(book) => {
                    let parsed = parse(text.trim_end_matches('\n')).with_context(place)?;
                    book.take(parsed).with_context(place)?;
                }
            }
            whole += line.len() as u64;
        }
        Ok((book, whole))
    }

    /// What the first line says.
    fn begun(head: &str, path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let [tag, keys, size] = numbers(head, HEAD)
            .with_context(|| format!("{shown} begins with {head:?}, a ledger of this version was expected"))?;
        let (keys, size) = (usize::try_from(keys)?, usize::try_from(size)?);
        ensure!((1..=KEYS_MAX).contains(&keys), "{shown} is of {keys} keys, 1 to {KEYS_MAX} are allowed");
        ensure!(SIZES.contains(&size), "{shown} is of values of {size} bytes, {SIZES:?} are allowed");
        Ok(Self::new(tag, keys, size))
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
        assert!(Ledger::open(&path, 8, 99, 1).err().unwrap().to_string().contains("another process"));
        assert!(Book::open(&path).is_err(), "nobody looks while it is written");
        let book = ledger.book.clone();
        drop(ledger);
        assert_eq!(Book::open(&path).unwrap(), book);
        let again = Ledger::open(&path, 8, 99, 1).unwrap().book;
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

    #[test]
    fn a_line_that_was_cut_says_nothing_and_the_ledger_goes_on() {
        let folder = std::env::temp_dir().join(format!("gristmill-ledger-cut-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("ledger");
        let text = "gristmill-ledger 1 7 3 64\ne 1 1\nE 1 5 12345\n";
        let placed = |book: &Book| book.events.first().and_then(|event| event.place);
        for cut in 0..=text.len() {
            std::fs::write(&path, &text[..cut]).unwrap();
            let looked = Book::open(&path);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text[..cut], "looking changes nothing");
            let mut ledger = Ledger::open(&path, 9, 1, 16).unwrap();
            assert_eq!(looked.ok(), (cut >= 26).then(|| ledger.book.clone()), "at {cut}");
            assert_eq!(placed(&ledger.book), (cut == text.len()).then_some((5, 12_345)), "at {cut}");
            let next = ledger.book.events.len() as u64 + 1;
            ledger.note(Line::Event { number: next, key: 0 }).unwrap();
            ledger.save().unwrap();
            let book = ledger.book.clone();
            drop(ledger);
            assert_eq!(Book::open(&path).unwrap(), book, "at {cut}");
        }
        // A cut line, but of no ledger: it stays as it is. And what is no ledger for other reasons.
        for wrong in [
            "gristmill",
            "my notes",
            "my notes\n",
            &"x".repeat(1_000),
            "gristmill-ledger 1 7 0 64\n",
            "gristmill-ledger 1 7 3 99999999999\n",
            "gristmill-ledger 2 7 3 64\n",
        ] {
            std::fs::write(&path, wrong).unwrap();
            let is_beginning = HEAD.starts_with(wrong);
            assert!(Book::open(&path).is_err(), "{wrong}");
            assert_eq!(Ledger::open(&path, 9, 1, 16).is_ok(), is_beginning, "{wrong}");
            let kept = std::fs::read_to_string(&path).unwrap();
            assert_eq!(kept == wrong, !is_beginning, "{wrong}: {kept}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
