//! Facts for a judgement, between what is sensed and what is decided. Nothing here decides, acts, or holds anything open.
//!
//! - [`court`]: facts gathered for a judgement, and the judgement.
//! - [`sight`]: what a judgement looks at.
//! - `group`: the facts of one group.
//! - [`own`]: which group oomwarden itself runs in.
//! - [`last_resort`]: what a policy says in the kernel module's table.
//! - [`below`]: which group stands below which.

pub mod below;
pub mod court;
mod group;
pub mod last_resort;
pub mod own;
pub mod sight;
