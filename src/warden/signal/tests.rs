//! Being the module's handler, on an ordinary file: what is written, in which order, and what is left when a write is refused.

use std::fs;
use std::path::PathBuf;

use nix::sys::eventfd::{EfdFlags, EventFd};
use rustix::io::Errno;

use super::*;
use crate::cgroup::GroupId;
use crate::policy::{Source, load};
use crate::sense::clerk::Reply;
use crate::sense::lms::{Fate, REPORT};

const ANSWERS: &str = "
version: 1
rules:
  - {name: node-oom, watch: /, when: [lms: oom], victim: {among: \"/t/*\"}}
kernel: {hold: 700ms}
";
const HEARS_ONLY: &str = "
version: 1
rules:
  - {name: early, watch: /, when: [lms: warn], victim: {among: \"/t/*\"}}
";

fn policy(text: &str) -> Policy {
    load(&[Source::new("test", text)]).unwrap().policy
}

/// A file that is read for what the module says; what is written to it stands behind that.
struct Module {
    _dir: tempfile::TempDir,
    path: PathBuf,
    said: usize,
    signal: Signal,
    buffer: ReadBuf,
}

impl Module {
    fn new() -> Module {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("oom_notifier");
        fs::write(&path, "").unwrap();
        let signal = Signal::open(&path);
        Module { _dir: dir, path, said: 0, signal, buffer: ReadBuf::new() }
    }

    /// The module says something, and it is read.
    fn says(&mut self, text: &str) -> Option<LmsFacts> {
        self.said = text.len();
        fs::write(&self.path, text).unwrap();
        self.signal.look(&mut self.buffer)
    }

    /// A hold with this number is under way, and others have asked so many times.
    fn holds(&mut self, seq: u64, calls: u64) {
        let text = REPORT.lines().map(|line| match line.split_once(' ').unwrap_or_default() {
            ("level", _) => "level oom\n".to_owned(),
            ("seq" | "hold_seq", _) => format!("{} {seq}\n", line.split(' ').next().unwrap_or_default()),
            ("calls", _) => format!("calls {calls}\n"),
            _ => format!("{line}\n"),
        });
        let text: String = text.collect();
        assert!(self.says(&text).is_some(), "{text}");
    }

    fn is_quiet(&mut self) {
        let text = REPORT.replace("level kill", "level ok");
        assert!(self.says(&text).is_some());
    }

    /// The commands since the module said something.
    fn commands(&self) -> Vec<String> {
        let bytes = fs::read(&self.path).unwrap();
        let written = bytes.split(|byte| *byte == 0).next_back().unwrap_or_default();
        let written = if bytes.contains(&0) { written } else { bytes.get(self.said..).unwrap_or_default() };
        String::from_utf8_lossy(written).lines().map(str::to_owned).collect()
    }

    fn refuses(&self, command: &'static str, errno: Errno) {
        self.signal.device().unwrap().refuses.lock().unwrap().push((command, errno));
    }

    fn enlist(&mut self, text: &str) {
        let node = NodeFacts { swap_total_bytes: 4096, ..NodeFacts::default() };
        self.signal.enlist(&policy(text), &node, Duration::ZERO);
    }
}

#[test]
fn handler_says_how_long_and_how_much_swap_and_makes_a_table_at_once() {
    let mut module = Module::new();
    module.enlist(ANSWERS);
    assert_eq!(module.commands(), ["handler 700", "swap_total 4"]);
    assert!(module.signal.is_enlisted());
    assert_eq!(module.signal.table_due(), Some(Duration::ZERO));
}

#[test]
fn policy_that_answers_no_hold_asks_for_none() {
    let mut module = Module::new();
    module.enlist(HEARS_ONLY);
    assert!(module.commands().is_empty() && !module.signal.is_enlisted());
    module.holds(9, 1);
    assert_eq!(module.signal.take_unanswered(), None, "somebody else's hold");
}

#[test]
fn who_is_refused_hears_levels_and_answers_nothing() {
    for errno in [Errno::BUSY, Errno::PERM, Errno::INVAL] {
        let mut module = Module::new();
        module.refuses("handler", errno);
        module.enlist(ANSWERS);
        assert!(!module.signal.is_enlisted());
        assert_eq!(module.signal.table_due(), None);
        module.holds(9, 1);
        assert!(module.signal.take_news());
        assert_eq!(module.signal.take_unanswered(), None);
    }
}

#[test]
fn half_a_registration_is_taken_back() {
    let mut module = Module::new();
    module.refuses("swap_total", Errno::INVAL);
    module.enlist(ANSWERS);
    assert_eq!(module.commands(), ["handler 700", "release"]);
    assert!(!module.signal.is_enlisted());
}

#[test]
fn leaving_empties_the_table_and_releases_whatever_comes_of_either() {
    let steps = ["clear", "release"];
    for refused in [None, Some("clear"), Some("release")] {
        let mut module = Module::new();
        module.enlist(ANSWERS);
        if let Some(command) = refused {
            module.refuses(command, Errno::IO);
        }
        module.signal.retire();
        let expected: Vec<&str> = steps.into_iter().filter(|step| Some(*step) != refused).collect();
        assert_eq!(module.commands().get(2..).unwrap(), expected);
        assert!(!module.signal.is_enlisted());
        module.holds(9, 1);
        assert_eq!(module.signal.take_unanswered(), None);
    }
}

/// What the clerk was about to write when we left must not stay in force.
#[test]
fn table_that_was_under_way_is_taken_back() {
    let mut module = Module::new();
    module.enlist(ANSWERS);
    let mail = std::sync::Arc::new(EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC).unwrap());
    let clerk = Clerk::start(Arc::clone(&mail)).unwrap();
    let mut table = module.signal.begin_table(Duration::ZERO).unwrap();
    assert!(table.push(Fate::Kill, GroupId(42)));
    module.signal.write_table(table, &clerk);
    assert!(!module.signal.is_settled());
    module.signal.retire();
    mail.read().unwrap();
    let Some(Reply::Table(table, result)) = clerk.reply() else { panic!("no table") };
    module.signal.table_written(table, result, Duration::ZERO);
    assert!(module.signal.is_settled());
    assert_eq!(module.commands().last().map(String::as_str), Some("clear"));
}

#[test]
fn hold_is_answered_once_and_again_only_if_somebody_asks_after_the_victims_end() {
    let ms = Duration::from_millis;
    let mut module = Module::new();
    module.enlist(ANSWERS);
    module.holds(9, 5);
    assert_eq!(module.signal.take_unanswered(), Some(9));
    assert_eq!(module.signal.take_unanswered(), None);
    module.signal.relieved(ms(10));
    let due = module.signal.relook_due().unwrap();
    module.holds(9, 5);
    module.signal.relook(due);
    assert_eq!(module.signal.take_unanswered(), None, "nobody has asked");
    let due = module.signal.relook_due().unwrap();
    module.holds(9, 6);
    module.signal.relook(due);
    assert_eq!(module.signal.take_unanswered(), Some(9));
    assert_eq!(module.signal.relook_due(), None);
    module.signal.relieved(ms(90));
    module.is_quiet();
    module.signal.relook(ms(200));
    assert_eq!(module.signal.relook_due(), None, "the hold is over");
    module.holds(12, 7);
    assert_eq!(module.signal.take_unanswered(), Some(12));
}

#[test]
fn text_that_is_not_understood_is_news_once_and_no_level() {
    let mut module = Module::new();
    module.holds(9, 5);
    assert!(module.signal.take_news());
    assert_eq!(module.says("level furious\n"), None);
    assert!(module.signal.take_news(), "the gauges have to fall");
    assert!(module.signal.report().is_none());
    assert_eq!(module.says("level furious\n"), None);
    assert!(!module.signal.take_news());
    module.holds(9, 5);
    assert!(module.signal.take_news());
}

/// The kernel tells of no growth, so the table is looked at without a notice, more and more rarely.
#[test]
fn table_is_looked_at_again_less_and_less_often_while_nothing_is_told() {
    let mut module = Module::new();
    module.enlist(ANSWERS);
    module.is_quiet();
    let look = |module: &mut Module, clerk: &Clerk| {
        let due = module.signal.table_due().unwrap();
        let mut table = module.signal.begin_table(due).unwrap();
        table.copy_from(&module.signal.table);
        module.signal.write_table(table, clerk);
        due
    };
    let clerk = Clerk::start(std::sync::Arc::new(EventFd::new().unwrap())).unwrap();
    let mut before = look(&mut module, &clerk);
    let mut pauses = |module: &mut Module| {
        let due = look(module, &clerk);
        (due - std::mem::replace(&mut before, due)).as_secs()
    };
    let seen: Vec<u64> = (0..7).map(|_| pauses(&mut module)).collect();
    assert_eq!(seen, [1, 2, 4, 8, 16, 30, 30]);
    module.signal.table_outdated(Duration::from_secs(92));
    assert_eq!([pauses(&mut module), pauses(&mut module), pauses(&mut module)], [1, 1, 2]);
    module.holds(9, 5);
    pauses(&mut module);
    assert_eq!([pauses(&mut module), pauses(&mut module)], [1, 1], "ranks change by themselves while memory is short");
}
