//! Owns the keys of the clients, and how each connects. It never stores a key.

use crate::attack;
use crate::complaint::Complaint;
use crate::scenario::Role;
use crate::settings::Settings;
use syncline::reactor::ClientSecurity;

/// How each client connects.
pub(crate) struct Securities {
    plain: ClientSecurity,
    /// One for each key; empty without TLS.
    keyed: Vec<ClientSecurity>,
}

impl Securities {
    /// Makes the keys that a run needs.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub(crate) fn new(settings: &Settings) -> Result<Securities, Complaint> {
        let keyed = match settings.plain {
            true => Vec::new(),
            false => keyed(settings)?,
        };
        Ok(Securities {
            plain: ClientSecurity::Plain,
            keyed,
        })
    }

    /// How client number `number` connects.
    pub(crate) fn of(&self, number: u32, role: Role) -> &ClientSecurity {
        let is_raw = matches!(role, Role::Attacker(attack) if attack::speaks_out_of_turn(attack));
        match self.keyed.len() {
            0 => &self.plain,
            _ if is_raw => &self.plain,
            count => &self.keyed[number as usize % count],
        }
    }
}

#[cfg(feature = "tls")]
fn keyed(settings: &Settings) -> Result<Vec<ClientSecurity>, Complaint> {
    let expected = settings.link.secret.as_ref().map(|secret| secret.server);
    let one = |_| {
        let identity = syncline::reactor::Identity::generate();
        identity
            .map(|identity| ClientSecurity::Tls { identity, expected })
            .map_err(|error| Complaint::error(error.to_string(), "try again, or --plain on both sides"))
    };
    (0..settings.identities).map(one).collect()
}

#[cfg(not(feature = "tls"))]
fn keyed(_settings: &Settings) -> Result<Vec<ClientSecurity>, Complaint> {
    Ok(Vec::new())
}
