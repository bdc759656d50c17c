//! Lines of journals and recordings, one after the other. A line that can't be used is a problem of its own place, `FILE:LINE`,
//! and the next one is read all the same.

use std::io::{self, BufRead};

use serde::Deserialize;
use serde_json::Value;

use crate::cgroup::path::Escaped;
use crate::decide::facts::{LmsFacts, NodeFacts};
use crate::policy::words::lms_level_named;
use crate::record::facts::{FactsLine, GroupLine};

/// The version of lines that is read here.
pub const VERSION: u64 = 1;

/// A longer line is not one of ours.
pub const LONGEST_LINE: usize = 32 << 20;

/// Longer than any path that the kernel takes.
const LONGEST_PATH: usize = 4096;

/// One line.
#[derive(Debug)]
pub enum Entry {
    /// A judgement of the daemon.
    Judgement(Box<JudgementLine>),
    /// A kill by the kernel, which no policy decided.
    KernelOom(KernelLine),
    /// A moment of a recording.
    Sample(Box<SampleLine>),
    /// Another kind, that some newer oomwarden writes.
    Other(String),
}

/// A judgement, as far as it is used here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JudgementLine {
    /// When.
    pub time: String,
    /// The policy that it was by.
    pub policy_hash: String,
    /// Its rule.
    pub rule: String,
    /// In words.
    pub trigger: String,
    /// The group that the notice came from.
    pub subject: String,
    /// Numbers.
    pub evidence: EvidenceLine,
    /// Everyone who was considered.
    pub candidates: Vec<CandidateLine>,
    /// Those that found no room.
    pub candidates_left_out: u64,
    /// Who was killed, or would have been.
    pub victim: Option<String>,
    /// How it ended.
    pub outcome: String,
    /// What it turned on; missing in journals of the first days.
    pub facts: Option<FactsLine>,
}

/// A candidate.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CandidateLine {
    /// The group.
    pub group: String,
    /// 1 was the victim.
    pub rank: Option<u64>,
    /// In words.
    pub reason: String,
    /// Why it had to live.
    pub strike: Option<String>,
}

/// A kill by the kernel.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct KernelLine {
    /// When.
    pub time: String,
    /// The group that lost a process.
    pub group: Option<String>,
    /// The group whose limit it was.
    pub oom_memcg: Option<String>,
}

/// A moment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SampleLine {
    /// When.
    pub time: String,
    /// Tells one recording from another.
    pub run: String,
    /// Since the recording began; never set back.
    pub at_us: u64,
    /// The node.
    pub evidence: EvidenceLine,
    /// All groups.
    pub facts: FactsLine,
}

/// Numbers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "docs/journal.md describes the keys")]
pub struct EvidenceLine {
    pub node_total_bytes: u64,
    pub node_available_bytes: Option<u64>,
    pub swap_total_bytes: u64,
    pub swap_free_bytes: Option<u64>,
    pub node_shmem_bytes: Option<u64>,
    pub node_slab_bytes: Option<u64>,
    pub node_slab_unreclaimable_bytes: Option<u64>,
    pub lms_level: Option<String>,
    pub lms_warn_bytes: Option<u64>,
    pub lms_kill_bytes: Option<u64>,
    pub notice: String,
    pub psi_kind: Option<String>,
    pub psi_stall_us: Option<u64>,
    pub psi_window_us: Option<u64>,
    pub event: Option<String>,
    pub count_before: Option<u64>,
    pub count_after: Option<u64>,
    pub level_bytes: Option<u64>,
    pub held_us: Option<u64>,
    pub notice_level: Option<String>,
}

impl EvidenceLine {
    /// The node then.
    #[must_use]
    pub fn node(&self) -> NodeFacts {
        let level = self.lms_level.as_deref().and_then(|word| match word {
            "ok" => Some(None),
            word => lms_level_named(word).map(Some),
        });
        let lms = level.zip(self.lms_warn_bytes).zip(self.lms_kill_bytes);
        NodeFacts {
            total_bytes: self.node_total_bytes,
            available_bytes: self.node_available_bytes,
            swap_total_bytes: self.swap_total_bytes,
            swap_free_bytes: self.swap_free_bytes,
            shmem_bytes: self.node_shmem_bytes,
            slab_bytes: self.node_slab_bytes,
            slab_unreclaimable_bytes: self.node_slab_unreclaimable_bytes,
            lms: lms.map(|((level, warn_bytes), kill_bytes)| LmsFacts { level, warn_bytes, kill_bytes }),
        }
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file ended in the middle of it.
    #[error("half a line: whoever wrote it was cut off; the lines before it are sound")]
    Half,
    /// No line of ours.
    #[error("not a line of a journal or a recording: {0}")]
    Foreign(String),
    /// Written by a newer version.
    #[error("version {0}, and this oomwarden reads version {VERSION}: use a newer one")]
    Newer(u64),
    /// Longer than [`LONGEST_LINE`].
    #[error("longer than 32MiB: not a line of a journal or a recording")]
    Long,
    /// Understood, but not enough of it is there.
    #[error("{0}")]
    Lacking(String),
}

/// Calls `each` with every line that is not empty, counted from 1.
///
/// # Errors
/// The file can't be read on.
pub fn each_line(mut file: impl BufRead, mut each: impl FnMut(usize, Result<Entry, Problem>)) -> io::Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = io::Read::take(&mut file, LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let is_whole = line.last() == Some(&b'\n');
        if !is_whole && read > LONGEST_LINE {
            skip_line(&mut file)?;
            each(number, Err(Problem::Long));
            continue;
        }
        let text = line.trim_ascii();
        if !text.is_empty() {
            let entry = entry(text);
            each(number, if is_whole { entry } else { entry.map_err(|problem| as_half(problem, number)) });
        }
    }
    Ok(())
}

/// What can't be understood at the very end was probably cut off, unless the file holds nothing else.
fn as_half(problem: Problem, number: usize) -> Problem {
    match problem {
        Problem::Foreign(_) if number > 1 => Problem::Half,
        problem => problem,
    }
}

fn skip_line(file: &mut impl BufRead) -> io::Result<()> {
    loop {
        let held = file.fill_buf()?;
        if held.is_empty() {
            return Ok(());
        }
        let end = held.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(held.len(), |end| end + 1);
        file.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// Understands one line.
///
/// # Errors
/// What is wrong with it.
pub fn entry(text: &[u8]) -> Result<Entry, Problem> {
    let mut value: Value = serde_json::from_slice(text).map_err(|error| Problem::Foreign(error.to_string()))?;
    clean(&mut value);
    let Some(object) = value.as_object() else { return Err(Problem::Foreign("it is no JSON object".to_owned())) };
    let Some(version) = object.get("v").and_then(Value::as_u64) else {
        return Err(Problem::Foreign("it has no version `v`".to_owned()));
    };
    if version > VERSION {
        return Err(Problem::Newer(version));
    }
    let Some(kind) = object.get("kind").and_then(Value::as_str).map(str::to_owned) else {
        return Err(Problem::Foreign("it has no `kind`".to_owned()));
    };
    let foreign = |error: serde_json::Error| Problem::Foreign(error.to_string());
    match &*kind {
        "judgement" => {
            let line: JudgementLine = serde_json::from_value(value).map_err(foreign)?;
            check(line.facts.as_ref().map_or(&[], |facts| &facts.groups[..]))?;
            Ok(Entry::Judgement(Box::new(line)))
        }
        "kernel_oom" => serde_json::from_value(value).map(Entry::KernelOom).map_err(foreign),
        "sample" => {
            let line: SampleLine = serde_json::from_value(value).map_err(foreign)?;
            check(&line.facts.groups)?;
            Ok(Entry::Sample(Box::new(line)))
        }
        _ => Ok(Entry::Other(kind)),
    }
}

/// Takes out of every text what a terminal would obey: a file may come from anybody.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) => {
            let escaped = Escaped(text.as_bytes()).to_string();
            *text = escaped;
        }
        Value::Array(values) => values.iter_mut().for_each(clean),
        Value::Object(object) => object.values_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn check(groups: &[GroupLine]) -> Result<(), Problem> {
    let is_path = |path: &str| path.starts_with('/') && path.len() <= LONGEST_PATH;
    match groups.iter().find(|group| !is_path(&group.group)) {
        Some(group) => {
            let shown: String = group.group.chars().take(40).collect();
            Err(Problem::Lacking(format!("`{}` is no path of a group", Escaped(shown.as_bytes()))))
        }
        None => Ok(()),
    }
}
