use super::super::model::{Outcome, RungName, RungOutcome};
use super::super::testing::{MIB, PSI, candidate, killed, path, policy, record};
use super::*;
use crate::decide::facts::LmsFacts;
use crate::policy::model::{UsageOf, UsageTest};
use crate::policy::words::rung_before_the_kill;
use crate::units::Share;

#[test]
fn a_kill_in_one_line() {
    let mut kill = killed();
    assert_eq!(
        log_line(&kill),
        "killed /tenants.slice/a by rule tenant-thrashing: 5 processes, 88MiB freed, empty 12.4ms after psi: full 100ms/500ms at \
         /tenants.slice/a (ranked 1: the subject itself)"
    );
    kill.processes_killed = Some(1);
    kill.freed_bytes = None;
    kill.latency.empty = None;
    assert!(log_line(&kill).contains(": 1 process, empty after psi"), "{}", log_line(&kill));
}

#[test]
fn who_left_by_himself_is_not_said_to_be_killed() {
    let mut record = killed();
    (record.processes_killed, record.processes_ended) = (Some(2), Some(3));
    assert!(log_line(&record).contains(": 2 processes killed, 3 left before, 88MiB freed, empty"), "{}", log_line(&record));
    (record.outcome, record.processes_killed, record.processes_ended) = (Outcome::Ended, Some(0), Some(5));
    record.rungs.truncate(1);
    (record.rungs[0].name, record.rungs[0].outcome) = (RungName::Term, RungOutcome::Empty);
    assert_eq!(
        log_line(&record),
        "/tenants.slice/a left by itself before rule tenant-thrashing killed it: 5 processes, 88MiB freed, empty 12.4ms after psi: full \
         100ms/500ms at /tenants.slice/a: term empty in 150us"
    );
}

#[test]
fn without_a_victim_the_first_reasons_are_told() {
    let mut record =
        record(2, Notice::Usage(UsageTest::Share(Share::percent(95), UsageOf::Max), Duration::from_secs(3)), Outcome::NoVictim);
    assert_eq!(
        log_line(&record),
        "rule watched found no victim after usage: above 95% of max for 1s at /tenants.slice/a: there was no candidate"
    );
    record.candidates = (0..5).map(|_| candidate(b"/x", Standing::Struck(Strike::Own), 0, None, None)).collect();
    record.left_out = 10;
    let line = log_line(&record);
    assert!(line.ends_with(": /x holds oomwarden itself; /x holds oomwarden itself; /x holds oomwarden itself; and 12 more"), "{line}");
}

#[test]
fn other_ends_in_one_line() {
    let mut kill = killed();
    kill.outcome = Outcome::Failed;
    kill.rungs[1].outcome = RungOutcome::Deadline;
    assert_eq!(
        log_line(&kill),
        "rule tenant-thrashing could not kill /tenants.slice/a after psi: full 100ms/500ms at /tenants.slice/a: kill done in 150us, \
         verify deadline in 12.0ms"
    );
    kill.outcome = Outcome::Observed;
    assert_eq!(
        log_line(&kill),
        "rule tenant-thrashing would have killed /tenants.slice/a and its 90MiB after psi: full 100ms/500ms at /tenants.slice/a \
         (ranked 1: the subject itself)"
    );
    kill.outcome = Outcome::NotConfirmed;
    assert_eq!(log_line(&kill), "rule tenant-thrashing at /tenants.slice/a: psi: full 100ms/500ms not confirmed by fresh facts");
    kill.outcome = Outcome::Recovered;
    kill.rungs.clear();
    assert!(log_line(&kill).ends_with("no rung was climbed"));
}

#[test]
fn a_level_of_the_kernel_module_comes_with_its_numbers() {
    let told = |level, lms, available| {
        let mut record = record(1, Notice::Lms(level), Outcome::NoVictim);
        (record.evidence.node.lms, record.evidence.node.available_bytes) = (lms, available);
        log_line(&record)
    };
    let lms = |level| Some(LmsFacts { level, warn_bytes: 1024 * MIB, kill_bytes: 512 * MIB });
    for (level, expected) in [
        (LmsLevel::Warn, "lms: warn (96MiB available, warn is below 1GiB) at "),
        (LmsLevel::Kill, "lms: kill (96MiB available, kill is below 512MiB) at "),
        (LmsLevel::Oom, "lms: oom (96MiB available, kill is below 512MiB) at "),
    ] {
        let line = told(level, lms(Some(level)), Some(96 * MIB));
        assert!(line.contains(expected), "{line}");
        for line in [told(level, None, Some(MIB)), told(level, lms(None), None)] {
            assert!(line.contains(&format!("after lms: {} at ", lms_word(Some(level)))), "{line}");
        }
    }
}

#[test]
fn no_name_ends_a_log_line() {
    for outcome in Outcome::ALL {
        let mut kill = killed();
        (kill.outcome, kill.subject, kill.victim) = (outcome, path(b"/a\nb\x1b\xff"), Some(path(b"/a\nb\x1b\xff")));
        kill.candidates[0] = candidate(b"/a\nb", Standing::Struck(Strike::ContainsSpared(0)), 0, Some(MIB), None);
        assert!(!log_line(&kill).contains(|c: char| c.is_control()));
    }
}

#[test]
fn triggers_read_as_in_the_policy() {
    let told: Vec<String> = policy().rules.iter().flat_map(|rule| rule.when.iter().map(|trigger| Trigger(trigger).to_string())).collect();
    assert_eq!(
        told,
        [
            "psi: full 100ms/500ms",
            "event: oom_kill",
            "available: below 5%, at most 1GiB",
            "available: below 5%, at most 1GiB for 1s",
            "swap_free: below 5%, at most 1GiB for 1s",
            "usage: above 95% of max for 1s",
        ]
    );
    assert_eq!(Trigger(&model::Trigger::Lms(LmsLevel::Oom)).to_string(), "lms: oom");
    let odd = model::Psi { stall: Duration::from_micros(1500), window: Duration::from_secs(2), ..PSI };
    assert_eq!(Trigger(&model::Trigger::Psi(odd)).to_string(), "psi: full 1500us/2s");
}

#[test]
fn an_age_that_nobody_knows_is_not_told_in_figures() {
    let unseen = i64::try_from(crate::decide::facts::UNSEEN_BIRTH.as_millis()).unwrap();
    let mut record = record(1, Notice::Available(5, Duration::ZERO), Outcome::Killed);
    record.candidates = vec![
        candidate(b"/a", Standing::Chosen, 0, Some(64 * MIB), Some(1500)),
        candidate(b"/b", Standing::Ranked, 0, Some(64 * MIB), Some(unseen + 7)),
    ];
    assert_eq!(reason(&record, 0), "ranked 1: usage 64MiB, the next one's 64MiB; age 1.5s, the next one's from before oomwarden's start");
    assert_eq!([deciding_key(&record, 0), deciding_key(&record, 1)], [Some(RankKey::Age); 2]);
    record.candidates[1].importance = 5;
    assert_eq!(deciding_key(&record, 1), None, "importance decided");
}

#[test]
fn values_that_were_compared_are_told_and_so_is_a_shield() {
    let mut record = record(2, Notice::Available(5, Duration::ZERO), Outcome::Killed);
    let among = |record: &mut JudgementRecord, keys: [RankKey; 2]| {
        let mut policy = policy();
        if let Victim::Among(among) = &mut policy.rules[2].victim {
            among.rank = keys.map(|key| RankBy { key, within: None }).to_vec();
        }
        record.policy = std::sync::Arc::new(policy);
    };
    among(&mut record, [RankKey::Pressure, RankKey::Growth]);
    let one = |standing, usage: u64, keys: [Option<i64>; 2]| RecordedCandidate {
        keys: [keys[0], keys[1], None, None],
        ..candidate(b"/x", standing, 0, Some(usage * MIB), None)
    };
    record.candidates = vec![one(Standing::Chosen, 60, [Some(0), None]), one(Standing::Ranked, 12, [Some(0), None])];
    assert_eq!(
        [reason(&record, 0), reason(&record, 1)],
        [
            "ranked 1: pressure 0ns, the next one's 0ns; growth unknown, the next one's unknown; equal by that; usage 60MiB, the next one's 12MiB",
            "ranked 2: pressure 0ns, the victim's 0ns; growth unknown, the victim's unknown; equal by that; usage 12MiB, the victim's 60MiB",
        ]
    );
    record.candidates[0].keys[0] = Some(320_000);
    assert_eq!(reason(&record, 0), "ranked 1: pressure 320ms, the next one's 0ns");
    record.candidates[1].shielded = true;
    assert_eq!(
        [reason(&record, 0), reason(&record, 1)],
        [
            "ranked 1: the next one holds a process with oom_score_adj -900 or below",
            "ranked 2: holds a process with oom_score_adj -900 or below, the victim does not",
        ]
    );
    assert_eq!(deciding_key(&record, 0), None);
    record.candidates[0].shielded = true;
    assert_eq!(reason(&record, 0), "ranked 1: pressure 320ms, the next one's 0ns", "both are shielded");
}

#[test]
fn where_a_kill_would_be_in_vain_it_is_said_what_holds_the_memory() {
    let mut low = record(1, Notice::Available(500 * MIB, Duration::from_secs(1)), Outcome::NoVictim);
    low.subject = path(b"/");
    low.candidates = vec![candidate(b"/a", Standing::Struck(Strike::InVain), 0, Some(12 * MIB), None)];
    low.evidence.relief = Some(Relief { missing: 90 * MIB, could_free: Some(48 * MIB) });
    (low.evidence.node.shmem_bytes, low.evidence.node.slab_unreclaimable_bytes) = (Some(438 * MIB), Some(30 * MIB));
    low.emptied = [Some((path(b"/left\n"), 300 * MIB)), None, None];
    assert_eq!(
        log_line(&low),
        "rule node-low kills nobody after available: below 500MiB for 1s at /: that would be in vain: 90MiB missing, and all who may die \
         could free at most 48MiB; on the node 438MiB are tmpfs and shared memory, 30MiB are unreclaimable slab; \
         /left\\x0a holds 300MiB without a process"
    );
    assert_eq!(reason(&low, 0), "killing would be in vain: not even all that may be killed could free what is missing");
    let test = UsageTest::Share(Share::percent(95), UsageOf::Max);
    let mut full = record(2, Notice::Usage(test, Duration::from_secs(1)), Outcome::NoVictim);
    full.candidates = low.candidates.clone();
    full.evidence = low.evidence;
    full.evidence.subject_shmem = Some(50 * MIB);
    assert!(log_line(&full).ends_with("at most 48MiB; there 50MiB are tmpfs and shared memory"), "{}", log_line(&full));
}

#[test]
fn rungs_and_their_ends_have_words() {
    use crate::policy::model::{Hook, KillWhat, Rung, WarnSignal};
    let second = Duration::from_secs(1);
    let hook = Hook { exec: vec!["/bin/a\nb".to_owned()], timeout: Duration::from_millis(500) };
    for (rung, words) in [
        (Rung::Warn { signal: Some(WarnSignal::USR1), wait: second }, Some("warn (SIGUSR1, 1s)")),
        (Rung::Warn { signal: None, wait: second }, Some("warn (1s)")),
        (Rung::Hook(hook.into()), Some("hook /bin/a\\nb (500ms)")),
        (Rung::Term { wait: second }, Some("term (1s)")),
        (Rung::Kill(KillWhat::Group), None),
    ] {
        assert_eq!(rung_before_the_kill(&rung).as_deref(), words);
    }
    for (outcome, word) in [
        (RungOutcome::Nobody, "nobody"),
        (RungOutcome::Exit(3), "failed: exit 3"),
        (RungOutcome::Signal(libc::SIGSEGV), "failed: SIGSEGV"),
        (RungOutcome::Signal(40), "failed: signal 40"),
        (RungOutcome::NoHelper, "failed: no helper"),
        (RungOutcome::Errno(libc::ENOENT), "ENOENT"),
    ] {
        assert_eq!(rung_outcome(outcome), word);
    }
}
