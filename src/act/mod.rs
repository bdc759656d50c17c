//! Deeds: how a verdict is carried out. Nobody here chooses a victim.
//!
//! - [`ladder`]: the rungs as a state machine with deadlines, pure; the warden feeds it and supervises it.
//! - [`rung`]: how each rung went.
//! - [`deed`]: what a rung does to the system; every call may block.
//! - [`actors`]: a few threads with locked stacks that do deeds, so that a write stuck behind a starving mkdir keeps nobody
//!   from sensing.

pub mod actors;
pub mod deed;
pub mod ladder;
pub mod rung;
