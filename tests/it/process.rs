//! Child processes that never outlive the test, whatever ends it, and what each of them needs: a directory and ports.

use rustix::process::{Pid, Signal, kill_process};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A running child. Dropping it kills it.
pub(crate) struct Process {
    child: Mutex<Child>,
    id: u32,
    guard: Mutex<Option<Guard>>,
}

impl Process {
    /// Starts the command with nothing to read, and appends to `log` whatever it prints.
    pub(crate) fn spawn(command: &mut Command, log: &Path) -> Self {
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .expect("the log can be written");
        let err = out.try_clone().expect("a file handle can be cloned");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("{} cannot be run: {error}", command.get_program().display()));
        let id = child.id();
        Self {
            child: Mutex::new(child),
            id,
            guard: Mutex::new(Some(Guard::new("kill -9 \"$1\"", &id.to_string()))),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// # Panics
    /// The process has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.id).ok().and_then(Pid::from_raw);
        kill_process(id.expect("a child has an id"), signal).expect("the process still runs");
    }

    /// How it ended, if it has.
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        let status = self.lock().try_wait().expect("a child can be asked");
        if status.is_some() {
            self.dismiss_guard();
        }
        status
    }

    /// Kills it the hard way (SIGKILL), also when it is stopped, and waits until it is gone.
    pub(crate) fn kill(&self) {
        // First: once the child is gone, its id may become somebody else's.
        self.dismiss_guard();
        let mut child = self.lock();
        drop(child.kill());
        drop(child.wait());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.child.lock().expect("no holder of this lock panics")
    }

    fn dismiss_guard(&self) {
        self.guard.lock().expect("no holder of this lock panics").take();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A directory of its own, removed with all that is in it.
pub(crate) struct Scratch {
    path: PathBuf,
    _guard: Guard,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let path = scratch_dir();
        // Those who write in it are killed at the same moment, and may write a last file.
        let guard = Guard::new("sleep 1; rm -rf \"$1\"", &path.display().to_string());
        Self { path, _guard: guard }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.path));
    }
}

/// Does something when this process is gone without having dropped it: a static is never dropped, and neither is
/// anything after an abort. A shell that waits for the end of its input, which only we hold.
struct Guard(Child);

impl Guard {
    fn new(deed: &str, argument: &str) -> Self {
        let child = Command::new("sh")
            .args([
                "-c",
                &format!("trap '' INT; read -r _; {deed}"),
                "guard",
                argument,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell can be run");
        Self(child)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A fresh directory that its caller removes.
pub(crate) fn scratch_dir() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut name = String::from("dunlin-it");
    write!(
        name,
        "-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
    .expect("a string grows");
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).expect("the temporary directory can be written");
    dir
}

/// Ports that nobody listens on. They lie below those that the kernel gives to outgoing connections, so that a server
/// that ends and starts again finds its own one free.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: usize = 10_000;
    const COUNT: usize = 22_000;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Test processes that run side by side begin at different places.
    let start = usize::try_from(std::process::id()).unwrap_or_default() * 97;
    [(); N].map(|()| {
        (0..COUNT)
            .find_map(|_| {
                let step = NEXT.fetch_add(1, Ordering::Relaxed);
                let port = u16::try_from(FIRST + (start + step) % COUNT).ok()?;
                TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                    .is_ok()
                    .then_some(port)
            })
            .expect("a port is free")
    })
}

/// Polls until `probe` yields something. Blocks the thread: for what happens before a test proper begins.
pub(crate) fn poll_until<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(value) = probe() {
            return Some(value);
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    None
}
