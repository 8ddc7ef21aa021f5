//! The text that the demo counts: documents of lines, repeated under numbered names.

use super::loading::value;
use crate::exit::{Exit, Failed};
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Where text is found on a Debian machine and in a checkout.
const PLACES: [&str; 2] = ["/usr/share/common-licenses", "docs"];
/// Documents whose lines go into the events in turn, so that all shards have work.
const DOCUMENTS_AT_ONCE: usize = 32;

/// A file of the original text.
struct Source {
    /// Its path below the folder, as a name of letters, digits, dots, dashes and underscores.
    name: String,
    /// Without their ends.
    lines: Vec<String>,
}

/// A document: a source under a numbered name.
pub(super) struct Document {
    /// Key of its events.
    pub(super) name: String,
    source: usize,
}

/// All documents, in the order of their appending.
pub(super) struct Corpus {
    sources: Vec<Source>,
    /// The documents.
    pub(super) documents: Vec<Document>,
    /// Their lines, all together.
    pub(super) lines: u64,
}

impl Corpus {
    /// Reads the text and repeats it until there are so many lines. Every file is there at least once.
    ///
    /// # Errors
    /// There is no text.
    pub(super) fn read(text: Option<&Path>, lines_wanted: u64) -> Result<Self, Failed> {
        let places: Vec<PathBuf> = text.map_or_else(|| PLACES.map(PathBuf::from).to_vec(), |dir| vec![dir.to_owned()]);
        let mut files = Vec::new();
        for place in places.iter().filter(|place| text.is_some() || place.is_dir()) {
            list(place, &mut files).map_err(|error| Failed::configuration(format!("{}: {error}", place.display())))?;
        }
        files.sort();
        let mut names = BTreeSet::new();
        let mut sources = Vec::new();
        for file in &files {
            sources.extend(read_source(file, &mut names)?);
        }
        if sources.is_empty() {
            let list: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
            return Err(Failed::new(
                Exit::Configuration,
                format!("no text under {}; name a folder of text files with --text", list.join(" and ")),
            ));
        }
        Ok(Self::repeat(sources, lines_wanted))
    }

    fn repeat(sources: Vec<Source>, lines_wanted: u64) -> Self {
        let (mut documents, mut lines) = (Vec::new(), 0);
        for copy in 1_u32.. {
            if copy > 1 && lines >= lines_wanted {
                break;
            }
            for (at, source) in sources.iter().enumerate() {
                if copy > 1 && lines >= lines_wanted {
                    break;
                }
                documents.push(Document { name: format!("{copy:04}-{}", source.name), source: at });
                lines += source.lines.len() as u64;
            }
        }
        Self { sources, documents, lines }
    }

    /// The lines of a document.
    pub(super) fn lines_of(&self, document: &Document) -> &[String] {
        &self.sources[document.source].lines
    }

    /// Whether the letters stand anywhere in the text, in small or capital letters.
    pub(super) fn contains(&self, letters: &str) -> bool {
        self.sources.iter().any(|source| source.lines.iter().any(|line| line.to_ascii_lowercase().contains(letters)))
    }

    /// Writes each document to a file of its name.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn write(&self, folder: &Path) -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        for document in &self.documents {
            write_lines(&folder.join(&document.name), self.lines_of(document).iter().map(String::as_str))?;
        }
        Ok(())
    }

    /// Writes the values of the events to a file, one a line: documents in turn, the lines of each in order.
    ///
    /// # Errors
    /// The disk.
    pub(super) fn write_events(&self, path: &Path) -> std::io::Result<()> {
        let mut file = BufWriter::new(fs::File::create(path)?);
        let mut documents = self.documents.iter();
        let mut open: VecDeque<(&Document, usize)> = VecDeque::new();
        loop {
            open.extend(documents.by_ref().take(DOCUMENTS_AT_ONCE - open.len()).map(|document| (document, 0)));
            let Some((document, at)) = open.pop_front() else { return file.flush() };
            let lines = self.lines_of(document);
            file.write_all(&value(&document.name, &lines[at]))?;
            file.write_all(b"\n")?;
            if at + 1 < lines.len() {
                open.push_back((document, at + 1));
            }
        }
    }
}

/// Writes lines to a file.
///
/// # Errors
/// The disk.
pub(super) fn write_lines<'a>(path: &Path, lines: impl Iterator<Item = &'a str>) -> std::io::Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for line in lines {
        writeln!(file, "{line}")?;
    }
    file.flush()
}

/// Regular files below a folder; links are not followed.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// A source, unless the file is empty or no text. Bytes that are no UTF-8 become the replacement character, which is no
/// letter, as they were none.
fn read_source(file: &Path, names: &mut BTreeSet<String>) -> Result<Option<Source>, Failed> {
    let bytes = fs::read(file).map_err(|error| Failed::configuration(format!("{}: {error}", file.display())))?;
    if bytes.is_empty() || bytes.contains(&0) {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n').map(str::to_owned).collect();
    let base = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' };
    let base: String = base.chars().map(plain).collect();
    let mut name = base.clone();
    for number in 2.. {
        if names.insert(name.clone()) {
            break;
        }
        name = format!("{base}-{number}");
    }
    Ok(Some(Source { name, lines }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_repeated_under_numbered_names() {
        let dir = std::env::temp_dir().join(format!("gristmill-corpus-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("a b"), "one\n\ntwo\n").unwrap();
        fs::write(dir.join("sub/a b"), "no end").unwrap();
        fs::write(dir.join("binary"), [1, 0]).unwrap();
        let _ = std::os::unix::fs::symlink("a b", dir.join("link"));
        let corpus = Corpus::read(Some(&dir), 6).unwrap();
        let names: Vec<&str> = corpus.documents.iter().map(|document| document.name.as_str()).collect();
        assert_eq!(names, ["0001-a_b", "0001-a_b-2", "0002-a_b"]);
        assert_eq!(corpus.lines_of(&corpus.documents[0]), ["one", "", "two"]);
        assert!(corpus.lines == 7 && corpus.contains("no e") && !corpus.contains("zz"));
        corpus.write(&dir.join("out")).unwrap();
        assert_eq!(fs::read_to_string(dir.join("out/0002-a_b")).unwrap(), "one\n\ntwo\n");
        corpus.write_events(&dir.join("events")).unwrap();
        let events = fs::read_to_string(dir.join("events")).unwrap();
        let texts = |doc: &str| -> Vec<String> {
            let all = events.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            all.filter(|event| event["doc"] == doc).map(|event| event["text"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            (texts("0001-a_b"), texts("0001-a_b-2")),
            (vec!["one".into(), String::new(), "two".into()], vec!["no end".into()])
        );
        assert_eq!((texts("0002-a_b").len(), events.lines().count()), (3, 7));
        fs::remove_dir_all(&dir).unwrap();
        assert!(Corpus::read(Some(&dir), 1).is_err());
    }
}
