//! One real `dunlin` process: its configuration file, its ports, its log, its end and its next life.

use crate::binary::binary;
use crate::process::{Process, Scratch, free_ports, poll_until};
use crate::request::{Answer, Call};
use crate::world::{App, eventually_within};
use rustix::process::Signal;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How long a node may take to say that it is ready, on a machine that has much else to do.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// A node. Dropping it kills the process.
pub(crate) struct Node {
    process: Mutex<Process>,
    /// Where its sockets and its HTTP API are.
    pub(crate) address: SocketAddr,
    /// Where its metrics are.
    pub(crate) metrics: SocketAddr,
    environment: Vec<(String, String)>,
    scratch: Scratch,
    /// How much of the log has been looked at.
    seen: AtomicUsize,
}

impl Node {
    /// Starts the process. It is usable once `wait_until_ready` has returned.
    pub(crate) fn start(config: &str, environment: Vec<(String, String)>) -> Self {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.file("data")).expect("the scratch directory can be written");
        std::fs::write(scratch.file("dunlin.toml"), config).expect("the scratch directory can be written");
        let [port, dashboard, metrics] = free_ports();
        let file = |name: &str| scratch.file(name).display().to_string();
        let own = [
            ("DUNLIN_CONFIG", file("dunlin.toml")),
            ("DUNLIN_HOST", Ipv4Addr::LOCALHOST.to_string()),
            ("DUNLIN_PORT", port.to_string()),
            ("DUNLIN_DASHBOARD_PORT", dashboard.to_string()),
            ("DUNLIN_METRICS_PORT", metrics.to_string()),
            ("DUNLIN_DATA_DIR", file("data")),
        ];
        let environment = own
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .chain(environment)
            .collect::<Vec<_>>();
        Self {
            process: Mutex::new(spawn(&environment, &scratch)),
            address: (Ipv4Addr::LOCALHOST, port).into(),
            metrics: (Ipv4Addr::LOCALHOST, metrics).into(),
            environment,
            scratch,
            seen: AtomicUsize::new(0),
        }
    }

    /// # Errors
    /// It has ended or does not become ready; the text is its log.
    pub(crate) fn wait_until_ready(&self) -> Result<(), String> {
        let ready = poll_until(START_DEADLINE, || {
            let status = self.process().status();
            (status.is_some() || self.is_ready()).then_some(status)
        });
        match ready {
            Some(None) => Ok(()),
            Some(Some(status)) => Err(format!("{}\nit ended: {status}", self.log())),
            None => Err(self.log()),
        }
    }

    /// Whether it says so itself. Blocks the thread for as long as the answer takes, two seconds at most.
    pub(crate) fn is_ready(&self) -> bool {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = TcpStream::connect(self.address) else {
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

    /// Everything it has printed so far, in all its lives.
    pub(crate) fn log(&self) -> String {
        let bytes = std::fs::read(self.scratch.file("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The first line that no healthy node prints, among those since this was last asked: on a shared world one line
    /// must not fail every test that follows.
    pub(crate) fn new_trouble(&self) -> Option<String> {
        let log = self.log();
        let seen = self.seen.swap(log.len(), Ordering::Relaxed);
        let is_trouble = |line: &&str| line.contains("panicked at") || line.contains("ERROR");
        log.get(seen..)?.lines().find(is_trouble).map(str::to_owned)
    }

    /// Whether it has panicked in any of its lives.
    pub(crate) fn has_panicked(&self) -> bool {
        self.log().contains("panicked at")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// SIGKILL: it says goodbye to nobody.
    pub(crate) fn kill(&self) {
        self.process().kill();
    }

    /// SIGSTOP: it does nothing any more, while its connections stay open.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on as if no time had passed.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts a process that has ended again, on the same ports, and waits until it is ready.
    pub(crate) fn restart(&self) {
        // Ends the process that it replaces.
        *self.process() = spawn(&self.environment, &self.scratch);
        if let Err(log) = self.wait_until_ready() {
            panic!("the node did not become ready again; its log:\n{log}");
        }
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn exit_within(&self, limit: Duration) -> Option<ExitStatus> {
        eventually_within(limit, || async { self.process().status() }).await
    }

    /// Another command of the binary with the same configuration.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(&self.environment, &self.scratch);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> usize {
        let id = self.process().id();
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("the node still runs");
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .expect("Linux prints a number of KiB")
    }

    /// Publishes one event and insists that the node accepts it.
    #[track_caller]
    pub(crate) fn publish(
        &self,
        app: &App,
        channel: &str,
        name: &str,
        data: &str,
    ) -> impl Future<Output = ()> + use<> {
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
        call.send_to(self.address).await
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().expect("no holder of this lock panics")
    }
}

fn spawn(environment: &[(String, String)], scratch: &Scratch) -> Process {
    Process::spawn(command(environment, scratch).arg("serve"), &scratch.file("log"))
}

/// A variable of the test's own environment would reach the binary only by mistake.
fn command(environment: &[(String, String)], scratch: &Scratch) -> Command {
    let mut command = Command::new(binary());
    command
        .current_dir(scratch.path())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(environment.iter().map(|(name, value)| (name, value)));
    command
}
