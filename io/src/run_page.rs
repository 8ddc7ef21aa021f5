//! A page of the data directory in which a shard notes what user code it runs: mapped memory, so that a note is some stores and
//! outlives the process whatever ends it. It need not outlive the machine: notes of another boot of it mean nothing.

#![expect(unsafe_code, reason = "memory mapped from a file")]

use gristmill_base::checksum::crc32c;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// First bytes of a page; the last one is the version.
const MAGIC: [u8; 8] = *b"GRSTRUN\x01";
/// Bytes of the file.
const PAGE_BYTES: usize = 16 << 10;
/// Where the id of the machine's boot is: 36 bytes.
const BOOT_AT: usize = 8;
const BOOT_BYTES: usize = 36;
/// Where the note of a run is: its length, 0 for none, its checksum, its bytes.
const NOTE_AT: usize = 64;
/// Where the suspects are, in the same form.
const SUSPECTS_AT: usize = 4_096;
const HEAD_BYTES: usize = 8;
/// What the kernel says of the machine's boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What a page held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The run in which the process ended, if it was in one.
    pub run: Option<Vec<u8>>,
    /// Bytes of the suspects of before.
    pub suspects: Vec<u8>,
}

/// Name of a shard's page.
#[must_use]
pub fn page_name(shard: u16) -> String {
    format!("running-{shard}.page")
}

fn boot_id() -> [u8; BOOT_BYTES] {
    let text = fs::read(BOOT_ID).unwrap_or_default();
    text.first_chunk().copied().unwrap_or([b'?'; BOOT_BYTES])
}

/// Takes out of a folder what the shards of the last process have noted, however many there were, and removes their pages. What
/// cannot be read is nothing: a note is no promise.
#[must_use]
pub fn take_pages(root: &Path, shards_max: u16) -> Vec<Noted> {
    let mut noted = Vec::new();
    for shard in 0..shards_max {
        let path = root.join(page_name(shard));
        let Ok(bytes) = fs::read(&path) else { continue };
        noted.extend(read(&bytes, &boot_id()));
        let _ = fs::remove_file(&path);
    }
    noted
}

/// What a page says, if it is one, and of this boot of the machine.
fn read(page: &[u8], boot: &[u8; BOOT_BYTES]) -> Option<Noted> {
    if page.len() != PAGE_BYTES || page[..8] != MAGIC || page[BOOT_AT..BOOT_AT + BOOT_BYTES] != *boot {
        return None;
    }
    Some(Noted {
        run: area(page, NOTE_AT, SUSPECTS_AT).map(<[u8]>::to_vec),
        suspects: area(page, SUSPECTS_AT, PAGE_BYTES).unwrap_or_default().to_vec(),
    })
}

/// The bytes of one of the two areas.
fn area(page: &[u8], at: usize, end: usize) -> Option<&[u8]> {
    let number = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().expect("four bytes"));
    let (length, sum) = (number(at) as usize, number(at + 4));
    if length == 0 || length > end - at - HEAD_BYTES {
        return None;
    }
    let bytes = &page[at + HEAD_BYTES..at + HEAD_BYTES + length];
    (crc32c(bytes) == sum).then_some(bytes)
}

/// See the module. Belongs to the shard's thread.
#[derive(Debug)]
pub struct RunPage {
    start: NonNull<u8>,
    path: PathBuf,
}

// SAFETY: the mapping is owned by this value alone and bound to no thread.
unsafe impl Send for RunPage {}

impl RunPage {
    /// A new page of a shard, without a note.
    ///
    /// # Errors
    /// What the file system says.
    pub fn make(root: &Path, shard: u16) -> io::Result<Self> {
        let path = root.join(page_name(shard));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        let mut page = vec![0; PAGE_BYTES];
        page[..8].copy_from_slice(&MAGIC);
        page[BOOT_AT..BOOT_AT + BOOT_BYTES].copy_from_slice(&boot_id());
        // Written and not left sparse: a store into a hole of a full disk would end the process.
        file.write_all_at(&page, 0)?;
        let start = map(&file)?;
        Ok(Self { start, path })
    }

    /// Notes that a run begins.
    pub fn begin(&mut self, note: &[u8]) {
        self.put(NOTE_AT, SUSPECTS_AT, note);
    }

    /// Notes that it is over.
    pub fn end(&mut self) {
        self.length(NOTE_AT).store(0, Ordering::Release);
    }

    /// Notes what is suspected.
    pub fn suspect(&mut self, suspects: &[u8]) {
        self.put(SUSPECTS_AT, PAGE_BYTES, suspects);
    }

    /// Where the page is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn length(&self, at: usize) -> &AtomicU32 {
        assert!(at + HEAD_BYTES <= PAGE_BYTES && at.is_multiple_of(4), "an area is in the page");
        // SAFETY: the place is within the mapping.
        let place = unsafe { self.start.as_ptr().add(at) };
        // SAFETY: aligned, since the mapping starts at a page, and there as long as this value; nobody but this value's owner, and
        // after the end of the process a reader, looks at it.
        unsafe { AtomicU32::from_ptr(place.cast()) }
    }

    /// Empty first, the length last: whenever the process ends, an area is whole or nothing.
    fn put(&mut self, at: usize, end: usize, bytes: &[u8]) {
        self.length(at).store(0, Ordering::Release);
        if bytes.len() > end - at - HEAD_BYTES {
            return;
        }
        // SAFETY: the head of the area is within the mapping.
        let place = unsafe { self.start.as_ptr().add(at + HEAD_BYTES) };
        // SAFETY: the bytes fit behind the head; they are not part of the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) }
        self.length(at + 4).store(crc32c(bytes).to_le(), Ordering::Release);
        self.length(at).store((bytes.len() as u32).to_le(), Ordering::Release);
    }
}

fn map(file: &File) -> io::Result<NonNull<u8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: asks for new memory anywhere, over a file that is open during the call.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), PAGE_BYTES, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(start.cast()).expect("a mapping is not at address 0"))
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `make` made; nothing refers to it any more.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), PAGE_BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("gristmill-run-page-{}-{name}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        root
    }

    #[test]
    fn what_was_noted_is_found_until_it_is_over() {
        let root = folder("found");
        let mut page = RunPage::make(&root, 3).unwrap();
        page.suspect(b"two");
        page.begin(b"a run");
        // Whatever ends the process leaves the file as the memory is.
        let found = Noted { run: Some(b"a run".to_vec()), suspects: b"two".to_vec() };
        assert_eq!(take_pages(&root, 64), [found]);
        assert_eq!(take_pages(&root, 64), [], "they are gone");
        let mut page = RunPage::make(&root, 0).unwrap();
        page.begin(b"a run");
        page.end();
        page.suspect(&[1; PAGE_BYTES]);
        assert_eq!(take_pages(&root, 64), [Noted::default()], "what does not fit is nothing");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn garbage_and_notes_of_another_boot_are_nothing() {
        let root = folder("garbage");
        let mut page = RunPage::make(&root, 0).unwrap();
        page.begin(b"a run");
        let bytes = fs::read(page.path()).unwrap();
        let boot = boot_id();
        assert!(read(&bytes, &boot).unwrap().run.is_some());
        assert_eq!(read(&bytes, &[b'x'; BOOT_BYTES]), None);
        assert_eq!(read(&bytes[1..], &boot), None);
        for at in [0, 7, NOTE_AT, NOTE_AT + 1, NOTE_AT + 3, NOTE_AT + 4, NOTE_AT + 9] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert!(read(&damaged, &boot).is_none_or(|noted| noted.run.is_none()), "byte {at}");
        }
        fs::remove_dir_all(root).unwrap();
    }
}
