//! `kill: process`.

use crate::decide::process::{ProcessFact, pick};

fn process(pid: i32, oom_score: u32, held_mib: u64, oom_score_adj: i16) -> ProcessFact {
    ProcessFact { pid, oom_score: Some(oom_score), held_bytes: Some(held_mib << 20), oom_score_adj: Some(oom_score_adj) }
}

#[test]
fn the_highest_score_then_the_most_memory_then_the_youngest() {
    assert_eq!(pick(&[process(5, 10, 900, 0), process(6, 20, 1, 0)]), Some(1));
    assert_eq!(pick(&[process(5, 20, 9, 0), process(6, 20, 1, 0)]), Some(0));
    assert_eq!(pick(&[process(5, 20, 1, 0), process(7, 20, 1, 0), process(6, 20, 1, 0)]), Some(1));
    assert_eq!(pick(&[]), None);
}

#[test]
fn never_init_nor_the_invisible_nor_the_unkillable() {
    assert_eq!(pick(&[process(1, 900, 9, 0), process(0, 900, 9, 0), process(-1, 900, 9, 0), process(8, 900, 9, -1000)]), None);
    let unread = ProcessFact { oom_score_adj: None, ..process(9, 900, 9, 0) };
    assert_eq!(pick(&[unread, process(8, 1, 1, -999)]), Some(1));
}

#[test]
fn what_could_not_be_read_ranks_last() {
    let no_score = ProcessFact { oom_score: None, ..process(9, 0, 900, 0) };
    assert_eq!(pick(&[no_score, process(8, 0, 1, 0)]), Some(1));
    assert_eq!(pick(&[no_score]), Some(0));
}
