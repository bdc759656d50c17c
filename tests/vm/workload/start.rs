//! What every workload understands: `join=DIRECTORY` (a group), `comm=NAME`, `adj=N` (oom_score_adj), `nofile=N`, `uid=N`,
//! `node=N` (memory from that NUMA node only), `without=syslog` (no right to the kernel's
//! log), `without=resource` (nor to privileged PSI triggers).
//!
//! Joining is the process's own first act, so what it allocates later is charged where it belongs, and nobody needs to fork
//! by hand.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};

use crate::outcome::{Doing, Outcome};
use crate::sys;

/// `key=value` words, and after `--` a command.
pub struct Words {
    pairs: Vec<(String, OsString)>,
    command: Vec<OsString>,
}

impl Words {
    /// Takes the workload's name off.
    pub fn new(arguments: Vec<OsString>) -> (String, Words) {
        let mut arguments = arguments.into_iter();
        let name = arguments.next().unwrap_or_default().to_string_lossy().into_owned();
        let mut words = Words { pairs: Vec::new(), command: Vec::new() };
        while let Some(word) = arguments.next() {
            if word == "--" {
                words.command = arguments.collect();
                break;
            }
            let bytes = word.as_bytes();
            let at = bytes.iter().position(|byte| *byte == b'=').unwrap_or(bytes.len());
            let value = OsStr::from_bytes(bytes.get(at + 1..).unwrap_or_default()).to_owned();
            words.pairs.push((String::from_utf8_lossy(&bytes[..at]).into_owned(), value));
        }
        (name, words)
    }

    /// The raw value of a key.
    pub fn raw(&self, key: &str) -> Option<&OsStr> {
        self.pairs.iter().find(|(known, _)| known == key).map(|(_, value)| &**value)
    }

    /// The value of a key as text, or "".
    pub fn text(&self, key: &str) -> String {
        self.raw(key).unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The value of a key as a number.
    pub fn number(&self, key: &str, otherwise: u64) -> Outcome<u64> {
        match self.raw(key) {
            None => Ok(otherwise),
            Some(value) => value.to_string_lossy().parse().doing(format_args!("understand {key}={value:?}")),
        }
    }
}

/// Moves the process where it belongs.
pub fn prepare(words: &Words) -> Outcome {
    let own = Path::new("/proc/self");
    if let Some(group) = words.raw("join") {
        std::fs::write(Path::new(group).join("cgroup.procs"), "0").doing(format_args!("join {group:?}"))?;
    }
    // A scenario's own process is protected; its workloads are ordinary unless they say otherwise.
    let adj = words.raw("adj").map_or("0".into(), OsStr::to_string_lossy);
    if let Err(error) = std::fs::write(own.join("oom_score_adj"), adj.as_bytes()) {
        // Outside of the virtual machine nobody protected the parent.
        if adj != "0" {
            return Err(format!("could not set oom_score_adj to {adj}: {error}"));
        }
    }
    if let Some(comm) = words.raw("comm") {
        std::fs::write(own.join("comm"), comm.as_bytes()).doing("take another name")?;
    }
    if words.raw("nofile").is_some() {
        let limit = words.number("nofile", 0)?;
        setrlimit(Resource::RLIMIT_NOFILE, limit, limit).doing("limit descriptors")?;
    }
    if words.raw("node").is_some() {
        sys::bind_memory(words.number("node", 0)? as u32).doing("bind memory to a node")?;
    }
    let without: &[CapabilitySet] = match &*words.text("without") {
        // Either opens the log to kernels that remember how it once was (6.1).
        "syslog" => &[CapabilitySet::SYSLOG, CapabilitySet::SYS_ADMIN],
        "resource" => &[CapabilitySet::SYS_RESOURCE],
        _ => &[],
    };
    for capability in without {
        remove_capability_from_bounding_set(*capability).doing("give a capability up")?;
    }
    if words.raw("uid").is_some() {
        let id = words.number("uid", 0)? as u32;
        setgroups(&[]).doing("drop groups")?;
        setgid(Gid::from_raw(id)).doing("change the gid")?;
        setuid(Uid::from_raw(id)).doing("change the uid")?;
    }
    Ok(())
}

/// Becomes another program.
pub fn enter(words: &Words) -> Outcome<ExitCode> {
    let (program, arguments) = words.command.split_first().ok_or("enter needs a command after --")?;
    Err(format!("could not run {program:?}: {}", Command::new(program).args(arguments).exec()))
}
