//! A session that is linked with a server: bytes both ways, until the server is free.

use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use super::{AHEAD_MAX, End, Flow, Session, State, Turn, write_or_keep};
use crate::client::deliver::{self, Deliver};
use crate::client::forward::{Forward, Stop};
use crate::client::login::Replication;
use crate::client::statements::Counts;
use crate::config::PoolMode;
use crate::metrics::PinReason;
use crate::pool::lease::Lease;
use crate::server::conn::ServerLost;
use crate::types::TxStatus;
use crate::wire::splice::Splice;
use crate::wire::tag::from_client;

impl Session {
    pub(super) fn relay(&mut self, turn: &mut Turn<'_, '_>, read: &mut [u8]) -> Result<Flow, End> {
        // Both directions in turn: one that never rests must not starve the other.
        let flushed = self.flush(turn.cx)?;
        let from_server = if flushed {
            self.pump_server(turn, read)?
        } else {
            Flow::Wait
        };
        let from_client = self.pump_client(turn, read)?;
        let moved = from_server == Flow::Again || from_client == Flow::Again;
        if moved { Ok(Flow::Again) } else { self.rest() }
    }

    /// From the server to the client.
    fn pump_server(&mut self, turn: &mut Turn<'_, '_>, read: &mut [u8]) -> Result<Flow, End> {
        let State::Attached(lease) = &mut self.state else {
            return Ok(Flow::Again);
        };
        let n = match lease.stream.poll_read(turn.cx, read) {
            Poll::Pending => return Ok(Flow::Wait),
            Poll::Ready(Ok(n)) if n > 0 => n,
            Poll::Ready(_) => return Err(self.server_lost(&ServerLost::Gone)),
        };
        self.card.last_reply.set(turn.now);
        self.shard.count(|stats| stats.bytes_sent += n as u64);
        if lease.held.is_empty() {
            self.deliver(turn, &read[..n])?;
        } else {
            let mut input = std::mem::take(&mut lease.held);
            input.extend_from_slice(&read[..n]);
            self.deliver(turn, &input)?;
        }
        if self.busy && matches!(self.state, State::Attached(_)) {
            let input = std::mem::take(&mut self.held);
            self.forward(turn, &input)?;
        }
        Ok(Flow::Again)
    }

    fn deliver(&mut self, turn: &mut Turn<'_, '_>, input: &[u8]) -> Result<(), End> {
        let State::Attached(lease) = &mut self.state else {
            return Ok(());
        };
        turn.out.clear();
        let mut splice = Splice::new(input, turn.out);
        let findings = {
            let space = &self.around.space;
            let mut walk = Deliver {
                link: &mut lease.link,
                statements: &mut self.statements,
                params: &mut self.params,
                tracked: &space.tracked,
                interner: &mut space.interner.borrow_mut(),
                max_packet_size: self.rules.max_packet_size,
            };
            walk.run(&mut splice)
        };
        let (bytes, consumed) = splice.finish();
        let findings = match findings {
            Ok(findings) => findings,
            Err(fault) => {
                self.write(turn.cx, bytes)?;
                return Err(self.server_faulty(fault));
            }
        };
        if consumed < input.len() {
            lease.held.extend_from_slice(&input[consumed..]);
        }
        if findings.in_block && self.shard.link_rules().pool_mode == PoolMode::Statement {
            return Err(self.refuse_transaction());
        }
        self.shard.gauges().to_client(bytes.len() as u64);
        self.write(turn.cx, bytes)?;
        if let State::Attached(lease) = &mut self.state
            && lease
                .note_streamed(input.len(), findings.ready.is_some())
                .is_err()
        {
            return Err(self.server_lost(&ServerLost::Gone));
        }
        if findings.parameters {
            self.card.set_params(self.params.clone());
            if let State::Attached(lease) = &self.state {
                lease.update_card();
            }
        }
        if findings.ready.is_some() {
            self.note_ready(turn.now);
        }
        Ok(())
    }

    /// ReadyForQuery has been passed on: statistics, and perhaps the server goes home.
    fn note_ready(&mut self, now: Instant) {
        let State::Attached(lease) = &self.state else {
            return;
        };
        let status = lease.link.owed.status();
        self.card.status.set(status);
        if !lease.link.is_settled() {
            self.note_pin(status);
            return;
        }
        lease.card.running.set(false);
        let free = lease.is_free();
        self.count_times(status, now);
        if free {
            self.release(now);
        } else {
            self.note_pin(status);
        }
    }

    /// ReadyForQuery has come, and the server is not free: if no transaction goes on, that needs another reason.
    #[cold]
    fn note_pin(&self, status: TxStatus) {
        let State::Attached(lease) = &self.state else {
            return;
        };
        let is_pooled = self.shard.link_rules().pool_mode != PoolMode::Session;
        if status == TxStatus::Idle && is_pooled && self.card.replication == Replication::None {
            self.shard.gauges().pinned(if lease.link.owed.is_settled() {
                PinReason::PartialMessage
            } else {
                PinReason::Pipeline
            });
        }
    }

    /// A query round, and perhaps its transaction, has ended.
    fn count_times(&self, status: TxStatus, now: Instant) {
        let query = self.card.query_start.take();
        let xact = if status == TxStatus::Idle {
            self.card.xact_start.take()
        } else {
            None
        };
        let micros = |since: Option<Instant>| {
            since.map_or(0, |since| {
                now.saturating_duration_since(since).as_micros() as u64
            })
        };
        let query_time = micros(query);
        // Most transactions are one query.
        let xact_time = if xact == query {
            query_time
        } else {
            micros(xact)
        };
        self.shard.count(|stats| {
            stats.query_time += query_time;
            stats.xact_time += xact_time;
        });
        let xact_time = xact.map(|_| xact_time);
        let gauges = self.shard.gauges();
        match (query, xact_time) {
            (Some(_), xact_time) => gauges.query_ended(query_time, xact_time),
            (None, Some(xact_time)) => gauges.transaction_ended(xact_time),
            (None, None) => {}
        }
    }

    /// The server is free: unless the client keeps it, it goes home.
    fn release(&mut self, now: Instant) {
        let pool_mode = self.shard.link_rules().pool_mode;
        if pool_mode == PoolMode::Session || self.card.replication != Replication::None {
            return;
        }
        let State::Attached(lease) = std::mem::replace(&mut self.state, State::Idle) else {
            return;
        };
        if !lease.link.sql.is_known() {
            self.shard.gauges().pinned(PinReason::SqlPrepared);
            return self.begin_listing(lease);
        }
        self.enter(State::Idle);
        self.unlink();
        self.send_home(lease, now);
    }

    pub(super) fn unlink(&mut self) {
        self.card.linked.set(None);
        self.card.status.set(TxStatus::Idle);
    }

    /// From the client to the server.
    fn pump_client(&mut self, turn: &mut Turn<'_, '_>, read: &mut [u8]) -> Result<Flow, End> {
        let State::Attached(lease) = &mut self.state else {
            return Ok(Flow::Again);
        };
        if !flush_server(lease, turn.cx).map_err(|_| End::told(ServerLost::Gone.client_error()))? {
            return Ok(Flow::Wait);
        }
        if self.busy && self.held.len() >= AHEAD_MAX {
            return Ok(Flow::Wait);
        }
        let Some(n) = self.poll_read(turn.cx, read)? else {
            return Ok(Flow::Wait);
        };
        self.card.last_input.set(turn.now);
        // A good-bye is no request. (In the middle of a message the request has been noted already.)
        if !(self.held.is_empty() && read[0] == from_client::TERMINATE) {
            self.note_request(turn.now);
        }
        if self.held.is_empty() {
            self.forward(turn, &read[..n])?;
            return Ok(Flow::Again);
        }
        self.held.extend_from_slice(&read[..n]);
        if self.held.len() >= self.need as usize {
            let input = std::mem::take(&mut self.held);
            self.forward(turn, &input)?;
        }
        Ok(Flow::Again)
    }

    pub(super) fn forward(&mut self, turn: &mut Turn<'_, '_>, input: &[u8]) -> Result<(), End> {
        let State::Attached(lease) = &mut self.state else {
            return Ok(());
        };
        turn.out.clear();
        let mut counts = Counts::default();
        let mut splice = Splice::new(input, turn.out);
        let mut walk = Forward {
            rules: self.rules,
            statements: &mut self.statements,
            link: &mut lease.link,
            cache: &self.around.cache,
            counts: &mut counts,
        };
        let stop = walk.run(&mut splice);
        let (bytes, consumed) = splice.finish();
        let lease_server = &mut **lease;
        let written = write_or_keep(
            &mut lease_server.stream,
            &mut lease_server.backlog,
            turn.cx,
            bytes,
        );
        lease.card.running.set(lease.link.owed.is_running());
        self.shard.count(|stats| {
            stats.bytes_received += consumed as u64;
            stats.client_parse_count += counts.client_parses;
            stats.server_parse_count += counts.server_parses;
            stats.bind_count += counts.binds;
        });
        let gauges = self.shard.gauges();
        gauges.to_server(bytes.len() as u64);
        gauges.prepared_hits(counts.hits);
        if written.is_err() {
            return self.server_hung_up(turn);
        }
        self.answer_absorbed(turn)?;
        self.note_nothing_asked();
        self.need = 0;
        self.busy = false;
        match stop.map_err(End::told)? {
            Stop::Input => {}
            Stop::Busy => self.busy = true,
            Stop::NeedBytes(need) => self.need = need as u32,
            Stop::Terminate => return Err(End::Goodbye),
        }
        if consumed < input.len() {
            self.held.extend_from_slice(&input[consumed..]);
        }
        Ok(())
    }

    /// What the client sent may ask for nothing (the late end of a failed COPY, a Flush): then no request has begun, and no timeout
    /// must wait for its end.
    fn note_nothing_asked(&mut self) {
        let State::Attached(lease) = &self.state else {
            return;
        };
        if lease.link.is_settled() {
            self.card.query_start.set(None);
            if lease.link.owed.status() == TxStatus::Idle {
                self.card.xact_start.set(None);
            }
        }
    }

    /// Replies of the pooler's own whose turn is now.
    fn answer_absorbed(&mut self, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let State::Attached(lease) = &mut self.state else {
            return Ok(());
        };
        self.card.prepared.set(self.statements.names.len() as u32);
        if lease.link.events.is_empty() || !lease.link.from_server.at_boundary() {
            return Ok(());
        }
        turn.out.clear();
        deliver::settle(&mut lease.link, &mut self.statements, turn.out);
        self.shard.gauges().to_client(turn.out.len() as u64);
        self.write(turn.cx, turn.out)
    }

    /// The server takes nothing any more; perhaps it has said why.
    fn server_hung_up(&mut self, turn: &mut Turn<'_, '_>) -> Result<(), End> {
        let State::Attached(lease) = &mut self.state else {
            return Ok(());
        };
        let mut input = std::mem::take(&mut lease.held);
        let mut chunk = [0; 4096];
        if let Poll::Ready(Ok(n)) = lease.stream.poll_read(turn.cx, &mut chunk) {
            input.extend_from_slice(&chunk[..n]);
            self.deliver(turn, &input)?;
        }
        Err(self.server_lost(&ServerLost::Gone))
    }
}

fn flush_server(lease: &mut Lease, cx: &mut Context<'_>) -> io::Result<bool> {
    let server = &mut **lease;
    if server.backlog.is_empty() && !server.stream.wants_flush() {
        return Ok(true);
    }
    match server.backlog.poll_flush(&mut server.stream, cx) {
        Poll::Pending => Ok(false),
        Poll::Ready(result) => result.map(|()| true),
    }
}
