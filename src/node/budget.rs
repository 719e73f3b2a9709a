//! What a server's connections may take of memory, together.
//!
//! Each connection says what it holds after each visit; the sum meets three marks:
//! - **tight**, at 3/4 of the limit: no transfer begins while another runs, and only the oldest one and
//!   another in turns go on (`rations`), so that the sum falls and nobody is held up for good;
//! - **full**, at 7/8: who comes anew is told to come again;
//! - **over**, at 15/16: nobody is accepted; peers wait in the system's backlog.
//!
//! Never measures: what is counted is what the code holds on behalf of peers. Invariant: the sum is that of
//! the open connections.

/// The memory of a server's connections.
#[derive(Debug)]
pub(crate) struct Budget {
    costs: Costs,
    limit: Option<u64>,
    used: u64,
    most: u64,
    /// Transfers that were given their turn and have not begun.
    reserved: u64,
}

/// How much is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    /// Enough.
    Roomy,
    Tight,
    Full,
    Over,
}

/// Bytes of the process before anybody connects: the loop's buffers, tables, the allocator's own.
pub(crate) const BASE_BYTES: u64 = 5 << 20;

/// What a connection takes, in bytes; measured over thousands of them, and a quarter more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    /// Of one that does nothing.
    pub(crate) connection: usize,
    /// Of a transfer, at the least: what it takes before it has told anything of itself.
    pub(crate) transfer: usize,
}

/// 1.2 KB, and up to 20 KB in a push of a mebibyte.
pub(crate) const PLAIN_COSTS: Costs = Costs {
    connection: 1536,
    transfer: 24 * 1024,
};
/// 5.2 KB, and up to 20 KB more in a transfer for a record that has not arrived whole.
pub(crate) const TLS_COSTS: Costs = Costs {
    connection: 6 * 1024 + 512,
    transfer: 40 * 1024,
};
/// The least limit: what a server takes that serves one client at a time.
pub(crate) const LIMIT_BYTES_MIN: u64 = 12 << 20;

impl Budget {
    pub(crate) fn new(limit: Option<u64>, costs: Costs) -> Budget {
        Budget {
            costs,
            limit: limit.map(|limit| limit.max(LIMIT_BYTES_MIN)),
            used: BASE_BYTES,
            most: BASE_BYTES,
            reserved: 0,
        }
    }

    /// A connection that held `before` bytes holds `now`.
    pub(crate) fn change(&mut self, before: usize, now: usize) {
        self.used = (self.used + now as u64).saturating_sub(before as u64);
        self.most = self.most.max(self.used);
        debug_assert!(self.used >= BASE_BYTES);
    }

    /// Keeps room for a transfer that is about to begin.
    pub(crate) fn reserve(&mut self) {
        self.reserved += 1;
    }

    /// It begins, or never will.
    pub(crate) fn unreserve(&mut self) {
        debug_assert!(self.reserved > 0);
        self.reserved = self.reserved.saturating_sub(1);
    }

    pub(crate) fn costs(&self) -> Costs {
        self.costs
    }

    pub(crate) fn pressure(&self) -> Pressure {
        self.pressure_at(self.used)
    }

    /// Whether another transfer may begin.
    pub(crate) fn has_room(&self) -> bool {
        self.pressure_at(self.used + (self.reserved + 1) * self.costs.transfer as u64) < Pressure::Tight
    }

    /// Whether a connection that holds so much is too large for the limit by itself.
    pub(crate) fn is_exceeded_by(&self, held: usize) -> bool {
        self.limit
            .is_some_and(|limit| BASE_BYTES + held as u64 > limit - limit / 8)
    }

    /// Bytes in use, by this account.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// The most that was ever in use.
    pub(crate) fn most(&self) -> u64 {
        self.most
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    fn pressure_at(&self, used: u64) -> Pressure {
        let Some(limit) = self.limit else {
            return Pressure::Roomy;
        };
        match used {
            _ if used >= limit - limit / 16 => Pressure::Over,
            _ if used >= limit - limit / 8 => Pressure::Full,
            _ if used >= limit - limit / 4 => Pressure::Tight,
            _ => Pressure::Roomy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn the_marks_come_in_order_and_go_again() {
        let mut budget = Budget::new(Some(64 << 20), PLAIN_COSTS);
        let mut seen = Vec::new();
        let mut note = |budget: &Budget| {
            if seen.last() != Some(&budget.pressure()) {
                seen.push(budget.pressure());
            }
        };
        for _ in 0..59 {
            budget.change(0, MIB);
            note(&budget);
        }
        for _ in 0..59 {
            budget.change(MIB, 0);
            note(&budget);
        }
        use Pressure::{Full, Over, Roomy, Tight};
        assert_eq!(seen, [Roomy, Tight, Full, Over, Full, Tight, Roomy]);
        assert_eq!(
            (budget.used(), budget.most()),
            (BASE_BYTES, BASE_BYTES + 59 * MIB as u64)
        );
    }

    #[test]
    fn without_a_limit_there_is_always_room() {
        let mut budget = Budget::new(None, PLAIN_COSTS);
        budget.change(0, usize::MAX / 4);
        assert!(budget.has_room() && budget.pressure() == Pressure::Roomy);
        assert!(!budget.is_exceeded_by(usize::MAX / 4));
    }

    #[test]
    fn one_that_could_never_fit_is_known() {
        let budget = Budget::new(Some(32 << 20), PLAIN_COSTS);
        assert!(!budget.is_exceeded_by(20 * MIB));
        assert!(budget.is_exceeded_by(24 * MIB));
        assert_eq!(Budget::new(Some(1), TLS_COSTS).limit(), Some(LIMIT_BYTES_MIN));
    }
}
