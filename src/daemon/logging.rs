//! Log lines to standard error, by a thread of their own: whoever logs never waits for the reader of standard error.
//!
//! A line that finds the queue full is lost, and the loss is told by the next line that fits.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use clap::ValueEnum;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::journal_stream;
use crate::threads;

/// Lines that may wait.
const QUEUE: usize = 256;
/// How long the end of the program waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people and the system's journal.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What is worse than it should be.
    Warn,
    /// Deeds, reloads, start and stop.
    Info,
    /// Judgements whose conditions did not hold, too.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for tracing::Level {
    fn from(level: LogLevel) -> tracing::Level {
        match level {
            LogLevel::Error => tracing::Level::ERROR,
            LogLevel::Warn => tracing::Level::WARN,
            LogLevel::Info => tracing::Level::INFO,
            LogLevel::Debug => tracing::Level::DEBUG,
            LogLevel::Trace => tracing::Level::TRACE,
        }
    }
}

enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

#[derive(Clone)]
struct Queue {
    lines: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    /// Standard error is systemd's journal.
    journal: bool,
}

/// Collects one line, sent when it is complete.
struct Line {
    queue: Queue,
    text: Vec<u8>,
    prefix: &'static str,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        let text = if self.prefix.is_empty() { text } else { journal_stream::lines(&text, self.prefix) };
        if let Err(TrySendError::Full(_)) = self.queue.lines.try_send(Message::Line(text)) {
            self.queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { queue: self.clone(), text: Vec::with_capacity(160), prefix: "" }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        let prefix = if self.journal { journal_stream::prefix(*meta.level()) } else { "" };
        let mut line = self.make_writer();
        line.prefix = prefix;
        line
    }
}

/// Logging. Dropping it waits until everything logged so far is written, at most [`LAST_LINES`]:
/// also where the start ends early.
pub struct Log(SyncSender<Message>);

impl Drop for Log {
    fn drop(&mut self) {
        let (done, wait) = sync_channel(1);
        if self.0.try_send(Message::Flush(done)).is_ok() {
            // Time out or not: the end of the program waits no longer.
            let _ = wait.recv_timeout(LAST_LINES);
        }
    }
}

/// Starts logging.
///
/// # Errors
/// When the thread can't be started, or logging was started before.
pub fn start(format: LogFormat, level: LogLevel, colours: bool) -> io::Result<Log> {
    let (lines, inbox) = sync_channel(QUEUE);
    let lost = Arc::new(AtomicU64::new(0));
    let journal = journal_stream::is_stderr();
    let queue = Queue { lines: lines.clone(), lost: Arc::clone(&lost), journal };
    threads::watched("log", 64 * 1024, move |_| {
        write(&inbox, &lost, journal);
        Ok(())
    })?;
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::from(level)).with_writer(queue).with_target(false);
    let result = match format {
        // The system's journal stamps lines itself; elsewhere a time helps.
        LogFormat::Text if journal => subscriber.without_time().with_ansi(false).try_init(),
        LogFormat::Text => subscriber.with_ansi(colours).try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    result.map_err(io::Error::other)?;
    Ok(Log(lines))
}

fn write(inbox: &Receiver<Message>, lost: &AtomicU64, journal: bool) {
    let prefix = if journal { journal_stream::prefix(Level::WARN) } else { "" };
    for message in inbox {
        match message {
            Message::Line(line) => {
                let mut stderr = io::stderr().lock();
                // A standard error that is closed can't be told about.
                let _ = stderr.write_all(&line);
                let missed = lost.swap(0, Ordering::Relaxed);
                if missed > 0 {
                    let _ = writeln!(stderr, "{prefix}{missed} log lines were lost: standard error was too slow");
                }
            }
            Message::Flush(done) => {
                // The asker may have given up.
                let _ = done.send(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(journal: bool) -> String {
        let (lines, inbox) = sync_channel(QUEUE);
        let queue = Queue { lines, lost: Arc::default(), journal };
        let subscriber = tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_writer(queue).without_time().with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("refused:\nsecond line");
            tracing::warn!("odd");
            tracing::info!("fine");
            tracing::debug!("more");
        });
        let lines = inbox.try_iter().filter_map(|message| match message {
            Message::Line(line) => Some(String::from_utf8(line).unwrap()),
            Message::Flush(_) => None,
        });
        lines.collect()
    }

    #[test]
    fn in_the_journal_each_line_has_a_priority_and_elsewhere_none() {
        let text = logged(true);
        let priorities: Vec<&str> = text.lines().map(|line| line.get(..3).unwrap()).collect();
        assert_eq!(priorities, ["<3>", "<3>", "<4>", "<6>", "<7>"], "{text}");
        assert!(text.contains("<3>second line\n"), "{text}");
        let text = logged(false);
        assert!(!text.contains("<3>") && text.contains("second line"), "{text}");
    }
}
