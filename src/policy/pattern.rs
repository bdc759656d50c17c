//! One glob as text: whether it is one, and what can be said about it without any group to try it on.
//!
//! Not for matching; that is [`super::globs`]. Statements such as "this glob covers that one" ([`super::over`]) are made only where they
//! are certain; `false` means "can't tell".

use super::diagnostic::{Bad, plain, shown};

/// The longest pattern, in bytes.
const LONGEST: usize = 1024;
/// How deep braces may nest.
const DEEPEST: usize = 8;

/// What a pattern looks like, for quick matching and for reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape<'p> {
    /// No special character: one path.
    Literal,
    /// `PREFIX/*`: the children of one path. Without the slash; empty for the root.
    Children(&'p str),
    /// `PREFIX/**`: everything below one path. Without the slash; empty for the root.
    Below(&'p str),
    /// Anything else.
    Other,
}

/// The shape of a pattern.
pub(super) fn shape(pattern: &str) -> Shape<'_> {
    let plain = |text: &str| !text.contains(is_special);
    if plain(pattern) {
        return Shape::Literal;
    }
    let prefix = |tail| pattern.strip_suffix(tail).filter(|prefix| plain(prefix));
    match (prefix("/**"), prefix("/*")) {
        (Some(prefix), _) => Shape::Below(prefix),
        (None, Some(prefix)) => Shape::Children(prefix),
        (None, None) => Shape::Other,
    }
}

/// What every path that matches begins with, as far as no special character stands in it.
pub(super) fn fixed_part(pattern: &str) -> &str {
    pattern.split(is_special).next().unwrap_or(pattern)
}

fn is_special(c: char) -> bool {
    matches!(c, '*' | '?' | '[' | ']' | '{' | '}')
}

/// Whether `pattern` is a glob over group paths; the compiler's own view of it comes after this.
pub(super) fn check(pattern: &str) -> Result<(), Bad> {
    let what = shown(pattern);
    if pattern.is_empty() {
        return Err(Bad::new(
            "the glob is empty",
            "name a group by its path below the cgroup root, such as `/system.slice/*`; the root is `/`",
        ));
    }
    if !pattern.starts_with('/') {
        return Err(Bad::new(format!("the glob {what} does not begin with `/`"), format!("write `/{}`", plain(pattern))));
    }
    if pattern.len() > LONGEST {
        return Err(Bad::new(format!("the glob {what} is longer than {LONGEST} bytes"), "use `*` or `**` for the parts that may vary"));
    }
    if pattern.contains(char::is_control) {
        return Err(Bad::new(format!("the glob {what} holds a control character"), "match that character with `?`"));
    }
    if pattern.len() > 1 && (pattern.ends_with('/') || pattern.contains("//")) {
        return Err(Bad::new(
            format!("the glob {what} has an empty part between slashes or at its end, which no group's path has"),
            format!("write `{}`", tidy(pattern)),
        ));
    }
    check_braces(pattern)
}

fn tidy(pattern: &str) -> String {
    let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", plain(&parts.join("/")))
}

/// Braces and classes are closed, and `**` stands for whole parts of the path only, as anything else would silently
/// match less than it seems to.
fn check_braces(pattern: &str) -> Result<(), Bad> {
    let (mut depth, mut in_class) = (0_usize, false);
    let bytes = pattern.as_bytes();
    let at = |index: usize| bytes.get(index).copied();
    let mut index = 0;
    while let Some(byte) = at(index) {
        match byte {
            b'[' if !in_class => {
                in_class = true;
                // A negation, and then a closing bracket that stands for itself.
                index += usize::from(matches!(at(index + 1), Some(b'!' | b'^')));
                index += usize::from(at(index + 1) == Some(b']'));
            }
            b']' if in_class => in_class = false,
            _ if in_class => {}
            b'{' => depth += 1,
            b'}' if depth == 0 => {
                return Err(Bad::new(
                    format!("the glob {} closes a brace that it never opened", shown(pattern)),
                    "write `[}]` for a brace as such",
                ));
            }
            b'}' => depth -= 1,
            b'*' if at(index + 1) == Some(b'*') => {
                let before = index.checked_sub(1).and_then(at);
                let after = at(index + 2);
                let ends = after.is_none_or(|b| b == b'/' || (depth > 0 && matches!(b, b',' | b'}')));
                if before != Some(b'/') || !ends {
                    return Err(Bad::new(
                        format!("`**` in the glob {} is only a part of a name", shown(pattern)),
                        "`**` stands between slashes or at the end, as in `/a/**/b` or `/a/**`; within a name write `*`",
                    ));
                }
                index += 1;
            }
            _ => {}
        }
        if depth > DEEPEST {
            return Err(Bad::new(format!("the braces of the glob {} nest deeper than {DEEPEST}", shown(pattern)), "write a list of globs"));
        }
        index += 1;
    }
    match (in_class, depth) {
        (false, 0) => Ok(()),
        (true, _) => {
            Err(Bad::new(format!("the glob {} opens `[` and does not close it", shown(pattern)), "write `[[]` for a bracket as such"))
        }
        _ => Err(Bad::new(format!("the glob {} opens `{{` and does not close it", shown(pattern)), "write `[{]` for a brace as such")),
    }
}

/// The same pattern for a compiler whose classes would hold a slash: `[!a]` by not naming it, `[+-9]` within a range. For one that
/// [`check`] has passed.
pub(super) fn slashless(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some((before, class)) = rest.split_once('[') {
        out.push_str(before);
        let negated = class.starts_with(['!', '^']);
        let class = if negated { &class[1..] } else { class };
        let first = usize::from(class.starts_with(']'));
        let Some(end) = class[first..].find(']').map(|end| end + first) else {
            // It is never closed, as the compiler will say.
            out.push('[');
            rest = class;
            break;
        };
        push_class(&mut out, negated, &class[..end]);
        rest = &class[end + 1..];
    }
    out + rest
}

/// Writes a class anew. A closing bracket can only stand first, a hyphen is itself in the last place.
fn push_class(out: &mut String, negated: bool, places: &str) {
    let mut ranges: Vec<(char, char)> = Vec::new();
    let (mut in_range, mut bad) = (false, false);
    for (at, place) in places.chars().enumerate() {
        match ranges.last_mut() {
            Some(last) if in_range => {
                last.1 = place;
                bad |= last.1 < last.0;
                in_range = false;
            }
            Some(_) if place == '-' && at > 0 => in_range = true,
            _ => ranges.push((place, place)),
        }
    }
    if in_range {
        ranges.push(('-', '-'));
    }
    out.push_str(if negated { "[!" } else { "[" });
    if bad {
        // A range that goes downwards, as the compiler will say.
        out.push_str(places);
        out.push(']');
        return;
    }
    let holds = |place: char| ranges.iter().any(|(low, high)| (*low..=*high).contains(&place));
    out.push_str(if holds(']') { "]" } else { "" });
    // No path holds a NUL: this only keeps what follows from the first place, and the class from being empty.
    out.push_str(if negated { "/" } else { "\0" });
    for (low, high) in &ranges {
        let mut low = *low;
        // What stands elsewhere, or nowhere, splits the range.
        for hole in ['-', '/', ']'] {
            if (low..=*high).contains(&hole) {
                push_range(out, low, char::from_u32(u32::from(hole) - 1).filter(|high| *high >= low));
                low = char::from_u32(u32::from(hole) + 1).unwrap_or(hole);
            }
        }
        push_range(out, low, Some(*high).filter(|high| *high >= low));
    }
    out.push_str(if holds('-') { "-]" } else { "]" });
}

fn push_range(out: &mut String, low: char, high: Option<char>) {
    match high {
        Some(high) if high > low => out.extend([low, '-', high]),
        Some(_) => out.push(low),
        None => {}
    }
}

/// Whether a match of the glob can contain another match of it, as far as it is meant to: `**` at
/// its end, or at the end of one of its alternatives, with nothing but `*` behind it.
pub(super) fn nests(pattern: &str) -> bool {
    let mut rest = pattern;
    while let Some((_, behind)) = rest.split_once("/**").or_else(|| rest.split_once("**")) {
        if ends_in_stars(behind) {
            return true;
        }
        rest = behind;
    }
    false
}

/// Whether nothing but parts of stars follows, up to the end of the glob; what else stands in the
/// same braces is passed over.
fn ends_in_stars(mut rest: &str) -> bool {
    loop {
        if let Some(behind) = rest.strip_prefix("/*") {
            rest = behind.strip_prefix('*').unwrap_or(behind);
        } else if rest.starts_with([',', '}']) {
            let Some(behind) = behind_braces(rest) else { return false };
            rest = behind;
        } else {
            return rest.is_empty();
        }
    }
}

/// What follows the braces in which a text begins.
fn behind_braces(text: &str) -> Option<&str> {
    let mut depth = 1_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text.get(at + 1..);
        }
    }
    None
}

/// The longest path without special characters of which every match of `pattern` is the same or a descendant:
/// `/a/b` for `/a/b`, `/a/b/**` and `/a/b/*/c`, `/a` for `/a/b*`; empty for the root.
pub(super) fn base(pattern: &str) -> &str {
    match pattern.find(is_special) {
        None if pattern == "/" => "",
        None => pattern,
        Some(at) => pattern.get(..at).and_then(|plain| plain.rsplit_once('/')).map_or("", |(base, _)| base),
    }
}

#[cfg(test)]
mod tests;
