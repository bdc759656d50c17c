//! Policies and records for this room's tests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::model::{Blank, JudgementRecord, Latency, Outcome, RecordedCandidate, RungName, RungOutcome, RungRecord};
use crate::cgroup::path::GroupPath;
use crate::decide::facts::{GroupId, NodeFacts};
use crate::decide::verdict::{Evidence, Notice, Standing, Strike};
use crate::kernel_kills::book::KernelKill;
use crate::kernel_kills::log::parse::Scope;
use crate::policy::globs::Globs;
use crate::policy::model::*;
use crate::units::{Bytes, Share};

pub const MIB: u64 = 1 << 20;
pub const PSI: Psi = Psi { kind: PsiKind::Full, stall: Duration::from_millis(100), window: Duration::from_millis(500) };

fn globs(pattern: &str) -> Globs {
    Globs::new(&[pattern]).expect("a sound glob")
}

fn rule(name: &str, mode: Mode, when: Vec<Trigger>, victim: Victim) -> Rule {
    Rule {
        name: name.into(),
        mode,
        cooldown: Duration::from_secs(2),
        watch: globs("/tenants.slice/*"),
        when,
        only_if: Vec::new(),
        victim,
        ladder: vec![Rung::Kill(KillWhat::Group)],
        spare_unkillable: true,
    }
}

/// Rule 0 kills its subject, rule 1 ranks, rule 2 only observes.
pub fn policy() -> Policy {
    let level = Level { share: Some(Share::percent(5)), at_most: Some(Bytes(1024 * MIB)) };
    let half = UsageTest::Share(Share::percent(95), UsageOf::Max);
    let second = Duration::from_secs(1);
    let among =
        |rank| Victim::Among(Among { groups: AmongGroups::Globs(globs("/**")), at_least: Bytes(16 * MIB), or_largest: false, rank });
    let rank = vec![RankBy { key: RankKey::Usage, within: Some(Share::percent(10)) }, RankBy { key: RankKey::Age, within: None }];
    let by_usage = vec![RankBy { key: RankKey::Usage, within: None }];
    Policy {
        hash: "0123abcd".into(),
        mode: Mode::Enforce,
        exclude: vec![
            Exclude { group: globs("/system.slice/sshd.service"), comm: None, text: "/system.slice/sshd.service".into() },
            Exclude { group: globs("/db.slice/**"), comm: Some(b"postgres"[..].into()), text: "/db.slice/** holding comm postgres".into() },
        ],
        importance: Vec::new(),
        rules: vec![
            rule("tenant-thrashing", Mode::Enforce, vec![Trigger::Psi(PSI), Trigger::Event(EventKind::OomKill)], Victim::Subject),
            rule(
                "node-low",
                Mode::Enforce,
                vec![Trigger::Available(level, Duration::ZERO), Trigger::Available(level, second), Trigger::SwapFree(level, second)],
                among(rank),
            ),
            rule("watched", Mode::Observe, vec![Trigger::Usage(half, second)], among(by_usage)),
        ],
        oom_group: None,
        node_limit: None,
        kill_one_in: None,
        oomd_xattrs: true,
        hold: None,
        limit: None,
    }
}

pub fn path(text: &[u8]) -> GroupPath {
    GroupPath::from_bytes(text)
}

pub fn candidate(group: &[u8], standing: Standing, importance: i64, usage: Option<u64>, age: Option<i64>) -> RecordedCandidate {
    let spared = matches!(standing, Standing::Struck(Strike::ContainsSpared(_))).then(|| path(b"/a/b"));
    RecordedCandidate {
        group: path(group),
        id: GroupId(7),
        standing,
        spared,
        importance,
        shielded: false,
        usage_bytes: usage,
        keys: [usage.and_then(|bytes| i64::try_from(bytes).ok()), age, None, None],
    }
}

/// A judgement by rule `rule` of [`policy`], with nothing said of its end but the outcome.
pub fn record(rule: u16, notice: Notice, outcome: Outcome) -> Box<JudgementRecord> {
    let mut record = Blank::default().slot(8);
    record.id = 42;
    record.time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
    record.policy = Arc::new(policy());
    record.rule = rule;
    record.subject = path(b"/tenants.slice/a");
    record.notice = notice;
    record.outcome = outcome;
    let node = NodeFacts { total_bytes: 8192 * MIB, available_bytes: Some(4096 * MIB), ..NodeFacts::default() };
    record.evidence = Evidence { node, subject_current: Some(100 * MIB), limit_max: Some(128 * MIB), ..Evidence::default() };
    record
}

/// A whole subject killed after pressure.
pub fn killed() -> Box<JudgementRecord> {
    let mut record = record(0, Notice::Psi(PSI), Outcome::Killed);
    record.candidates = vec![candidate(b"/tenants.slice/a", Standing::Chosen, 0, Some(90 * MIB), None)];
    record.victim = Some(path(b"/tenants.slice/a"));
    let rung = |name, outcome, at, took, processes| RungRecord {
        name,
        outcome,
        at: Duration::from_micros(at),
        took: Duration::from_micros(took),
        processes,
        ..RungRecord::BLANK
    };
    record.push_rung(rung(RungName::Kill, RungOutcome::Done, 300, 150, Some(5)));
    record.push_rung(rung(RungName::Verify, RungOutcome::Empty, 450, 12_000, None));
    (record.processes_killed, record.processes_ended) = (Some(5), Some(0));
    record.freed_bytes = Some(88 * MIB);
    let micros = |micros| Some(Duration::from_micros(micros));
    record.latency = Latency { notice: micros(20), decide: micros(200), kill: micros(450), empty: micros(12_450) };
    record
}

/// A process that the kernel killed, as counters tell it.
pub fn kernel_kill() -> KernelKill {
    KernelKill {
        time: SystemTime::UNIX_EPOCH,
        scope: Scope::Memcg,
        constraint: None,
        oom_memcg: None,
        group: Some(path(b"/a")),
        below: false,
        thread: None,
        victim: None,
        whole: Some(false),
        whole_group: None,
        processes: 1,
        counted: 1,
    }
}
