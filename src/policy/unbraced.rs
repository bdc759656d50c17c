//! Globs for a reader that knows no braces: the kernel module. One glob becomes several that together match the same paths.
//!
//! What is said here about globs without braces errs on one side only: see [`may_stand_below`].

use super::pattern;

/// `**` between slashes: any number of parts, none included. No glob holds a control character.
const BETWEEN: char = '\u{1}';
/// `**` at the end of the glob or of an alternative: at least one part.
const AT_END: char = '\u{2}';

/// A piece of a glob.
enum Piece {
    /// Without braces; `**` as one of the two characters above.
    Text(String),
    /// `{a,b}`.
    Alternatives(Vec<Vec<Piece>>),
}

/// The globs without braces that together match what a glob of the policy matches. None of them has `[^...]` for `[!...]`, and `**` is a
/// whole part of the path wherever it stands. `None`: there would be more than `most` of them, or the glob has a class of more than
/// ASCII, which can't be said byte by byte.
#[must_use]
pub fn unbraced(pattern: &str, most: usize) -> Option<Vec<String>> {
    let mut rest = pattern;
    let pieces = pieces(&mut rest, false)?;
    let mut whole = vec![String::new()];
    expand(&pieces, &mut whole, most)?;
    let mut globs: Vec<String> = Vec::with_capacity(whole.len());
    for glob in whole.iter().map(|text| spelled(text)) {
        // The root is matched by `/` alone, and no path has an empty part.
        let matches_some = pattern == "/" || !(glob.is_empty() || glob.ends_with('/') || glob.contains("//"));
        if matches_some && !globs.contains(&glob) {
            globs.push(glob);
        }
    }
    Some(globs)
}

/// Reads up to the end, or up to the comma or brace that ends an alternative.
fn pieces(rest: &mut &str, within: bool) -> Option<Vec<Piece>> {
    let (mut pieces, mut text) = (Vec::new(), String::new());
    while let Some(next) = rest.chars().next() {
        if within && matches!(next, ',' | '}') {
            break;
        }
        if let Some(behind) = rest.strip_prefix("**") {
            text.push(if behind.starts_with('/') { BETWEEN } else { AT_END });
            *rest = behind;
            continue;
        }
        *rest = &rest[next.len_utf8()..];
        match next {
            '[' => class(rest, &mut text)?,
            '{' => {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
                pieces.push(Piece::Alternatives(alternatives(rest)?));
            }
            _ => text.push(next),
        }
    }
    pieces.push(Piece::Text(text));
    Some(pieces)
}

/// Reads what follows an opening brace, with the closing one.
fn alternatives(rest: &mut &str) -> Option<Vec<Vec<Piece>>> {
    let mut alternatives = Vec::new();
    loop {
        alternatives.push(pieces(rest, true)?);
        let ended = rest.starts_with('}');
        *rest = rest.get(1..)?;
        if ended {
            return Some(alternatives);
        }
    }
}

/// Reads what follows an opening bracket, with the closing one.
fn class(rest: &mut &str, text: &mut String) -> Option<()> {
    let inner = rest.strip_prefix(['!', '^']);
    text.push_str(if inner.is_some() { "[!" } else { "[" });
    let inner = inner.unwrap_or(rest);
    // A bracket in the first place stands for itself.
    let first = usize::from(inner.starts_with(']'));
    let end = inner.get(first..)?.find(']')? + first;
    let places = inner.get(..=end).filter(|places| places.is_ascii())?;
    text.push_str(places);
    *rest = inner.get(end + 1..)?;
    Some(())
}

/// Appends `pieces` to each of `globs`, in every way.
fn expand(pieces: &[Piece], globs: &mut Vec<String>, most: usize) -> Option<()> {
    for piece in pieces {
        match piece {
            Piece::Text(text) => globs.iter_mut().for_each(|glob| glob.push_str(text)),
            Piece::Alternatives(alternatives) => {
                let before = std::mem::take(globs);
                for alternative in alternatives {
                    let mut with = before.clone();
                    expand(alternative, &mut with, most)?;
                    globs.append(&mut with);
                    if globs.len() > most {
                        return None;
                    }
                }
            }
        }
    }
    Some(())
}

/// A glob without braces as it is written. Several stars that came together within a name are one, so that they don't read as `**`;
/// `**` at the end of an alternative is at least one part, whatever came to stand behind it.
fn spelled(text: &str) -> String {
    let mut glob = String::with_capacity(text.len());
    let (mut star, mut class) = (false, 0_usize);
    let mut places = text.char_indices().peekable();
    while let Some((at, place)) = places.next() {
        if class > 0 {
            class -= 1;
            glob.push(place);
            continue;
        }
        let next = places.peek().map(|(_, next)| *next);
        match place {
            '*' if star => {}
            BETWEEN => glob.push_str("**"),
            AT_END => glob.push_str(match next {
                None => "**",
                Some('/') => "*/**",
                Some('*') => "**/",
                Some(_) => "**/*",
            }),
            '[' => {
                class = class_length(&text[at..]) - 1;
                glob.push(place);
            }
            _ => glob.push(place),
        }
        star = place == '*';
    }
    glob
}

/// How many characters the class has with which a text begins, brackets included; it is ASCII.
fn class_length(text: &str) -> usize {
    let first = 1 + usize::from(text[1..].starts_with('!'));
    let first = first + usize::from(text[first..].starts_with(']'));
    text[first..].find(']').map_or(text.len(), |end| first + end + 1)
}

/// Whether a path that `lower` matches may stand below one that `upper` matches. Both without braces. `false` is certain.
#[must_use]
pub fn may_stand_below(upper: &str, lower: &str) -> bool {
    let (Some(upper), Some(lower)) = (Parts::of(upper), Parts::of(lower)) else { return true };
    let (upper, lower) = (&upper.0, &lower.0);
    // Which parts of both the beginning of one path can have been matched by.
    let mut seen = vec![false; (upper.len() + 1) * (lower.len() + 1)];
    let mut open = vec![(0, 0)];
    while let Some((u, l)) = open.pop() {
        if std::mem::replace(&mut seen[u * (lower.len() + 1) + l], true) {
            continue;
        }
        match (upper.get(u), lower.get(l)) {
            // The whole of the upper one, and there is more to come.
            (None, Some(_)) => return true,
            (_, None) => {}
            (Some(Part::Any), Some(Part::Any)) => open.extend([(u + 1, l), (u, l + 1)]),
            (Some(Part::Any), Some(Part::Name(_))) => open.extend([(u + 1, l), (u, l + 1)]),
            (Some(Part::Name(_)), Some(Part::Any)) => open.extend([(u, l + 1), (u + 1, l)]),
            (Some(Part::Name(one)), Some(Part::Name(other))) => {
                if may_be_same(one, other) {
                    open.push((u + 1, l + 1));
                }
            }
        }
    }
    false
}

/// A part of a glob between slashes.
#[derive(Clone, Copy)]
enum Part<'g> {
    /// `**` where there may be no part for it.
    Any,
    /// One part.
    Name(&'g str),
}

struct Parts<'g>(Vec<Part<'g>>);

impl<'g> Parts<'g> {
    /// `None`: a class of it names a slash, so that the parts can't be told so easily.
    fn of(glob: &'g str) -> Option<Parts<'g>> {
        let mut rest = glob;
        while let Some((_, class)) = rest.split_once('[') {
            let (class, behind) = class.split_at(class_length(&rest[rest.len() - class.len() - 1..]) - 1);
            if class.contains('/') {
                return None;
            }
            rest = behind;
        }
        let mut parts = Vec::new();
        let names: Vec<&str> = glob.split('/').skip(1).filter(|name| !name.is_empty()).collect();
        for (at, name) in names.iter().enumerate() {
            match *name {
                "**" if at + 1 == names.len() => parts.extend([Part::Name("*"), Part::Any]),
                "**" => parts.push(Part::Any),
                name => parts.push(Part::Name(name)),
            }
        }
        Some(Parts(parts))
    }
}

/// Whether two names, or globs of one, may match the same.
fn may_be_same(one: &str, other: &str) -> bool {
    let plain = |name| pattern::fixed_part(name).len() == name.len();
    if plain(one) && plain(other) {
        return one == other;
    }
    let (a, b) = (pattern::fixed_part(one), pattern::fixed_part(other));
    a.starts_with(b) || b.starts_with(a)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::globs::Globs;

    fn is(pattern: &str, expected: &[&str]) {
        assert_eq!(unbraced(pattern, 16).unwrap(), expected, "{pattern}");
    }

    #[test]
    fn braces_become_several_globs() {
        is("/a/*", &["/a/*"]);
        is("/", &["/"]);
        is("/{a,b}/c", &["/a/c", "/b/c"]);
        is("/{a{1,2},b}{,x}", &["/a1", "/a2", "/b", "/a1x", "/a2x", "/bx"]);
        is("/{,a}", &["/a"]);
        is("/{,a}/b", &["/a/b"]);
        is("/{a/**,b}", &["/a/**", "/b"]);
        is("/{a/**,b}/c", &["/a/*/**/c", "/b/c"]);
        is("/{a/**,b}c", &["/a/**/*c", "/bc"]);
        is("/{a/**,b}*c", &["/a/**/*c", "/b*c"]);
        is("/{*,a}*", &["/*", "/a*"]);
        is("/{a,a}", &["/a"]);
        is("/[{,}]{a,[]}]b}", &["/[{,}]a", "/[{,}][]}]b"]);
        is("/[^a]x", &["/[!a]x"]);
        is("/a\\x2d{b,c}", &["/a\\x2db", "/a\\x2dc"]);
    }

    #[test]
    fn too_many_and_what_can_not_be_said_are_none() {
        assert_eq!(unbraced("/{a,b}{a,b}{a,b}{a,b}", 16).map(|globs| globs.len()), Some(16));
        assert_eq!(unbraced("/{a,b}{a,b}{a,b}{a,b}", 15), None);
        let many = format!("/{}", "{a,b}".repeat(200));
        assert_eq!(unbraced(&many, 1024), None);
        assert_eq!(unbraced("/[\u{e9}]", 16), None);
        is("/\u{e9}?{a,b}", &["/\u{e9}?a", "/\u{e9}?b"]);
    }

    #[test]
    fn what_may_stand_below_what() {
        for (upper, lower, may) in [
            ("/a/*", "/a/*", false),
            ("/a/*", "/a/*/*", true),
            ("/a/*", "/a/b/c", true),
            ("/a/*", "/b/*/c", false),
            ("/a/**", "/a/**", true),
            ("/a/**/b", "/a/**/b", true),
            ("/a/**/b", "/a/b", false),
            ("/a", "/a/**", true),
            ("/a", "/**/x", true),
            ("/a/x", "/a/*", false),
            ("/a/x*", "/a/y*/z", false),
            ("/a/x*", "/a/xy/z", true),
            ("/a[!b]c", "/a", false),
            ("/a[b/]c", "/a", true),
            ("/a[bc]", "/a[cd]", false),
            ("/a[bc]", "/a[cd]/x", true),
            ("/", "/a", true),
            ("/a", "/", false),
        ] {
            assert_eq!(may_stand_below(upper, lower), may, "{lower} below {upper}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn several_globs_match_what_the_one_did(
            pattern in "/(a|b|\\*|\\?|/|/\\*\\*|/\\*\\*/|\\{|\\}|,|\\[!?[ab{,/]\\]|/x){0,12}",
            path in "(/[abx]{1,2}){1,4}",
        ) {
            let Ok(globs) = Globs::new(&[&pattern]) else { return Ok(()) };
            let Some(several) = unbraced(&pattern, 4096) else { return Ok(()) };
            prop_assert!(several.iter().all(|glob| Globs::new(&[glob]).is_ok()), "{:?}", several);
            let one_does = several.iter().any(|glob| Globs::new(&[glob]).unwrap().matches(path.as_bytes()));
            prop_assert_eq!(globs.matches(path.as_bytes()), one_does, "{} as {:?} on {}", pattern, several, path);
        }

        #[test]
        fn whoever_stands_below_was_said_to(
            upper in "(/(a|b|\\*|a\\*|[*][*]|\\[!a\\]b|\\[ab\\])){1,4}",
            lower in "(/(a|b|\\*|\\*b|[*][*]|\\[!a\\]b|\\[ab\\])){1,4}",
            path in "(/[ab]{1,2}){1,3}",
            rest in "(/[ab]{1,2}){1,3}",
        ) {
            let below = format!("{path}{rest}");
            let matches = |glob: &str, path: &str| Globs::new(&[glob]).unwrap().matches(path.as_bytes());
            if matches(&upper, &path) && matches(&lower, &below) {
                prop_assert!(may_stand_below(&upper, &lower), "{} matches {}, {} matches {}", upper, path, lower, below);
            }
        }
    }
}
