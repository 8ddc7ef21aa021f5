//! Operations on apps. None is sequenced: each may be sent again and then changes nothing more.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{ShardId, SlotId};
use gristmill_base::limits::{APP_FILE_BYTES_MAX, NAME_BYTES_MAX};

use crate::fields::{read_bool, write_bytes};

/// Loads an app file: a new app, or a new version of one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppLoad<'a> {
    /// Load it also where it takes something away.
    pub force: bool,
    /// Load nothing, say what would be otherwise.
    pub dry_run: bool,
    /// Name of the file, for messages.
    pub file_name: &'a str,
    /// Content of the file.
    pub file: &'a str,
}

impl<'a> AppLoad<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let flags = from.u8()?;
        if flags > 3 {
            return Err(DecodeError::Unknown { what: "app_load flags", found: flags.into() });
        }
        Ok(Self {
            force: flags & 1 > 0,
            dry_run: flags & 2 > 0,
            file_name: from.text("file name", NAME_BYTES_MAX)?,
            file: from.text("app file", APP_FILE_BYTES_MAX)?,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u8(u8::from(self.force) | u8::from(self.dry_run) << 1);
        write_bytes(to, "file name", self.file_name.as_bytes(), NAME_BYTES_MAX)?;
        write_bytes(to, "app file", self.file.as_bytes(), APP_FILE_BYTES_MAX)
    }
}

/// Deletes an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppDelete<'a> {
    /// Its name.
    pub app: &'a str,
}

impl<'a> AppDelete<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { app: from.text("app name", NAME_BYTES_MAX)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        write_bytes(to, "app name", self.app.as_bytes(), NAME_BYTES_MAX)
    }
}

/// Pauses a subscription, or resumes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PauseSubscription<'a> {
    /// Name of the app.
    pub app: &'a str,
    /// Its own name, or `TABLE.HANDLER.NAME` where several have it.
    pub name: &'a str,
    /// Whether its events wait from now on.
    pub paused: bool,
}

/// Longest name of a subscription with its table and handler.
const SUBSCRIPTION_NAME_BYTES_MAX: usize = 3 * NAME_BYTES_MAX + 2;

impl<'a> PauseSubscription<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            app: from.text("app name", NAME_BYTES_MAX)?,
            name: from.text("subscription name", SUBSCRIPTION_NAME_BYTES_MAX)?,
            paused: read_bool(from, "subscription_pause flag")?,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        write_bytes(to, "app name", self.app.as_bytes(), NAME_BYTES_MAX)?;
        write_bytes(to, "subscription name", self.name.as_bytes(), SUBSCRIPTION_NAME_BYTES_MAX)?;
        to.put_u8(u8::from(self.paused));
        Ok(())
    }
}

/// Asks for the versions of an app that are kept, or for the file of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppVersions<'a> {
    /// Its name.
    pub app: &'a str,
    /// Which one, with its file; 0: all of them, without.
    pub version: u32,
}

impl<'a> AppVersions<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { app: from.text("app name", NAME_BYTES_MAX)?, version: from.u32()? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        write_bytes(to, "app name", self.app.as_bytes(), NAME_BYTES_MAX)?;
        to.put_u32(self.version);
        Ok(())
    }
}

/// What is asked about replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStep {
    /// To begin one, with which event of each lane.
    Begin(ReplayFrom),
    /// How far they are.
    Status,
    /// To give up what is under way.
    Cancel,
}

/// With which event of each lane a replay begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayFrom {
    /// The first one that is kept.
    Beginning,
    /// That with this offset.
    Offset(u64),
    /// The first one that was appended at this time or later, microseconds since 1970.
    Time(u64),
}

/// Builds tables anew by running their subscriptions again, tells how far that is, or gives it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppReplay<'a> {
    /// Name of the app; for the state of all it may be empty.
    pub app: &'a str,
    /// What is asked.
    pub step: ReplayStep,
    /// Names of the tables, with commas between them; empty unless one begins.
    pub tables: &'a str,
}

/// Longest list of tables that are replayed together.
const REPLAY_TABLES_BYTES_MAX: usize = 64 * (NAME_BYTES_MAX + 1);

impl<'a> AppReplay<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let app = from.text("app name", NAME_BYTES_MAX)?;
        let step = match (from.u8()?, from.u64()?) {
            (1, 0) => ReplayStep::Begin(ReplayFrom::Beginning),
            (2, offset) => ReplayStep::Begin(ReplayFrom::Offset(offset)),
            (3, micros) => ReplayStep::Begin(ReplayFrom::Time(micros)),
            (4, 0) => ReplayStep::Status,
            (5, 0) => ReplayStep::Cancel,
            (1 | 4 | 5, found) => return Err(DecodeError::Unknown { what: "number of this step of a replay", found }),
            (found, _) => return Err(DecodeError::Unknown { what: "step of a replay", found: found.into() }),
        };
        Ok(Self { app, step, tables: from.text("names of tables", REPLAY_TABLES_BYTES_MAX)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        write_bytes(to, "app name", self.app.as_bytes(), NAME_BYTES_MAX)?;
        let (code, number) = match self.step {
            ReplayStep::Begin(ReplayFrom::Beginning) => (1, 0),
            ReplayStep::Begin(ReplayFrom::Offset(offset)) => (2, offset),
            ReplayStep::Begin(ReplayFrom::Time(micros)) => (3, micros),
            ReplayStep::Status => (4, 0),
            ReplayStep::Cancel => (5, 0),
        };
        to.put_u8(code);
        to.put_u64(number);
        write_bytes(to, "names of tables", self.tables.as_bytes(), REPLAY_TABLES_BYTES_MAX)
    }
}

/// Asks for the numbers and types of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Describe<'a> {
    /// Its name.
    pub app: &'a str,
}

impl<'a> Describe<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { app: from.text("app name", NAME_BYTES_MAX)? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        write_bytes(to, "app name", self.app.as_bytes(), NAME_BYTES_MAX)
    }
}

/// Asks whether what an app was given before has been handled, with all that it caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppSettle<'a> {
    /// Its name.
    pub app: &'a str,
    /// How long to wait for that, in milliseconds.
    pub wait_millis: u32,
}

impl<'a> AppSettle<'a> {
    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self { app: from.text("app name", NAME_BYTES_MAX)?, wait_millis: from.u32()? })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        write_bytes(to, "app name", self.app.as_bytes(), NAME_BYTES_MAX)?;
        to.put_u32(self.wait_millis);
        Ok(())
    }
}

/// What a step of a backup asks for. Numbers never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BackupStep {
    /// A cut, which the server then holds.
    Begin = 1,
    /// To hold it on.
    Hold = 2,
    /// To hold it on, but for the logs, which are copied.
    LogsCopied = 3,
    /// No more: nothing of it is needed any longer.
    End = 4,
}

/// A step of a backup of the data directory, by a process that copies its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Which.
    pub step: BackupStep,
    /// Number of the cut; 0 to begin.
    pub cut: u64,
}

impl Backup {
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let step = match from.u8()? {
            1 => BackupStep::Begin,
            2 => BackupStep::Hold,
            3 => BackupStep::LogsCopied,
            4 => BackupStep::End,
            found => return Err(DecodeError::Unknown { what: "step of a backup", found: found.into() }),
        };
        Ok(Self { step, cut: from.u64()? })
    }

    pub(crate) fn write(self, to: &mut Vec<u8>) {
        to.put_u8(self.step as u8);
        to.put_u64(self.cut);
    }
}

/// A slot that is to go to another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MoveSlot {
    /// The slot.
    pub slot: SlotId,
    /// The shard.
    pub to: ShardId,
}

impl MoveSlot {
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { slot: SlotId(from.u16()?), to: ShardId(from.u16()?) })
    }

    pub(crate) fn write(self, to: &mut Vec<u8>) {
        to.put_u16(self.slot.0);
        to.put_u16(self.to.0);
    }
}
