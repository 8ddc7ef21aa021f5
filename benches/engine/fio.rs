//! What the disk does without any store: fio, with the same operations.

use anyhow::{Context as _, anyhow, ensure};
use gristmill_base::limits::LOG_SEGMENT_BYTES_DEFAULT;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// fio in a folder of its own on the disk that is measured.
pub(crate) struct Fio {
    folder: PathBuf,
    /// As it calls itself.
    pub(crate) version: String,
}

impl Fio {
    /// None if it is not installed.
    pub(crate) fn find(folder: &Path) -> anyhow::Result<Option<Self>> {
        let Ok(output) = Command::new("fio").arg("--version").output() else { return Ok(None) };
        let folder = folder.join("fio");
        std::fs::create_dir_all(&folder)?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Some(Self { folder, version }))
    }

    /// The p50 of writing a block and then flushing the file, so many a second, nanoseconds: the sum of both medians.
    pub(crate) fn append(&self, per_second: u64, count: u64) -> anyhow::Result<f64> {
        let bytes = LOG_SEGMENT_BYTES_DEFAULT;
        self.fill("append", bytes)?;
        let job = self.run(&[
            "--name=append",
            "--rw=write",
            "--bs=4k",
            "--fdatasync=1",
            "--lat_percentiles=1",
            "--clat_percentiles=0",
            &format!("--size={bytes}"),
            &format!("--rate_iops={per_second}"),
            &format!("--number_ios={count}"),
        ])?;
        let p50 = |part: &str| number(&job, &[part, "lat_ns", "percentile", "50.000000"]);
        Ok(p50("write")? + p50("sync")?)
    }

    /// Bytes a second of durable writes of that size, one in flight, into a file that was written before: as one operation
    /// or as a write and a flush.
    pub(crate) fn durable_write(&self, block: u64, is_one_operation: bool, seconds: f64) -> anyhow::Result<f64> {
        let bytes = 4 * LOG_SEGMENT_BYTES_DEFAULT;
        self.fill("durable", bytes)?;
        let block = block.next_multiple_of(4_096);
        let job = self.run(&[
            "--name=durable",
            "--rw=write",
            if is_one_operation { "--sync=dsync" } else { "--fdatasync=1" },
            "--time_based",
            &format!("--bs={block}"),
            &format!("--size={}", bytes / block * block),
            &format!("--runtime={}ms", (seconds * 1e3) as u64),
        ])?;
        number(&job, &["write", "bw_bytes"])
    }

    /// Bytes a second of reading a file from its beginning on, pieces of 1 MiB, so many in flight.
    pub(crate) fn sequential_read(&self, bytes: u64, depth: usize) -> anyhow::Result<f64> {
        self.fill("read", bytes)?;
        let depth = format!("--iodepth={depth}");
        let job = self.run(&["--name=read", "--rw=read", "--bs=1m", &format!("--size={bytes}"), &depth])?;
        number(&job, &["read", "bw_bytes"])
    }

    /// Reads a second of blocks of 4 KiB anywhere in a file of so many bytes, so many in flight.
    pub(crate) fn random_reads(&self, bytes: u64, depth: usize, seconds: f64) -> anyhow::Result<f64> {
        let bytes = bytes.next_multiple_of(1 << 20);
        self.fill("random", bytes)?;
        let job = self.run(&[
            "--name=random",
            "--rw=randread",
            "--bs=4k",
            "--time_based",
            "--norandommap",
            &format!("--iodepth={depth}"),
            &format!("--size={bytes}"),
            &format!("--runtime={}ms", (seconds * 1e3) as u64),
        ])?;
        number(&job, &["read", "iops"])
    }

    /// Makes a file whose blocks were all written, so that no later write changes more than its own blocks.
    fn fill(&self, name: &str, bytes: u64) -> anyhow::Result<()> {
        let path = self.folder.join(format!("{name}.0.0"));
        if path.metadata().is_ok_and(|found| found.len() >= bytes) {
            return Ok(());
        }
        let name = format!("--name={name}");
        self.run(&[&name, "--rw=write", "--bs=1m", "--end_fsync=1", &format!("--size={bytes}")]).map(drop)
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new("fio")
            .args(["--output-format=json", "--ioengine=io_uring", "--direct=1", "--group_reporting=1"])
            .arg(format!("--directory={}", self.folder.display()))
            .args(arguments)
            .output()
            .context("running fio")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "fio {arguments:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
        // Warnings may stand before the object.
        let from = said.find('{').context("fio has printed no JSON")?;
        let mut report: Value = serde_json::from_str(&said[from..])?;
        Ok(report["jobs"][0].take())
    }
}

fn number(job: &Value, path: &[&str]) -> anyhow::Result<f64> {
    let found = path.iter().fold(job, |value, name| &value[*name]);
    found.as_f64().ok_or_else(|| anyhow!("fio reports no {}", path.join(".")))
}
