//! What the control groups of this process leave it: processors and memory. Version 2, and version 1 where a machine
//! still has it.

use std::fs;
use std::path::{Path, PathBuf};

/// Memory limits from here on are version 1's way to say that there is none.
const NO_LIMIT_BYTES: u64 = 1 << 60;

/// Limits of this process, the tightest of its group and of the groups above it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// Version of the control groups that were read; `None` where there are none.
    pub version: Option<u8>,
    /// Processors' worth of time per time.
    pub cpus: Option<f64>,
    /// Bytes of memory beyond which the kernel ends the process.
    pub memory_bytes: Option<u64>,
}

impl Limits {
    /// Those of this process. Never fails: what cannot be read limits nothing.
    #[must_use]
    pub fn of_this_process() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::read(&groups, Path::new("/sys/fs/cgroup"))
    }

    /// As the text of `/proc/self/cgroup` and the folders below `mounts` say.
    fn read(groups: &str, mounts: &Path) -> Self {
        if mounts.join("cgroup.controllers").exists() {
            let folders = folders_of(groups, "", mounts);
            let cpus = tightest(folders.iter().filter_map(|it| quota_of(&text(it, "cpu.max")?)));
            let memory = folders.iter().filter_map(|it| text(it, "memory.max")?.parse().ok()).min();
            return Self { version: Some(2), cpus, memory_bytes: memory };
        }
        let cpu = folders_of(groups, "cpu", &mounts.join("cpu"));
        let cpus = tightest(cpu.iter().filter_map(|it| {
            quota_of(&format!("{} {}", text(it, "cpu.cfs_quota_us")?, text(it, "cpu.cfs_period_us")?))
        }));
        let memory = folders_of(groups, "memory", &mounts.join("memory"));
        let found: Vec<u64> =
            memory.iter().filter_map(|it| text(it, "memory.limit_in_bytes")?.parse::<u64>().ok()).collect();
        let version = (!found.is_empty() || cpu.iter().any(|it| it.join("cpu.cfs_quota_us").exists())).then_some(1);
        let memory_bytes = found.into_iter().filter(|bytes| *bytes < NO_LIMIT_BYTES).min();
        Self { version, cpus, memory_bytes }
    }
}

/// Memory of the machine in bytes, whatever the groups say; 0 where it cannot be read.
#[must_use]
pub fn machine_memory_bytes() -> u64 {
    memory_total(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

fn memory_total(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

/// Folders of the group that has `controller` (none named: version 2) and of all above it, the mount itself last. In a
/// container the group's own path is often not there, and the mount is the group.
fn folders_of(groups: &str, controller: &str, mount: &Path) -> Vec<PathBuf> {
    let group = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let mut folders: Vec<PathBuf> = Vec::new();
    let inside = Path::new(group.unwrap_or("/")).strip_prefix("/").unwrap_or(Path::new(""));
    folders.extend(inside.ancestors().filter(|it| !it.as_os_str().is_empty()).map(|it| mount.join(it)));
    folders.push(mount.to_owned());
    folders
}

fn text(folder: &Path, file: &str) -> Option<String> {
    fs::read_to_string(folder.join(file)).ok().map(|text| text.trim().to_owned())
}

/// Processors of `QUOTA PERIOD`; nothing for `max PERIOD` and `-1 PERIOD`.
fn quota_of(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period) = (quota.parse::<f64>().ok()?, period.trim().parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn tightest(found: impl Iterator<Item = f64>) -> Option<f64> {
    found.min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Mounts(PathBuf);

    impl Mounts {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("gristmill-cgroup-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Mounts {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_tightest_group_of_version_2_counts() {
        let mounts = Mounts::with(
            "two",
            &[
                ("cgroup.controllers", "cpu memory\n"),
                ("a/cpu.max", "250000 100000\n"),
                ("a/memory.max", "4294967296\n"),
                ("a/b/cpu.max", "max 100000\n"),
                ("a/b/memory.max", "max\n"),
            ],
        );
        let found = Limits::read("0::/a/b\n", &mounts.0);
        assert_eq!(found, Limits { version: Some(2), cpus: Some(2.5), memory_bytes: Some(4 << 30) });
    }

    #[test]
    fn a_container_of_version_1_is_read_where_its_path_is_not_there() {
        let mounts = Mounts::with(
            "one",
            &[
                ("cpu/cpu.cfs_quota_us", "-1\n"),
                ("cpu/cpu.cfs_period_us", "100000\n"),
                ("memory/memory.limit_in_bytes", "1073741824\n"),
            ],
        );
        let found = Limits::read("4:memory:/docker/x\n1:cpu,cpuacct:/docker/x\n0::/\n", &mounts.0);
        assert_eq!(found, Limits { version: Some(1), cpus: None, memory_bytes: Some(1 << 30) });
        let unlimited = Mounts::with("free", &[("memory/memory.limit_in_bytes", "9223372036854771712\n")]);
        assert_eq!(Limits::read("4:memory:/\n", &unlimited.0).memory_bytes, None);
    }

    #[test]
    fn no_groups_limit_nothing() {
        assert_eq!(Limits::read("", Path::new("/nonexistent")), Limits::default());
        assert!(machine_memory_bytes() > 1 << 20);
        assert_eq!(memory_total("MemTotal:       16 kB\n"), 16 << 10);
    }
}
