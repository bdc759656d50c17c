//! Groups that come and go by the hundred.

use std::path::Path;
use std::process::ExitCode;

use super::start::Words;
use crate::outcome::{Doing, Outcome};

/// What a storm is called once half of its groups have been there.
pub const UP: &str = "storm-is-up";

/// Makes `groups=` groups below the directory `at=`, removes them, and begins again, for ever or `rounds=` times. Is called [`UP`] from the
/// middle of the first round on.
pub fn run(words: &Words) -> Outcome<ExitCode> {
    let directory = Path::new(words.raw("at").ok_or("storm needs at=DIRECTORY")?).to_owned();
    let groups = words.number("groups", 300)?;
    let mut rounds = words.number("rounds", u64::MAX)?;
    while rounds > 0 {
        for at in 0..groups {
            let group = directory.join(format!("g{at}"));
            std::fs::create_dir(&group).doing(format_args!("create {}", group.display()))?;
            if at == groups / 2 {
                std::fs::write("/proc/self/comm", UP).doing("take another name")?;
            }
        }
        for at in 0..groups {
            let group = directory.join(format!("g{at}"));
            std::fs::remove_dir(&group).doing(format_args!("remove {}", group.display()))?;
        }
        rounds -= 1;
    }
    Ok(ExitCode::SUCCESS)
}
