//! The schema against the reader: what one takes the other takes, as far as a schema can tell.

use std::sync::OnceLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::tests::{READY, examples, good};
use super::super::{globs, read, values};
use super::*;

/// What the reader says of a policy that a schema can't refuse: it compares one value with another, counts what is spread over
/// files, measures time, or looks into braces.
const BEYOND: [&str; 13] = [
    "already, in ",
    "is set differently in ",
    "is given twice here",
    "does not fit",
    "the window of ",
    "is too long",
    "is too much",
    "opens `",
    "closes a brace",
    "is no glob",
    "nest deeper",
    "an anchor",
    "globs are too many",
];

fn validator() -> &'static jsonschema::Validator {
    static VALIDATOR: OnceLock<jsonschema::Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| jsonschema::draft202012::new(&schema()).unwrap())
}

/// Whether the schema takes a text; `None` if that is no YAML at all.
fn takes(text: &str) -> Option<bool> {
    let value: Value = serde_yaml::from_str(text).ok()?;
    Some(validator().is_valid(&value))
}

/// For every sound policy in the tests of this room.
#[track_caller]
pub(in crate::policy) fn must_take(text: &str) {
    let value: Value = serde_yaml::from_str(text).unwrap();
    let faults: Vec<String> = validator().iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "the schema refuses a sound policy:\n{text}\n{}", faults.join("\n"));
}

/// For every unsound one, with what the reader says of it.
#[track_caller]
pub(in crate::policy) fn must_refuse(text: &str, messages: &[&str]) {
    let beyond = messages.iter().all(|message| BEYOND.iter().any(|beyond| message.contains(beyond)));
    if let Some(taken) = takes(text) {
        assert_eq!(taken, beyond, "the schema {} this:\n{text}\n{messages:?}", if taken { "takes" } else { "refuses" });
    }
}

#[test]
fn it_is_a_schema() {
    jsonschema::draft202012::meta::validate(&schema()).unwrap();
}

/// Calls `each` with every subschema.
fn walk(value: &Value, at: &str, each: &mut impl FnMut(&str, &Value)) {
    each(at, value);
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| walk(value, &format!("{at}/{key}"), each)),
        Value::Array(items) => items.iter().enumerate().for_each(|(key, value)| walk(value, &format!("{at}/{key}"), each)),
        _ => {}
    }
}

#[test]
fn every_key_that_the_reader_knows_is_described_and_every_reference_leads_somewhere() {
    let (schema, mut keys, mut references) = (schema(), 0, 0);
    walk(&schema, "", &mut |at, value| {
        if let Some(to) = value.get("$ref").and_then(Value::as_str) {
            assert!(schema.pointer(to.trim_start_matches('#')).is_some(), "{at} refers to {to}");
            references += 1;
        }
        // What depends on a key names others without describing them again.
        let depends = at.contains("dependentSchemas") || at.ends_with("/if") || at.ends_with("/rule/then");
        let Some(properties) = value.get("properties").and_then(Value::as_object).filter(|_| !depends) else { return };
        assert_eq!(value.get("additionalProperties"), Some(&json!(false)), "{at}");
        for (key, property) in properties {
            let text = property.get("description").and_then(Value::as_str).unwrap_or_default();
            assert!(text.len() > 15 && text.ends_with(['.', '`']), "{at}/{key} is described by {text:?}");
            keys += 1;
        }
    });
    assert!(keys > 40 && references > 40, "{keys} {references}");
}

#[test]
fn every_table_of_the_reader_is_there() {
    let schema = schema();
    let tables = read::tables();
    let defined = |at: &str, keys: &Keys| {
        let properties = schema.pointer(at).and_then(|value| value.get("properties")).and_then(Value::as_object).unwrap();
        let mut known: Vec<&str> = keys.known.to_vec();
        known.sort_unstable();
        assert!(properties.keys().eq(known), "{at}");
    };
    defined("", tables.top);
    defined("/properties/defaults", tables.defaults);
    defined("/properties/limits", tables.limits);
    defined("/properties/kernel", tables.kernel);
    defined("/properties/systemd", tables.systemd);
    for (name, keys) in [
        ("importance", tables.importance),
        ("rule", tables.rule),
        ("trigger", tables.when),
        ("condition", tables.only_if),
        ("usage", tables.usage),
        ("level", tables.level),
        ("rung", tables.rung),
        ("warn", tables.warn),
        ("hook", tables.hook),
        ("term", tables.term),
        ("exclusion/anyOf/1", tables.exclude),
        ("below/anyOf/1", tables.below),
        ("victim/anyOf/1", tables.victim),
    ] {
        defined(&format!("/$defs/{name}"), keys);
    }
}

#[test]
fn what_is_to_come_with_the_kernel_module_is_described_already() {
    assert!(trigger("lms").is_some() && kernel("hold").is_some());
    for hold in ["1ms", "500ms", "1.25s", "2s", "0.01m", "2000.0ms"] {
        assert!(defined_takes("hold", hold), "{hold}");
    }
    for wrong in ["0ms", "0.0s", "2001ms", "3s", "2.1s", "1m", "1.5ms", "500"] {
        assert!(!defined_takes("hold", wrong), "{wrong}");
    }
    let rule = jsonschema::draft202012::new(&json!({"$defs": schema()["$defs"], "if": schema()["$defs"]["rule"]["if"],
        "then": schema()["$defs"]["rule"]["then"]}));
    let rule = rule.unwrap();
    let takes = |watch: Value, when: Value| rule.is_valid(&json!({"watch": watch, "when": when}));
    assert!(takes(json!("/"), json!([{"lms": "oom"}])) && takes(json!(["/"]), json!([{"lms": "oom"}])));
    assert!(takes(json!("/a"), json!([{"event": "oom"}])));
    assert!(!takes(json!("/a"), json!([{"event": "oom"}, {"lms": "oom"}])) && !takes(json!(["/", "/a"]), json!([{"lms": "kill"}])));
}

#[test]
fn ready_policies_and_the_examples_of_the_reference_are_taken() {
    for (_, text) in READY {
        must_take(text);
    }
    for example in examples() {
        must_take(&example);
    }
}

#[test]
fn ladders_in_every_order() {
    let taken =
        |ladder: &str| takes(&format!("version: 1\nrules: [{{name: r, watch: /a, when: [event: oom], then: {ladder}}}]\n")).unwrap();
    assert!(taken("[kill: group]") && taken("[term: {wait: 1s}, kill: process]"));
    let all = "warn: {signal: SIGUSR2, wait: 1s}, hook: {exec: [/bin/true, x], timeout: 1s}, term: {wait: 1s}, kill: group";
    assert!(taken(&format!("[{all}]")) && taken("[warn: {signal: SIGRTMIN+30, wait: 1s}, kill: group]"));
    for wrong in [
        "[hook: {exec: [/bin/true], timeout: 1s}, warn: {wait: 1s}, kill: group]",
        "[warn: {signal: SIGKILL, wait: 1s}, kill: group]",
        "[warn: {signal: SIGRTMIN+31, wait: 1s}, kill: group]",
        "[hook: {exec: [true], timeout: 1s}, kill: group]",
        "[hook: {exec: [], timeout: 1s}, kill: group]",
        "[]",
        "[term: {wait: 1s}]",
        "[kill: group, term: {wait: 1s}]",
        "[kill: group, kill: group]",
        "[{kill: group, term: {wait: 1s}}]",
    ] {
        assert!(!taken(wrong), "{wrong}");
    }
}

/// Whether a definition takes a single value.
fn defined_takes(name: &str, value: &str) -> bool {
    static DEFINED: OnceLock<std::collections::HashMap<String, jsonschema::Validator>> = OnceLock::new();
    let defined = DEFINED.get_or_init(|| {
        let all = scalar::definitions();
        let one = |name: &String| jsonschema::draft202012::new(&json!({"$defs": all, "$ref": format!("#/$defs/{name}")})).unwrap();
        all.keys().map(|name| (name.clone(), one(name))).collect()
    });
    defined[name].is_valid(&json!(value))
}

proptest! {
    #[test]
    fn no_value_that_the_reader_takes_is_refused(
        number in "0{0,3}[0-9]{0,4}(\\.[0-9]{0,3})?", unit in "%|B|[KMGT]i?B|kB|ms|s|m|h|d|w|x|",
        word in "some|full|usage|age|swap", between in " |  |", tail in "( within )?",
    ) {
        let value = format!("{number}{unit}");
        for (name, read) in [
            ("time", values::duration(&value).is_ok()),
            ("bytes", values::bytes(&value).is_ok()),
            ("share", values::share(&value).is_ok()),
            ("quantum", values::quantum(&value).is_ok()),
            ("hold", values::hold(&value).is_ok()),
        ] {
            prop_assert!(!read || defined_takes(name, &value), "{} refuses {:?}", name, value);
        }
        // The other way round, but for what is too small to count and for what is too large.
        prop_assert!(!defined_takes("share", &value) || values::share(&value).is_ok(), "share takes {value:?}");
        prop_assert!(!defined_takes("bytes", &value) || values::bytes(&value).is_ok(), "bytes takes {value:?}");
        let rank = format!("{word}{tail}{}", if tail.is_empty() { "" } else { &value });
        prop_assert_eq!(defined_takes("rank", &rank), values::rank(&rank).is_ok(), "{}", rank);
        let psi = format!("{word}{between} {value} /{between}{value}");
        prop_assert!(values::psi(&psi).is_err() || defined_takes("psi", &psi), "psi refuses {psi:?}");
    }

    #[test]
    fn no_glob_that_the_reader_takes_is_refused(glob in "/?[\\[\\]{}*?!,/a^-]{0,12}") {
        prop_assert!(globs::parse(&glob).is_err() || defined_takes("glob", &glob), "{glob:?}");
    }
}

#[test]
fn words_that_the_reader_refuses_are_refused() {
    for (name, wrong) in [
        ("time", "5"),
        ("time", "5 s"),
        ("time", "-5s"),
        ("time_above_zero", "0s"),
        ("bytes", "5mb"),
        ("amount", "0MiB"),
        ("share", "0%"),
        ("share", "101%"),
        ("share", "1.234%"),
        ("psi", "full 100/500ms"),
        ("psi", "all 1s/2s"),
        ("event", "oomkill"),
        ("rank", "usage within"),
        ("rank", "qos"),
        ("glob", "a"),
        ("glob", "/a/"),
        ("glob", "/a//b"),
        ("glob", "/a**"),
        ("glob", "/**a"),
        ("glob", "/***"),
        ("glob", "/a\nb"),
        ("glob", ""),
    ] {
        assert!(!defined_takes(name, wrong), "{name} takes {wrong:?}");
    }
    assert!(good("version: 1\n").policy.rules.is_empty());
}
