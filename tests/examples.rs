//! The examples for application writers hold to the protocol: they free their memory when bytes arrive, at a socket or a FIFO.
#![allow(clippy::unwrap_used, reason = "helpers of a test may stop at the first surprise")]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Kills and collects its process when dropped.
struct Cache(Child, BufReader<std::process::ChildStdout>);

impl Cache {
    fn start(mut command: Command, watch: &Path) -> Cache {
        command.arg("8").env("MEMORY_PRESSURE_WATCH", watch).env("MEMORY_PRESSURE_WRITE", "aGVsbG8A").stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Cache(child, output)
    }

    fn says(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim() != wanted {
            line.clear();
            assert!(self.1.read_line(&mut line).unwrap() > 0, "it ended without saying {wanted:?}");
        }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn frees_when_told(command: impl Fn() -> Command) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("pressure.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut cache = Cache::start(command(), &socket);
    let (mut peer, _) = listener.accept().unwrap();
    let mut written = [0; 6];
    peer.read_exact(&mut written).unwrap();
    assert_eq!(&written, b"hello\0", "the bytes of MEMORY_PRESSURE_WRITE");
    cache.says("holding 8 MiB");
    peer.write_all(b"warn\n").unwrap();
    cache.says("freed 8 MiB");
    drop(cache);

    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Held open for both, so that neither side sees an end.
    let mut ours = File::options().read(true).write(true).open(&fifo).unwrap();
    let mut cache = Cache::start(command(), &fifo);
    // What it wrote comes back to it in a FIFO: it may have freed its memory at once.
    ours.write_all(b"warn\n").unwrap();
    let mut line = String::new();
    while !line.starts_with("freed") {
        line.clear();
        assert!(cache.1.read_line(&mut line).unwrap() > 0, "it ended without having freed anything");
    }
}

/// Whether a program can be started here; says why the test is left out if not.
fn is_here(program: &str) -> bool {
    let here =
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !here {
        println!("left out: {program} is not installed");
    }
    here
}

#[test]
fn the_python_cache_frees_its_memory_when_told() {
    if is_here("python3") {
        frees_when_told(|| {
            let mut command = Command::new("python3");
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/python/cache.py"));
            command
        });
    }
}

#[test]
fn the_c_cache_compiles_without_a_warning_and_frees_its_memory_when_told() {
    if is_here("cc") {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("cache");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/c/cache.c");
        let compiled = Command::new("cc").args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source).status();
        assert!(compiled.unwrap().success());
        frees_when_told(|| Command::new(&program));
    }
}
