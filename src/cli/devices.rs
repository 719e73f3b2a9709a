//! `syncline devices`: who may come in, and what they may do.
//! Never changes anything; `revoke` does.

use super::complaint::Complaint;
use super::exit::Exit;
use super::quantity;
use super::report::plain;
use super::session::{Ending, Session};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use syncline::store::Device;

/// Runs the command.
pub(crate) fn run(session: &Session) -> Result<Ending, Complaint> {
    let devices = session.home()?.trust().devices()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    if devices.is_empty() {
        session
            .console
            .note("no device is paired; `syncline invite` lets one in");
    }
    for line in table(&devices, now) {
        session.console.data(&line);
    }
    devices
        .iter()
        .for_each(|device| session.console.object(&object(device)));
    Ok(Ending::of(Exit::Done))
}

fn object(device: &Device) -> Value {
    let shares = device
        .shares
        .iter()
        .map(|(name, rights)| json!({"name": name.as_str(), "read": rights.read, "write": rights.write}));
    json!({
        "event": "item", "device": device.id.to_string(), "short": device.id.short(), "name": device.name,
        "shares": shares.collect::<Vec<_>>(), "paired_at": device.paired_at, "last_seen": device.last_seen,
    })
}

fn table(devices: &[Device], now: u64) -> Vec<String> {
    let rows: Vec<[String; 4]> = devices.iter().map(|device| row(device, now)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |[id, name, seen, shares]: &[String; 4]| {
        let [a, b, c] = widths;
        format!("{id:a$}  {name:b$}  {seen:c$}  {shares}").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn row(device: &Device, now: u64) -> [String; 4] {
    let shares = device
        .shares
        .iter()
        .map(|(name, rights)| format!("\"{name}\" ({rights})"));
    let seen = match device.last_seen {
        Some(seen) => format!("seen {}", ago(seen, now)),
        None => format!("paired {}", ago(device.paired_at, now)),
    };
    [
        device.id.short(),
        plain(&device.name),
        seen,
        shares.collect::<Vec<_>>().join(", "),
    ]
}

/// `3 min ago`, in one unit. A time in the future, from a clock that was set, is "just now".
pub(super) fn ago(then: u64, now: u64) -> String {
    let seconds = now.saturating_sub(then);
    let unit = match seconds {
        0..60 => return "just now".to_owned(),
        60..3600 => 60,
        3600..86_400 => 3600,
        _ => 86_400,
    };
    format!("{} ago", quantity::duration(Duration::from_secs(seconds / unit * unit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline::model::{DeviceId, Rights, ShareName};

    fn device(name: &str, last_seen: Option<u64>) -> Device {
        let share = ShareName::parse("Films").unwrap();
        Device {
            id: DeviceId([0; 32]),
            name: name.to_owned(),
            shares: vec![(share, Rights::READ)],
            paired_at: 0,
            last_seen,
        }
    }

    #[test]
    fn columns_line_up_and_a_devices_name_cannot_add_a_line() {
        let lines = table(&[device("a\nb", Some(1000)), device("laptop", None)], 1200);
        assert_eq!(lines[0], "AAAA-AAAA  a\\nb    seen 3 min ago     \"Films\" (read)");
        assert_eq!(lines[1], "AAAA-AAAA  laptop  paired 20 min ago  \"Films\" (read)");
    }

    #[test]
    fn ages_have_one_unit_and_survive_a_clock_that_was_set() {
        assert_eq!(ago(1000, 1059), "just now");
        assert_eq!(ago(2000, 1000), "just now");
        assert_eq!(ago(0, 7300), "2 h ago");
        assert_eq!(ago(0, 90_000), "1 d ago");
    }
}
