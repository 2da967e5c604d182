//! The commands beside `serve`: exit codes, what is printed, and that they work against a running server.

use crate::binary::binary;
use crate::client::Client;
use crate::process::{free_ports, scratch_dir};
use crate::redis::RedisServer;
use crate::world::{App, DEADLINE, World};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

pub(crate) fn dunlin(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env_clear()
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null());
    command
}

/// Exit code, standard output and standard error.
pub(crate) fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().expect("the binary can be run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// The arguments that lead a client command to this world and app.
fn target(world: &World, app: &App) -> Vec<String> {
    ["--host", "127.0.0.1", "--port", &world.address.port().to_string()]
        .into_iter()
        .chain(["--app-id", &app.id, "--key", &app.key, "--secret", &app.secret])
        .map(str::to_owned)
        .collect()
}

/// A client command against the world. It must not run on the thread that the test's own clients need.
async fn client_command(world: &World, app: &App, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = dunlin(arguments);
    command.args(target(world, app));
    tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .expect("the command was waited for")
}

fn config_file(text: &str) -> PathBuf {
    let path = scratch_dir().join("dunlin.toml");
    std::fs::write(&path, text).expect("the scratch directory can be written");
    path
}

fn remove(config: &Path) {
    drop(std::fs::remove_dir_all(
        config.parent().expect("a file has a directory"),
    ));
}

const GOOD: &str =
    "[sockets]\nactivity_timeout_s = 60\n[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"hush-hush\"\n";

#[test]
fn a_valid_configuration_is_checked_with_exit_code_0() {
    let config = config_file(GOOD);
    let (code, out, _) = run(dunlin(&["config", "check", "--config"]).arg(&config));
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "the configuration is valid: 1 app\n")
    );
    let (code, ..) = run(dunlin(&["config", "check"]).env("DUNLIN_CONFIG", &config));
    assert_eq!(code, Some(0));
    remove(&config);
}

#[test]
fn a_bad_option_stops_the_start_and_is_named() {
    for (text, named) in [
        ("[sockets]\nactivity_timeout = 60", "sockets.activity_timeout"),
        (
            "[sockets]\nactivity_timeout_s = \"soon\"",
            "sockets.activity_timeout_s",
        ),
        ("[sockets]\nactivity_timeout_s = -1", "sockets.activity_timeout_s"),
        ("[sockets]\nactivity_timeout_s = 0", "sockets.activity_timeout_s"),
        ("[server]\nport = 70000", "server.port"),
        ("[nothing]\nx = 1", "nothing"),
        ("[[apps]]\nid = \"1\"\nkey = \"k\"", "secret"),
        ("[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"\"", "secret"),
        (
            "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\nspeed = 1",
            "speed",
        ),
        (
            "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n[[apps]]\nid = \"1\"\nkey = \"l\"\nsecret = \"s\"",
            "id",
        ),
        (
            "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n[[apps]]\nid = \"2\"\nkey = \"k\"\nsecret = \"s\"",
            "key",
        ),
        (
            "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n[apps.limits]\nconnections = -1",
            "connections",
        ),
        ("[cache]\nttl_s = 3600", "cache.ttl_s"),
        (
            "[server]\ndrain_window_ms = 60000\nshutdown_timeout_ms = 1000",
            "shutdown_timeout_ms",
        ),
        ("this is not TOML", "dunlin.toml"),
    ] {
        let config = config_file(text);
        for command in [&["config", "check"][..], &["serve"]] {
            let (code, out, err) = run(dunlin(command).env("DUNLIN_CONFIG", &config));
            assert_eq!(code, Some(2), "{command:?} of {text:?}: {out}{err}");
            assert!(err.contains(named), "{named} is not named: {err}");
        }
        remove(&config);
    }
}

#[test]
fn all_complaints_come_at_once() {
    let config =
        config_file("[server]\nport = 70000\n[sockets]\nactivity_timeout_s = \"x\"\n[cache]\nttl_s = 9999\n");
    let (_, _, err) = run(dunlin(&["config", "check"]).env("DUNLIN_CONFIG", &config));
    for named in ["server.port", "sockets.activity_timeout_s"] {
        assert!(err.contains(named), "{named}: {err}");
    }
    remove(&config);
}

#[test]
fn a_missing_file_and_a_bad_variable_stop_the_start() {
    for (name, value) in [
        ("DUNLIN_CONFIG", "/nowhere/dunlin.toml"),
        ("DUNLIN_SOCKETS__ACTIVITY_TIMEOUT_S", "soon"),
        ("DUNLIN_SOCKETS__ACTIVITY_TIMEOUT", "1"),
        ("DUNLIN_PORT", "http"),
        ("DUNLIN_REDIS_URL", "http://127.0.0.1"),
    ] {
        let (code, _, err) = run(dunlin(&["config", "check"]).env(name, value));
        assert_eq!(code, Some(2), "{name}={value}: {err}");
        assert!(err.contains(name) || err.contains(value), "{name}={value}: {err}");
    }
}

#[test]
fn show_tells_where_each_value_comes_from_and_no_secret() {
    let config = config_file(GOOD);
    let (code, out, err) = run(dunlin(&["config", "show", "--config"])
        .arg(&config)
        .env("DUNLIN_SOCKETS__PONG_TIMEOUT_S", "7"));
    assert_eq!(code, Some(0), "{err}");
    assert!(!out.contains("hush-hush") && !err.contains("hush-hush"), "{out}");
    let line = |start: &str| {
        out.lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("{start}: {out}"))
    };
    assert!(line("activity_timeout_s = 60").contains("dunlin.toml"));
    assert!(line("pong_timeout_s = 7").contains("DUNLIN_SOCKETS__PONG_TIMEOUT_S"));
    assert!(line("flush_chunk = ").contains("default"));
    let parsed: toml::Table = out
        .parse()
        .expect("the output has the form of a configuration file");
    assert_eq!(parsed["sockets"]["activity_timeout_s"].as_integer(), Some(60));
    remove(&config);
}

#[test]
fn production_refuses_what_is_only_for_development() {
    let (code, _, err) = run(dunlin(&["config", "check"]).env("DUNLIN_ENV", "production"));
    assert_eq!(code, Some(2), "no app at all: {err}");
    let config = config_file(
        "[sockets]\ntest_echo = true\n[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s-e-c-r-e-t\"\n",
    );
    let (code, _, err) = run(dunlin(&["config", "check"])
        .env("DUNLIN_ENV", "production")
        .env("DUNLIN_CONFIG", &config));
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("test_echo"), "{err}");
    remove(&config);
    let default = [
        "DUNLIN_DEFAULT_APP_ID",
        "DUNLIN_DEFAULT_APP_KEY",
        "DUNLIN_DEFAULT_APP_SECRET",
    ];
    let mut command = dunlin(&["config", "check"]);
    command
        .env("DUNLIN_ENV", "production")
        .envs(default.into_iter().zip(["app-id", "app-key", "app-secret"]));
    let (code, ..) = run(&mut command);
    assert_eq!(code, Some(2), "the ready-made secret is refused");
}

#[test]
fn help_and_version_are_printed_with_exit_code_0_and_nonsense_is_refused_with_2() {
    for argument in ["--help", "--version", "help"] {
        let (code, out, _) = run(&mut dunlin(&[argument]));
        assert_eq!(code, Some(0), "{argument}");
        assert!(out.contains("dunlin"), "{argument}: {out}");
    }
    let (_, out, _) = run(&mut dunlin(&["--help"]));
    for command in [
        "serve",
        "config",
        "trigger",
        "subscribe",
        "channels",
        "doctor",
        "bench",
    ] {
        assert!(out.contains(command), "{command}: {out}");
    }
    for arguments in [&["dance"][..], &["--dance"], &["trigger"], &["subscribe"]] {
        let (code, _, err) = run(&mut dunlin(arguments));
        assert_eq!(code, Some(2), "{arguments:?}");
        assert!(!err.is_empty());
    }
}

#[tokio::test]
async fn names_of_other_servers_set_the_app() {
    for prefix in [
        "DUNLIN_DEFAULT_APP",
        "PUSHER_APP",
        "REVERB_APP",
        "SOKETI_DEFAULT_APP",
    ] {
        let world = World::builder()
            .env(&format!("{prefix}_ID"), "77")
            .env(&format!("{prefix}_KEY"), "their-key")
            .env(&format!("{prefix}_SECRET"), "their-secret")
            .start();
        let app = App {
            id: "77".to_owned(),
            key: "their-key".to_owned(),
            secret: "their-secret".to_owned(),
            ..App::counting(1)
        };
        Client::connect(&world, &app).await.subscribe("pub").await;
        world.get(&app, "/channels", &[]).await.assert(200, "channels");
    }
}

#[tokio::test]
async fn with_nothing_set_there_is_a_ready_made_app_and_it_is_announced() {
    let world = World::builder().start();
    let app = App {
        id: "app-id".to_owned(),
        key: "app-key".to_owned(),
        secret: "app-secret".to_owned(),
        ..App::counting(1)
    };
    Client::connect(&world, &app).await.subscribe("pub").await;
    assert!(world.log().contains("app-key"), "{}", world.log());
    let demo = crate::request::plain(&world, "GET", "/demo").await;
    demo.assert(200, "<html");
    assert!(
        !demo.text().contains("//js.pusher.com"),
        "nothing comes from a CDN"
    );
}

#[tokio::test]
async fn trigger_delivers_an_event() {
    let app = App::counting(1);
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    client.join("presence-a", "u").await;
    let (code, out, err) = client_command(&world, &app, &["trigger", "presence-a", "e", "{\"a\": 1}"]).await;
    assert_eq!((code, out.as_str()), (Some(0), ""), "{err}");
    assert_eq!(client.expect_on("presence-a", "e").await.text(), "{\"a\": 1}");
    let arguments = [
        "trigger",
        "presence-a",
        "e",
        "x",
        "--info",
        "user_count,subscription_count",
    ];
    let (code, out, err) = client_command(&world, &app, &arguments).await;
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("\"user_count\":1"), "{out}");
    client.expect_on("presence-a", "e").await;
    let (code, _, err) = client_command(&world, &app, &["trigger", "a b", "e", "x"]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("Invalid channel name"), "{err}");
}

#[tokio::test]
async fn a_wrong_secret_and_a_closed_port_are_failures_with_a_reason() {
    let app = App::counting(1);
    let world = World::with_app(&app);
    let wrong = App {
        secret: "wrong".to_owned(),
        ..app.clone()
    };
    let (code, _, err) = client_command(&world, &wrong, &["trigger", "a", "e", "x"]).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("401") || err.to_lowercase().contains("signature"),
        "{err}"
    );
    assert!(!err.contains("wrong"), "the secret is printed: {err}");
    let [port] = free_ports();
    let mut command = dunlin(&["channels", "--host", "127.0.0.1", "--port"]);
    command.args([&port.to_string(), "--app-id", "1", "--key", "k", "--secret", "s"]);
    let (code, _, err) = run(&mut command);
    assert_eq!(code, Some(1), "{err}");
}

#[tokio::test]
async fn channels_and_users_are_listed() {
    let app = App::counting(1);
    let world = World::with_app(&app);
    let mut client = Client::connect(&world, &app).await;
    client.join("presence-a", "u1").await;
    client.subscribe("pub").await;
    let (code, out, err) = client_command(&world, &app, &["channels"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "presence-a\npub\n"), "{err}");
    let arguments = ["channels", "--prefix", "presence-", "--info", "user_count"];
    let (_, out, err) = client_command(&world, &app, &arguments).await;
    assert_eq!(out, "presence-a\tuser_count=1\n", "{err}");
    let (_, out, err) = client_command(&world, &app, &["channels", "show", "pub"]).await;
    assert!(
        out.contains("occupied=true") && out.contains("subscription_count=1"),
        "{out}{err}"
    );
    let (_, out, err) = client_command(&world, &app, &["users", "presence-a"]).await;
    assert_eq!(out, "u1\n", "{err}");
}

#[tokio::test]
async fn subscribe_prints_events_until_it_has_enough() {
    let app = App::counting(1);
    let world = World::with_app(&app);
    let child = dunlin(&[
        "subscribe",
        "pub",
        "private-a",
        "--count",
        "2",
        "--timeout",
        "20",
        "--json",
    ])
    .args(target(&world, &app))
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .expect("the binary can be run");
    crate::world::eventually("the command has subscribed", || async {
        let answer = world.get(&app, "/channels", &[]).await.json();
        (answer["channels"]
            .as_object()
            .is_some_and(|channels| channels.len() == 2))
        .then_some(())
    })
    .await;
    world.publish(&app, "pub", "one", "{\"a\":1}").await;
    world.publish(&app, "private-a", "two", "x").await;
    let (code, out) = finish(child).await;
    assert_eq!(code, Some(0));
    let events: Vec<serde_json::Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object per line"))
        .collect();
    assert_eq!(
        (&events[0]["event"], &events[1]["event"]),
        (&"one".into(), &"two".into()),
        "{out}"
    );
    assert_eq!(events[0]["data"], "{\"a\":1}");
}

async fn finish(child: Child) -> (Option<i32>, String) {
    let start = Instant::now();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output = output
        .await
        .expect("the command was waited for")
        .expect("its output can be read");
    assert!(start.elapsed() < DEADLINE * 4);
    (
        output.status.code(),
        String::from_utf8(output.stdout).expect("output is UTF-8"),
    )
}

#[tokio::test]
async fn subscribe_gives_up_in_time_and_says_so() {
    let app = App::counting(1);
    let world = World::with_app(&app);
    let (code, out, err) = client_command(
        &world,
        &app,
        &["subscribe", "pub", "--count", "1", "--timeout", "0.5"],
    )
    .await;
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
}

#[tokio::test]
async fn the_doctor_finds_a_healthy_server_healthy_and_a_wrong_secret_wrong() {
    let app = App::counting(1);
    let world = World::with_app(&app);
    let (code, out, err) = client_command(&world, &app, &["doctor"]).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let wrong = App {
        secret: "wrong".to_owned(),
        ..app
    };
    let (code, out, err) = client_command(&world, &wrong, &["doctor"]).await;
    assert_eq!(code, Some(1), "{out}{err}");
}

#[test]
fn the_doctor_says_whether_redis_is_there() {
    let redis = RedisServer::start();
    let says = |verdict: &str| {
        let (_, out, err) = run(dunlin(&["doctor"]).env("DUNLIN_REDIS_URL", redis.url()));
        let mut lines = out.lines().filter(|line| line.contains(" redis "));
        assert!(lines.all(|line| line.starts_with(verdict)), "{out}{err}");
        assert!(out.contains(" redis "), "{out}{err}");
    };
    says("ok ");
    redis.kill();
    says("FAILED ");
}
