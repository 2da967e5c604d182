//! `dunlin webhooks`: what was delivered, what was not, and how to send it again.
//!
//! Works on the database of the configuration, and so also while no server runs.

pub(super) mod args;
mod endpoints;
mod list;
mod listen;
mod replay;
mod table;
mod verify;

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
        WebhooksCommand::Enable(args) => {
            let (config, store) = open(&args.store).await?;
            endpoints::enable(args, &config, &store, out).await
        }
        WebhooksCommand::Verify(args) => verify::run(args, out),
    }
}

async fn open(args: &StoreArgs) -> Result<(Config, Store), CliError> {
    let sources = Sources {
        file: args.config.clone(),
        ..Sources::of_process()
    };
    let config = config::load(&sources)?.config;
    is_there(&config)?;
    let database = Database::open(&config.database, &config.server.data_dir).await?;
    Ok((config, Store::new(database)))
}

/// To make the file would answer the wrong question, and might make it somebody else's than the server's.
fn is_there(config: &Config) -> Result<(), CliError> {
    let target = match &config.database.url {
        Some(url) => Target::parse(url.expose()).ok(),
        None => Some(Target::in_dir(&config.server.data_dir)),
    };
    match target {
        Some(Target::Sqlite(path)) if !path.exists() => Err(CliError::Missing(format!(
            "there is no database at {}: is the configuration that of the server, and has it run with webhooks?",
            path.display()
        ))),
        _ => Ok(()),
    }
}
