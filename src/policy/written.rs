//! Where YAML reads something else than what stands in the text: escapes, folded lines, blocks.
//!
//! A glob or a comm that YAML has changed looks right and matches nothing: systemd's `\x2d` in double quotes becomes `-`,
//! and the group that it was to protect dies. So such values are held against the raw text.

use saphyr_parser::{Marker, ScalarStyle};

use super::diagnostic::{Bad, Place, plain, shown};

/// How a scalar stands in the text, as far as YAML reads something else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Written {
    /// It reads as it stands there. `\\`, `\"` and, in single quotes, `''` can't be meant otherwise and count as such.
    #[default]
    AsIs,
    /// Double quotes hold another escape.
    Escape {
        /// Where the backslash stands.
        at: Place,
        /// The escape: `\x2d`.
        escape: String,
        /// All that stands between the quotes.
        inner: String,
    },
    /// It goes on in another line.
    Lines,
    /// A block that `|` or `>` begins.
    Block,
}

impl Written {
    /// Says what is wrong with a value, for `what` (`glob`, `comm`): `read` is what YAML makes of it.
    pub fn refusal(&self, what: &str, read: &str, value: Place) -> Option<(Place, Bad)> {
        match self {
            Written::AsIs => None,
            Written::Escape { at, escape, inner } => {
                let message = format!("{} in double quotes is an escape: YAML reads the {what} as {}", shown(escape), shown(read));
                // `\x` is how systemd writes a character in a name; the others are no part of any unit's name.
                let hint = if inner.contains('\'') || inner.contains(r"\\") || inner.contains("\\\"") {
                    "a backslash stands for itself in single quotes, or without quotes; in double quotes write it twice".to_owned()
                } else if escape.starts_with(r"\x") {
                    format!("write it in single quotes, '{0}', or without quotes, or write the backslash twice", plain(inner))
                } else {
                    format!(
                        "write the character itself; if the backslash belongs to the name, use single quotes, '{}', or write it twice",
                        plain(inner)
                    )
                };
                Some((*at, Bad::new(message, hint)))
            }
            Written::Lines => Some((
                value,
                Bad::new(
                    format!("the {what} goes on in another line: YAML joins the lines to {}", shown(read)),
                    "write it in one line; several of them are a list, each with `- ` in front",
                ),
            )),
            Written::Block => Some((
                value,
                Bad::new(
                    format!("the {what} is a block of lines, to which YAML may add an end of line or spaces: it reads {}", shown(read)),
                    "write it behind the key, in the same line, without `|` or `>`",
                ),
            )),
        }
    }
}

/// A text with the places of its characters.
pub(super) struct Raw<'t> {
    text: &'t str,
    /// Where each character begins, if not all of them are single bytes.
    starts: Option<Vec<usize>>,
}

impl<'t> Raw<'t> {
    /// Makes ready.
    pub fn new(text: &'t str) -> Raw<'t> {
        Raw { text, starts: (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).collect()) }
    }

    fn from(&self, mark: &Marker) -> Option<&'t str> {
        let at = match &self.starts {
            None => mark.index(),
            Some(starts) => starts.get(mark.index()).copied()?,
        };
        self.text.get(at..)
    }

    /// How the scalar that begins at `mark` stands in the text; `value` is what YAML reads.
    pub fn written(&self, mark: &Marker, at: Place, style: ScalarStyle, value: &str) -> Written {
        let Some(raw) = self.from(mark) else { return Written::AsIs };
        match style {
            ScalarStyle::Plain if raw.starts_with(value) => Written::AsIs,
            ScalarStyle::Plain => Written::Lines,
            ScalarStyle::Literal | ScalarStyle::Folded => Written::Block,
            ScalarStyle::SingleQuoted => single_quoted(raw),
            ScalarStyle::DoubleQuoted => double_quoted(raw, at),
        }
    }
}

fn single_quoted(raw: &str) -> Written {
    let mut characters = raw.chars().skip(1).peekable();
    while let Some(c) = characters.next() {
        match c {
            '\'' if characters.peek() == Some(&'\'') => {
                characters.next();
            }
            '\'' => break,
            '\n' | '\r' => return Written::Lines,
            _ => {}
        }
    }
    Written::AsIs
}

fn double_quoted(raw: &str, at: Place) -> Written {
    let inner = raw.strip_prefix('"').unwrap_or(raw);
    let (mut first, mut end) = (None, inner.len());
    let mut characters = inner.char_indices().zip(1_u32..);
    while let Some(((index, c), column)) = characters.next() {
        match c {
            '"' => {
                end = index;
                break;
            }
            '\n' | '\r' => return Written::Lines,
            '\\' => match characters.next().map(|((_, escaped), _)| escaped) {
                Some('\\' | '"') => {}
                Some('\n' | '\r') | None => return Written::Lines,
                Some(escaped) => {
                    first.get_or_insert((index, column, escaped));
                }
            },
            _ => {}
        }
    }
    let Some((index, column, escaped)) = first else { return Written::AsIs };
    let digits = match escaped {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => 0,
    };
    let inner = inner.get(..end).unwrap_or_default();
    let escape = inner.get(index..).unwrap_or_default().chars().take(2 + digits).collect();
    Written::Escape { at: Place { column: at.column.saturating_add(column), ..at }, escape, inner: inner.to_owned() }
}

#[cfg(test)]
mod tests;
