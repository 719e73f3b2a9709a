//! Who is at a connection of a server: a device that syncs, or an HTTP client; and what the latter is answered.
//!
//! The first is dealt with in `server_node`, whose handler is called through here; so the stages of connections
//! are counted in one place, too. Never lets an HTTP client reach a share. Invariant: at most
//! [`HTTP_CONNECTIONS_MAX`] connections are HTTP, and each is answered in bounded work and memory.

use super::metrics;
use super::peer::Peer;
use super::server_node::{Draining, ServerNode};
use super::tally::{BrokenOff, Stage};
use crate::model::limits::{HTTP_CONNECTIONS_MAX, HTTP_PIPELINED_MAX};
use crate::model::{DeviceId, Tick, escape};
use crate::reactor::{Activity, Closed, ConnId, Context, Handler, Shared};
use crate::web::{EXPOSITION_CONTENT_TYPE, Hosts, Machine, Request, Response, Status};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

/// The machine of one connection, as it lies in the reactor's slab.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are the large one; a box would only add to it"
)]
pub(super) enum Guest {
    /// It speaks our protocol.
    Sync { peer: Peer, stage: Stage },
    /// It speaks HTTP.
    Web(Box<WebGuest>),
}

/// An HTTP client.
pub(super) struct WebGuest {
    machine: Machine,
    /// Until when it has to complete what it began.
    owes_until: Option<Tick>,
}

/// The HTTP side of a server.
#[derive(Debug, Default)]
pub(super) struct Web {
    /// The listener for it, and what it may be called.
    listener: Option<(usize, Hosts)>,
    /// Who is there, the oldest first.
    guests: VecDeque<ConnId>,
}

impl Guest {
    /// The connection's session; an HTTP client has none.
    pub(super) fn peer(&mut self) -> Option<&mut Peer> {
        match self {
            Guest::Sync { peer, .. } => Some(peer),
            Guest::Web(_) => None,
        }
    }
}

impl Web {
    /// With the listener that has this number and address.
    pub(super) fn listening(index: usize, address: SocketAddr) -> Web {
        Web {
            listener: Some((index, Hosts::of(address))),
            guests: VecDeque::new(),
        }
    }

    /// HTTP connections that are open.
    pub(super) fn connections(&self) -> usize {
        self.guests.len()
    }

    /// Somebody came to the listener for HTTP; the oldest gives way when there are too many, so that whoever only
    /// sits there keeps nobody out.
    fn admit(&mut self, shared: &mut Shared, id: ConnId, hosts: Hosts) -> Guest {
        if self.guests.len() >= HTTP_CONNECTIONS_MAX
            && let Some(oldest) = self.guests.pop_front()
        {
            shared.close(oldest);
        }
        self.guests.push_back(id);
        Guest::Web(Box::new(WebGuest {
            machine: Machine::new(hosts),
            owes_until: None,
        }))
    }
}

impl Handler<Guest> for ServerNode {
    fn accepted(&mut self, shared: &mut Shared, listener: usize, id: ConnId, from: SocketAddr) -> Option<Guest> {
        if let Some((_, hosts)) = self.web.listener.filter(|(index, _)| *index == listener) {
            return Some(self.web.admit(shared, id, hosts));
        }
        let peer = Handler::<Peer>::accepted(self, shared, listener, id, from)?;
        let stage = Stage::Handshaking;
        self.tally.came(stage);
        Some(Guest::Sync { peer, stage })
    }

    fn established(&mut self, cx: &mut Context<'_>, guest: &mut Guest, device: Option<DeviceId>) {
        match guest {
            Guest::Sync { peer, stage } => {
                Handler::<Peer>::established(self, cx, peer, device);
                self.tally.moved(stage, Stage::of(&peer.session));
            }
            Guest::Web(web) => self.expect_more(cx, web, Owes::Request),
        }
    }

    fn may_read(&mut self, shared: &mut Shared, id: ConnId, guest: &mut Guest) -> usize {
        match guest {
            Guest::Sync { peer, .. } => Handler::<Peer>::may_read(self, shared, id, peer),
            Guest::Web(_) => usize::MAX,
        }
    }

    fn received(&mut self, cx: &mut Context<'_>, guest: &mut Guest, bytes: &[u8]) {
        match guest {
            Guest::Sync { peer, stage } => {
                Handler::<Peer>::received(self, cx, peer, bytes);
                self.tally.moved(stage, Stage::of(&peer.session));
            }
            Guest::Web(web) => self.answer_all(cx, web, bytes),
        }
    }

    fn ready(&mut self, cx: &mut Context<'_>, guest: &mut Guest) -> Activity {
        match guest {
            Guest::Sync { peer, stage } => {
                let activity = Handler::<Peer>::ready(self, cx, peer);
                self.tally.moved(stage, Stage::of(&peer.session));
                activity
            }
            Guest::Web(_) => Activity::Idle,
        }
    }

    fn deadline(&mut self, cx: &mut Context<'_>, guest: &mut Guest) {
        match guest {
            Guest::Sync { peer, stage } => {
                Handler::<Peer>::deadline(self, cx, peer);
                self.tally.moved(stage, Stage::of(&peer.session));
            }
            Guest::Web(_) => cx.abort(),
        }
    }

    fn closed(&mut self, shared: &mut Shared, id: ConnId, guest: Guest, why: Closed) {
        match guest {
            Guest::Sync { peer, stage } => {
                self.tally.went(stage);
                Handler::<Peer>::closed(self, shared, id, peer, why);
            }
            Guest::Web(_) => self.web.guests.retain(|guest| *guest != id),
        }
    }

    fn durable(&mut self, shared: &mut Shared, ticket: u64, result: io::Result<()>) {
        Handler::<Peer>::durable(self, shared, ticket, result);
    }

    fn watched(&mut self, shared: &mut Shared, key: u64) -> Activity {
        Handler::<Peer>::watched(self, shared, key)
    }

    fn signal(&mut self, shared: &mut Shared, signal: i32) {
        Handler::<Peer>::signal(self, shared, signal);
    }

    fn timer(&mut self, shared: &mut Shared, key: u64) {
        Handler::<Peer>::timer(self, shared, key);
    }
}

/// What an HTTP client is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owes {
    /// The request that it came for, or the rest of one that it began.
    Request,
    /// Nothing; it may ask again.
    Nothing,
}

impl ServerNode {
    /// Answers what is asked, up to a bound; whoever asks for more at once, or does not read, is asked to come again.
    fn answer_all(&mut self, cx: &mut Context<'_>, web: &mut WebGuest, bytes: &[u8]) {
        let mut rest = bytes;
        let mut answered = 0;
        while let Some(request) = web.machine.next(&mut rest) {
            answered += 1;
            let response = self.answer(&request);
            if answered == HTTP_PIPELINED_MAX || cx.room() == 0 {
                web.machine.wind_up();
            }
            web.machine.respond(&response);
            cx.send_owned(web.machine.take_output());
        }
        cx.send_owned(web.machine.take_output());
        if web.machine.is_over() {
            return cx.close_after_flush();
        }
        let owes = if web.machine.is_amid_head() {
            Owes::Request
        } else {
            Owes::Nothing
        };
        self.expect_more(cx, web, owes);
    }

    /// Sets the deadline: a request that was begun has to be complete within the time of a handshake, however its
    /// bytes trickle in.
    fn expect_more(&self, cx: &mut Context<'_>, web: &mut WebGuest, owes: Owes) {
        let until = match owes {
            Owes::Request => *web.owes_until.get_or_insert(cx.now() + self.deadlines.handshake_ms),
            Owes::Nothing => {
                web.owes_until = None;
                cx.now() + self.deadlines.idle_ms
            }
        };
        cx.set_deadline(Some(until));
    }

    fn answer(&self, request: &Request) -> Response {
        match request.path() {
            "/metrics" => {
                let text = metrics::exposition(&self.snapshot());
                Response::new(Status::Ok, EXPOSITION_CONTENT_TYPE, text.into_bytes())
            }
            "/healthz" => match self.ailment() {
                None => Response::text(Status::Ok, "ok\n"),
                Some(reason) => Response::text(Status::Unavailable, &format!("{reason}\n")),
            },
            _ => Response::text(Status::NotFound, "there is nothing here but /metrics and /healthz\n"),
        }
    }

    /// Why nobody should be sent here.
    fn ailment(&self) -> Option<String> {
        if self.draining != Draining::No {
            return Some("draining: what runs is finished, nothing new begins".to_owned());
        }
        let damaged = self.shares.iter().find(|share| share.is_damaged)?;
        let name = escape(damaged.name.as_str().as_bytes());
        Some(format!("the share \"{name}\" is read-only: its journal is damaged"))
    }

    /// A connection is gone whose session had not come to its end, if it had one.
    pub(super) fn note_end(&mut self, peer: &mut Peer) {
        let session = &mut peer.session;
        let runs = session.transfer.is_some();
        let how = session.broken_off.or(runs.then_some(BrokenOff::Lost));
        self.log_break(session, how);
        let Some(how) = how else { return };
        self.tally.broke_off(how);
        if let Some(index) = session.share {
            let (summary, failures) = session.ledger.take_figures();
            self.shares[index].totals.add_broken(&summary, &failures);
        }
    }
}
