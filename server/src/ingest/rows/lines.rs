//! Lines.

use super::{Content, Place, ROW_BYTES_MAX, Row, at};
use crate::exit::Failed;
use gristmill_base::checksum::crc32c_append;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

/// See the module.
pub(super) struct Lines<R> {
    name: String,
    file: BufReader<R>,
    place: Place,
    /// Whether a checksum is kept.
    sums: bool,
}

impl<R: Read> Lines<R> {
    /// From the start.
    pub(super) fn new(name: &str, file: BufReader<R>, sums: bool) -> Self {
        Self { name: name.to_owned(), file, place: Place { line: 1, ..Place::default() }, sums }
    }

    fn take(&mut self, count: usize) {
        if self.sums {
            self.place.crc = crc32c_append(self.place.crc, &self.file.buffer()[..count]);
        }
        self.file.consume(count);
        self.place.offset += count as u64;
    }

    /// Reads to the end of the line; what is beyond the limit is read and dropped. Whether there was anything, and
    /// whether something was dropped.
    fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<(bool, bool)> {
        let (mut any, mut dropped) = (false, false);
        loop {
            let bytes = match self.file.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            if bytes.is_empty() {
                return Ok((any, dropped));
            }
            any = true;
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            let room = ROW_BYTES_MAX - line.len();
            line.extend_from_slice(&part[..part.len().min(room)]);
            dropped |= part.len() > room;
            let count = part.len() + usize::from(end.is_some());
            self.take(count);
            if end.is_some() {
                self.place.line += 1;
                return Ok((true, dropped));
            }
        }
    }
}

impl<R: Read + Seek> Lines<R> {
    /// From a place.
    pub(super) fn on_from(name: &str, mut file: BufReader<R>, from: Place) -> io::Result<Self> {
        file.seek(SeekFrom::Start(from.offset))?;
        let place = Place { line: from.line.max(1), ..from };
        Ok(Self { name: name.to_owned(), file, place, sums: false })
    }
}

impl<R: Read> super::Rows for Lines<R> {
    fn next_row(&mut self) -> Result<Option<Row>, Failed> {
        let number = self.place.line;
        let mut raw = Vec::new();
        let (any, dropped) = self.read_line(&mut raw).map_err(|error| at(&self.name, number, error))?;
        if !any {
            return Ok(None);
        }
        let content = if dropped {
            Err(format!("the line has more than {ROW_BYTES_MAX} bytes, which are allowed"))
        } else {
            Ok(Content::Line)
        };
        Ok(Some(Row { line: number, content, raw }))
    }

    fn place(&self) -> Place {
        self.place
    }

    fn may_wait(&self) -> bool {
        self.sums && self.file.buffer().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rows;
    use super::*;
    use std::io::Cursor;

    fn all(rows: &mut dyn Rows) -> Vec<(u64, Vec<u8>, bool)> {
        std::iter::from_fn(|| rows.next_row().unwrap().map(|row| (row.line, row.raw, row.content.is_ok()))).collect()
    }

    #[test]
    fn lines_are_read_on_from_any_of_them() {
        let text = b"one\n\nthree\nno end".to_vec();
        let mut lines = Lines::new("x", BufReader::with_capacity(3, Cursor::new(text.clone())), true);
        let whole = all(&mut lines);
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[3], (4, b"no end".to_vec(), true));
        assert_eq!(lines.place().crc, gristmill_base::checksum::crc32c(&text));
        let place = Place { offset: 5, line: 3, crc: 0 };
        let mut lines = Lines::on_from("x", BufReader::new(Cursor::new(text)), place).unwrap();
        assert_eq!(all(&mut lines), whole[2..]);
    }

    #[test]
    fn an_endless_line_is_malformed_and_the_next_one_is_not() {
        let mut text = vec![b'x'; ROW_BYTES_MAX + 1];
        text.extend_from_slice(b"\ngood\n");
        let rows = all(&mut Lines::new("x", BufReader::new(Cursor::new(text)), false));
        assert!(!rows[0].2 && rows[0].1.len() == ROW_BYTES_MAX);
        assert_eq!(rows[1], (2, b"good".to_vec(), true));
    }
}
