//! What a server takes on: how many connections and transfers, how much memory, and when clients come.
//! Never decides who is let in.

use super::complaint::Complaint;
use super::quantity::{self, Rate};
use super::revoke;
use super::session::Session;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::time::Duration;
use syncline::model::limits::CONNECTIONS_MAX;
use syncline::node::{Schedule, ServerOptions};

/// The flags about it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Capacity")]
pub(crate) struct CapacityFlags {
    /// Connections that may be open at a time
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS_MAX)]
    max_connections: usize,
    /// Transfers that may run at a time; the others wait in line and are told their place
    #[arg(long, value_name = "N")]
    max_active: Option<usize>,
    /// Memory for connections and transfers, such as 64M; who finds no room waits or is asked to come again
    /// [default: half of what the machine has]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    mem_limit: Option<Memory>,
    /// When clients that sync again and again are to come for their next run; DEVICE=TIME for one of them
    #[arg(long, value_name = "[DEVICE=]TIME", value_parser = Visit::parse)]
    interval: Vec<Visit>,
}

/// Bytes of memory; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory(Option<u64>);

/// The least that a server needs to serve anybody.
const MEMORY_MIN: u64 = 12 << 20;

fn parse_memory(text: &str) -> Result<Memory, String> {
    if matches!(text.trim().to_ascii_lowercase().as_str(), "off" | "unlimited") {
        return Ok(Memory(None));
    }
    let bytes = Rate::parse(text).ok().and_then(Rate::limit);
    let bytes = bytes.ok_or_else(|| format!("{text:?} is not a size; write 64M, 1.5G or off"))?;
    if bytes < MEMORY_MIN {
        let least = quantity::size(MEMORY_MIN);
        return Err(format!("{text:?} is less than a server needs; give it {least} or more"));
    }
    Ok(Memory(Some(bytes)))
}

/// How often somebody is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Visit {
    device: Option<String>,
    every: Duration,
}

impl Visit {
    fn parse(text: &str) -> Result<Visit, String> {
        let (device, time) = match text.rsplit_once('=') {
            Some((device, time)) => (Some(device.to_owned()), time),
            None => (None, text),
        };
        let every = quantity::parse_duration(time)?;
        Ok(Visit { device, every })
    }
}

impl CapacityFlags {
    /// Puts what was asked for into the server's options.
    pub(crate) fn apply(&self, session: &Session, options: &mut ServerOptions) -> Result<(), Complaint> {
        self.check()?;
        options.connections_max = self.max_connections;
        options.active_max = self.max_active.unwrap_or(CONNECTIONS_MAX);
        options.memory_limit = match self.mem_limit {
            Some(Memory(limit)) => limit,
            None => usual_memory(),
        };
        options.schedule = self.schedule(session)?;
        Ok(())
    }

    fn check(&self) -> Result<(), Complaint> {
        let flags = [
            ("--max-connections", Some(self.max_connections)),
            ("--max-active", self.max_active),
        ];
        match flags.iter().find(|(_, number)| *number == Some(0)) {
            Some((flag, _)) => Err(Complaint::usage(
                format!("{flag} 0 would let nobody in"),
                "use 1 or more",
            )),
            None => Ok(()),
        }
    }

    fn schedule(&self, session: &Session) -> Result<Schedule, Complaint> {
        let mut schedule = Schedule::default();
        for Visit { device, every } in &self.interval {
            let Some(name) = device else {
                schedule.every = Some(*every);
                continue;
            };
            let devices = session.home()?.trust().devices()?;
            schedule.devices.push((revoke::find(&devices, name)?.id, *every));
        }
        Ok(schedule)
    }
}

/// Lets the process have as many descriptors as it may: the usual 1,024 end long before memory does.
pub(crate) fn allow_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let changed = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(errno) = setrlimit(Resource::Nofile, changed) {
        log::warn!("the limit of descriptors stays as it is: {errno}");
    }
}

/// Half of the memory of the machine, or of what its control group may use.
fn usual_memory() -> Option<u64> {
    let info = rustix::system::sysinfo();
    #[allow(clippy::useless_conversion, reason = "the fields are of 32 bits on some machines")]
    let machine = u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit));
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max");
    let group = group.ok().and_then(|text| text.trim().parse::<u64>().ok());
    let half = group.map_or(machine, |group| group.min(machine)) / 2;
    Some(half.max(MEMORY_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_size_that_is_enough_or_off() {
        assert_eq!(parse_memory("64M"), Ok(Memory(Some(64 << 20))));
        assert_eq!(parse_memory("off"), Ok(Memory(None)));
        for text in ["0", "1M", "many", "", "-64M"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
        assert!(usual_memory().unwrap() >= MEMORY_MIN);
    }

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        flags: CapacityFlags,
    }

    #[test]
    fn a_server_that_lets_nobody_in_is_a_slip() {
        let check = |args: &[&str]| {
            let args = std::iter::once("serve").chain(args.iter().copied());
            let flags = <Command as clap::Parser>::parse_from(args).flags;
            flags.check().map_err(|complaint| complaint.exit.code())
        };
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&["--max-active", "1"]), Ok(()));
        assert_eq!(check(&["--max-active", "0"]), Err(2));
        assert_eq!(check(&["--max-connections", "0"]), Err(2));
    }

    #[test]
    fn a_visit_is_of_all_or_of_one_device_whatever_its_name_holds() {
        let every = Duration::from_secs(600);
        assert_eq!(Visit::parse("10m"), Ok(Visit { device: None, every }));
        let device = Some("a=b".to_owned());
        assert_eq!(Visit::parse("a=b=10m"), Ok(Visit { device, every }));
        assert!(Visit::parse("laptop").is_err());
        assert!(Visit::parse("laptop=0s").is_err());
    }
}
