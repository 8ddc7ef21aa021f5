//! Versions of rows, changes under a condition, and reads that see the effect of an event. Many reads at once.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use gristmill_base::checksum::crc32c;
use gristmill_base::ids::{LaneId, MapId, Offset, TopicId};
use gristmill_base::limits::VERSION_BYTES_MAX;
use gristmill_wire::After;

use crate::calls::{Span, found, unexpected};
use crate::client::{Client, Ticket};
use crate::error::{Error, ErrorKind};
use crate::names::Table;
use crate::operation::{OwnedCondition, OwnedOperation};
use crate::reply::{Entry, OwnedReply, Page, Produced};

/// The version of a row: no two states of it have the same one. Opaque. Of one data directory: a restored one has others.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(pub(crate) Vec<u8>);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits || text.is_empty() || text.len() > 2 * VERSION_BYTES_MAX {
            return Err(format!("{text:?} is no version, which is what a read with its version has told"));
        }
        let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("two hexadecimal digits");
        Ok(Self((0..text.len()).step_by(2).map(byte).collect()))
    }
}

/// What a row must be so that it is changed.
#[derive(Clone, Copy, Debug)]
pub enum Condition<'a> {
    /// There is none.
    Absent,
    /// It is still the one with this version.
    Version(&'a Version),
    /// It has these bytes.
    Value(&'a [u8]),
}

/// How a change under a condition has ended. Either way it is durable, and a retry of the same operation gets it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The change was made: the version that the row has now; none if it was deleted.
    Done(Option<Version>),
    /// The condition did not hold, and nothing was changed.
    Conflict {
        /// The version that the row had; none: there was none.
        version: Option<Version>,
        /// Its bytes, if they are at most 4 KiB.
        value: Option<Vec<u8>>,
    },
}

impl Compared {
    /// Whether the change was made.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// An event that was appended: a read with it sees what the event has done to the grain that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// A checksum of the data directory's id.
    directory: u32,
    topic: TopicId,
    lane: LaneId,
    offset: Offset,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { directory, topic, lane, offset } = self;
        write!(f, "{directory:08x}.{}.{}.{}", topic.0, lane.0, offset.0)
    }
}

impl FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.split('.');
            let directory = parts.next().filter(|part| part.len() == 8)?;
            let token = Self {
                directory: u32::from_str_radix(directory, 16).ok()?,
                topic: TopicId(parts.next()?.parse().ok()?),
                lane: LaneId(parts.next()?.parse().ok()?),
                offset: Offset(parts.next()?.parse().ok()?),
            };
            parts.next().is_none().then_some(token)
        };
        parse().ok_or_else(|| format!("{text:?} is no token, which is what an append has told"))
    }
}

fn compared(reply: OwnedReply) -> Result<Compared, Error> {
    match reply {
        OwnedReply::Compared { done: true, version, .. } => Ok(Compared::Done(version)),
        OwnedReply::Compared { done: false, version, value } => Ok(Compared::Conflict { version, value }),
        other => unexpected(&other),
    }
}

fn versioned(reply: OwnedReply) -> Result<Option<(Version, Vec<u8>)>, Error> {
    match reply {
        OwnedReply::Row(row) => Ok(row),
        OwnedReply::NotYet(what) => Err(Error::new(ErrorKind::TimedOut, what)),
        other => unexpected(&other),
    }
}

fn entry_of(table: &Table, entry: Option<(&str, &[u8])>) -> Result<Option<(MapId, Vec<u8>)>, Error> {
    let Some((map, entry)) = entry else { return Ok(None) };
    Ok(Some((table.map(map)?.id, entry.to_vec())))
}

fn owned(condition: &Condition<'_>) -> OwnedCondition {
    match condition {
        Condition::Absent => OwnedCondition::Absent,
        Condition::Version(version) => OwnedCondition::Version(version.0.clone()),
        Condition::Value(value) => OwnedCondition::Value(value.to_vec()),
    }
}

impl Client {
    /// A grain's value with its version; none if it has none.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name; a server of an older version (status `unsupported`).
    pub fn get_versioned(&mut self, table: &str, key: &[u8]) -> Result<Option<(Version, Vec<u8>)>, Error> {
        self.read_versioned(table, key, None, None)
    }

    /// A map entry with its version; none if there is none.
    ///
    /// # Errors
    /// As [`Self::get_versioned`].
    pub fn map_get_versioned(
        &mut self,
        table: &str,
        key: &[u8],
        map: &str,
        entry: &[u8],
    ) -> Result<Option<(Version, Vec<u8>)>, Error> {
        self.read_versioned(table, key, Some((map, entry)), None)
    }

    fn read_versioned(
        &mut self,
        table: &str,
        key: &[u8],
        entry: Option<(&str, &[u8])>,
        after: Option<After>,
    ) -> Result<Option<(Version, Vec<u8>)>, Error> {
        let reply = self.call_named(table, |client| {
            let table = client.table(table)?;
            let entry = entry_of(&table, entry)?;
            Ok(OwnedOperation::GetVersioned { table: table.id, key: key.to_vec(), entry, after })
        })?;
        versioned(reply)
    }

    /// Sets a grain's value, or with `None` deletes the grain, if its value is as expected. Judged when the grain's turn comes, behind
    /// all that waits for it.
    ///
    /// # Errors
    /// As [`Self::get_versioned`]. A condition that does not hold is none.
    pub fn compare_and_set(
        &mut self,
        table: &str,
        key: &[u8],
        condition: &Condition<'_>,
        new: Option<&[u8]>,
    ) -> Result<Compared, Error> {
        self.compare(table, key, None, condition, new)
    }

    /// Sets a map entry, or with `None` deletes it, if it is as expected.
    ///
    /// # Errors
    /// As [`Self::compare_and_set`].
    pub fn map_compare_and_set(
        &mut self,
        table: &str,
        key: &[u8],
        (map, entry): (&str, &[u8]),
        condition: &Condition<'_>,
        new: Option<&[u8]>,
    ) -> Result<Compared, Error> {
        self.compare(table, key, Some((map, entry)), condition, new)
    }

    fn compare(
        &mut self,
        table: &str,
        key: &[u8],
        entry: Option<(&str, &[u8])>,
        condition: &Condition<'_>,
        new: Option<&[u8]>,
    ) -> Result<Compared, Error> {
        let reply = self.call_named(table, |client| {
            let table = client.table(table)?;
            let entry = entry_of(&table, entry)?;
            let (condition, new) = (owned(condition), new.map(<[u8]>::to_vec));
            Ok(OwnedOperation::CompareSet { table: table.id, key: key.to_vec(), entry, condition, new })
        })?;
        compared(reply)
    }

    /// The token of an event that was appended to that topic.
    ///
    /// # Errors
    /// There is no such topic, or the server cannot be asked.
    pub fn token(&mut self, topic: &str, Produced { lane, offset }: Produced) -> Result<Token, Error> {
        Ok(Token { directory: self.directory(), topic: self.topic(topic)?.id, lane, offset })
    }

    fn directory(&self) -> u32 {
        crc32c(&self.topology.data_directory)
    }

    fn after(&self, token: &Token, wait: Duration) -> Result<Option<After>, Error> {
        if token.directory != self.directory() {
            return Err(Error::invalid(format!("token {token} is of another data directory")));
        }
        let &Token { topic, lane, offset, .. } = token;
        let wait_millis = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        Ok(Some(After { topic, lane, offset, wait_millis }))
    }

    /// A grain's value once the grain has handled the event of the token, and all before it of the same lane that are for the grain.
    /// Waits at most so long, and a minute.
    ///
    /// # Errors
    /// As [`Self::get_versioned`]; the table does not subscribe to the topic (status `bad_request`); timed out: the message says
    /// what has not come.
    pub fn get_after(
        &mut self,
        table: &str,
        key: &[u8],
        token: &Token,
        wait: Duration,
    ) -> Result<Option<Vec<u8>>, Error> {
        let after = self.after(token, wait)?;
        Ok(self.read_versioned(table, key, None, after)?.map(|(_, value)| value))
    }

    /// A map entry once the grain has handled the event of the token.
    ///
    /// # Errors
    /// As [`Self::get_after`].
    pub fn map_get_after(
        &mut self,
        table: &str,
        key: &[u8],
        (map, entry): (&str, &[u8]),
        token: &Token,
        wait: Duration,
    ) -> Result<Option<Vec<u8>>, Error> {
        let after = self.after(token, wait)?;
        Ok(self.read_versioned(table, key, Some((map, entry)), after)?.map(|(_, value)| value))
    }

    /// A page of a map's entries once the grain has handled the event of the token: what was handled stays so, so it is waited for
    /// first.
    ///
    /// # Errors
    /// As [`Self::get_after`].
    pub fn range_after(
        &mut self,
        table: &str,
        key: &[u8],
        map: &str,
        span: &Span<'_>,
        (token, wait): (&Token, Duration),
    ) -> Result<Page<Entry>, Error> {
        self.wait_after(table, key, token, wait)?;
        self.range(table, key, map, span)
    }

    /// Waits until a grain has handled the event of the token. Reads that are sent then see it.
    ///
    /// # Errors
    /// As [`Self::get_after`].
    pub fn wait_after(&mut self, table: &str, key: &[u8], token: &Token, wait: Duration) -> Result<(), Error> {
        let after = self.after(token, wait)?;
        self.read_versioned(table, key, None, after).map(drop)
    }

    /// The values of many grains, over all shards at once: of each key in its place; none where a grain has none. They are not of one
    /// moment.
    ///
    /// # Errors
    /// As [`Self::call`]; an unknown name.
    pub fn get_many(&mut self, table: &str, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.many(table, keys.len(), |client, at| {
            Ok(OwnedOperation::Get { table: client.table(table)?.id, key: keys[at].to_vec() })
        })
    }

    /// Many map entries, each of any grain, as `(key, entry)`.
    ///
    /// # Errors
    /// As [`Self::get_many`].
    pub fn map_get_many(
        &mut self,
        table: &str,
        map: &str,
        entries: &[(&[u8], &[u8])],
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        self.many(table, entries.len(), |client, at| {
            let table = client.table(table)?;
            let (key, entry_key) = (entries[at].0.to_vec(), entries[at].1.to_vec());
            Ok(OwnedOperation::MapGet { table: table.id, map: table.map(map)?.id, key, entry_key })
        })
    }

    /// Reads so many rows, many in flight; those that the server does not know the table of, which was remembered from before its
    /// app was loaded again, once more.
    fn many(
        &mut self,
        table: &str,
        count: usize,
        operation: impl Fn(&mut Self, usize) -> Result<OwnedOperation, Error>,
    ) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let mut asked: Vec<Ticket> = Vec::with_capacity(count);
        for at in 0..count {
            let operation = operation(self, at)?;
            asked.push(self.submit_patiently(operation)?);
        }
        let mut rows = Vec::with_capacity(count);
        // All are taken, also behind one that failed: an ending that nobody takes would stay.
        let endings: Vec<_> = asked.into_iter().map(|ticket| self.wait(ticket)).collect();
        for (at, ending) in endings.into_iter().enumerate() {
            let is_unknown = |error: &Error| error.status() == Some(gristmill_wire::Status::UnknownName);
            rows.push(match ending {
                Err(error) if is_unknown(&error) => found(self.call_named(table, |client| operation(client, at)))?,
                ending => found(ending)?,
            });
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_tokens_come_back_from_their_text() {
        let version = Version(vec![0, 255, 16]);
        assert_eq!(version.to_string(), "00ff10");
        assert_eq!("00ff10".parse(), Ok(version));
        for bad in ["", "0", "0g", "é0", &"00".repeat(VERSION_BYTES_MAX + 1)] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
        let token = Token { directory: 0xab, topic: TopicId(3), lane: LaneId(62), offset: Offset(1_000) };
        assert_eq!(token.to_string(), "000000ab.3.62.1000");
        assert_eq!("000000ab.3.62.1000".parse(), Ok(token));
        for bad in ["", "ab.3.62.1000", "000000ab.3.62", "000000ab.3.62.1.1", "000000ab.3.70000.1"] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }
}
