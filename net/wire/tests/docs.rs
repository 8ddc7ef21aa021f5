//! docs/protocol.md says what the code does: its examples are the golden bytes, its tables have all numbers.

use std::path::Path;

use gristmill_base::placement::{key_hash, murmur2};
use gristmill_wire::{OpCode, Position, Status};
use serde_json::Value;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md");
    std::fs::read_to_string(path).expect("docs/protocol.md is there")
}

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("vectors/{name}.json"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let value: Value = serde_json::from_str(&text).expect("JSON");
    value["bytes"].as_str().expect("hexadecimal").to_owned()
}

/// The two-digit words at the start of a line; two spaces end them.
fn digits(line: &str) -> String {
    line.split("  ").next().unwrap_or_default().replace(' ', "")
}

#[test]
fn examples_are_golden() {
    let page = page();
    let mut seen = 0;
    for block in page.split("```text\nvector ").skip(1) {
        let block = block.split("```").next().unwrap();
        let (name, lines) = block.split_once('\n').unwrap();
        assert_eq!(lines.lines().map(digits).collect::<String>(), golden(name), "{name}");
        seen += 1;
    }
    assert!(seen >= 15, "{seen} examples");
}

#[test]
fn operations_are_all_there() {
    let page = page();
    for code in OpCode::ALL {
        let row = format!("| {} | {} |", code.code(), code.name());
        let line = page.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("no row {row}"));
        assert_eq!(line.contains("| yes |"), code.is_sequenced(), "{line}");
    }
}

#[test]
fn statuses_are_all_there() {
    let page = page();
    for status in Status::ALL {
        let row = format!("| {} | {} |", status.code(), status.name());
        let line = page.lines().find(|line| line.starts_with(&row)).unwrap_or_else(|| panic!("no row {row}"));
        let position = match status.position() {
            Position::Taken => "| taken |",
            Position::Free => "| free |",
            Position::Unknown => "| unknown |",
        };
        assert!(line.contains(position), "{line}");
    }
}

#[test]
fn test_values_of_the_hash_are_right() {
    for key in ["21", "abc", "foobar", "a-little-bit-long-string"] {
        let (hash, positive) = (murmur2(key.as_bytes()), key_hash(key.as_bytes()));
        let row =
            format!("| `{key}` | {hash:#010x} | {} | {} | {} |", hash.cast_signed(), positive % 256, positive % 64);
        assert!(page().contains(&row), "{row}");
    }
}
