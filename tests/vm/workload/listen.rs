//! Processes that can be told to free memory: at the pressure socket.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::start::Words;
use crate::outcome::{Doing, Outcome};

/// `at=SOCKET`, `of=` connections, `mib=` held all the time, `deaf=` connections that are never read. Into `mark=FILE` goes a line
/// `ready`, then for each warning that arrives microseconds since the epoch and the number of the connection.
pub fn listen(words: &Words) -> Outcome<ExitCode> {
    let socket = words.raw("at").ok_or("listen needs at=SOCKET")?;
    let mark = words.raw("mark").ok_or("listen needs mark=FILE")?;
    let memory = vec![1_u8; (words.number("mib", 1)? as usize) << 20];
    std::hint::black_box(&memory);
    let connect = || UnixStream::connect(Path::new(socket)).doing(format_args!("connect to {socket:?}"));
    let _deaf: Vec<UnixStream> = (0..words.number("deaf", 0)?).map(|_| connect()).collect::<Outcome<_>>()?;
    let mut ears: Vec<UnixStream> = (0..words.number("of", 1)?).map(|_| connect()).collect::<Outcome<_>>()?;
    let mut mark = std::fs::File::create(mark).doing("create the mark")?;
    mark.write_all(b"ready\n").doing("write the mark")?;
    loop {
        let mut fds: Vec<PollFd<'_>> = ears.iter().map(|ear| PollFd::new(ear.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::NONE).doing("poll")?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        for (at, ear) in ears.iter_mut().enumerate().filter(|(at, _)| ready[*at]) {
            let read = ear.read(&mut [0; 256]).doing("read from the pressure socket")?;
            ensure!(read > 0, "the pressure socket was closed");
            mark.write_all(format!("{now} {at}\n").as_bytes()).doing("write the mark")?;
        }
    }
}

/// Holds `mib=` and then writes to `file=` for ever.
pub fn write_for_ever(words: &Words) -> Outcome<ExitCode> {
    let memory = vec![1_u8; (words.number("mib", 1)? as usize) << 20];
    std::hint::black_box(&memory);
    let mut file = std::fs::File::create(words.raw("file").ok_or("write needs file=FILE")?).doing("create a file")?;
    loop {
        file.write_all(&[1; 4096]).doing("write")?;
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
