//! Hello: the first operation of a connection, and what the server tells about itself.

use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{SessionId, SessionKey, ShardId};
use gristmill_base::limits::{CREDENTIALS_BYTES_MAX, NAME_BYTES_MAX, SHARD_COUNT_MAX, SLOT_COUNT_MAX};

use crate::fields::write_bytes;

/// The newest protocol version of this crate. Version 2 has append and fetch, and is version 1 otherwise.
pub const PROTOCOL_VERSION: u16 = 2;
/// The oldest one.
pub const PROTOCOL_VERSION_OLDEST: u16 = 1;

/// Names of ways to prove who a client is.
#[derive(Clone, Copy, Debug)]
pub struct CredentialsMechanism;

impl CredentialsMechanism {
    /// No credentials: a connection on loopback, until authentication is configured.
    pub const NONE: &'static str = "";
}

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Oldest protocol version that the client speaks.
    pub version_min: u16,
    /// Newest protocol version that the client speaks.
    pub version_max: u16,
    /// The session to go on with, or 0 for a new one.
    pub session: SessionId,
    /// The key that came with that session; means nothing for a new one.
    pub key: SessionKey,
    /// Name and version of the client program, for a person.
    pub client: &'a str,
    /// How the credentials are to be read; empty for none.
    pub mechanism: &'a str,
    /// Proof of who the client is; empty for none.
    pub credentials: &'a [u8],
}

impl<'a> Hello<'a> {
    /// Hello of a client of this version without credentials, for a new session.
    #[must_use]
    pub fn new(client: &'a str) -> Self {
        Self {
            version_min: PROTOCOL_VERSION_OLDEST,
            version_max: PROTOCOL_VERSION,
            session: SessionId(0),
            key: SessionKey::default(),
            client,
            mechanism: CredentialsMechanism::NONE,
            credentials: &[],
        }
    }

    /// The newest version that both sides speak.
    #[must_use]
    pub fn version(&self) -> Option<u16> {
        let newest = self.version_max.min(PROTOCOL_VERSION);
        (newest >= self.version_min.max(PROTOCOL_VERSION_OLDEST)).then_some(newest)
    }

    pub(crate) fn read(from: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let (version_min, version_max) = (from.u16()?, from.u16()?);
        let flags = from.u32()?;
        if flags != 0 {
            return Err(DecodeError::Unknown { what: "hello flag", found: u64::from(flags) });
        }
        Ok(Self {
            version_min,
            version_max,
            session: SessionId(from.u64()?),
            key: read_session_key(from)?,
            client: from.text("client name", NAME_BYTES_MAX)?,
            mechanism: from.text("mechanism", NAME_BYTES_MAX)?,
            credentials: from.bytes("credentials", CREDENTIALS_BYTES_MAX)?,
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u16(self.version_min);
        to.put_u16(self.version_max);
        to.put_u32(0);
        to.put_u64(self.session.0);
        to.extend_from_slice(&self.key.0);
        write_bytes(to, "client name", self.client.as_bytes(), NAME_BYTES_MAX)?;
        write_bytes(to, "mechanism", self.mechanism.as_bytes(), NAME_BYTES_MAX)?;
        write_bytes(to, "credentials", self.credentials, CREDENTIALS_BYTES_MAX)
    }
}

/// What the server answers: who it is, what the client may do, and where every key lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloReply {
    /// The protocol version of everything that follows on this connection.
    pub version: u16,
    /// Name and version of the server program, for a person.
    pub server: String,
    /// Which data directory this is; sessions and positions mean something only in the same one.
    pub data_directory: [u8; 16],
    /// The session of this connection.
    pub session: SessionId,
    /// What a later hello must show to go on with it. Whoever has it can act as this client.
    pub key: SessionKey,
    /// Operations that may be in flight on this connection.
    pub credit_requests: u32,
    /// Bytes of operations, their headers included, that may be in flight on this connection.
    pub credit_bytes: u32,
    /// Longest frame, header included, in both directions.
    pub frame_bytes_max: u32,
    /// Operations or results of one frame at most.
    pub frame_operations_max: u32,
    /// Bytes of a key at most.
    pub key_bytes_max: u32,
    /// Bytes of a value at most.
    pub value_bytes_max: u32,
    /// The shard that serves this connection.
    pub shard: ShardId,
    /// Rises with every change of the two lists that follow.
    pub placement_version: u64,
    /// The TCP port of each shard, by its number; 0 where a shard has none. As many as there are shards.
    pub ports: Vec<u16>,
    /// The shard of each slot, by its number. As many as there are slots.
    pub slots: Vec<ShardId>,
}

impl HelloReply {
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = from.u16()?;
        let server = from.text("server name", NAME_BYTES_MAX)?.to_owned();
        let mut data_directory = [0; 16];
        data_directory.copy_from_slice(from.take(16)?);
        Ok(Self {
            version,
            server,
            data_directory,
            session: SessionId(from.u64()?),
            key: read_session_key(from)?,
            credit_requests: from.u32()?,
            credit_bytes: from.u32()?,
            frame_bytes_max: from.u32()?,
            frame_operations_max: from.u32()?,
            key_bytes_max: from.u32()?,
            value_bytes_max: from.u32()?,
            shard: ShardId(from.u16()?),
            placement_version: from.u64()?,
            ports: read_list(from, "shard count", SHARD_COUNT_MAX)?,
            slots: read_list(from, "slot count", SLOT_COUNT_MAX)?.into_iter().map(ShardId).collect(),
        })
    }

    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<(), DecodeError> {
        to.put_u16(self.version);
        write_bytes(to, "server name", self.server.as_bytes(), NAME_BYTES_MAX)?;
        to.extend_from_slice(&self.data_directory);
        to.put_u64(self.session.0);
        to.extend_from_slice(&self.key.0);
        to.put_u32(self.credit_requests);
        to.put_u32(self.credit_bytes);
        to.put_u32(self.frame_bytes_max);
        to.put_u32(self.frame_operations_max);
        to.put_u32(self.key_bytes_max);
        to.put_u32(self.value_bytes_max);
        to.put_u16(self.shard.0);
        to.put_u64(self.placement_version);
        write_list(to, "shard count", self.ports.iter().copied(), SHARD_COUNT_MAX)?;
        write_list(to, "slot count", self.slots.iter().map(|shard| shard.0), SLOT_COUNT_MAX)
    }
}

fn read_session_key(from: &mut Reader<'_>) -> Result<SessionKey, DecodeError> {
    let mut key = SessionKey::default();
    key.0.copy_from_slice(from.take(16)?);
    Ok(key)
}

/// A varint count and as many `u16`.
fn read_list(from: &mut Reader<'_>, what: &'static str, allowed: u16) -> Result<Vec<u16>, DecodeError> {
    let count = from.count(2)?;
    if count > usize::from(allowed) {
        return Err(DecodeError::TooLarge { what, found: count as u64, allowed: u64::from(allowed) });
    }
    (0..count).map(|_| from.u16()).collect()
}

fn write_list(
    to: &mut Vec<u8>,
    what: &'static str,
    list: impl ExactSizeIterator<Item = u16>,
    allowed: u16,
) -> Result<(), DecodeError> {
    if list.len() > usize::from(allowed) {
        return Err(DecodeError::TooLarge { what, found: list.len() as u64, allowed: u64::from(allowed) });
    }
    to.put_varint(list.len() as u64);
    list.for_each(|number| to.put_u16(number));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_meet_or_do_not() {
        let hello = |version_min, version_max| Hello { version_min, version_max, ..Hello::new("test") };
        assert_eq!(hello(1, 1).version(), Some(1));
        assert_eq!(hello(0, 7).version(), Some(2));
        assert_eq!(hello(2, 7).version(), Some(2));
        assert_eq!(hello(3, 7).version(), None);
        assert_eq!(hello(2, 1).version(), None);
        assert_eq!(hello(0, 0).version(), None);
    }

    #[test]
    fn a_list_that_is_too_long_or_not_there_is_refused() {
        let mut bytes = vec![200, 1];
        assert!(matches!(read_list(&mut Reader::new(&bytes), "list", 64), Err(DecodeError::Truncated { .. })));
        bytes.resize(402, 0);
        assert!(matches!(read_list(&mut Reader::new(&bytes), "list", 64), Err(DecodeError::TooLarge { .. })));
        assert_eq!(read_list(&mut Reader::new(&bytes), "list", 200).unwrap().len(), 200);
    }
}
