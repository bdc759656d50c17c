//! Globs over group paths: `*` stops at a slash, `**` does not, a backslash is an ordinary character.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::{GlobBuilder, GlobMatcher};

/// One or more compiled globs. A path matches if any of them does.
#[derive(Debug, Clone)]
pub struct Globs {
    globs: Vec<GlobMatcher>,
}

impl Globs {
    /// Compiles `patterns`.
    ///
    /// # Errors
    /// The first pattern that is not a glob, with the reason.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Globs, globset::Error> {
        let compile = |pattern: &S| {
            GlobBuilder::new(pattern.as_ref())
                .literal_separator(true)
                .backslash_escape(false)
                .build()
                .map(|glob| glob.compile_matcher())
        };
        Ok(Globs { globs: patterns.iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// Whether the path (from the cgroup root, beginning with `/`, any bytes) matches.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.globs.iter().any(|glob| glob.is_match(OsStr::from_bytes(path)))
    }

    /// The patterns as they were written.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.globs.iter().map(|glob| glob.glob().glob())
    }
}
