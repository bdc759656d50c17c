//! Why a line that looks right is not what YAML reads: stars, braces and tabs. Guesses, used for hints only.

/// For `*` at the start of a value.
pub(super) const STAR: &str =
    "`*` at the start of a value means something else in YAML; a glob begins with `/`: write '/*', in single quotes if in doubt";

/// For braces and brackets that YAML takes for its own.
pub(super) const BRACES: &str = "inside `{...}` and `[...]`, and at the start of a value, YAML takes braces and brackets for its own: put the glob in single quotes, as in '/a/{b,c}'";

/// What makes line `line` (from 1) no YAML, if it is one of the usual traps of globs: column (from 1), message, hint.
pub(super) fn pitfall(text: &str, line: usize) -> Option<(usize, &'static str, &'static str)> {
    let line = text.lines().nth(line.checked_sub(1)?)?;
    if let Some(column) = leading_star(line) {
        return Some((column, "not YAML: `*` at the start of a value begins an alias", STAR));
    }
    let column = brace_in_flow(line)?;
    Some((column, "not YAML: an unquoted glob with a brace or bracket inside a flow mapping or list", BRACES))
}

/// For a backslash that means nothing to YAML.
const BACKSLASH: &str =
    "in double quotes a backslash begins an escape: put the value in single quotes, where it stands for itself, or write it twice";

/// For all other faults; `reason` is what the parser says.
pub(super) fn general(text: &str, line: usize, reason: &str) -> &'static str {
    if reason.contains("escape") || reason.contains("hexadecimal") {
        return BACKSLASH;
    }
    let indent =
        text.lines().nth(line.saturating_sub(1)).map_or("", |line| line.split(|c: char| !c.is_whitespace()).next().unwrap_or_default());
    if indent.contains('\t') {
        "indent with spaces; YAML allows no tabs there"
    } else {
        "look at the indentation, the quotes and the brackets here and in the line before; put a value with special characters in single quotes"
    }
}

/// The column of a `*` where a value begins.
fn leading_star(line: &str) -> Option<usize> {
    let (mut starts, mut quote, mut before) = (true, None, ' ');
    for (at, c) in line.chars().enumerate() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '*') if starts => return Some(at + 1),
            (None, '#') if starts => return None,
            (None, '"' | '\'') if starts => quote = Some(c),
            _ => {}
        }
        starts = match c {
            '[' | '{' | ',' => true,
            ' ' => starts || matches!(before, ':' | '-'),
            _ => false,
        };
        before = c;
    }
    None
}

/// The column of a brace or bracket in the middle of a plain value that stands inside braces or brackets.
fn brace_in_flow(line: &str) -> Option<usize> {
    let (mut depth, mut in_word, mut quote) = (0_usize, false, None);
    for (at, c) in line.chars().enumerate() {
        match (quote, c) {
            (Some(q), c) => {
                if c == q {
                    quote = None;
                }
                continue;
            }
            (None, '"' | '\'') if !in_word => quote = Some(c),
            (None, '{' | '[') if depth > 0 && in_word => return Some(at + 1),
            (None, '{' | '[') if !in_word => depth += 1,
            (None, '}' | ']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        in_word = !matches!(c, ' ' | '\t' | ',' | '{' | '[' | '}' | ']' | ':' | '"' | '\'');
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_that_begin_a_value() {
        for (line, column) in [
            ("watch: *", Some(8)),
            ("  - *.slice", Some(5)),
            ("watch: [/a, *]", Some(13)),
            ("watch: [*]", Some(9)),
            ("{group: **/a}", Some(9)),
            ("watch: /a/*", None),
            ("watch: \"*\"", None),
            ("# - * star", None),
            ("watch: [\"/a, *\"]", None),
        ] {
            assert_eq!(leading_star(line), column, "{line}");
        }
    }

    #[test]
    fn braces_inside_flow_collections() {
        for (line, column) in [
            ("- {group: /a/{b,c}}", Some(14)),
            ("watch: [/a/[bc]]", Some(12)),
            ("watch: [/a{b,c}]", Some(11)),
            ("- {group: \"/a/{b,c}\"}", None),
            ("available: {below: {share: 5%}}", None),
            ("watch: /a/{b,c}", None),
            ("a: [[1], {b: 2}]", None),
        ] {
            assert_eq!(brace_in_flow(line), column, "{line}");
        }
    }

    #[test]
    fn tabs_are_named() {
        assert!(general("a:\n\tb: 1", 2, "").contains("tabs"));
        assert!(!general("a:\n  b: 1", 2, "").contains("tabs"));
        assert_eq!(pitfall("a", 0), None);
        assert_eq!(pitfall("a", 7), None);
    }
}
