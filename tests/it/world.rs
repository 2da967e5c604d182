//! One real `dunlin` process per world: its configuration file, its ports, its log, its end.

use crate::request::{Answer, Call};
use serde_json::json;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long a condition may take before a test gives up on it. Generous, because test machines are shared.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// How many apps of each kind the shared server knows; one test takes one or a few of them.
const POOL: usize = 300;

/// A tenant as the configuration file declares it.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) secret: String,
    pub(crate) settings: Vec<String>,
    pub(crate) limits: Vec<String>,
}

impl App {
    /// An app with default settings but without `subscription_count`, whose events would stand between
    /// the frames that most tests are about.
    pub(crate) fn new(id: usize) -> Self {
        Self::counting(id).with("subscription_count = false")
    }

    /// An app with every setting at its default.
    pub(crate) fn counting(id: usize) -> Self {
        Self {
            id: id.to_string(),
            key: format!("key-of-{id}"),
            secret: format!("secret-of-{id}"),
            settings: Vec::new(),
            limits: Vec::new(),
        }
    }

    /// Adds a line to the app's table, such as `tls_only = true`.
    pub(crate) fn with(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }

    /// Adds a line to the app's limits, such as `connections = 2`.
    pub(crate) fn limit(mut self, line: &str) -> Self {
        self.limits.push(line.to_owned());
        self
    }

    /// The path that an API call of this app starts with.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/apps/{}{rest}", self.id)
    }

    fn to_toml(&self) -> String {
        let Self { id, key, secret, .. } = self;
        let mut text = format!("[[apps]]\nid = \"{id}\"\nkey = \"{key}\"\nsecret = \"{secret}\"\n");
        for line in &self.settings {
            text.push_str(line);
            text.push('\n');
        }
        if !self.limits.is_empty() {
            text.push_str("[apps.limits]\n");
            for line in &self.limits {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

/// What a world is made of; `start` makes it real.
#[derive(Default)]
pub(crate) struct Builder {
    apps: Vec<App>,
    config: String,
    environment: Vec<(String, String)>,
}

impl Builder {
    pub(crate) fn app(mut self, app: &App) -> Self {
        self.apps.push(app.clone());
        self
    }

    /// Adds a piece of TOML in front of the apps, such as `[sockets]\nactivity_timeout_s = 1`.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn toml(&self) -> String {
        let mut text = self.config.clone();
        for app in &self.apps {
            text.push_str(&app.to_toml());
        }
        text
    }

    /// Starts the server and waits until it says that it is ready.
    pub(crate) fn start(self) -> World {
        // Between choosing a free port and binding it another test may take it: then choose again.
        let mut last_log = String::new();
        for _ in 0..5 {
            match self.try_start() {
                Ok(world) => return world,
                Err(log) => last_log = log,
            }
            if !last_log.contains("cannot listen") {
                break;
            }
        }
        panic!("the server did not become ready; its log:\n{last_log}");
    }

    fn try_start(&self) -> Result<World, String> {
        let dir = scratch_dir();
        let config = dir.join("dunlin.toml");
        std::fs::write(&config, self.toml()).expect("the scratch directory can be written");
        let [port, dashboard, metrics] = free_ports();
        let log = dir.join("log");
        let out = std::fs::File::create(&log).expect("the log can be created");
        let err = out.try_clone().expect("a file handle can be cloned");
        let mut command = Command::new(binary());
        command
            .arg("serve")
            .current_dir(&dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DUNLIN_CONFIG", &config)
            .env("DUNLIN_HOST", "127.0.0.1")
            .env("DUNLIN_PORT", port.to_string())
            .env("DUNLIN_DASHBOARD_PORT", dashboard.to_string())
            .env("DUNLIN_METRICS_PORT", metrics.to_string())
            .env("DUNLIN_DATA_DIR", dir.join("data"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let mut server = command.spawn().expect("the server binary can be run");
        let guard = guard(server.id(), &dir);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let ready = poll_until(Duration::from_secs(10), || {
            let exited = server.try_wait().expect("a child can be asked").is_some();
            (exited || is_ready(address)).then_some(!exited)
        });
        let world = World {
            server: Mutex::new(server),
            guard,
            address,
            metrics,
            dir,
            log,
            seen: AtomicUsize::new(0),
        };
        if ready == Some(true) {
            Ok(world)
        } else {
            Err(world.log())
        }
    }
}

/// A running server. Dropping it kills the process and fails the test if the log holds a panic.
pub(crate) struct World {
    server: Mutex<Child>,
    guard: Child,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: u16,
    dir: PathBuf,
    log: PathBuf,
    /// How much of the log has been looked at.
    seen: AtomicUsize,
}

impl World {
    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// A server of its own with these apps and nothing else changed.
    pub(crate) fn with_app(app: &App) -> Self {
        Self::builder().app(app).start()
    }

    /// A server of its own with a piece of configuration, and one plain app.
    pub(crate) fn with_config(toml: &str) -> (Self, App) {
        let app = App::new(1);
        (Self::builder().config(toml).app(&app).start(), app)
    }

    /// Everything the server has printed so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Fails when the server has panicked or has logged something that a person should look at, since this was last
    /// asked: on a shared server one line must not fail every test that follows.
    #[track_caller]
    pub(crate) fn assert_calm(&self) {
        let log = self.log();
        let seen = self.seen.swap(log.len(), Ordering::Relaxed);
        if let Some(line) = log.get(seen..).and_then(trouble) {
            panic!("the server's log holds: {line}");
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let server = self.server.lock().expect("no holder of this lock panics");
        let pid = i32::try_from(server.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a running child has an id"), signal)
            .expect("the server still runs");
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn exit_within(&self, limit: Duration) -> Option<ExitStatus> {
        eventually_within(limit, || async {
            self.server
                .lock()
                .expect("no holder of this lock panics")
                .try_wait()
                .expect("a child can be asked")
        })
        .await
    }

    /// Resident memory of the server in KiB.
    pub(crate) fn resident_kib(&self) -> usize {
        let pid = self.server.lock().expect("no holder of this lock panics").id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the server still runs");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .expect("Linux prints this line");
        line.split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .expect("a number of KiB")
    }

    /// Publishes one event and insists that the server accepts it.
    #[track_caller]
    pub(crate) fn publish(
        &self,
        app: &App,
        channel: &str,
        name: &str,
        data: &str,
    ) -> impl Future<Output = ()> {
        let call = Call::post(
            app,
            "/events",
            &json!({ "name": name, "channels": [channel], "data": data }),
        );
        let address = self.address;
        async move {
            let answer = call.send_to(address).await;
            assert_eq!((answer.status, answer.text().trim()), (200, "{}"));
        }
    }

    /// A signed GET below the app's path; `query` is a list of names and values.
    pub(crate) async fn get(&self, app: &App, rest: &str, query: &[(&str, &str)]) -> Answer {
        let mut call = Call::get(app, rest);
        for (name, value) in query {
            call = call.param(name, value);
        }
        call.send(self).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        end(&mut self.guard);
        if let Ok(mut server) = self.server.lock() {
            end(&mut server);
        }
        let trouble = trouble(&self.log());
        drop(std::fs::remove_dir_all(&self.dir));
        if let Some(line) = trouble
            && !std::thread::panicking()
        {
            panic!("the server's log holds: {line}");
        }
    }
}

/// The server that tests without special configuration share, and an app that no other test uses.
pub(crate) fn shared() -> (&'static World, App) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < POOL, "raise POOL: more tests than shared apps");
    (shared_world(), App::new(1000 + number))
}

/// As `shared`, but the app has `subscription_count` on, which is its default.
pub(crate) fn shared_counting() -> (&'static World, App) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < POOL, "raise POOL: more tests than shared apps");
    (shared_world(), App::counting(2000 + number))
}

fn shared_world() -> &'static World {
    static SHARED: OnceLock<World> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mut builder = World::builder();
        for number in 0..POOL {
            builder = builder
                .app(&App::new(1000 + number))
                .app(&App::counting(2000 + number));
        }
        builder.start()
    })
}

/// Polls until `probe` yields something, or gives up after `DEADLINE`.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, probe: impl FnMut() -> F) -> T {
    match eventually_within(DEADLINE, probe).await {
        Some(value) => value,
        None => panic!("never happened: {what}"),
    }
}

pub(crate) async fn eventually_within<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    mut probe: impl FnMut() -> F,
) -> Option<T> {
    let start = Instant::now();
    let mut turn = tokio::time::interval(Duration::from_millis(10));
    while start.elapsed() < limit {
        turn.tick().await;
        if let Some(value) = probe().await {
            return Some(value);
        }
    }
    None
}

fn poll_until<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(value) = probe() {
            return Some(value);
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    None
}

fn is_ready(address: SocketAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    let mut answer = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(2))).is_ok()
        && stream
            .write_all(b"GET /ready HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            .is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

/// The first line that no healthy server prints.
fn trouble(log: &str) -> Option<String> {
    log.lines()
        .find(|line| line.contains("panicked at") || line.contains("ERROR"))
        .map(str::to_owned)
}

fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

/// Ends the server when the test process is gone without having dropped its world, and clears up behind it: a static is
/// never dropped, and neither is anything after an abort. It waits for the end of its input, which only we hold.
fn guard(server: u32, dir: &Path) -> Child {
    Command::new("sh")
        .args(["-c", "cat >/dev/null; kill -9 \"$1\"; rm -rf \"$2\"", "guard"])
        .arg(server.to_string())
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell can be run")
}

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
    std::fs::create_dir_all(dir.join("data")).expect("the temporary directory can be written");
    dir
}

pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until all are chosen, so that they differ.
    let held = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free"));
    held.map(|listener| {
        listener
            .local_addr()
            .expect("a bound listener has an address")
            .port()
    })
}

/// The binary under test: `DUNLIN_BIN`, or the one that cargo builds into the directory this test lies in.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("DUNLIN_BIN") {
        Some(path) => PathBuf::from(path),
        None => build(),
    })
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its file");
    let profile_dir = test
        .ancestors()
        .nth(2)
        .expect("tests lie in <target>/<profile>/deps");
    let target_dir = profile_dir
        .parent()
        .expect("tests lie in <target>/<profile>/deps");
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--package",
            "dunlin",
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(target_dir)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "the server does not build");
    profile_dir.join("dunlin")
}
