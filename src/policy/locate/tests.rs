use super::*;

fn refusals(text: &str) -> Vec<String> {
    let mut report = Report::new(vec!["p".into()]);
    let found = locate(text, 0, &mut report);
    let diagnostics = report.into_diagnostics();
    assert!(found.is_none() || diagnostics.is_empty());
    diagnostics.iter().map(|d| format!("{}:{} {} | {}", d.line, d.column, d.message, d.hint)).collect()
}

fn places(node: &Located, out: &mut Vec<(u32, u32, String)>) {
    let text = match &node.shape {
        Shape::Scalar(text) => text.clone(),
        Shape::List(_) => "[]".to_owned(),
        Shape::Map(_) => "{}".to_owned(),
    };
    out.push((node.at.line, node.at.column, text));
    match &node.shape {
        Shape::Scalar(_) => {}
        Shape::List(items) => items.iter().for_each(|item| places(item, out)),
        Shape::Map(pairs) => pairs.iter().for_each(|(key, value)| {
            places(key, out);
            places(value, out);
        }),
    }
}

#[test]
fn every_key_and_value_has_its_place() {
    let text = "# intro\nversion: 1\nrules:\n  - name: \"a b\"\n    watch: [/ä, '/b']\n    when: {x: 1}\n  - empty:\n";
    let mut report = Report::new(vec!["p".into()]);
    let found = locate(text, 0, &mut report).unwrap();
    let mut all = Vec::new();
    places(&found, &mut all);
    let all: Vec<(u32, u32, &str)> = all.iter().map(|(line, column, text)| (*line, *column, text.as_str())).collect();
    assert_eq!(
        all,
        [
            (2, 1, "{}"),
            (2, 1, "version"),
            (2, 10, "1"),
            (3, 1, "rules"),
            (4, 3, "[]"),
            (4, 5, "{}"),
            (4, 5, "name"),
            (4, 11, "a b"),
            (5, 5, "watch"),
            (5, 12, "[]"),
            (5, 13, "/ä"),
            (5, 17, "/b"),
            (6, 5, "when"),
            (6, 11, "{}"),
            (6, 12, "x"),
            (6, 15, "1"),
            (7, 5, "{}"),
            (7, 5, "empty"),
            (7, 10, ""),
        ]
    );
}

#[test]
fn what_a_policy_may_not_use_is_refused_by_name() {
    for (text, expected) in [
        ("a: &x 1\nb: *x", vec!["1:4 an anchor", "2:4 an alias"]),
        ("a: !tag 1", vec!["1:4 a tag"]),
        ("a: !!str 1", vec!["1:4 a tag"]),
        ("<<: {a: 1}", vec!["1:1 merge keys"]),
        ("a: 1\n---\nb: 2", vec!["2:1 a second YAML document"]),
    ] {
        let found = refusals(text);
        assert_eq!(found.len(), expected.len(), "{text}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{text}: {found}");
        }
    }
    assert!(refusals(&"[".repeat(40)).iter().any(|r| r.contains("nested deeper than 24")), "{:?}", refusals(&"[".repeat(40)));
    assert!(refusals(&"- ".repeat(40)).iter().any(|r| r.contains("nested deeper than 24")));
    assert!(refusals(&"- a\n".repeat(60_000)).iter().any(|r| r.contains("more than 50000")));
}

#[test]
fn the_traps_of_globs_get_their_hint() {
    for (text, expected, hint) in [
        ("watch: *", "1:8 not YAML: `*`", "'/*'"),
        ("a: 1\nwatch: [/a, **]", "2:13 not YAML: `*`", "'/*'"),
        ("exclude:\n  - {group: /a/{b,c}}", "2:16 not YAML: an unquoted glob", "'/a/{b,c}'"),
        ("watch: [/a/[bc]]", "1:12 not YAML: an unquoted glob", "'/a/{b,c}'"),
        ("a:\n\tb: 1", "2:", "tabs"),
    ] {
        let found = refusals(text);
        assert!(found.len() == 1 && found[0].starts_with(expected) && found[0].contains(hint), "{text}: {found:?}");
    }
}
