//! A server is made to suit its client before it is linked, and is asked what the client has prepared before it goes home.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{End, Flow, Session, State};
use crate::config::PoolMode;
use crate::error::ClientError;
use crate::pool::lease::Lease;
use crate::server::align::Listed;
use crate::server::conn::{Outcome, ServerLost};
use crate::server::params;

/// How long a server may take to tell which statements were prepared.
pub const LISTING_TIMEOUT: Duration = Duration::from_secs(10);

impl Session {
    /// A server is there: its parameters are brought into line, then it gets what the client said.
    pub(super) fn attach(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        mut lease: Lease,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Flow, End> {
        self.shard.count(|stats| stats.server_assignment_count += 1);
        self.follow_settings();
        lease.card.request_time.set(now);
        self.card.last_reply.set(now);
        if !self.suits(&mut lease) {
            self.keep(input, 0);
            self.begin_aligning(lease);
            return Ok(Flow::Again);
        }
        self.link_with(lease);
        self.forward(cx, now, input, out)?;
        Ok(Flow::Again)
    }

    /// `max_prepared_statements` may have changed. Whoever has names that servers do not know keeps having them translated.
    fn follow_settings(&mut self) {
        let settings = self.shard.settings();
        let max = settings.max_prepared_statements as usize;
        let pooled = settings.pool_mode != PoolMode::Session;
        self.rules.max_prepared = max;
        self.rules.rewrite = pooled && max > 0 || !self.statements.names.is_empty();
    }

    /// True if the server can be used as it is.
    fn suits(&self, lease: &mut Lease) -> bool {
        let link = &mut lease.link;
        if !link.sql.agrees(&self.statements.sql) {
            let by_session = self.shard.settings().pool_mode == PoolMode::Session;
            if !by_session || self.statements.sql.is_some() {
                return false;
            }
            link.sql.clear(); // whatever was left there is the reset query's business
        }
        let tracked = &self.around.space.tracked;
        params::agree(&self.params, &link.params, link.reported)
            || params::alignment(tracked, &self.params, &link.params, link.reported).is_none()
    }

    fn begin_aligning(&mut self, mut lease: Lease) {
        lease.card.linked.set(Some(self.card.id));
        let space = self.around.space.clone();
        let (params, sql) = (self.params.clone(), self.statements.sql.clone());
        self.enter(State::Aligning(Box::pin(async move {
            let outcome = lease.suit(&params, &sql, &space).await;
            (lease, outcome)
        })));
    }

    pub(super) fn align(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        let State::Aligning(work) = &mut self.state else {
            return Ok(Flow::Again);
        };
        let Poll::Ready((mut lease, outcome)) = work.as_mut().poll(cx) else {
            // It may take as long as a lock is held: the client's end has to be noticed.
            return self.read_ahead(cx, now);
        };
        match outcome {
            Ok(Outcome::Ok) => {}
            Ok(Outcome::Failed(message)) => {
                let message = String::from_utf8_lossy(&message);
                tracing::warn!("varcache_apply failed: {message}");
                self.enter(State::Idle);
                lease.give_back(now);
                return Err(End::Told(ClientError::new("invalid server parameter")));
            }
            Err(lost) => {
                self.enter(State::Idle);
                lease.close(lost.reason());
                return Err(End::Told(ClientError::new(lost.reason())));
            }
        }
        let space = &self.around.space;
        let (client, server) = params::aligned(
            &space.tracked,
            &self.params,
            &lease.link.params,
            lease.link.reported,
        );
        lease.link.params = space.interner.borrow_mut().intern(server);
        lease.update_card();
        let client = space.interner.borrow_mut().intern(client);
        self.set_params(client);
        self.link_with(lease);
        let input = std::mem::take(&mut self.held);
        let around = self.around.clone();
        let scratch = &mut *around.scratch.borrow_mut();
        self.forward(cx, now, &input, &mut scratch.out)?;
        Ok(Flow::Again)
    }

    pub(super) fn send_home(&self, lease: Lease, now: Instant) {
        let settings = self.shard.settings();
        match &settings.server_reset_query {
            Some(query) if settings.server_reset_query_always => {
                lease.clean(vec![query.as_bytes().to_vec()])
            }
            _ => lease.give_back(now),
        }
    }

    /// The client has prepared or dropped statements by SQL: which it has now, only the server can tell.
    pub(super) fn begin_listing(&mut self, mut lease: Lease) {
        let space = self.around.space.clone();
        let before = self.statements.sql.clone();
        self.enter(State::Listing(Box::pin(async move {
            let work = lease.list_statements(&before, &space);
            let listed = tokio::time::timeout(LISTING_TIMEOUT, work).await;
            (lease, listed.unwrap_or(Err(ServerLost::Unclear)))
        })));
    }

    pub(super) fn list(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<Flow, End> {
        self.flush(cx)?;
        let State::Listing(work) = &mut self.state else {
            return Ok(Flow::Again);
        };
        let Poll::Ready((lease, listed)) = work.as_mut().poll(cx) else {
            return Ok(Flow::Wait);
        };
        self.enter(State::Idle);
        self.unlink();
        let (reason, error) = match listed {
            Ok(Listed::Ok(names)) => {
                self.statements.sql = names;
                self.send_home(lease, now);
                return Ok(Flow::Again);
            }
            Ok(Listed::TooMany(many)) => {
                ("too many statements", ClientError::with(many.to_string()))
            }
            Ok(Listed::Failed(message)) => {
                let message = String::from_utf8_lossy(&message);
                tracing::warn!("could not list prepared statements: {message}");
                let reason = ServerLost::Unclear.reason();
                (reason, ClientError::new(reason))
            }
            Err(lost) => (lost.reason(), ClientError::new(lost.reason())),
        };
        lease.close(reason);
        Err(End::Told(error))
    }
}
