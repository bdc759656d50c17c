//! Making a recording: all facts of all groups, every so often, one line a moment. No daemon is needed, and none is disturbed.
//!
//! Looked at with the code that `plan` looks with, by a policy under which everybody is a candidate and every file counts, so
//! that any policy can be asked about the moments later.

use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::cgroup::group::File;
use crate::cgroup::parse;
use crate::cgroup::path::Escaped;
use crate::decide::facts::NodeFacts;
use crate::policy::model::EventKind;
use crate::policy::words;
use crate::policy::{Loaded, Source, load};
use crate::preview::onlooker::Onlooker;
use crate::record::facts::{FactsLine, PsiLine};
use crate::record::journal::{Context, time_text};
use crate::replay::moment::lines_of;
use crate::sense::tree::Tree;

/// Everybody is a candidate, and every kind of fact is asked for.
const EVERYTHING: &str = "
version: 1
rules:
  - name: everything
    watch: /
    when:
      - event: oom_kill
    victim:
      among: [/, \"/**\"]
      rank: [usage, oom_score, overage, growth]
";

/// Names of processes that are noted for a group; of one with more it can't be said who is not there.
const MOST_COMMS: usize = 256;

/// The policy by which everything is looked at.
///
/// # Errors
/// None, as a test proves.
pub fn everything() -> Result<Loaded, String> {
    let loaded = load(&[Source::new("everything", EVERYTHING)]);
    loaded.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// How long, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// In all.
    pub lasting: Duration,
    /// From one moment to the next.
    pub interval: Duration,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Moments.
    pub moments: usize,
    /// The most groups at a time.
    pub groups: usize,
    /// Bytes.
    pub bytes: u64,
}

#[derive(Serialize)]
struct Sample<'a> {
    v: u64,
    kind: &'static str,
    time: String,
    node: &'a str,
    run: &'a str,
    at_us: u64,
    evidence: NodeLine,
    facts: FactsLine,
}

#[derive(Serialize)]
struct NodeLine {
    node_total_bytes: u64,
    node_available_bytes: Option<u64>,
    swap_total_bytes: u64,
    swap_free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lms_level: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lms_warn_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lms_kill_bytes: Option<u64>,
}

impl From<NodeFacts> for NodeLine {
    fn from(node: NodeFacts) -> NodeLine {
        NodeLine {
            node_total_bytes: node.total_bytes,
            node_available_bytes: node.available_bytes,
            swap_total_bytes: node.swap_total_bytes,
            swap_free_bytes: node.swap_free_bytes,
            lms_level: node.lms.map(|lms| words::lms_word(lms.level)),
            lms_warn_bytes: node.lms.map(|lms| lms.warn_bytes),
            lms_kill_bytes: node.lms.map(|lms| lms.kill_bytes),
        }
    }
}

/// Records moments until the time is over, each written at once, so that who breaks it off keeps what was taken.
///
/// # Errors
/// The line can't be written.
pub fn take(onlooker: &mut Onlooker, everything: &Loaded, span: Span, out: &mut impl Write) -> io::Result<Taken> {
    let context = Context::of_this_process(None);
    let (began, mut taken) = (Instant::now(), Taken::default());
    loop {
        let at = began.elapsed();
        onlooker.note();
        let facts = look(onlooker, everything);
        let groups = facts.groups.len();
        let sample = Sample {
            v: super::lines::VERSION,
            kind: "sample",
            time: time_text(SystemTime::now()),
            node: &context.node,
            run: &context.run,
            at_us: u64::try_from(at.as_micros()).unwrap_or(u64::MAX),
            evidence: onlooker.court.node.into(),
            facts,
        };
        let mut line = serde_json::to_vec(&sample)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()?;
        taken.moments += 1;
        taken.groups = taken.groups.max(groups);
        taken.bytes += line.len() as u64;
        // The next whole interval that has not passed yet: a slow look skips one and does not fall behind.
        let interval = span.interval.max(Duration::from_millis(1));
        let passed = began.elapsed().as_micros() / interval.as_micros() + 1;
        let next = interval.saturating_mul(u32::try_from(passed).unwrap_or(u32::MAX));
        if next > span.lasting {
            return Ok(taken);
        }
        std::thread::sleep(next.saturating_sub(began.elapsed()));
    }
}

fn look(onlooker: &mut Onlooker, everything: &Loaded) -> FactsLine {
    let policy = &everything.policy;
    onlooker.gather(policy, 0, Tree::ROOT);
    let (court, mut sight) = onlooker.in_session();
    for at in 0..u32::try_from(court.facts.len()).unwrap_or(u32::MAX) {
        if court.facts.get(at as usize).is_some_and(|facts| facts.populated != Some(false)) {
            // Nobody to see where the rule is not there, which it is.
            let _ = court.see_processes(policy, 0, at, &mut sight);
        }
    }
    let mut groups = lines_of(&court.facts);
    for (line, facts) in groups.iter_mut().zip(&court.facts) {
        let Some(node) = sight.tree.slot_of(facts.id).and_then(|slot| sight.tree.get(slot)) else { continue };
        let group = &node.group;
        let pressure = group.read(File::Pressure, sight.buffer, parse::pressure).ok().flatten();
        line.psi = pressure.map(|pressure| PsiLine { some_us: pressure.some_us, full_us: pressure.full_us });
        if let Ok(Some(events)) = group.read(File::EventsLocal, sight.buffer, parse::events) {
            let counters = [
                (EventKind::Low, events.low),
                (EventKind::High, events.high),
                (EventKind::Max, events.max),
                (EventKind::Oom, events.oom),
                (EventKind::OomKill, events.oom_kill),
                (EventKind::OomGroupKill, events.oom_group_kill),
            ];
            let known = counters.into_iter().filter_map(|(kind, count)| Some((words::event_word(kind).to_owned(), count?)));
            line.events = known.collect();
        }
        if let Some(processes) = line.processes.as_mut().filter(|_| !facts.threaded) {
            let comms = &mut processes.comms;
            processes.comms_complete = sight.processes.each_comm(group, sight.buffer, |comm| {
                if comms.len() < MOST_COMMS {
                    comms.insert(Escaped(comm).to_string(), true);
                }
            }) && comms.len() < MOST_COMMS;
        }
    }
    FactsLine { groups, left_out: 0 }
}
