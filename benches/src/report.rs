//! The report of one bench: a table on standard output, and `target/bench/NAME.json`.

use crate::context::{Context, target_folder};
use crate::row::Row;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// Figures of one bench. See [`Self::finish`] for what becomes of them.
#[derive(Debug)]
pub struct Report {
    name: String,
    rows: Vec<Row>,
    context: Context,
    /// Whether figures are held against their targets.
    judges: bool,
}

impl Report {
    /// An empty report of the bench `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), rows: Vec::new(), context: Context::read(), judges: true }
    }

    /// Holds no figure against its target from now on: what was measured is too small to count.
    pub fn judge_nothing(&mut self) {
        self.judges = false;
    }

    /// Adds the version of another program that took part.
    pub fn version(&mut self, program: &str, version: impl Into<String>) {
        self.context.versions.insert(program.to_owned(), version.into());
    }

    /// The row `id`, made if it is not there yet. Rows are shown in the order of their making.
    pub fn row(&mut self, id: &str, unit: &'static str) -> &mut Row {
        let at = self.rows.iter().position(|row| row.id == id).unwrap_or_else(|| {
            self.rows.push(Row::new(id, unit));
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }

    /// Rows whose figure is not what it should be.
    pub fn missed(&self) -> impl Iterator<Item = &str> {
        self.rows.iter().filter(|row| self.judges && row.met() == Some(false)).map(|row| row.id.as_str())
    }

    /// Prints the table and writes `target/bench/NAME.json`: an object with the bench's name and its `rows`, each with
    /// `id, value, unit, target, op, met, rounds, spread, pace, durability, note, versions, commit, command`; null where
    /// there is none. The status is 1 if `STRICT=1` is set in the environment and a figure misses its target.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self) -> io::Result<ExitCode> {
        print!("{}", self.table());
        let folder = target_folder();
        self.write(&folder)?;
        println!("written to {}", folder.join(format!("{}.json", self.name)).display());
        let missed: Vec<&str> = self.missed().collect();
        if missed.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        println!("missed: {}", missed.join("; "));
        Ok(ExitCode::from(u8::from(std::env::var("STRICT").is_ok_and(|strict| strict == "1"))))
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let text = serde_json::to_string_pretty(&self.json()).map_err(io::Error::other)?;
        std::fs::write(folder.join(format!("{}.json", self.name)), text + "\n")
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        json!({"bench": self.name, "rows": rows})
    }

    fn row_json(&self, row: &Row) -> Value {
        let (least, most) = row.spread();
        let target = row.target.filter(|_| self.judges);
        json!({
            "id": row.id,
            "value": row.value(),
            "unit": row.unit,
            "target": target.map(crate::Target::value),
            "op": target.map(crate::Target::op),
            "met": row.met().filter(|_| self.judges),
            "rounds": row.rounds.len(),
            "spread": {"least": least, "most": most},
            "pace": row.pace,
            "durability": row.durability,
            "note": row.note,
            "versions": self.context.versions,
            "commit": self.context.commit,
            "command": self.context.command,
        })
    }

    /// The table, with a line of heads, without what stands aside.
    #[must_use]
    pub fn table(&self) -> String {
        let rows = || self.rows.iter().filter(|row| !row.aside);
        let width = rows().map(|row| row.id.chars().count()).max().unwrap_or(0).max(self.name.len());
        let unit = rows().map(|row| row.unit.len()).max().unwrap_or(0).max(4);
        let mut text = format!(
            "{:<width$}  {:>12} {:<unit$} {:>25} {:>7}  {:<16} {}\n",
            self.name, "median", "unit", "least .. most", "rounds", "target", "met"
        );
        for row in rows() {
            let (value, spread) = if row.rounds.is_empty() {
                ("not measured".to_owned(), String::new())
            } else {
                let (least, most) = row.spread();
                (figure(row.value()), format!("{} .. {}", figure(least), figure(most)))
            };
            let target = row.target.filter(|_| self.judges);
            let target = target.map_or_else(String::new, |it| format!("{} {}", it.op(), figure(it.value())));
            let met = match row.met().filter(|_| self.judges) {
                Some(true) => "yes",
                Some(false) => "NO",
                None => "",
            };
            let line = format!(
                "{:<width$}  {value:>12} {:<unit$} {spread:>25} {:>7}  {target:<16} {met}",
                row.id,
                row.unit,
                row.rounds.len(),
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        for row in rows() {
            if let Some(note) = &row.note {
                let _ = writeln!(text, "{}: {note}", row.id);
            }
        }
        text
    }
}

/// Enough digits to compare, no more.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1_000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Target;

    fn report() -> Report {
        let mut report = Report::new("sample");
        report.row("put", "1/s").round(10.0).round(30.0).round(20.0).target(Target::AtLeast(15.0));
        report.row("ratio", "x").round(0.5).target(Target::AtLeast(1.0)).pace("closed loop").durability("every ack");
        report.row("plain", "ns").round(1_234.5);
        report.row("hidden", "ns").round(1.0).aside();
        report
    }

    #[test]
    fn every_row_has_every_member() {
        let json = report().json();
        let rows = json["rows"].as_array().unwrap();
        let members = [
            "id",
            "value",
            "unit",
            "target",
            "op",
            "met",
            "rounds",
            "spread",
            "pace",
            "durability",
            "note",
            "versions",
            "commit",
            "command",
        ];
        for row in rows {
            let mut found: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
            let mut wanted = members.to_vec();
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted);
        }
        assert_eq!(rows[0]["value"], 20.0);
        assert_eq!(rows[0]["spread"]["most"], 30.0);
        assert_eq!((&rows[0]["op"], &rows[0]["met"]), (&json!(">="), &json!(true)));
        assert_eq!((&rows[1]["met"], &rows[1]["pace"]), (&json!(false), &json!("closed loop")));
        assert!(rows[2]["target"].is_null() && rows[2]["met"].is_null());
    }

    #[test]
    fn the_table_names_what_is_missed() {
        let report = report();
        assert_eq!(report.missed().collect::<Vec<_>>(), ["ratio"]);
        let table = report.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 4, "what stands aside is in the file alone");
        assert!(lines[1].ends_with(">= 15.00         yes"), "{}", lines[1]);
        assert!(lines[2].ends_with(">= 1.00          NO"), "{}", lines[2]);
        assert!(lines[3].contains("1234") || lines[3].contains("1235"), "{}", lines[3]);
    }

    #[test]
    fn what_was_not_measured_is_said_and_missed() {
        let mut report = Report::new("sample");
        report.row("far", "1/s").target(Target::AtLeast(1.0)).note("it is not built");
        let table = report.table();
        assert!(table.contains("not measured") && table.contains("NO"), "{table}");
        assert!(table.ends_with("far: it is not built\n"), "{table}");
        assert_eq!(report.missed().collect::<Vec<_>>(), ["far"]);
        assert!(report.json()["rows"][0]["value"].is_null());
        report.judge_nothing();
        assert_eq!(report.missed().count(), 0);
        assert!(!report.table().contains("NO") && report.json()["rows"][0]["met"].is_null());
    }

    #[test]
    fn the_file_can_be_read_back() {
        let folder = std::env::temp_dir().join(format!("gristmill-report-{}", std::process::id()));
        report().write(&folder).unwrap();
        let text = std::fs::read_to_string(folder.join("sample.json")).unwrap();
        let _ = std::fs::remove_dir_all(&folder);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["bench"], "sample");
    }
}
