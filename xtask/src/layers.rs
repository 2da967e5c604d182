//! `cargo xtask test`: every layer of tests, from units to foreign clients, each with one closing line.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::needs::{
    CHROMIUM, GO, JAVA, MAVEN, NGINX, NODE, NPM, Need, POSTGRES, PYTHON, REDIS, REDIS_SENTINEL,
};
use crate::server::Server;
use crate::several::Several;
use crate::{cargo, command_line, root, say, succeed, target_dir};

/// A layer that takes longer hangs. Cargo's layers compile first, on a slow machine for a long time.
const CARGO_LIMIT: Duration = Duration::from_mins(40);
const CLIENT_LIMIT: Duration = Duration::from_mins(10);

struct Layer {
    name: &'static str,
    about: &'static str,
    needs: &'static [Need],
    kind: Kind,
}

enum Kind {
    /// Counts are read from the test harness's own summaries.
    Cargo {
        args: &'static [&'static str],
        /// What follows behind `--`, for the test harness.
        harness: &'static [&'static str],
        environment: &'static [(&'static str, &'static str)],
    },
    /// A program that prints `ok - …` and `not ok - …`, run in `tests/clients/<folder>` against a fresh server.
    Client {
        folder: &'static str,
        prepare: &'static [&'static str],
        run: &'static [&'static str],
        serves: Serves,
    },
}

/// What the server of a suite is started with.
#[derive(Clone, Copy)]
enum Serves {
    Apps,
    /// The same on two nodes behind a balancer.
    AppsOnTwoNodes,
    /// Nothing at all, as a newcomer starts it.
    Nothing,
}

pub(crate) const NPM_CI: &[&str] = &["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"];

const PIP: &[&str] = &[
    "{venv}/bin/pip",
    "install",
    "--quiet",
    "--disable-pip-version-check",
    "--requirement",
    "requirements.txt",
];

const MAVEN_RUN: &[&str] = &["mvn", "--quiet", "--batch-mode", "compile", "exec:java"];

/// `{venv}` in a command stands for a Python environment below cargo's target directory.
const LAYERS: &[Layer] = &[
    Layer {
        name: "unit",
        about: "unit, golden and documentation tests beside the code",
        needs: &[REDIS, POSTGRES],
        kind: cargo_test(&["--exclude", "dunlin-tests"], &[]),
    },
    Layer {
        name: "it",
        about: "black-box tests of the running server",
        needs: &[],
        kind: cargo_test(&["--test", "it"], &["--skip", "cluster::"]),
    },
    Layer {
        name: "cluster",
        about: "the same tests against two nodes and Redis, and those of what happens between nodes",
        needs: &[REDIS, REDIS_SENTINEL],
        kind: Kind::Cargo {
            args: &["--test", "it"],
            harness: &[],
            environment: &[("DUNLIN_TEST_TOPOLOGY", "cluster")],
        },
    },
    Layer {
        name: "node",
        about: "pusher-js 8 and 4, alone and with our recovery.js, the server library pusher, and standardwebhooks, in Node",
        needs: &[NODE, NPM],
        kind: client(
            "node",
            NPM_CI,
            &[
                "node", "run.js", "library", "webhooks", "channels", "restart", "history",
            ],
        ),
    },
    Layer {
        name: "echo",
        about: "laravel-echo in Node",
        needs: &[NODE, NPM],
        kind: client("node", NPM_CI, &["node", "run.js", "echo"]),
    },
    Layer {
        name: "browser",
        about: "pusher-js 8 and 4 in Chromium, each transport alone, SockJS among them",
        needs: &[NODE, NPM, CHROMIUM],
        kind: client("node", NPM_CI, &["node", "run.js", "browser"]),
    },
    Layer {
        name: "go",
        about: "the server library pusher-http-go 5, and standard-webhooks/libraries",
        needs: &[GO],
        kind: client("go", &["go", "mod", "download"], &["go", "run", "./v5"]),
    },
    Layer {
        name: "go1",
        about: "the server library pusher-http-go 1.3.0",
        needs: &[GO],
        kind: client("go", &["go", "mod", "download"], &["go", "run", "./v1"]),
    },
    Layer {
        name: "python",
        about: "the server library pusher, the client Pysher, and standardwebhooks",
        needs: &[PYTHON],
        kind: client("python", PIP, &["{venv}/bin/python", "suite.py"]),
    },
    Layer {
        name: "java",
        about: "pusher-http-java, pusher-java-client, and com.standardwebhooks",
        needs: &[JAVA, MAVEN],
        kind: client("java", &[], MAVEN_RUN),
    },
    Layer {
        name: "node-2",
        about: "the layer node on two nodes behind nginx",
        needs: &[NODE, NPM, REDIS, NGINX],
        kind: across(
            "node",
            NPM_CI,
            &["node", "run.js", "library", "webhooks", "channels"],
        ),
    },
    Layer {
        name: "echo-2",
        about: "the layer echo on two nodes behind nginx",
        needs: &[NODE, NPM, REDIS, NGINX],
        kind: across("node", NPM_CI, &["node", "run.js", "echo"]),
    },
    Layer {
        name: "browser-2",
        about: "the layer browser on two nodes behind nginx",
        needs: &[NODE, NPM, CHROMIUM, REDIS, NGINX],
        kind: across("node", NPM_CI, &["node", "run.js", "browser"]),
    },
    Layer {
        name: "go-2",
        about: "the layer go on two nodes behind nginx",
        needs: &[GO, REDIS, NGINX],
        kind: across("go", &["go", "mod", "download"], &["go", "run", "./v5"]),
    },
    Layer {
        name: "python-2",
        about: "the layer python on two nodes behind nginx",
        needs: &[PYTHON, REDIS, NGINX],
        kind: across("python", PIP, &["{venv}/bin/python", "suite.py"]),
    },
    Layer {
        name: "java-2",
        about: "the layer java on two nodes behind nginx",
        needs: &[JAVA, MAVEN, REDIS, NGINX],
        kind: across("java", &[], MAVEN_RUN),
    },
    Layer {
        name: "demo",
        about: "what a newcomer sees: the demo page in Chromium shows an event of the Go library",
        needs: &[NODE, NPM, CHROMIUM, GO],
        kind: Kind::Client {
            folder: "node",
            prepare: NPM_CI,
            run: &["node", "run.js", "demo"],
            serves: Serves::Nothing,
        },
    },
];

const fn cargo_test(args: &'static [&'static str], harness: &'static [&'static str]) -> Kind {
    Kind::Cargo {
        args,
        harness,
        environment: &[],
    }
}

const fn client(
    folder: &'static str,
    prepare: &'static [&'static str],
    run: &'static [&'static str],
) -> Kind {
    Kind::Client {
        folder,
        prepare,
        run,
        serves: Serves::Apps,
    }
}

/// The same suite, whose requests and sockets then go to one node and the other.
const fn across(
    folder: &'static str,
    prepare: &'static [&'static str],
    run: &'static [&'static str],
) -> Kind {
    Kind::Client {
        folder,
        prepare,
        run,
        serves: Serves::AppsOnTwoNodes,
    }
}

#[derive(Clone, Copy, Default)]
struct Tally {
    passed: usize,
    failed: usize,
    /// Tests that say why they ran on one node in a layer that otherwise has several.
    on_one_node: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.on_one_node += other.on_one_node;
    }
}

/// Runs the named layers, or all, and prints one closing line per layer and one in the end.
///
/// # Errors
/// An unknown layer, a server that does not build, or at least one failure.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--list" || arg == "--help") {
        for layer in LAYERS {
            say(&format!("{:10} {}", layer.name, layer.about));
        }
        return Ok(());
    }
    let layers = select(args)?;
    let target = target_dir()?;
    let binary = build_server(&target)?;
    let mut runner = Runner {
        target,
        binary,
        prepared: HashSet::new(),
    };
    let mut total = Tally::default();
    for layer in layers {
        let begin = Instant::now();
        say(&format!("\n== {}: {}", layer.name, layer.about));
        let tally = runner.run(layer).unwrap_or_else(|error| {
            say(&format!("not ok - {}: {error:#}", layer.name));
            Tally {
                failed: 1,
                ..Tally::default()
            }
        });
        let exceptions = match tally.on_one_node {
            0 => String::new(),
            count => format!(" ({count} on one node, for the reasons above)"),
        };
        say(&format!(
            "== {}: {} passed{exceptions}, {} failed in {} s",
            layer.name,
            tally.passed,
            tally.failed,
            begin.elapsed().as_secs()
        ));
        total.add(tally);
    }
    say(&format!("\n{} passed, {} failed", total.passed, total.failed));
    if total.failed > 0 {
        bail!("{} tests failed", total.failed);
    }
    Ok(())
}

fn select(names: &[String]) -> Result<Vec<&'static Layer>> {
    if names.is_empty() {
        return Ok(LAYERS.iter().collect());
    }
    let find = |name: &String| {
        LAYERS
            .iter()
            .find(|layer| layer.name == name)
            .with_context(|| format!("there is no layer `{name}`; `cargo xtask test --list` names them"))
    };
    names.iter().map(find).collect()
}

struct Runner {
    target: PathBuf,
    /// The server, built in the profile that the tests are built in.
    binary: PathBuf,
    /// Folders of clients whose libraries are installed.
    prepared: HashSet<&'static str>,
}

impl Runner {
    fn run(&mut self, layer: &Layer) -> Result<Tally> {
        for need in layer.needs {
            need.meet()?;
        }
        match layer.kind {
            Kind::Cargo {
                args,
                harness,
                environment,
            } => self.run_cargo(args, harness, environment),
            Kind::Client {
                folder,
                prepare,
                run,
                serves,
            } => self.run_client(layer.name, folder, prepare, run, serves),
        }
    }

    fn run_cargo(&self, args: &[&str], harness: &[&str], environment: &[(&str, &str)]) -> Result<Tally> {
        let mut command = cargo();
        command
            .args(["test", "--workspace", "--no-fail-fast"])
            .args(args)
            .arg("--")
            .args(harness)
            .env("DUNLIN_BIN", &self.binary)
            .envs(environment.iter().copied());
        watch(&mut command, CARGO_LIMIT, cargo_verdict)
    }

    fn run_client(
        &mut self,
        name: &str,
        folder: &'static str,
        prepare: &[&str],
        run: &[&str],
        serves: Serves,
    ) -> Result<Tally> {
        let scratch = self.target.join("clients");
        let venv = scratch.join("python");
        let here = root().join("tests/clients").join(folder);
        let command = |words: &[&str]| -> Result<Command> {
            let mut words = words
                .iter()
                .map(|word| word.replace("{venv}", &venv.display().to_string()));
            let mut command = Command::new(words.next().context("a command has a program")?);
            command.args(words).current_dir(&here);
            Ok(command)
        };
        if !self.prepared.contains(folder) {
            if prepare.iter().any(|word| word.contains("{venv}")) && !venv.join("bin/python").exists() {
                succeed(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            }
            if !prepare.is_empty() {
                succeed(&mut command(prepare)?)?;
            }
            self.prepared.insert(folder);
        }
        let own = scratch.join(name);
        let mut suite = command(run)?;
        let mut serve = |environment: Vec<(String, String)>| {
            suite.envs(environment).env("DUNLIN_TEST_SCRATCH", &own);
            watch(&mut suite, CLIENT_LIMIT, client_verdict)
        };
        let (mut tally, complaint) = match serves {
            Serves::Apps | Serves::Nothing => {
                let mut server = match serves {
                    Serves::Nothing => Server::start_bare(&self.binary, &own)?,
                    Serves::Apps | Serves::AppsOnTwoNodes => Server::start(&self.binary, &own)?,
                };
                (serve(server.environment())?, server.complaint())
            }
            Serves::AppsOnTwoNodes => {
                let mut several = Several::start(&self.binary, &own)?;
                (serve(several.environment())?, several.complaint())
            }
        };
        if let Some(complaint) = complaint {
            say(&format!("not ok - {name}: {complaint}"));
            tally.failed += 1;
        }
        Ok(tally)
    }
}

fn build_server(target: &Path) -> Result<PathBuf> {
    // The whole workspace is selected so that dependencies get the same features as in `cargo test --workspace`.
    succeed(
        cargo()
            .args(["build", "--workspace", "--bin", "dunlin", "--target-dir"])
            .arg(target),
    )?;
    Ok(target.join("debug/dunlin"))
}

/// Runs a command, repeats its output and counts the verdicts in it. A command that fails without a verdict, hangs, or
/// succeeds without testing anything, counts as one failure.
fn watch(command: &mut Command, limit: Duration, verdict: fn(&str) -> Tally) -> Result<Tally> {
    let shown = command_line(command);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot run `{shown}`"))?;
    let output = child.stdout.take().context("the output is piped")?;
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            // Maven resets the colours in front of the first line, even of a pipe and without colours.
            let line = String::from_utf8_lossy(&line).replace("\u{1b}[0m", "");
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let end = Instant::now() + limit;
    let mut tally = Tally::default();
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                tally.add(verdict(&line));
                say(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                // The whole group: a suite has children of its own, such as a browser.
                drop(
                    Command::new("kill")
                        .args(["-KILL", "--", &format!("-{}", child.id())])
                        .status(),
                );
                say(&format!(
                    "not ok - `{shown}` was stopped after {} s",
                    limit.as_secs()
                ));
                tally.failed += 1;
                break;
            }
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{shown}`"))?;
    if !status.success() && tally.failed == 0 {
        say(&format!("not ok - `{shown}` ended with {status}"));
        tally.failed += 1;
    }
    if status.success() && tally.passed == 0 {
        say(&format!("not ok - `{shown}` tested nothing"));
        tally.failed += 1;
    }
    Ok(tally)
}

/// Reads `ok - …` and `not ok - …`.
fn client_verdict(line: &str) -> Tally {
    Tally {
        passed: usize::from(line.starts_with("ok - ")),
        failed: usize::from(line.starts_with("not ok - ")),
        on_one_node: 0,
    }
}

/// Reads `test result: ok. 12 passed; 0 failed; …`, and `one node - …` of a test that has a reason.
fn cargo_verdict(line: &str) -> Tally {
    let Some(counts) = line.strip_prefix("test result: ") else {
        return Tally {
            on_one_node: usize::from(line.contains("one node - ")),
            ..Tally::default()
        };
    };
    let count = |what: &str| {
        counts
            .split(['.', ';'])
            .find_map(|part| part.trim().strip_suffix(what)?.trim().parse().ok())
            .unwrap_or(0)
    };
    Tally {
        passed: count("passed"),
        failed: count("failed"),
        on_one_node: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_summary_of_a_test_binary() {
        let tally =
            cargo_verdict("test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out");
        assert_eq!((tally.passed, tally.failed), (12, 3));
    }

    #[test]
    fn other_lines_of_cargo_count_nothing() {
        let tally = cargo_verdict("test names::parses ... ok");
        assert_eq!((tally.passed, tally.failed), (0, 0));
    }

    #[test]
    fn a_test_that_has_a_reason_to_run_on_one_node_is_counted() {
        // The harness may have begun a line of its own.
        for begun in ["", "test drain::readiness_ends_at_once ... "] {
            let tally = cargo_verdict(&format!("{begun}one node - drain: it is about a single process"));
            assert_eq!((tally.passed, tally.failed, tally.on_one_node), (0, 0, 1));
        }
    }

    #[test]
    fn each_line_of_a_client_is_one_verdict() {
        let of = |line| (client_verdict(line).passed, client_verdict(line).failed);
        assert_eq!(
            [of("ok - connects"), of("not ok - connects: no"), of("a warning")],
            [(1, 0), (0, 1), (0, 0)]
        );
    }

    #[test]
    fn every_layer_has_a_name_of_its_own_and_is_found_by_it() {
        let names: HashSet<&str> = LAYERS.iter().map(|layer| layer.name).collect();
        assert_eq!(names.len(), LAYERS.len());
        let all: Vec<String> = LAYERS.iter().map(|layer| layer.name.to_owned()).collect();
        assert_eq!(select(&all).map(|found| found.len()).ok(), Some(LAYERS.len()));
        assert!(select(&["no-such-layer".to_owned()]).is_err());
    }
}
