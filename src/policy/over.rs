//! Which pattern covers, or can contain, what another one matches. Statements are made only where they are certain; `false` means "can't tell".

use super::globs::Globs;
use super::pattern::{Shape, base, shape};

/// A pattern that others are held against; compiled once, because there may be many of them.
pub(super) struct Over<'p> {
    text: &'p str,
    globs: Option<Globs>,
}

impl<'p> Over<'p> {
    /// Makes ready.
    pub fn new(text: &'p str) -> Over<'p> {
        Over { text, globs: Globs::new(&[text]).ok() }
    }

    fn matches_any<'a>(&self, mut paths: impl Iterator<Item = &'a str>) -> bool {
        self.globs.as_ref().is_some_and(|globs| paths.any(|path| globs.matches(path.as_bytes())))
    }

    /// Whether it matches this path.
    pub fn matches(&self, path: &str) -> bool {
        self.matches_any(std::iter::once(path))
    }

    /// Whether whatever `pattern` can match lies, for certain, in what this one matches or below that: the way in which
    /// an exclusion or a line of importance covers groups.
    pub fn covers(&self, pattern: &str) -> bool {
        if self.text == pattern || self.text == "/" {
            return true;
        }
        match shape(self.text) {
            Shape::Below(prefix) | Shape::Children(prefix) => pattern != "/" && strictly_below(pattern, prefix),
            Shape::Literal | Shape::Other => self.matches_any(ancestry(base(pattern))),
        }
    }

    /// Whether a match of this one can, for certain or by the way it is written, contain a match of `lower`.
    pub fn contains(&self, lower: &str) -> bool {
        if self.text == lower || self.text == "/" {
            return lower != "/";
        }
        let within_tree = matches!(shape(lower), Shape::Below(prefix) if strictly_below(self.text, prefix));
        let above = ancestry(base(lower)).filter(|path| path.len() < lower.len());
        within_tree || strictly_below(lower, self.text) || self.matches_any(above)
    }
}

/// Whether `path` (or the text of a glob) begins with `prefix` and a slash.
fn strictly_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/') && rest.len() > 1)
}

/// A path and its ancestors, without the root.
fn ancestry(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path).filter(|path| !path.is_empty()), |path| {
        path.rsplit_once('/').map(|(parent, _)| parent).filter(|parent| !parent.is_empty())
    })
}
