//! `gristmill man`: the manual pages.

use crate::exit::{Exit, Failed};
use std::fs;
use std::path::PathBuf;

/// Arguments of `man`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Folder to write gristmill.1 and a page for each command into; made if it is not there.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the pages of `line`, the whole command line.
///
/// # Errors
/// The folder cannot be written to.
pub(super) fn run(arguments: &Arguments, line: clap::Command) -> Result<(), Failed> {
    let folder = &arguments.folder;
    let written = fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(line, folder));
    written.map_err(|error| {
        let message =
            format!("the manual pages cannot be written to {}: {error}; name another folder", folder.display());
        Failed::new(Exit::No, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let folder = std::env::temp_dir().join(format!("gristmill-man-{}", std::process::id()));
        run(&Arguments { folder: folder.clone() }, crate::command_line()).unwrap();
        for page in ["gristmill.1", "gristmill-serve.1", "gristmill-table-get.1", "gristmill-top.1"] {
            let text = fs::read_to_string(folder.join(page)).expect(page);
            assert!(text.contains(".TH"), "{page}");
        }
        fs::remove_dir_all(&folder).unwrap();
        let failed = run(&Arguments { folder: "/proc/nothing".into() }, crate::command_line()).unwrap_err();
        assert!(failed.message.contains("/proc/nothing"), "{failed}");
    }
}
