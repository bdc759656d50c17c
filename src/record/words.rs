//! Triggers, reasons and judgements in words, for the journal, the log and the labels of metrics.

use std::fmt::{self, Write as _};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::model::{JudgementRecord, Outcome, RecordedCandidate, RungName, RungOutcome};
use crate::decide::facts::UNSEEN_BIRTH;
use crate::decide::process::SHIELDED;
use crate::decide::verdict::{Notice, Relief, Standing, Strike};
use crate::policy::model::{self, LmsLevel, RankBy, RankKey, Rule, Victim};
use crate::policy::words::{Held, Trigger, event_word, key_word, lms_word, write_psi, write_usage};
use crate::units::Bytes;

/// How many candidates a log line names; the journal has them all.
const NAMED_CANDIDATES: usize = 3;

/// What started a judgement, in words: the trigger's if the rule has one like that, else the notice's own.
#[must_use]
pub fn trigger_text(record: &JudgementRecord) -> String {
    let found = record.rule().and_then(|rule| trigger_index(rule, record.notice, record).and_then(|index| rule.when.get(index)));
    found.map_or_else(|| NoticeText(record.notice).to_string(), |trigger| Trigger(trigger).to_string())
}

/// Which of the rule's triggers gave this notice: of those that ask for the same, the one that waited longest.
fn trigger_index(rule: &Rule, notice: Notice, record: &JudgementRecord) -> Option<usize> {
    let node = record.evidence.node;
    let fits = |trigger: &model::Trigger| match (*trigger, notice) {
        (model::Trigger::Psi(want), Notice::Psi(psi)) => (want == psi).then_some(Duration::ZERO),
        (model::Trigger::Event(want), Notice::Event(kind, ..)) => (want == kind).then_some(Duration::ZERO),
        (model::Trigger::Usage(want, wait), Notice::Usage(test, held)) => (want == test && wait <= held).then_some(wait),
        (model::Trigger::Available(level, wait), Notice::Available(bytes, held)) => {
            (level.bytes(node.total_bytes) == bytes && wait <= held).then_some(wait)
        }
        (model::Trigger::SwapFree(level, wait), Notice::SwapFree(bytes, held)) => {
            (level.bytes(node.swap_total_bytes) == bytes && wait <= held).then_some(wait)
        }
        (model::Trigger::Lms(want), Notice::Lms(level)) => (want == level).then_some(Duration::ZERO),
        _ => None,
    };
    rule.when.iter().enumerate().filter_map(|(index, trigger)| Some((fits(trigger)?, index))).max().map(|(_, index)| index)
}

/// A notice without its policy: what the kernel was really asked for, when a window had to be widened.
struct NoticeText(Notice);

impl fmt::Display for NoticeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Notice::Psi(psi) => write_psi(f, psi),
            Notice::Event(kind, ..) => write!(f, "event: {}", event_word(kind)),
            Notice::Usage(test, held) => write_usage(f, test, held),
            Notice::Available(bytes, held) => write!(f, "available: below {}{}", Bytes(bytes), Held(held)),
            Notice::SwapFree(bytes, held) => write!(f, "swap_free: below {}{}", Bytes(bytes), Held(held)),
            Notice::Lms(level) => write!(f, "lms: {}", lms_word(Some(level))),
        }
    }
}

/// The kind of a notice, as a policy names it in `when`.
#[must_use]
pub const fn notice_word(notice: Notice) -> &'static str {
    match notice {
        Notice::Psi(_) => "psi",
        Notice::Event(..) => "event",
        Notice::Usage(..) => "usage",
        Notice::Available(..) => "available",
        Notice::SwapFree(..) => "swap_free",
        Notice::Lms(_) => "lms",
    }
}

/// Why a candidate can't be the victim, in a word for programs; `None` for who can.
#[must_use]
pub const fn strike_word(standing: Standing) -> Option<&'static str> {
    let Standing::Struck(strike) = standing else { return None };
    Some(match strike {
        Strike::Excluded(_) => "excluded",
        Strike::ExcludedByComm(_) => "excluded_by_comm",
        Strike::ContainsSpared(_) => "contains_spared",
        Strike::Own => "own",
        Strike::Root => "root",
        Strike::Init => "init",
        Strike::Unkillable => "unkillable",
        Strike::Unknown => "unknown",
        Strike::NotMemcg => "not_memcg",
        Strike::Empty => "empty",
        Strike::Dying => "dying",
        Strike::TooSmall => "too_small",
        Strike::Failed => FAILED,
        Strike::InVain => IN_VAIN,
    })
}

/// The word for a candidate that could die, but not help.
pub const IN_VAIN: &str = "in_vain";

/// The word for a candidate that was tried without success.
pub const FAILED: &str = "failed";

/// The rung's name in the journal.
#[must_use]
pub const fn rung_word(name: RungName) -> &'static str {
    match name {
        RungName::Warn => "warn",
        RungName::Hook => "hook",
        RungName::Term => "term",
        RungName::Kill => "kill",
        RungName::Verify => "verify",
    }
}

/// The rung's end in the journal: a word, the errno's name, or how a hook failed.
#[must_use]
pub fn rung_outcome(outcome: RungOutcome) -> String {
    match outcome {
        RungOutcome::Done => "done".into(),
        RungOutcome::Empty => "empty".into(),
        RungOutcome::Recovered => "recovered".into(),
        RungOutcome::Deadline => "deadline".into(),
        RungOutcome::Interrupted => "interrupted".into(),
        RungOutcome::Overtaken => "overtaken".into(),
        RungOutcome::Spared => "spared".into(),
        RungOutcome::Paused => "paused".into(),
        RungOutcome::Nobody => "nobody".into(),
        RungOutcome::Exit(code) => format!("failed: exit {code}"),
        RungOutcome::Signal(number) => match Signal::try_from(number) {
            Ok(signal) => format!("failed: {signal}"),
            Err(_) => format!("failed: signal {number}"),
        },
        RungOutcome::NoHelper => "failed: no helper".into(),
        RungOutcome::Errno(errno) => match Errno::from_raw(errno) {
            Errno::UnknownErrno => format!("errno {errno}"),
            known => format!("{known:?}"),
        },
    }
}

/// A measured time, for people: three digits will do.
struct Measured(Duration);

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_micros() {
            micros @ 0..1000 => write!(f, "{micros}us"),
            micros @ 1000..1_000_000 => write!(f, "{}.{}ms", micros / 1000, micros % 1000 / 100),
            micros => write!(f, "{}.{}s", micros / 1_000_000, micros % 1_000_000 / 100_000),
        }
    }
}

/// A candidate's place: 1 for the victim, counting on for those behind it, none for who was struck out.
#[must_use]
pub fn rank(candidates: &[RecordedCandidate], index: usize) -> Option<usize> {
    let stands = |candidate: &&RecordedCandidate| !matches!(candidate.standing, Standing::Struck(_));
    let this = candidates.get(index).filter(stands)?;
    // The chosen comes first wherever it stands in the list.
    if this.standing == Standing::Chosen {
        return Some(1);
    }
    Some(candidates.iter().take(index).filter(stands).count() + 1)
}

/// Why a candidate has its place.
#[must_use]
pub fn reason(record: &JudgementRecord, index: usize) -> String {
    let Some(candidate) = record.candidates.get(index) else { return String::new() };
    let strike = match candidate.standing {
        Standing::Struck(strike) => strike,
        Standing::Chosen | Standing::Ranked => return place(record, candidate, index),
    };
    let policy = &record.policy;
    let exclusion = |entry: u16| policy.exclude.get(usize::from(entry)).map_or("a former exclusion", |entry| &*entry.text);
    match strike {
        Strike::Excluded(entry) | Strike::ExcludedByComm(entry) => format!("excluded by {}", exclusion(entry)),
        Strike::ContainsSpared(_) => match &candidate.spared {
            Some(spared) => format!("contains {spared}, which must live"),
            None => "contains a group which must live".into(),
        },
        Strike::TooSmall => {
            let usage = candidate.usage_bytes.map_or_else(|| "unknown usage".into(), |bytes| format!("{} would be freed", Bytes(bytes)));
            match record.rule().map(|rule| &rule.victim) {
                Some(Victim::Among(among)) => format!("too small: {usage}, the rule asks for at least {}", among.at_least),
                _ => format!("too small: {usage}"),
            }
        }
        Strike::Own => "holds oomwarden itself".into(),
        Strike::Root => "is the root".into(),
        Strike::Init => "holds process 1".into(),
        Strike::Unkillable => "holds a process with oom_score_adj -1000".into(),
        Strike::Unknown => "could not be looked at, and what is not known is spared".into(),
        Strike::NotMemcg => "is threaded, or has no memory controller".into(),
        Strike::Empty => "holds no process".into(),
        Strike::Dying => "is dying already".into(),
        Strike::Failed => "was tried and could not be killed".into(),
        Strike::InVain => "killing would be in vain: not even all that may be killed could free what is missing".into(),
    }
}

/// The reason of one that was not struck out: what tells it from its neighbour in the ranking.
fn place(record: &JudgementRecord, candidate: &RecordedCandidate, index: usize) -> String {
    let rank = rank(&record.candidates, index).unwrap_or(1);
    let (ranking, is_subject): (&[RankBy], bool) = match record.rule().map(|rule| &rule.victim) {
        Some(Victim::Among(among)) => (&among.rank, false),
        Some(Victim::Subject) => (&[], true),
        None => (&[], false),
    };
    if is_subject {
        return format!("ranked {rank}: the subject itself");
    }
    let Some(other) = neighbour(record, candidate) else {
        return format!("ranked {rank}: the only one that may be killed");
    };
    let whose = if candidate.standing == Standing::Chosen { "the next one's" } else { "the victim's" };
    if candidate.importance != other.importance {
        return format!("ranked {rank}: importance {}, {whose} {}", candidate.importance, other.importance);
    }
    match (candidate.shielded, other.shielded) {
        (false, true) => return format!("ranked {rank}: the next one holds a process with oom_score_adj {SHIELDED} or below"),
        (true, false) => return format!("ranked {rank}: holds a process with oom_score_adj {SHIELDED} or below, the victim does not"),
        _ => {}
    }
    // Every value that was compared, up to the one that decided.
    let mut text = format!("ranked {rank}: ");
    let mut values = ranking.iter().zip(candidate.keys).zip(other.keys);
    let decided = values.any(|((by, mine), its)| {
        let _ = write!(text, "{} {}, {whose} {}; ", key_word(by.key), KeyText(by.key, mine), KeyText(by.key, its));
        !is_near(*by, mine, its)
    });
    if decided {
        text.truncate(text.trim_end_matches("; ").len());
        return text;
    }
    let by_usage = ranking.last().is_none_or(|by| by.key != RankKey::Usage || by.within.is_some());
    match (candidate.usage_bytes, other.usage_bytes) {
        (Some(mine), Some(its)) if mine != its && by_usage => {
            let _ = write!(text, "equal by that; usage {}, {whose} {}", Bytes(mine), Bytes(its));
        }
        _ => text.push_str("equal by that; the lower id dies first"),
    }
    text
}

/// Whom a candidate's place is told by: for the victim the next one, for all others the victim.
fn neighbour<'a>(record: &'a JudgementRecord, candidate: &RecordedCandidate) -> Option<&'a RecordedCandidate> {
    let wanted = if candidate.standing == Standing::Chosen { Standing::Ranked } else { Standing::Chosen };
    record.candidates.iter().find(|other| other.standing == wanted)
}

/// The first rank key in which two of the same importance are not as good as equal.
fn difference(ranking: &[RankBy], one: &RecordedCandidate, other: &RecordedCandidate) -> Option<(RankKey, Option<i64>, Option<i64>)> {
    let mut values = ranking.iter().zip(one.keys).zip(other.keys);
    values.find(|((by, mine), its)| !is_near(**by, *mine, *its)).map(|((by, mine), its)| (by.key, mine, its))
}

/// The rank key that a candidate has its place by, if it is one.
#[must_use]
pub fn deciding_key(record: &JudgementRecord, index: usize) -> Option<RankKey> {
    let candidate = record.candidates.get(index).filter(|candidate| !matches!(candidate.standing, Standing::Struck(_)))?;
    let other =
        neighbour(record, candidate).filter(|other| (other.importance, other.shielded) == (candidate.importance, candidate.shielded))?;
    let Some(Victim::Among(among)) = record.rule().map(|rule| &rule.victim) else { return None };
    difference(&among.rank, candidate, other).map(|(key, ..)| key)
}

fn is_near(by: RankBy, one: Option<i64>, other: Option<i64>) -> bool {
    match (one, other, by.within) {
        (Some(one), Some(other), Some(within)) => one.abs_diff(other) <= within.of(one.unsigned_abs().max(other.unsigned_abs())),
        (one, other, _) => one == other,
    }
}

struct KeyText(RankKey, Option<i64>);

impl fmt::Display for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = self.1 else { return f.write_str("unknown") };
        match self.0 {
            RankKey::Usage | RankKey::Swap | RankKey::Overage | RankKey::Growth => {
                write!(f, "{}{}", if value < 0 { "-" } else { "" }, Bytes(value.unsigned_abs()))?;
                if self.0 == RankKey::Growth { f.write_str("/s") } else { Ok(()) }
            }
            RankKey::Pressure => write!(f, "{:?}", Duration::from_micros(value.unsigned_abs())),
            RankKey::Age if Duration::from_millis(value.unsigned_abs()) >= UNSEEN_BIRTH => f.write_str("from before oomwarden's start"),
            RankKey::Age => write!(f, "{:?}", Duration::from_millis(value.unsigned_abs())),
            RankKey::OomScore => write!(f, "{value}"),
        }
    }
}

/// A kill in a few words.
#[must_use]
pub fn deed(record: &JudgementRecord) -> String {
    let victim = record.victim.as_ref().map_or_else(|| "an unknown group".to_owned(), |victim| victim.to_string());
    let rule = record.rule().map_or("?", |rule| &*rule.name);
    format!("killed {victim} by rule {rule} at {}", crate::state::time_text(record.time))
}

/// A judgement as one line for people.
#[must_use]
pub fn log_line(record: &JudgementRecord) -> String {
    let rule = record.rule().map_or("?", |rule| &*rule.name);
    let victim = record.victim.as_ref().map_or_else(|| "an unknown group".to_owned(), |victim| victim.to_string());
    let subject = &record.subject;
    let trigger = format!("{}{}", trigger_text(record), Shortage(record));
    match record.outcome {
        Outcome::Killed => format!(
            "killed {victim} by rule {rule}: {}{} after {trigger} at {subject} ({})",
            Toll(record),
            Since(record),
            chosen_reason(record)
        ),
        Outcome::Ended => format!(
            "{victim} left by itself before rule {rule} killed it: {}{} after {trigger} at {subject}: {}",
            Toll(record),
            Since(record),
            Rungs(record)
        ),
        Outcome::Paused if !record.rungs.is_empty() => {
            format!("deeds are paused: rule {rule} goes no further against {victim} after {trigger} at {subject}: {}", Rungs(record))
        }
        Outcome::Observed | Outcome::Paused | Outcome::Breaker => {
            let why = match record.outcome {
                Outcome::Paused => "deeds are paused: ",
                Outcome::Breaker => "the breaker is open: ",
                _ => "",
            };
            let usage = chosen(record).and_then(|candidate| candidate.usage_bytes);
            let usage = usage.map_or_else(String::new, |bytes| format!(" and its {}", Bytes(bytes)));
            format!("{why}rule {rule} would have killed {victim}{usage} after {trigger} at {subject} ({})", chosen_reason(record))
        }
        Outcome::Recovered => {
            format!("rule {rule} spared {victim}: the trouble after {trigger} at {subject} was over before the kill; {}", Rungs(record))
        }
        Outcome::Hurried => format!(
            "rule {rule} names {victim} too, which another rule is asking to go: the kill is brought forward, after {trigger} at {subject}"
        ),
        Outcome::PutOff => format!(
            "rule {rule} waits with killing {victim} after {trigger} at {subject}: what a kill on its line frees comes first, or all ladders are in use"
        ),
        Outcome::Failed => format!("rule {rule} could not kill {victim} after {trigger} at {subject}: {}", Rungs(record)),
        Outcome::NoVictim => match in_vain(record) {
            Some(relief) => format!("rule {rule} kills nobody after {trigger} at {subject}: {}", InVain(record, relief)),
            None => format!("rule {rule} found no victim after {trigger} at {subject}: {}", Struck(record)),
        },
        Outcome::NotConfirmed => format!("rule {rule} at {subject}: {trigger} not confirmed by fresh facts"),
    }
}

fn chosen(record: &JudgementRecord) -> Option<&RecordedCandidate> {
    record.candidates.iter().find(|candidate| candidate.standing == Standing::Chosen)
}

fn chosen_reason(record: &JudgementRecord) -> String {
    let index = record.candidates.iter().position(|candidate| candidate.standing == Standing::Chosen);
    index.map_or_else(|| "no candidate was recorded".to_owned(), |index| reason(record, index))
}

/// The numbers behind a level of the kernel module, whose thresholds do not stand in the policy.
struct Shortage<'a>(&'a JudgementRecord);

impl fmt::Display for Shortage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.0.evidence.node;
        let (Notice::Lms(level), Some(available), Some(lms)) = (self.0.notice, node.available_bytes, node.lms) else { return Ok(()) };
        let (line, below) = match level {
            LmsLevel::Warn => (LmsLevel::Warn, lms.warn_bytes),
            LmsLevel::Kill | LmsLevel::Oom => (LmsLevel::Kill, lms.kill_bytes),
        };
        write!(f, " ({} available, {} is below {})", Bytes(available), lms_word(Some(line)), Bytes(below))
    }
}

/// The numbers of a judgement that kills nobody because that would not help.
#[must_use]
pub fn in_vain(record: &JudgementRecord) -> Option<Relief> {
    let is_in_vain = |candidate: &RecordedCandidate| candidate.standing == Standing::Struck(Strike::InVain);
    record.evidence.relief.filter(|_| record.candidates.iter().any(is_in_vain))
}

/// Why a kill would not help, and what holds the memory instead.
pub struct InVain<'a>(pub &'a JudgementRecord, pub Relief);

impl fmt::Display for InVain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InVain(record, relief) = self;
        let could_free = relief.could_free.unwrap_or(0);
        let evidence = &record.evidence;
        write!(
            f,
            "that would be in vain: {} missing, and all who may die could free at most {}",
            Bytes(relief.missing),
            Bytes(could_free)
        )?;
        let (whose, shmem, slab) = match record.notice {
            Notice::Usage(..) if !record.subject.is_root() => ("there", evidence.subject_shmem, evidence.subject_slab),
            _ => ("on the node", evidence.node.shmem_bytes, evidence.node.slab_unreclaimable_bytes),
        };
        let mut held = [(shmem, "tmpfs and shared memory"), (slab, "unreclaimable slab")]
            .into_iter()
            .filter_map(|(bytes, what)| Some((bytes.filter(|bytes| *bytes > 0)?, what)))
            .peekable();
        if held.peek().is_some() {
            write!(f, "; {whose}")?;
        }
        for (at, (bytes, what)) in held.enumerate() {
            write!(f, "{} {} are {what}", if at == 0 { "" } else { "," }, Bytes(bytes))?;
        }
        for (group, bytes) in record.emptied.iter().flatten() {
            write!(f, "; {group} holds {} without a process", Bytes(*bytes))?;
        }
        Ok(())
    }
}

struct Toll<'a>(&'a JudgementRecord);

impl fmt::Display for Toll<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |count: u32| if count == 1 { "" } else { "es" };
        let ended = self.0.processes_ended.filter(|ended| *ended > 0);
        match (self.0.outcome, self.0.processes_killed, ended) {
            (Outcome::Ended, _, Some(ended)) => write!(f, "{ended} process{}, ", many(ended))?,
            (Outcome::Ended, ..) | (_, None, _) => {}
            (_, Some(killed), None) => write!(f, "{killed} process{}, ", many(killed))?,
            (_, Some(killed), Some(ended)) => write!(f, "{killed} process{} killed, {ended} left before, ", many(killed))?,
        }
        if let Some(freed) = self.0.freed_bytes {
            write!(f, "{} freed, ", Bytes(freed))?;
        }
        Ok(())
    }
}

struct Since<'a>(&'a JudgementRecord);

impl fmt::Display for Since<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.latency.empty {
            Some(empty) => write!(f, "empty {}", Measured(empty)),
            None => f.write_str("empty"),
        }
    }
}

struct Rungs<'a>(&'a JudgementRecord);

impl fmt::Display for Rungs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.rungs.is_empty() {
            return f.write_str("no rung was climbed");
        }
        for (index, rung) in self.0.rungs.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{} {} in {}", rung_word(rung.name), rung_outcome(rung.outcome), Measured(rung.took))?;
        }
        Ok(())
    }
}

struct Struck<'a>(&'a JudgementRecord);

impl fmt::Display for Struck<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let candidates = &self.0.candidates;
        if candidates.is_empty() {
            return f.write_str("there was no candidate");
        }
        for (index, candidate) in candidates.iter().take(NAMED_CANDIDATES).enumerate() {
            write!(f, "{}{} {}", if index == 0 { "" } else { "; " }, candidate.group, reason(self.0, index))?;
        }
        match (candidates.len() + self.0.left_out as usize).saturating_sub(NAMED_CANDIDATES) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests;
