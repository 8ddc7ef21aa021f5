//! Batches that a reader got, as events.

use gristmill_base::codec::DecodeError;
use gristmill_base::event_batch::check_fetched;
use gristmill_base::ids::Offset;
use gristmill_core::request::{Answer, BatchFormat, BatchView, EventView};

/// The events of batches from an offset on, as a read of events shows them.
///
/// # Errors
/// Bytes that are no such batches, or batches that are not one behind the other.
pub fn events_of_batches(from: Offset, end: Offset, next: Offset, batches: &[BatchView]) -> Result<Answer, String> {
    let mut events: Vec<EventView> = Vec::new();
    let mut behind = 0;
    for batch in batches {
        let BatchView { format, first, append_micros, count, bytes } = batch;
        if *format != BatchFormat::Native || first.0 < behind || first.0 + u64::from(*count) > next.0 {
            return Err(format!("P2: {batch:?} was read, behind offset {behind} and before {next}"));
        }
        behind = first.0 + u64::from(*count);
        let add = |at: u32, event: gristmill_base::event_batch::BatchEvent<'_>| {
            let headers = event.headers.iter().map(|(name, value)| (name.into(), value.into())).collect();
            events.push(EventView {
                offset: Offset(first.0 + u64::from(at)),
                event_micros: event.event_micros,
                append_micros: *append_micros,
                key: event.key.into(),
                value: event.value.into(),
                headers,
            });
            Ok::<_, DecodeError>(())
        };
        check_fetched(*count, bytes, add).map_err(|error| format!("P1: {batch:?} cannot be read: {error}"))?;
    }
    events.retain(|event| event.offset >= from);
    Ok(Answer::Events { end, next, events })
}
