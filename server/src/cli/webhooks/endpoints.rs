//! `dunlin webhooks endpoints` and `dunlin webhooks enable`

use std::sync::Arc;

use super::args::{EnableArgs, EndpointsArgs};
use crate::cli::error::CliError;
use crate::cli::out::Out;
use crate::cli::time;
use crate::config::Config;
use crate::webhooks::delivery::EndpointId;
use crate::webhooks::endpoint::Endpoint;
use crate::webhooks::store::{EndpointState, Store};

/// A line per endpoint of the configuration: how it does, and its latest attempt.
pub(super) async fn list(
    args: &EndpointsArgs,
    config: &Config,
    store: &Store,
    out: &mut Out,
) -> Result<(), CliError> {
    let mut endpoints = configured(config);
    endpoints.retain(|endpoint| args.app.as_ref().is_none_or(|app| *app == endpoint.app));
    if endpoints.is_empty() {
        out.complain("nothing matches");
        return Ok(());
    }
    let width = endpoints.iter().map(|endpoint| endpoint.id.0.len()).max();
    let width = width.unwrap_or_default().max("ENDPOINT".len());
    out.line(format_args!(
        "{:<4}  {:<width$}  {:<39}  LATEST ATTEMPT",
        "APP", "ENDPOINT", "STATE"
    ));
    for endpoint in endpoints {
        let state = store.endpoint_state(&endpoint.app, &endpoint.id).await?;
        let latest = state.last.as_ref().map(|last| {
            let status = last
                .status
                .map_or_else(|| "---".to_owned(), |status| status.to_string());
            format!("{}  {status}  {}", time::show(last.at_ms), last.note)
        });
        out.line(format_args!(
            "{:<4}  {:<width$}  {:<39}  {}",
            endpoint.app.as_str(),
            endpoint.id.0,
            in_words(&endpoint, &state),
            latest.unwrap_or_default()
        ));
    }
    Ok(())
}

/// Of an endpoint that the server has disabled.
pub(super) async fn enable(
    args: &EnableArgs,
    config: &Config,
    store: &Store,
    out: &mut Out,
) -> Result<(), CliError> {
    let id = EndpointId(args.endpoint.as_str().into());
    let mut all = configured(config).into_iter();
    let Some(endpoint) = all.find(|one| one.app == args.app && one.id == id) else {
        return Err(CliError::Missing(format!(
            "app {} has no endpoint {id}: see `dunlin webhooks endpoints`",
            args.app
        )));
    };
    if !endpoint.enabled {
        return Err(CliError::Usage(format!(
            "endpoint {id} is off in the configuration: enabled = false"
        )));
    }
    store.enable(&args.app, &id).await?;
    out.line(format_args!(
        "endpoint {id} is enabled; `dunlin webhooks replay --app {} --endpoint {id}` sends what it missed",
        args.app
    ));
    Ok(())
}

pub(super) fn configured(config: &Config) -> Vec<Arc<Endpoint>> {
    let guard = config.guard();
    let apps = config.apps.iter();
    // What is wrong with one was said when the configuration was read.
    apps.flat_map(|app| Endpoint::all_of(app, &guard).unwrap_or_default())
        .collect()
}

fn in_words(endpoint: &Endpoint, state: &EndpointState) -> String {
    match (endpoint.enabled, state.disabled_at_ms, state.failing_since_ms) {
        (false, ..) => "off".to_owned(),
        (true, Some(at_ms), _) => format!("disabled since {}", time::show(at_ms)),
        (true, None, Some(at_ms)) => format!("failing since {}", time::show(at_ms)),
        (true, None, None) => "well".to_owned(),
    }
}
