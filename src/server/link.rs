//! What is known about a server connection's side of the protocol: pure state, without the socket.

use std::rc::Rc;

use super::owed::{About, Event, Kind, Origin, Owed};
use super::params::ParamSet;
use super::prepared::{Note, PreparedSet};
use super::sql::SqlHeld;
use crate::wire::frame::Passing;

/// The protocol state of one server connection.
#[derive(Debug)]
pub struct ServerLink {
    /// The replies it still owes.
    pub owed: Owed<Note>,
    /// The prepared statements it has.
    pub prepared: PreparedSet,
    /// The statements prepared on it by SQL.
    pub sql: SqlHeld,
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
    /// Absorbed requests whose turn has come: they are answered as soon as the message being passed on has ended.
    pub events: Vec<Event<Note>>,
    /// A statement that may drop prepared statements was parsed or bound: since then, any Execute may be its.
    pub may_drop: bool,
    /// A name of the pooler's means something else on this server: it is to be closed as soon as it is free.
    pub tainted: bool,
}

impl ServerLink {
    /// A connection that has just logged in.
    pub fn new(params: Rc<ParamSet>, reported: u32) -> ServerLink {
        ServerLink {
            owed: Owed::default(),
            prepared: PreparedSet::default(),
            sql: SqlHeld::default(),
            params,
            reported,
            to_server: Passing::default(),
            from_server: Passing::default(),
            swallowing: false,
            events: Vec::new(),
            may_drop: false,
            tainted: false,
        }
    }

    /// Nothing is owed in either direction, not even the rest of a message.
    pub fn is_settled(&self) -> bool {
        self.owed.is_settled()
            && self.to_server.at_boundary()
            && self.from_server.at_boundary()
            && self.events.is_empty()
    }

    /// Settled and outside a transaction: it could serve another client.
    pub fn is_free(&self) -> bool {
        self.is_settled() && self.owed.is_free()
    }

    /// Enters a request into the ledger.
    #[inline]
    pub fn sent(&mut self, kind: Kind, origin: Origin, note: Option<Note>) {
        self.owed.sent(kind, origin, note, &mut self.events);
    }

    /// Enters a client's request that uses a statement of the pooler's into the ledger.
    pub fn sent_about(&mut self, kind: Kind, about: About) {
        let (origin, events) = (Origin::Client, &mut self.events);
        self.owed.sent_about(kind, origin, None, about, events);
    }
}
