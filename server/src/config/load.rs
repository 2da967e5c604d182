//! Reading the layers, one over the other, and typing the result.
//!
//! The schema is `default.toml` itself: an option exists when it is there, and a text from the environment is read as
//! the type that its default has. The rest is said by the types in `sections.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::aliases::{self, DefaultApp};
use super::sections::{AppSection, Config, REDACTED};
use super::source::{Complaint, Origin, nearest};
use super::validate::validate;

const DEFAULTS: &str = include_str!("../default.toml");

/// The app of a development node that was told of none.
const DEFAULT_APP: [(&str, &str); 3] = [("id", "app-id"), ("key", "app-key"), ("secret", "app-secret")];

/// Options that may hold a password.
const SECRET_URLS: [&str; 2] = ["redis.url", "database.url"];

/// What a configuration is read from. Tests build one by hand; processes use [`Sources::of_process`].
#[derive(Clone, Default)]
pub struct Sources {
    /// `--config`; when absent, the variable `DUNLIN_CONFIG` is asked.
    pub file: Option<PathBuf>,
    /// Environment variables; those of other programs are looked over.
    pub env: BTreeMap<String, String>,
    /// Flags: path of the option, value, name of the flag.
    pub flags: Vec<(&'static str, String, &'static str)>,
}

impl Sources {
    /// The environment of this process, no file, no flags. Variables that are not Unicode are left out, because no
    /// option can have such a value.
    pub fn of_process() -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            env,
            ..Self::default()
        }
    }

    /// A variable that is set and not empty: compose files often hand over empty ones for "not set".
    fn var(&self, name: &str) -> Option<&str> {
        self.env
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

/// A configuration that passed all checks, and how it came about.
pub struct Loaded {
    /// To be acted on.
    pub config: Config,
    /// Every option in the order of their names, for `config show`.
    pub shown: Vec<Shown>,
    /// What was said and has no effect, as sentences for the log.
    pub warnings: Vec<String>,
}

/// One option as `config show` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The table it stands in, for example `server` or `apps[0].limits`.
    pub table: String,
    /// Its name in that table.
    pub key: String,
    /// Its value in TOML; `"[redacted]"` for secrets.
    pub value: String,
    /// Where the value came from.
    pub origin: Origin,
}

/// Why a configuration was refused: all reasons at once, at least one. Its `Display` has a line for each.
#[derive(Debug)]
pub struct ConfigError {
    /// In the order in which they were found.
    pub complaints: Vec<Complaint>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is not valid")?;
        for complaint in &self.complaints {
            write!(f, "\n  {complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Reads all layers and checks the result.
///
/// # Errors
/// Every complaint there is: unknown options and variables, wrong types, values out of range, options that contradict
/// each other. The caller prints it and ends the process; there is no half-valid configuration.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::defaults();
    layers.read_file(sources);
    layers.read_foreign_names(sources);
    layers.read_own_names(sources);
    for (option, value, flag) in &sources.flags {
        layers.set_text(option, value, Origin::Flag((*flag).to_owned()));
    }
    layers.add_app_of_environment(sources);
    layers.finish()
}

#[derive(Clone)]
struct Setting {
    value: Value,
    origin: Origin,
}

/// Dotted paths of options, each with its value.
type Settings = BTreeMap<String, Setting>;

struct Layers {
    defaults: Settings,
    settings: Settings,
    apps: Vec<Settings>,
    complaints: Vec<Complaint>,
    warnings: Vec<String>,
}

impl Layers {
    fn defaults() -> Self {
        let table: Table = DEFAULTS.parse().expect("default.toml is compiled in and tested");
        let mut defaults = Settings::new();
        flatten("", table, &mut |path, value| {
            defaults.insert(
                path,
                Setting {
                    value,
                    origin: Origin::Default,
                },
            );
        });
        let settings = defaults.clone();
        Self {
            defaults,
            settings,
            apps: Vec::new(),
            complaints: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn complain(&mut self, option: &str, origin: Option<Origin>, what: impl Into<String>) {
        self.complaints.push(Complaint {
            option: option.to_owned(),
            origin,
            what: what.into(),
        });
    }

    fn set(&mut self, option: &str, value: Value, origin: Origin) {
        if let Some(setting) = self.settings.get_mut(option) {
            *setting = Setting { value, origin };
        } else {
            let what = unknown(option, self.defaults.keys().map(String::as_str));
            self.complain(option, Some(origin), what);
        }
    }

    fn set_text(&mut self, option: &str, text: &str, origin: Origin) {
        match self.defaults.get(option) {
            Some(default) => self.set(option, read_text(text, &default.value), origin),
            None => self.set(option, Value::Boolean(false), origin),
        }
    }

    fn read_file(&mut self, sources: &Sources) {
        let (path, named_by) = match (&sources.file, sources.var("DUNLIN_CONFIG")) {
            (Some(path), _) => (path.clone(), Origin::Flag("--config".to_owned())),
            (None, Some(path)) => (PathBuf::from(path), Origin::Env("DUNLIN_CONFIG".to_owned())),
            (None, None) => return,
        };
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => return self.complain("", Some(named_by), format!("cannot read {shown}: {e}")),
        };
        let (table, lines) = match (text.parse::<Table>(), Lines::of(&text)) {
            (Ok(table), Ok(lines)) => (table, lines),
            (Err(e), _) | (_, Err(e)) => {
                // The error's own Display quotes the line, which may hold a secret.
                let line = e.span().map_or(1, |span| line_at(&text, span.start));
                let origin = Origin::File { path: shown, line };
                return self.complain(
                    "",
                    Some(origin),
                    format!("not valid TOML: {}", e.message().trim()),
                );
            }
        };
        let origin = |option: &str| Origin::File {
            path: shown.clone(),
            line: lines.of_option(option),
        };
        let mut found = Vec::new();
        for (key, value) in table {
            match (key.as_str(), value) {
                ("apps", Value::Array(entries)) => {
                    for (i, entry) in entries.into_iter().enumerate() {
                        let here = format!("apps[{i}]");
                        let Value::Table(entry) = entry else {
                            self.complain(&here, Some(origin(&here)), "must be a table: write [[apps]]");
                            continue;
                        };
                        let mut app = Settings::new();
                        flatten("", entry, &mut |path, value| {
                            let origin = origin(&format!("{here}.{path}"));
                            app.insert(path, Setting { value, origin });
                        });
                        self.apps.push(app);
                    }
                }
                ("apps", _) => {
                    self.complain(
                        "apps",
                        Some(origin("apps")),
                        "must be a list of tables: write [[apps]]",
                    );
                }
                (_, Value::Table(section)) => flatten(&key, section, &mut |path, v| found.push((path, v))),
                (_, value) => found.push((key, value)),
            }
        }
        for (option, value) in found {
            let origin = origin(&option);
            let is_section = self.defaults.keys().any(|known| {
                known
                    .strip_prefix(&option)
                    .is_some_and(|rest| rest.starts_with('.'))
            });
            match value {
                Value::Table(_) if is_section => {}
                _ if is_section => {
                    self.complain(&option, Some(origin), format!("is a section: write [{option}]"));
                }
                value => self.set(&option, value, origin),
            }
        }
    }

    fn read_foreign_names(&mut self, sources: &Sources) {
        // Weakest first, so that the stronger ones overwrite.
        for alias in aliases::FOREIGN {
            if let Some(text) = sources.var(alias.variable) {
                self.set_text(
                    alias.option,
                    &alias.translate(text),
                    Origin::Env(alias.variable.to_owned()),
                );
            }
        }
        for variable in sources.env.keys().filter(|name| aliases::is_stray(name)) {
            self.warnings.push(format!(
                "{variable} is set and has no counterpart here: it has no effect"
            ));
        }
    }

    fn read_own_names(&mut self, sources: &Sources) {
        for (variable, text) in &sources.env {
            let Some(name) = variable.strip_prefix("DUNLIN_") else {
                continue;
            };
            let origin = Origin::Env(variable.clone());
            if let Some((_, option)) = aliases::SHORT.iter().find(|(short, _)| short == variable) {
                if text.is_empty() {
                    continue;
                }
                let long = format!("DUNLIN_{}", option.to_ascii_uppercase().replace('.', "__"));
                match sources.env.get(&long) {
                    Some(other) if other != text => {
                        self.complain(
                            option,
                            Some(origin),
                            format!("{long} says something else: set one of them"),
                        );
                    }
                    _ => self.set_text(option, text, origin),
                }
            } else if name.starts_with("APPS__") {
                let what = "apps are listed in the file; one app can be given by \
                    DUNLIN_DEFAULT_APP_ID, _KEY and _SECRET, and its options by DUNLIN_APP_DEFAULTS__…";
                self.complain("", Some(origin), what);
            } else if name.contains("__") {
                self.set_text(&name.to_ascii_lowercase().replace("__", "."), text, origin);
            } else if !aliases::OWN.contains(&variable.as_str()) {
                let known = aliases::SHORT
                    .iter()
                    .map(|(short, _)| *short)
                    .chain(aliases::OWN.iter().copied());
                let what = match nearest(variable, known) {
                    Some(known) => format!("no such variable; did you mean {known}?"),
                    None => "no such variable; an option is written DUNLIN_SECTION__KEY".to_owned(),
                };
                self.complain("", Some(origin), what);
            }
        }
    }

    /// The app that the environment names joins those of the file, in front; the file's app of the same id keeps its
    /// options and takes key and secret.
    fn add_app_of_environment(&mut self, sources: &Sources) {
        let app = match DefaultApp::find(|name| sources.var(name)) {
            Ok(Some(app)) => app,
            Ok(None) => return,
            Err(incomplete) => {
                let what = format!(
                    "needs {} beside it: an app has an id, a key and a secret",
                    incomplete.missing
                );
                return self.complain("", Some(Origin::Env(incomplete.present)), what);
            }
        };
        let id = Value::String(app.id.clone());
        let known = self
            .apps
            .iter_mut()
            .find(|known| known.get("id").is_some_and(|s| s.value == id));
        let target = if let Some(known) = known {
            known
        } else {
            self.apps.insert(0, Settings::new());
            &mut self.apps[0]
        };
        for (option, text, variable) in app.settings(|name| sources.var(name)) {
            let default = self.defaults.get(&format!("app_defaults.{option}"));
            let value = default.map_or(Value::String(text.clone()), |default| {
                read_text(&text, &default.value)
            });
            target.insert(
                option.to_owned(),
                Setting {
                    value,
                    origin: Origin::Env(variable),
                },
            );
        }
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        let is_default_app = self.apps.is_empty() && self.is_development();
        if is_default_app {
            let app = DEFAULT_APP.map(|(key, value)| {
                (
                    key.to_owned(),
                    Setting {
                        value: Value::String(value.to_owned()),
                        origin: Origin::Default,
                    },
                )
            });
            self.apps.push(app.into());
        }
        let server = self.section("server");
        let tls = self.section("tls");
        let log = self.section("log");
        let sockets = self.section("sockets");
        let fallback = self.section("fallback");
        let cache = self.section("cache");
        let history = self.section("history");
        let idempotency = self.section("idempotency");
        let redis = self.section("redis");
        let database = self.section("database");
        let webhooks = self.section("webhooks");
        let api = self.section("api");
        let demo = self.section("demo");
        let apps = self.typed_apps();
        let sections = (|| {
            Some(Config {
                server: server?,
                tls: tls?,
                log: log?,
                sockets: sockets?,
                fallback: fallback?,
                cache: cache?,
                history: history?,
                idempotency: idempotency?,
                redis: redis?,
                database: database?,
                webhooks: webhooks?,
                api: api?,
                demo: demo?,
                apps,
                is_default_app,
            })
        })();
        if let Some(config) = &sections {
            for (option, what) in validate(config) {
                let origin = self.origin(&option);
                self.complain(&option, origin, what);
            }
        }
        let shown = self.shown();
        match sections {
            Some(config) if self.complaints.is_empty() => Ok(Loaded {
                config,
                shown,
                warnings: self.warnings,
            }),
            _ => Err(ConfigError {
                complaints: self.complaints,
            }),
        }
    }

    fn is_development(&self) -> bool {
        self.settings["server.env"].value.as_str() == Some("development")
    }

    fn origin(&self, option: &str) -> Option<Origin> {
        let setting = match option
            .strip_prefix("apps[")
            .and_then(|rest| rest.split_once("]."))
        {
            Some((i, key)) => {
                // An entry of a list comes from where the list comes from.
                let key = key.split('[').next().unwrap_or(key);
                let own = i.parse::<usize>().ok().and_then(|i| self.apps.get(i)?.get(key));
                own.or_else(|| self.settings.get(&format!("app_defaults.{key}")))
            }
            None => self.settings.get(option),
        };
        setting.map(|setting| setting.origin.clone())
    }

    fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let defaults = below(&self.defaults, name);
        let given = below(&self.settings, name);
        self.typed(&format!("{name}."), &defaults, &given)
    }

    fn typed_apps(&mut self) -> Vec<AppSection> {
        let probe = ["id", "key", "secret"].map(|key| {
            (
                key.to_owned(),
                Setting {
                    value: Value::String("1".to_owned()),
                    origin: Origin::Default,
                },
            )
        });
        let mut defaults = below(&self.defaults, "app_defaults");
        defaults.extend(probe.clone());
        let mut given = below(&self.settings, "app_defaults");
        given.extend(probe);
        // Complaints about the defaults for apps are made once, here, and not again for each app.
        let base = match self.typed::<AppSection>("app_defaults.", &defaults, &given) {
            Some(_) => given,
            None => defaults,
        };
        let mut typed = Vec::new();
        for (i, app) in self.apps.clone().into_iter().enumerate() {
            let here = format!("apps[{i}]");
            let before = self.complaints.len();
            for key in ["id", "key", "secret"] {
                if !app.contains_key(key) {
                    let origin = app.values().next().map(|setting| setting.origin.clone());
                    self.complain(&format!("{here}.{key}"), origin, "is missing");
                }
            }
            let mut whole = base.clone();
            for (key, setting) in app {
                if let Some(known) = whole.get_mut(&key) {
                    *known = setting;
                } else {
                    let what = unknown(&key, base.keys().map(String::as_str));
                    self.complain(&format!("{here}.{key}"), Some(setting.origin), what);
                }
            }
            let app = self.typed(&format!("{here}."), &base, &whole);
            if self.complaints.len() == before {
                typed.extend(app);
            }
        }
        typed
    }

    /// Types a table. When that fails, each given option is tried alone among the defaults, so that every culprit is
    /// found, with its origin.
    fn typed<T: DeserializeOwned>(
        &mut self,
        prefix: &str,
        defaults: &Settings,
        given: &Settings,
    ) -> Option<T> {
        let error = match nested(given).try_into::<T>() {
            Ok(typed) => return Some(typed),
            Err(error) => error,
        };
        let before = self.complaints.len();
        for (key, setting) in given {
            let mut alone = defaults.clone();
            alone.insert(key.clone(), setting.clone());
            if let Err(e) = nested(&alone).try_into::<T>() {
                self.complain(
                    &format!("{prefix}{key}"),
                    Some(setting.origin.clone()),
                    e.message().trim(),
                );
            }
        }
        if self.complaints.len() == before {
            self.complain(prefix.trim_end_matches('.'), None, error.message().trim());
        }
        None
    }

    /// Sections and their options by name, then the apps in their own order.
    fn shown(&self) -> Vec<Shown> {
        let mut shown = in_tables("", &self.settings);
        for (i, app) in self.apps.iter().enumerate() {
            shown.extend(in_tables(&format!("apps[{i}]."), app));
        }
        shown
    }
}

/// Sorted so that the options of one table stand together, and a table before those inside it.
fn in_tables(prefix: &str, settings: &Settings) -> Vec<Shown> {
    let shown = settings.iter().map(|(path, setting)| {
        let path = format!("{prefix}{path}");
        let (table, key) = path.rsplit_once('.').expect("every option is in a section");
        let is_secret_url =
            SECRET_URLS.contains(&path.as_str()) && setting.value != Value::String(String::new());
        let value = if is_secret_url {
            redacted()
        } else {
            render_entry(key, &setting.value)
        };
        Shown {
            table: table.to_owned(),
            key: key.to_owned(),
            value,
            origin: setting.origin.clone(),
        }
    });
    let mut shown: Vec<Shown> = shown.collect();
    shown.sort_by(|a, b| a.table.cmp(&b.table).then_with(|| a.key.cmp(&b.key)));
    shown
}

/// Calls `leaf` with the dotted path of everything that is not a table; an empty table counts as a leaf, so that a
/// misspelt one is not lost.
fn flatten(prefix: &str, table: Table, leaf: &mut dyn FnMut(String, Value)) {
    if table.is_empty() && !prefix.is_empty() {
        return leaf(prefix.to_owned(), Value::Table(table));
    }
    for (key, value) in table {
        let path = if prefix.is_empty() {
            key
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            Value::Table(inner) => flatten(&path, inner, leaf),
            value => leaf(path, value),
        }
    }
}

fn below(settings: &Settings, section: &str) -> Settings {
    let inside = settings.iter().filter_map(|(option, setting)| {
        let key = option.strip_prefix(section)?.strip_prefix('.')?;
        Some((key.to_owned(), setting.clone()))
    });
    inside.collect()
}

fn nested(settings: &Settings) -> Value {
    let mut table = Table::new();
    for (path, setting) in settings {
        let mut here = &mut table;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                here.insert(part.to_owned(), setting.value.clone());
                break;
            }
            let inner = here.entry(part).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = inner else { break };
            here = inner;
        }
    }
    Value::Table(table)
}

/// A text of the environment as the type that the option's default has. What does not fit stays a text, and the typed
/// section says what it wanted instead.
fn read_text(text: &str, default: &Value) -> Value {
    let as_text = || Value::String(text.to_owned());
    match default {
        Value::Array(items) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            let read = |part: &str| match items.first() {
                Some(item) => read_text(part, item),
                None => Value::String(part.to_owned()),
            };
            Value::Array(parts.map(read).collect())
        }
        Value::Integer(_) => text.parse().map_or_else(|_| as_text(), Value::Integer),
        Value::Boolean(_) => match (text, text.parse()) {
            ("true", _) => Value::Boolean(true),
            ("false", _) => Value::Boolean(false),
            (_, Ok(number)) => Value::Integer(number),
            (_, Err(_)) => as_text(),
        },
        Value::String(_) | Value::Float(_) | Value::Datetime(_) | Value::Table(_) => as_text(),
    }
}

fn redacted() -> String {
    render(&Value::String(REDACTED.to_owned()))
}

/// The value of a key, unless the key says that it is secret.
fn render_entry(key: &str, value: &Value) -> String {
    match (key, value) {
        ("secret" | "previous_secret", _) => redacted(),
        ("headers", Value::Table(headers)) => render_table(headers, |_, _| redacted()),
        _ => render(value),
    }
}

fn render_table(table: &Table, entry: impl Fn(&str, &Value) -> String) -> String {
    if table.is_empty() {
        return "{}".to_owned();
    }
    let entries = table.iter().map(|(key, value)| {
        let is_bare = key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let name = if is_bare && !key.is_empty() {
            key.clone()
        } else {
            render(&Value::String(key.clone()))
        };
        format!("{name} = {}", entry(key, value))
    });
    format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
}

fn render(value: &Value) -> String {
    match value {
        // TOML's basic strings know all the escapes that JSON writes.
        Value::String(text) => serde_json::Value::from(text.as_str()).to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(render).collect::<Vec<_>>().join(", ")),
        Value::Table(table) => render_table(table, render_entry),
    }
}

fn unknown<'a>(option: &str, known: impl Iterator<Item = &'a str>) -> String {
    match nearest(option, known) {
        Some(known) => format!("no such option; did you mean {known}?"),
        None => "no such option".to_owned(),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The lines on which a file's options stand.
struct Lines(BTreeMap<String, usize>);

impl Lines {
    fn of(text: &str) -> Result<Self, toml::de::Error> {
        let table = toml::de::DeTable::parse(text)?;
        let mut lines = BTreeMap::new();
        walk("", table.get_ref(), &mut |path, offset| {
            lines.insert(path, line_at(text, offset));
        });
        Ok(Self(lines))
    }

    fn of_option(&self, option: &str) -> usize {
        self.0.get(option).copied().unwrap_or(1)
    }
}

fn walk(prefix: &str, table: &toml::de::DeTable<'_>, found: &mut dyn FnMut(String, usize)) {
    use toml::de::DeValue;
    for (key, value) in table {
        let name = key.get_ref();
        let path = if prefix.is_empty() {
            name.to_string()
        } else {
            format!("{prefix}.{name}")
        };
        match value.get_ref() {
            DeValue::Table(inner) => walk(&path, inner, found),
            DeValue::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    let path = format!("{path}[{i}]");
                    found(path.clone(), item.span().start);
                    if let DeValue::Table(inner) = item.get_ref() {
                        walk(&path, inner, found);
                    }
                }
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
        found(path, key.span().start);
    }
}
