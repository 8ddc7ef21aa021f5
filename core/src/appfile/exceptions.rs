//! Exception handlers: what becomes of an input whose handler failed with a kind of failure.

use super::field::{Field, Fields};
use super::{AppFile, AppFileError, HandlerSpec, TableSpec};
use gristmill_base::nearest::nearest;
use gristmill_sdk::kinds;

/// Stands for failures of all kinds.
pub const ANY_KIND: &str = "*";
/// Most bytes of a status's reason.
const REASON_BYTES_MAX: usize = 1_024;

/// An exception handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExceptionSpec {
    /// Unique among exception handlers.
    pub name: String,
    /// Kinds of failures that it takes, [`ANY_KIND`] among them perhaps; at least one.
    pub kinds: Vec<String>,
    /// Whether it is asked only once the tries of the input are used up.
    pub when_exhausted: bool,
    /// What it does.
    pub reaction: Reaction,
}

/// What an exception handler does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Calls that handler of the same table with the input that failed. Where it succeeds, the input is handled.
    Call(String),
    /// Consumes the input without effect; who waits for its outcome gets this status.
    Status {
        /// The app's own number.
        code: u32,
        /// For people.
        reason: String,
    },
}

/// Reads one.
pub(super) fn read(exception: &Field<'_>) -> Result<ExceptionSpec, AppFileError> {
    let fields = exception.fields(&["name", "kinds", "when", "call", "status"])?;
    let place = fields.required("kinds")?;
    let kinds = fields.list("kinds")?;
    if kinds.is_empty() {
        return Err(place.error("found no kind; allowed: at least one kind of failure, or \"*\" for all".to_owned()));
    }
    let when_exhausted = match fields.optional("when") {
        None => false,
        Some(when) => match when.text()? {
            "failed" => false,
            "exhausted" => true,
            _ => return Err(when.refuse_of(&["failed", "exhausted"])),
        },
    };
    Ok(ExceptionSpec {
        name: fields.required("name")?.name()?,
        kinds: kinds.iter().map(read_kind).collect::<Result<_, _>>()?,
        when_exhausted,
        reaction: read_reaction(exception, &fields)?,
    })
}

fn read_kind(kind: &Field<'_>) -> Result<String, AppFileError> {
    let text = kind.text()?;
    if text == ANY_KIND || kinds::is_name(text) {
        return Ok(text.to_owned());
    }
    Err(kind.refuse(&format!(
        "a kind of failure (lower-case letters, digits and '-', at most {} bytes), or \"*\" for all",
        kinds::KIND_BYTES_MAX
    )))
}

fn read_reaction(exception: &Field<'_>, fields: &Fields<'_>) -> Result<Reaction, AppFileError> {
    match (fields.optional("call"), fields.optional("status")) {
        (Some(handler), None) => Ok(Reaction::Call(handler.name()?)),
        (None, Some(status)) => {
            let fields = status.fields(&["code", "reason"])?;
            let reason = fields.required("reason")?;
            let text = reason.text()?;
            if text.is_empty() || text.len() > REASON_BYTES_MAX {
                return Err(reason
                    .error(format!("found {} bytes; allowed: a reason of 1 to {REASON_BYTES_MAX} bytes", text.len())));
            }
            Ok(Reaction::Status { code: fields.required("code")?.status_code()?, reason: text.to_owned() })
        }
        (Some(_), Some(status)) => Err(status.error("found call and status; allowed: one of them".to_owned())),
        (None, None) => Err(exception.error("found neither call nor status; one of them is needed".to_owned())),
    }
}

/// Checks the exception handlers that a handler of a table names.
pub(super) fn check_uses(
    app: &AppFile,
    table: &TableSpec,
    handler: &HandlerSpec,
    fields: &Fields<'_>,
) -> Result<(), AppFileError> {
    let places = fields.list("on_failure")?;
    for (at, (name, place)) in handler.on_failure.iter().zip(&places).enumerate() {
        if let Some(before) = handler.on_failure[..at].iter().position(|earlier| earlier == name) {
            return Err(place.error(format!("found {name} twice (items {before} and {at}); each is allowed once")));
        }
        let known = || app.exception_handlers.iter().map(|exception| exception.name.as_str());
        let exception = app.exception_handlers.iter().find(|exception| exception.name == *name);
        let exception =
            exception.ok_or_else(|| place.error(unknown("exception handler", name, "of this file", known())))?;
        let Reaction::Call(callee) = &exception.reaction else { continue };
        let handlers = || table.handlers.iter().map(|handler| handler.name.as_str());
        if !handlers().any(|known| known == callee) {
            let message = unknown("handler", callee, &format!("of table {}", table.name), handlers());
            return Err(place.error(format!("exception handler {name} calls {message}")));
        }
        if let Some(way) = way_back(app, table, &handler.name, vec![callee]) {
            let message = format!(
                "exception handler {name} leads back to the handler that failed: {} -> {}; allowed: one that does not",
                handler.name,
                way.join(" -> ")
            );
            return Err(place.error(message));
        }
    }
    Ok(())
}

/// How the calls of exception handlers lead from the last one of `way` to a handler.
fn way_back<'a>(app: &'a AppFile, table: &'a TableSpec, to: &str, way: Vec<&'a str>) -> Option<Vec<&'a str>> {
    let at = *way.last().expect("a way has a beginning");
    if at == to {
        return Some(way);
    }
    let handler = table.handlers.iter().find(|handler| handler.name == at)?;
    handler.on_failure.iter().find_map(|name| {
        let exception = app.exception_handlers.iter().find(|exception| exception.name == *name)?;
        let Reaction::Call(next) = &exception.reaction else { return None };
        // A circle that does not lead back is found where it begins.
        if way.contains(&next.as_str()) {
            return None;
        }
        way_back(app, table, to, [way.as_slice(), &[next]].concat())
    })
}

fn unknown<'a>(what: &str, name: &str, of: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let meant = nearest(name, known.clone());
    let hint = meant.map_or(String::new(), |meant| format!("; did you mean {meant}?"));
    let list: Vec<&str> = known.collect();
    let list = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    format!("unknown {what} {name:?}; those {of}: {list}{hint}")
}

#[cfg(test)]
mod tests {
    use super::super::AppFile;
    use super::*;
    use std::time::Duration;

    const GOOD: &str = r#"
app: a
language: rust
exception_handlers:
  - {name: poor, kinds: [insufficient-funds], status: {code: 402, reason: no money}}
  - {name: mend, kinds: [malformed, timeout], call: mend}
  - {name: rest, kinds: ["*"], when: exhausted, call: bury}
tables:
  - name: t
    key: string
    handlers:
      - {name: h, on_failure: [poor, mend, rest], timeout: 30s}
      - {name: mend, on_failure: [rest]}
      - {name: bury}
"#;

    fn refused(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from} is not in the file");
        AppFile::parse(&GOOD.replacen(from, to, 1), "app.yaml").expect_err("a planted error").to_string()
    }

    #[test]
    fn exception_handlers_are_read() {
        let app = AppFile::parse(GOOD, "app.yaml").unwrap();
        let status = Reaction::Status { code: 402, reason: "no money".into() };
        assert_eq!((&app.exception_handlers[0].reaction, app.exception_handlers[0].when_exhausted), (&status, false));
        let last = &app.exception_handlers[2];
        assert_eq!((&last.kinds, last.when_exhausted), (&vec![ANY_KIND.to_owned()], true));
        assert_eq!(last.reaction, Reaction::Call("bury".into()));
        let handler = &app.tables[0].handlers[0];
        assert_eq!(
            (&handler.on_failure, handler.timeout),
            (&vec!["poor".into(), "mend".into(), "rest".into()], Some(Duration::from_secs(30)))
        );
    }

    #[test]
    fn what_an_exception_handler_lacks_or_has_too_much() {
        for (from, to, says) in [
            ("kinds: [insufficient-funds]", "kinds: []", "exception_handlers[0].kinds: found no kind"),
            ("insufficient-funds", "Poor", "kinds[0]: found \"Poor\"; allowed: a kind of failure"),
            ("when: exhausted", "when: exausted", "did you mean exhausted?"),
            ("{code: 402, reason: no money}", "{code: 0, reason: no money}", "status.code: found the number 0"),
            (", call: bury", "", "found neither call nor status"),
            ("call: mend}", "call: mend, status: {code: 1, reason: r}}", "found call and status"),
            ("{name: mend, kinds", "{name: poor, kinds", "found name poor twice among the exception handlers"),
            ("timeout: 30s", "timeout: 0s", "found \"0s\"; allowed: a duration of at least 1ms"),
        ] {
            let found = refused(from, to);
            assert!(found.contains(says), "{found}");
        }
    }

    #[test]
    fn names_that_are_not_there_and_circles() {
        let found = refused("on_failure: [poor, mend, rest]", "on_failure: [pour]");
        assert!(found.contains("on_failure[0]: unknown exception handler \"pour\""), "{found}");
        assert!(found.ends_with("those of this file: poor, mend, rest; did you mean poor?"), "{found}");
        let found = refused("[poor, mend, rest]", "[poor, poor]");
        assert!(found.contains("found poor twice"), "{found}");
        let found = refused("call: bury", "call: burry");
        assert!(found.contains("exception handler rest calls unknown handler \"burry\""), "{found}");
        assert!(found.ends_with("did you mean bury?"), "{found}");
        let found = refused("call: bury", "call: h");
        assert!(found.contains("leads back to the handler that failed: h -> mend -> h"), "{found}");
    }
}
