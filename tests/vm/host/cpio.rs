//! The `newc` cpio archive that the kernel unpacks as its first root file system.
//!
//! Format: Documentation/driver-api/early-userspace/buffer-format.rst. Stored, not compressed: it is written once and read once.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_644;
const EXECUTABLE: u32 = 0o100_755;
const SYMLINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive under construction. Paths are absolute in the guest; parent directories come by themselves.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<PathBuf>,
}

impl Archive {
    /// An empty directory.
    pub fn directory(&mut self, path: &Path) {
        let mut so_far = PathBuf::new();
        for component in path.components() {
            if let Component::Normal(name) = component {
                so_far.push(name);
                if self.directories.insert(so_far.clone()) {
                    self.entry(&so_far.clone(), DIRECTORY, (0, 0), &[]);
                }
            }
        }
    }

    /// A file that can be executed.
    pub fn executable(&mut self, path: &Path, content: &[u8]) {
        self.parents(path);
        self.entry(path, EXECUTABLE, (0, 0), content);
    }

    /// An ordinary file.
    pub fn file(&mut self, path: &Path, content: &[u8]) {
        self.parents(path);
        self.entry(path, REGULAR, (0, 0), content);
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &Path, target: &str) {
        self.parents(path);
        self.entry(path, SYMLINK, (0, 0), target.as_bytes());
    }

    /// A character device, by major and minor number.
    pub fn character_device(&mut self, path: &Path, device: (u32, u32)) {
        self.parents(path);
        self.entry(path, CHARACTER_DEVICE, device, &[]);
    }

    /// The archive's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(Path::new("TRAILER!!!"), 0, (0, 0), &[]);
        self.bytes
    }

    fn parents(&mut self, path: &Path) {
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
    }

    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_encoded_bytes();
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = name.len() as u32 + 1;
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
