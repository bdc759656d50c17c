//! The policy's form as JSON Schema (draft 2020-12), for editors: completion, hover texts, and most faults while typing.
//!
//! There is one definition of what a policy may hold, and it is not here: which keys there are comes from the reader's own
//! tables, words and units from those of `values`. A key that the reader learns shows up by itself, and a test of this
//! module fails until it is described. The reader's own tests, good texts and bad, are held against the schema too.
//!
//! The schema never refuses what the reader takes. What it can't say (a stall above its window, braces that don't close, a
//! name given twice) is left to `oomwarden check`.

mod scalar;

use serde_json::{Map, Value, json};

use super::model::MAX_ENTRIES;
use super::read::{self, Keys, MOST_RANK_KEYS, MOST_WORDS};
use super::words::{LMS_LEVELS, USAGE_OF};

/// The schema as one JSON value.
#[must_use]
pub fn schema() -> Value {
    let tables = read::tables();
    let mut schema = mapping(tables.top, &["version"], top);
    if let Some(object) = schema.as_object_mut() {
        object.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        object.insert("title".into(), json!("oomwarden policy, version 1"));
        object.insert(
            "description".into(),
            json!(
                "Which memory control groups are watched, what counts as trouble, who may die, and how. `oomwarden check` says the rest."
            ),
        );
        let mut definitions = scalar::definitions();
        definitions.extend([
            ("globs".to_owned(), json!({"anyOf": [reference("glob"), {"type": "array", "minItems": 1, "items": reference("glob")}]})),
            ("exclusion".to_owned(), json!({"anyOf": [reference("glob"), mapping(tables.exclude, &["group"], exclude)]})),
            ("importance".to_owned(), mapping(tables.importance, &["group", "value"], importance)),
            ("rule".to_owned(), whole_rule(tables.rule)),
            ("trigger".to_owned(), single(tables.when, trigger)),
            ("condition".to_owned(), single(tables.only_if, condition)),
            ("usage".to_owned(), usage(tables.usage)),
            ("usage_now".to_owned(), without(usage(tables.usage), "for")),
            ("level".to_owned(), mapping(tables.level, &["below"], level)),
            ("level_now".to_owned(), without(mapping(tables.level, &["below"], level), "for")),
            ("below".to_owned(), json!({"anyOf": [reference("quantum"), mapping(tables.below, &["share", "at_most"], below)]})),
            ("victim".to_owned(), json!({"anyOf": [{"const": "subject"}, mapping(tables.victim, &["among"], victim)]})),
            ("ladder".to_owned(), ladder(tables.rung)),
            ("rung".to_owned(), single(tables.rung, rung)),
            ("warn".to_owned(), mapping(tables.warn, &["wait"], warn)),
            ("hook".to_owned(), mapping(tables.hook, &["exec", "timeout"], hook)),
            ("term".to_owned(), mapping(tables.term, &["wait"], term)),
        ]);
        object.insert("$defs".into(), Value::Object(definitions));
    }
    schema
}

/// A mapping with the keys of the reader's table, and no others. What nobody described may hold anything: the schema must
/// not refuse it.
fn mapping(keys: &Keys, required: &[&str], describe: fn(&str) -> Option<Value>) -> Value {
    let properties: Map<String, Value> =
        keys.known.iter().map(|key| ((*key).to_owned(), describe(key).unwrap_or_else(|| json!({})))).collect();
    let mut mapping = json!({"type": "object", "properties": properties, "additionalProperties": false});
    if let Some(object) = mapping.as_object_mut().filter(|_| !required.is_empty()) {
        object.insert("required".into(), json!(required));
    }
    mapping
}

/// A mapping that has exactly one of the keys.
fn single(keys: &Keys, describe: fn(&str) -> Option<Value>) -> Value {
    let mut mapping = mapping(keys, &[], describe);
    if let Some(object) = mapping.as_object_mut() {
        object.insert("minProperties".into(), json!(1));
        object.insert("maxProperties".into(), json!(1));
    }
    mapping
}

fn without(mut mapping: Value, key: &str) -> Value {
    if let Some(properties) = mapping.get_mut("properties").and_then(Value::as_object_mut) {
        properties.remove(key);
    }
    mapping
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// A value with the text that an editor shows for its key.
fn described(mut value: Value, text: &str) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.insert("description".into(), json!(text));
    }
    value
}

fn with_default(mut value: Value, default: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.insert("default".into(), default);
    }
    value
}

/// A list of which every entry may also be commented out.
fn list(of: &str) -> Value {
    json!({"type": ["array", "null"], "items": reference(of), "maxItems": MAX_ENTRIES})
}

fn top(key: &str) -> Option<Value> {
    let tables = read::tables();
    Some(match key {
        "version" => described(json!({"type": "integer", "const": 1}), "The version of the policy's language; every file says it."),
        "mode" => described(
            with_default(reference("mode"), json!("enforce")),
            "`enforce`: verdicts are carried out. `observe`: they are recorded and nothing else is done. A rule may say otherwise for itself.",
        ),
        "limits" => described(limits(tables.limits), "The circuit breaker: one of the two limits, or both."),
        "defaults" => described(mapping(tables.defaults, &[], defaults), "What counts for all rules that don't say it themselves."),
        "exclude" => described(
            list("exclusion"),
            "Who lives. Each entry covers the groups that it names and everything below them; a group that contains an excluded one is not killed as a whole.",
        ),
        "kill_one_in" => described(
            reference("globs"),
            "Groups that are no unit, such as the scope of a login, with everything below them: where a rule kills a group, here it kills the one process with the highest oom_score.",
        ),
        "importance" => described(
            list("importance"),
            "Who dies first: the lowest value, strictly, however small the group. The first line that matches a group, or one of its ancestors, decides; 0 where none does.",
        ),
        "rules" => described(list("rule"), "What to do when. A rule's name may stand only once among all files."),
        "kernel" => described(mapping(tables.kernel, &[], kernel), "What the kernel is told, for when it comes first."),
        "systemd" => described(mapping(tables.systemd, &[], systemd), "What systemd is told of kills."),
        _ => return None,
    })
}

/// A mapping that sets at least one limit.
fn limits(keys: &Keys) -> Value {
    let mut limits = mapping(keys, &[], limit);
    if let Some(object) = limits.as_object_mut() {
        object.insert("minProperties".into(), json!(1));
    }
    limits
}

fn limit(key: &str) -> Option<Value> {
    Some(match key {
        "kills" => described(
            reference("kill_limit"),
            "How many kills in which time, for each rule and subject. Beyond it the rule only observes for that subject until the time is over.",
        ),
        "node" => described(
            reference("kill_limit"),
            "How many kills in which time by all rules together, but for those that watch `/`. Beyond it these rules only observe until the time is over.",
        ),
        _ => return None,
    })
}

fn defaults(key: &str) -> Option<Value> {
    Some(match key {
        "cooldown" => described(
            with_default(reference("time"), json!("2s")),
            "After a deed, how long a rule leaves the same subject alone. Counts for rules that have no `cooldown` of their own.",
        ),
        _ => return None,
    })
}

fn exclude(key: &str) -> Option<Value> {
    Some(match key {
        "group" => described(reference("globs"), "The groups that must live, with everything below them."),
        "comm" => described(
            json!({"type": "string", "minLength": 1, "maxLength": 15}),
            "Only those of the groups that hold a process of this name: what `ps -o comm` shows, at most 15 bytes, compared exactly.",
        ),
        _ => return None,
    })
}

fn importance(key: &str) -> Option<Value> {
    Some(match key {
        "group" => described(reference("globs"), "The groups that the value is for, with everything below them."),
        "value" => described(
            json!({"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}),
            "A whole number. The lowest dies first, strictly; groups that no line names have 0.",
        ),
        _ => return None,
    })
}

fn kernel(key: &str) -> Option<Value> {
    Some(match key {
        "oom_group" => described(
            reference("globs"),
            "Groups in which oomwarden sets memory.oom.group to 1: where the kernel's own killer comes first, it takes the whole group too.",
        ),
        "hold" => described(
            reference("hold"),
            "How long the kernel module may hold a global OOM while oomwarden acts. The module's own parameter hold_ms bounds it.",
        ),
        _ => return None,
    })
}

fn systemd(key: &str) -> Option<Value> {
    Some(match key {
        "oomd_xattrs" => described(
            with_default(json!({"type": "boolean"}), json!(true)),
            "`true`: the extended attributes user.oomd_ooms and user.oomd_kill of a victim are raised, so that systemd says `Result=oom-kill` of a unit that was killed.",
        ),
        _ => return None,
    })
}

fn whole_rule(keys: &Keys) -> Value {
    let mut whole = mapping(keys, &["name", "watch", "when"], rule);
    if let Some(object) = whole.as_object_mut() {
        // The kernel module speaks of the node, which only the root stands for.
        let by_signal = json!({"properties": {"when": {"contains": {"required": ["lms"]}}}, "required": ["when"]});
        let root = json!({"const": "/"});
        object.insert("if".into(), by_signal);
        object.insert("then".into(), json!({"properties": {"watch": {"anyOf": [root, {"type": "array", "items": root}]}}}));
    }
    whole
}

fn rule(key: &str) -> Option<Value> {
    Some(match key {
        "name" => described(
            json!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,63}$"}),
            "1 to 63 letters, digits, `.`, `_`, `-`. Metrics, the journal and `oomwarden plan --rule` speak of the rule by it.",
        ),
        "mode" => described(reference("mode"), "As the policy's `mode`, for this rule."),
        "cooldown" => described(
            with_default(reference("time"), json!("2s")),
            "After a deed, how long this rule leaves this subject alone. Besides, only fresh evidence counts.",
        ),
        "watch" => described(
            reference("globs"),
            "The groups that the rule is about: each one that matches is a subject of its own. `/` is the node.",
        ),
        "when" => described(
            json!({"type": "array", "minItems": 1, "items": reference("trigger")}),
            "What starts a judgement: any of these. Every entry has one key.",
        ),
        "only_if" => described(
            json!({"type": "array", "minItems": 1, "items": reference("condition")}),
            "What must hold besides, all of it, on facts that are read anew for every judgement. What can't be read does not hold.",
        ),
        "victim" => described(
            with_default(reference("victim"), json!("subject")),
            "Who may die: `subject`, the whole group in trouble, or a mapping with `among`.",
        ),
        "spare_unkillable" => described(
            with_default(json!({"type": "boolean"}), json!(true)),
            "`false`: a group that holds a process with oom_score_adj -1000 may die whole. Oomwarden's own group and that of process 1 never do.",
        ),
        "then" => described(
            with_default(reference("ladder"), json!([{"kill": "group"}])),
            "The ladder. Its rungs are climbed in this order; if the trouble is over on one of them, the next is not climbed.",
        ),
        _ => return None,
    })
}

fn trigger(key: &str) -> Option<Value> {
    Some(match key {
        "psi" => described(
            reference("psi"),
            "Tasks of the subject stalled for lack of memory: `some` (at least one) or `full` (all at once), stall/window in the kernel's own terms, as in `full 100ms/500ms`. The window is 1ms to 10s.",
        ),
        "event" => described(
            reference("event"),
            "A counter of the subject's own memory.events rose. `low`, `high` and `max` also rise when a healthy group fills its limit with file cache.",
        ),
        "usage" => described(
            reference("usage"),
            "The subject uses more than a share of a limit, or than an amount, as in `{above: 95%, of: max, for: 1s}`. Usage is memory.current less what can be reclaimed: clean file cache and reclaimable slab.",
        ),
        "available" => {
            described(reference("level"), "MemAvailable of the node is below a level, as in `{below: {share: 5%, at_most: 1GiB}}`.")
        }
        "swap_free" => described(
            reference("level"),
            "SwapFree of the node is below a level. On a node without swap this starts no judgement; there, say in `when` what else tells of the shortage.",
        ),
        "lms" => described(
            json!({"enum": LMS_LEVELS.map(|(name, _)| name)}),
            "The low memory signal of the kernel module: below its first threshold, below its second, or about to kill by itself.",
        ),
        _ => return None,
    })
}

fn condition(key: &str) -> Option<Value> {
    Some(match key {
        "usage" => described(reference("usage_now"), "The subject uses more than a share of a limit, or than an amount."),
        "available" => described(reference("level_now"), "MemAvailable of the node is below a level."),
        "swap_free" => described(
            reference("level_now"),
            "SwapFree of the node is below a level. On a node without swap this holds: there is none to help.",
        ),
        _ => return None,
    })
}

fn usage(keys: &Keys) -> Value {
    let mut usage = mapping(keys, &["above"], usage_key);
    if let Some(object) = usage.as_object_mut() {
        // A whole is only asked for where there is a share of it.
        object.insert("dependentSchemas".into(), json!({"of": {"properties": {"above": reference("share")}}}));
    }
    usage
}

fn usage_key(key: &str) -> Option<Value> {
    Some(match key {
        "above" => described(reference("quantum"), "A share of what `of` names, such as `95%`, or an amount, such as `512MiB`."),
        "of" => described(
            with_default(json!({"enum": USAGE_OF.map(|(name, _)| name)}), json!("max")),
            "What the share is of: `max` or `high`, the smallest memory.max or memory.high of the subject and its ancestors (where none is set, the share is never reached), or `node`, the node's memory.",
        ),
        "for" => described(reference("time"), "How long it must have been so. Without it the first time counts."),
        _ => return None,
    })
}

fn level(key: &str) -> Option<Value> {
    Some(match key {
        "below" => described(
            reference("below"),
            "A share of the node's memory (or swap), an amount, or both as `{share: 5%, at_most: 1GiB}`: then the smaller counts.",
        ),
        "for" => described(reference("time"), "How long it must have been so. Without it the first time counts."),
        _ => return None,
    })
}

fn below(key: &str) -> Option<Value> {
    Some(match key {
        "share" => described(reference("share"), "Below this share of the node's memory (or swap)."),
        "at_most" => described(reference("amount"), "And below this amount: 5% of a large node is more than anybody should wait for."),
        _ => return None,
    })
}

fn victim(key: &str) -> Option<Value> {
    Some(match key {
        "among" => described(
            json!({"anyOf": [{"const": "leaves"}, reference("globs")]}),
            "The candidates: the leaves of what the globs name, so that none contains another, or the word `leaves`: those below the subject.",
        ),
        "at_least" => described(with_default(reference("bytes"), json!("1MiB")), "A candidate whose death would free less is left out."),
        "or_largest" => described(
            with_default(json!({"type": "boolean"}), json!(false)),
            "`true`: if all candidates are left out for their size, take the largest nevertheless.",
        ),
        "rank" => described(
            with_default(
                json!({"anyOf": [
                    reference("rank"),
                    {"type": "array", "minItems": 1, "maxItems": MOST_RANK_KEYS, "uniqueItems": true, "items": reference("rank")},
                ]}),
                json!(["usage"]),
            ),
            "Up to four keys in the order in which they decide, after strict importance. `usage within 10%` calls near values equal, so that the next key decides.",
        ),
        _ => return None,
    })
}

/// Any of the rungs before the last one may be left out; their order is that of the reader's table.
fn ladder(rungs: &Keys) -> Value {
    let Some((last, before)) = rungs.known.split_last() else { return json!({"type": "array"}) };
    let chosen = |chosen: u32| before.iter().enumerate().filter(move |(at, _)| chosen & (1 << at) != 0).map(|(_, rung)| *rung);
    let ladders: Vec<Value> = (0..1_u32 << before.len().min(8))
        .map(|subset| {
            let steps: Vec<Value> = chosen(subset).chain([*last]).map(|rung| json!({"required": [rung]})).collect();
            json!({"minItems": steps.len(), "maxItems": steps.len(), "prefixItems": steps})
        })
        .collect();
    json!({"type": "array", "items": reference("rung"), "anyOf": ladders})
}

fn rung(key: &str) -> Option<Value> {
    Some(match key {
        "warn" => described(
            reference("warn"),
            "Tells the victim to free memory: everybody who listens at the pressure socket, and by a signal those who handle it. Then time to do so.",
        ),
        "hook" => described(
            reference("hook"),
            "Runs a program, with the verdict as JSON on its standard input. It is killed when its time is over.",
        ),
        "term" => described(reference("term"), "SIGTERM to every process, then time for them to end."),
        "kill" => described(
            json!({"enum": ["group", "process"]}),
            "`group`: SIGKILL to everything in the group and below it. `process`: to one process of it, the one with the highest oom_score, then with the most resident memory.",
        ),
        _ => return None,
    })
}

fn warn(key: &str) -> Option<Value> {
    Some(match key {
        "signal" => described(
            json!({"type": "string", "pattern": r"^SIG(?:USR1|USR2|RTMIN(?:\+0?[0-9]|\+[12][0-9]|\+30)?)$"}),
            "`SIGUSR1`, `SIGUSR2` or `SIGRTMIN+3`, sent only to processes that handle it. Without it only listeners are told.",
        ),
        "wait" => described(reference("time_above_zero"), "The time in which the processes may free memory."),
        _ => return None,
    })
}

fn hook(key: &str) -> Option<Value> {
    let word = json!({"type": "string", "maxLength": 4096, "pattern": "^[^\\u0000]*$"});
    Some(match key {
        "exec" => described(
            json!({"type": "array", "minItems": 1, "maxItems": MOST_WORDS, "prefixItems": [{"type": "string", "pattern": "^/[^\\u0000]*[^/\\u0000]$"}], "items": word}),
            "The program by its absolute path, then its arguments. No shell reads them.",
        ),
        "timeout" => described(reference("time_above_zero"), "How long it may take; then it is killed with all that it started."),
        _ => return None,
    })
}

fn term(key: &str) -> Option<Value> {
    Some(match key {
        "wait" => described(reference("time_above_zero"), "The time in which the processes may end by themselves."),
        _ => return None,
    })
}

#[cfg(test)]
pub(super) mod tests;
