//! `gristmill completions`: what a shell needs to complete the command line.

use super::output::Printer;
use crate::exit::Failed;
use clap_complete::Shell;

/// Arguments of `completions`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// Prints the completions of `line`, the whole command line.
///
/// # Errors
/// Nobody reads them.
pub(super) fn run(arguments: &Arguments, mut line: clap::Command) -> Result<(), Failed> {
    let name = line.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut line, name, &mut script);
    let mut printer = Printer::new();
    printer.line(String::from_utf8_lossy(&script).trim_end())?;
    printer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_knows_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut crate::command_line(), "gristmill", &mut script);
            let script = String::from_utf8(script).unwrap();
            for name in ["serve", "status", "top", "completions", "man"] {
                assert!(script.contains(name), "{shell}: {name}");
            }
        }
    }
}
