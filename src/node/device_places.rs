//! The places that devices have of their own in the shares of a server that keeps them apart: which directory is
//! whose, and which of them are open.
//!
//! A device's place is a directory at the top of the share, with a `.syncline` of its own: journal, versions and
//! index know only what is in it. Never decides who may come in. Invariant: a session of a device that is confined
//! gets the root of its own directory from [`ServerNode::place_of`], or nothing; no other root is in its reach, so
//! that no path leads out.

use super::peer::Session;
use super::place::{Opening, Place};
use super::server_node::ServerNode;
use crate::model::{CloseCode, DeviceId, Fault, ItemCode, RelPath, Right};
use crate::store::{
    FileError, LockError, MadeDirectory, Root, ShareLock, is_vacant, owned_directories, owner_of, set_owner,
};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// The places of devices, over all shares of a server.
#[derive(Debug)]
pub(super) struct DevicePlaces {
    opening: Opening,
    /// The directory of a device in a share.
    names: HashMap<(usize, DeviceId), RelPath>,
    open: BTreeMap<u64, OpenPlace>,
    next_key: u64,
}

/// A place that somebody uses, or did a moment ago.
#[derive(Debug)]
struct OpenPlace {
    share: usize,
    device: DeviceId,
    place: Rc<Place>,
    _lock: Option<ShareLock>,
    /// Sessions that are in it.
    users: usize,
    /// Looks since there was one.
    idle_looks: u32,
}

/// A place that is about to be closed, which happens when this is dropped.
#[derive(Debug)]
pub(super) struct ClosedPlace {
    key: u64,
    open: OpenPlace,
    name: RelPath,
}

impl ClosedPlace {
    /// What its watch goes by.
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    /// The share that it is in.
    pub(super) fn share(&self) -> usize {
        self.open.share
    }

    /// Its directory there.
    pub(super) fn name(&self) -> &RelPath {
        &self.name
    }

    /// Whether versions came in while it was open.
    pub(super) fn kept_versions(&self) -> bool {
        self.open
            .place
            .versions
            .as_ref()
            .is_some_and(|versions| versions.kept() > 0)
    }
}

/// Keys come round after so many places: long after what was done in the first of them.
const KEYS_MAX: u64 = 1 << 28;
/// Places that nobody has used at so many looks are closed. One that is used again soon is not opened anew.
const IDLE_LOOKS: u32 = 2;
/// Directories with a device's name that may belong to others.
const NAMES_MAX: u32 = 100;
/// Letters of a device's name that its directory is called by.
const NAME_CHARS_MAX: usize = 40;

impl DevicePlaces {
    /// None yet, for a server with so many shares.
    pub(super) fn new(opening: Opening, shares: usize) -> DevicePlaces {
        DevicePlaces {
            opening,
            names: HashMap::new(),
            open: BTreeMap::new(),
            next_key: shares as u64,
        }
    }

    /// Finds the places that devices have in a share, and tidies up in them after a run that ended in the middle of
    /// its work. Returns their directories.
    pub(super) fn discover(&mut self, share: usize, root: &Root) -> Result<Vec<RelPath>, FileError> {
        let mut found = Vec::new();
        for (name, device) in owned_directories(root)? {
            if let Some(first) = self.names.get(&(share, device)) {
                log::warn!(
                    "{name} and {first} are both the place of the device {}: the latter is used",
                    device.short()
                );
                continue;
            }
            match root.enter(&name).map(|root| Place::open(root, self.opening)) {
                Ok(Ok(opened)) => tell_damage(&opened.damage, &opened.place.root),
                Ok(Err(error)) => log::warn!("{name}: {error}"),
                Err(error) => log::warn!("{error}"),
            }
            self.names.insert((share, device), name.clone());
            found.push(name);
        }
        Ok(found)
    }

    /// All that are open, with the keys that their watches and jobs go by.
    pub(super) fn open(&self) -> impl Iterator<Item = (u64, &Rc<Place>)> {
        self.open.iter().map(|(key, open)| (*key, &open.place))
    }

    /// One of them.
    pub(super) fn get(&self, key: u64) -> Option<&Rc<Place>> {
        self.open.get(&key).map(|open| &open.place)
    }

    /// Enters the place of a device in the share with this number and root; makes it when there is none yet and
    /// `may_make`. The caller leaves it again.
    fn enter(
        &mut self,
        (share, root): (usize, &Root),
        (device, name): (&DeviceId, &str),
        may_make: bool,
    ) -> Result<u64, Fault> {
        let is_own = |open: &OpenPlace| (open.share, &open.device) == (share, device);
        // Who removed it wants a new one.
        let is_there = |open: &OpenPlace| matches!(open.place.root.is_gone(), Ok(false));
        let mut all = self.open.iter_mut();
        if let Some((key, open)) = all.find(|(_, open)| is_own(open) && is_there(open)) {
            open.users += 1;
            return Ok(*key);
        }
        let directory = match self.find(share, root, device).map_err(|error| unusable(&error))? {
            Some(directory) => directory,
            None if may_make => {
                let (path, directory) = make(root, device, name).map_err(|error| unusable(&error))?;
                log::info!("{path} is the place of {} from now on", device.short());
                self.names.insert((share, *device), path);
                directory
            }
            None => {
                return Err(Fault::new(
                    CloseCode::NotFound,
                    "this device has nothing in this share yet",
                ));
            }
        };
        let opened = Place::open(directory, self.opening).map_err(|error| match error {
            LockError::Held { holder } => {
                log::warn!(
                    "the place of {} is in use by another process ({holder})",
                    device.short()
                );
                Fault::new(CloseCode::Busy, "another process works on the place of this device")
            }
            error => {
                log::error!("the place of {}: {error}", device.short());
                fault()
            }
        })?;
        if opened.damage.is_some() {
            tell_damage(&opened.damage, &opened.place.root);
            return Err(fault());
        }
        let open = OpenPlace {
            share,
            device: *device,
            place: Rc::new(opened.place),
            _lock: opened.lock,
            users: 1,
            idle_looks: 0,
        };
        let key = self.new_key();
        self.open.insert(key, open);
        Ok(key)
    }

    /// The directory of a device, if it is there, and is still its own.
    fn find(&mut self, share: usize, root: &Root, device: &DeviceId) -> Result<Option<Root>, FileError> {
        let Some(name) = self.names.get(&(share, *device)) else {
            return Ok(None);
        };
        match root.enter(name) {
            Ok(directory) if owner_of(&directory)? == Some(*device) => Ok(Some(directory)),
            Ok(_) => Ok(None),
            Err(error) if error.code() == ItemCode::Vanished => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn new_key(&mut self) -> u64 {
        loop {
            let key = self.next_key;
            self.next_key = (key + 1) % KEYS_MAX;
            if !self.open.contains_key(&key) {
                return key;
            }
        }
    }

    /// A session has left.
    fn leave(&mut self, key: u64) {
        if let Some(open) = self.open.get_mut(&key) {
            open.users -= 1;
            open.idle_looks = 0;
        }
    }

    /// Closes what nobody has used for a while and no work holds. To be called now and then.
    pub(super) fn close_unused(&mut self) -> Vec<ClosedPlace> {
        let mut doomed = Vec::new();
        for (key, open) in &mut self.open {
            if open.users == 0 && Rc::strong_count(&open.place) == 1 {
                open.idle_looks += 1;
                doomed.extend((open.idle_looks >= IDLE_LOOKS).then_some(*key));
            }
        }
        let mut closed = Vec::with_capacity(doomed.len());
        for key in doomed {
            if let Some(open) = self.open.remove(&key)
                && let Some(name) = self.names.get(&(open.share, open.device)).cloned()
            {
                closed.push(ClosedPlace { key, open, name });
            }
        }
        closed
    }
}

/// Makes a directory for a device whose name is `name`.
fn make(root: &Root, device: &DeviceId, name: &str) -> Result<(RelPath, Root), FileError> {
    let stem = format!("{}-{}", name_part(name), device.short());
    let mut last = None;
    for count in 1..=NAMES_MAX {
        let name = if count == 1 {
            stem.clone()
        } else {
            format!("{stem}-{count}")
        };
        let path = RelPath::parse(name.as_bytes()).expect("letters, digits and hyphens make a path");
        match root.make_directory(&path) {
            Ok(MadeDirectory::Created) => {}
            // What a user put there is nobody's place, nor is that of a device with the same short id.
            Ok(MadeDirectory::Existed) => {
                let directory = root.enter(&path)?;
                if owner_of(&directory)?.is_some_and(|owner| owner != *device) || !is_vacant(&directory)? {
                    continue;
                }
            }
            Err(error) if error.code() == ItemCode::InTheWay => {
                last = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        }
        let directory = root.enter(&path)?;
        set_owner(root, &directory, device)?;
        return Ok((path, directory));
    }
    Err(last.unwrap_or_else(|| {
        FileError::found(
            crate::store::Operation::MakeDirectory,
            stem.as_bytes(),
            ItemCode::InTheWay,
        )
    }))
}

/// What of a device's name may stand in the name of a file: letters, digits, `-`, `_` and `.`, some of each at most.
pub(super) fn name_part(device: &str) -> String {
    let legal = |letter: char| {
        if letter.is_alphanumeric() || "-_.".contains(letter) {
            letter
        } else {
            '-'
        }
    };
    let name: String = device.chars().map(legal).take(NAME_CHARS_MAX).collect();
    // A leading dot would hide it.
    let name = name.trim_start_matches(['.', '-']);
    if name.is_empty() {
        "device".to_owned()
    } else {
        name.to_owned()
    }
}

fn tell_damage(damage: &Option<crate::store::JournalError>, root: &Root) {
    if let Some(error) = damage {
        let path = root.path().display();
        log::error!("{path} is not served: {error}; stop the server and run: syncline doctor --repair {path}");
    }
}

fn unusable(error: &FileError) -> Fault {
    log::error!("the place of a device cannot be used: {error}");
    fault()
}

/// Nobody outside learns why.
fn fault() -> Fault {
    let text = "the place of this device cannot be used; its server's log says why";
    Fault::new(CloseCode::Internal, text)
}

impl ServerNode {
    /// The place that all paths of a session are of, and its key: the share, or what the device has of its own in it.
    /// This is the one way to a place for whatever a client asks.
    pub(super) fn place_of(&mut self, session: &mut Session) -> Result<(u64, Rc<Place>), Fault> {
        let Some(index) = session.share else {
            return Err(Fault::protocol("a request without a share"));
        };
        let share = &self.shares[index];
        let Some(places) = &mut self.device_places else {
            return Ok((index as u64, Rc::clone(&share.place)));
        };
        let Some(device) = session.device else {
            let text = "this server keeps devices apart, and this one did not say who it is";
            return Err(Fault::new(CloseCode::Forbidden, text));
        };
        // The machine that has the share sees all of it.
        if Some(device) == self.access.own() {
            return Ok((index as u64, Rc::clone(&share.place)));
        }
        let key = match session.place {
            Some(key) => key,
            None => {
                let may_make = session.machine.rights().allow(Right::Write) && share.read_only.is_none();
                let who = (&device, session.machine.peer_name());
                places.enter((index, &share.place.root), who, may_make)?
            }
        };
        session.place = Some(key);
        let place = places.get(key).expect("a place is open as long as a session is in it");
        Ok((key, Rc::clone(place)))
    }

    /// The session does nothing in its place any more.
    pub(super) fn leave_place(&mut self, session: &mut Session) {
        if let (Some(key), Some(places)) = (session.place.take(), &mut self.device_places) {
            places.leave(key);
        }
    }

    /// All places that are open, with their keys.
    pub(super) fn places(&self) -> impl Iterator<Item = (u64, &Rc<Place>)> {
        let shares = self.shares.iter().enumerate();
        let own = self.device_places.iter().flat_map(DevicePlaces::open);
        shares.map(|(key, share)| (key as u64, &share.place)).chain(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> DevicePlaces {
        let opening = Opening {
            durability: crate::node::Durability::None,
            keeps_versions: true,
        };
        DevicePlaces::new(opening, 1)
    }

    fn enter(places: &mut DevicePlaces, root: &Root, id: u8, name: &str) -> Rc<Place> {
        let key = places.enter((0, root), (&DeviceId([id; 32]), name), true).unwrap();
        Rc::clone(places.get(key).unwrap())
    }

    fn name_of(place: &Place) -> String {
        place.root.path().file_name().unwrap().to_string_lossy().into_owned()
    }

    // Protects what a device has put somewhere: its place stays its own when its name changes, when the server starts
    // again, and when another device has the same name or the same short id.
    #[test]
    fn a_place_is_found_by_the_whole_id() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut first = places();
        let laptop = enter(&mut first, &root, 1, "laptop");
        assert_eq!(name_of(&laptop), format!("laptop-{}", DeviceId([1; 32]).short()));
        let other = enter(&mut first, &root, 2, "laptop");
        assert_ne!(name_of(&laptop), name_of(&other));
        let mut twin = [1; 32];
        twin[31] = 9;
        let key = first.enter((0, &root), (&DeviceId(twin), "laptop"), true).unwrap();
        assert_eq!(name_of(first.get(key).unwrap()), format!("{}-2", name_of(&laptop)));
        drop((laptop, other, first));
        let mut second = places();
        assert_eq!(second.discover(0, &root).unwrap().len(), 3);
        let renamed = enter(&mut second, &root, 1, "desktop");
        assert_eq!(name_of(&renamed), format!("laptop-{}", DeviceId([1; 32]).short()));
    }

    // Protects what users keep in a share: a directory of theirs is not given to a device, and a link leads nowhere.
    #[test]
    fn what_stands_there_already_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let stem = format!("laptop-{}", DeviceId([1; 32]).short());
        std::os::unix::fs::symlink(outside.path(), dir.path().join(&stem)).unwrap();
        std::fs::create_dir(dir.path().join(format!("{stem}-2"))).unwrap();
        std::fs::write(dir.path().join(format!("{stem}-2/mine")), "x").unwrap();
        let mut places = places();
        assert_eq!(name_of(&enter(&mut places, &root, 1, "laptop")), format!("{stem}-3"));
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    // Protects descriptors and locks: a place is closed when nobody is in it, and not before.
    #[test]
    fn a_place_is_closed_when_all_have_left() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let mut places = places();
        let device = DeviceId([1; 32]);
        let key = places.enter((0, &root), (&device, "a"), true).unwrap();
        assert_eq!(places.enter((0, &root), (&device, "a"), true), Ok(key));
        places.leave(key);
        let close = |places: &mut DevicePlaces| (0..3).map(|_| places.close_unused().len()).sum::<usize>();
        assert_eq!(close(&mut places), 0);
        places.leave(key);
        let held = Rc::clone(places.get(key).unwrap());
        assert_eq!(close(&mut places), 0);
        drop(held);
        assert_eq!(close(&mut places), 1);
        assert!(places.get(key).is_none());
        assert_ne!(places.enter((0, &root), (&device, "a"), true), Ok(key));
    }

    // Protects the share: whoever may not write leaves nothing in it, not even an empty directory.
    #[test]
    fn who_may_only_read_gets_no_place() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let refused = places().enter((0, &root), (&DeviceId([1; 32]), "a"), false);
        assert_eq!(refused.unwrap_err().code, CloseCode::NotFound);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_becomes_part_of_a_path() {
        for (name, part) in [
            ("laptop", "laptop"),
            ("../../etc", "etc"),
            ("my laptop\n", "my-laptop-"),
            ("..", "device"),
            ("", "device"),
            ("Büro", "Büro"),
        ] {
            assert_eq!(name_part(name), part);
        }
        assert_eq!(name_part(&"x".repeat(500)).len(), NAME_CHARS_MAX);
    }
}
