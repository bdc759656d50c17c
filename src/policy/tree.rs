//! A policy's text as a tree of values, each with its place: what the readers of keys work on.
//!
//! `serde_yaml` says what the values are, [`super::locate`] where they stand; both see the same text, and where they
//! see different things in it the policy is refused. Knows nothing of what the keys mean.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::diagnostic::{Place, Report, shown};
use super::locate::{self, Located, Shape, locate};
use super::written::Written;

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub at: Place,
    pub kind: Kind,
    /// How a scalar stands in the text.
    pub written: Written,
}

/// A value.
#[derive(Debug)]
pub(super) enum Kind {
    Text(String),
    /// A number or a truth value: as written, and as an integer if it is one.
    Bare {
        raw: String,
        integer: Option<i64>,
        boolean: Option<bool>,
    },
    Null,
    List(Vec<Node>),
    /// In the order of the text; the first of a repeated key only.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Debug)]
pub(super) struct Key {
    pub at: Place,
    pub name: String,
}

impl Node {
    /// A scalar as it was written; not for null.
    pub fn raw(&self) -> Option<&str> {
        match &self.kind {
            Kind::Text(text) => Some(text),
            Kind::Bare { raw, .. } => Some(raw),
            Kind::Null | Kind::List(_) | Kind::Map(_) => None,
        }
    }

    /// For messages: what stands there.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Text(text) => locate::describe(text),
            Kind::Bare { raw, boolean: None, .. } => format!("the number {}", shown(raw)),
            Kind::Bare { raw, .. } => format!("the truth value {}", shown(raw)),
            Kind::Null => "nothing".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// Reads a text. `None`: there are errors in the report.
pub(super) fn parse(text: &str, source: u32, report: &mut Report) -> Option<Node> {
    let before = report.errors();
    let Some(located) = locate(text, source, report) else {
        if report.errors() == before {
            report.error(Place::start_of(source), "the policy is empty", "begin with `version: 1`");
        }
        return None;
    };
    match serde_yaml::from_str::<Content>(text) {
        Ok(content) => join(content, located, report),
        Err(error) => {
            let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            let at = error.location().map_or(Place::start_of(source), |location| Place {
                source,
                line: number(location.line()),
                column: number(location.column()),
            });
            let reason = error.to_string();
            // The place is said already.
            locate::syntax(text, at, reason.split(" at line ").next().unwrap_or_default(), report);
            None
        }
    }
}

/// What `serde_yaml` finds; repeated keys are kept, so that they can be reported with all else.
enum Content {
    Text(String),
    Bare { integer: Option<i64>, boolean: Option<bool> },
    Null,
    List(Vec<Content>),
    Map(Vec<(Content, Content)>),
}

fn join(content: Content, located: Located, report: &mut Report) -> Option<Node> {
    let (at, written) = (located.at, located.written);
    let kind = match (content, located.shape) {
        (Content::Text(text), Shape::Scalar(raw)) if text == raw => Kind::Text(text),
        (Content::Bare { integer, boolean }, Shape::Scalar(raw)) => Kind::Bare { raw, integer, boolean },
        (Content::Null, Shape::Scalar(_)) => Kind::Null,
        (Content::List(items), Shape::List(places)) if items.len() == places.len() => {
            let nodes: Vec<Option<Node>> = items.into_iter().zip(places).map(|(item, place)| join(item, place, report)).collect();
            Kind::List(nodes.into_iter().collect::<Option<_>>()?)
        }
        (Content::Map(pairs), Shape::Map(places)) if pairs.len() == places.len() => {
            let mut seen = std::collections::HashMap::with_capacity(pairs.len());
            let mut entries = Vec::with_capacity(pairs.len());
            let mut whole = true;
            for ((key, value), (key_place, value_place)) in pairs.into_iter().zip(places) {
                let key = join_key(key, key_place, report);
                let value = join(value, value_place, report);
                let (Some(key), Some(value)) = (key, value) else {
                    whole = false;
                    continue;
                };
                if let Some(first) = seen.insert(key.name.clone(), key.at.line) {
                    report.error(
                        key.at,
                        format!("the key {} is given twice here", shown(&key.name)),
                        format!("keep this one or the one in line {first}; lists take several entries"),
                    );
                    continue;
                }
                entries.push((key, value));
            }
            if !whole {
                return None;
            }
            Kind::Map(entries)
        }
        _ => {
            report.error(at, "two YAML readers understand this differently", "write it more plainly, in single quotes if it is a text");
            return None;
        }
    };
    Some(Node { at, kind, written })
}

fn join_key(content: Content, located: Located, report: &mut Report) -> Option<Key> {
    match (content, located.shape) {
        (Content::Text(name), Shape::Scalar(raw)) if name == raw => Some(Key { at: located.at, name }),
        (Content::Bare { .. }, Shape::Scalar(raw)) => Some(Key { at: located.at, name: raw }),
        _ => {
            report.error(located.at, "a key is a word", super::quoting::BRACES);
            None
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bare { integer: None, boolean: Some(value) })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Bare { integer: Some(value), boolean: None })
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Bare { integer: i64::try_from(value).ok(), boolean: None })
    }

    fn visit_i128<E>(self, _: i128) -> Result<Content, E> {
        Ok(Content::Bare { integer: None, boolean: None })
    }

    fn visit_u128<E>(self, _: u128) -> Result<Content, E> {
        Ok(Content::Bare { integer: None, boolean: None })
    }

    fn visit_f64<E>(self, _: f64) -> Result<Content, E> {
        Ok(Content::Bare { integer: None, boolean: None })
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Content, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = access.next_entry()? {
            pairs.push(pair);
        }
        Ok(Content::Map(pairs))
    }
}

#[cfg(test)]
mod tests;
