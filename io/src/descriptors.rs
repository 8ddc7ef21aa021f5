//! Descriptors of the process (`ulimit -n`): what a server needs of them, and how many connections the rest carries.

use crate::preflight::Missing;
use crate::sys::Limit;
use gristmill_base::limits::{
    CONNECTIONS_PER_SHARD_MAX, HTTP_CONNECTIONS_MAX, STORE_OPEN_FILES_MAX, STORE_READ_FILES_MAX, STORE_READ_FILES_MIN,
};

/// Descriptors of a server beside its shards: standard streams, lock, HTTP door and its runtime, signals (11 while it
/// rests), what recovery and the writers of small files have open at a time, and some that whoever started it left open.
const FIXED: u64 = 28;
/// Descriptors of a shard: listeners, rings, bells, segments of its log (13 while it rests), the files and folders of its
/// background work, among these those of a merge, and the least to read rows from.
const PER_SHARD: u64 = 20 + (STORE_OPEN_FILES_MAX + STORE_READ_FILES_MIN) as u64;
/// A server that takes fewer connections than this, over all doors, is none.
const CONNECTIONS_MIN: u64 = 16;
/// Part of what is left that the HTTP door may take.
const HTTP_PART: u64 = 4;
/// Part of it that goes to more files to read rows from.
const FILES_PART: u64 = 8;

/// The descriptors that a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    most: u64,
    shards: u64,
}

impl Descriptors {
    /// Those of this process for a server with so many shards. Raises the limit as far as it may.
    ///
    /// # Errors
    /// There are too few, or the limit cannot be read.
    pub fn take(shards: u16) -> Result<Self, Missing> {
        let found = match Limit::OpenFiles.get() {
            Ok((now, most)) if now >= most || Limit::OpenFiles.set(most, most).is_ok() => Ok(most),
            Ok((now, _)) => Ok(now),
            Err(error) => Err(format!("the limit cannot be read: {error}")),
        };
        Self::of(found, shards)
    }

    fn of(found: Result<u64, String>, shards: u16) -> Result<Self, Missing> {
        let need = Self::needed(shards);
        let found = match found {
            Ok(most) if most >= need => return Ok(Self { most, shards: u64::from(shards) }),
            Ok(most) => format!("a limit of {most}"),
            Err(found) => found,
        };
        Err(Missing {
            what: format!("{need} open files for {shards} shards"),
            found,
            remedy: format!(
                "LimitNOFILE={need} or more in the service's unit, --ulimit nofile={need} for a container, or ulimit -n \
                 {need} in the shell that starts it; each connection takes one more"
            ),
        })
    }

    /// What a server with `shards` shards needs at least.
    #[must_use]
    pub fn needed(shards: u16) -> u64 {
        FIXED + u64::from(shards) * PER_SHARD + CONNECTIONS_MIN
    }

    /// What carries all connections that are allowed.
    #[must_use]
    pub fn plenty(shards: u16) -> u64 {
        let connections = HTTP_CONNECTIONS_MAX + usize::from(shards) * CONNECTIONS_PER_SHARD_MAX;
        let connections = connections as u64;
        FIXED + u64::from(shards) * PER_SHARD + connections + connections / (FILES_PART - 1) + 1
    }

    /// Connections that the HTTP door may have open.
    #[must_use]
    pub fn http_connections(&self) -> usize {
        usize::try_from(self.left() / HTTP_PART).map_or(HTTP_CONNECTIONS_MAX, |part| part.min(HTTP_CONNECTIONS_MAX))
    }

    /// Connections that each shard may have open, so that clients never take the descriptors that its log needs.
    #[must_use]
    pub fn shard_connections(&self) -> usize {
        let left = self.left() - self.http_connections() as u64 - self.shards * self.more_files();
        usize::try_from(left / self.shards.max(1))
            .map_or(CONNECTIONS_PER_SHARD_MAX, |part| part.min(CONNECTIONS_PER_SHARD_MAX))
    }

    /// Files of the store that each shard may have open to read rows.
    #[must_use]
    pub fn store_files(&self) -> usize {
        STORE_READ_FILES_MIN + usize::try_from(self.more_files()).expect("it is bounded")
    }

    fn more_files(&self) -> u64 {
        (self.left() / FILES_PART / self.shards.max(1)).min((STORE_READ_FILES_MAX - STORE_READ_FILES_MIN) as u64)
    }

    /// For connections, and for more files.
    fn left(&self) -> u64 {
        self.most - FIXED - self.shards * PER_SHARD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_the_most_allowed() {
        let taken = Descriptors::take(1).unwrap();
        assert_eq!(Limit::OpenFiles.get().unwrap(), (taken.most, taken.most));
    }

    #[test]
    fn too_few_are_told_with_what_is_needed() {
        for (shards, need) in [(1, 104), (2, 164), (64, 3_884)] {
            assert_eq!(Descriptors::needed(shards), need);
            let missing = Descriptors::of(Ok(need - 1), shards).unwrap_err().to_string();
            assert!(missing.contains(&format!("a limit of {}", need - 1)), "{missing}");
            assert!(missing.contains(&format!("ulimit -n {need}")), "{missing}");
            let least = Descriptors::of(Ok(need), shards).unwrap();
            assert!(least.http_connections() > 0);
        }
        assert!(Descriptors::of(Err("unreadable".to_owned()), 1).unwrap_err().found.contains("unreadable"));
    }

    #[test]
    fn connections_have_what_the_server_leaves() {
        let shared = |most, shards| {
            let found = Descriptors::of(Ok(most), shards).unwrap();
            (found.http_connections(), found.shard_connections(), found.store_files())
        };
        assert_eq!(shared(164, 2), (4, 5, 17));
        assert_eq!(shared(1_024, 2), (128, 320, 70));
        assert_eq!(shared(u64::MAX, 64), (HTTP_CONNECTIONS_MAX, CONNECTIONS_PER_SHARD_MAX, STORE_READ_FILES_MAX));
        let (http, shard, files) = shared(Descriptors::plenty(64), 64);
        assert_eq!((http, shard), (HTTP_CONNECTIONS_MAX, CONNECTIONS_PER_SHARD_MAX));
        assert!(files > 1_000, "{files}");
    }
}
