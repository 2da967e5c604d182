//! `dunlin bench`: the load generator against a server of this machine that is already up.
//!
//! `cargo xtask bench` is the one for figures to keep: it starts the server itself, with limits out of the way.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dunlin_load::{CATALOGUE, Effort, Entry, Node, Target as LoadTarget};

use super::args::BenchArgs;
use super::error::CliError;
use super::out::Out;
use super::target::Target;

/// Runs the scenarios one after the other; one that fails does not keep the next from running.
pub(super) fn run(args: &BenchArgs, out: &mut Out) -> Result<(), CliError> {
    if args.list {
        for entry in CATALOGUE {
            out.line(entry.name);
        }
        return Ok(());
    }
    let entries = select(&args.scenarios)?;
    let target = load_target(args, &Target::resolve(&args.target)?)?;
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    let mut failures = 0;
    for entry in entries {
        let entry = if args.quick { entry.quick() } else { entry };
        match dunlin_load::run(&target, entry.name, &entry.scenario, &effort) {
            Ok(report) => {
                failures += usize::from(!report.is_clean());
                match report.json() {
                    Ok(json) if args.json => out.line(json),
                    _ => out.line(report.text()),
                }
            }
            Err(e) => {
                failures += 1;
                out.complain(format_args!("{}: {e:#}", entry.name));
            }
        }
    }
    if failures == 0 {
        Ok(())
    } else {
        Err(CliError::Unclean(failures))
    }
}

/// The scenarios that the words name, by their own name or by that of their group.
fn select(words: &[String]) -> Result<Vec<Entry>, CliError> {
    if words.is_empty() {
        return Ok(CATALOGUE
            .iter()
            .filter(|entry| entry.by_default && entry.nodes == 1)
            .copied()
            .collect());
    }
    for word in words {
        if !CATALOGUE.iter().any(|entry| entry.answers_to(word)) {
            return Err(CliError::Usage(format!(
                "there is no scenario {word:?}; --list names them all"
            )));
        }
    }
    let is_named = |entry: &&Entry| words.iter().any(|word| entry.answers_to(word));
    let named: Vec<Entry> = CATALOGUE.iter().filter(is_named).copied().collect();
    match named.iter().find(|entry| entry.nodes > 1) {
        Some(entry) => Err(CliError::Usage(format!("{} needs a cluster", entry.name))),
        None => Ok(named),
    }
}

fn load_target(args: &BenchArgs, target: &Target) -> Result<LoadTarget, CliError> {
    let only = || CliError::Usage("load is generated on this machine only, and without TLS".to_owned());
    let ip: IpAddr = match target.api_host.as_str() {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        host => host.parse().map_err(|_| only())?,
    };
    if target.tls || !ip.is_loopback() {
        return Err(only());
    }
    Ok(LoadTarget {
        nodes: vec![Node {
            metrics: None,
            addr: SocketAddr::new(ip, target.port),
            pid: args.pid,
        }],
        app_id: target.app_id()?.to_owned(),
        app_key: target.key()?.to_owned(),
        app_secret: target.secret_text()?.to_owned(),
        receiver: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(words: &[&str]) -> Result<Vec<&'static str>, CliError> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Ok(select(&words)?.into_iter().map(|entry| entry.name).collect())
    }

    #[test]
    fn scenarios_are_chosen_by_name_and_by_group() {
        assert_eq!(names(&["http"]).unwrap(), ["http"]);
        assert_eq!(names(&["many"]).unwrap(), ["many-full", "many-calm"]);
        assert!(names(&[]).unwrap().contains(&"fanout-1000-full"));
        assert!(names(&["nonsense"]).is_err() && names(&["twonode"]).is_err());
    }
}
