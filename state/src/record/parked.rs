use crate::input::Origin;
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::limits::{NAME_BYTES_MAX, VALUE_BYTES_MAX};

/// Why a grain does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// For people.
    pub reason: String,
    /// Attempts at the input that parked it.
    pub attempts: u32,
    /// Engine microseconds.
    pub since_micros: u64,
    /// What went wrong, in a word; empty in records of older versions.
    pub kind: Box<str>,
    /// The input that failed: its place in a stream, or a timer. `None` if it is none of those that wait (it was answered, or
    /// given up), and in records of older versions.
    pub failed: Option<Origin>,
}

impl Parked {
    /// Adds its bytes. Shared with checkpoints.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_bytes(self.reason.as_bytes());
        out.put_varint(self.attempts.into());
        out.put_varint(self.since_micros);
    }

    /// Takes its bytes.
    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            reason: from.text("reason", VALUE_BYTES_MAX)?.to_owned(),
            attempts: from.varint_as("attempts")?,
            since_micros: from.varint()?,
            kind: "".into(),
            failed: None,
        })
    }

    /// Whether there is more than [`Self::encode`] writes.
    pub(crate) fn has_details(&self) -> bool {
        !self.kind.is_empty() || self.failed.is_some()
    }

    /// Adds the bytes of the rest. Shared with checkpoints.
    pub(crate) fn encode_details(&self, out: &mut Vec<u8>) {
        out.put_bytes(self.kind.as_bytes());
        match &self.failed {
            None => out.put_u8(0),
            Some(failed) => {
                out.put_u8(1);
                failed.encode(out);
            }
        }
    }

    /// Takes the bytes of the rest.
    pub(crate) fn decode_details(&mut self, from: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.kind = from.text("kind", NAME_BYTES_MAX)?.into();
        self.failed = match from.u8()? {
            0 => None,
            1 => Some(Origin::decode(from)?),
            found => return Err(DecodeError::Unknown { what: "presence", found: found.into() }),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::input::{GrainAddress, GrainOperation, Input, InputCause, Origin, StreamId};
    use crate::record::{Commit, Parked, Spilled};
    use gristmill_base::class::InputClass;
    use gristmill_base::codec::DecodeError;
    use gristmill_base::ids::{HandlerId, SlotId, Ssn, TableId};

    fn commit() -> Commit {
        Commit::new(GrainAddress { table: TableId(7), key: b"k".as_slice().into() }, 1, 300)
    }

    fn parked(kind: &str, failed: Option<Origin>) -> Commit {
        let parked = Parked { reason: "bad".into(), attempts: 2, since_micros: 5, kind: kind.into(), failed };
        Commit { parked: Some(Some(parked)), ..commit() }
    }

    #[track_caller]
    fn holds(commit: &Commit, golden: &[u8]) {
        let mut bytes = Vec::new();
        commit.encode(&mut bytes);
        assert_eq!(bytes, golden);
        assert_eq!(Commit::decode(golden).as_ref(), Ok(commit));
        (0..golden.len()).for_each(|cut| assert!(Commit::decode(&golden[..cut]).is_err()));
    }

    #[test]
    fn golden_bytes_of_what_parks() {
        // Without details it is what older versions wrote, and is read as theirs.
        let before = [0, 2, 7, 1, b'k', 1, 0xac, 2, 3, b'b', b'a', b'd', 2, 5];
        holds(&parked("", None), &before);
        let with = |details: &[u8]| [&[0, 0x82], &before[2..], details].concat();
        holds(&parked("no", None), &with(&[2, b'n', b'o', 0]));
        let stream = Origin::Stream(StreamId::Slot(SlotId(2)), 8);
        holds(&parked("no", Some(stream)), &with(&[2, b'n', b'o', 1, 1, 2, 2, 8]));
        holds(&parked("", Some(Origin::Backlog(300))), &with(&[0, 1, 2, 0xac, 2]));
        holds(&parked("no", Some(Origin::Timer("t".into(), Ssn(4)))), &with(&[2, b'n', b'o', 1, 3, 1, b't', 4]));
        // Details of nothing that is parked.
        let found = 1 << 15;
        let refused = Commit::decode(&[0, 0x80, 7, 1, b'k', 1, 0xac, 2, 0, 0]);
        assert_eq!(refused, Err(DecodeError::Unknown { what: "commit field", found }));
    }

    #[test]
    fn golden_bytes_of_an_edit() {
        let operation = GrainOperation::Call(HandlerId(9), b"p".as_slice().into());
        let input = Input {
            cause: InputCause::Message,
            operation,
            hops: 1,
            class: InputClass::Live,
            callback: None,
            replayed: false,
        };
        let edited = Spilled { n: 300, origin: Origin::Stream(StreamId::Slot(SlotId(2)), 8), input };
        let row = [0xac, 2, 1, 2, 2, 8, 3, 6, 9, 1, b'p', 1, 0];
        let golden = [&[0, 0x40, 7, 1, b'k', 1, 0xac, 2][..], &row].concat();
        holds(&Commit { edited: Some(edited), ..commit() }, &golden);
    }
}
