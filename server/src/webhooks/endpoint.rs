//! Endpoints: what they want to know, where they are, and what their requests are signed with.

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;

use dunlin_protocol::names::{AppId, AppKey, ChannelName, is_reserved};
use dunlin_protocol::signature::Secret;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::channels::{self, Channels};
use super::delivery::{EndpointId, Source};
use super::egress::{EndpointUrl, Guard};
use super::event::ChannelEvent;
use super::sign;
use crate::apps::wanted::News;
use crate::config::{AppSection, BodyFormat, ConfigSecret, EndpointSection, EventType};

/// Longest name of an endpoint, in bytes.
const MAX_ID: usize = 64;

/// Most events in one request.
const MAX_BATCH_SIZE: usize = 1000;

/// A minute, in milliseconds: whoever waits longer than that for company wants a report, not a webhook.
const MAX_BATCH_MS: u64 = 60_000;

/// Patterns of channels: each is looked at for every event.
const MAX_PATTERNS: usize = 100;

/// Headers of its own that an endpoint may have, and the longest value of one in bytes.
const MAX_HEADERS: usize = 32;
const MAX_HEADER_VALUE: usize = 4096;

/// Headers that say what a request is and how it travels. Whoever could set them could make it another one.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const OWN_HEADER_PREFIXES: &[&str] = &["x-pusher-", "webhook-", "proxy-"];

/// Somebody who is told what happens in an app. Holds all that a request needs, so that a change of the app or of the
/// endpoint makes a new one; nothing of it is stored with a delivery.
#[derive(Debug)]
pub struct Endpoint {
    pub id: EndpointId,
    pub app: AppId,
    /// The app's public key, which requests name.
    pub key: AppKey,
    /// Off: no event is for it.
    pub enabled: bool,
    /// For people.
    pub description: String,
    /// Give up after five minutes, not after days.
    pub short_retries: bool,
    /// How long events wait for others to share their request.
    pub batch_ms: u64,
    /// Most events in a request, at least one.
    pub batch_size: usize,
    /// Of its own; none that [`OWN_HEADERS`] has.
    pub(super) headers: HeaderMap,
    /// Signs the `X-Pusher-Signature`.
    pub(super) app_secret: Secret,
    /// Signs the `webhook-signature`.
    secret: Secret,
    /// Signs as well, before that time; Unix milliseconds.
    previous: Option<(Secret, u64)>,
    targets: Targets,
    events: EventTypes,
    channels: Channels,
}

#[derive(Debug)]
enum Targets {
    Pusher(EndpointUrl),
    /// At least one.
    Yalgaar {
        presence: Option<EndpointUrl>,
        message: Option<EndpointUrl>,
    },
}

/// A set of event types.
#[derive(Clone, Copy, Debug)]
struct EventTypes(u16);

impl EventTypes {
    /// An empty list stands for everything.
    fn of(list: &[EventType]) -> Self {
        if list.is_empty() {
            return Self(u16::MAX);
        }
        Self(list.iter().fold(0, |set, one| set | Self::bit(*one)))
    }

    fn has(self, one: EventType) -> bool {
        self.0 & Self::bit(one) != 0
    }

    const fn bit(one: EventType) -> u16 {
        1 << one as u16
    }
}

/// Why an endpoint cannot be. `what` is the rest of a sentence about the option and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadOption {
    pub option: &'static str,
    pub what: String,
}

/// The same for one of an app's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadEndpoint {
    /// Its place in the list.
    pub index: usize,
    pub bad: BadOption,
}

impl Endpoint {
    /// # Errors
    /// Everything that is wrong with it.
    pub fn new(app: &AppSection, section: &EndpointSection, guard: &Guard) -> Result<Self, Vec<BadOption>> {
        let mut judge = Judge {
            guard,
            bad: Vec::new(),
        };
        let id = judge.id(app, section);
        let targets = judge.targets(section);
        let headers = judge.headers(section);
        judge.events(section);
        judge.batch(section);
        let channels = judge.channels(section);
        let secret = judge.secret("secret", section.secret.as_ref());
        let previous = judge.secret("previous_secret", section.previous_secret.as_ref());
        let (Some(targets), true) = (targets, judge.bad.is_empty()) else {
            return Err(judge.bad);
        };
        let app_secret = app.secret.to_secret();
        let until_ms = match section.previous_secret_until_ms {
            0 => u64::MAX,
            until_ms => until_ms,
        };
        Ok(Self {
            id,
            app: app.id.clone(),
            key: app.key.clone(),
            enabled: section.enabled,
            description: section.description.clone(),
            short_retries: section.short_retries,
            batch_ms: u64::try_from(section.batch.as_millis()).unwrap_or(MAX_BATCH_MS),
            batch_size: section.batch_size,
            headers,
            secret: secret.unwrap_or_else(|| app_secret.clone()),
            previous: previous.map(|previous| (previous, until_ms)),
            app_secret,
            targets,
            events: EventTypes::of(&section.events),
            channels,
        })
    }

    /// All endpoints of an app, in their order.
    ///
    /// # Errors
    /// Everything that is wrong with any of them, and names that are taken.
    pub fn all_of(app: &AppSection, guard: &Guard) -> Result<Vec<Arc<Self>>, Vec<BadEndpoint>> {
        let (mut endpoints, mut all_bad) = (Vec::new(), Vec::new());
        let mut taken = HashMap::new();
        for (index, section) in app.webhooks.iter().enumerate() {
            if let Some(first) = taken.insert(id_of(app, section), index) {
                let what = if section.id.is_empty() {
                    format!("is needed: format and URLs are those of webhooks[{first}]")
                } else {
                    format!("{:?} is the id of webhooks[{first}] already", section.id)
                };
                let bad = BadOption { option: "id", what };
                all_bad.push(BadEndpoint { index, bad });
            }
            match Self::new(app, section, guard) {
                Ok(endpoint) => endpoints.push(Arc::new(endpoint)),
                Err(bad) => all_bad.extend(bad.into_iter().map(|bad| BadEndpoint { index, bad })),
            }
        }
        if all_bad.is_empty() {
            Ok(endpoints)
        } else {
            Err(all_bad)
        }
    }

    pub fn format(&self) -> BodyFormat {
        match self.targets {
            Targets::Pusher(_) => BodyFormat::Pusher,
            Targets::Yalgaar { .. } => BodyFormat::Yalgaar,
        }
    }

    /// Where its deliveries of this source go, if it has any.
    pub fn url(&self, source: Source) -> Option<&EndpointUrl> {
        match (&self.targets, source) {
            (Targets::Pusher(url), Source::Events) => Some(url),
            (Targets::Yalgaar { presence, .. }, Source::Presence) => presence.as_ref(),
            (Targets::Yalgaar { message, .. }, Source::Message) => message.as_ref(),
            (Targets::Pusher(_), Source::Presence | Source::Message)
            | (Targets::Yalgaar { .. }, Source::Events) => None,
        }
    }

    /// What the `webhook-signature` of a request is signed with at that time, the current one first.
    pub(super) fn secrets_at(&self, unix_s: u64) -> impl Iterator<Item = &Secret> {
        let previous = self.previous.as_ref();
        let previous = previous.filter(|(_, until_ms)| unix_s.saturating_mul(1000) < *until_ms);
        iter::once(&self.secret).chain(previous.map(|(secret, _)| secret))
    }

    /// Where an event goes, or that it is none of its business.
    pub fn source_of(&self, channel: &ChannelName, event: &ChannelEvent) -> Option<Source> {
        if !self.enabled || channel.kind().is_user() || !self.channels.has(channel) {
            return None;
        }
        if matches!(event, ChannelEvent::Published(published) if is_reserved(&published.name)) {
            return None;
        }
        let (event_type, source) = match self.targets {
            Targets::Pusher(_) => (pusher_type(event)?, Source::Events),
            Targets::Yalgaar { .. } => yalgaar_type(event)?,
        };
        self.url(source)?;
        self.events.has(event_type).then_some(source)
    }

    /// What has to be recorded for it.
    pub fn news(&self) -> News {
        if !self.enabled {
            return News::NONE;
        }
        let wants = |types: &[EventType], source: Source| {
            self.url(source).is_some() && types.iter().any(|one| self.events.has(*one))
        };
        let state = [
            EventType::ChannelOccupied,
            EventType::ChannelVacated,
            EventType::MemberAdded,
            EventType::MemberRemoved,
            EventType::CacheMiss,
            EventType::SubscriptionCount,
        ];
        let all = [
            (News::STATE, wants(&state, Source::Events)),
            (
                News::CLIENT_EVENTS,
                wants(&[EventType::ClientEvent], Source::Events),
            ),
            (
                News::BINDS,
                wants(&[EventType::Bind, EventType::Unbind], Source::Presence),
            ),
            (News::MESSAGES, wants(&[EventType::Message], Source::Message)),
        ];
        let wanted = all.into_iter().filter(|(_, is_wanted)| *is_wanted);
        wanted.fold(News::NONE, |news, (more, _)| news.and(more))
    }
}

fn pusher_type(event: &ChannelEvent) -> Option<EventType> {
    match event {
        ChannelEvent::Occupied => Some(EventType::ChannelOccupied),
        ChannelEvent::Vacated => Some(EventType::ChannelVacated),
        ChannelEvent::MemberAdded { .. } => Some(EventType::MemberAdded),
        ChannelEvent::MemberRemoved { .. } => Some(EventType::MemberRemoved),
        ChannelEvent::CacheMiss => Some(EventType::CacheMiss),
        ChannelEvent::SubscriptionCount { .. } => Some(EventType::SubscriptionCount),
        // What came over the HTTP API, the customer has sent himself.
        ChannelEvent::Published(event) => event.socket_id.map(|_| EventType::ClientEvent),
        ChannelEvent::Bound { .. } | ChannelEvent::Unbound { .. } => None,
    }
}

fn yalgaar_type(event: &ChannelEvent) -> Option<(EventType, Source)> {
    match event {
        ChannelEvent::Bound { .. } => Some((EventType::Bind, Source::Presence)),
        ChannelEvent::Unbound { .. } => Some((EventType::Unbind, Source::Presence)),
        ChannelEvent::Published(_) => Some((EventType::Message, Source::Message)),
        ChannelEvent::Occupied
        | ChannelEvent::Vacated
        | ChannelEvent::MemberAdded { .. }
        | ChannelEvent::MemberRemoved { .. }
        | ChannelEvent::CacheMiss
        | ChannelEvent::SubscriptionCount { .. } => None,
    }
}

/// The name that was given, or one that is the same as long as format and URLs are.
fn id_of(app: &AppSection, section: &EndpointSection) -> EndpointId {
    if !section.id.is_empty() {
        return EndpointId(section.id.as_str().into());
    }
    let mut hash = Sha256::new();
    for part in [
        app.id.as_str(),
        section.format.as_str(),
        &section.url,
        &section.presence_url,
        &section.message_url,
    ] {
        hash.update(part);
        hash.update([0]);
    }
    EndpointId(format!("ep_{}", hex::encode(&hash.finalize()[..6])).into())
}

/// Collects what is wrong.
struct Judge<'a> {
    guard: &'a Guard,
    bad: Vec<BadOption>,
}

impl Judge<'_> {
    fn add(&mut self, option: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.bad.push(BadOption { option, what });
    }

    fn unless(&mut self, holds: bool, option: &'static str, what: impl Into<String>) {
        if !holds {
            self.add(option, what);
        }
    }

    fn id(&mut self, app: &AppSection, section: &EndpointSection) -> EndpointId {
        let is_name = section.id.len() <= MAX_ID
            && section
                .id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let what = format!("must be 1 to {MAX_ID} letters, digits, _ and -, or empty");
        self.unless(is_name, "id", what);
        id_of(app, section)
    }

    fn targets(&mut self, section: &EndpointSection) -> Option<Targets> {
        let pair = [
            ("presence_url", &section.presence_url),
            ("message_url", &section.message_url),
        ];
        match section.format {
            BodyFormat::Pusher => {
                for (option, text) in pair {
                    let what = "is for the format \"yalgaar\"; the format \"pusher\" has one url";
                    self.unless(text.is_empty(), option, what);
                }
                if section.url.is_empty() {
                    self.add("url", "is missing");
                }
                self.url("url", &section.url).map(Targets::Pusher)
            }
            BodyFormat::Yalgaar => {
                let what =
                    "is for the format \"pusher\"; the format \"yalgaar\" has presence_url and message_url";
                self.unless(section.url.is_empty(), "url", what);
                if pair.iter().all(|(_, text)| text.is_empty()) {
                    self.add("presence_url", "is missing, and so is message_url: one is needed");
                }
                let [presence, message] = pair.map(|(option, text)| self.url(option, text));
                Some(Targets::Yalgaar { presence, message })
            }
        }
    }

    /// `None` for an empty text, which is for others to judge.
    fn url(&mut self, option: &'static str, text: &str) -> Option<EndpointUrl> {
        if text.is_empty() {
            return None;
        }
        match EndpointUrl::parse(text, self.guard) {
            Ok(url) => Some(url),
            Err(refused) => {
                self.add(option, refused.to_string());
                None
            }
        }
    }

    fn headers(&mut self, section: &EndpointSection) -> HeaderMap {
        let what = format!("must be at most {MAX_HEADERS}");
        self.unless(section.headers.len() <= MAX_HEADERS, "headers", what);
        let mut headers = HeaderMap::new();
        for (name, value) in &section.headers {
            let Ok(header) = HeaderName::from_bytes(name.as_bytes()) else {
                self.add("headers", format!("{name:?} is no name of a header"));
                continue;
            };
            let lower = header.as_str();
            let is_own = OWN_HEADERS.contains(&lower)
                || OWN_HEADER_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
            self.unless(!is_own, "headers", format!("{name:?} is not yours to set"));
            let value = value.expose();
            let parsed = HeaderValue::from_str(value).ok();
            let Some(mut value) = parsed.filter(|_| value.len() <= MAX_HEADER_VALUE) else {
                let what = format!(
                    "the value of {name:?} is none: it must be visible ASCII and spaces, at most {MAX_HEADER_VALUE}"
                );
                self.add("headers", what);
                continue;
            };
            value.set_sensitive(true);
            let is_new = headers.insert(header, value).is_none();
            self.unless(is_new, "headers", format!("{name:?} is there twice"));
        }
        headers
    }

    fn events(&mut self, section: &EndpointSection) {
        let is_of_format = |one: &EventType| one.format() == section.format;
        let what = format!("must be events of the format {:?}", section.format.as_str());
        self.unless(section.events.iter().all(is_of_format), "events", what);
    }

    fn batch(&mut self, section: &EndpointSection) {
        self.unless(
            section.batch.as_millis() <= u128::from(MAX_BATCH_MS),
            "batch_ms",
            format!("must be at most {MAX_BATCH_MS}"),
        );
        self.unless(
            (1..=MAX_BATCH_SIZE).contains(&section.batch_size),
            "batch_size",
            format!("must be between 1 and {MAX_BATCH_SIZE}"),
        );
    }

    fn channels(&mut self, section: &EndpointSection) -> Channels {
        let EndpointSection {
            channel_prefix: prefix,
            channels: patterns,
            ..
        } = section;
        let is_sound = prefix.is_empty() || channels::is_beginning(prefix);
        let what = format!("{prefix:?} is not how a channel's name begins");
        self.unless(is_sound, "channel_prefix", what);
        let what = format!("must be at most {MAX_PATTERNS}");
        self.unless(patterns.len() <= MAX_PATTERNS, "channels", what);
        for pattern in patterns.iter().filter(|pattern| !channels::is_pattern(pattern)) {
            let what = format!(
                "{pattern:?} is no pattern: write a channel's name in which * stands for anything, and ! in front of it to \
                 leave channels out"
            );
            self.add("channels", what);
        }
        Channels::new(prefix, patterns)
    }

    fn secret(&mut self, option: &'static str, secret: Option<&ConfigSecret>) -> Option<Secret> {
        let secret = sign::standard_secret(secret?.expose());
        if secret.is_none() {
            self.add(
                option,
                format!("must be {} and base64 behind it", sign::SECRET_PREFIX),
            );
        }
        secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhooks::event::PublishedEvent;

    const URL: &str = "https://a.example/";

    fn pusher() -> EndpointSection {
        EndpointSection {
            url: URL.to_owned(),
            ..EndpointSection::default()
        }
    }

    fn yalgaar() -> EndpointSection {
        EndpointSection {
            format: BodyFormat::Yalgaar,
            presence_url: URL.to_owned(),
            message_url: URL.to_owned(),
            ..EndpointSection::default()
        }
    }

    fn endpoint(section: &EndpointSection) -> Endpoint {
        Endpoint::new(&AppSection::example(), section, &Guard::default()).expect("it is sound")
    }

    fn published(name: &str, is_of_client: bool) -> ChannelEvent {
        ChannelEvent::Published(Arc::new(PublishedEvent {
            name: name.into(),
            data: "".into(),
            socket_id: is_of_client.then(|| "1.2".parse().unwrap()),
            user_id: None,
            uuid: "".into(),
        }))
    }

    /// An event with its type in the Pusher format, and in the Yalgaar format with its source.
    type Case = (ChannelEvent, Option<EventType>, Option<(EventType, Source)>);

    /// One of each kind.
    fn all() -> Vec<Case> {
        let user_id = || "u".parse().unwrap();
        let uuid: Arc<str> = "u".into();
        let message = Some((EventType::Message, Source::Message));
        vec![
            (ChannelEvent::Occupied, Some(EventType::ChannelOccupied), None),
            (ChannelEvent::Vacated, Some(EventType::ChannelVacated), None),
            (
                ChannelEvent::MemberAdded { user_id: user_id() },
                Some(EventType::MemberAdded),
                None,
            ),
            (
                ChannelEvent::MemberRemoved { user_id: user_id() },
                Some(EventType::MemberRemoved),
                None,
            ),
            (ChannelEvent::CacheMiss, Some(EventType::CacheMiss), None),
            (
                ChannelEvent::SubscriptionCount { count: 1 },
                Some(EventType::SubscriptionCount),
                None,
            ),
            (
                ChannelEvent::Bound { uuid: uuid.clone() },
                None,
                Some((EventType::Bind, Source::Presence)),
            ),
            (
                ChannelEvent::Unbound { uuid },
                None,
                Some((EventType::Unbind, Source::Presence)),
            ),
            (published("client-a", true), Some(EventType::ClientEvent), message),
            (published("a", false), None, message),
        ]
    }

    #[test]
    fn without_a_filter_everything_of_the_format_goes_where_it_belongs() {
        let channel = "a".parse().unwrap();
        let (pusher, yalgaar) = (endpoint(&pusher()), endpoint(&yalgaar()));
        for (event, of_pusher, of_yalgaar) in all() {
            assert_eq!(
                pusher.source_of(&channel, &event),
                of_pusher.map(|_| Source::Events),
                "{event:?}"
            );
            assert_eq!(
                yalgaar.source_of(&channel, &event),
                of_yalgaar.map(|(_, source)| source),
                "{event:?}"
            );
        }
    }

    #[test]
    fn a_filter_lets_its_types_through_and_nothing_else() {
        let channel = "a".parse().unwrap();
        for (_, of_pusher, of_yalgaar) in all() {
            for (section, only) in [(pusher(), of_pusher), (yalgaar(), of_yalgaar.map(|(one, _)| one))] {
                let Some(only) = only else { continue };
                let filtered = endpoint(&EndpointSection {
                    events: vec![only],
                    ..section
                });
                for (event, of_pusher, of_yalgaar) in all() {
                    let types = [of_pusher, of_yalgaar.map(|(one, _)| one)];
                    let passes = filtered.source_of(&channel, &event).is_some();
                    assert_eq!(passes, types.contains(&Some(only)), "{only:?} {event:?}");
                }
            }
        }
    }

    #[test]
    fn channels_are_chosen_by_their_beginning_and_some_things_are_nobodys_business() {
        let occupied = ChannelEvent::Occupied;
        let prefixed = endpoint(&EndpointSection {
            channel_prefix: "presence-a".to_owned(),
            ..pusher()
        });
        for (channel, passes) in [
            ("presence-a", true),
            ("presence-ab", true),
            ("presence-", false),
            ("a", false),
            ("private-presence-a", false),
        ] {
            let source = prefixed.source_of(&channel.parse().unwrap(), &occupied);
            assert_eq!(source.is_some(), passes, "{channel}");
        }
        let chosen = endpoint(&EndpointSection {
            channels: ["a-*".to_owned(), "!a-b".to_owned()].into(),
            ..pusher()
        });
        for (channel, passes) in [("a-a", true), ("a-b", false), ("b", false)] {
            let source = chosen.source_of(&channel.parse().unwrap(), &occupied);
            assert_eq!(source.is_some(), passes, "{channel}");
        }
        let user = "#server-to-user-1".parse().unwrap();
        let public = "a".parse().unwrap();
        for section in [pusher(), yalgaar()] {
            for (event, ..) in all() {
                assert_eq!(endpoint(&section).source_of(&user, &event), None, "{event:?}");
                let disabled = endpoint(&EndpointSection {
                    enabled: false,
                    ..section.clone()
                });
                assert_eq!(disabled.source_of(&public, &event), None, "{event:?}");
            }
            for name in ["pusher:ping", "pusher_internal:member_added"] {
                let event = published(name, true);
                assert_eq!(endpoint(&section).source_of(&public, &event), None, "{name}");
            }
        }
    }

    #[test]
    fn a_source_without_a_url_is_off() {
        let channel = "a".parse().unwrap();
        let message_only = EndpointSection {
            presence_url: String::new(),
            ..yalgaar()
        };
        let endpoint = endpoint(&message_only);
        assert!(endpoint.url(Source::Presence).is_none() && endpoint.url(Source::Events).is_none());
        assert_eq!(endpoint.url(Source::Message).map(EndpointUrl::as_str), Some(URL));
        for (event, _, of_yalgaar) in all() {
            let expected = of_yalgaar
                .map(|(_, source)| source)
                .filter(|source| *source == Source::Message);
            assert_eq!(endpoint.source_of(&channel, &event), expected, "{event:?}");
        }
        assert_eq!(endpoint.news(), News::MESSAGES);
    }

    #[test]
    fn what_has_to_be_recorded_follows_from_what_is_wanted() {
        let news = |section: EndpointSection, events: &[EventType]| {
            let events = events.to_vec();
            endpoint(&EndpointSection { events, ..section }).news()
        };
        let state_and_clients = News::STATE.and(News::CLIENT_EVENTS);
        assert_eq!(news(pusher(), &[]), state_and_clients);
        assert_eq!(news(yalgaar(), &[]), News::BINDS.and(News::MESSAGES));
        assert_eq!(news(pusher(), &[EventType::ClientEvent]), News::CLIENT_EVENTS);
        assert_eq!(news(pusher(), &[EventType::CacheMiss]), News::STATE);
        assert_eq!(news(yalgaar(), &[EventType::Unbind]), News::BINDS);
        assert_eq!(news(yalgaar(), &[EventType::Message]), News::MESSAGES);
        let disabled = EndpointSection {
            enabled: false,
            ..pusher()
        };
        assert_eq!(news(disabled, &[]), News::NONE);
    }

    #[test]
    fn an_endpoint_without_a_name_has_one_that_follows_from_what_it_is() {
        let id = |section: &EndpointSection| endpoint(section).id.to_string();
        let own = id(&pusher());
        let digits = own.strip_prefix("ep_").expect("it begins so");
        assert!(
            digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{own}"
        );
        let changed = EndpointSection {
            batch_size: 1,
            enabled: false,
            ..pusher()
        };
        assert_eq!(id(&changed), own, "the same as long as format and URLs are");
        let moved = EndpointSection {
            url: "https://b.example/".to_owned(),
            ..pusher()
        };
        let swapped = EndpointSection {
            presence_url: String::new(),
            ..yalgaar()
        };
        let ids = [own, id(&moved), id(&yalgaar()), id(&swapped)];
        let different: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        let named = EndpointSection {
            id: "orders".to_owned(),
            ..pusher()
        };
        assert_eq!(id(&named), "orders");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let section = EndpointSection {
            secret: Some(ConfigSecret::from("whsec_aHVzaC1odXNo")),
            headers: [("X-A".to_owned(), ConfigSecret::from("hush-hush"))].into(),
            ..pusher()
        };
        let shown = format!("{:?}", endpoint(&section));
        assert!(
            !shown.contains("hush") && !shown.contains("aHVz") && !shown.contains("app-secret"),
            "{shown}"
        );
    }
}
