use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn read(text: &str) -> (Option<Node>, Vec<String>) {
    let mut report = Report::new(vec!["p".into()]);
    let node = parse(text, 0, &mut report);
    (node, report.into_diagnostics().iter().map(|d| format!("{}:{} {}", d.line, d.column, d.message)).collect())
}

#[test]
fn values_have_their_kinds() {
    let (node, found) = read("a: x\nb: 5\nc: -7\nd: 1.5\ne: true\nf: yes\ng:\nh: \"5\"\ni: 99999999999999999999\nj: [1]\n7: x\n");
    assert_eq!(found, [""; 0]);
    let Some(Node { kind: Kind::Map(entries), .. }) = node else { panic!("no mapping") };
    let kinds: Vec<String> = entries.iter().map(|(key, value)| format!("{} {}", key.name, value.describe())).collect();
    assert_eq!(
        kinds,
        [
            "a `x`",
            "b the number `5`",
            "c the number `-7`",
            "d the number `1.5`",
            "e the truth value `true`",
            "f `yes`",
            "g nothing",
            "h `5`",
            "i the number `99999999999999999999`",
            "j a list",
            "7 `x`"
        ]
    );
    assert!(matches!(entries[2].1.kind, Kind::Bare { integer: Some(-7), .. }));
}

#[test]
fn repeated_keys_are_all_reported() {
    let (node, found) = read("a: 1\nb: {c: 1, c: 2}\na: 2\n");
    assert!(node.is_some());
    assert_eq!(found, ["2:11 the key `c` is given twice here", "3:1 the key `a` is given twice here"]);
}

#[test]
fn odd_keys_and_emptiness() {
    assert_eq!(read("").1, ["1:1 the policy is empty"]);
    assert_eq!(read("# nothing\n").1, ["1:1 the policy is empty"]);
    assert_eq!(read("{a: 1}: 2\n").1, ["1:1 a key is a word"]);
    assert_eq!(read("? [a]\n: 2\n").1, ["1:3 a key is a word"]);
    assert!(matches!(read("~\n").0, Some(Node { kind: Kind::Null, .. })));
}

#[test]
fn texts_made_to_be_slow_end_soon() {
    let big = super::super::source::MAX_SOURCE_BYTES;
    let lines = |line: &str| line.repeat(big / line.len());
    for (what, text) in [
        ("brackets", lines("[")),
        ("braces", lines("{")),
        ("dashes", lines("- ")),
        ("questions", lines("? ")),
        ("colons", lines(": ")),
        ("a: a:", lines("a: ")),
        ("quotes", format!("a: \"{}", lines("x"))),
        ("escapes", format!("a: \"{}", lines("\\"))),
        ("spaces", lines(" ")),
        ("newlines", lines("\n")),
        ("comments", lines("#\n")),
        ("block scalar", format!("a: |\n{}", lines(" \n"))),
        ("plain lines", format!("a: b{}", lines("\n\n c"))),
        ("anchors", lines("&a ")),
        ("aliases", format!("a: &a [1]\nb: [{}]", lines("*a,"))),
        ("directives", lines("%TAG ! tag:x,2000:\n")),
        ("documents", lines("---\n")),
        ("flow", format!("a: [{}]", "a, ".repeat(big / 4))),
        ("flow keys", format!("a: {{{}}}", "a: 1, ".repeat(big / 7))),
        ("one long key", lines("k")),
    ] {
        let start = Instant::now();
        let _ = read(&text);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(60), "{what} took {took:?}");
        println!("{what}: {took:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::cases(500)))]
    #[test]
    fn no_text_panics_and_refusal_has_a_reason(text in "[a-c&*!|>'\"%@`#\\[\\]{},?:\\- \n\t\r~<=0-9.x\\\\\u{e4}]{0,60}") {
        let (node, found) = read(&text);
        prop_assert!(node.is_some() || !found.is_empty());
    }

    #[test]
    fn any_text_at_all(text in any::<String>()) {
        let (node, found) = read(&text);
        prop_assert!(node.is_some() || !found.is_empty());
    }
}
