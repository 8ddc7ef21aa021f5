//! Retention: starts of lanes move past what is old or too much, files go after that, and readers hear where a lane begins.

use crate::files::{fill, names};
use crate::rig::{Folder, Rig, config};
use crate::{Client, FILE, apps};
use gristmill_base::env::Now;
use gristmill_base::ids::{LaneId, LaneKey, Offset, SessionId};
use gristmill_base::placement::{lane_home, lane_of, slot_of};
use gristmill_core::boot::{BootConfig, Inspected, Verified, inspect, verify};
use gristmill_core::request::{Answer, Code, Operation, Refusal};
use gristmill_io::posix::PosixDisk;
use gristmill_state::lane::LaneSizes;
use gristmill_state::store::RowKey;
use std::collections::BTreeMap;
use std::path::Path;

const HOUR_NANOS: u64 = 3_600_000_000_000;

fn small(cores: u16) -> BootConfig {
    BootConfig { lane_sizes: LaneSizes { chunk_bytes: 10_000, file_bytes: 40_000 }, ..config(cores) }
}

fn client(rig: &mut Rig, retention: &str) -> Client {
    let ids = rig.load(&FILE.replace("lanes: 4}", &format!("lanes: 4, retention: {retention}}}")));
    let (session, key) = rig.open_session();
    Client { session, key, next: BTreeMap::new(), ids }
}

/// The lane that everything goes to.
fn lane(client: &Client) -> LaneKey {
    LaneKey { topic: client.topic(), lane: LaneId(lane_of(b"doc", 4).0) }
}

fn read(rig: &mut Rig, LaneKey { topic, lane }: LaneKey, from: u64) -> Result<(u64, u64), Refusal> {
    let from = Offset(from);
    let read = Operation::Read { topic, lane, from, max_events: 7, max_bytes: 1 << 20, wait_millis: 0 };
    rig.ask(0, SessionId(0), read).map(|answer| match answer {
        Answer::Events { events, end, .. } => (events[0].offset.0, end.0),
        other => panic!("{other:?}"),
    })
}

fn start(rig: &mut Rig, LaneKey { topic, lane }: LaneKey) -> u64 {
    match rig.ask(0, SessionId(0), Operation::Offsets { topic, lane, time_micros: Some(0) }) {
        Ok(Answer::Offsets { start, at, .. }) if start == at => start.0,
        other => panic!("{other:?}"),
    }
}

fn verified(root: &Path) -> Verified {
    let now = Now { monotonic_nanos: 1_000, wall_micros: 1_700_000_000_000_000 };
    verify(&mut PosixDisk::new(root), &small(1), now, &mut |_, _| {}).unwrap()
}

fn inspected(root: &Path) -> Inspected {
    inspect(&mut PosixDisk::new(root), &small(1), false).unwrap()
}

/// How often the letter `w` was counted.
fn counted(rig: &Rig, folder: &Folder) -> usize {
    let rows = rig.rows(&folder.0, slot_of(b"w", 16)).unwrap();
    let is_word = |key: &Vec<u8>| matches!(RowKey::decode(key), Ok(RowKey::Entry(_, _, grain, ..)) if *grain == *b"w");
    rows.keys().filter(|key| is_word(key)).count()
}

#[test]
fn the_newest_bytes_of_a_lane_stay_and_files_before_them_go() {
    let folder = Folder::new("retained-bytes");
    let mut rig = Rig::start(&folder.0, &small(1), apps);
    let mut client = client(&mut rig, "{bytes: 400KiB}");
    let lane = lane(&client);
    for _ in 0..2 {
        fill(&mut rig, &mut client);
    }
    let home = lane_home(lane.topic, lane.lane, 4, 16);
    let filed = rig.slot(home).unwrap().lanes[&lane].filed_bytes();
    assert!((102_400..=113_000).contains(&filed), "{filed} of 100 KiB");
    let begins = start(&mut rig, lane);
    assert!(begins > 1_000, "{begins}");
    let refusal = read(&mut rig, lane, begins - 1).unwrap_err();
    let expected = format!(
        "offset {} of lane {} of words/lines is gone: retention has removed all before {begins};",
        begins - 1,
        lane.lane
    );
    assert_eq!(refusal.code, Code::Gone);
    assert!(refusal.message.starts_with(&expected), "{}", refusal.message);
    assert_eq!(read(&mut rig, lane, begins), Ok((begins, 3_001)));
    assert_eq!(read(&mut rig, lane, 0), Ok((begins, 3_001)));
    assert_eq!(counted(&rig, &folder), 1_500, "each was handled");
    let told = rig.measure(0);
    let value = |name| told.counts.iter().chain(&told.gauges).find(|(found, _)| *found == name).unwrap().1;
    assert_eq!(value("retention_events_removed"), begins - 1);
    assert_eq!((value("lane_file_bytes"), value("retention_held_lanes")), (filed, 0));
    rig.pass(HOUR_NANOS / 10);
    rig.settle();
    drop(rig);
    let left = names(&folder.0, "lanes", ".lane");
    let first = |names: &[String]| -> u32 {
        let number = |name: &String| name.trim_end_matches(".lane").rsplit_once('-').unwrap().1.parse().unwrap();
        names.iter().map(number).min().unwrap()
    };
    assert!(first(&left) > 10 && left.len() < 30, "{left:?}");
    assert_eq!((verified(&folder.0).damaged, verified(&folder.0).unnamed), (vec![], vec![]));
    // A file that a crash left behind.
    let gone = format!("lanes/{}-{}-2.lane", lane.topic, lane.lane);
    std::fs::write(folder.0.join(&gone), b"left").unwrap();
    assert_eq!((verified(&folder.0).unnamed, inspected(&folder.0).unnamed), (vec![gone.clone()], vec![gone.clone()]));
    for cores in [1, 2, 1] {
        let mut rig = Rig::start(&folder.0, &small(cores), apps);
        assert!(!folder.0.join(&gone).exists());
        assert!(start(&mut rig, lane) >= begins);
        rig.settle();
        assert_eq!(counted(&rig, &folder), 1_500);
        let begins = start(&mut rig, lane);
        assert_eq!(read(&mut rig, lane, 0), Ok((begins, 3_001)));
        drop(rig);
        assert_eq!((verified(&folder.0).damaged, verified(&folder.0).unnamed), (vec![], vec![]), "{cores}");
    }
}

#[test]
fn what_is_older_goes_without_anything_new() {
    let folder = Folder::new("retained-time");
    let mut rig = Rig::start(&folder.0, &small(1), apps);
    let mut client = client(&mut rig, "{time: 2h}");
    let lane = lane(&client);
    fill(&mut rig, &mut client);
    rig.pass(HOUR_NANOS);
    fill(&mut rig, &mut client);
    assert_eq!(start(&mut rig, lane), 1, "nothing is so old");
    rig.pass(HOUR_NANOS);
    rig.settle();
    let begins = start(&mut rig, lane);
    assert!((1_450..=1_501).contains(&begins), "{begins}");
    let before = names(&folder.0, "lanes", ".lane").len();
    // Nobody writes: the files go by a checkpoint of their own.
    rig.pass(HOUR_NANOS / 10);
    rig.settle();
    let left = names(&folder.0, "lanes", ".lane");
    assert!(left.len() * 3 < before * 2, "{before} files, now {left:?}");
    rig.pass(HOUR_NANOS);
    rig.settle();
    rig.pass(HOUR_NANOS / 10);
    rig.settle();
    let begins = start(&mut rig, lane);
    assert!(begins > 1_501, "{begins}");
    assert_eq!(names(&folder.0, "lanes", ".lane"), Vec::<String>::new(), "the rest is in the log alone");
    drop(rig);
    let mut rig = Rig::start(&folder.0, &small(1), apps);
    assert_eq!(start(&mut rig, lane), begins);
    let mut again = self::client(&mut rig, "{time: 2h}");
    fill(&mut rig, &mut again);
    assert_eq!(read(&mut rig, lane, begins), Ok((begins, 4_501)));
}
