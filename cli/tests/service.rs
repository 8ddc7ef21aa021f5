//! The unit for systemd, and what the server tells systemd.

mod support;

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Folder, gristmill};

const UNIT: &str = include_str!("../../deploy/systemd/gristmill.service");

/// Values of a key of the unit, in order.
fn values(key: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_unit_starts_the_program_with_flags_that_it_has() {
    let start = values("ExecStart");
    assert_eq!(start.len(), 1);
    let words: Vec<&str> = start[0].split(' ').collect();
    let help = gristmill(&[words[1], "--help"]).output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let flags: Vec<&&str> = words.iter().filter(|word| word.starts_with("--")).collect();
    assert!(flags.len() >= 2, "{words:?}");
    for flag in flags {
        assert!(help.contains(&format!("{flag} ")), "{flag} is no flag of serve:\n{help}");
    }
    let locked: u64 = values("LimitMEMLOCK")[0].trim_end_matches('M').parse().expect("mebibytes");
    assert!(locked << 20 >= gristmill_io::preflight::memlock_bytes(64), "for the most shards");
    let open: usize = values("LimitNOFILE")[0].parse().expect("a number");
    let connections = 64 * gristmill_base::limits::CONNECTIONS_PER_SHARD_MAX;
    assert!(open >= connections + gristmill_base::limits::HTTP_CONNECTIONS_MAX + 64 * 100, "connections and files");
    let allowed = values("SystemCallFilter").join(" ");
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(allowed.contains(call), "{call}");
    }
    assert_eq!(values("Type"), ["notify"]);
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let folder = Folder::new("unit");
    let unit = folder.0.join("gristmill.service");
    // The program is not installed here, and a user of that name need not be.
    let text = UNIT.replace("/usr/bin/gristmill", env!("CARGO_BIN_EXE_gristmill"));
    std::fs::write(&unit, text).expect("it is written");
    let verified =
        Command::new("systemd-analyze").args(["verify", "--man=no", "--recursive-errors=no"]).arg(&unit).output();
    let Ok(verified) = verified else {
        eprintln!("systemd-analyze is not there; the unit was checked by its flags alone");
        return;
    };
    let words = String::from_utf8_lossy(&verified.stderr);
    let about: Vec<&str> = words.lines().filter(|line| line.contains("gristmill.service")).collect();
    assert!(about.is_empty(), "{about:?}");
}

#[test]
fn systemd_is_told_when_it_is_ready_and_when_it_stops() {
    let folder = Folder::new("notify");
    let path = folder.0.join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a valid time");
    let data = folder.0.join("data");
    let mut child = gristmill(&["serve", "--port-base", "0", "--shards", "1", "--segment-bytes", "4194304", "--data"])
        .arg(&data)
        .env("NOTIFY_SOCKET", &path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let hear = || {
        let mut buffer = [0; 512];
        let got = socket.recv(&mut buffer).expect("it tells");
        String::from_utf8_lossy(&buffer[..got]).into_owned()
    };
    let first = hear();
    assert!(first.starts_with("READY=1\nSTATUS=1 shards on 127.0.0.1:"), "{first}");
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    assert_eq!(hear(), "STOPPING=1\n");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
