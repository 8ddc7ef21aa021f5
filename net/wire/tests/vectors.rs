//! Golden vectors: bytes and meaning, one file per message and error, held against the codec in both directions.
//!
//! The files are the protocol. A difference is a change that clients notice. Only for a new message, write the files
//! anew with `GRISTMILL_WRITE_VECTORS=yes cargo test -p gristmill-wire --test vectors`, and read the difference.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gristmill_wire::{FrameKind, OpCode, Status};
use serde_json::{Value, json};
use support::json::{decode, hex, unhex};
use support::{Content, Sample, samples};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn kind(content: &Content) -> FrameKind {
    if matches!(content, Content::Results(_)) { FrameKind::Results } else { FrameKind::Requests }
}

fn codes(content: &Content) -> Vec<OpCode> {
    match content {
        Content::Results(list) => list.iter().map(|(_, code, _)| *code).collect(),
        _ => Vec::new(),
    }
}

fn meaning(sample: &Sample, bytes: &[u8]) -> Value {
    let content = &sample.content;
    let to = if kind(content) == FrameKind::Requests { "server" } else { "client" };
    let items = decode(bytes, kind(content), &codes(content));
    json!({ "name": sample.name, "about": sample.about, "to": to, "bytes": hex(bytes), "meaning": items })
}

fn write_all() {
    for sample in samples() {
        let value = meaning(&sample, &sample.content.encode());
        let text = serde_json::to_string_pretty(&value).expect("JSON can be written") + "\n";
        std::fs::write(folder().join(format!("{}.json", sample.name)), text).expect("the folder can be written");
    }
}

#[test]
fn bytes_and_meaning_agree_in_both_directions() {
    if std::env::var("GRISTMILL_WRITE_VECTORS").is_ok_and(|value| value == "yes") {
        write_all();
    }
    for sample in samples() {
        let path = folder().join(format!("{}.json", sample.name));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let golden: Value = serde_json::from_str(&text).unwrap();
        let bytes = unhex(golden["bytes"].as_str().unwrap());
        assert_eq!(hex(&sample.content.encode()), hex(&bytes), "{}: the encoding changed", sample.name);
        assert_eq!(meaning(&sample, &bytes), golden, "{}: the meaning changed", sample.name);
    }
}

#[test]
fn no_file_is_left_over() {
    let known: BTreeSet<String> = samples().iter().map(|sample| format!("{}.json", sample.name)).collect();
    let there: BTreeSet<String> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(known, there);
}

#[test]
fn every_operation_and_every_status_has_a_vector() {
    let (mut asked, mut answered, mut statuses) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for sample in samples() {
        match sample.content {
            Content::Requests(list) | Content::Bulk(list) => {
                asked.extend(list.iter().map(|(_, operation)| operation.code().code()))
            }
            Content::Results(list) => {
                for (_, code, outcome) in list {
                    if outcome.is_ok() {
                        answered.insert(code.code());
                    }
                    statuses.insert(outcome.map_or_else(|failure| failure.status().code(), |_| 0));
                }
            }
            Content::Refused(_) => {}
        }
    }
    let all: BTreeSet<u8> = OpCode::ALL.iter().map(|code| code.code()).collect();
    assert_eq!(asked, all);
    assert_eq!(answered, all);
    assert_eq!(statuses, Status::ALL.iter().map(|status| status.code()).collect());
}
