//! Owns what this process may use and has used: descriptors, CPU time, memory. It never changes another's.

use crate::complaint::Complaint;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::fs;

/// Descriptors beside those of the connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// What the process has used so far.
pub(crate) struct Usage {
    /// User and system time, in seconds.
    pub(crate) cpu_seconds: f64,
    /// The most memory that was resident at a time, in bytes.
    pub(crate) peak_bytes: u64,
}

/// Raises the limit on descriptors as far as the system allows.
///
/// # Errors
/// When that is too few for `connections`.
pub(crate) fn raise_descriptor_limit(connections: usize) -> Result<(), Complaint> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // What it refuses is seen below.
    let _ = setrlimit(Resource::Nofile, raised);
    let may = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = connections as u64 + OTHER_DESCRIPTORS;
    if may < needed {
        let what = format!("{needed} descriptors are needed, and this process may have {may}");
        return Err(Complaint::usage(
            what,
            "use fewer clients, or raise the hard limit: `ulimit -Hn`",
        ));
    }
    Ok(())
}

/// What the process has used so far; zeros where the system does not tell.
pub(crate) fn so_far() -> Usage {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Usage {
        cpu_seconds: time.tv_sec as f64 + time.tv_nsec as f64 / 1e9,
        peak_bytes: peak.unwrap_or(0) * 1024,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Protects the figures of the generator itself in a report.
    #[test]
    fn the_own_usage_is_known() {
        let usage = so_far();
        assert!(usage.peak_bytes > 1 << 20);
        assert!((0.0..1e6).contains(&usage.cpu_seconds));
    }
}
