//! The flags of `dunlin webhooks`.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are help texts, which would show the backticks"
)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use dunlin_protocol::names::AppId;

use super::settings::{AddArgs, SetArgs};
use crate::cli::time;
use crate::config::ConfigSecret;
use crate::webhooks::delivery::{DeliveryId, EndpointId, State};
use crate::webhooks::store::Filter;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum WebhooksCommand {
    /// List deliveries, newest first
    List(ListArgs),
    /// Show a delivery, its attempts and its body
    Show(ShowArgs),
    /// Have deliveries sent again, with the same ids and bodies
    Replay(ReplayArgs),
    /// Show deliveries of an app as they are attempted, and pass them on to a URL of yours
    Listen(ListenArgs),
    /// List the endpoints, where they come from and how they do
    Endpoints(EndpointsArgs),
    /// Add an endpoint to the database; servers that run take it over
    Add(AddArgs),
    /// Change an endpoint of the database; what is not given stays as it is
    Set(SetArgs),
    /// Give an endpoint of the database a new secret; the old one signs as well for a while
    Rotate(RotateArgs),
    /// Remove an endpoint from the database; what waits for it is given up
    Remove(EndpointArgs),
    /// Send an endpoint of the database nothing more; what waits for it waits on
    Disable(EndpointArgs),
    /// Send an endpoint something again that is off, or that the server has disabled
    Enable(EndpointArgs),
    /// Have a server send a test to an endpoint, and say what it answers
    Test(EndpointArgs),
    /// Check the signatures of a request; its body is read from standard input
    Verify(VerifyArgs),
}

/// Where help texts have what all commands have.
const LAST: usize = 900;

/// Where the deliveries are.
#[derive(Debug, Args)]
pub(in crate::cli) struct StoreArgs {
    /// The configuration file of the server [otherwise: the variable DUNLIN_CONFIG]
    #[arg(long, value_name = "FILE", display_order = LAST)]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Only those of this app
    #[arg(long, value_name = "ID")]
    app: Option<AppId>,
    /// Only those of this endpoint
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    /// Only those that are pending, done or dead
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Only those made since then: 2026-01-31, 2026-01-31T18:30:00Z, or 90s, 15m, 24h, 7d ago
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    since: Option<u64>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) limit: u32,
    /// One JSON object per delivery
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

impl ListArgs {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            app: self.app.clone(),
            endpoint: self.endpoint.as_deref().map(endpoint),
            state: self.state,
            from_ms: self.since,
            ..Filter::default()
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// The webhook-id of the delivery
    #[arg(value_name = "MSG_ID")]
    pub(super) id: DeliveryId,
    /// One JSON object
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, Args)]
#[command(override_usage = "dunlin webhooks replay <MSG_ID>\n       \
    dunlin webhooks replay --app <ID> [--endpoint <ID>] [--state <STATE>] [--from <TIME>] [--to <TIME>]")]
pub(in crate::cli) struct ReplayArgs {
    /// The webhook-id of one delivery, in whatever state
    #[arg(
        value_name = "MSG_ID",
        required_unless_present = "app",
        conflicts_with_all = ["app", "endpoint", "state", "from", "to"]
    )]
    pub(super) id: Option<DeliveryId>,
    /// All of this app that are in the state
    #[arg(long, value_name = "ID")]
    app: Option<AppId>,
    /// Of these only the endpoint's
    #[arg(long, value_name = "ID", requires = "app")]
    endpoint: Option<String>,
    /// The state: pending, done or dead [otherwise: dead]
    #[arg(long, value_parser = state, requires = "app")]
    state: Option<State>,
    /// Of these only those made since then: 2026-01-31, 2026-01-31T18:30:00Z, or 90s, 15m, 24h, 7d ago
    #[arg(long, value_name = "TIME", value_parser = time::parse, requires = "app")]
    from: Option<u64>,
    /// Of these only those made before then
    #[arg(long, value_name = "TIME", value_parser = time::parse, requires = "app")]
    to: Option<u64>,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

impl ReplayArgs {
    pub(super) fn filter(&self) -> Filter {
        // Of those that were named by a filter, nobody wants what was taken already to come again by mistake.
        let state = self.id.is_none().then(|| self.state.unwrap_or(State::Dead));
        Filter {
            id: self.id.clone(),
            app: self.app.clone(),
            endpoint: self.endpoint.as_deref().map(endpoint),
            state,
            from_ms: self.from,
            to_ms: self.to,
            ..Filter::default()
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListenArgs {
    /// The app
    #[arg(value_name = "APP")]
    pub(super) app: AppId,
    /// Only those of this endpoint
    #[arg(long, value_name = "ID")]
    pub(super) endpoint: Option<String>,
    /// Send each attempt there as well, with the same body and signed anew: http://localhost:3000/hook
    #[arg(long, value_name = "URL")]
    pub(super) forward: Option<String>,
    /// End after so many attempts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// One JSON object per attempt
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct EndpointsArgs {
    /// Only those of this app
    #[arg(long, value_name = "ID")]
    pub(super) app: Option<AppId>,
    /// One JSON object per endpoint, with its settings but for the secrets
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

/// One endpoint.
#[derive(Debug, Args)]
pub(in crate::cli) struct EndpointArgs {
    /// The app of the endpoint
    #[arg(value_name = "APP")]
    pub(super) app: AppId,
    /// The id of the endpoint
    #[arg(value_name = "ENDPOINT", value_parser = |text: &str| Ok::<_, String>(endpoint(text)))]
    pub(super) endpoint: EndpointId,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RotateArgs {
    #[command(flatten)]
    pub(super) endpoint: EndpointArgs,
    /// The new one, whsec_ and base64 [otherwise: one is made, and printed]
    #[arg(long)]
    pub(super) secret: Option<ConfigSecret>,
    /// How long the old one signs as well: 90s, 15m, 24h, 7d; 0s: no longer
    #[arg(long, value_name = "TIME", value_parser = time::span, default_value = "24h")]
    pub(super) overlap: Duration,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    /// The secret of the endpoint, whsec_ and base64: checks the webhook-signature
    #[arg(long, required_unless_present = "app_secret")]
    pub(super) secret: Option<ConfigSecret>,
    /// The secret of the app: checks the X-Pusher-Signature, and without --secret also the webhook-signature
    #[arg(long)]
    pub(super) app_secret: Option<ConfigSecret>,
    /// A header of the request, "Name: value"; may be given more than once, and others than those needed do no harm
    #[arg(short = 'H', long, value_name = "HEADER", value_parser = header)]
    pub(super) header: Vec<(String, String)>,
}

fn endpoint(text: &str) -> EndpointId {
    EndpointId(text.into())
}

fn state(text: &str) -> Result<State, String> {
    let found = State::ALL.into_iter().find(|state| state.as_str() == text);
    found.ok_or_else(|| "must be pending, done or dead".to_owned())
}

/// The name in lower case, and the value.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("must be \"Name: value\"")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: WebhooksCommand,
    }

    pub(in crate::cli::webhooks) fn parse(line: &str) -> Result<WebhooksCommand, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.command)
    }

    fn replay(line: &str) -> Option<Filter> {
        match parse(line) {
            Ok(WebhooksCommand::Replay(args)) => Some(args.filter()),
            _ => None,
        }
    }

    #[test]
    fn a_replay_is_of_one_delivery_or_of_what_is_dead_in_an_app() {
        let id: DeliveryId = "msg_0123456789abcdef0123456789abcdef".parse().expect("an id");
        let one = replay(&format!("webhooks replay {id}")).expect("it is complete");
        assert_eq!((one.id, one.state), (Some(id.clone()), None));
        let all = replay("webhooks replay --app 1 --endpoint e").expect("it is complete");
        assert_eq!((all.id, all.state), (None, Some(State::Dead)));
        let done = replay("webhooks replay --app 1 --state done --from 2026-01-31").expect("it is complete");
        assert_eq!(
            (done.state, done.from_ms),
            (Some(State::Done), Some(1_769_817_600_000))
        );
        for incomplete in [
            "webhooks replay".to_owned(),
            "webhooks replay --endpoint e".to_owned(),
            "webhooks replay --state dead".to_owned(),
            "webhooks replay msg_1".to_owned(),
            format!("webhooks replay {id} --app 1"),
            "webhooks list --state gone".to_owned(),
            "webhooks list --since soon".to_owned(),
            "webhooks list --limit 0".to_owned(),
            "webhooks verify".to_owned(),
        ] {
            assert!(parse(&incomplete).is_err(), "{incomplete}");
        }
    }

    #[test]
    fn secrets_are_no_part_of_the_debug_output() {
        let command = parse("webhooks verify --secret whsec_aHVzaA== --app-secret hush").expect("complete");
        let shown = format!("{command:?}");
        assert!(!shown.contains("whsec") && !shown.contains("hush"), "{shown}");
        let command = parse("webhooks add 1 --secret whsec_aHVzaA== --header a:hush").expect("complete");
        let shown = format!("{command:?}");
        assert!(!shown.contains("whsec") && !shown.contains("hush"), "{shown}");
    }
}
