//! A lane as a slot's dump holds it: docs/internals/checkpoint.md.

use super::{Extent, Lane, Place};
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{LaneId, LaneKey, Offset, TopicId};

/// No file is as long: places beyond it are damage, and may be added without overflow.
pub(super) const LANE_BYTES_MAX: u64 = 1 << 62;

/// No lane has as many events; the same for offsets.
const OFFSET_MAX: u64 = 1 << 62;

/// How a dump has its lanes, by its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoredLane {
    /// One file, and chunks without times.
    InOneFile,
    /// No large batches.
    InFiles,
    /// As it is written.
    WithLarge,
}

impl Lane {
    /// Adds its bytes: what its files hold once `new`, chunks that the same checkpoint writes, are among them.
    ///
    /// # Panics
    /// With these chunks not all of its events are in files.
    pub(crate) fn store(&self, new: &[Extent], out: &mut Vec<u8>) {
        out.put_varint(self.key.topic.0.into());
        out.put_varint(self.key.lane.0.into());
        out.put_varint(self.start.0);
        out.put_u8(u8::from(self.spread));
        let chunk = new.iter().rev().find(|extent| extent.place.is_normal());
        put_place(out, chunk.map_or(self.next, Extent::behind));
        put_place(out, self.large.next());
        let filed = new.last().map_or(self.filed(), |extent| extent.last);
        assert_eq!(filed, self.end, "a dump names all events");
        assert!(self.extents.first().is_none_or(|first| self.start <= first.last), "no chunk ends before the start");
        out.put_varint((self.extents.len() + new.len()) as u64);
        for extent in self.extents.iter().chain(new) {
            put_extent(out, extent);
        }
    }

    /// Takes its bytes.
    ///
    /// # Errors
    /// Bytes that are no lane.
    pub(crate) fn stored(from: &mut Reader<'_>, of: StoredLane) -> Result<Self, DecodeError> {
        let is_of_version_1 = of == StoredLane::InOneFile;
        let key = LaneKey { topic: TopicId(from.varint_as("topic")?), lane: LaneId(from.varint_as("lane")?) };
        let start = Offset(from.varint()?);
        if start.0 == 0 {
            return Err(DecodeError::Unknown { what: "first offset of a lane", found: 0 });
        }
        let spread = from.u8()? != 0;
        let next = if is_of_version_1 { Place::FIRST } else { place(from)? };
        let next_large = if of == StoredLane::WithLarge { place(from)? } else { Place::FIRST_LARGE };
        if !next.is_normal() || !next_large.is_large() {
            return Err(DecodeError::Unknown { what: "file of a lane", found: next.file.max(next_large.file).into() });
        }
        let mut extents: Vec<Extent> = Vec::new();
        // Behind the last one of each kind.
        let (mut compacted, mut normal, mut large) = (None, None, None);
        for _ in 0..from.count(1)? {
            let extent = extent(from, is_of_version_1)?;
            let behind = match extent.place {
                place if place.is_compacted() => &mut compacted,
                place if place.is_large() => &mut large,
                _ => &mut normal,
            };
            let follows = match extents.last() {
                None => start <= extent.last,
                Some(before) => {
                    let is_behind = before.place.is_compacted() || !extent.place.is_compacted();
                    before.last < extent.first && is_behind
                }
            };
            let is_whole = !extent.place.is_large() || extent.has_batches && extent.times.is_some();
            if !follows || !is_whole || extent.last < extent.first || *behind > Some(extent.place) {
                return Err(DecodeError::Unknown { what: "first offset of a chunk", found: extent.first.0 });
            }
            *behind = Some(extent.behind());
            extents.push(extent);
        }
        if extents.last().is_some_and(|last| last.place.is_compacted())
            || normal > Some(next)
            || large > Some(next_large)
        {
            return Err(DecodeError::Unknown { what: "place of a lane's next chunk", found: next.position });
        }
        Ok(Self::restore(key, start, extents, (next, next_large), spread))
    }
}

fn put_place(out: &mut Vec<u8>, Place { file, position }: Place) {
    out.put_varint(file.into());
    out.put_varint(position);
}

fn put_extent(out: &mut Vec<u8>, extent: &Extent) {
    out.put_varint(extent.first.0);
    out.put_varint(extent.last.0);
    put_place(out, extent.place);
    out.put_varint(extent.bytes);
    out.put_u32(extent.crc);
    out.put_u8(u8::from(extent.times.is_some()) | u8::from(extent.has_holes) << 1 | u8::from(extent.has_batches) << 2);
    if let Some((first, last)) = extent.times {
        out.put_varint(first);
        out.put_varint(last);
    }
}

fn place(from: &mut Reader<'_>) -> Result<Place, DecodeError> {
    let place = Place { file: from.varint_as("file of a lane")?, position: from.varint()? };
    if place.file == u32::MAX || place.position > LANE_BYTES_MAX {
        return Err(DecodeError::Unknown { what: "place in a lane", found: place.position });
    }
    Ok(place)
}

fn extent(from: &mut Reader<'_>, is_of_version_1: bool) -> Result<Extent, DecodeError> {
    let (first, last) = (Offset(from.varint()?), Offset(from.varint()?));
    if last.0 > OFFSET_MAX {
        return Err(DecodeError::Unknown { what: "last offset of a chunk", found: last.0 });
    }
    let place = if is_of_version_1 { Place { file: 0, position: from.varint()? } } else { place(from)? };
    let (bytes, crc) = (from.varint()?, from.u32()?);
    if place.position.max(bytes) > LANE_BYTES_MAX {
        return Err(DecodeError::Unknown { what: "place or length of a chunk", found: place.position.max(bytes) });
    }
    let flags = if is_of_version_1 { 0 } else { from.u8()? };
    // A chunk with both would not be one that is written.
    if flags > 5 {
        return Err(DecodeError::Unknown { what: "flags of a chunk", found: flags.into() });
    }
    let times = if flags & 1 != 0 { Some((from.varint()?, from.varint()?)) } else { None };
    let (has_holes, has_batches) = (flags & 2 != 0, flags & 4 != 0);
    Ok(Extent { first, last, place, bytes, crc, times, has_holes, has_batches })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::{COMPACTED_FILE, LARGE_FILE};

    fn extent(first: u64, last: u64, place: Place) -> Extent {
        let (first, last, bytes, crc) = (Offset(first), Offset(last), 300, 0x0403_0201);
        Extent { first, last, place, bytes, crc, times: None, has_holes: false, has_batches: false }
    }

    /// One chunk of each kind.
    fn extents() -> Vec<Extent> {
        let place = |file, position| Place { file, position };
        vec![
            Extent { has_holes: true, times: Some((5, 130)), ..extent(7, 20, place(COMPACTED_FILE | 2, 0)) },
            extent(25, 27, place(3, 0)),
            Extent { has_batches: true, times: Some((135, 135)), ..extent(28, 30, place(LARGE_FILE + 1, 0)) },
            Extent { has_batches: true, times: Some((136, 140)), ..extent(31, 300, place(3, 4_096)) },
        ]
    }

    #[test]
    fn golden_bytes_of_a_lane_with_chunks_of_each_kind() {
        let key = LaneKey { topic: TopicId(9), lane: LaneId(4) };
        let extents = extents();
        let lane = Lane::restore(key, Offset(7), extents.clone(), (extents[3].behind(), extents[2].behind()), true);
        let mut bytes = Vec::new();
        lane.store(&[], &mut bytes);
        // Topic, lane, start, spread, places of the next chunk and of the next large batch; chunks: first, last, place, length, checksum, flags, times.
        let head = b"\x09\x04\x07\x01\x03\x80\x40\x81\x80\x80\x80\x04\x80\x20\x04";
        let with_holes = b"\x07\x14\x82\x80\x80\x80\x08\x00\xac\x02\x01\x02\x03\x04\x03\x05\x82\x01";
        let plain = b"\x19\x1b\x03\x00\xac\x02\x01\x02\x03\x04\x00";
        let large = b"\x1c\x1e\x81\x80\x80\x80\x04\x00\xac\x02\x01\x02\x03\x04\x05\x87\x01\x87\x01";
        let with_batches = b"\x1f\xac\x02\x03\x80\x20\xac\x02\x01\x02\x03\x04\x05\x88\x01\x8c\x01";
        assert_eq!(bytes, [&head[..], with_holes, plain, large, with_batches].concat());
        let mut from = Reader::new(&bytes);
        let again = Lane::stored(&mut from, StoredLane::WithLarge).unwrap();
        assert_eq!((again.extents(), again.next, again.end(), from.left()), (&*extents, lane.next, Offset(300), 0));
        assert!(
            (0..bytes.len()).all(|end| Lane::stored(&mut Reader::new(&bytes[..end]), StoredLane::WithLarge).is_err())
        );
        // A chunk with holes and batches, and flags that nobody knows.
        let flags = head.len() + with_holes.len() + plain.len() - 1;
        for wrong in [6, 7, 8, 255] {
            let mut bytes = bytes.clone();
            bytes[flags] = wrong;
            let error = Lane::stored(&mut Reader::new(&bytes), StoredLane::WithLarge).unwrap_err();
            assert_eq!(error, DecodeError::Unknown { what: "flags of a chunk", found: wrong.into() });
        }
    }
}
