//! A tree of ordinary files that stands in for a cgroup file system, and the warden on it: inotify brings the notices, as it
//! does there.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]
#![allow(dead_code, reason = "each test uses a part")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use oomwarden::act::hooks::Starter;
use oomwarden::cgroup::root::Root;
use oomwarden::control::board::Board;
use oomwarden::control::mailbox::Mailbox;
use oomwarden::control::pulse::Pulse;
use oomwarden::daemon::reload::{self, Watcher};
use oomwarden::metrics::counters::Counters;
use oomwarden::policy::{self, Source};
use oomwarden::record::file::JournalTo;
use oomwarden::record::journal::Context;
use oomwarden::record::pool::Pool;
use oomwarden::record::recent::Recent;
use oomwarden::record::recorder::Recorder;
use oomwarden::serve::{Limits, Server, ServerHandle};
use oomwarden::state::StateDir;
use oomwarden::warden::hooks::Hooks;
use oomwarden::warden::reach::Reach;
use oomwarden::warden::{Setup, Warden};

/// Whoever is fattest below /t goes when /t runs into its limit, as [`out_of_memory`] says it did.
pub const CHOOSE: &str = "
version: 1
rules:
  - name: choose
    watch: /t
    when:
      - event: oom
    victim: {among: /t/*}
";

/// The group /t has run into its limit.
pub fn out_of_memory(root: &Path) {
    change(&root.join("t/memory.events.local"), "low 0\nhigh 0\nmax 0\noom 1\n");
}

/// Makes a group, or puts one back to how it began.
pub fn group(root: &Path, path: &str, anon: u64) {
    let dir = root.join(path);
    fs::create_dir_all(&dir).unwrap();
    for (file, text) in [
        ("cgroup.type", "domain\n"),
        ("cgroup.events", "populated 1\nfrozen 0\n"),
        ("cgroup.procs", ""),
        ("cgroup.kill", ""),
        ("memory.events.local", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0\n"),
        ("memory.current", &format!("{anon}\n")),
        ("memory.stat", &format!("anon {anon}\nfile 0\nshmem 0\ninactive_file 0\nactive_file 0\n")),
        ("memory.swap.current", "0\n"),
        ("memory.max", "max\n"),
        ("memory.high", "max\n"),
        ("memory.oom.group", "0\n"),
    ] {
        fs::write(dir.join(file), text).unwrap();
    }
}

/// In place and in one write, as the kernel's files change.
pub fn change(path: &Path, text: &str) {
    use std::os::unix::fs::FileExt as _;
    File::options().write(true).open(path).unwrap().write_all_at(text.as_bytes(), 0).unwrap();
}

/// Waits for a condition.
pub fn wait(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A warden at work on a tree.
pub struct Machine {
    pub root: PathBuf,
    pub journal: PathBuf,
    pub policy: PathBuf,
    pub board: Arc<Board>,
    pub recent: Arc<Recent>,
    pub mailbox: Mailbox,
    pub pulse: Arc<Pulse>,
    pub counters: Arc<Counters>,
    thread: nix::sys::pthread::Pthread,
    worker: std::thread::JoinHandle<()>,
    recorder: Recorder,
    gate: Arc<Mutex<bool>>,
    opened: Arc<Condvar>,
    stands: Arc<AtomicBool>,
}

impl Machine {
    /// Starts the warden on the groups in `root`; `turned` is called on its thread after every turn of its loop.
    pub fn start(root: &Path, text: &str, mut turned: impl FnMut() + Send + 'static) -> Machine {
        let (gate, opened, stands) = (Arc::new(Mutex::new(false)), Arc::new(Condvar::new()), Arc::new(AtomicBool::new(false)));
        let (its_gate, its_opened, its_stands) = (Arc::clone(&gate), Arc::clone(&opened), Arc::clone(&stands));
        let turned = move || {
            turned();
            let mut closed = its_gate.lock().unwrap();
            its_stands.store(*closed, Ordering::SeqCst);
            while *closed {
                closed = its_opened.wait(closed).unwrap();
            }
            its_stands.store(false, Ordering::SeqCst);
        };
        let fd = rustix::fs::open(root, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
        let policy = Arc::new(policy::load(&[Source::new("test", text)]).unwrap().policy);
        let counters = Arc::new(Counters::new().unwrap());
        let records = Pool::new(16, 64, counters.journal_dropped());
        let journal = root.join("journal");
        let to = JournalTo::File(journal.clone());
        let recent = Arc::new(Recent::default());
        let recorder =
            Recorder::spawn(&records, to, Context::of_this_process(None), counters.journal_dropped(), Arc::clone(&recent)).unwrap();
        let pulse = Arc::new(Pulse::new().unwrap());
        let mailbox = Mailbox::new().unwrap();
        let policy_file = root.join("policy.yaml");
        let file = policy_file.clone();
        let load = move || {
            let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            policy::load(&[Source::new("test", text)]).map(|loaded| loaded.policy).map_err(|_| "bad policy".to_owned())
        };
        reload::start(mailbox.clone(), Watcher::new(vec![]).unwrap(), Arc::clone(&policy), Arc::clone(&counters), Box::new(load)).unwrap();
        let (sender, thread) = std::sync::mpsc::channel();
        let board = Arc::new(Board::new(mailbox.mail()));
        let its_board = Arc::clone(&board);
        let setup = (Arc::new(Root { path: root.into(), dir: fd }), records, Arc::clone(&counters), Arc::clone(&pulse), mailbox.clone());
        let worker = std::thread::spawn(move || {
            let mut set = SigSet::empty();
            set.add(Signal::SIGTERM);
            set.thread_block().unwrap();
            let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).unwrap();
            let ((root, records, counters, pulse, mailbox), board) = (setup, its_board);
            let descriptors = 1000;
            let low_memory = root.path.join("oom_notifier");
            let paused = None;
            let state = StateDir::new(&root.path);
            // The helper is only started for a policy with hooks.
            let starter = Starter::new(env!("CARGO_BIN_EXE_oomwarden").into(), Vec::new());
            let hooks = Hooks::start(starter, None, records.clone(), Context::of_this_process(None), mailbox.mail()).unwrap();
            hooks.prepare(&policy);
            let reach = Reach { listeners: None, hooks: Some(hooks) };
            let setup = Setup {
                root,
                policy,
                psi_groups: 4,
                descriptors,
                records,
                counters,
                pulse,
                mailbox,
                board,
                state,
                paused,
                signals,
                low_memory,
                reach,
                ready: || {},
            };
            let warden = Warden::new(setup).unwrap();
            sender.send(nix::sys::pthread::pthread_self()).unwrap();
            warden.run_watched(turned).unwrap();
        });
        let thread = thread.recv().unwrap();
        let machine = Machine {
            root: root.into(),
            journal,
            policy: policy_file,
            board,
            recent,
            mailbox,
            pulse,
            counters,
            thread,
            worker,
            recorder,
            gate,
            opened,
            stands,
        };
        wait("the groups are armed", || machine.pulse.is_armed());
        machine
    }

    /// Waits until the warden has gone through a turn.
    pub fn turn(&self) {
        // The answer comes in mid-turn; one more turn and the first is over.
        for _ in 0..2 {
            let question = self.pulse.ask();
            wait("a turn", || self.pulse.is_answered(question));
        }
    }

    /// Does something between two turns of the warden, so that it notices all of it at once.
    pub fn stall(&self, something: impl FnOnce()) {
        *self.gate.lock().unwrap() = true;
        // Wakes it: the turn ends at the gate.
        let _ = self.pulse.ask();
        wait("the warden stands still", || self.stands.load(Ordering::SeqCst));
        something();
        *self.gate.lock().unwrap() = false;
        self.opened.notify_all();
        self.turn();
    }

    /// Waits until a group that was just made is known and its counters are compared.
    pub fn settle(&self, group: &str) {
        let groups = || {
            let mut count = 0;
            let mut left = vec![self.root.clone()];
            while let Some(dir) = left.pop() {
                count += 1;
                left.extend(fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.path().is_dir()).map(|entry| entry.path()));
            }
            count
        };
        wait(&format!("{group} is known"), || {
            self.turn();
            self.board.standing().groups == groups()
        });
    }

    /// Whether cgroup.kill of a group was written.
    pub fn killed(&self, group: &str) -> bool {
        fs::read_to_string(self.root.join(group).join("cgroup.kill")).is_ok_and(|text| text == "1")
    }

    /// The journal's lines.
    pub fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.journal).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The metrics.
    pub fn metrics(&self) -> String {
        self.counters.encode().unwrap()
    }

    /// Serves its metrics at a port of this machine.
    pub fn serve(&self) -> ServerHandle {
        let server = Server::bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
        server.spawn(Arc::clone(&self.counters), Arc::clone(&self.pulse), Limits::default()).unwrap()
    }

    /// Offers another policy, and waits for nothing.
    pub fn offer(&self, text: &str) {
        fs::write(&self.policy, text).unwrap();
        self.mailbox.ask();
    }

    /// Puts another policy in force.
    pub fn reload(&self, text: &str) {
        fs::write(&self.policy, text).unwrap();
        let reloads = || self.metrics().lines().find(|line| line.starts_with("oomwarden_policy_reloads_total ")).map(str::to_owned);
        let before = reloads();
        self.mailbox.ask();
        wait("the reload", || reloads() != before);
        self.turn();
    }

    /// Stops the warden.
    pub fn stop(self) {
        nix::sys::pthread::pthread_kill(self.thread, Signal::SIGTERM).unwrap();
        self.worker.join().unwrap();
        assert!(self.recorder.shutdown(Duration::from_secs(10)));
    }
}
