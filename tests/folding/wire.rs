//! The kernel's messages, byte by byte; numbers are little endian here, as the machines are that tests run on.

use rustix::io::Errno;

pub struct Request<'a> {
    pub opcode: u32,
    pub unique: u64,
    pub node: u64,
    body: &'a [u8],
}

const HEAD_BYTES: usize = 40;

impl<'a> Request<'a> {
    pub fn parse(bytes: &'a [u8]) -> Request<'a> {
        let head = Request {
            opcode: 0,
            unique: 0,
            node: 0,
            body: bytes,
        };
        Request {
            opcode: head.u32(4),
            unique: head.u64(8),
            node: head.u64(16),
            body: &bytes[HEAD_BYTES..],
        }
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.body[at..at + 4].try_into().unwrap())
    }

    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.body[at..at + 8].try_into().unwrap())
    }

    pub fn bytes(&self, at: usize, length: usize) -> &'a [u8] {
        &self.body[at..at + length]
    }

    /// Names behind `at`, each ended by a zero.
    pub fn names(&self, at: usize) -> Vec<Vec<u8>> {
        let names = self.body[at..].split(|&byte| byte == 0);
        names.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
    }

    pub fn name(&self, at: usize) -> Vec<u8> {
        self.names(at).remove(0)
    }
}

pub fn reply(unique: u64, result: Result<&[u8], Errno>) -> Vec<u8> {
    let (error, bytes) = match result {
        Ok(bytes) => (0, bytes),
        Err(errno) => (-errno.raw_os_error(), &b""[..]),
    };
    let mut out = Vec::with_capacity(16 + bytes.len());
    out.extend(u32::try_from(16 + bytes.len()).unwrap().to_le_bytes());
    out.extend(error.to_le_bytes());
    out.extend(unique.to_le_bytes());
    out.extend(bytes);
    out
}

/// Numbers one behind the other.
#[derive(Default)]
pub struct Out(pub Vec<u8>);

impl Out {
    pub fn u16(mut self, number: u16) -> Out {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub fn u32(mut self, number: u32) -> Out {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub fn u64(mut self, number: u64) -> Out {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Out {
        self.0.extend(bytes);
        self
    }
}
