//! What a server tells of itself in the reply to hello.

use gristmill_base::ids::{SessionId, SessionKey, ShardId};
use gristmill_base::limits::{
    CONNECTION_BYTES_MAX, CONNECTION_REQUESTS_MAX, FRAME_BYTES_MAX, FRAME_OPERATIONS_MAX, KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use gristmill_wire::{Hello, HelloReply, OpCode, PROTOCOL_VERSION, PROTOCOL_VERSION_OLDEST, Status};

/// Who the server is and where every key lives. The same for all shards but for `shard`; owners of slots change when slots are
/// moved.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The shard that serves the connections.
    pub shard: ShardId,
    /// Id of the data directory.
    pub data_directory: u128,
    /// Rises with every change of the two lists that follow.
    pub placement_version: u64,
    /// The port of each shard; 0 where a shard has none of its own. At most as many as a hello may list.
    pub ports: Vec<u16>,
    /// The shard of each slot.
    pub slots: Vec<ShardId>,
}

impl Greeting {
    /// The reply to the hello of a client that now has `session`, whose key is `key`, on a connection of this version of the
    /// protocol.
    #[must_use]
    pub fn reply(&self, version: u16, session: SessionId, key: SessionKey) -> HelloReply {
        let bytes = |limit: usize| u32::try_from(limit).expect("limits of the protocol have 32 bits");
        HelloReply {
            version,
            server: concat!("gristmill ", env!("CARGO_PKG_VERSION")).to_owned(),
            data_directory: self.data_directory.to_le_bytes(),
            session,
            key,
            credit_requests: CONNECTION_REQUESTS_MAX,
            credit_bytes: bytes(CONNECTION_BYTES_MAX),
            frame_bytes_max: bytes(FRAME_BYTES_MAX),
            frame_operations_max: bytes(FRAME_OPERATIONS_MAX),
            key_bytes_max: bytes(KEY_BYTES_MAX),
            value_bytes_max: bytes(VALUE_BYTES_MAX),
            shard: self.shard,
            placement_version: self.placement_version,
            ports: self.ports.clone(),
            slots: self.slots.clone(),
        }
    }
}

/// Why an operation cannot come on a connection of this version of the protocol.
pub(crate) fn beyond_version(code: OpCode, version: u16) -> Option<(Status, String)> {
    (code.since() > version).then(|| {
        let message = format!(
            "{} is of version {} of the protocol; this connection speaks version {version}, as hello said",
            code.name(),
            code.since()
        );
        (Status::Unsupported, message)
    })
}

/// Why a first hello cannot be accepted.
pub(crate) fn refuse_hello(hello: &Hello<'_>) -> Option<(Status, String)> {
    if hello.version().is_none() {
        let (oldest, newest) = (hello.version_min, hello.version_max);
        let message = format!(
            "the client speaks versions {oldest} to {newest} of the protocol, this server {PROTOCOL_VERSION_OLDEST} to {PROTOCOL_VERSION}"
        );
        return Some((Status::UnsupportedVersion, message));
    }
    if !hello.mechanism.is_empty() {
        let message =
            format!("credentials of mechanism {:?} are not known; without any, hello is accepted", hello.mechanism);
        return Some((Status::Unauthenticated, message));
    }
    None
}
