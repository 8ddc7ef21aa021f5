//! Every key of the configuration: its names, what it means, how it is read and shown. The file, the environment, the
//! flags and `config show` all go by this list.

use super::Config;
use gristmill_base::limits::{
    BLOCK_BYTES, CHECKPOINT_BYTES_MIN, COMPUTATION_THREADS_MAX, COMPUTATIONS_MAX, FLUSH_SPACING_MICROS_MAX,
    HANDLER_STALL_LIMIT_SECONDS_MAX, HTTP_NAME_CHARS_MAX, HTTP_NAMES_MAX, LOG_SEGMENT_BYTES_MAX, LOG_SEGMENT_BYTES_MIN,
    MEMORY_BUDGET_BYTES_MIN, SESSION_IDLE_SECONDS_MAX, SESSION_IDLE_SECONDS_MIN, SHARD_COUNT_MAX, WATCH_BYTES_MAX,
};
use gristmill_base::units::bytes;
use gristmill_io::placement::parse_cpus;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// What is allowed where bytes are counted.
const BYTES: &str = "a number of bytes, alone or with KiB, MiB, GiB or TiB";

/// One key.
pub(crate) struct Key {
    /// Section of the file.
    pub(crate) section: &'static str,
    /// Name in the section.
    pub(crate) name: &'static str,
    /// The flag, without its dashes.
    pub(crate) flag: &'static str,
    /// What the flag's value is called; empty for a switch.
    pub(crate) value: &'static str,
    /// A line for people.
    pub(crate) help: &'static str,
    /// Takes a value over; the error says what is allowed.
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    /// What is set, if anything is.
    pub(super) get: fn(&Config) -> Option<String>,
}

impl Key {
    /// `section.name`.
    pub(crate) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("GRISTMILL_{}_{}", self.section.to_uppercase(), self.name.to_uppercase())
    }
}

/// All keys, section by section.
pub(crate) const KEYS: &[Key] = &[
    Key {
        section: "listen",
        name: "host",
        flag: "host",
        value: "ADDRESS",
        help: "Address to listen on; anything but loopback needs --insecure-listen",
        set: |config, text| put(&mut config.listen.host, text, "an IP address"),
        get: |config| Some(config.listen.host.to_string()),
    },
    Key {
        section: "listen",
        name: "port_base",
        flag: "port-base",
        value: "PORT",
        help: "Main port; shard n also listens on this plus 1 + n, HTTP on this plus 80. 0 takes free ports",
        set: |config, text| put(&mut config.listen.port_base, text, "a port, 0 to 65535"),
        get: |config| Some(config.listen.port_base.to_string()),
    },
    Key {
        section: "listen",
        name: "http_port",
        flag: "http-port",
        value: "PORT",
        help: "Port of the HTTP door (metrics, health); 0 takes a free one. The main port plus 80 if not given",
        set: |config, text| some(&mut config.listen.http_port, text, "a port, 0 to 65535"),
        get: |config| shown(config.listen.http_port.as_ref()),
    },
    Key {
        section: "listen",
        name: "http_names",
        flag: "http-names",
        value: "LIST",
        help: "Names of this server that the HTTP door answers to, beside addresses and localhost, such as mill.example",
        set: |config, text| {
            config.listen.http_names = names(text)
                .ok_or("text that lists names of this server without port, such as \"mill.example, mill\"")?;
            Ok(())
        },
        get: |config| Some(config.listen.http_names.join(", ")).filter(|names| !names.is_empty()),
    },
    Key {
        section: "listen",
        name: "insecure",
        flag: "insecure-listen",
        value: "",
        help: "Listen on an address that others can reach, without encryption and without authentication",
        set: |config, text| put(&mut config.listen.insecure, text, "true or false"),
        get: |config| Some(config.listen.insecure.to_string()),
    },
    Key {
        section: "shards",
        name: "cores",
        flag: "cores",
        value: "LIST",
        help: "CPUs to use, one shard on each, such as 0-3,8. All that the process may use if not given",
        set: |config, text| {
            parse_cpus(text).map_err(|_| "text that lists CPUs, such as \"0-3,8\"")?;
            config.shards.cores = Some(text.to_owned());
            Ok(())
        },
        get: |config| config.shards.cores.clone(),
    },
    Key {
        section: "shards",
        name: "count",
        flag: "shards",
        value: "N",
        help: "Number of shards; one per CPU if not given, no more than the control group gives processor time for",
        set: |config, text| {
            let allowed = format!("a number of shards, 1 to {SHARD_COUNT_MAX}");
            some(&mut config.shards.count, text, &allowed)
        },
        get: |config| shown(config.shards.count.as_ref()),
    },
    Key {
        section: "memory",
        name: "budget_bytes",
        flag: "memory",
        value: "BYTES",
        help: "Memory that the server may use, such as 512MiB; 80 % of what the machine or the control group has if not given",
        set: |config, text| {
            let bytes = bytes_within(text, MEMORY_BUDGET_BYTES_MIN..=u64::MAX)?;
            config.memory.budget_bytes = Some(bytes);
            Ok(())
        },
        get: |config| shown(config.memory.budget_bytes.as_ref()),
    },
    Key {
        section: "memory",
        name: "watch_bytes",
        flag: "watch-memory",
        value: "BYTES",
        help: "Memory of recent changes that each shard keeps for those who watch tables; 0: nobody may watch",
        set: |config, text| {
            config.memory.watch_bytes = bytes_within(text, 0..=WATCH_BYTES_MAX as u64)?;
            Ok(())
        },
        get: |config| Some(config.memory.watch_bytes.to_string()),
    },
    Key {
        section: "memory",
        name: "watch_always",
        flag: "watch-always",
        value: "",
        help: "Keep recent changes also while nobody watches, so that whoever comes with an old token finds more",
        set: |config, text| put(&mut config.memory.watch_always, text, "true or false"),
        get: |config| Some(config.memory.watch_always.to_string()),
    },
    Key {
        section: "log",
        name: "segment_bytes",
        flag: "segment-bytes",
        value: "BYTES",
        help: "Bytes of a log segment",
        set: |config, text| {
            let allowed =
                format!("{BYTES}, a multiple of {BLOCK_BYTES}, {LOG_SEGMENT_BYTES_MIN} to {LOG_SEGMENT_BYTES_MAX}");
            let bytes = bytes(text).ok_or_else(|| allowed.clone())?;
            let whole = bytes.is_multiple_of(BLOCK_BYTES as u64);
            if !whole || !(LOG_SEGMENT_BYTES_MIN..=LOG_SEGMENT_BYTES_MAX).contains(&bytes) {
                return Err(allowed);
            }
            config.log.segment_bytes = bytes;
            Ok(())
        },
        get: |config| Some(config.log.segment_bytes.to_string()),
    },
    Key {
        section: "log",
        name: "checkpoint_bytes",
        flag: "checkpoint-bytes",
        value: "BYTES",
        help: "Bytes of log per shard after which slots are checkpointed at the latest; what a restart reads",
        set: |config, text| {
            config.log.checkpoint_bytes = bytes_within(text, CHECKPOINT_BYTES_MIN..=1 << 40)?;
            Ok(())
        },
        get: |config| Some(config.log.checkpoint_bytes.to_string()),
    },
    Key {
        section: "log",
        name: "write_durable_bytes",
        flag: "write-durable-bytes",
        value: "BYTES",
        help: "Log batches of at least this are one durable write, smaller ones a write and a flush; as the disk was \
               measured (gristmill bench disk) if not given, from 128 KiB on if it was not",
        set: |config, text| {
            let bytes = bytes_within(text, 0..=usize::MAX as u64)?;
            config.log.write_durable_bytes = Some(bytes as usize);
            Ok(())
        },
        get: |config| shown(config.log.write_durable_bytes.as_ref()),
    },
    Key {
        section: "log",
        name: "flush_spacing_micros",
        flag: "flush-spacing",
        value: "MICROSECONDS",
        help: "Least time between the starts of two flushes; as the disk was measured if not given",
        set: |config, text| {
            let micros = within(text, 0..=FLUSH_SPACING_MICROS_MAX, "a number of microseconds")?;
            config.log.flush_spacing_micros = Some(micros);
            Ok(())
        },
        get: |config| shown(config.log.flush_spacing_micros.as_ref()),
    },
    Key {
        section: "sessions",
        name: "idle_seconds",
        flag: "session-idle",
        value: "SECONDS",
        help: "Seconds after which a client's session without an operation expires",
        set: |config, text| {
            let allowed = SESSION_IDLE_SECONDS_MIN..=SESSION_IDLE_SECONDS_MAX;
            config.sessions.idle_seconds = within(text, allowed, "a number of seconds")?;
            Ok(())
        },
        get: |config| Some(config.sessions.idle_seconds.to_string()),
    },
    Key {
        section: "server",
        name: "log_format",
        flag: "log-format",
        value: "text|json",
        help: "How messages are written to standard error: lines for people, or an object a line",
        set: |config, text| put(&mut config.server.log_format, text, "text or json"),
        get: |config| Some(config.server.log_format.to_string()),
    },
    Key {
        section: "server",
        name: "log_filter",
        flag: "log-filter",
        value: "FILTER",
        help: "Which messages are written: error, warn, info, debug, trace or off, also by target: warn,gristmill=debug",
        set: |config, text| {
            crate::messages::check_filter(text)?;
            text.clone_into(&mut config.server.log_filter);
            Ok(())
        },
        get: |config| Some(config.server.log_filter.clone()),
    },
    Key {
        section: "server",
        name: "handler_stall_limit_seconds",
        flag: "handler-stall-limit",
        value: "SECONDS",
        help: "Seconds after which code that holds a shard's core ends the server, with its stack shown; 0 for never",
        set: |config, text| {
            let allowed = 0..=HANDLER_STALL_LIMIT_SECONDS_MAX;
            config.server.handler_stall_limit_seconds = within(text, allowed, "a number of seconds")?;
            Ok(())
        },
        get: |config| Some(config.server.handler_stall_limit_seconds.to_string()),
    },
    Key {
        section: "server",
        name: "computation_threads",
        flag: "computation-threads",
        value: "COUNT",
        help: "Threads for computations of handlers; as many as there are CPUs without a shard, at least one, if not given",
        set: |config, text| {
            let count = within(text, 1..=COMPUTATION_THREADS_MAX as u64, "a number of threads")?;
            config.server.computation_threads = Some(count as usize);
            Ok(())
        },
        get: |config| config.server.computation_threads.map(|count| count.to_string()),
    },
    Key {
        section: "server",
        name: "computations_per_shard",
        flag: "computations-per-shard",
        value: "COUNT",
        help: "Computations of one shard's handlers that are made or wait for a thread; further runs wait",
        set: |config, text| {
            let count = within(text, 1..=COMPUTATIONS_MAX as u64, "a number of computations")?;
            config.server.computations_per_shard = count as usize;
            Ok(())
        },
        get: |config| Some(config.server.computations_per_shard.to_string()),
    },
];

fn put<T: FromStr>(place: &mut T, text: &str, allowed: &str) -> Result<(), String> {
    *place = text.parse().map_err(|_| allowed.to_owned())?;
    Ok(())
}

fn some<T: FromStr>(place: &mut Option<T>, text: &str, allowed: &str) -> Result<(), String> {
    *place = Some(text.parse().map_err(|_| allowed.to_owned())?);
    Ok(())
}

/// A list of names; nothing if one of them is none, or there is none.
fn names(text: &str) -> Option<Vec<String>> {
    let is_name = |name: &String| {
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        (1..=HTTP_NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(letters)
    };
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    (names.len() <= HTTP_NAMES_MAX && names.iter().all(is_name)).then_some(names)
}

fn within(text: &str, range: RangeInclusive<u64>, what: &str) -> Result<u64, String> {
    text.parse().ok().filter(|found| range.contains(found)).ok_or_else(|| allowed(&range, what))
}

fn bytes_within(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    bytes(text).filter(|found| range.contains(found)).ok_or_else(|| allowed(&range, BYTES))
}

fn allowed(range: &RangeInclusive<u64>, what: &str) -> String {
    match *range.end() {
        u64::MAX => format!("{what}, at least {}", range.start()),
        end => format!("{what}, {} to {end}", range.start()),
    }
}

fn shown<T: Display>(value: Option<&T>) -> Option<String> {
    value.map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented_and_takes_back_what_it_shows() {
        let docs = include_str!("../../../docs/operating.md");
        for key in KEYS {
            let row = format!("| {} | {} |", key.section, key.name);
            assert!(docs.contains(&row), "docs/operating.md lacks {row}");
            assert!(docs.contains(&format!("`--{}`", key.flag)), "docs/operating.md lacks --{}", key.flag);
            let mut config = Config::default();
            if let Some(text) = (key.get)(&config) {
                (key.set)(&mut config, &text).unwrap();
                assert_eq!(config, Config::default(), "{}", key.path());
            }
        }
    }

    #[test]
    fn names_are_told_apart() {
        let mut flags: Vec<&str> = KEYS.iter().map(|key| key.flag).collect();
        let mut variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
        flags.sort_unstable();
        variables.sort_unstable();
        assert!(flags.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(variables.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
