use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

use super::*;

/// A file that goes when the test ends.
struct ConfigFile(std::path::PathBuf);

impl ConfigFile {
    fn holding(text: &str) -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "dunlin-config-{}-{}.toml",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        let mut file =
            std::fs::File::create_new(&path).expect("the directory for temporary files is writable");
        file.write_all(text.as_bytes()).expect("the file is writable");
        Self(path)
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).expect("nobody else removes it");
    }
}

fn with(file: &str, env: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let file = ConfigFile::holding(file);
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    load(&Sources {
        file: Some(file.0.clone()),
        env,
        flags: Vec::new(),
    })
}

fn config(file: &str, env: &[(&str, &str)]) -> Config {
    match with(file, env) {
        Ok(loaded) => loaded.config,
        Err(e) => panic!("{e}"),
    }
}

/// The complaints, without the name of the temporary file.
fn complaints(file: &str, env: &[(&str, &str)]) -> Vec<String> {
    let Err(error) = with(file, env) else {
        panic!("no complaint")
    };
    let text = |complaint: &Complaint| {
        let mut complaint = complaint.clone();
        if let Some(Origin::File { path, .. }) = &mut complaint.origin {
            "FILE".clone_into(path);
        }
        complaint.to_string()
    };
    error.complaints.iter().map(text).collect()
}

#[track_caller]
fn complains(file: &str, env: &[(&str, &str)], expected: &[&str]) {
    let found = complaints(file, env);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            found.contains(expected),
            "{found:?} does not contain {expected:?}"
        );
    }
}

const APP: &str = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n";

#[test]
fn nothing_at_all_is_a_development_node_with_the_ready_made_app() {
    let loaded = load(&Sources::default()).expect("the defaults are valid");
    let config = loaded.config;
    assert!(config.is_default_app && config.is_demo_enabled());
    let app = &config.apps[0];
    assert_eq!(
        (app.id.as_str(), app.key.as_str(), app.secret.expose()),
        ("app-id", "app-key", "app-secret")
    );
    assert_eq!(config.server.port, 6001);
    assert_eq!(config.sockets.activity_timeout, Duration::from_mins(2));
    assert!(loaded.warnings.is_empty());
}

#[test]
fn every_option_of_default_toml_is_a_field_and_every_field_has_a_default() {
    // A field without a default, or the other way round, is a complaint of serde, because no field has a default of
    // its own and unknown ones are denied.
    let loaded = load(&Sources::default()).expect("fields and defaults agree");
    let limits = AppLimits {
        connections: 0,
        publishes_per_second: 0,
        reads_per_second: 0,
        client_events_per_second: 10,
        payload_bytes: 10240,
        channels_per_event: 100,
        batch_events: 10,
        presence_members: 100,
        presence_info_bytes: 1024,
        subscriptions_per_connection: 1000,
        channel_name_length: 200,
        event_name_length: 200,
        watchlist: 100,
    };
    assert_eq!(loaded.config.apps[0].limits, limits);
}

/// The options as the documentation lists them: a table per section, its words those of `default.toml`.
fn documented_options() -> String {
    let (mut page, mut comment) = (String::from("## Options\n"), String::new());
    for line in include_str!("../default.toml").lines() {
        if let Some(text) = line.strip_prefix('#') {
            comment.push_str(text);
        } else if let Some(section) = line.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            write!(page, "\n### `[{section}]`\n\n").unwrap();
            if !comment.is_empty() {
                write!(page, "{}\n\n", comment.trim()).unwrap();
            }
            page.push_str("| option | default | meaning |\n|---|---|---|\n");
            comment.clear();
        } else if let Some((key, default)) = line.split_once(" = ") {
            assert!(!comment.is_empty(), "{line:?} is not explained");
            writeln!(page, "| `{key}` | `{default}` | {} |", comment.trim()).unwrap();
            comment.clear();
        } else {
            comment.clear();
        }
    }
    page
}

#[test]
fn every_option_is_explained_in_default_toml_and_documented_in_the_same_words() {
    let page = include_str!("../../../docs/reference/config.md");
    let found = page.find("## Options").map(|start| &page[start..]);
    let expected = documented_options();
    assert!(
        found == Some(&expected),
        "the end of docs/reference/config.md is old; it should be:\n{expected}"
    );
}

#[test]
fn flags_beat_our_variables_which_beat_foreign_ones_which_beat_the_file() {
    let file = "[server]\nport = 1000\n";
    assert_eq!(config(file, &[]).server.port, 1000);
    assert_eq!(config(file, &[("PORT", "2000")]).server.port, 2000);
    assert_eq!(
        config(file, &[("PORT", "2000"), ("SOKETI_PORT", "3000")])
            .server
            .port,
        3000
    );
    let mut env = vec![("PORT", "2000"), ("SOKETI_PORT", "3000"), ("DUNLIN_PORT", "4000")];
    assert_eq!(config(file, &env).server.port, 4000);
    env[2] = ("DUNLIN_SERVER__PORT", "5000");
    assert_eq!(config(file, &env).server.port, 5000);
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let flags = vec![("server.port", "6000".to_owned(), "--port")];
    let loaded = load(&Sources {
        file: None,
        env,
        flags,
    })
    .expect("valid");
    assert_eq!(loaded.config.server.port, 6000);
}

#[test]
fn values_from_the_environment_are_read_as_the_option_wants_them() {
    let config = config(
        APP,
        &[
            ("DUNLIN_SOCKETS__WRITE_STALL_MS", "2500"),
            ("DUNLIN_FALLBACK__ENABLED", "false"),
            (
                "DUNLIN_APP_DEFAULTS__ALLOWED_ORIGINS",
                "https://a.example, *.b.example",
            ),
            ("DUNLIN_APP_DEFAULTS__AUTHORIZED_CONNECTIONS", "30"),
            ("DUNLIN_APP_DEFAULTS__LIMITS__CONNECTIONS", "7"),
            ("DUNLIN_HOST", "localhost"),
        ],
    );
    assert_eq!(config.sockets.write_stall, Duration::from_millis(2500));
    assert!(!config.fallback.enabled);
    assert_eq!(
        config.apps[0].allowed_origins,
        ["https://a.example", "*.b.example"]
    );
    assert_eq!(
        config.apps[0].authorized_connections,
        Some(Duration::from_secs(30))
    );
    assert_eq!(config.apps[0].limits.connections, 7);
    assert!(config.server.host.is_loopback());
}

#[test]
fn an_app_keeps_the_defaults_for_what_it_leaves_out() {
    let file = "[app_defaults]\ntls_only = true\n[app_defaults.limits]\nconnections = 5\n\
        [[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\n[apps.limits]\npresence_members = 3\n\
        [[apps]]\nid = \"2\"\nkey = \"l\"\nsecret = \"t\"\ntls_only = false\nauthorized_connections = 20\n";
    let config = config(file, &[]);
    assert!(!config.is_default_app);
    let [first, second] = config.apps.as_slice() else {
        panic!("two apps")
    };
    assert!(first.tls_only && !second.tls_only);
    assert_eq!((first.limits.connections, first.limits.presence_members), (5, 3));
    assert_eq!(
        (second.limits.connections, second.limits.presence_members),
        (5, 100)
    );
    assert_eq!(second.authorized_connections, Some(Duration::from_secs(20)));
    assert_eq!(first.limits.payload_bytes, 10240);
}

#[test]
fn all_complaints_come_at_once_each_with_its_option_and_its_origin() {
    let file = "[server]\nport = 70000\nprot = 1\n[sockets]\nmax_fragments = \"many\"\n[nonsense]\nx = 1\n\
        [[apps]]\nid = \"1\"\nkey = \"k\"\nsecrte = \"s\"\n[apps.limits]\nconnections = -1\n";
    complains(
        file,
        &[
            ("DUNLIN_FALLBACK__ENABLED", "perhaps"),
            ("DUNLIN_SOCKETS__NO_SUCH", "1"),
            ("DUNLIN_PRT", "1"),
        ],
        &[
            "nonsense.x (FILE, line 7): no such option",
            "server.prot (FILE, line 3): no such option; did you mean server.port?",
            "environment variable DUNLIN_PRT: no such variable; did you mean DUNLIN_PORT?",
            "sockets.no_such (environment variable DUNLIN_SOCKETS__NO_SUCH): no such option",
            "server.port (FILE, line 2): invalid value: integer `70000`",
            "sockets.max_fragments (FILE, line 5): invalid type: string \"many\"",
            "fallback.enabled (environment variable DUNLIN_FALLBACK__ENABLED): invalid type: string \"perhaps\"",
            "apps[0].secret (FILE, line 9): is missing",
            "apps[0].secrte (FILE, line 11): no such option; did you mean secret?",
            "apps[0].limits.connections (FILE, line 13): invalid value: integer `-1`",
        ],
    );
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let file = "[server]\nport = 9601\npath_prefix = \"realtime/\"\ndrain_window_ms = 40000\n\
        [tls]\ncert_path = \"cert.pem\"\n[log]\nfilter = \"=x=\"\n[sockets]\noutbox_bytes = 2048\n[cache]\nttl_s = 3600\n";
    complains(
        file,
        &[("DUNLIN_APP_DEFAULTS__LIMITS__PAYLOAD_BYTES", "3000000")],
        &[
            "server.drain_window_ms (FILE, line 4): must not be longer than server.shutdown_timeout_ms",
            "server.path_prefix (FILE, line 3): must be empty, or begin with a slash",
            "server.metrics_port (default): 9601 is the port of server.port already",
            "tls.cert_path (FILE, line 6): is set, but tls.port is 0",
            "log.filter (FILE, line 8): \"=x=\" is not a filter",
            "sockets.outbox_bytes (FILE, line 10): must be at least sockets.max_message_bytes",
            "cache.ttl_s (FILE, line 12): must be between 1 and 1800",
            "apps[0].limits.payload_bytes (environment variable DUNLIN_APP_DEFAULTS__LIMITS__PAYLOAD_BYTES): \
             must be smaller than server.max_body_bytes",
            "apps[0].limits.payload_bytes (environment variable DUNLIN_APP_DEFAULTS__LIMITS__PAYLOAD_BYTES): \
             must be smaller than sockets.outbox_bytes",
        ],
    );
}

#[test]
fn production_refuses_what_is_for_development() {
    complains("", &[("DUNLIN_ENV", "production")], &["apps: none is configured"]);
    let ready_made = "[[apps]]\nid = \"app-id\"\nkey = \"app-key\"\nsecret = \"app-secret\"\n";
    let file = format!("[demo]\nenabled = \"on\"\n[sockets]\ntest_echo = true\n{ready_made}");
    complains(
        &file,
        &[("DUNLIN_ENV", "production")],
        &[
            "sockets.test_echo",
            "demo.enabled",
            "apps[0].secret (FILE, line 8): is the ready-made one",
        ],
    );
    let config = config(APP, &[("DUNLIN_ENV", "production")]);
    assert!(!config.is_demo_enabled() && !config.is_default_app);
}

#[test]
fn ids_and_keys_belong_to_one_app() {
    let file = format!("{APP}{APP}");
    complains(
        &file,
        &[],
        &[
            "apps[1].id (FILE, line 6): \"1\" is the id of apps[0]",
            "apps[1].key",
        ],
    );
}

#[test]
fn another_servers_variables_name_the_app() {
    for family in [
        "PUSHER_APP_",
        "REVERB_APP_",
        "SOKETI_DEFAULT_APP_",
        "DUNLIN_DEFAULT_APP_",
    ] {
        let names = ["ID", "KEY", "SECRET"].map(|end| format!("{family}{end}"));
        let config = config("", &[(&names[0], "7"), (&names[1], "k"), (&names[2], "s")]);
        assert!(!config.is_default_app);
        assert_eq!(
            (config.apps.len(), config.apps[0].id.as_str()),
            (1, "7"),
            "{family}"
        );
    }
}

#[test]
fn the_strongest_family_of_names_wins_and_joins_the_apps_of_the_file() {
    let env = [
        ("PUSHER_APP_ID", "9"),
        ("SOKETI_DEFAULT_APP_ID", "1"),
        ("SOKETI_DEFAULT_APP_KEY", "k2"),
        ("SOKETI_DEFAULT_APP_SECRET", "s2"),
        ("SOKETI_DEFAULT_APP_MAX_CONNS", "-1"),
        ("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "0"),
        ("SOKETI_DEFAULT_APP_MAX_READ_REQ_PER_SEC", "12"),
    ];
    let same_id = config(
        "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"s\"\nname = \"Shop\"\n",
        &env,
    );
    assert_eq!(same_id.apps.len(), 1);
    let app = &same_id.apps[0];
    assert_eq!(
        (app.name.as_str(), app.key.as_str(), app.secret.expose()),
        ("Shop", "k2", "s2")
    );
    assert!(!app.client_events);
    assert_eq!((app.limits.connections, app.limits.reads_per_second), (0, 12));

    let other_id = config("[[apps]]\nid = \"2\"\nkey = \"k\"\nsecret = \"s\"\n", &env);
    let ids: Vec<&str> = other_id.apps.iter().map(|app| app.id.as_str()).collect();
    assert_eq!(ids, ["1", "2"]);
}

#[test]
fn an_origin_that_could_never_match_is_refused() {
    let origins = |origin: &str| format!("[app_defaults]\nallowed_origins = [{origin:?}]\n");
    for sound in [
        "https://a.example",
        "http://localhost:3000",
        "a.example",
        "a.example:8080",
        "*.a.example",
        "*",
    ] {
        assert_eq!(config(&origins(sound), &[]).apps[0].allowed_origins, [sound]);
    }
    for wrong in [
        "",
        "https://a.example/",
        "https://*.a.example",
        "a.example:x",
        "a b",
        "*a.example",
        "https://",
    ] {
        complains(&origins(wrong), &[], &["apps[0].allowed_origins (FILE, line 2)"]);
    }
}

#[test]
fn half_an_app_in_the_environment_is_refused() {
    complains(
        "",
        &[("PUSHER_APP_KEY", "k")],
        &["environment variable PUSHER_APP_KEY: needs PUSHER_APP_ID and PUSHER_APP_SECRET beside it"],
    );
}

#[test]
fn what_other_servers_know_and_we_do_not_is_warned_of() {
    let env = [
        ("SOKETI_DB_REDIS_HOST", "r"),
        ("DUNLIN_DASHBOARD_PORT", "6002"),
        ("PUSHER_HOST", "looked over: it speaks to clients"),
        ("DUNLIN_REDIS_URL", ""),
    ];
    let warnings = with("", &env)
        .map(|loaded| loaded.warnings)
        .expect("only warnings");
    let first_words: Vec<&str> = warnings
        .iter()
        .filter_map(|text| text.split(' ').next())
        .collect();
    assert_eq!(first_words, ["SOKETI_DB_REDIS_HOST"]);
}

#[test]
fn a_database_is_named_by_our_variable_or_everybodys_and_never_shown() {
    for variable in ["DUNLIN_DATABASE_URL", "DATABASE_URL", "DUNLIN_DATABASE__URL"] {
        let loaded = with("", &[(variable, "postgres://u:hidden@h:1/d")]).expect("a good URL");
        let url = loaded.config.database.url.expect("it was set");
        assert_eq!(url.expose(), "postgres://u:hidden@h:1/d");
        assert!(!format!("{:?}", loaded.shown).contains("hidden"));
    }
    let defaults = with("", &[]).expect("the defaults").config;
    assert!(defaults.database.url.is_none());
    complains(
        "[database]\npool_size = 0\ntimeout_ms = 9\n",
        &[("DATABASE_URL", "mysql://u:hidden@h/d")],
        &[
            "database.url (environment variable DATABASE_URL): must begin with sqlite:/// or postgres://",
            "database.pool_size",
            "database.timeout_ms",
        ],
    );
}

#[test]
fn redis_is_named_by_our_variable_or_everybodys_and_never_shown() {
    for variable in ["DUNLIN_REDIS_URL", "REDIS_URL", "DUNLIN_REDIS__URL"] {
        let loaded = with("", &[(variable, "redis://u:hidden@r:1/2")]).expect("a good URL");
        let url = loaded.config.redis.url.expect("it was set");
        assert_eq!(url.expose(), "redis://u:hidden@r:1/2");
        let shown = loaded
            .shown
            .iter()
            .find(|shown| shown.table == "redis" && shown.key == "url");
        assert_eq!(shown.map(|shown| shown.value.as_str()), Some("\"[redacted]\""));
    }
    assert!(with("", &[]).expect("the defaults").config.redis.url.is_none());
    assert!(
        with("", &[("DUNLIN_REDIS_URL", "")])
            .expect("not set")
            .config
            .redis
            .url
            .is_none()
    );
}

#[test]
fn a_redis_that_cannot_be_is_refused_with_its_reason() {
    for (url, why) in [
        ("http://r", "must begin with redis://"),
        ("redis-cluster://", "must name at least one host"),
        ("redis-sentinel://r", "must end with the name of the master"),
    ] {
        complains(
            "",
            &[("DUNLIN_REDIS_URL", url)],
            &[&format!(
                "redis.url (environment variable DUNLIN_REDIS_URL): {why}"
            )],
        );
    }
    complains(
        "[redis]\nurl = \"rediss://r\"\nca_path = \"nowhere\"\nprefix = \"a{b}\"\nlease_ms = 3000\nlease_refresh_ms = 2000\npool_size = 0",
        &[],
        &[
            "redis.ca_path",
            "redis.prefix",
            "redis.lease_ms",
            "redis.pool_size",
        ],
    );
}

#[test]
fn a_short_and_a_long_name_must_not_disagree() {
    let env = [("DUNLIN_PORT", "1"), ("DUNLIN_SERVER__PORT", "2")];
    complains(
        "",
        &env,
        &["server.port (environment variable DUNLIN_PORT): DUNLIN_SERVER__PORT says something else"],
    );
}

#[test]
fn a_bad_or_missing_file_stops_the_start() {
    complains("[server\nport = 1", &[], &["FILE, line 1: not valid TOML"]);
    complains(
        "server = 1",
        &[],
        &["server (FILE, line 1): is a section: write [server]"],
    );
    complains(
        "apps = 1",
        &[],
        &["apps (FILE, line 1): must be a list of tables"],
    );
    complains("apps = [1]", &[], &["apps[0] (FILE, line 1): must be a table"]);
    complains("[empty]", &[], &["empty (FILE, line 1): no such option"]);
    let env = [("DUNLIN_CONFIG".to_owned(), "/does/not/exist.toml".to_owned())].into();
    let Err(error) = load(&Sources {
        env,
        ..Sources::default()
    }) else {
        panic!("no complaint")
    };
    let text = error.to_string();
    assert!(
        text.contains("environment variable DUNLIN_CONFIG: cannot read /does/not/exist.toml"),
        "{text}"
    );
}

#[test]
fn a_secret_is_in_no_complaint_and_in_nothing_shown() {
    let file = "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"hush-hush\"\n";
    let loaded = with(file, &[]).unwrap_or_else(|e| panic!("{e}"));
    assert!(!format!("{:?} {:?}", loaded.config, loaded.shown).contains("hush"));
    for broken in [
        "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = [\"hush-hush\"]\n",
        "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = \"hush-hush\" x\n",
        "[[apps]]\nid = \"\"\nkey = \"k\"\nsecret = \"hush-hush\"\n",
    ] {
        let text = complaints(broken, &[]).join("\n");
        assert!(!text.contains("hush"), "{text}");
    }
    complains(
        "[[apps]]\nid = \"1\"\nkey = \"k\"\nsecret = 4711\n",
        &[],
        &["apps[0].secret (FILE, line 4): must be a text"],
    );
}

#[test]
fn what_is_shown_says_where_each_value_came_from() {
    let loaded = with("[server]\nport = 7000\n", &[("DUNLIN_HOST", "::1")]).unwrap_or_else(|e| panic!("{e}"));
    let shown = |key: &str| {
        let option = loaded
            .shown
            .iter()
            .find(|option| option.table == "server" && option.key == key);
        option
            .map(|option| (option.value.clone(), option.origin.clone()))
            .expect("every option is shown")
    };
    assert_eq!(
        shown("host"),
        ("\"::1\"".to_owned(), Origin::Env("DUNLIN_HOST".to_owned()))
    );
    assert!(matches!(shown("port"), (value, Origin::File { line: 2, .. }) if value == "7000"));
    assert_eq!(shown("workers"), ("0".to_owned(), Origin::Default));
}

#[test]
fn channels_that_keep_their_past_are_listed_by_app_or_for_all() {
    let rule = HistoryRuleSection::example;
    let defaults = "[[app_defaults.history]]\nchannels = \"*\"\nsize = 10\nage_s = 60\n";
    let own = "[[apps.history]]\nchannels = \"orders-*\"\nsize = 1000\nage_s = 120\n\
               [[apps.history]]\nchannels = \"news\"\nsize = 1\nage_s = 604800\n";
    assert_eq!(
        config(&format!("{defaults}{APP}"), &[]).apps[0].history,
        [rule("*", 10, 60)]
    );
    assert_eq!(
        config(&format!("{defaults}{APP}{own}"), &[]).apps[0].history,
        [rule("orders-*", 1000, 120), rule("news", 1, 604_800)],
        "an app's own list replaces that for all"
    );
    let Ok(Loaded { shown, .. }) = with(&format!("{APP}{own}"), &[]) else {
        panic!("it is valid")
    };
    let shown = shown
        .iter()
        .find(|shown| shown.table == "apps[0]" && shown.key == "history");
    assert_eq!(
        shown.map(|shown| shown.value.as_str()),
        Some(
            "[{ age_s = 120, channels = \"orders-*\", size = 1000 }, \
              { age_s = 604800, channels = \"news\", size = 1 }]"
        )
    );
}

#[test]
fn a_history_that_cannot_be_is_refused() {
    let app = |rule: &str| format!("{APP}[[apps.history]]\n{rule}\n");
    for (rule, expected) in [
        (
            "channels = \"a b\"\nsize = 1\nage_s = 1",
            "apps[0].history[0].channels (FILE, line 5): \"a b\" is no pattern",
        ),
        ("channels = \"\"\nsize = 1\nage_s = 1", "is no pattern"),
        ("channels = \"a*b\"\nsize = 1\nage_s = 1", "is no pattern"),
        ("channels = \"#x*\"\nsize = 1\nage_s = 1", "is no pattern"),
        (
            "channels = \"*\"\nsize = 0\nage_s = 1",
            "history[0].size (FILE, line 5): must be between 1 and 100000",
        ),
        (
            "channels = \"*\"\nsize = 100001\nage_s = 1",
            "must be between 1 and 100000",
        ),
        (
            "channels = \"*\"\nsize = 1\nage_s = 0",
            "history[0].age_s (FILE, line 5): must be between 1 and 604800",
        ),
        (
            "channels = \"*\"\nsize = 1\nage_s = 604801",
            "must be between 1 and 604800",
        ),
        (
            "channels = \"*\"\nsize = 1",
            "apps[0].history (FILE, line 5): missing field `age_s`",
        ),
        (
            "channels = \"*\"\nsize = 1\nage_s = 1\nages = 1",
            "unknown field `ages`",
        ),
    ] {
        complains(&app(rule), &[], &[expected]);
    }
    for channels in [
        "*",
        "#server-to-user-*",
        "#*",
        "private-encrypted-*",
        "a",
        "#server-to-user-7",
    ] {
        config(
            &app(&format!("channels = \"{channels}\"\nsize = 1\nage_s = 1")),
            &[],
        );
    }
    complains(
        APP,
        &[("DUNLIN_HISTORY__MAX_BYTES", "1000")],
        &["history.max_bytes less 1024"],
    );
}

#[test]
fn endpoints_are_listed_by_app_and_have_the_documented_defaults() {
    let one = |entry: &str| {
        let file = format!("[webhooks]\nallow_networks = [\"127.0.0.0/8\"]\n{APP}{entry}");
        let mut endpoints = config(&file, &[]).apps.remove(0).webhooks;
        assert_eq!(endpoints.len(), 1);
        endpoints.remove(0)
    };
    let page = include_str!("../../../docs/reference/config.md");
    let start = page
        .find("[[apps.webhooks]]\nid = ")
        .expect("an entry with every option");
    let entry = page[start..].split("```").next().unwrap_or_default();
    let url = "https://shop.example/hook".to_owned();
    let defaults = EndpointSection {
        url,
        ..EndpointSection::default()
    };
    assert_eq!(one(entry), defaults);
    let own = one(
        "[[apps.webhooks]]\nformat = \"yalgaar\"\nmessage_url = \"http://127.0.0.1:8000/m\"\nid = \"m\"\n\
        events = [\"message\", \"bind\"]\nheaders = { X-A = \"b\" }\nbatch_ms = 0\nbatch_size = 1\n\
        channel_prefix = \"private-\"\nchannels = [\"*-eu\"]\nsecret = \"whsec_bmV3\"\nprevious_secret = \"whsec_b2xk\"\n\
        previous_secret_until_ms = 7\nshort_retries = true\n\
        enabled = false\ndescription = \"d\"\n",
    );
    let expected = EndpointSection {
        id: "m".to_owned(),
        enabled: false,
        description: "d".to_owned(),
        format: BodyFormat::Yalgaar,
        url: String::new(),
        presence_url: String::new(),
        message_url: "http://127.0.0.1:8000/m".to_owned(),
        events: vec![EventType::Message, EventType::Bind],
        channel_prefix: "private-".to_owned(),
        channels: vec!["*-eu".to_owned()],
        headers: [("X-A".to_owned(), ConfigSecret::from("b"))].into(),
        secret: Some(ConfigSecret::from("whsec_bmV3")),
        previous_secret: Some(ConfigSecret::from("whsec_b2xk")),
        previous_secret_until_ms: 7,
        batch: Duration::ZERO,
        batch_size: 1,
        short_retries: true,
    };
    assert_eq!(own, expected);
    // What is stored is of the same shape, and no longer than it has to be.
    for (section, json) in [
        (EndpointSection::default(), "{}".to_owned()),
        (own.clone(), own.to_json()),
    ] {
        assert_eq!(section.to_json(), json);
        assert_eq!(
            EndpointSection::from_json(&json).expect("it was written so"),
            section
        );
    }
    assert!(!own.to_json().contains("presence_url"), "as by default");
    // Whoever looks at it sees every option, and no secret.
    let shown = own.shown();
    assert_eq!(
        (&shown["batch_ms"], &shown["presence_url"]),
        (&0.into(), &"".into())
    );
    assert_eq!(shown["headers"]["X-A"], "[redacted]");
    assert_eq!(shown["secret"], "[redacted]");
    assert_eq!(EndpointSection::default().shown()["secret"], "");
    EndpointSection::from_json("{\"colour\":1}").expect_err("of another version");
}

#[test]
fn an_endpoint_that_cannot_be_is_refused() {
    const URL: &str = "url = \"https://a.example/\"\n";
    const YALGAAR: &str = "format = \"yalgaar\"\nmessage_url = \"https://a.example/\"\n";
    let complains_of = |entry: &str, expected: &str| {
        let file = format!("{APP}[[apps.webhooks]]\n{entry}");
        complains(&file, &[], &[expected]);
    };
    let long = format!("headers = {{ A = \"{}\" }}", "x".repeat(5000));
    for (rest, expected) in [
        (
            "events = [\"chanel_occupied\"]",
            "apps[0].webhooks (FILE, line 5): unknown variant `chanel_occupied`",
        ),
        (
            "events = [\"bind\"]",
            "apps[0].webhooks[0].events (FILE, line 5): must be events of the format \"pusher\"",
        ),
        ("format = \"soap\"", "unknown variant `soap`"),
        ("colour = 1", "unknown field `colour`"),
        (
            "presence_url = \"https://a.example/\"",
            "webhooks[0].presence_url (FILE, line 5): is for the format \"yalgaar\"",
        ),
        (
            "message_url = \"https://a.example/\"",
            "webhooks[0].message_url (FILE, line 5): is for the format \"yalgaar\"",
        ),
        (
            "id = \"a b\"",
            "webhooks[0].id (FILE, line 5): must be 1 to 64 letters",
        ),
        (
            "channel_prefix = \"a b\"",
            "webhooks[0].channel_prefix (FILE, line 5): \"a b\" is not how",
        ),
        (
            "channels = [\"a\", \"a b\"]",
            "webhooks[0].channels (FILE, line 5): \"a b\" is no pattern",
        ),
        (
            "channel_prefix = \"#server-to-user-1\"",
            "is not how a channel's name begins",
        ),
        (
            "batch_size = 0",
            "webhooks[0].batch_size (FILE, line 5): must be between 1 and 1000",
        ),
        ("batch_size = 1001", "must be between 1 and 1000"),
        (
            "batch_ms = 60001",
            "webhooks[0].batch_ms (FILE, line 5): must be at most 60000",
        ),
        (
            "secret = \"hush\"",
            "webhooks[0].secret (FILE, line 5): must be whsec_ and base64",
        ),
        ("secret = \"whsec_\"", "must be whsec_ and base64"),
        ("secret = \"whsec_a\"", "must be whsec_ and base64"),
        (
            "previous_secret = \"whsec_?\"",
            "webhooks[0].previous_secret (FILE, line 5): must be whsec_ and base64",
        ),
        (
            "headers = { \"a b\" = \"c\" }",
            "webhooks[0].headers (FILE, line 5): \"a b\" is no name of a header",
        ),
        (
            "headers = { A = \"b\\nc\" }",
            "webhooks[0].headers (FILE, line 5): the value of \"A\" is none",
        ),
        (&long, "the value of \"A\" is none"),
        ("headers = { A = \"b\", a = \"c\" }", "\"a\" is there twice"),
        ("headers = { A = 4711 }", "headers must be a table of texts"),
        ("headers = 4711", "headers must be a table of texts"),
    ] {
        complains_of(&format!("{URL}{rest}"), expected);
    }
    for name in [
        "X-Pusher-Key",
        "x-pusher-anything",
        "Webhook-Id",
        "Content-Type",
        "CONTENT-LENGTH",
        "Host",
        "Connection",
    ] {
        let expected = format!("webhooks[0].headers (FILE, line 5): {name:?} is not yours to set");
        complains_of(&format!("{URL}headers = {{ {name} = \"x\" }}"), &expected);
    }
    for (entry, expected) in [
        ("", "webhooks[0].url (FILE, line 5): is missing"),
        (
            "format = \"yalgaar\"",
            "webhooks[0].presence_url (FILE, line 5): is missing, and so is message_url",
        ),
        (
            "url = \"ftp://a.example\"",
            "webhooks[0].url (FILE, line 5): must begin with https:// or http://",
        ),
        (
            "url = \"http://127.0.0.1/\"",
            "webhooks[0].url (FILE, line 5): must lead to a public address",
        ),
        (
            "url = \"http://u:hush@a.example/\"",
            "webhooks[0].url (FILE, line 5): must not have a user name",
        ),
    ] {
        complains_of(entry, expected);
    }
    complains_of(
        &format!("{YALGAAR}{URL}"),
        "webhooks[0].url (FILE, line 5): is for the format \"pusher\"",
    );
    complains_of(
        &format!("{YALGAAR}events = [\"client_event\"]"),
        "must be events of the format \"yalgaar\"",
    );
    let two = |first: &str, second: &str| format!("{URL}{first}\n[[apps.webhooks]]\n{URL}{second}");
    complains_of(
        &two("id = \"a\"", "id = \"a\""),
        "webhooks[1].id (FILE, line 5): \"a\" is the id of webhooks[0] already",
    );
    complains_of(
        &two("", "enabled = false"),
        "webhooks[1].id (FILE, line 5): is needed: format and URLs are those of webhooks[0]",
    );
    config(&format!("{APP}[[apps.webhooks]]\n{}", two("", "id = \"a\"")), &[]);
    let elsewhere = APP.replace("\"1\"", "\"2\"").replace("\"k\"", "\"l\"");
    let entry = format!("[[apps.webhooks]]\nid = \"a\"\n{URL}");
    config(&format!("{APP}{entry}{elsewhere}{entry}"), &[]);
}

#[test]
fn what_is_secret_of_an_endpoint_is_in_no_complaint_and_in_nothing_shown() {
    let entry = "[[apps.webhooks]]\nurl = \"https://a.example/\"\nsecret = \"whsec_aHVzaC1odXNo\"\n\
        previous_secret = \"whsec_aHVzaC1odXNo\"\nheaders = { \"x.a\" = \"hush-hush\" }\n";
    let is_silent = |text: &str| !text.contains("aHVzaC1odXNo") && !text.contains("hush");
    let loaded = with(&format!("{APP}{entry}"), &[]).unwrap_or_else(|e| panic!("{e}"));
    assert!(is_silent(&format!("{:?} {:?}", loaded.config, loaded.shown)));
    let shown = loaded
        .shown
        .iter()
        .find(|shown| shown.table == "apps[0]" && shown.key == "webhooks");
    assert_eq!(
        shown.map(|shown| shown.value.as_str()),
        Some(
            "[{ headers = { \"x.a\" = \"[redacted]\" }, previous_secret = \"[redacted]\", \
              secret = \"[redacted]\", url = \"https://a.example/\" }]"
        )
    );
    for (sound, broken) in [
        ("whsec_", "whsec"),
        ("\"whsec_aHVzaC1odXNo\"", "[\"hush\"]"),
        ("\"hush-hush\"", "\"hush\\n\""),
        ("\"hush-hush\"", "[\"hush\"]"),
        ("a.example", "hush@a.example"),
        ("https", "hush"),
    ] {
        let file = format!("{APP}{}", entry.replace(sound, broken));
        let text = complaints(&file, &[]).join("\n");
        assert!(is_silent(&text), "{text}");
    }
}

#[test]
fn webhooks_that_cannot_be_are_refused() {
    for (option, value, expected) in [
        ("settle_ms", "60001", "must be at most 60000"),
        ("allow_networks", "[\"127.0.0.1\"]", "\"127.0.0.1\" is no network"),
        (
            "allow_networks",
            "[\"localhost/8\"]",
            "\"localhost/8\" is no network",
        ),
        (
            "refused_hosts",
            "[\"https://a.example\"]",
            "\"https://a.example\" is no host: write a name",
        ),
        ("retry_schedule_ms", "[]", "must have 1 to 32 entries"),
        ("retry_schedule_ms", "[0, -1]", "invalid value: integer `-1`"),
        (
            "retry_schedule_ms",
            "[0, 40000000000]",
            "must not be longer than a year",
        ),
        ("timeout_ms", "99", "must be between 100 and 60000"),
        ("timeout_ms", "60001", "must be between 100 and 60000"),
        ("claim_ms", "999", "must be between 1000 and 600000"),
        ("claim_ms", "600001", "must be between 1000 and 600000"),
        ("max_in_flight", "10001", "must be between 1 and 10000"),
        (
            "max_in_flight_per_endpoint",
            "0",
            "must be between 1 and webhooks.max_in_flight",
        ),
        (
            "max_in_flight_per_endpoint",
            "257",
            "must be between 1 and webhooks.max_in_flight",
        ),
    ] {
        let expected = format!("webhooks.{option} (FILE, line 2): {expected}");
        complains(&format!("[webhooks]\n{option} = {value}\n"), &[], &[&expected]);
    }
    let too_many = format!("[webhooks]\nretry_schedule_ms = {:?}\n", [0; 33]);
    complains(
        &too_many,
        &[],
        &["webhooks.retry_schedule_ms (FILE, line 2): must have 1 to 32 entries"],
    );
    let networks = ("DUNLIN_WEBHOOKS__ALLOW_NETWORKS", "127.0.0.0/8, fd00::/8");
    complains(
        APP,
        &[("DUNLIN_ENV", "production"), networks],
        &[
            "webhooks.allow_networks (environment variable DUNLIN_WEBHOOKS__ALLOW_NETWORKS): is refused in production",
        ],
    );
    let webhooks = config(
        APP,
        &[networks, ("DUNLIN_WEBHOOKS__RETRY_SCHEDULE_MS", "0, 50,100")],
    )
    .webhooks;
    assert_eq!(webhooks.retry_schedule, [0, 50, 100].map(Duration::from_millis));
    let networks: Vec<String> = webhooks.allow_networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["127.0.0.0/8", "fd00::/8"]);
}

#[test]
fn nodes_of_a_cluster_that_share_no_database_are_warned_of() {
    let redis = ("DUNLIN_REDIS_URL", "redis://r");
    for (env, is_warned) in [
        (&[][..], false),
        (&[redis], true),
        (&[redis, ("DUNLIN_DATABASE_URL", "")], true),
        (&[redis, ("DUNLIN_DATABASE_URL", "postgres://u:p@h/d")], false),
        (&[("DUNLIN_DATABASE_URL", "postgres://u:p@h/d")], false),
        // A file that several nodes of one machine were told of.
        (&[redis, ("DUNLIN_DATABASE_URL", "sqlite:///data/d.db")], false),
    ] {
        let warning = config(APP, env).database_warning();
        assert_eq!(warning.is_some(), is_warned, "{env:?}");
        assert!(warning.is_none_or(|text| text.contains("Set DUNLIN_DATABASE_URL")));
    }
}

#[test]
fn endpoints_are_on_no_host_of_the_platform() {
    let own = (
        "DUNLIN_WEBHOOKS__REFUSED_HOSTS",
        "ws.dunlin.example, *.nodes.example,8.8.4.0/24",
    );
    for (variable, host, is_refused) in [
        (own, "ws.dunlin.example", true),
        (own, "a.nodes.example", true),
        (own, "8.8.4.4", true),
        (own, "dunlin.example", false),
        (own, "8.8.8.8", false),
        (("DUNLIN_HOST", "8.8.8.8"), "8.8.8.8", true),
        (("DUNLIN_SERVER__METRICS_HOST", "8.8.8.8"), "8.8.8.8", true),
        (("DUNLIN_HOST", "0.0.0.0"), "8.8.8.8", false),
    ] {
        let entry = format!("{APP}[[apps.webhooks]]\nurl = \"https://{host}/\"\n");
        if is_refused {
            let expected = "apps[0].webhooks[0].url (FILE, line 5): must not lead to this platform itself";
            complains(&entry, &[variable], &[expected]);
        } else {
            config(&entry, &[variable]);
        }
    }
    // What is refused for what it is can be let through for development, also when the node listens there.
    let file = format!("{APP}[[apps.webhooks]]\nurl = \"http://127.0.0.1:8000/\"\n");
    let networks = ("DUNLIN_WEBHOOKS__ALLOW_NETWORKS", "127.0.0.0/8");
    config(&file, &[networks, ("DUNLIN_HOST", "127.0.0.1")]);
}

#[test]
fn endpoints_are_on_no_port_of_the_platform_its_redis_or_its_database() {
    let webhook = |port: u16| {
        format!(
            "[webhooks]\nallow_networks = [\"127.0.0.0/8\"]\n{APP}[[apps.webhooks]]\nurl = \"http://127.0.0.1:{port}/\"\n"
        )
    };
    for (variable, value, ports) in [
        ("DUNLIN_PORT", "7001", &[7001, 9601][..]),
        ("DUNLIN_METRICS_PORT", "7002", &[6001, 7002]),
        ("DUNLIN_REDIS_URL", "redis://u:p@r/0", &[6379]),
        ("DUNLIN_REDIS_URL", "rediss://r:7003", &[7003]),
        (
            "DUNLIN_REDIS_URL",
            "redis-cluster://a:7004,b:7005",
            &[7004, 7005, 6379],
        ),
        (
            "DUNLIN_REDIS_URL",
            "redis-sentinel://:p@a,b:7006/main",
            &[26379, 7006, 6379],
        ),
        ("DUNLIN_DATABASE_URL", "postgres://u:p@h/d", &[5432]),
        ("DUNLIN_DATABASE_URL", "postgresql://u:p@h:7007/d", &[7007]),
    ] {
        for port in ports {
            let found = complaints(&webhook(*port), &[(variable, value)]);
            let [complaint] = &found[..] else {
                panic!("{value}: {found:?}")
            };
            let is_about_it = complaint.contains(&format!("port {port}"));
            assert!(
                complaint.starts_with("apps[0].webhooks[0].url") && is_about_it,
                "{complaint}"
            );
        }
        config(&webhook(8080), &[(variable, value)]);
    }
    // Nobody is there who could be taken for ours.
    config(&webhook(6379), &[]);
    config(&webhook(5432), &[("DUNLIN_DATABASE_URL", "sqlite:///tmp/a.db")]);
}
