//! The last policy that was good: used at a start with one that is not.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::StateDir;
use crate::policy::Source;
use crate::policy::source::MAX_SOURCE_BYTES;

/// The file.
pub const NAME: &str = "last-good-policy.json";
/// The most that is read of it: JSON may write a byte of text as six.
const MOST_BYTES: u64 = 64 * MAX_SOURCE_BYTES as u64;

#[derive(Serialize, Deserialize)]
struct Kept {
    v: u32,
    time: Timestamp,
    hash: String,
    sources: Vec<KeptSource>,
}

#[derive(Serialize, Deserialize)]
struct KeptSource {
    name: String,
    text: String,
}

/// A policy that was in force once.
#[derive(Debug)]
pub struct LastGood {
    /// Its texts, as they were given.
    pub sources: Vec<Source>,
    /// When it was taken over first.
    pub time: SystemTime,
}

/// Reads it, if there is one.
///
/// # Errors
/// A file that can't be read, or was not written by oomwarden.
pub fn last_good(state: &StateDir) -> io::Result<Option<LastGood>> {
    let Some(content) = state.read(NAME, MOST_BYTES)? else { return Ok(None) };
    let kept: Kept = serde_json::from_slice(&content)?;
    let sources = kept.sources.into_iter().map(|source| Source::new(&source.name, source.text)).collect();
    Ok(Some(LastGood { sources, time: SystemTime::from(kept.time) }))
}

/// Keeps each policy that is taken over.
#[derive(Debug)]
pub struct Keeper {
    state: StateDir,
    kept: Mutex<Option<Arc<str>>>,
    told: AtomicBool,
}

impl Keeper {
    /// In this directory.
    #[must_use]
    pub fn new(state: StateDir) -> Keeper {
        Keeper { state, kept: Mutex::new(None), told: AtomicBool::new(false) }
    }

    /// Keeps the texts of a sound policy with this fingerprint. Where that can't be done it is said once, and all else goes on. May
    /// block as long as the disk does.
    pub fn keep(&self, sources: &[Source], hash: &Arc<str>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref() == Some(hash) {
            return;
        }
        match self.write(sources, hash) {
            Ok(()) => *kept = Some(Arc::clone(hash)),
            Err(error) if !self.told.swap(true, Ordering::SeqCst) => {
                tracing::warn!(
                    "{}: {error}: the policy is not kept, so that a start with a broken one will have none to go by",
                    self.state.path_of(NAME).display()
                );
            }
            Err(_) => {}
        }
    }

    fn write(&self, sources: &[Source], hash: &str) -> io::Result<()> {
        let source = |source: &Source| {
            // A sound policy is text.
            let text = String::from_utf8(source.text().to_vec()).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            Ok(KeptSource { name: source.name().to_owned(), text })
        };
        let sources = sources.iter().map(source).collect::<io::Result<_>>()?;
        let kept = Kept { v: 1, time: Timestamp::now(), hash: hash.to_owned(), sources };
        self.state.write(NAME, &serde_json::to_vec_pretty(&kept)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_come_back_as_they_were() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(dir.path());
        assert!(last_good(&state).expect("read").is_none());
        let keeper = Keeper::new(state.clone());
        let texts = ["version: 1\r\n# größe \"quoted\" \\ \u{feff}\n", "version: 1"];
        let sources: Vec<Source> = ["a.yaml", "b.yaml"].into_iter().zip(texts).map(|(name, text)| Source::new(name, text)).collect();
        keeper.keep(&sources, &"hash".into());
        let kept = last_good(&state).expect("read").expect("kept");
        for (source, (name, text)) in kept.sources.iter().zip([("a.yaml", texts[0]), ("b.yaml", texts[1])]) {
            assert_eq!((source.name(), source.text()), (name, text.as_bytes()));
        }
        // The same policy is not written again.
        std::fs::remove_file(state.path_of(NAME)).expect("removed");
        keeper.keep(&sources, &"hash".into());
        assert!(last_good(&state).expect("read").is_none());
        keeper.keep(&sources[..1], &"other".into());
        assert_eq!(last_good(&state).expect("read").expect("kept").sources.len(), 1);
    }

    #[test]
    fn what_was_not_written_by_oomwarden_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(dir.path());
        for content in ["", "{", "{\"v\":1}", "version: 1\n"] {
            std::fs::write(state.path_of(NAME), content).expect("written");
            assert!(last_good(&state).is_err(), "{content:?}");
        }
        // And nothing is lost where there is no directory at all.
        Keeper::new(StateDir::new(std::path::Path::new("/nowhere"))).keep(&[], &"hash".into());
    }
}
