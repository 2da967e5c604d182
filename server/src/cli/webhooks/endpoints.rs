//! `dunlin webhooks endpoints`

use std::array;

use serde_json::{Value, json};

use super::args::EndpointsArgs;
use super::platform::Platform;
use super::table;
use crate::cli::error::CliError;
use crate::cli::out::Out;
use crate::cli::time;
use crate::config::EndpointSection;
use crate::webhooks::delivery::Source;
use crate::webhooks::egress::EndpointUrl;
use crate::webhooks::registry::Registered;
use crate::webhooks::store::{Disabled, EndpointState, WhyDisabled};

/// Of each endpoint: where it comes from, where its requests go, how it does, and its latest attempt.
pub(super) async fn list(args: &EndpointsArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let mut rows = vec![["APP", "ENDPOINT", "FROM", "URL", "STATE", "LATEST ATTEMPT"].map(str::to_owned)];
    let endpoints = platform.endpoints(args.app.as_ref()).await?;
    if endpoints.is_empty() {
        out.complain("nothing matches");
        return Ok(());
    }
    for endpoint in endpoints {
        let state = platform.store.endpoint_state(&endpoint.app, &endpoint.id).await?;
        if args.json {
            out.line(in_json(&endpoint, &state));
        } else {
            rows.push(in_words(&endpoint, &state));
        }
    }
    if !args.json {
        print(&rows, out);
    }
    Ok(())
}

/// In columns, each as wide as it has to be.
fn print<const N: usize>(rows: &[[String; N]], out: &mut Out) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: [usize; N] = array::from_fn(width);
    for row in rows {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        out.line(cells.collect::<Vec<_>>().join("  "));
    }
}

fn in_words(endpoint: &Registered, state: &EndpointState) -> [String; 6] {
    // The number is the version, which `set` can insist on.
    let origin = match &endpoint.stored {
        None => "file".to_owned(),
        Some(stored) => format!("database {}", stored.version),
    };
    let latest = state.last.as_ref().map(|last| {
        let status = table::status(last.status);
        format!("{}  {status}  {}", time::show(last.at_ms), last.note)
    });
    let health = match health(endpoint, state) {
        Health::Well => "well".to_owned(),
        Health::Failing { since_ms } => format!("failing since {}", time::show(since_ms)),
        Health::Disabled { since_ms, why } => format!("disabled since {}: {why}", time::show(since_ms)),
        Health::Off => "off".to_owned(),
        Health::NotUsed(why) => format!("not used: {why}"),
    };
    [
        endpoint.app.to_string(),
        endpoint.id.to_string(),
        origin,
        urls(endpoint),
        health,
        latest.unwrap_or_default(),
    ]
}

/// Of the Yalgaar format that for binds, then that for messages.
fn urls(endpoint: &Registered) -> String {
    let Ok(endpoint) = &endpoint.endpoint else {
        return String::new();
    };
    let urls = Source::ALL.into_iter().filter_map(|source| endpoint.url(source));
    urls.map(EndpointUrl::as_str).collect::<Vec<_>>().join(" ")
}

fn in_json(endpoint: &Registered, state: &EndpointState) -> Value {
    let health = health(endpoint, state);
    let (name, why) = match &health {
        Health::Well => ("well", None),
        Health::Failing { .. } => ("failing", None),
        Health::Disabled { why, .. } => ("disabled", Some(why)),
        Health::Off => ("off", None),
        Health::NotUsed(why) => ("not_used", Some(why)),
    };
    json!({
        "app": endpoint.app.as_str(),
        "endpoint": &*endpoint.id.0,
        "from": if endpoint.stored.is_some() { "database" } else { "file" },
        "version": endpoint.stored.as_ref().map(|stored| stored.version),
        "state": name,
        "why": why,
        "failing_since_ms": state.failing_since_ms,
        "disabled_at_ms": state.disabled_at_ms,
        "settings": endpoint.settings.as_ref().map(EndpointSection::shown),
        "latest": state.last.as_ref().map(|last| json!({
            "at_ms": last.at_ms,
            "status": last.status,
            "note": last.note,
        })),
    })
}

/// Whether an endpoint is told what happens, and if not, why.
enum Health {
    Well,
    Failing {
        since_ms: u64,
    },
    /// By the server.
    Disabled {
        since_ms: u64,
        why: String,
    },
    /// By its owner.
    Off,
    NotUsed(String),
}

fn health(endpoint: &Registered, state: &EndpointState) -> Health {
    match (&endpoint.endpoint, state.disabled(), state.failing_since_ms) {
        (Err(why), ..) => Health::NotUsed(why.to_string()),
        (Ok(endpoint), ..) if !endpoint.enabled => Health::Off,
        (Ok(_), Some(Disabled { since_ms, why }), _) => Health::Disabled {
            since_ms,
            why: why_disabled(why),
        },
        (Ok(_), None, Some(since_ms)) => Health::Failing { since_ms },
        (Ok(_), None, None) => Health::Well,
    }
}

fn why_disabled(why: WhyDisabled) -> String {
    match why {
        WhyDisabled::Gone => "it answered 410 Gone".to_owned(),
        WhyDisabled::TookNothing {
            since_ms: Some(at_ms),
        } => format!("it took nothing since {}", time::show(at_ms)),
        WhyDisabled::TookNothing { since_ms: None } => "it took nothing for too long".to_owned(),
    }
}
