//! What the demo shows: three tenants share a limit, one of them eats it up; it goes, the others don't, the fattest among them excluded.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::guest::daemon::{Daemon, Setup};
use crate::guest::group::{Group, MIB};
use crate::guest::places;
use crate::guest::wait::{self, SOON};
use crate::guest::work::Work;
use crate::outcome::{Doing, Outcome};

const POLICY: &str = "version: 1
exclude:
  - group: /tenants/database
rules:
  - name: tenants-stall
    watch: /tenants
    when:
      - psi: full 100ms/500ms
    victim:
      among: [/tenants/*]
      rank: [usage]
";

/// As the virtual machine runs it.
pub fn in_the_virtual_machine() -> Outcome {
    tell("demo", Path::new(places::FILES), "in a virtual machine")
}

/// Runs and tells it in groups below `top`, with the daemon's files in `files`.
pub fn tell(top: &str, files: &Path, place: &str) -> Outcome {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").doing("ask for the kernel's name")?;
    println!();
    println!("oomwarden on Linux {} {place}", release.trim());
    println!();
    println!("The policy:");
    for line in POLICY.lines() {
        println!("    {line}");
    }
    let tenants = Group::new(&format!("{top}/tenants"))?.high(104 * MIB)?.no_swap()?;
    let group = |name: &str| Group::new(&format!("{top}/tenants/{name}"));
    let (database, web, batch) = (group("database")?, group("web")?, group("batch")?);
    let mut database_work = Work::holding(&database, 48)?;
    let mut web_work = Work::holding(&web, 12)?;
    let daemon = start(top, files)?;
    println!();
    println!("Three tenants share 104 MiB (memory.high, no swap):");
    println!("    /tenants/database  holds {:>3} MiB, excluded", database.usage()? / MIB);
    println!("    /tenants/web       holds {:>3} MiB", web.usage()? / MIB);
    println!("    /tenants/batch     is empty, and about to grow");
    println!();

    let began = Instant::now();
    let clock = jiff::Timestamp::now();
    let mut batch_work = [Work::start(&batch, "hog mib=256 rate=60")?, Work::start(&batch, "sleep")?];
    let at = |when: Duration, what: &str| println!("{:>8.3} s  {what}", when.as_secs_f64());
    at(Duration::ZERO, "two processes start in /tenants/batch, one of them fills memory");
    watch(&tenants, &batch, began, &at)?;
    let empty = began.elapsed();
    let line = daemon.journalled("the kill", |line| line["outcome"] == "killed")?;
    judgement(&line, clock, &at)?;
    for work in &mut batch_work {
        work.must_be_killed()?;
    }
    let freed = line["freed_bytes"].as_u64().unwrap_or(0) / MIB;
    at(empty, &format!("/tenants/batch is empty (seen from outside): {freed} MiB freed, {} processes gone", line["processes_killed"]));
    database_work.must_run("it is excluded")?;
    web_work.must_run("it did nothing")?;
    at(began.elapsed(), "/tenants/database and /tenants/web are still alive");
    println!();
    println!("The journal's line:");
    for part in folded(&daemon.journal_text()) {
        println!("    {part}");
    }
    println!();
    println!("What /metrics says:");
    let metrics = daemon.metrics()?;
    for wanted in ["kills_total", "killed_processes_total", "freed_bytes_total", "reaction_duration_seconds_sum", "judgements_total"] {
        for sample in metrics.0.lines().filter(|line| line.starts_with(&format!("oomwarden_{wanted}")) && !line.ends_with(" 0")) {
            println!("    {sample}");
        }
    }
    println!();
    daemon.stop()
}

fn start(top: &str, files: &Path) -> Outcome<Daemon> {
    // A free port, because oomwarden itself may run on this machine.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).doing("find a free port")?;
    let setup = Setup {
        files: files.to_owned(),
        cgroup_root: format!("{}/{top}", places::CGROUP),
        group: Some(Group::new(&format!("{top}/oomwarden"))?),
        listen: Some(port.to_string()),
        ..Setup::default()
    };
    setup.start(POLICY)
}

/// Tells how the group fills up, until nobody is left in it.
fn watch(tenants: &Group, batch: &Group, began: Instant, at: &dyn Fn(Duration, &str)) -> Outcome {
    let (mut told, mut over) = (0, false);
    wait::until("/tenants/batch is empty", SOON, || {
        let usage = batch.usage()? / MIB;
        if usage >= told + 16 {
            told = usage - usage % 16;
            at(began.elapsed(), &format!("/tenants/batch uses {usage} MiB"));
        }
        if !over && tenants.event("high")? > 0 {
            over = true;
            at(began.elapsed(), "/tenants is over its limit: the kernel reclaims and throttles");
        }
        Ok(!batch.populated()?)
    })
}

/// Tells what the journal says of the judgement, at the times at which it happened.
fn judgement(line: &Value, clock: jiff::Timestamp, at: &dyn Fn(Duration, &str)) -> Outcome {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let time: jiff::Timestamp = text(&line["time"]).parse().doing(format_args!("understand the journal's time {}", line["time"]))?;
    let notice = Duration::try_from(time.duration_since(clock)).unwrap_or_default();
    let after = |phase: &str| notice + Duration::from_micros(line["latency_us"][phase].as_u64().unwrap_or(0));
    at(notice, &format!("oomwarden notices: {} in {}", text(&line["trigger"]), text(&line["subject"])));
    at(after("decide"), &format!("oomwarden decides: {} has to go", text(&line["victim"])));
    for candidate in line["candidates"].as_array().into_iter().flatten() {
        let usage = candidate["usage_bytes"].as_u64().unwrap_or(0) / MIB;
        println!("                {:<18} {usage:>3} MiB  {}", text(&candidate["group"]), text(&candidate["reason"]));
    }
    at(after("kill"), "oomwarden has killed it");
    at(after("empty"), "oomwarden has seen that it is empty");
    Ok(())
}

/// The text in lines of bearable length, broken after commas.
fn folded(text: &str) -> Vec<String> {
    const WIDTH: usize = 130;
    let mut lines = vec![String::new()];
    for piece in text.trim().split_inclusive(',') {
        match lines.last_mut() {
            Some(line) if line.is_empty() || line.len() + piece.len() <= WIDTH => line.push_str(piece),
            _ => lines.push(format!("  {piece}")),
        }
    }
    lines
}
