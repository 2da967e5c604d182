//! `dunlin webhooks add`, `set`, `remove`, `disable` and `enable`

use dunlin_protocol::names::AppId;

use super::args::{AddArgs, EndpointArgs, SetArgs};
use crate::cli::error::CliError;
use crate::cli::out::Out;
use crate::clock;
use crate::config::{Config, EndpointSection};
use crate::webhooks::delivery::EndpointId;
use crate::webhooks::endpoint::Endpoint;
use crate::webhooks::registry::{self, Registered};
use crate::webhooks::store::{EndpointChange, Store, StoredEndpoint};

pub(super) async fn add(
    args: &AddArgs,
    config: &Config,
    store: &Store,
    out: &mut Out,
) -> Result<(), CliError> {
    let mut section = EndpointSection {
        id: args.id.clone().unwrap_or_default(),
        ..EndpointSection::default()
    };
    args.settings.apply(&mut section);
    let endpoint = judged(config, &args.app, &section)?;
    let id = endpoint.id;
    if registry::configured(config).any(|other| other.app == args.app && other.id == id) {
        return Err(CliError::Conflict(format!(
            "the configuration has an endpoint {id} of app {}: it is changed there",
            args.app
        )));
    }
    let change = EndpointChange {
        app: args.app.clone(),
        id: id.clone(),
        settings: registry::settings(&section),
        enabled: true,
        replaces: None,
    };
    if store.put_endpoint(&change, clock::unix_millis()).await?.is_none() {
        return Err(CliError::Conflict(format!(
            "app {} has an endpoint {id} already: see `dunlin webhooks set`",
            args.app
        )));
    }
    out.line(format_args!("endpoint {id} of app {} is there", args.app));
    Ok(())
}

pub(super) async fn set(
    args: &SetArgs,
    config: &Config,
    store: &Store,
    out: &mut Out,
) -> Result<(), CliError> {
    let EndpointArgs { app, endpoint, .. } = &args.endpoint;
    let stored = stored(config, store, app, endpoint).await?;
    if args.version.is_some_and(|version| version != stored.version) {
        return Err(overtaken(&stored));
    }
    let mut section = registry::section(&stored)
        .map_err(|error| CliError::Usage(format!("the settings of {endpoint} cannot be read: {error}")))?;
    args.settings.apply(&mut section);
    judged(config, app, &section)?;
    let (settings, enabled) = (registry::settings(&section), stored.enabled);
    let version = put(store, &stored, settings, enabled).await?;
    out.line(format_args!(
        "endpoint {endpoint} of app {app} is changed: version {version}"
    ));
    Ok(())
}

/// Forgets an endpoint of the database. What waits for it is given up, and kept as whatever was given up.
pub(super) async fn remove(
    args: &EndpointArgs,
    config: &Config,
    store: &Store,
    out: &mut Out,
) -> Result<(), CliError> {
    let EndpointArgs { app, endpoint, .. } = args;
    let found = find(config, store, app, endpoint).await?;
    let is_configured = found.iter().any(|one| one.stored.is_none());
    if found.iter().all(|one| one.stored.is_none()) {
        return Err(of_the_configuration(app, endpoint));
    }
    // One that the configuration has as well goes on as it is there.
    if !is_configured {
        store.disable(app, endpoint, clock::unix_millis()).await?;
    }
    store.remove_endpoint(app, endpoint).await?;
    out.line(format_args!("endpoint {endpoint} of app {app} is removed"));
    Ok(())
}

/// Sends an endpoint of the database nothing more. What waits for it waits on.
pub(super) async fn disable(
    args: &EndpointArgs,
    config: &Config,
    store: &Store,
    out: &mut Out,
) -> Result<(), CliError> {
    let EndpointArgs { app, endpoint, .. } = args;
    let stored = stored(config, store, app, endpoint).await?;
    if stored.enabled {
        put(store, &stored, stored.settings.clone(), false).await?;
    }
    out.line(format_args!(
        "endpoint {endpoint} of app {app} is off: what waits for it waits, what happens now it is not told"
    ));
    Ok(())
}

/// The opposite, and also of an endpoint that the server has disabled.
pub(super) async fn enable(
    args: &EndpointArgs,
    config: &Config,
    store: &Store,
    out: &mut Out,
) -> Result<(), CliError> {
    let EndpointArgs { app, endpoint, .. } = args;
    let Registered {
        stored,
        endpoint: in_use,
        ..
    } = first(config, store, app, endpoint).await?;
    match (stored, in_use) {
        (Some(stored), _) if !stored.enabled => {
            put(store, &stored, stored.settings.clone(), true).await?;
        }
        (None, Ok(in_use)) if !in_use.enabled => {
            return Err(CliError::Usage(format!(
                "endpoint {endpoint} is off in the configuration: enabled = false"
            )));
        }
        _ => {}
    }
    store.enable(app, endpoint).await?;
    out.line(format_args!(
        "endpoint {endpoint} is enabled; `dunlin webhooks replay --app {app} --endpoint {endpoint}` sends what was given up"
    ));
    Ok(())
}

/// The one that counts under this name: that of the configuration, if it has one.
pub(super) async fn first(
    config: &Config,
    store: &Store,
    app: &AppId,
    id: &EndpointId,
) -> Result<Registered, CliError> {
    Ok(find(config, store, app, id).await?.swap_remove(0))
}

/// All of this name, at least one: the database may have one that is hidden by that of the configuration.
async fn find(
    config: &Config,
    store: &Store,
    app: &AppId,
    id: &EndpointId,
) -> Result<Vec<Registered>, CliError> {
    let mut all = registry::all(config, store.endpoints().await?.1);
    all.retain(|one| one.app == *app && one.id == *id);
    if all.is_empty() {
        return Err(CliError::Missing(format!(
            "app {app} has no endpoint {id}: see `dunlin webhooks endpoints`"
        )));
    }
    Ok(all)
}

async fn stored(
    config: &Config,
    store: &Store,
    app: &AppId,
    id: &EndpointId,
) -> Result<StoredEndpoint, CliError> {
    let first = first(config, store, app, id).await?;
    first.stored.ok_or_else(|| of_the_configuration(app, id))
}

async fn put(
    store: &Store,
    stored: &StoredEndpoint,
    settings: String,
    enabled: bool,
) -> Result<i64, CliError> {
    let change = EndpointChange {
        app: stored.app.clone(),
        id: stored.id.clone(),
        settings,
        enabled,
        replaces: Some(stored.version),
    };
    let version = store.put_endpoint(&change, clock::unix_millis()).await?;
    version.ok_or_else(|| overtaken(stored))
}

/// The endpoint that the settings make, which have to be those of one.
fn judged(config: &Config, app: &AppId, section: &EndpointSection) -> Result<Endpoint, CliError> {
    let Some(app) = registry::app(config, app) else {
        return Err(CliError::Missing(format!("the configuration has no app {app}")));
    };
    Endpoint::new(app, section, &config.guard()).map_err(|bad| CliError::Usage(registry::in_words(&bad)))
}

fn of_the_configuration(app: &AppId, id: &EndpointId) -> CliError {
    CliError::Usage(format!(
        "endpoint {id} of app {app} is of the configuration: it is changed there"
    ))
}

fn overtaken(stored: &StoredEndpoint) -> CliError {
    CliError::Conflict(format!(
        "endpoint {} was changed meanwhile: look at it, and try again",
        stored.id
    ))
}
