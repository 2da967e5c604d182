//! Names that configure us besides `DUNLIN_SECTION__KEY`: our own short ones, and those that users of other servers of
//! this kind already have in their `.env`.
//!
//! Only names whose meaning is the same, or can be translated exactly, are taken. Variables that tell *clients* where
//! the server is (`PUSHER_HOST`, `REVERB_HOST`, …) are none of our business and looked over.

/// Our own short names: variable, option.
pub(super) const SHORT: &[(&str, &str)] = &[
    ("DUNLIN_ENV", "server.env"),
    ("DUNLIN_HOST", "server.host"),
    ("DUNLIN_PORT", "server.port"),
    ("DUNLIN_METRICS_PORT", "server.metrics_port"),
    ("DUNLIN_DATA_DIR", "server.data_dir"),
    ("DUNLIN_LOG", "log.filter"),
    ("DUNLIN_REDIS_URL", "redis.url"),
    ("DUNLIN_DATABASE_URL", "database.url"),
];

/// Our own names that are not options. The port of the dashboard is known, so that one environment serves every version,
/// and is looked over: there is no dashboard yet.
pub(super) const OWN: &[&str] = &[
    "DUNLIN_CONFIG",
    "DUNLIN_DEFAULT_APP_ID",
    "DUNLIN_DEFAULT_APP_KEY",
    "DUNLIN_DEFAULT_APP_SECRET",
    "DUNLIN_DASHBOARD_PORT",
];

/// A foreign variable that sets one of our options.
pub(super) struct Alias {
    pub(super) variable: &'static str,
    pub(super) option: &'static str,
    meaning: Meaning,
}

#[derive(Clone, Copy)]
enum Meaning {
    Same,
    /// `1` and `0` as well as `true` and `false`.
    Flag,
    /// -1 for "none", which is 0 here.
    Limit,
}

impl Alias {
    /// The value as our option writes it.
    pub(super) fn translate(&self, text: &str) -> String {
        self.meaning.translate(text)
    }
}

impl Meaning {
    fn translate(self, text: &str) -> String {
        let ours = match (self, text) {
            (Self::Flag, "1") => "true",
            (Self::Flag, "0") => "false",
            (Self::Limit, "-1") => "0",
            (Self::Same | Self::Flag | Self::Limit, text) => text,
        };
        ours.to_owned()
    }
}

const fn same(variable: &'static str, option: &'static str) -> Alias {
    Alias {
        variable,
        option,
        meaning: Meaning::Same,
    }
}

/// Foreign names of options, the weakest first.
pub(super) const FOREIGN: &[Alias] = &[
    same("PORT", "server.port"),
    same("REDIS_URL", "redis.url"),
    same("DATABASE_URL", "database.url"),
    same("REVERB_SERVER_HOST", "server.host"),
    same("REVERB_SERVER_PORT", "server.port"),
    same("SOKETI_HOST", "server.host"),
    same("SOKETI_PORT", "server.port"),
    same("SOKETI_PATH_PREFIX", "server.path_prefix"),
    same("SOKETI_METRICS_HOST", "server.metrics_host"),
    same("SOKETI_METRICS_SERVER_PORT", "server.metrics_port"),
];

/// Options of the app that the environment names: the end of the variable, the option, its meaning.
const APP_OPTIONS: &[(&str, &str, Meaning)] = &[
    ("ENABLED", "enabled", Meaning::Flag),
    ("ENABLE_CLIENT_MESSAGES", "client_events", Meaning::Flag),
    ("MAX_CONNS", "limits.connections", Meaning::Limit),
    ("MAX_CONNECTIONS", "limits.connections", Meaning::Limit),
    (
        "MAX_BACKEND_EVENTS_PER_SEC",
        "limits.publishes_per_second",
        Meaning::Limit,
    ),
    (
        "MAX_CLIENT_EVENTS_PER_SEC",
        "limits.client_events_per_second",
        Meaning::Limit,
    ),
    ("MAX_READ_REQ_PER_SEC", "limits.reads_per_second", Meaning::Limit),
];

/// Families of names for an app, the strongest first, each with the options that its server knows.
const FAMILIES: &[(&str, &[&str])] = &[
    ("DUNLIN_DEFAULT_APP_", &[]),
    (
        "SOKETI_DEFAULT_APP_",
        &[
            "ENABLED",
            "ENABLE_CLIENT_MESSAGES",
            "MAX_CONNS",
            "MAX_BACKEND_EVENTS_PER_SEC",
            "MAX_CLIENT_EVENTS_PER_SEC",
            "MAX_READ_REQ_PER_SEC",
        ],
    ),
    ("REVERB_APP_", &["MAX_CONNECTIONS"]),
    ("PUSHER_APP_", &[]),
];

/// Whether a variable of another server's own settings has no counterpart here, so that its owner should be told.
pub(super) fn is_stray(name: &str) -> bool {
    let is_foreign = ["SOKETI_", "REVERB_SERVER_", "REVERB_APP_"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    let is_known = FOREIGN.iter().any(|alias| alias.variable == name)
        || FAMILIES.iter().any(|(prefix, options)| {
            let end = name.strip_prefix(prefix);
            end.is_some_and(|end| ["ID", "KEY", "SECRET"].contains(&end) || options.contains(&end))
        });
    is_foreign && !is_known
}

/// The app that the environment names, complete.
pub(super) struct DefaultApp {
    pub(super) id: String,
    key: String,
    secret: String,
    family: &'static (&'static str, &'static [&'static str]),
}

/// Some of an app's three variables are there and others are not.
pub(super) struct Incomplete {
    /// One that is there.
    pub(super) present: String,
    /// Those that are not.
    pub(super) missing: String,
}

impl DefaultApp {
    /// The app of the strongest family that has anything set. A `.env` often holds two families for the same app, so
    /// that the weaker ones are not even looked at.
    pub(super) fn find<'a>(var: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Self>, Incomplete> {
        for family in FAMILIES {
            let names = ["ID", "KEY", "SECRET"].map(|end| format!("{}{end}", family.0));
            match names.each_ref().map(|name| var(name)) {
                [None, None, None] => {}
                [Some(id), Some(key), Some(secret)] => {
                    let [id, key, secret] = [id, key, secret].map(str::to_owned);
                    return Ok(Some(Self {
                        id,
                        key,
                        secret,
                        family,
                    }));
                }
                _ => {
                    let (present, missing): (Vec<_>, Vec<_>) =
                        names.into_iter().partition(|name| var(name).is_some());
                    let present = present.into_iter().next().unwrap_or_default();
                    return Err(Incomplete {
                        present,
                        missing: missing.join(" and "),
                    });
                }
            }
        }
        Ok(None)
    }

    /// What the environment says of this app: option, value, variable.
    pub(super) fn settings<'a>(
        &self,
        var: impl Fn(&str) -> Option<&'a str>,
    ) -> Vec<(&'static str, String, String)> {
        let (prefix, known) = self.family;
        let mut settings: Vec<_> = [
            ("id", "ID", &self.id),
            ("key", "KEY", &self.key),
            ("secret", "SECRET", &self.secret),
        ]
        .map(|(option, end, text)| (option, text.clone(), format!("{prefix}{end}")))
        .into();
        for (end, option, meaning) in APP_OPTIONS.iter().filter(|(end, ..)| known.contains(end)) {
            let variable = format!("{prefix}{end}");
            if let Some(text) = var(&variable) {
                settings.push((option, meaning.translate(text), variable));
            }
        }
        settings
    }
}
