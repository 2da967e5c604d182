//! `cargo xtask autobahn`: the Autobahn test suite for RFC 6455 against the echo endpoint of a fresh release server.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::needs::PYTHON;
use crate::server::{Server, build_release};
use crate::{root, say, succeed, target_dir};

const USAGE: &str = "cargo xtask autobahn [CASE…]

  CASE   a case or several, as the suite names them: 6.4.1, 9.*; all when left out

Needs Python 2.7, on the PATH as `python2.7` or in pyenv as 2.7.18.";

/// The suite's name for us; part of its report.
const AGENT: &str = "dunlin";
const CONFIG: &str = "[log]\nfilter = \"warn\"\n\n[sockets]\ntest_echo = true\n";
/// All cases take about a minute.
const LIMIT: Duration = Duration::from_mins(20);
/// Results that conform: RFC 6455 leaves room for some.
const GOOD: [&str; 3] = ["OK", "NON-STRICT", "INFORMATIONAL"];
/// Categories of cases that need compression, which we do not offer: the suite finds nothing to test.
const COMPRESSION: [u32; 2] = [12, 13];

/// Runs the suite and prints its results by category, and a closing line.
///
/// # Errors
/// Something the suite needs is missing, it did not end, or a case failed.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        say(USAGE);
        return Ok(());
    }
    if let Some(unknown) = args.iter().find(|arg| arg.starts_with('-')) {
        bail!("there is no option `{unknown}`\n\n{USAGE}");
    }
    let all = ["*".to_owned()];
    let cases = if args.is_empty() { &all } else { args };
    let target = target_dir()?;
    let scratch = target.join("autobahn");
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let suite = install(&scratch)?;
    let binary = build_release(&target)?;
    let mut server = Server::start_with(&binary, &scratch.join("server"), CONFIG, None)?;
    let report = test(&suite, &scratch, &format!("ws://{}/echo", server.addr()), cases)?;
    let results = results(&report)?;
    let mut verdict = judge(&results);
    if let Some(complaint) = server.complaint() {
        verdict.failures.push(complaint);
    }
    for (category, counts) in &verdict.counts {
        let counts: Vec<String> = counts
            .iter()
            .map(|(result, count)| format!("{count} {result}"))
            .collect();
        say(&format!("{category:>3}: {}", counts.join(", ")));
    }
    for remark in &verdict.remarks {
        say(remark);
    }
    for failure in &verdict.failures {
        say(&format!("not ok - {failure}"));
    }
    let failed = verdict.failures.len();
    say(&format!("\n{} passed, {failed} failed", verdict.passed));
    if failed > 0 {
        bail!(
            "{failed} cases failed; the whole report is {}",
            report.with_extension("html").display()
        );
    }
    Ok(())
}

/// Brings the suite into an environment of its own below `scratch`, with the versions that are known to go together.
fn install(scratch: &Path) -> Result<PathBuf> {
    PYTHON.meet()?;
    let here = root().join("tests/autobahn");
    let environment = scratch.join("python2");
    let pip = |environment: &Path, requirements: &str| {
        succeed(
            Command::new(environment.join("bin/python"))
                .args(["-m", "pip", "--disable-pip-version-check", "install", "--quiet"])
                .arg("--requirement")
                .arg(here.join(requirements))
                // Python 2.7 and its pip complain of their age at length.
                .env("PYTHONWARNINGS", "ignore"),
        )
    };
    if !environment.join("bin/python").exists() {
        let python2 = python2()?;
        let maker = scratch.join("virtualenv");
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&maker))?;
        pip(&maker, "virtualenv.txt")?;
        succeed(
            Command::new(maker.join("bin/virtualenv"))
                .args(["--quiet", "--python"])
                .arg(python2)
                .arg(&environment),
        )?;
    }
    pip(&environment, "requirements.txt")?;
    Ok(environment.join("bin/wstest"))
}

/// The suite never left Python 2.7, which hardly any system still has.
fn python2() -> Result<PathBuf> {
    let output = Command::new("python2.7")
        .args(["-c", "import sys; sys.stdout.write(sys.executable)"])
        // What pyenv has, it shows only when asked for; elsewhere this means nothing.
        .env("PYENV_VERSION", "2.7.18")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(PathBuf::from(
            String::from_utf8(output.stdout).context("a path in UTF-8")?,
        )),
        _ => bail!("python2.7 is missing: put it on the PATH, or `pyenv install 2.7.18`"),
    }
}

/// Lets the suite test the server at `url`; its report as JSON.
fn test(suite: &Path, scratch: &Path, url: &str, cases: &[String]) -> Result<PathBuf> {
    let reports = scratch.join("reports");
    if reports.exists() {
        // What an earlier run left must not be taken for the result of this one.
        fs::remove_dir_all(&reports).with_context(|| format!("cannot remove {}", reports.display()))?;
    }
    let wanted = serde_json::json!({
        "outdir": reports,
        "servers": [{ "agent": AGENT, "url": url }],
        "cases": cases,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let spec = scratch.join("cases.json");
    fs::write(&spec, wanted.to_string()).with_context(|| format!("cannot write {}", spec.display()))?;
    let log = scratch.join("wstest.log");
    let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    say(&format!(
        "the suite runs, and says how far it is in {}",
        log.display()
    ));
    let mut child = Command::new(suite)
        .args(["--mode", "fuzzingclient", "--spec"])
        .arg(&spec)
        .env("PYTHONWARNINGS", "ignore")
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("cannot run {}", suite.display()))?;
    let end = Instant::now() + LIMIT;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            drop(child.kill());
            drop(child.wait());
            bail!("the suite did not end within {} s", LIMIT.as_secs());
        }
        std::thread::park_timeout(Duration::from_millis(200));
    };
    let report = reports.join("index.json");
    if !status.success() || !report.exists() {
        let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
        bail!("the suite ended with {status} and said:\n{text}");
    }
    Ok(report)
}

/// What the suite found of one case: of what was said, and of how the connection ended.
#[derive(Debug)]
struct Outcome {
    /// As the suite counts: category, group, case.
    case: Vec<u32>,
    behavior: String,
    close: String,
}

impl Outcome {
    fn category(&self) -> u32 {
        self.case.first().copied().unwrap_or(0)
    }

    fn name(&self) -> String {
        let parts: Vec<String> = self.case.iter().map(u32::to_string).collect();
        parts.join(".")
    }
}

fn results(report: &Path) -> Result<Vec<Outcome>> {
    let text = fs::read(report).with_context(|| format!("cannot read {}", report.display()))?;
    let report: Value = serde_json::from_slice(&text).context("the suite's report is not JSON")?;
    parse(&report)
}

fn parse(report: &Value) -> Result<Vec<Outcome>> {
    let cases = report[AGENT]
        .as_object()
        .context("the report tells nothing of us")?;
    let field = |case: &Value, name: &str| case[name].as_str().unwrap_or("MISSING").to_owned();
    let mut outcomes = Vec::new();
    for (name, outcome) in cases {
        let case: Result<Vec<u32>, _> = name.split('.').map(str::parse).collect();
        outcomes.push(Outcome {
            case: case.with_context(|| format!("`{name}` is no case"))?,
            behavior: field(outcome, "behavior"),
            close: field(outcome, "behaviorClose"),
        });
    }
    outcomes.sort_by(|a, b| a.case.cmp(&b.case));
    Ok(outcomes)
}

#[derive(Debug, Default)]
struct Verdict {
    /// By category, then by result.
    counts: BTreeMap<u32, BTreeMap<String, usize>>,
    /// Cases for which nothing was tested are not among them.
    passed: usize,
    /// What is good, but not plainly so.
    remarks: Vec<String>,
    failures: Vec<String>,
}

fn judge(outcomes: &[Outcome]) -> Verdict {
    let mut verdict = Verdict::default();
    for outcome in outcomes {
        let Outcome { behavior, close, .. } = outcome;
        let of_category = verdict.counts.entry(outcome.category()).or_default();
        *of_category.entry(behavior.clone()).or_default() += 1;
        let line = format!("{}: {behavior}, close {close}", outcome.name());
        let is_good = |result: &str| GOOD.contains(&result);
        if behavior == "UNIMPLEMENTED" && COMPRESSION.contains(&outcome.category()) && is_good(close) {
            continue;
        }
        if !is_good(behavior) || !is_good(close) {
            verdict.failures.push(line);
            continue;
        }
        verdict.passed += 1;
        if behavior != "OK" || close != "OK" {
            verdict.remarks.push(line);
        }
    }
    if verdict.passed == 0 && verdict.failures.is_empty() {
        verdict.failures.push("nothing was tested".to_owned());
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(cases: &[(&str, &str, &str)]) -> Verdict {
        let cases = cases.iter().map(|&(case, behavior, close)| {
            let outcome = serde_json::json!({ "behavior": behavior, "behaviorClose": close });
            (case.to_owned(), outcome)
        });
        let cases: serde_json::Map<String, Value> = cases.collect();
        judge(&parse(&serde_json::json!({ AGENT: cases })).unwrap())
    }

    #[test]
    fn what_the_standard_leaves_room_for_is_good() {
        let verdict = judged(&[
            ("10.1.1", "OK", "OK"),
            ("6.4.1", "NON-STRICT", "OK"),
            ("7.1.6", "INFORMATIONAL", "INFORMATIONAL"),
        ]);
        assert_eq!((verdict.passed, verdict.failures.len()), (3, 0));
        let remarks = [
            "6.4.1: NON-STRICT, close OK",
            "7.1.6: INFORMATIONAL, close INFORMATIONAL",
        ];
        assert_eq!(verdict.remarks, remarks);
        assert_eq!(verdict.counts.keys().collect::<Vec<_>>(), [&6, &7, &10]);
    }

    #[test]
    fn a_wrong_answer_and_a_wrong_end_are_failures() {
        let verdict = judged(&[
            ("1.1.1", "FAILED", "OK"),
            ("1.1.2", "OK", "UNCLEAN"),
            ("1.1.3", "OK", "OK"),
        ]);
        assert_eq!((verdict.passed, verdict.failures.len()), (1, 2));
    }

    #[test]
    fn only_compression_may_be_missing() {
        let verdict = judged(&[
            ("1.1.1", "OK", "OK"),
            ("9.1.1", "UNIMPLEMENTED", "OK"),
            ("13.7.18", "UNIMPLEMENTED", "OK"),
        ]);
        assert_eq!((verdict.passed, verdict.failures.len()), (1, 1));
    }

    #[test]
    fn no_tests_are_no_success() {
        assert_eq!(judged(&[("12.1.1", "UNIMPLEMENTED", "OK")]).failures.len(), 1);
    }
}
