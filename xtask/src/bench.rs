//! `cargo xtask bench`: the scenarios of the load generator against a fresh release server, as multiples of the floor.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use dunlin_load::scenario::Measure;
use dunlin_load::{Budget, CATALOGUE, Database, Effort, Entry, Node, Report, Scenario, Target};

use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::server::{Server, build_release, receiver_port};
use crate::{root, say, target_dir};

const USAGE: &str = "cargo xtask bench [SCENARIO…] [--quick] [--rounds N] [--save NAME] [--nodes N]
                  [--at ADDR[,ADDR] [--pid PID[,PID]] [--metrics ADDR[,ADDR]] [--app ID:KEY:SECRET]]

  SCENARIO   a name or the first words of one; all the default ones when left out
  --quick    one short round instead of three full ones
  --rounds N so many rounds; the medians are shown
  --save     also write docs/benchmarks/NAME.md
  --nodes    so many nodes that share a redis-server, however many the scenario asks for
  --at       load servers that already run on this machine, instead of starting one;
             --pid for CPU and memory, --metrics for the gauges that must be back at zero when all have left,
             --app for an app of theirs without limits";

const APP: (&str, &str, &str) = ("1000", "bench-key", "bench-secret");

#[derive(Debug, Default)]
struct Options {
    names: Vec<String>,
    quick: bool,
    rounds: Option<usize>,
    save: Option<String>,
    nodes: Option<usize>,
    at: Vec<SocketAddr>,
    pids: Vec<u32>,
    metrics: Vec<SocketAddr>,
    app: Option<(String, String, String)>,
}

/// Runs the scenarios that `args` name and prints what they found.
///
/// # Errors
/// Wrong arguments, a server that does not build, start or hold out; after all scenarios have run and the report is
/// written: a budget that was missed or a run that was not clean.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        say(&format!("{USAGE}\n\nscenarios: {}", names().join(", ")));
        return Ok(());
    }
    let options = parse(args)?;
    let entries = select(&options)?;
    let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { 3 });
    let effort = if options.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let built = if options.at.is_empty() {
        Some(build()?)
    } else {
        None
    };

    let mut findings: Vec<Finding> = Vec::new();
    say(heading().trim_end());
    for entry in entries {
        let entry = if options.quick { entry.quick() } else { entry };
        let mut reports = Vec::new();
        for _ in 0..rounds {
            reports.push(
                round(&entry, &effort, &options, built.as_ref())
                    .with_context(|| format!("scenario {}", entry.name))?,
            );
        }
        let finding = Finding { entry, reports };
        say(finding.lines().trim_end());
        findings.push(finding);
    }
    if let Some(name) = &options.save {
        let path = root().join("docs/benchmarks").join(format!("{name}.md"));
        fs::create_dir_all(path.parent().context("a path without a folder")?)?;
        fs::write(
            &path,
            page(name, rounds, options.quick, built.as_ref(), &findings)?,
        )?;
        say(&format!("\nsaved docs/benchmarks/{name}.md"));
    }
    let bad: Vec<&str> = findings
        .iter()
        .filter(|finding| !finding.is_good())
        .map(|finding| finding.entry.name)
        .collect();
    if bad.is_empty() {
        Ok(())
    } else {
        bail!("over budget or not clean: {}", bad.join(", "))
    }
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options::default();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || {
            args.next()
                .with_context(|| format!("{arg} needs a value\n\n{USAGE}"))
        };
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--rounds" => options.rounds = Some(value()?.parse::<usize>()?.max(1)),
            "--save" => {
                let name = value()?;
                if !name
                    .chars()
                    .all(|it| it.is_ascii_alphanumeric() || "-_.".contains(it))
                {
                    bail!("--save takes a plain file name, not {name:?}");
                }
                options.save = Some(name.clone());
            }
            "--nodes" => options.nodes = Some(value()?.parse::<usize>()?.max(1)),
            "--at" => options.at = list(value()?)?,
            "--pid" => options.pids = list(value()?)?,
            "--metrics" => options.metrics = list(value()?)?,
            "--app" => {
                let mut parts = value()?.splitn(3, ':').map(str::to_owned);
                options.app = parts
                    .next()
                    .zip(parts.next())
                    .zip(parts.next())
                    .map(|((id, key), secret)| (id, key, secret));
                if options.app.is_none() {
                    bail!("--app takes ID:KEY:SECRET");
                }
            }
            option if option.starts_with('-') => bail!("unknown option {option}\n\n{USAGE}"),
            name => options.names.push(name.to_owned()),
        }
    }
    Ok(options)
}

/// The parts of a value, one for each node.
fn list<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(value: &str) -> Result<Vec<T>> {
    value
        .split(',')
        .map(|part| part.parse().with_context(|| format!("{part:?} in {value:?}")))
        .collect()
}

fn names() -> Vec<&'static str> {
    CATALOGUE.iter().map(|entry| entry.name).collect()
}

fn select(options: &Options) -> Result<Vec<Entry>> {
    for name in &options.names {
        if !CATALOGUE.iter().any(|entry| entry.answers_to(name)) {
            bail!("no scenario {name:?}; there are {}", names().join(", "));
        }
    }
    let chosen = |entry: &&Entry| {
        if options.names.is_empty() {
            entry.by_default
        } else {
            options.names.iter().any(|name| entry.answers_to(name))
        }
    };
    let entries: Vec<Entry> = CATALOGUE.iter().filter(chosen).copied().collect();
    for entry in &entries {
        if !options.at.is_empty() && entry.nodes > options.at.len() {
            bail!(
                "{} needs {} nodes: name as many with --at",
                entry.name,
                entry.nodes
            );
        }
        if matches!(entry.scenario, Scenario::Webhooks(_)) {
            if !options.at.is_empty() {
                bail!(
                    "{} needs a server that was told of its endpoints: leave out --at",
                    entry.name
                );
            }
            if options.nodes.is_some() && entry.database == Database::Sqlite {
                bail!("{} keeps a database for each node: leave out --nodes", entry.name);
            }
        }
    }
    Ok(entries)
}

/// What is measured, and how long it took to build.
#[derive(Debug)]
struct Built {
    binary: PathBuf,
    seconds: f64,
}

fn build() -> Result<Built> {
    let began = Instant::now();
    Ok(Built {
        binary: build_release(&target_dir()?)?,
        seconds: began.elapsed().as_secs_f64(),
    })
}

/// The server's configuration: one app that no limit slows down, and where a scenario needs it, endpoints at `receiver`
/// and a database.
fn config(entry: &Entry, receiver: Option<SocketAddr>, postgres: Option<&Postgres>) -> String {
    let (id, key, secret) = APP;
    let mut text = format!(
        "[log]\nfilter = \"warn\"\n\n[[apps]]\nid = \"{id}\"\nkey = \"{key}\"\nsecret = \"{secret}\"\nname = \"Bench\"\n\
         client_events = true\n\n[apps.limits]\nconnections = 0\npublishes_per_second = 0\n\
         reads_per_second = 0\nclient_events_per_second = 0\npresence_members = 0\n\
         subscriptions_per_connection = 0\n"
    );
    if let (Scenario::Webhooks(shape), Some(receiver)) = (&entry.scenario, receiver) {
        text += &shape.config(receiver);
    }
    if let Some(postgres) = postgres {
        write!(text, "\n[database]\nurl = \"{}\"\n", postgres.url()).expect("writing to a String succeeds");
    }
    text
}

fn round(entry: &Entry, effort: &Effort, options: &Options, built: Option<&Built>) -> Result<Report> {
    let Some(built) = built else {
        let nodes = options.at.iter().enumerate().map(|(index, addr)| Node {
            addr: *addr,
            pid: options.pids.get(index).copied(),
            metrics: options.metrics.get(index).copied(),
        });
        let app = options
            .app
            .clone()
            .unwrap_or_else(|| (APP.0.into(), APP.1.into(), APP.2.into()));
        return load(nodes.collect(), app, None, entry, effort);
    };
    let scratch = target_dir()?.join("bench");
    if scratch.exists() {
        // What an earlier round left is no part of this one.
        fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    }
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let count = options.nodes.unwrap_or(entry.nodes);
    let redis = if options.nodes.is_some() || count > 1 {
        Some(Redis::start(&scratch)?)
    } else {
        None
    };
    let postgres = match entry.database {
        Database::Sqlite => None,
        Database::Postgres => Some(Postgres::start()?),
    };
    let receiver = match entry.scenario {
        Scenario::Webhooks(_) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, receiver_port()?))),
        _ => None,
    };
    let url = redis.as_ref().map(Redis::url);
    let config = config(entry, receiver, postgres.as_ref());
    let start = |number: usize| {
        let folder = scratch.join(format!("node-{number}"));
        Server::start_with(&built.binary, &folder, &config, url.as_deref())
    };
    let mut servers: Vec<Server> = (1..=count).map(start).collect::<Result<_>>()?;
    let nodes = servers.iter().map(|server| Node {
        addr: server.addr(),
        pid: Some(server.pid()),
        metrics: Some(server.metrics_addr()),
    });
    let before = redis.as_ref().map(Redis::work).transpose()?;
    let stored_before = postgres.as_ref().map(Postgres::cpu_seconds).transpose()?;
    let app = (APP.0.into(), APP.1.into(), APP.2.into());
    let outcome = load(nodes.collect(), app, receiver, entry, effort);
    let complaints: Vec<String> = servers.iter_mut().filter_map(Server::complaint).collect();
    let mut report = outcome.with_context(|| {
        let tails: Vec<String> = servers.iter().map(Server::log_tail).collect();
        format!(
            "{}\nthe servers' logs end:\n{}",
            complaints.join("\n"),
            tails.join("\n")
        )
    })?;
    if let (Some(redis), Some(before)) = (&redis, before) {
        report.remarks.push(redis.work()?.since(&before));
    }
    if let (Some(postgres), Some(before)) = (&postgres, stored_before) {
        let used = postgres.cpu_seconds()? - before;
        report
            .remarks
            .push(format!("PostgreSQL used {used:.2} s of CPU, warm-up included"));
    }
    report.faults.extend(complaints);
    Ok(report)
}

fn load(
    nodes: Vec<Node>,
    app: (String, String, String),
    receiver: Option<SocketAddr>,
    entry: &Entry,
    effort: &Effort,
) -> Result<Report> {
    let (app_id, app_key, app_secret) = app;
    let target = Target {
        nodes,
        app_id,
        app_key,
        app_secret,
        receiver,
    };
    dunlin_load::run(&target, entry.name, &entry.scenario, effort)
}

/// All rounds of one scenario.
struct Finding {
    entry: Entry,
    reports: Vec<Report>,
}

/// One line of the table: a budget and what was measured against it.
struct Row {
    unit: &'static str,
    /// µs of CPU or KiB.
    figure: Option<f64>,
    /// The same as what the budget counts in: multiples of F1 or KiB.
    against: Option<f64>,
    budget: Option<Budget>,
}

impl Finding {
    fn median(&self, figure: impl Fn(&Report) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.reports.iter().filter_map(figure).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    fn cpu_row(&self, budget: Option<Budget>) -> Row {
        Row {
            unit: self.reports.first().map_or("", |report| report.unit),
            figure: self.median(|report| report.cpu_us_per_unit),
            against: self.median(Report::times_floor),
            budget,
        }
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self
            .entry
            .budgets
            .iter()
            .map(|budget| match budget.measure {
                Measure::TimesFloor => self.cpu_row(Some(*budget)),
                Measure::KibPerConnection => {
                    let kib = self.median(|report| report.memory.map(|memory| memory.per_connection_kib()));
                    Row {
                        unit: "KiB",
                        figure: kib,
                        against: kib,
                        budget: Some(*budget),
                    }
                }
            })
            .collect();
        if rows.is_empty() {
            rows.push(self.cpu_row(None));
        }
        rows
    }

    fn is_good(&self) -> bool {
        self.reports.iter().all(Report::is_clean) && self.rows().iter().all(|row| row.verdict() != "OVER")
    }

    fn p99_us(&self) -> Option<f64> {
        self.median(|report| report.latency.map(|latency| latency.p99_us))
    }

    fn wrong(&self) -> String {
        let sum = |figure: fn(&Report) -> u64| self.reports.iter().map(figure).sum::<u64>();
        format!(
            "{}/{}/{}",
            sum(|it| it.lost),
            sum(|it| it.duplicated),
            sum(|it| it.misordered)
        )
    }

    fn f1(&self) -> Option<f64> {
        self.median(|report| Some(report.f1_us))
    }

    /// Remarks of the last round, as the rounds differ in digits only, and the faults of every round.
    fn notes(&self) -> Vec<String> {
        let remarks = self
            .reports
            .last()
            .into_iter()
            .flat_map(|report| report.remarks.clone());
        let faults = self
            .reports
            .iter()
            .flat_map(|report| report.faults.iter().map(|fault| format!("FAULT: {fault}")));
        remarks.chain(faults).chain(self.memory_note()).collect()
    }

    fn memory_note(&self) -> Option<String> {
        let memory = self.reports.last()?.memory?;
        Some(format!(
            "private memory {} KiB at the start, {} with {} connections, {} after they left",
            memory.before_kib, memory.held_kib, memory.connections, memory.after_kib
        ))
    }

    fn lines(&self) -> String {
        let mut out = String::new();
        for row in self.rows() {
            line(
                &mut out,
                &[
                    self.entry.name.into(),
                    row.unit.into(),
                    shown(row.figure),
                    shown(row.against),
                    shown(row.budget.map(|budget| budget.at_most)),
                    row.verdict().into(),
                    shown(self.f1()),
                    shown(self.p99_us()),
                    self.median(|report| Some(report.per_second))
                        .map_or("–".into(), |it| format!("{it:.0}")),
                    self.median(|report| Some(report.generator_load * 100.0))
                        .map_or("–".into(), |it| format!("{it:.0}%")),
                    self.wrong(),
                ],
            );
        }
        for note in self.notes() {
            writeln!(out, "    {note}").expect("writing to a String succeeds");
        }
        out
    }
}

impl Row {
    fn verdict(&self) -> &'static str {
        match (self.against, self.budget) {
            (Some(against), Some(budget)) if against <= budget.at_most => "ok",
            (Some(_), Some(_)) => "OVER",
            _ => "–",
        }
    }
}

fn heading() -> String {
    let mut out = String::new();
    let columns = [
        "scenario",
        "unit",
        "µs|KiB",
        "×F1|KiB",
        "budget",
        "",
        "F1",
        "p99 µs",
        "per s",
        "gen",
        "lost/dup/mis",
    ];
    line(&mut out, &columns.map(String::from));
    out
}

fn line(out: &mut String, cells: &[String; 11]) {
    const WIDTHS: [usize; 11] = [20, 10, 8, 8, 7, 5, 6, 10, 9, 5, 12];
    for (at, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let written = if at < 2 {
            write!(out, "{cell:<width$} ")
        } else {
            write!(out, "{cell:>width$} ")
        };
        written.expect("writing to a String succeeds");
    }
    out.push('\n');
}

/// Three significant digits or so.
fn shown(value: Option<f64>) -> String {
    match value {
        None => "–".into(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn page(
    name: &str,
    rounds: usize,
    quick: bool,
    built: Option<&Built>,
    findings: &[Finding],
) -> Result<String> {
    let mut out = String::new();
    writeln!(out, "# Benchmark: {name}\n")?;
    writeln!(
        out,
        "How these figures come about and what they mean: [README.md](README.md).\n"
    )?;
    writeln!(
        out,
        "- Commit: {}",
        first_line("git", &["log", "-1", "--format=%h of %cs"])
    )?;
    writeln!(out, "- Machine: {}", dunlin_load::machine())?;
    writeln!(out, "- Compiler: {}", first_line("rustc", &["--version"]))?;
    match built {
        Some(built) if built.seconds > 20.0 => {
            writeln!(out, "- Profile `release`, built in {:.0} s", built.seconds)?;
        }
        Some(_) => writeln!(out, "- Profile `release`, already built")?,
        None => writeln!(out, "- Servers that already ran")?,
    }
    let length = if quick { "short " } else { "" };
    writeln!(
        out,
        "- {rounds} {length}round(s) of each scenario, a fresh server for every round; medians\n"
    )?;
    writeln!(
        out,
        "Peers are µs of CPU (KiB where ours are), measured once on another machine of the same kind, where F1 was \
         4.9 µs.\n"
    )?;
    writeln!(
        out,
        "| scenario | unit | µs or KiB | × F1 | budget | | F1 µs | p99 ms | units/s | lost / twice / misordered | \
         Sockudo | soketi | Centrifugo | NATS |"
    )?;
    writeln!(out, "|---|---|--:|--:|--:|---|--:|--:|--:|---|--:|--:|--:|--:|")?;
    for finding in findings {
        for row in finding.rows() {
            let in_floors = row.unit != "KiB";
            let peer = |figure: fn(Budget) -> Option<f64>| shown(row.budget.and_then(figure));
            writeln!(
                out,
                "| `{}` | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                finding.entry.name,
                row.unit,
                shown(row.figure),
                if in_floors {
                    shown(row.against)
                } else {
                    "–".into()
                },
                row.budget.map_or("–".into(), |budget| {
                    format!(
                        "≤ {}{}",
                        shown(Some(budget.at_most)),
                        if in_floors { " F1" } else { " KiB" }
                    )
                }),
                row.verdict(),
                shown(finding.f1()),
                shown(finding.p99_us().map(|p99| p99 / 1000.0)),
                finding
                    .median(|report| Some(report.per_second))
                    .map_or("–".into(), |it| format!("{it:.0}")),
                finding.wrong(),
                peer(|budget| budget.sockudo),
                peer(|budget| budget.soketi),
                peer(|budget| budget.centrifugo),
                peer(|budget| budget.nats),
            )?;
        }
    }
    let with_notes: Vec<&Finding> = findings
        .iter()
        .filter(|finding| !finding.notes().is_empty())
        .collect();
    if !with_notes.is_empty() {
        writeln!(out, "\n## Remarks (last round)\n")?;
    }
    for finding in with_notes {
        for note in finding.notes() {
            writeln!(out, "- `{}`: {note}", finding.entry.name)?;
        }
    }
    Ok(out)
}

fn first_line(program: &str, args: &[&str]) -> String {
    Command::new(program)
        .args(args)
        .current_dir(root())
        .output()
        .ok()
        .and_then(|output| {
            String::from_utf8(output.stdout)
                .ok()?
                .lines()
                .next()
                .map(str::to_owned)
        })
        .unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn scenarios_are_chosen_by_name_by_group_or_by_default() {
        let chosen = |text| select(&parse(&words(text)).unwrap()).map(|entries| entries.len());
        assert_eq!(chosen("http").unwrap(), 1);
        assert_eq!(chosen("fanout-1000 http").unwrap(), 3);
        assert_eq!(
            chosen("").unwrap(),
            CATALOGUE.iter().filter(|entry| entry.by_default).count()
        );
        assert!(chosen("nonsense").is_err());
        assert_eq!(chosen("twonode").unwrap(), 2);
        assert!(
            chosen("twonode --at 127.0.0.1:1").is_err(),
            "one node is not enough"
        );
        assert_eq!(chosen("twonode --at 127.0.0.1:1,127.0.0.1:2").unwrap(), 2);
        assert!(chosen("webhooks").unwrap() > 5);
        assert!(
            chosen("webhooks --at 127.0.0.1:1").is_err(),
            "it knows no endpoints"
        );
        assert!(chosen("webhooks-full-sqlite --nodes 2").is_err());
        assert_eq!(chosen("webhooks-full-postgres --nodes 2").unwrap(), 1);
    }

    #[test]
    fn wrong_options_are_named() {
        for wrong in [
            "--frobnicate",
            "--save ../x",
            "--rounds many",
            "--app only-an-id",
            "--save",
        ] {
            assert!(parse(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_row_over_its_budget_says_so() {
        let entry = *CATALOGUE.iter().find(|entry| entry.name == "http").unwrap();
        let finding = |cpu| {
            let report = Report {
                unit: "request",
                cpu_us_per_unit: Some(cpu),
                f1_us: 5.0,
                ..Report::default()
            };
            Finding {
                entry,
                reports: vec![report],
            }
        };
        assert_eq!(finding(19.0).rows()[0].verdict(), "ok");
        assert_eq!(finding(21.0).rows()[0].verdict(), "OVER");
        assert!(finding(19.0).is_good() && !finding(21.0).is_good());
    }

    #[test]
    fn figures_have_about_three_digits() {
        assert_eq!(
            [
                shown(None),
                shown(Some(1.234)),
                shown(Some(12.34)),
                shown(Some(1234.5))
            ],
            ["–", "1.23", "12.3", "1234"]
        );
    }
}
