//! Where everything stands: the shape of a YAML text with line and column of each key and value.
//!
//! The YAML reader of this project, `serde_yaml`, gives no positions, so a second parser is asked for them. It goes
//! first and doubles as the guard: what would blow up or confuse a reader (anchors and aliases, tags, several
//! documents, deep nesting) is refused here, before the content is read. Not for the content itself.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::diagnostic::{Place, Report, plain, shown};
use super::quoting;
use super::written::{Raw, Written};

/// How deep a policy may nest. The deepest that means anything is below 10.
const DEEPEST: usize = 24;
/// How many keys and values one text may hold.
const MOST_NODES: usize = 50_000;

/// A key or value and where it begins.
#[derive(Debug)]
pub(super) struct Located {
    pub at: Place,
    pub shape: Shape,
    /// How a scalar stands in the text.
    pub written: Written,
}

/// What a value looks like.
#[derive(Debug)]
pub(super) enum Shape {
    /// The text of a scalar, after quotes and escapes were taken off.
    Scalar(String),
    List(Vec<Located>),
    Map(Vec<(Located, Located)>),
}

/// A list or mapping that is not complete yet.
struct Open {
    at: Place,
    is_map: bool,
    items: Vec<Located>,
}

/// Finds all positions of one text. `None` if it is no YAML that a policy may use (then there are errors in the
/// report), or if there is nothing in it.
pub(super) fn locate(text: &str, source: u32, report: &mut Report) -> Option<Located> {
    let before = report.errors();
    let raw = Raw::new(text);
    let mut found = None;
    let mut open: Vec<Open> = Vec::new();
    let (mut nodes, mut documents) = (0_usize, 0_usize);
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                report_syntax(text, source, &error, report);
                return None;
            }
        };
        let at = place(source, &span);
        nodes += 1;
        if nodes > MOST_NODES {
            report.error(
                at,
                format!("the text holds more than {MOST_NODES} keys and values"),
                "a policy is short; is this the right file?",
            );
            return None;
        }
        let complete = match event {
            Event::Alias(_) => {
                report.error(at, "an alias (`*name`) is not read in a policy", quoting::STAR);
                Some(Located { at, shape: Shape::Scalar(String::new()), written: Written::AsIs })
            }
            Event::Scalar(value, style, anchor, tag) => {
                refuse_extras(at, anchor, tag.is_some(), report);
                if matches!(style, ScalarStyle::Plain) && value.as_ref() == "<<" {
                    report.error(at, "merge keys (`<<`) are not read in a policy", "write the keys out");
                }
                let written = raw.written(&span.start, at, style, &value);
                Some(Located { at, shape: Shape::Scalar(value.into_owned()), written })
            }
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) if open.len() >= DEEPEST => {
                refuse_extras(at, anchor, tag.is_some(), report);
                report.error(
                    at,
                    format!("nested deeper than {DEEPEST} levels"),
                    "nothing in a policy nests that deep; see the policy reference",
                );
                return None;
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_extras(at, anchor, tag.is_some(), report);
                open.push(Open { at, is_map: false, items: Vec::new() });
                None
            }
            Event::MappingStart(anchor, tag) => {
                refuse_extras(at, anchor, tag.is_some(), report);
                open.push(Open { at, is_map: true, items: Vec::new() });
                None
            }
            Event::SequenceEnd | Event::MappingEnd => open.pop().map(Open::close),
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    report.error(
                        at,
                        "a second YAML document begins here",
                        "a policy file holds one document: take out this `---`, or make it a file of its own",
                    );
                    return None;
                }
                None
            }
            _ => None,
        };
        match (complete, open.last_mut()) {
            (Some(node), Some(parent)) => parent.items.push(node),
            (Some(node), None) => found = Some(node),
            (None, _) => {}
        }
    }
    if report.errors() > before { None } else { found }
}

impl Open {
    fn close(self) -> Located {
        let Open { at, is_map, items } = self;
        if !is_map {
            return Located { at, shape: Shape::List(items), written: Written::AsIs };
        }
        let mut pairs = Vec::with_capacity(items.len() / 2);
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            pairs.push((key, value));
        }
        Located { at, shape: Shape::Map(pairs), written: Written::AsIs }
    }
}

fn place(source: u32, span: &Span) -> Place {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { source, line: number(span.start.line()).max(1), column: number(span.start.col()).saturating_add(1) }
}

fn refuse_extras(at: Place, anchor: usize, tagged: bool, report: &mut Report) {
    if anchor != 0 {
        report.error(
            at,
            "an anchor (`&name`) is not read in a policy",
            "write the value out where it is needed, or put it in quotes if it begins with `&`",
        );
    }
    if tagged {
        report.error(at, "a tag (`!name`) is not read in a policy", "leave it out, or put the value in quotes if it begins with `!`");
    }
}

fn report_syntax(text: &str, source: u32, error: &ScanError, report: &mut Report) {
    let mark = *error.marker();
    let at = place(source, &Span::new(mark, mark));
    syntax(text, at, error.info(), report);
}

/// Reports that the text is not YAML.
pub(super) fn syntax(text: &str, at: Place, reason: &str, report: &mut Report) {
    let line = at.line as usize;
    let (message, hint) = match quoting::pitfall(text, line) {
        Some((column, message, hint)) => {
            report.error(Place { column: u32::try_from(column).unwrap_or(u32::MAX), ..at }, message, hint);
            return;
        }
        None => (format!("not YAML: {}", plain(reason)), quoting::general(text, line, reason)),
    };
    report.error(at, message, hint);
}

/// For messages: what stands there.
pub(super) fn describe(text: &str) -> String {
    if text.is_empty() { "nothing".to_owned() } else { shown(text) }
}

#[cfg(test)]
mod tests;
