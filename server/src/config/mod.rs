//! Configuration of a server: a TOML file, every key also an environment variable `GRISTMILL_SECTION_KEY` and a flag. A
//! flag beats the environment, the environment beats the file. A key that is not known is refused with the nearest one
//! that is, and where each value comes from can be told.

mod flags;
mod keys;
mod sizes;

pub(crate) use flags::Flags;
pub(crate) use keys::Key;
pub(crate) use sizes::{Machine, Sizes, TooSmall};

use crate::exit::{Exit, Failed};
use crate::text_file;
use gristmill_base::limits::{
    CHECKPOINT_BYTES_DEFAULT, COMPUTATIONS_DEFAULT, CONFIG_FILE_BYTES_MAX, HANDLER_STALL_LIMIT_SECONDS_DEFAULT,
    LOG_SEGMENT_BYTES_DEFAULT, SESSION_IDLE_SECONDS_DEFAULT, WATCH_BYTES_DEFAULT,
};
use gristmill_base::nearest::nearest;
use keys::KEYS;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::str::FromStr;
use toml::de::{DeTable, DeValue};

/// Variables that begin like a key and are none: the demo's test builds, a benchmark, and the tests that write their
/// expected files anew.
const OTHER_VARIABLES: [&str; 4] =
    ["GRISTMILL_SABOTAGE", "GRISTMILL_BENCH_KEYS", "GRISTMILL_WRITE_VECTORS", "GRISTMILL_WRITE_GOLDEN"];

/// Messages of the server from this level on; of the libraries below it only what went wrong.
const LOG_FILTER_DEFAULT: &str = "warn,gristmill=info";

/// What an operator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients come in.
    pub listen: Listen,
    /// How many cores work, and which.
    pub shards: Shards,
    /// How much memory there is.
    pub memory: Memory,
    /// The write-ahead logs.
    pub log: Log,
    /// Sessions of clients.
    pub sessions: Sessions,
    /// The process itself.
    pub server: Server,
}

/// Section `[listen]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address; anything but loopback needs `insecure`.
    pub host: IpAddr,
    /// Main port; shard n also has this plus 1 + n. 0 = free ports.
    pub port_base: u16,
    /// Port of the HTTP door, 0 = a free one. The main port plus 80 if not set.
    pub http_port: Option<u16>,
    /// Names that the HTTP door answers to, beside addresses and `localhost`. Where others can reach it: to all if empty.
    pub http_names: Vec<String>,
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

/// Section `[memory]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that the process may use. A share of what there is if not set.
    pub budget_bytes: Option<u64>,
    /// Bytes of recent changes that each shard keeps for those who watch; 0: nobody may watch.
    pub watch_bytes: u64,
    /// Changes are kept also while nobody watches.
    pub watch_always: bool,
}

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Bytes of a segment file; whole blocks of 4,096.
    pub segment_bytes: u64,
    /// Bytes of log per shard after which slots are checkpointed at the latest.
    pub checkpoint_bytes: u64,
    /// Batches of at least so many bytes are one durable write. As the disk was measured if not set.
    pub write_durable_bytes: Option<usize>,
    /// Least time between the starts of two flushes, microseconds. As the disk was measured if not set.
    pub flush_spacing_micros: Option<u64>,
}

/// Section `[sessions]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// Seconds after which an idle session expires.
    pub idle_seconds: u64,
}

/// Section `[server]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How messages are written to standard error.
    pub log_format: LogFormat,
    /// Which messages are: a level, or levels by target.
    pub log_filter: String,
    /// Seconds after which code that holds a shard's core ends the process; 0 for never.
    pub handler_stall_limit_seconds: u64,
    /// Threads for computations of handlers, if their number is given.
    pub computation_threads: Option<usize>,
    /// Computations of one shard that may be under way.
    pub computations_per_shard: usize,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// An object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen {
                host: IpAddr::V4(Ipv4Addr::LOCALHOST),
                port_base: 7_400,
                http_port: None,
                http_names: Vec::new(),
                insecure: false,
            },
            shards: Shards::default(),
            memory: Memory { budget_bytes: None, watch_bytes: WATCH_BYTES_DEFAULT as u64, watch_always: false },
            log: Log {
                segment_bytes: LOG_SEGMENT_BYTES_DEFAULT,
                checkpoint_bytes: CHECKPOINT_BYTES_DEFAULT,
                write_durable_bytes: None,
                flush_spacing_micros: None,
            },
            sessions: Sessions { idle_seconds: SESSION_IDLE_SECONDS_DEFAULT },
            server: Server {
                log_format: LogFormat::Text,
                log_filter: LOG_FILTER_DEFAULT.to_owned(),
                handler_stall_limit_seconds: HANDLER_STALL_LIMIT_SECONDS_DEFAULT,
                computation_threads: None,
                computations_per_shard: COMPUTATIONS_DEFAULT,
            },
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nobody said anything.
    Default,
    /// The file, with the line.
    File(String, usize),
    /// A variable.
    Environment(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file, line) => write!(f, "{file}:{line}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A configuration that knows where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// The values.
    pub(crate) config: Config,
    /// By place in the list of keys.
    origins: Vec<Origin>,
}

impl Loaded {
    /// The defaults, changed by the file, if there is one, then by the environment of this process, then by the flags.
    ///
    /// # Errors
    /// The file cannot be read, a variable is unknown, or a key or value is wrong; the message names it.
    pub(crate) fn of_this_process(flags: &Flags) -> Result<Self, Failed> {
        check_environment(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()))?;
        Self::load(flags, &|name| std::env::var_os(name).map(told))
    }

    fn load(flags: &Flags, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Failed> {
        let mut loaded = Self { config: Config::default(), origins: vec![Origin::Default; KEYS.len()] };
        if let Some(path) = &flags.file {
            let text = read_file(path)?;
            loaded.apply_file(&path.display().to_string(), &text)?;
        }
        for (at, key) in KEYS.iter().enumerate() {
            let name = key.variable();
            if let Some(value) = environment(&name) {
                loaded.set(at, &value, &name, &format!("{value:?}"), Origin::Environment(name.clone()))?;
            }
        }
        for (at, value) in &flags.given {
            let flag = format!("--{}", KEYS[*at].flag);
            loaded
                .set(*at, value, &flag, &format!("{value:?}"), Origin::Flag(flag.clone()))
                .map_err(|failed| Failed::new(Exit::Usage, failed.message))?;
        }
        Ok(loaded)
    }

    /// Takes over what the text of a file sets.
    fn apply_file(&mut self, file: &str, text: &str) -> Result<(), Failed> {
        let table = DeTable::parse(text)
            .map_err(|error| Failed::configuration(format!("{file}: {}", error.to_string().trim())))?;
        for (section, keys) in table.get_ref() {
            let section = section.get_ref().as_ref();
            if !KEYS.iter().any(|key| key.section == section) {
                return Err(unknown(file, "section", section, KEYS.iter().map(|key| key.section)));
            }
            let DeValue::Table(keys) = keys.get_ref() else {
                return Err(Failed::configuration(format!("{file}: {section} is a section, written [{section}]")));
            };
            for (name, value) in keys {
                let line = 1 + text[..name.span().start.min(text.len())].matches('\n').count();
                let name = name.get_ref().as_ref();
                let Some(at) = KEYS.iter().position(|key| key.section == section && key.name == name) else {
                    let known = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
                    return Err(unknown(&format!("{file}:{line}"), &format!("key of [{section}]"), name, known));
                };
                let (plain, found) = texts(value.get_ref());
                let place = format!("{file}:{line}: {section}.{name}");
                self.set(at, &plain, &place, &found, Origin::File(file.to_owned(), line))?;
            }
        }
        Ok(())
    }

    /// Sets a key. `place` names it in the message of an error, `found` is the value as it was written.
    fn set(&mut self, at: usize, text: &str, place: &str, found: &str, origin: Origin) -> Result<(), Failed> {
        (KEYS[at].set)(&mut self.config, text)
            .map_err(|allowed| Failed::configuration(format!("{place} is {found}, allowed is {allowed}")))?;
        self.origins[at] = origin;
        Ok(())
    }

    /// Each key with its value, if it has one, and where that comes from.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&'static Key, Option<String>, &Origin)> {
        KEYS.iter().zip(&self.origins).map(|(key, origin)| (key, (key.get)(&self.config), origin))
    }
}

/// The text of a variable. What is no text becomes one that no key allows, instead of passing for nothing.
fn told(variable: OsString) -> String {
    variable.into_string().unwrap_or_else(|bytes| bytes.to_string_lossy().into_owned())
}

fn read_file(path: &Path) -> Result<String, Failed> {
    text_file::read(path, CONFIG_FILE_BYTES_MAX)
        .map_err(|error| Failed::configuration(format!("{} cannot be read: {error}", path.display())))
}

/// A value of a file as the text that a variable would have, and as it is written.
fn texts(value: &DeValue<'_>) -> (String, String) {
    match value {
        DeValue::String(text) => (text.to_string(), format!("{text:?}")),
        DeValue::Integer(number) if number.radix() == 10 => (number.as_str().to_owned(), number.as_str().to_owned()),
        DeValue::Integer(number) => {
            let text = i128::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| String::new(), |it| it.to_string());
            (text.clone(), text)
        }
        DeValue::Float(number) => (number.as_str().to_owned(), number.as_str().to_owned()),
        DeValue::Boolean(is) => (is.to_string(), is.to_string()),
        DeValue::Datetime(time) => (time.to_string(), time.to_string()),
        DeValue::Array(_) => (String::new(), "a list".to_owned()),
        DeValue::Table(_) => (String::new(), "a table".to_owned()),
    }
}

/// Looks for variables that begin like a key and are none; `names` are those of the whole environment.
fn check_environment(names: impl IntoIterator<Item = String>) -> Result<(), Failed> {
    let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let is_unknown = |name: &String| {
        name.starts_with("GRISTMILL_") && !known.contains(name) && !OTHER_VARIABLES.contains(&name.as_str())
    };
    match names.into_iter().filter(is_unknown).min() {
        Some(name) => Err(unknown("environment", "variable", &name, known.iter().map(String::as_str))),
        None => Ok(()),
    }
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
    use std::os::unix::ffi::OsStringExt;

    fn load(text: &str) -> Result<Config, String> {
        let mut loaded = Loaded::load(&Flags::default(), &|_| None).unwrap();
        loaded.apply_file("f.toml", text).map(|()| loaded.config).map_err(|failed| failed.message)
    }

    #[test]
    fn a_file_sets_what_it_names() {
        let text = "[listen]\nhost = \"::1\"\nport_base = 0\n[shards]\ncores = \"0-1\"\ncount = 2\n[log]\nsegment_bytes = 0x1_0000\n";
        let config = load(text).unwrap();
        let listen = Listen { host: "::1".parse().unwrap(), port_base: 0, ..Config::default().listen };
        assert_eq!(config.listen, listen);
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
            "f.toml:2: \"port-base\" is no key of [listen]; did you mean \"port_base\"?"
        );
        assert_eq!(
            refused("[listen]\nzzz = 1\n"),
            "f.toml:2: \"zzz\" is no key of [listen]; there are host, port_base, http_port, http_names, insecure"
        );
        assert_eq!(
            refused("\n[listen]\n\nport_base = 70000\n"),
            "f.toml:4: listen.port_base is 70000, allowed is a port, 0 to 65535"
        );
        assert!(refused("[listen]\nhost = [1]\n").contains("is a list, allowed is an IP address"));
        for bytes in [1, 65_537, u64::from(u32::MAX) << 8] {
            assert!(refused(&format!("[log]\nsegment_bytes = {bytes}\n")).contains("a multiple of 4096"));
        }
        assert_eq!(
            refused("[shards]\ncores = [0, 1]\n"),
            "f.toml:2: shards.cores is a list, allowed is text that lists CPUs, such as \"0-3,8\""
        );
        assert!(refused("[shards]\ncores = \"1,x\"\n").contains("f.toml:2: shards.cores is \"1,x\""));
        assert!(
            refused("[listen]\nhttp_names = \"a.b, http://c\"\n")
                .contains("is \"a.b, http://c\", allowed is text that lists names")
        );
        for list in ["[\"mill\"]", "[]", "\"\"", "\"a,,b\""] {
            let text = format!("[listen]\nhttp_names = {list}\n");
            assert!(refused(&text).contains("allowed is text that lists names"), "{list}");
        }
        assert_eq!(load("[listen]\nhttp_names = \"a.b, C\"\n").unwrap().listen.http_names, ["a.b", "C"]);
        assert!(
            refused("[memory]\nbudget_bytes = 5\n")
                .contains("is 5, allowed is a number of bytes, alone or with KiB, MiB, GiB or TiB, at least")
        );
        assert_eq!(load("[memory]\nbudget_bytes = \"512MiB\"\n").unwrap().memory.budget_bytes, Some(512 << 20));
        assert!(refused("[log]\ncheckpoint_bytes = \"1 GB\"\n").contains("KiB, MiB, GiB or TiB, "));
        assert!(refused("listen = 3\n").contains("[listen]"));
        assert!(refused("[listen\n").contains("f.toml"));
    }

    #[test]
    fn variables_that_begin_like_a_key_and_are_none_are_refused() {
        let check = |names: &[&str]| {
            check_environment(names.iter().map(|name| (*name).to_owned())).map_err(|failed| failed.message)
        };
        assert_eq!(check(&["PATH", "GRISTMILL_LISTEN_HOST", "GRISTMILL_SABOTAGE"]), Ok(()));
        assert_eq!(
            check(&["GRISTMILL_LISTEN_PORTBASE"]).unwrap_err(),
            "environment: \"GRISTMILL_LISTEN_PORTBASE\" is no variable; did you mean \"GRISTMILL_LISTEN_PORT_BASE\"?"
        );
        assert!(check(&["GRISTMILL_ZZZ"]).is_err());
    }

    #[test]
    fn a_variable_that_is_no_text_is_refused_and_not_passed_over() {
        let bytes = OsString::from_vec(b"0\xff".to_vec());
        let set = |name: &str| (name == "GRISTMILL_LISTEN_PORT_BASE").then(|| told(bytes.clone()));
        let refused = Loaded::load(&Flags::default(), &set).unwrap_err().message;
        assert!(refused.starts_with("GRISTMILL_LISTEN_PORT_BASE is \"0\u{fffd}\", allowed is"), "{refused}");
    }

    #[test]
    fn the_environment_beats_the_file_and_a_flag_beats_both() {
        let folder = std::env::temp_dir().join(format!("gristmill-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("c.toml");
        std::fs::write(&file, "[listen]\nport_base = 1\nhttp_port = 2\n\n[shards]\ncount = 3\n").unwrap();
        let at = |flag: &str| KEYS.iter().position(|key| key.flag == flag).unwrap();
        let flags = Flags { file: Some(file.clone()), given: vec![(at("port-base"), "9".to_owned())] };
        let set = |name: &str| match name {
            "GRISTMILL_LISTEN_PORT_BASE" => Some("8".to_owned()),
            "GRISTMILL_LISTEN_HTTP_PORT" => Some("7".to_owned()),
            _ => None,
        };
        let loaded = Loaded::load(&flags, &set).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((loaded.config.listen.port_base, loaded.config.listen.http_port), (9, Some(7)));
        let origin = |flag: &str| loaded.origins[at(flag)].to_string();
        assert_eq!(origin("port-base"), "flag --port-base");
        assert_eq!(origin("http-port"), "environment GRISTMILL_LISTEN_HTTP_PORT");
        assert_eq!(origin("shards"), format!("{}:6", file.display()));
        assert_eq!(origin("host"), "default");
        let wrong = |name: &str| (name == "GRISTMILL_SHARDS_COUNT").then(|| "many".to_owned());
        let refused = Loaded::load(&Flags::default(), &wrong).unwrap_err();
        assert!(refused.message.contains("GRISTMILL_SHARDS_COUNT is \"many\""));
        let wrong = Flags { file: None, given: vec![(at("shards"), "many".to_owned())] };
        assert_eq!(Loaded::load(&wrong, &|_| None).unwrap_err().exit, Exit::Usage);
    }
}
