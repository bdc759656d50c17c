//! oomwarden itself, started as a user would, in a group of its own, and asked by way of its journal and metrics.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use serde_json::Value;

use super::group::Group;
use super::http;
use super::metrics::Metrics;
use super::places;
use super::wait::{self, SOON};
use crate::outcome::{Doing, Outcome};

/// Where it listens.
pub const ADDRESS: &str = "127.0.0.1:19877";

/// How to start it; the defaults are those of nearly every scenario.
pub struct Setup {
    /// Where policy, journal, state and what it says are kept.
    pub files: PathBuf,
    /// `--cgroup-root`.
    pub cgroup_root: String,
    /// The group that it runs in.
    pub group: Option<Group>,
    /// Words for the workload `enter` that starts it, as in `nofile=64 uid=65534`.
    pub enter: String,
    /// Further options.
    pub options: Vec<String>,
    /// The file that it reads, if it is not the one that the policy is written to.
    pub policy_file: Option<PathBuf>,
    /// `--listen`, if it is told.
    pub listen: Option<String>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            files: places::FILES.into(),
            cgroup_root: places::CGROUP.to_owned(),
            group: None,
            enter: String::new(),
            options: Vec::new(),
            policy_file: None,
            listen: Some(ADDRESS.to_owned()),
        }
    }
}

impl Setup {
    /// Writes `policy` and starts the program; nothing is waited for.
    pub fn spawn(self, policy: &str) -> Outcome<Daemon> {
        std::fs::create_dir_all(&self.files).doing(format_args!("create {}", self.files.display()))?;
        let in_files = |name: &str| self.files.join(name);
        std::fs::write(in_files("policy.yaml"), policy).doing("write the policy")?;
        let policy_file = self.policy_file.clone().unwrap_or_else(|| in_files("policy.yaml"));
        let group = match &self.group {
            Some(group) => group.clone(),
            None => Group::new("oomwarden")?,
        };
        let mut join = std::ffi::OsString::from("join=");
        join.push(group.directory());
        let said = in_files("oomwarden.log");
        let log = File::options().create(true).append(true).open(&said).doing("open the log")?;
        let own = std::env::current_exe().unwrap_or_else(|_| places::SELF.into());
        let child = without_settings(Command::new(own))
            .args(["--workload", "enter"])
            .arg(join)
            .args(self.enter.split_whitespace())
            .arg("--")
            .args([program(), "run", "--cgroup-root", &self.cgroup_root])
            .args(self.listen.iter().flat_map(|address| ["--listen", address]))
            .arg("--policy")
            .arg(policy_file)
            .arg("--journal")
            .arg(in_files("journal"))
            .arg("--state")
            .arg(in_files("state"))
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().doing("share the log")?)
            .stderr(log)
            .spawn()
            .doing("start oomwarden")?;
        let address = self.listen.and_then(|address| address.parse().ok()).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 19877)));
        Ok(Daemon { child, files: self.files, said, address, status: None })
    }

    /// Starts the program and waits until it is ready.
    pub fn start(self, policy: &str) -> Outcome<Daemon> {
        let mut daemon = self.spawn(policy)?;
        wait::until("oomwarden is ready", SOON, || {
            ensure!(daemon.running()?, "oomwarden ended at its start ({:?}): {}", daemon.status, daemon.said().trim());
            Ok(http::get(daemon.address, "/-/ready").is_ok_and(|answer| answer.status == 200))
        })?;
        Ok(daemon)
    }
}

/// The running program. Dropping it kills it.
pub struct Daemon {
    child: Child,
    files: PathBuf,
    said: PathBuf,
    address: SocketAddr,
    status: Option<ExitStatus>,
}

impl Daemon {
    /// Starts it with `policy` and waits until it is ready.
    pub fn start(policy: &str) -> Outcome<Daemon> {
        Setup::default().start(policy)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its policy file.
    pub fn policy_file(&self) -> PathBuf {
        self.files.join("policy.yaml")
    }

    /// Everything that it wrote to standard output and error.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.said).unwrap_or_default()).into_owned()
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> Outcome<bool> {
        if self.status.is_none() {
            self.status = self.child.try_wait().doing("ask after oomwarden")?;
        }
        Ok(self.status.is_none())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Outcome {
        signal::kill(Pid::from_raw(self.child.id() as i32), signal).doing(format_args!("send {signal} to oomwarden"))
    }

    /// Waits for its end.
    pub fn end(&mut self, within: Duration) -> Outcome<ExitStatus> {
        wait::until("oomwarden ends", within, || Ok(!self.running()?))?;
        let said = self.said();
        ensure!(!said.contains("panicked at"), "oomwarden panicked: {said}");
        self.status.ok_or_else(|| "no exit status".to_owned())
    }

    /// Ends it in good order: SIGTERM, exit code 0, no panic.
    pub fn stop(mut self) -> Outcome {
        ensure!(self.running()?, "oomwarden ended on its own ({:?}): {}", self.status, self.said().trim());
        self.signal(Signal::SIGTERM)?;
        let status = self.end(SOON)?;
        ensure!(status.code() == Some(0), "oomwarden should exit with 0 at SIGTERM, not {status}");
        Ok(())
    }

    /// The journal as it is written.
    pub fn journal_text(&self) -> String {
        std::fs::read_to_string(self.files.join("journal")).unwrap_or_default()
    }

    /// The journal's lines up to now.
    pub fn journal(&self) -> Outcome<Vec<Value>> {
        let text = self.journal_text();
        // The last line may be half-written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).doing(format_args!("understand the journal line {line:?}"))).collect()
    }

    /// The journal's judgements with this outcome, up to now.
    pub fn judgements(&self, outcome: &str) -> Outcome<Vec<Value>> {
        let wanted = |line: &Value| line["kind"] == "judgement" && line["outcome"] == outcome;
        Ok(self.journal()?.into_iter().filter(wanted).collect())
    }

    /// Waits for a journal line.
    pub fn journalled(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Outcome<Value> {
        wait::find(&format!("the journal holds {what}"), SOON, || Ok(self.journal()?.into_iter().find(|line| wanted(line))))
    }

    /// Waits for the line that says that `group` was killed.
    pub fn killed(&self, group: &Group) -> Outcome<Value> {
        let path = group.path();
        self.journalled(&format!("the kill of {path}"), |line| line["outcome"] == "killed" && line["victim"] == path.as_str())
    }

    /// One scrape.
    pub fn metrics(&self) -> Outcome<Metrics> {
        let answer = http::get(self.address, "/metrics")?;
        ensure!(answer.status == 200, "/metrics answers {}: {}", answer.status, answer.body);
        Ok(Metrics(answer.body))
    }

    /// One sample, 0 where there is none yet.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Outcome<f64> {
        Ok(self.metrics()?.sample(name, labels).unwrap_or(0.0))
    }

    /// Waits until a sample is at least `least`.
    pub fn counted(&self, name: &str, labels: &[(&str, &str)], least: f64) -> Outcome {
        wait::until(&format!("{name}{labels:?} reaches {least}"), SOON, || Ok(self.count(name, labels)? >= least))
    }

    /// How many groups a rule has killed.
    pub fn kills(&self, rule: &str) -> Outcome<f64> {
        self.count("oomwarden_kills_total", &[("rule", rule)])
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Errors mean that it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The program, here or in the virtual machine.
fn program() -> &'static str {
    if Path::new(places::OOMWARDEN).exists() { places::OOMWARDEN } else { env!("CARGO_BIN_EXE_oomwarden") }
}

/// Without the settings of these tests, which are no variables of the program.
fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OOMWARDEN_")) {
        command.env_remove(name);
    }
    command
}

/// What the program prints when one of its other commands is run, which must go well and without complaint.
pub fn ask(args: &[&str]) -> Outcome<String> {
    let (out, said) = told(args)?;
    ensure!(said.is_empty(), "oomwarden {args:?} complains: {said}");
    Ok(out)
}

/// The same with what it says to standard error.
pub fn told(args: &[&str]) -> Outcome<(String, String)> {
    let output = without_settings(Command::new(program())).args(args).output().doing(format_args!("run oomwarden {args:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stderr);
    ensure!(output.status.success(), "oomwarden {args:?} ends with {}: {said}", output.status);
    Ok((text(&output.stdout), said))
}

/// The rung called `name` in a journal line.
pub fn rung<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    line["rungs"].as_array()?.iter().find(|rung| rung["name"] == name)
}

/// The candidate for `group` in a journal line.
pub fn candidate<'a>(line: &'a Value, group: &Group) -> Outcome<&'a Value> {
    let path = group.path();
    let found = line["candidates"].as_array().and_then(|all| all.iter().find(|candidate| candidate["group"] == path.as_str()));
    found.ok_or_else(|| format!("{path} is not among the candidates of {line}"))
}
