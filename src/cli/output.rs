//! Results on standard output: text with colours where they are wanted, or JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::command::{DONE, FAILED, Failure};

/// Prints a result as JSON, indented.
#[must_use]
pub fn json(result: &impl Serialize) -> u8 {
    print(|out| {
        serde_json::to_writer_pretty(&mut *out, result)?;
        writeln!(out)
    })
}

/// Prints a text. Its colours are left out where standard output is no terminal or NO_COLOR is set.
#[must_use]
pub fn text(text: &str) -> u8 {
    told(write!(anstream::stdout().lock(), "{text}").and_then(|()| anstream::stdout().flush()))
}

/// Prints what `write` writes.
#[must_use]
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> u8 {
    let mut out = io::BufWriter::new(io::stdout().lock());
    told(write(&mut out).and_then(|()| out.flush()))
}

fn told(result: io::Result<()>) -> u8 {
    match result {
        // Who reads no further has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Failure::new(FAILED, format!("cannot print the result: {error}")).report()
        }
        _ => DONE,
    }
}
