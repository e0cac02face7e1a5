//! What time and the operator do to a shard.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{DEAD, Dialing, LinkRules, Shard, core_rules};
use crate::config::PoolSettings;
use crate::pool::budget::Denied;
use crate::pool::core::{PoolCore, Reason};
use crate::pool::lease::Pooled;
use crate::pool::recipe::Recipe;
use crate::pool::ticket::Ticket;
use crate::server::conn::{ServerCard, ServerState};
use crate::types::ConnId;

impl Shard {
    /// Time passes: called by the worker's janitor.
    pub fn tick(self: &Rc<Self>, now: Instant) {
        self.drop_dead();
        self.drop_old(now);
        let settings = self.settings();
        self.shrink(&settings);
        self.pump(now);
        self.grow(&settings, now);
        self.show();
        self.share.unused_for(now);
    }

    /// Resting servers that PostgreSQL has closed, or that said something.
    fn drop_dead(&self) {
        let dead = self
            .core
            .borrow_mut()
            .remove_resting(|pooled| !self.is_sound(pooled));
        for pooled in dead {
            self.close(pooled, DEAD);
        }
    }

    /// Servers that are too old, or have rested too long. All workers together leave `min_pool_size` of the latter.
    fn drop_old(&self, now: Instant) {
        let floor = self.settings().min_pool_size as usize;
        let mut core = self.core.borrow_mut();
        let closing = core.tick(now, |pooled| pooled.slot.leave_above(floor));
        drop(core);
        for (pooled, reason) in closing {
            self.close(pooled, reason.text());
        }
    }

    /// The pool has become smaller than it is.
    fn shrink(&self, settings: &PoolSettings) {
        let limit = settings.pool_size as usize + self.share.reserve();
        while settings.pool_size > 0 && self.share.servers() > limit {
            let surplus = self
                .core
                .borrow_mut()
                .give_up_if(|pooled| pooled.slot.leave_above(limit));
            let Some(pooled) = surplus else { break };
            self.close(pooled, Reason::TooMany.text());
        }
    }

    /// `min_pool_size`: one connection a tick, while the pool has clients or the database a forced user.
    fn grow(self: &Rc<Self>, settings: &PoolSettings, now: Instant) {
        let floor = settings.min_pool_size as usize;
        let in_use = self.clients.get() > 0 || self.recipe.borrow().forced_user;
        let core = self.core.borrow();
        let quiet = core.dialing() == 0 && !core.is_paused();
        drop(core);
        if self.share.servers() < floor && in_use && quiet {
            let retry = settings.server_login_retry;
            if let Some(attempt) = self.share.begin_attempt(now, retry)
                && let Some(slot) = self.share.try_grow(floor)
            {
                self.dial(slot, attempt);
            }
        }
    }

    /// New settings, and how servers are connected from now on.
    pub fn configure(self: &Rc<Self>, settings: PoolSettings, recipe: Recipe) {
        self.core.borrow_mut().set_rules(core_rules(&settings));
        self.link_rules.set(LinkRules::of(&settings));
        self.settings.replace(Rc::new(settings));
        self.recipe.replace(Rc::new(recipe));
    }

    /// A new generation began: resting servers are closed, busy ones when they come free.
    pub fn renew(self: &Rc<Self>, now: Instant) {
        let old = self.core.borrow_mut().renew(self.share.epoch());
        self.close_all(old, Reason::Stale);
        for card in self.cards.borrow().iter() {
            card.close_needed.set(true);
        }
        self.pump(now);
    }

    /// Pauses or resumes.
    pub fn pause(self: &Rc<Self>, paused: bool, now: Instant) {
        let closing = self.core.borrow_mut().pause(paused);
        self.close_all(closing, Reason::Pause);
        self.show();
        self.pump(now);
    }

    /// Paused, and nothing is in use any more.
    pub fn is_quiet(&self) -> bool {
        let core = self.core.borrow();
        core.lent() + core.testing() == 0 && self.held_back.borrow().is_empty()
    }

    /// Closes every resting server.
    pub fn drop_resting(self: &Rc<Self>, reason: Reason) {
        let all = self.core.borrow_mut().drain_resting();
        self.close_all(all, reason);
    }

    /// Closes the server that has rested longest, to make room within this limit; false if there is none. Of several requests for
    /// the same room only the first has to be met.
    pub fn evict(&self, limit: Denied, reason: &str) -> bool {
        let is_needed = match limit {
            Denied::Pool => self.share.wants_room(),
            Denied::Database | Denied::User => self.share.is_crowded(),
        };
        !is_needed || self.close_oldest(reason)
    }

    /// Closes the server that has rested longest, unless clients wait for it.
    pub(super) fn close_oldest(&self, reason: &str) -> bool {
        let oldest = self.core.borrow_mut().give_up();
        let found = oldest.is_some();
        if let Some(pooled) = oldest {
            self.close(pooled, reason);
        }
        found
    }

    /// Since when the server that [`Shard::evict`] would close has rested.
    pub fn longest_rest(&self) -> Option<Instant> {
        self.core.borrow().longest_rest()
    }

    fn close_all(&self, servers: impl IntoIterator<Item = Box<Pooled>>, reason: Reason) {
        for pooled in servers {
            self.close(pooled, reason.text());
        }
    }

    /// Resting servers say so on their cards.
    pub fn mark_resting(&self) {
        let core = self.core.borrow();
        for (pooled, tested) in core.resting() {
            pooled.server.card.state.set(if tested {
                ServerState::Used
            } else {
                ServerState::Idle
            });
        }
    }

    /// Servers on loan are closed when they come back.
    pub fn retire(&self) {
        for card in self.cards.borrow().iter() {
            card.close_needed.set(true);
        }
    }

    /// Servers at addresses that their hosts' names have no more: resting ones are closed, busy ones when they come free.
    pub fn retire_misplaced(self: &Rc<Self>, now: Instant) {
        let cards = self.cards();
        let misplaced = cards.iter().filter(|card| card.facts.is_misplaced());
        let found = misplaced.map(|card| card.close_needed.set(true)).count();
        if found == 0 {
            return;
        }
        self.share.outdate_welcome();
        let resting = self
            .core
            .borrow_mut()
            .remove_resting(|pooled| pooled.server.card.facts.is_misplaced());
        self.close_all(resting, Reason::Stale);
        self.show();
        self.pump(now);
    }

    /// Nothing is here any more: no client, no server, no attempt.
    pub fn is_empty(&self) -> bool {
        let core = self.core.borrow();
        let nobody = self.clients.get() == 0 && core.waiting() == 0;
        let nothing = core.dialing() == 0 && self.cards.borrow().is_empty();
        nobody && nothing && self.cancels.get() == 0 && self.dedicated.borrow().is_empty()
    }

    /// For how long the pool has had neither clients nor servers on any worker; `None` if it has some, or shall have
    /// (`min_pool_size` with a forced user). When that is as long as `pool_idle_timeout`, or for an automatic database
    /// `autodb_idle_timeout`, the worker may drop the shard; when all have, [`super::super::budget::Budget::sweep`] forgets the pool.
    pub fn unused_for(&self, now: Instant) -> Option<Duration> {
        let kept = self.recipe.borrow().forced_user && self.settings.borrow().min_pool_size > 0;
        if kept || !self.is_empty() {
            return None;
        }
        self.share.unused_for(now)
    }

    /// Servers marked to be closed.
    pub fn closing(&self) -> usize {
        self.cards
            .borrow()
            .iter()
            .filter(|card| card.close_needed.get())
            .count()
    }

    /// What is shown of the servers.
    pub fn cards(&self) -> Vec<Rc<ServerCard>> {
        self.cards.borrow().clone()
    }

    /// The connections that are being opened.
    pub fn dials(&self) -> Vec<(ConnId, Dialing)> {
        let dials = self.dials.borrow();
        dials.iter().map(|(id, dial)| (*id, dial.clone())).collect()
    }

    /// Reads the core's counts.
    pub fn with_core<T>(&self, read: impl FnOnce(&PoolCore<Box<Pooled>, Rc<Ticket>>) -> T) -> T {
        read(&self.core.borrow())
    }

    /// Servers held back because of cancel requests.
    pub fn held_back(&self) -> usize {
        self.held_back.borrow().len()
    }
}
