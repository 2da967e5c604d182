//! What the commands work on: the configuration of the servers, and the database that it names.

use std::path::{Path, PathBuf};

use dunlin_protocol::names::AppId;

use super::args::{EndpointArgs, StoreArgs};
use crate::cli::error::CliError;
use crate::cli::out::Out;
use crate::config::{self, AppSection, Config, Sources};
use crate::storage::sql::{Database, Target};
use crate::webhooks::registry::{self, Registered};
use crate::webhooks::store::Store;

pub(super) struct Platform {
    pub(super) config: Config,
    pub(super) store: Store,
}

impl Platform {
    /// To make a missing file would answer the wrong question, and might make it somebody else's than the server's.
    pub(super) async fn open(args: &StoreArgs) -> Result<Self, CliError> {
        let config = configuration(args)?;
        if let Some(path) = missing_file(&config) {
            return Err(CliError::Missing(format!(
                "there is no database at {}: is the configuration that of the server, and has it run with webhooks?",
                path.display()
            )));
        }
        Self::of(config).await
    }

    /// For whoever brings the first thing that is kept there. A server that runs sees the file, and opens it.
    pub(super) async fn open_or_make(config: Config, out: &mut Out) -> Result<Self, CliError> {
        let missing = missing_file(&config);
        let platform = Self::of(config).await?;
        if let Some(warning) = platform.config.database_warning() {
            out.complain(format_args!("warning: {warning}"));
        }
        if let Some(path) = missing {
            out.complain(format_args!("{} is new", path.display()));
        }
        Ok(platform)
    }

    async fn of(config: Config) -> Result<Self, CliError> {
        let database = Database::open(&config.database, &config.server.data_dir).await?;
        let store = Store::new(database);
        Ok(Self { config, store })
    }

    pub(super) fn app(&self, id: &AppId) -> Result<&AppSection, CliError> {
        app(&self.config, id)
    }

    /// All endpoints as they are now, or one app's.
    pub(super) async fn endpoints(&self, app: Option<&AppId>) -> Result<Vec<Registered>, CliError> {
        let mut all = registry::all(&self.config, self.store.endpoints().await?.1);
        all.retain(|one| app.is_none_or(|app| *app == one.app));
        Ok(all)
    }

    /// The endpoint that counts under this name.
    pub(super) async fn endpoint(&self, args: &EndpointArgs) -> Result<Registered, CliError> {
        Ok(self.named(args).await?.0)
    }

    /// The same, and the one of the database that it hides: what the configuration has is what counts.
    pub(super) async fn named(
        &self,
        args: &EndpointArgs,
    ) -> Result<(Registered, Option<Registered>), CliError> {
        let EndpointArgs { app, endpoint, .. } = args;
        let all = self.endpoints(Some(app)).await?.into_iter();
        let mut named = all.filter(|one| one.id == *endpoint);
        let first = named.next().ok_or_else(|| {
            CliError::Missing(format!(
                "app {app} has no endpoint {endpoint}: see `dunlin webhooks endpoints`"
            ))
        })?;
        Ok((first, named.next()))
    }
}

pub(super) fn app<'a>(config: &'a Config, id: &AppId) -> Result<&'a AppSection, CliError> {
    registry::app(config, id).ok_or_else(|| CliError::Missing(format!("the configuration has no app {id}")))
}

pub(super) fn configuration(args: &StoreArgs) -> Result<Config, CliError> {
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
