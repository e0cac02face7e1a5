//! Servers of their own for replication clients: connected for one client, with its start-up parameters, and closed after it.

use std::rc::Rc;
use std::time::Instant;

use super::{PoolMail, Shard};
use crate::error::ClientError;
use crate::metrics::{ErrorKind, PinReason, WaitReason};
use crate::net::dial::Target;
use crate::pool::budget::{Denied, Slot, Welcome, Wish};
use crate::pool::core::Wear;
use crate::pool::lease::Lease;
use crate::pool::ticket::{Grant, Ticket};
use crate::pool::why::Standing;
use crate::server::conn::ServerState;
use crate::server::connect::{ConnectError, Fresh};
use crate::types::ConnId;

/// Why a server is closed whose place in the pool a client needs for a server of its own.
pub const EVICTED_FOR_POOL_SIZE: &str = "evicted for pool_size";

/// A replication client that gets a server of its own.
pub(super) struct Dedicated {
    ticket: Rc<Ticket>,
    /// What the server is started with, besides what the pool's servers are started with.
    startup: Vec<(Vec<u8>, Vec<u8>)>,
    /// `None` when the attempt is under way, or has succeeded.
    wish: Option<Wish>,
    welcome: Welcome,
}

impl Shard {
    /// A client needs a server of its own, started with `startup` besides what the pool says.
    pub fn dial_dedicated(
        self: &Rc<Self>,
        client: ConnId,
        ticket: &Rc<Ticket>,
        startup: Vec<(Vec<u8>, Vec<u8>)>,
        now: Instant,
    ) {
        let waiting = Dedicated {
            ticket: ticket.clone(),
            startup,
            wish: Some(self.share.wish()),
            welcome: Welcome::default(),
        };
        self.dedicated.borrow_mut().insert(client, waiting);
        self.pump_dedicated(now);
        self.gauges.wait_began(self.why_dedicated(client));
    }

    /// Why a client waits for a server of its own: if none is being connected, it is not that.
    pub fn why_dedicated(&self, client: ConnId) -> WaitReason {
        let is_coming = self
            .dedicated
            .borrow()
            .get(&client)
            .is_none_or(|dedicated| dedicated.wish.is_none());
        let standing = Standing {
            coming: usize::from(is_coming),
            ..self.standing()
        };
        standing.reason(0)
    }

    /// The clients that wait for servers of their own.
    pub fn waiting_dedicated(&self) -> Vec<ConnId> {
        self.dedicated.borrow().keys().copied().collect()
    }

    /// Opens connections for those that have none under way; a resting server of the pool makes room.
    pub(super) fn pump_dedicated(self: &Rc<Self>, now: Instant) {
        if self.dedicated.borrow().is_empty() || self.core.borrow().is_paused() {
            return;
        }
        let retry = self.settings().server_login_retry;
        let mut waiting = self.dedicated.borrow_mut();
        for (client, dedicated) in waiting
            .iter_mut()
            .filter(|(_, dedicated)| dedicated.wish.is_some())
        {
            let Some(attempt) = self.share.begin_attempt(now, retry) else {
                return;
            };
            match self.slot_for_dedicated() {
                Ok(slot) => {
                    dedicated.wish = None;
                    self.dial_for(slot, attempt, Some(*client), &dedicated.startup);
                }
                Err(denied) => {
                    self.gauges.was_denied(denied.into());
                    return match denied {
                        Denied::Pool => self.make_room_in_pool(),
                        denied => self.make_room(denied),
                    };
                }
            }
        }
    }

    fn slot_for_dedicated(&self) -> Result<Slot, Denied> {
        let worker = self.around.worker;
        self.share.try_open(worker, false).or_else(|denied| {
            if denied == Denied::Pool && self.close_oldest(EVICTED_FOR_POOL_SIZE) {
                self.share.try_open(worker, false)
            } else {
                Err(denied)
            }
        })
    }

    /// A server of the pool that rests on another worker has to go. Where none rests, the next that comes free makes room.
    fn make_room_in_pool(&self) {
        let worker = self.around.worker;
        if self.share.richest_other(worker).is_some() {
            let mail = PoolMail::MakeRoom(self.key().clone(), Denied::Pool, worker);
            (self.around.post)(worker, mail);
        }
    }

    /// Refuses those for whom nothing has begun yet.
    pub(super) fn refuse_dedicated(&self, error: &ClientError) {
        let mut waiting = self.dedicated.borrow_mut();
        waiting.retain(|_, dedicated| {
            if dedicated.wish.is_some() {
                dedicated
                    .ticket
                    .give(Grant::Refused(Box::new(error.clone())));
            }
            dedicated.wish.is_none()
        });
    }

    #[allow(clippy::too_many_arguments)] // the parts of one message, taken apart
    pub(super) fn dialed_dedicated(
        self: &Rc<Self>,
        client: ConnId,
        id: ConnId,
        epoch: u64,
        slot: Slot,
        target: Target,
        result: Result<Fresh, ConnectError>,
        now: Instant,
    ) {
        let waiting = self
            .dedicated
            .borrow_mut()
            .get_mut(&client)
            .map(|dedicated| dedicated.ticket.clone());
        let Some(ticket) = waiting else { return }; // the client has left
        if result.is_ok() && epoch != self.core.borrow().epoch() {
            // Connected by rules that no longer hold: once more.
            if let Some(dedicated) = self.dedicated.borrow_mut().get_mut(&client) {
                dedicated.wish = Some(self.share.wish());
            }
            drop((slot, result));
            return self.pump_dedicated(now);
        }
        let fresh = match result {
            Ok(fresh) => fresh,
            Err(error) => {
                self.dedicated.borrow_mut().remove(&client);
                return ticket.give(Grant::Refused(Box::new(error.client_error())));
            }
        };
        self.share.attempt_succeeded();
        if let Some(dedicated) = self.dedicated.borrow_mut().get_mut(&client) {
            dedicated.welcome = Welcome {
                parameters: fresh.parameters.clone(),
            };
        }
        match self.install(id, epoch, slot, target, fresh, now) {
            Some(pooled) => {
                self.core.borrow_mut().lend_new();
                pooled.server.card.state.set(ServerState::Active);
                self.gauges.pinned(PinReason::Replication);
                let lease = Lease::new(pooled, self.clone(), Wear::Worn);
                ticket.give(Grant::Server(lease));
            }
            None => {
                let error =
                    ClientError::new("server conn crashed?").as_kind(ErrorKind::ServerUnavailable);
                ticket.give(Grant::Refused(Box::new(error)));
            }
        }
    }

    /// What the client's own server has told at its login.
    pub fn take_dedicated_welcome(&self, client: ConnId) -> Welcome {
        let taken = self.dedicated.borrow_mut().remove(&client);
        taken.map(|dedicated| dedicated.welcome).unwrap_or_default()
    }

    /// The client does not wait for a server of its own any more.
    pub fn forget_dedicated(&self, client: ConnId) {
        self.dedicated.borrow_mut().remove(&client);
    }
}
