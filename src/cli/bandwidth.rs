//! `--bwlimit`: limits of bandwidth as people write them, over the day and for a share or a device.
//! Never applies one: the engine does.
//!
//! Invariant: what is not clearly a limit is refused with an example of one that is.

use super::complaint::Complaint;
use super::quantity::Rate;
use super::report::plain;
use super::revoke;
use syncline::model::{DeviceId, ShareName, Timetable};
use syncline::node::Bandwidth;
use syncline::store::Device;

/// One `--bwlimit` of `serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limit {
    scope: Scope,
    table: Timetable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    All,
    Share(ShareName),
    /// As the user named it.
    Device(String),
}

const DEVICE: &str = "device:";
const SHARE: &str = "share:";

impl Limit {
    /// Parses `10M`, `Films=5M`, `device:laptop=1M`, each also with a timetable.
    pub(crate) fn parse(text: &str) -> Result<Limit, String> {
        let Some((scope, table)) = text.rsplit_once('=') else {
            return parse_timetable(text).map(|table| Limit {
                scope: Scope::All,
                table,
            });
        };
        let table = parse_timetable(table)?;
        let scope = scope.trim();
        let scope = match scope.strip_prefix(DEVICE) {
            Some("") => return Err("which device is missing; write device:NAME=5M".to_owned()),
            Some(device) => Scope::Device(device.to_owned()),
            None => {
                let name = scope.strip_prefix(SHARE).unwrap_or(scope);
                let parsed = ShareName::parse(name);
                Scope::Share(parsed.map_err(|error| format!("{name:?} cannot name a share: {error}"))?)
            }
        };
        Ok(Limit { scope, table })
    }
}

/// All limits of a server; `devices` are those that are paired.
pub(crate) fn of_server(
    limits: &[Limit],
    devices: impl FnOnce() -> Result<Vec<Device>, Complaint>,
) -> Result<Bandwidth, Complaint> {
    let mut bandwidth = Bandwidth::default();
    let names_device = limits.iter().any(|limit| matches!(limit.scope, Scope::Device(_)));
    let devices = if names_device { devices()? } else { Vec::new() };
    let mut has_global = false;
    for Limit { scope, table } in limits {
        let table = table.clone();
        let is_new = match scope {
            Scope::All => {
                bandwidth.global = table;
                !std::mem::replace(&mut has_global, true)
            }
            Scope::Share(name) => enter(&mut bandwidth.shares, name.clone(), table),
            Scope::Device(text) => enter(&mut bandwidth.devices, device_of(&devices, text)?, table),
        };
        if !is_new {
            let what = match scope {
                Scope::All => "all connections".to_owned(),
                Scope::Share(name) => format!("\"{name}\""),
                Scope::Device(text) => format!("the device \"{}\"", plain(text)),
            };
            return Err(Complaint::usage(
                format!("two limits of bandwidth are given for {what}"),
                "give one, with its times in it: --bwlimit '08:00,512k 18:00,off'",
            ));
        }
    }
    Ok(bandwidth)
}

/// Whether nothing was entered under that key before.
fn enter<K: PartialEq>(entries: &mut Vec<(K, Timetable)>, key: K, table: Timetable) -> bool {
    let is_new = entries.iter().all(|(other, _)| *other != key);
    entries.push((key, table));
    is_new
}

/// A full id needs not be paired yet.
fn device_of(devices: &[Device], text: &str) -> Result<DeviceId, Complaint> {
    match text.parse() {
        Ok(id) => Ok(id),
        Err(_) => revoke::find(devices, text).map(|device| device.id),
    }
}

/// Parses `512k`, `off`, or limits over the day: `08:00,512k 18:00,off`.
pub(crate) fn parse_timetable(text: &str) -> Result<Timetable, String> {
    if !text.contains(':') {
        return parse_rate(text).map(Timetable::always);
    }
    let entries = text.split_whitespace().map(parse_entry).collect::<Result<_, _>>()?;
    Timetable::new(entries)
        .map_err(|error| format!("{text:?}: {error}; write each time once, as in 08:00,512k 18:00,off"))
}

fn parse_entry(text: &str) -> Result<(u16, Option<u64>), String> {
    let Some((time, rate)) = text.split_once(',') else {
        return Err(format!(
            "{text:?} is no time with a rate; write them with a comma and no space, as in 08:00,512k 18:00,off"
        ));
    };
    Ok((parse_minute(time)?, parse_rate(rate)?))
}

/// The minute of the day that `08:00` is.
fn parse_minute(text: &str) -> Result<u16, String> {
    let number = |digits: &str, below: u16| {
        let is_number = (1..=2).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse::<u16>().ok().filter(|number| is_number && *number < below);
        number.ok_or_else(|| format!("{text:?} is no time of day; write hours and minutes, from 00:00 to 23:59"))
    };
    let (hours, minutes) = text.split_once(':').unwrap_or((text, ""));
    if minutes.len() != 2 {
        number("", 0)?;
    }
    Ok(number(hours, 24)? * 60 + number(minutes, 60)?)
}

fn parse_rate(text: &str) -> Result<Option<u64>, String> {
    if text.trim().eq_ignore_ascii_case("off") {
        return Ok(None);
    }
    Rate::parse(text).map(Rate::limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(u16, Option<u64>)]) -> Timetable {
        Timetable::new(entries.to_vec()).unwrap()
    }

    #[test]
    fn a_limit_is_a_rate_or_rates_over_the_day() {
        let working = table(&[(8 * 60, Some(512 << 10)), (18 * 60, None)]);
        for (text, wanted) in [
            ("5M", Timetable::always(Some(5 << 20))),
            ("1.5 G", Timetable::always(Some(3 << 29))),
            ("0", Timetable::default()),
            ("off", Timetable::default()),
            ("08:00,512k 18:00,off", working.clone()),
            ("  18:00,0   8:00,512K ", working),
            ("23:59,1k", Timetable::always(Some(1024))),
        ] {
            assert_eq!(parse_timetable(text).unwrap(), wanted, "{text}");
        }
    }

    /// Each error names the text that is wrong, and shows one that is right.
    #[test]
    fn what_is_no_limit_is_refused_by_name() {
        for (bad, says) in [
            ("", "rate"),
            ("fast", "\"fast\" is not a rate"),
            ("08:00", "\"08:00\" is no time with a rate"),
            ("08:00, 512k", "\"\" is not a rate"),
            ("24:00,1M", "\"24:00\" is no time of day"),
            ("8:5,1M", "\"8:5\" is no time of day"),
            ("08:60,1M", "\"08:60\" is no time of day"),
            ("-1:00,1M", "\"-1:00\" is no time of day"),
            ("08:00:00,1M", "\"08:00:00\" is no time of day"),
            ("08:00,1M 8:00,2M", "two entries begin at 08:00"),
            ("08:00,1X", "\"1X\" is not a rate"),
        ] {
            let error = parse_timetable(bad).unwrap_err();
            assert!(error.contains(says), "{bad}: {error}");
        }
    }

    #[test]
    fn a_scope_stands_before_the_limit() {
        let share = |name: &str| Scope::Share(ShareName::parse(name).unwrap());
        for (text, scope) in [
            ("10M", Scope::All),
            ("Films=10M", share("Films")),
            ("a=b=10M", share("a=b")),
            ("share:device:x=10M", share("device:x")),
            ("device:laptop=10M", Scope::Device("laptop".to_owned())),
            ("device:4XQ7-M2KD=10M", Scope::Device("4XQ7-M2KD".to_owned())),
        ] {
            assert_eq!(Limit::parse(text).unwrap().scope, scope, "{text}");
        }
        let times = Limit::parse("Films=08:00,512k 18:00,off").unwrap();
        assert_eq!(times.table, table(&[(480, Some(512 << 10)), (1080, None)]));
        for bad in ["=1M", "device:=1M", "a/b=1M", "Films=", "Films=x"] {
            assert!(Limit::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_are_named_as_they_are_listed_and_nothing_is_limited_twice() {
        let device = |byte: u8, name: &str| Device {
            id: DeviceId([byte; 32]),
            name: name.to_owned(),
            shares: Vec::new(),
            paired_at: 0,
            last_seen: None,
        };
        let devices = || Ok(vec![device(0, "laptop"), device(0xff, "nas")]);
        let limits = |texts: &[&str]| {
            let limits: Vec<_> = texts.iter().map(|text| Limit::parse(text).unwrap()).collect();
            of_server(&limits, devices).map_err(|complaint| complaint.what)
        };
        let all = limits(&["1M", "Films=2M", "device:laptop=3M", "device:7777-7777=4M"]).unwrap();
        assert_eq!(all.global, Timetable::always(Some(1 << 20)));
        assert_eq!(all.shares.len(), 1);
        let ids: Vec<_> = all.devices.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [DeviceId([0; 32]), DeviceId([0xff; 32])]);
        let unpaired = format!("device:{}=1M", DeviceId([7; 32]));
        assert_eq!(limits(&[&unpaired]).unwrap().devices[0].0, DeviceId([7; 32]));
        for (twice, says) in [
            (["1M", "2M"], "all connections"),
            (["Films=1M", "Films=2M"], "\"Films\""),
            (["device:laptop=1M", "device:AAAA=2M"], "\"AAAA\""),
            (["device:phone=1M", "2M"], "\"phone\""),
        ] {
            let what = limits(&twice).unwrap_err();
            assert!(what.contains(says), "{what}");
        }
    }
}
