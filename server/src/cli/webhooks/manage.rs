//! `dunlin webhooks add`, `set`, `rotate`, `remove`, `disable` and `enable`

use dunlin_protocol::names::AppId;

use super::args::{EndpointArgs, RotateArgs};
use super::platform::{self, Platform};
use super::settings::{AddArgs, SetArgs};
use crate::cli::error::CliError;
use crate::cli::out::Out;
use crate::cli::time;
use crate::clock;
use crate::config::{Config, ConfigSecret, EndpointSection};
use crate::webhooks::endpoint::{BadOption, Endpoint};
use crate::webhooks::registry::{self, Registered};
use crate::webhooks::sign;
use crate::webhooks::store::{EndpointChange, StoredEndpoint};

pub(super) async fn add(args: &AddArgs, out: &mut Out) -> Result<(), CliError> {
    let section = args.section();
    let config = platform::configuration(&args.store)?;
    // Before there is a database, which is not made for nothing.
    let Endpoint { app, id, .. } = judged(&config, &args.app, &section)?;
    let platform = Platform::open_or_make(config, out).await?;
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
        enabled: section.enabled,
        replaces: None,
    };
    let added = platform.store.put_endpoint(&change, clock::unix_millis()).await?;
    if added.is_none() {
        return Err(CliError::Conflict(format!(
            "app {app} has an endpoint {id} already: see `dunlin webhooks set`"
        )));
    }
    let next = if section.enabled { "test" } else { "enable" };
    out.line(format_args!(
        "endpoint {id} of app {app} is there: go on with `dunlin webhooks {next} {app} {id}`"
    ));
    Ok(())
}

pub(super) async fn set(args: &SetArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let EndpointArgs { app, endpoint, .. } = &args.endpoint;
    let stored = of_the_database(platform.endpoint(&args.endpoint).await?)?;
    if args.version.is_some_and(|version| version != stored.version) {
        return Err(overtaken(&stored));
    }
    let mut section = settings(&stored)?;
    let before = section.clone();
    args.apply(&mut section);
    let (is, version) = if section == before {
        ("as it was", stored.version)
    } else {
        ("changed", change(platform, &stored, &section).await?)
    };
    out.line(format_args!(
        "endpoint {endpoint} of app {app} is {is}: version {version}"
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

/// Gives an endpoint of the database a new secret.
pub(super) async fn rotate(args: &RotateArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let EndpointArgs { app, endpoint, .. } = &args.endpoint;
    let stored = of_the_database(platform.endpoint(&args.endpoint).await?)?;
    let mut section = settings(&stored)?;
    let written = |secret: &[u8]| ConfigSecret::from(&*sign::in_standard(secret));
    let old = match section.secret.take() {
        Some(secret) => secret,
        None => written(platform.app(app)?.secret.expose().as_bytes()),
    };
    let made = || written(&rand::random::<[u8; 32]>());
    let new = args.secret.clone().unwrap_or_else(made);
    if old == new {
        return Err(CliError::Usage(format!(
            "that is the secret of endpoint {endpoint} already"
        )));
    }
    let is_now = args.overlap.is_zero();
    let until_ms = clock::unix_millis().saturating_add(clock::millis(args.overlap));
    section.secret = Some(new.clone());
    section.previous_secret = Some(old).filter(|_| !is_now);
    section.previous_secret_until_ms = if is_now { 0 } else { until_ms };
    change(platform, &stored, &section).await?;
    if args.secret.is_none() {
        out.line(new.expose());
    }
    let besides = if is_now {
        String::new()
    } else {
        format!(", and until {} by the old one as well", time::show(until_ms))
    };
    out.complain(format_args!(
        "requests to endpoint {endpoint} of app {app} are signed by the new secret{besides}"
    ));
    Ok(())
}

fn settings(stored: &StoredEndpoint) -> Result<EndpointSection, CliError> {
    registry::section(stored)
        .map_err(|error| CliError::Usage(format!("the settings of {} cannot be read: {error}", stored.id)))
}

fn of_the_database(found: Registered) -> Result<StoredEndpoint, CliError> {
    let Registered { app, id, stored, .. } = found;
    stored.ok_or_else(|| {
        CliError::Usage(format!(
            "endpoint {id} of app {app} is of the configuration: it is changed there"
        ))
    })
}

/// Keeps what has to be an endpoint in the place of what was there, and returns its version.
async fn change(
    platform: &Platform,
    stored: &StoredEndpoint,
    section: &EndpointSection,
) -> Result<i64, CliError> {
    judged(&platform.config, &stored.app, section)?;
    put(platform, stored, registry::settings(section), stored.enabled).await
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
fn judged(config: &Config, app: &AppId, section: &EndpointSection) -> Result<Endpoint, CliError> {
    let judged = Endpoint::new(platform::app(config, app)?, section, &config.guard());
    judged.map_err(|bad| CliError::Usage(in_flags(&bad)))
}

/// What is wrong, line by line and by the names that options have here.
fn in_flags(bad: &[BadOption]) -> String {
    let lines = bad.iter().map(|BadOption { option, what }| {
        let flag = match *option {
            "headers" => "header".to_owned(),
            "channels" => "channel".to_owned(),
            option => option.replace('_', "-"),
        };
        format!("\n  --{flag} {what}")
    });
    format!("this is no endpoint:{}", lines.collect::<String>())
}

fn overtaken(stored: &StoredEndpoint) -> CliError {
    CliError::Conflict(format!(
        "endpoint {} was changed meanwhile: look at it, and try again",
        stored.id
    ))
}
