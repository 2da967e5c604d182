//! One `redis-server`.

use crate::certificate;
use crate::process::{Process, Scratch, free_ports, poll_until};
use redis::{Client, Connection, FromRedisValue};
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long a question of the test itself may take.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(2);

/// What a server that starts again finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// All it ever acknowledged; only of a server that is `durable`.
    Kept,
    Lost,
}

#[derive(Clone, Default)]
pub(crate) struct Options {
    arguments: Vec<String>,
    is_durable: bool,
    has_tls: bool,
}

impl Options {
    /// Writes each change to the disk before it is acknowledged.
    pub(crate) fn durable(mut self) -> Self {
        self.is_durable = true;
        self.with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn replica_of(self, master: &RedisServer) -> Self {
        self.with(&["--replicaof", "127.0.0.1", &master.port.to_string()])
    }

    /// Brings a replica into step at once, and notices soon when it is not.
    pub(crate) fn eager_to_replicate(self) -> Self {
        self.with(&[
            "--repl-diskless-sync-delay",
            "0",
            "--repl-ping-replica-period",
            "1",
        ])
    }

    pub(crate) fn clustered(self) -> Self {
        let [bus] = free_ports();
        self.with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus.to_string(),
            "--cluster-node-timeout",
            "5000",
        ])
    }

    /// Takes TLS on a second port, with a certificate that its own authority has signed.
    pub(crate) fn tls(mut self) -> Self {
        self.has_tls = true;
        self
    }

    fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments
            .extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    pub(crate) fn start(self) -> RedisServer {
        let mut last_log = String::new();
        for _ in 0..5 {
            let server = RedisServer::launch(self.clone());
            if server.answers_in_time() {
                return server;
            }
            last_log = server.log();
            if !last_log.contains("Address already in use") {
                break;
            }
        }
        panic!("redis-server did not start; its log:\n{last_log}");
    }
}

/// A running server that keeps nothing on the disk unless it is `durable`. Dropping it kills it.
pub(crate) struct RedisServer {
    process: Mutex<Process>,
    pub(crate) port: u16,
    tls_port: u16,
    options: Options,
    scratch: Scratch,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::options().start()
    }

    pub(crate) fn options() -> Options {
        Options::default()
    }

    /// The one that all worlds of this process share which do not bring their own. Nobody may harm it.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<RedisServer> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn launch(options: Options) -> Self {
        let scratch = Scratch::new();
        if options.has_tls {
            certificate::write_into(&scratch);
        }
        let [port, tls_port] = free_ports();
        Self {
            process: Mutex::new(spawn(&options, port, tls_port, &scratch)),
            port,
            tls_port,
            options,
            scratch,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Of a server with TLS.
    pub(crate) fn tls_url(&self) -> String {
        assert!(self.options.has_tls, "this server was started without TLS");
        format!("rediss://127.0.0.1:{}", self.tls_port)
    }

    /// The certificate of the authority behind the TLS port.
    pub(crate) fn ca_path(&self) -> PathBuf {
        self.scratch.file("ca.pem")
    }

    /// SIGKILL.
    pub(crate) fn kill(&self) {
        self.process().kill();
    }

    /// SIGSTOP: connections stay open and nothing is answered.
    pub(crate) fn pause(&self) {
        self.process().signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.process().signal(Signal::CONT);
    }

    /// Kills it if it still runs, starts it again on the same port and waits until it answers.
    pub(crate) fn restart(&self, data: Data) {
        self.kill();
        match data {
            Data::Kept => assert!(self.options.is_durable, "this server keeps nothing"),
            Data::Lost if self.options.is_durable => {
                std::fs::remove_dir_all(self.scratch.file("appendonlydir")).expect("its data can be removed");
            }
            Data::Lost => {}
        }
        *self.process() = spawn(&self.options, self.port, self.tls_port, &self.scratch);
        assert!(
            self.answers_in_time(),
            "redis-server did not start again; its log:\n{}",
            self.log()
        );
    }

    /// Asks it something. Blocks the thread; a server that does not answer within two seconds fails the test.
    ///
    /// The command and its arguments are separated by spaces.
    #[track_caller]
    pub(crate) fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        match self.try_ask(command) {
            Ok(answer) => answer,
            Err(error) => panic!("{command}: {error}"),
        }
    }

    pub(crate) fn try_ask<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut words = command.split(' ');
        let mut query = redis::cmd(words.next().unwrap_or_default());
        for word in words {
            query.arg(word);
        }
        query.query(&mut self.connection()?)
    }

    /// All keys that begin so, sorted.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.ask(&format!("KEYS {prefix}*"));
        keys.sort();
        keys
    }

    fn connection(&self) -> redis::RedisResult<Connection> {
        let connection = Client::open(self.url())?.get_connection_with_timeout(ANSWER_DEADLINE)?;
        connection.set_read_timeout(Some(ANSWER_DEADLINE))?;
        Ok(connection)
    }

    fn answers_in_time(&self) -> bool {
        poll_until(START_DEADLINE, || {
            let has_ended = self.process().status().is_some();
            let answers = || self.try_ask::<String>("PING").is_ok();
            (has_ended || answers()).then_some(!has_ended)
        }) == Some(true)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.file("log")).unwrap_or_default()
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().expect("no holder of this lock panics")
    }
}

fn spawn(options: &Options, port: u16, tls_port: u16, scratch: &Scratch) -> Process {
    let mut command = Command::new("redis-server");
    command
        .current_dir(scratch.path())
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(&options.arguments);
    if options.has_tls {
        command
            .args(["--tls-port", &tls_port.to_string(), "--tls-auth-clients", "no"])
            .args(["--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem"])
            .args(["--tls-ca-cert-file", "ca.pem"]);
    }
    Process::spawn(&mut command, &scratch.file("log"))
}
