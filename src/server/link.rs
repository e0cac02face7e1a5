//! What is known about a server connection's side of the protocol: pure state, without the socket.

use std::rc::Rc;

use super::owed::{Event, Kind, Origin, Owed};
use super::params::ParamSet;
use super::prepared::{Note, PreparedSet};
use crate::wire::frame::Passing;

/// The protocol state of one server connection.
#[derive(Debug)]
pub struct ServerLink {
    /// The replies it still owes.
    pub owed: Owed<Note>,
    /// The prepared statements it has.
    pub prepared: PreparedSet,
    /// Its tracked parameters.
    pub params: Rc<ParamSet>,
    /// A bit for each tracked parameter that it reports.
    pub reported: u32,
    /// The message that is being passed to it.
    pub to_server: Passing,
    /// The message that is being passed on from it.
    pub from_server: Passing,
    /// That message is dropped instead of passed on.
    pub swallowing: bool,
    /// What became of requests, until the message being passed on has ended and it can be acted upon.
    pub events: Vec<Event<Note>>,
}

impl ServerLink {
    /// A connection that has just logged in.
    pub fn new(params: Rc<ParamSet>, reported: u32) -> ServerLink {
        ServerLink {
            owed: Owed::default(),
            prepared: PreparedSet::default(),
            params,
            reported,
            to_server: Passing::default(),
            from_server: Passing::default(),
            swallowing: false,
            events: Vec::new(),
        }
    }

    /// Nothing is owed in either direction, not even the rest of a message.
    pub fn is_settled(&self) -> bool {
        self.owed.is_settled() && self.to_server.at_boundary() && self.from_server.at_boundary()
    }

    /// Settled and outside a transaction: it could serve another client.
    pub fn is_free(&self) -> bool {
        self.is_settled() && self.owed.is_free()
    }

    /// Enters a request into the ledger.
    pub fn sent(&mut self, kind: Kind, origin: Origin, note: Option<Note>) {
        self.owed.sent(kind, origin, note, &mut self.events);
    }

    /// Takes note of a request that may drop prepared statements, if this is one.
    pub fn prepared_suspect(&mut self, may_drop: bool) {
        if may_drop {
            self.prepared.suspect(true);
        }
    }
}
