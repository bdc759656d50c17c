//! Hooks from the warden's side: a thread that writes verdicts down for them and hears how they ended.
//!
//! The warden hands over a copy of the judgement's record and goes on; what allocates or may block (making JSON, starting the
//! helper, writing to it) happens on this thread. If the helper is gone or hangs, its hooks are told as failed, the ladders go
//! on, and it is started anew for the next one.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::act::hooks::protocol::{Ended, Inbox, Reply, Request, write_request};
use crate::act::hooks::{Helper, Starter};
use crate::act::rung::RungOutcome;
use crate::policy::model::{Hook, Policy, Rung};
use crate::record::journal::{self, Context};
use crate::record::model::JudgementRecord;
use crate::record::pool::Pool as Records;
use crate::record::words::rung_outcome;
use crate::sandbox;
use crate::sense::poller::Key;
use crate::threads;

/// Hooks that may be asked for and not yet heard of. Not fewer than there are ladders: the queues never grow.
const ROOM: usize = 32;
/// How much later than its time limit a reply may come before the helper counts as hung.
const OVERDUE: Duration = Duration::from_secs(1);
/// What can only be known when the ladder has ended.
const UNKNOWN_YET: [&str; 4] = ["outcome", "processes_killed", "processes_ended", "freed_bytes"];

/// A hook to be run for a ladder.
#[derive(Debug)]
pub struct Ask {
    /// Whose: the ladder, and which attempt.
    pub ladder: Key,
    /// What to run.
    pub hook: Arc<Hook>,
    /// A copy of the judgement up to now; it goes back to the pool.
    pub record: Option<Box<JudgementRecord>>,
}

#[derive(Debug)]
struct Shared {
    asked: Mutex<VecDeque<Ask>>,
    ended: Mutex<VecDeque<(Key, RungOutcome)>>,
    wanted: AtomicBool,
    /// The thread is to end.
    ending: AtomicBool,
    /// It has.
    over: Mutex<bool>,
    is_over: Condvar,
    bell: EventFd,
    mail: Arc<EventFd>,
}

/// The way to the thread; clones share it.
#[derive(Clone, Debug)]
pub struct Hooks(Arc<Shared>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A queue is whole after every operation, whoever panicked meanwhile.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a policy has hooks.
#[must_use]
pub fn are_in(policy: &Policy) -> bool {
    policy.rules.iter().any(|rule| rule.ladder.iter().any(|rung| matches!(rung, Rung::Hook(_))))
}

impl Hooks {
    /// Starts the thread. `starter` starts a helper when there is none; `mail` is written when a hook has ended; `records` get their copies
    /// back; `context` is that of the journal's lines.
    ///
    /// # Errors
    /// EMFILE, or no thread.
    pub fn start(starter: Starter, helper: Option<Helper>, records: Records, context: Context, mail: Arc<EventFd>) -> io::Result<Hooks> {
        let shared = Arc::new(Shared {
            asked: Mutex::new(VecDeque::with_capacity(ROOM)),
            ended: Mutex::new(VecDeque::with_capacity(ROOM)),
            wanted: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            over: Mutex::new(false),
            is_over: Condvar::new(),
            bell: EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?,
            mail,
        });
        let mut broker = Broker {
            shared: Arc::clone(&shared),
            helper: helper.map(Connection::new),
            starter,
            told_place: false,
            records,
            context,
            under_way: Vec::with_capacity(ROOM),
            next_id: 1,
        };
        threads::watched("hooks", 256 * 1024, move |before| {
            if before > 0 {
                broker.lose("was left by the thread that talks to it");
            }
            broker.work()
        })?;
        Ok(Hooks(shared))
    }

    /// Has a helper started if the policy needs one and there is none: better now than when memory is short.
    pub fn prepare(&self, policy: &Policy) {
        if are_in(policy) {
            self.0.wanted.store(true, Ordering::SeqCst);
            self.ring();
        }
    }

    /// Ends the thread, the helper, and whatever hooks left in their group; waits for that, at most `limit`.
    pub fn end(&self, limit: Duration) {
        self.0.ending.store(true, Ordering::SeqCst);
        self.ring();
        // Late or not: the end of the daemon waits no longer.
        let _ = self.0.is_over.wait_timeout_while(lock(&self.0.over), limit, |over| !*over);
    }

    /// Asks for a hook. Waits for nobody. Gives back what was asked for the same ladder before and nobody came to: that ladder has
    /// gone on. So there are never more than ladders.
    #[must_use]
    pub fn ask(&self, ask: Ask) -> Option<Ask> {
        let mut asked = lock(&self.0.asked);
        let before = asked.iter_mut().find(|other| other.ladder.slot == ask.ladder.slot);
        let before = match before {
            Some(before) => Some(std::mem::replace(before, ask)),
            None => {
                asked.push_back(ask);
                None
            }
        };
        drop(asked);
        self.ring();
        before
    }

    /// The next hook that has ended, and how.
    #[must_use]
    pub fn ended(&self) -> Option<(Key, RungOutcome)> {
        lock(&self.0.ended).pop_front()
    }

    fn ring(&self) {
        // Full means that it rings already.
        let _ = self.0.bell.write(1);
    }
}

struct Connection {
    helper: Helper,
    inbox: Inbox,
}

impl Connection {
    fn new(helper: Helper) -> Connection {
        Connection { helper, inbox: Inbox::default() }
    }
}

/// One hook that the helper was asked for.
struct UnderWay {
    id: u64,
    ladder: Key,
    hook: Arc<Hook>,
    overdue: Instant,
}

/// The thread's own.
struct Broker {
    shared: Arc<Shared>,
    helper: Option<Connection>,
    starter: Starter,
    told_place: bool,
    records: Records,
    context: Context,
    under_way: Vec<UnderWay>,
    next_id: u64,
}

impl Broker {
    fn work(&mut self) -> Result<(), String> {
        self.tell_place();
        loop {
            self.wait().map_err(|error| format!("poll: {error}"))?;
            // EAGAIN where only the helper spoke.
            let _ = self.shared.bell.read();
            if self.shared.ending.load(Ordering::SeqCst) {
                self.finish();
                return Ok(());
            }
            if self.shared.wanted.swap(false, Ordering::SeqCst)
                && self.helper.is_none()
                && let Err(error) = self.start_helper()
            {
                tracing::error!("the helper for hooks can't be started: {error}; it is tried again for the next hook");
            }
            self.hear();
            loop {
                let ask = lock(&self.shared.asked).pop_front();
                let Some(ask) = ask else { break };
                self.run(ask);
            }
            if self.under_way.iter().any(|hook| hook.overdue <= Instant::now()) {
                self.lose("does not answer");
            }
        }
    }

    /// The end: the helper, and whatever hooks left in their group.
    fn finish(&mut self) {
        if let Some(connection) = self.helper.take() {
            connection.helper.kill();
        }
        self.starter.undo();
        *lock(&self.shared.over) = true;
        self.shared.is_over.notify_all();
    }

    fn wait(&self) -> nix::Result<()> {
        let mut fds = vec![PollFd::new(self.shared.bell.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.helper.as_ref().map(|connection| PollFd::new(connection.helper.socket.as_fd(), PollFlags::POLLIN)));
        let left = self.under_way.iter().map(|hook| hook.overdue.saturating_duration_since(Instant::now())).min();
        // A millisecond more, so that it is past when we wake.
        let timeout =
            left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    fn start_helper(&mut self) -> io::Result<()> {
        let helper = self.starter.start();
        self.tell_place();
        self.helper = Some(Connection::new(helper?));
        Ok(())
    }

    /// Says once where hooks stand.
    fn tell_place(&mut self) {
        let Some(place) = self.starter.place().filter(|_| !self.told_place) else { return };
        match place {
            Ok(place) => tracing::info!("hooks run in a group of their own, {}", place.hooks().display()),
            Err(why) => tracing::info!("hooks run in oomwarden's own group: {why}"),
        }
        self.told_place = true;
    }

    /// Takes what the helper says.
    fn hear(&mut self) {
        let Some(connection) = &mut self.helper else { return };
        let mut fds = [PollFd::new(connection.helper.socket.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::ZERO) != Ok(1) {
            return;
        }
        let there = connection.inbox.fill(&mut &connection.helper.socket);
        let mut replies = Vec::new();
        let mut sound = there.unwrap_or(false);
        while sound {
            match connection.inbox.take_frame().map(|frame| frame.map(|frame| serde_json::from_slice::<Reply>(&frame))) {
                Ok(Some(Ok(reply))) => replies.push(reply),
                Ok(None) => break,
                Ok(Some(Err(_))) | Err(_) => sound = false,
            }
        }
        for reply in replies {
            self.heard(&reply);
        }
        if !sound {
            self.lose("is gone");
        }
    }

    fn heard(&mut self, reply: &Reply) {
        let Some(at) = self.under_way.iter().position(|hook| hook.id == reply.id) else { return };
        let hook = self.under_way.swap_remove(at);
        let outcome = match reply.ended {
            Ended::Exit(0) => RungOutcome::Done,
            Ended::Exit(code) => RungOutcome::Exit(code),
            Ended::Signal(number) => RungOutcome::Signal(number),
            Ended::Deadline => RungOutcome::Deadline,
            Ended::NotStarted(errno) => RungOutcome::Errno(errno),
        };
        self.tell(hook.ladder, outcome);
        let program = hook.hook.exec.first().map_or("", String::as_str);
        let (ended, took) = (rung_outcome(outcome), reply.took_us / 1000);
        let said = reply.output.trim_end();
        if matches!(reply.ended, Ended::NotStarted(_)) && !said.is_empty() {
            tracing::error!("hook {program}: it is not started ({ended}): {}", said.escape_debug());
            return;
        }
        let cut = if reply.cut { " (and more)" } else { "" };
        let reason = match reply.ended {
            Ended::NotStarted(errno) => sandbox::reason_here(Path::new(program), errno),
            _ => None,
        };
        if let Some(reason) = reason {
            return tracing::warn!("hook {program}: {ended} ({reason})");
        }
        match (outcome == RungOutcome::Done, said.is_empty()) {
            (true, true) => tracing::info!("hook {program}: {ended} in {took} ms"),
            (true, false) => tracing::info!("hook {program}: {ended} in {took} ms; it said: {}{cut}", said.escape_debug()),
            (false, true) => tracing::warn!("hook {program}: {ended} in {took} ms"),
            (false, false) => tracing::warn!("hook {program}: {ended} in {took} ms; it said: {}{cut}", said.escape_debug()),
        }
    }

    fn tell(&self, ladder: Key, outcome: RungOutcome) {
        let mut ended = lock(&self.shared.ended);
        // Full: most of these ladders have gone on, which they do by themselves when their time is over.
        if ended.len() < ended.capacity() {
            ended.push_back((ladder, outcome));
        }
        drop(ended);
        // Only full when the warden has not read for ages; it will.
        let _ = self.shared.mail.write(1);
    }

    fn run(&mut self, ask: Ask) {
        let verdict = ask.record.as_deref().map(|record| verdict(record, &self.context)).unwrap_or_default();
        if let Some(record) = ask.record {
            self.records.discard(record);
        }
        let id = self.next_id;
        self.next_id += 1;
        let timeout_us = u64::try_from(ask.hook.timeout.as_micros()).unwrap_or(u64::MAX);
        let request = Request { id, exec: ask.hook.exec.clone(), timeout_us };
        let overdue = Instant::now() + ask.hook.timeout + OVERDUE;
        self.under_way.push(UnderWay { id, ladder: ask.ladder, hook: ask.hook, overdue });
        let sent = match &self.helper {
            Some(_) => self.send(&request, &verdict),
            None => self.start_helper().and_then(|()| self.send(&request, &verdict)),
        };
        if let Err(error) = sent {
            self.lose(&format!("can't be reached ({error})"));
        }
    }

    fn send(&self, request: &Request, verdict: &str) -> io::Result<()> {
        let connection = self.helper.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        write_request(&mut &connection.helper.socket, request, verdict.as_bytes())
    }

    /// The helper is of no use any more: its hooks have failed, and it is ended.
    fn lose(&mut self, why: &str) {
        tracing::error!("the helper for hooks {why}: hooks under way have failed; it is started anew for the next one");
        if let Some(connection) = self.helper.take() {
            connection.helper.kill();
        }
        self.starter.clear();
        for hook in std::mem::take(&mut self.under_way) {
            self.tell(hook.ladder, RungOutcome::NoHelper);
        }
    }
}

/// What a hook reads: the journal's line of the judgement, without what is not known yet.
fn verdict(record: &JudgementRecord, context: &Context) -> String {
    let line = journal::line(record, context).and_then(|line| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&line));
    match line {
        Ok(mut line) => {
            line.retain(|key, _| !UNKNOWN_YET.contains(&key.as_str()));
            let mut text = serde_json::Value::Object(line).to_string();
            text.push('\n');
            text
        }
        Err(error) => {
            tracing::error!("a verdict can't be written down for a hook: {error}");
            String::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::testing::killed;

    #[test]
    fn a_ladder_that_asks_again_is_not_in_the_queue_twice() {
        let event = || EventFd::from_flags(EfdFlags::EFD_NONBLOCK).unwrap();
        let hooks = Hooks(Arc::new(Shared {
            asked: Mutex::new(VecDeque::with_capacity(ROOM)),
            ended: Mutex::default(),
            wanted: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            over: Mutex::new(false),
            is_over: Condvar::new(),
            bell: event(),
            mail: Arc::new(event()),
        }));
        let hook = Arc::new(Hook { exec: vec!["/bin/true".into()], timeout: Duration::ZERO });
        let ask = |slot, generation| hooks.ask(Ask { ladder: Key { slot, generation }, hook: Arc::clone(&hook), record: None });
        assert!(ask(0, 1).is_none() && ask(1, 1).is_none());
        for generation in 2..100 {
            assert_eq!(ask(0, generation).map(|before| before.ladder.generation), Some(generation - 1));
        }
        let queue: Vec<u32> = lock(&hooks.0.asked).iter().map(|ask| ask.ladder.generation).collect();
        assert_eq!(queue, [99, 1]);
    }

    #[test]
    fn a_hook_reads_the_journals_line_without_its_end() {
        let context = Context { node: "n".into(), run: "r".into() };
        let line: serde_json::Value = serde_json::from_str(&verdict(&killed(), &context)).unwrap();
        assert_eq!((&line["id"], &line["kind"]), (&"r-42".into(), &"judgement".into()));
        assert_eq!((&line["victim"], &line["rungs"][0]["name"]), (&"/tenants.slice/a".into(), &"kill".into()));
        assert!(UNKNOWN_YET.iter().all(|key| line.get(key).is_none()), "{line}");
    }
}
