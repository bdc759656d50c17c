//! From facts to a verdict. Pure: no clock, no file, no allocation (into buffers that have room).

pub mod facts;
pub mod verdict;
