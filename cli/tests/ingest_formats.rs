//! Rows of each format, good and bad, from files and from standard input: what is told, and that each is there once.

mod support;

use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::inputs::{begin, client, each_once, end, ingest, ingest_from, rejects, rows};
use support::{Folder, Server, run};

#[test]
fn bad_rows_are_told_with_their_line_and_the_cursor_stays_right() {
    let folder = Folder::new("ingest-bad");
    let (data, file) = (folder.0.join("data"), folder.0.join("rows.csv"));
    let server = Server::start(&data, 2);
    let mut client = client(&server);
    std::fs::write(&file, "k,v\na,1\nb\nc,3\n").expect("the disk");
    let (path, data) = (file.to_str().expect("text"), data.to_str().expect("text"));
    let csv = ["--format", "csv", "--key", "k"];
    let with = |name: &str, more: &[&str]| ingest(data, &[&csv[..], &["--name", name], more, &[path]].concat());
    let (code, told) = with("x", &[]);
    assert!(code == 1 && told.contains("rows.csv:3: 1 columns; the head has 2"), "{code}: {told}");
    each_once(&mut client, 1);
    let (code, told) = with("x", &["--reject", "bad"]);
    assert_eq!(code, 0, "{told}");
    each_once(&mut client, 2);
    let bad = rejects(&mut client);
    assert!(bad.len() == 1 && bad.keys().all(|row| row.contains("\"line\":3")), "{bad:?}");
    let (code, _) = with("x", &["--reject", "bad"]);
    assert_eq!((code, rejects(&mut client).len()), (0, 1), "a complete input appends nothing");
    std::fs::write(&file, "k,v\na,9\nb,2\nc\n").expect("the disk");
    assert_eq!(with("y", &[]).0, 1);
    std::fs::write(&file, "k,v\n").expect("the disk");
    let (code, told) = with("y", &[]);
    assert!(code == 1 && told.contains("shrunk"), "{code}: {told}");
    std::fs::remove_file(&file).expect("it is there");
    let (code, told) = with("y", &[]);
    assert!(code == 1 && told.contains("it was there when this input began"), "{code}: {told}");
    assert_eq!(run(&["ingest", "delete", "load/y", "--data", data]).0, 1, "it is open");
    assert_eq!(run(&["ingest", "delete", "load/y", "--force", "--data", data]).0, 0);
    assert_eq!(run(&["app", "wait", "nobody", "--settled", "--data", data]).0, 1);
}

#[test]
fn json_lines_that_are_none_stop_a_run_or_are_skipped_or_go_to_the_rejects() {
    let folder = Folder::new("ingest-json");
    let (data, file) = (folder.0.join("data"), folder.0.join("rows.jsonl"));
    let server = Server::start(&data, 2);
    let mut client = client(&server);
    let (path, data) = (file.to_str().expect("text"), data.to_str().expect("text"));
    let bad: [&[u8]; 5] = [b"{\"k\":", b"{\"k\":\"\xff\"}", b"[1]", b"{\"other\":1}", b"{\"k\":\"a\"} trailing"];
    let mut bytes = Vec::new();
    for (at, bad) in bad.iter().enumerate() {
        bytes.extend_from_slice(format!("{{\"k\":\"good{at}\"}}\n").as_bytes());
        bytes.extend_from_slice(bad);
        bytes.push(b'\n');
    }
    std::fs::write(&file, bytes).expect("the disk");
    let with = |more: &[&str]| ingest(data, &[&["--format", "jsonl", "--key", "k"], more, &[path]].concat());
    let (code, told) = with(&["--name", "j"]);
    assert!(code == 1 && told.contains("rows.jsonl:2: no JSON") && told.contains("(record 2)"), "{code}: {told}");
    each_once(&mut client, 1);
    let (code, told) = with(&["--name", "j", "--on-error", "skip"]);
    assert_eq!(code, 0, "{told}");
    for line in [2, 4, 6, 8, 10] {
        assert!(told.contains(&format!("rows.jsonl:{line}: ")), "{line}: {told}");
    }
    assert!(told.contains("UTF-8") || told.contains("utf-8"), "{told}");
    each_once(&mut client, 5);
    let (code, told) = with(&["--name", "r", "--on-error", "reject"]);
    assert!(code == 2 && told.contains("--reject"), "{code}: {told}");
    let (code, told) = with(&["--name", "r", "--on-error", "reject", "--reject", "bad"]);
    assert_eq!(code, 0, "{told}");
    let found = rejects(&mut client);
    assert!(found.len() == 5 && found.values().all(|times| *times == 1), "{found:?}");
    assert_eq!(rows(&mut client).values().copied().collect::<Vec<_>>(), [2; 5], "two inputs, each row once of each");
}

#[test]
fn standard_input_goes_on_where_it_was_and_must_be_the_same() {
    let folder = Folder::new("ingest-stdin");
    let data = folder.0.join("data");
    let server = Server::start(&data, 2);
    let mut client = client(&server);
    let data = data.to_str().expect("text");
    let mut json = String::new();
    let mut csv = "k,v\n".to_owned();
    for at in 0..2_000 {
        json += &if at == 1_200 { "{\n".to_owned() } else { format!("{{\"k\":\"j{at}\"}}\n") };
        let _ = writeln!(csv, "{}", if at == 700 { "alone".to_owned() } else { format!("c{at},\"a\nb\"") });
    }
    let jsonl = ["--format", "jsonl", "--key", "k", "--name", "j"];
    let (code, told) = ingest_from(data, json.as_bytes(), &jsonl);
    assert!(code == 1 && told.contains("stdin:1201: no JSON"), "{code}: {told}");
    each_once(&mut client, 1_200);
    let other = json.replacen("j5\"", "x5\"", 1);
    let (code, told) = ingest_from(data, other.as_bytes(), &[&jsonl[..], &["--on-error", "skip"]].concat());
    assert!(code == 1 && told.contains("standard input is not what it was"), "{code}: {told}");
    let (code, told) = ingest_from(data, &json.as_bytes()[..100], &[&jsonl[..], &["--on-error", "skip"]].concat());
    assert!(code == 1 && told.contains("standard input is not what it was: it ends after"), "{code}: {told}");
    each_once(&mut client, 1_200);
    let (code, told) = ingest_from(data, json.as_bytes(), &[&jsonl[..], &["--on-error", "skip"]].concat());
    assert_eq!(code, 0, "{told}");
    each_once(&mut client, 1_999);
    let comma = ["--format", "csv", "--key", "k", "--name", "c", "-"];
    let (code, told) = ingest_from(data, csv.as_bytes(), &comma);
    // The head is line 1, and each row before has two.
    assert!(code == 1 && told.contains("stdin:1402: 1 columns; the head has 2"), "{code}: {told}");
    each_once(&mut client, 1_999 + 700);
    let (code, told) = ingest_from(data, csv.as_bytes(), &[&["--on-error", "skip"], &comma[..]].concat());
    assert_eq!(code, 0, "{told}");
    each_once(&mut client, 1_999 + 1_999);
}

/// The most memory that a process had so far, bytes.
fn memory_peak(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

#[test]
fn quotes_that_never_close_and_endless_fields_are_told_in_bounded_memory() {
    let folder = Folder::new("ingest-quotes");
    let (data, file) = (folder.0.join("data"), folder.0.join("rows.csv"));
    let server = Server::start(&data, 1);
    let mut client = client(&server);
    let (path, data) = (file.to_str().expect("text"), data.to_str().expect("text"));
    let csv = ["--format", "csv", "--key", "k", "--reject", "bad"];
    std::fs::write(&file, "k,v\na,1\nb,\"open\nc,3\n").expect("the disk");
    let (code, told) = ingest(data, &[&csv[..], &["--name", "quote", path]].concat());
    assert!(code == 0 && told.contains("rows.csv:3: a quote is opened and not closed"), "{code}: {told}");
    assert_eq!(rejects(&mut client).len(), 1);
    let huge = "x".repeat(96 << 20);
    for (name, begin_of, hint) in [("open", "k,v\nd,1\ne,\"", "is a quote not closed?"), ("long", "k,v\nf,1\ng,", "")] {
        std::fs::write(&file, begin_of.to_owned() + &huge).expect("the disk");
        let mut child = begin(data, &[&csv[..], &["--name", name, path]].concat());
        let mut peak = 0;
        while child.try_wait().expect("it runs").is_none() {
            peak = peak.max(memory_peak(child.id()));
            std::thread::sleep(Duration::from_millis(1));
        }
        let (code, told) = end(child);
        assert!(code == 1 && told.contains("rows.csv:3: a row of more than") && told.contains(hint), "{code}: {told}");
        assert!((1..80 << 20).contains(&peak), "{name}: {peak} bytes of memory");
    }
    each_once(&mut client, 3);
}

/// Writes a Parquet file of so many rows, in groups of 1,000; rows whose number divides by `no_key` have no key.
fn write_parquet(path: &Path, rows: i64, no_key: i64) {
    let schema = "message rows { optional binary k (UTF8); required int64 n; }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let file = std::fs::File::create(path).expect("the disk");
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(file, schema, properties).expect("a writer");
    for first in (1..=rows).step_by(1_000) {
        let numbers: Vec<i64> = (first..=rows.min(first + 999)).collect();
        let with_key = numbers.iter().map(|n| i16::from(n % no_key != 0)).collect::<Vec<_>>();
        let keys = numbers.iter().filter(|n| *n % no_key != 0);
        let keys: Vec<ByteArray> = keys.map(|n| ByteArray::from(format!("key{n}").into_bytes())).collect();
        let mut group = writer.next_row_group().expect("a group");
        let mut column = group.next_column().expect("no error").expect("a column");
        column.typed::<ByteArrayType>().write_batch(&keys, Some(&with_key), None).expect("the disk");
        column.close().expect("the disk");
        let mut column = group.next_column().expect("no error").expect("a column");
        column.typed::<Int64Type>().write_batch(&numbers, None, None).expect("the disk");
        column.close().expect("the disk");
        group.close().expect("the disk");
    }
    writer.close().expect("the disk");
}

#[test]
fn parquet_goes_on_at_its_row_and_a_file_cut_short_is_told() {
    let folder = Folder::new("ingest-parquet");
    let (data, file, short) = (folder.0.join("data"), folder.0.join("rows.parquet"), folder.0.join("cut.parquet"));
    let server = Server::start(&data, 2);
    let mut client = client(&server);
    write_parquet(&file, 3_500, 1_700);
    let whole = std::fs::read(&file).expect("it is there");
    let (path, cut) = (file.to_str().expect("text"), short.to_str().expect("text"));
    let data = data.to_str().expect("text");
    let parquet = ["--format", "parquet", "--key", "k"];
    for length in [0, 3, 11, whole.len() / 3, whole.len() - 9, whole.len() - 1] {
        std::fs::write(&short, &whole[..length]).expect("the disk");
        let (code, told) = ingest(data, &[&parquet[..], &["--name", "cut", cut]].concat());
        assert!(code == 1 && told.contains("cut.parquet") && told.contains("it may be cut short"), "{code}: {told}");
        each_once(&mut client, 0);
    }
    // Nothing was begun with a file that is none, so the name is free, and the whole file is taken.
    std::fs::write(&short, &whole).expect("the disk");
    let (code, told) = ingest(data, &[&parquet[..], &["--name", "cut", cut]].concat());
    assert!(code == 1 && told.contains("cut.parquet:1700: it has no field k"), "{code}: {told}");
    each_once(&mut client, 1_699);
    let file = std::fs::File::options().write(true).open(&short).expect("it is there");
    file.set_len(whole.len() as u64 / 2).expect("the disk");
    let (code, told) = ingest(data, &[&parquet[..], &["--name", "cut", "--on-error", "skip", cut]].concat());
    assert!(code == 1 && told.contains("it has shrunk"), "{code}: {told}");
    each_once(&mut client, 1_699);
    std::fs::copy(path, cut).expect("the disk");
    // The content is the same, the time of the last change is not: that is told too.
    let (code, told) = ingest(data, &[&parquet[..], &["--name", "cut", "--on-error", "skip", cut]].concat());
    assert!(code == 1 && told.contains("the time of its last change is another"), "{code}: {told}");
    assert_eq!(run(&["ingest", "delete", "load/cut", "--force", "--data", data]).0, 0);

    // Damage in the second group of rows: what came before is there.
    let (mut damaged, before) = (whole.clone(), rows(&mut client).len());
    let reader = SerializedFileReader::new(std::fs::File::open(path).expect("it is there")).expect("it is whole");
    let at = usize::try_from(reader.metadata().row_group(1).column(1).byte_range().0).expect("a small file");
    damaged[at..at + 16].fill(0xff);
    std::fs::write(&short, &damaged).expect("the disk");
    let all = ["--format", "parquet", "--name", "hurt", cut];
    for _ in 0..2 {
        let (code, told) = ingest(data, &all);
        assert!(code == 1 && told.contains("cut.parquet:1001: the row cannot be read"), "{code}: {told}");
        let found = rows(&mut client);
        assert_eq!(found.len(), before.max(1_000), "the rows before are those of before, once more");
        assert_eq!(found.values().sum::<u32>() as usize, before + 1_000);
    }
}

#[test]
fn a_parquet_run_goes_on_at_its_row() {
    let folder = Folder::new("ingest-parquet-on");
    let (data, file) = (folder.0.join("data"), folder.0.join("rows.parquet"));
    let server = Server::start(&data, 2);
    let mut client = client(&server);
    write_parquet(&file, 3_500, 1_200);
    let (path, data) = (file.to_str().expect("text"), data.to_str().expect("text"));
    let parquet = ["--format", "parquet", "--key", "k", "--name", "all", path];
    let (code, told) = ingest(data, &parquet);
    assert!(code == 1 && told.contains("rows.parquet:1200: it has no field k"), "{code}: {told}");
    each_once(&mut client, 1_199);
    let (code, told) = ingest(data, &[&["--on-error", "skip"], &parquet[..]].concat());
    assert!(code == 0 && told.contains("rows.parquet:2400: "), "{code}: {told}");
    each_once(&mut client, 3_498);
    let (code, told) = ingest_from(data, b"PAR1", &["--format", "parquet", "--name", "stdin"]);
    assert!(code == 2 && told.contains("name a file"), "{code}: {told}");
}
