//! The flags that say what an endpoint is to be: those of `add` and `set`.

use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use dunlin_protocol::names::AppId;
use serde::de::{DeserializeOwned, IntoDeserializer as _};

use super::args::{EndpointArgs, StoreArgs, header};
use crate::config::{BodyFormat, ConfigSecret, EndpointSection, EventType};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::webhooks::args::WebhooksCommand;
    use crate::cli::webhooks::args::tests::parse;

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
