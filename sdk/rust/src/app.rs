use crate::{Context, Failure, Input, Reply};

/// How a handler is called.
#[derive(Clone, Copy)]
pub enum HandlerFn {
    /// Once per input. A failure concerns that input alone.
    Each(fn(&Input<'_>, &mut Context<'_>) -> Result<Reply, Failure>),
    /// Once with several inputs of one grain, in order, and one reply per input (or an empty list: nobody gets a
    /// value). A failure makes the inputs be tried again one by one.
    Several(fn(&[Input<'_>], &mut Context<'_>) -> Result<Vec<Reply>, Failure>),
}

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
        call: fn(&[Input<'_>], &mut Context<'_>) -> Result<Vec<Reply>, Failure>,
    ) -> Self {
        self.handlers.push(Handler { table, name, call: HandlerFn::Several(call) });
        self
    }
}
