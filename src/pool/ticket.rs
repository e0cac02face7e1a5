//! A client's place in the queue, and what it gets there.

use std::cell::Cell;
use std::fmt;
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
    Refused(Box<ClientError>),
}

/// One client's place in the queue; made once per client and used again for every wait. Small, since every client that does
/// nothing has one.
#[derive(Default)]
pub struct Ticket {
    place: Cell<Place>,
    /// Who waits, for the log; 0 if that is not known.
    client: u64,
    /// The client waits for its greeting, not with a query.
    pub login: Cell<bool>,
}

/// What is at a place in the queue.
#[derive(Debug, Default)]
enum Place {
    #[default]
    Nothing,
    /// Somebody who looks as soon as this is woken.
    Waiting(Waker),
    /// What nobody has taken yet.
    Granted(Grant),
}

impl Ticket {
    /// The place of this client.
    pub fn of(client: ConnId) -> Ticket {
        Ticket {
            client: client.0,
            ..Ticket::default()
        }
    }

    /// Who waits, if that is known.
    pub fn client(&self) -> Option<ConnId> {
        (self.client != 0).then_some(ConnId(self.client))
    }

    /// Leaves something for the client and wakes it.
    pub fn give(&self, grant: Grant) {
        if let Place::Waiting(waker) = self.place.replace(Place::Granted(grant)) {
            waker.wake();
        }
    }

    /// What has been left, if anything; otherwise `waker` is woken when it is.
    pub fn take(&self, waker: &Waker) -> Option<Grant> {
        match self.place.take() {
            Place::Granted(grant) => return Some(grant),
            Place::Waiting(known) if known.will_wake(waker) => {
                self.place.set(Place::Waiting(known))
            }
            _ => self.place.set(Place::Waiting(waker.clone())),
        }
        None
    }
}

/// Two tickets are the same if they are one.
impl PartialEq for Ticket {
    fn eq(&self, other: &Ticket) -> bool {
        std::ptr::eq(self, other)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", ConnId(self.client))
    }
}
