//! What a process has used, read from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

use crate::target::Target;

/// Nanoseconds in one tick of `/proc/PID/stat`: `USER_HZ` is 100 on every Linux that this runs on.
const TICK_NS: u64 = 10_000_000;

/// CPU time, user and system together, that the nodes of a target have used so far.
#[derive(Debug)]
pub(crate) struct CpuReading {
    processes: Vec<Process>,
}

#[derive(Debug)]
struct Process {
    /// Exact, but an ended thread takes its share with it.
    threads_ns: Option<BTreeMap<u32, u64>>,
    /// In steps of 10 ms, ended threads included.
    whole_ns: u64,
}

impl CpuReading {
    /// `None` when a node's process is not known.
    pub(crate) fn take(target: &Target) -> Result<Option<Self>> {
        let mut processes = Vec::new();
        for node in &target.nodes {
            let Some(pid) = node.pid else { return Ok(None) };
            processes.push(Process {
                threads_ns: threads(pid),
                whole_ns: whole(pid)?,
            });
        }
        Ok(Some(Self { processes }))
    }

    /// Nanoseconds used from `self` until `later`.
    pub(crate) fn until(&self, later: &Self) -> u64 {
        self.processes
            .iter()
            .zip(&later.processes)
            .map(|(before, after)| before.until(after))
            .sum()
    }
}

impl Process {
    fn until(&self, later: &Self) -> u64 {
        if let (Some(before), Some(after)) = (&self.threads_ns, &later.threads_ns)
            && before.keys().all(|thread| after.contains_key(thread))
        {
            let sum = |threads: &BTreeMap<u32, u64>| threads.values().sum::<u64>();
            return sum(after).saturating_sub(sum(before));
        }
        later.whole_ns.saturating_sub(self.whole_ns)
    }
}

/// CPU time of a target's threads by what they are called, for a look at where it goes.
#[derive(Debug, Default)]
pub(crate) struct ThreadTimes(BTreeMap<String, u64>);

impl ThreadTimes {
    /// Empty when no process is known.
    pub(crate) fn take(target: &Target) -> Self {
        let mut times = BTreeMap::new();
        for pid in target.nodes.iter().filter_map(|node| node.pid) {
            for (thread, nanoseconds) in threads(pid).unwrap_or_default() {
                let name = fs::read_to_string(format!("/proc/{pid}/task/{thread}/comm")).unwrap_or_default();
                let name = name
                    .trim()
                    .trim_end_matches(|it: char| it.is_ascii_digit() || it == '-');
                *times.entry(name.to_owned()).or_default() += nanoseconds;
            }
        }
        Self(times)
    }

    /// What each of them used until now for each of so many units, the busiest first.
    #[expect(
        clippy::cast_precision_loss,
        reason = "figures for people, far below 2^53 nanoseconds"
    )]
    pub(crate) fn since(&self, target: &Target, units: u64, unit: &str) -> Option<String> {
        let used = |(name, after): (String, u64)| {
            let used = after.saturating_sub(self.0.get(&name).copied().unwrap_or(0));
            (used as f64 / 1_000.0 / units.max(1) as f64, name)
        };
        let mut used: Vec<(f64, String)> = Self::take(target).0.into_iter().map(used).collect();
        used.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
        let shown = used.iter().filter(|(used, _)| *used >= 0.05);
        let shown: Vec<String> = shown.map(|(used, name)| format!("{name} {used:.1} µs")).collect();
        (!shown.is_empty()).then(|| format!("threads, for each {unit}: {}", shown.join(", ")))
    }
}

/// `schedstat` starts with the nanoseconds on a CPU; a kernel without it has only ticks.
fn threads(pid: u32) -> Option<BTreeMap<u32, u64>> {
    let mut times = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let thread = entry.ok()?.file_name().to_str()?.parse().ok()?;
        // A thread that ends between the two calls is simply not in the reading.
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{thread}/schedstat")) else {
            continue;
        };
        times.insert(thread, text.split(' ').next()?.trim().parse().ok()?);
    }
    (!times.is_empty()).then_some(times)
}

fn whole(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {path}: has the server ended?"))?;
    // The second field is the name in brackets and may hold spaces; utime and stime are fields 14 and 15.
    let ticks = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(11).take(2))
        .and_then(|fields| fields.map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>())
        .with_context(|| format!("{path} is not as expected"))?;
    Ok(ticks * TICK_NS)
}

/// Private memory of all nodes in KiB (`Private_Clean` + `Private_Dirty`), `None` when a process is not known.
pub(crate) fn private_kib(target: &Target) -> Result<Option<u64>> {
    memory_kib(target, &["Private_Clean:", "Private_Dirty:"])
}

/// Memory of all nodes that is in RAM (`Rss`), in KiB, pages of the program itself included.
pub(crate) fn resident_kib(target: &Target) -> Result<Option<u64>> {
    memory_kib(target, &["Rss:"])
}

fn memory_kib(target: &Target, lines: &[&str]) -> Result<Option<u64>> {
    let mut total = 0;
    for node in &target.nodes {
        let Some(pid) = node.pid else { return Ok(None) };
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        total += sum_of(&text, lines);
    }
    Ok(Some(total))
}

fn sum_of(rollup: &str, names: &[&str]) -> u64 {
    rollup
        .lines()
        .filter_map(|line| names.iter().find_map(|name| line.strip_prefix(name)))
        .filter_map(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .sum()
}

/// What all TCP sockets of this machine hold in their buffers, in KiB; 0 where the kernel does not say.
pub(crate) fn sockets_kib() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("TCP:"));
    let pages = line.and_then(|line| line.rsplit_once(" mem ")?.1.trim().parse::<u64>().ok());
    pages.unwrap_or(0) * (rustix::param::page_size() as u64 / 1024)
}

/// This machine in a line: what a figure depends on.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores of {model}, Linux {}", kernel.trim())
}

/// CPU time of the calling thread in nanoseconds.
pub(crate) fn own_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_process() -> Target {
        let mut target = Target::of_the_documentation();
        target.nodes[0].pid = Some(std::process::id());
        target
    }

    #[test]
    fn work_done_shows_in_the_reading() {
        let target = this_process();
        let before = CpuReading::take(&target).unwrap().unwrap();
        let own_before = own_cpu_ns();
        while own_cpu_ns() - own_before < 40_000_000 {
            std::hint::spin_loop();
        }
        let after = CpuReading::take(&target).unwrap().unwrap();
        assert!(before.until(&after) >= 20_000_000, "{}", before.until(&after));
    }

    #[test]
    fn an_ended_thread_makes_the_whole_process_count() {
        let reading = |threads: &[(u32, u64)], whole_ns| Process {
            threads_ns: Some(threads.iter().copied().collect()),
            whole_ns,
        };
        let start = reading(&[(1, 100), (2, 50)], 1_000);
        assert_eq!(start.until(&reading(&[(1, 150), (2, 50), (3, 7)], 9_000)), 57);
        assert_eq!(start.until(&reading(&[(1, 150)], 9_000)), 8_000);
    }

    #[test]
    fn private_memory_is_clean_plus_dirty() {
        let rollup = "Rss: 9 kB\nPrivate_Clean:        40 kB\nPrivate_Dirty:       112 kB\n";
        assert_eq!(sum_of(rollup, &["Private_Clean:", "Private_Dirty:"]), 152);
        let private = private_kib(&this_process()).unwrap().unwrap();
        assert!(private > 0 && resident_kib(&this_process()).unwrap().unwrap() >= private);
    }

    #[test]
    fn without_a_process_there_is_no_figure() {
        let mut target = this_process();
        target.nodes[0].pid = None;
        assert!(CpuReading::take(&target).unwrap().is_none());
        assert!(private_kib(&target).unwrap().is_none());
    }
}
