//! Checks before a start: what the machine lacks, and how to get it.

use crate::host;
use crate::posix::PosixDisk;
use crate::ring::{self, RingError};
use crate::sys::{self, Limit};
use gristmill_base::env::DiskError;
use gristmill_base::files::Files;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{fmt, fs};

/// Locked memory that glommio demands at least, whatever it uses.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;
/// Locked memory of a shard's background executor: three rings, each with glommio's registered memory, and slack.
const MEMLOCK_BYTES_PER_SHARD: u64 = 256 << 10;
/// Numbers of this process's probe files.
static PROBES: AtomicU64 = AtomicU64::new(0);

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
/// this machine, its descriptors aside, which [`crate::descriptors`] counts. Raises this process's limit of locked memory
/// as far as it may.
#[must_use]
pub fn check(root: &Path, shards: u16) -> Vec<Missing> {
    let mut missing: Vec<Missing> = Vec::new();
    missing.extend(memlock(shards));
    missing.extend(io_uring());
    missing.extend(directory(root));
    missing
}

/// Bytes of locked memory that `shards` shards need.
#[must_use]
pub fn memlock_bytes(shards: u16) -> u64 {
    MEMLOCK_BYTES_MIN.max(u64::from(shards) * MEMLOCK_BYTES_PER_SHARD)
}

/// The lockable memory that `shards` shards lack. Raises the limit as far as it may.
#[must_use]
pub fn memlock(shards: u16) -> Option<Missing> {
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

/// What of io_uring is lacking.
#[must_use]
pub fn io_uring() -> Option<Missing> {
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
    let seccomp = host::seccomp_mode();
    format!(
        "{error}: {}; kernel {}, kernel.io_uring_disabled is {}, seccomp mode is {}",
        refusal(error.errno, disabled.trim(), seccomp),
        host::kernel_release(),
        disabled.trim(),
        seccomp.map_or_else(|| "unknown".to_owned(), |mode| mode.to_string()),
    )
}

/// Which of its refusals the kernel's number most likely is.
fn refusal(errno: i32, disabled: &str, seccomp: Option<u8>) -> &'static str {
    match (errno, disabled) {
        (libc::EPERM, "2") => "switched off by kernel.io_uring_disabled",
        (libc::EPERM, "1") => "kernel.io_uring_disabled leaves it to kernel.io_uring_group",
        (libc::EPERM | libc::EACCES, _) if seccomp == Some(2) => "forbidden by a seccomp filter",
        (libc::EPERM | libc::EACCES, _) => "forbidden by a security module",
        (libc::ENOSYS, _) if seccomp == Some(2) => "not in this kernel, or hidden by a seccomp filter",
        (libc::ENOSYS, _) => "not in this kernel",
        (libc::ENOMEM, _) => "too little memory may be locked, or there is none",
        (libc::EINVAL, _) => "the kernel is too old for its settings",
        (libc::EMFILE | libc::ENFILE, _) => "no descriptors are left",
        _ => "for another reason",
    }
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

/// What the data directory `root`, which must be there, lacks. Makes a file in it and removes it again.
#[must_use]
pub fn directory(root: &Path) -> Option<Missing> {
    let mut disk = PosixDisk::new(root);
    let mut files = Files::new(&mut disk);
    sweep(&mut files);
    // Others may look at the same directory at the same time.
    let probe = format!("preflight-{}-{}.tmp", std::process::id(), PROBES.fetch_add(1, Ordering::Relaxed));
    let tried = files.create_file("", &probe, b"probe").and_then(|()| files.remove(&probe));
    let error = tried.err()?;
    // Where direct I/O is refused, the file may have been made all the same.
    let _ = files.remove(&probe);
    Some(directory_missing(root, &error))
}

/// Removes files of processes that are gone: a power cut may bring back what was removed.
fn sweep(files: &mut Files<'_>) {
    let process = |name: &String| -> Option<u32> {
        let (process, number) = name.strip_prefix("preflight-")?.strip_suffix(".tmp")?.split_once('-')?;
        number.parse::<u64>().ok()?;
        process.parse().ok()
    };
    for name in files.list("").unwrap_or_default() {
        if process(&name).is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            // What cannot be removed now is tried again at the next start.
            let _ = files.remove(&name);
        }
    }
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
        let missing = directory(Path::new("/nonexistent/gristmill")).unwrap();
        assert!(missing.found.contains("not found"), "{missing}");
        assert_eq!(missing.remedy, "make the data directory");
        let missing = directory(Path::new("/proc")).unwrap();
        assert!(missing.to_string().contains("/proc"), "{missing}");
    }

    #[test]
    fn what_processes_that_are_gone_have_left_is_removed() {
        let folder = std::env::temp_dir().join(format!("gristmill-preflight-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let own = format!("preflight-{}-9.tmp", std::process::id());
        // No process has such a number.
        let names = ["preflight-4294967295-0.tmp", &own, "preflight-x-0.tmp", "preflight-4294967295-0.seg"];
        names.iter().for_each(|name| std::fs::write(folder.join(name), b"").unwrap());
        assert_eq!(directory(&folder), None);
        assert_eq!(names.map(|name| folder.join(name).exists()), [false, true, true, true]);
        std::fs::remove_dir_all(&folder).unwrap();
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
    fn refusals_are_told_apart() {
        assert!(refusal(libc::EPERM, "2", Some(2)).contains("io_uring_disabled"));
        assert!(refusal(libc::EPERM, "0", Some(2)).contains("seccomp"));
        assert!(refusal(libc::EPERM, "absent", Some(0)).contains("security module"));
        assert!(refusal(libc::ENOSYS, "absent", Some(0)).contains("not in this kernel"));
        assert!(refusal(libc::ENOMEM, "0", None).contains("locked"));
    }
}
