//! The end of a session: what becomes of its server and its place in the queue, and what is left to be told to the client.

use std::time::Instant;

use super::{End, Flow, Session, State};
use crate::client::deliver::ServerFault;
use crate::client::login::Replication;
use crate::config::PoolMode;
use crate::error::ClientError;
use crate::metrics::ErrorKind;
use crate::net::stream::Stream;
use crate::pool::lease::Lease;
use crate::pool::ticket::Grant;
use crate::server::conn::ServerLost;
use crate::types::TxStatus;
use crate::wire::build::{self, Severity};

impl Session {
    /// Nothing can be done now; whoever has been asked to leave does, if nothing is lost by that.
    #[inline]
    pub(super) fn rest(&mut self) -> Result<Flow, End> {
        match self.card.is_leaving() {
            true => self.leave(),
            false => Ok(Flow::Wait),
        }
    }

    fn leave(&mut self) -> Result<Flow, End> {
        if !self.loses_nothing() {
            return Ok(Flow::Wait);
        }
        // Asked of the kernel, which may know of bytes that the reactor has still to tell of: what has arrived is served first. What
        // arrives from now on is never looked at, and so never executed.
        match self.stream()?.input_waiting() {
            Ok(true) => Ok(Flow::Wait),
            Ok(false) => Err(End::told(ClientError::shutdown())),
            Err(_) => Err(End::Gone),
        }
    }

    /// Nothing that the client has said is unanswered, it has had every answer, and no transaction is open.
    fn loses_nothing(&self) -> bool {
        let is_free = match &self.state {
            State::Idle => true,
            State::Attached(lease) => lease.is_free(),
            _ => false,
        };
        is_free && self.held.is_empty() && self.is_flushed()
    }

    /// The linked server can't be used any more.
    pub(super) fn server_lost(&mut self, lost: &ServerLost) -> End {
        self.close_server(lost.client_error())
    }

    fn close_server(&mut self, error: ClientError) -> End {
        if let State::Attached(lease) = std::mem::replace(&mut self.state, State::Idle) {
            let clean = lease.link.from_server.at_boundary();
            self.unlink();
            lease.close(&error.to_string());
            if !clean {
                return End::Cut(Box::new(error));
            }
        }
        End::told(error)
    }

    pub(super) fn server_faulty(&mut self, fault: ServerFault) -> End {
        let error = ClientError::new(match fault {
            ServerFault::BadHeader => "bad pkt header",
            ServerFault::Unexpected(_) => "unknown pkt",
        });
        self.close_server(error.as_kind(ErrorKind::ServerProtocol))
    }

    pub(super) fn refuse_transaction(&mut self) -> End {
        let error = ClientError::new("transaction blocks not allowed in statement pooling mode");
        self.close_server(error.as_kind(ErrorKind::NotAllowed))
    }

    /// Takes the session apart: the server gets its verdict, the queue place is left; what remains is to be told to the client.
    pub fn end(mut self, end: End) -> Ending {
        let now = Instant::now();
        let waited = self.card.end_waiting(now);
        let mut mid_message = false;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Attached(lease) => {
                mid_message = !lease.link.from_server.at_boundary();
                self.part(lease, &end, now);
            }
            State::Waiting => {
                let waited = waited.as_micros() as u64;
                self.shard.gauges().waited(waited, false);
                self.leave_queue(now);
            }
            State::Greeting { queued: true, .. } => self.leave_queue(now),
            State::Aligning(work) => drop(work),
            State::Listing(work) => drop(work),
            _ => {}
        }
        self.card.linked.set(None);
        let mut farewell = self.backlog.as_slice().to_vec();
        let told = match &end {
            End::Told(error) if !mid_message => Some(ClientError::clone(error)),
            _ => None,
        };
        if let Some(error) = &told {
            build::error(&mut farewell, Severity::Fatal, &error.sqlstate, &error.text);
        }
        let reason = match &end {
            End::Goodbye => "client close request".to_owned(),
            End::Gone => "client unexpected eof".to_owned(),
            End::Told(error) | End::Cut(error) => error.to_string(),
        };
        let kind = match &end {
            End::Goodbye => None,
            End::Gone => Some(ErrorKind::ClientLost),
            End::Told(error) | End::Cut(error) => Some(error.kind),
        };
        let farewell_is_empty = farewell.is_empty();
        Ending {
            stream: self.stream.take(),
            farewell,
            told,
            is_over: farewell_is_empty && matches!(end, End::Goodbye),
            reason,
            kind,
        }
    }

    fn leave_queue(&mut self, now: Instant) {
        self.shard.leave(&self.ticket);
        self.shard.forget_dedicated(self.card.id);
        if let Some(Grant::Server(lease)) = self.ticket.take(std::task::Waker::noop()) {
            lease.give_back(now);
        }
    }

    /// Verdict over the server of a client that ends.
    fn part(&mut self, lease: Lease, end: &End, now: Instant) {
        if self.card.replication != Replication::None {
            return lease.close("replication client was closed");
        }
        if let End::Told(error) = end
            && !lease.is_free()
        {
            return lease.close(&error.to_string());
        }
        let settled = lease.link.is_settled() && lease.held.is_empty() && lease.backlog.is_empty();
        if !settled {
            let running = lease.link.owed.is_running();
            let reason = if running {
                "client disconnected with query in progress"
            } else {
                "client disconnect while server was not ready"
            };
            return lease.close(reason);
        }
        let settings = self.shard.settings();
        let mut queries = Vec::new();
        if lease.link.owed.status() != TxStatus::Idle {
            queries.push(b"ROLLBACK".to_vec());
        }
        let resets = settings.pool_mode == PoolMode::Session || settings.server_reset_query_always;
        if let Some(query) = settings.server_reset_query.as_ref().filter(|_| resets) {
            queries.push(query.as_bytes().to_vec());
        }
        if queries.is_empty() {
            lease.give_back(now)
        } else {
            lease.clean(queries)
        }
    }
}

/// What is left of a session: a socket, and what to tell before it is closed.
pub struct Ending {
    /// The client's socket.
    pub stream: Option<Stream>,
    /// The last bytes for it.
    pub farewell: Vec<u8>,
    /// The error among them.
    pub told: Option<ClientError>,
    /// The client has said goodbye, and there is nothing that it should still hear.
    pub is_over: bool,
    /// As the log says it.
    pub reason: String,
    /// What it is counted as, if that is an error.
    pub kind: Option<ErrorKind>,
}
