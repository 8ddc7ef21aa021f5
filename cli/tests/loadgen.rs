//! `gristmill loadgen` of the stock binary against a server: everything acked is read back.

mod support;

use support::{Folder, Server, gristmill};

#[test]
fn the_stock_binary_makes_load_and_verifies_it() {
    let folder = Folder::new("loadgen");
    let mut server = Server::start(&folder.0.join("data"), 1);
    let address = format!("127.0.0.1:{}", server.port());
    let size = ["--keys", "2000", "-c", "4", "-d", "16", "--size", "100", "--secs", "1"];
    for op in ["put", "append", "invoke"] {
        let command = [&["loadgen", "run", "--op", op, "--addr", &address], &size[..]].concat();
        let output = gristmill(&[&command[..], &["--verify", "--output", "json"]].concat()).output().expect("it runs");
        assert!(output.status.success(), "{op}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        for field in ["acked", "verified", "rate", "p50_us", "p99_us", "p999_us", "records_per_flush"] {
            assert!(report[field].as_f64().is_some_and(|number| number > 0.0), "{op}: {field} in {report}");
        }
        assert_eq!(report["lost"], 0, "{op}");
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0), "{}", server.errors());
}
