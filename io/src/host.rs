//! What this machine is: facts for the operator, read from where the kernel shows them. What cannot be read is not
//! there; nothing fails.

use crate::sys::{self, Limit};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Release of the kernel, such as `6.1.0`; empty if it is not shown.
#[must_use]
pub fn kernel_release() -> String {
    line("/proc/sys/kernel/osrelease").unwrap_or_default()
}

/// Mode of seccomp for this process: 0 none, 1 strict, 2 a filter.
#[must_use]
pub fn seccomp_mode() -> Option<u8> {
    seccomp_of(&fs::read_to_string("/proc/self/status").ok()?)
}

fn seccomp_of(status: &str) -> Option<u8> {
    status.lines().find_map(|line| line.strip_prefix("Seccomp:"))?.trim().parse().ok()
}

/// Open files: the limit now, and to what it may be raised.
#[must_use]
pub fn open_files() -> Option<(u64, u64)> {
    Limit::OpenFiles.get().ok()
}

/// Lockable memory in bytes: the limit now, and to what it may be raised. `u64::MAX` is no limit.
#[must_use]
pub fn locked_memory() -> Option<(u64, u64)> {
    Limit::LockedMemory.get().ok()
}

/// Where the kernel takes its time from.
#[must_use]
pub fn clock_source() -> Option<String> {
    line("/sys/devices/system/clocksource/clocksource0/current_clocksource")
}

/// Whether somebody keeps the wall clock right, and the greatest error it may have, microseconds.
#[must_use]
pub fn clock_sync() -> Option<(bool, i64)> {
    sys::clock_sync().ok()
}

/// How the frequency of a CPU is governed; nothing where that is not shown, as in most virtual machines.
#[must_use]
pub fn governor(cpu: usize) -> Option<String> {
    line(format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))
}

/// For whom the kernel makes huge pages: `always`, `madvise` (who asks for them, as this program does) or `never`; nothing
/// where that is not shown.
#[must_use]
pub fn huge_pages() -> Option<String> {
    let modes = line("/sys/kernel/mm/transparent_hugepage/enabled")?;
    let chosen = modes.split_whitespace().find_map(|mode| mode.strip_prefix('[')?.strip_suffix(']'))?;
    Some(chosen.to_owned())
}

/// A file system and the device below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its type, such as `ext4`.
    pub kind: String,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Bytes that are free for this user.
    pub free_bytes: u64,
    /// Bytes that it has.
    pub total_bytes: u64,
    /// The device, if it is one.
    pub device: Option<Device>,
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As the kernel numbers it: `253:0`.
    pub number: String,
    /// Whether it turns.
    pub rotational: Option<bool>,
    /// `write back` (it has a cache that a flush empties) or `write through`.
    pub write_cache: Option<String>,
}

/// The file system that holds `path`, which must be there.
#[must_use]
pub fn file_system(path: &Path) -> Option<FileSystem> {
    let path = path.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let device = path.metadata().ok()?.dev();
    let number = format!("{}:{}", libc::major(device), libc::minor(device));
    let (mount, kind) = mount_of(&mounts, &path, &number)?;
    let (free_bytes, total_bytes) = sys::space(&path).ok()?;
    let device = device_of(Path::new("/sys/dev/block"), &number);
    Some(FileSystem { kind, mount, free_bytes, total_bytes, device })
}

/// Bytes of the file system that holds `path`: free for this user, and all.
#[must_use]
pub fn space(path: &Path) -> Option<(u64, u64)> {
    sys::space(path).ok()
}

/// Mount point and type of the file system of `path` in the text of `/proc/self/mountinfo`: of the longest mount point
/// above it, the last one mounted there; one whose number is that of the path's device comes first.
fn mount_of(mounts: &str, path: &Path, number: &str) -> Option<(PathBuf, String)> {
    let all = mounts.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let fields: Vec<&str> = left.split(' ').collect();
        let mount = PathBuf::from(fields.get(4)?.replace("\\040", " "));
        path.starts_with(&mount)
            .then(|| (*fields.get(2)? == number, mount, right.split(' ').next()?.to_owned()).into())
            .flatten()
    });
    all.max_by_key(|(same, mount, _): &(bool, PathBuf, String)| (*same, mount.components().count()))
        .map(|(_, mount, kind)| (mount, kind))
}

/// What is shown of a device; a partition's queue is that of its disk.
fn device_of(devices: &Path, number: &str) -> Option<Device> {
    let folder = devices.join(number).canonicalize().ok()?;
    let queue = [folder.join("queue"), folder.parent()?.join("queue")].into_iter().find(|queue| queue.exists())?;
    Some(Device {
        number: number.to_owned(),
        rotational: line(queue.join("rotational")).map(|text| text == "1"),
        write_cache: line(queue.join("write_cache")),
    })
}

fn line(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seccomp_mode_is_found() {
        assert_eq!(seccomp_of("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"), Some(2));
        assert_eq!(seccomp_of("Name:\tx\n"), None);
        assert!(seccomp_mode().is_some());
    }

    #[test]
    fn the_nearest_mount_counts() {
        let mounts = "1 0 253:0 / / rw - ext4 /dev/a rw\n2 1 253:1 / /data rw - xfs /dev/b rw\n\
                      3 1 0:9 / /da rw shared:1 - tmpfs t rw\n4 1 253:1 / /data\\040two rw - xfs /dev/b rw\n";
        let of = |path: &str, number| mount_of(mounts, Path::new(path), number).unwrap();
        assert_eq!(of("/data/x", "253:1"), ("/data".into(), "xfs".to_owned()));
        assert_eq!(of("/database", "253:0"), ("/".into(), "ext4".to_owned()));
        assert_eq!(of("/data two/x", "253:1").0, PathBuf::from("/data two"));
        assert_eq!(of("/data/x", "0:77").0, PathBuf::from("/data"), "numbers of some file systems are their own");
    }

    #[test]
    fn this_machine_shows_itself() {
        let found = file_system(&std::env::temp_dir()).unwrap();
        assert!(found.total_bytes >= found.free_bytes && found.total_bytes > 0, "{found:?}");
        assert!(!kernel_release().is_empty() && open_files().is_some() && locked_memory().is_some());
        assert!(clock_sync().is_some());
        assert!(device_of(Path::new("/sys/dev/block"), "9999:9").is_none());
        assert!(file_system(Path::new("/nonexistent")).is_none());
    }
}
