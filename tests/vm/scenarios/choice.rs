//! Who dies, where several could: exclusions, importance, rank.

use std::time::Duration;

use super::common::{THRASH, hog, narrow};
use crate::guest::daemon::{Daemon, candidate};
use crate::guest::group::{Group, MIB};
use crate::guest::wait;
use crate::guest::work::Work;
use crate::outcome::Outcome;

/// A rule for the shared limit of /t; after a deed it holds still for longer than a scenario lasts.
fn shared(victim: &str, more: &str) -> String {
    format!(
        "
version: 1
{more}
rules:
  - name: shared
    watch: /t
    when:
      - psi: some 100ms/500ms
    cooldown: 5m
    victim:
{victim}
"
    )
}

/// The fattest group holds an excluded one: it does not die as a whole, its other child does, and nobody outside of it.
pub fn excluded_group_inside_the_fattest_lives_and_its_sibling_dies() -> Outcome {
    let policy = shared("      among: [/t/*]\n      rank: [usage]", "exclude:\n  - group: /t/fat/keep");
    let daemon = Daemon::start(&policy)?;
    let t = Group::new("t")?.high(80 * MIB)?.no_swap()?;
    let keep = Group::new("t/fat/keep")?;
    let rest = Group::new("t/fat/rest")?;
    let thin = Group::new("t/thin")?;
    let mut kept = Work::holding(&keep, 40)?;
    let mut beside = Work::holding(&thin, 8)?;
    let mut hog = Work::start(&rest, "hog mib=64")?;
    hog.must_be_killed()?;
    let line = daemon.killed(&rest)?;
    ensure!(candidate(&line, &keep).is_err() || candidate(&line, &keep)?["reason"].to_string().contains("exclu"), "no reason: {line}");
    let calm = || Ok(kept.running()? && beside.running()?);
    wait::stays("the excluded one and the thin one live", Duration::from_secs(1), calm)?;
    ensure!(t.event("high")? > 0, "the shared limit was never reached");
    ensure!(daemon.kills("shared")? == 1.0, "more than one kill");
    daemon.stop()
}

/// A group that holds a process with an excluded name lives, although it is the fattest.
pub fn excluded_comm_spares_its_group() -> Outcome {
    let policy = shared("      among: [/t/*]\n      rank: [usage]", "exclude:\n  - {group: \"/t/*\", comm: postgres}");
    let daemon = Daemon::start(&policy)?;
    Group::new("t")?.high(80 * MIB)?.no_swap()?;
    let db = Group::new("t/db")?;
    let web = Group::new("t/web")?;
    let mut postgres = Work::start(&db, "hog mib=48 then=hold comm=postgres")?;
    db.wait_usage(48 * MIB)?;
    let mut hog = Work::start(&web, "hog mib=64")?;
    hog.must_be_killed()?;
    let line = daemon.killed(&web)?;
    let reason = candidate(&line, &db)?["reason"].to_string();
    ensure!(reason.contains("postgres"), "the reason does not name the comm: {reason}");
    wait::stays("postgres lives", Duration::from_secs(1), || postgres.running())?;
    daemon.stop()
}

/// The least important dies first, however small it is.
pub fn importance_beats_size() -> Outcome {
    let policy = shared("      among: [/t/*]\n      rank: [usage]", "importance:\n  - {group: /t/batch, value: -100}");
    let daemon = Daemon::start(&policy)?;
    Group::new("t")?.high(80 * MIB)?.no_swap()?;
    let batch = Group::new("t/batch")?;
    let big = Group::new("t/big")?;
    let mut small = Work::holding(&batch, 8)?;
    let mut hog = Work::start(&big, "hog mib=128")?;
    small.must_be_killed()?;
    let line = daemon.killed(&batch)?;
    let (chosen, other) = (candidate(&line, &batch)?, candidate(&line, &big)?);
    ensure!(chosen["usage_bytes"].as_u64() < other["usage_bytes"].as_u64(), "the victim was not the smaller one: {line}");
    wait::stays("the big one lives", Duration::from_secs(1), || hog.running())?;
    daemon.stop()
}

/// Near-equal sizes count as equal, so the next key decides: the younger one dies.
pub fn among_ranks_by_its_keys_in_order() -> Outcome {
    let policy = shared("      among: [/t/*]\n      rank: [usage within 30%, age]", "");
    let daemon = Daemon::start(&policy)?;
    let t = Group::new("t")?.no_swap()?;
    let old = Group::new("t/old")?;
    let mut older = Work::holding(&old, 34)?;
    // Ages are told apart by the second.
    wait::stays("the old one ages", Duration::from_millis(1500), || older.running())?;
    let young = Group::new("t/young")?;
    let mut younger = Work::holding(&young, 30)?;
    let small = Group::new("t/small")?;
    let mut churner = Work::start(&small, "churn mib=4")?;
    let t = t.high(60 * MIB)?;
    younger.must_be_killed()?;
    daemon.killed(&young)?;
    ensure!(t.event("high")? > 0, "the shared limit was never reached");
    wait::stays("the older and the small one live", Duration::from_secs(1), || Ok(older.running()? && churner.running()?))?;
    daemon.stop()
}

/// A group with a process at oom_score_adj -1000 is spared, and the record says why. The next group is not.
pub fn group_with_an_unkillable_process_lives() -> Outcome {
    let daemon = Daemon::start(THRASH)?;
    let a = narrow("t/a")?;
    let mut protected = Work::start(&a, "sleep adj=-1000")?;
    let mut spared = hog(&a)?;
    let line = daemon.journalled("a judgement without a victim", |line| line["outcome"] == "no_victim")?;
    let reason = candidate(&line, &a)?["reason"].to_string();
    ensure!(reason.contains("-1000"), "the reason does not name oom_score_adj -1000: {reason}");
    let b = narrow("t/b")?;
    let mut other = hog(&b)?;
    other.must_be_killed()?;
    daemon.killed(&b)?;
    protected.must_run("it is protected")?;
    spared.must_run("it lives beside a protected process")?;
    daemon.stop()
}

/// A group with a process at oom_score_adj -997, as the kubelet gives it to Guaranteed pods, is
/// larger than its neighbour, and dies after it.
pub fn group_with_a_shielded_process_dies_after_all_others() -> Outcome {
    let policy = shared("      among: [/t/*]\n      rank: [usage]", "");
    let daemon = Daemon::start(&policy)?;
    Group::new("t")?.high(80 * MIB)?.no_swap()?;
    let (guaranteed, small) = (Group::new("t/guaranteed")?, Group::new("t/small")?);
    let mut modest = Work::holding(&small, 8)?;
    let mut hog = Work::start(&guaranteed, "hog mib=128 adj=-997")?;
    modest.must_be_killed()?;
    let line = daemon.killed(&small)?;
    let (chosen, other) = (candidate(&line, &small)?, candidate(&line, &guaranteed)?);
    ensure!(other["shielded"] == true && other["rank"] == 2, "it is not known as shielded: {line}");
    ensure!(chosen["reason"].to_string().contains("-900"), "the reason does not say so: {line}");
    hog.must_run("others went first")?;
    daemon.stop()
}

/// By stall: a group that was made a moment ago and stalls dies, and not the larger one that has
/// been there for long and is calm.
pub fn young_group_that_stalls_dies_before_a_calm_old_one() -> Outcome {
    let policy = "
version: 1
rules:
  - name: stalled
    watch: /t
    when:
      - psi: full 50ms/500ms
    victim:
      among: [/t/*]
      at_least: 1MiB
      rank: [pressure]
";
    let old = Group::new("t/old")?;
    let mut calm = Work::holding(&old, 60)?;
    let daemon = Daemon::start(policy)?;
    for round in 0..3 {
        let young = narrow(&format!("t/young{round}"))?;
        let mut stalled = hog(&young)?;
        stalled.must_be_killed()?;
        let line = daemon.killed(&young)?;
        let pressure = |group: &Group| -> Outcome<Option<i64>> { Ok(candidate(&line, group)?["keys"]["pressure"].as_i64()) };
        ensure!(pressure(&young)? > pressure(&old)?, "the values do not say why: {line}");
        ensure!(candidate(&line, &young)?["reason"].to_string().contains("pressure"), "the reason does not say why: {line}");
        calm.must_run("it was calm")?;
    }
    daemon.stop()
}

/// A threaded group has no memory of its own: its domain is judged and dies.
pub fn threaded_group_dies_with_its_domain() -> Outcome {
    let daemon = Daemon::start(&THRASH.replace("watch: /t/*", "watch: [/t/*, \"/t/**\"]"))?;
    let domain = narrow("t/domain")?;
    let threaded = domain.named("threaded");
    std::fs::create_dir(threaded.directory()).map_err(|error| error.to_string())?;
    threaded.set("cgroup.type", "threaded")?;
    ensure!(domain.read("cgroup.type")?.trim() == "domain threaded", "no threaded domain: {}", domain.read("cgroup.type")?);
    let (b, mut beside) = super::common::neighbour("t/b")?;
    let mut hog = Work::start(&domain, &format!("thread-in to={} mib=64", threaded.directory().display()))?;
    hog.must_be_killed()?;
    daemon.killed(&domain)?;
    beside.must_run("it is the neighbour")?;
    ensure!(b.populated()?, "the neighbour's group is empty");
    daemon.stop()
}
