//! A frame as plain text.

use super::frame::Frame;
use crate::commands::output::{Columns, Printer};
use crate::exit::Failed;

/// Prints it.
///
/// # Errors
/// Nobody reads any more.
pub(super) fn print(frame: &Frame, printer: &mut Printer) -> Result<(), Failed> {
    printer.line(&frame.summary)?;
    for part in &frame.parts {
        printer.line("")?;
        printer.line(part.title)?;
        if part.rows.is_empty() {
            printer.line(part.empty)?;
            continue;
        }
        let mut columns = Columns::new(part.head);
        for (cells, mood) in &part.rows {
            columns.row(cells.clone());
            columns.mood(part.head[part.head.len() - 1], *mood);
        }
        printer.table(&columns)?;
    }
    Ok(())
}
