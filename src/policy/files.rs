//! Reading policy files: the only I/O of this room. Says nothing of what is in them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::diagnostic::escaped;
use super::source::{MAX_SOURCE_BYTES, Source};

/// How many files one directory may hold.
const MOST_FILES: usize = 256;

/// A policy that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system refused.
    #[error("can't read the policy {}: {source}; {}", shown_path(path), advice(source))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory without a single `*.yaml`.
    #[error("no policy in the directory {}: put at least one file there whose name ends in .yaml", shown_path(path))]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// A directory with far too many.
    #[error("the directory {} holds more than {MOST_FILES} files *.yaml: is it the right one?", shown_path(path))]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
}

/// A path as messages show it: on one line, whatever its name holds.
#[must_use]
pub fn shown_path(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "check the path",
        io::ErrorKind::PermissionDenied => "make it readable for the user that runs oomwarden",
        io::ErrorKind::IsADirectory => "only files are read inside a policy directory",
        _ => "check the file and what it lies on",
    }
}

/// Reads policies in the order given; a directory stands for its files `*.yaml` in order of name, hidden ones left out.
///
/// No more than [`MAX_SOURCE_BYTES`] and one are read of a file, so that an endless one is refused by its size later.
///
/// # Errors
/// The first path that can't be read, or a directory without policies. The text says what to do.
pub fn read_sources<P: AsRef<Path>>(paths: &[P]) -> Result<Vec<Source>, ReadError> {
    let mut sources = Vec::new();
    for path in paths {
        let path = path.as_ref();
        let failed = |source| ReadError::Io { path: path.to_owned(), source };
        if fs::metadata(path).map_err(failed)?.is_dir() {
            for file in files_of(path)? {
                sources.push(read(&file)?);
            }
        } else {
            sources.push(read(path)?);
        }
    }
    Ok(sources)
}

fn files_of(directory: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let failed = |source| ReadError::Io { path: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".yaml") && !bytes.starts_with(b".") {
            files.push(directory.join(&name));
        }
        if files.len() > MOST_FILES {
            return Err(ReadError::TooMany { path: directory.to_owned() });
        }
    }
    files.sort();
    if files.is_empty() { Err(ReadError::Empty { path: directory.to_owned() }) } else { Ok(files) }
}

fn read(path: &Path) -> Result<Source, ReadError> {
    let failed = |source| ReadError::Io { path: path.to_owned(), source };
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_SOURCE_BYTES as u64 + 1).read_to_end(&mut text)).map_err(failed)?;
    Ok(Source::new(&path.to_string_lossy(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sources: &[Source]) -> Vec<&str> {
        sources.iter().filter_map(|source| source.name().rsplit('/').next()).collect()
    }

    #[test]
    fn a_directory_is_its_yaml_files_in_order_of_name() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["20-b.yaml", "10-a.yaml", "notes.txt", ".hidden.yaml", "c.yml"] {
            fs::write(directory.path().join(name), name).unwrap();
        }
        let sources = read_sources(&[directory.path()]).unwrap();
        assert_eq!(names(&sources), ["10-a.yaml", "20-b.yaml"]);
        assert_eq!(sources[0].text(), b"10-a.yaml");
        let twice = read_sources(&[directory.path().join("20-b.yaml"), directory.path().join("10-a.yaml")]).unwrap();
        assert_eq!(names(&twice), ["20-b.yaml", "10-a.yaml"]);
    }

    #[test]
    fn what_can_not_be_read_is_named_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = read_sources(&[directory.path()]).unwrap_err().to_string();
        assert!(error.contains(directory.path().to_str().unwrap()) && error.contains("ends in .yaml"), "{error}");
        let missing = directory.path().join("none.yaml");
        let error = read_sources(&[&missing]).unwrap_err().to_string();
        assert!(error.contains("none.yaml") && error.contains("No such file") && error.contains("check the path"), "{error}");
        fs::create_dir(directory.path().join("sub.yaml")).unwrap();
        let error = read_sources(&[directory.path()]).unwrap_err().to_string();
        assert!(error.contains("sub.yaml") && error.contains("only files"), "{error}");
    }

    #[test]
    fn an_endless_file_ends() {
        let sources = read_sources(&["/dev/zero"]).unwrap();
        assert_eq!(sources[0].text().len(), MAX_SOURCE_BYTES + 1);
    }
}
