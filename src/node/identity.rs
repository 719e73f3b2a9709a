//! This device's key: made at first use, kept in the state directory, the same for server and client.

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
