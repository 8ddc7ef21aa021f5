//! What it costs to check a JSON value when it is written, by size and kind.

use gristmill_base::json;
use gristmill_benches::{Report, timed};
use std::hint::black_box;
use std::process::ExitCode;

const ROUNDS: usize = 15;
const CHECKS: usize = 20_000;

fn main() -> std::io::Result<ExitCode> {
    let flat =
        r#"{"order":"A-10293","customer":"c-77","amount":1299,"currency":"EUR","paid":true,"note":"second try"}"#;
    let text = format!(r#"{{"doc":"a.txt","text":"{}"}}"#, "the quick brown fox ".repeat(3));
    let nested = r#"[[1,2,[3,4,{"a":[5,6]}]],[7,8,[9,10,{"b":[11,12]}]],{"c":{"d":{"e":[13,14,15,[16,17]]}}},18,1]"#;
    let long = format!("[{}]", vec![flat; 100].join(","));
    let mut report = Report::new("json_check");
    for _ in 0..ROUNDS {
        for (what, value) in [("members", flat), ("text", &text), ("nested", nested), ("array of members", &long)] {
            let checks = if value.len() > 1_000 { CHECKS / 100 } else { CHECKS };
            let (nanos, ()) = timed(|| {
                for _ in 0..checks {
                    assert!(json::check(black_box(value.as_bytes())).is_ok());
                }
            });
            report.row(&format!("{what}, {} B", value.len()), "ns").round(nanos / checks as f64);
        }
    }
    report.finish()
}
