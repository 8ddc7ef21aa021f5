//! The messages of a server: to standard error, as lines for people or as JSON, by level and target.

use crate::config::{LogFormat, Server};
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};
use std::sync::{Mutex, PoisonError};
use std::thread;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// What our messages are filtered by.
macro_rules! target {
    () => {
        "gristmill"
    };
}
pub(crate) use target;

/// Messages that wait for whoever reads standard error; more are dropped. Nobody who has something to say waits.
const WAITING_MAX: usize = 4_096;

/// Has what waits written when it is dropped, within about a second.
static WRITER: Mutex<Option<WorkerGuard>> = Mutex::new(None);

/// Waits for about a second at most until what was said is written. Nothing is written afterwards.
pub(crate) fn finish() {
    let writer = WRITER.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(writer);
}

/// From now on messages are written as configured, panics among them. Later calls in one process change nothing.
pub(crate) fn start(config: &Server) {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let filter = config.log_filter.parse().expect("the filter was checked when it was set");
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING_MAX).thread_name("messages").finish(io::stderr());
    if tracing_subscriber::registry().with(layer(config.log_format, filter, colours, writer)).try_init().is_ok() {
        WRITER.lock().unwrap_or_else(PoisonError::into_inner).replace(guard);
        panic::set_hook(Box::new(panicked));
    }
}

/// Whether a filter can be read.
///
/// # Errors
/// What is allowed.
pub(crate) fn check_filter(text: &str) -> Result<(), String> {
    let known = |level: &str| ["error", "warn", "info", "debug", "trace", "off"].contains(&level);
    // A word alone is a level: a misspelt one would be taken for a target.
    let each = text.split(',').all(|part| known(part.rsplit('=').next().unwrap_or("")));
    if each && text.parse::<Targets>().is_ok() {
        return Ok(());
    }
    Err("error, warn, info, debug, trace or off, also by target and separated by commas, such as \
         warn,gristmill=debug"
        .to_owned())
}

fn layer<W>(format: LogFormat, filter: Targets, colours: bool, writer: W) -> impl Layer<Registry>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).with_ansi(colours).log_internal_errors(false);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_thread_names(true).boxed(),
    };
    layer.with_filter(filter)
}

/// A panic is a message like any other.
fn panicked(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let place = panic.location().map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
    let message = panic.payload_as_str().unwrap_or("no message");
    tracing::error!(target: target!(), thread, "thread {thread} panicked{place}: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, filter: &str, tell: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        let layer = layer(format, filter.parse().unwrap(), false, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), tell);
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn people_get_the_words_and_programs_the_fields() {
        let tell = || tracing::warn!(target: target!(), shard = 3, "the disk is \"full\"");
        let line = written(LogFormat::Text, "info", tell);
        assert!(line.contains(" WARN gristmill: the disk is \"full\" shard=3\n"), "{line}");
        let line = written(LogFormat::Json, "info", tell);
        let object: serde_json::Value = serde_json::from_str(line.trim_end()).unwrap();
        assert_eq!((&object["level"], &object["shard"]), (&"WARN".into(), &3.into()));
        assert_eq!(object["message"], "the disk is \"full\"");
        assert!(object["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }

    #[test]
    fn what_is_filtered_is_not_written() {
        let tell = || {
            tracing::info!(target: target!(), "ours");
            tracing::info!(target: "another", "theirs");
        };
        assert!(written(LogFormat::Text, "warn,gristmill=info", tell).ends_with("gristmill: ours\n"));
        assert_eq!(written(LogFormat::Text, "off", tell), "");
    }

    #[test]
    fn filters_are_checked() {
        for good in ["info", "off", "warn,gristmill=debug", "gristmill=trace,glommio=off,error"] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for wrong in ["", "loud", "gristmill=loud", "gristmill", "info,,", "=info,x"] {
            assert!(check_filter(wrong).unwrap_err().contains("debug"), "{wrong}");
        }
    }
}
