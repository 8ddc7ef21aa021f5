use crate::{Context, Failure, Input, Reply};

/// How a handler is called.
#[derive(Clone, Copy)]
pub enum HandlerFn {
    /// Once per input. A failure concerns that input alone.
    Each(fn(&Input<'_>, &mut Context<'_>) -> Result<Reply, Failure>),
    /// Once with several inputs of one grain, in order; see [`Results`].
    Several(fn(&[Input<'_>], &mut Context<'_>) -> Result<Results, Failure>),
}

/// What a handler of several inputs gives: results in the order of the inputs, and either
///
/// - one per input, each a reply or a failure. The inputs before the first that failed are handled: they are run again
///   without it, then it is dealt with alone, then those behind it are run. Or
/// - a list that ends with a deferred one, shorter or as long as the inputs: those before it are handled with all that this
///   run did; it and what follows are presented again. Or
/// - an empty list: all are handled, and nobody gets a value.
///
/// Anything else is a failure of the kind `bad-results`. A failure in the place of the list blames no input: they are tried
/// again one by one.
pub type Results = Vec<Result<Reply, Failure>>;

/// A named handler of a table.
#[derive(Clone)]
pub struct Handler {
    /// Table it belongs to, as in the app file.
    pub table: &'static str,
    /// Its name, as in the app file.
    pub name: &'static str,
    /// The code.
    pub call: HandlerFn,
}

/// An app: its file and the handlers that the file names.
#[derive(Clone)]
pub struct App {
    /// Name, as in the app file.
    pub name: &'static str,
    /// The app file, YAML.
    pub file: &'static str,
    /// What is linked.
    pub handlers: Vec<Handler>,
}

impl App {
    /// An app without handlers yet.
    #[must_use]
    pub fn new(name: &'static str, file: &'static str) -> Self {
        Self { name, file, handlers: Vec::new() }
    }

    /// Adds a handler that is called once per input.
    #[must_use]
    pub fn each(
        mut self,
        table: &'static str,
        name: &'static str,
        call: fn(&Input<'_>, &mut Context<'_>) -> Result<Reply, Failure>,
    ) -> Self {
        self.handlers.push(Handler { table, name, call: HandlerFn::Each(call) });
        self
    }

    /// Adds a handler that is called with several inputs at once.
    #[must_use]
    pub fn several(
        mut self,
        table: &'static str,
        name: &'static str,
        call: fn(&[Input<'_>], &mut Context<'_>) -> Result<Results, Failure>,
    ) -> Self {
        self.handlers.push(Handler { table, name, call: HandlerFn::Several(call) });
        self
    }
}
