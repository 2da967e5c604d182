//! The flags.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are help texts, which would show the backticks"
)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::webhooks::args::WebhooksCommand;
use crate::config::{ConfigSecret, Sources};

/// Pub/sub for browsers, apps and servers that speak Pusher.
#[derive(Debug, Parser)]
#[command(name = "dunlin", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Without a command, dunlin serves.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the server
    Serve(ServeArgs),
    /// Look at the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Publish an event
    Trigger(TriggerArgs),
    /// Print the events of channels as they arrive
    Subscribe(SubscribeArgs),
    /// List the channels that have subscribers
    Channels(ChannelsArgs),
    /// List the users in a presence channel
    Users(UsersArgs),
    /// Manage the endpoints of webhooks, look at deliveries, and have them sent again
    #[command(subcommand)]
    Webhooks(WebhooksCommand),
    /// Check that everything works, from the configuration to an event that arrives
    Doctor(DoctorArgs),
    /// Measure the server on this machine
    Bench(BenchArgs),
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether the configuration is valid
    Check(ServeArgs),
    /// Print every option, its value and where it came from; secrets are left out
    Show(ServeArgs),
}

/// What decides the configuration, besides the environment.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ServeArgs {
    /// The configuration file [otherwise: the variable DUNLIN_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Address to listen on
    #[arg(long)]
    host: Option<String>,
    /// Port of the sockets and the HTTP API
    #[arg(long)]
    port: Option<u16>,
    /// Port of the metrics
    #[arg(long)]
    metrics_port: Option<u16>,
    /// What is logged, for example "debug"
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

impl ServeArgs {
    pub(super) fn sources(&self) -> Sources {
        let flags = [
            ("server.host", self.host.clone(), "--host"),
            ("server.port", self.port.map(|port| port.to_string()), "--port"),
            (
                "server.metrics_port",
                self.metrics_port.map(|port| port.to_string()),
                "--metrics-port",
            ),
            ("log.filter", self.log.clone(), "--log"),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(option, value, flag)| Some((option, value?, flag)));
        Sources {
            file: self.config.clone(),
            flags: given.collect(),
            ..Sources::of_process()
        }
    }
}

/// Which server a client command talks to, and as which app.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct TargetArgs {
    /// Take what is not said here from this configuration file
    #[arg(long, value_name = "FILE", help_heading = "Server and app")]
    pub(super) config: Option<PathBuf>,
    /// Host name or address of the server [otherwise: the configured one, on this machine]
    #[arg(long, help_heading = "Server and app")]
    pub(super) host: Option<String>,
    /// Port of the server [otherwise: the configured one; 443 with --tls and --host]
    #[arg(long, help_heading = "Server and app")]
    pub(super) port: Option<u16>,
    /// A cluster of the hosted Pusher service instead of a host, for example eu
    #[arg(long, conflicts_with_all = ["host", "port"], help_heading = "Server and app")]
    pub(super) cluster: Option<String>,
    /// Speak TLS
    #[arg(long, help_heading = "Server and app")]
    pub(super) tls: bool,
    /// Id of the app [otherwise: the first configured one, or the configured one with the given key]
    #[arg(long, value_name = "ID", help_heading = "Server and app")]
    pub(super) app_id: Option<String>,
    /// Key of the app
    #[arg(long, help_heading = "Server and app")]
    pub(super) key: Option<String>,
    /// Secret of the app; other users of this machine can see it in the list of processes
    #[arg(long, help_heading = "Server and app")]
    pub(super) secret: Option<ConfigSecret>,
}

#[derive(Debug, Args)]
pub(super) struct TriggerArgs {
    /// Name of the channel
    pub(super) channel: String,
    /// Name of the event
    pub(super) event: String,
    /// Data of the event, sent as it stands; "-" reads it from standard input
    #[arg(default_value = "{}", allow_hyphen_values = true)]
    pub(super) data: String,
    /// Leave out this connection
    #[arg(long, value_name = "ID")]
    pub(super) socket_id: Option<String>,
    /// Ask for counts: user_count, subscription_count, or both with a comma
    #[arg(long)]
    pub(super) info: Option<String>,
    #[command(flatten)]
    pub(super) target: TargetArgs,
}

#[derive(Debug, Args)]
pub(super) struct SubscribeArgs {
    /// Names of the channels; private ones need the secret of the app
    #[arg(required = true)]
    pub(super) channels: Vec<String>,
    /// Who to be in presence channels
    #[arg(long, value_name = "ID", default_value = "dunlin-cli")]
    pub(super) user_id: String,
    /// What others see of that user: a JSON object
    #[arg(long, value_name = "JSON")]
    pub(super) user_info: Option<String>,
    /// Only events of this name; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(super) event: Vec<String>,
    /// Also the events of the protocol itself
    #[arg(long)]
    pub(super) all: bool,
    /// One JSON object per event, as it came over the wire
    #[arg(long)]
    pub(super) json: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds)]
    pub(super) timeout: Option<Duration>,
    #[command(flatten)]
    pub(super) target: TargetArgs,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct ChannelsArgs {
    #[command(subcommand)]
    pub(super) command: Option<ChannelsCommand>,
    #[command(flatten)]
    pub(super) list: ListArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum ChannelsCommand {
    /// Say whether a channel has subscribers, and how many
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only channels whose names begin with this
    #[arg(long)]
    pub(super) prefix: Option<String>,
    /// Ask for counts: subscription_count, or user_count with --prefix presence-
    #[arg(long)]
    pub(super) info: Option<String>,
    #[command(flatten)]
    pub(super) target: TargetArgs,
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Name of the channel
    pub(super) channel: String,
    /// Ask for these attributes instead of all counts
    #[arg(long)]
    pub(super) info: Option<String>,
    #[command(flatten)]
    pub(super) target: TargetArgs,
}

#[derive(Debug, Args)]
pub(super) struct UsersArgs {
    /// Name of the presence channel
    pub(super) channel: String,
    #[command(flatten)]
    pub(super) target: TargetArgs,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Scenarios or groups of them [otherwise: all that need one node and no patience]
    pub(super) scenarios: Vec<String>,
    /// Name the scenarios and do nothing
    #[arg(long)]
    pub(super) list: bool,
    /// Less of everything, for a glance
    #[arg(long)]
    pub(super) quick: bool,
    /// Process of the server, for figures of its CPU time and memory
    #[arg(long)]
    pub(super) pid: Option<u32>,
    /// One JSON object per scenario
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) target: TargetArgs,
}

fn positive_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Ok(_) | Err(_) => Err("must be more than 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_of_the_flags_is_sound() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_is_serve_with_its_flags() {
        let bare = parse("dunlin").unwrap();
        assert!(bare.command.is_none());
        let flags = parse("dunlin --port 7000 --log debug")
            .unwrap()
            .serve
            .sources()
            .flags;
        assert_eq!(
            flags,
            [
                ("server.port", "7000".to_owned(), "--port"),
                ("log.filter", "debug".to_owned(), "--log")
            ]
        );
        let Some(Command::Serve(serve)) = parse("dunlin serve --config a.toml").unwrap().command else {
            panic!("not serve")
        };
        assert_eq!(serve.sources().file, Some("a.toml".into()));
    }

    #[test]
    fn trigger_takes_channel_event_and_data() {
        let Some(Command::Trigger(args)) =
            parse("dunlin trigger chan ev {\"a\":1} --socket-id 1.2 --info user_count --host h --port 80")
                .unwrap()
                .command
        else {
            panic!("not trigger")
        };
        assert_eq!((args.channel.as_str(), args.event.as_str()), ("chan", "ev"));
        assert_eq!(args.data, "{\"a\":1}");
        assert_eq!(
            (args.socket_id.as_deref(), args.info.as_deref()),
            (Some("1.2"), Some("user_count"))
        );
        assert_eq!(
            (args.target.host.as_deref(), args.target.port),
            (Some("h"), Some(80))
        );
        assert!(matches!(
            parse("dunlin trigger chan ev -5").unwrap().command,
            Some(Command::Trigger(args)) if args.data == "-5"
        ));
    }

    #[test]
    fn subscribe_takes_several_channels_and_filters() {
        let Some(Command::Subscribe(args)) = parse(
            "dunlin subscribe a presence-b --user-id 7 --event x --event y --json --count 3 --timeout 0.5",
        )
        .unwrap()
        .command
        else {
            panic!("not subscribe")
        };
        assert_eq!(args.channels, ["a", "presence-b"]);
        assert_eq!(args.event, ["x", "y"]);
        assert_eq!(
            (args.user_id.as_str(), args.count, args.json),
            ("7", Some(3), true)
        );
        assert_eq!(args.timeout, Some(Duration::from_millis(500)));
        assert!(parse("dunlin subscribe").is_err(), "a channel is needed");
        assert!(parse("dunlin subscribe a --timeout 0").is_err());
    }

    #[test]
    fn channels_lists_and_shows() {
        assert!(matches!(
            parse("dunlin channels --prefix presence- --info user_count").unwrap().command,
            Some(Command::Channels(ChannelsArgs { command: None, list }))
                if list.prefix.as_deref() == Some("presence-")
        ));
        assert!(matches!(
            parse("dunlin channels show a --port 1").unwrap().command,
            Some(Command::Channels(ChannelsArgs { command: Some(ChannelsCommand::Show(show)), .. }))
                if show.channel == "a" && show.target.port == Some(1)
        ));
        assert!(matches!(
            parse("dunlin users presence-a").unwrap().command,
            Some(Command::Users(_))
        ));
    }

    #[test]
    fn a_cluster_and_a_host_exclude_each_other() {
        assert!(parse("dunlin doctor --cluster eu").is_ok());
        assert!(parse("dunlin doctor --cluster eu --host h").is_err());
    }

    #[test]
    fn a_secret_is_not_part_of_the_debug_output() {
        let arguments = parse("dunlin doctor --secret hush-hush").unwrap();
        assert!(!format!("{arguments:?}").contains("hush"));
    }
}
