//! What differs from seed to seed: sizes, rates and classes of faults, each drawn or switched off.

use crate::disk::{FaultPlan, Latency};
use crate::rng::SimRng;
use gristmill_base::limits::STORE_TIER_RUNS;
use gristmill_base::tuning::Tuning;
use gristmill_core::boot::BootConfig;
use gristmill_state::lane::LaneSizes;

/// The settings of one run.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// How a data directory is opened; the shard count is that of the next start.
    pub boot: BootConfig,
    /// Limits of the engine.
    pub tuning: Tuning,
    /// Runs in a million that stay pending.
    pub pending: u32,
    /// Longest time of a pending run, nanoseconds.
    pub pending_nanos: u64,
    /// Whether these are made by workers, which die.
    pub workers: bool,
    /// Whether the app runs in workers by its file, through the host of production.
    pub outside: bool,
    /// Reads in a million that miss.
    pub misses: u32,
    /// Longest delay of a parcel, nanoseconds.
    pub mesh_nanos: u64,
    /// Parcels between two shards.
    pub mesh_parcels: usize,
    /// Longest wait of a background job before it is run, nanoseconds.
    pub job_nanos: u64,
    /// Longest pause between two turns, nanoseconds.
    pub turn_nanos: u64,
    /// A shard whose turns are rare, if there is one.
    pub starved: Option<usize>,
    /// Faults of the disk while clients work.
    pub faults: FaultPlan,
    /// How long operations of the disk take.
    pub latency: Latency,
    /// Crashes while clients work.
    pub crashes: u32,
    /// Turns between two crashes, about.
    pub crash_turns: u64,
    /// Recoveries in a hundred that are crashed in turn.
    pub recovery_crashes: u64,
    /// Restarts in a hundred that take another core count.
    pub rehomes: u64,
    /// Most shards.
    pub cores_max: u16,
    /// Clients.
    pub clients: usize,
    /// Operations of each client.
    pub operations: u64,
    /// Longest pause of a client between operations, nanoseconds.
    pub think_nanos: u64,
    /// Operations of a client in flight.
    pub window: usize,
    /// Requests in a thousand that are sent twice.
    pub duplicates: u64,
    /// Replies in a thousand that cut their connection.
    pub cuts: u64,
    /// Operations in a thousand behind which a client sleeps long enough for its session to expire.
    pub sleeps: u64,
    /// Bytes that make operations larger.
    pub padding: u64,
    /// Rounds in a million before which the wall clock is set forward or back; where there are any, so is it at half
    /// of the restarts.
    pub clock_jumps: u32,
    /// Longest jump of the wall clock, microseconds.
    pub clock_micros: u64,
    /// How often the disk is full for a while.
    pub fulls: u32,
    /// For how long at most, nanoseconds.
    pub full_nanos: u64,
    /// Longest piece of bytes that the network brings at a time.
    pub piece_bytes: u64,
    /// Crashes in a hundred behind which a durable file is damaged.
    pub rots: u64,
    /// Rounds in a million before which a lane file is damaged while the machine is up.
    pub rests: u32,
    /// How often the app is deleted and loaded again under load.
    pub reloads: u32,
    /// Operations of a client in a hundred that are bulk.
    pub bulk: u64,
    /// Events of a client in a hundred that take others along, as a batch.
    pub batches: u64,
}

/// A disk beside which everything else is quick.
pub const SLOW_DISK: Latency = Latency { low_nanos: 1_000_000, high_nanos: 8_000_000, tail: 10_000, tail_times: 10 };

fn one_of<T: Copy>(rng: &mut SimRng, of: &[T]) -> T {
    of[rng.below(of.len() as u64) as usize]
}

impl Knobs {
    /// The settings of a seed; `cores` shards at the first start.
    #[must_use]
    pub fn draw(rng: &mut SimRng, cores: u16) -> Self {
        let boot = BootConfig {
            shard_count: cores,
            slot_count: one_of(rng, &[8, 16, 32, 64]),
            segment_bytes: one_of(rng, &[64 << 10, 128 << 10, 256 << 10]),
            checkpoint_bytes: one_of(rng, &[128 << 10, 256 << 10, 1 << 20]),
            queued_bytes_max: one_of(rng, &[16 << 20, 16 << 20, 16 << 20, 12 << 10]),
            session_idle_micros: one_of(rng, &[3_600_000_000, 3_600_000_000, 1_500_000]),
            ..BootConfig::default()
        };
        let small = rng.below(2) == 0;
        let tuning = Tuning {
            stream_window: if small { one_of(rng, &[8, 32]) } else { Tuning::DEFAULT.stream_window },
            channel_window: if rng.below(2) == 0 { one_of(rng, &[2, 16]) } else { Tuning::DEFAULT.channel_window },
            session_replies: if small { 16 } else { Tuning::DEFAULT.session_replies },
            run_inputs: one_of(rng, &[1, 4, 256]),
            ..Tuning::DEFAULT
        };
        let idle = boot.session_idle_micros;
        let mut knobs = Self {
            boot,
            tuning,
            pending: one_of(rng, &[0, 50_000, 300_000]),
            pending_nanos: one_of(rng, &[1_000_000, 50_000_000, 4_000_000_000]),
            workers: false,
            outside: false,
            misses: one_of(rng, &[0, 20_000, 200_000]),
            mesh_nanos: one_of(rng, &[0, 50_000, 2_000_000]),
            mesh_parcels: one_of(rng, &[1, 4, 256]),
            job_nanos: one_of(rng, &[100_000, 5_000_000, 100_000_000]),
            turn_nanos: one_of(rng, &[2_000, 50_000, 300_000]),
            starved: (rng.below(4) == 0).then(|| rng.below(4) as usize),
            faults: FaultPlan::draw(rng),
            latency: one_of(rng, &[Latency::default(), Latency::default(), SLOW_DISK]),
            crashes: one_of(rng, &[0, 2, 4, 8]),
            crash_turns: one_of(rng, &[200, 800, 3_000]),
            recovery_crashes: one_of(rng, &[0, 30]),
            rehomes: one_of(rng, &[0, 40]),
            cores_max: 4,
            clients: rng.between(2, 6) as usize,
            operations: rng.between(40, 160),
            think_nanos: one_of(rng, &[20_000, 1_000_000, 10_000_000]),
            window: one_of(rng, &[1, 4, 16]),
            duplicates: one_of(rng, &[0, 30, 150]),
            cuts: one_of(rng, &[0, 20, 100]),
            sleeps: if idle < 60_000_000 { 20 } else { 0 },
            padding: one_of(rng, &[0, 100, 1_500]),
            clock_jumps: one_of(rng, &[0, 0, 300, 3_000]),
            clock_micros: one_of(rng, &[3_000, 2_000_000, 7_200_000_000]),
            fulls: one_of(rng, &[0, 0, 1, 3]),
            full_nanos: one_of(rng, &[50_000_000, 2_000_000_000]),
            reloads: one_of(rng, &[0, 0, 1, 2]),
            piece_bytes: 1,
            rots: 0,
            rests: 0,
            bulk: 0,
            batches: 0,
        };
        knobs.calibrate();
        knobs.boot.lane_sizes = knobs.lane_sizes();
        knobs
    }

    /// How classes are mixed, and how few inputs of bulk and runs of a turn there may be: by dice of its own.
    pub fn draw_classes(&mut self, mut rng: SimRng) {
        self.bulk = one_of(&mut rng, &[0, 20, 50, 90]);
        self.tuning.bulk_inputs = one_of(&mut rng, &[2, 16, Tuning::DEFAULT.bulk_inputs]);
        self.tuning.turn_runs = one_of(&mut rng, &[1, 8, Tuning::DEFAULT.turn_runs]);
        self.tuning.turn_rows_bytes = one_of(&mut rng, &[1, 500, Tuning::DEFAULT.turn_rows_bytes]);
        self.tuning.debt_runs = one_of(&mut rng, &[STORE_TIER_RUNS, Tuning::DEFAULT.debt_runs]);
        // Files of a run are small: without it everything would go into the last level at once.
        // Memory for rows and blocks: mostly too little, so that rows are given up and read back all the time.
        self.boot.resident_bytes_max = one_of(&mut rng, &[0, 0, 4 << 10, 64 << 10, usize::MAX]);
        self.boot.cache_bytes = one_of(&mut rng, &[0, 4 << 10, 64 << 10, 1 << 20]);
        // Pages of ranges and scans: mostly larger than all there is, else of a row or a few.
        self.tuning.page_bytes = one_of(&mut rng, &[1, 300, Tuning::DEFAULT.page_bytes, Tuning::DEFAULT.page_bytes]);
        self.tuning.last_share = one_of(&mut rng, &[0, Tuning::DEFAULT.last_share]);
        self.tuning.timers_ahead_micros = one_of(&mut rng, &[3_000, 30_000, Tuning::DEFAULT.timers_ahead_micros]);
        self.tuning.backlog_ahead = one_of(&mut rng, &[1, 2, 3, 10, Tuning::DEFAULT.backlog_ahead]);
        self.tuning.timers_waiting = one_of(&mut rng, &[1, Tuning::DEFAULT.timers_waiting]);
        self.tuning.compaction_keys_bytes = one_of(&mut rng, &[1, 300, Tuning::DEFAULT.compaction_keys_bytes]);
        self.tuning.timers_pages = one_of(&mut rng, &[1, 2, Tuning::DEFAULT.timers_pages]);
        self.tuning.backlog_shelved = one_of(&mut rng, &[1, 3, 20, Tuning::DEFAULT.backlog_shelved]);
        self.batches = one_of(&mut rng, &[0, 20, 60]);
        // All batches, some, or none are large; and how many appends may wait for one.
        self.tuning.large_batch = one_of(&mut rng, &[1, 400, Tuning::DEFAULT.large_batch]);
        self.tuning.line_appends = one_of(&mut rng, &[1, 4, Tuning::DEFAULT.line_appends]);
        self.tuning.yield_bytes = one_of(&mut rng, &[16 << 10, 256 << 10, Tuning::DEFAULT.yield_bytes]);
    }

    /// Lanes are filed early and in small files, so that they are compacted within a run.
    pub fn file_often(&mut self) {
        self.boot.segment_bytes = 64 << 10;
        self.boot.checkpoint_bytes = self.boot.checkpoint_bytes.min(128 << 10);
        self.padding = self.padding.max(100);
        if self.boot.lane_sizes == LaneSizes::default() {
            self.boot.lane_sizes = LaneSizes { chunk_bytes: 1_000, file_bytes: 8 << 10 };
        }
    }

    /// How large lane files and their chunks are: follows from what was drawn, so that it takes no draw.
    fn lane_sizes(&self) -> LaneSizes {
        let small = [(400, 4 << 10), (700, 8 << 10), (3_000, 12 << 10)];
        match self.operations as usize / 12 % 4 {
            3 => LaneSizes::default(),
            at => LaneSizes { chunk_bytes: small[at].0, file_bytes: small[at].1 },
        }
    }

    /// How the log writes, as a disk's calibration may say: follows from what was drawn, so that it takes no draw.
    fn calibrate(&mut self) {
        self.boot.write_durable_bytes = [0, 0, 12 << 10, usize::MAX][self.operations as usize % 4];
        self.boot.flush_spacing_nanos = [0, 0, 300_000][self.operations as usize / 4 % 3];
    }
}
