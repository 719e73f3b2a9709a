//! Syncline moves and syncs files between machines: encrypted, verified, durable, on one thread.
//!
//! This is the engine as a library. The binary `syncline` is a thin user of it (`src/cli/`), and can
//! do nothing that a host cannot do through this crate.
//!
//! # The two values that a host holds
//! - [`Server`] serves folders. [`Server::bind`] opens them, then the host calls [`Server::poll`].
//! - [`Client`] carries out one [`Job`]: a push, a pull, or a question for the server's status.
//!   [`Client::start`] checks it, then the host calls [`Client::poll`] until [`ClientEvent::Finished`].
//!
//! Neither starts a runtime. Each has one helper thread that makes files durable and holds no state;
//! all else happens on the thread that polls. `poll(None)` waits, `poll(Some(Duration::ZERO))` does
//! what is to do and returns. For a host with a loop of its own, both implement
//! [`AsFd`](std::os::fd::AsFd): the descriptor is readable when there is something to do, and
//! [`Server::next_deadline`] says when to poll if it stays silent.
//!
//! # Example
//! A server and a client in one thread, polled in turn, over plain TCP on loopback:
//! ```
//! use std::time::Duration;
//! use syncline::model::{Link, Rights, ShareName};
//! use syncline::{
//!     Client, ClientEvent, ClientOptions, Job, Server, ServerOptions, ShareOptions, Source, TransferOptions,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let place = tempfile::tempdir()?;
//! let (share, source) = (place.path().join("share"), place.path().join("notes"));
//! std::fs::create_dir(&share)?;
//! std::fs::create_dir(&source)?;
//! std::fs::write(source.join("hello.txt"), "hello")?;
//!
//! let served = ShareOptions {
//!     name: ShareName::parse("Share")?,
//!     path: share.clone(),
//!     open: Rights::READ_WRITE, // for anyone who reaches the address; Rights::NONE asks for pairing
//! };
//! let mut server = Server::bind(&ServerOptions {
//!     listen: vec!["127.0.0.1:0".parse()?],
//!     plain: true, // without TLS: for loopback
//!     ..ServerOptions::new(place.path().join("server-home"), vec![served])
//! })?;
//! let target: Link = format!("syncline://{}/Share", server.listen_addrs()[0]).parse()?;
//!
//! let options = ClientOptions {
//!     plain: true,
//!     ..ClientOptions::new(place.path().join("client-home"))
//! };
//! let sources = vec![Source { path: source, contents_only: false }];
//! let mut client = Client::start(options, Job::Push { sources, target }, TransferOptions::default())?;
//!
//! let outcome = 'running: loop {
//!     server.poll(Some(Duration::from_millis(1)))?;
//!     for event in client.poll(Some(Duration::from_millis(1)))? {
//!         if let ClientEvent::Finished(outcome) = event {
//!             break 'running outcome;
//!         }
//!     }
//! };
//! outcome.result?;
//! assert_eq!((outcome.summary.files, outcome.summary.failed), (1, 0));
//! assert_eq!(std::fs::read(share.join("notes/hello.txt"))?, b"hello");
//! # Ok(())
//! # }
//! ```
//! With pairing instead of `open`: [`store::Home::trust`] makes an invite, whose secret goes into the
//! link after the server's [`Server::device`] (see [`model::Link`]).
//!
//! # The map
//! A module imports only from the layers above its line in this table; `tests/layers.rs` checks it.
//!
//! | layer | module | owns |
//! |---|---|---|
//! | 0 | [`model`] | the words: paths, content ids, entries, identities, links, limits, codes |
//! | 1 | [`wire`] | bytes to messages and back |
//! | 1 | [`delta`] | the content tree |
//! | 2 | [`conn`] | the machines of a connection: session, sender, receiver; no I/O, no clock |
//! | 2 | [`store`] | everything that touches files |
//! | 2 | [`reactor`] | the poll loop: sockets, TLS, timers, the helper thread |
//! | 2 | [`sync`] | base, local and remote to a plan: conflicts, moves, the brake; no I/O, no clock |
//! | 2 | [`web`] | HTTP requests and answers, the text of metrics; no I/O, no clock |
//! | 3 | [`node`] | where they meet: server, client, the group commit |
//!
//! The life of a file through these modules is told in `docs/ARCHITECTURE.md`, the protocol in
//! `docs/PROTOCOL.md`, the files on disk in `docs/FORMAT.md`.
//!
//! # Features
//! `tls` (on by default): encrypted connections and pairing; without it only `plain` works.
//! `zstd` (on by default): compression of what travels. `sync` (on by default): folders in sync, and the index
//! of a share. `progress` and `tools` (on by default) are of the command line: its bar, and some of its commands.

#[cfg(doctest)]
#[doc = include_str!("../docs/EMBEDDING.md")]
struct Embedding;

pub mod conn;
pub mod delta;
pub mod model;
pub mod node;
pub mod reactor;
pub mod store;
pub mod sync;
pub mod web;
pub mod wire;

pub use node::{
    Action, Client, ClientEvent, ClientOptions, Durability, FilterRule, Job, JobError, Mapping, MaxDelete, Outcome,
    Progress, Server, ServerError, ServerEvent, ServerOptions, ShareOptions, Source, Summary, TransferOptions,
};
