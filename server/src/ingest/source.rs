//! The files of a bounded input: what is noted of them when it begins, and whether they are the same when it goes on.

use super::registry::Source;
use crate::exit::{Exit, Failed};
use gristmill_base::checksum::{crc32c, crc32c_append};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::time::UNIX_EPOCH;

/// Bytes at each end of a file that are looked at.
const ENDS_BYTES: u64 = 64 << 10;

fn no(path: &str, why: impl std::fmt::Display) -> Failed {
    Failed::new(Exit::No, format!("{path}: {why}"))
}

impl Source {
    /// What there is to be noted of a file, or of standard input (`-`).
    ///
    /// # Errors
    /// It is not there, cannot be read, or is no file.
    pub(super) fn look(path: &str) -> Result<Self, Failed> {
        if path == "-" {
            return Ok(Self { path: path.to_owned(), bytes: 0, modified_nanos: 0, crc: 0 });
        }
        let look = || -> std::io::Result<Self> {
            let mut file = File::open(path)?;
            let about = file.metadata()?;
            if !about.is_file() {
                return Err(std::io::Error::other("not a regular file; pipes go to standard input"));
            }
            let modified = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let mut bytes = Vec::new();
            (&mut file).take(ENDS_BYTES).read_to_end(&mut bytes)?;
            let first = crc32c(&bytes);
            bytes.clear();
            file.seek(SeekFrom::Start(about.len().saturating_sub(ENDS_BYTES)))?;
            (&mut file).take(ENDS_BYTES).read_to_end(&mut bytes)?;
            let modified_nanos = u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX);
            let crc = crc32c_append(first, &bytes);
            Ok(Self { path: path.to_owned(), bytes: about.len(), modified_nanos, crc })
        };
        look().map_err(|error| no(path, error))
    }

    /// Whether it is what it was. An error says what is different and what can be done.
    ///
    /// # Errors
    /// It has changed since, or is gone.
    pub(super) fn check_same(&self) -> Result<(), Failed> {
        let hint =
            "what was appended stays; put the file back as it was to go on, or load the new one under another name";
        let now = Self::look(&self.path)
            .map_err(|gone| Failed::new(Exit::No, format!("{gone}: it was there when this input began; {hint}")))?;
        let (was, is) = (self.bytes, now.bytes);
        if is < was {
            return Err(no(
                &self.path,
                format!("it has shrunk from {was} to {is} bytes since this input began; {hint}"),
            ));
        }
        if is > was {
            return Err(no(
                &self.path,
                format!("it has grown from {was} to {is} bytes since this input began; {hint}"),
            ));
        }
        if now != *self {
            let what =
                if now.crc == self.crc { "the time of its last change is another" } else { "its content is another" };
            return Err(no(&self.path, format!("it has changed since this input began ({what}); {hint}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_shrank_grew_changed_or_vanished_is_told() {
        let folder = std::env::temp_dir().join(format!("gristmill-source-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a");
        let text = path.to_str().unwrap();
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let source = Source::look(text).unwrap();
        assert_eq!(source.check_same(), Ok(()));
        for (content, told) in [("one\n", "shrunk from 8 to 4"), ("one\ntwo\n3\n", "grown"), ("one\nTWO\n", "content")]
        {
            std::fs::write(&path, content).unwrap();
            let failed = source.check_same().unwrap_err();
            assert!(failed.message.contains(told), "{failed}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(source.check_same().unwrap_err().message.contains("was there when this input began"));
    }
}
