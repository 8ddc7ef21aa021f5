//! Configuration of a server: a TOML file, every key also an environment variable `GRISTMILL_SECTION_KEY`. A key that is
//! not known is refused with the nearest one that is.

use crate::exit::Failed;
use gristmill_base::limits::{
    BLOCK_BYTES, LOG_SEGMENT_BYTES_DEFAULT, LOG_SEGMENT_BYTES_MAX, LOG_SEGMENT_BYTES_MIN, SHARD_COUNT_MAX,
};
use gristmill_base::nearest::nearest;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::str::FromStr;
use toml::{Table, Value};

/// Every key, with its section.
const KEYS: [(&str, &str); 6] = [
    ("listen", "host"),
    ("listen", "port_base"),
    ("listen", "insecure"),
    ("shards", "cores"),
    ("shards", "count"),
    ("log", "segment_bytes"),
];

/// Variables that begin like a key and are none: the demo's test builds, a benchmark, and the tests that write their
/// expected files anew.
const OTHER_VARIABLES: [&str; 4] =
    ["GRISTMILL_SABOTAGE", "GRISTMILL_BENCH_KEYS", "GRISTMILL_WRITE_VECTORS", "GRISTMILL_WRITE_GOLDEN"];

/// What an operator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients come in.
    pub listen: Listen,
    /// How many cores work, and which.
    pub shards: Shards,
    /// The write-ahead logs.
    pub log: Log,
}

/// Section `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address; anything but loopback needs `insecure`.
    pub host: IpAddr,
    /// Main port; shard n also has this plus 1 + n. 0 = free ports.
    pub port_base: u16,
    /// Listen where others can reach it, without encryption and authentication.
    pub insecure: bool,
}

/// Section `[shards]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shards {
    /// CPUs, such as `0-3,8`. All that the process may use if not set.
    pub cores: Option<String>,
    /// Number of shards. One per CPU if not set.
    pub count: Option<u16>,
}

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Bytes of a segment file; whole blocks of 4,096.
    pub segment_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port_base: 7_400, insecure: false },
            shards: Shards::default(),
            log: Log { segment_bytes: LOG_SEGMENT_BYTES_DEFAULT },
        }
    }
}

impl Config {
    /// The defaults, changed by the file, if there is one, and then by the environment.
    ///
    /// # Errors
    /// The file cannot be read, or a key or value in it is wrong; the message names it.
    pub fn load(file: Option<&Path>, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Failed> {
        let mut config = Self::default();
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failed::configuration(format!("{} cannot be read: {error}", path.display())))?;
            config.apply_file(&path.display().to_string(), &text)?;
        }
        for (section, key) in KEYS {
            let name = variable(section, key);
            if let Some(value) = environment(&name) {
                config.set(section, key, &Value::String(value), &name)?;
            }
        }
        Ok(config)
    }

    /// Looks for variables that begin like a key and are none; `names` are those of the whole environment.
    ///
    /// # Errors
    /// There is one; the message names it and the nearest one that is known.
    pub fn check_environment(names: impl IntoIterator<Item = String>) -> Result<(), Failed> {
        let known = KEYS.map(|(section, key)| variable(section, key));
        let is_unknown = |name: &String| {
            name.starts_with("GRISTMILL_") && !known.contains(name) && !OTHER_VARIABLES.contains(&name.as_str())
        };
        match names.into_iter().filter(is_unknown).min() {
            Some(name) => Err(unknown("environment", "variable", &name, known.iter().map(String::as_str))),
            None => Ok(()),
        }
    }

    /// Takes over what the text of a file sets.
    fn apply_file(&mut self, file: &str, text: &str) -> Result<(), Failed> {
        let table: Table = text.parse().map_err(|error| Failed::configuration(format!("{file}: {error}")))?;
        for (section, keys) in &table {
            if !KEYS.iter().any(|(known, _)| known == section) {
                return Err(unknown(file, "section", section, KEYS.map(|(known, _)| known)));
            }
            let Value::Table(keys) = keys else {
                return Err(Failed::configuration(format!("{file}: {section} is a section, written [{section}]")));
            };
            for (key, value) in keys {
                if !KEYS.contains(&(section.as_str(), key.as_str())) {
                    let known = KEYS.iter().filter(|(its, _)| its == section).map(|(_, key)| *key);
                    return Err(unknown(file, &format!("key of [{section}]"), key, known));
                }
                self.set(section, key, value, &format!("{file}: {section}.{key}"))?;
            }
        }
        Ok(())
    }

    /// Sets a known key. `place` names it in the message of an error.
    fn set(&mut self, section: &str, key: &str, value: &Value, place: &str) -> Result<(), Failed> {
        match (section, key) {
            ("listen", "host") => self.listen.host = parse(value, place, "an IP address")?,
            ("listen", "port_base") => self.listen.port_base = parse(value, place, "a port, 0 to 65535")?,
            ("listen", "insecure") => self.listen.insecure = parse(value, place, "true or false")?,
            ("shards", "cores") => self.shards.cores = Some(parse(value, place, "a list of CPUs such as \"0-3,8\"")?),
            ("shards", "count") => {
                let allowed = format!("a number of shards, 1 to {SHARD_COUNT_MAX}");
                self.shards.count = Some(parse(value, place, &allowed)?);
            }
            ("log", "segment_bytes") => {
                let allowed = format!(
                    "a number of bytes, a multiple of {BLOCK_BYTES}, {LOG_SEGMENT_BYTES_MIN} to {LOG_SEGMENT_BYTES_MAX}"
                );
                let bytes: u64 = parse(value, place, &allowed)?;
                let whole = bytes.is_multiple_of(BLOCK_BYTES as u64);
                if !whole || !(LOG_SEGMENT_BYTES_MIN..=LOG_SEGMENT_BYTES_MAX).contains(&bytes) {
                    return Err(Failed::configuration(format!("{place} is {bytes}, allowed is {allowed}")));
                }
                self.log.segment_bytes = bytes;
            }
            _ => unreachable!("every key of the list is set here"),
        }
        Ok(())
    }
}

/// The environment variable of a key.
fn variable(section: &str, key: &str) -> String {
    format!("GRISTMILL_{}_{}", section.to_uppercase(), key.to_uppercase())
}

/// A value of the file, or the text of an environment variable, as a `T`.
fn parse<T: FromStr>(value: &Value, place: &str, allowed: &str) -> Result<T, Failed> {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.parse().map_err(|_| Failed::configuration(format!("{place} is {value}, allowed is {allowed}")))
}

fn unknown<'a>(file: &str, what: &str, found: &str, known: impl IntoIterator<Item = &'a str>) -> Failed {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.dedup();
    let hint = match nearest(found, known.iter().copied()) {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("there are {}", known.join(", ")),
    };
    Failed::configuration(format!("{file}: {found:?} is no {what}; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let mut config = Config::default();
        config.apply_file("f.toml", text).map(|()| config).map_err(|failed| failed.message)
    }

    #[test]
    fn a_file_sets_what_it_names() {
        let text = "[listen]\nhost = \"::1\"\nport_base = 0\n[shards]\ncores = \"0-1\"\ncount = 2\n[log]\nsegment_bytes = 65536\n";
        let config = load(text).unwrap();
        assert_eq!(config.listen, Listen { host: "::1".parse().unwrap(), port_base: 0, insecure: false });
        assert_eq!(config.shards, Shards { cores: Some("0-1".to_owned()), count: Some(2) });
        assert_eq!(config.log.segment_bytes, 65_536);
        assert_eq!(load(""), Ok(Config::default()));
    }

    #[test]
    fn what_is_not_known_is_named_with_its_neighbour() {
        let refused = |text: &str| load(text).unwrap_err();
        assert_eq!(refused("[lisen]\n"), "f.toml: \"lisen\" is no section; did you mean \"listen\"?");
        assert_eq!(
            refused("[listen]\nport-base = 1\n"),
            "f.toml: \"port-base\" is no key of [listen]; did you mean \"port_base\"?"
        );
        assert_eq!(
            refused("[listen]\nzzz = 1\n"),
            "f.toml: \"zzz\" is no key of [listen]; there are host, port_base, insecure"
        );
        assert_eq!(
            refused("[listen]\nport_base = 70000\n"),
            "f.toml: listen.port_base is 70000, allowed is a port, 0 to 65535"
        );
        for bytes in [1, 65_537, u64::from(u32::MAX) << 8] {
            assert!(refused(&format!("[log]\nsegment_bytes = {bytes}\n")).contains("a multiple of 4096"));
        }
        assert!(refused("listen = 3\n").contains("[listen]"));
        assert!(refused("[listen\n").contains("f.toml"));
    }

    #[test]
    fn variables_that_begin_like_a_key_and_are_none_are_refused() {
        let check = |names: &[&str]| {
            Config::check_environment(names.iter().map(|name| (*name).to_owned())).map_err(|failed| failed.message)
        };
        assert_eq!(check(&["PATH", "GRISTMILL_LISTEN_HOST", "GRISTMILL_SABOTAGE"]), Ok(()));
        assert_eq!(
            check(&["GRISTMILL_LISTEN_PORTBASE"]).unwrap_err(),
            "environment: \"GRISTMILL_LISTEN_PORTBASE\" is no variable; did you mean \"GRISTMILL_LISTEN_PORT_BASE\"?"
        );
        assert!(check(&["GRISTMILL_ZZZ"]).is_err());
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let set = |name: &str| (name == "GRISTMILL_LISTEN_PORT_BASE").then(|| "9000".to_owned());
        assert_eq!(Config::load(None, &set).unwrap().listen.port_base, 9_000);
        let wrong = |name: &str| (name == "GRISTMILL_SHARDS_COUNT").then(|| "many".to_owned());
        assert!(Config::load(None, &wrong).unwrap_err().message.contains("GRISTMILL_SHARDS_COUNT is \"many\""));
    }
}
