//! Single values as patterns: units, words and globs, from the tables that `values` reads by.
//!
//! The patterns keep to what ECMA 262 and the usual libraries agree on: no look-around, no classes by name.

use serde_json::{Map, Value, json};

use super::super::values::{BYTE_UNITS, TIME_UNITS};
use super::super::words::{EVENTS, MODES, RANK_KEYS};
use super::reference;

const NUMBER: &str = r"[0-9]{1,18}(?:\.[0-9]{1,9})?";
/// Up to 100%, at most two digits after the point.
const SHARE: &str = r"0{0,15}(?:100(?:\.0{1,2})?|[0-9]{1,2}(?:\.[0-9]{1,2})?)%";
/// What the kernel module may be asked for: 1ms to 2s, whole milliseconds (what is finer than a microsecond doesn't count).
const HOLD: &str = r"(?:0{0,14}(?:[1-9][0-9]{0,2}|1[0-9]{3}|2000)(?:\.0{1,3}|\.000[0-9]{1,6})?ms|0{0,14}(?:[01](?:\.[0-9]{1,9})?|2(?:\.0{1,6}[0-9]{0,3})?)s|0{1,18}\.[0-9]{1,9}[mhdw])";

/// The definitions of single values.
pub(super) fn definitions() -> Map<String, Value> {
    let time = format!("{NUMBER}(?:{})", words(&TIME_UNITS));
    let bytes = format!("{NUMBER}(?:{})", words(&BYTE_UNITS));
    let define = |name: &str, value: Value| (name.to_owned(), value);
    Map::from_iter([
        define("mode", json!({"enum": MODES.map(|(name, _)| name)})),
        define("time", text(&time, "A time: `150ms`, `2s`, `10m`, `1h`; at most a day, `1d`.", json!(["150ms", "2s"]))),
        define("time_above_zero", json!({"allOf": [reference("time"), {"not": {"pattern": "^[0.]+[a-z]"}}]})),
        define(
            "hold",
            json!({"allOf": [text(HOLD, "Whole milliseconds, up to 2s.", json!(["500ms"])), {"not": {"pattern": "^[0.]+[a-z]"}}]}),
        ),
        define(
            "kill_limit",
            json!({"allOf": [
                text(
                    &format!(" *(?:100|[1-9][0-9]?) +per +{time} *"),
                    "So many kills in such a time: `5 per 10m`; 1 to 100 in 1s to 24h.",
                    json!(["5 per 10m"]),
                ),
                {"not": {"pattern": "per +[0.]+[a-z]"}},
            ]}),
        ),
        define("bytes", text(&bytes, "An amount of memory: `256MiB`, `1.5GiB`, `1GB`.", json!(["256MiB", "1GB"]))),
        define("amount", json!({"allOf": [reference("bytes"), {"not": {"pattern": "^[0.]+[A-Za-z]"}}]})),
        define(
            "share",
            json!({"allOf": [text(SHARE, "A share above 0% and at most 100%: `95%`, `2.5%`.", json!(["95%", "2.5%"])), {"not": {"pattern": "^[0.]+%"}}]}),
        ),
        define("quantum", json!({"anyOf": [reference("share"), reference("amount")]})),
        define(
            "psi",
            text(
                &format!(r"(?:some|full) \s*{time}\s*/\s*{time}\s*"),
                "`some` or `full`, then stall/window, as in `full 100ms/500ms`.",
                json!(["full 100ms/500ms", "some 200ms/1s"]),
            ),
        ),
        define("event", json!({"enum": EVENTS.map(|(name, _)| name)})),
        define(
            "rank",
            json!({"allOf": [
                text(
                    &format!(" *(?:{})(?: +within +{SHARE})? *", words(&RANK_KEYS)),
                    "A rank key, perhaps with what counts as equal: `usage`, `usage within 10%`.",
                    json!(["usage within 10%", "age"]),
                ),
                {"not": {"pattern": " [0.]+%"}},
            ]}),
        ),
        define("glob", glob()),
    ])
}

fn text(pattern: &str, description: &str, examples: Value) -> Value {
    json!({"type": "string", "pattern": format!("^{pattern}$"), "description": description, "examples": examples})
}

/// The first words of a table, as alternatives.
fn words<T, const N: usize>(table: &[(&str, T); N]) -> String {
    table.iter().map(|(word, _)| *word).collect::<Vec<_>>().join("|")
}

/// A glob as far as a pattern can tell. Whether braces close is for the reader.
fn glob() -> Value {
    json!({
        "type": "string",
        "description": "A glob over paths below the cgroup root, beginning with `/`: `*` stops at a slash, `**` does not, `?`, `[...]` and `{a,b}` work, a backslash is an ordinary character. `/` is the root, which no other glob matches.",
        "examples": ["/system.slice/cron.service", "/tenants.slice/*", "/batch.slice/**"],
        "maxLength": 1024,
        "allOf": [
            // No empty part, no slash at the end, no control character.
            {"pattern": "^/(?:[^/\\u0000-\\u001f\\u007f-\\u009f]+(?:/[^/\\u0000-\\u001f\\u007f-\\u009f]+)*)?$"},
            // `**` is a whole part of the path, unless a class makes it something else.
            {"anyOf": [{"pattern": "\\["}, {"not": {"pattern": "[^/]\\*\\*|\\*\\*[^/,}]"}}]},
        ],
    })
}
