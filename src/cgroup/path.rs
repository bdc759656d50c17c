//! A group's path below the cgroup root: any bytes but NUL, shown escaped.

use std::fmt::{self, Write as _};
use std::sync::Arc;

/// A path below the cgroup root, beginning with `/`; the root itself is `/`. Cheap to clone, never changes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupPath(Arc<[u8]>);

impl GroupPath {
    /// The cgroup root.
    #[must_use]
    pub fn root() -> GroupPath {
        GroupPath(Arc::from(&b"/"[..]))
    }

    /// A path from raw bytes; a missing leading slash is added.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> GroupPath {
        if bytes.first() == Some(&b'/') { GroupPath(Arc::from(bytes)) } else { GroupPath::root().child(bytes) }
    }

    /// The path of the child called `name`.
    #[must_use]
    pub fn child(&self, name: &[u8]) -> GroupPath {
        let parent = if self.is_root() { &[][..] } else { &self.0 };
        GroupPath([parent, b"/", name].concat().into())
    }

    /// The path of a file in the group, for messages: one slash also where the group is the root.
    #[must_use]
    pub fn file<'a>(&'a self, name: &'a str) -> GroupFile<'a> {
        GroupFile { group: self, name }
    }

    /// Whether this is the cgroup root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        &*self.0 == b"/"
    }

    /// The raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A file of a group, for messages: `/a/memory.max`, and `/memory.max` for the root.
#[derive(Clone, Copy, Debug)]
pub struct GroupFile<'a> {
    group: &'a GroupPath,
    name: &'a str,
}

impl fmt::Display for GroupFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.group.is_root() { "" } else { "/" };
        write!(f, "{}{slash}{}", self.group, self.name)
    }
}

/// Bytes of unknown make (a group's name, a comm) as text: control characters, and bytes that are not UTF-8, as `\xNN`. A
/// backslash stays as it is (systemd's own `\x2d` would be unreadable otherwise), so the text is for people and records, not
/// a way back to the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control()
                    || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}'..='\u{2029}' | '\u{2066}'..='\u{2069}')
                {
                    let mut utf8 = [0; 4];
                    for byte in c.encode_utf8(&mut utf8).bytes() {
                        write!(f, "\\x{byte:02x}")?;
                    }
                } else {
                    f.write_char(c)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for GroupPath {
    /// As [`Escaped`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.0).fmt(f)
    }
}

impl fmt::Debug for GroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupPath({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_root() {
        let root = GroupPath::root();
        assert!(root.is_root());
        assert_eq!(root.child(b"a").child(b"b").as_bytes(), b"/a/b");
        assert_eq!(GroupPath::from_bytes(b"a/b"), root.child(b"a").child(b"b"));
    }

    #[test]
    fn a_file_is_one_slash_below_its_group() {
        let root = GroupPath::root();
        assert_eq!(root.file("memory.pressure").to_string(), "/memory.pressure");
        assert_eq!(root.child(b"a").child(b"b\n").file("memory.max").to_string(), "/a/b\\x0a/memory.max");
    }

    #[test]
    fn hostile_names_are_shown_escaped() {
        let shown = |name: &[u8]| GroupPath::root().child(name).to_string();
        assert_eq!(shown(b"a b"), "/a b");
        assert_eq!(shown(b"a\nb"), "/a\\x0ab");
        assert_eq!(shown(b"a\\x2db"), "/a\\x2db");
        assert_eq!(shown(b"\xff\xfe"), "/\\xff\\xfe");
        assert_eq!(shown("a\u{202e}b\u{85}".as_bytes()), "/a\\xe2\\x80\\xaeb\\xc2\\x85");
        assert_eq!(shown("größe".as_bytes()), "/größe");
    }
}
