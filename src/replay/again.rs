//! A judgement of the journal, judged again by the policy that is asked, and what differs.
//!
//! Which rule would have judged: the one of the same name, else the first that watches the subject, if one of its triggers is
//! known to have fired then. Levels can be looked at in the facts; stall fires what asks for no more of it than the trigger that
//! did fire; a counter that rose fires those who wait for it.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::lines::{EvidenceLine, JudgementLine, Problem};
use super::moment::{Judged, Moment, Would};
use crate::decide::facts::GroupId;
use crate::decide::verdict::Notice;
use crate::policy::model::{EventKind, LmsLevel, Policy, Psi, PsiKind, Trigger};
use crate::policy::words::{event_named, lms_level_named, psi_kind_named};
use crate::record::words;

/// What the journal says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// The policy that it was by.
    pub policy_hash: String,
    /// Its rule.
    pub rule: String,
    /// What started it.
    pub trigger: String,
    /// How it ended.
    pub outcome: String,
    /// Who was killed, or would have been.
    pub victim: Option<String>,
    /// Why that one.
    pub reason: Option<String>,
}

/// What is not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Whether somebody dies.
    Outcome,
    /// Who.
    Victim,
    /// Who would be next.
    Order,
}

impl Difference {
    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Difference::Outcome => "outcome",
            Difference::Victim => "victim",
            Difference::Order => "order",
        }
    }
}

/// Judges a line again.
///
/// # Errors
/// The line lacks what that takes.
pub fn again(policy: &Arc<Policy>, line: &JudgementLine) -> Result<(Recorded, Judged, Vec<Difference>), Problem> {
    let Some(facts) = &line.facts else {
        return Err(Problem::Lacking(
            "a judgement without `facts`: it was recorded by an oomwarden that did not write them yet".to_owned(),
        ));
    };
    let happened = Happened::of(&line.evidence)?;
    let mut moment = Moment::rebuild(policy, &facts.groups, line.evidence.node());
    let was_in_vain = line.candidates.iter().any(|one| one.strike.as_deref() == Some(words::IN_VAIN));
    if facts.left_out > 0 && !was_in_vain {
        // They were enough to lift the level, all together.
        moment.assume_enough();
    }
    let Some(subject) = moment.find(&line.subject) else {
        return Err(Problem::Lacking("the subject is not among the `facts`".to_owned()));
    };
    let is_failed = |strike: &Option<String>| strike.as_deref() == Some(words::FAILED);
    let failed: Vec<GroupId> =
        line.candidates.iter().filter(|one| is_failed(&one.strike)).filter_map(|one| moment.id_of(&one.group)).collect();
    let mut judged = judge(policy, &moment, line, subject, &happened, &failed);
    // The same policy looked at the same groups; another might have looked at more.
    let is_same = *line.policy_hash == *policy.hash;
    if facts.left_out > 0 {
        judged.assumed.push(format!("that {} more, which the line had no room for, change nothing", many(facts.left_out)));
    }
    let victim = line.candidates.iter().find(|candidate| candidate.rank == Some(1));
    let recorded = Recorded {
        policy_hash: line.policy_hash.clone(),
        rule: line.rule.clone(),
        trigger: line.trigger.clone(),
        outcome: line.outcome.clone(),
        victim: line.victim.clone(),
        reason: victim.map(|victim| victim.reason.clone()),
    };
    let differences = differences(line, &judged, &moment, is_same);
    Ok((recorded, judged, differences))
}

fn many(groups: u32) -> String {
    if groups == 1 { "1 group".to_owned() } else { format!("{groups} groups") }
}

fn judge(policy: &Policy, moment: &Moment<'_>, line: &JudgementLine, subject: u32, happened: &Happened, failed: &[GroupId]) -> Judged {
    let watches = |rule: &usize| moment.subjects(*rule).any(|at| at == subject);
    let same = policy.rules.iter().position(|rule| *rule.name == *line.rule);
    let others = (0..policy.rules.len()).filter(|rule| Some(*rule) != same);
    let rules: Vec<usize> = same.into_iter().chain(others).filter(watches).collect();
    if rules.is_empty() {
        return Judged::not(format!("no rule watches {}", line.subject));
    }
    for rule in rules {
        let when = policy.rules.get(rule).map(|rule| &rule.when[..]).unwrap_or_default();
        if let Some(notice) = when.iter().find_map(|trigger| happened.fires(trigger, moment, subject)) {
            return moment.judge(rule, subject, &notice, failed);
        }
    }
    Judged::not(format!("no rule that watches {} is known to have been started by `{}`", line.subject, line.trigger))
}

fn differences(line: &JudgementLine, judged: &Judged, moment: &Moment<'_>, is_same: bool) -> Vec<Difference> {
    let mut differences = Vec::new();
    // The last victim of a ladder that ran out of victims is in the line, too, and has no rank any more.
    let victim = line.candidates.iter().find(|candidate| candidate.rank == Some(1)).map(|candidate| &*candidate.group);
    let recorded = match (&*line.outcome, victim) {
        (_, None) => Would::NoVictim,
        // A run that only observes, by the same policy, is no difference of policies.
        ("observed", _) if !(is_same && judged.would == Would::Kill) => Would::Observe,
        _ => Would::Kill,
    };
    if recorded != judged.would {
        differences.push(Difference::Outcome);
    }
    if victim.is_some() && judged.victim.is_some() && victim != judged.victim.as_deref() {
        differences.push(Difference::Victim);
    }
    if recorded != Would::NoVictim && judged.victim.is_some() {
        let mut ranked: Vec<(u64, &str)> = line.candidates.iter().filter_map(|one| Some((one.rank?, &*one.group))).collect();
        ranked.sort_unstable();
        // Those of which the line had no room for the facts can't be ranked again.
        let order: Vec<&str> = ranked.into_iter().map(|(_, group)| group).filter(|group| moment.find(group).is_some()).collect();
        if order != judged.order() && line.candidates_left_out == 0 {
            differences.push(Difference::Order);
        }
    }
    differences
}

/// What started the recorded judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happened {
    Psi(Psi),
    Event(EventKind, u64, u64),
    Usage(Duration),
    Available(u64, Duration),
    SwapFree(u64, Duration),
    Lms(LmsLevel),
}

impl Happened {
    fn of(seen: &EvidenceLine) -> Result<Happened, Problem> {
        let held = Duration::from_micros(seen.held_us.unwrap_or(0));
        let happened = match &*seen.notice {
            "psi" => {
                let kind = seen.psi_kind.as_deref().and_then(psi_kind_named);
                kind.zip(seen.psi_stall_us).zip(seen.psi_window_us).map(|((kind, stall), window)| {
                    Happened::Psi(Psi { kind, stall: Duration::from_micros(stall), window: Duration::from_micros(window) })
                })
            }
            "event" => event_named(seen.event.as_deref().unwrap_or_default())
                .zip(seen.count_before)
                .zip(seen.count_after)
                .map(|((kind, before), after)| Happened::Event(kind, before, after)),
            "usage" => Some(Happened::Usage(held)),
            "available" => seen.level_bytes.map(|level| Happened::Available(level, held)),
            "swap_free" => seen.level_bytes.map(|level| Happened::SwapFree(level, held)),
            "lms" => seen.notice_level.as_deref().and_then(lms_level_named).map(Happened::Lms),
            _ => None,
        };
        happened.ok_or_else(|| Problem::Lacking("its `evidence` does not say what started it".to_owned()))
    }

    /// The notice that this trigger gave then, if it is known to have given one.
    fn fires(&self, trigger: &Trigger, moment: &Moment<'_>, subject: u32) -> Option<Notice> {
        let reached = moment.is_reached(trigger, subject) == Some(true);
        match (*trigger, *self) {
            (Trigger::Psi(want), Happened::Psi(was)) => is_implied(want, was).then_some(Notice::Psi(want)),
            (Trigger::Event(want), Happened::Event(kind, before, after)) => (want == kind).then_some(Notice::Event(kind, before, after)),
            (Trigger::Usage(test, wait), was) => {
                let held = if let Happened::Usage(held) = was { held } else { Duration::ZERO };
                (reached && wait <= held).then_some(Notice::Usage(test, held))
            }
            (Trigger::Available(level, wait), was) => {
                let bytes = level.bytes(moment.node.total_bytes);
                let held = match was {
                    // Below a level that is lower, it was below this one as long.
                    Happened::Available(was, held) if was <= bytes => held,
                    _ => Duration::ZERO,
                };
                (reached && wait <= held).then_some(Notice::Available(bytes, held))
            }
            (Trigger::SwapFree(level, wait), was) => {
                let bytes = level.bytes(moment.node.swap_total_bytes);
                let held = match was {
                    Happened::SwapFree(was, held) if was <= bytes => held,
                    _ => Duration::ZERO,
                };
                (reached && wait <= held).then_some(Notice::SwapFree(bytes, held))
            }
            (Trigger::Lms(want), was) => {
                let told = matches!(was, Happened::Lms(level) if level >= want);
                (told || reached).then_some(Notice::Lms(want))
            }
            (Trigger::Psi(_) | Trigger::Event(_), _) => None,
        }
    }
}

/// Whether so much stall means that there was as much as another trigger asks for: as much in a longer window, or, since some part
/// of a window has as much as the whole in proportion, as great a share in a shorter one. Where all stall, some do.
fn is_implied(want: Psi, was: Psi) -> bool {
    let kind = want.kind == was.kind || want.kind == PsiKind::Some;
    let (stall, window) = (want.stall.as_micros(), want.window.as_micros());
    let (had, within) = (was.stall.as_micros(), was.window.as_micros());
    kind && if window >= within { stall <= had } else { stall.saturating_mul(within) <= had.saturating_mul(window) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn psi(kind: PsiKind, stall: u64, window: u64) -> Psi {
        Psi { kind, stall: Duration::from_millis(stall), window: Duration::from_millis(window) }
    }

    #[test]
    fn stall_implies_less_of_it() {
        let was = psi(PsiKind::Full, 100, 500);
        for (want, expected) in [
            (was, true),
            (psi(PsiKind::Some, 100, 500), true),
            (psi(PsiKind::Full, 50, 500), true),
            (psi(PsiKind::Full, 101, 500), false),
            (psi(PsiKind::Full, 100, 1000), true),
            (psi(PsiKind::Full, 101, 1000), false),
            (psi(PsiKind::Full, 20, 100), true),
            (psi(PsiKind::Full, 21, 100), false),
        ] {
            assert_eq!(is_implied(want, was), expected, "{want:?}");
        }
        assert!(!is_implied(was, psi(PsiKind::Some, 100, 500)), "some does not mean all");
        // A window that the kernel asked for wider, its ratio kept.
        assert!(is_implied(psi(PsiKind::Full, 100, 500), psi(PsiKind::Full, 400, 2000)));
    }
}
