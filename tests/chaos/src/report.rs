//! What a scenario found: promises with what was measured, and figures.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::process::Command;
use std::time::Duration;

/// A promise and what became of it.
#[derive(Clone, Debug)]
struct Claim {
    what: String,
    bound: String,
    measured: String,
    holds: bool,
}

/// Where and when. Taken at the start, when the server has just been built: the checkout may go on meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Circumstances {
    date: String,
    commit: String,
    machine: String,
    redis: String,
}

impl Circumstances {
    pub(crate) fn now() -> Self {
        let redis = first_line("redis-server", &["--version"]);
        let version = redis.split_whitespace().find_map(|word| word.strip_prefix("v="));
        Self {
            date: first_line("date", &["-u", "+%F"]),
            commit: first_line("git", &["log", "-1", "--format=%h of %cs"]),
            machine: dunlin_load::machine(),
            redis: version.unwrap_or("unknown").to_owned(),
        }
    }
}

/// The findings of one scenario.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    claims: Vec<Claim>,
    figures: Vec<(String, String)>,
    /// What a person who looks into a broken promise wants to see.
    details: Vec<String>,
}

impl Report {
    /// There must be none of these.
    pub(crate) fn none(&mut self, what: impl Into<String>, count: usize) {
        self.equal(what, 0, count);
    }

    pub(crate) fn equal<T: Copy + Display + PartialEq>(
        &mut self,
        what: impl Into<String>,
        expected: T,
        measured: T,
    ) {
        self.claims.push(Claim {
            what: what.into(),
            bound: expected.to_string(),
            measured: measured.to_string(),
            holds: expected == measured,
        });
    }

    /// It must have happened within `limit`; `None`: it did not happen.
    pub(crate) fn within(&mut self, what: impl Into<String>, limit: Duration, measured: Option<Duration>) {
        self.claims.push(Claim {
            what: what.into(),
            bound: format!("≤ {}", shown(limit)),
            measured: measured.map_or_else(|| "never".to_owned(), shown),
            holds: measured.is_some_and(|measured| measured <= limit),
        });
    }

    pub(crate) fn at_most<T: Copy + Display + PartialOrd>(
        &mut self,
        what: impl Into<String>,
        limit: T,
        measured: T,
    ) {
        self.claims.push(Claim {
            what: what.into(),
            bound: format!("≤ {limit}"),
            measured: measured.to_string(),
            holds: measured <= limit,
        });
    }

    /// A premise of the scenario: without so much of it, its promises would hold of nothing.
    pub(crate) fn at_least<T: Copy + Display + PartialOrd>(
        &mut self,
        what: impl Into<String>,
        limit: T,
        measured: T,
    ) {
        self.claims.push(Claim {
            what: what.into(),
            bound: format!("≥ {limit}"),
            measured: measured.to_string(),
            holds: measured >= limit,
        });
    }

    /// Something worth knowing that nobody has promised.
    pub(crate) fn figure(&mut self, what: impl Into<String>, value: impl Display) {
        self.figures.push((what.into(), value.to_string()));
    }

    /// Something that helps to find out why; shown, never saved.
    pub(crate) fn detail(&mut self, text: impl Into<String>) {
        self.details.push(text.into());
    }

    /// Takes over the findings of a part, each with its name in front.
    pub(crate) fn absorb(&mut self, part: &str, report: Self) {
        self.claims.extend(report.claims.into_iter().map(|claim| Claim {
            what: format!("{part}: {}", claim.what),
            ..claim
        }));
        let figures = report.figures.into_iter();
        self.figures
            .extend(figures.map(|(what, value)| (format!("{part}: {what}"), value)));
        let details = report.details.into_iter();
        self.details
            .extend(details.map(|detail| format!("{part}: {detail}")));
    }

    pub(crate) fn is_good(&self) -> bool {
        self.claims.iter().all(|claim| claim.holds)
    }

    /// For the terminal.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        for claim in &self.claims {
            let verdict = if claim.holds { "ok" } else { "BROKEN" };
            line(
                &mut out,
                &format!(
                    "  {verdict:6} {}: {} ({})",
                    claim.what, claim.measured, claim.bound
                ),
            );
        }
        for (what, value) in &self.figures {
            line(&mut out, &format!("         {what}: {value}"));
        }
        if !self.is_good() {
            for detail in &self.details {
                line(&mut out, &format!("       ! {detail}"));
            }
        }
        out
    }

    /// The page that is saved. `command`: what brings such figures about.
    pub(crate) fn page(&self, title: &str, about: &str, command: &str, place: &Circumstances) -> String {
        let mut out = format!("# Chaos: {title}\n\n{about}\n\n");
        for (what, value) in [
            ("Date", &place.date),
            ("Commit", &place.commit),
            ("Machine", &place.machine),
            ("Redis", &place.redis),
            ("Command", &format!("`{command}`")),
        ] {
            line(&mut out, &format!("- {what}: {value}"));
        }
        line(&mut out, "\n| promise | bound | measured | |\n|---|--:|--:|---|");
        for claim in &self.claims {
            let verdict = if claim.holds { "ok" } else { "**broken**" };
            line(
                &mut out,
                &format!(
                    "| {} | {} | {} | {verdict} |",
                    claim.what, claim.bound, claim.measured
                ),
            );
        }
        if !self.figures.is_empty() {
            line(&mut out, "\n| beside that | |\n|---|--:|");
        }
        for (what, value) in &self.figures {
            line(&mut out, &format!("| {what} | {value} |"));
        }
        out
    }
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a String takes any text");
}

/// A duration with about three digits.
pub(crate) fn shown(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds >= 10.0 => format!("{seconds:.1} s"),
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds => format!("{:.1} ms", seconds * 1000.0),
    }
}

/// How often each of these occurs.
pub(crate) fn tally(items: impl IntoIterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    let shown = counts.iter().map(|(item, count)| format!("{count} × {item}"));
    shown.collect::<Vec<_>>().join(", ")
}

fn first_line(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok());
    let line = text.as_deref().and_then(|text| text.lines().next());
    line.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_broken_promise_breaks_the_report_and_is_shown() {
        let mut report = Report::default();
        report.none("lost", 0);
        report.within("back", Duration::from_secs(3), Some(Duration::from_millis(2_999)));
        assert!(report.is_good());
        report.within("gone", Duration::from_secs(3), None);
        assert!(!report.is_good());
        assert!(report.text().contains("BROKEN gone: never (≤ 3.00 s)"));
        let page = report.page("x", "About.", "play x", &Circumstances::now());
        assert!(page.contains("| gone | ≤ 3.00 s | never | **broken** |"));
    }

    #[test]
    fn a_part_keeps_its_name_and_its_verdict() {
        let mut part = Report::default();
        part.equal("members", 3, 2);
        part.figure("rounds", 20);
        let mut report = Report::default();
        report.absorb("paused", part);
        assert!(!report.is_good());
        let text = report.text();
        assert!(text.contains("paused: members: 2 (3)") && text.contains("paused: rounds: 20"));
    }
}
