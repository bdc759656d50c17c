//! Anonymous memory, or a tmpfs, up to a size and at a rate.

use std::fs::File;
use std::io::Write;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::bystanders;
use super::start::Words;
use crate::outcome::{Doing, Outcome};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// What an honoured SIGTERM makes the process exit with.
pub const HONOURED: i32 = 42;

/// `mib=`: how much; `rate=`: MiB a second, 0 for as fast as it goes; `then=hold|touch|exit`: sleep, write to it for ever
/// (with `rest=` milliseconds of sleep after each round), or end;
/// `term=ignore|exit`: hold SIGTERM off, or exit with [`HONOURED`] (the default is the kernel's);
/// `usr1=NAME`: begin only when SIGUSR1 arrives, and be called NAME from the moment on at which it may.
pub fn run(words: &Words) -> Outcome<ExitCode> {
    let mib = words.number("mib", 64)? as usize;
    let rate = words.number("rate", 0)?;
    on_term(&words.text("term"))?;
    if let Some(name) = words.raw("usr1") {
        block(Signal::SIGUSR1)?;
        std::fs::write("/proc/self/comm", name.as_encoded_bytes()).doing("take another name")?;
        wait_for(Signal::SIGUSR1)?;
    }
    let began = Instant::now();
    let mut memory = Vec::with_capacity(mib);
    for at in 0..mib {
        memory.push(chunk(at as u64));
        let due = ((at as u64 + 1) * 1000).checked_div(rate).map_or(Duration::ZERO, Duration::from_millis);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    match words.text("then").as_str() {
        "hold" => Ok(bystanders::sleep()),
        "exit" => Ok(ExitCode::SUCCESS),
        _ => touch(&mut memory, Duration::from_millis(words.number("rest", 0)?)),
    }
}

/// `mib=`: maps so much, asks for pages of NUMA node `node=` only for that stretch, and fills it.
pub fn bound(words: &Words) -> Outcome<ExitCode> {
    let bytes = (words.number("mib", 64)? as usize) << 20;
    let memory = crate::sys::map_on_node(bytes, words.number("node", 0)? as u32).doing("map memory of one node")?;
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    Ok(bystanders::sleep())
}

/// So many MiB as fast as it goes; then touches them for ever.
pub fn fill(mib: u64) -> ! {
    let mut memory: Vec<_> = (0..mib).map(chunk).collect();
    touch(&mut memory, Duration::ZERO)
}

fn touch(memory: &mut [Vec<u8>], rest: Duration) -> ! {
    loop {
        for page in memory.iter_mut().flat_map(|chunk| chunk.chunks_mut(PAGE)) {
            page[0] = page[0].wrapping_add(1);
        }
        std::thread::sleep(rest);
    }
}

/// `mib=` of files in the directory `at=`, then sleeps.
pub fn fill_tmpfs(words: &Words) -> Outcome<ExitCode> {
    let directory = words.raw("at").ok_or("tmpfs needs at=DIRECTORY")?;
    let mut file = File::create(std::path::Path::new(directory).join("filler")).doing("create a file on the tmpfs")?;
    for at in 0..words.number("mib", 64)? {
        file.write_all(&chunk(at)).doing("fill the tmpfs")?;
    }
    Ok(bystanders::sleep())
}

/// A family of `of=` processes in the group: this one sleeps and starts the others, of which one grows to `mib=` when it gets
/// SIGUSR1 (it may when it is called `grower`); each of the others holds 1 MiB.
pub fn grow_one_of(words: &Words) -> Outcome<ExitCode> {
    let own = std::env::current_exe().doing("find the own binary")?;
    let mib = words.number("mib", 64)?;
    let mut children = Vec::new();
    for at in 1..words.number("of", 5)? {
        let mut command = std::process::Command::new(&own);
        command.args(["--workload", "hog"]);
        if at == 1 {
            command.args([&format!("mib={mib}"), "usr1=grower"]);
        } else {
            command.args(["mib=1", "then=hold"]);
        }
        children.push(command.spawn().doing("start a child")?);
    }
    Ok(bystanders::sleep())
}

/// `of=` processes beside this one, which sleeps; each fills `mib=`, and may wait for its `usr1=NAME` first.
pub fn herd(words: &Words) -> Outcome<ExitCode> {
    let own = std::env::current_exe().doing("find the own binary")?;
    let mib = words.number("mib", 64)?;
    let mut children = Vec::new();
    for _ in 0..words.number("of", 10)? {
        let mut command = std::process::Command::new(&own);
        command.args(["--workload", "hog", &format!("mib={mib}"), "then=hold"]);
        if let Some(name) = words.raw("usr1") {
            let mut word = std::ffi::OsString::from("usr1=");
            word.push(name);
            command.arg(word);
        }
        children.push(command.spawn().doing("start a child")?);
    }
    Ok(bystanders::sleep())
}

/// `of=` processes, one after the other, of which each fills `mib=` (more than its group has) and is waited for; then sleeps.
pub fn victims(words: &Words) -> Outcome<ExitCode> {
    let own = std::env::current_exe().doing("find the own binary")?;
    let mib = words.number("mib", 64)?;
    for _ in 0..words.number("of", 10)? {
        let mut command = std::process::Command::new(&own);
        command.args(["--workload", "hog", &format!("mib={mib}"), "then=exit", "adj=1000"]);
        command.status().doing("run a child")?;
    }
    Ok(bystanders::sleep())
}

/// One MiB of which half of each page is noise, so that zram gets it to about half; `number` makes its pages differ from others'.
fn chunk(number: u64) -> Vec<u8> {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    let mut bytes = NOISE.get_or_init(noise).clone();
    for page in bytes.chunks_mut(PAGE) {
        page[..8].copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = vec![0; MIB];
    for page in bytes.chunks_mut(PAGE) {
        for word in page[..PAGE / 2].chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
    }
    bytes
}

/// SIGTERM is blocked either way, which needs no handler; before any other thread is there.
fn on_term(how: &str) -> Outcome {
    match how {
        "ignore" => block(Signal::SIGTERM),
        "exit" => {
            block(Signal::SIGTERM)?;
            std::thread::spawn(|| {
                if wait_for(Signal::SIGTERM).is_ok() {
                    std::process::exit(HONOURED);
                }
            });
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Holds a signal off for this thread and those that it starts.
pub fn block(signal: Signal) -> Outcome {
    let mut set = SigSet::empty();
    set.add(signal);
    set.thread_block().doing(format_args!("block {signal}"))
}

fn wait_for(signal: Signal) -> Outcome {
    block(signal)?;
    let mut set = SigSet::empty();
    set.add(signal);
    set.wait().map(drop).doing(format_args!("wait for {signal}"))
}
