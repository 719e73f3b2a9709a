//! Owns what the clients do when something happens on their connections. It never connects.
//!
//! Invariant: after each callback all that the machine has to say is queued.

use crate::actor::{Link, Peer, Setup, Transfer};
use crate::attack;
use crate::fetching::Fetching;
use crate::fleet::{Fleet, PING_MS};
use crate::pushing::Pushing;
use crate::scenario::{Role, Work};
use std::io;
use std::net::SocketAddr;
use syncline::conn::Event;
use syncline::model::{CloseCode, DeviceId, Fault};
use syncline::reactor::{Activity, Closed, ConnId, Context, Handler, Shared};
use syncline::wire::{Finish, WireError};

impl Handler<Peer> for Fleet {
    fn accepted(&mut self, _shared: &mut Shared, _listener: usize, _id: ConnId, _peer: SocketAddr) -> Option<Peer> {
        None
    }

    fn established(&mut self, cx: &mut Context<'_>, peer: &mut Peer, _device: Option<DeviceId>) {
        peer.stands = true;
        self.tally.connected();
        if let Some(rate) = self.settings.client_rate {
            let limit = &mut self.actors[peer.actor as usize].limit;
            let limit = *limit.get_or_insert_with(|| cx.add_limit(Some(rate)));
            cx.limit(&[limit]);
        }
        if let Some(attack) = self.attack_of(peer)
            && attack::speaks_out_of_turn(attack)
        {
            return attack::established(attack, cx, peer, self.settings.plain);
        }
        cx.send_owned(peer.machine.take_output());
        self.watch(cx);
    }

    fn received(&mut self, cx: &mut Context<'_>, peer: &mut Peer, bytes: &[u8]) {
        if self.attack_of(peer).is_some_and(attack::speaks_out_of_turn) {
            // Only what the server says when it closes is of interest.
            let _ = self.receive(cx, peer, bytes);
            return self.note_bytes(cx, peer);
        }
        if let Err(fault) = self.receive(cx, peer, bytes) {
            peer.machine.close(&fault);
            // Told as this side's complaint, also for the books.
            peer.farewell = Some(Fault::new(fault.code, format!("what it said: {}", fault.text)));
            cx.send_owned(peer.machine.take_output());
            return cx.close_after_flush();
        }
        if self.step(cx, peer) == Activity::More {
            let id = cx.id();
            cx.wake(id);
        }
        if let Some(attack) = self.attack_of(peer) {
            attack::received(attack, cx, peer);
        }
        self.note_bytes(cx, peer);
    }

    fn ready(&mut self, cx: &mut Context<'_>, peer: &mut Peer) -> Activity {
        let activity = self.step(cx, peer);
        self.note_bytes(cx, peer);
        activity
    }

    fn deadline(&mut self, cx: &mut Context<'_>, peer: &mut Peer) {
        if let Some(attack) = self.attack_of(peer) {
            return attack::tick(attack, cx, peer);
        }
        let actor = &self.actors[peer.actor as usize];
        let waits = actor.current.is_some() || matches!(actor.link, Link::Opening(_));
        let moved = (cx.bytes_sent(), cx.bytes_received());
        if !waits {
            peer.machine.ping(1);
            cx.send_owned(peer.machine.take_output());
            let deadline = cx.now() + PING_MS;
            cx.set_deadline(Some(deadline));
        } else if moved == peer.moved {
            peer.timed_out = true;
            cx.abort();
        } else {
            self.note_bytes(cx, peer);
            self.watch(cx);
        }
    }

    fn closed(&mut self, _shared: &mut Shared, _id: ConnId, peer: Peer, why: Closed) {
        self.tally.open -= u64::from(peer.stands);
        self.lost(&peer, &why);
    }

    fn durable(&mut self, _shared: &mut Shared, _ticket: u64, _result: io::Result<()>) {}

    fn signal(&mut self, _shared: &mut Shared, signal: i32) {
        self.signal.get_or_insert(signal);
    }

    fn timer(&mut self, _shared: &mut Shared, _key: u64) {}
}

impl Fleet {
    fn attack_of(&self, peer: &Peer) -> Option<crate::scenario::Attack> {
        match self.actors[peer.actor as usize].role {
            Role::Attacker(attack) => Some(attack),
            _ => None,
        }
    }

    /// Adds what the connection has moved to the books.
    fn note_bytes(&mut self, cx: &Context<'_>, peer: &mut Peer) {
        let now = (cx.bytes_sent(), cx.bytes_received());
        self.tally.sent += now.0 - peer.moved.0;
        self.tally.received += now.1 - peer.moved.1;
        peer.moved = now;
    }

    fn receive(&mut self, cx: &mut Context<'_>, peer: &mut Peer, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        while let Some(piece) = peer.decoder.next(&mut rest).map_err(fault_of)? {
            let event = peer.machine.handle(piece)?;
            // The decoder lends out the event's bytes; the rest of the connection is free.
            let Peer {
                machine,
                transfer,
                actor,
                ..
            } = peer;
            let heard = match transfer {
                Some(Transfer::Fetch(fetching)) => {
                    let source = attack::source_of(&self.actors, *actor);
                    let over = fetching.handle(&event, machine, &self.actors[source].contents, &self.pool)?;
                    if over { Heard::Fetched } else { Heard::of(&event) }
                }
                Some(Transfer::Push(pushing)) => {
                    if let Some(sender) = machine.sender() {
                        pushing.settle(sender);
                    }
                    if let Event::TargetFailed(failed) = &event {
                        pushing.failed.get_or_insert(failed.code);
                    }
                    Heard::of(&event)
                }
                None => Heard::of(&event),
            };
            self.heard(cx, peer, heard);
            if peer.machine.is_open() {
                peer.decoder.lift_limits();
            }
        }
        Ok(())
    }

    fn heard(&mut self, cx: &mut Context<'_>, peer: &mut Peer, heard: Heard) {
        match heard {
            Heard::Nothing => {}
            Heard::Queued => self.tally.queued += 1,
            Heard::ComeBack(after_ms) => peer.come_back_ms = Some(after_ms),
            Heard::Opened => self.opened(cx, peer),
            Heard::Ready => self.transfer(peer),
            Heard::Finished(finish) => {
                let failed = match peer.transfer.take() {
                    Some(Transfer::Push(pushing)) => pushing.failed,
                    _ => None,
                };
                peer.machine.end_transfer();
                let result = match (failed, finish) {
                    (Some(code), _) => Err(format!("a file failed: {code}")),
                    (None, Finish::Done { .. }) => Ok(()),
                    (None, other) => Err(format!("not finished: {other:?}")),
                };
                self.concluded(cx, peer, result);
            }
            Heard::Fetched => {
                let result = match peer.transfer.take() {
                    Some(Transfer::Fetch(fetching)) if fetching.differs => {
                        Err("what came is not what was pushed".to_owned())
                    }
                    Some(Transfer::Fetch(fetching)) => match fetching.failed {
                        Some(code) => Err(format!("a file failed: {code}")),
                        None => Ok(()),
                    },
                    _ => Ok(()),
                };
                peer.machine.end_transfer();
                cx.send_owned(peer.machine.take_output());
                if let Some(attack) = self.attack_of(peer) {
                    return attack::begin(attack, cx, peer);
                }
                self.concluded(cx, peer, result);
            }
            Heard::Closed(fault) => {
                peer.farewell = Some(fault);
                cx.abort();
            }
        }
    }

    /// The share is open.
    fn opened(&mut self, cx: &mut Context<'_>, peer: &mut Peer) {
        let micros = self.now().saturating_sub(peer.begun);
        self.tally.opened(micros);
        let actor = &mut self.actors[peer.actor as usize];
        actor.link = Link::Open(cx.id());
        if let Role::Attacker(attack) = actor.role {
            return attack::begin(attack, cx, peer);
        }
        self.opening -= 1;
        match &actor.current {
            Some(current) if current.work == Work::Greeting => self.concluded(cx, peer, Ok(())),
            Some(_) => self.begin(cx, peer),
            None => {
                if actor.setup == Setup::Needed {
                    actor.setup = Setup::Done;
                    self.setup_left -= 1;
                    self.progress = self.now();
                }
                let deadline = cx.now() + PING_MS;
                cx.set_deadline(Some(deadline));
            }
        }
    }

    /// The server is ready: this end is set up.
    fn transfer(&mut self, peer: &mut Peer) {
        let current = self.actors[peer.actor as usize].current;
        let work = match self.attack_of(peer) {
            Some(attack) => attack::work_of(attack),
            None => current.map_or(Work::NoOp, |current| current.work),
        };
        peer.transfer = Some(match work.is_pull() {
            true => Transfer::Fetch(Box::new(Fetching::new(work))),
            false => Transfer::Push(Box::new(Pushing::new(work, self.attack_of(peer).is_some()))),
        });
    }

    fn step(&mut self, cx: &mut Context<'_>, peer: &mut Peer) -> Activity {
        let Peer {
            machine,
            transfer,
            actor,
            ..
        } = peer;
        if let Some(Transfer::Push(pushing)) = transfer {
            let contents = &self.actors[*actor as usize].contents;
            let activity = pushing.step(cx, machine, *actor, contents, &self.pool);
            if pushing.trickles {
                attack::trickle(cx, peer);
            }
            return activity;
        }
        let out = peer.machine.take_output();
        if !out.is_empty() {
            cx.send_owned(out);
        }
        Activity::Idle
    }
}

/// What an event means to a client; it holds nothing of the frame.
enum Heard {
    Nothing,
    Queued,
    /// After so many milliseconds.
    ComeBack(u64),
    Opened,
    Ready,
    Finished(Finish),
    Fetched,
    Closed(Fault),
}

impl Heard {
    fn of(event: &Event<'_>) -> Heard {
        match event {
            Event::Opened(_) => Heard::Opened,
            Event::Queued(_) => Heard::Queued,
            Event::ComeBack(word) => Heard::ComeBack(word.after_ms),
            Event::Ready(_) => Heard::Ready,
            Event::Finished(finish) => Heard::Finished(*finish),
            Event::Closed(fault) => Heard::Closed(fault.clone()),
            _ => Heard::Nothing,
        }
    }
}

fn fault_of(error: WireError) -> Fault {
    match error {
        WireError::OverLimit(_) => Fault::new(CloseCode::Limit, error.to_string()),
        _ => Fault::protocol(error.to_string()),
    }
}
