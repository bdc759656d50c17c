//! oomwarden: a cgroup v2 aware out-of-memory manager.
pub mod cgroup;
pub mod decide;
pub mod policy;
pub mod record;
pub mod serve;
pub mod units;
