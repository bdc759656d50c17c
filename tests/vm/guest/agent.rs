//! The agent: takes scenarios from the host over the second serial port, runs each in a child, cleans up, reports.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::child::FAILED;
use super::clean::Baseline;
use super::crowd::Standstill;
use super::kernel_log::KernelLog;
use super::places;
use crate::outcome::{Doing, Outcome};
use crate::scenarios::MEASURED;

/// The line to the host; shared with the heartbeat.
#[derive(Clone)]
struct Host(Arc<Mutex<File>>);

impl Host {
    fn say(&self, line: &str) {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // If the port fails nobody is there to be told.
        drop(port.write_all(format!("{line}\n").as_bytes()));
    }
}

/// Serves the host until it goes away.
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("agent: {why}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Outcome {
    std::fs::write("/proc/self/oom_score_adj", "-1000").doing("protect the agent")?;
    std::fs::write(format!("{}/cgroup.subtree_control", places::CGROUP), "+memory +pids +cpu").doing("hand down controllers")?;
    let port = OpenOptions::new().read(true).write(true).open(places::HOST).doing(format_args!("open {}", places::HOST))?;
    let commands = BufReader::new(port.try_clone().doing("share the port")?);
    let host = Host(Arc::new(Mutex::new(port)));
    let baseline = Baseline::take()?;
    let beating = host.clone();
    std::thread::spawn(move || {
        let mut standstill = Standstill::default();
        loop {
            beating.say("beat");
            if let Some(text) = standstill.look() {
                beating.say(&format!("say {MEASURED}standstill: {text}"));
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    host.say("ready");
    for line in commands.lines() {
        let line = line.doing("read from the host")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["run", name, seconds] = words[..] else { continue };
        let limit = Duration::from_secs(seconds.parse().unwrap_or(60));
        let mut log = KernelLog::from_now()?;
        let run = Run::begin(&host, name);
        let ended = run.map(|mut run| (end(&mut run.child, limit), run));
        let restored = baseline.restore();
        let ended = ended.and_then(|(status, run)| run.verdict(status, restored.is_ok()));
        let restored = match log.complaint()? {
            Some(complaint) => Err(format!("a kernel that complains: {complaint}; cleaned up: {restored:?}")),
            None => restored,
        };
        match (ended, restored) {
            (Ok(()), Ok(())) => host.say("ok"),
            (Err(why), Ok(())) => host.say(&format!("fail {why}")),
            (Ok(()), Err(left)) => host.say(&format!("dirty the scenario went well, but left: {left}")),
            (Err(why), Err(left)) => host.say(&format!("dirty {why}; and left: {left}")),
        }
    }
    Ok(())
}

/// A scenario's process and who listens to it.
struct Run {
    child: Child,
    listeners: Vec<JoinHandle<Option<String>>>,
}

impl Run {
    fn begin(host: &Host, name: &str) -> Outcome<Run> {
        let mut child = Command::new(places::SELF)
            .args(["--scenario", name])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .doing(format_args!("start {name}"))?;
        let mut listeners = Vec::new();
        listeners.extend(child.stdout.take().map(|output| forward(output, host)));
        listeners.extend(child.stderr.take().map(|output| forward(output, host)));
        Ok(Run { child, listeners })
    }

    /// `all_ended`: nobody is left who holds the other end of what the listeners read.
    fn verdict(self, status: Outcome<ExitStatus>, all_ended: bool) -> Outcome {
        let mut said = None;
        for listener in self.listeners.into_iter().filter(|listener| all_ended || listener.is_finished()) {
            said = said.or(listener.join().unwrap_or_default());
        }
        match (said, status?) {
            (Some(why), _) => Err(why),
            (None, status) if status.success() => Ok(()),
            (None, status) => Err(format!("the scenario's process ended without a word: {status}")),
        }
    }
}

fn end(child: &mut Child, limit: Duration) -> Outcome<ExitStatus> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().doing("wait for the scenario")? {
            return Ok(status);
        }
        if began.elapsed() > limit {
            signal::killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL).ok();
            drop(child.wait());
            return Err(format!("the scenario took longer than {} s and was ended", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Passes each line on to the host and keeps the one that says why the scenario failed.
fn forward(output: impl Read + Send + 'static, host: &Host) -> JoinHandle<Option<String>> {
    let host = host.clone();
    std::thread::spawn(move || {
        let mut why = None;
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            match line.strip_prefix(FAILED) {
                Some(reason) => why = Some(reason.to_owned()),
                None => host.say(&format!("say {line}")),
            }
        }
        why
    })
}
