//! A mapping with a fixed set of keys: the only place where unknown keys are noticed.

use super::super::diagnostic::{Place, Report};
use super::super::quoting;
use super::super::tree::{Kind, Node};
use super::super::values;

/// The keys of one kind of mapping.
pub(in crate::policy) struct Keys {
    /// For messages: what the mapping is.
    pub what: &'static str,
    /// Keys that work.
    pub known: &'static [&'static str],
    /// Keys that a later version will know.
    pub later: &'static [&'static str],
}

/// A mapping whose keys were checked.
pub(super) struct Fields<'n> {
    at: Place,
    what: &'static str,
    known: Vec<(&'n str, &'n Node)>,
    /// Known keys that unknown ones were probably meant to be.
    meant: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Looks at a mapping and reports its unknown keys.
    pub fn open(node: &'n Node, keys: &Keys, report: &mut Report) -> Option<Fields<'n>> {
        let Kind::Map(entries) = &node.kind else {
            let known: Vec<String> = keys.known.iter().map(|known| format!("`{known}: ...`")).collect();
            let message = format!("{} is a mapping with keys, not {}", keys.what, node.describe());
            report.error(node.at, message, format!("write {}", known.join(", ")));
            return None;
        };
        let mut known = Vec::with_capacity(entries.len());
        let mut meant = Vec::new();
        for (key, value) in entries {
            let name = key.name.as_str();
            if keys.known.contains(&name) {
                known.push((name, value));
            } else if keys.later.contains(&name) {
                report.bad(key.at, values::later(name));
            } else {
                let mut bad = values::unknown("key", name, keys.known.iter().copied());
                bad.message = format!("{} in {}", bad.message, keys.what);
                if name.contains(['/', '*']) {
                    quoting::BRACES.clone_into(&mut bad.hint);
                }
                report.bad(key.at, bad);
                meant.extend(values::nearest(name, keys.known));
            }
        }
        Some(Fields { at: node.at, what: keys.what, known, meant })
    }

    /// Whether no known key is there.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The known keys with their values, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = (&'n str, &'n Node)> + '_ {
        self.known.iter().copied()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&'n Node> {
        self.known.iter().find(|(name, _)| *name == key).map(|(_, node)| *node)
    }

    /// The value of a key that must be there. If it is misspelt, that was reported, and is enough.
    pub fn need(&self, key: &str, hint: &str, report: &mut Report) -> Option<&'n Node> {
        let found = self.get(key);
        if found.is_none() && !self.meant.contains(&key) {
            report.error(self.at, format!("`{key}` is missing in {}", self.what), hint);
        }
        found
    }
}

/// The one key of a mapping that may have one.
pub(super) fn single<'n>(node: &'n Node, keys: &Keys, report: &mut Report) -> Option<(&'n str, &'n Node)> {
    let before = report.errors();
    let fields = Fields::open(node, keys, report)?;
    let mut entries = fields.iter();
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Some(entry),
        (Some((first, _)), Some((second, node))) => {
            report.error(
                node.at,
                format!("`{second}` stands in the same entry as `{first}`"),
                format!("give each an entry of its own: put `- ` before `{second}`, at the indentation of the first `- `"),
            );
            None
        }
        (None, _) => {
            if report.errors() == before {
                report.error(node.at, format!("{} is empty", keys.what), "take it out or fill it");
            }
            None
        }
    }
}
