//! What the kernel module's table says of a policy: who may die and who must live, by paths, whatever the groups hold now.
//!
//! The module chooses by it at the moment of a shortage, among groups that oomwarden may never have seen. So whoever the table lets die
//! must be one whom the judge ([`crate::decide`]) would let die by the same rule. Where the module's lines can't say exactly what the
//! policy says they say less: more groups live, or the rules from there on are left out.
//!
//! - A candidate of the judge is a group that the rule names, with all below it, unless the rule names some below it. The module takes
//!   groups of which none contains another. So what stands below a named group is named too (`G/**`), but only where no glob of the rule can match there.
//! - A rule by which a single process dies can't be said. What it names belongs to it all the same: that is spared from the rules that
//!   follow, which is possible while no rule stands before it; else the table ends there.
//! - Lines are text, made when the policy comes. Putting a table together copies them.

use crate::cgroup::GroupId;
use crate::decide::conditions::{SubjectFacts, holds};
use crate::decide::facts::NodeFacts;
use crate::policy::globs::Globs;
use crate::policy::model::{AmongGroups, Condition, KillWhat, LmsLevel, Mode, Policy, Rule, Rung, Trigger, Victim};
use crate::policy::unbraced::{may_stand_below, unbraced};
use crate::sense::lms::{Lines, MOST_BYTES, MOST_LINES, Table};

/// The lines of a policy. Two that are equal make the same tables, whatever else differs between their policies.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LastResort {
    /// `None`: not everybody who must live can be named, so nobody may die.
    spares: Option<Lines>,
    /// `None`: not all of them can be said, so that the wrong one might die first.
    classes: Option<Lines>,
    rules: Vec<Part>,
}

/// What is said of a rule.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    rule: usize,
    only_if: Vec<Condition>,
    says: Says,
}

#[derive(Debug, PartialEq, Eq)]
enum Says {
    /// Whole groups die by it.
    Dies(Lines),
    /// Single processes of these groups do, so the groups are spared.
    Lives(Lines),
    /// More than fits in a table, or what the module does not know.
    TooMuch,
}

/// How much of a policy a table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// All of it.
    All,
    /// The rules before this one: what follows belongs to single processes.
    Before(usize),
    /// The rules before this one: it did not fit.
    NoRoomFor(usize),
    /// Nothing: those who must live did not fit.
    Nothing,
}

impl LastResort {
    /// What can be said of a policy.
    #[must_use]
    pub fn of(policy: &Policy) -> LastResort {
        let mut bytes = 0;
        let rules = answering(policy).filter_map(|index| {
            let rule = policy.rules.get(index)?;
            // Nothing is said behind what does not fit, so nothing need be found out about it.
            let says = if bytes < MOST_BYTES { rule_lines(rule).unwrap_or(Says::TooMuch) } else { Says::TooMuch };
            bytes += match &says {
                Says::Dies(lines) | Says::Lives(lines) => lines.bytes(),
                Says::TooMuch => MOST_BYTES,
            };
            Some(Part { rule: index, only_if: rule.only_if.clone(), says })
        });
        LastResort { rules: rules.collect(), spares: spares(policy), classes: classes(policy) }
    }

    /// Puts a table together that has just been emptied: of the rules that `may_answer`, on a machine with that much memory and swap.
    /// `kept` are groups that must live besides, with their paths. Allocates nothing.
    pub fn put_together<'g>(
        &self,
        table: &mut Table,
        root: GroupId,
        node: &NodeFacts,
        mut kept: impl Iterator<Item = (GroupId, &'g [u8])>,
        may_answer: impl Fn(usize) -> bool,
    ) -> Said {
        let fits = table.root(root)
            // A path that is too long to be said is known by its id alone.
            && kept.all(|(id, path)| table.spare(id) && (table.spare_at(path) || path.len() > LONGEST_KEPT))
            && self.spares.as_ref().is_some_and(|lines| table.push(lines))
            && self.classes.as_ref().is_some_and(|lines| table.push(lines));
        if !fits {
            return Said::Nothing;
        }
        // As it is when the module has to decide.
        let node = NodeFacts { available_bytes: Some(0), swap_free_bytes: Some(0), ..*node };
        for part in &self.rules {
            if !may_answer(part.rule) || !part.only_if.iter().all(|condition| holds(condition, &THE_NODE, &node) == Some(true)) {
                continue;
            }
            match &part.says {
                Says::Lives(_) if table.rules() > 0 => return Said::Before(part.rule),
                Says::Dies(lines) | Says::Lives(lines) if table.push(lines) => {}
                Says::Dies(_) | Says::Lives(_) | Says::TooMuch => return Said::NoRoomFor(part.rule),
            }
        }
        Said::All
    }
}

/// Above this a path may be too long for a line, since some of its bytes are written as three.
const LONGEST_KEPT: usize = crate::sense::lms::LONGEST_GLOB / 3;

/// The subject of every rule that answers a hold, as conditions see it.
const THE_NODE: SubjectFacts = SubjectFacts { root: true, current: None, charged: None, shmem: None, slab: None, max: None, high: None };

/// All globs without braces; `None`: that can't be done, or in too many lines.
fn all_unbraced(globs: &Globs) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for pattern in globs.patterns() {
        all.append(&mut unbraced(pattern, MOST_LINES)?);
        if all.len() > MOST_LINES || all.iter().map(String::len).sum::<usize>() > MOST_BYTES {
            return None;
        }
    }
    Some(all)
}

/// Everything below what a glob matches.
fn below(glob: &str) -> String {
    if glob == "/" { "/**".to_owned() } else { format!("{glob}/**") }
}

fn is_everything_below(glob: &str) -> bool {
    glob.ends_with("/**")
}

/// Who must live by the policy.
fn spares(policy: &Policy) -> Option<Lines> {
    let mut lines = Lines::default();
    for exclude in &policy.exclude {
        for glob in all_unbraced(&exclude.group)? {
            let fits = match &exclude.comm {
                None => lines.spare_path(&glob),
                // What holds the process may stand below what the exclusion names.
                Some(comm) => lines.spare_comm(comm, &glob) && (is_everything_below(&glob) || lines.spare_comm(comm, &below(&glob))),
            };
            fits.then_some(())?;
        }
    }
    // The module kills whole groups.
    for glob in policy.kill_one_in.as_ref().map_or(Some(Vec::new()), all_unbraced)? {
        lines.spare_path(&glob).then_some(())?;
    }
    Some(lines)
}

/// Whom the policy has die before whom.
fn classes(policy: &Policy) -> Option<Lines> {
    let mut values: Vec<i64> = policy.importance.iter().map(|entry| entry.value).chain([0]).collect();
    let small = values.iter().all(|value| i32::try_from(*value).is_ok());
    values.sort_unstable();
    values.dedup();
    let zero = values.binary_search(&0).ok()?;
    let mut lines = Lines::default();
    for entry in &policy.importance {
        // Only their order counts, and there are few of them.
        let value = if small {
            i32::try_from(entry.value).ok()?
        } else {
            let place = values.binary_search(&entry.value).ok()?;
            i32::try_from(place).ok()? - i32::try_from(zero).ok()?
        };
        for glob in all_unbraced(&entry.group)? {
            lines.class(value, &glob).then_some(())?;
        }
    }
    Some(lines)
}

fn rule_lines(rule: &Rule) -> Option<Says> {
    // A rule that answers a hold has such a victim.
    let Victim::Among(among) = &rule.victim else { return None };
    let mut globs = match &among.groups {
        // The subject is the root.
        AmongGroups::Leaves => vec!["/**".to_owned()],
        AmongGroups::Globs(globs) => all_unbraced(globs)?,
    };
    // It is nobody's victim, and what stands below it is not named by that.
    globs.retain(|glob| glob != "/");
    let mut lines = Lines::default();
    if rule.ladder.last() == Some(&Rung::Kill(KillWhat::Process)) {
        globs.iter().all(|glob| lines.spare_path(glob)).then_some(())?;
        return Some(Says::Lives(lines));
    }
    if globs.is_empty() {
        return Some(Says::Dies(lines));
    }
    lines.rule(among.at_least.0.div_ceil(1024), !rule.spare_unkillable);
    for glob in &globs {
        lines.among(glob).then_some(())?;
        if !globs.iter().any(|other| may_stand_below(glob, other)) {
            lines.among(&below(glob)).then_some(())?;
        }
    }
    Some(Says::Dies(lines))
}

/// The rules that may answer a hold, by index: those that ask for `lms: oom`, or else, where the policy asks for a hold,
/// those that ask for `lms: kill`.
pub fn answering(policy: &Policy) -> impl Iterator<Item = usize> + '_ {
    let asks = |rule: &Rule, level: LmsLevel| {
        rule.mode == Mode::Enforce && matches!(rule.victim, Victim::Among(_)) && rule.when.contains(&Trigger::Lms(level))
    };
    let level = if policy.rules.iter().any(|rule| asks(rule, LmsLevel::Oom)) { LmsLevel::Oom } else { LmsLevel::Kill };
    let wanted = level == LmsLevel::Oom || policy.hold.is_some();
    policy.rules.iter().enumerate().filter(move |(_, rule)| wanted && asks(rule, level)).map(|(index, _)| index)
}

#[cfg(test)]
mod tests;
