//! Checks before a start: what the machine lacks, and how to get it.

use crate::posix::PosixDisk;
use crate::ring::{self, RingError};
use crate::sys::{self, Limit};
use gristmill_base::env::DiskError;
use gristmill_base::files::Files;
use std::path::Path;
use std::{fmt, fs, io};

/// Locked memory that glommio demands at least, whatever it uses.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// Locked memory of a shard's background executor: three rings, each with glommio's registered memory, and slack.
const MEMLOCK_BYTES_PER_SHARD: u64 = 256 << 10;
/// Made and removed in the data directory.
const PROBE_FILE: &str = "preflight.tmp";

/// Something that the machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What is needed.
    pub what: String,
    /// What was found instead.
    pub found: String,
    /// How to get it.
    pub remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "missing: {}\n  found: {}\n  remedy: {}", self.what, self.found, self.remedy)
    }
}

/// Everything that a server with `shards` shards over the data directory `root`, which must be there, would lack on
/// this machine. Raises this process's limit of locked memory as far as it may.
#[must_use]
pub fn check(root: &Path, shards: u16) -> Vec<Missing> {
    let mut missing: Vec<Missing> = Vec::new();
    missing.extend(check_memlock(shards));
    missing.extend(check_ring());
    missing.extend(check_directory(root));
    missing
}

/// Bytes of locked memory that `shards` shards need.
#[must_use]
pub fn memlock_bytes(shards: u16) -> u64 {
    MEMLOCK_BYTES_MIN.max(u64::from(shards) * MEMLOCK_BYTES_PER_SHARD)
}

/// Raises this process's limit of open files as far as it may, for connections; gives what it is now.
///
/// # Errors
/// What the operating system says.
pub fn raise_open_files() -> io::Result<u64> {
    let (now, most) = Limit::OpenFiles.get()?;
    if now < most {
        Limit::OpenFiles.set(most, most)?;
    }
    Ok(most)
}

fn check_memlock(shards: u16) -> Option<Missing> {
    let need = memlock_bytes(shards);
    let found = match Limit::LockedMemory.get() {
        Ok((now, _)) if now >= need => return None,
        Ok((now, most)) => {
            // Root may raise the upper limit too.
            let may = most >= need || sys::is_root();
            if may && Limit::LockedMemory.set(need, most.max(need)).is_ok() {
                return None;
            }
            format!("a limit of {now} bytes that may be raised to {most}")
        }
        Err(error) => format!("the limit cannot be read: {error}"),
    };
    Some(Missing {
        what: format!("{need} bytes of lockable memory for {shards} shards"),
        found,
        remedy: format!(
            "LimitMEMLOCK={need} in the service's unit, --ulimit memlock={need} for a container, or ulimit -l {} in the \
             shell that starts it",
            need / 1_024
        ),
    })
}

fn check_ring() -> Option<Missing> {
    let what = "io_uring with deferred task work (Linux 6.1 or newer)".to_owned();
    match ring::probe() {
        Ok(lacking) if lacking.is_empty() => None,
        Ok(lacking) => Some(Missing {
            what,
            found: format!("a kernel without the operations {}", lacking.join(", ")),
            remedy: "run Linux 6.1 or newer".to_owned(),
        }),
        Err(error) => Some(Missing { what, found: ring_found(&error), remedy: ring_remedy(&error) }),
    }
}

/// What the kernel said, and what explains it.
fn ring_found(error: &RingError) -> String {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_else(|_| "absent".to_owned());
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_else(|_| "unknown".to_owned());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    format!(
        "{error}; kernel {}, kernel.io_uring_disabled is {}, seccomp mode is {}",
        release.trim(),
        disabled.trim(),
        seccomp_mode(&status).unwrap_or("unknown")
    )
}

/// The seccomp mode in the text of /proc/self/status: 0 none, 1 strict, 2 a filter.
fn seccomp_mode(status: &str) -> Option<&str> {
    status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim)
}

fn ring_remedy(error: &RingError) -> String {
    match error.errno {
        libc::EPERM | libc::EACCES => {
            "allow io_uring: sysctl kernel.io_uring_disabled=0; in a container whose seccomp mode is 2, a profile that \
             allows io_uring_setup, io_uring_enter and io_uring_register"
        }
        libc::ENOSYS => "run a kernel with io_uring (Linux 6.1 or newer), or a seccomp profile that does not hide it",
        libc::EINVAL => "run Linux 6.1 or newer",
        libc::ENOMEM => "more memory, or a higher limit of locked memory (ulimit -l, LimitMEMLOCK=)",
        libc::EMFILE | libc::ENFILE => "a higher limit of open files (ulimit -n, LimitNOFILE=)",
        _ => "see the error number in io_uring_setup(2)",
    }
    .to_owned()
}

fn check_directory(root: &Path) -> Option<Missing> {
    let mut disk = PosixDisk::new(root);
    let mut files = Files::new(&mut disk);
    // A probe that an earlier start could not remove.
    let _ = files.remove(PROBE_FILE);
    let tried = files.create_file("", PROBE_FILE, b"probe").and_then(|()| files.remove(PROBE_FILE));
    let error = tried.err()?;
    // Where direct I/O is refused, the file may have been made all the same.
    let _ = files.remove(PROBE_FILE);
    Some(directory_missing(root, &error))
}

fn directory_missing(root: &Path, error: &DiskError) -> Missing {
    let remedy = match error.code {
        libc::EINVAL | libc::EOPNOTSUPP => {
            "put the data directory on a file system with direct I/O (O_DIRECT), such as ext4 or XFS on a local disk"
        }
        libc::EACCES | libc::EPERM => "give the server's user write access to the data directory",
        libc::EROFS => "mount the file system writable",
        libc::ENOSPC | libc::EDQUOT => "free some space on the file system",
        libc::ENOENT => "make the data directory",
        _ => "see the error number",
    };
    Missing {
        what: format!("a data directory that can be written with direct I/O: {}", root.display()),
        found: error.to_string(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_what_is_needed() {
        let missing = check(&std::env::temp_dir(), 4);
        assert!(missing.is_empty(), "{missing:?}");
        assert!(Limit::LockedMemory.get().unwrap().0 >= memlock_bytes(4));
    }

    #[test]
    fn a_directory_that_is_not_there_or_lacks_direct_io_is_told() {
        let missing = check_directory(Path::new("/nonexistent/gristmill")).unwrap();
        assert!(missing.found.contains("not found"), "{missing}");
        assert_eq!(missing.remedy, "make the data directory");
        let missing = check_directory(Path::new("/proc")).unwrap();
        assert!(missing.to_string().contains("/proc"), "{missing}");
    }

    #[test]
    fn each_refusal_of_the_kernel_has_its_remedy() {
        let remedy = |errno| ring_remedy(&RingError { step: "io_uring_setup", errno });
        assert!(remedy(libc::EPERM).contains("kernel.io_uring_disabled=0"));
        assert!(remedy(libc::EINVAL).contains("6.1"));
        assert!(remedy(libc::ENOMEM).contains("LimitMEMLOCK"));
        let found = ring_found(&RingError { step: "io_uring_setup", errno: libc::EPERM });
        assert!(found.contains("io_uring_setup failed") && found.contains("io_uring_disabled is"), "{found}");
    }

    #[test]
    fn open_files_are_raised_to_the_most_allowed() {
        let raised = raise_open_files().unwrap();
        assert_eq!(Limit::OpenFiles.get().unwrap(), (raised, raised));
    }

    #[test]
    fn the_seccomp_mode_is_found() {
        assert_eq!(seccomp_mode("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"), Some("2"));
        assert_eq!(seccomp_mode("Name:\tx\n"), None);
    }
}
