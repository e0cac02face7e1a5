//! A client's place in the queue, and what it gets there.

use std::cell::{Cell, RefCell};
use std::task::Waker;

use super::lease::Lease;
use crate::error::ClientError;
use crate::types::ConnId;

/// What a waiting client gets.
#[derive(Debug)]
pub enum Grant {
    /// A server.
    Server(Lease),
    /// Bad news: the client is to be disconnected with it.
    Refused(ClientError),
}

/// One client's place in the queue; made once per client and used again for every wait.
#[derive(Debug, Default)]
pub struct Ticket {
    granted: RefCell<Option<Grant>>,
    waker: RefCell<Option<Waker>>,
    /// The client waits for its greeting, not with a query.
    pub login: Cell<bool>,
    /// Who waits, for the log.
    client: Option<ConnId>,
}

impl Ticket {
    /// The place of this client.
    pub fn of(client: ConnId) -> Ticket {
        Ticket {
            client: Some(client),
            ..Ticket::default()
        }
    }

    /// Who waits, if that is known.
    pub fn client(&self) -> Option<ConnId> {
        self.client
    }

    /// Leaves something for the client and wakes it.
    pub fn give(&self, grant: Grant) {
        self.granted.replace(Some(grant));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// What has been left, if anything; otherwise `waker` is woken when it is.
    pub fn take(&self, waker: &Waker) -> Option<Grant> {
        let granted = self.granted.take();
        if granted.is_none() {
            self.waker.replace(Some(waker.clone()));
        }
        granted
    }
}

/// Two tickets are the same if they are one.
impl PartialEq for Ticket {
    fn eq(&self, other: &Ticket) -> bool {
        std::ptr::eq(self, other)
    }
}
