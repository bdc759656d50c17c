//! Where in the text each entry of a policy stands, for who wants to look it up.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::diagnostic::{Place, Report};
use super::draft::Draft;
use super::source::Source;

/// A line of a source: `server.yaml:31`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineOf {
    /// The name of the source, as it was given.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
}

impl fmt::Display for LineOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Serialize for LineOf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Lines of a policy's entries, by the indices that the compiled policy has.
#[derive(Debug, Default)]
pub struct Places {
    /// The names of the sources.
    pub files: Vec<Arc<str>>,
    /// Exclusions.
    pub exclude: Vec<LineOf>,
    /// Lines of importance.
    pub importance: Vec<LineOf>,
    /// Rules.
    pub rules: Vec<LineOf>,
    /// Globs of `kernel: oom_group`.
    pub oom_group: Vec<LineOf>,
    /// Globs of `kill_one_in`.
    pub kill_one_in: Vec<LineOf>,
}

impl Places {
    /// Those of a draft, which the compiler takes over entry by entry.
    pub(super) fn of(sources: &[Source], draft: &Draft, report: &Report) -> Places {
        let line = |at: Place| LineOf { file: report.name(at.source).into(), line: at.line };
        Places {
            files: sources.iter().map(Source::shared_name).collect(),
            exclude: draft.exclude.iter().map(|entry| line(entry.at)).collect(),
            importance: draft.importance.iter().map(|entry| line(entry.at)).collect(),
            rules: draft.rules.iter().map(|rule| line(rule.name.at)).collect(),
            oom_group: draft.oom_group.iter().flatten().map(|pattern| line(pattern.at)).collect(),
            kill_one_in: draft.kill_one_in.iter().flatten().map(|pattern| line(pattern.at)).collect(),
        }
    }
}
