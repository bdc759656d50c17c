//! Globs over group paths: `*` stops at a slash, `**` does not, a backslash is an ordinary character.
//!
//! Paths are bytes. `?` and a class stand for one byte, but for no slash. The root, `/`, is matched by `/` only; otherwise
//! `/*` and `/**` would take it along, as the empty name. Most globs of a policy are a path, or a path with `/*` or
//! `/**` behind it; these are compared without a regular expression, which would cost some 16 KiB for each.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

use globset::{Glob, GlobBuilder, GlobMatcher};

use super::diagnostic::{Bad, shown};
use super::pattern::{self, Shape};

/// One or more compiled globs. A path matches if any of them does.
#[derive(Debug, Clone)]
pub struct Globs {
    globs: Vec<Matcher>,
}

/// A pattern that is no glob over group paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadGlob(Bad);

impl fmt::Display for BadGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.message, self.0.hint)
    }
}

impl std::error::Error for BadGlob {}

impl BadGlob {
    pub(super) fn into_bad(self) -> Bad {
        self.0
    }
}

#[derive(Debug, Clone)]
enum Matcher {
    Simple(Box<str>),
    /// As it was written, and compiled.
    Glob(Box<(Box<str>, GlobMatcher)>),
}

impl Globs {
    /// Compiles `patterns`.
    ///
    /// # Errors
    /// The first pattern that is not a glob, with the reason.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Globs, BadGlob> {
        Ok(Globs { globs: patterns.iter().map(|pattern| Matcher::new(pattern.as_ref())).collect::<Result<_, _>>()? })
    }

    /// Whether the path (from the cgroup root, beginning with `/`, any bytes) matches.
    #[must_use]
    pub fn matches(&self, path: &[u8]) -> bool {
        self.globs.iter().any(|glob| glob.matches(path))
    }

    /// Whether the pattern with this index, in the order of [`Globs::patterns`], matches the path.
    #[must_use]
    pub fn matches_by(&self, index: usize, path: &[u8]) -> bool {
        self.globs.get(index).is_some_and(|glob| glob.matches(path))
    }

    /// Whether one of the patterns names nothing but groups below `path`: whoever it matches, now
    /// or later, stands there.
    #[must_use]
    pub fn name_some_below(&self, path: &[u8]) -> bool {
        self.patterns().any(|pattern| {
            let below = pattern::fixed_part(pattern).as_bytes().strip_prefix(path);
            path != b"/" && below.is_some_and(|rest| rest.first() == Some(&b'/'))
        })
    }

    /// The patterns as they were written.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.globs.iter().map(Matcher::pattern)
    }
}

/// Whether a pattern is a glob, without the cost of compiling it; what the compiler made of it, if it needs one.
pub(super) fn parse(pattern: &str) -> Result<Option<Glob>, Bad> {
    pattern::check(pattern)?;
    if pattern::shape(pattern) != Shape::Other {
        return Ok(None);
    }
    let built =
        GlobBuilder::new(&pattern::slashless(pattern)).literal_separator(true).backslash_escape(false).empty_alternates(true).build();
    built.map(Some).map_err(|error| {
        Bad::new(format!("{} is no glob: {}", shown(pattern), error.kind()), "see \"Naming groups\" in the policy reference")
    })
}

impl Matcher {
    fn new(pattern: &str) -> Result<Matcher, BadGlob> {
        Ok(match parse(pattern).map_err(BadGlob)? {
            None => Matcher::Simple(pattern.into()),
            // This panics only where the expression is too large, which the limits of `pattern::check` rule out.
            Some(glob) => Matcher::Glob(Box::new((pattern.into(), glob.compile_matcher()))),
        })
    }

    fn pattern(&self) -> &str {
        match self {
            Matcher::Simple(pattern) => pattern,
            Matcher::Glob(glob) => &glob.0,
        }
    }

    fn matches(&self, path: &[u8]) -> bool {
        if path == b"/" {
            return self.pattern() == "/";
        }
        let below = |prefix: &str| path.strip_prefix(prefix.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
        match self {
            Matcher::Glob(glob) => glob.1.is_match(OsStr::from_bytes(path)),
            Matcher::Simple(pattern) => match pattern::shape(pattern) {
                Shape::Children(prefix) => below(prefix).is_some_and(|rest| !rest.contains(&b'/')),
                Shape::Below(prefix) => below(prefix).is_some(),
                Shape::Literal | Shape::Other => path == pattern.as_bytes(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn table(pattern: &str, yes: &[&[u8]], no: &[&[u8]]) {
        let globs = Globs::new(&[pattern]).unwrap();
        for path in yes {
            assert!(globs.matches(path), "{pattern} should match {}", path.escape_ascii());
        }
        for path in no {
            assert!(!globs.matches(path), "{pattern} should not match {}", path.escape_ascii());
        }
    }

    #[test]
    fn a_star_stops_at_a_slash_and_two_do_not() {
        table("/a/*", &[b"/a/b", b"/a/b c", b"/a/b\nc", b"/a/\xff"], &[b"/a", b"/a/b/c", b"/ab", b"/", b"/x/a/b"]);
        table("/a/**", &[b"/a/b", b"/a/b/c", b"/a/\xff/\n"], &[b"/a", b"/ab", b"/ab/c", b"/"]);
        table("/a/b*", &[b"/a/b", b"/a/bc", b"/a/b\n\xff"], &[b"/a/b/c", b"/a/ab"]);
        table("/a/**/b", &[b"/a/b", b"/a/x/b", b"/a/x/y/b"], &[b"/a/xb", b"/b"]);
        table("/**/b", &[b"/b", b"/a/b", b"/a/x/b"], &[b"/b/c", b"/ab"]);
        table("/**", &[b"/a", b"/a/b"], &[b"/"]);
        table("/*", &[b"/a"], &[b"/", b"/a/b"]);
        table("/", &[b"/"], &[b"/a"]);
        table("/{,a}*", &[b"/a", b"/b"], &[b"/"]);
    }

    #[test]
    fn braces_classes_and_question_marks() {
        table("/{a,b/*}", &[b"/a", b"/b/c"], &[b"/b", b"/c", b"/b/c/d"]);
        table("/{a/**,b}", &[b"/a/x/y", b"/b"], &[b"/a", b"/b/c"]);
        table("/[ab]x", &[b"/ax", b"/bx"], &[b"/cx", b"/x"]);
        table("/[!ab]x", &[b"/cx", b"/\xffx"], &[b"/ax"]);
        table("/a?", &[b"/ab", b"/a\n", b"/a\xff"], &[b"/a", b"/abc", b"/a/"]);
        table("/[{]a[}]", &[b"/{a}"], &[b"/a"]);
    }

    #[test]
    fn no_class_holds_a_slash() {
        table("/a[!b]c", &[b"/axc", b"/a\xffc", b"/a]c"], &[b"/a/c", b"/abc"]);
        table("/a[^b/]c", &[b"/axc"], &[b"/a/c", b"/abc"]);
        table("/a[b/]c", &[b"/abc"], &[b"/a/c"]);
        table("/a[/]c", &[], &[b"/a/c", b"/ac", b"/axc"]);
        table("/a[+-9]c", &[b"/a.c", b"/a0c", b"/a-c", b"/a+c"], &[b"/a/c", b"/aac"]);
        table("/a[]-]c", &[b"/a]c", b"/a-c"], &[b"/a/c", b"/axc"]);
        table("/a[!]-]c", &[b"/axc"], &[b"/a/c", b"/a]c", b"/a-c"]);
        table("/a[Z-^]c", &[b"/aZc", b"/a]c", b"/a\\c", b"/a^c"], &[b"/aYc", b"/a/c", b"/a_c"]);
        table("/a[a!^]c", &[b"/aac", b"/a!c", b"/a^c"], &[b"/axc"]);
        table("/a[,--]c", &[b"/a,c", b"/a-c"], &[b"/a.c", b"/a+c"]);
    }

    #[test]
    fn a_backslash_is_an_ordinary_character() {
        table("/a\\x2db.slice", &[b"/a\\x2db.slice"], &[b"/a-b.slice", b"/ax2db.slice"]);
        table("/a\\x2d*/**", &[b"/a\\x2db.slice/c"], &[b"/a-b.slice/c"]);
        table("/a\\*", &[b"/a\\", b"/a\\b"], &[b"/a*"]);
    }

    #[test]
    fn long_names() {
        let name = [b"/a/".as_slice(), &[b'x'; 200], b"/b"].concat();
        table("/a/*/b", &[&name], &[]);
        table("/a/**", &[&name], &[]);
    }

    #[test]
    fn each_pattern_can_be_asked_alone() {
        let globs = Globs::new(&["/a", "/b/*"]).unwrap();
        let asked = |path: &[u8]| [0, 1, 2].map(|index| globs.matches_by(index, path));
        assert_eq!((asked(b"/a"), asked(b"/b/c"), asked(b"/c")), ([true, false, false], [false, true, false], [false; 3]));
    }

    #[test]
    fn patterns_come_back_as_written() {
        let written = ["/a", "/b/*", "/c/**", "/{d,e}"];
        assert_eq!(Globs::new(&written).unwrap().patterns().collect::<Vec<_>>(), written);
    }

    #[test]
    fn patterns_that_name_only_what_is_below_a_group() {
        for (pattern, yes) in [
            ("/t/a/b", true),
            ("/t/a/*", true),
            ("/t/a/**", true),
            ("/t/a/{b,c}/d", true),
            ("/t/a", false),
            ("/t/ab", false),
            ("/t/*/b", false),
            ("/t/a*/b", false),
            ("/**/b", false),
        ] {
            assert_eq!(Globs::new(&[pattern]).unwrap().name_some_below(b"/t/a"), yes, "{pattern}");
        }
        assert!(!Globs::new(&["/t"]).unwrap().name_some_below(b"/"), "the root is no group of its own");
    }

    proptest! {
        #[test]
        fn a_class_means_what_it_meant_but_for_the_slash(class in "\\[[!^]?[]!^,.\\-/0a]{1,6}\\]", byte in "[]!^,.\\-0a{b]") {
            let pattern = format!("/x{class}y");
            let Ok(globs) = Globs::new(&[&pattern]) else { return Ok(()) };
            let glob = GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(false).build().unwrap().compile_matcher();
            let path = format!("/x{byte}y");
            prop_assert_eq!(globs.matches(path.as_bytes()), glob.is_match(&path), "{} on {}", pattern, path);
            prop_assert!(!globs.matches(b"/x/y"), "{}", pattern);
        }

        #[test]
        fn no_pattern_and_no_path_panics(pattern in "/[\\[\\]{}*?!,/a^-]{0,40}", path in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(globs) = Globs::new(&[pattern]) {
                let _ = globs.matches(&path);
            }
        }

        #[test]
        fn the_quick_shapes_agree_with_the_expression(
            prefix in "(/[ab]{1,2}){0,3}", tail in prop_oneof![Just(""), Just("/*"), Just("/**")], path in "(/[ab]{1,2}){1,4}",
        ) {
            let pattern = format!("{prefix}{tail}");
            prop_assume!(!pattern.is_empty());
            let quick = Globs::new(&[&pattern]).unwrap().matches(path.as_bytes());
            let glob = GlobBuilder::new(&pattern).literal_separator(true).backslash_escape(false).build().unwrap().compile_matcher();
            prop_assert_eq!(quick, glob.is_match(&path), "{} and {}", pattern, path);
        }
    }
}
