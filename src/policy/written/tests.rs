use proptest::prelude::*;

use super::super::tests::{good, sources};
use super::super::{Loaded, load};

/// A policy that excludes what `value` is, however it is written; the value begins in line 3 at column 5.
fn excluding(value: &str) -> String {
    format!("version: 1\nexclude:\n  - {value}\nrules:\n  - {{name: r, watch: /a, when: [event: oom_kill]}}\n")
}

#[track_caller]
fn refused(text: &str, start: &str, hint: &str) {
    let found = load(&sources(&[text])).err().unwrap_or_default();
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    let line = format!("{}:{}: {}", found[0].line, found[0].column, found[0].message);
    assert!(line.starts_with(start), "{text}\nexpected {start}\nfound    {line}");
    assert!(found[0].hint.contains(hint), "{text}\nexpected {hint}\nfound    {}", found[0].hint);
}

#[test]
fn an_escape_in_a_double_quoted_glob_is_an_error() {
    refused(
        &excluding(r#""/system.slice/system-serial\x2dgetty.slice""#),
        r"3:33: `\x2d` in double quotes is an escape: YAML reads the glob as `/system.slice/system-serial-getty.slice`",
        r"write it in single quotes, '/system.slice/system-serial\x2dgetty.slice', or without quotes",
    );
    for (value, start, hint) in [
        (r#""/a\u002db""#, r"3:8: `\u002d` in double quotes is an escape: YAML reads the glob as `/a-b`", "write the character itself"),
        (r#""/a\U0000002db""#, r"3:8: `\U0000002d` in double quotes", "write the character itself"),
        (r#""/a\tb""#, r"3:8: `\t` in double quotes", r"'/a\tb'"),
        (r#""\/a""#, r"3:6: `\/` in double quotes is an escape: YAML reads the glob as `/a`", "write the character itself"),
        (r#""/ä\u2028""#, r"3:8: `\u2028` in double quotes is an escape: YAML reads the glob as `/ä\u{2028}`", "the character itself"),
        (r#""/a\ b""#, r"3:8: `\ ` in double quotes", "write the character itself"),
        // The first of several, and what the hint can't repeat as it is.
        (r#""/a\\b\x2dc\x2dd""#, r"3:11: `\x2d` in double quotes", "in double quotes write it twice"),
        (r#""/it's\x2d""#, r"3:11: `\x2d` in double quotes", "in double quotes write it twice"),
    ] {
        refused(&excluding(value), start, hint);
    }
    // Wherever a glob may stand.
    for (key, line) in [("watch", 4), ("victim", 6)] {
        let glob = r#""/a\x2db.slice/*""#;
        let value = if key == "watch" { format!("[/x, {glob}]") } else { format!("{{among: {glob}}}") };
        let rest = if key == "watch" { "" } else { "    watch: /a\n" };
        let text = format!("version: 1\nrules:\n  - name: r\n{rest}    when: [event: oom]\n    {key}: {value}\n");
        let line = if key == "watch" { line + 1 } else { line };
        refused(&text, &format!("{line}:"), "single quotes");
    }
    for head in ["kill_one_in", "kernel: {oom_group", "importance: [{value: 1, group"] {
        let tail = if head.ends_with('{') { "" } else { &"}]}"[..0] };
        let close = match head {
            "kill_one_in" => "",
            head if head.starts_with("kernel") => "}",
            _ => "}]",
        };
        refused(&format!("version: 1\n{head}: \"/a\\x2db\"{close}{tail}\nrules: []\n"), "2:", "single quotes");
    }
}

#[test]
fn an_escape_in_a_double_quoted_comm_is_an_error() {
    let comm = |value: &str| excluding(&format!("{{group: /a, comm: {value}}}"));
    refused(&comm(r#""a\x2db""#), r"3:25: `\x2d` in double quotes is an escape: YAML reads the comm as `a-b`", r"'a\x2db'");
    refused(&comm(r#""a\u2028""#), r"3:25: `\u2028` in double quotes", "write the character itself");
    refused(&comm("\"a\n      b\""), "3:23: the comm goes on in another line: YAML joins the lines to `a b`", "in one line");
    let block = "version: 1\nexclude:\n  - group: /a\n    comm: |\n      postgres\nrules: []\n";
    refused(block, "5:7: the comm is a block of lines", "without `|`");
}

#[test]
fn lines_that_yaml_joins_are_no_glob() {
    for value in ["/a\n    b", "'/a\n    b'", "\"/a\n    b\"", "\"/a\\\n    b\"", "'/a\n\n    b'", "\"/a\r\n    b\""] {
        refused(&excluding(value), "3:5: the glob goes on in another line: YAML joins the lines to `/a", "write it in one line");
    }
    for value in ["|-\n    /a", ">-\n    /a\n    b", "|\n    /a"] {
        refused(&excluding(value), "4:5: the glob is a block of lines", "in the same line");
    }
}

#[test]
fn what_can_be_read_in_one_way_only_is_taken() {
    for (value, read) in [
        (r"/a\x2db", r"/a\x2db"),
        (r"'/a\x2db'", r"/a\x2db"),
        (r#""/a\\x2db""#, r"/a\x2db"),
        (r#""/a\"b""#, "/a\"b"),
        ("'/it''s'", "/it's"),
        ("/it's", "/it's"),
        (r#""/a b"  # with "\x2d""#, "/a b"),
        ("/a   # /b", "/a"),
        ("\"/ä\" # ö", "/ä"),
        ("/a\\", "/a\\"),
        (r#"'/a\'"#, "/a\\"),
        (r#""/a\\""#, "/a\\"),
    ] {
        let text = excluding(value);
        assert_eq!(&*good(&text).policy.exclude[0].text, read, "{text}");
        // Behind other characters, and with other line ends.
        let text = format!("# größer\r\n{}", text.replace('\n', "\r\n"));
        assert_eq!(&*good(&text).policy.exclude[0].text, read, "{text}");
    }
}

#[test]
fn escapes_stay_where_they_are_of_use() {
    good(
        "version: 1\nrules:\n  - name: \"r\\x2d1\"\n    watch: /a\n    when: [event: oom]\n    then: [hook: {exec: [/bin/x, \"a\\tb\"], timeout: 1s}, kill: group]\n",
    );
}

#[test]
fn a_backslash_that_is_no_escape_leads_to_single_quotes() {
    for value in [r#""/a\db""#, r#""/a\x2-""#, r#"{group: "/a\*"}"#] {
        let found = load(&sources(&[&excluding(value)])).unwrap_err();
        assert!(found[0].message.starts_with("not YAML") && found[0].hint.contains("single quotes"), "{value}: {}", found[0]);
    }
}

fn quoted(glob: &str, style: usize) -> String {
    match style {
        0 => glob.to_owned(),
        1 => format!("'{}'", glob.replace('\'', "''")),
        _ => format!("\"{}\"", glob.replace('\\', r"\\").replace('"', "\\\"")),
    }
}

proptest! {
    /// Whatever is taken is what was written, in each kind of quotes and behind any text.
    #[test]
    fn no_glob_is_changed_silently(
        globs in proptest::collection::vec(("/[a-z\\\\\"'äx2d ]{0,12}[a-z]", 0_usize..3), 1..5), crlf in any::<bool>(), comment in "[a-zäß€ ]{0,9}",
    ) {
        let lines: String = globs.iter().map(|(glob, style)| format!("  - {}  # {comment}\n", quoted(glob, *style))).collect();
        let text = format!("# {comment}\nversion: 1\nexclude:\n{lines}rules: []\n");
        let text = if crlf { text.replace('\n', "\r\n") } else { text };
        match load(&sources(&[&text])) {
            Ok(Loaded { policy, .. }) => {
                let read: Vec<&str> = policy.exclude.iter().map(|exclude| &*exclude.text).collect();
                prop_assert_eq!(read, globs.iter().map(|(glob, _)| glob.as_str()).collect::<Vec<_>>());
            }
            Err(errors) => prop_assert!(false, "{}\n{}", text, errors[0]),
        }
    }

    /// Raw text in double quotes: if it is taken, no backslash was lost but where two stood for one or one stood before a quote.
    #[test]
    fn no_escape_slips_through(inner in "/[a-z]{0,3}(\\\\[xunt/\\\\\"0-9a-f ]{1,5}){1,3}") {
        if let Ok(Loaded { policy, .. }) = load(&sources(&[&excluding(&format!("\"{inner}\""))])) {
            let read = policy.exclude[0].text.replace('\\', r"\\").replace('"', "\\\"");
            prop_assert_eq!(read, inner);
        }
    }
}
