//! Where the policy in force was read, for those who ask the daemon about it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

/// What the policy in force was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// The files that were named at the start.
    Files,
    /// The one that is compiled in.
    BuiltIn,
    /// The last good one, because the files could not be used at the start.
    LastGood,
}

impl Source {
    /// The word for it in the status.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Source::Files => "files",
            Source::BuiltIn => "built-in",
            Source::LastGood => "last-good",
        }
    }
}

/// Shared by those who load policies and the server.
#[derive(Debug)]
pub struct Origin {
    /// What `--policy` named, as absolute paths.
    pub files: Vec<PathBuf>,
    /// Where the texts of the policy in force are kept.
    pub kept: PathBuf,
    /// `--observe`: no deeds, whatever the policy says.
    pub observe: bool,
    source: AtomicU8,
}

impl Origin {
    /// As it is at the start. Paths that are relative are so to the present directory.
    #[must_use]
    pub fn new(files: &[PathBuf], kept: PathBuf, observe: bool, source: Source) -> Origin {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let (files, kept) = (files.iter().map(absolute).collect(), absolute(&kept));
        Origin { files, kept, observe, source: AtomicU8::new(source as u8) }
    }

    /// Another policy is in force.
    pub fn set(&self, source: Source) {
        self.source.store(source as u8, Ordering::Relaxed);
    }

    /// What the policy in force was made of.
    #[must_use]
    pub fn source(&self) -> Source {
        match self.source.load(Ordering::Relaxed) {
            built_in if built_in == Source::BuiltIn as u8 => Source::BuiltIn,
            last_good if last_good == Source::LastGood as u8 => Source::LastGood,
            _ => Source::Files,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn paths_are_absolute_and_the_source_changes() {
        let origin = Origin::new(&["/a/b.yaml".into(), "c.yaml".into()], "/run/x".into(), false, Source::LastGood);
        assert_eq!(origin.files[0], Path::new("/a/b.yaml"));
        assert_eq!(origin.files[1], std::env::current_dir().unwrap().join("c.yaml"));
        for source in [Source::LastGood, Source::Files, Source::BuiltIn] {
            origin.set(source);
            assert_eq!(origin.source(), source);
        }
    }
}
