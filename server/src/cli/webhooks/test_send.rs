//! `dunlin webhooks test`

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::args::EndpointArgs;
use super::platform::Platform;
use super::table;
use crate::cli::error::CliError;
use crate::cli::out::Out;
use crate::clock;
use crate::webhooks::delivery::{Attempt, DeliveryId, NewDelivery, Source};
use crate::webhooks::format;
use crate::webhooks::registry::KNOWN_AFTER;
use crate::webhooks::store::Store;

/// How often the database is asked for the attempt.
const LOOK: Duration = Duration::from_millis(100);

/// How long a server may take to see the delivery, besides the time that the endpoint has for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stores a delivery for each of the endpoint's URLs, and waits for a server to send it.
pub(super) async fn run(args: &EndpointArgs, platform: &Platform, out: &mut Out) -> Result<(), CliError> {
    let EndpointArgs { app, endpoint, .. } = args;
    let Platform { config, store } = platform;
    let found = platform.endpoint(args).await?;
    let target = found
        .endpoint
        .map_err(|why| CliError::Usage(format!("endpoint {endpoint} of app {app} is not used: {why}")))?;
    let state = store.endpoint_state(app, endpoint).await?;
    if !target.enabled || state.disabled_at_ms.is_some() {
        return Err(CliError::Usage(format!(
            "endpoint {endpoint} of app {app} is off or disabled: it is sent nothing"
        )));
    }
    let now_ms = clock::unix_millis();
    let sources = Source::ALL
        .into_iter()
        .filter(|source| target.url(*source).is_some());
    let tests: Vec<NewDelivery> = sources
        .map(|source| NewDelivery {
            id: DeliveryId::new(),
            app: app.clone(),
            endpoint: endpoint.clone(),
            source,
            created_at_ms: now_ms,
            // Of no channel: it waits for nothing, and nothing waits for it.
            lanes: 0,
            events: 0,
            body: format::test_body(source, &target.key, now_ms),
        })
        .collect();
    // Not before the endpoint as it is now is the one that is tested.
    let changed_at_ms = found.stored.map_or(0, |stored| stored.updated_at_ms);
    let next_at_ms = now_ms.max(changed_at_ms.saturating_add(clock::millis(KNOWN_AFTER)));
    store.add(&tests, next_at_ms, &[]).await?;
    let deadline = Instant::now() + config.webhooks.timeout + PATIENCE;
    let mut refused = 0;
    for test in &tests {
        let attempt = attempt_of(store, &test.id, deadline).await?;
        let is_taken = matches!(attempt.status, Some(200..=299));
        refused += usize::from(!is_taken);
        let (source, attempt) = (test.source.as_str(), table::attempt(&attempt));
        out.line(format_args!("{}  {source:<8}  {attempt}", test.id));
    }
    if refused > 0 {
        return Err(CliError::Untaken(refused));
    }
    Ok(())
}

async fn attempt_of(store: &Store, id: &DeliveryId, deadline: Instant) -> Result<Attempt, CliError> {
    loop {
        let found = store.get(id).await?;
        if let Some(attempt) = found.and_then(|(_, mut attempts)| attempts.pop()) {
            return Ok(attempt);
        }
        if Instant::now() >= deadline {
            return Err(CliError::TimedOut(format!(
                "nobody has sent it yet: either no server delivers, or the endpoint has a break after failures, or much \
                 waits for it; see `dunlin webhooks show {id}` later"
            )));
        }
        sleep(LOOK).await;
    }
}
