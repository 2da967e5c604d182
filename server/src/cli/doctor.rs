//! `dunlin doctor`: does everything once, in the order in which one would look for a fault.

use std::fmt::Display;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::api::{Answer, Api};
use super::args::DoctorArgs;
use super::error::CliError;
use super::out::Out;
use super::socket::Socket;
use super::target::{PATIENCE, Target, in_url};
use super::time;
use crate::clock;
use crate::config::{self, Config, Sources};
use crate::storage::redis::target::{self as redis_target, NoPushes};

/// Below this many open files a server is full sooner than its owner thinks.
const ENOUGH_OPEN_FILES: u64 = 10_000;

/// Requests further off than this many seconds are refused (Pusher HTTP API docs).
const MAX_CLOCK_SKEW_S: u64 = 600;

/// A skew that will become a fault one day.
const SUSPICIOUS_CLOCK_SKEW_S: u64 = 30;

/// How often the way of an event is measured.
const ROUNDS: usize = 5;

/// A line per check; a failed one has a hint. Checks that another one's failure makes pointless are left out.
pub(super) async fn run(args: &DoctorArgs, out: &mut Out) -> Result<(), CliError> {
    let mut findings = Findings { out, failed: 0 };
    examine(args, &mut findings).await;
    match findings.failed {
        0 => Ok(()),
        failed => Err(CliError::Unwell(failed)),
    }
}

async fn examine(args: &DoctorArgs, findings: &mut Findings<'_>) {
    let is_local = args.target.host.is_none() && args.target.cluster.is_none();
    let config = configuration(args, findings);
    if is_local && config.is_none() {
        return;
    }
    let target = Target::of(&args.target, config.as_ref());
    if is_local {
        open_files(findings);
    }
    if let (true, Some(config)) = (is_local, &config) {
        redis(config, findings).await;
    }
    if !reach(&target, is_local, findings).await {
        return;
    }
    let api = match Api::new(&target) {
        Ok(api) => api,
        Err(e) => return findings.failed("HTTP", e.in_full(), "this machine cannot make requests at all"),
    };
    health(&api, findings).await;
    if let (true, Some(config)) = (is_local, &config) {
        metrics(config, findings).await;
    }
    let is_signed = signature(&api, findings).await;
    event(&api, &target, is_signed, findings).await;
}

fn configuration(args: &DoctorArgs, findings: &mut Findings<'_>) -> Option<Config> {
    let sources = Sources {
        file: args.target.config.clone(),
        ..Sources::of_process()
    };
    match config::load(&sources) {
        Ok(loaded) => {
            let apps: Vec<&str> = loaded.config.apps.iter().map(|app| app.id.as_str()).collect();
            let apps = match apps.len() {
                0..=5 => format!("apps {}", apps.join(", ")),
                count => format!("{count} apps"),
            };
            findings.ok("configuration", apps);
            for warning in loaded.warnings {
                findings.note(warning);
            }
            Some(loaded.config)
        }
        Err(e) => {
            findings.failed(
                "configuration",
                e,
                "`dunlin config check` says the same; the server would not start",
            );
            None
        }
    }
}

fn open_files(findings: &mut Findings<'_>) {
    match getrlimit(Resource::Nofile).current {
        Some(limit) if limit < ENOUGH_OPEN_FILES => findings.failed(
            "open files",
            format!("at most {limit} in this shell"),
            "every connection is one: `ulimit -n 65536`, or LimitNOFILE= of the service",
        ),
        Some(limit) => findings.ok("open files", format!("at most {limit} in this shell")),
        None => findings.ok("open files", "as many as there is memory for"),
    }
}

async fn redis(config: &Config, findings: &mut Findings<'_>) {
    let Some(url) = &config.redis.url else { return };
    let hint = "is redis.url right, does Redis run there, and may this machine reach it?";
    let target = match redis_target::Target::parse(url.expose(), &config.redis.ca_path) {
        Ok(target) => target,
        Err(e) => return findings.failed("redis", e, hint),
    };
    let started = Instant::now();
    let asked = async {
        let lane = target.connect(PATIENCE, None::<NoPushes>).await?;
        lane.version().await
    };
    match asked.await {
        Ok(version) => findings.ok(
            "redis",
            format!(
                "{} in {}",
                version.as_deref().unwrap_or("a cluster"),
                millis(started.elapsed())
            ),
        ),
        Err(e) => findings.failed("redis", e, hint),
    }
}

async fn reach(target: &Target, is_local: bool, findings: &mut Findings<'_>) -> bool {
    let host = target.api_host.trim_matches(['[', ']']);
    let addresses: Vec<_> = match tokio::net::lookup_host((host, target.port)).await {
        Ok(addresses) => addresses.collect(),
        Err(e) => {
            findings.failed(
                "name",
                format!("{host}: {e}"),
                "is the name right, and does this machine have DNS?",
            );
            return false;
        }
    };
    let address = format!("{}:{}", in_url(host), target.port);
    let started = Instant::now();
    let problem = match timeout(PATIENCE, TcpStream::connect(&*addresses)).await {
        Ok(Ok(_)) => {
            findings.ok(
                "connection",
                format!("{address} in {}", millis(started.elapsed())),
            );
            return true;
        }
        Ok(Err(e)) => e.to_string(),
        Err(_) => format!("no answer within {PATIENCE:?}"),
    };
    let hint = if is_local {
        "is the server running? `dunlin serve` starts it"
    } else {
        "is the server running, is the port right, does a firewall stand between?"
    };
    findings.failed("connection", format!("{address}: {problem}"), hint);
    false
}

async fn health(api: &Api<'_>, findings: &mut Findings<'_>) {
    match api.plain("/ready").await {
        Ok(answer) => {
            match answer.status {
                200..=299 => findings.ok("ready", &answer.text),
                404 => findings.ok("ready", "this server has no such page, so it is not asked"),
                status => findings.failed(
                    "ready",
                    format!("{status} {}", answer.text),
                    "the server is starting or shutting down; look at its log",
                ),
            }
            clocks(&answer, findings);
        }
        Err(e) => findings.failed(
            "ready",
            e.in_full(),
            "does the port speak HTTP, and TLS only with --tls?",
        ),
    }
}

fn clocks(answer: &Answer, findings: &mut Findings<'_>) {
    let Some(theirs) = answer.date.as_deref().and_then(http_date) else {
        return;
    };
    let skew = clock::unix_seconds().abs_diff(theirs);
    let detail = format!("{skew} s between this machine and the server");
    if skew >= MAX_CLOCK_SKEW_S {
        findings.failed(
            "clock",
            detail,
            "signed requests are refused: set the clocks by NTP",
        );
    } else if skew >= SUSPICIOUS_CLOCK_SKEW_S {
        findings.ok(
            "clock",
            format!("{detail}; from {MAX_CLOCK_SKEW_S} s on, requests are refused"),
        );
    } else {
        findings.ok("clock", detail);
    }
}

async fn metrics(config: &Config, findings: &mut Findings<'_>) {
    let (host, port) = (config.server.metrics_host, config.server.metrics_port);
    if port == 0 {
        return;
    }
    let address = std::net::SocketAddr::new(host, port);
    match timeout(PATIENCE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => findings.ok("metrics", format!("http://{address}/metrics")),
        Ok(Err(e)) => findings.failed(
            "metrics",
            format!("{address}: {e}"),
            "is another program on that port?",
        ),
        Err(_) => findings.failed(
            "metrics",
            format!("{address}: no answer"),
            "is the server overloaded?",
        ),
    }
}

async fn signature(api: &Api<'_>, findings: &mut Findings<'_>) -> bool {
    match api.get("/channels", &[]).await {
        Ok(answer) => {
            let count = answer["channels"].as_object().map_or(0, serde_json::Map::len);
            findings.ok("signed request", format!("{count} channels with subscribers"));
            true
        }
        Err(e) => {
            let hint = match &e {
                CliError::Answer { status: 401, .. } => {
                    "id, key and secret must be those of one app of this server"
                }
                CliError::Answer { status: 404, .. } => "this server does not know the id of the app",
                _ => "see the text of the server",
            };
            findings.failed("signed request", e.in_full(), hint);
            false
        }
    }
}

async fn event(api: &Api<'_>, target: &Target, is_signed: bool, findings: &mut Findings<'_>) {
    let started = Instant::now();
    let mut socket = match Socket::open(target).await {
        Ok(socket) => {
            findings.ok(
                "socket",
                format!("{} in {}", socket.id, millis(started.elapsed())),
            );
            socket
        }
        Err(e) => {
            let hint = "does a proxy in front pass WebSockets on (Upgrade and Connection headers)?";
            return findings.failed("socket", e.in_full(), hint);
        }
    };
    let channel = format!("dunlin-doctor-{:08x}", rand::random::<u32>());
    match socket.join(&channel, None).await {
        Ok(_) => findings.ok("subscription", &channel),
        Err(e) => return findings.failed("subscription", e.in_full(), "see the text of the server"),
    }
    if is_signed {
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            match round_trip(api, &mut socket, &channel, round).await {
                Ok(time) => times.push(time),
                Err(e) => return findings.failed("event", e.in_full(), "was triggered, and did not arrive"),
            }
        }
        times.sort_unstable();
        findings.ok(
            "event",
            format!(
                "from trigger to arrival {} (median of {ROUNDS})",
                millis(times[ROUNDS / 2])
            ),
        );
    }
    socket.close().await;
}

async fn round_trip(
    api: &Api<'_>,
    socket: &mut Socket<'_>,
    channel: &str,
    round: usize,
) -> Result<Duration, CliError> {
    let data = format!("{{\"round\":{round}}}");
    let body = json!({"name": "round-trip", "channels": [channel], "data": data});
    let started = Instant::now();
    let arrival = async {
        loop {
            let message = socket.next().await?;
            if message.event == "round-trip" && message.data_text() == data {
                return Ok(started.elapsed());
            }
        }
    };
    let silence = || CliError::TimedOut(format!("no event within {PATIENCE:?}"));
    let both = async { tokio::try_join!(api.post("/events", &body), arrival) };
    let (_, time) = timeout(PATIENCE, both).await.map_err(|_| silence())??;
    Ok(time)
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Seconds since 1970 of an HTTP date, `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut parts = text.split_once(", ")?.1.split(' ');
    let day: i64 = parts.next()?.parse().ok()?;
    let month_name = parts.next()?;
    let month = i64::try_from(MONTHS.iter().position(|month| *month == month_name)?).ok()? + 1;
    let year: i64 = parts.next().filter(|year| year.len() == 4)?.parse().ok()?;
    let mut clock = parts.next()?.split(':').map(str::parse::<i64>);
    let mut part = || clock.next()?.ok();
    let (hour, minute, second) = (part()?, part()?, part()?);
    let days = time::days_since_1970(year, month, day);
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

struct Findings<'a> {
    out: &'a mut Out,
    failed: usize,
}

impl Findings<'_> {
    fn ok(&mut self, check: &str, detail: impl Display) {
        self.out.line(format_args!("ok      {check:<15} {detail}"));
    }

    fn failed(&mut self, check: &str, detail: impl Display, hint: &str) {
        self.failed += 1;
        self.out.line(format_args!("FAILED  {check:<15} {detail}"));
        self.note(hint);
    }

    fn note(&mut self, text: impl Display) {
        self.out.line(format_args!("        {:<15} {text}", ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_clock_is_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        assert_eq!(http_date("Thu, 29 Feb 2024 12:00:00 GMT"), Some(1_709_208_000));
        for wrong in [
            "",
            "yesterday",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
        ] {
            assert_eq!(http_date(wrong), None, "{wrong}");
        }
    }
}
