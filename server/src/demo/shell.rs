//! The same counts without any of this program's code: two shell pipelines over the files that hold the appended text.

use super::counts::{Counts, Totals};
use super::process::Children;
use crate::exit::{Exit, Failed};
use std::fs;
use std::path::Path;

/// Counts words. The documents were appended twice, so their folder stands twice.
pub(super) const WORDS: &str = "find corpus corpus probe -type f -exec cat {} + \
     | tr -cs 'A-Za-z' '\\n' | tr A-Z a-z | grep . | sort | uniq -c";

/// Counts lines and words of each document. A name may come several times; its numbers are added up.
pub(super) const DOCUMENTS: &str = "find corpus corpus probe -type f -exec awk \
     '{ lines[FILENAME]++; gsub(/[^A-Za-z]+/, \" \"); words[FILENAME] += NF } \
     END { for (f in lines) print lines[f], words[f], f }' {} +";

/// Runs both over `folder`/text and reads what they print.
///
/// # Errors
/// A pipeline fails or prints something else.
pub(super) fn count(children: &Children, folder: &Path) -> Result<Counts, Failed> {
    let mut counts = Counts::default();
    for line in run(children, folder, WORDS, "words.txt")?.lines() {
        let (count, word) = two(line)?;
        counts.words.insert(word.to_owned(), number(count)?);
    }
    for line in run(children, folder, DOCUMENTS, "documents.txt")?.lines() {
        let (lines, rest) = two(line)?;
        let (words, path) = two(rest)?;
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        let totals = counts.documents.entry(name.to_owned()).or_insert(Totals::default());
        totals.lines += number(lines)?;
        totals.words += number(words)?;
    }
    Ok(counts)
}

fn run(children: &Children, folder: &Path, pipeline: &str, output: &str) -> Result<String, Failed> {
    let output = folder.join(output);
    let script = format!("export LC_ALL=C; {pipeline}");
    if !children.shell(&script, &folder.join("text"), &output)? {
        return Err(Failed::new(Exit::Internal, format!("the pipeline failed: {pipeline}")));
    }
    fs::read_to_string(&output).map_err(|error| Failed::new(Exit::Internal, format!("{}: {error}", output.display())))
}

fn two(line: &str) -> Result<(&str, &str), Failed> {
    line.trim_start()
        .split_once(' ')
        .ok_or_else(|| Failed::new(Exit::Internal, format!("the pipeline printed {line:?}")))
}

fn number(text: &str) -> Result<u64, Failed> {
    text.parse().map_err(|_| Failed::new(Exit::Internal, format!("the pipeline printed {text:?} for a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipelines_count_what_is_there() {
        let folder = std::env::temp_dir().join(format!("gristmill-shell-{}", std::process::id()));
        for (path, text) in [("corpus/a", "The grain,\nthe\n\n"), ("probe/p", "x1y\u{e9}z\n")] {
            let path = folder.join("text").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let counts = count(&Children::default(), &folder).unwrap();
        assert_eq!(counts.top(9), [("the", 4), ("grain", 2), ("x", 1), ("y", 1), ("z", 1)]);
        assert_eq!(counts.documents["a"], Totals { lines: 6, words: 6 });
        assert_eq!(counts.documents["p"], Totals { lines: 1, words: 3 });
        fs::remove_dir_all(&folder).unwrap();
    }
}
