//! The recorder: a thread that turns records into journal lines and log lines.
//!
//! It may stall with the disk as long as it likes; the pool then drops the oldest records, and nobody waits. A write
//! that fails costs its line, which is counted; the next record is tried anew, and the log tells once a minute.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::file::{Destination, JournalError, JournalFile, JournalTo};
use super::journal::{self, Context};
use super::kernel_kill_line as line;
use super::model::{JudgementRecord, Outcome};
use super::pool::{Pool, Record};
use super::recent::Recent;
use super::words;
use crate::kernel_kills::book::KernelKill;
use crate::threads::{self, Running};

/// Complaints about the journal, at most one in this time.
const COMPLAINT_EVERY: Duration = Duration::from_secs(60);

/// The thread's stack: formatting needs little of it.
const STACK_BYTES: usize = 256 * 1024;

/// The recorder could not start.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The journal can't be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The thread can't be started.
    #[error("recorder thread: {0}; is the limit of processes reached?")]
    Thread(#[source] io::Error),
}

/// The running recorder.
#[derive(Debug)]
pub struct Recorder {
    pool: Pool,
    thread: Running,
}

impl Recorder {
    /// Opens the journal and starts the thread. Lines that can't be written are counted in `dropped`; the last ones are kept in `recent`
    /// as well, also where there is no journal.
    ///
    /// # Errors
    /// The journal can't be opened, or there can be no thread.
    pub fn spawn(
        pool: &Pool,
        to: impl Into<Destination>,
        context: Context,
        dropped: IntCounter,
        recent: Arc<Recent>,
    ) -> Result<Recorder, RecorderError> {
        let file = JournalFile::open(to)?;
        let mut writer = Writer { file, context, dropped, recent, complaint: None, lost: 0, kernel_kills: 0 };
        let records = pool.clone();
        // Outside of the work, so that a panic loses the record and not its slot.
        let mut at_hand: Option<Box<JudgementRecord>> = None;
        let work = move |_| {
            if let Some(unwritten) = at_hand.take() {
                writer.dropped.inc();
                records.release(unwritten);
            }
            while let Some(record) = records.next() {
                match record {
                    Record::Judgement(record) => {
                        writer.record(at_hand.insert(record));
                        at_hand.take().into_iter().for_each(|record| records.release(record));
                    }
                    Record::KernelKill(kill) => writer.record_kernel_kill(&kill),
                }
                if records.is_drained() {
                    writer.file.flush();
                }
            }
            Ok(())
        };
        let thread = threads::watched("recorder", STACK_BYTES, work).map_err(RecorderError::Thread)?;
        Ok(Recorder { pool: pool.clone(), thread })
    }

    /// Records what is queued, flushes and ends the thread. Gives up waiting after `timeout` (a stalled disk must not
    /// keep the daemon from ending); whether all was recorded is returned.
    #[must_use]
    pub fn shutdown(self, timeout: Duration) -> bool {
        self.pool.close();
        self.thread.wait(timeout) && self.pool.is_drained()
    }
}

struct Writer {
    file: JournalFile,
    context: Context,
    dropped: IntCounter,
    recent: Arc<Recent>,
    complaint: Option<Instant>,
    /// Lines lost since the last complaint.
    lost: u64,
    /// Kills by the kernel so far; their ids.
    kernel_kills: u64,
}

impl Writer {
    fn record(&mut self, record: &JudgementRecord) {
        self.log(record);
        if record.outcome == Outcome::Killed {
            self.recent.note_deed(&words::deed(record));
        }
        if record.is_for_the_journal() {
            self.keep(journal::line(record, &self.context).map_err(io::Error::from));
        }
    }

    fn record_kernel_kill(&mut self, kill: &KernelKill) {
        self.kernel_kills += 1;
        let id = format_args!("{}-k{}", self.context.run, self.kernel_kills);
        tracing::warn!(%id, "{}", line::LogLine(kill));
        self.keep(line::json(kill, self.kernel_kills, &self.context).map_err(io::Error::from));
    }

    /// A finished line goes to memory first: the journal may stall.
    fn keep(&mut self, line: io::Result<String>) {
        let written = line.and_then(|line| {
            self.recent.push(&line);
            self.file.write(&line)
        });
        if let Some(error) = self.file.unrotated() {
            self.complain(&format_args!("{error}: it is full and can't be renamed, so it grows on"));
        }
        if let Err(error) = written {
            self.dropped.inc();
            self.lost += 1;
            let lost = self.lost;
            if self.complain(&format_args!("{error}; lines lost since the last report: {lost}; each record tries it anew")) {
                self.lost = 0;
            }
        }
    }

    fn log(&self, record: &JudgementRecord) {
        let id = format_args!("{}-{}", self.context.run, record.id);
        match record.outcome {
            Outcome::NotConfirmed => tracing::debug!(%id, "{}", Lazily(record)),
            Outcome::Observed | Outcome::Recovered | Outcome::Paused | Outcome::Breaker | Outcome::Hurried | Outcome::PutOff => {
                tracing::info!(%id, "{}", Lazily(record))
            }
            Outcome::Killed | Outcome::Ended | Outcome::NoVictim => tracing::warn!(%id, "{}", Lazily(record)),
            Outcome::Failed => tracing::error!(%id, "{}", Lazily(record)),
        }
    }

    /// Whether it was told: once a minute is enough.
    fn complain(&mut self, what: &std::fmt::Arguments<'_>) -> bool {
        if self.complaint.is_some_and(|last| last.elapsed() < COMPLAINT_EVERY) {
            return false;
        }
        let journal = match self.file.to() {
            JournalTo::File(path) => path.display().to_string(),
            JournalTo::Stdout | JournalTo::Nowhere => "standard output".to_owned(),
        };
        tracing::error!("journal {journal}: {what}");
        self.complaint = Some(Instant::now());
        true
    }
}

/// A log line that is only made when somebody listens.
struct Lazily<'a>(&'a JudgementRecord);

impl std::fmt::Display for Lazily<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&words::log_line(self.0))
    }
}

#[cfg(test)]
mod tests;
