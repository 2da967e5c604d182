//! The project's chores, so that a fresh machine needs nothing but cargo: `cargo xtask` lists them.

mod autobahn;
mod bench;
mod chaos;
mod layers;
mod needs;
mod postgres;
mod redis;
mod server;
mod several;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail};
use dunlin_load::readers;

const USAGE: &str = "cargo xtask COMMAND

  test [LAYER…]   run all tests, or only these layers; `cargo xtask test --list` names them
  check           what CI checks before the tests: formatting and lints
  bench [NAME…]   run the benchmarks; `cargo xtask bench --help` says more
  dev             run Redis, two nodes and a balancer, for trying it; `--help` says more
  chaos [NAME…]   break things under load and measure what is promised for that; lists the scenarios without a name
  autobahn        run the Autobahn test suite for WebSocket, which needs Python 2.7";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let Some((command, rest)) = args.split_first() else {
        say(USAGE);
        return Ok(());
    };
    match command.as_str() {
        "test" => layers::run(rest),
        "check" => check(),
        "bench" => bench::run(rest),
        "dev" => chaos::dev(rest),
        "chaos" => chaos::run(rest),
        "autobahn" => autobahn::run(rest),
        // Not for people: the benchmarks start this program again for some of their clients.
        readers::ARGUMENT => readers::serve(),
        "help" | "--help" | "-h" => {
            say(USAGE);
            Ok(())
        }
        other => bail!("there is no command `{other}`\n\n{USAGE}"),
    }
}

fn check() -> Result<()> {
    for args in [
        &["fmt", "--all", "--check"][..],
        &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
    ] {
        say(&format!("cargo {}", args.join(" ")));
        succeed(cargo().args(args))?;
    }
    Ok(())
}

/// Runs a command to its end.
fn succeed(command: &mut Command) -> Result<()> {
    let shown = command_line(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed");
    }
    Ok(())
}

/// A command as one would type it.
fn command_line(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    words.join(" ")
}

/// Cargo, as it runs us, in the workspace's root.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The root of the checkout. Asked of cargo when we run, because a target directory that several checkouts share may
/// hold a program that was compiled in another one.
fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest)
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Cargo's target directory, found from where this program lies in it.
fn target_dir() -> Result<PathBuf> {
    let own = std::env::current_exe().context("this program does not know its own file")?;
    own.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .context("this program does not lie in <target>/<profile>")
}

/// Prints one line (or several). A closed standard output ends nothing: the exit code still tells.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}
