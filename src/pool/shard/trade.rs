//! Trading: a server goes to another worker's shard when clients there have waited longer than here, or when it rests here and
//! somebody waits there. Nobody is told to wait for an answer; whoever asks goes on with what else it can do.
//!
//! Nothing gets stuck because both sides show first and look then: a shard shows that it waits before it looks for servers at rest
//! elsewhere ([`Shard::ask`]), and shows that a server rests before it looks for those who wait ([`Shard::pass_on`]). So it is with
//! servers that are being opened or tested, or travel: who waits may count on them ([`PoolShare::provides_for`]), and is poked if they
//! don't come.
//!
//! [`PoolShare::provides_for`]: crate::pool::budget::PoolShare::provides_for

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{DEAD, PoolMail, Shard, Way};
use crate::pool::budget::{Journey, Slot};
use crate::pool::core::Wear;
use crate::pool::lease::Pooled;
use crate::server::conn::TravelingServer;
use crate::types::WorkerId;

/// How much longer than its own a client of another worker must have waited before it is served first.
pub const TRADE_SLACK: Duration = Duration::from_millis(5);

impl Shard {
    /// Sends a server that has come free to another worker if clients there have waited longer; returns it if not.
    pub(super) fn trade(
        self: &Rc<Self>,
        pooled: Box<Pooled>,
        now: Instant,
        way: Way,
    ) -> Option<Box<Pooled>> {
        if self.around.workers == 1 {
            return Some(pooled);
        }
        let other = match self.share.hungriest_other(self.around.worker) {
            Some((other, since)) if self.is_elder(since) => other,
            _ => return Some(pooled),
        };
        let wear = match way {
            Way::Lent(wear) | Way::Tested(wear) => wear,
            Way::Dialed | Way::Received => Wear::Unworn,
        };
        if !self.core.borrow().may_travel(&pooled, now, wear) {
            return Some(pooled);
        }
        self.leave_count(way);
        self.send_away(other, pooled);
        if matches!(way, Way::Dialed | Way::Tested(_)) {
            self.show();
            self.pump(now); // one of ours may have counted on it
        }
        None
    }

    /// A client elsewhere that has waited since then comes before ours.
    fn is_elder(&self, since: Instant) -> bool {
        let own = self.core.borrow().oldest_wait();
        own.is_none_or(|own| since + TRADE_SLACK < own)
    }

    fn send_away(&self, other: WorkerId, pooled: Box<Pooled>) {
        let Pooled { server, slot } = *pooled;
        let journey = self.share.set_out();
        self.drop_card(server.card.id);
        self.gauges.gave();
        match server.detach() {
            Ok(travelling) => (self.around.post)(
                other,
                PoolMail::Gift(self.key().clone(), Box::new(travelling), slot, journey),
            ),
            Err(error) => {
                tracing::warn!(who = %self.key(), %error, "lost a server between workers")
            }
        }
    }

    /// Asks the worker with most servers at rest for one.
    pub(super) fn ask(&self) {
        if self.around.workers == 1 || !self.core.borrow().is_short() {
            return;
        }
        if let Some(other) = self.share.richest_other(self.around.worker) {
            (self.around.post)(other, PoolMail::Ask(self.key().clone(), self.around.worker));
        }
    }

    /// Another worker's clients wait and none of ours do: it gets a server that rests here, after a test if it needs one.
    pub fn asked(self: &Rc<Self>, other: WorkerId, now: Instant) {
        if !self.lend_to(other) && self.share.is_waiting(other) {
            // It hoped for this server instead of doing something else.
            (self.around.post)(other, PoolMail::Retry);
        }
        if self.core.borrow().waiting() > 0 {
            self.pump(now);
        }
    }

    /// False if nothing rests here.
    fn lend_to(self: &Rc<Self>, other: WorkerId) -> bool {
        while self.share.is_waiting(other) {
            let lent = self.core.borrow_mut().lend();
            self.show();
            let Some(mut pooled) = lent else {
                return self.test_for_others();
            };
            if self.is_sound(&mut pooled) {
                self.send_away(other, pooled);
                return true;
            }
            self.close(pooled, DEAD);
        }
        true
    }

    /// The client elsewhere gets the server when the test is over.
    fn test_for_others(self: &Rc<Self>) -> bool {
        let untested = self.core.borrow_mut().lend_for_test();
        let found = untested.is_some();
        if let Some(pooled) = untested {
            self.test(pooled);
        }
        found
    }

    /// A server comes from another worker.
    pub fn receive(
        self: &Rc<Self>,
        server: TravelingServer,
        slot: Slot,
        journey: Journey,
        now: Instant,
    ) {
        match server.attach(self.space()) {
            Ok(server) => {
                self.gauges.took();
                self.cards.borrow_mut().push(server.card.clone());
                self.come_home(Box::new(Pooled { server, slot }), now, Way::Received);
            }
            Err(_) => drop(slot),
        }
        drop(journey); // now that it has been shown where the server is
        if self.core.borrow().waiting() > 0 {
            self.pump(now);
        }
    }

    /// A server that nobody here needs goes to whoever does.
    pub(super) fn pass_on(self: &Rc<Self>) {
        if self.around.workers == 1 {
            return;
        }
        let (worker, rests) = (self.around.worker, {
            let core = self.core.borrow();
            core.idle() + core.used() > 0
        });
        if rests && let Some((other, _)) = self.share.hungriest_other(worker) {
            self.lend_to(other);
        }
    }
}
