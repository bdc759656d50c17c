use super::super::model::{Outcome, RungOutcome};
use super::super::testing::{MIB, PSI, candidate, killed, path, policy, record};
use super::*;
use crate::decide::facts::LmsFacts;
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
    assert_eq!(reason(&record, 0), "ranked 1: age 1.5s, the next one's from before oomwarden's start");
    assert_eq!([deciding_key(&record, 0), deciding_key(&record, 1)], [Some(RankKey::Age); 2]);
    record.candidates[1].importance = 5;
    assert_eq!(deciding_key(&record, 1), None, "importance decided");
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
