//! Conditions of changes: `--if-version`, `--if-absent`, `--if-value`.

use super::super::output::{Format, Printer};
use super::super::typed;
use crate::exit::{Exit, Failed};
use gristmill_base::datatype::DataType;
use gristmill_client::{Compared, Version};
use serde_json::{Value, json};

/// The condition of a change.
#[derive(clap::Args, Clone, Debug)]
#[group(multiple = false)]
pub(super) struct If {
    /// Only if it still has this version, as `table get --version` tells it. Prints the new one; exit status 1 if the condition
    /// does not hold.
    #[arg(long, value_name = "V")]
    if_version: Option<Version>,
    /// Only if there is none.
    #[arg(long)]
    if_absent: bool,
    /// Only if it has this value.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    if_value: Option<String>,
}

/// A condition with the bytes of its value.
pub(super) enum Condition {
    Absent,
    Version(Version),
    Value(Vec<u8>),
}

impl Condition {
    pub(super) fn as_client(&self) -> gristmill_client::Condition<'_> {
        match self {
            Self::Absent => gristmill_client::Condition::Absent,
            Self::Version(version) => gristmill_client::Condition::Version(version),
            Self::Value(value) => gristmill_client::Condition::Value(value),
        }
    }
}

impl If {
    /// The condition, if there is one, on something of that type.
    pub(super) fn of(&self, of: DataType) -> Result<Option<Condition>, Failed> {
        Ok(match (&self.if_version, self.if_absent, &self.if_value) {
            (Some(version), ..) => Some(Condition::Version(version.clone())),
            (_, true, _) => Some(Condition::Absent),
            (.., Some(value)) => Some(Condition::Value(typed::encode("the value of the condition", of, value)?)),
            _ => None,
        })
    }
}

/// Says how a change under a condition has ended.
pub(super) fn told(compared: Compared, of: DataType, format: Format, printer: &mut Printer) -> Result<(), Failed> {
    match compared {
        Compared::Done(version) => {
            let version = version.map(|version| version.to_string());
            match format {
                Format::Json => printer.json(&json!({"done": true, "version": version})),
                Format::Text => version.map_or(Ok(()), |version| printer.line(&version)),
            }
        }
        Compared::Conflict { version, value } => {
            if format == Format::Json {
                let value = value.as_ref().map_or(Value::Null, |value| typed::to_json(of, value));
                let version = version.as_ref().map(Version::to_string);
                printer.json(&json!({"done": false, "version": version, "value": value}))?;
                printer.flush()?;
            }
            let found = match (version, value) {
                (None, _) => "there is none".to_owned(),
                (Some(version), None) => format!("it has version {version}"),
                (Some(version), Some(value)) => format!("it is {}, with version {version}", of.decode_text(&value)),
            };
            Err(Failed::new(Exit::No, format!("the condition does not hold, nothing was changed: {found}")))
        }
    }
}
