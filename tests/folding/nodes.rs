//! Files, directories and links in memory, and what the kernel asks of them.

use super::WRITE_BYTES_MAX;
use super::wire::{Out, Request};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub enum Answer {
    Nothing,
    Bytes(Vec<u8>),
    Failed(Errno),
}

/// By key: the name as it was made, and its node.
type Names = BTreeMap<Vec<u8>, (Vec<u8>, u64)>;

enum What {
    Directory(Names),
    File(Vec<u8>),
    Link(Vec<u8>),
}

struct Node {
    what: What,
    mode: u32,
    links: u32,
    /// Accessed, modified, changed.
    times: [Duration; 3],
}

pub struct Nodes {
    nodes: HashMap<u64, Node>,
    next: u64,
}

const ROOT: u64 = 1;
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// What all spellings of a name have in common. Enough letters for tests.
fn key(name: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(name) else {
        return name.to_vec();
    };
    let mut key = text.to_lowercase().replace('\u{17f}', "s");
    for (whole, parts) in [
        ("é", "e\u{301}"),
        ("ä", "a\u{308}"),
        ("ö", "o\u{308}"),
        ("ü", "u\u{308}"),
    ] {
        key = key.replace(whole, parts);
    }
    key.into_bytes()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

type Result<T> = std::result::Result<T, Errno>;

impl Nodes {
    pub fn new() -> Nodes {
        let mut nodes = Nodes {
            nodes: HashMap::new(),
            next: ROOT,
        };
        nodes.add(What::Directory(BTreeMap::new()), DIRECTORY | 0o755);
        nodes
    }

    pub fn handle(&mut self, request: &Request<'_>) -> Answer {
        // Forget, BatchForget, Interrupt, Destroy: nobody waits for an answer, or nothing is to be done.
        if matches!(request.opcode, 2 | 42 | 36) {
            return Answer::Nothing;
        }
        match self.answer(request) {
            Ok(out) => Answer::Bytes(out.0),
            Err(errno) => Answer::Failed(errno),
        }
    }

    fn answer(&mut self, request: &Request<'_>) -> Result<Out> {
        let (at, out) = (request.node, Out::default());
        match request.opcode {
            1 => {
                let found = self.find(at, &request.name(0))?;
                Ok(self.entry(found))
            }
            3 => Ok(self.attributes(at)),
            4 => self.set_attributes(request),
            5 => match &self.node(at)?.what {
                What::Link(target) => Ok(out.bytes(target)),
                _ => Err(Errno::INVAL),
            },
            6 => {
                let names = request.names(0);
                self.make(at, &names[0], What::Link(names[1].clone()), LINK | 0o777)
            }
            8 => self.make(at, &request.name(16), What::File(Vec::new()), request.u32(0)),
            9 => {
                let mode = DIRECTORY | request.u32(0) & !request.u32(4);
                self.make(at, &request.name(8), What::Directory(BTreeMap::new()), mode)
            }
            10 | 11 => self.remove(at, &request.name(0), request.opcode == 11),
            12 | 45 => self.rename(request),
            13 => self.link(request.u64(0), at, &request.name(8)),
            14 | 27 => Ok(out.u64(0).u64(0)),
            15 => self.read(at, request.u64(8), request.u32(16)),
            16 => self.write(request),
            17 => {
                let blocks = out.u64(1 << 20).u64(1 << 19).u64(1 << 19).u64(1 << 20).u64(1 << 19);
                Ok(blocks.u32(4096).u32(255).u32(4096).bytes(&[0; 28]))
            }
            18 | 20 | 25 | 29 | 30 | 38 => Ok(out),
            26 => Ok(Nodes::greet()),
            28 => self.list(at, request.u64(8), request.u32(16)),
            35 => {
                let made = self.make(at, &request.name(16), What::File(Vec::new()), request.u32(4))?;
                Ok(made.u64(0).u64(0))
            }
            43 => self.allocate(request),
            _ => Err(Errno::NOSYS),
        }
    }

    fn greet() -> Out {
        let sizes = Out::default().u32(7).u32(31).u32(65_536).u32(0).u16(16).u16(12);
        let sizes = sizes.u32(u32::try_from(WRITE_BYTES_MAX).unwrap()).u32(1).u16(32).u16(0);
        sizes.bytes(&[0; 32])
    }

    fn add(&mut self, what: What, mode: u32) -> u64 {
        let number = self.next;
        self.next += 1;
        let links = if matches!(what, What::Directory(_)) { 2 } else { 1 };
        let node = Node {
            what,
            mode,
            links,
            times: [now(); 3],
        };
        self.nodes.insert(number, node);
        number
    }

    fn node(&mut self, at: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&at).ok_or(Errno::NOENT)
    }

    fn names(&mut self, at: u64) -> Result<&mut Names> {
        match &mut self.node(at)?.what {
            What::Directory(names) => Ok(names),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn find(&mut self, at: u64, name: &[u8]) -> Result<u64> {
        self.names(at)?
            .get(&key(name))
            .map(|(_, node)| *node)
            .ok_or(Errno::NOENT)
    }

    fn touch(&mut self, at: u64) -> Result<()> {
        let node = self.node(at)?;
        (node.times[1], node.times[2]) = (now(), now());
        Ok(())
    }

    fn make(&mut self, at: u64, name: &[u8], what: What, mode: u32) -> Result<Out> {
        if self.names(at)?.contains_key(&key(name)) {
            return Err(Errno::EXIST);
        }
        let node = self.add(what, mode);
        self.names(at)?.insert(key(name), (name.to_vec(), node));
        self.touch(at)?;
        Ok(self.entry(node))
    }

    fn link(&mut self, node: u64, at: u64, name: &[u8]) -> Result<Out> {
        if self.names(at)?.contains_key(&key(name)) {
            return Err(Errno::EXIST);
        }
        self.names(at)?.insert(key(name), (name.to_vec(), node));
        self.node(node)?.links += 1;
        self.touch(at)?;
        Ok(self.entry(node))
    }

    fn is_empty(&self, at: u64) -> bool {
        !matches!(&self.nodes[&at].what, What::Directory(names) if !names.is_empty())
    }

    fn remove(&mut self, at: u64, name: &[u8], directory: bool) -> Result<Out> {
        let node = self.find(at, name)?;
        let is_directory = matches!(self.node(node)?.what, What::Directory(_));
        match (directory, is_directory) {
            (true, false) => return Err(Errno::NOTDIR),
            (false, true) => return Err(Errno::ISDIR),
            (true, true) if !self.is_empty(node) => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.names(at)?.remove(&key(name));
        self.unlink(node)?;
        self.touch(at)?;
        Ok(Out::default())
    }

    fn unlink(&mut self, node: u64) -> Result<()> {
        let node = self.node(node)?;
        node.times[2] = now();
        node.links -= if matches!(node.what, What::Directory(_)) { 2 } else { 1 };
        Ok(())
    }

    fn rename(&mut self, request: &Request<'_>) -> Result<Out> {
        let (behind, flags) = match request.opcode {
            45 => (16, request.u32(8)),
            _ => (8, 0),
        };
        let (from, to, names) = (request.node, request.u64(0), request.names(behind));
        let (old, new) = (&names[0], &names[1]);
        let node = self.find(from, old)?;
        let present = self.find(to, new).ok();
        match (flags, present) {
            (0 | 1, None) => {}
            (1, Some(_)) => return Err(Errno::EXIST),
            (2, None) => return Err(Errno::NOENT),
            (2, Some(other)) => {
                // Each name keeps its spelling.
                self.names(from)?.get_mut(&key(old)).unwrap().1 = other;
                self.names(to)?.get_mut(&key(new)).unwrap().1 = node;
                for at in [node, other] {
                    self.node(at)?.times[2] = now();
                }
                return Ok(Out::default());
            }
            (0, Some(other)) if other == node => return Ok(Out::default()),
            (0, Some(other)) => {
                if !self.is_empty(other) {
                    return Err(Errno::NOTEMPTY);
                }
                self.names(to)?.remove(&key(new));
                self.unlink(other)?;
            }
            _ => return Err(Errno::INVAL),
        }
        self.names(from)?.remove(&key(old));
        self.names(to)?.insert(key(new), (new.clone(), node));
        self.node(node)?.times[2] = now();
        self.touch(from)?;
        self.touch(to)?;
        Ok(Out::default())
    }

    fn read(&mut self, at: u64, offset: u64, length: u32) -> Result<Out> {
        let What::File(content) = &self.node(at)?.what else {
            return Err(Errno::ISDIR);
        };
        let from = usize::try_from(offset).unwrap().min(content.len());
        let to = (from + length as usize).min(content.len());
        Ok(Out::default().bytes(&content[from..to]))
    }

    fn write(&mut self, request: &Request<'_>) -> Result<Out> {
        let (offset, length) = (usize::try_from(request.u64(8)).unwrap(), request.u32(16));
        let bytes = request.bytes(40, length as usize);
        let at = request.node;
        let What::File(content) = &mut self.node(at)?.what else {
            return Err(Errno::ISDIR);
        };
        content.resize(content.len().max(offset + bytes.len()), 0);
        content[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.touch(at)?;
        Ok(Out::default().u32(length).u32(0))
    }

    fn allocate(&mut self, request: &Request<'_>) -> Result<Out> {
        let end = usize::try_from(request.u64(8) + request.u64(16)).unwrap();
        let mode = request.u32(24);
        if mode & !1 != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        if let (0, What::File(content)) = (mode, &mut self.node(request.node)?.what) {
            content.resize(content.len().max(end), 0);
        }
        Ok(Out::default())
    }

    fn set_attributes(&mut self, request: &Request<'_>) -> Result<Out> {
        let valid = request.u32(0);
        let time = |seconds: usize, nanos: usize| Duration::new(request.u64(seconds), request.u32(nanos));
        let node = self.node(request.node)?;
        if valid & 1 != 0 {
            node.mode = node.mode & !0o7777 | request.u32(68) & 0o7777;
        }
        if let (true, What::File(content)) = (valid & 8 != 0, &mut node.what) {
            content.resize(usize::try_from(request.u64(16)).unwrap(), 0);
            node.times[1] = now();
        }
        for (bit, now_bit, number, at) in [(16, 128, 0, (32, 56)), (32, 256, 1, (40, 60))] {
            if valid & now_bit != 0 {
                node.times[number] = now();
            } else if valid & bit != 0 {
                node.times[number] = time(at.0, at.1);
            }
        }
        node.times[2] = now();
        Ok(self.attributes(request.node))
    }

    fn list(&mut self, at: u64, offset: u64, length: u32) -> Result<Out> {
        let names = self.names(at)?;
        let own = [(b".".to_vec(), at), (b"..".to_vec(), at)];
        let all: Vec<(Vec<u8>, u64)> = own.into_iter().chain(names.values().cloned()).collect();
        let mut out = Out::default();
        for (number, (name, node)) in (1_u64..).zip(all).skip(usize::try_from(offset).unwrap()) {
            let bytes = 24 + name.len().next_multiple_of(8);
            if out.0.len() + bytes > length as usize {
                break;
            }
            let kind = self.nodes[&node].mode >> 12;
            out = out.u64(node).u64(number).u32(u32::try_from(name.len()).unwrap());
            out = out.u32(kind).bytes(&name);
            out.0.resize(out.0.len().next_multiple_of(8), 0);
        }
        Ok(out)
    }

    /// A name that was found or made; nothing of it may be remembered.
    fn entry(&mut self, node: u64) -> Out {
        let head = Out::default().u64(node).u64(0).u64(0).u64(0).u32(0).u32(0);
        self.attributes_behind(head, node)
    }

    fn attributes(&mut self, node: u64) -> Out {
        self.attributes_behind(Out::default().u64(0).u32(0).u32(0), node)
    }

    fn attributes_behind(&mut self, out: Out, number: u64) -> Out {
        let Some(node) = self.nodes.get(&number) else {
            return out.bytes(&[0; 88]);
        };
        let size = match &node.what {
            What::File(bytes) | What::Link(bytes) => bytes.len() as u64,
            What::Directory(_) => 4096,
        };
        let mut out = out.u64(number).u64(size).u64(size.div_ceil(512));
        for time in node.times {
            out = out.u64(time.as_secs());
        }
        for time in node.times {
            out = out.u32(time.subsec_nanos());
        }
        let out = out.u32(node.mode).u32(node.links).u32(0).u32(0).u32(0);
        out.u32(4096).u32(0)
    }
}
