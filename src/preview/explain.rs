//! What a policy says of one group, and why: which rules watch it, whose victim it may be, what covers it, and the numbers
//! behind that.
//!
//! Most of it follows from the group's name alone, so a group that does not exist (yet) can be asked about. What holds only
//! for a group that is there (its numbers, its processes, where it stands among others) is added when it is.

mod numbers;
mod text;

#[cfg(test)]
mod tests;

use serde::Serialize;

use super::Asked;
use super::onlooker::Onlooker;
use super::plan::{CandidatePlan, subject_plan};
use crate::cgroup::path::GroupPath;
use crate::policy::globs::Globs;
use crate::policy::model::{AmongGroups, GroupClass, KillWhat, Policy, Rule, Rung, Victim};
use crate::policy::places::LineOf;
use crate::policy::slices;
use crate::policy::words::{self, mode_word};
use crate::sense::tree::Slot;

pub use numbers::{Limits, Numbers, Process};

/// The answer for one group.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Version of this form.
    pub v: u32,
    /// Where the policy was read.
    pub policy: Vec<String>,
    /// The policy's fingerprint.
    pub policy_hash: String,
    /// The group.
    pub group: String,
    /// Whether it is there; `None`: nobody looked.
    pub exists: Option<bool>,
    /// If it is not: groups of this name elsewhere, or else where systemd would put such a unit.
    pub perhaps: Vec<String>,
    /// Its importance.
    pub importance: Importance,
    /// Exclusions that cover it.
    pub exclusions: Vec<Exclusion>,
    /// What `kernel: oom_group` says of it; `None`: nothing.
    pub oom_group: Option<Cover>,
    /// How `kill_one_in` covers it: where a rule kills a group, here it kills one process. `None`:
    /// it does not.
    pub kill_one_in: Option<Cover>,
    /// An exclusion or `kill_one_in` keeps it from memory.oom.group all the same, for the sake of
    /// the group itself or of one below it; or oomwarden does.
    pub oom_group_spared: bool,
    /// Every rule that has to do with it, in the policy's order.
    pub rules: Vec<RuleRelation>,
    /// Its numbers, if it is there.
    pub numbers: Option<Numbers>,
    /// The running oomwarden, if it is in this group or below it.
    pub daemon: Option<i32>,
    /// Processes for whose sake it, or what contains it, must live; if it is there.
    pub processes: Vec<Process>,
    /// Groups below it that an exclusion covers: because of them it is not killed as a whole.
    pub spared_below: Vec<String>,
}

/// An entry of the policy that covers a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cover {
    /// Where it stands: `server.yaml:31`.
    pub place: Option<LineOf>,
    /// The glob that matched.
    pub glob: String,
    /// What it matched: the group itself or one above it.
    pub matched: String,
    /// It matched one above the group.
    pub inherited: bool,
}

/// Strict importance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Importance {
    /// The value.
    pub value: i64,
    /// Where it comes from; `None`: no line names the group, so it is 0.
    pub from: Option<Cover>,
}

/// An exclusion that covers the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exclusion {
    /// The entry in words.
    pub text: String,
    /// How it covers the group.
    #[serde(flatten)]
    pub cover: Cover,
    /// The name of a process that it asks for.
    pub comm: Option<String>,
    /// Whether it applies now; `None`: with a `comm`, and nobody could look.
    pub applies: Option<bool>,
}

/// A rule and the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleRelation {
    /// Its name.
    pub rule: String,
    /// Where it stands.
    pub place: Option<LineOf>,
    /// `enforce` or `observe`.
    pub mode: &'static str,
    /// How it watches the group, or one above it.
    pub watches: Option<Cover>,
    /// How the group, or one above it that it would die with, may be its victim.
    pub victim: Option<MayDie>,
    /// What is done to a victim, in order: `warn (SIGUSR1, 1s)`, `term (3s)`, `kill group`. Empty where the group may not be one.
    pub then: Vec<String>,
    /// Where the group stands among the candidates right now, if it is there and the rule has a subject.
    pub standing: Option<CandidatePlan>,
    /// The subject of that judgement.
    pub standing_for: Option<String>,
}

/// How a group may be a rule's victim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MayDie {
    /// `subject`, `among` or `leaves`: what the rule's `victim` says.
    pub by: &'static str,
    /// The glob that matched, and what it matched.
    #[serde(flatten)]
    pub cover: Cover,
}

/// Explains the group at `path`. Without an onlooker by its name alone.
#[must_use]
pub fn explain(asked: &Asked, path: &GroupPath, onlooker: Option<&mut Onlooker>) -> Explanation {
    let policy = &asked.policy;
    let line = ancestry(path);
    let class = classify(policy, &line);
    let mut explanation = Explanation {
        v: 1,
        policy: asked.files(),
        policy_hash: policy.hash.to_string(),
        group: path.to_string(),
        exists: None,
        perhaps: std::str::from_utf8(path.as_bytes()).ok().and_then(slices::usual_place).into_iter().collect(),
        importance: importance(asked, &class, &line),
        exclusions: exclusions(asked, &line),
        oom_group: policy.oom_group.as_ref().filter(|_| class.oom_group).and_then(|globs| oom_group(asked, globs, path)),
        oom_group_spared: class.forbids_oom_group() || policy.keeps_oom_group_from(path.as_bytes()),
        kill_one_in: policy.kill_one_in.as_ref().and_then(|globs| kill_one_in(asked, globs, &line)),
        rules: (0..policy.rules.len()).filter_map(|rule| relation(asked, rule, &line, class.kill_one)).collect(),
        numbers: None,
        daemon: None,
        processes: Vec::new(),
        spared_below: Vec::new(),
    };
    let Some(onlooker) = onlooker else { return explanation };
    let slot = onlooker.at(path);
    explanation.exists = Some(slot.is_some());
    let Some(slot) = slot else {
        let namesakes = namesakes(onlooker, path);
        if !namesakes.is_empty() {
            explanation.perhaps = namesakes;
        }
        return explanation;
    };
    explanation.perhaps.clear();
    explanation.numbers = numbers::of(onlooker, slot);
    explanation.daemon = onlooker.daemon.filter(|_| onlooker.daemon_slot().is_some_and(|daemon| onlooker.is_below(daemon, slot)));
    let seen = numbers::processes(onlooker, policy, slot);
    for exclusion in &mut explanation.exclusions {
        if let Some(comm) = &exclusion.comm {
            exclusion.applies = Some(seen.iter().any(|process| process.comm == *comm && process.spares_group));
        }
    }
    explanation.processes = seen;
    if class.excluded.is_none() {
        explanation.spared_below = spared_below(onlooker, slot);
    }
    explanation.oom_group_spared |= explanation.daemon.is_some() || forbids_oom_group_below(onlooker, slot);
    for relation in &mut explanation.rules {
        let Some(rule) = policy.rules.iter().position(|rule| *rule.name == relation.rule) else { continue };
        if let Some((subject, standing)) = standing(onlooker, asked, rule, slot) {
            (relation.standing, relation.standing_for) = (Some(standing), Some(subject));
        }
    }
    explanation
}

/// Groups whose path ends in the one that was asked for, as that of a service does that was named
/// without its slice.
fn namesakes(onlooker: &Onlooker, path: &GroupPath) -> Vec<String> {
    let paths = onlooker.tree.slots().filter_map(|slot| onlooker.path(slot));
    let mut found: Vec<String> =
        paths.filter(|there| !path.is_root() && there.as_bytes().ends_with(path.as_bytes())).map(ToString::to_string).collect();
    found.sort();
    found
}

/// The group and those above it, from the root down.
fn ancestry(path: &GroupPath) -> Vec<GroupPath> {
    let bytes = path.as_bytes();
    let slashes = bytes.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let ends = slashes.chain((!path.is_root()).then_some(bytes.len()));
    std::iter::once(GroupPath::root()).chain(ends.filter_map(|end| bytes.get(..end)).map(GroupPath::from_bytes)).collect()
}

fn classify(policy: &Policy, line: &[GroupPath]) -> GroupClass {
    let mut class = None;
    for path in line {
        class = Some(policy.classify(path.as_bytes(), class.as_ref()));
    }
    class.unwrap_or_default()
}

/// How one of some globs matches the group, or else the nearest group above it.
fn covered(globs: &Globs, line: &[GroupPath], place: Option<&LineOf>) -> Option<Cover> {
    let (above, matched) = line.iter().rev().enumerate().find(|(_, path)| globs.matches(path.as_bytes()))?;
    let one = |pattern: &&str| Globs::new(&[pattern]).is_ok_and(|glob| glob.matches(matched.as_bytes()));
    Some(Cover {
        place: place.cloned(),
        glob: globs.patterns().find(one).unwrap_or_default().to_owned(),
        matched: matched.to_string(),
        inherited: above > 0,
    })
}

fn importance(asked: &Asked, class: &GroupClass, line: &[GroupPath]) -> Importance {
    let first = class.importance_entries.iter().next();
    let entry = first.and_then(|at| Some((at, asked.policy.importance.get(at)?)));
    Importance { value: class.importance, from: entry.and_then(|(at, entry)| covered(&entry.group, line, asked.places.importance.get(at))) }
}

fn exclusions(asked: &Asked, line: &[GroupPath]) -> Vec<Exclusion> {
    let covering = asked.policy.exclude.iter().enumerate().filter_map(|(at, exclude)| {
        let cover = covered(&exclude.group, line, asked.places.exclude.get(at))?;
        let comm = exclude.comm.as_deref().map(numbers::comm_text);
        Some(Exclusion { text: exclude.text.to_string(), cover, applies: comm.is_none().then_some(true), comm })
    });
    covering.collect()
}

/// The globs of `oom_group` hold for the group itself only.
fn oom_group(asked: &Asked, globs: &Globs, path: &GroupPath) -> Option<Cover> {
    let mut cover = covered(globs, std::slice::from_ref(path), None)?;
    let at = globs.patterns().position(|pattern| pattern == cover.glob);
    cover.place = at.and_then(|at| asked.places.oom_group.get(at)).cloned();
    Some(cover)
}

/// The globs of `kill_one_in` hold for what is below, too.
fn kill_one_in(asked: &Asked, globs: &Globs, line: &[GroupPath]) -> Option<Cover> {
    let mut cover = covered(globs, line, None)?;
    let at = globs.patterns().position(|pattern| pattern == cover.glob);
    cover.place = at.and_then(|at| asked.places.kill_one_in.get(at)).cloned();
    Some(cover)
}

/// `None`: the rule has nothing to do with the group.
fn relation(asked: &Asked, index: usize, line: &[GroupPath], kill_one: bool) -> Option<RuleRelation> {
    let rule = asked.policy.rules.get(index)?;
    let place = asked.places.rules.get(index);
    let watches = covered(&rule.watch, line, place);
    let victim = may_die(rule, line, watches.as_ref(), place);
    let then = if victim.is_some() { rule.ladder.iter().map(|step| rung(step, kill_one)).collect() } else { Vec::new() };
    (watches.is_some() || victim.is_some()).then(|| RuleRelation {
        rule: rule.name.to_string(),
        place: place.cloned(),
        mode: mode_word(rule.mode),
        watches,
        victim,
        then,
        standing: None,
        standing_for: None,
    })
}

fn rung(rung: &Rung, kill_one: bool) -> String {
    match rung {
        Rung::Kill(KillWhat::Group) if kill_one => "kill process (kill_one_in)".to_owned(),
        Rung::Kill(KillWhat::Group) => "kill group".to_owned(),
        Rung::Kill(KillWhat::Process) => "kill process".to_owned(),
        before => words::rung_before_the_kill(before).unwrap_or_default(),
    }
}

fn may_die(rule: &Rule, line: &[GroupPath], watches: Option<&Cover>, place: Option<&LineOf>) -> Option<MayDie> {
    let (by, cover) = match &rule.victim {
        Victim::Subject => ("subject", watches.cloned()),
        Victim::Among(among) => match &among.groups {
            AmongGroups::Globs(globs) => ("among", covered(globs, line, place)),
            // Whatever stands below a subject: the group itself, whichever subject it is.
            AmongGroups::Leaves => ("leaves", watches.cloned()),
        },
    };
    Some(MayDie { by, cover: cover? })
}

/// Whether the policy keeps memory.oom.group off this group for its own sake or that of one below.
fn forbids_oom_group_below(onlooker: &Onlooker, top: Slot) -> bool {
    let next = |slot: &Slot| onlooker.tree.next_in_preorder(top, *slot);
    std::iter::successors(Some(top), next).any(|slot| onlooker.tree.get(slot).is_some_and(|node| node.class.forbids_oom_group()))
}

/// Groups below one that an exclusion covers; of those that contain one another only the topmost.
fn spared_below(onlooker: &Onlooker, top: Slot) -> Vec<String> {
    let tree = &onlooker.tree;
    let (mut found, mut next) = (Vec::new(), tree.next_in_preorder(top, top));
    while let Some(slot) = next {
        next = tree.next_in_preorder(top, slot);
        let Some(node) = tree.get(slot) else { continue };
        let above = node.parent.and_then(|parent| tree.get(parent));
        if node.class.excluded.is_some() && above.is_none_or(|above| above.class.excluded.is_none()) {
            found.push(node.group.path.to_string());
        }
    }
    found.sort();
    found
}

/// Where the group stands in a judgement by this rule now, and for which subject. Candidates named by globs are the same for
/// every subject of a rule; else the nearest subject at or above the group counts.
fn standing(onlooker: &mut Onlooker, asked: &Asked, rule: usize, slot: Slot) -> Option<(String, CandidatePlan)> {
    let watched = |slot: Slot| onlooker.tree.get(slot).is_some_and(|node| node.class.subject_of.contains(rule));
    let parent = |slot: &Slot| onlooker.tree.get(*slot).and_then(|node| node.parent);
    let nearest = std::iter::successors(Some(slot), parent).find(|slot| watched(*slot));
    let by_globs = matches!(&asked.policy.rules.get(rule)?.victim,
        Victim::Among(among) if matches!(among.groups, AmongGroups::Globs(_)));
    let subject = nearest.or_else(|| onlooker.subjects(rule).first().copied().filter(|_| by_globs))?;
    let group = onlooker.path(slot)?.to_string();
    let plan = subject_plan(onlooker, asked, rule, subject)?;
    let standing = plan.candidates.into_iter().find(|candidate| candidate.group == group)?;
    Some((plan.subject, standing))
}
