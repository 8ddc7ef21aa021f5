//! A lane as a slot's dump holds it: docs/internals/checkpoint.md.

use super::{Extent, Lane, Place};
use gristmill_base::codec::{DecodeError, Put, Reader};
use gristmill_base::ids::{LaneId, LaneKey, Offset, TopicId};

/// No file is as long: places beyond it are damage, and may be added without overflow.
const LANE_BYTES_MAX: u64 = 1 << 62;

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
        put_place(out, new.last().map_or(self.next, Extent::behind));
        let filed = new.last().map_or(self.filed(), |extent| extent.last);
        assert_eq!(filed, self.end, "a dump names all events");
        assert!(self.extents.first().is_none_or(|first| self.start <= first.last), "no chunk ends before the start");
        out.put_varint((self.extents.len() + new.len()) as u64);
        for extent in self.extents.iter().chain(new) {
            put_extent(out, extent);
        }
    }

    /// Takes its bytes. `is_of_version_1`: one file, and chunks without times.
    ///
    /// # Errors
    /// Bytes that are no lane.
    pub(crate) fn stored(from: &mut Reader<'_>, is_of_version_1: bool) -> Result<Self, DecodeError> {
        let key = LaneKey { topic: TopicId(from.varint_as("topic")?), lane: LaneId(from.varint_as("lane")?) };
        let start = Offset(from.varint()?);
        if start.0 == 0 {
            return Err(DecodeError::Unknown { what: "first offset of a lane", found: 0 });
        }
        let spread = from.u8()? != 0;
        let next = if is_of_version_1 { Place::FIRST } else { place(from)? };
        let mut extents: Vec<Extent> = Vec::new();
        for _ in 0..from.count(1)? {
            let extent = extent(from, is_of_version_1)?;
            let follows = match extents.last() {
                None => start <= extent.last,
                Some(before) => {
                    let is_behind = before.place.is_compacted() && !extent.place.is_compacted();
                    before.last < extent.first && (is_behind || before.behind() <= extent.place)
                }
            };
            if !follows || extent.last < extent.first {
                return Err(DecodeError::Unknown { what: "first offset of a chunk", found: extent.first.0 });
            }
            extents.push(extent);
        }
        if extents.last().is_some_and(|last| last.place.is_compacted() || last.behind() > next) {
            return Err(DecodeError::Unknown { what: "place of a lane's next chunk", found: next.position });
        }
        Ok(Self::restore(key, start, extents, next, spread))
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
    out.put_u8(u8::from(extent.times.is_some()) | u8::from(extent.has_holes) << 1);
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
    let place = if is_of_version_1 { Place { file: 0, position: from.varint()? } } else { place(from)? };
    let (bytes, crc) = (from.varint()?, from.u32()?);
    if place.position.max(bytes) > LANE_BYTES_MAX {
        return Err(DecodeError::Unknown { what: "place or length of a chunk", found: place.position.max(bytes) });
    }
    let flags = if is_of_version_1 { 0 } else { from.u8()? };
    if flags > 3 {
        return Err(DecodeError::Unknown { what: "flags of a chunk", found: flags.into() });
    }
    let times = if flags & 1 != 0 { Some((from.varint()?, from.varint()?)) } else { None };
    Ok(Extent { first, last, place, bytes, crc, times, has_holes: flags & 2 != 0 })
}
