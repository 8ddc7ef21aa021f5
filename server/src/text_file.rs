//! Files of text that a person names: read whole, but never more than makes sense.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The text of a file of at most `bytes_max` bytes. What never ends, such as a device, is given up there.
///
/// # Errors
/// It cannot be read, is longer, or is no text.
pub(crate) fn read(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bytes_max as u64 + 1).read_to_string(&mut text)?;
    if text.len() > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_or_never_ends_is_refused() {
        let here = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        let whole = read(here, 1 << 20).unwrap();
        assert_eq!(read(here, whole.len()).unwrap(), whole);
        assert!(read(here, whole.len() - 1).unwrap_err().to_string().contains("more than"));
        assert!(read(Path::new("/dev/zero"), 1 << 20).unwrap_err().to_string().contains("more than 1048576 bytes"));
    }
}
