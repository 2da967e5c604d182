//! `dunlin webhooks`: who is told, what was delivered, what was not, and how to send it again.
//!
//! Works on the database of the configuration, and so also while no server runs.

pub(super) mod args;
mod endpoints;
mod list;
mod listen;
mod manage;
mod replay;
mod table;
mod test_send;
mod verify;

use std::path::{Path, PathBuf};

use super::error::CliError;
use super::out::Out;
use crate::config::{self, Config, Sources};
use crate::storage::sql::{Database, Target};
use crate::webhooks::store::Store;
use args::{StoreArgs, WebhooksCommand};

pub(super) async fn run(command: &WebhooksCommand, out: &mut Out) -> Result<(), CliError> {
    match command {
        WebhooksCommand::List(args) => list::list(args, &open(&args.store).await?.1, out).await,
        WebhooksCommand::Show(args) => list::show(args, &open(&args.store).await?.1, out).await,
        WebhooksCommand::Replay(args) => replay::run(args, &open(&args.store).await?.1, out).await,
        WebhooksCommand::Listen(args) => {
            let (config, store) = open(&args.store).await?;
            listen::run(args, &config, &store, out).await
        }
        WebhooksCommand::Endpoints(args) => {
            let (config, store) = open(&args.store).await?;
            endpoints::list(args, &config, &store, out).await
        }
        WebhooksCommand::Add(args) => {
            let (config, store) = open_or_make(&args.store, out).await?;
            manage::add(args, &config, &store, out).await
        }
        WebhooksCommand::Set(args) => {
            let (config, store) = open(&args.endpoint.store).await?;
            manage::set(args, &config, &store, out).await
        }
        WebhooksCommand::Remove(args) => {
            let (config, store) = open(&args.store).await?;
            manage::remove(args, &config, &store, out).await
        }
        WebhooksCommand::Disable(args) => {
            let (config, store) = open(&args.store).await?;
            manage::disable(args, &config, &store, out).await
        }
        WebhooksCommand::Enable(args) => {
            let (config, store) = open(&args.store).await?;
            manage::enable(args, &config, &store, out).await
        }
        WebhooksCommand::Test(args) => {
            let (config, store) = open(&args.store).await?;
            test_send::run(args, &config, &store, out).await
        }
        WebhooksCommand::Verify(args) => verify::run(args, out),
    }
}

/// To make a missing file would answer the wrong question, and might make it somebody else's than the server's.
async fn open(args: &StoreArgs) -> Result<(Config, Store), CliError> {
    let config = configuration(args)?;
    if let Some(path) = missing_file(&config) {
        return Err(CliError::Missing(format!(
            "there is no database at {}: is the configuration that of the server, and has it run with webhooks?",
            path.display()
        )));
    }
    let store = store(&config).await?;
    Ok((config, store))
}

/// For whoever brings the first thing that is kept there. A server that runs sees the file, and opens it.
async fn open_or_make(args: &StoreArgs, out: &mut Out) -> Result<(Config, Store), CliError> {
    let config = configuration(args)?;
    let missing = missing_file(&config);
    let store = store(&config).await?;
    if let Some(path) = missing {
        out.complain(format_args!("{} is new", path.display()));
    }
    Ok((config, store))
}

fn configuration(args: &StoreArgs) -> Result<Config, CliError> {
    let sources = Sources {
        file: args.config.clone(),
        ..Sources::of_process()
    };
    Ok(config::load(&sources)?.config)
}

fn missing_file(config: &Config) -> Option<PathBuf> {
    let target = Target::of(&config.database, &config.server.data_dir).ok()?;
    target.missing_file().map(Path::to_owned)
}

async fn store(config: &Config) -> Result<Store, CliError> {
    let database = Database::open(&config.database, &config.server.data_dir).await?;
    Ok(Store::new(database))
}
