//! A kill by the kernel as a line of the journal, and as one for people. docs/journal.md describes the keys.

use std::fmt;

use serde::Serialize;

use crate::cgroup::path::{Escaped, GroupPath};
use crate::kernel_kills::book::KernelKill;
use crate::kernel_kills::log::parse::{Constraint, Killed, Scope};
use crate::record::journal::{Context, IdentityLine, time_text};
use crate::units::Bytes;

#[derive(Serialize)]
struct KernelLine<'a> {
    v: u32,
    id: String,
    time: String,
    node: &'a str,
    kind: &'static str,
    scope: &'static str,
    constraint: Option<&'static str>,
    oom_memcg: Option<String>,
    group: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    below: bool,
    identity: IdentityLine,
    comm: Option<String>,
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<u32>,
    uid: Option<u32>,
    oom_score_adj: Option<i32>,
    total_vm_bytes: Option<u64>,
    anon_rss_bytes: Option<u64>,
    file_rss_bytes: Option<u64>,
    shmem_rss_bytes: Option<u64>,
    page_tables_bytes: Option<u64>,
    whole_group: Option<bool>,
    killed_group: Option<String>,
    processes_killed: u64,
    confirmed: bool,
    evidence: Evidence,
}

/// How the kill was noticed.
#[derive(Serialize)]
struct Evidence {
    source: &'static str,
}

/// The kill as one line of JSON, without the newline; `number` counts them within this run.
///
/// # Errors
/// None that is known, as for a judgement's line.
pub fn json(kill: &KernelKill, number: u64, context: &Context) -> serde_json::Result<String> {
    let text = |path: &Option<GroupPath>| path.as_ref().map(ToString::to_string);
    let victim = kill.victim.as_ref();
    let sizes = victim.map(|victim| victim.sizes);
    serde_json::to_string(&KernelLine {
        v: 1,
        id: format!("{}-k{number}", context.run),
        time: time_text(kill.time),
        node: &context.node,
        kind: "kernel_oom",
        scope: kill.scope.word(),
        constraint: kill.constraint.map(Constraint::word),
        oom_memcg: text(&kill.oom_memcg),
        group: text(&kill.group),
        below: kill.below,
        identity: IdentityLine::default(),
        comm: victim.map(|victim| Escaped(&victim.comm).to_string()),
        pid: victim.map(|victim| victim.pid),
        thread: kill.thread,
        uid: victim.and_then(|victim| victim.uid),
        oom_score_adj: victim.and_then(|victim| victim.oom_score_adj),
        total_vm_bytes: sizes.map(|sizes| sizes.total_vm),
        anon_rss_bytes: sizes.map(|sizes| sizes.anon_rss),
        file_rss_bytes: sizes.map(|sizes| sizes.file_rss),
        shmem_rss_bytes: sizes.map(|sizes| sizes.shmem_rss),
        page_tables_bytes: sizes.and_then(|sizes| sizes.page_tables),
        whole_group: kill.whole,
        killed_group: text(&kill.whole_group),
        processes_killed: kill.processes,
        confirmed: kill.counted == kill.processes,
        evidence: Evidence { source: if victim.is_some() { "log" } else { "counters" } },
    })
}

/// The kill as one line for people.
#[derive(Debug)]
pub struct LogLine<'a>(pub &'a KernelKill);

impl fmt::Display for LogLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kill = self.0;
        f.write_str("the kernel killed ")?;
        match &kill.victim {
            Some(Killed { pid, comm, sizes, .. }) => {
                write!(f, "process {pid} ({}, {} anonymous)", Escaped(comm), Bytes(sizes.anon_rss))?;
            }
            None if kill.processes == 1 => f.write_str("a process")?,
            None => write!(f, "{} processes", kill.processes)?,
        }
        match &kill.group {
            Some(group) if kill.below => write!(f, " of a group below {group} that is gone")?,
            Some(group) => write!(f, " of {group}")?,
            None => f.write_str(" of a group that could not be told")?,
        }
        match &kill.whole_group {
            Some(whole) => write!(f, " and all of {whole}, {} in all", kill.processes)?,
            None if kill.whole == Some(true) => f.write_str(", all of its group")?,
            None => {}
        }
        match (kill.scope, &kill.oom_memcg) {
            (Scope::Memcg, Some(limit)) => write!(f, ": {limit} was at its limit")?,
            (Scope::Memcg, None) => f.write_str(": a group was at its limit")?,
            (Scope::Global, _) => f.write_str(": the machine was out of memory")?,
        }
        match &kill.victim {
            None => f.write_str(" (told by counters alone)"),
            Some(_) if kill.counted < kill.processes => f.write_str(" (the counters don't confirm it)"),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::kernel_kills::log::parse::Sizes;

    fn kill() -> KernelKill {
        let sizes = Sizes { total_vm: 64 << 20, anon_rss: 30 << 20, file_rss: 4096, shmem_rss: 0, page_tables: Some(8192) };
        KernelKill {
            time: SystemTime::UNIX_EPOCH,
            scope: Scope::Memcg,
            constraint: Some(Constraint::Memcg),
            oom_memcg: Some(GroupPath::from_bytes(b"/a")),
            group: Some(GroupPath::from_bytes(b"/a/b\n")),
            below: false,
            victim: Some(Killed { scope: Scope::Memcg, pid: 42, comm: b"x\xff\"".to_vec(), uid: Some(7), sizes, oom_score_adj: Some(-3) }),
            thread: None,
            whole: Some(false),
            whole_group: None,
            processes: 1,
            counted: 1,
        }
    }

    fn parsed(kill: &KernelKill) -> serde_json::Value {
        let context = Context { node: "n".into(), run: "r".into() };
        serde_json::from_str(&json(kill, 5, &context).unwrap()).unwrap()
    }

    #[test]
    fn a_line_holds_everything_and_no_name_breaks_it() {
        let line = parsed(&kill());
        let expected = serde_json::json!({
            "v": 1, "id": "r-k5", "time": "1970-01-01T00:00:00.000000Z", "node": "n", "kind": "kernel_oom", "scope": "memcg",
            "constraint": "memcg", "oom_memcg": "/a", "group": "/a/b\\x0a",
            "identity": {"namespace": null, "pod": null, "pod_uid": null, "container": null},
            "comm": "x\\xff\"", "pid": 42, "uid": 7, "oom_score_adj": -3, "total_vm_bytes": 64 << 20, "anon_rss_bytes": 30 << 20,
            "file_rss_bytes": 4096, "shmem_rss_bytes": 0, "page_tables_bytes": 8192, "whole_group": false, "killed_group": null,
            "processes_killed": 1, "confirmed": true, "evidence": {"source": "log"},
        });
        assert_eq!(line, expected);
        assert_eq!(
            LogLine(&kill()).to_string(),
            "the kernel killed process 42 (x\\xff\", 30MiB anonymous) of /a/b\\x0a: /a was at its limit"
        );
    }

    #[test]
    fn what_only_counters_tell_says_so() {
        let kill = KernelKill {
            scope: Scope::Global,
            constraint: None,
            oom_memcg: None,
            below: true,
            victim: None,
            whole: None,
            processes: 3,
            counted: 3,
            ..kill()
        };
        let line = parsed(&kill);
        assert_eq!((&line["evidence"]["source"], &line["below"], &line["processes_killed"]), (&"counters".into(), &true.into(), &3.into()));
        assert_eq!(line["pid"], serde_json::Value::Null);
        assert_eq!(
            LogLine(&kill).to_string(),
            "the kernel killed 3 processes of a group below /a/b\\x0a that is gone: the machine was out of memory (told by counters alone)"
        );
    }

    #[test]
    fn what_the_counters_do_not_confirm_is_told_as_such() {
        let kill = KernelKill { counted: 0, ..kill() };
        assert_eq!(parsed(&kill)["confirmed"], false);
        assert!(LogLine(&kill).to_string().ends_with("(the counters don't confirm it)"));
    }
}
