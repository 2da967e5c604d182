//! The flags of `dunlin webhooks`.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are help texts, which would show the backticks"
)]

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use dunlin_protocol::names::AppId;
use serde::de::{DeserializeOwned, IntoDeserializer as _};

use crate::cli::time;
use crate::config::{BodyFormat, ConfigSecret, EndpointSection, EventType};
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
pub(in crate::cli) struct AddArgs {
    /// The app whose events it is told of
    #[arg(value_name = "APP")]
    pub(super) app: AppId,
    /// A name: letters, digits, _ and - [otherwise: one that follows from format and URLs]
    #[arg(long, value_name = "ENDPOINT")]
    pub(super) id: Option<String>,
    /// Nothing is sent, and nothing kept for it, until it is enabled
    #[arg(long)]
    pub(super) disabled: bool,
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SetArgs {
    #[command(flatten)]
    pub(super) endpoint: EndpointArgs,
    /// Only if it is still of this version, the number behind "database" in the list of endpoints
    #[arg(long, value_name = "N")]
    pub(super) version: Option<i64>,
    /// All that the format has, for one that was told of less
    #[arg(long, conflicts_with = "events")]
    pub(super) all_events: bool,
    /// All channels but for --channel-prefix, for one that was told of some only
    #[arg(long, conflicts_with = "channel")]
    pub(super) all_channels: bool,
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
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

/// What an entry of [[apps.webhooks]] holds.
#[derive(Debug, Args)]
pub(in crate::cli) struct SettingsArgs {
    /// Where the requests go, in the format pusher
    #[arg(long)]
    url: Option<String>,
    /// What the bodies look like [at first: that to which the URLs belong]
    #[arg(long, value_parser = format())]
    format: Option<BodyFormat>,
    /// Where binds and unbinds go, in the format yalgaar
    #[arg(long, value_name = "URL")]
    presence_url: Option<String>,
    /// Where messages go, in the format yalgaar
    #[arg(long, value_name = "URL")]
    message_url: Option<String>,
    /// What it is told of, with commas between; the last three are of the format yalgaar [at first: all of its format]
    #[arg(long, value_delimiter = ',', value_parser = event_type())]
    events: Option<Vec<EventType>>,
    /// Only channels whose name begins so; empty: all
    #[arg(long, value_name = "PREFIX")]
    channel_prefix: Option<String>,
    /// Only channels of this name, in which * stands for anything, or with ! in front not those; may be given more than
    /// once
    #[arg(long, value_name = "PATTERN")]
    channel: Option<Vec<String>>,
    /// A header that is sent along, "Name: value", or "Name:" to take one away; may be given more than once
    #[arg(long, value_name = "HEADER", value_parser = own_header)]
    header: Vec<(String, ConfigSecret)>,
    /// For the webhook-signature, whsec_ and base64, from now on; empty: the secret of the app [at first: that]
    #[arg(long)]
    secret: Option<ConfigSecret>,
    /// Signs as well, until it is taken away; empty: none
    #[arg(long, value_name = "SECRET")]
    previous_secret: Option<ConfigSecret>,
    /// How long an event waits for others to share its request, at most 60000 [at first: 1000]
    #[arg(long, value_name = "MS")]
    batch_ms: Option<u64>,
    /// Most events in a request, 1 to 1000 [at first: 100]
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Give up after five minutes instead of days
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    short_retries: Option<bool>,
    /// For people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

impl AddArgs {
    /// The endpoint as it would be written down.
    pub(super) fn section(&self) -> EndpointSection {
        let mut section = EndpointSection {
            id: self.id.clone().unwrap_or_default(),
            enabled: !self.disabled,
            ..EndpointSection::default()
        };
        let settings = &self.settings;
        if settings.url.is_none() && (settings.presence_url.is_some() || settings.message_url.is_some()) {
            section.format = BodyFormat::Yalgaar;
        }
        settings.apply(&mut section);
        section
    }
}

impl SetArgs {
    /// Changes what was given.
    pub(super) fn apply(&self, section: &mut EndpointSection) {
        if self.all_events {
            section.events.clear();
        }
        if self.all_channels {
            section.channels.clear();
        }
        self.settings.apply(section);
    }
}

impl SettingsArgs {
    fn apply(&self, section: &mut EndpointSection) {
        set(&mut section.url, self.url.as_ref());
        set(&mut section.format, self.format.as_ref());
        set(&mut section.presence_url, self.presence_url.as_ref());
        set(&mut section.message_url, self.message_url.as_ref());
        set(&mut section.events, self.events.as_ref());
        set(&mut section.channel_prefix, self.channel_prefix.as_ref());
        set(&mut section.channels, self.channel.as_ref());
        for (name, value) in &self.header {
            if value.expose().is_empty() {
                section.headers.remove(name);
            } else {
                section.headers.insert(name.clone(), value.clone());
            }
        }
        if self.previous_secret.is_some() {
            section.previous_secret_until_ms = 0;
        }
        let secrets = [
            (&mut section.secret, &self.secret),
            (&mut section.previous_secret, &self.previous_secret),
        ];
        for (secret, given) in secrets {
            if let Some(given) = given {
                *secret = Some(given.clone()).filter(|given| !given.expose().is_empty());
            }
        }
        set(
            &mut section.batch,
            self.batch_ms.map(Duration::from_millis).as_ref(),
        );
        set(&mut section.batch_size, self.batch_size.as_ref());
        set(&mut section.short_retries, self.short_retries.as_ref());
        set(&mut section.description, self.description.as_ref());
    }
}

fn set<T: Clone>(option: &mut T, given: Option<&T>) {
    if let Some(given) = given {
        option.clone_from(given);
    }
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

fn format() -> impl TypedValueParser<Value = BodyFormat> {
    let all = [BodyFormat::Pusher, BodyFormat::Yalgaar];
    PossibleValuesParser::new(all.map(BodyFormat::as_str)).try_map(|name| named(&name))
}

fn event_type() -> impl TypedValueParser<Value = EventType> {
    PossibleValuesParser::new(EventType::ALL.map(EventType::as_str)).try_map(|name| named(&name))
}

/// One of the names that the configuration has for it.
fn named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let read = T::deserialize(text.into_deserializer());
    read.map_err(|error: serde::de::value::Error| error.to_string())
}

fn own_header(text: &str) -> Result<(String, ConfigSecret), String> {
    let (name, value) = header(text)?;
    Ok((name, ConfigSecret::from(value.as_str())))
}

/// The name in lower case, and the value.
fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("must be \"Name: value\"")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: WebhooksCommand,
    }

    fn parse(line: &str) -> Result<WebhooksCommand, clap::Error> {
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

    fn added(line: &str) -> EndpointSection {
        match parse(line) {
            Ok(WebhooksCommand::Add(args)) => args.section(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_format_of_a_new_endpoint_follows_from_its_urls() {
        for (line, format) in [
            ("webhooks add 1 --url u", BodyFormat::Pusher),
            (
                "webhooks add 1 --presence-url u --message-url v",
                BodyFormat::Yalgaar,
            ),
            ("webhooks add 1 --message-url v --disabled", BodyFormat::Yalgaar),
            ("webhooks add 1 --url u --message-url v", BodyFormat::Pusher),
            (
                "webhooks add 1 --format pusher --message-url v",
                BodyFormat::Pusher,
            ),
        ] {
            let section = added(line);
            assert_eq!(
                (section.format, section.enabled),
                (format, !line.contains("--disabled")),
                "{line}"
            );
        }
    }

    #[test]
    fn names_are_those_of_the_configuration() {
        for one in EventType::ALL {
            assert_eq!(named(one.as_str()), Ok(one));
        }
    }

    #[test]
    fn what_is_given_is_changed_and_nothing_else() {
        let mut section = added(
            "webhooks add 1 --url https://a.example/ --events member_added,member_removed --header X-A:1 --header X-B:2 \
             --channel *-eu --channel !presence-b* --secret whsec_YQ== --batch-ms 5 --batch-size 7 --short-retries --channel-prefix presence- --description d",
        );
        let expected = EndpointSection {
            url: "https://a.example/".to_owned(),
            events: vec![EventType::MemberAdded, EventType::MemberRemoved],
            headers: [("x-a", "1"), ("x-b", "2")]
                .map(|(name, value)| (name.to_owned(), ConfigSecret::from(value)))
                .into(),
            secret: Some(ConfigSecret::from("whsec_YQ==")),
            batch: Duration::from_millis(5),
            batch_size: 7,
            short_retries: true,
            channel_prefix: "presence-".to_owned(),
            channels: ["*-eu", "!presence-b*"].map(str::to_owned).into(),
            description: "d".to_owned(),
            ..EndpointSection::default()
        };
        assert_eq!(section, expected);
        section.previous_secret_until_ms = 7;
        let line = "webhooks set 1 a --all-events --all-channels --header X-A: --secret= --previous-secret whsec_YQ== \
             --short-retries=false --url= --format yalgaar --message-url https://b.example/";
        match parse(line) {
            Ok(WebhooksCommand::Set(args)) => args.apply(&mut section),
            other => panic!("{line}: {other:?}"),
        }
        let changed = EndpointSection {
            url: String::new(),
            format: BodyFormat::Yalgaar,
            message_url: "https://b.example/".to_owned(),
            events: Vec::new(),
            channels: Vec::new(),
            headers: [("x-b".to_owned(), ConfigSecret::from("2"))].into(),
            secret: None,
            previous_secret: Some(ConfigSecret::from("whsec_YQ==")),
            short_retries: false,
            ..expected
        };
        assert_eq!(section, changed);
        for wrong in [
            "--events joined",
            "--format xml",
            "--header a",
            "--events bind --all-events",
        ] {
            assert!(parse(&format!("webhooks set 1 a {wrong}")).is_err(), "{wrong}");
        }
    }
}
