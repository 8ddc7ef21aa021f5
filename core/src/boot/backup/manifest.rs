//! What one backup holds: every file of the data directory, and where its bytes lie.
//!
//! A text: a line that names the format, a line about the backup, a line for each file, and a line with the CRC32C of all
//! before it. It is written when everything that it names is durable, so a backup without it was not finished.

use super::{BackupError, rename};
use gristmill_base::checksum::crc32c;
use gristmill_base::env::DiskError;
use gristmill_base::files::Files;
use gristmill_base::ids::Lsn;
use serde_json::{Value, json};

/// First line; the number is the version of the format.
const FIRST: &str = "gristmill-backup 1";
/// What the last line begins with.
const LAST: &str = "crc32c ";
/// What names of manifests begin with.
const NAME: &str = "backup-";

/// Bytes of a file of the backup, from its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupPiece {
    /// The file, relative to the folder of backups. It may be longer, for a later backup.
    pub file: String,
    /// How many.
    pub bytes: u64,
    /// Their CRC32C.
    pub crc: u32,
}

/// A file of the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFile {
    /// Relative to the data directory.
    pub path: String,
    /// Its length; behind the pieces there are zeros.
    pub bytes: u64,
    /// Its content, in order. All but the last are whole blocks.
    pub pieces: Vec<BackupPiece>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupManifest {
    /// Number of the backup in its folder, from 1.
    pub number: u32,
    /// The data directory.
    pub directory: u128,
    /// When it was taken, microseconds since 1970.
    pub taken_micros: u64,
    /// The start of the data directory in which it was taken.
    pub boot: u32,
    /// Number of the cut in that start; 0 if no server ran.
    pub cut: u64,
    /// By shard: the first record that a start reads, and the last one that counts.
    pub logs: Vec<(Lsn, Lsn)>,
    /// Bytes that were copied for it; the rest was there.
    pub copied: u64,
    /// Every file.
    pub files: Vec<BackupFile>,
}

impl BackupManifest {
    /// Name of the manifest of a backup.
    #[must_use]
    pub fn name(number: u32) -> String {
        format!("{NAME}{number:06}")
    }

    /// Folder of what only that backup names.
    #[must_use]
    pub fn folder(number: u32) -> String {
        format!("{number:06}")
    }

    /// The number in the name of a manifest.
    #[must_use]
    pub fn number_of(name: &str) -> Option<u32> {
        let number = name.strip_prefix(NAME)?.parse().ok()?;
        (Self::name(number) == name).then_some(number)
    }

    /// Bytes of all files as far as they are stored.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces().map(|piece| piece.bytes).sum()
    }

    /// All pieces.
    pub fn pieces(&self) -> impl Iterator<Item = &BackupPiece> {
        self.files.iter().flat_map(|file| &file.pieces)
    }

    /// Its bytes.
    #[must_use]
    pub fn to_text(&self) -> String {
        let logs: Vec<_> = self.logs.iter().map(|(from, to)| [from.0, to.0]).collect();
        let head = json!({
            "backup": self.number, "directory": format!("{:032x}", self.directory), "taken_micros": self.taken_micros,
            "boot": self.boot, "cut": self.cut, "logs": logs, "copied": self.copied, "files": self.files.len(),
        });
        let mut text = format!("{FIRST}\n{head}\n");
        for file in &self.files {
            let piece = |piece: &BackupPiece| json!([piece.file, piece.bytes, format!("{:08x}", piece.crc)]);
            let pieces: Vec<Value> = file.pieces.iter().map(piece).collect();
            text += &format!("{}\n", json!({"path": file.path, "bytes": file.bytes, "pieces": pieces}));
        }
        let crc = crc32c(text.as_bytes());
        text + &format!("{LAST}{crc:08x}\n")
    }

    /// What such bytes say; zeros behind them mean nothing.
    ///
    /// # Errors
    /// Damage, or another version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "it is not text".to_owned())?;
        let first = text.lines().next().unwrap_or_default();
        if first != FIRST {
            return Err(format!("it begins with {first:?}; this program reads {FIRST:?}"));
        }
        let at = text.rfind(LAST).ok_or("its last line with the checksum is missing")?;
        let stored = text[at + LAST.len()..].trim_end();
        let found = format!("{:08x}", crc32c(&text.as_bytes()[..at]));
        if stored != found {
            return Err(format!("its checksum is {found}, its last line says {stored}"));
        }
        let mut lines = text[..at].lines().skip(1).map(|line| serde_json::from_str::<Value>(line).ok());
        let mut line = || lines.next().flatten();
        Self::parse(&mut line).ok_or_else(|| "a line of it is not as this program writes it".to_owned())
    }

    fn parse(line: &mut dyn FnMut() -> Option<Value>) -> Option<Self> {
        let head = line()?;
        let number = |value: &Value| value.as_u64();
        let log = |pair: &Value| Some((Lsn(number(&pair[0])?), Lsn(number(&pair[1])?)));
        let count = number(&head["files"])?;
        let mut manifest = Self {
            number: u32::try_from(number(&head["backup"])?).ok()?,
            directory: u128::from_str_radix(head["directory"].as_str()?, 16).ok()?,
            taken_micros: number(&head["taken_micros"])?,
            boot: u32::try_from(number(&head["boot"])?).ok()?,
            cut: number(&head["cut"])?,
            logs: head["logs"].as_array()?.iter().map(log).collect::<Option<_>>()?,
            copied: number(&head["copied"])?,
            files: Vec::new(),
        };
        for _ in 0..count {
            manifest.files.push(file(&line()?)?);
        }
        line().is_none().then_some(manifest)
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// It is missing or damaged, or what the disk says.
    pub fn load(files: &mut Files<'_>, number: u32) -> Result<Self, BackupError> {
        let name = Self::name(number);
        let damaged = |what: String| BackupError::Damaged { file: name.clone(), what };
        let bytes = files.read_file(&name).map_err(BackupError::Target)?;
        let bytes = bytes.ok_or_else(|| damaged("it is missing: there is no such backup".to_owned()))?;
        let manifest = Self::from_bytes(&bytes).map_err(damaged)?;
        if manifest.number != number {
            return Err(damaged(format!("it is the manifest of backup {}", manifest.number)));
        }
        Ok(manifest)
    }

    /// Writes it, durably. What it names is durable.
    pub(super) fn store(&self, files: &mut Files<'_>) -> Result<(), DiskError> {
        let name = Self::name(self.number);
        let fresh = format!("{name}.new");
        files.remove_if_there(&fresh)?;
        files.create_file("", &fresh, self.to_text().as_bytes())?;
        rename(files, fresh, name)
    }

    /// Numbers of the backups in a folder, in order; also of those whose manifests cannot be read.
    ///
    /// # Errors
    /// What the disk says.
    pub fn numbers(files: &mut Files<'_>) -> Result<Vec<u32>, DiskError> {
        let mut numbers: Vec<u32> = files.list("")?.iter().filter_map(|name| Self::number_of(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

fn file(line: &Value) -> Option<BackupFile> {
    let piece = |piece: &Value| {
        let crc = u32::from_str_radix(piece[2].as_str()?, 16).ok()?;
        Some(BackupPiece { file: piece[0].as_str()?.to_owned(), bytes: piece[1].as_u64()?, crc })
    };
    let pieces = line["pieces"].as_array()?.iter().map(piece).collect::<Option<_>>()?;
    Some(BackupFile { path: line["path"].as_str()?.to_owned(), bytes: line["bytes"].as_u64()?, pieces })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> BackupManifest {
        let piece = |file: &str, bytes, crc| BackupPiece { file: file.to_owned(), bytes, crc };
        let file = |path: &str, bytes, pieces| BackupFile { path: path.to_owned(), bytes, pieces };
        BackupManifest {
            number: 3,
            directory: 0xabc,
            taken_micros: 1_700_000_000_000_000,
            boot: 7,
            cut: 2,
            logs: vec![(Lsn(1), Lsn(99)), (Lsn(40), Lsn(41))],
            copied: 4_096,
            files: vec![
                file("slots/0001-2.ckpt", 4_096, vec![piece("slots/0001-2.ckpt", 4_096, 0xdead_beef)]),
                file("a \"b\"/c", 1 << 20, vec![piece("x", 8_192, 1), piece("y", 17, 0)]),
            ],
        }
    }

    #[test]
    fn it_comes_back_and_no_flipped_bit_passes() {
        let text = manifest().to_text();
        assert_eq!(BackupManifest::from_bytes(text.as_bytes()), Ok(manifest()));
        let mut padded = text.clone().into_bytes();
        padded.resize(4_096, 0);
        assert_eq!(BackupManifest::from_bytes(&padded), Ok(manifest()));
        for at in 0..text.len() - 1 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 4;
            assert!(BackupManifest::from_bytes(&bytes).is_err(), "bit of byte {at}");
        }
        for end in 0..text.len() - 1 {
            assert!(BackupManifest::from_bytes(&text.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn only_names_of_manifests_have_a_number() {
        assert_eq!(BackupManifest::number_of("backup-000012"), Some(12));
        for other in ["backup-12", "backup-000012.new", "backup-", "000012", "backup-+00012"] {
            assert_eq!(BackupManifest::number_of(other), None, "{other}");
        }
    }
}
