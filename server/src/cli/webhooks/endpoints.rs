//! `dunlin webhooks endpoints`

use super::args::EndpointsArgs;
use super::platform::Platform;
use crate::cli::error::CliError;
use crate::cli::out::Out;
use crate::cli::time;
use crate::webhooks::delivery::Source;
use crate::webhooks::egress::EndpointUrl;
use crate::webhooks::registry::Registered;
use crate::webhooks::store::EndpointState;

/// A line per endpoint: where it comes from, where its requests go, how it does, and its latest attempt.
pub(super) async fn list(args: &EndpointsArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let endpoints = platform.endpoints(args.app.as_ref()).await?;
    if endpoints.is_empty() {
        out.complain("nothing matches");
        return Ok(());
    }
    let urls: Vec<String> = endpoints.iter().map(urls).collect();
    let ids = endpoints.iter().map(|endpoint| endpoint.id.0.len());
    let width = ids.max().unwrap_or_default().max("ENDPOINT".len());
    let url_width = urls.iter().map(String::len).max();
    let url_width = url_width.unwrap_or_default().max("URL".len());
    out.line(format_args!(
        "{:<4}  {:<width$}  {:<11}  {:<url_width$}  {:<39}  LATEST ATTEMPT",
        "APP", "ENDPOINT", "FROM", "URL", "STATE"
    ));
    for (endpoint, urls) in endpoints.into_iter().zip(urls) {
        let state = platform.store.endpoint_state(&endpoint.app, &endpoint.id).await?;
        let latest = state.last.as_ref().map(|last| {
            let status = last
                .status
                .map_or_else(|| "---".to_owned(), |status| status.to_string());
            format!("{}  {status}  {}", time::show(last.at_ms), last.note)
        });
        out.line(format_args!(
            "{:<4}  {:<width$}  {:<11}  {urls:<url_width$}  {:<39}  {}",
            endpoint.app.as_str(),
            endpoint.id.0,
            origin(&endpoint),
            in_words(&endpoint, &state),
            latest.unwrap_or_default()
        ));
    }
    Ok(())
}

/// Of the Yalgaar format that for binds, then that for messages.
fn urls(endpoint: &Registered) -> String {
    let Ok(endpoint) = &endpoint.endpoint else {
        return String::new();
    };
    let urls = Source::ALL.into_iter().filter_map(|source| endpoint.url(source));
    urls.map(EndpointUrl::as_str).collect::<Vec<_>>().join(" ")
}

/// The number is the version, which `set` can insist on.
fn origin(endpoint: &Registered) -> String {
    match &endpoint.stored {
        None => "file".to_owned(),
        Some(stored) => format!("database {}", stored.version),
    }
}

fn in_words(endpoint: &Registered, state: &EndpointState) -> String {
    let is_enabled = match &endpoint.endpoint {
        Err(why) => return format!("not used: {why}"),
        Ok(endpoint) => endpoint.enabled,
    };
    match (is_enabled, state.disabled_at_ms, state.failing_since_ms) {
        (false, ..) => "off".to_owned(),
        (true, Some(at_ms), _) => format!("disabled since {}", time::show(at_ms)),
        (true, None, Some(at_ms)) => format!("failing since {}", time::show(at_ms)),
        (true, None, None) => "well".to_owned(),
    }
}
