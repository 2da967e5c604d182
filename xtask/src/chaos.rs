//! `cargo xtask chaos` and `cargo xtask dev`: both are the work of the crate in `tests/chaos`, which starts Redis, nodes
//! and a balancer, and knows how to break them. Here it is built, with the server that it plays with.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::layers::NPM_CI;
use crate::needs::{NGINX, NODE, NPM, Need, REDIS};
use crate::server::build_release;
use crate::{cargo, root, say, succeed, target_dir};

/// The scenarios that need more than Redis.
const DEMANDING: [(&str, &[Need]); 2] = [("rolling-restart", &[NGINX]), ("recovery", &[NODE, NPM])];

/// Plays the scenarios that `args` name, or lists them.
///
/// # Errors
/// Something is missing or does not build. Broken promises are told by the exit code of what we become.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let plays = |name: &str| args.iter().any(|arg| arg == name || arg == "all");
    if args.iter().all(|arg| arg.starts_with('-')) {
        return become_chaos(Command::new(build()?).arg("chaos"), args);
    }
    REDIS.meet()?;
    for (_, needs) in DEMANDING.iter().filter(|(name, _)| plays(name)) {
        needs.iter().try_for_each(Need::meet)?;
    }
    if plays("recovery") {
        let folder = root().join("tests/clients/node");
        succeed(Command::new(NPM_CI[0]).args(&NPM_CI[1..]).current_dir(folder))?;
    }
    become_chaos(with_server(Command::new(build()?).arg("chaos"))?, args)
}

/// Starts Redis, two nodes and a balancer, and keeps them until Ctrl-C.
///
/// # Errors
/// Something is missing or does not build.
pub(crate) fn dev(args: &[String]) -> Result<()> {
    REDIS.meet()?;
    NGINX.meet()?;
    become_chaos(with_server(Command::new(build()?).arg("dev"))?, args)
}

fn build() -> Result<std::path::PathBuf> {
    let target = target_dir()?;
    let args = [
        "build",
        "--quiet",
        "--release",
        "--package",
        "dunlin-chaos",
        "--target-dir",
    ];
    succeed(cargo().args(args).arg(&target))?;
    Ok(target.join("release/dunlin-chaos"))
}

fn with_server(command: &mut Command) -> Result<&mut Command> {
    say("building the server");
    let server = build_release(&target_dir()?)?;
    Ok(command.arg("--server").arg(server))
}

/// Replaces this program, so that Ctrl-C reaches only the one that knows what to end, and in which order.
fn become_chaos(command: &mut Command, args: &[String]) -> Result<()> {
    let error = command.args(args).current_dir(root()).exec();
    Err(error).context("cannot run what was just built")
}
