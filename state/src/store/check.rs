//! What a block says, without its place: for tools and fuzzing.

use super::block::{Block, Payload};
use super::filter::FilterPage;
use super::footer::Footer;
use super::frame::{FRAME_BYTES, Frames, stored_bytes};
use super::{BlockKind, Fault, Properties, Tombstones};

/// Checks all of a block but its checksum; says its kind. `bytes` is the block and nothing else.
///
/// # Errors
/// Its frame or its body is malformed.
pub fn check_block(bytes: &[u8]) -> Result<BlockKind, Fault> {
    let Some((head, stored)) = bytes.split_first_chunk::<FRAME_BYTES>() else {
        return Err(Fault::Ends { wanted: FRAME_BYTES, found: bytes.len() });
    };
    if stored_bytes(head) != bytes.len() {
        return Err(Fault::Size { found: stored_bytes(head) as u64, allowed: bytes.len() as u64 });
    }
    let kind = BlockKind::from_code(head[4]).ok_or(Fault::Kind(head[4]))?;
    let body = Frames::default().unpack(head, stored)?;
    match kind {
        BlockKind::Data => Block::load(body, Payload::Row).map(drop)?,
        BlockKind::Leaf | BlockKind::Root => Block::load(body, Payload::Place).map(drop)?,
        BlockKind::Filter => FilterPage::load(body).map(drop)?,
        BlockKind::Tombstones => Tombstones::decode(&body).map(drop)?,
        BlockKind::Properties => Properties::decode(&body).map(drop)?,
        BlockKind::Footer => Footer::decode(&body).map(drop)?,
    }
    Ok(kind)
}
