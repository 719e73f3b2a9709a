//! This device's key: made at first use, kept in the state directory, the same for server and client.

use crate::model::DeviceId;
use crate::reactor::Identity;
use crate::store::Home;
use std::io;

/// Loads the key, or makes and keeps one. The error is a sentence.
pub(super) fn load(home: &Home) -> Result<Identity, String> {
    let mut make = || {
        let identity = Identity::generate().map_err(io::Error::other)?;
        Ok((identity.cert_der().to_vec(), identity.key_der().to_vec()))
    };
    let (certificate, key) = home.identity_or_create(&mut make).map_err(|error| error.to_string())?;
    Identity::from_der(&certificate, &key).map_err(|error| error.to_string())
}

/// This device, whose key is kept in `home`; it is made if there is none yet.
///
/// # Errors
/// A sentence, when the key cannot be made or used.
pub fn own_device(home: &Home) -> Result<DeviceId, String> {
    load(home).map(|identity| identity.device())
}

/// The device whose key is kept in `home`; `None` when none was made yet, and none is made.
///
/// # Errors
/// A sentence, when the key or its certificate cannot be used.
pub fn stored_device(home: &Home) -> Result<Option<DeviceId>, String> {
    let mut is_missing = false;
    let mut make = || {
        is_missing = true;
        Err(io::Error::other("none is to be made"))
    };
    let stored = home.identity_or_create(&mut make);
    if is_missing {
        return Ok(None);
    }
    let (certificate, key) = stored.map_err(|error| error.to_string())?;
    let identity = Identity::from_der(&certificate, &key).map_err(|error| error.to_string())?;
    Ok(Some(identity.device()))
}
