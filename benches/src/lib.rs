//! What all benches share: rounds, medians with their spread, targets, a table for people and a JSON file for programs.
//!
//! Goals: a figure that can be repeated, of the real path, with what is needed to judge it. Not a goal: absolute figures
//! that hold on another machine.

mod context;
mod numbers;
mod records;
mod report;
mod row;
mod timed;

pub use context::{Context, target_folder};
pub use numbers::Numbers;
pub use records::{KEY_BYTES, VALUE_BYTES, fill_value, is_value_of, key};
pub use report::Report;
pub use row::{Row, Target};
pub use timed::timed;
