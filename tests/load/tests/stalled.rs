//! The readers that are stopped for real: this program has no test harness, so that it can be started again as them.

#![expect(
    clippy::unwrap_used,
    reason = "a stand-in server that cannot go on has nothing better to say"
)]

#[expect(dead_code, reason = "only the other tests need its vices")]
mod stand_in;

use std::time::Duration;

use anyhow::{Result, ensure};
use dunlin_load::scenario::Stalled;
use dunlin_load::{Effort, Scenario, readers};

use stand_in::{Vice, start};

const EFFORT: Effort = Effort {
    floor_rounds: 1,
    ..Effort::QUICK
};
/// Buffers are full after a second, and then a reader costs the stand-in 200 ms before it is dropped.
const SCENARIO: Scenario = Scenario::Stalled(Stalled {
    healthy: 3,
    stalled: 3,
    payload_bytes: 8_000,
    per_second: 500,
    before: Duration::from_millis(100),
    during: Duration::from_secs(4),
});

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(readers::ARGUMENT) {
        return readers::serve();
    }
    let mut target = start(Vice::None);
    // The memory of this process says nothing about a server.
    target.nodes[0].pid = None;
    let report = dunlin_load::run(&target, "test", &SCENARIO, &EFFORT)?;
    ensure!(
        report.is_clean() && report.units > 0,
        "the healthy were hit: {}",
        report.text()
    );
    ensure!(
        report
            .remarks
            .iter()
            .any(|it| it.starts_with("3 stalled readers ended")),
        "the stopped were not dropped: {}",
        report.text()
    );
    Ok(())
}
