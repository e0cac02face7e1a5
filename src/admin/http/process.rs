//! The families about the process as the system sees it (`process_…`), named as everywhere.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use prometheus::core::Collector as _;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Counter, MetricFamily};

/// The name of the family that the crate counts in whole seconds.
const CPU: &str = "process_cpu_seconds_total";

/// All of them. The time on the CPUs is that of the system, which is finer than the whole seconds that the crate counts: a pooler
/// uses far less than one between two scrapes.
pub fn collect(collector: &ProcessCollector) -> Vec<MetricFamily> {
    let mut families = collector.collect();
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let micros = (usage.user_time() + usage.system_time()).num_microseconds();
        for family in families.iter_mut().filter(|family| family.name() == CPU) {
            for metric in family.mut_metric() {
                let mut counter = Counter::default();
                counter.set_value(micros as f64 / 1e6);
                metric.set_counter(counter);
            }
        }
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_everybody_has() {
        let families = collect(&ProcessCollector::for_self());
        let mut names: Vec<&str> = families.iter().map(MetricFamily::name).collect();
        names.sort_unstable();
        let expected = [
            CPU,
            "process_max_fds",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
            "process_threads",
            "process_virtual_memory_bytes",
        ];
        assert_eq!(names, expected);
    }
}
