//! One text of a policy before anybody has read it, and the checks that need no YAML: size, UTF-8, control characters.

use std::sync::Arc;

use super::diagnostic::{Place, Report, escaped};

/// The largest policy text that is read, in bytes. Ample: the most rules a policy may have take a tenth of it.
pub const MAX_SOURCE_BYTES: usize = 1 << 20;

/// A text and the name under which messages speak of it.
#[derive(Clone, Debug)]
pub struct Source {
    name: Arc<str>,
    text: Vec<u8>,
}

impl Source {
    /// A source. `name` is usually a file's path; control characters in it are escaped.
    #[must_use]
    pub fn new(name: &str, text: impl Into<Vec<u8>>) -> Source {
        Source { name: escaped(name).into(), text: text.into() }
    }

    /// The policy that is compiled in, for use where none is given.
    #[must_use]
    pub fn builtin() -> Source {
        Source::new("built-in default.yaml", include_str!("../../policies/default.yaml"))
    }

    /// The name for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text as it was given.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The text as characters, if it is fit for the YAML readers.
    pub(super) fn characters(&self, source: u32, report: &mut Report) -> Option<&str> {
        let start = Place::start_of(source);
        if self.text.len() > MAX_SOURCE_BYTES {
            report.error(
                start,
                format!("the file holds more than {} KiB", MAX_SOURCE_BYTES / 1024),
                "a policy is short; is this the right file?",
            );
            return None;
        }
        let text = match std::str::from_utf8(&self.text) {
            Ok(text) => text,
            Err(error) => {
                let sound = self.text.get(..error.valid_up_to()).unwrap_or_default();
                report.error(
                    after(source, &String::from_utf8_lossy(sound)),
                    "the file is not UTF-8 text from here on",
                    "save it as UTF-8; a group's name that is not UTF-8 can be matched with `*` or `?`",
                );
                return None;
            }
        };
        // A mark that some editors put in front; it is no part of the text.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // The two Unicode separators end a line for some YAML readers and not for others.
        let unfit = |c: char| (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || matches!(c, '\u{2028}' | '\u{2029}');
        if let Some((at, c)) = text.char_indices().find(|(_, c)| unfit(*c)) {
            report.error(
                after(source, text.get(..at).unwrap_or_default()),
                format!("there is a control character ({}) in the text", c.escape_unicode()),
                "take it out; a text file holds none",
            );
            return None;
        }
        Some(text)
    }
}

/// The place of the character that follows `text`.
fn after(source: u32, text: &str) -> Place {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let line = text.rsplit('\n').next().unwrap_or_default();
    Place { source, line: count(text.matches('\n').count()).saturating_add(1), column: count(line.chars().count()).saturating_add(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &[u8]) -> Option<String> {
        let source = Source::new("p", text);
        let mut report = Report::new(vec![source.shared_name()]);
        let fit = source.characters(0, &mut report).is_some();
        let found = report.into_diagnostics();
        assert_eq!(fit, found.is_empty());
        found.first().map(|d| format!("{}:{} {}", d.line, d.column, d.message))
    }

    #[test]
    fn only_text_passes() {
        assert_eq!(refusal(b"version: 1\r\n# gr\xc3\xb6\xc3\x9fe\n"), None);
        assert_eq!(refusal(b"\xef\xbb\xbfversion: 1\n"), None);
        assert_eq!(refusal(b"a: 1\n\xc3\xb6b\0c").as_deref(), Some("2:3 there is a control character (\\u{0}) in the text"));
        assert_eq!(refusal(b"a: 1\nb: \xff").as_deref(), Some("2:4 the file is not UTF-8 text from here on"));
        assert_eq!(refusal(b"\x1b[2J").as_deref(), Some("1:1 there is a control character (\\u{1b}) in the text"));
        assert_eq!(refusal(&vec![b' '; MAX_SOURCE_BYTES + 1]).as_deref(), Some("1:1 the file holds more than 1024 KiB"));
    }

    #[test]
    fn names_stay_on_one_line() {
        assert_eq!(Source::new("a\nb\u{1b}.yaml", "").name(), "a\\u{a}b\\u{1b}.yaml");
    }
}
