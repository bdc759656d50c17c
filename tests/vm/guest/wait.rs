//! Waiting for a condition with a deadline, never for a time.

use std::time::{Duration, Instant};

use super::crowd;
use crate::outcome::Outcome;

/// What a slow machine may need for anything that should happen soon.
pub const SOON: Duration = Duration::from_secs(20);

/// Between two looks.
const STEP: Duration = Duration::from_millis(10);

/// Waits until `look` finds something. Prints where everybody is when that is in vain.
pub fn find<T>(what: &str, within: Duration, mut look: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if began.elapsed() > within {
            crowd::print();
            return Err(format!("waited {:.1} s in vain: {what}", began.elapsed().as_secs_f64()));
        }
        std::thread::sleep(STEP);
    }
}

/// Waits until `holds` does.
pub fn until(what: &str, within: Duration, mut holds: impl FnMut() -> Outcome<bool>) -> Outcome {
    find(what, within, || Ok(holds()?.then_some(())))
}

/// Watches that `holds` goes on holding for a time: for things that must not happen and leave no trace of not happening.
pub fn stays(what: &str, time: Duration, mut holds: impl FnMut() -> Outcome<bool>) -> Outcome {
    let began = Instant::now();
    while began.elapsed() < time {
        ensure!(holds()?, "{what} no longer held after {:.1} s", began.elapsed().as_secs_f64());
        std::thread::sleep(STEP);
    }
    Ok(())
}
