//! Files without content.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use super::start::Words;
use crate::outcome::{Doing, Outcome};

/// `count=` empty files in the directory `at=`, numbered `from=`. Their names are as long as names may be, so that each takes memory of its own.
pub fn run(words: &Words) -> Outcome<ExitCode> {
    let place = Path::new(words.raw("at").ok_or("files needs at=DIRECTORY")?);
    let from = words.number("from", 0)?;
    for at in from..from + words.number("count", 1000)? {
        File::create(place.join(format!("{at:0>255}"))).doing("create a file")?;
    }
    Ok(ExitCode::SUCCESS)
}
