//! `Book`: what `trust.json` holds, and its form on disk.
//!
//! Never touches a file, never decides who may do what. Key invariant: a book that was read is legal
//! as a whole (names, ids, rights and bounds hold), or it is not read at all.
//!
//! Version 1 is a JSON object; unknown fields are refused, since one could restrict a right.

use crate::model::limits::DEVICE_NAME_BYTES_MAX;
use crate::model::{DeviceId, Rights, ShareName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Everything that this device trusts. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Book {
    pub(super) invites: Vec<Invite>,
    pub(super) devices: BTreeMap<DeviceId, Peer>,
    pub(super) servers: BTreeMap<String, Server>,
}

/// A right to enter once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invite {
    pub(super) secret_sha256: [u8; 32],
    pub(super) share: ShareName,
    pub(super) rights: Rights,
    pub(super) created: u64,
    pub(super) expires: u64,
}

/// A device that was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) paired_at: u64,
    pub(super) last_seen: Option<u64>,
    pub(super) shares: Vec<(ShareName, Rights)>,
}

/// A server that this device has met as a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) id: DeviceId,
    pub(super) name: String,
}

/// Invites that may be open at a time.
pub(super) const INVITES_MAX: usize = 1_000;
/// Paired devices, and likewise known servers.
pub(super) const DEVICES_MAX: usize = 10_000;
/// Shares that one device may have rights to.
pub(super) const SHARES_PER_DEVICE_MAX: usize = 1_000;
/// Bytes of an authority (`HOST:PORT`).
pub(super) const AUTHORITY_BYTES_MAX: usize = 300;

const BOOK_VERSION: u32 = 1;

impl Book {
    /// Reads the form on disk; the error says what is wrong with it, as the inside of a sentence.
    pub(super) fn decode(content: &[u8]) -> Result<Book, String> {
        let version: StoredVersion = serde_json::from_slice(content).map_err(|e| e.to_string())?;
        if version.version != BOOK_VERSION {
            return Err(format!(
                "version {}, but this syncline knows {BOOK_VERSION}",
                version.version
            ));
        }
        let stored: StoredBook = serde_json::from_slice(content).map_err(|e| e.to_string())?;
        stored.into_book()
    }

    /// The form on disk.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut content =
            serde_json::to_vec_pretty(&StoredBook::new(self)).expect("a book has only strings, numbers and lists");
        content.push(b'\n');
        content
    }
}

#[derive(Deserialize)]
struct StoredVersion {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredBook {
    version: u32,
    invites: Vec<StoredInvite>,
    devices: Vec<StoredDevice>,
    servers: Vec<StoredServer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredInvite {
    secret_sha256: String,
    share: String,
    rights: Vec<StoredRight>,
    created: u64,
    expires: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredDevice {
    id: String,
    name: String,
    paired_at: u64,
    last_seen: Option<u64>,
    shares: Vec<StoredGrant>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredGrant {
    name: String,
    rights: Vec<StoredRight>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredServer {
    authority: String,
    id: String,
    name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StoredRight {
    Read,
    Write,
}

impl StoredBook {
    fn new(book: &Book) -> StoredBook {
        let invite = |invite: &Invite| StoredInvite {
            secret_sha256: to_hex(&invite.secret_sha256),
            share: invite.share.to_string(),
            rights: store_rights(invite.rights),
            created: invite.created,
            expires: invite.expires,
        };
        let grant = |(share, rights): &(ShareName, Rights)| StoredGrant {
            name: share.to_string(),
            rights: store_rights(*rights),
        };
        let device = |(id, peer): (&DeviceId, &Peer)| StoredDevice {
            id: id.to_string(),
            name: peer.name.clone(),
            paired_at: peer.paired_at,
            last_seen: peer.last_seen,
            shares: peer.shares.iter().map(grant).collect(),
        };
        let server = |(authority, server): (&String, &Server)| StoredServer {
            authority: authority.clone(),
            id: server.id.to_string(),
            name: server.name.clone(),
        };
        StoredBook {
            version: BOOK_VERSION,
            invites: book.invites.iter().map(invite).collect(),
            devices: book.devices.iter().map(device).collect(),
            servers: book.servers.iter().map(server).collect(),
        }
    }

    fn into_book(self) -> Result<Book, String> {
        check_count("invites", self.invites.len(), INVITES_MAX)?;
        check_count("devices", self.devices.len(), DEVICES_MAX)?;
        check_count("servers", self.servers.len(), DEVICES_MAX)?;
        let invites = self.invites.iter().map(load_invite).collect::<Result<_, _>>()?;
        let mut book = Book {
            invites,
            ..Book::default()
        };
        for stored in self.devices {
            let (id, peer) = load_device(stored)?;
            if book.devices.insert(id, peer).is_some() {
                return Err(format!("device {id} stands there twice"));
            }
        }
        for stored in self.servers {
            let server = Server {
                id: load_id(&stored.id)?,
                name: load_name(stored.name)?,
            };
            if stored.authority.len() > AUTHORITY_BYTES_MAX {
                return Err("a server's address is too long".to_owned());
            }
            if book.servers.insert(stored.authority, server).is_some() {
                return Err("a server stands there twice".to_owned());
            }
        }
        Ok(book)
    }
}

fn load_invite(stored: &StoredInvite) -> Result<Invite, String> {
    // A digest has the same form as a device id: 64 hexadecimal digits.
    let digest: DeviceId = stored
        .secret_sha256
        .parse()
        .map_err(|_| "an invite's digest is broken")?;
    Ok(Invite {
        secret_sha256: digest.0,
        share: load_share(&stored.share)?,
        rights: load_rights(&stored.rights),
        created: stored.created,
        expires: stored.expires,
    })
}

fn load_device(stored: StoredDevice) -> Result<(DeviceId, Peer), String> {
    check_count("shares of a device", stored.shares.len(), SHARES_PER_DEVICE_MAX)?;
    let mut shares: Vec<(ShareName, Rights)> = Vec::with_capacity(stored.shares.len());
    for grant in stored.shares {
        let share = load_share(&grant.name)?;
        if shares.iter().any(|(other, _)| *other == share) {
            return Err(format!("share {share} stands there twice for one device"));
        }
        shares.push((share, load_rights(&grant.rights)));
    }
    let peer = Peer {
        name: load_name(stored.name)?,
        paired_at: stored.paired_at,
        last_seen: stored.last_seen,
        shares,
    };
    Ok((load_id(&stored.id)?, peer))
}

fn check_count(what: &str, count: usize, max: usize) -> Result<(), String> {
    if count > max {
        return Err(format!("{count} {what}, at most {max} are possible"));
    }
    Ok(())
}

fn load_id(text: &str) -> Result<DeviceId, String> {
    text.parse().map_err(|_| "a device id is broken".to_owned())
}

fn load_share(text: &str) -> Result<ShareName, String> {
    ShareName::parse(text).map_err(|_| "the name of a share is not a legal one".to_owned())
}

fn load_name(text: String) -> Result<String, String> {
    if text.len() > DEVICE_NAME_BYTES_MAX {
        return Err("the name of a device is too long".to_owned());
    }
    Ok(text)
}

fn load_rights(stored: &[StoredRight]) -> Rights {
    stored.iter().fold(Rights::NONE, |rights, right| match right {
        StoredRight::Read => Rights { read: true, ..rights },
        StoredRight::Write => Rights { write: true, ..rights },
    })
}

fn store_rights(rights: Rights) -> Vec<StoredRight> {
    let read = rights.read.then_some(StoredRight::Read);
    let write = rights.write.then_some(StoredRight::Write);
    read.into_iter().chain(write).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The released form of version 1. Never change it: old files must stay readable.
    const FROZEN: &str = r#"{
  "version": 1,
  "invites": [
    {
      "secret_sha256": "0101010101010101010101010101010101010101010101010101010101010101",
      "share": "My Share",
      "rights": [
        "read"
      ],
      "created": 1000,
      "expires": 1600
    }
  ],
  "devices": [
    {
      "id": "0202020202020202020202020202020202020202020202020202020202020202",
      "name": "laptop",
      "paired_at": 1100,
      "last_seen": null,
      "shares": [
        {
          "name": "My Share",
          "rights": [
            "read",
            "write"
          ]
        }
      ]
    }
  ],
  "servers": [
    {
      "authority": "nas:7171",
      "id": "0303030303030303030303030303030303030303030303030303030303030303",
      "name": "nas"
    }
  ]
}
"#;

    fn book() -> Book {
        let share = ShareName::parse("My Share").unwrap();
        let invite = Invite {
            secret_sha256: [1; 32],
            share: share.clone(),
            rights: Rights::READ,
            created: 1000,
            expires: 1600,
        };
        let peer = Peer {
            name: "laptop".to_owned(),
            paired_at: 1100,
            last_seen: None,
            shares: vec![(share, Rights::READ_WRITE)],
        };
        let server = Server {
            id: DeviceId([3; 32]),
            name: "nas".to_owned(),
        };
        Book {
            invites: vec![invite],
            devices: BTreeMap::from([(DeviceId([2; 32]), peer)]),
            servers: BTreeMap::from([("nas:7171".to_owned(), server)]),
        }
    }

    // Protects pairings over upgrades: the released form is written and read as it was.
    #[test]
    fn version_one_is_frozen() {
        assert_eq!(String::from_utf8(book().encode()).unwrap(), FROZEN);
        assert_eq!(Book::decode(FROZEN.as_bytes()), Ok(book()));
        assert_eq!(Book::decode(&Book::default().encode()), Ok(Book::default()));
    }

    // Protects the decision who may enter from a file that is only half right.
    #[test]
    fn a_book_is_read_as_a_whole_or_not_at_all() {
        for length in 0..FROZEN.len() - 2 {
            assert!(Book::decode(&FROZEN.as_bytes()[..length]).is_err(), "cut at {length}");
        }
        for (from, to) in [
            ("\"version\": 1", "\"version\": 2"),
            ("0202", "02zz"),
            ("\"name\": \"My Share\"", "\"name\": \"../x\""),
            ("\"write\"", "\"admin\""),
            ("\"paired_at\"", "\"only_from\": \"home\", \"paired_at\""),
            ("1600", "-1"),
        ] {
            assert!(Book::decode(FROZEN.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
        let mut twice = book();
        twice.devices.get_mut(&DeviceId([2; 32])).unwrap().shares =
            vec![(ShareName::parse("S").unwrap(), Rights::READ); 2];
        assert!(Book::decode(&twice.encode()).unwrap_err().contains("twice"));
        let mut many = book();
        many.invites = vec![many.invites[0].clone(); INVITES_MAX + 1];
        assert!(Book::decode(&many.encode()).unwrap_err().contains("1001 invites"));
    }
}
