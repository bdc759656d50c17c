//! oomwarden: a cgroup v2 aware out-of-memory manager.
pub mod cgroup;
pub mod cli;
pub mod decide;
pub mod policy;
pub mod record;
pub mod units;
