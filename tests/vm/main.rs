//! oomwarden on real kernels, in throw-away virtual machines.
//!
//! One binary, four roles, told apart by the first argument, so that what runs inside needs no second build:
//! the host's harness (the default: each scenario is a named test `KERNEL::TOPIC::SCENARIO` in cargo's own output), the agent inside the
//! virtual machine (`--guest`), one scenario inside it (`--scenario NAME`), and the workloads that get groups into trouble
//! (`--workload NAME key=value...`). `--demo` shows the main job from end to end.
//!
//! `OOMWARDEN_VM=skip` leaves these tests out (said in one line), `OOMWARDEN_VM_ACCEL` names QEMU's accelerator,
//! `OOMWARDEN_VM_CACHE` is where kernels are kept.

#![allow(unreachable_pub, reason = "a binary has no outside: `pub` here means that another of its modules uses it")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "the numbers are those that scenarios themselves set up: pids, MiB, seconds"
)]

#[macro_use]
mod outcome;

mod demo;
mod guest;
mod host;
mod scenarios;
mod sys;
mod workload;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next();
    match role.as_deref().and_then(|role| role.to_str()) {
        Some("--guest") => guest::agent::run(),
        Some("--scenario") => guest::child::run(arguments.next()),
        Some("--workload") => workload::run(arguments.collect()),
        Some("--demo") => demo::run(arguments.next().is_some_and(|more| more == "--vm")),
        _ => host::run(),
    }
}
