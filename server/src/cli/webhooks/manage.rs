//! `dunlin webhooks add`, `set`, `remove`, `disable` and `enable`

use dunlin_protocol::names::AppId;

use super::args::{AddArgs, EndpointArgs, SetArgs};
use super::platform::Platform;
use crate::cli::error::CliError;
use crate::cli::out::Out;
use crate::clock;
use crate::config::EndpointSection;
use crate::webhooks::endpoint::Endpoint;
use crate::webhooks::registry::{self, Registered};
use crate::webhooks::store::{EndpointChange, StoredEndpoint};

pub(super) async fn add(args: &AddArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let mut section = EndpointSection {
        id: args.id.clone().unwrap_or_default(),
        ..EndpointSection::default()
    };
    args.settings.apply(&mut section);
    let Endpoint { app, id, .. } = judged(platform, &args.app, &section)?;
    let ours = platform.endpoints(Some(&app)).await?;
    if ours.iter().any(|other| other.id == id && other.stored.is_none()) {
        return Err(CliError::Conflict(format!(
            "the configuration has an endpoint {id} of app {app}: it is changed there"
        )));
    }
    let change = EndpointChange {
        app: app.clone(),
        id: id.clone(),
        settings: registry::settings(&section),
        enabled: true,
        replaces: None,
    };
    let added = platform.store.put_endpoint(&change, clock::unix_millis()).await?;
    if added.is_none() {
        return Err(CliError::Conflict(format!(
            "app {app} has an endpoint {id} already: see `dunlin webhooks set`"
        )));
    }
    out.line(format_args!("endpoint {id} of app {app} is there"));
    Ok(())
}

pub(super) async fn set(args: &SetArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let EndpointArgs { app, endpoint, .. } = &args.endpoint;
    let stored = of_the_database(platform.endpoint(&args.endpoint).await?)?;
    if args.version.is_some_and(|version| version != stored.version) {
        return Err(overtaken(&stored));
    }
    let mut section = registry::section(&stored)
        .map_err(|error| CliError::Usage(format!("the settings of {endpoint} cannot be read: {error}")))?;
    args.settings.apply(&mut section);
    judged(platform, app, &section)?;
    let (settings, enabled) = (registry::settings(&section), stored.enabled);
    let version = put(platform, &stored, settings, enabled).await?;
    out.line(format_args!(
        "endpoint {endpoint} of app {app} is changed: version {version}"
    ));
    Ok(())
}

/// Forgets an endpoint of the database. What waits for it is given up, and kept as whatever was given up.
pub(super) async fn remove(args: &EndpointArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let EndpointArgs { app, endpoint, .. } = args;
    let (first, hidden) = platform.named(args).await?;
    // One that the configuration has as well goes on as it is there.
    if hidden.is_none() {
        of_the_database(first)?;
        platform
            .store
            .disable(app, endpoint, clock::unix_millis())
            .await?;
    }
    platform.store.remove_endpoint(app, endpoint).await?;
    out.line(format_args!("endpoint {endpoint} of app {app} is removed"));
    Ok(())
}

/// Sends an endpoint of the database nothing more. What waits for it waits on.
pub(super) async fn disable(args: &EndpointArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let EndpointArgs { app, endpoint, .. } = args;
    let stored = of_the_database(platform.endpoint(args).await?)?;
    if stored.enabled {
        put(platform, &stored, stored.settings.clone(), false).await?;
    }
    out.line(format_args!(
        "endpoint {endpoint} of app {app} is off: what waits for it waits, what happens now it is not told"
    ));
    Ok(())
}

/// The opposite, and also of an endpoint that the server has disabled.
pub(super) async fn enable(args: &EndpointArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let EndpointArgs { app, endpoint, .. } = args;
    let found = platform.endpoint(args).await?;
    match (found.stored, found.endpoint) {
        (Some(stored), _) if !stored.enabled => {
            put(platform, &stored, stored.settings.clone(), true).await?;
        }
        (None, Ok(in_use)) if !in_use.enabled => {
            return Err(CliError::Usage(format!(
                "endpoint {endpoint} is off in the configuration: enabled = false"
            )));
        }
        _ => {}
    }
    platform.store.enable(app, endpoint).await?;
    out.line(format_args!(
        "endpoint {endpoint} is enabled; `dunlin webhooks replay --app {app} --endpoint {endpoint}` sends what was given up"
    ));
    Ok(())
}

fn of_the_database(found: Registered) -> Result<StoredEndpoint, CliError> {
    let Registered { app, id, stored, .. } = found;
    stored.ok_or_else(|| {
        CliError::Usage(format!(
            "endpoint {id} of app {app} is of the configuration: it is changed there"
        ))
    })
}

async fn put(
    platform: &Platform,
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
    let version = platform.store.put_endpoint(&change, clock::unix_millis()).await?;
    version.ok_or_else(|| overtaken(stored))
}

/// The endpoint that the settings make, which have to be those of one.
fn judged(platform: &Platform, app: &AppId, section: &EndpointSection) -> Result<Endpoint, CliError> {
    let guard = platform.config.guard();
    Endpoint::new(platform.app(app)?, section, &guard)
        .map_err(|bad| CliError::Usage(registry::in_words(&bad)))
}

fn overtaken(stored: &StoredEndpoint) -> CliError {
    CliError::Conflict(format!(
        "endpoint {} was changed meanwhile: look at it, and try again",
        stored.id
    ))
}
