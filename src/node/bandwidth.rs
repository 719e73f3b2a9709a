//! Limits of bandwidth as a host gives them: which connection is under which, and what holds at which time.
//!
//! Never moves a byte. Invariant: after [`Rates::apply`] every limit has the value of this minute, and a
//! timer is set for the next one while any of them changes over the day: clocks are set and machines sleep,
//! so the time of day is looked at once a minute instead of waiting for hours.

use super::clock::minute_of_day;
use super::options::Bandwidth;
use crate::model::{DeviceId, ShareName, Timetable};
use crate::reactor::{LimitId, Shared};
use std::collections::HashMap;

/// The timer that looks at the time of day, in whichever node.
pub(super) const BANDWIDTH_TIMER: u64 = 20;

/// The limits of a reactor.
#[derive(Debug)]
pub(super) struct Rates {
    limits: Vec<(LimitId, Timetable)>,
    shares: HashMap<ShareName, LimitId>,
    devices: HashMap<DeviceId, LimitId>,
}

impl Rates {
    /// Makes the limits known to the reactor, with their values of now.
    pub(super) fn begin(bandwidth: &Bandwidth, shared: &mut Shared) -> Rates {
        let mut rates = Rates {
            limits: vec![(LimitId::GLOBAL, bandwidth.global.clone())],
            shares: HashMap::new(),
            devices: HashMap::new(),
        };
        for (share, table) in &bandwidth.shares {
            let limit = rates.add(table, shared);
            rates.shares.insert(share.clone(), limit);
        }
        for (device, table) in &bandwidth.devices {
            let limit = rates.add(table, shared);
            rates.devices.insert(*device, limit);
        }
        rates.apply(shared);
        rates
    }

    fn add(&mut self, table: &Timetable, shared: &mut Shared) -> LimitId {
        let limit = shared.add_limit(None);
        self.limits.push((limit, table.clone()));
        limit
    }

    /// Sets every limit to what holds now.
    pub(super) fn apply(&self, shared: &mut Shared) {
        let (minute, rest_ms) = minute_of_day();
        self.apply_at(minute, shared);
        if self.limits.iter().any(|(_, table)| !table.is_constant()) {
            shared.set_timer(BANDWIDTH_TIMER, shared.now() + rest_ms);
        }
    }

    fn apply_at(&self, minute: u16, shared: &mut Shared) {
        for (limit, table) in &self.limits {
            shared.set_limit(*limit, table.limit_at(minute));
        }
    }

    /// What a connection of `device` to `share` is under, the narrowest first.
    pub(super) fn of(&self, share: &ShareName, device: Option<&DeviceId>) -> Vec<LimitId> {
        let device = device.and_then(|device| self.devices.get(device));
        device.into_iter().chain(self.shares.get(share)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::{Reactor, ReactorOptions};

    fn share(name: &str) -> ShareName {
        ShareName::parse(name).unwrap()
    }

    #[test]
    fn a_connection_is_under_the_limits_of_its_device_and_its_share() {
        let table = |limit| Timetable::new(vec![(480, Some(limit)), (1080, None)]).unwrap();
        let bandwidth = Bandwidth {
            global: Timetable::always(Some(1 << 20)),
            shares: vec![(share("A"), table(1000)), (share("B"), table(2000))],
            devices: vec![(DeviceId([1; 32]), table(3000))],
        };
        let mut reactor = Reactor::<()>::new(&ReactorOptions {
            durable_queue: 0,
            ..ReactorOptions::default()
        })
        .unwrap();
        let rates = Rates::begin(&bandwidth, reactor.shared());
        let known = DeviceId([1; 32]);
        assert_eq!(rates.of(&share("A"), Some(&known)).len(), 2);
        assert_eq!(
            rates.of(&share("A"), Some(&known))[0],
            rates.devices[&known],
            "the narrowest first"
        );
        assert_eq!(rates.of(&share("B"), None), [rates.shares[&share("B")]]);
        assert_eq!(rates.of(&share("C"), Some(&DeviceId([2; 32]))), []);
        let values = |minute: u16| {
            let limits = rates.limits.iter();
            limits.map(|(_, table)| table.limit_at(minute)).collect::<Vec<_>>()
        };
        assert_eq!(values(480), [Some(1 << 20), Some(1000), Some(2000), Some(3000)]);
        assert_eq!(values(1080), [Some(1 << 20), None, None, None]);
    }
}
