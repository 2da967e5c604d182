//! Which server a client command talks to, and as which app: the flags, and for what they leave out the local
//! configuration.

use std::time::Duration;

use dunlin_protocol::signature::Secret;

use super::args::TargetArgs;
use super::error::CliError;
use crate::config::{self, AppSection, Config, ConfigSecret, Sources};

/// How long a client command waits for any single answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A server, and an app on it.
#[derive(Debug)]
pub(super) struct Target {
    /// Host of the HTTP API.
    pub(super) api_host: String,
    /// Host of the sockets; another one only on the hosted service.
    pub(super) socket_host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
    app_id: Option<String>,
    key: Option<String>,
    secret: Option<ConfigSecret>,
}

impl Target {
    /// # Errors
    /// A configuration that is needed and not valid.
    pub(super) fn resolve(args: &TargetArgs) -> Result<Self, CliError> {
        let has_server = args.host.is_some() || args.cluster.is_some();
        let has_app = args.app_id.is_some() && args.key.is_some() && args.secret.is_some();
        let config = if has_server && has_app {
            None
        } else {
            Some(load(args)?)
        };
        Ok(Self::of(args, config.as_ref()))
    }

    /// The same with a configuration that was loaded already, or none.
    pub(super) fn of(args: &TargetArgs, config: Option<&Config>) -> Self {
        let app = config.and_then(|config| app(args, config));
        let tls = args.tls || args.cluster.is_some();
        let (api_host, socket_host) = match (&args.cluster, &args.host) {
            (Some(cluster), _) => (
                format!("api-{cluster}.pusher.com"),
                format!("ws-{cluster}.pusher.com"),
            ),
            (None, Some(host)) => (host.clone(), host.clone()),
            (None, None) => {
                let host = local_host(config);
                (host.clone(), host)
            }
        };
        let is_local = args.host.is_none() && args.cluster.is_none();
        let configured = config
            .filter(|_| is_local)
            .map(|config| if tls { config.tls.port } else { config.server.port });
        let usual = if tls { 443 } else { 6001 };
        Self {
            api_host,
            socket_host,
            port: args
                .port
                .or(configured.filter(|port| *port != 0))
                .unwrap_or(usual),
            tls,
            app_id: args.app_id.clone().or_else(|| app.map(|app| app.id.to_string())),
            key: args.key.clone().or_else(|| app.map(|app| app.key.to_string())),
            secret: args.secret.clone().or_else(|| app.map(|app| app.secret.clone())),
        }
    }

    pub(super) fn app_id(&self) -> Result<&str, CliError> {
        self.app_id
            .as_deref()
            .ok_or_else(|| missing("the id of the app", "--app-id"))
    }

    pub(super) fn key(&self) -> Result<&str, CliError> {
        self.key
            .as_deref()
            .ok_or_else(|| missing("the key of the app", "--key"))
    }

    pub(super) fn secret(&self) -> Result<Secret, CliError> {
        self.secret_text().map(Secret::new)
    }

    pub(super) fn secret_text(&self) -> Result<&str, CliError> {
        let secret = self.secret.as_ref().map(ConfigSecret::expose);
        secret.ok_or_else(|| missing("the secret of the app", "--secret"))
    }
}

fn missing(what: &str, flag: &str) -> CliError {
    CliError::Usage(format!("{what} is needed: say {flag}, or configure the app"))
}

fn load(args: &TargetArgs) -> Result<Config, CliError> {
    let sources = Sources {
        file: args.config.clone(),
        ..Sources::of_process()
    };
    Ok(config::load(&sources)?.config)
}

/// The configured app that the flags mean; none when they name an app that is not configured here.
fn app<'a>(args: &TargetArgs, config: &'a Config) -> Option<&'a AppSection> {
    config.apps.iter().find(|app| {
        args.app_id.as_deref().is_none_or(|id| id == app.id.as_str())
            && args.key.as_deref().is_none_or(|key| key == app.key.as_str())
    })
}

fn local_host(config: Option<&Config>) -> String {
    match config.map(|config| config.server.host) {
        Some(host) if !host.is_unspecified() => host.to_string(),
        _ => "127.0.0.1".to_owned(),
    }
}

/// A host as URLs write it: IPv6 addresses in brackets.
pub(super) fn in_url(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let env = [
            ("DUNLIN_PORT", "7001"),
            ("PUSHER_APP_ID", "3"),
            ("PUSHER_APP_KEY", "k"),
            ("PUSHER_APP_SECRET", "s"),
        ];
        let env = env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        config::load(&Sources {
            env,
            ..Sources::default()
        })
        .expect("valid")
        .config
    }

    #[test]
    fn without_flags_it_is_the_first_app_of_the_local_server() {
        let target = Target::of(&TargetArgs::default(), Some(&config()));
        assert_eq!(
            (target.api_host.as_str(), target.port, target.tls),
            ("127.0.0.1", 7001, false)
        );
        assert_eq!((target.app_id().unwrap(), target.key().unwrap()), ("3", "k"));
        assert!(target.secret().is_ok());
    }

    #[test]
    fn another_host_keeps_the_app_but_not_the_port() {
        let args = TargetArgs {
            host: Some("h.example".to_owned()),
            tls: true,
            ..TargetArgs::default()
        };
        let target = Target::of(&args, Some(&config()));
        assert_eq!((target.socket_host.as_str(), target.port), ("h.example", 443));
        assert_eq!(target.app_id().unwrap(), "3");
    }

    #[test]
    fn an_app_that_is_not_configured_does_not_borrow_anothers_secret() {
        let args = TargetArgs {
            key: Some("other".to_owned()),
            ..TargetArgs::default()
        };
        let target = Target::of(&args, Some(&config()));
        assert_eq!(target.key().unwrap(), "other");
        let error = target.secret().unwrap_err();
        assert!(error.to_string().contains("--secret"), "{error}");
        assert!(target.app_id().is_err());
    }

    #[test]
    fn a_cluster_names_both_hosts() {
        let args = TargetArgs {
            cluster: Some("eu".to_owned()),
            app_id: Some("1".to_owned()),
            key: Some("k".to_owned()),
            secret: Some(ConfigSecret::from("s")),
            ..TargetArgs::default()
        };
        let target = Target::resolve(&args).expect("everything was said");
        assert_eq!(target.api_host, "api-eu.pusher.com");
        assert_eq!(target.socket_host, "ws-eu.pusher.com");
        assert_eq!((target.port, target.tls), (443, true));
    }
}
