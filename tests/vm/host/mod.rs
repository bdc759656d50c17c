//! The host's side: kernels, the initramfs, QEMU, and one named test for each scenario and kernel.

mod cpio;
mod initramfs;
mod kernel;
mod modules;
mod tools;
mod trials;
pub mod vm;

pub use kernel::Series;
pub use trials::{run, show};
