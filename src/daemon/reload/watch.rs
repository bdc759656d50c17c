//! What happens to a policy's files, by inotify on the directories in which they, and the symlinks on the way to them, stand.
//!
//! A policy that is one file is whole when that one is closed or renamed, and one that lies behind a symlink when the link is
//! swapped (as Kubernetes does it with `..data`). Any other change of a policy of several files is but a part of one.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};

use super::settle::Part;
use crate::policy::files;

/// Room for a few events with the longest names.
const BUFFER_BYTES: usize = 4096;
/// How many symlinks of a path are followed: as many as the kernel follows.
const MOST_LINKS: usize = 40;
/// How often directories that are made meanwhile are gone after.
const MOST_STEPS: usize = 64;

/// What became of the policy's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// They are whole.
    Whole,
    /// One of several has changed.
    Part(Part),
    /// A directory on the way to one is there.
    Nearer,
    /// The rights of one were changed.
    Rights,
}

/// Device and inode of a directory: its path may lead to another one meanwhile.
type Identity = (u64, u64);

fn identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|there| (there.dev(), there.ino()))
}

/// Watches the policy's files.
#[derive(Debug)]
pub struct Watcher {
    inotify: Inotify,
    paths: Vec<PathBuf>,
    directories: HashMap<WatchDescriptor, Identity>,
    buffer: Vec<u8>,
}

impl Watcher {
    /// Watches what these paths lead to now: files or directories; none for the compiled-in policy, which can't change.
    ///
    /// # Errors
    /// No inotify.
    pub fn new(paths: Vec<PathBuf>) -> io::Result<Watcher> {
        let mut watcher = Watcher { inotify: Inotify::init()?, paths, directories: HashMap::new(), buffer: vec![0; BUFFER_BYTES] };
        watcher.renew();
        Ok(watcher)
    }

    /// Watches what the paths lead to now: a swapped symlink may point elsewhere, and a directory may have been made.
    pub fn renew(&mut self) {
        let several = self.paths.len() > 1;
        let mut watched: Vec<PathBuf> = Vec::new();
        // A directory that was made before the one above it was watched is told of by nobody.
        for _ in 0..MOST_STEPS {
            let known = watched.len();
            for path in self.paths.clone() {
                for place in places(&path) {
                    if watched.contains(&place) {
                        continue;
                    }
                    // Only of several files it matters who is in the middle of writing one.
                    if let Err(error) = self.watch(&place, several || place == path) {
                        tracing::warn!("{}: changes are not noticed: {error}; reload by SIGHUP", place.display());
                    }
                    watched.push(place);
                }
                if path.is_dir() {
                    // Another directory may take its place. Where that can't be watched, files in it still are.
                    let _ = self.watch(&parent(&path), false);
                }
            }
            if watched.len() == known {
                return;
            }
        }
    }

    /// Whether all paths lead somewhere.
    #[must_use]
    pub fn are_all_there(&self) -> bool {
        self.paths.iter().all(|path| path.exists())
    }

    fn watch(&mut self, place: &Path, with_writes: bool) -> io::Result<()> {
        let comes = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::CREATE;
        let mask = comes | WatchMask::MOVED_FROM | WatchMask::DELETE | WatchMask::ATTRIB | WatchMask::ONLYDIR | WatchMask::MASK_ADD;
        let mask = if with_writes { mask | WatchMask::MODIFY } else { mask };
        let watch = self.inotify.watches().add(place, mask)?;
        if let Some(identity) = identity(place) {
            self.directories.insert(watch, identity);
        }
        Ok(())
    }

    /// Tells what happened since the last call.
    pub fn changes(&mut self, mut each: impl FnMut(Change)) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Ok(events) = self.inotify.read_events(&mut buffer) {
            let mut any = false;
            for event in events {
                any = true;
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    each(Change::Part(Part::Unknown));
                }
                if event.mask.contains(EventMask::IGNORED) {
                    // A directory in which something of the policy stood is no more.
                    self.directories.remove(&event.wd);
                    each(Change::Part(Part::Unknown));
                }
                if event.mask.contains(EventMask::ATTRIB) && event.name.is_none() {
                    // Those of the directory itself.
                    each(Change::Rights);
                }
                let Some((name, at)) = event.name.zip(self.directories.get(&event.wd)) else { continue };
                if let Some(change) = classify(&self.paths, *at, name, event.mask) {
                    each(change);
                }
            }
            if !any {
                break;
            }
        }
        self.buffer = buffer;
    }
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// What an event says of one of the policy's paths.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OfPath {
    /// The path leads elsewhere, as a whole.
    Swapped,
    /// It is a file, which is there and whole.
    File,
    Part(Part),
}

/// What an event in the directory `at` says of the policy.
fn classify(paths: &[PathBuf], at: Identity, name: &OsStr, mask: EventMask) -> Option<Change> {
    if mask.contains(EventMask::ATTRIB) {
        let ours = |path: &PathBuf| {
            let target = path.canonicalize().unwrap_or_else(|_| path.clone());
            [path, &target].into_iter().any(|place| place.file_name() == Some(name)) || path.is_dir() && files::is_policy_name(name)
        };
        return paths.iter().any(ours).then_some(Change::Rights);
    }
    of_policy(paths, at, name, mask).or_else(|| {
        let made = mask.contains(EventMask::ISDIR) && mask.intersects(EventMask::CREATE | EventMask::MOVED_TO);
        (made && paths.iter().any(|path| is_on_the_way(path, name))).then_some(Change::Nearer)
    })
}

fn of_policy(paths: &[PathBuf], at: Identity, name: &OsStr, mask: EventMask) -> Option<Change> {
    let found: Vec<OfPath> = paths.iter().filter_map(|path| of_path(path, at, name, mask)).collect();
    let swapped = found.len() == paths.len() && found.iter().all(|found| *found == OfPath::Swapped);
    match found.into_iter().next()? {
        OfPath::Swapped if swapped && !files::is_between(paths) => Some(Change::Whole),
        OfPath::Swapped => Some(Change::Part(Part::Unknown)),
        OfPath::File if paths.len() == 1 => Some(Change::Whole),
        OfPath::File => Some(Change::Part(Part::Done(name.to_owned()))),
        OfPath::Part(part) => Some(Change::Part(part)),
    }
}

fn of_path(path: &Path, at: Identity, name: &OsStr, mask: EventMask) -> Option<OfPath> {
    let stands_at = |place: &Path| place.file_name() == Some(name) && identity(&parent(place)) == Some(at);
    let comes = mask.intersects(EventMask::MOVED_TO | EventMask::CREATE);
    let is_directory = path.is_dir();
    let is_link = |link: &Path| comes && stands_at(link) && link.is_symlink();
    let links = links(path);
    // The last link of a file's path may be the file itself: whole at once, too.
    if links.iter().any(|link| is_link(link)) {
        return Some(OfPath::Swapped);
    }
    if !is_directory {
        let target = path.canonicalize().ok();
        let is_file =
            stands_at(path) || target.is_some_and(|target| stands_at(&target)) || (name == "..data" && leads_through_data(path, at));
        return match () {
            () if !is_file => None,
            () if mask.intersects(EventMask::CLOSE_WRITE | EventMask::MOVED_TO) => Some(OfPath::File),
            () if mask.contains(EventMask::MODIFY) => Some(OfPath::Part(Part::Writing(name.to_owned()))),
            // A file is created before it is written; a missing one is not yet another.
            () => None,
        };
    }
    if identity(path) == Some(at) {
        if name == "..data" && comes {
            return Some(OfPath::Swapped);
        }
        if files::is_policy_name(name) {
            return Some(OfPath::Part(in_directory(path, name, mask)));
        }
    }
    // The directory itself is another one now.
    let moved = stands_at(path) && mask.contains(EventMask::MOVED_TO);
    let other = stands_at(path) && mask.intersects(EventMask::CREATE | EventMask::DELETE | EventMask::MOVED_FROM);
    if moved { Some(OfPath::Swapped) } else { other.then_some(OfPath::Part(Part::Unknown)) }
}

/// Whether a file's own directory is the one at which its `..data` was swapped.
fn leads_through_data(path: &Path, at: Identity) -> bool {
    identity(&parent(path)) == Some(at)
}

/// What an event says of a file in a directory of policies.
fn in_directory(directory: &Path, name: &OsStr, mask: EventMask) -> Part {
    if mask.contains(EventMask::MODIFY) {
        return Part::Writing(name.to_owned());
    }
    // Made to be written; a link, be it hard or not, is whole at once.
    let is_new = |there: std::fs::Metadata| there.is_file() && there.nlink() == 1;
    if mask.contains(EventMask::CREATE) && directory.join(name).symlink_metadata().is_ok_and(is_new) {
        return Part::Writing(name.to_owned());
    }
    Part::Done(name.to_owned())
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// The symlinks on the way to what a path names.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut ways = vec![path.to_path_buf()];
    while let Some(way) = ways.pop() {
        for link in way.ancestors().filter(|part| part.is_symlink()) {
            if found.len() < MOST_LINKS && !found.iter().any(|known| known == link) {
                ways.extend(link.read_link().map(|target| parent(link).join(target)));
                found.push(link.to_path_buf());
            }
        }
    }
    found
}

/// What the symlinks on the way to a path name.
fn targets(path: &Path) -> impl Iterator<Item = PathBuf> {
    links(path).into_iter().filter_map(|link| Some(parent(&link).join(link.read_link().ok()?)))
}

/// Whether a directory of that name, where it stands, may be one on the way to a path.
fn is_on_the_way(path: &Path, name: &OsStr) -> bool {
    let named = |path: &Path| path.ancestors().any(|part| part.file_name() == Some(name));
    named(path) || targets(path).any(|target| named(&target))
}

/// The directory in which a path stands, or would stand; where there is none, the nearest one above it.
fn nearest_directory(path: &Path) -> PathBuf {
    let mut place = parent(path);
    while !place.is_dir() && place != Path::new(".") {
        place = parent(&place);
    }
    place
}

/// The directories to watch for one path.
fn places(path: &Path) -> impl Iterator<Item = PathBuf> {
    let target = path.canonicalize().ok();
    let directory = path.is_dir().then(|| path.to_path_buf());
    let own = (!path.is_dir()).then(|| nearest_directory(path));
    let beside = links(path).into_iter().map(|link| parent(&link));
    let missing = targets(path).filter(|target| !target.exists()).map(|target| nearest_directory(&target));
    let known = [directory, own, target.filter(|target| !target.is_dir()).map(|target| parent(&target))];
    known.into_iter().flatten().chain(beside).chain(missing)
}
