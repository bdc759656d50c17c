//! What an administrator asks before a policy may act, asked of a real tree: `plan`, `explain`, `record`, `replay`, `schema`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::common::{THRASH, hog, narrow, neighbour};
use crate::guest::daemon::{self, Daemon, ask, told};
use crate::guest::group::{Group, MIB};
use crate::guest::places;
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

/// Somebody who uses much of its limit brings the largest down, unless it is spared.
const FULL: &str = "
version: 1
exclude: [/t/spared]
importance:
  - {group: /t/cheap, value: -10}
rules:
  - name: full
    watch: /t/*
    when:
      - usage: {above: 50%, of: max}
    victim:
      among: [/t/*]
      rank: [usage]
    then:
      - warn: {signal: SIGUSR1, wait: 1s}
      - kill: group
";

/// Writes a file of the scenario's and gives its path.
fn file(name: &str, text: &str) -> Outcome<String> {
    let directory = PathBuf::from(places::FILES);
    std::fs::create_dir_all(&directory).doing("make a directory")?;
    let path = directory.join(name);
    std::fs::write(&path, text).doing(format_args!("write {name}"))?;
    Ok(path.to_string_lossy().into_owned())
}

fn json(args: &[&str]) -> Outcome<Value> {
    serde_json::from_str(&ask(args)?).doing(format_args!("understand the answer to {args:?}"))
}

/// Three groups: one at its limit, one that costs least, one that must live.
fn people() -> Outcome<[(Group, Work); 3]> {
    let full = Group::new("t/full")?.max(128 * MIB)?.no_swap()?;
    let held = Work::holding(&full, 80)?;
    let spared = Group::new("t/spared")?;
    let large = Work::holding(&spared, 100)?;
    Ok([(full, held), neighbour("t/cheap")?, (spared, large)])
}

fn all_live(people: &mut [(Group, Work); 3]) -> Outcome {
    people.iter_mut().try_for_each(|(_, work)| work.must_run("nothing was to be done"))
}

/// With nobody running, both tell who would die, who would not, and why; and nobody does.
pub fn plan_and_explain_tell_without_a_daemon() -> Outcome {
    let mut people = people()?;
    let policy = file("full.yaml", FULL)?;
    let plan = json(&["plan", "--policy", &policy, "--json"])?;
    let rule = &plan["rules"][0];
    let subject = rule["subjects"].as_array().and_then(|all| all.iter().find(|subject| subject["subject"] == "/t/full"));
    let subject = subject.ok_or_else(|| format!("no plan for /t/full: {plan}"))?;
    ensure!(plan["daemon"].is_null() && subject["outcome"] == "kill" && subject["triggers"][0]["holds"] == true, "{subject}");
    // Importance before size.
    let victim = &subject["victim"];
    ensure!(victim["group"] == "/t/cheap" && victim["processes"] == 1 && victim["before"][0] == "warn (SIGUSR1, 1s)", "{victim}");
    ensure!(victim["bytes"].as_u64().is_some_and(|bytes| bytes > 8 * MIB && bytes < 20 * MIB), "odd numbers: {victim}");
    let spared = daemon::candidate(subject, &people[2].0)?;
    ensure!(spared["rank"].is_null() && spared["reason"].as_str().is_some_and(|why| why.contains("excluded")), "{spared}");
    let text = ask(&["plan", "--policy", &policy])?;
    ensure!(text.contains("kill /t/cheap: 1 group, 1 process"), "not at a glance: {text}");
    println!("{text}");

    let full = json(&["explain", "/t/full", "--policy", &policy, "--json"])?;
    let number = |key: &str| full["numbers"][key].as_u64();
    ensure!(full["exists"] == true && number("processes") == Some(1), "{full}");
    ensure!(number("usage_bytes").is_some_and(|bytes| bytes > 80 * MIB), "odd numbers: {full}");
    ensure!(full["rules"][0]["standing"]["rank"] == 2 && full["rules"][0]["then"][1] == "kill group", "{full}");
    let text = ask(&["explain", "/t/spared", "--policy", &policy])?;
    ensure!(text.contains("never a victim: excluded by /t/spared"), "{text}");
    println!("{text}");
    all_live(&mut people)
}

/// A recording of a real tree, asked by two policies.
pub fn recording_answers_for_any_policy() -> Outcome {
    let mut people = people()?;
    let (policy, recording) = (file("full.yaml", FULL)?, Path::new(places::FILES).join("recording"));
    let recording = recording.to_string_lossy();
    told(&["record", "--for", "1s", "--interval", "200ms", "--output", &recording])?;
    let report = json(&["replay", &recording, "--policy", &policy, "--json"])?;
    ensure!(report["moments"].as_u64().is_some_and(|moments| moments >= 2) && report["problems"] == Value::Array(Vec::new()), "{report}");
    let verdict = &report["judgements"][0];
    ensure!(verdict["subject"] == "/t/full" && verdict["now"]["victim"] == "/t/cheap", "{report}");
    // All spared but who is at the limit.
    let other = file("other.yaml", &FULL.replace("[/t/spared]", "[/t/spared, /t/cheap]"))?;
    let report = json(&["replay", &recording, "--policy", &other, "--json"])?;
    ensure!(report["judgements"][0]["now"]["victim"] == "/t/full", "{report}");
    println!("{}", ask(&["replay", &recording, "--policy", &other])?);
    all_live(&mut people)
}

/// What a daemon did and wrote down: its own policy comes to the same, another does not.
pub fn journal_is_judged_again() -> Outcome {
    let daemon = Daemon::start(THRASH)?;
    let fat = narrow("t/fat")?;
    let mut thrashing = hog(&fat)?;
    thrashing.must_be_killed()?;
    daemon.killed(&fat)?;
    let journal = Path::new(places::FILES).join("journal");
    let (journal, policy) = (journal.to_string_lossy(), daemon.policy_file());
    ask(&["replay", &journal, "--policy", &policy.to_string_lossy(), "--exit-code"])?;
    let other = file("other.yaml", &THRASH.replace("version: 1", "version: 1\nexclude: [/t/fat]"))?;
    let report = json(&["replay", &journal, "--policy", &other, "--json"])?;
    ensure!(report["differing"] == 1 && report["judgements"][0]["now"]["victim"].is_null(), "{report}");
    ensure!(report["judgements"][0]["recorded"]["victim"] == "/t/fat", "{report}");
    let answer = ask(&["replay", &journal, "--policy", &other, "--exit-code"]);
    ensure!(answer.as_ref().is_err_and(|why| why.contains("exit status: 1")), "not told by the exit code: {answer:?}");
    println!("{}", ask(&["replay", &journal, "--policy", &other, "--all"])?);
    daemon.stop()
}
