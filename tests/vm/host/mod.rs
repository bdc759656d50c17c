//! The host's side: kernels, our module built for them, the initramfs, QEMU, and one named test for each scenario and kernel.

mod archive;
mod cpio;
mod every;
mod examples;
mod headers;
mod initramfs;
mod kernel;
mod kmod;
mod machine;
mod modules;
mod packages;
mod tools;
mod trials;
pub mod vm;

pub use kernel::Series;
pub use machine::Machine;
pub use trials::{run, show};
