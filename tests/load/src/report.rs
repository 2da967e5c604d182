//! What a scenario found.

use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;

use crate::histogram::Latency;
use crate::process::{CpuReading, own_cpu_ns};
use crate::target::Target;
use crate::wire::Wire;

/// Private memory of the server, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Connections that `held_kib` was read with.
    pub connections: u64,
    /// Before the first client.
    pub before_kib: u64,
    /// With all clients.
    pub held_kib: u64,
    /// After the last client left and the server had its time to tidy up.
    pub after_kib: u64,
}

impl Memory {
    /// KiB that each connection added.
    #[expect(clippy::cast_precision_loss, reason = "a figure for people, far below 2^53")]
    pub fn per_connection_kib(&self) -> f64 {
        self.held_kib.saturating_sub(self.before_kib) as f64 / self.connections.max(1) as f64
    }
}

/// The findings of one run of one scenario.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Its name in the catalogue.
    pub scenario: String,
    /// What is counted: `delivery`, `join`, `request` or `connection`.
    pub unit: &'static str,
    /// How many of them the measured part holds.
    pub units: u64,
    /// Length of the measured part.
    pub seconds: f64,
    /// Units per second of the measured part. At a fixed rate it says that the rate was kept, no more.
    pub per_second: f64,
    /// User and system time of the server's processes per unit, in microseconds.
    pub cpu_us_per_unit: Option<f64>,
    /// The floor F1 in microseconds: mean of a measurement before and one after.
    pub f1_us: f64,
    /// How long a unit took.
    pub latency: Option<Latency>,
    /// Deliveries that never came.
    pub lost: u64,
    /// Deliveries that came again.
    pub duplicated: u64,
    /// Deliveries against the order of the channel or of the publisher.
    pub misordered: u64,
    /// Only where the scenario is about memory.
    pub memory: Option<Memory>,
    /// Share of the measured time that the generator's one thread was on a CPU. Near 1 it was the bottleneck.
    pub generator_load: f64,
    /// Further figures, each a sentence.
    pub remarks: Vec<String>,
    /// What the server did wrong besides; empty in a good run.
    pub faults: Vec<String>,
}

impl Report {
    /// CPU per unit as a multiple of the floor.
    pub fn times_floor(&self) -> Option<f64> {
        self.cpu_us_per_unit
            .filter(|_| self.f1_us > 0.0)
            .map(|cpu| cpu / self.f1_us)
    }

    /// Nothing lost, duplicated, misordered or otherwise wrong.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.misordered == 0 && self.faults.is_empty()
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// None in practice: the type has a JSON form.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// The report as lines for a terminal.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            writeln!(out, "  {name:<14} {value}").expect("writing to a String succeeds");
        };
        line(
            "units",
            format!(
                "{} × {} in {:.1} s, {:.0}/s",
                self.units, self.unit, self.seconds, self.per_second
            ),
        );
        if let (Some(cpu), Some(times)) = (self.cpu_us_per_unit, self.times_floor()) {
            line(
                "server CPU",
                format!(
                    "{cpu:.2} µs per {} = {times:.2} F1 (F1 {:.2} µs)",
                    self.unit, self.f1_us
                ),
            );
        }
        if let Some(latency) = self.latency {
            line(
                "latency",
                format!(
                    "p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs, max {:.0} µs",
                    latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us
                ),
            );
        }
        line(
            "wrong",
            format!(
                "{} lost, {} duplicated, {} misordered",
                self.lost, self.duplicated, self.misordered
            ),
        );
        if let Some(memory) = self.memory {
            line(
                "memory",
                format!(
                    "{:.2} KiB a connection ({} → {} KiB with {}, {} after)",
                    memory.per_connection_kib(),
                    memory.before_kib,
                    memory.held_kib,
                    memory.connections,
                    memory.after_kib
                ),
            );
        }
        line(
            "generator",
            format!("{:.0} % of one core", self.generator_load * 100.0),
        );
        for remark in &self.remarks {
            line("", remark.clone());
        }
        for fault in &self.faults {
            line("FAULT", fault.clone());
        }
        format!("{}\n{out}", self.scenario)
    }
}

/// Measures the time between its start and its end, on the wall, in the server and in the generator.
pub(crate) struct Meter {
    wall: u64,
    own: u64,
    server: Option<CpuReading>,
}

impl Meter {
    pub(crate) fn start(wire: &mut Wire, target: &Target) -> Result<Self> {
        Ok(Self {
            server: CpuReading::take(target)?,
            wall: wire.tick(),
            own: own_cpu_ns(),
        })
    }

    /// Fills the figures that a meter knows into a report.
    #[expect(
        clippy::cast_precision_loss,
        reason = "figures for people, far below 2^53 nanoseconds"
    )]
    pub(crate) fn finish(
        &self,
        wire: &mut Wire,
        target: &Target,
        units: u64,
        unit: &'static str,
    ) -> Result<Report> {
        let wall = wire.tick().saturating_sub(self.wall).max(1);
        let own = own_cpu_ns() - self.own;
        let server = CpuReading::take(target)?;
        let used = self
            .server
            .as_ref()
            .zip(server.as_ref())
            .map(|(before, after)| before.until(after));
        let seconds = wall as f64 / 1e9;
        Ok(Report {
            unit,
            units,
            seconds,
            per_second: units as f64 / seconds,
            cpu_us_per_unit: used
                .filter(|_| units > 0)
                .map(|used| used as f64 / 1000.0 / units as f64),
            generator_load: own as f64 / wall as f64,
            ..Report::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            scenario: "fanout".into(),
            unit: "delivery",
            units: 1_000,
            cpu_us_per_unit: Some(9.8),
            f1_us: 4.9,
            latency: Some(Latency {
                p50_us: 1.0,
                p99_us: 2.0,
                p999_us: 3.0,
                max_us: 4.0,
            }),
            memory: Some(Memory {
                connections: 10,
                before_kib: 100,
                held_kib: 125,
                after_kib: 101,
            }),
            ..Report::default()
        }
    }

    #[test]
    fn the_figure_is_a_multiple_of_the_floor() {
        let mut report = report();
        assert!((report.times_floor().unwrap() - 2.0).abs() < 1e-9);
        assert!(report.text().contains("9.80 µs per delivery = 2.00 F1"));
        report.cpu_us_per_unit = None;
        assert_eq!(report.times_floor(), None);
    }

    #[test]
    fn memory_is_counted_per_connection() {
        assert!((report().memory.unwrap().per_connection_kib() - 2.5).abs() < 1e-9);
    }

    #[test]
    fn a_single_loss_or_fault_makes_a_report_unclean() {
        assert!(report().is_clean());
        assert!(!Report { lost: 1, ..report() }.is_clean());
        assert!(
            !Report {
                faults: vec!["refused".into()],
                ..report()
            }
            .is_clean()
        );
    }

    #[test]
    fn the_json_form_holds_the_figures() {
        let value: serde_json::Value = serde_json::from_str(&report().json().unwrap()).unwrap();
        assert_eq!(value["memory"]["held_kib"], 125);
        assert_eq!(value["lost"], 0);
    }
}
