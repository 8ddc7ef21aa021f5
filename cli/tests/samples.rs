//! The sample apps in the stock binary: what their READMEs have a reader try, a client that appends in three ways, and one
//! handler fed by a file and by a stream.

mod support;

#[path = "../../examples/orders/examples/place.rs"]
mod place;

use gristmill_client::{Client, Config};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Folder, Server, gristmill};

/// Runs a script in which `gristmill` is the program with the options that find the server; gives what it prints.
fn script(server: &Server, folder: &Path, text: &str) -> String {
    let head = "set -e\ngristmill() { \"$PROGRAM\" \"$@\" --data \"$DATA\"; }\n";
    let output = Command::new("sh")
        .args(["-c", &format!("{head}{text}")])
        .env("PROGRAM", env!("CARGO_BIN_EXE_gristmill"))
        .env("DATA", &server.data)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("sh runs");
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}: {out}{errors}");
    out.into_owned()
}

/// The last block of commands of a README.
fn to_try(readme: &str) -> &str {
    let from = readme.rfind("```\n").and_then(|end| readme[..end].rfind("```\n")).expect("it has a block");
    readme[from + 4..].split("```").next().expect("a block ends")
}

fn settle(server: &Server, app: &str) {
    let data = server.data.to_str().expect("text");
    let status = gristmill(&["app", "wait", app, "--settled", "--data", data]).stdout(Stdio::null()).status();
    assert!(status.expect("it runs").success(), "{app} does not settle");
}

/// What a table's scan prints, as JSON.
fn scan(server: &Server, table: &str) -> Vec<Value> {
    let data = server.data.to_str().expect("text");
    let output = gristmill(&["table", "scan", table, "--limit", "10000", "--data", data, "--output", "json"]).output();
    let text = String::from_utf8(output.expect("it runs").stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn what_the_readmes_have_a_reader_try_does_what_they_say() {
    let folder = Folder::new("samples-readmes");
    let server = Server::start(&folder.0.join("data"), 2);
    let samples: [(&str, &str, &[&str]); 5] = [
        (
            "batch-and-stream",
            include_str!("../../examples/batch-and-stream/README.md"),
            &["page0", "page6", "\"visits\""],
        ),
        ("fund-transfer", include_str!("../../examples/fund-transfer/README.md"), &["\"done\"", "t1", "7"]),
        ("orders", include_str!("../../examples/orders/README.md"), &["Ann Doe", "o2"]),
        ("rate-limiter", include_str!("../../examples/rate-limiter/README.md"), &["\"allowed\":true", "\"left\":1"]),
        ("user-flows", include_str!("../../examples/user-flows/README.md"), &["mail", "completed"]),
    ];
    for (app, readme, expected) in samples {
        script(&server, &folder.0, &format!("gristmill app load {app}"));
        // A reader types no faster than an app handles what was typed before.
        let text: String = to_try(readme).lines().map(|line| wait_before_reads(app, line)).collect();
        let out = script(&server, &folder.0, &text);
        for words in expected {
            assert!(out.contains(words), "{app}: {words} is not in {out}");
        }
    }
}

fn wait_before_reads(app: &str, line: &str) -> String {
    let reads = ["gristmill table get", "gristmill topic read"].iter().any(|read| line.starts_with(read));
    let wait = if reads { format!("gristmill app wait {app} --settled >/dev/null\n") } else { String::new() };
    format!("{wait}{line}\n")
}

#[test]
fn orders_that_a_client_appends_in_three_ways_are_shipped_once_each() {
    let folder = Folder::new("samples-orders");
    let server = Server::start(&folder.0.join("data"), 2);
    script(&server, &folder.0, "gristmill app load orders");
    let mut client = Client::connect(Config::new(format!("127.0.0.1:{}", server.port()))).expect("it connects");
    place::everything(&mut client).expect("everything is appended");
    settle(&server, "orders");
    let orders = scan(&server, "orders/orders");
    assert_eq!(orders.len(), 3 + 100 + 1_000);
    assert!(orders.iter().all(|order| order["value"]["shipped"] == true && order["value"]["paid"] == 10));
}

#[test]
fn a_file_and_a_stream_come_to_the_same() {
    let folder = Folder::new("samples-visits");
    let visit =
        |n: u64| format!("{{\"page\":\"page{}\",\"visitor\":\"v{}\",\"at\":{}}}\n", n % 37, n * n % 101, n * 400);
    let lines: Vec<String> = (0..3_000).map(visit).collect();
    for (name, part) in [("all", &lines[..]), ("before", &lines[..1_500]), ("after", &lines[1_500..])] {
        std::fs::write(folder.0.join(name), part.concat()).expect("the disk");
    }
    let ingest = |name: &str| {
        format!(
            "gristmill ingest batch-and-stream/visits --name {name} --format jsonl {name}\ngristmill app wait batch-and-stream --settled\n"
        )
    };
    let append = |name: &str| {
        format!(
            "gristmill topic append batch-and-stream/visits --lines {name}\ngristmill app wait batch-and-stream --settled\n"
        )
    };
    let ways = [ingest("all"), append("all"), ingest("before") + &append("after"), append("before") + &ingest("after")];
    let results: Vec<(Vec<Value>, String)> = ways
        .iter()
        .enumerate()
        .map(|(number, way)| {
            let server = Server::start(&folder.0.join(format!("data{number}")), 1 + number as u16 % 2);
            script(&server, &folder.0, &format!("gristmill app load batch-and-stream\n{way}"));
            let visitors =
                script(&server, &folder.0, "gristmill table get batch-and-stream/pages page7 --map visitors");
            (scan(&server, "batch-and-stream/pages"), visitors)
        })
        .collect();
    assert_eq!(results[0].0.len(), 37);
    let visits: u64 = results[0].0.iter().filter_map(|row| row["value"]["visits"].as_u64()).sum();
    assert_eq!(visits, 3_000);
    for (number, result) in results.iter().enumerate() {
        assert_eq!(result, &results[0], "way {number} differs: {}", ways[number]);
    }
}

#[test]
fn a_new_app_is_made_where_nothing_is_and_fits_these_sources() {
    let folder = Folder::new("samples-init");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let init_in = |lang: &str, name: &str, more: &[&str]| {
        let mut command = gristmill(&["app", "init", name, "--lang", lang, "--source"]);
        let output = command.arg(source).args(more).current_dir(&folder.0).output().expect("it runs");
        (output.status.code().expect("it exits"), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let init = |name: &str, more: &[&str]| init_in("rust", name, more);
    assert_eq!(init("my-app", &[]), (0, String::new()));
    let made = folder.0.join("my-app");
    let text = |path: &str| std::fs::read_to_string(made.join(path)).expect(path);
    assert!(text("app.yaml").starts_with("app: my-app\n") && text("tests/app.rs").contains("use my_app::app;"));
    // Its packages are found and of one workspace; that its code is good is tested in examples/starter.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let metadata = Command::new(cargo)
        // Without what other systems need, which may not be on this machine.
        .args(["metadata", "--format-version", "1", "--offline", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(&made)
        .stderr(Stdio::piped())
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages: Vec<&str> = metadata["packages"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    for package in ["my-app", "gristmill-sdk", "gristmill-server", "gristmill-test-kit"] {
        assert!(packages.contains(&package), "{package} is not among {packages:?}");
    }
    let (status, errors) = init("my-app", &[]);
    assert!(status == 2 && errors.contains("my-app is not empty"), "{status}: {errors}");
    assert_eq!(init("other", &["--folder", "empty"]).0, 0);
    let (status, errors) = init("My App", &[]);
    assert!(status == 2 && errors.contains("lower-case letters"), "{status}: {errors}");
    let (status, errors) = init_in("cobol", "none", &[]);
    assert!(status == 2 && errors.contains("cobol"), "{status}: {errors}");
    assert!(!folder.0.join("none").exists());
}
