//! One running virtual machine and the conversation with the agent in it.
//!
//! Two serial ports: the first is the kernel's console, into a file; the second carries lines of text. To the agent:
//! `run NAME SECONDS`. From it: `ready`, `beat` (once a second: a guest without a heartbeat is wedged), `say TEXT`,
//! `ok`, `fail TEXT`, `dirty TEXT` (the scenario is over but could not be cleaned up after).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::kernel::Kernel;
use super::machine::Machine;
use super::{initramfs, tools};
use crate::guest::places::ROUNDS;
use crate::outcome::{Doing, Outcome};
use crate::scenarios::Scenario;

/// Without hardware acceleration and beside other work a boot takes a few seconds.
const BOOT: Duration = Duration::from_secs(120);
/// How often a boot is tried. Emulated processors sometimes run code that the kernel has just patched as it was before, and crash by it while
/// the kernel sets itself up, before anything of ours runs.
const BOOTS: u32 = 3;
/// A guest in the middle of a global OOM may be silent for a while.
const HEARTBEAT: Duration = Duration::from_secs(45);
/// What the agent may need to end and clean up beyond a scenario's own limit.
const CLEANING: Duration = Duration::from_secs(60);

/// Software emulation with little room for translated code. QEMU walks a list of all that was ever translated from a page of memory whenever
/// somebody writes to it; with the usual room of 1 GiB there was so much after some minutes that clearing one page, used anew as the last of
/// the free ones, took a second, and the processor stood still for twenty.
const TCG: &str = "tcg,thread=multi,tb-size=64";

/// How often a repeated scenario repeats itself where nothing else is said: what fits into CI's time.
const USUAL_ROUNDS: u32 = 5;

fn rounds() -> u32 {
    std::env::var("OOMWARDEN_VM_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(USUAL_ROUNDS)
}

/// How a scenario ended.
pub enum Ended {
    /// As it should.
    Well,
    /// Not as it should; the machine can go on.
    Badly(String),
    /// The machine can't be used any more.
    Unusable(String),
}

/// Why there is no machine.
enum NoBoot {
    /// It ended before its agent was up.
    Crash(String),
    /// Something that would be the same the next time.
    Other(String),
}

impl From<String> for NoBoot {
    fn from(why: String) -> NoBoot {
        NoBoot::Other(why)
    }
}

/// A machine that is up. Dropping it ends QEMU.
pub struct Vm {
    /// Ended when the machine is dropped.
    _qemu: Qemu,
    lines: Receiver<String>,
    commands: UnixStream,
    console: PathBuf,
    /// Holds the socket and the initramfs.
    _directory: tempfile::TempDir,
}

impl Vm {
    /// Boots `kernel` and waits for the agent; once more where the machine ends before the agent is there.
    pub fn boot(kernel: &Kernel, machine: Machine) -> Outcome<Vm> {
        let mut boots = 1;
        loop {
            match Vm::boot_once(kernel, machine) {
                Ok(vm) => return Ok(vm),
                Err(NoBoot::Crash(why)) if boots < BOOTS => println!("vm: boot {boots} of {BOOTS} failed: {why}"),
                Err(NoBoot::Crash(why) | NoBoot::Other(why)) => return Err(why),
            }
            boots += 1;
        }
    }

    fn boot_once(kernel: &Kernel, machine: Machine) -> Result<Vm, NoBoot> {
        let program = tools::find("qemu-system-x86_64")?;
        let directory = tempfile::Builder::new().prefix("oomwarden-vm-").tempdir().doing("make a temporary directory")?;
        let initrd = directory.path().join("initramfs");
        std::fs::write(&initrd, initramfs::build(kernel)?).doing("write the initramfs")?;
        let socket = directory.path().join("agent");
        let listener = UnixListener::bind(&socket).doing("listen for the agent")?;
        listener.set_nonblocking(true).doing("listen for the agent")?;
        // Kept after the run, beside what cargo builds, for whoever wants to see more than its end.
        let console = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("console-{}{}.log", kernel.series, machine.suffix));
        let errors = File::create(directory.path().join("qemu-errors")).doing("make a temporary file")?;
        let accelerator = std::env::var("OOMWARDEN_VM_ACCEL").unwrap_or_else(|_| TCG.to_owned());
        let more = std::env::var("OOMWARDEN_VM_CMDLINE").unwrap_or_default();
        let began = Instant::now();
        let child = Command::new(program)
            .args(["-accel", &accelerator, "-display", "none", "-no-reboot", "-nodefaults", "-no-user-config"])
            .args(machine.arguments())
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .arg("-serial")
            .arg(format!("unix:{}", socket.display()))
            // A disk that is all zeroes and a little slow: where page cache comes from.
            .args(["-blockdev", "driver=null-co,node-name=zeroes,size=1073741824,read-zeroes=on,latency-ns=200000"])
            .args(["-device", "virtio-blk-pci,drive=zeroes"])
            .arg("-kernel")
            .arg(&kernel.image)
            .arg("-initrd")
            .arg(&initrd)
            .arg("-append")
            .arg(format!(
                "console=ttyS0 quiet panic=-1 transparent_hugepage=never log_buf_len=1M {ROUNDS}{} {} {more}",
                rounds(),
                machine.command_line
            ))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .doing("start qemu-system-x86_64")?;
        let mut qemu = Qemu(child);
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) if began.elapsed() < Duration::from_secs(20) && !qemu.gone() => std::thread::sleep(Duration::from_millis(20)),
                Err(_) => {
                    let said = std::fs::read_to_string(directory.path().join("qemu-errors")).unwrap_or_default();
                    return Err(NoBoot::Other(format!("QEMU did not start with -accel {accelerator}: {}", said.trim())));
                }
            }
        };
        stream.set_nonblocking(false).doing("talk to the agent")?;
        let reading = stream.try_clone().doing("talk to the agent")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(reading).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        let vm = Vm { _qemu: qemu, lines, commands: stream, console, _directory: directory };
        loop {
            let left = BOOT.saturating_sub(began.elapsed());
            match vm.lines.recv_timeout(left) {
                Ok(line) if line == "ready" => break,
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(NoBoot::Crash(format!(
                        "the {} kernel ended before the agent was up\n{}",
                        kernel.series,
                        vm.console_tail()
                    )));
                }
                Err(RecvTimeoutError::Timeout) => {
                    let why = format!("the {} kernel did not come up within {} s\n{}", kernel.series, BOOT.as_secs(), vm.console_tail());
                    return Err(NoBoot::Other(why));
                }
            }
        }
        println!("vm: {} up after {:.1} s", kernel.image.file_name().unwrap_or_default().to_string_lossy(), began.elapsed().as_secs_f64());
        Ok(vm)
    }

    /// Runs one scenario; `hear` gets each line that it prints.
    pub fn run(&mut self, scenario: &Scenario, hear: &mut dyn FnMut(&str)) -> Ended {
        let deadline = Instant::now() + scenario.limit + CLEANING;
        if let Err(error) = self.commands.write_all(format!("run {} {}\n", scenario.name, scenario.limit.as_secs()).as_bytes()) {
            return Ended::Unusable(format!("the virtual machine is gone: {error}"));
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ended::Unusable("the guest neither ended the scenario nor gave up on it in time".to_owned());
            }
            match self.lines.recv_timeout(left.min(HEARTBEAT)) {
                Ok(line) => {
                    let (word, text) = line.split_once(' ').unwrap_or((&line, ""));
                    match word {
                        "say" => hear(text),
                        "ok" => return Ended::Well,
                        "fail" => return Ended::Badly(text.to_owned()),
                        "dirty" => return Ended::Unusable(text.to_owned()),
                        _ => {}
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Ended::Unusable(format!("the guest is wedged: no sign of life for {} s", HEARTBEAT.as_secs()));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Ended::Unusable("the guest is gone: a kernel panic, or the agent died".to_owned());
                }
            }
        }
    }

    /// The last lines of the kernel's console.
    pub fn console_tail(&self) -> String {
        let text = std::fs::read(&self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// QEMU's process.
struct Qemu(Child);

impl Qemu {
    fn gone(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
