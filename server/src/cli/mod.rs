//! The command line: `dunlin serve` and its companions.
//!
//! Owns flags, output and exit codes, and a small client that works against any Pusher-compatible host. Must never
//! reach into the rooms of a running server: what a client command knows it learns over the wire, as customers do, and
//! `webhooks` from the database.
//!
//! Start reading at [`run`]; the flags are in `args.rs`, one file per command beside it.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 tried and failed, 2 not
//! even tried, because the command line or the configuration is wrong.

mod api;
mod args;
mod bench;
mod channels;
mod doctor;
mod error;
mod out;
mod show;
mod sign;
mod socket;
mod subscribe;
mod target;
mod time;
mod trigger;
mod webhooks;

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use clap::Parser as _;

use crate::config::{self, Loaded};
use args::{Arguments, Command, ConfigCommand, ServeArgs};
use error::CliError;
use out::Out;

/// Tried and failed.
const FAILED: u8 = 1;
/// Not even tried.
const REFUSED: u8 = 2;

/// Does what the command line says. `serve` is the server itself, which only the composition root can build; it gets
/// a configuration that passed all checks and returns when the node has stopped.
pub fn run<E: Display>(
    arguments: impl IntoIterator<Item = OsString>,
    serve: impl FnOnce(Loaded) -> Result<(), E>,
) -> ExitCode {
    let mut out = Out::standard();
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        // Help and version are "errors" of clap that belong on standard output.
        Err(e) if !e.use_stderr() => {
            out.line(e.render());
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            out.complain(e.render());
            return ExitCode::from(REFUSED);
        }
    };
    let result = match arguments.command {
        None => return start(&arguments.serve, serve, &mut out),
        Some(Command::Serve(args)) => return start(&args, serve, &mut out),
        Some(Command::Config(ConfigCommand::Check(args))) => show::check(&args, &mut out),
        Some(Command::Config(ConfigCommand::Show(args))) => show::show(&args, &mut out),
        Some(Command::Trigger(args)) => block_on(trigger::run(&args, &mut out)),
        Some(Command::Subscribe(args)) => block_on(subscribe::run(&args, &mut out)),
        Some(Command::Channels(args)) => block_on(channels::run(&args, &mut out)),
        Some(Command::Users(args)) => block_on(channels::users(&args, &mut out)),
        Some(Command::Webhooks(command)) => block_on(webhooks::run(&command, &mut out)),
        Some(Command::Doctor(args)) => block_on(doctor::run(&args, &mut out)),
        Some(Command::Bench(args)) => bench::run(&args, &mut out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            out.complain(format_args!("dunlin: {}", e.in_full()));
            ExitCode::from(e.exit_code())
        }
    }
}

fn start<E: Display>(
    args: &ServeArgs,
    serve: impl FnOnce(Loaded) -> Result<(), E>,
    out: &mut Out,
) -> ExitCode {
    let loaded = match config::load(&args.sources()) {
        Ok(loaded) => loaded,
        Err(e) => {
            out.complain(format_args!("dunlin: {e}"));
            return ExitCode::from(REFUSED);
        }
    };
    match serve(loaded) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            out.complain(format_args!("dunlin: {e:#}"));
            ExitCode::from(FAILED)
        }
    }
}

/// Client commands do one thing after the other: one thread is plenty.
fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(CliError::Runtime)?.block_on(command)
}
