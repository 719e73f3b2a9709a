//! Who may do what: decides on every open of a share. Denies when it cannot decide.
//!
//! Invariant: an answer to somebody without rights is the same whether the share exists or not, and
//! too many wrong secrets from one address make it wait.

use crate::model::limits::{AUTH_BACKOFF_MS, AUTH_FAILURES_MAX};
use crate::model::{CloseCode, DeviceId, Fault, Rights, Secret, ShareName, Tick};
use crate::store::{Home, Redeemed, StateError};
use crate::wire::{Open, Opened};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::SystemTime;

/// Decides on opens.
pub(crate) struct Access {
    home: Home,
    /// The server's own device, which may do everything; `None` without TLS.
    own: Option<DeviceId>,
    failures: HashMap<IpAddr, Failures>,
}

/// Somebody at the door.
pub(crate) struct Visitor<'a> {
    pub(crate) address: IpAddr,
    pub(crate) device: Option<DeviceId>,
    pub(crate) name: &'a str,
    /// Rights that anyone has on the share; `None` when there is no such share.
    pub(crate) open_rights: Option<Rights>,
    /// Why the server itself does not write to the share.
    pub(crate) read_only: Option<&'static str>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    until: Tick,
}

/// Addresses whose failures are remembered; past that the table starts anew.
const ADDRESSES_MAX: usize = 4096;

impl Access {
    pub(crate) fn new(home: Home, own: Option<DeviceId>) -> Access {
        Access {
            home,
            own,
            failures: HashMap::new(),
        }
    }

    /// The server's own device.
    pub(crate) fn own(&self) -> Option<DeviceId> {
        self.own
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Lets a visitor in, or says why not.
    pub(crate) fn decide(&mut self, open: &Open, visitor: &Visitor<'_>, now: Tick) -> Result<Opened, Fault> {
        let is_owner = visitor.device.is_some() && visitor.device == self.own;
        let Some(share) = &open.share else {
            return if is_owner {
                Ok(Opened {
                    rights: Rights::NONE,
                    paired: false,
                })
            } else {
                Err(refused())
            };
        };
        // Before anything is looked up, so that waiting does not tell which shares there are.
        if open.secret.is_some() && !is_owner {
            self.check_wait(visitor.address, now)?;
        }
        let Some(open_rights) = visitor.open_rights else {
            return Err(self.failed(visitor.address, open.secret.as_ref(), now));
        };
        let owner_rights = if is_owner { Rights::READ_WRITE } else { Rights::NONE };
        let mut rights = open_rights
            .union(owner_rights)
            .union(self.rights(visitor.device, share)?);
        let mut paired = false;
        if let (Some(secret), Some(device)) = (&open.secret, &visitor.device)
            && !is_owner
        {
            let now_by_the_wall = SystemTime::now();
            // What will be refused must not cost the invite.
            let trust = self.home.trust();
            let invited = trust.invited(secret, share, now_by_the_wall);
            if let Some(invited) = invited.map_err(|error| undecided(&error))? {
                check_wanted(open.wanted, rights.union(invited), visitor)?;
            }
            let redeemed = trust.redeem(secret, share, device, visitor.name, now_by_the_wall);
            match redeemed.map_err(|error| undecided(&error))? {
                Redeemed::Granted(granted) => {
                    rights = rights.union(granted);
                    paired = true;
                }
                // A link that was used before still names the share: whoever is known may come in.
                Redeemed::Refused if rights != Rights::NONE => {}
                Redeemed::Refused => return Err(self.failed(visitor.address, Some(secret), now)),
            }
        }
        if rights == Rights::NONE {
            return Err(self.failed(visitor.address, open.secret.as_ref(), now));
        }
        check_wanted(open.wanted, rights, visitor)?;
        Ok(Opened { rights, paired })
    }

    /// The rights that a device has by pairing, as they are now.
    pub(crate) fn rights(&self, device: Option<DeviceId>, share: &ShareName) -> Result<Rights, Fault> {
        let Some(device) = device else {
            return Ok(Rights::NONE);
        };
        if Some(device) == self.own {
            return Ok(Rights::READ_WRITE);
        }
        self.home
            .trust()
            .rights(&device, share)
            .map_err(|error| undecided(&error))
    }

    fn check_wait(&self, address: IpAddr, now: Tick) -> Result<(), Fault> {
        match self.failures.get(&address) {
            Some(failures) if failures.until > now => Err(Fault::new(
                CloseCode::Busy,
                "too many wrong secrets from this address; wait a while",
            )),
            _ => Ok(()),
        }
    }

    /// Counts a wrong secret.
    fn failed(&mut self, address: IpAddr, secret: Option<&Secret>, now: Tick) -> Fault {
        if secret.is_some() {
            if self.failures.len() >= ADDRESSES_MAX {
                self.failures.clear();
            }
            let failures = self.failures.entry(address).or_insert(Failures {
                count: 0,
                until: Tick(0),
            });
            failures.count = failures.count.saturating_add(1);
            if failures.count >= AUTH_FAILURES_MAX {
                let doublings = (failures.count - AUTH_FAILURES_MAX).min(6);
                failures.until = now + (AUTH_BACKOFF_MS << doublings);
            }
        }
        refused()
    }
}

/// Whether somebody with `rights` may do what is wanted on a share as it is.
fn check_wanted(wanted: Rights, rights: Rights, visitor: &Visitor<'_>) -> Result<(), Fault> {
    if (wanted.read && !rights.read) || (wanted.write && !rights.write) {
        let text = format!("this device has only these rights on the share: {rights}");
        return Err(Fault::new(CloseCode::Forbidden, text));
    }
    if let (true, Some(text)) = (wanted.write, visitor.read_only) {
        return Err(Fault::new(CloseCode::Forbidden, text));
    }
    Ok(())
}

fn refused() -> Fault {
    Fault::new(
        CloseCode::Refused,
        "this device is not paired with such a share, or the link was used or has expired",
    )
}

/// Deciding failed: nobody gets in on a doubt, and nobody outside learns why.
fn undecided(error: &StateError) -> Fault {
    log::error!("cannot decide who may come in: {error}");
    refused()
}
