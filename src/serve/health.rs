//! Asks the warden for its pulse, seldom, and waits for the answer, briefly.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::control::pulse::{Pulse, Question};

/// How often an answer is looked for. The warden is not the one who pays for this.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The state of the warden, as far as the server knows.
#[derive(Debug)]
pub struct Health {
    pulse: Arc<Pulse>,
    last: Mutex<Option<(Question, Instant)>>,
    limit: Duration,
    ask_every: Duration,
}

impl Health {
    /// Waits up to `limit` for an answer; asks at most once in `ask_every`.
    #[must_use]
    pub fn new(pulse: Arc<Pulse>, limit: Duration, ask_every: Duration) -> Health {
        Health { pulse, last: Mutex::new(None), limit, ask_every }
    }

    /// Whether the groups are armed.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.pulse.is_armed()
    }

    /// Whether the warden answers.
    ///
    /// # Errors
    /// The time for which it has not.
    pub async fn check(&self) -> Result<(), Duration> {
        let (question, since) = self.question();
        loop {
            if self.pulse.is_answered(question) {
                return Ok(());
            }
            let silence = since.elapsed();
            if silence >= self.limit {
                return Err(silence);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The question to wait for: one that is open or was asked a moment ago, else a new one.
    fn question(&self) -> (Question, Instant) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((question, at)) if !self.pulse.is_answered(question) || at.elapsed() < self.ask_every => (question, at),
            _ => *last.insert((self.pulse.ask(), Instant::now())),
        }
    }
}
