//! Whom each rule would kill right now, ranked, with reasons and what would go with the victim. Kills nothing.
//!
//! For every rule and every group that it watches: what of `when` and `only_if` is so now, and the verdict as if something
//! of `when` had just happened. Conditions that do not hold end a judgement of the daemon; here the verdict that would
//! follow if they did is shown all the same, because that is what one wants to know beforehand.

mod text;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Asked;
use super::onlooker::Onlooker;
use crate::cgroup::Limit;
use crate::decide::conditions::{NODE_IS_LOW, SubjectFacts, confirmed, holds, is_beyond_swap, notice_holds};
use crate::decide::facts::NodeFacts;
use crate::decide::verdict::{Notice, Standing};
use crate::gather::court::Ruling;
use crate::policy::model::{Condition, EventKind, Level, LmsLevel, Policy, RankKey, Rule, Trigger, UsageOf, UsageTest, Victim};
use crate::policy::words::{Trigger as TriggerText, key_word, lms_word, mode_word, rung_before_the_kill};
use crate::record::model::{Blank, JudgementRecord};
use crate::record::words;
use crate::sense::tree::Slot;

/// The answer for one machine and policy.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Version of this form.
    pub v: u32,
    /// Where the policy was read.
    pub policy: Vec<String>,
    /// The policy's fingerprint.
    pub policy_hash: String,
    /// How many groups there are, the root included.
    pub groups: usize,
    /// Some groups are there and could not be looked at.
    pub incomplete: bool,
    /// How long growth and pressure were watched; `None`: no rule ranks by them, or nobody waited.
    pub watched_us: Option<u64>,
    /// The node's memory.
    pub node: NodeNumbers,
    /// What the kernel module says: `ok`, `warn`, `kill`, `oom`; `None`: it isn't loaded.
    pub lms: Option<&'static str>,
    /// The oomwarden that is running here.
    pub daemon: Option<Daemon>,
    /// Rule by rule, in the policy's order.
    pub rules: Vec<RulePlan>,
}

/// The node's memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeNumbers {
    /// MemTotal.
    pub total_bytes: u64,
    /// MemAvailable.
    pub available_bytes: Option<u64>,
    /// SwapTotal.
    pub swap_total_bytes: u64,
    /// SwapFree.
    pub swap_free_bytes: Option<u64>,
}

impl From<NodeFacts> for NodeNumbers {
    fn from(node: NodeFacts) -> NodeNumbers {
        NodeNumbers {
            total_bytes: node.total_bytes,
            available_bytes: node.available_bytes,
            swap_total_bytes: node.swap_total_bytes,
            swap_free_bytes: node.swap_free_bytes,
        }
    }
}

/// A running oomwarden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// Its process.
    pub pid: i32,
    /// The group that it runs in; `None`: it is not below this root, or can't be told.
    pub group: Option<String>,
}

/// One rule.
#[derive(Clone, Debug, Serialize)]
pub struct RulePlan {
    /// Its name.
    pub rule: String,
    /// Where it stands: `server.yaml:31`.
    pub place: String,
    /// `enforce` or `observe`.
    pub mode: &'static str,
    /// The globs of `watch`.
    pub watch: Vec<String>,
    /// Each group that it watches.
    pub subjects: Vec<SubjectPlan>,
}

/// One rule and one group that it watches.
#[derive(Clone, Debug, Serialize)]
pub struct SubjectPlan {
    /// The group.
    pub subject: String,
    /// What would come of it if one of its triggers fired now.
    pub outcome: Outcome,
    /// Entries of `when`.
    pub triggers: Vec<Test>,
    /// Entries of `only_if`, and what is asked besides.
    pub conditions: Vec<Test>,
    /// Who would die; with `not_confirmed`: who would if the conditions held.
    pub victim: Option<Toll>,
    /// A level that holds now for which nobody would die, because that could not lift it; another
    /// trigger may still lead to a kill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_vain: Option<InVain>,
    /// Everybody who was thought of: the victim, those behind it, those who must live.
    pub candidates: Vec<CandidatePlan>,
}

/// Why a level would kill nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InVain {
    /// The trigger, nearly as the policy words it.
    pub trigger: String,
    /// How much must come back until the level is lifted.
    pub missing_bytes: u64,
    /// The most that all who may die could free together.
    pub could_free_bytes: u64,
    /// The same in words, with what holds the memory instead.
    pub reason: String,
}

/// What would come of a trigger that fired now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The victim would be killed (or, with mode `observe`, the verdict recorded).
    Kill,
    /// Nobody may be killed.
    NoVictim,
    /// What must hold does not.
    NotConfirmed,
}

/// A trigger or condition, and the numbers that it compares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Test {
    /// Nearly as the policy words it.
    pub test: String,
    /// The rule's text does not say so; it is asked anyway.
    pub implied: bool,
    /// Whether it is so now; `None`: it could not be told, or it is something that happens, not something that is.
    pub holds: Option<bool>,
    /// It is something that happens: stall, or a counter that rises.
    pub happens: bool,
    /// The number now.
    pub now_bytes: Option<u64>,
    /// What the kernel module says now: `ok`, `warn`, `kill`, `oom`; `None` for all other tests, and where it isn't loaded.
    pub now: Option<&'static str>,
    /// What it is compared with; `None` where no limit is set, or no swap is there.
    pub level_bytes: Option<u64>,
}

/// What would go with a victim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Toll {
    /// The group.
    pub group: String,
    /// `group` or `process`: what the ladder's last rung kills.
    pub kill: &'static str,
    /// Groups that end, those below the victim included; 0 with `process`.
    pub groups: usize,
    /// Processes that end.
    pub processes: Option<u32>,
    /// What their death frees: anonymous memory and swap. `None` for a single process, whose share is not known.
    pub bytes: Option<u64>,
    /// With `process`: which one.
    pub pid: Option<i32>,
    /// What would be tried before: `warn (SIGUSR1, 1s)`, `hook /usr/local/bin/save-state (500ms)`, `term (3s)`.
    pub before: Vec<String>,
}

/// A candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CandidatePlan {
    /// The group.
    pub group: String,
    /// 1 is the victim; `None`: it must live.
    pub rank: Option<usize>,
    /// Why it has its place.
    pub reason: String,
    /// What its death would free: anonymous memory and swap.
    pub usage_bytes: Option<u64>,
    /// Strict importance: the largest of the group and of all that would die with it.
    pub importance: i64,
    /// Values of the rule's rank keys. Without `age`, of which one look knows only the order.
    pub keys: BTreeMap<&'static str, Option<i64>>,
}

/// Makes the plan: of one rule, or of all. `watch` is how long growth and pressure are watched where a rule ranks by them.
#[must_use]
pub fn plan(onlooker: &mut Onlooker, asked: &Asked, only: Option<usize>, watch: Duration) -> Plan {
    let policy = &asked.policy;
    let wanted = |rule: &usize| only.is_none_or(|only| only == *rule);
    let moving = policy.rules.iter().enumerate().filter(|(at, _)| wanted(at)).any(|(_, rule)| ranks_by_movement(rule));
    let watched = (moving && !watch.is_zero()).then(|| onlooker.watch_for(watch)).map(|()| watch);
    let node = onlooker.read_node();
    let rules = (0..policy.rules.len()).filter(wanted).filter_map(|rule| rule_plan(onlooker, asked, rule)).collect();
    Plan {
        v: 1,
        policy: asked.files(),
        policy_hash: policy.hash.to_string(),
        groups: onlooker.tree.len(),
        incomplete: onlooker.tree.is_incomplete(),
        watched_us: watched.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        node: node.into(),
        lms: node.lms.map(|lms| lms_word(lms.level)),
        daemon: onlooker.daemon.map(|pid| {
            let slot = onlooker.daemon_slot();
            Daemon { pid, group: slot.and_then(|slot| onlooker.path(slot)).map(ToString::to_string) }
        }),
        rules,
    }
}

fn ranks_by_movement(rule: &Rule) -> bool {
    matches!(&rule.victim, Victim::Among(among) if among.rank.iter().any(|by| matches!(by.key, RankKey::Growth | RankKey::Pressure)))
}

fn rule_plan(onlooker: &mut Onlooker, asked: &Asked, index: usize) -> Option<RulePlan> {
    let rule = asked.policy.rules.get(index)?;
    let subjects = onlooker.subjects(index);
    Some(RulePlan {
        rule: rule.name.to_string(),
        place: asked.places.rules.get(index).map(ToString::to_string).unwrap_or_default(),
        mode: mode_word(rule.mode),
        watch: rule.watch.patterns().map(str::to_owned).collect(),
        subjects: subjects.into_iter().filter_map(|subject| subject_plan(onlooker, asked, index, subject)).collect(),
    })
}

/// Judges one rule and one subject. `None`: the subject is gone.
pub fn subject_plan(onlooker: &mut Onlooker, asked: &Asked, index: usize, subject: Slot) -> Option<SubjectPlan> {
    let policy = &asked.policy;
    let rule = policy.rules.get(index)?;
    onlooker.gather(policy, index, subject);
    let node = onlooker.court.node;
    let facts = SubjectFacts::of(&onlooker.court.facts, onlooker.court.index_of(subject)?)?;
    let can_fire = |when: &&Trigger| !matches!(when, Trigger::Lms(_)) || node.lms.is_some();
    let notices = rule.when.iter().filter(can_fire).map(|when| (when, as_notice(when, &node)));
    let fired: Vec<_> = notices.filter(|(_, notice)| confirmed(rule, notice, &facts, &node)).collect();
    let is_confirmed = !fired.is_empty();
    let (mut judged, mut in_vain) = (None, None);
    for (when, notice) in fired.iter().filter(|(_, notice)| notice.is_level()) {
        let (ruling, record) = judge_as_confirmed(onlooker, policy, policy, index, subject, notice)?;
        if let Some(relief) = words::in_vain(&record) {
            in_vain.get_or_insert_with(|| InVain {
                trigger: TriggerText(when).to_string(),
                missing_bytes: relief.missing,
                could_free_bytes: relief.could_free.unwrap_or(0),
                reason: words::InVain(&record, relief).to_string(),
            });
        }
        let kills = matches!(ruling, Ruling::Kill { .. });
        judged = Some((ruling, record));
        if kills {
            break;
        }
    }
    // What happens is no level: whoever it would kill is told, however vain that is for the level.
    if judged.is_none() || fired.iter().any(|(_, notice)| !notice.is_level()) {
        judged = Some(judge_as_confirmed(onlooker, policy, &asked.confirmed, index, subject, &HAPPENED)?);
    }
    let (ruling, record) = judged?;
    let victim = match ruling {
        Ruling::Kill { victim, .. } => toll(onlooker, rule, victim),
        Ruling::NotConfirmed | Ruling::NoVictim => None,
    };
    Some(SubjectPlan {
        subject: record.subject.to_string(),
        outcome: match (is_confirmed, &victim) {
            (false, _) => Outcome::NotConfirmed,
            (true, Some(_)) => Outcome::Kill,
            (true, None) => Outcome::NoVictim,
        },
        triggers: rule.when.iter().map(|when| trigger(when, &facts, &node)).collect(),
        conditions: conditions(rule, &facts, &node),
        victim,
        in_vain,
        candidates: (0..record.candidates.len()).filter_map(|at| candidate(&record, at)).collect(),
    })
}

/// What happens and is no level, for judging as if it had just happened.
const HAPPENED: Notice = Notice::Event(EventKind::OomKill, 0, 1);

/// A trigger as the notice that it would give now.
fn as_notice(when: &Trigger, node: &NodeFacts) -> Notice {
    match when {
        Trigger::Psi(psi) => Notice::Psi(*psi),
        Trigger::Usage(test, held) => Notice::Usage(*test, *held),
        Trigger::Available(level, held) => Notice::Available(level.bytes(node.total_bytes), *held),
        Trigger::SwapFree(level, held) => Notice::SwapFree(level.bytes(node.swap_total_bytes), *held),
        Trigger::Lms(level) => Notice::Lms(*level),
        Trigger::Event(_) => HAPPENED,
    }
}

/// Judges by `confirmed`, and once more until the processes of everybody who may die have been
/// seen: the daemon
/// looks at those of the first only, because that is enough to act.
fn judge_as_confirmed(
    onlooker: &mut Onlooker,
    policy: &Arc<Policy>,
    confirmed: &Policy,
    rule: usize,
    subject: Slot,
    notice: &Notice,
) -> Option<(Ruling, Box<JudgementRecord>)> {
    let (court, mut sight) = onlooker.in_session();
    loop {
        let ruling = court.decide(confirmed, rule, subject, notice, &[], &mut sight)?;
        let open = court.verdict.candidates.iter().filter(|candidate| !matches!(candidate.standing, Standing::Struck(_)));
        let below = |group: u32| group..court.facts.get(group as usize).map_or(group, |facts| facts.subtree_end);
        let is_unseen =
            |at: &u32| court.facts.get(*at as usize).is_some_and(|facts| facts.populated == Some(true) && facts.processes.is_none());
        let unseen: Vec<u32> = open.flat_map(|candidate| below(candidate.group)).filter(is_unseen).collect();
        if unseen.is_empty() {
            let mut record = Blank::default().slot(court.verdict.candidates.len());
            record.fill(SystemTime::now(), policy, &Arc::from([]), *notice, &court.verdict, &court.facts);
            return Some((ruling, record));
        }
        for group in unseen {
            court.see_processes(confirmed, rule, group, &mut sight)?;
        }
    }
}

fn toll(onlooker: &mut Onlooker, rule: &Rule, victim: Slot) -> Option<Toll> {
    let (court, mut sight) = onlooker.in_session();
    let facts = court.facts_of(victim)?;
    let group = facts.path.to_string();
    let bytes = facts.memory.usage();
    let before = rule.ladder.iter().filter_map(rung_before_the_kill).collect();
    if rule.kills_one(&facts.class) {
        let pid = court.pick_process(victim, &mut sight);
        return Some(Toll { group, kill: "process", groups: 0, processes: pid.map(|_| 1), bytes: None, pid, before });
    }
    let groups = facts.subtree_end.saturating_sub(court.index_of(victim)?) as usize;
    Some(Toll { group, kill: "group", groups, processes: court.processes_below(victim), bytes, pid: None, before })
}

fn candidate(record: &JudgementRecord, at: usize) -> Option<CandidatePlan> {
    let candidate = record.candidates.get(at)?;
    let ranking = match record.rule().map(|rule| &rule.victim) {
        Some(Victim::Among(among)) => &among.rank[..],
        _ => &[],
    };
    let keys = ranking.iter().zip(candidate.keys).filter(|(by, _)| by.key != RankKey::Age);
    let rank = words::rank(&record.candidates, at);
    // When a group was made is not known, only who came first.
    let reason = match (words::deciding_key(record, at), rank) {
        (Some(RankKey::Age), Some(1)) => "ranked 1: younger than the next one".to_owned(),
        (Some(RankKey::Age), Some(rank)) => format!("ranked {rank}: older than the victim"),
        _ => words::reason(record, at),
    };
    Some(CandidatePlan {
        group: candidate.group.to_string(),
        rank,
        reason,
        usage_bytes: candidate.usage_bytes,
        importance: candidate.importance,
        keys: keys.map(|(by, value)| (key_word(by.key), value)).collect(),
    })
}

fn trigger(when: &Trigger, subject: &SubjectFacts, node: &NodeFacts) -> Test {
    let test = TriggerText(when).to_string();
    let level = match when {
        Trigger::Usage(test, _) => Condition::Usage(*test),
        Trigger::Available(level, _) => Condition::Available(*level),
        Trigger::SwapFree(level, _) => {
            let beyond = is_beyond_swap(level.bytes(node.swap_total_bytes), node);
            let asked = condition(&Condition::SwapFree(*level), subject, node);
            return Test {
                test,
                holds: notice_holds(&as_notice(when, node), subject, node),
                level_bytes: asked.level_bytes.filter(|_| !beyond),
                ..asked
            };
        }
        Trigger::Psi(_) | Trigger::Event(_) => {
            return Test { test, implied: false, holds: None, happens: true, now_bytes: None, level_bytes: None, now: None };
        }
        Trigger::Lms(level) => {
            // The module says so when it begins, and tells what is so now when asked.
            let holds = node.lms.map(|lms| lms.level >= Some(*level));
            let now = node.lms.map(|lms| lms_word(lms.level));
            return Test { test, implied: false, holds, happens: true, now_bytes: None, level_bytes: None, now };
        }
    };
    Test { test, ..condition(&level, subject, node) }
}

fn conditions(rule: &Rule, subject: &SubjectFacts, node: &NodeFacts) -> Vec<Test> {
    let mut tests: Vec<Test> = rule.only_if.iter().map(|asked| condition(asked, subject, node)).collect();
    let early = |when: &Trigger| matches!(when, Trigger::Psi(_) | Trigger::Lms(LmsLevel::Warn));
    let names_a_level = rule.only_if.iter().any(|asked| matches!(asked, Condition::Available(_)));
    if subject.root && rule.when.iter().any(early) && !names_a_level {
        // Pressure of the node alone kills nobody, nor does the kernel module's first level.
        let low = Condition::Available(Level { share: Some(NODE_IS_LOW), at_most: None });
        tests.push(Test { implied: true, ..condition(&low, subject, node) });
    }
    tests
}

fn condition(asked: &Condition, subject: &SubjectFacts, node: &NodeFacts) -> Test {
    // A condition is worded as the trigger that asks for the same.
    let (trigger, now_bytes, level_bytes) = match asked {
        Condition::Usage(test) => (Trigger::Usage(*test, Duration::ZERO), usage(subject, node), usage_level(test, subject, node)),
        Condition::Available(level) => {
            (Trigger::Available(*level, Duration::ZERO), node.available_bytes, Some(level.bytes(node.total_bytes)))
        }
        Condition::SwapFree(level) => {
            let free_below = (node.swap_total_bytes > 0).then(|| level.bytes(node.swap_total_bytes));
            (Trigger::SwapFree(*level, Duration::ZERO), node.swap_free_bytes, free_below)
        }
    };
    Test {
        test: TriggerText(&trigger).to_string(),
        implied: false,
        holds: holds(asked, subject, node),
        happens: false,
        now_bytes,
        level_bytes,
        now: None,
    }
}

fn usage(subject: &SubjectFacts, node: &NodeFacts) -> Option<u64> {
    if subject.root { node.total_bytes.checked_sub(node.available_bytes?) } else { subject.charged }
}

fn usage_level(test: &UsageTest, subject: &SubjectFacts, node: &NodeFacts) -> Option<u64> {
    match test {
        UsageTest::Amount(bytes) => Some(bytes.0),
        UsageTest::Share(share, UsageOf::Max) => subject.max.and_then(Limit::bytes).map(|limit| share.of(limit)),
        UsageTest::Share(share, UsageOf::High) => subject.high.and_then(Limit::bytes).map(|limit| share.of(limit)),
        UsageTest::Share(share, UsageOf::Node) => Some(share.of(node.total_bytes)),
    }
}
