//! From a draft without errors to the compiled policy: defaults filled in, globs compiled, numbers bounded.

use std::sync::Arc;
use std::time::Duration;

use super::diagnostic::{Place, Report};
use super::draft::{self, Draft, Patterns};
use super::globs::Globs;
use super::model::{Among, AmongGroups, Exclude, Importance, MAX_ENTRIES, Mode, Policy, Rule, Victim};
use super::source::Source;

/// Where the policy does not say.
const COOLDOWN: Duration = Duration::from_secs(2);
/// How many globs a policy may hold: each one is tried on each new group.
const MOST_GLOBS: usize = 1024;

/// Reports what is too much of all of it together.
pub(super) fn check_numbers(draft: &Draft, report: &mut Report) {
    let start = Place::start_of(0);
    let over = |count: usize| count > MAX_ENTRIES;
    let beyond = |places: Vec<Place>| places.get(MAX_ENTRIES).copied().unwrap_or(start);
    for (what, count, at) in [
        ("rules", draft.rule_count, beyond(draft.names.iter().map(|name| name.at).collect())),
        ("exclusions", draft.exclude.len(), beyond(draft.exclude.iter().map(|entry| entry.at).collect())),
        ("lines of importance", draft.importance.len(), beyond(draft.importance.iter().map(|entry| entry.at).collect())),
    ] {
        if over(count) {
            report.error(
                at,
                format!("{count} {what} are too many"),
                format!("a policy holds up to {MAX_ENTRIES}; one entry can name several groups by a glob or a list"),
            );
        }
    }
    let globs: usize = all_patterns(draft).map(Vec::len).sum();
    if globs > MOST_GLOBS {
        report.error(
            start,
            format!("{globs} globs are too many"),
            format!("a policy holds up to {MOST_GLOBS}; use `*`, `**` and `{{a,b}}`"),
        );
    }
}

fn all_patterns(draft: &Draft) -> impl Iterator<Item = &Patterns> {
    let among = draft.rules.iter().filter_map(|rule| match &rule.victim.value {
        draft::Victim::Among(among) => among.groups.as_ref(),
        draft::Victim::Subject => None,
    });
    let rules = draft.rules.iter().map(|rule| &rule.watch).chain(among);
    let exclude = draft.exclude.iter().map(|entry| &entry.value.group);
    let importance = draft.importance.iter().map(|entry| &entry.value.group);
    rules.chain(exclude).chain(importance).chain(&draft.oom_group).chain(&draft.kill_one_in)
}

/// Compiles; `None` if a glob is none after all, with an error in the report.
pub(super) fn compile(draft: Draft, hash: Arc<str>, report: &mut Report) -> Option<Policy> {
    let mode = draft.mode.as_ref().map_or(Mode::Enforce, |mode| mode.value);
    let cooldown = draft.cooldown.as_ref().map_or(COOLDOWN, |cooldown| cooldown.value);
    let hold = draft.hold.as_ref().map(|hold| hold.value);
    let limit = draft.limit.as_ref().map(|limit| limit.value);
    let node_limit = draft.node_limit.as_ref().map(|limit| limit.value);
    let oomd_xattrs = draft.oomd_xattrs.as_ref().is_none_or(|wanted| wanted.value);
    let mut optional = |patterns: &Option<Patterns>| match patterns {
        Some(patterns) => globs(patterns, report).map(Some),
        None => Some(None),
    };
    let (oom_group, kill_one_in) = (optional(&draft.oom_group)?, optional(&draft.kill_one_in)?);
    let exclude = draft.exclude.into_iter().map(|entry| exclude(entry.value, report)).collect::<Option<_>>()?;
    let importance = draft
        .importance
        .into_iter()
        .map(|entry| Some(Importance { group: globs(&entry.value.group, report)?, value: entry.value.value }))
        .collect::<Option<_>>()?;
    let rules = draft.rules.into_iter().map(|entry| rule(entry, mode, cooldown, report)).collect::<Option<_>>()?;
    Some(Policy { hash, mode, exclude, importance, rules, oom_group, hold, limit, node_limit, kill_one_in, oomd_xattrs })
}

fn exclude(entry: draft::Exclude, report: &mut Report) -> Option<Exclude> {
    let patterns: Vec<&str> = entry.group.iter().map(|pattern| pattern.value.as_str()).collect();
    let mut text = patterns.join(", ");
    if let Some((comm, _)) = &entry.comm {
        text.push_str(" holding comm ");
        text.push_str(comm);
    }
    Some(Exclude { group: globs(&entry.group, report)?, comm: entry.comm.map(|(_, comm)| comm), text: text.into() })
}

fn rule(entry: draft::Rule, mode: Mode, cooldown: Duration, report: &mut Report) -> Option<Rule> {
    let victim = match entry.victim.value {
        draft::Victim::Subject => Victim::Subject,
        draft::Victim::Among(among) => Victim::Among(Among {
            groups: match &among.groups {
                Some(patterns) => AmongGroups::Globs(globs(patterns, report)?),
                None => AmongGroups::Leaves,
            },
            at_least: among.at_least,
            or_largest: among.or_largest,
            rank: among.rank,
        }),
    };
    Some(Rule {
        name: entry.name.value.into(),
        mode: entry.mode.unwrap_or(mode),
        cooldown: entry.cooldown.unwrap_or(cooldown),
        watch: globs(&entry.watch, report)?,
        when: entry.when.into_iter().map(|trigger| trigger.value).collect(),
        only_if: entry.only_if.into_iter().map(|condition| condition.value).collect(),
        victim,
        ladder: entry.ladder,
        spare_unkillable: entry.spare_unkillable,
    })
}

fn globs(patterns: &Patterns, report: &mut Report) -> Option<Globs> {
    let texts: Vec<&str> = patterns.iter().map(|pattern| pattern.value.as_str()).collect();
    match Globs::new(&texts) {
        Ok(globs) => Some(globs),
        Err(bad) => {
            report.bad(patterns.first().map_or(Place::start_of(0), |pattern| pattern.at), bad.into_bad());
            None
        }
    }
}

/// The fingerprint of all texts: FNV-1a of 64 bits over each text and its length.
pub(super) fn fingerprint(sources: &[Source]) -> Arc<str> {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for source in sources {
        for byte in source.text().iter().chain(&(source.text().len() as u64).to_le_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{hash:016x}").into()
}
