//! What is wrong with a policy, and where: `file:line:column: error: ...` with a hint.
//!
//! Everything found is collected in a [`Report`] first, so that one look at a policy shows all of its faults. Text of
//! the policy that a message repeats goes through [`shown`]: a policy may come from somebody else, and the message may
//! end on a terminal.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// How many diagnostics are kept; a file of rubbish should not fill the log.
const MOST: usize = 200;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy can't be used.
    Error,
    /// The policy can be used, but probably does not do what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// One fault of a policy.
///
/// Shown in two lines: `file:line:column: error: message` and, indented, `hint: what to do`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The name of the source, as it was given.
    #[serde(serialize_with = "as_text")]
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is wrong; lower case, no full stop at the end.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

fn as_text<S: Serializer>(name: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Diagnostic { severity, file, line, column, message, hint } = self;
        write!(f, "{file}:{line}:{column}: {severity}: {message}\n  hint: {hint}")
    }
}

/// A place in one of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place {
    /// Index of the source.
    pub source: u32,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl Place {
    /// The first character of a source.
    pub fn start_of(source: u32) -> Place {
        Place { source, line: 1, column: 1 }
    }
}

/// Why a value is refused, and what to write instead; where it stands is known to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl Bad {
    /// Both texts.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Bad {
        Bad { message: message.into(), hint: hint.into() }
    }
}

/// Collects diagnostics.
#[derive(Debug)]
pub(super) struct Report {
    names: Vec<Arc<str>>,
    found: Vec<(Place, Severity, Bad)>,
    errors: usize,
    dropped: Option<(Place, usize)>,
}

impl Report {
    /// An empty report about the sources with these names.
    pub fn new(names: Vec<Arc<str>>) -> Report {
        Report { names, found: Vec::new(), errors: 0, dropped: None }
    }

    /// The name of a source.
    pub fn name(&self, source: u32) -> &str {
        self.names.get(source as usize).map_or("policy", |name| name)
    }

    /// Adds an error.
    pub fn error(&mut self, at: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.add(at, Severity::Error, Bad::new(message, hint));
    }

    /// Adds an error about a value.
    pub fn bad(&mut self, at: Place, bad: Bad) {
        self.add(at, Severity::Error, bad);
    }

    /// Adds a warning.
    pub fn warning(&mut self, at: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.add(at, Severity::Warning, Bad::new(message, hint));
    }

    fn add(&mut self, at: Place, severity: Severity, bad: Bad) {
        self.errors += usize::from(severity == Severity::Error);
        if self.found.len() < MOST {
            self.found.push((at, severity, bad));
        } else {
            let (_, count) = self.dropped.get_or_insert((at, 0));
            *count += 1;
        }
    }

    /// How many errors there were so far.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Everything, in the order of the text.
    pub fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|(at, severity, _)| (*at, *severity));
        if let Some((at, count)) = self.dropped.take() {
            let severity = if self.errors > 0 { Severity::Error } else { Severity::Warning };
            self.found.push((at, severity, Bad::new(format!("and {count} more like these"), "mend the ones above first")));
        }
        let name = |at: &Place| self.names.get(at.source as usize).cloned().unwrap_or_else(|| Arc::from("policy"));
        self.found
            .iter()
            .map(|(at, severity, bad)| Diagnostic {
                severity: *severity,
                file: name(at),
                line: at.line,
                column: at.column,
                message: bad.message.clone(),
                hint: bad.hint.clone(),
            })
            .collect()
    }
}

/// A piece of the policy's text as a message repeats it: in backquotes, control characters escaped, cut when long.
pub(super) fn shown(text: &str) -> String {
    format!("`{}`", plain(text))
}

/// The same without the backquotes.
pub(super) fn plain(text: &str) -> String {
    const LONGEST: usize = 80;
    let (kept, cut) = match text.char_indices().nth(LONGEST) {
        Some((at, _)) => (text.get(..at).unwrap_or_default(), "..."),
        None => (text, ""),
    };
    escaped(kept) + cut
}

/// Control characters, and those that reorder or break lines, written as `\u{..}`.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let misleading = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || misleading { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(line: u32, column: u32) -> Place {
        Place { source: 0, line, column }
    }

    #[test]
    fn diagnostics_come_in_the_order_of_the_text() {
        let mut report = Report::new(vec!["a.yaml".into()]);
        report.warning(place(3, 1), "odd", "look");
        report.error(place(1, 7), "wrong", "mend");
        assert_eq!(report.errors(), 1);
        let shown: Vec<String> = report.into_diagnostics().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a.yaml:1:7: error: wrong\n  hint: mend", "a.yaml:3:1: warning: odd\n  hint: look"]);
    }

    #[test]
    fn a_flood_of_errors_is_cut_and_counted() {
        let mut report = Report::new(vec!["a.yaml".into()]);
        for line in 1..=1000 {
            report.error(place(line, 1), "wrong", "mend");
        }
        let all = report.into_diagnostics();
        assert_eq!(all.len(), MOST + 1);
        assert_eq!(all.last().map(|last| last.message.as_str()), Some("and 800 more like these"));
    }

    #[test]
    fn text_of_the_policy_can_not_move_the_cursor() {
        assert_eq!(shown("a\u{1b}[2Jb"), "`a\\u{1b}[2Jb`");
        assert_eq!(shown(&"x".repeat(500)).len(), 80 + 5);
    }
}
