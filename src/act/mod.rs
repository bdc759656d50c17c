//! Deeds: how a verdict is carried out. Nobody here chooses a victim.
//!
//! - [`ladder`]: the rungs as a state machine with deadlines, pure; the warden feeds it and supervises it.
//! - [`rung`]: how each rung went.
//! - [`deed`]: what a rung does to the system; every call may block.
//! - [`first_kill`]: when the first SIGKILL of a ladder went out.
//! - [`handlers`]: which signals a process handles.
//! - [`listeners`]: the pressure socket, at which processes wait to be warned.
//! - [`hooks`]: the administrator's programs, and the helper process that runs them.
//! - [`marks`]: what systemd reads of a kill, left on the victim's directory.
//! - [`actors`]: a few threads with locked stacks that do deeds, so that a write stuck behind a starving mkdir keeps nobody
//!   from sensing.

pub mod actors;
pub mod deed;
pub mod first_kill;
pub mod handlers;
pub mod hooks;
pub mod ladder;
pub mod listeners;
pub mod marks;
pub mod outcome;
pub mod rung;
