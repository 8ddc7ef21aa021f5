use super::Sent;
use super::commit::{items, list};
use crate::input::{StreamId, Target};
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::SlotId;

/// A gap record: positions of a stream that the slot will never handle, because retention lets them go before they were
/// handed over. What was handed over before is not among them; what is done when it is applied is not skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The stream.
    pub stream: StreamId,
    /// First position that is skipped.
    pub first: u64,
    /// Last position that is skipped.
    pub last: u64,
    /// The stream's cursor once this record is applied: before `first` while something before it is not done.
    pub cursor: u64,
    /// Engine time, microseconds.
    pub time_micros: u64,
    /// The event that tells of it, if the handler has a dead-letter topic.
    pub sent: Vec<Sent>,
}

impl Gap {
    /// Adds its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.stream.encode(out);
        for number in [self.first, self.last, self.cursor, self.time_micros] {
            out.put_varint(number);
        }
        list(out, &self.sent, |out, sent| {
            out.put_varint(sent.to.0.into());
            out.put_varint(sent.seq);
            sent.target.encode(out);
        });
    }

    /// Decodes a whole body.
    ///
    /// # Errors
    /// Bytes that are no gap record.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(body);
        let gap = Self {
            stream: StreamId::decode(&mut from)?,
            first: from.varint()?,
            last: from.varint()?,
            cursor: from.varint()?,
            time_micros: from.varint()?,
            sent: items(&mut from, |from| {
                let (to, seq) = (SlotId(from.varint_as("slot")?), from.varint()?);
                Ok(Sent { to, seq, target: Target::decode(from)? })
            })?,
        };
        from.end()?;
        if gap.first > gap.last {
            return Err(DecodeError::Unknown { what: "last position of a gap", found: gap.last });
        }
        Ok(gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gristmill_base::class::InputClass;
    use gristmill_base::ids::{LaneId, LaneKey, SubscriptionId, TopicId};

    #[test]
    fn golden_bytes() {
        let stream = StreamId::Topic { subscription: SubscriptionId(9), lane: LaneId(3) };
        let lane = LaneKey { topic: TopicId(5), lane: LaneId(1) };
        let target = Target::Lane(lane, InputClass::Live, [7].into(), [8, 8].into());
        let sent = vec![Sent { to: SlotId(2), seq: 4, target }];
        let gap = Gap { stream, first: 300, last: 301, cursor: 299, time_micros: 6, sent };
        let mut bytes = Vec::new();
        gap.encode(&mut bytes);
        assert_eq!(bytes, [1, 9, 3, 0xac, 2, 0xad, 2, 0xab, 2, 6, 1, 2, 4, 2, 5, 1, 1, 7, 2, 8, 8]);
        assert_eq!(Gap::decode(&bytes), Ok(gap.clone()));
        assert!(Gap::decode(&bytes[..bytes.len() - 1]).is_err());
        let mut bytes = Vec::new();
        Gap { last: 299, ..gap }.encode(&mut bytes);
        assert!(Gap::decode(&bytes).is_err());
    }
}
