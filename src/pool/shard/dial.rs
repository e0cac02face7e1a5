//! Opening connections, within the budget and not more than the clients that wait can use, whichever worker they and the servers on
//! their way belong to; and the cancelling of what closed connections leave behind.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use super::{DEAD, Dialed, Dialing, PoolMail, Post, Shard, Way};
use crate::net::dial::Target;
use crate::net::stream::Readable;
use crate::pool::budget::{Attempt, Denied, PoolShare, Slot, Welcome};
use crate::pool::lease::Pooled;
use crate::pool::recipe;
use crate::server::conn::Server;
use crate::server::connect::{ConnectError, Fresh, cancel_at};
use crate::server::link::ServerLink;
use crate::server::params::ParamSet;
use crate::server::sql::SqlHeld;
use crate::types::{BackendKey, ConnId, WorkerId};

/// Connections of one shard that may be under way at once.
pub const DIALS_MAX: usize = 8;
/// Cancel requests of one pool that may be under way when one more is wanted for a statement whose client has gone. At the limit
/// the statement runs to its end.
pub const ABANDONED_CANCELS_MAX: usize = 16;
/// How long such a cancel request may take, at most.
const ABANDONED_CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// What a try to open a connection has come to.
enum Try {
    /// One is under way.
    Begun,
    /// Not before `server_login_retry` has passed, or the attempt under way has ended; or not for us: another worker's server is to
    /// come, or the room that is left is for others.
    NotNow,
    /// A limit is reached.
    Denied(Denied),
}

/// An attempt's result on its way to the worker. It arrives whatever becomes of the attempt.
struct Envelope {
    /// Says that the attempt failed, until it has succeeded.
    dialed: Option<Box<Dialed>>,
    worker: WorkerId,
    post: Post,
}

impl Drop for Envelope {
    fn drop(&mut self) {
        if let Some(dialed) = self.dialed.take() {
            (self.post)(self.worker, PoolMail::Dialed(dialed));
        }
    }
}

/// A connection that carries a cancel request, counted until dropped.
struct Cancelling(Arc<PoolShare>);

impl Drop for Cancelling {
    fn drop(&mut self) {
        self.0.cancels.fetch_sub(1, SeqCst);
    }
}

impl Shard {
    /// Opens what connections the waiting clients need and the limits allow.
    pub(super) fn open_wanted(self: &Rc<Self>, now: Instant) {
        while self.wants_dial() {
            match self.try_dial(now) {
                Try::Begun => {}
                Try::NotNow => return,
                Try::Denied(limit) => {
                    self.gauges.was_denied(limit.into());
                    return self.make_room(limit);
                }
            }
        }
    }

    fn wants_dial(&self) -> bool {
        let core = self.core.borrow();
        core.wanted() > 0 && core.dialing() < DIALS_MAX
    }

    fn try_dial(self: &Rc<Self>, now: Instant) -> Try {
        let reserve = self.reserve_due(now);
        if !reserve && self.share.stays_full(self.around.worker) {
            return Try::Denied(Denied::Pool);
        }
        if self.is_provided_for() || self.share.keeps_room() {
            return Try::NotNow;
        }
        let retry = self.settings.borrow().server_login_retry;
        let Some(attempt) = self.share.begin_attempt(now, retry) else {
            return Try::NotNow;
        };
        match self.take_slot(reserve) {
            Err(denied) => Try::Denied(denied),
            Ok(slot) => {
                self.dial(slot, attempt);
                Try::Begun
            }
        }
    }

    /// Others have servers to spare for all who wait here.
    fn is_provided_for(&self) -> bool {
        self.around.workers > 1 && self.share.provides_for(self.around.worker)
    }

    fn take_slot(&self, reserve: bool) -> Result<Slot, Denied> {
        let worker = self.around.worker;
        match self.share.try_open(worker, false) {
            Err(Denied::Pool) if reserve => {
                let slot = self.share.try_open(worker, true)?;
                tracing::warn!(who = %self.oldest_waiter(), "taking connection from reserve_pool");
                Ok(slot)
            }
            taken => taken,
        }
    }

    /// The client that has waited longest, as the log calls it; or the pool.
    fn oldest_waiter(&self) -> String {
        let client = {
            let core = self.core.borrow();
            core.waiters().next().and_then(|ticket| ticket.client())
        };
        let known = client.and_then(|client| (self.around.who)(client));
        known.unwrap_or_else(|| self.key().to_string())
    }

    /// The reserve may be used when the oldest client has waited for `reserve_pool_timeout`.
    fn reserve_due(&self, now: Instant) -> bool {
        if self.share.reserve() == 0 {
            return false;
        }
        let timeout = self.settings.borrow().reserve_pool_timeout;
        let oldest = self.core.borrow().oldest_wait();
        oldest.is_some_and(|since| now.saturating_duration_since(since) > timeout)
    }

    pub(super) fn dial(self: &Rc<Self>, slot: Slot, attempt: Attempt) {
        self.core.borrow_mut().dial_began();
        self.show();
        self.dial_for(slot, attempt, None, &[]);
    }

    pub(super) fn dial_for(
        &self,
        slot: Slot,
        attempt: Attempt,
        dedicated: Option<ConnId>,
        extra: &[(Vec<u8>, Vec<u8>)],
    ) {
        let id = ConnId::next();
        let epoch = self.core.borrow().epoch();
        let (mut plan, target) =
            self.recipe
                .borrow()
                .plan(id, &self.share, &self.settings.borrow());
        plan.startup.extend_from_slice(extra);
        let dialing = Dialing {
            target: target.clone(),
            since: SystemTime::now(),
            begun: Instant::now(),
            dedicated,
        };
        self.dials.borrow_mut().insert(id, dialing);
        let dialed = Dialed {
            key: self.key().clone(),
            id,
            epoch,
            slot,
            target,
            attempt,
            dedicated,
            result: Err(ConnectError::Network(DEAD)),
        };
        let mut envelope = Envelope {
            dialed: Some(Box::new(dialed)),
            worker: self.around.worker,
            post: self.around.post.clone(),
        };
        self.around.logins.spawn(async move {
            let result = crate::server::connect::connect(plan).await;
            if let Some(dialed) = &mut envelope.dialed {
                dialed.result = result;
            }
        });
    }

    /// A limit of the database or the user is reached: a resting server of another pool may have to go. The worker finds it, who
    /// knows all its shards. But if a server of this very pool rests elsewhere, that one has been asked for.
    pub(super) fn make_room(&self, denied: Denied) {
        let worker = self.around.worker;
        if denied != Denied::Pool && self.share.richest_other(worker).is_none() {
            let key = self.key().clone();
            (self.around.post)(worker, PoolMail::MakeRoom(key, denied, worker));
        }
    }

    /// A connection attempt has ended.
    pub fn dialed(self: &Rc<Self>, dialed: Dialed, now: Instant) {
        let Dialed {
            id,
            epoch,
            slot,
            target,
            attempt,
            dedicated,
            result,
            ..
        } = dialed;
        drop(attempt);
        let dialing = self.dials.borrow_mut().remove(&id);
        if let Err(error) = &result {
            self.around.errors.count(error.kind());
            self.recipe().note_failure(&self.share, &target);
        } else if let Some(dialing) = dialing {
            let took = now.saturating_duration_since(dialing.begun);
            self.gauges.connected(took.as_micros() as u64);
        }
        if let Some(client) = dedicated {
            return self.dialed_dedicated(client, id, epoch, slot, target, result, now);
        }
        match result {
            Ok(fresh) => self.connected(id, epoch, slot, target, fresh, now),
            Err(error) => {
                // First of all: whoever is poked because of what follows shall know.
                self.share.attempt_failed(now, error.client_error());
                drop(slot);
                self.dial_failed(&error);
            }
        }
    }

    fn connected(
        self: &Rc<Self>,
        id: ConnId,
        epoch: u64,
        slot: Slot,
        target: Target,
        fresh: Fresh,
        now: Instant,
    ) {
        self.share.attempt_succeeded();
        if !fresh.site.as_ref().is_some_and(|site| site.is_gone()) {
            self.share.capture_welcome(epoch, || Welcome {
                parameters: fresh.parameters.clone(),
            });
        }
        let Some(pooled) = self.install(id, epoch, slot, target, fresh, now) else {
            self.core.borrow_mut().dial_failed();
            self.show();
            return self.pump(now);
        };
        self.come_home(pooled, now, Way::Dialed);
        self.pump(now);
    }

    /// Makes a server of a fresh connection; `None` if its socket is no more.
    pub(super) fn install(
        &self,
        id: ConnId,
        epoch: u64,
        slot: Slot,
        target: Target,
        fresh: Fresh,
        now: Instant,
    ) -> Option<Box<Pooled>> {
        let (params, reported) = self.server_params(&fresh.parameters);
        let facts = recipe::facts(&fresh, target);
        let stream = fresh.stream.attach().ok()?;
        let mut link = ServerLink::new(params, reported);
        if self.recipe.borrow().database.connect_query.is_some() {
            link.sql = SqlHeld::with_shared();
        }
        let server = Server::new(stream, link, now, epoch, id, Arc::new(facts));
        self.cards.borrow_mut().push(server.card.clone());
        Some(Box::new(Pooled { server, slot }))
    }

    fn server_params(&self, parameters: &[(Vec<u8>, Vec<u8>)]) -> (Rc<ParamSet>, u32) {
        let space = self.space();
        let (set, reported) = space.read(parameters);
        (space.interner.borrow_mut().intern(set), reported)
    }

    fn dial_failed(self: &Rc<Self>, error: &ConnectError) {
        self.core.borrow_mut().dial_failed();
        self.show();
        if error.is_relayed() && !self.share.has_servers() {
            let told = error.client_error();
            for other in (0..self.around.workers).filter(|other| *other != self.around.worker) {
                (self.around.post)(
                    other,
                    PoolMail::LoginFailed(self.key().clone(), told.clone()),
                );
            }
            self.refuse_waiters(&told);
        }
        // Other servers may help. No new connection is tried here now, even where `server_login_retry` is zero.
        self.test_wanted();
        self.ask();
    }

    /// A server is closed while a statement runs on it, for a client that has gone: it shall not run on. As far as that goes, and
    /// nobody waits for it.
    pub(super) fn cancel_abandoned(&self, server: &mut Server) {
        let key = server.card.facts.key;
        if !server.link.owed.is_running() || key == BackendKey::default() || is_gone(server) {
            return;
        }
        if self.share.cancels.fetch_add(1, SeqCst) >= ABANDONED_CANCELS_MAX {
            return drop(Cancelling(self.share.clone()));
        }
        let counted = Cancelling(self.share.clone());
        let (recipe, target) = (self.recipe(), server.card.facts.target.clone());
        let timeout = self.settings.borrow().server_connect_timeout;
        let limit = match timeout.min(ABANDONED_CANCEL_TIMEOUT) {
            Duration::ZERO => ABANDONED_CANCEL_TIMEOUT,
            limit => limit,
        };
        let (tcp, tls) = (recipe.tcp.clone(), recipe.tls.clone());
        let addr = server.card.facts.addr.parse().ok();
        self.around.logins.spawn(async move {
            let delivered = cancel_at(target, addr, tcp, tls, key, limit).await;
            if let Err(error) = delivered {
                tracing::debug!(%error, "could not cancel an abandoned statement");
            }
            drop(counted);
        });
    }
}

/// The server has closed its side already: there is nothing to cancel.
fn is_gone(server: &mut Server) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    matches!(
        server.stream.poll_readable(&mut cx),
        Poll::Ready(Ok(Readable::Eof) | Err(_))
    )
}
