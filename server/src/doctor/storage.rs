//! The data directory: its file system, the disk below it, and how much room there is.

use super::{Finding, bytes};
use gristmill_base::limits::LOG_SEGMENTS_AHEAD;
use gristmill_io::host::{self, Device, FileSystem};
use gristmill_io::preflight;
use std::path::Path;

/// File systems on which the engine was measured, and that keep what was flushed in place.
const GOOD: [&str; 2] = ["ext4", "xfs"];
/// Those that copy on write: every write of the log is one of the file system's too.
const COPYING: [&str; 3] = ["btrfs", "zfs", "bcachefs"];
/// Those that forget at a power cut.
const FORGETFUL: [&str; 2] = ["tmpfs", "ramfs"];

/// Findings about a data directory, which need not be there yet: then about the folder that will hold it.
pub(super) fn examine(data: &Path, segment_bytes: u64, shards: usize) -> Vec<Finding> {
    let here = data.ancestors().find(|path| path.exists() && !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut findings = vec![direct_io(here)];
    match host::file_system(here) {
        Some(found) => {
            findings.extend([file_system(&found), disk(found.device.as_ref()), space(&found, segment_bytes, shards)]);
        }
        None => findings.push(Finding::warn(
            "file system",
            format!("of {}: not shown", here.display()),
            "look at df and mount",
        )),
    }
    findings
}

fn direct_io(here: &Path) -> Finding {
    match preflight::directory(here) {
        None => Finding::ok("O_DIRECT", format!("{} can be written past the page cache", here.display())),
        Some(missing) => Finding::fail("O_DIRECT", missing.found, missing.remedy),
    }
}

fn file_system(found: &FileSystem) -> Finding {
    let kind = found.kind.as_str();
    let text = format!("{kind} at {}", found.mount.display());
    if GOOD.contains(&kind) {
        return Finding::ok("file system", text);
    }
    let advice = "put the data directory on ext4 or XFS on a local disk";
    let why = if COPYING.contains(&kind) {
        "copies on write, which makes each flush dearer"
    } else if FORGETFUL.contains(&kind) {
        "memory: nothing survives a power cut"
    } else if kind == "overlay" {
        "a container's own layer: it goes with the container"
    } else if kind.starts_with("nfs") || kind.starts_with("fuse") || kind == "cifs" {
        "what a flush promises is up to another machine or program"
    } else {
        "nobody has measured the engine on it"
    };
    Finding::warn("file system", format!("{text}: {why}"), advice)
}

fn disk(device: Option<&Device>) -> Finding {
    let measure = "measure it: gristmill bench disk --data DIR";
    let Some(device) = device else {
        return Finding::warn("disk", "no block device is shown below this file system", measure);
    };
    let cache = match device.write_cache.as_deref() {
        Some("write through") => "no volatile cache, a flush is cheap",
        Some("write back") => "a volatile cache, which every flush empties",
        _ => "cache not shown",
    };
    match device.rotational {
        Some(true) => Finding::warn(
            "disk",
            format!("{}: it says that it turns; {cache}", device.number),
            format!("an SSD makes a flush 100 times as fast; if it is one (virtual disks lie), {measure}"),
        ),
        _ => Finding::ok("disk", format!("{}: does not turn; {cache}", device.number)),
    }
}

fn space(found: &FileSystem, segment_bytes: u64, shards: usize) -> Finding {
    // The segment in use, those ahead, and one that a checkpoint has not freed yet.
    let need = segment_bytes * (LOG_SEGMENTS_AHEAD as u64 + 2) * shards as u64;
    let text = format!("{} free of {}", bytes(found.free_bytes), bytes(found.total_bytes));
    if found.free_bytes < need {
        let advice =
            format!("free some, or take smaller segments (--segment-bytes): the logs alone begin with {}", bytes(need));
        return Finding::fail("space", text, advice);
    }
    if found.free_bytes < 4 * need || found.free_bytes < found.total_bytes / 20 {
        return Finding::warn("space", text, "free some before the disk is full: writes are refused then");
    }
    Finding::ok("space", text)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn with(kind: &str, free_bytes: u64) -> FileSystem {
        FileSystem { kind: kind.to_owned(), mount: "/d".into(), free_bytes, total_bytes: 100 << 30, device: None }
    }

    #[test]
    fn file_systems_are_told_apart() {
        assert_eq!(file_system(&with("xfs", 0)).level, Level::Ok);
        for (kind, word) in
            [("btrfs", "copies"), ("tmpfs", "power cut"), ("overlay", "layer"), ("nfs4", "another"), ("vfat", "nobody")]
        {
            let finding = file_system(&with(kind, 0));
            assert!(finding.level == Level::Warn && finding.found.contains(word), "{finding:?}");
        }
    }

    #[test]
    fn too_little_space_is_told() {
        let level = |free: u64| space(&with("ext4", free), 64 << 20, 2).level;
        assert_eq!([level(50 << 30), level(3 << 30), level(100 << 20)], [Level::Ok, Level::Warn, Level::Fail]);
    }

    #[test]
    fn a_disk_that_turns_is_told() {
        let device =
            |rotational| Device { number: "8:0".to_owned(), rotational, write_cache: Some("write back".to_owned()) };
        assert!(disk(Some(&device(Some(true)))).advice.contains("bench disk"));
        assert!(disk(Some(&device(Some(false)))).found.contains("volatile cache"));
        assert_eq!(disk(None).level, Level::Warn);
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_judged_by_its_parent() {
        let found = examine(&std::env::temp_dir().join("gristmill/not/there"), 64 << 20, 1);
        assert_eq!(found[0].level, Level::Ok, "{found:?}");
        assert_eq!(examine(Path::new("/proc/x"), 64 << 20, 1)[0].level, Level::Fail);
    }
}
