//! What a server tells its shares' activity logs: runs of clients, and who came to the door.
//!
//! Never decides anything. Invariant: a share's log tells only what is about that share.

use super::super::events::Summary;
use super::super::peer::Session;
use super::super::server_node::ServerNode;
use super::super::tally::BrokenOff;
use super::{Activity, Running};
use crate::model::limits::{ACTIVITY_REFUSED_MAX, ACTIVITY_REFUSED_MS};
use crate::model::{CloseCode, DeviceId, Fault, Tick};
use crate::store::{Happened, RunFigures, RunKind, Who};
use crate::wire::{Begin, Direction};
use std::net::IpAddr;

/// How many lines those may cause who are not let in.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    until: Tick,
    told: u32,
    untold: u64,
}

impl Refusals {
    /// Whether one more may have a line; then how many had none since the last one.
    fn take(&mut self, now: Tick) -> Option<u64> {
        if now >= self.until {
            self.until = now + ACTIVITY_REFUSED_MS;
            self.told = 0;
        }
        if self.told >= ACTIVITY_REFUSED_MAX {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.untold))
    }
}

impl ServerNode {
    fn activity(&self, share: Option<usize>) -> Option<&Activity> {
        self.shares.get(share?)?.place.activity.as_ref()
    }

    /// A device by the name that it was paired under, whatever it calls itself now.
    fn who(&self, device: Option<DeviceId>, called: &str, address: IpAddr) -> Who {
        let paired = device.and_then(|device| self.access.home().trust().name_of(&device));
        let name = match (device, paired) {
            (Some(_), Some(name)) => name,
            (Some(_), None) => called.to_owned(),
            (None, _) => address.to_string(),
        };
        Who { name, device }
    }

    fn who_is(&self, session: &Session, address: IpAddr) -> Who {
        self.who(session.device, session.machine.peer_name(), address)
    }

    /// A transfer begins.
    pub(in crate::node) fn log_begin(&self, session: &mut Session, begin: &Begin, address: IpAddr) {
        let kind = match (begin.flags.sync, begin.direction) {
            (true, _) => RunKind::Sync,
            (false, Direction::Push) => RunKind::Push,
            (false, Direction::Pull) => RunKind::Pull,
        };
        if begin.flags.dry_run {
            session.run = None;
            return;
        }
        self.log_run(session, kind, address);
        if begin.direction == Direction::Pull {
            session.ledger.keep_failures();
        }
    }

    /// Something of a run begins. The rounds of one connection that syncs are one run.
    pub(in crate::node) fn log_run(&self, session: &mut Session, kind: RunKind, address: IpAddr) {
        if self.activity(session.share).is_none() {
            return;
        }
        session.ledger.keep_deeds();
        let goes_on = session
            .run
            .as_ref()
            .is_some_and(|run| run.figures.kind == RunKind::Sync);
        if kind != RunKind::Sync || !goes_on {
            let who = self.who_is(session, address);
            session.run = Some(Box::new(Running::new(kind, who)));
        }
    }

    /// Writes down what was done since the last call.
    pub(in crate::node) fn log_deeds(&self, session: &mut Session) {
        let deeds = session.ledger.take_deeds();
        if let (Some(run), Some(activity), false) = (&mut session.run, self.activity(session.share), deeds.is_empty()) {
            activity.note_deeds(run, &deeds, None);
        }
    }

    /// A transfer came to its end.
    pub(in crate::node) fn log_end(&self, session: &mut Session, summary: &Summary) {
        self.log_deeds(session);
        let Some(run) = &mut session.run else { return };
        run.add(summary);
        if run.figures.kind == RunKind::Sync {
            return;
        }
        if let (Some(run), Some(activity)) = (session.run.take(), self.activity(session.share)) {
            activity.ends_again(&run.who);
            run.write(activity);
        }
    }

    /// The connection is gone; `how` its transfer broke off, if it did.
    pub(in crate::node) fn log_break(&self, session: &mut Session, how: Option<BrokenOff>) {
        self.log_deeds(session);
        let (Some(mut run), Some(activity)) = (session.run.take(), self.activity(session.share)) else {
            return;
        };
        if let Some(how) = how {
            run.add(&session.ledger.summary);
            let reason = match how {
                BrokenOff::Lost => "the connection broke",
                BrokenOff::Closed(CloseCode::Interrupted) => "it was interrupted",
                BrokenOff::Closed(CloseCode::Stopping) => "the server stopped",
                BrokenOff::Closed(code) => code.name(),
            };
            run.news += u64::from(activity.is_end_news(&run.who, reason));
            run.figures.reason = Some(reason.to_owned());
        }
        run.write(activity);
    }

    /// A device was paired.
    pub(in crate::node) fn log_paired(&self, session: &Session, share: Option<usize>, rights: &str, address: IpAddr) {
        if let Some(activity) = self.activity(share) {
            activity.note(&self.who_is(session, address), Happened::Paired { rights });
        }
    }

    /// A device's rights were taken back while it was here.
    pub(in crate::node) fn log_revoked(&self, session: &Session, address: IpAddr) {
        if let Some(activity) = self.activity(session.share) {
            activity.note(&self.who_is(session, address), Happened::Revoked);
        }
    }

    /// Somebody was not let in to a share that is there.
    pub(in crate::node) fn log_refused(
        &mut self,
        session: &Session,
        share: Option<usize>,
        fault: &Fault,
        (address, now): (IpAddr, Tick),
    ) {
        let is_told = matches!(fault.code, CloseCode::Refused | CloseCode::Forbidden);
        if !is_told || self.activity(share).is_none() {
            return;
        }
        let Some(unlisted) = self.refusals.take(now) else {
            return;
        };
        // Who was not let in may call itself anything: it goes by its address.
        let who = Who {
            name: address.to_string(),
            device: session.device,
        };
        if let Some(activity) = self.activity(share) {
            let reason = &fault.text;
            activity.note(&who, Happened::Refused { reason, unlisted });
        }
    }
}

impl Running {
    fn add(&mut self, summary: &Summary) {
        let figures = &mut self.figures;
        figures.files += summary.files_transferred;
        figures.bytes += summary.bytes - summary.unchanged_bytes.min(summary.bytes);
        figures.wire_sent += summary.wire_sent;
        figures.wire_received += summary.wire_received;
    }

    /// Writes the run's own line, if anything came of it.
    fn write(mut self, activity: &Activity) {
        let RunFigures { files, changes, .. } = self.figures;
        if files > 0 || changes > 0 || self.news > 0 {
            let figures = std::mem::replace(&mut self.figures, RunFigures::new(RunKind::Sync, 0));
            activity.note(&self.who, Happened::Run(figures));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Row 20 of the threats: whoever guesses secrets cannot fill the log, and is counted.
    #[test]
    fn refusals_are_told_at_a_bounded_rate_and_counted() {
        let mut refusals = Refusals::default();
        let told = (0..1000).filter(|at| refusals.take(Tick(*at)).is_some()).count();
        assert_eq!(told, ACTIVITY_REFUSED_MAX as usize);
        let left = 1000 - u64::from(ACTIVITY_REFUSED_MAX);
        assert_eq!(refusals.take(Tick(ACTIVITY_REFUSED_MS)), Some(left));
        assert_eq!(refusals.take(Tick(ACTIVITY_REFUSED_MS)), Some(0));
    }
}
