//! The secret behind the keys of client sessions: a session is a capability, and only who was given its key goes on
//! with it. See docs/decisions/0007-a-session-is-a-capability.md.
//!
//! The file `session-secret` holds it twice, at block 0 and at block 1:
//!
//! | bytes | field |
//! | --- | --- |
//! | 0, 8 | magic `GMSECRET` |
//! | 8, 4 | version |
//! | 12, 4 | zero |
//! | 16, 32 | the secret |
//! | 48, 4 | CRC32C of bytes 0 to 48 |

use gristmill_base::checksum::crc32c;
use gristmill_base::codec::{Put, Reader};
use gristmill_base::env::{DiskError, DiskOp, Rng};
use gristmill_base::files::Files;
use gristmill_base::ids::{SessionId, SessionKey};
use gristmill_base::limits::BLOCK_BYTES;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;

/// Name of the file.
pub const SECRET_FILE: &str = "session-secret";
const MAGIC: [u8; 8] = *b"GMSECRET";
const VERSION: u32 = 1;
const BYTES: usize = 52;
/// What a key is for, so that a later use of the secret cannot make the same one.
const PURPOSE: &[u8] = b"gristmill session";

/// See the module. Never shown, not even by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionSecret([u8; 32]);

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

impl SessionSecret {
    /// A new secret. `rng` must be one that nobody can guess: that of the kernel, outside of tests.
    #[must_use]
    pub fn new(rng: &mut dyn Rng) -> Self {
        let mut secret = [0; 32];
        let (words, _) = secret.as_chunks_mut::<8>();
        words.iter_mut().for_each(|word| *word = rng.next_u64().to_le_bytes());
        Self(secret)
    }

    /// The secret of a data directory; a new one, durable, if the file is missing or neither copy is readable: sessions
    /// given out before cannot be gone on with then. One copy that is not readable is made anew. The second value says
    /// what was wrong, for the operator. Blocking.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn load_or_make(files: &mut Files<'_>, rng: &mut dyn Rng) -> Result<(Self, Option<String>), DiskError> {
        let found = match files.read_declared(SECRET_FILE, |_| 2 * BLOCK_BYTES as u64)? {
            None => "is missing".to_owned(),
            Some(bytes) => {
                let copy = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<BYTES>());
                match [0, BLOCK_BYTES].map(|at| copy(at).and_then(Self::decode)) {
                    [None, None] => {}
                    [Some(secret), Some(_)] => return Ok((secret, None)),
                    [first, second] => {
                        let bad = if first.is_none() { 0 } else { BLOCK_BYTES };
                        let secret = first.or(second).expect("one of them is readable");
                        secret.store(files)?;
                        let told =
                            format!("{SECRET_FILE}: the copy at byte {bad} is not readable ({} bytes)", bytes.len());
                        return Ok((secret, Some(repaired(&told))));
                    }
                }
                format!("has {} bytes and no readable copy of the secret in version {VERSION}", bytes.len())
            }
        };
        let secret = Self::new(rng);
        secret.store(files)?;
        let notice = format!("{SECRET_FILE} {found}; a new one was made, and sessions of earlier starts are expired");
        Ok((secret, Some(notice)))
    }

    /// Where a copy starts that cannot be read; none if there is no file, which a start makes. Blocking.
    ///
    /// # Errors
    /// What the disk says.
    pub(crate) fn damaged_copies(files: &mut Files<'_>) -> Result<Vec<u64>, DiskError> {
        let Some(bytes) = files.read_declared(SECRET_FILE, |_| 2 * BLOCK_BYTES as u64)? else { return Ok(Vec::new()) };
        let is_good = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<BYTES>()).and_then(Self::decode);
        Ok([0, BLOCK_BYTES].into_iter().filter(|at| is_good(*at).is_none()).map(|at| at as u64).collect())
    }

    fn store(&self, files: &mut Files<'_>) -> Result<(), DiskError> {
        let fresh = format!("{SECRET_FILE}.new");
        files.remove_if_there(&fresh)?;
        let mut bytes = self.encode();
        bytes.resize(BLOCK_BYTES, 0);
        bytes.extend_from_slice(&self.encode());
        files.create_file("", &fresh, &bytes)?;
        files.run(DiskOp::Rename { from: fresh, to: SECRET_FILE.to_owned() })?;
        files.flush_dir("")
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(2 * BLOCK_BYTES);
        bytes.extend_from_slice(&MAGIC);
        bytes.put_u32(VERSION);
        bytes.put_u32(0);
        bytes.extend_from_slice(&self.0);
        let crc = crc32c(&bytes);
        bytes.put_u32(crc);
        bytes
    }

    fn decode(bytes: &[u8; BYTES]) -> Option<Self> {
        let mut from = Reader::new(bytes);
        let known = from.take(8).ok()? == MAGIC && from.u32().ok()? == VERSION && from.u32().ok()? == 0;
        let secret = *from.take(32).ok()?.first_chunk::<32>()?;
        (known && from.u32().ok()? == crc32c(&bytes[..BYTES - 4])).then_some(Self(secret))
    }

    fn mac(&self, session: SessionId) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(PURPOSE);
        mac.update(&session.0.to_le_bytes());
        mac
    }

    /// The key of a session: the first half of HMAC-SHA256(secret, purpose, id).
    #[must_use]
    pub fn key(&self, session: SessionId) -> SessionKey {
        let whole = self.mac(session).finalize().into_bytes();
        SessionKey(*whole.first_chunk::<16>().expect("SHA-256 has 32 bytes"))
    }

    /// Whether `key` is that of the session; takes the same time for every wrong one.
    #[must_use]
    pub fn proves(&self, session: SessionId, key: &SessionKey) -> bool {
        self.mac(session).verify_truncated_left(&key.0).is_ok()
    }
}

/// What the operator is told of a copy that was made anew.
pub(crate) fn repaired(what: &str) -> String {
    format!(
        "{what}; the other copy counts, and this one was made anew. A crash while it was written leaves one like that"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_its_own_session_only() {
        let (secret, other) = (SessionSecret([1; 32]), SessionSecret([2; 32]));
        let key = secret.key(SessionId(65));
        assert!(secret.proves(SessionId(65), &key));
        assert!(!secret.proves(SessionId(66), &key) && !other.proves(SessionId(65), &key));
        for byte in 0..16 {
            let mut near = key;
            near.0[byte] ^= 1;
            assert!(!secret.proves(SessionId(65), &near));
        }
    }

    /// HMAC-SHA256 as Python's hmac module computes it: keys of clients must outlive changes of libraries.
    #[test]
    fn the_key_is_the_documented_one() {
        let secret = SessionSecret(std::array::from_fn(|at| at as u8));
        let hex: String = secret.key(SessionId(65_537)).0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "de68bab74391fddd7b1df611e4453834");
    }

    #[test]
    fn bytes_come_back_and_damage_is_seen() {
        let secret = SessionSecret([7; 32]);
        let bytes: [u8; BYTES] = secret.encode().try_into().unwrap();
        assert_eq!(SessionSecret::decode(&bytes), Some(secret.clone()));
        for at in 0..BYTES {
            let mut damaged = bytes;
            damaged[at] ^= 1;
            assert_eq!(SessionSecret::decode(&damaged), None, "byte {at}");
        }
        assert_eq!(format!("{secret:?} {:?}", secret.key(SessionId(1))), "SessionSecret(..) SessionKey(..)");
    }
}
