//! Step 5: who of those that may die goes first.
//!
//! Importance decides strictly. Inside the same importance who holds a shielded process goes behind
//! all who do not, and among each of these the rule's keys decide one after the other; a key with
//! `within` calls near values equal. Nearness alone is no equivalence (a near b, b near c, a far
//! from c), so it is made one: with the values sorted, the first leads a run, every value near
//! *that leader* belongs to it, the first that isn't leads the next. The following key then orders
//! each run by itself. A value that is not known ranks behind all others of its key; of growth and
//! pressure only behind those above zero, because who is not known need not be calm. In the end the
//! larger usage goes first, then the smaller id, so that the order is always the same.

use std::cmp::{Ordering, Reverse};

use super::facts::{GroupFacts, GroupId};
use super::tree::Tree;
use super::verdict::{Candidate, Standing, Strike};
use crate::policy::model::{RankBy, RankKey, Rule, Victim};
use crate::units::Share;

/// A candidate's place while it is being worked out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Its position in the list of candidates.
    pub(super) at: usize,
    /// Number of the run of equals that it belongs to so far; a lower run dies first.
    run: u32,
    /// Value of the key that is looked at.
    value: Option<i64>,
    importance: i64,
    shielded: bool,
    usage: u64,
    id: GroupId,
}

impl Place {
    fn new(at: usize, candidate: &Candidate) -> Place {
        let Candidate { importance, shielded, id, .. } = *candidate;
        Place { at, run: 0, value: None, importance, shielded, usage: candidate.usage_bytes.unwrap_or(0), id }
    }

    /// What decides before the rule's keys do.
    fn class(&self) -> (i64, bool) {
        (self.importance, self.shielded)
    }

    /// What decides between equals.
    fn tie(&self) -> (Reverse<u64>, GroupId) {
        (Reverse(self.usage), self.id)
    }
}

/// Fills `places` with the candidates that are not struck, the one to die first in front.
pub(super) fn order(tree: Tree<'_>, rule: &Rule, list: &[Candidate], places: &mut Vec<Place>) {
    let eligible = list.iter().enumerate().filter(|(_, candidate)| candidate.standing == Standing::Ranked);
    places.extend(eligible.map(|(at, candidate)| Place::new(at, candidate)));

    places.sort_unstable_by_key(|place| (place.class(), place.tie()));
    number_runs(places, |leader, place| leader.class() == place.class());
    for by in rank_keys(rule) {
        for place in places.iter_mut() {
            place.value = value(tree, by.key, list[place.at].group);
        }
        places.sort_unstable_by(|a, b| {
            a.run.cmp(&b.run).then_with(|| first_to_die(by.key, a.value, b.value)).then_with(|| a.tie().cmp(&b.tie()))
        });
        number_runs(places, |leader, place| leader.run == place.run && near(by, leader.value, place.value));
    }
    places.sort_unstable_by_key(|place| (place.run, place.tie()));
}

/// If the rule says `or_largest`: the largest of the candidates that are struck for their size alone. Importance is strict here too.
pub(super) fn largest_of_small(rule: &Rule, list: &[Candidate]) -> Option<Place> {
    let Victim::Among(among) = &rule.victim else { return None };
    let small = list.iter().enumerate().filter(|(_, candidate)| candidate.standing == Standing::Struck(Strike::TooSmall));
    let places = small.map(|(at, candidate)| Place::new(at, candidate));
    places.min_by_key(|place| (place.class(), place.tie())).filter(|_| among.or_largest)
}

/// The values of the rule's first four keys, for the record.
pub(super) fn keys(tree: Tree<'_>, rule: &Rule, at: u32) -> [Option<i64>; 4] {
    let mut keys = [None; 4];
    for (slot, by) in keys.iter_mut().zip(rank_keys(rule)) {
        *slot = value(tree, by.key, at);
    }
    keys
}

fn rank_keys(rule: &Rule) -> &[RankBy] {
    match &rule.victim {
        Victim::Subject => &[],
        Victim::Among(among) => &among.rank,
    }
}

/// Gives every place the number of its run. `same` is asked about the run's leader and a later place, both with their old numbers.
fn number_runs(places: &mut [Place], same: impl Fn(&Place, &Place) -> bool) {
    let Some(mut leader) = places.first().copied() else { return };
    let mut run = 0;
    for place in places {
        if !same(&leader, place) {
            leader = *place;
            run += 1;
        }
        place.run = run;
    }
}

/// The value by which a key compares: bytes, bytes per second, microseconds for `pressure`, milliseconds for `age`.
fn value(tree: Tree<'_>, key: RankKey, at: u32) -> Option<i64> {
    let group = tree.group(at);
    let memory = &group.memory;
    match key {
        RankKey::Usage => memory.usage().map(clamped),
        RankKey::Swap => memory.swap.map(clamped),
        RankKey::Growth => group.growth,
        RankKey::Pressure => group.pressure.map(|stall| i64::try_from(stall.as_micros()).unwrap_or(i64::MAX)),
        RankKey::Overage => Some(clamped(memory.usage()?.saturating_sub(memory.low?))),
        RankKey::OomScore => tree.subtree(at).iter().filter_map(oom_score).max().map(i64::from),
        RankKey::Age => group.age.map(|age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)),
    }
}

fn oom_score(group: &GroupFacts) -> Option<u32> {
    group.processes.as_ref()?.oom_score
}

fn clamped(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// `Less` if a group with the value `a` dies before one with `b`.
fn first_to_die(key: RankKey, a: Option<i64>, b: Option<i64>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if key == RankKey::Age => a.cmp(&b),
        (Some(a), Some(b)) => b.cmp(&a),
        (a, b) if is_movement(key) => movement(b).cmp(&movement(a)),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// Whether a key is about what happened lately.
fn is_movement(key: RankKey) -> bool {
    matches!(key, RankKey::Growth | RankKey::Pressure)
}

/// Who is known to grow or stall, who is not known to, and who is known not to.
fn movement(value: Option<i64>) -> u8 {
    match value {
        Some(1..) => 2,
        None => 1,
        Some(_) => 0,
    }
}

/// Whether a value counts as equal to that of its run's leader: they differ by at most the share of the larger one.
fn near(by: &RankBy, leader: Option<i64>, value: Option<i64>) -> bool {
    match (leader, value) {
        (Some(a), Some(b)) => a.abs_diff(b) <= by.within.map_or(0, |share: Share| share.of(a.unsigned_abs().max(b.unsigned_abs()))),
        (a, b) => a.is_none() && b.is_none(),
    }
}
