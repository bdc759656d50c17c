//! How the daemon stands, as `GET /api/v1/status` tells it and `oomwarden status` shows it.
//!
//! Made from what the warden left on the board, from the counters, and, for the watched groups, from their own files. Reading it back leaves
//! out what it does not know and fills in what it misses, so that one version's command understands another's daemon.

mod text;

pub use text::time;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::Desk;
use crate::control::board::{Module, Standing};
use crate::control::by::By;
use crate::decide::breaker::EVERY_RULE;
use crate::degraded::Reason;
use crate::metrics::counters::Counters;
use crate::policy::model::{KillLimit, Policy};
use crate::policy::words::{self, mode_word};
use crate::state::time_text;

/// Watched groups that are named; beyond that they are only counted.
const MOST_SUBJECTS: usize = 1000;
/// The last deeds that are named.
const MOST_DEEDS: usize = 10;

/// How the daemon stands.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// 1.
    pub v: u32,
    /// Of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since its start.
    pub uptime_seconds: u64,
    /// The groups are armed.
    pub ready: bool,
    /// What keeps it from doing all that it was set up for.
    pub degraded: Vec<DegradedStatus>,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// The pause, if deeds are paused.
    pub paused: Option<Paused>,
    /// How many groups there are.
    pub groups: Groups,
    /// How many PSI triggers there are.
    pub psi_triggers: Triggers,
    /// The limit over all rules but those about the node, if the policy has one.
    pub node_limit: Option<Limit>,
    /// The circuit breaker's limit, if the policy has one.
    pub limit: Option<Limit>,
    /// Open breakers.
    pub breakers: Vec<BreakerStatus>,
    /// Open breakers that are not named above.
    pub breakers_left_out: usize,
    /// The kernel module; `None` where it isn't loaded, or not understood.
    pub module: Option<ModuleStatus>,
    /// The rules, in the policy's order.
    pub rules: Vec<RuleStatus>,
    /// Watched groups but for the root.
    pub subjects: Vec<SubjectStatus>,
    /// Watched groups that are not named above.
    pub subjects_left_out: usize,
    /// The last lines of the journal, the newest first.
    pub last: Vec<Deed>,
}

/// Something that keeps the daemon from doing all that it was set up for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DegradedStatus {
    /// The label of `oomwarden_degraded`.
    pub reason: String,
    /// What is wrong, and what to do.
    pub text: String,
}

/// The policy in force.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyStatus {
    /// Its fingerprint.
    pub hash: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// Whether it is the one that was offered last; if not, that one was refused.
    pub is_last: bool,
    /// What it was made of: `files`, `built-in`, or `last-good`; empty from a version that does not
    /// tell.
    pub source: String,
    /// The files and directories that the daemon was started with, whether the policy in force is
    /// theirs or not; none: the built-in one.
    pub files: Vec<String>,
    /// Where the daemon keeps the texts of the policy that it took over last.
    pub kept: String,
    /// The daemon only observes, whatever the policy says.
    pub observe: bool,
}

/// A pause.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Paused {
    /// RFC 3339.
    pub until: String,
    /// From now.
    pub remaining_seconds: u64,
    /// Who asked for it, as it was at the control socket.
    pub by: Option<By>,
}

/// Numbers of groups.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Groups {
    /// All in the tree.
    pub total: usize,
    /// Those that are read every 250 ms, because there was no watch or no descriptor left for them.
    pub by_timer: usize,
}

/// Numbers of PSI triggers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Triggers {
    /// In the kernel.
    pub armed: usize,
    /// Refused by the kernel, and read every 250 ms instead.
    pub by_timer: usize,
}

/// In the place of a rule's name, for the breaker over all rules about groups.
const EVERY_RULE_WORDS: &str = "(all rules about groups)";

/// The circuit breaker's limit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Limit {
    /// So many kills...
    pub kills: u32,
    /// ...in such a time.
    pub per_seconds: u64,
}

/// An open breaker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BreakerStatus {
    /// The rule that only observes...
    pub rule: String,
    /// ...for this group.
    pub subject: String,
    /// When it closes, from now.
    pub closes_in_seconds: u64,
}

/// The kernel module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ModuleStatus {
    /// `ok`, `warn`, `kill`, `oom`.
    pub level: String,
    /// The daemon answers its holds and has left a table with it.
    pub handler: bool,
    /// Rules of the table.
    pub table: u64,
    /// OOMs that were held back.
    pub holds: u64,
    /// Of these: memory came back in time.
    pub resolved: u64,
    /// No answer, or no effect, in time.
    pub expired: u64,
    /// The daemon had nobody to kill.
    pub passed: u64,
    /// Processes that the module killed by the table.
    pub table_kills: u64,
}

/// A rule.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleStatus {
    /// Its name.
    pub name: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// Its globs.
    pub watch: Vec<String>,
    /// What starts a judgement.
    pub when: Vec<String>,
    /// Groups that it watches now, but for the root.
    pub subjects: usize,
    /// Victims since the daemon's start.
    pub kills: u64,
}

/// A watched group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SubjectStatus {
    /// Its path, escaped.
    pub group: String,
    /// The rules that watch it.
    pub rules: Vec<String>,
    /// Its stall is noticed.
    pub psi: bool,
    /// memory.current.
    pub memory_bytes: Option<u64>,
    /// The smallest memory.max along its ancestors.
    pub limit_bytes: Option<u64>,
}

/// A line of the journal, as much of it as is told at a glance.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Deed {
    /// RFC 3339.
    pub time: String,
    /// `judgement` or `kernel_oom`.
    pub kind: String,
    /// How it ended.
    pub outcome: Option<String>,
    /// The rule.
    pub rule: Option<String>,
    /// What started it.
    pub trigger: Option<String>,
    /// Who was killed, or would have been.
    pub victim: Option<String>,
    /// Where the kernel killed.
    pub group: Option<String>,
    /// Processes that were killed.
    pub processes_killed: Option<u64>,
    /// Processes that left by themselves before.
    pub processes_ended: Option<u64>,
    /// What the victim gave back.
    pub freed_bytes: Option<u64>,
}

impl Status {
    /// As it is now. Reads files of the watched groups.
    #[must_use]
    pub fn of(desk: &Desk, counters: &Counters, ready: bool, uptime: Duration) -> Status {
        let now = Instant::now();
        let board = desk.board.as_deref();
        let policy = counters.in_force().get();
        let standing = board.map(|board| board.standing()).unwrap_or_default();
        let lines = desk.recent.as_ref().map(|recent| recent.last(MOST_DEEDS)).unwrap_or_default();
        let degraded = |(reason, text): (Reason, Arc<str>)| DegradedStatus { reason: reason.word().to_owned(), text: (*text).to_owned() };
        let mut status = Status {
            v: 1,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: uptime.as_secs(),
            ready,
            degraded: counters.degraded().list().into_iter().map(degraded).collect(),
            groups: Groups { total: standing.groups, by_timer: standing.timed_groups },
            psi_triggers: Triggers { armed: standing.armed, by_timer: standing.timed_triggers },
            // It is on for as long as the warden says so, whatever any clock shows.
            paused: standing.paused_until.map(|until| {
                let left = until.saturating_duration_since(now);
                Paused { until: time_text(SystemTime::now() + left), remaining_seconds: left.as_secs(), by: standing.paused_by }
            }),
            module: standing.module.as_ref().map(module),
            // Whatever is in a line that was not written by this version is left out.
            last: lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect(),
            ..Status::default()
        };
        if let Some(policy) = &policy {
            status.take_policy(policy, &standing, counters, now);
        }
        if let Some(origin) = &desk.origin {
            status.policy.source = origin.source().word().to_owned();
            status.policy.files = origin.files.iter().map(|file| file.to_string_lossy().into_owned()).collect();
            status.policy.kept = origin.kept.to_string_lossy().into_owned();
            status.policy.observe = origin.observe;
        }
        status
    }

    /// The policy that was offered last is not in force, and what is degraded does not say why: so it is with daemons of former versions.
    pub(super) fn is_refused_without_reason(&self) -> bool {
        !self.policy.is_last && !self.degraded.iter().any(|degraded| degraded.reason == Reason::Policy.word())
    }

    fn take_policy(&mut self, policy: &Policy, standing: &Standing, counters: &Counters, now: Instant) {
        let name = |rule: usize| policy.rules.get(rule).map(|rule| rule.name.to_string());
        self.policy.hash = policy.hash.to_string();
        self.policy.mode = mode_word(policy.mode).to_owned();
        self.policy.is_last = counters.is_last_policy_in_force();
        let limit = |limit: KillLimit| Limit { kills: limit.kills, per_seconds: limit.per.as_secs() };
        (self.limit, self.node_limit) = (policy.limit.map(limit), policy.node_limit.map(limit));
        let since_shown = now.saturating_duration_since(standing.shown);
        let breaker = |open: &crate::decide::breaker::Open| {
            let left = open.until.checked_sub(since_shown)?;
            let rule = if open.rule == EVERY_RULE { EVERY_RULE_WORDS.to_owned() } else { name(usize::from(open.rule))? };
            Some(BreakerStatus { rule, subject: open.subject.to_string(), closes_in_seconds: left.as_secs() })
        };
        self.breakers = standing.breakers.iter().filter_map(breaker).collect();
        self.breakers_left_out = standing.breakers_open.saturating_sub(standing.breakers.len());
        let groups = counters.published().groups();
        let subject = |group: &Arc<dyn crate::metrics::groups::GroupReader>| SubjectStatus {
            group: group.path().to_string(),
            rules: group.watched_by().iter().filter_map(name).collect(),
            psi: group.has_psi(),
            memory_bytes: group.memory_current(),
            limit_bytes: group.limit(),
        };
        self.subjects = groups.iter().take(MOST_SUBJECTS).map(subject).collect();
        self.subjects_left_out = groups.len().saturating_sub(MOST_SUBJECTS);
        self.rules = (policy.rules.iter().enumerate())
            .map(|(index, rule)| RuleStatus {
                name: rule.name.to_string(),
                mode: mode_word(rule.mode).to_owned(),
                watch: rule.watch.patterns().map(str::to_owned).collect(),
                when: rule.when.iter().map(|trigger| words::Trigger(trigger).to_string()).collect(),
                subjects: groups.iter().filter(|group| group.watched_by().contains(index)).count(),
                kills: counters.kills(&rule.name),
            })
            .collect();
    }
}

fn module(module: &Module) -> ModuleStatus {
    let Module { report, handler } = module;
    ModuleStatus {
        level: words::lms_word(report.level).to_owned(),
        handler: *handler,
        table: report.table_rules,
        holds: report.holds,
        resolved: report.holds_resolved,
        expired: report.holds_expired,
        passed: report.holds_passed,
        table_kills: report.table_kills,
    }
}

#[cfg(test)]
mod tests;
