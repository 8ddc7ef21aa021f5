//! The configuration on the command line: a flag for every key.

use super::keys::KEYS;
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};
use std::path::PathBuf;

/// Id and flag of the configuration file.
const FILE: &str = "config";

/// Flags that earlier versions had under another name: both are taken.
const EARLIER: [(&str, &str); 1] = [("memory", "memory-budget")];

/// What was said on the command line: the file, and keys by their flags.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// The configuration file.
    pub(crate) file: Option<PathBuf>,
    /// Place in the list of keys, and the text.
    pub(super) given: Vec<(usize, String)>,
}

impl Flags {
    fn read(matches: &ArgMatches) -> Self {
        let text = |key: &super::keys::Key| matches.get_one::<String>(key.flag).cloned();
        let given = KEYS.iter().enumerate().filter_map(|(at, key)| Some((at, text(key)?))).collect();
        Self { file: matches.get_one::<PathBuf>(FILE).cloned(), given }
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(FILE)
            .long(FILE)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("Configuration file (TOML); every option below is also a key of it");
        KEYS.iter().fold(command.arg(file), |command, key| {
            let earlier = EARLIER.iter().filter(|(flag, _)| *flag == key.flag).map(|(_, earlier)| *earlier);
            let arg = Arg::new(key.flag).long(key.flag).aliases(earlier).help(key.help);
            command.arg(if key.value.is_empty() {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("true|false")
            } else {
                arg.value_name(key.value)
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self::read(matches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::read(matches);
        Ok(())
    }
}
