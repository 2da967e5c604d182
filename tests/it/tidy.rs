//! What the compiler does not hold: which way the rooms of the server depend on each other, and that the
//! pages about options say what the code does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms and leaf files of `server/src`, floor by floor. A room may use the floors below its own; rooms on one floor
/// are siblings and do not know each other.
const FLOORS: [&[&str]; 10] = [
    &["lock"],
    &["answer", "clock", "tasks", "told", "config"],
    &["storage"],
    &["apps"],
    &["auth"],
    &["webhooks"],
    &["broker", "presence", "chat"],
    &["hub", "cluster"],
    &["transports", "api"],
    &["app", "cli"],
];

/// Uses between siblings that were decided upon, with their reason.
const DECIDED: [(&str, &str, &str); 3] = [
    (
        "config",
        "storage",
        "the URL of a Redis or a database is judged by whoever will connect to it",
    ),
    (
        "config",
        "webhooks",
        "an endpoint is judged by whoever will deliver to it",
    ),
    (
        "cluster",
        "hub",
        "its tests run the suite of what the hub relies on",
    ),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../server/src")
}

fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("the sources can be read") {
        let path = entry.expect("the sources can be read").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The rooms that a line of code names: every `crate::<room>`, in a `use` or inline.
fn rooms_in(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split("//").next().unwrap_or_default();
    code.split("crate::").skip(1).map(|rest| {
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let source = source();
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    assert!(
        files.len() > 20,
        "the sources are not where this test looks for them"
    );
    let mut complaints = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&source).expect("found below it");
        let first = inside
            .iter()
            .next()
            .and_then(|part| part.to_str())
            .expect("names are ASCII");
        let room = first.trim_end_matches(".rs");
        if ["lib", "main"].contains(&room) {
            continue;
        }
        let Some(own) = floor(room) else {
            complaints.push(format!("{}: a new room; give it a floor here", inside.display()));
            continue;
        };
        let text = fs::read_to_string(&file).expect("the sources can be read");
        for (number, line) in text.lines().enumerate() {
            for used in rooms_in(line) {
                let decided = DECIDED.iter().any(|(from, to, _)| (*from, *to) == (room, used));
                if used == room || decided {
                    continue;
                }
                match floor(used) {
                    Some(other) if other < own => {}
                    Some(_) => complaints.push(format!(
                        "{}:{}: {room} must not use {used}",
                        inside.display(),
                        number + 1
                    )),
                    None => {}
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn the_protocol_crate_stays_pure() {
    let manifest =
        fs::read_to_string(source().join("../protocol/Cargo.toml")).expect("the manifest can be read");
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let dependencies = manifest["dependencies"].as_table().expect("a table");
    for impure in [
        "tokio",
        "actix-web",
        "actix-http",
        "actix-rt",
        "redis",
        "reqwest",
        "rand",
        "chrono",
        "time",
        "getrandom",
    ] {
        assert!(
            !dependencies.contains_key(impure),
            "the protocol knows nothing of {impure}"
        );
    }
}

/// `section.key` → default, of a TOML file with sections of any depth.
fn options(prefix: &str, table: &toml::Table, all: &mut BTreeMap<String, toml::Value>) {
    for (key, value) in table {
        let name = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            toml::Value::Table(below) => options(&name, below, all),
            value => drop(all.insert(name, value.clone())),
        }
    }
}

/// The rows of the tables below a heading ``### `[section]` ``: `section.key` → default.
fn documented(page: &str) -> BTreeMap<String, toml::Value> {
    let mut section = String::new();
    let mut all = BTreeMap::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("##") {
            section = heading
                .split_once("`[")
                .and_then(|(_, rest)| rest.split_once("]`"))
                .map_or_else(String::new, |(name, _)| name.to_owned());
        }
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(key), Some(value)) = (cells.next().and_then(code), cells.next().and_then(code)) else {
            continue;
        };
        if !section.is_empty() {
            let parsed: toml::Table = format!("value = {value}")
                .parse()
                .expect("a default is written as TOML");
            all.insert(format!("{section}.{key}"), parsed["value"].clone());
        }
    }
    all
}

fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

#[test]
fn the_page_about_options_has_every_option_with_its_default() {
    let defaults: toml::Table = fs::read_to_string(source().join("default.toml"))
        .expect("the defaults can be read")
        .parse()
        .expect("the defaults are TOML");
    let mut expected = BTreeMap::new();
    options("", &defaults, &mut expected);
    assert!(expected.len() > 40, "only {} options", expected.len());
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/config.md");
    let found = documented(&fs::read_to_string(page).expect("the page can be read"));
    let mut complaints: Vec<String> = expected
        .iter()
        .filter(|(name, value)| found.get(*name) != Some(*value))
        .map(|(name, value)| {
            format!(
                "{name} = {value:?} in default.toml, {:?} on the page",
                found.get(name)
            )
        })
        .collect();
    complaints.extend(
        found
            .keys()
            .filter(|name| !expected.contains_key(*name))
            .map(|name| format!("{name} exists only on the page")),
    );
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[test]
fn every_default_is_explained_beside_it() {
    let text = fs::read_to_string(source().join("default.toml")).expect("the defaults can be read");
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.windows(2) {
        let is_option = pair[1].contains(" = ") && !pair[1].starts_with('#');
        // Options that share one explanation stand together.
        let explained = pair[0].starts_with('#') || pair[0].contains(" = ");
        assert!(!is_option || explained, "{} has no explanation", pair[1]);
    }
}

/// `tests/it/a.rs` or `tests/it/a/mod.rs` for `it::a::name`, and so on; the other crate is the server.
fn file_of(test: &str) -> Option<(PathBuf, &str)> {
    let (module, name) = test.rsplit_once("::")?;
    let (root, module) = match module.strip_prefix("it::") {
        Some(module) => (Path::new(env!("CARGO_MANIFEST_DIR")).join("it"), module),
        None => (source(), module),
    };
    let path = root.join(module.replace("::", "/"));
    // A module of tests may be in the file that it judges.
    let own = path.parent().map(|parent| parent.with_extension("rs"));
    let mut places = [path.with_extension("rs"), path.join("mod.rs")]
        .into_iter()
        .chain(own);
    Some((places.find(|place| place.is_file())?, name))
}

#[test]
fn the_tests_that_the_page_about_promises_names_are_there() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/webhook-promises.md");
    let page = fs::read_to_string(page).expect("the page can be read");
    let named = page
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|code| code.contains("::") && !code.ends_with('…'));
    let mut count = 0;
    for test in named {
        count += 1;
        let (file, name) = file_of(test).unwrap_or_else(|| panic!("{test}: there is no such file"));
        let text = fs::read_to_string(file).expect("the sources can be read");
        assert!(text.contains(&format!("fn {name}(")), "{test} is not there");
    }
    assert!(count > 50, "only {count}");
}
