//! How many descriptors this process may have.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// So many; `None` is as many as the system allows.
pub fn limit_descriptors(limit: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let changed = Rlimit {
        current: limit.or(maximum),
        maximum,
    };
    setrlimit(Resource::Nofile, changed).unwrap();
}
