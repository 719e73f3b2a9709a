//! `Trust`: who may enter, with which rights, and which servers this device knows.
//!
//! Never talks to anybody and never decides by the clock alone: the caller's wall clock only ends
//! invites and fills records. Key invariants: what is granted was durable before it was answered; a
//! spent invite is gone from the file, so that no clock brings it back; a file that cannot be read as
//! a whole is an error, and whoever asks must deny.
//!
//! Several processes may change the file at once: each change re-reads it under the home's lock.

use super::book::{AUTHORITY_BYTES_MAX, Book, DEVICES_MAX, INVITES_MAX, Invite, Peer, SHARES_PER_DEVICE_MAX, Server};
use super::home::{Home, StateError, display_name, io_error, read_bounded, refuse_bits};
use crate::model::{DeviceId, Rights, Secret, ShareName};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use subtle::{ConditionallySelectable, ConstantTimeEq};

/// A view of the trust of one [`Home`].
#[derive(Debug, Clone, Copy)]
pub struct Trust<'h> {
    home: &'h Home,
}

/// What became of an attempt to spend an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeemed {
    /// The device now has these rights to the share (with what it had before).
    Granted(Rights),
    /// No such invite: wrong, spent, expired, or for another share. Never says which.
    Refused,
}

/// A paired device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Who.
    pub id: DeviceId,
    /// What it calls itself; escape it where it is shown.
    pub name: String,
    /// What it may do where.
    pub shares: Vec<(ShareName, Rights)>,
    /// When it first came, in seconds since 1970.
    pub paired_at: u64,
    /// When it was last connected, in seconds since 1970, to within a minute.
    pub last_seen: Option<u64>,
}

/// A version of the trust as one [`Home`] value has seen it: equal stamps, same trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u64);

/// What was last read, and what was not written yet.
#[derive(Debug, Default)]
pub(super) struct TrustCache {
    read: Option<CachedBook>,
    generation: u64,
    /// Devices that were seen since the last write.
    seen: BTreeMap<DeviceId, u64>,
    seen_written_at: Option<u64>,
}

#[derive(Debug)]
struct CachedBook {
    identity: Option<FileIdentity>,
    /// Keeps the inode from being reused, so that an equal identity is the same file.
    _held: Option<File>,
    /// The error is the reason of the damage.
    content: Result<Book, String>,
}

/// Device, inode, size, modification and change time of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity([i128; 5]);

const TRUST_FILE: &str = "trust.json";
const TRUST_BYTES_MAX: u64 = 64 << 20;
const TRUST_REMEDY: &str =
    "nobody is let in until it is restored from a backup, or removed and all devices paired again";
const SEEN_INTERVAL_SECONDS: u64 = 60;
/// An invite from the future is refused, for it would outlive its time by as much; but clocks are
/// corrected by small steps all the time.
const CLOCK_STEP_SECONDS_MAX: u64 = 300;

impl<'h> Trust<'h> {
    pub(super) fn new(home: &'h Home) -> Trust<'h> {
        Trust { home }
    }

    /// Makes an invite: whoever brings the secret within `valid` gets `rights` to `share`, once.
    /// Only the secret's SHA-256 is kept.
    ///
    /// # Errors
    /// [`StateError`], with [`StateError::Full`] at 1,000 open invites.
    pub fn invite(
        &self,
        share: &ShareName,
        rights: Rights,
        valid: Duration,
        now: SystemTime,
    ) -> Result<Secret, StateError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| {
            let error = io::Error::other(error.to_string());
            io_error("draw randomness for", &self.path())(error)
        })?;
        let secret = Secret(bytes);
        let created = unix_seconds(now);
        let invite = Invite {
            secret_sha256: digest(&secret),
            share: share.clone(),
            rights,
            created,
            expires: created.saturating_add(valid.as_secs()),
        };
        self.change(|book| {
            book.invites.retain(|invite| invite.expires > created);
            check_room(
                "open invites",
                book.invites.len(),
                INVITES_MAX,
                "wait until some expire",
            )?;
            book.invites.push(invite);
            Ok(Changed::Yes(()))
        })?;
        Ok(secret)
    }

    /// The rights that an invite would give now, without spending it; `None` for one that
    /// [`Trust::redeem`] would refuse. An invite never changes, so that the answer holds until it is
    /// spent or expires.
    ///
    /// # Errors
    /// [`StateError`]; the caller denies.
    pub fn invited(&self, secret: &Secret, share: &ShareName, now: SystemTime) -> Result<Option<Rights>, StateError> {
        let (now, digest) = (unix_seconds(now), digest(secret));
        self.load(|book| {
            let invite = &book.invites[find_invite(book, &digest)?];
            let from_the_future = invite.created > now.saturating_add(CLOCK_STEP_SECONDS_MAX);
            let holds = invite.expires > now && !from_the_future && invite.share == *share;
            holds.then_some(invite.rights)
        })
    }

    /// Spends an invite. The grant is on disk when this returns; a wrong share spends nothing.
    ///
    /// Takes the same time wherever, and whether, the secret matches: all invites are compared.
    ///
    /// # Errors
    /// [`StateError`]; the caller denies.
    pub fn redeem(
        &self,
        secret: &Secret,
        share: &ShareName,
        device: &DeviceId,
        name: &str,
        now: SystemTime,
    ) -> Result<Redeemed, StateError> {
        let now = unix_seconds(now);
        let digest = digest(secret);
        // Wrong guesses are answered from the cache: they cost neither a lock nor a flush.
        if self.load(|book| find_invite(book, &digest))?.is_none() {
            return Ok(Redeemed::Refused);
        }
        self.change(|book| {
            let Some(index) = find_invite(book, &digest) else {
                return Ok(Changed::No(Redeemed::Refused));
            };
            let invite = &book.invites[index];
            if invite.expires <= now {
                book.invites.remove(index);
                return Ok(Changed::Yes(Redeemed::Refused));
            }
            let from_the_future = invite.created > now.saturating_add(CLOCK_STEP_SECONDS_MAX);
            if from_the_future || invite.share != *share {
                return Ok(Changed::No(Redeemed::Refused));
            }
            let invited = invite.rights;
            let granted = grant(book, device, name, share, invited, now)?;
            book.invites.remove(index);
            book.invites.retain(|invite| invite.expires > now);
            Ok(Changed::Yes(Redeemed::Granted(granted)))
        })
    }

    /// Gives `device` these rights to `share`, with what it has: for a user who has seen who it is. Durable when this
    /// returns.
    ///
    /// # Errors
    /// [`StateError`]; nothing is granted then.
    pub fn grant(
        &self,
        device: &DeviceId,
        name: &str,
        share: &ShareName,
        rights: Rights,
        now: SystemTime,
    ) -> Result<(), StateError> {
        let now = unix_seconds(now);
        self.change(|book| grant(book, device, name, share, rights, now).map(|_| Changed::Yes(())))
    }

    /// What `device` may do with `share`; nothing when it is not known.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be read as a whole; the caller denies.
    pub fn rights(&self, device: &DeviceId, share: &ShareName) -> Result<Rights, StateError> {
        self.load(|book| {
            let grants = book.devices.get(device).map_or(&[][..], |peer| &peer.shares);
            let rights = grants.iter().find(|(name, _)| name == share).map(|(_, rights)| *rights);
            rights.unwrap_or(Rights::NONE)
        })
    }

    /// What a paired device called itself when it came; `None` when it is not known, or the file cannot be read.
    #[must_use]
    pub fn name_of(&self, device: &DeviceId) -> Option<String> {
        self.load(|book| book.devices.get(device).map(|peer| peer.name.clone()))
            .ok()?
    }

    /// All paired devices, by id.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be read as a whole.
    pub fn devices(&self) -> Result<Vec<Device>, StateError> {
        let mut devices: Vec<Device> = self.load(|book| {
            let device = |(id, peer): (&DeviceId, &Peer)| Device {
                id: *id,
                name: peer.name.clone(),
                shares: peer.shares.clone(),
                paired_at: peer.paired_at,
                last_seen: peer.last_seen,
            };
            book.devices.iter().map(device).collect()
        })?;
        let cache = self.home.trust_cache.borrow();
        for device in &mut devices {
            device.last_seen = device.last_seen.max(cache.seen.get(&device.id).copied());
        }
        Ok(devices)
    }

    /// Takes all rights of a device away, or those to one share. A device without any right is
    /// forgotten. Says whether there was something to take.
    ///
    /// # Errors
    /// [`StateError`]; the rights are then as before.
    pub fn revoke(&self, id: &DeviceId, share: Option<&ShareName>) -> Result<bool, StateError> {
        self.change(|book| {
            let Some(peer) = book.devices.get_mut(id) else {
                return Ok(Changed::No(false));
            };
            let before = peer.shares.len();
            peer.shares.retain(|(name, _)| share.is_some_and(|share| share != name));
            let taken = peer.shares.len() < before || share.is_none();
            if peer.shares.is_empty() {
                book.devices.remove(id);
            }
            Ok(if taken { Changed::Yes(true) } else { Changed::No(false) })
        })
    }

    /// Notes that a device is connected. Best effort: kept in memory and written with the next
    /// change, at least once a minute.
    pub fn touch_seen(&self, id: &DeviceId, now: SystemTime) {
        let now = unix_seconds(now);
        let due = {
            let mut cache = self.home.trust_cache.borrow_mut();
            if cache.seen.len() < DEVICES_MAX {
                cache.seen.insert(*id, now);
            }
            let due = |at: u64| now.abs_diff(at) >= SEEN_INTERVAL_SECONDS;
            let due = cache.seen_written_at.is_none_or(due);
            if due {
                cache.seen_written_at = Some(now);
            }
            due
        };
        if due {
            // A failure costs a record only; the next minute tries again.
            let known = |book: &mut Book| book.devices.contains_key(id);
            let _ = self.change(|book| Ok(if known(book) { Changed::Yes(()) } else { Changed::No(()) }));
        }
    }

    /// The version of the trust: differs from an earlier one when the file has changed since, for
    /// example because a command revoked a device. Costs one `stat` when it has not.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be looked at; the caller denies. Damage is no error here:
    /// it is a change, and [`Trust::rights`] tells it.
    pub fn stamp(&self) -> Result<Stamp, StateError> {
        self.refresh()?;
        Ok(Stamp(self.home.trust_cache.borrow().generation))
    }

    /// Remembers the identity of the server at `authority` (`HOST:PORT`), in place of an earlier one.
    ///
    /// # Errors
    /// [`StateError`], with [`StateError::Full`] at 10,000 servers.
    pub fn remember_server(&self, authority: &str, id: &DeviceId, name: &str) -> Result<(), StateError> {
        if authority.len() > AUTHORITY_BYTES_MAX {
            let error = io::Error::other("the server's address is too long");
            return Err(io_error("remember a server in", &self.path())(error));
        }
        let server = Server {
            id: *id,
            name: display_name(name),
        };
        self.change(|book| {
            if book.servers.get(authority) == Some(&server) {
                return Ok(Changed::No(()));
            }
            if !book.servers.contains_key(authority) {
                let remedy = "remove some from trust.json";
                check_room("known servers", book.servers.len(), DEVICES_MAX, remedy)?;
            }
            book.servers.insert(authority.to_owned(), server);
            Ok(Changed::Yes(()))
        })
    }

    /// The identity of the server at `authority`, if it was met before.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be read as a whole; the caller does not connect.
    pub fn known_server(&self, authority: &str) -> Result<Option<DeviceId>, StateError> {
        self.load(|book| book.servers.get(authority).map(|server| server.id))
    }

    fn path(&self) -> PathBuf {
        self.home.path().join(TRUST_FILE)
    }

    /// Gives the current book to `look`.
    fn load<T>(&self, look: impl FnOnce(&Book) -> T) -> Result<T, StateError> {
        self.refresh()?;
        let cache = self.home.trust_cache.borrow();
        let read = cache.read.as_ref().expect("refresh fills the cache or fails");
        match &read.content {
            Ok(book) => Ok(look(book)),
            Err(reason) => Err(StateError::Damaged {
                path: self.path(),
                reason: reason.clone(),
                remedy: TRUST_REMEDY,
            }),
        }
    }

    /// Reads the file when it is not the one that was read last.
    fn refresh(&self) -> Result<(), StateError> {
        let path = self.path();
        let identity = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => Some(FileIdentity::of(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        let mut cache = self.home.trust_cache.borrow_mut();
        if cache.read.as_ref().is_some_and(|read| read.identity == identity) {
            return Ok(());
        }
        // What cannot be read must not leave the old trust in force.
        cache.read = None;
        cache.generation += 1;
        cache.read = Some(CachedBook::read(&path)?);
        Ok(())
    }

    /// Changes the book under the lock; what `edit` changed is durable when this returns `Ok`.
    fn change<T>(&self, edit: impl FnOnce(&mut Book) -> Result<Changed<T>, StateError>) -> Result<T, StateError> {
        let lock = self.home.lock()?;
        let mut book = self.load(Clone::clone)?;
        match edit(&mut book)? {
            Changed::No(answer) => Ok(answer),
            Changed::Yes(answer) => {
                let mut cache = self.home.trust_cache.borrow_mut();
                for (id, at) in std::mem::take(&mut cache.seen) {
                    if let Some(peer) = book.devices.get_mut(&id) {
                        peer.last_seen = Some(at);
                    }
                }
                drop(cache);
                lock.replace_file(TRUST_FILE, &book.encode(), 0o600)?;
                Ok(answer)
            }
        }
    }
}

/// Whether an edit is to be written, with its answer.
enum Changed<T> {
    Yes(T),
    No(T),
}

impl CachedBook {
    fn read(path: &std::path::Path) -> Result<CachedBook, StateError> {
        let Some((content, file)) = read_bounded(path, TRUST_BYTES_MAX)? else {
            return Ok(CachedBook {
                identity: None,
                _held: None,
                content: Ok(Book::default()),
            });
        };
        let metadata = file.metadata().map_err(io_error("read", path))?;
        refuse_bits(path, &file, 0o022, 0o600)?;
        Ok(CachedBook {
            identity: Some(FileIdentity::of(&metadata)),
            _held: Some(file),
            content: Book::decode(&content),
        })
    }
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> FileIdentity {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        FileIdentity([
            i128::from(metadata.dev()),
            i128::from(metadata.ino()),
            i128::from(metadata.len()),
            nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        ])
    }
}

/// The invite with this digest. Looks at every invite, and at every byte of each.
fn find_invite(book: &Book, digest: &[u8; 32]) -> Option<usize> {
    let mut found = 0u32;
    for (number, invite) in (1u32..).zip(&book.invites) {
        found.conditional_assign(&number, invite.secret_sha256.ct_eq(digest));
    }
    (found as usize).checked_sub(1)
}

/// Adds `rights` to what the device has; answers with the sum.
fn grant(
    book: &mut Book,
    device: &DeviceId,
    name: &str,
    share: &ShareName,
    rights: Rights,
    now: u64,
) -> Result<Rights, StateError> {
    let remedy = "revoke some that are not needed any more";
    if !book.devices.contains_key(device) {
        check_room("paired devices", book.devices.len(), DEVICES_MAX, remedy)?;
    }
    let peer = book.devices.entry(*device).or_insert_with(|| Peer {
        name: String::new(),
        paired_at: now,
        last_seen: None,
        shares: Vec::new(),
    });
    peer.name = display_name(name);
    if let Some((_, held)) = peer.shares.iter_mut().find(|(held, _)| held == share) {
        *held = held.union(rights);
        return Ok(*held);
    }
    check_room(
        "shares for this device",
        peer.shares.len(),
        SHARES_PER_DEVICE_MAX,
        remedy,
    )?;
    peer.shares.push((share.clone(), rights));
    Ok(rights)
}

fn check_room(what: &'static str, count: usize, max: usize, remedy: &'static str) -> Result<(), StateError> {
    if count < max {
        return Ok(());
    }
    Err(StateError::Full { what, max, remedy })
}

fn digest(secret: &Secret) -> [u8; 32] {
    Sha256::digest(secret.0).into()
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |duration| duration.as_secs())
}

#[cfg(test)]
#[path = "trust_tests.rs"]
mod tests;
